"""What this machine is and can do: where the store lies, who we are, which features the kernel has.

Offers: the paths of the store, and facts that plans are made from. Every fact is read from the kernel, never guessed.
"""

from __future__ import annotations

import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_ROOT = "/var/lib/minicontainer"


def is_root() -> bool:
    """Root of the machine: uid 0 in the initial user namespace. Uid 0 alone says nothing: `unshare -Ur` gives it."""
    return os.geteuid() == 0 and not in_user_namespace()


def in_user_namespace() -> bool:
    """Whether some ids of the machine are not mapped here (user_namespaces(7), /proc/PID/uid_map)."""
    with open("/proc/self/uid_map") as file:
        return file.read().split() != ["0", "0", "4294967295"]


def has_selinux() -> bool:
    """Whether this machine's SELinux is on (selinux(8))."""
    return os.path.exists("/sys/fs/selinux/enforce")


def forbids_setgroups(process: int | str = "self") -> bool:
    """Whether a process's user namespace forbids setgroups(2), as those of ordinary users do (user_namespaces(7))."""
    with open(f"/proc/{process}/setgroups") as file:
        return file.read().strip() == "deny"


def owns_network() -> bool:
    """Whether this process may change the network namespace that it is in: no other user namespace owns it."""
    if not in_user_namespace():
        return True
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.close(fcntl.ioctl(namespace, NS_GET_USERNS))
        return True
    except PermissionError:  # it is not ours, nor a descendant's (ioctl_ns(2))
        return False
    finally:
        os.close(namespace)


NS_GET_USERNS = 0xB701  # linux/nsfs.h


def privileged() -> bool:
    """Whether this process may mount and make namespaces: root of the machine, or of a user namespace."""
    with open("/proc/self/status") as file:
        effective = next(line.split()[1] for line in file if line.startswith("CapEff:"))
    return os.geteuid() == 0 and bool(int(effective, 16) >> CAP_SYS_ADMIN & 1)


CAP_SYS_ADMIN = 21  # linux/capability.h


def root() -> str:
    """The store's directory: $MINICONTAINER_ROOT, or /var/lib/minicontainer for root, or under $XDG_DATA_HOME."""
    named = os.environ.get("MINICONTAINER_ROOT")
    if named:
        return os.path.abspath(named)
    if is_root():
        return DEFAULT_ROOT
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(data, "minicontainer")


def suffix() -> str:
    """What shared objects' names end with: nothing for the default store, else `-` and six hex digits of its path.

    Two stores on one machine so never meet in a bridge, a table or a cgroup.
    """
    path = root()
    if path == DEFAULT_ROOT:
        return ""
    # FNV-1a, 32 bits (draft-eastlake-fnv): no hashlib on the start path.
    value = 0x811C9DC5
    for byte in os.fsencode(path):
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return f"-{value & 0xFFFFFF:06x}"


def run_root() -> str:
    """Where leases, sockets and state lie: /run/minicontainer, or under $XDG_RUNTIME_DIR, until the next boot.

    An ordinary user without the latter has them in the store, where no other user can be first.
    """
    if is_root():
        return f"/run/minicontainer{suffix()}"
    base = os.environ.get("XDG_RUNTIME_DIR")
    return f"{base}/minicontainer{suffix()}" if base else f"{root()}/run"


# ---------------------------------------------------------------------------------------------------------------- facts
#
# For `doctor`. Facts that need a concept (cgroups, the firewall) are asked where that concept is known.


class Fact:
    """One thing that this machine has or lacks.

    `state` is "ok", "missing" (`run` needs it) or "warn" (something less will not work, or not well); `mend` is what
    to type, empty where nothing needs mending or nothing can be typed.
    """

    __slots__ = ("mend", "name", "said", "state")

    def __init__(self, name: str, state: str, said: str, mend: str = "") -> None:
        self.name, self.state, self.said, self.mend = name, state, said, mend


def probe(function: Callable[[], object], kinds: int = 0) -> str:
    """Why `function` fails on this machine; empty if it does not. It is called in a child that is thrown away after.

    `kinds` are CLONE_NEW… flags: the child's own namespaces, so that nothing it does can be seen outside. Without
    privilege they lie in a user namespace, of which the child is root.
    """
    from . import syscalls

    uid, gid = os.geteuid(), os.getegid()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = "the probe was interrupted"
        try:
            if uid:
                syscalls.unshare(kinds | syscalls.CLONE_NEWUSER)
                for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
                    with open(f"/proc/self/{name}", "w") as file:
                        file.write(text)
            else:
                syscalls.unshare(kinds)
            if kinds & syscalls.CLONE_NEWNS:
                syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
            function()
            said = ""
        except Exception as error:
            said = str(error) or type(error).__name__
        finally:
            os.write(writer, said.encode()[:4000])
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answer = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return f"the probe was killed (wait status {status})" if status else answer


def sysctl(name: str) -> str:
    """The value of a kernel parameter by its dotted name, empty if this kernel has none of that name."""
    try:
        with open(f"/proc/sys/{name.replace('.', '/')}") as file:
            return file.read().strip()
    except OSError:
        return ""


def machine_fact() -> Fact:
    """The processor's architecture: system call numbers are known for two."""
    machine = os.uname().machine
    if machine in ("x86_64", "aarch64"):
        return Fact("machine", "ok", machine)
    return Fact("machine", "missing", f"{machine}; x86_64 and aarch64 are supported")


def kernel_fact() -> Fact:
    """5.11 is the first kernel in which a user namespace may mount an overlay; close_range and openat2 are older."""
    release = os.uname().release
    numbers = [int("".join(filter(str.isdigit, part)) or 0) for part in release.split("-")[0].split(".")[:2]]
    if numbers >= [5, 11]:
        return Fact("kernel", "ok", f"Linux {release}")
    return Fact("kernel", "missing", f"Linux {release}; 5.11 or newer is needed", "apt-get install linux-image-generic")


CAPABILITIES_NEEDED = {12: "CAP_NET_ADMIN", 18: "CAP_SYS_CHROOT", 21: "CAP_SYS_ADMIN", 27: "CAP_MKNOD"}


def privilege_fact() -> Fact:
    """Who we are, and whether root is all that root can be (it is not inside most containers)."""
    with open("/proc/self/status") as file:
        held = int(next(line.split()[1] for line in file if line.startswith("CapEff:")), 16)
    lacking = [name for number, name in CAPABILITIES_NEEDED.items() if not held >> number & 1]
    if os.geteuid():
        return Fact(
            "privilege", "missing", "an ordinary user; containers are started by root, or by root of a user namespace",
            "sudo minicontainer …   or, without a network: unshare -Ur minicontainer run --network none …",
        )  # fmt: skip
    if lacking:
        return Fact(
            "privilege", "missing", f"root, but without {', '.join(lacking)}: inside a container?",
            "run it on the host, or in a container with --privileged",
        )  # fmt: skip
    if in_user_namespace():
        return Fact("privilege", "ok", "root of a user namespace, which `--network none` suffices for")
    return Fact("privilege", "ok", "root of the machine")


def user_namespaces_fact() -> Fact:
    """Whether ordinary users may make user namespaces; distributions forbid it in three ways. A warning for root."""
    for name, forbidding, mending in (
        ("user.max_user_namespaces", "0", "15000"),
        ("kernel.unprivileged_userns_clone", "0", "1"),  # Debian's kernels
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),  # Ubuntu 24.04
    ):
        if sysctl(name) == forbidding:
            said = f"ordinary users may make none ({name} = {forbidding})"
            return Fact("user namespaces", "warn", said, f"sudo sysctl -w {name}={mending}")
    if not os.path.exists("/proc/self/ns/user"):
        return Fact("user namespaces", "warn", "this kernel has none (CONFIG_USER_NS)")
    if os.geteuid():
        problem = probe(lambda: None)
        if problem:
            return Fact("user namespaces", "warn", f"refused: {problem}", "sudo dmesg | tail   may say by whom")
    return Fact("user namespaces", "ok", "ordinary users may make them")


def namespaces_fact() -> Fact:
    """The kinds of namespaces that every container has."""
    have = os.listdir("/proc/self/ns")
    lacking = [kind for kind in ("mnt", "pid", "uts", "ipc", "net", "cgroup") if kind not in have]
    if lacking:
        return Fact("namespaces", "missing", f"this kernel lacks {', '.join(lacking)} (CONFIG_NAMESPACES)")
    return Fact("namespaces", "ok", "mount, pid, uts, ipc, net, cgroup")


def filesystems_fact() -> Fact:
    """What is mounted in every container, but for the overlay."""
    with open("/proc/filesystems") as file:
        known = {line.split()[-1] for line in file}
    lacking = [kind for kind in ("proc", "sysfs", "tmpfs", "devpts", "mqueue") if kind not in known]
    if lacking:
        return Fact("filesystems", "missing", f"this kernel lacks {', '.join(lacking)}")
    return Fact("filesystems", "ok", "proc, sysfs, tmpfs, devpts, mqueue")


def overlay_fact() -> Fact:
    """Whether an overlay can be mounted, by whoever we are: tried on a tmpfs."""
    from . import syscalls

    def attempt() -> None:
        syscalls.mount("tmpfs", "/tmp", "tmpfs")
        for name in ("lower", "upper", "work", "merged"):
            os.mkdir(f"/tmp/{name}")
        options = "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work"
        if in_user_namespace():
            options += ",userxattr"
        syscalls.mount("overlay", "/tmp/merged", "overlay", 0, options)

    problem = probe(attempt, syscalls.CLONE_NEWNS)
    if problem:
        return Fact("overlay", "missing", f"cannot be mounted: {problem}", "sudo modprobe overlay")
    return Fact("overlay", "ok", "can be mounted")


def seccomp_fact() -> Fact:
    """Whether the kernel filters system calls."""
    if sysctl("kernel.seccomp.actions_avail"):
        return Fact("seccomp", "ok", "the kernel filters system calls")
    return Fact("seccomp", "missing", "this kernel lacks CONFIG_SECCOMP_FILTER", "--security-opt seccomp=unconfined")


def forwarding_fact() -> Fact:
    """net.ipv4.ip_forward: off is no fault, for the first container on the bridge turns it on."""
    if sysctl("net.ipv4.ip_forward") == "1":
        return Fact("ip_forward", "ok", "on")
    return Fact("ip_forward", "ok", "off; the first container on the bridge turns it on, `system reset` off again")


NOT_FOR_LAYERS = {
    "overlay": "an overlay cannot keep its changes on an overlay",
    "nfs": "no xattrs, no whiteouts",
    "nfs4": "no xattrs, no whiteouts",
    "vfat": "no owners, no links",
    "exfat": "no owners, no links",
    "ntfs3": "no owners of Linux",
    "9p": "no xattrs (a folder of the virtual machine's host)",
    "virtiofs": "no whiteouts in most settings (a folder of the virtual machine's host)",
    "drvfs": "no owners (a Windows drive)",
}
ROOM_NEEDED = 2 << 30  # bytes: a Debian image twice, as blob and unpacked, and something to work with


def mount_of(path: str) -> tuple[str, str, str]:
    """(mount point, type, options) of the file system of a path, which may not exist: proc_pid_mountinfo(5)."""
    path = os.path.realpath(path)
    found = ("/", "", "")
    with open("/proc/self/mountinfo") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            point = before.split()[4].replace("\\040", " ")
            inside = path == point or path.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(found[0]):  # of two at one place, the later one is on top
                found = (point, after.split()[0], before.split()[5])
    return found


def store_place() -> str:
    """The store's directory; where it is yet to be made, the one above that is there."""
    directory = root()
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    return directory


def store_facts() -> list[Fact]:
    """Where the store is, or will be: whether layers can live there, and how much room they have."""
    directory = store_place()
    point, kind, options = mount_of(directory)
    elsewhere = "export MINICONTAINER_ROOT=/a/folder/on/ext4"
    if kind in NOT_FOR_LAYERS or kind.startswith("fuse"):
        why = NOT_FOR_LAYERS.get(kind, "no whiteouts")
        facts = [Fact("store", "missing", f"{root()} is on {kind}: {why}", elsewhere)]
    elif not os.access(directory, os.W_OK):
        facts = [Fact("store", "missing", f"{directory} cannot be written", elsewhere)]
    else:
        noexec = sorted({"noexec", "nodev", "nosuid", "ro"} & set(options.split(",")))
        if noexec:
            mend = f"sudo mount -o remount,{','.join({'ro': 'rw'}.get(word, word[2:]) for word in noexec)} {point}"
            state = "missing" if "ro" in noexec else "warn"
            facts = [Fact("store", state, f"{root()} on {kind}, mounted {', '.join(noexec)}", mend)]
        else:
            facts = [Fact("store", "ok", f"{root()} on {kind}")]
    room = os.statvfs(directory)
    free = room.f_bavail * room.f_frsize
    said = f"{free / 1e9:.1f} GB free"
    if room.f_files and room.f_favail < 50_000:
        facts.append(Fact("disk space", "warn", f"{said}, but only {room.f_favail} inodes", elsewhere))
    elif free < ROOM_NEEDED:
        facts.append(Fact("disk space", "warn", f"{said}; a Debian image wants {ROOM_NEEDED / 1e9:.0f} GB", elsewhere))
    else:
        facts.append(Fact("disk space", "ok", said))
    return facts


def subordinate_ids_fact() -> Fact:
    """Whether this user has ids of his own to give to a container (subuid(5)): for `rootless` use with many users."""
    import pwd

    uid = int(os.environ.get("SUDO_UID") or os.getuid())
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    if uid == 0:
        return Fact("subuid", "ok", "not needed by root")
    ranges = {}
    for file_name in ("subuid", "subgid"):
        try:
            with open(f"/etc/{file_name}") as file:
                lines = [line.strip().split(":") for line in file]
        except FileNotFoundError:
            lines = []
        ranges[file_name] = sum(int(line[2]) for line in lines if len(line) == 3 and line[0] in (name, str(uid)))
    if all(count >= 65536 for count in ranges.values()):
        return Fact("subuid", "ok", f"{name} has {min(ranges.values())} ids for containers")
    return Fact(
        "subuid", "warn", f"{name} has too few ids in /etc/subuid and /etc/subgid: files keep one owner",
        f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}",
    )  # fmt: skip
