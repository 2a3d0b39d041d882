"""A container that is created and not started: its process waits, ready, at a fifo(7) (runtime.md, Lifecycle).

Whoever made it may have ended by then: `create` and `start` are two programs. So it lets go of its parent, and its
errors must have been told before: what execve(2) would refuse is looked for while somebody is there to hear of it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

import _prctl  # type: ignore[import-not-found]  # the C half of python-prctl: 0.3 ms, not 3

from .. import steps
from ..records import namedtuple
from . import channel, hooks, threshold

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    import _socket as socket
    from collections.abc import Iterator
    from typing import Any, NoReturn

FIFO = steps.Symbol("fifo")
STATE = steps.Symbol("state")


class Held(namedtuple("Held", "fifo state outlives kept")):
    """The path of the fifo where it waits; the OCI state that hooks get; whether it goes on when its parent ends; how
    many descriptors from 3 on are its own.
    """

    fifo: str
    state: dict[str, Any]
    outlives: bool
    kept: int


def prepare(held: Held) -> Iterator[steps.Step]:
    """What it needs of the host, first of all."""
    yield steps.call(open_fifo, held.fifo, held.kept, why="where it will wait, once it is ready", result="fifo")
    yield steps.call(hooks.numbered, held.state, why="its pid for the hooks: /proc is still the host's", result="state")


def command(
    held: Held, process: dict[str, Any], first: list[hooks.Hook], end: steps.Symbol, sealed: steps.Symbol
) -> Iterator[steps.Step]:
    """To wait, to run the `first` hooks (startContainer), and to become the command; nothing comes after that."""
    if held.outlives:
        yield outliving()
    yield steps.call(
        execute,
        process["args"],
        process["env"],
        end,
        sealed,
        FIFO,
        first,
        STATE,
        held.kept,
        why="once somebody starts it: the same process, new program",
    )


def outliving() -> steps.Step:
    """From here on it goes on when its parent ends."""
    return steps.call(outlive, why="its parent may end from here on: it is ready")


def open_fifo(path: str, kept: int) -> int:
    """The fifo, open for both ends: so a read waits for a word, and does not end because nobody writes yet.

    `start` takes the end of this descriptor for the execve(2). So it lies above the place where `threshold.cross` puts
    the channel: dup2(2) would close it before.
    """
    opened = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, threshold.CHANNEL + kept + 1)
    finally:
        os.close(opened)


def outlive() -> None:
    """Whoever made us may end without us."""
    _prctl.prctl(_prctl.PR_SET_PDEATHSIG, 0)


def execute(
    arguments: list[str],
    environment: list[str],
    end: socket.socket,
    sealed: int,
    fifo: int,
    first: list[hooks.Hook],
    state: dict[str, Any],
    kept: int,
) -> NoReturn:
    """Say that all is ready, and become the command when a byte comes out of the fifo.

    Raises CommandNotFound and CommandNotExecutable before it waits.
    """
    variables = dict(line.split("=", 1) for line in environment if "=" in line)
    path = threshold.find(arguments[0], variables)
    check(path)
    channel.tell(end, "created")
    os.read(fifo, 1)
    hooks.run(first, {**state, "status": "created"}, hooks.Inside(sealed, kept))
    threshold.cross(sealed, end.fileno(), path, arguments, variables, kept)


def check(path: str) -> None:
    """Raise what execve(2) would refuse."""
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        raise threshold.refusal(error.errno or 0, path) from None
    # A container's filter may not know faccessat2(2), which asks for the effective ids. The real ones are the same.
    allowed = os.access(path, os.X_OK, effective_ids=True) or os.access(path, os.X_OK)
    if not regular or not allowed:
        raise threshold.refusal(errno.EACCES, path)
