"""Namespaces: what a process can see (namespaces(7)).

Input is the OCI spec's `linux.namespaces`: a list of {"type", "path"?}. Without a path the namespace is made new,
with one it is entered. A kind that the list leaves out is shared with the host.

The pid namespace is special: it takes in only children, so the parent makes it before it forks. So does a time
namespace, whose clocks are set before anybody is in it; but into that one setns(2) leads, too (time_namespaces(7)). All
others the child makes for itself; but a user namespace owns those that are made in it, so with a new one the child is
born into both. One that is there is joined before, by a process that cannot come back from there (runtime/between.py).
"""

from __future__ import annotations

import os

from .. import errors, steps, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Iterator
    from typing import Any

FLAGS = {
    "pid": syscalls.CLONE_NEWPID,
    "mount": syscalls.CLONE_NEWNS,
    "uts": syscalls.CLONE_NEWUTS,
    "ipc": syscalls.CLONE_NEWIPC,
    "network": syscalls.CLONE_NEWNET,
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "user": syscalls.CLONE_NEWUSER,
    "time": syscalls.CLONE_NEWTIME,
}

WHY = {
    "pid": "its own process numbers: the first process inside is 1",
    "mount": "its own list of mounts: none of ours reaches the host",
    "uts": "its own host name",
    "ipc": "its own System V objects and message queues",
    "network": "its own interfaces, addresses, routes and rules",
    "cgroup": "its own cgroup as the root of /sys/fs/cgroup",
    "time": "clocks of its own that count from another moment",
}

# What `ls /proc/PID/ns` calls them.
FILES = {"mount": "mnt", "network": "net"}


# A descriptor of the user namespace that is joined (idmap.open_namespace).
USER = steps.Symbol("user_namespace")


def of_kinds(
    namespaces: list[dict[str, Any]], kinds: tuple[str, ...], new_ones: bool = True, inside: tuple[str, ...] = ()
) -> Iterator[steps.Step]:
    """Enter or make those namespaces of the list that are of these kinds, all the new ones by a single unshare(2).

    Without `new_ones`, none is made. Of the kinds that we are `inside` of already, none is entered.

    Raises InvalidArgument for a type that the specification (config-linux.md, Namespaces) does not have.
    """
    new, why = 0, []
    for namespace in namespaces:
        kind = namespace["type"]
        if kind not in FLAGS:
            raise errors.InvalidArgument(f"there is no namespace of type {kind!r}: use one of {', '.join(FLAGS)}")
        if kind not in kinds:
            continue
        if namespace.get("path"):
            if kind in inside:
                continue
            yield steps.setns(namespace["path"], FLAGS[kind], why=f"share the {kind} namespace of another process")
        else:
            new |= FLAGS[kind]
            why.append(WHY[kind])
    if new and new_ones:
        yield steps.unshare(new, why="; ".join(why))


def clocks(namespaces: list[dict[str, Any]], offsets: dict[str, dict[str, int]]) -> Iterator[steps.Step]:
    """A new time namespace, whose clocks ("monotonic", "boottime") are ahead by these secs and nanosecs."""
    if not new(namespaces, "time"):
        return
    yield steps.unshare(syscalls.CLONE_NEWTIME, why=WHY["time"])
    for clock, offset in offsets.items():
        line = f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}"
        yield steps.put("/proc/self/timens_offsets", line, why="set before anybody has looked at them, and never again")
    yield steps.setns("/proc/self/ns/time_for_children", syscalls.CLONE_NEWTIME, why="not only my children: I myself")


def new(namespaces: list[dict[str, Any]], kind: str) -> bool:
    """Whether the list asks for a new namespace of this kind."""
    return any(namespace["type"] == kind and not namespace.get("path") for namespace in namespaces)


def has(namespaces: list[dict[str, Any]], kind: str) -> bool:
    """Whether the list has a namespace of this kind, be it new or joined: not the one that we are in."""
    return any(namespace["type"] == kind for namespace in namespaces)


def joined(namespaces: list[dict[str, Any]], kind: str) -> str:
    """The path of the namespace of this kind that is to be joined; none, if it is new or ours."""
    return next((entry["path"] for entry in namespaces if entry["type"] == kind and entry.get("path")), "")


# Those that a process before the child joins, where that has a user namespace: it could enter those of that one alone.
# Not a mount namespace, in which the paths of the others mean nothing, and not a cgroup namespace, out of which no
# other cgroup can be entered (cgroup_namespaces(7), nsdelegate): to the child, these are open or not.
BEFORE = ("network", "ipc", "uts", "time", "pid")


def go_between(namespaces: list[dict[str, Any]]) -> bool:
    """Whether a process before the child has to join some."""
    return has(namespaces, "user") and any(joined(namespaces, kind) for kind in ("user", *BEFORE))


def born_into(namespaces: list[dict[str, Any]]) -> int:
    """CLONE_NEW* flags for a child that gets a user namespace: its new pid namespace has to belong to that. Or 0."""
    if not has(namespaces, "user"):
        return 0
    kinds = [kind for kind in ("user", "pid") if new(namespaces, kind)]
    return sum(FLAGS[kind] for kind in kinds)


def path(pid: int, kind: str) -> str:
    """The file of a process's namespace: `/proc/PID/ns/net`."""
    return f"/proc/{pid}/ns/{FILES.get(kind, kind)}"


def foreign(pid: int) -> int:
    """The CLONE_NEW* flags of those namespaces of a process that are not our own. Raises KernelError."""
    flags = 0
    for kind, flag in FLAGS.items():
        try:
            theirs = os.readlink(path(pid, kind))
            ours = os.readlink(f"/proc/self/ns/{FILES.get(kind, kind)}")
        except FileNotFoundError:
            if os.path.exists(f"/proc/{pid}"):
                continue  # a kind that this kernel does not have
            raise errors.Conflict("the container has just ended") from None
        except OSError as error:
            hint = "the container belongs to another user"
            raise errors.KernelError(error.errno or 0, "readlink", (path(pid, kind),), hint) from None
        flags |= flag if theirs != ours else 0
    return flags


def join(process: int, flags: int) -> None:
    """setns(2) into several namespaces of one process, which a pidfd names (Linux 5.8); all of them, or none.

    Afterwards our root and working directory are those of its mount namespace. Its pid namespace is our children's.
    """
    try:
        syscalls.setns(process, flags)
    except errors.KernelError as error:
        error.hint = "is it the container of another user, or of a user namespace that is not ours? Enter it from there"
        raise
