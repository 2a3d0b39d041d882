"""Namespaces: what a process can see (namespaces(7)).

Input is the OCI spec's `linux.namespaces`: a list of {"type", "path"?}. Without a path the namespace is made new,
with one it is entered. A kind that the list leaves out is shared with the host.

The pid namespace is special: it takes in only children, so the parent makes it before it forks. All others the child
makes for itself.
"""

from __future__ import annotations

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
}

# What `ls /proc/PID/ns` calls them.
FILES = {"mount": "mnt", "network": "net"}


def of_kinds(namespaces: list[dict[str, Any]], kinds: tuple[str, ...]) -> Iterator[steps.Step]:
    """Enter or make those namespaces of the list that are of these kinds, all the new ones by a single unshare(2).

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
            yield steps.setns(namespace["path"], FLAGS[kind], why=f"share the {kind} namespace of another process")
        else:
            new |= FLAGS[kind]
            why.append(WHY[kind])
    if new:
        yield steps.unshare(new, why="; ".join(why))


def new(namespaces: list[dict[str, Any]], kind: str) -> bool:
    """Whether the list asks for a new namespace of this kind."""
    return any(namespace["type"] == kind and not namespace.get("path") for namespace in namespaces)


def path(pid: int, kind: str) -> str:
    """The file of a process's namespace: `/proc/PID/ns/net`."""
    return f"/proc/{pid}/ns/{FILES.get(kind, kind)}"
