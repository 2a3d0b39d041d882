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


def relay(master: int, stdin: int | None, stdout: int, until: Callable[[], bool], also: int) -> None:
    """Copy bytes between our terminal and the container's until `until()` says the container is gone.

    `also` is a descriptor that becomes readable when that may have happened. What the container wrote last is copied
    before this returns: a read of the master fails with EIO when nobody holds the slave any more.
    """
    sources = [master, also] if stdin is None else [master, also, stdin]
    ended = False
    while not ended:
        ready, _, _ = select.select(sources, [], [])
        if stdin in ready and stdin is not None:
            typed = os.read(stdin, 65536)
            if typed:
                files.write_all(master, typed)
            else:
                sources.remove(stdin)
        if also in ready and until():
            ended = True
        if master in ready and not copy(master, stdout):
            ended = ended or until()
            sources = [source for source in sources if source != master]
    while master in sources and select.select([master], [], [], 0)[0] and copy(master, stdout):
        pass


def copy(master: int, stdout: int) -> bool:
    """Copy what the container wrote. False at the end: EIO, nobody has the slave open."""
    try:
        data = os.read(master, 65536)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return False
    files.write_all(stdout, data)
    return bool(data)
