"""Ways out by the kernel's own doors: knobs, devices, system calls, other people's processes.

One attacker (probe.py) tries them all in a container as it is made by default, in one that sees the host's processes,
and, as the control, in one from which all protection was taken.
"""

import json
import os
from pathlib import Path

import pytest

from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401
from tests.security.prisoners import PYTHON, attack, python, stranger  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox")]

REFUSALS = {"EPERM", "EACCES", "EROFS", "ESRCH", "ENODATA", "ENOENT", "ENOSYS"}
# Files that not every kernel has. Where the host lacks it, the control need not find it.
FILES = {"modprobe": "/proc/sys/kernel/modprobe", "sysrq": "/proc/sysrq-trigger", "proc_kcore": "/proc/kcore",
         "proc_keys": "/proc/keys"}  # fmt: skip
STATE = {"descriptors", "shm", "abstract", "inheritable", "tty"}
PROCESSES = {"signal", "pidfd", "pidfd_getfd", "ptrace", "memory", "memory_by_call", "root", "environment"}


def test_core_pattern_release_agent_mknod_dmesg_keyrings_and_their_kin(shop: Shop, stranger: int) -> None:  # noqa: F811
    """CVE-2022-0492 among them: no cgroup hierarchy can be mounted, by root or in a user namespace made for that."""
    found, control = attack(shop, stranger), attack(shop, stranger, "--privileged", "--pid", "host")
    for technique in found.keys() - STATE:
        assert found[technique] in REFUSALS, f"{technique}: {found[technique]}"
        absent = technique in FILES and not os.path.exists(FILES[technique])
        young = technique == "open_tree_attr" and control[technique] == "ENOSYS"  # Linux 6.15 has it
        assert young or control[technique] == ("ENOENT" if absent else "done"), technique


def test_ptrace_and_pidfd_across(shop: Shop, stranger: int) -> None:  # noqa: F811
    """Processes of the host's are not there; where they are (--pid host), they can be neither read nor taken over."""
    found = attack(shop, stranger)
    assert {found[technique] for technique in PROCESSES} <= {"ESRCH", "ENOENT"}
    found = attack(shop, stranger, "--pid", "host")
    for technique in PROCESSES - {"signal", "pidfd"}:  # root may signal root
        assert found[technique] in ("EPERM", "EACCES"), technique
    assert Path(f"/proc/{stranger}/environ").read_bytes(), "the host's own root may"


NESTED = """
import ctypes, errno, json, os
libc = ctypes.CDLL(None, use_errno=True)
uid, gid = os.getuid(), os.getgid()
found = {}

def tried(name, call, *words):
    done = call(*words)
    found[name] = "done" if done >= 0 else errno.errorcode[ctypes.get_errno()]

tried("userns", libc.unshare, 0x10000000 | 0x20000 | 0x20000000 | 0x8000000)  # user, mount, pid, ipc
for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
    open(f"/proc/self/{name}", "w").write(text)
if (child := os.fork()) == 0:
    for path in (b"/proc/keys", b"/proc/sys", b"/sys/firmware"):
        tried(f"umount {path.decode()}", libc.umount2, path, 2)
    tried("remount", libc.mount, None, b"/proc/sys", None, 0x1000 | 0x20, None)  # MS_BIND | MS_REMOUNT, read-write
    tried("bind", libc.mount, b"/proc", b"/tmp", None, 0x1000, None)  # without what is mounted on it
    tried("clone", libc.syscall, 428, -100, b"/proc", 1)  # open_tree(2), OPEN_TREE_CLONE
    tried("proc", libc.mount, b"proc", b"/tmp", b"proc", 0, None)
    print(json.dumps(found), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def test_a_user_namespace_inside_takes_no_mask_away(shop: Shop) -> None:
    """Where the filter does not stand before it: root of a namespace of its own may mount, and may not see what is
    beneath what we have mounted, nor mount a /proc that shows it (user_namespaces(7), mount_namespaces(7))."""

    def tried(*flags: str) -> dict[str, str]:
        words = ("--security-opt", "seccomp=unconfined", *flags, *python(), "plain", PYTHON, "-I", "-S", "-c", NESTED)
        found: dict[str, str] = json.loads(shop.out(*words))
        return found

    found = tried()
    assert found.pop("userns") == "done"
    assert set(found.values()) <= {"EINVAL", "EPERM"}, found
    control = tried("--security-opt", "systempaths=unconfined")
    assert control["proc"] == control["bind"] == control["clone"] == "done"
