"""The session keyring: what keys(7) a process finds without asking by name, and hands to its children.

Left alone, a container would have the one of who started it, with that person's keys in it. So it gets one of its own,
by the name that runc gives it; `exec` joins it by that name.
"""

from __future__ import annotations

import errno
import os

from .. import errors, steps, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Iterator
    from typing import Any

JOIN_SESSION_KEYRING, SETPERM = 1, 5  # linux/keyctl.h
# keyctl_setperm(3): all for who has it; for its user to view, read and link, as the kernel gives it, and to search:
# without that, `exec` finds nothing by the name.
PERMISSIONS = 0x3F000000 | 0x010000 | 0x020000 | 0x100000 | 0x080000


def plan(linux: dict[str, Any], made: bool) -> Iterator[steps.Step]:
    """Join the container's, which is `made` by its first process. No step where `linux["keyring"]` is empty."""
    name = linux.get("keyring", f"_ses.{os.path.basename(linux['cgroupsPath'])}")
    if name:
        yield steps.call(join, name, made, why="a keyring of its own: nobody else's keys are found in there")


def join(name: str, made: bool) -> None:
    """KEYCTL_JOIN_SESSION_KEYRING. Raises KernelError, where the user has too many keys (EDQUOT).

    A kernel without keys has nothing to protect. Nor has a process to which a seccomp filter forbids keyctl(2): what it
    becomes has that filter, too.
    """
    try:
        found = syscalls.syscall("keyctl", JOIN_SESSION_KEYRING, os.fsencode(name))
        if made:
            syscalls.syscall("keyctl", SETPERM, found, PERMISSIONS)
    except errors.KernelError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return
        error.hint = "see /proc/key-users, and kernel.keys.maxkeys of sysctl(8)"
        raise
