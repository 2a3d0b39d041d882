"""What a layer can hold, from a container's writable layer through commit, save, load and run; beside docker and umoci.

Compared is content as the kernel shows it: kind, mode, owner, time to the nanosecond, bytes, link targets, which names
are one file, device numbers, extended attributes with file capabilities.
"""

import hashlib
import json
import os
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import engine_fixtures
from tests.cli.test_images import archive, shop  # noqa: F401
from tests.conftest import minicontainer
from tests.engine_fixtures import Shop

pytestmark = [pytest.mark.root, pytest.mark.needs("overlay", "libseccomp")]

# cap_net_raw+ep, as setcap(8) writes it: VFS_CAP_REVISION_2 with the effective bit (linux/capability.h).
NET_RAW = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)


def odd(upper: Path) -> None:
    """What is rarely in a tree, written where a container's overlay has written it."""
    here = upper / "odd"
    (here / "capable").write_bytes(b"program")
    os.chmod(here / "capable", 0o755)
    os.setxattr(here / "capable", "security.capability", NET_RAW)
    (here / "tagged").write_bytes(b"x")
    os.setxattr(here / "tagged", "user.comment", b"\0\xff binary")
    os.link(here / "tagged", here / "tagged too")
    with (here / "sparse").open("wb") as file:
        file.seek(3 << 20)
        file.write(b"end")
        file.truncate(8 << 20)
    for name, number in (("null", 3), ("zero", 5)):
        os.mknod(here / name, stat.S_IFCHR | 0o666, os.makedev(1, number))
    os.mknod(here / "block", stat.S_IFBLK | 0o600, os.makedev(7, 200))
    os.mkfifo(here / "fifo")
    Path(os.fsdecode(bytes(here) + b"/caf\xe9 \n\\x")).write_bytes(b"latin-1")
    (here / ("long" * 50)).write_bytes(b"long")
    deep = here / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    (deep / ("f" * 120)).symlink_to("../" * 40 + "g" * 120)
    (here / "setuid").write_bytes(b"")
    os.chown(here / "setuid", 1234567, 7654321)
    os.chmod(here / "setuid", 0o6711)
    (here / "sticky").mkdir(mode=0o700)
    os.chmod(here / "sticky", 0o1777)
    for path in [*here.rglob("*"), here]:
        os.utime(path, ns=(1, 1_700_000_000_123_456_789), follow_symlinks=False)


def seen(top: Path) -> dict[bytes, tuple[Any, ...]]:
    """Everything below, as the kernel shows it; which names are one file is told by the first of them."""
    found: dict[bytes, tuple[Any, ...]] = {}
    first: dict[int, bytes] = {}
    for path in sorted(paths(os.fsencode(top))):
        status = os.lstat(path)
        name = path[len(os.fsencode(top)) :]
        content = b""
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb") as file:
                content = hashlib.sha256(file.read()).digest()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        xattrs = {
            key: os.getxattr(path, key, follow_symlinks=False)
            for key in os.listxattr(path, follow_symlinks=False)
            if not key.startswith(
                ("trusted.overlay", "user.overlay", "security.selinux", "user.umoci", "user.rootless")
            )
        }
        same = first.setdefault(status.st_ino, name) if not stat.S_ISDIR(status.st_mode) else name
        size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
        found[name] = (
            oct(status.st_mode), status.st_uid, status.st_gid, size, status.st_mtime_ns, status.st_rdev, content, same,
            sorted(xattrs.items()),
        )  # fmt: skip
    return found


def paths(top: bytes) -> Iterator[bytes]:
    yield top
    for entry in os.scandir(top):
        if entry.is_dir(follow_symlinks=False):
            yield from paths(entry.path)
        else:
            yield entry.path


@pytest.fixture
def committed(shop: Shop) -> dict[bytes, tuple[Any, ...]]:  # noqa: F811
    """`round:1`, committed from a container with an odd writable layer over a base; what is to be seen in /odd."""
    tree = shop.root.parent / "tree.tar"
    below = {"odd": 0o755, "odd/dir": 0o755, "odd/dir/old": b"old", "odd/gone": b"gone", "odd/kept": b"kept"}
    base = engine_fixtures.images()["plain:latest"][1][0]
    path = shop.root.parent / "base.tar"
    path.write_bytes(engine_fixtures.archive({"base:1": ({"config": {}}, [base, engine_fixtures.layer({**below})])}))
    minicontainer("load", "-i", str(path))
    change = (
        "rm -r /odd/dir /odd/gone; mkdir /odd/dir; echo new >/odd/dir/new; touch -d @1700000000 /odd/dir/new /odd/dir"
    )
    minicontainer("run", "--name", "web", "--network", "none", "base:1", "sh", "-c", change)
    identifier = os.readlink(shop.root / "containers/names/web")
    upper = shop.root / "containers" / identifier / "upper"
    odd(upper)
    expected = seen_in_container(shop, "web")
    assert b"/dir/old" not in expected and b"/gone" not in expected and b"/kept" in expected and b"/dir/new" in expected
    minicontainer("commit", "web", "round:1")
    minicontainer("rm", "web")
    tree.unlink(missing_ok=True)
    return expected


def seen_in_container(shop: Shop, name: str) -> dict[bytes, tuple[Any, ...]]:
    """/odd of a stopped container: its layers, mounted by the test itself."""
    directory = shop.root / "containers" / os.readlink(shop.root / "containers/names" / name)
    record = json.loads((directory / "record.json").read_text())
    lower = ":".join(f"{shop.root}/layers/{chain[7:]}/diff" for chain in reversed(record["layers"]))
    point = shop.root.parent / "point"
    point.mkdir(exist_ok=True)
    options = f"lowerdir={directory}/upper:{lower}"
    subprocess.run(["mount", "-t", "overlay", "-o", f"ro,{options}", "none", point], check=True)
    try:
        return seen(point / "odd")
    finally:
        subprocess.run(["umount", point], check=True)


def saved(shop: Shop) -> Path:
    path = shop.root.parent / "round.tar"
    minicontainer("save", "-o", str(path), "round:1")
    return path


def test_all_of_it_survives_commit_save_load_and_run(shop: Shop, committed: dict[bytes, tuple[Any, ...]]) -> None:  # noqa: F811
    path = saved(shop)
    minicontainer("rmi", "round:1", "base:1")
    minicontainer("load", "-i", str(path))
    with shop.start("round:1", "sh", "-c", "echo ready; exec sleep 100", name="web") as web:
        inside = Path(f"/proc/{web.pid}/root/odd")
        assert seen(inside) == committed
        assert os.stat(inside / "sparse").st_blocks * 512 < 1 << 20
    second = shop.root.parent / "second.tar"
    minicontainer("save", "-o", str(second), "round:1")
    assert second.read_bytes() == path.read_bytes()


@pytest.mark.slow
@pytest.mark.needs("umoci")
def test_umoci_makes_the_same_of_it(shop: Shop, committed: dict[bytes, tuple[Any, ...]], tmp_path: Path) -> None:  # noqa: F811
    bundle = tmp_path / "bundle"
    subprocess.run(["umoci", "unpack", "--image", f"{shop.root}:round:1", bundle], check=True, capture_output=True)
    differ(seen(bundle / "rootfs/odd"), committed)


@pytest.mark.slow
def test_docker_makes_the_same_of_it(
    shop: Shop,  # noqa: F811
    committed: dict[bytes, tuple[Any, ...]],
    docker: list[str],
) -> None:
    subprocess.run([*docker, "load", "-i", saved(shop)], check=True, capture_output=True)
    words = ["run", "-d", "--name", "round", "--network", "none", "round:1", "sleep", "1000"]
    subprocess.run([*docker, *words], check=True, capture_output=True)
    try:
        shown = subprocess.run([*docker, "inspect", "-f", "{{.State.Pid}}", "round"], capture_output=True, text=True)
        differ(seen(Path(f"/proc/{shown.stdout.strip()}/root/odd")), committed)
    finally:
        subprocess.run([*docker, "rm", "-f", "round"], capture_output=True)
        subprocess.run([*docker, "rmi", "-f", "round:1"], capture_output=True)


def differ(theirs: dict[bytes, tuple[Any, ...]], ours: dict[bytes, tuple[Any, ...]]) -> None:
    """Fail, showing what is not the same."""
    names = sorted({*theirs, *ours})
    assert not [(name, theirs.get(name), ours.get(name)) for name in names if theirs.get(name) != ours.get(name)]
