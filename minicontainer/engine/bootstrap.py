"""Images made on the spot, without a registry: busybox from one static program, Debian by debootstrap.

Offers: `make`. It calls other programs (apt-get, dpkg-deb, debootstrap), for what it makes is what they install. The
same busybox yields the same image, byte for byte.
"""

import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from typing import Any

from .. import errors, host
from ..image import making, reference, store

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# What a program finds in nearly every container: names for root and nobody.
PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
GROUP = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"
DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "usr/bin", "usr/sbin", "sbin", "var")


def make(into: store.Store, kind: str) -> store.Image:
    """Make an image and name it `busybox:latest` or `debian:latest`. Raises InvalidArgument for another kind,
    Unsupported for what this host lacks."""
    makers: dict[str, Callable[[store.Store], store.Image]] = {"busybox": _busybox, "debian": _debian}
    if kind not in makers:
        raise errors.InvalidArgument(f"no bootstrap is called {kind!r}; there are {' and '.join(makers)}")
    return makers[kind](into)


def _busybox(into: store.Store) -> store.Image:
    with into.job() as job:
        program = _static_busybox(job.folder)
        modified = int(os.stat(program).st_mtime)
        tree = job.path("tree")
        for directory in ("", *DIRECTORIES):
            os.mkdir(f"{tree}/{directory}", 0o755)
            os.chmod(f"{tree}/{directory}", {"tmp": 0o1777, "root": 0o700}.get(directory, 0o755))
        shutil.copyfile(program, f"{tree}/bin/busybox")
        os.chmod(f"{tree}/bin/busybox", 0o755)
        for applet in _output([program, "--list"]).split():
            if applet != "busybox" and "/" not in applet:
                os.symlink("busybox", f"{tree}/bin/{applet}")
        for name, content in (("passwd", PASSWD), ("group", GROUP)):
            with open(f"{tree}/etc/{name}", "w") as file:
                file.write(content)
            os.chmod(f"{tree}/etc/{name}", 0o644)
        layer = job.path("tar")
        _pack(tree, layer, modified)
        config = _config(["sh"], modified, "bootstrap busybox")
        return making.make(job, config, [layer], "busybox:latest")


def _static_busybox(folder: str) -> str:
    """The host's busybox if it stands alone, else the one of Debian's package."""
    for path in ("/bin/busybox", "/usr/bin/busybox"):
        if os.path.exists(path) and _is_static(path):
            return os.path.realpath(path)
    for program in ("apt-get", "dpkg-deb"):
        if not shutil.which(program):
            raise errors.Unsupported(
                f"bootstrap busybox needs a statically linked /bin/busybox, or {program} to fetch Debian's package "
                "busybox-static; neither is here"
            )
    where = f"{folder}/package"
    os.mkdir(where, 0o755)
    try:
        # -o: as root, apt would rather download as a user who may not write here.
        _output(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "busybox-static"], where)
        package = f"{where}/{os.listdir(where)[0]}"
        _output(["dpkg-deb", "-x", package, f"{where}/tree"])
    except (errors.Unsupported, IndexError) as error:
        raise errors.Unsupported(
            f"the package busybox-static cannot be fetched (`apt-get update` may help): {error}"
        ) from None
    for path in ("bin/busybox", "usr/bin/busybox"):
        if os.path.exists(f"{where}/tree/{path}"):
            return f"{where}/tree/{path}"
    raise errors.Unsupported("Debian's package busybox-static has no bin/busybox")


def _is_static(path: str) -> bool:
    """Whether an ELF program names no interpreter, the dynamic linker (elf(5): a program header of type PT_INTERP)."""
    with open(path, "rb") as file:
        head = file.read(8192)
    if head[:4] != b"\x7fELF":
        return False
    order: Any = "little" if head[5] == 1 else "big"
    wide = head[4] == 2
    table = int.from_bytes(head[32:40] if wide else head[28:32], order)
    at = 54 if wide else 42
    size, count = (int.from_bytes(head[at + 2 * i : at + 2 * i + 2], order) for i in (0, 1))
    kinds = [int.from_bytes(head[table + i * size : table + i * size + 4], order) for i in range(count)]
    return 3 not in kinds


def _debian(into: store.Store) -> store.Image:
    if not host.is_root():
        raise errors.Unsupported(
            "bootstrap debian must be run by root of the machine: debootstrap makes devices, chroots"
        )
    if not shutil.which("debootstrap"):
        raise errors.Unsupported("bootstrap debian needs debootstrap; `apt-get install debootstrap` brings it")
    if not os.path.exists(KEYRING):
        raise errors.Unsupported(
            f"bootstrap debian needs {KEYRING}; `apt-get install debian-archive-keyring` brings it"
        )
    suite, mirror = _host_suite()
    with into.job() as job:
        tree = job.path("tree")
        # Without a mirror named, debootstrap takes its own default.
        _output(
            ["debootstrap", "--variant=minbase", f"--keyring={KEYRING}", suite, tree, *([mirror] if mirror else [])]
        )
        _tidy(tree)
        layer = job.path("tar")
        _pack(tree, layer)
        config = _config(["bash"], int(time.time()), f"bootstrap debian: debootstrap --variant=minbase {suite}")
        return making.make(job, config, [layer], "debian:latest")


def _host_suite() -> tuple[str, str]:
    """Suite and mirror of a Debian host, so that a local mirror is used and nothing else asked; else bookworm, ""."""
    release = {}
    try:
        with open("/etc/os-release") as file:
            for line in file:
                key, _, value = line.strip().partition("=")
                release[key] = value.strip("\"'")
    except FileNotFoundError:
        pass
    if release.get("ID") != "debian" or not release.get("VERSION_CODENAME"):
        return "bookworm", ""
    suite = release["VERSION_CODENAME"]
    sources = ["/etc/apt/sources.list"]
    if os.path.isdir("/etc/apt/sources.list.d"):
        sources += [f"/etc/apt/sources.list.d/{name}" for name in sorted(os.listdir("/etc/apt/sources.list.d"))]
    for path in sources:
        mirror = _mirror(path, suite)
        if mirror:
            return suite, mirror
    return suite, ""


def _mirror(path: str, suite: str) -> str:
    """The address that a sources file (sources.list(5), of either style) has for a suite; "" for none."""
    try:
        with open(path) as file:
            lines = [line.strip() for line in file if not line.startswith("#")]
    except FileNotFoundError:
        return ""
    address = ""
    for line in lines:
        key, _, value = line.partition(":")
        if not line:
            address = ""
        elif key == "URIs":
            address = value.split()[0]
        elif key == "Suites" and address and suite in value.split():
            return address
        elif line.startswith("deb "):
            words = [word for word in line.split("]")[-1].split() if word != "deb"]
            if len(words) >= 2 and words[1] == suite:
                return words[0]
    return ""


def _tidy(tree: str) -> None:
    """What no image should carry: downloads, lists, logs, this host's name and resolver, devices."""
    for directory in ("var/cache/apt", "var/cache/debconf", "var/lib/apt/lists", "var/log", "dev", "run", "tmp"):
        for base, directories, names in os.walk(f"{tree}/{directory}", topdown=False):
            if base == f"{tree}/{directory}":
                for name in [*names, *directories]:
                    path = f"{base}/{name}"
                    if os.path.isdir(path) and not os.path.islink(path):
                        if directory in ("dev", "run", "tmp"):
                            shutil.rmtree(path)
                    else:
                        os.unlink(path)
            elif directory.startswith("var/"):
                for name in names:
                    os.unlink(f"{base}/{name}")
    for name in ("etc/hostname", "etc/resolv.conf"):
        if os.path.lexists(f"{tree}/{name}"):
            os.unlink(f"{tree}/{name}")
    if os.path.exists(f"{tree}/etc/machine-id"):
        os.truncate(f"{tree}/etc/machine-id", 0)


def _pack(tree: str, path: str, modified: int | None = None) -> None:
    """Pack a tree in the order of its names, with `modified` as every time (default: the files' own), owned by root in
    that case; attributes (security.capability) are kept."""

    def settle(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uname = entry.gname = ""
        entry.mtime = int(entry.mtime)
        if modified is not None:
            entry.mtime, entry.uid, entry.gid = modified, 0, 0
        if entry.isreg() or entry.isdir():
            for name in os.listxattr(f"{tree}/{entry.name}"):
                value = os.getxattr(f"{tree}/{entry.name}", name)
                text = value.decode("utf-8", "surrogateescape")
                entry.pax_headers = {**entry.pax_headers, f"SCHILY.xattr.{name}": text}
        return entry

    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(tree, ".", filter=settle)  # adds the names of a directory in order


def _config(command: list[str], created: int, by: str) -> dict[str, Any]:
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created))
    architecture, _ = reference.host_platform()
    return {
        "created": when,
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": [PATH], "Cmd": command},
        "history": [{"created": when, "created_by": by}],
    }


def _output(command: list[str], directory: str | None = None) -> str:
    """Run a program, and return what it says. Raises Unsupported with its last words if it fails."""
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, errors="replace", check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["no message"]
        raise errors.Unsupported(f"{os.path.basename(command[0])} failed with code {done.returncode}: {words[0]}")
    return done.stdout
