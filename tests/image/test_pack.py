"""Packing: what GNU tar and Python read of our archives, and what comes back of a tree that goes there and back."""

import ctypes
import io
import os
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer import errors
from minicontainer.image import changes, layers, pack, tar

LONG = "a-name-of-fifty-bytes-that-repeats-itself-five-tim" * 4


def archive(tree: Path, **options: int) -> bytes:
    descriptor = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return b"".join([*pack.Packer(**options).below(descriptor, b""), tar.END])  # type: ignore[arg-type]
    finally:
        os.close(descriptor)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Everything that an ordinary user can make."""
    root = tmp_path / "tree"
    (root / "d" / LONG / LONG).mkdir(parents=True)
    (root / "d" / LONG / LONG / LONG).write_text("deep")
    (root / "file").write_bytes(bytes(range(256)) * 1000)
    (root / "empty").touch()
    (root / "set").write_text("x")
    (root / "set").chmod(0o6755)
    os.link(root / "file", root / "zz-second")
    (root / "link").symlink_to("d/../file")
    (root / "long-link").symlink_to("x/" * 200)
    os.mkfifo(root / "fifo", 0o640)
    with open(os.fsencode(root) + b"/not-utf-8-\xff\xfe", "wb") as file:
        file.write(b"bytes")
    with open(root / "sparse", "wb") as sparse:
        sparse.write(b"begin")
        sparse.seek(5 << 20)
        sparse.write(b"middle")
        sparse.truncate(16 << 20)
    with open(root / "holes", "wb") as sparse:
        sparse.truncate(1 << 20)
    os.setxattr(root / "file", "user.note", b"bytes \x00\xff and = and \n")
    for number, path in enumerate(sorted(root.rglob("*"))):
        os.utime(path, ns=(0, 1_600_000_000_123_456_789 + number), follow_symlinks=False)
    os.utime(root / "d", ns=(0, -1_500_000_000))
    server = socket.socket(socket.AF_UNIX)
    with_parent = os.getcwd()
    os.chdir(root)
    server.bind("socket")
    os.chdir(with_parent)
    server.close()
    return root


def facts(root: Path) -> dict[bytes, tuple[object, ...]]:
    """What must survive."""
    found: dict[bytes, tuple[object, ...]] = {}
    for base, directories, names in os.walk(os.fsencode(root)):
        for name in [*directories, *names]:
            path = os.path.join(base, name)
            status = os.lstat(path)
            if path.endswith(b"/socket"):
                continue
            regular = os.path.isfile(path) and not os.path.islink(path)
            content = open(path, "rb").read() if regular else os.readlink(path) if os.path.islink(path) else b""
            xattrs = {key: os.getxattr(path, key, follow_symlinks=False)
                      for key in os.listxattr(path, follow_symlinks=False)}  # fmt: skip
            found[os.path.relpath(path, os.fsencode(root))] = (
                status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev, content, xattrs,
                status.st_nlink if regular else 0,
            )  # fmt: skip
    return found


def test_there_and_back(tree: Path, tmp_path: Path) -> None:
    content = archive(tree)
    target = tmp_path / "target"
    target.mkdir()
    stream = io.BytesIO(content)
    layers.unpack(stream.read, str(target))
    assert facts(target) == facts(tree)
    assert os.stat(target / "sparse").st_blocks < 100 and os.stat(target / "holes").st_blocks == 0
    assert os.path.samefile(target / "file", target / "zz-second")
    assert len(content) < 2 << 20  # holes are not in there


def test_the_same_tree_gives_the_same_bytes(tree: Path) -> None:
    first = archive(tree)
    os.utime(tree / "file", ns=(1, os.stat(tree / "file").st_mtime_ns))  # an access time is no content
    assert archive(tree) == first
    early = archive(tree, epoch=1_000_000_000)
    times = {entry.mtime for entry in tar.entries(tar.Stream(iter([early])))}
    assert max(times) == 1_000_000_000 * 10**9 and min(times) == -1_500_000_000


def test_others_read_it(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "tree.tar").write_bytes(archive(tree))
    other = tmp_path / "other"
    other.mkdir()
    done = subprocess.run(["tar", "--xattrs", "--xattrs-include=*", "-xf", tmp_path / "tree.tar"], cwd=other,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0  # it warns of a file older than 1970
    theirs, ours = facts(other), facts(tree)
    for key in theirs.keys() | ours.keys():
        assert theirs[key] == ours[key], key
    with tarfile.open(tmp_path / "tree.tar") as opened:
        assert opened.getmember("sparse").size == 16 << 20
        assert opened.extractfile("d/" + "/".join([LONG] * 3)).read() == b"deep"  # type: ignore[union-attr]
        assert "socket" not in opened.getnames()


def test_a_path_is_as_long_as_a_layer_may_have_it(tmp_path: Path) -> None:
    """What is packed can be unpacked: a file below 255 directories, and nothing below one more."""
    tree, target = tmp_path / "tree", tmp_path / "target"
    deepest = tree.joinpath(*["d"] * 255)
    deepest.mkdir(parents=True)
    (deepest / "file").touch()
    target.mkdir()
    data = io.BytesIO(archive(tree))
    layers.unpack(data.read, str(target))
    assert target.joinpath(*["d"] * 255, "file").exists()
    (deepest / "d").mkdir()
    with pytest.raises(errors.Unsupported, match="in one another"):
        archive(tree)


def test_a_file_that_shrinks_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(b"x" * (3 << 20))
    descriptor = os.open(tmp_path / "tree", os.O_RDONLY)
    chunks = pack.Packer().below(descriptor, b"")
    content = next(chunks) + next(chunks)
    os.truncate(tmp_path / "tree/file", 100)
    content += b"".join(chunks) + tar.END
    os.close(descriptor)
    (entry,) = tar.entries(tar.Stream(iter([content])))
    assert entry.size == 3 << 20
    with tarfile.open(fileobj=io.BytesIO(content)) as opened:
        assert opened.getnames() == ["file"]


@pytest.mark.parametrize("number", [0, 1, 0o7777777, 1 << 21, 1 << 31, (1 << 32) - 2])
def test_owners_of_every_size(number: int) -> None:
    member = tar.Member(b"x", tar.REGULAR, 0o644, number, number, 0, 1, b"", 0, 0, {}, None)
    (entry,) = tar.entries(tar.Stream(iter([tar.header(member) + tar.END])))
    assert (entry.uid, entry.gid, entry.mtime) == (number, number, 1)


def test_names_at_the_border(tmp_path: Path) -> None:
    for length in (98, 99, 100, 101, 102, 255):
        member = tar.Member(b"n" * length, tar.REGULAR, 0o644, 0, 0, 0, 0, b"l" * length, 0, 0, {}, None)
        content = tar.header(member) + tar.END
        (entry,) = tar.entries(tar.Stream(iter([content])))
        assert (len(entry.name), len(entry.link)) == (length, length)
        with tarfile.open(fileobj=io.BytesIO(content)) as opened:
            assert [len(name) for name in opened.getnames()] == [length]


# ------------------------------------------------------------------------------------------------------------- changes


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Path]:
    """A directory with `lower`, `upper`, and the two seen as one in `merged`."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    lower = tmp_path / "lower"
    for name in ("etc/conf", "home/a/one", "home/a/two", "old/x/y", "same/file", "kind", "mode", "dir/inner"):
        (lower / name).parent.mkdir(parents=True, exist_ok=True)
        (lower / name).write_text(name)
    libc = ctypes.CDLL(None, use_errno=True)
    data = f"lowerdir={lower},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    assert libc.mount(b"overlay", os.fsencode(tmp_path / "merged"), b"overlay", 0, data.encode()) == 0
    yield tmp_path
    assert libc.umount2(os.fsencode(tmp_path / "merged"), 2) == 0


def found(place: Path, ours: frozenset[bytes] = frozenset()) -> list[str]:
    upper, lower = (os.open(place / name, os.O_RDONLY | os.O_DIRECTORY) for name in ("upper", "lower"))
    try:
        return [f"{change.kind} {os.fsdecode(change.path)}" for change in changes.walk(upper, lower, ours)]
    finally:
        os.close(upper)
        os.close(lower)


def alter(merged: Path) -> None:
    """One of each."""
    (merged / "etc/conf").write_text("changed")
    (merged / "etc/new").mkdir()
    (merged / "etc/new/file").touch()
    subprocess.run(["rm", "-r", merged / "old"], check=True)
    subprocess.run(["rm", "-r", merged / "home/a"], check=True)
    (merged / "home/a").mkdir()
    (merged / "home/a/three").touch()
    (merged / "kind").unlink()
    (merged / "kind").mkdir()
    (merged / "mode").chmod(0o600)
    subprocess.run(["rm", "-r", merged / "dir"], check=True)
    (merged / "dir").write_text("a file by now")
    (merged / "same/file").chmod(0o644)  # copied up, and the same
    os.mknod(merged / "device", 0o060600, os.makedev(7, 7))


@pytest.mark.root
@pytest.mark.needs("overlay")
def test_every_change_is_found(overlay: Path) -> None:
    assert found(overlay) == []
    os.chmod(overlay / "lower/same/file", 0o644)
    alter(overlay / "merged")
    assert found(overlay) == [
        "A /device", "C /dir", "C /etc", "C /etc/conf", "A /etc/new", "A /etc/new/file", "C /home", "C /home/a",
        "D /home/a/one", "A /home/a/three", "D /home/a/two", "C /kind", "C /mode", "D /old",
    ]  # fmt: skip


@pytest.mark.root
@pytest.mark.needs("overlay")
def test_what_we_made_for_a_mount_is_no_change(overlay: Path) -> None:
    for name in ("etc/hosts", "etc/mine"):
        (overlay / "merged" / name).touch()
    (overlay / "merged/proc").mkdir()
    (overlay / "merged/sys").mkdir()
    (overlay / "merged/sys/theirs").touch()
    ours = frozenset({b"/etc/hosts", b"/proc", b"/sys"})
    assert found(overlay, ours) == ["C /etc", "A /etc/mine", "A /sys", "A /sys/theirs"]
    (overlay / "merged/etc/mine").unlink()
    assert found(overlay, ours) == ["A /sys", "A /sys/theirs"]


@pytest.mark.root
@pytest.mark.needs("overlay")
def test_the_layer_makes_the_same_tree(overlay: Path, tmp_path: Path) -> None:
    """The changes packed, unpacked as a layer, and stacked on the same lower one: overlayfs shows what it showed."""
    alter(overlay / "merged")
    upper, lower = (os.open(overlay / name, os.O_RDONLY | os.O_DIRECTORY) for name in ("upper", "lower"))
    content = b"".join(changes.pack(upper, changes.walk(upper, lower)))
    os.close(upper)
    os.close(lower)
    with tarfile.open(fileobj=io.BytesIO(content)) as opened:
        names = opened.getnames()
    assert {".wh.old", "home/a/.wh..wh..opq"} <= set(names) and "home/a/.wh.one" not in names
    (tmp_path / "layer").mkdir()
    stream = io.BytesIO(content)
    layers.unpack(stream.read, str(tmp_path / "layer"), lower=[str(overlay / "lower")])
    second = tmp_path / "second"
    second.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    data = f"lowerdir={tmp_path}/layer:{overlay}/lower"
    assert libc.mount(b"overlay", os.fsencode(second), b"overlay", 1, data.encode()) == 0
    try:
        assert facts(second) == facts(overlay / "merged")
    finally:
        assert libc.umount2(os.fsencode(second), 2) == 0
