"""Terminals: the pseudo-terminal under `-t` (pty(7)).

The slave is the container's stdin, stdout, stderr and /dev/console; it comes from the container's own /dev/pts, so that
`tty` inside names it truly. The master stays with the monitor; whoever attaches puts the own terminal into raw mode.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios

from .. import errors, syscalls

# asm-generic/ioctls.h
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441


def open_pty(uid: int, rows: int = 0, columns: int = 0, console: bool = True) -> int:
    """Open a pseudo-terminal of the container's /dev/pts and make its slave this session's terminal and stdio.

    It has its size before any program can ask for it; whoever attaches changes it later (`resize`). Returns the master.
    With `console` it is the container's /dev/console, too. The caller is a session leader (setsid(2)) without a
    terminal, inside the new root.
    """
    try:
        master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise errors.KernelError(error.errno or 0, "open", ("/dev/pts/ptmx",)) from None
    if os.fstat(master).st_rdev != os.makedev(5, 2):  # in a container that runs, it may have become anything
        raise errors.KernelError(errno.ENOTTY, "open", ("/dev/pts/ptmx",), "it is no multiplexer of terminals (pts(4))")
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    os.fchown(slave, uid, -1)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    if console:
        syscalls.mount(f"/dev/pts/{os.path.basename(os.ttyname(slave))}", make_console(), "", syscalls.MS_BIND)
    for descriptor in (0, 1, 2):
        os.dup2(slave, descriptor)
    os.close(slave)
    return master


def make_console() -> str:
    """/dev/console, an empty file to bind the slave on, made if missing."""
    os.close(os.open("/dev/console", os.O_CREAT | os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC, 0o600))
    return "/dev/console"


def set_size(master: int, rows: int, columns: int) -> None:
    """Give the container's terminal this size; the kernel tells its foreground group by SIGWINCH."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


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
