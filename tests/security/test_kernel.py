"""Ways out by the kernel's own doors: knobs, devices, system calls, other people's processes.

One attacker (probe.py) tries them all in a container as it is made by default, in one that sees the host's processes,
and, as the control, in one from which all protection was taken.
"""

import os
from pathlib import Path

import pytest

from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401
from tests.security.prisoners import attack, stranger  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox")]

REFUSALS = {"EPERM", "EACCES", "EROFS", "ESRCH", "ENODATA", "ENOENT"}
# Files that not every kernel has. Where the host lacks it, the control need not find it.
FILES = {"modprobe": "/proc/sys/kernel/modprobe", "sysrq": "/proc/sysrq-trigger", "proc_kcore": "/proc/kcore",
         "proc_keys": "/proc/keys"}  # fmt: skip
STATE = {"descriptors", "shm", "abstract", "inheritable", "tty"}
PROCESSES = {"signal", "pidfd", "pidfd_getfd", "ptrace", "memory", "root", "environment"}


def test_core_pattern_release_agent_mknod_dmesg_keyrings_and_their_kin(shop: Shop, stranger: int) -> None:  # noqa: F811
    """CVE-2022-0492 among them: no cgroup hierarchy can be mounted, by root or in a user namespace made for that."""
    found, control = attack(shop, stranger), attack(shop, stranger, "--privileged", "--pid", "host")
    for technique in found.keys() - STATE:
        assert found[technique] in REFUSALS, f"{technique}: {found[technique]}"
        absent = technique in FILES and not os.path.exists(FILES[technique])
        assert control[technique] == ("ENOENT" if absent else "done"), technique


def test_ptrace_and_pidfd_across(shop: Shop, stranger: int) -> None:  # noqa: F811
    """Processes of the host's are not there; where they are (--pid host), they can be neither read nor taken over."""
    found = attack(shop, stranger)
    assert {found[technique] for technique in PROCESSES} <= {"ESRCH", "ENOENT"}
    found = attack(shop, stranger, "--pid", "host")
    for technique in PROCESSES - {"signal", "pidfd"}:  # root may signal root
        assert found[technique] in ("EPERM", "EACCES"), technique
    assert Path(f"/proc/{stranger}/environ").read_bytes(), "the host's own root may"
