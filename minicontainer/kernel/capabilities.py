"""Capabilities: root's power in forty-one pieces, and which of them a container's process keeps (capabilities(7)).

Offers: the names, Docker's fourteen defaults, what `--cap-add` and `--cap-drop` mean, and the plans that give a
process exactly the five sets of the runtime spec (`process.capabilities`).

Callers owe it an order, the one that runc's init has (libcontainer/init_linux.go, finalizeNamespace):

    no_new_privileges()     if process.noNewPrivileges
    seccomp.load(...)       only if not noNewPrivileges: without it, loading needs CAP_SYS_ADMIN, which goes below
    bound(sets)             while still root: the bounding set, and the promise to keep the permitted set
    setgroups, setgid, setuid
    apply(sets)             effective, permitted, inheritable, ambient
    seccomp.load(...)       if noNewPrivileges
    execve

A set is a mask here: bit n stands for capability n, as the kernel has it in /proc/PID/status.

Import cost: `_prctl` is the C half of python-prctl, 0.3 ms. Its Python half builds two hundred wrappers in 3 ms.
"""

from __future__ import annotations

import errno
import os

import _prctl  # type: ignore[import-not-found]

from .. import errors, files, steps, syscalls
from ..records import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Iterable, Sequence
    from typing import Any

# linux/capability.h; the position is the number.
NAMES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
NUMBERS = {name: number for number, name in enumerate(NAMES)}

# What Docker leaves a container's root (moby daemon/pkg/oci/caps/defaults.go), in the order of their numbers.
DEFAULT = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP",
)  # fmt: skip

# linux/prctl.h. python-prctl 1.8.1 has no way to say it: this goes through syscalls.prctl.
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4


class Sets(namedtuple("Sets", "bounding effective permitted inheritable ambient")):
    """The five sets of a thread, as masks."""

    bounding: int
    effective: int
    permitted: int
    inheritable: int
    ambient: int


def full_name(name: str) -> str:
    """`net_admin`, `NET_ADMIN` or `CAP_NET_ADMIN` as the last of these; InvalidArgument if there is none such."""
    full = name.upper()
    if not full.startswith("CAP_"):
        full = f"CAP_{full}"
    if full not in NUMBERS:
        raise errors.InvalidArgument(f"there is no capability {name!r}; capabilities(7) lists them, and ALL means all")
    return full


def mask(names: Iterable[str]) -> int:
    """The set of these capabilities."""
    value = 0
    for name in names:
        value |= 1 << NUMBERS[full_name(name)]
    return value


def names(value: int) -> list[str]:
    """The names in a set, in the order of their numbers."""
    return [name for number, name in enumerate(NAMES) if value >> number & 1]


def bounding_set() -> int:
    """What this process could hand on at most: the kernel's capabilities, less what was dropped above us."""
    for line in files.read("/proc/self/status").splitlines():
        if line.startswith(b"CapBnd:"):
            return int(line.split()[1], 16)
    return 0


def known() -> int:
    """All that this kernel has."""
    return (2 << int(files.read("/proc/sys/kernel/cap_last_cap"))) - 1


def resolve(add: Sequence[str] = (), drop: Sequence[str] = (), privileged: bool = False) -> list[str]:
    """What a container has after `--cap-add` and `--cap-drop`, as names in the order of their numbers.

    The rules are Docker's (moby daemon/pkg/oci/caps/utils.go, TweakCapabilities): added ALL minus the dropped; dropped
    ALL plus the added; else the defaults minus the dropped plus the added. ALL is what this process itself may hand on.
    """
    if privileged:
        return names(bounding_set())
    added = mask(name for name in add if name.upper() not in ("ALL", "CAP_ALL"))
    dropped = mask(name for name in drop if name.upper() not in ("ALL", "CAP_ALL"))
    beyond = added and added & ~bounding_set()
    if beyond:
        raise errors.Unsupported(
            f"{', '.join(names(beyond))} cannot be added: this kernel lacks it, or it was taken from this process too"
        )
    if any(name.upper() in ("ALL", "CAP_ALL") for name in add):
        return names(bounding_set() & ~dropped)
    if any(name.upper() in ("ALL", "CAP_ALL") for name in drop):
        return names(added)
    return names(mask(DEFAULT) & ~dropped | added)


def sets(capabilities: dict[str, Any]) -> Sets:
    """The masks of the runtime spec's `process.capabilities`; a set that is not mentioned is empty."""
    return Sets(*(mask(capabilities.get(kind) or ()) for kind in Sets._fields))


def no_new_privileges() -> steps.Plan:
    """The process and its children can gain nothing by execve: no setuid program, no file capability."""
    yield steps.call(set_no_new_privileges, why="no setuid program and no file capability gives more than is held now")


def bound(capabilities: dict[str, Any]) -> steps.Plan:
    """Before the change of user: what is outside the bounding set can never come back."""
    wanted = sets(capabilities)
    yield steps.call(limit_bounding_set, wanted.bounding, why="what leaves the bounding set no execve brings back")
    if wanted.permitted:
        yield steps.call(keep_capabilities, why="a change from uid 0 would clear the permitted set")


def apply(capabilities: dict[str, Any], uid: int) -> steps.Plan:
    """After the change of user: exactly these sets.

    For an ordinary user without ambient capabilities, execve would clear effective and permitted (capabilities(7),
    "Transformation of capabilities during execve()"). They go now, so that the command's rights already hold for what
    init does last.
    """
    wanted = sets(capabilities)
    if uid and not wanted.ambient:
        wanted = wanted._replace(effective=0, permitted=0)
    yield steps.call(
        set_capabilities,
        wanted.effective,
        wanted.permitted,
        wanted.inheritable,
        why="root in the container is not root of the machine",
    )
    yield steps.call(set_ambient, wanted.ambient, why="what a program without file capabilities keeps across execve")


# What the steps call.


def set_groups(groups: Sequence[int], gid: int) -> None:
    """setgroups(2). Where a user namespace forbids it (user_namespaces(7)), what is there may stay, and no more be had.

    Nothing is read for it: who has made /proc what it is, in a container that runs, may be against us. Raises
    Unsupported for groups that cannot be had, PermissionError where groups of the caller's would stay that have a
    number in here.
    """
    try:
        os.setgroups(groups)
    except PermissionError:
        if set(groups) - {gid}:
            raise errors.Unsupported("this user namespace forbids setgroups(2): run without --group-add") from None
        if set(os.getgroups()) - {gid, NOGROUP}:
            raise


NOGROUP = 65534  # whoever has no number in a user namespace (/proc/sys/kernel/overflowgid)


def set_no_new_privileges() -> None:
    """prctl(PR_SET_NO_NEW_PRIVS)."""
    _prctl.prctl(_prctl.PR_SET_NO_NEW_PRIVS, 1)


def keep_capabilities() -> None:
    """prctl(PR_SET_KEEPCAPS); execve takes it back."""
    _prctl.prctl(_prctl.PR_SET_KEEPCAPS, 1)


def limit_bounding_set(kept: int) -> None:
    """Drop all that is not in `kept` from the bounding set. KernelError (EPERM) without CAP_SETPCAP."""
    for number in range(64):
        if kept >> number & 1:
            continue
        try:
            if number < len(NAMES):
                _prctl.prctl(_prctl.PR_CAPBSET_DROP, number)
            else:  # younger than this table; python-prctl refuses what it has no name for
                syscalls.prctl(_prctl.PR_CAPBSET_DROP, number)
        except OSError as error:
            if error.errno == errno.EINVAL:  # this kernel's capabilities end here
                return
            hint = "this process lacks CAP_SETPCAP: be root, or root of a user namespace"
            raise errors.KernelError(error.errno or 0, "prctl", ("PR_CAPBSET_DROP", number), hint) from None


def set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2). KernelError (EPERM) for a capability that this process does not hold itself, named in the hint."""
    try:
        syscalls.capset(effective, permitted, inheritable)
    except errors.KernelError as error:
        lacking = names((effective | permitted) & ~bounding_set())
        if lacking:
            error.hint = f"the engine itself was not given {', '.join(lacking)}; --cap-drop it, or run with more"
        raise


def set_ambient(wanted: int) -> None:
    """The ambient set is exactly `wanted` afterwards. Each must be permitted and inheritable (EPERM)."""
    syscalls.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(len(NAMES)):
        if wanted >> number & 1:
            syscalls.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)
