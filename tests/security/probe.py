"""What somebody tries who is inside and wants out; standard library alone, for it runs in the container.

Each technique goes exactly as far as shows whether it would work: a file is opened and not written, a device opened
and not read, what is mounted is mounted in a namespace of its own. Output: JSON, technique to errno's name or "done".
"""

import ctypes
import errno
import json
import os
import platform
import sys
from collections.abc import Callable

libc = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"
# asm/unistd_64.h, asm-generic/unistd.h
KEYCTL, HANDLE, PTRACE, BPF, PERF, USERFAULT, READV = (
    (250, 304, 101, 321, 298, 323, 310) if X86 else (219, 265, 117, 280, 241, 282, 270)
)
PIDFD_OPEN, PIDFD_GETFD, FSOPEN = 434, 438, 430
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
disk, stranger = int(sys.argv[1]), int(sys.argv[2])


def call(number: int, *arguments: object) -> int:
    done = int(libc.syscall(number, *arguments))
    if done < 0:
        raise OSError(ctypes.get_errno(), "")
    return done


def libcall(name: str, *arguments: object) -> None:
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def write(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY))


def read(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    found = os.fstat(descriptor)
    os.close(descriptor)
    if found.st_rdev == os.makedev(1, 3):  # masked: it is /dev/null
        raise OSError(errno.ENODATA, path)


def node(kind: int, number: int) -> None:
    path = f"/tmp/node{number}"
    os.mknod(path, kind | 0o600, number)
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    finally:
        os.unlink(path)


def mount(source: bytes, kind: bytes, flags: int = 0) -> None:
    os.makedirs("/tmp/there", exist_ok=True)
    libcall("mount", source, b"/tmp/there", kind, ctypes.c_ulong(flags), None)
    libcall("umount2", b"/tmp/there", 2)


def cgroup_procs() -> None:
    for directory, _, files in os.walk("/sys/fs/cgroup"):
        if "cgroup.procs" in files:
            return write(f"{directory}/cgroup.procs")
    raise OSError(errno.ENOENT, "no cgroup in sight")


def handle() -> None:
    """shocker.c: the root of a file system by its inode, 2 in ext4; any answer but "not allowed" is one too many."""
    at = os.open("/etc/hosts", os.O_RDONLY)
    buffer = ctypes.create_string_buffer(b"\x08\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0", 16)
    try:
        call(HANDLE, at, buffer, os.O_RDONLY)
    except OSError as error:
        if error.errno == errno.EPERM:
            raise
    finally:
        os.close(at)


def asked(*arguments: int) -> None:
    """A system call with arguments that mean nothing: whether the kernel even looks at them."""
    try:
        call(*arguments)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOSYS):
            raise


TECHNIQUES: dict[str, Callable[[], object]] = {
    "core_pattern": lambda: write("/proc/sys/kernel/core_pattern"),
    "modprobe": lambda: write("/proc/sys/kernel/modprobe"),
    "panic_on_oom": lambda: write("/proc/sys/vm/panic_on_oom"),
    "sysrq": lambda: write("/proc/sysrq-trigger"),
    "sysfs": lambda: write("/sys/kernel/uevent_helper" if os.path.exists("/sys/kernel/uevent_helper")
                           else "/sys/kernel/rcu_expedited"),
    "proc_keys": lambda: read("/proc/keys"),
    "proc_kcore": lambda: read("/proc/kcore"),
    "cgroup_procs": cgroup_procs,
    "mount": lambda: mount(b"proc", b"proc"),
    "mount_cgroup": lambda: mount(b"cgroup", b"cgroup2"),
    "umount": lambda: libcall("umount2", b"/dev/mqueue", 2),
    "fsopen": lambda: os.close(call(FSOPEN, b"tmpfs", 0)),
    "disk": lambda: node(0o060000, disk),
    "kmsg": lambda: node(0o020000, os.makedev(1, 11)),
    "dmesg": lambda: libcall("klogctl", 10, None, 0),
    "keyring": lambda: call(KEYCTL, 0, -3, 1),
    "handle": handle,
    "bpf": lambda: asked(BPF, 0, 0, 0),
    "perf": lambda: asked(PERF, 0, 0, -1, -1, 0),
    "userfaultfd": lambda: asked(USERFAULT, 0xFFFF),
    "signal": lambda: os.kill(stranger, 0),
    "pidfd": lambda: os.close(call(PIDFD_OPEN, stranger, 0)),
    "pidfd_getfd": lambda: call(PIDFD_GETFD, call(PIDFD_OPEN, stranger, 0), 0, 0),
    "ptrace": lambda: call(PTRACE, 0x4206, stranger, 0, 0),  # PTRACE_SEIZE
    "memory": lambda: os.close(os.open(f"/proc/{stranger}/mem", os.O_RDWR)),
    "root": lambda: os.listdir(f"/proc/{stranger}/root/"),
    "environment": lambda: open(f"/proc/{stranger}/environ", "rb").close(),
    # Last, as they change who we are.
    "userns": lambda: libcall("unshare", CLONE_NEWUSER | CLONE_NEWNS),
}  # fmt: skip

result = {}
result["descriptors"] = " ".join(sorted(os.listdir("/proc/self/fd")))
result["shm"] = " ".join(os.listdir("/dev/shm"))
result["abstract"] = " ".join(line.split()[-1] for line in open("/proc/net/unix") if "@" in line)
result["inheritable"] = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("CapInh"))
try:
    os.close(os.open("/dev/tty", os.O_RDWR))
    result["tty"] = "done"
except OSError as error:
    result["tty"] = errno.errorcode[error.errno or 0]
for name, technique in TECHNIQUES.items():
    try:
        technique()
        result[name] = "done"
    except OSError as error:
        result[name] = errno.errorcode[error.errno or 0]
print(json.dumps(result))
