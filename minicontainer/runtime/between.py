"""Who goes between: into a user namespace that is there, out of which there is no way back (user_namespaces(7)).

parent (stays outside)                go-between                        the child itself (init.py)
fork ───────────────────────────────▶ join what has a path,
                                      the user namespace last
                                      clone ──────────────────────────▶ born inside, of the same parent (CLONE_PARENT)
     ◀──────────────────── "born" ──  end
reap the go-between
     ──────────────────────────────────────────────────── "mapped" ───▶ go on

What is made after that belongs to the user namespace: the child's pid namespace by its birth, the others by its own
unshare(2). What has a path was made by somebody else, of whose user namespace this one may know nothing: it is joined
before (namespaces.BEFORE), by root of the machine, as runc has it.

Until their execve neither can be traced or looked into: who is root in there may see them, and what they hold is ours.
"""

from __future__ import annotations

import os

from .. import steps, syscalls
from ..kernel import namespaces
from . import channel, init

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    import _socket as socket
    from collections.abc import Iterator
    from typing import Any

    Given = tuple[tuple[str, Any], ...]


def send(
    child: list[steps.Step], spaces: list[dict[str, Any]], ours: steps.Symbol, theirs: steps.Symbol, report: bool,
    given: Given,
) -> Iterator[steps.Step]:  # fmt: skip
    """The parent's steps, which bind $pid to the process that performs the steps of `child`.

    `given`: as `init.fork` has it; among them namespaces.USER, where a user namespace is joined.
    """
    goes = list(plan(child, spaces, report, given))
    why = "one that joins a user namespace, and cannot come back"
    yield steps.call(init.fork, goes, ours, theirs, False, 0, given, why=why, result="pid")
    yield steps.call(adopt, ours, steps.PID, why="the child that it has left in there is ours, too", result="pid")


def plan(child: list[steps.Step], spaces: list[dict[str, Any]], report: bool, given: Given) -> Iterator[steps.Step]:
    """The go-between's steps, which end in the birth of the process that performs the steps of `child`."""
    yield steps.call(syscalls.hide, why="who is root in there must not look into us")
    yield from namespaces.of_kinds(spaces, namespaces.BEFORE, new_ones=False)
    if namespaces.joined(spaces, "user"):
        own = steps.Text(("/proc/self/fd/", namespaces.USER))
        yield steps.setns(own, namespaces.FLAGS["user"], why="what is made from here on belongs to it")
    kinds = namespaces.born_into(spaces)
    yield steps.call(born, child, init.CHANNEL, report, kinds, given, why="the child, whose parent is ours")


def born(child: list[steps.Step], end: socket.socket, report: bool, kinds: int, given: Given) -> None:
    """clone(2) a sibling into new namespaces of these `kinds`, tell our parent which process that is, and end."""
    pid = syscalls.fork(kinds | syscalls.CLONE_PARENT)
    if pid:
        channel.send(end, {"reached": "born", "pid": pid})
        os._exit(0)
    try:
        init.perform(child, end, report, **dict(given))
    finally:
        os._exit(127)


def adopt(end: socket.socket, other: int) -> int:
    """Wait until a go-between, or the joiner of an `exec`, has ended. Returns the pid of the child that it has left.

    Raises its error, or Gone. First its end, then its word: if it was killed, nobody says one, and its child has the
    other end of the channel.
    """
    _, status = os.waitpid(other, 0)
    while status == 0:
        message, _ = channel.receive(end)
        if message is None:
            break
        if "error" in message:
            raise channel.revive(message["error"])
        if message.get("reached") == "born":
            return int(message["pid"])
    raise channel.last_words(end) or channel.Gone("the process that was to go inside was killed")
