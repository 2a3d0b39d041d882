"""Terminals: the pseudo-terminal under `-t` (pty(7)).

The slave is the container's stdin, stdout, stderr and /dev/console; it comes from the container's own /dev/pts, so that
`tty` inside names it truly. The master stays with the monitor; whoever attaches puts the own terminal into raw mode.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import termios

from .. import errors, files, syscalls

# asm-generic/ioctls.h
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441


def open_pty(uid: int, rows: int = 0, columns: int = 0, console: bool = True) -> int:
    """Open a pseudo-terminal of the container's /dev/pts and make its slave this session's terminal and stdio.

    It has its size before any program can ask for it; whoever attaches changes it later (`resize`). Returns the master.
    With `console` it is the container's /dev/console, too, bound from the open descriptor: what the name /dev/pts/N has
    become meanwhile is the container's choice (CVE-2025-52565). The caller is a session leader (setsid(2)) without a
    terminal, inside the new root.
    """
    try:
        master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise errors.KernelError(error.errno or 0, "open", ("/dev/pts/ptmx",)) from None
    if os.fstat(master).st_rdev != os.makedev(5, 2):  # in a container that runs, it may have become anything
        raise errors.KernelError(errno.ENOTTY, "open", ("/dev/pts/ptmx",), "it is no multiplexer of terminals (pts(4))")
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    slave = open_slave(master)
    os.fchown(slave, uid, -1)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    if console:
        target = find_console()
        try:
            syscalls.bind(slave, target)
        finally:
            os.close(target)
    for descriptor in (0, 1, 2):
        os.dup2(slave, descriptor)
    os.close(slave)
    return master


def open_slave(master: int) -> int:
    """The other side, whatever its name has become."""
    return fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def hold_slave(master: int) -> int:
    """The same, for whoever reads the master: that fails (EIO) while nobody has the other side open, if only for now.

    -1 where a program has it for itself already (TIOCEXCL, ioctl_tty(2)).
    """
    try:
        return open_slave(master)
    except OSError:
        return -1


def find_console() -> int:
    """/dev/console, open to bind the slave on; an empty file made if missing. Raises KernelError for a link."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    devices = -1
    try:
        devices = files.inside(root, "/dev", os.O_PATH | os.O_DIRECTORY)
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            os.close(os.open("console", flags, 0o600, dir_fd=devices))
        except FileExistsError:
            pass
        found = os.open("console", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=devices)
    finally:
        for descriptor in (root, devices):
            if descriptor >= 0:
                os.close(descriptor)
    if stat.S_ISLNK(os.fstat(found).st_mode):
        os.close(found)
        raise errors.KernelError(
            errno.ELOOP, "mount", ("/dev/console",), "it is a link, which may lead to a knob of /proc"
        )
    return found


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
