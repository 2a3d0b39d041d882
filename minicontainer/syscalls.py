"""System calls that Python's `os` lacks, by their man-page names: the only ctypes in the house.

Each function takes Python values, makes the call, and raises KernelError (an OSError that knows the call and its
arguments) where the kernel said no. Constants come from the kernel's uapi headers (linux/mount.h, linux/sched.h,
linux/openat2.h ...), which are the same on x86_64 and aarch64 unless a table below says otherwise.
"""

import ctypes
import errno
import os

from . import errors

libc = ctypes.CDLL(None, use_errno=True)

# mount(2)
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_SYNCHRONOUS = 16
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

# namespaces(7), clone(2)
CLONE_NEWTIME = 0x00000080
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# openat2(2)
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

# open_tree(2), move_mount(2)
OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_SYMLINKS = 0x10
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOUNT_ATTR_IDMAP = 0x100000  # mount_setattr(2)

CLOSE_RANGE_CLOEXEC = 4  # close_range(2)

# inotify(7)
IN_MODIFY = 0x2
IN_MOVED_TO = 0x80
IN_CREATE = 0x100

# Numbers that glibc has no function for, or one that does more (asm/unistd_64.h, asm-generic/unistd.h).
MACHINE = os.uname().machine
NUMBERS = {
    "x86_64": {
        "pivot_root": 155,
        "seccomp": 317,
        "bpf": 321,
        "capget": 125,
        "capset": 126,
        "keyctl": 250,
        "clone": 56,
        "personality": 135,
        "ioprio_set": 251,
        "sched_setattr": 314,
    },
    "aarch64": {
        "pivot_root": 41,
        "seccomp": 277,
        "bpf": 280,
        "capget": 90,
        "capset": 91,
        "keyctl": 219,
        "clone": 220,
        "personality": 92,
        "ioprio_set": 30,
        "sched_setattr": 274,
    },
}.get(MACHINE, {})
NUMBERS |= {"open_tree": 428, "move_mount": 429}
NUMBERS |= {"pidfd_send_signal": 424, "close_range": 436, "openat2": 437, "pidfd_getfd": 438, "mount_setattr": 442}


def _check(outcome: int, call: str, *arguments: object, hint: str = "") -> int:
    if outcome < 0:
        raise errors.KernelError(ctypes.get_errno(), call, arguments, hint)
    return outcome


def syscall(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """syscall(2) by name. Integers are passed as long, bytes as a pointer. Raises KernelError."""
    if name not in NUMBERS:
        raise errors.Unsupported(f"the number of {name}(2) on {MACHINE} is not known: x86_64 and aarch64 are supported")
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    return _check(
        libc.syscall(ctypes.c_long(NUMBERS[name]), *words), name, *[w for w in arguments if isinstance(w, int)]
    )


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2). Strings are file names in the file system's encoding; an empty `data` means none."""
    outcome = libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), os.fsencode(data) or None
    )
    hint = mount_hint(ctypes.get_errno(), kind, data) if outcome else ""
    _check(outcome, "mount", source, target, kind, flags, data, hint=hint)


def bind(source: int, target: int) -> None:
    """Bind what the one descriptor is open for over what the other is: open_tree(2), move_mount(2). No name is read."""
    tree = syscall("open_tree", source, b"", OPEN_TREE_CLONE | os.O_CLOEXEC | AT_EMPTY_PATH)
    try:
        syscall("move_mount", tree, b"", target, b"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)
    finally:
        os.close(tree)


def mount_setattr(target: str, on: int, off: int) -> None:
    """mount_setattr(2): MOUNT_ATTR_* to set and to clear, on the mount at `target` and all below it."""
    attributes = b"".join(value.to_bytes(8, "little") for value in (on, off, 0, 0))
    syscall("mount_setattr", AT_FDCWD, os.fsencode(target), AT_RECURSIVE, attributes, len(attributes))


def open_tree(path: str, recursive: bool) -> int:
    """open_tree(2): a mount of what lies at `path`, with what is mounted below it if `recursive`, attached nowhere."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return syscall("open_tree", AT_FDCWD, os.fsencode(path), flags)


def map_ids(tree: int, namespace: int, recursive: bool) -> None:
    """mount_setattr(2), MOUNT_ATTR_IDMAP: files of a mount that is attached nowhere belong to whom the user namespace
    behind the descriptor says: its inside is what the disk has, its outside what is seen."""
    attributes = b"".join(value.to_bytes(8, "little") for value in (MOUNT_ATTR_IDMAP, 0, 0, namespace))
    syscall("mount_setattr", tree, b"", AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0), attributes, len(attributes))


def propagate(tree: int, kind: int) -> None:
    """mount_setattr(2): the propagation (MS_SLAVE …) of a mount that is attached nowhere, and of all below it."""
    attributes = b"".join(value.to_bytes(8, "little") for value in (0, 0, kind, 0))
    syscall("mount_setattr", tree, b"", AT_EMPTY_PATH | AT_RECURSIVE, attributes, len(attributes))


def move_mount(tree: int, target: str) -> None:
    """move_mount(2): attach what `open_tree` gave at a path, whose last link is followed."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS
    syscall("move_mount", tree, b"", AT_FDCWD, os.fsencode(target), flags)


def mount_hint(number: int, kind: str, data: str) -> str:
    """What a person can do about mount(2)'s errno."""
    if number == errno.EPERM:
        return (
            "mounting needs CAP_SYS_ADMIN; in a user namespace the kernel refuses some file systems, sysfs where the "
            "network namespace is another's, and to change what an outer namespace has mounted"
        )
    if number == errno.ENODEV:
        return f"this kernel lacks the file system: modprobe {kind}"
    if number == errno.EINVAL and data:
        return f"{kind} does not take the options {data!r}"
    return ""


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(libc.umount2(os.fsencode(target), flags), "umount2", target, flags)


def umount_all(target: str, flags: int = 0) -> None:
    """umount2(2), until nothing is mounted there: idempotent, for teardown."""
    while True:
        try:
            umount(target, flags | UMOUNT_NOFOLLOW)
        except errors.KernelError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):  # no mount point; no such path
                return
            if error.errno == errno.EPERM and not is_mounted(
                target
            ):  # who may not unmount is not told whether it is one
                return
            raise


def is_mounted(target: str, parent: int = 0) -> bool:
    """Whether something is mounted at that very path, as this process sees it (proc_pid_mountinfo(5)).

    Of interest may be only what is mounted on the mount of that id, its `parent`.
    """
    escaped = target.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:
        mounts = [line.split(" ", 5) for line in file]
    return any(mount[4] == escaped and parent in (0, int(mount[1])) for mount in mounts)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2). Both `.`: the old root is then mounted over the new one, at the same place (its NOTES)."""
    syscall("pivot_root", os.fsencode(new_root), os.fsencode(put_old))


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(libc.unshare(flags), "unshare", flags)


def fork(flags: int) -> int:
    """fork(2) with CLONE_NEW* flags (clone(2)): a child born in those namespaces; a user namespace owns the others.

    To be called by a process with one thread. Returns as os.fork does, whose hooks for Python's own state run, too.
    """
    interpreter = ctypes.pythonapi
    interpreter.PyOS_BeforeFork()
    pid: int = ctypes.PyDLL(None, use_errno=True).syscall(
        ctypes.c_long(NUMBERS["clone"]), ctypes.c_ulong(flags | SIGCHLD), *[ctypes.c_long(0)] * 4
    )
    if pid == 0:
        interpreter.PyOS_AfterFork_Child()
        return 0
    number = ctypes.get_errno()
    interpreter.PyOS_AfterFork_Parent()
    if pid < 0:
        raise errors.KernelError(number, "clone", (flags,), "see user.max_user_namespaces of sysctl(8)")
    return pid


SIGCHLD = 17  # signal(7): what a parent hears when the child ends


def setns(descriptor: int, kind: int) -> None:
    """setns(2)."""
    _check(libc.setns(descriptor, kind), "setns", descriptor, kind)


def enter_namespace(path: str, kind: int) -> None:
    """open(2) the namespace file at `path`, then setns(2) into it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise errors.KernelError(error.errno or 0, "open", (path,)) from None
    try:
        setns(descriptor, kind)
    finally:
        os.close(descriptor)


class inside_network:
    """`with inside_network(process):` this thread is in that process's network namespace, then back (setns(2))."""

    def __init__(self, process: int) -> None:
        self.process = process

    def __enter__(self) -> None:
        self.home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter_namespace(f"/proc/{self.process}/ns/net", CLONE_NEWNET)
        except BaseException:
            os.close(self.home)
            raise

    def __exit__(self, *_: object) -> None:
        try:
            setns(self.home, CLONE_NEWNET)
        finally:
            os.close(self.home)


PROC_SUPER_MAGIC = 0x9FA0  # linux/magic.h


def file_system(path: str | int) -> int:
    """statfs(2)'s f_type: of which kind the file system is that `path` lies on, as linux/magic.h numbers them.

    A number is a descriptor.
    """
    answer = ctypes.create_string_buffer(256)
    if isinstance(path, int):
        _check(libc.fstatfs(path, answer), "fstatfs", path)
    else:
        _check(libc.statfs(os.fsencode(path), answer), "statfs", path)
    return int.from_bytes(answer.raw[: ctypes.sizeof(ctypes.c_long)], "little")


def sethostname(name: str) -> None:
    """sethostname(2)."""
    encoded = name.encode()
    _check(libc.sethostname(encoded, ctypes.c_size_t(len(encoded))), "sethostname", name)


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    encoded = os.fsencode(name)
    _check(libc.setdomainname(encoded, ctypes.c_size_t(len(encoded))), "setdomainname", name)


def openat2(directory: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2): open `path` under the directory descriptor, as strictly as the RESOLVE_* bits say."""
    how = b"".join(value.to_bytes(8, "little") for value in (flags | os.O_CLOEXEC, mode, resolve))
    return syscall("openat2", directory, os.fsencode(path), how, len(how))


def seccomp_load(program: bytes, flags: int = 0) -> int:
    """seccomp(2): SECCOMP_SET_MODE_FILTER with `program`, an array of 8-byte struct sock_filter.

    Returns the listener's descriptor, where the `flags` ask for one; it closes on exec.
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    count = len(program) // 8
    # struct sock_fprog: unsigned short len, padding, struct sock_filter *filter.
    header = count.to_bytes(8, "little") + ctypes.addressof(buffer).to_bytes(8, "little")
    return syscall("seccomp", 1, flags, header)


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) of this thread, version 3; each set is a mask with bit n for capability n."""
    header = (0x20080522).to_bytes(4, "little") + bytes(4)
    data = b"".join(
        (mask >> shift & 0xFFFFFFFF).to_bytes(4, "little")
        for shift in (0, 32)
        for mask in (effective, permitted, inheritable)
    )
    syscall("capset", header, data)


def inotify(path: str, mask: int) -> int:
    """inotify_init1(2), inotify_add_watch(2): a descriptor that can be read once something of `mask` has happened."""
    descriptor = _check(libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")
    try:
        _check(libc.inotify_add_watch(descriptor, os.fsencode(path), mask), "inotify_add_watch", path, mask)
    except errors.KernelError:
        os.close(descriptor)
        raise
    return descriptor


def prctl(option: int, *arguments: int) -> int:
    """prctl(2), for the options that python-prctl lacks."""
    words = [ctypes.c_ulong(word) for word in (*arguments, 0, 0, 0, 0)[:4]]
    return _check(libc.prctl(option, *words), "prctl", option, *arguments)


def hide() -> None:
    """prctl(PR_SET_DUMPABLE, 0): until its next execve the process can be neither traced nor looked into."""
    prctl(4, 0)


def bpf_load(kind: int, instructions: bytes) -> int:
    """bpf(2) BPF_PROG_LOAD: a program of 8-byte struct bpf_insn; returns its descriptor."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    license = ctypes.create_string_buffer(b"MIT")
    # union bpf_attr: u32 prog_type, u32 insn_cnt, u64 insns, u64 license, the rest zero.
    attributes = (
        kind.to_bytes(4, "little")
        + (len(instructions) // 8).to_bytes(4, "little")
        + ctypes.addressof(code).to_bytes(8, "little")
        + ctypes.addressof(license).to_bytes(8, "little")
        + bytes(48)
    )
    return syscall("bpf", 5, attributes, len(attributes))


def bpf_attach(target: int, program: int, kind: int, flags: int = 0) -> None:
    """bpf(2) BPF_PROG_ATTACH: from now on the object behind the descriptor `target` asks the program."""
    attributes = b"".join(word.to_bytes(4, "little") for word in (target, program, kind, flags, 0))
    syscall("bpf", 8, attributes, len(attributes))


def syncfs(descriptor: int) -> None:
    """syncfs(2)."""
    _check(libc.syncfs(descriptor), "syncfs", descriptor)


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """close_range(2); CLOSE_RANGE_CLOEXEC marks instead of closing."""
    syscall("close_range", first, last, flags)
