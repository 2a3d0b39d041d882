"""`oci run` and `oci exec` with a terminal and nobody else to hold it: between ours and the container's."""

from __future__ import annotations

import errno
import os
import select

from .. import files
from .. import signals as signal
from ..kernel import terminal

SIGWINCH = 28  # signal(7): our terminal has another size


def until_ended(master: int, pid: int) -> None:
    """Relay until the process, a child of ours, has ended, and all is read that it has written.

    Where our standard input is a terminal, it is raw meanwhile, and its size is the container's.
    """
    process = os.pidfd_open(pid)
    slave = terminal.hold_slave(master)
    try:
        if not os.isatty(0):
            copy(master, process)
            return

        def resize(*_: object) -> None:
            columns, rows = os.get_terminal_size(0)
            terminal.set_size(master, rows, columns)

        signal.signal(SIGWINCH, resize)
        resize()
        with terminal.raw(0):
            copy(master, process)
    finally:
        for descriptor in {process, slave, master} - {-1}:
            os.close(descriptor)


def copy(master: int, process: int) -> None:
    """What is typed goes in, as fast as it is read there; what is written comes out."""
    typed, sources = b"", [0, master, process]
    ended = False
    while master in sources:
        waiting = [source for source in sources if source != 0 or not typed]
        ready, writable, _ = select.select(waiting, [master] if typed else [], [], 0 if ended else None)
        if ended and not ready:
            return
        if writable:
            typed = typed[os.write(master, typed[:1024]) :]  # less than a terminal's buffer: this does not block
        if 0 in ready:
            typed = os.read(0, 1 << 16)
            if not typed:
                sources.remove(0)
        if master in ready:
            written = output(master)
            files.write_all(1, written)
            if not written:
                sources.remove(master)
        if process in ready:
            ended = True
            sources = [master] if master in sources else []
    select.select([process], [], [])


def output(master: int) -> bytes:
    """What has been written to the terminal; nothing once nobody has it open (EIO)."""
    try:
        return os.read(master, 1 << 16)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""
