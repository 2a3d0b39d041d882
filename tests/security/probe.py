"""What somebody tries who is inside and wants out; standard library alone, for it runs in the container.

Each technique goes exactly as far as shows whether it would work: a file is opened and not written, a device opened
and not read, what is mounted is mounted in a namespace of its own. Output: JSON, technique to errno's name or "done".
"""

import ctypes
import errno
import json
import os
import platform
import socket
import sys
from collections.abc import Callable

libc = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"
# asm/unistd_64.h, asm-generic/unistd.h
KEYCTL, HANDLE, PTRACE, BPF, PERF, USERFAULT, READV = (
    (250, 304, 101, 321, 298, 323, 310) if X86 else (219, 265, 117, 280, 241, 282, 270)
)
SETNS, ADD_KEY, PIVOT_ROOT, FANOTIFY = (308, 248, 155, 300) if X86 else (268, 217, 41, 262)
IO_URING, OPEN_TREE, MOVE_MOUNT, FSOPEN, PIDFD_OPEN, CLONE3, PIDFD_GETFD, MOUNT_SETATTR, OPEN_TREE_ATTR = (
    425, 428, 429, 430, 434, 435, 438, 442, 467,
)  # fmt: skip
CLONE_NEWTIME, CLONE_NEWNS, CLONE_NEWUSER = 0x80, 0x20000, 0x10000000
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


def door(family: int) -> None:
    """A socket of a family that leads to the machine's host (vsock(7)), or into the kernel (AF_ALG)."""
    try:
        socket.socket(family, socket.SOCK_SEQPACKET if family == 38 else socket.SOCK_STREAM).close()
    except OSError as error:
        if error.errno == errno.EPERM:
            raise


def read_memory() -> None:
    """process_vm_readv(2): one byte of another's, at an address that need not be there."""

    class Vector(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    here = ctypes.create_string_buffer(1)
    mine, theirs, one = Vector(ctypes.addressof(here), 1), Vector(4096, 1), ctypes.c_ulong(1)
    try:
        call(READV, stranger, ctypes.byref(mine), one, ctypes.byref(theirs), one, ctypes.c_ulong(0))
    except OSError as error:
        if error.errno != errno.EFAULT:
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
    "open_tree": lambda: os.close(call(OPEN_TREE, -100, b"/", 1)),
    "open_tree_attr": lambda: asked(OPEN_TREE_ATTR, -1, 0, 0, 0, 0),
    "move_mount": lambda: asked(MOVE_MOUNT, -1, 0, -1, 0, 0),
    "mount_setattr": lambda: asked(MOUNT_SETATTR, -1, 0, 0, 0, 0),
    "pivot_root": lambda: asked(PIVOT_ROOT, 0, 0),
    "setns": lambda: asked(SETNS, -1, 0),
    "clone3": lambda: asked(CLONE3, 0, 0),
    "io_uring": lambda: asked(IO_URING, 0, 0),
    "fanotify": lambda: asked(FANOTIFY, 0, 0),
    "vsock": lambda: door(40),
    "crypto": lambda: door(38),
    "add_key": lambda: asked(ADD_KEY, 0, 0, 0, 0, 0),
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
    "memory_by_call": read_memory,
    "memory": lambda: os.close(os.open(f"/proc/{stranger}/mem", os.O_RDWR)),
    "root": lambda: os.listdir(f"/proc/{stranger}/root/"),
    "environment": lambda: open(f"/proc/{stranger}/environ", "rb").close(),
    # Last, as they change who we are.
    "timens": lambda: libcall("unshare", CLONE_NEWTIME),
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
