"""Terminals: the pseudo-terminal under `-t` (pty(7)).

The slave is the container's stdin, stdout, stderr and /dev/console; it comes from the container's own /dev/pts, so that
`tty` inside names it truly. The master travels to whoever attaches, who puts the own terminal into raw mode and relays.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
import termios

from .. import errors, files, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# asm-generic/ioctls.h
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441


def open_pty(uid: int, rows: int = 0, columns: int = 0) -> int:
    """Open a pseudo-terminal of the container's /dev/pts and make its slave this session's terminal and stdio.

    It has its size before any program can ask for it; whoever attaches changes it later (`resize`). Returns the master.
    The caller is a session leader (setsid(2)) without a terminal, inside the new root.
    """
    try:
        master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise errors.KernelError(error.errno or 0, "open", ("/dev/pts/ptmx",)) from None
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    os.fchown(slave, uid, -1)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    syscalls.mount(f"/dev/pts/{os.path.basename(os.ttyname(slave))}", console(), "", syscalls.MS_BIND)
    for descriptor in (0, 1, 2):
        os.dup2(slave, descriptor)
    os.close(slave)
    return master


def console() -> str:
    """/dev/console, an empty file to bind the slave on, made if missing."""
    os.close(os.open("/dev/console", os.O_CREAT | os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC, 0o600))
    return "/dev/console"


def size_of(terminal: int) -> bytes:
    """struct winsize of a terminal, as bytes (ioctl_tty(2), TIOCGWINSZ)."""
    return fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8))


def resize(master: int, terminal: int) -> None:
    """Give the container's terminal the size of ours; the kernel tells its foreground group by SIGWINCH."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, size_of(terminal))


class raw:
    """`with terminal.raw(0):` every byte goes through as it was typed, ctrl-C too (termios(3), cfmakeraw)."""

    def __init__(self, terminal: int) -> None:
        self.terminal = terminal

    def __enter__(self) -> None:
        self.before = termios.tcgetattr(self.terminal)
        iflag, oflag, cflag, lflag, ispeed, ospeed, cc = self.before
        iflag &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
            | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        oflag &= ~termios.OPOST
        lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        termios.tcsetattr(self.terminal, termios.TCSADRAIN, [iflag, oflag, cflag, lflag, ispeed, ospeed, cc])

    def __exit__(self, *_: object) -> None:
        termios.tcsetattr(self.terminal, termios.TCSADRAIN, self.before)


def relay(outputs: dict[int, int], inputs: dict[int, int], end: int, ended: Callable[[], bool]) -> None:
    """Copy from each source to its destination until `ended()` says that the container is gone.

    `end` is a descriptor that becomes readable when that may have happened. What the container wrote last is copied
    before this returns. Where an input ends, the pipe behind it is closed, and the container reads the end, too.
    """
    sources = {**outputs, **inputs}
    gone = False
    while not gone:
        ready, _, _ = select.select([*sources, end], [], [])
        for source in ready:
            if source in sources and not copy(source, sources[source]):
                destination = sources.pop(source)
                if source in inputs and not os.isatty(destination):
                    os.close(destination)
        gone = end in ready and ended()
    for source in outputs:
        while source in sources and select.select([source], [], [], 0)[0] and copy(source, sources[source]):
            pass


def copy(source: int, destination: int) -> bool:
    """Copy what can be read at once. False at the end: no more, or (EIO) nobody holds the terminal's slave open."""
    try:
        data = os.read(source, 65536)
        files.write_all(destination, data)
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EPIPE):  # EPIPE: the container has closed its input
            raise
        return False
    return bool(data)
