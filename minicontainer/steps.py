"""The one idea of this engine: a container is a list of steps.

A step is a verb, its arguments, one line of *why* and the concept it belongs to. A command first plans (a generator
of steps; pure: it reads facts and touches nothing), then `execute` performs the list. The same list is printed by
`--explain`, rendered as a shell script, killed at every point by the crash test, and taken apart by the labs.

    def root_filesystem(spec):
        yield steps.mount("proc", "/proc", "proc", NOSUID | NODEV | NOEXEC, why="ps reads it")

Contract: everything a step needs stands in its arguments. What is known only at run time (a pid, an address) stands
there as a `Symbol`, which an earlier step's `result` has bound. A `Text` is a string with symbols in it.
"""

from __future__ import annotations

import os
import time

from . import files, syscalls
from .records import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from . import netlink


class Symbol(namedtuple("Symbol", "name")):
    """A value that only run time knows; `$name` in the shell script."""

    name: str

    def __str__(self) -> str:
        return f"${self.name}"


class Text(tuple):  # type: ignore[type-arg]
    """A string with symbols in it: `Text(("/proc/", PID, "/ns/net"))`."""

    def __str__(self) -> str:
        return "".join(map(str, self))


PID = Symbol("pid")  # the container's init, as this machine numbers it
ADDRESS = Symbol("address")  # the leased address, dotted quad


class Step(
    namedtuple(
        "Step",
        "verb arguments why concept result",
        defaults=(
            "",
            "",
        ),
    )
):
    """One thing done to the kernel or to the disk."""

    verb: str
    arguments: tuple[Any, ...]
    why: str
    concept: str
    result: str


if TYPE_CHECKING:
    Plan = Iterable[Step]
    Values = dict[str, Any]
    Observer = Callable[[Step, float, float], None]


def execute(plan: Plan, values: Values, observe: Observer | None = None) -> None:
    """Perform the steps in order; bind what they return in `values`.

    `observe(step, began, ended)` is called after each step with two readings of the monotonic clock, in seconds.
    An exception leaves at once, with the step's why as a note (BaseException.add_note).
    """
    for step in plan:
        began = time.monotonic() if observe else 0.0
        try:
            outcome = VERBS[step.verb](*[resolve(argument, values) for argument in step.arguments])
        except Exception as error:
            error.add_note(f"at the step {step.verb} ({step.why})")
            raise
        if step.result:
            values[step.result] = outcome
        if observe:
            observe(step, began, time.monotonic())


def resolve(argument: Any, values: Values) -> Any:
    """The argument with every symbol in it replaced by its value."""
    kind = type(argument)
    if kind is Symbol:
        return values[argument.name]
    if kind is Text:
        return "".join(str(resolve(part, values)) for part in argument)
    if kind is tuple or kind is list:
        return kind(resolve(part, values) for part in argument)
    return argument


def about(concept: str, plan: Plan) -> Iterator[Step]:
    """The same steps, each that names no concept yet told to belong to this one."""
    for step in plan:
        yield step if step.concept else step._replace(concept=concept)


# What steps are made of: the files of the disk ...


def mkdir(path: str | Text, mode: int = 0o755, *, why: str) -> Step:
    """A directory, and its parents; none of it is an error if it is there."""
    return Step("mkdir", (path, mode), why)


def rmdir(path: str | Text, *, why: str) -> Step:
    """The empty directory is gone afterwards."""
    return Step("rmdir", (path,), why)


def write(path: str | Text, content: str | Text, *, why: str) -> Step:
    """A whole file, replaced atomically."""
    return Step("write", (path, content), why)


def put(path: str | Text, content: str | Text, *, why: str) -> Step:
    """One write(2) into a file of /proc, /sys or a cgroup."""
    return Step("put", (path, content), why)


def symlink(target: str | Text, path: str | Text, *, why: str) -> Step:
    """A symbolic link; FileExistsError if the name is taken."""
    return Step("symlink", (target, path), why)


def unlink(path: str | Text, *, why: str) -> Step:
    """The name is gone afterwards."""
    return Step("unlink", (path,), why)


def remove_tree(path: str | Text, *, why: str) -> Step:
    """The directory and all below it are gone afterwards."""
    return Step("remove_tree", (path,), why)


# ... mounts ...


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "", *, why: str) -> Step:
    """mount(2)."""
    return Step("mount", (source, target, kind, flags, data), why)


def umount(target: str, flags: int = 0, *, why: str) -> Step:
    """umount2(2)."""
    return Step("umount", (target, flags), why)


def umount_all(target: str, flags: int = 0, *, why: str) -> Step:
    """umount2(2) until nothing is mounted there, which may be at once."""
    return Step("umount_all", (target, flags), why)


def pivot_root(new_root: str, put_old: str, *, why: str) -> Step:
    """pivot_root(2)."""
    return Step("pivot_root", (new_root, put_old), why)


def chdir(path: str, *, why: str) -> Step:
    """chdir(2)."""
    return Step("chdir", (path,), why)


# ... processes and namespaces ...


def unshare(flags: int, *, why: str) -> Step:
    """unshare(2)."""
    return Step("unshare", (flags,), why)


def setns(path: str | Text, kind: int, *, why: str) -> Step:
    """Enter the namespace that `path` (under /proc/PID/ns) names: open(2), setns(2)."""
    return Step("setns", (path, kind), why)


def sethostname(name: str, *, why: str) -> Step:
    """sethostname(2)."""
    return Step("sethostname", (name,), why)


# ... the network: what `ip` and `nft` do. Devices go by their names; `namespace` is a pid, 0 for our own namespace ...


def link_add(
    name: str,
    kind: str,
    *,
    peer: str = "",
    namespace: int | Symbol = 0,
    master: str = "",
    mtu: int = 0,
    mac: str = "",
    up: bool = False,
    exist_ok: bool = False,
    peer_mac: str = "",
    parent: str = "",
    mode: str = "",
    why: str,
) -> Step:
    """RTM_NEWLINK: a bridge, or a veth pair whose other end `peer` is made inside `namespace`; see netlink.link_add."""
    words = name, kind, peer, namespace, master, mtu, mac, up, exist_ok, peer_mac, parent, mode
    return Step("link_add", words, why)


def link_set(
    name: str,
    *,
    up: bool | None = None,
    master: str = "",
    mtu: int = 0,
    namespace: int | Symbol = 0,
    hairpin: bool = False,
    isolated: bool = False,
    why: str,
) -> Step:
    """RTM_SETLINK: a device on or off, a port of a bridge, another MTU; a port that may be answered out of itself, or
    that other such ports do not hear."""
    return Step("link_set", (name, up, master, mtu, namespace, hairpin, isolated), why)


def link_delete(name: str, *, namespace: int | Symbol = 0, why: str) -> Step:
    """RTM_DELLINK: the device, and a veth's other end, are gone afterwards."""
    return Step("link_delete", (name, namespace), why)


def link_wait(name: str, *, why: str) -> Step:
    """RTM_GETLINK until packets pass through the device."""
    return Step("link_wait", (name,), why)


def address_add(device: str, address: str | Text, *, namespace: int | Symbol = 0, why: str) -> Step:
    """RTM_NEWADDR: "172.30.0.2/16" on the device."""
    return Step("address_add", (device, address, namespace), why)


def route_add(
    destination: str, gateway: str, *, namespace: int | Symbol = 0, device: str = "", why: str
) -> Step:  # fmt: skip
    """RTM_NEWROUTE: `destination` ("default") through `gateway`, or behind `device`."""
    return Step("route_add", (destination, gateway, namespace, device), why)


def nft(*commands: netlink.Command, why: str) -> Step:
    """One transaction of the firewall; netlink.nft_text gives each command as nft(8) writes it."""
    return Step("nft", commands, why)


# ... and anything else: a concept's own function, or a learner's.


def call(function: Callable[..., Any], *arguments: Any, why: str, result: str = "") -> Step:
    """Call `function(*arguments)`: for what takes more than one system call. Its name is what `--explain` shows."""
    return Step("call", (function, *arguments), why, "", result)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _network(verb: str) -> Callable[..., Any]:
    """netlink's function of that name, imported when it is called: an OCI runtime's `start` and `delete` do without."""

    def call(*arguments: Any) -> Any:
        from . import netlink

        return getattr(netlink, verb)(*arguments)

    return call


VERBS: dict[str, Callable[..., Any]] = {
    "mkdir": files.make_directory,
    "rmdir": files.remove_directory,
    "write": lambda path, content: files.write(path, content.encode()),
    "put": files.put,
    "symlink": os.symlink,
    "unlink": files.unlink,
    "remove_tree": files.remove_tree,
    "mount": syscalls.mount,
    "umount": syscalls.umount,
    "umount_all": syscalls.umount_all,
    "pivot_root": syscalls.pivot_root,
    "chdir": os.chdir,
    "unshare": syscalls.unshare,
    "setns": syscalls.enter_namespace,
    "sethostname": syscalls.sethostname,
    "call": _call,
}
for verb in ("link_add", "link_set", "link_delete", "link_wait", "address_add", "route_add", "nft"):
    VERBS[verb] = _network(verb)
