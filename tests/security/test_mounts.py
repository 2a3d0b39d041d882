"""Ways out by an image that has prepared the places where we mount: links, and volumes over what is the kernel's."""

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer import errors
from minicontainer.kernel import mounts
from tests.conftest import minicontainer
from tests.engine_fixtures import Shop, archive, base_layer, fresh_shop, layer  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox")]

IPV4 = "proc/sys/net/ipv4"
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
libc = ctypes.CDLL(None, use_errno=True)
KNOB = "/proc/sys/vm/overcommit_memory"


def hostile(volume: str, files: dict[str, bytes | str | int]) -> tuple[dict[str, Any], list[bytes]]:
    config = {"config": {"Volumes": {volume: {}} if volume else {}}}
    return config, [base_layer(), layer(files)]


IMAGES = {
    "null": hostile("/dev", {"dev": 0o755, "dev/null": "/proc/keys"}),
    "proc": hostile("/proc", {"proc": 0o755, "proc/self": 0o755, "proc/self/setgroups": b"allow"}),
    "self": hostile("/proc/self", {"tmp/x": b""}),
    "sysctl": hostile(f"/{IPV4}", {**{str(path): 0o755 for path in reversed(Path(IPV4).parents) if path.name},
                                  IPV4: 0o755, f"{IPV4}/ip_forward": KNOB}),
    "proclink": hostile("", {"proc": "fake", "fake": 0o755}),
    "syslink": hostile("", {"sys": "fake", "fake": 0o755}),
}  # fmt: skip


@pytest.fixture
def images(shop: Shop, tmp_path: Path) -> Iterator[None]:
    path = tmp_path / "images.tar"
    path.write_bytes(archive({f"{name}:latest": image for name, image in IMAGES.items()}))
    minicontainer("load", "-i", str(path))
    yield
    minicontainer("rmi", *IMAGES)


def test_cve_2025_31133_a_null_device_that_leads_elsewhere(shop: Shop, images: None) -> None:
    """What is masked would be bound to what the image's /dev/null leads to: /proc/keys, unmasked."""
    assert "/dev/null is something else" in shop.run("null", "cat", "/proc/keys", check=False).stderr
    assert shop.out("plain", "cat", "/proc/keys") == ""


RACE = """
import os, sys
from minicontainer import errors, syscalls
from minicontainer.kernel import terminal
root = sys.argv[1]
os.setsid()
syscalls.unshare(syscalls.CLONE_NEWNS)
syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
for path in ("proc", "dev/theirs", "dev/other"):
    os.makedirs(f"{root}/{path}")
syscalls.mount("devpts", f"{root}/dev/theirs", "devpts", 0, "newinstance,ptmxmode=0666")
syscalls.mount("proc", f"{root}/proc", "proc")
os.symlink("/proc/sys/kernel/core_pattern", f"{root}/dev/other/0")
os.symlink("theirs", f"{root}/dev/pts")
os.chroot(root)
os.chdir("/")
if sys.argv[2] == "console":
    os.symlink("/proc/sys/kernel/core_pattern", "/dev/console")
fchown = os.fchown

def at_that_moment(*words):  # the terminal is open, and not yet bound
    fchown(*words)
    os.unlink("/dev/pts")
    os.symlink("other", "/dev/pts")

os.fchown = at_that_moment
said = os.dup(1)
try:
    terminal.open_pty(0)
except errors.KernelError as error:
    sys.exit(error.hint)
same = os.stat("/dev/console").st_rdev == os.fstat(0).st_rdev
os.write(said, b"the terminal" if same else b"a knob of the host")
"""


def test_cve_2025_52565_a_console_that_leads_elsewhere(tmp_path: Path) -> None:
    """/dev/pts/N becomes a link before it is bound to /dev/console, or that is one: a knob of /proc, writable.

    The first as who shares a /dev with a container can do it at the right moment; the second by an image.
    """

    def made(root: Path, link: str) -> str:
        words = [sys.executable, "-c", RACE, root, link]
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        return done.stdout

    assert made(tmp_path / "first", "pts") == "the terminal"
    assert made(tmp_path / "second", "console").startswith("it is a link")


def test_cve_2019_16884_and_2025_52881_a_volume_in_proc(shop: Shop, images: None) -> None:
    """Our own writes to /proc would go where the volume's links lead: a --sysctl to one of the whole machine's."""
    before = Path(KNOB).read_text()
    other = "1" if before.strip() == "0" else "0"
    for image in ("proc", "self", "sysctl"):
        done = shop.run("--sysctl", f"net.ipv4.ip_forward={other}", image, "true", check=False)
        now = Path(KNOB).read_text()
        Path(KNOB).write_text(before)
        assert now == before
        assert done.returncode == 125 and "lies in /proc, which is the kernel's" in done.stderr, image
    with pytest.raises(errors.InvalidArgument):
        mounts.refuse_traps("/", "/proc/self", "/proc/self", "tmpfs")
    # What is asked for with reason goes on: the host's own /proc, and figures as lxcfs shows them.
    first = Path("/proc/1/comm").read_text()
    assert shop.out("--pid", "host", "-v", "/proc:/proc", "plain", "cat", "/proc/1/comm") == first
    figures = shop.out("-v", f"{__file__}:/proc/uptime", "plain", "cat", "/proc/uptime")
    assert figures == Path(__file__).read_text()


def test_cve_2019_19921_2023_27561_and_2023_28642_proc_or_sys_is_a_link(shop: Shop, images: None) -> None:
    for image in ("proclink", "syslink"):
        done = shop.run(image, "true", check=False)
        assert done.returncode == 125 and "leads elsewhere in this image" in done.stderr


def test_a_target_behind_a_link_is_the_containers_own(shop: Shop, tmp_path: Path) -> None:
    """Of an image's links, an absolute one and one that climbs: the mount is where they lead inside, and the directory
    that is made for it, too."""
    outside, data = tmp_path / "outside", tmp_path / "data"
    outside.mkdir()
    data.mkdir()
    same = {str(path)[1:]: 0o755 for path in (*reversed(outside.parents), outside) if path.name}
    links = {"abs": str(outside), "up": f"../../../../..{outside}"}
    (tmp_path / "images.tar").write_bytes(archive({"links:latest": hostile("", {**same, **links})}))
    minicontainer("load", "-i", str(tmp_path / "images.tar"))
    try:
        for link in links:
            found = shop.out("-v", f"{data}:/{link}/y", "links", "grep", str(data), "/proc/self/mountinfo")
            assert found.split()[4] == f"{outside}/y"
            assert os.listdir(outside) == []
    finally:
        minicontainer("rmi", "links")


def test_cve_2021_30465_a_target_that_is_exchanged_for_a_link(shop: Shop, tmp_path: Path) -> None:
    """A container that shares a volume exchanges a directory in it for a link to the host's, while we mount there.

    A mount that had gone astray would not be in the new container's tree: each time, all of it is.
    """
    shared, source, outside = tmp_path / "shared", tmp_path / "source", tmp_path / "outside"
    for path in (shared / "target", source, outside):
        path.mkdir(parents=True)
    (source / "file").write_text("mounted")
    (shared / "link").symlink_to(outside)
    over = threading.Event()
    exchanged = mounted = 0

    def exchange() -> None:
        nonlocal exchanged
        while not over.is_set():
            done = libc.renameat2(AT_FDCWD, bytes(shared / "target"), AT_FDCWD, bytes(shared / "link"), RENAME_EXCHANGE)
            assert done == 0, os.strerror(ctypes.get_errno())
            exchanged += 1

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for turn in range(200):
            done = shop.run("-v", f"{shared}:/data", "-v", f"{source}:/data/target", "plain",
                            "grep", "-c", f" {source} /", "/proc/self/mountinfo", check=False)  # fmt: skip
            # Refused, as it changed in between, or mounted within the root.
            assert done.returncode == 125 or done.stdout == "1\n", (done.stdout, done.stderr)
            mounted += done.returncode == 0
            assert os.listdir(outside) == []
            if turn >= 11 and mounted:  # which of them go well is chance
                break
    finally:
        over.set()
        thread.join()
    assert exchanged > 12 and mounted


def test_cve_2022_0811_a_sysctl_that_brings_another(shop: Shop) -> None:
    """CRI-O let one value smuggle in a second parameter; and a name must not climb."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    for words in (
        "kernel.shm_rmid_forced=1+kernel.core_pattern=|/evil",
        "kernel.shm_rmid_forced=1\nkernel.core_pattern=|/evil",
        "kernel.core_pattern=|/evil",
        "net./../../kernel/core_pattern=|/evil",
        "net.ipv4/../../kernel/core_pattern=|/evil",
    ):
        done = shop.run("--sysctl", words, "plain", "true", check=False)
        now = Path("/proc/sys/kernel/core_pattern").read_text()
        Path("/proc/sys/kernel/core_pattern").write_text(pattern)  # first of all: whatever has become of it
        assert now == pattern
        assert done.returncode == 125 or "\n" in words, words  # of a number, the kernel reads the first line
    assert shop.out("--sysctl", "kernel.shm_rmid_forced=1", "plain", "cat", "/proc/sys/kernel/shm_rmid_forced") == "1\n"
