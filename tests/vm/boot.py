"""A second kernel in a few seconds: boots a distribution's own kernel in qemu and runs one command there.

    /usr/bin/python3 tests/vm/boot.py [--systemd] COMMAND [ARG…]     (what `./dev vm` calls; root the first time)

Most hosts have pure cgroup v2; some that we are built on have v1. What only ran on one of them is not tested. Inside:
root with all capabilities, cgroup v2 alone, and this checkout with its .venv at the same path as outside, writable,
thrown away afterwards. COMMAND's output comes out as it is written, its exit code is ours. 124: the time limit.

Process 1 is a shell script that mounts what it must. With --systemd it is systemd, which owns the tree of cgroups, as
on most hosts; of its units only those start that a container could notice.

The machine is made of three disks, all below .vm/ and each rebuilt only when what goes into it has changed:

    root.ext4                 debootstrap: the host's own release, because of .venv's Python; and modules
    venv.ext4                 .venv
    run-…/checkout.ext4       the checkout and the command: small, made anew for each run

No KVM: emulation alone works everywhere, also in a virtual machine. On aarch64 the names below are right but untried.
Only the standard library, and no package of ours: this runs before there is a .venv to trust.
"""

import fcntl
import glob
import hashlib
import os
import platform
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CACHE = os.path.join(CHECKOUT, ".vm")
TIME_LIMIT = int(os.environ.get("VM_TIME_LIMIT", "600"))  # seconds
MEMORY = os.environ.get("VM_MEMORY", "2048")  # MiB

# What the tests ask, beside Python: the same programs as outside (`./dev setup`), without compilers; and the engines
# that have systemd make cgroups (tests/vm/test_engines.py): 300 MB of the disk.
PACKAGES = (
    "python3 libpython3-stdlib libseccomp2 libcap2 iproute2 iputils-ping nftables procps kmod strace busybox-static "
    "util-linux mount ca-certificates uidmap apparmor systemd systemd-sysv libpam-systemd dbus dbus-user-session "
    "podman netavark docker.io runc crun iptables"
).split()
# For the root disk, in this order; what is built into a kernel is not found as a file, and skipped.
DISK_MODULES = (
    "virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk virtio_console".split()
)
# A kernel in a container host has these by the time a user comes; ours loads none by itself before it is asked.
MODULES = (
    "overlay bridge br_netfilter veth macvlan ipvlan dummy 8021q nf_tables nft_masq nft_nat nft_chain_nat nft_ct "
    "nft_fib_inet"
)

MACHINES = {
    "x86_64": ("qemu-system-x86_64", ["-machine", "q35", "-cpu", "max"], "ttyS0", {"debian": "cloud-amd64"}),
    "aarch64": ("qemu-system-aarch64", ["-machine", "virt", "-cpu", "max"], "ttyAMA0", {"debian": "cloud-arm64"}),
}

# Process 1 before the root disk is there. No udev: devtmpfs names the disks.
INITRD_INIT = """#!/bin/sh
mount -t devtmpfs dev /dev
for m in /modules/*.ko; do insmod $m; done
i=0; until [ -b /dev/vda ] || [ $i = 200 ]; do i=$((i+1)); usleep 10000; done
mount -t ext4 -o noatime,nobarrier /dev/vda /root || { echo "no root disk"; poweroff -f; }
mount --move /dev /root/dev
exec switch_root /root ${vm_init:-/sbin/vm-init}
"""

# Process 1 of the machine.
ROOT_INIT = """#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t securityfs securityfs /sys/kernel/security
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
ln -sf /proc/self/fd /dev/fd; ln -sf fd/0 /dev/stdin; ln -sf fd/1 /dev/stdout; ln -sf fd/2 /dev/stderr
ip link set lo up
hostname vm
exec setsid /sbin/vm-command
"""

# The command's output and its exit code leave by two virtio ports. Process 1, or what systemd starts.
ROOT_COMMAND = """#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
modprobe -a -q MODULES
mkdir -p CHECKOUT
mount -t ext4 -o noatime /dev/vdc CHECKOUT
mkdir -p CHECKOUT/.venv
mount -t ext4 -o noatime /dev/vdb CHECKOUT/.venv
cd CHECKOUT
setsid --wait sh .vm-command </dev/null >/dev/vport0p1 2>&1
echo $? >/dev/vport0p2
sync
echo o >/proc/sysrq-trigger
sleep 60
"""

# What systemd boots instead of multi-user.target: its manager, the journal, the bus, logins; then the command.
SYSTEMD_UNITS = {
    "vm.target": """[Unit]
Requires=vm.service
""",
    "vm.service": """[Unit]
Requires=dbus.socket
Wants=systemd-logind.service
After=basic.target dbus.socket systemd-logind.service
[Service]
ExecStart=/sbin/vm-command
""",
}
# Slow under emulation, and nothing that a container could notice.
SYSTEMD_MASKED = (
    "systemd-hwdb-update.service systemd-binfmt.service systemd-random-seed.service systemd-journal-flush.service "
    "systemd-update-utmp.service systemd-firstboot.service systemd-sysusers.service systemd-pstore.service "
    "systemd-machine-id-commit.service systemd-remount-fs.service kmod-static-nodes.service modprobe@.service "
    "dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount "
    "sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount systemd-ask-password-console.path "
    "systemd-ask-password-wall.path apparmor.service podman.socket podman.service podman-restart.service "
    "podman-auto-update.timer docker.socket docker.service containerd.service"
)


def say(message: str) -> None:
    """To stderr: stdout belongs to the command."""
    print(f"vm: {message}", file=sys.stderr, flush=True)


def run(*command: str, cwd: str | None = None) -> str:
    """A command that must succeed; its output."""
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"vm: {shlex.join(command)} failed ({done.returncode})\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def release() -> dict[str, str]:
    """os-release(5) of the host."""
    with open("/etc/os-release") as file:
        pairs = (line.rstrip().split("=", 1) for line in file if "=" in line)
        return {key: value.strip('"') for key, value in pairs}


def cached(name: str, inputs: str) -> bool:
    """Whether .vm/NAME was made from the same inputs; `remember` says so after it was made."""
    try:
        with open(os.path.join(CACHE, name + ".from")) as file:
            return file.read() == inputs and os.path.exists(os.path.join(CACHE, name))
    except OSError:
        return False


def remember(name: str, inputs: str) -> None:
    """See `cached`."""
    with open(os.path.join(CACHE, name + ".from"), "w") as file:
        file.write(inputs)


def disk(path: str, folder: str, spare: int) -> None:
    """An ext4 image of a folder, by mke2fs alone: no mount, no loop device. `spare`: MiB to write in."""
    used = int(run("du", "-sm", "--apparent-size", folder).split()[0])
    entries = sum(len(directories) + len(files) for _, directories, files in os.walk(folder))
    size = int(used * 1.1) + entries // 200 + spare + 16
    run("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-N", str(entries + 20000), "-d", folder,
        path + ".new", f"{size}M")  # fmt: skip
    os.rename(path + ".new", path)


def kernel_package(system: str) -> str:
    """The newest kernel made for virtual machines in the host's own distribution: a package's name."""
    flavour = MACHINES[platform.machine()][3].get(system, "virtual")
    depends = run("apt-cache", "depends", "--important", f"linux-image-{flavour}")
    return next(line.split()[-1] for line in depends.splitlines() if "Depends: linux-image-" in line)


def build_kernel_and_root() -> None:
    """.vm/vmlinuz, .vm/initrd, .vm/root.ext4: debootstrap and the kernel's package, unpacked, not installed."""
    host = release()
    with open(__file__, "rb") as file:
        inputs = hashlib.sha256(file.read()).hexdigest() + host["VERSION_CODENAME"]
    if cached("root.ext4", inputs):
        return
    if os.geteuid() != 0:
        sys.exit("vm: making the root disk needs root (debootstrap): sudo ./dev vm true")
    base = os.path.join(CACHE, "base")
    if not cached("base", " ".join(PACKAGES)):
        say("debootstrap: once, a minute or two")
        shutil.rmtree(base, ignore_errors=True)
        # In its own mount namespace: what debootstrap mounts goes with it, also when it fails.
        run(
            "unshare",
            "-m",
            "debootstrap",
            "--variant=minbase",
            f"--include={','.join(PACKAGES)}",
            host["VERSION_CODENAME"],
            base,
        )
        shutil.rmtree(f"{base}/var/cache/apt", ignore_errors=True)
        shutil.rmtree(f"{base}/var/lib/apt/lists", ignore_errors=True)
        run(
            "chroot",
            base,
            "python3",
            "-m",
            "compileall",
            "-q",
            "/usr/lib/python3",
            "/usr/lib/python3." + platform.python_version_tuple()[1],
        )
        remember("base", " ".join(PACKAGES))

    say("the kernel, its modules, the root disk")
    unpacked = os.path.join(CACHE, "kernel")
    shutil.rmtree(unpacked, ignore_errors=True)
    os.makedirs(unpacked)
    os.chmod(unpacked, 0o777)  # apt downloads as its own user
    package = kernel_package(host["ID"])
    wanted = [package]
    if host["ID"] == "ubuntu":  # there, the modules are a package of their own
        wanted.append(package.replace("linux-image-", "linux-modules-"))
    run("apt-get", "download", *wanted, cwd=unpacked)
    for archive in glob.glob(f"{unpacked}/*.deb"):
        run("dpkg-deb", "-x", archive, unpacked)
    [modules] = glob.glob(f"{unpacked}/lib/modules/*") or glob.glob(f"{unpacked}/usr/lib/modules/*")
    version = os.path.basename(modules)
    shutil.rmtree(f"{base}/lib/modules", ignore_errors=True)
    shutil.copytree(modules, f"{base}/lib/modules/{version}")
    run("depmod", "-b", base, version)
    write(f"{base}/sbin/vm-init", ROOT_INIT, 0o755)
    command = ROOT_COMMAND.replace("MODULES", MODULES).replace("CHECKOUT", shlex.quote(CHECKOUT))
    write(f"{base}/sbin/vm-command", command, 0o755)
    for name, content in SYSTEMD_UNITS.items():
        write(f"{base}/etc/systemd/system/{name}", content)
    for name in SYSTEMD_MASKED.split():
        link(f"{base}/etc/systemd/system/{name}", "/dev/null")
    link(f"{base}/etc/systemd/system/default.target", "vm.target")
    write(f"{base}/etc/machine-id", "0123456789abcdef0123456789abcdef\n")  # without one, each boot is a first boot
    write(f"{base}/etc/hostname", "vm\n")
    write(f"{base}/etc/hosts", "127.0.0.1 localhost vm\n")
    build_initrd(modules)
    disk(os.path.join(CACHE, "root.ext4"), base, spare=600)
    os.rename(f"{unpacked}/boot/vmlinuz-{version}", os.path.join(CACHE, "vmlinuz"))
    shutil.rmtree(unpacked)
    remember("root.ext4", inputs)


def build_initrd(modules: str) -> None:
    """.vm/initrd: static busybox and what it takes to see a disk."""
    folder = tempfile.mkdtemp(dir=CACHE)
    for name in ("bin", "dev", "root", "modules", "proc"):
        os.mkdir(f"{folder}/{name}")
    shutil.copy("/bin/busybox", f"{folder}/bin/busybox")
    for applet in "sh mount insmod usleep switch_root poweroff [".split():
        os.symlink("busybox", f"{folder}/bin/{applet}")
    for number, name in enumerate(DISK_MODULES):
        for path in glob.glob(f"{modules}/kernel/**/{name}.ko*", recursive=True) + glob.glob(
            f"{modules}/kernel/**/{name.replace('_', '-')}.ko*", recursive=True
        ):
            target = f"{folder}/modules/{number}-{name}.ko"
            if path.endswith(".zst"):
                run("zstd", "-q", "-d", path, "-o", target)
            elif path.endswith(".xz"):
                write(target, subprocess.run(["xz", "-dc", path], check=True, capture_output=True).stdout)
            else:
                shutil.copy(path, target)
    write(f"{folder}/init", INITRD_INIT, 0o755)
    archive = os.path.join(CACHE, "initrd")
    run("sh", "-c", f"find . | cpio -o -H newc --quiet >{shlex.quote(archive)}", cwd=folder)
    shutil.rmtree(folder)


def build_venv() -> None:
    """.vm/venv.ext4, anew when `./dev setup` made .venv anew."""
    with open(os.path.join(CHECKOUT, ".venv", "stamp")) as file:
        inputs = file.read() + str(os.stat(file.name).st_mtime)
    if not cached("venv.ext4", inputs):
        say("the disk with .venv")
        disk(os.path.join(CACHE, "venv.ext4"), os.path.join(CHECKOUT, ".venv"), spare=0)
        remember("venv.ext4", inputs)


def write(path: str, content: str | bytes, mode: int = 0o644) -> None:
    """A file with a mode."""
    with open(path, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    os.chmod(path, mode)


def link(path: str, target: str) -> None:
    """A symbolic link, in place of whatever was there."""
    if os.path.lexists(path):
        os.unlink(path)
    os.symlink(target, path)


def checkout_disk(work: str, command: list[str]) -> str:
    """The checkout as it lies here (also what is not committed), and the command."""
    folder = os.path.join(work, "checkout")
    everywhere = shutil.ignore_patterns(".git", ".venv", ".vm", ".*_cache", "*.egg-info")

    def ignored(where: str, names: list[str]) -> set[str]:
        made = {"build", "dist", "bench-results"} if where == CHECKOUT else set()  # the package has a build/, too
        return everywhere(where, names) | made & set(names)

    shutil.copytree(CHECKOUT, folder, symlinks=True, ignore=ignored)
    environment = {key: os.environ[key] for key in ("CI", "TERM") if os.environ.get(key)}
    exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in environment.items())
    write(f"{folder}/.vm-command", f"{exports}export MINICONTAINER_VM=1\n{shlex.join(command)}\n")
    path = os.path.join(work, "checkout.ext4")
    disk(path, folder, spare=64)
    shutil.rmtree(folder)
    return path


def boot(work: str, checkout: str, init: str) -> int:
    """Run qemu until it powers off or the time is over; the command's exit code."""
    program, machine, console, _ = MACHINES[platform.machine()]
    code = os.path.join(work, "code")
    console_log = os.path.join(work, "console.log")

    def drive(path: str) -> list[str]:
        # snapshot=on: what the machine writes goes to a temporary file, so that runs may share a disk.
        return ["-drive", f"file={path},if=virtio,format=raw,snapshot=on,cache=unsafe"]

    # A pipe of our own: qemu's stdio would also read, and stops a machine whose stdin is at its end.
    read_end, write_end = os.pipe()
    command = [
        program, *machine, "-accel", "tcg,thread=multi", "-smp", "2", "-m", MEMORY,
        "-display", "none", "-nodefaults", "-no-reboot", "-monitor", "none", "-parallel", "none", "-net", "none",
        "-serial", f"file:{console_log}",
        "-kernel", f"{CACHE}/vmlinuz", "-initrd", f"{CACHE}/initrd",
        "-append",
        f"console={console} quiet panic=-1 random.trust_cpu=on cgroup_no_v1=all mitigations=off "
        f"vm_init={init}",
        *drive(f"{CACHE}/root.ext4"), *drive(f"{CACHE}/venv.ext4"), *drive(checkout),
        "-device", "virtio-serial-pci",
        "-chardev", f"file,id=out,path=/dev/fd/{write_end}", "-device", "virtserialport,chardev=out,nr=1",
        "-chardev", f"file,id=code,path={code}", "-device", "virtserialport,chardev=code,nr=2",
        "-object", "rng-random,filename=/dev/urandom,id=rng", "-device", "virtio-rng-pci,rng=rng",
    ]  # fmt: skip
    qemu = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, pass_fds=(write_end,), env={**os.environ, "TMPDIR": work}
    )
    os.close(write_end)
    deadline = time.monotonic() + TIME_LIMIT
    try:
        while True:
            ready, _, _ = select.select([read_end], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                say(f"killed after {TIME_LIMIT} s (VM_TIME_LIMIT); the kernel's last words:\n{last_words(console_log)}")
                return 124
            piece = os.read(read_end, 65536)
            if not piece:
                break
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    finally:
        qemu.kill()
        qemu.wait()
        os.close(read_end)
    try:
        with open(code) as file:
            return int(file.read())
    except (OSError, ValueError):
        say(f"the machine went without an exit code; the kernel's last words:\n{last_words(console_log)}")
        return 125


def last_words(console_log: str) -> str:
    """The end of the kernel's console."""
    with open(console_log, errors="replace") as file:
        return file.read()[-3000:]


def main() -> int:
    """See the module's docstring."""
    command, init = sys.argv[1:], "/sbin/vm-init"
    if command[:1] == ["--systemd"]:
        command, init = command[1:], "/lib/systemd/systemd"
    if not command:
        sys.exit(__doc__)
    os.makedirs(CACHE, exist_ok=True)
    with open(os.path.join(CACHE, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        build_kernel_and_root()
        build_venv()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="run-") as work:
        status = boot(work, checkout_disk(work, command), init)
    say(f"{time.monotonic() - begin:.1f} s, exit code {status}")
    return status


if __name__ == "__main__":
    sys.exit(main())
