"""What `run`, `start -a` and `attach` share: our terminal and signals are the container's, until one of us ends."""

from __future__ import annotations

import os
import sys

from .. import signals as signal
from ..kernel import terminal
from ..runtime import session as sessions
from . import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Callable
    from typing import Any

    Report = Callable[[dict[str, Any]], None]

CATCHABLE = set(signal.valid_signals()) - {
    signal.SIGCHLD, signal.SIGPIPE, signal.SIGKILL, signal.SIGSTOP, signal.SIGWINCH, signal.SIGURG,
    # Ours: a fault of this process, and job control of its terminal.
    signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU,
}  # fmt: skip


class Signals:
    """`with Signals() as signals:` what is sent to us is passed on to the container, as soon as there is one."""

    def __init__(self, proxy: bool = True) -> None:
        self.caught = CATCHABLE if proxy else set()
        self.early: list[int] = []
        self.session: sessions.Session | None = None

    def __enter__(self) -> Signals:
        self.before = {number: signal.signal(number, self.forward) for number in self.caught}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def forward(self, number: int, _: object) -> None:
        """The handler."""
        if self.session:
            self.session.send_signal(number)
        else:
            self.early.append(number)

    def lead_to(self, session: sessions.Session) -> None:
        """The container is there: it gets what has come until now, and what is to come."""
        self.session = session
        for number in self.early:
            session.send_signal(number)


def stay(
    session: sessions.Session,
    stdin: bool,
    signals: Signals,
    keys: bytes = sessions.DETACH,
    report: Report | None = None,
    left: Callable[[], None] | None = None,
) -> int:
    """Relay between us and a started container until it has ended, or we are detached. Returns the exit code for us.

    `left` is called once somebody has typed `keys`.
    """
    signals.lead_to(session)
    code = at_terminal(session, stdin, keys, report)
    if code is None:
        print("read escape sequence", file=sys.stderr)
        if left:
            left()
        return 0
    return code


def at_terminal(session: sessions.Session, stdin: bool, keys: bytes, report: Report | None) -> int | None:
    """The same, with our terminal as it should be meanwhile; None if somebody typed `keys`."""
    if not session.terminal or not os.isatty(0):
        return session.relay(stdin, keys, report)

    def resize(*_: object) -> None:
        columns, rows = os.get_terminal_size(0)
        session.resize(rows, columns)

    resize()
    before = signal.signal(signal.SIGWINCH, resize)
    try:
        if not stdin:
            return session.relay(False, keys, report)  # nobody types into it: ctrl-C is ours, and we pass it on
        with terminal.raw(0):
            return session.relay(True, keys, report)
    finally:
        signal.signal(signal.SIGWINCH, before)


def keys(text: str | None) -> bytes:
    """`ctrl-p,ctrl-q` or `a,ctrl-x` as the bytes that a terminal sends; None: the default; empty: none at all."""
    if text is None:
        return sessions.DETACH
    found = b""
    for key in text.split(",") if text else ():
        control = key.lower().removeprefix("ctrl-")
        if key.lower().startswith("ctrl-") and len(control) == 1 and control in "@abcdefghijklmnopqrstuvwxyz[\\]^_":
            found += bytes([ord(control.upper()) & 31])
        elif len(key) == 1 and key.isascii():
            found += key.encode()
        else:
            raise UsageError(f"invalid detach keys {text!r}: letters and ctrl-LETTER, with commas between")
    return found
