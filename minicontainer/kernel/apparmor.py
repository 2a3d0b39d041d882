"""AppArmor: which of the profiles that the machine has loaded the command runs under (apparmor(7)).

Offers `check` and a plan that asks the kernel for the profile, from the next execve(2) on. Profiles are loaded by
apparmor_parser(8), by who runs the machine; none is loaded here.

The process executes threshold.py's program first, which is under the profile already, and executes the command. So the
profile must let the command be executed (`ix`), as docker's and podman's own do with `file,`.
"""

from __future__ import annotations

import errno
import os

from .. import errors, files, steps, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Iterator
    from typing import Any

ENABLED = "/sys/module/apparmor/parameters/enabled"
UNCONFINED = "unconfined"
ROOT = 1  # the inode of the top of a proc file system


def enabled() -> bool:
    """Whether this kernel has AppArmor, and it is on."""
    try:
        return files.read(ENABLED).startswith(b"Y")
    except OSError:
        return False


def check(process: dict[str, Any]) -> None:
    """Raise Unsupported for a profile where the kernel has none. Without AppArmor everybody is unconfined."""
    name = process.get("apparmorProfile") or UNCONFINED
    if name != UNCONFINED and not enabled():
        raise errors.Unsupported(
            f"the AppArmor profile {name!r} cannot be had: this kernel has no AppArmor, or it is not on ({ENABLED})"
        )


def plan(process: dict[str, Any]) -> Iterator[steps.Step]:
    """The spec's process.apparmorProfile, if it has one."""
    name = process.get("apparmorProfile")
    if name and enabled():
        yield steps.call(
            confine, name, why="what the profile allows and no more, whoever it is: from its first instruction on"
        )


def confine(name: str) -> None:
    """Write `exec NAME` for this thread, into the proc file system and nothing that looks like it (CVE-2019-16884).

    Raises KernelError: ENOENT if no such profile is loaded; InvalidArgument if /proc is not what it should be.
    """
    top = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if syscalls.file_system(top) != syscalls.PROC_SUPER_MAGIC or os.fstat(top).st_ino != ROOT:
            raise errors.InvalidArgument(f"the AppArmor profile {name!r} needs /proc, and another thing is there")
        resolve = syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_MAGICLINKS  # nothing is mounted over what we want
        try:
            file = syscalls.openat2(top, "self/attr/apparmor/exec", os.O_WRONLY, resolve=resolve)
        except errors.KernelError as error:
            if error.errno != errno.ENOENT:
                raise
            # Before Linux 5.8: that of whichever security module is the first.
            file = syscalls.openat2(top, "self/attr/exec", os.O_WRONLY, resolve=resolve)
    finally:
        os.close(top)
    try:
        os.write(file, f"exec {name}".encode())
    except OSError as error:
        hint = "is such a profile loaded? aa-status tells, apparmor_parser -r FILE loads one"
        raise errors.KernelError(error.errno or 0, "write", ("attr/apparmor/exec", f"exec {name}"), hint) from None
    finally:
        os.close(file)
