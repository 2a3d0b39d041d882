"""COPY into a root file system: where things go, what they keep, and that nothing leads out."""

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minicontainer import errors
from minicontainer.build import context, copying, dockerfile
from tests.build.test_context import make

pytestmark = pytest.mark.root


def refuse(reason: str, at: str) -> NoReturn:
    source = dockerfile.parse(f"FROM scratch\nCOPY sources {at}\n")
    dockerfile.refuse(source, source.statements[1], reason, at)


class World:
    """A context, and an image's root, in two directories of one that has an /etc of its own."""

    def __init__(self, path: Path) -> None:
        self.context, self.root = path / "context", path / "image"
        self.context.mkdir()
        self.root.mkdir()
        make(path / "etc", "passwd")

    def copy(self, sources: str, target: str, keep: bool = False, parents: bool = False, **how: Any) -> None:
        root = os.open(self.root, os.O_PATH)
        try:
            with context.Tree(str(self.context), keep=keep) as tree:
                selected = context.select(tree, sources.split(), refuse, parents=parents)
                copying.copy(selected, root, target, refuse, **how)
        finally:
            os.close(root)

    def files(self) -> dict[str, str]:
        """What is in the image: directories end with a slash; a file's content, a link's arrow."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if path.is_symlink():
                found[name] = f"-> {os.readlink(path)}"
            elif path.is_dir():
                found[f"{name}/"] = ""
            else:
                found[name] = path.read_text()
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    os.umask(0o022)
    yield World(tmp_path)


@pytest.mark.parametrize(
    ("sources", "target", "found"),
    [
        ("a", "/b", {"b": "a"}),
        ("a", "b", {"b": "a"}),
        ("a", "/new/", {"new/": "", "new/a": "a"}),
        ("a", "/new/.", {"new/": "", "new/a": "a"}),
        ("a", "/one/two/three", {"one/": "", "one/two/": "", "one/two/three": "a"}),
        ("a", "/", {"a": "a"}),
        ("a", ".", {"a": "a"}),
        ("a", "../../b", {"b": "a"}),
        ("d", "/new", {"new/": "", "new/x": "d/x", "new/e/": "", "new/e/y": "d/e/y"}),
        ("d/", "/new/", {"new/": "", "new/x": "d/x", "new/e/": "", "new/e/y": "d/e/y"}),
        ("d", "/", {"x": "d/x", "e/": "", "e/y": "d/e/y"}),
        ("a d/x", "/new/", {"new/": "", "new/a": "a", "new/x": "d/x"}),
        ("d a", "/new/", {"new/": "", "new/a": "a", "new/x": "d/x", "new/e/": "", "new/e/y": "d/e/y"}),
        ("nothing*", "/new/", {}),
        ("link", "/new", {"new": "a"}),
        ("link", "/new/", {"new/": "", "new/link": "a"}),
    ],
)
def test_where_things_go(world: World, sources: str, target: str, found: dict[str, str]) -> None:
    make(world.context, "a", "d/x", "d/e/y", "link -> a")
    world.copy(sources, target)
    assert world.files() == found


def test_relative_to_the_working_directory(world: World) -> None:
    make(world.context, "a")
    world.copy("a", "x/", directory="/srv/app")
    world.copy("a", "../up", directory="/srv/app")
    world.copy("a", ".", directory="/srv/app")
    assert [name for name, content in world.files().items() if content] == ["srv/app/a", "srv/app/x/a", "srv/up"]


def test_an_existing_directory_takes_files_in(world: World) -> None:
    make(world.context, "a", "b", "d/x")
    make(world.root, "dir/old", "file")
    world.copy("a", "/dir")
    world.copy("a b", "/dir/")
    world.copy("b", "/file")
    world.copy("d", "/dir")
    assert world.files() == {
        "dir/": "", "dir/a": "a", "dir/b": "b", "dir/old": "dir/old", "dir/x": "d/x", "file": "b",
    }  # fmt: skip


def test_directories_are_merged(world: World) -> None:
    make(world.context, "d/x/new", "d/y", "d/z")
    make(world.root, "t/x/old", "t/y -> x/old", "t/z")
    os.chmod(world.context / "d/x", 0o711)
    os.chmod(world.root / "t/x", 0o700)
    os.chmod(world.root / "t", 0o701)
    os.chmod(world.context / "d", 0o777)
    world.copy("d", "/t")
    assert world.files() == {
        "t/": "", "t/x/": "", "t/x/new": "d/x/new", "t/x/old": "t/x/old", "t/y": "d/y", "t/z": "d/z",
    }  # fmt: skip
    assert stat.S_IMODE((world.root / "t/x").stat().st_mode) == 0o711
    assert stat.S_IMODE((world.root / "t").stat().st_mode) == 0o701  # what is copied is its content


@pytest.mark.parametrize(
    ("sources", "target", "reason"),
    [
        ("d", "/file", "cannot copy to non-directory: /file"),
        ("a", "/file/", "cannot copy to non-directory: /file"),
        ("a", "/file/x", "cannot copy to non-directory: /file"),
        ("a", "/tree/", "cannot replace to directory /tree/a with file"),
        ("tree", "/", "cannot copy to non-directory: /file"),
        ("tree", "/linked", "cannot copy to non-directory: /linked/file"),
        ("a b", "/new", "must be a directory, and end with a /"),
        ("?", "/new", "must be a directory, and end with a /"),
        ("a", "/loop/x", "Too many levels"),
    ],
)
def test_what_cannot_be(world: World, sources: str, target: str, reason: str) -> None:
    make(world.context, "a", "b", "d/x", "tree/file/x")
    make(world.root, "file", "tree/a/", "linked/file -> ../tree", "loop -> loop")
    before = world.files()
    with pytest.raises(errors.BuildError) as caught:
        world.copy(sources, target)
    assert reason in caught.value.reason and caught.value.line == 2
    assert world.files() == before


# A hostile image ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["/etc", "../etc", "../../../../../../etc", "/../../etc", "/a/../../etc", "up/etc"])
@pytest.mark.parametrize("target", ["/app", "/app/", "/app/passwd", "app/./passwd", "/app/sub/deep/"])
def test_no_link_leads_out(world: World, tmp_path: Path, link: str, target: str) -> None:
    """CVE-2024-23651, -23652 and their kin: a link in the image, absolute or climbing, ends within the image."""
    make(world.context, "passwd")
    make(world.root, "etc/", "a/", f"app -> {link}", "up -> ../..")
    host = Path("/etc/passwd").stat(), (tmp_path / "etc/passwd").read_text()
    world.copy("passwd", target)
    assert (Path("/etc/passwd").stat(), (tmp_path / "etc/passwd").read_text()) == host
    found = {str(path.relative_to(tmp_path)).split("/")[0] for path in tmp_path.rglob("passwd")}
    assert found == {"context", "etc", "image"}
    assert len([path for path in world.root.rglob("passwd") if path.is_file()]) == 1


def test_a_link_to_nowhere_is_made_true_within_the_image(world: World) -> None:
    make(world.context, "a", "d/x")
    make(world.root, "data -> /srv/data", "file -> /srv/file")
    world.copy("d", "/data/")
    world.copy("a", "/file")
    assert world.files() == {
        "data": "-> /srv/data", "file": "-> /srv/file", "srv/": "", "srv/data/": "", "srv/data/x": "d/x",
        "srv/file": "a",
    }  # fmt: skip


def test_a_link_below_the_target_is_replaced_never_followed(world: World, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    make(world.context, "a", "d/a", "d/sub/x")
    make(world.root, f"t/a -> {victim}")
    world.copy("a", "/t/")
    assert world.files()["t/a"] == "a" and victim.read_text() == "untouched"
    (world.root / "t/sub").symlink_to(tmp_path)
    with pytest.raises(errors.BuildError, match="cannot copy to non-directory: /t/sub"):
        world.copy("d", "/t")
    assert not (tmp_path / "x").exists()


def test_a_device_or_fifo_is_replaced_not_written_to(world: World) -> None:
    make(world.context, "a")
    os.mkfifo(world.root / "pipe")
    os.mknod(world.root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    world.copy("a", "/pipe")
    world.copy("a", "/null")
    assert world.files() == {"null": "a", "pipe": "a"}


PARTS = st.lists(st.sampled_from(["a", "b", "..", ".", "etc", "/", "/a", "/..", "out"]), min_size=1, max_size=5)
IMAGE = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["file", "directory", "link"]), PARTS), max_size=5)


@settings(max_examples=100, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(IMAGE, PARTS, st.sampled_from(["f", "d", "d f", "*"]), st.booleans())
def test_whatever_the_image_is_nothing_happens_outside(
    tmp_path: Path, image: list[tuple[str, str, list[str]]], target: list[str], sources: str, slash: bool
) -> None:
    """Links of any kind in the image, targets of any kind: an error with a line, or files within the image."""
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        world = World(Path(folder))
        make(world.context, "f", "d/a", "d/b/c", "d/c -> ../../etc")
        make(Path(folder), "out/a", "a", "b")
        for name, kind, words in image:
            path = world.root / name
            if path.is_symlink() or path.exists():
                continue
            if kind == "link":
                path.symlink_to("/".join(words))
            else:
                make(world.root, f"{name}/sub/" if kind == "directory" else name)

        def outside() -> list[tuple[str, int, int]]:
            found = [path for path in Path(folder).rglob("*") if world.root not in path.parents and path != world.root]
            return sorted((str(path), path.lstat().st_mtime_ns, path.lstat().st_ctime_ns) for path in found)

        host = [f"{place}/{name}" for place in ("", "/etc", "/out") for name in "abcdf"]
        before = outside(), [path for path in host if os.path.lexists(path)]
        try:
            world.copy(sources, "/".join(target) + "/" * slash, directory="/a")
        except errors.BuildError as error:
            assert error.line == 2
        assert (outside(), [path for path in host if os.path.lexists(path)]) == before


# What is kept -------------------------------------------------------------------------------------------------------


def owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


def test_owners(world: World) -> None:
    make(world.context, "d/x", "d/e/y", "d/link -> x", "a")
    for path in [world.context / "a", *world.context.rglob("*")]:
        os.chown(path, 1000, 1001, follow_symlinks=False)
    os.chmod(world.context / "a", 0o6755)
    world.copy("d", "/of-context/")
    world.copy("d", "/of-stage/", keep=True)
    world.copy("d", "/changed/here/", keep=True, owner=(7, 8))
    world.copy("a", "/changed/a", owner=(7, 8))
    for name, wanted in (("of-context", (0, 0)), ("of-stage", (1000, 1001)), ("changed/here", (7, 8))):
        assert {owner(path) for path in (world.root / name).rglob("*")} == {wanted}
    assert owner(world.root / "changed") == owner(world.root / "changed/here") == (7, 8)
    assert owner(world.root / "of-stage") == (0, 0)  # made on the way
    assert stat.S_IMODE((world.root / "changed/a").stat().st_mode) == 0o6755  # a chown would take the bits away


def test_a_directory_that_hands_down_its_group_does_not(world: World) -> None:
    make(world.context, "d/x")
    (world.root / "t").mkdir()
    os.chown(world.root / "t", 0, 99)
    os.chmod(world.root / "t", 0o2755)
    world.copy("d", "/t")
    assert owner(world.root / "t/x") == (0, 0)


def test_nor_does_one_that_a_source_before_has_made(world: World) -> None:
    make(world.context, "first/t/x", "second/t/y")
    os.chmod(world.context / "first/t", 0o2755)
    os.chmod(world.context / "second/t", 0o2755)
    world.copy("first second", "/", keep=True, owner=(0, 7))
    world.copy("first second", "/")
    assert owner(world.root / "t/y") == (0, 0)


def test_modes_and_times(world: World) -> None:
    make(world.context, "d/x", "d/e/y", "d/link -> x", "d/s")
    os.chmod(world.context / "d/x", 0o4705)
    os.chmod(world.context / "d/e/y", 0o666)
    os.chmod(world.context / "d/s", 0)
    os.chmod(world.context / "d/e", 0o1577)
    os.mkfifo(world.context / "d/fifo")
    os.chmod(world.context / "d/fifo", 0o620)
    for path in [*world.context.rglob("*")]:
        os.utime(path, ns=(5, 1234567890_123456789), follow_symlinks=False)
    world.copy("d", "/deep/t")
    copied = {
        str(path.relative_to(world.root / "deep/t")): path.lstat() for path in (world.root / "deep").rglob("t/**/*")
    }
    assert {name: stat.S_IMODE(status.st_mode) for name, status in copied.items()} == {
        "x": 0o4705, "e": 0o1577, "e/y": 0o666, "link": 0o777, "s": 0, "fifo": 0o620,
    }  # fmt: skip
    assert {status.st_mtime_ns for status in copied.values()} == {1234567890_123456789}
    assert stat.S_ISFIFO(copied["fifo"].st_mode)
    assert stat.S_IMODE((world.root / "deep/t").stat().st_mode) == 0o755
    assert (world.root / "deep/t").stat().st_mtime_ns == 1234567890_123456789


def test_a_strict_umask_changes_nothing(world: World) -> None:
    make(world.context, "d/x", "d/e/y")
    os.umask(0o077)
    try:
        world.copy("d", "/new/t")
    finally:
        os.umask(0o022)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in world.root.rglob("*")}
    assert modes == {"new": 0o755, "t": 0o755, "e": 0o755, "x": 0o644, "y": 0o644}


def test_hard_links_stay_links(world: World) -> None:
    make(world.context, "d/a", "d/e/", "other")
    os.link(world.context / "d/a", world.context / "d/e/b")
    os.link(world.context / "other", world.context / "d/c")
    make(world.root, "t/e/b")
    world.copy("d", "/t", owner=(3, 4))
    copied = {name: (world.root / "t" / name).stat() for name in ("a", "e/b", "c")}
    assert copied["a"].st_ino == copied["e/b"].st_ino and copied["a"].st_nlink == 2
    assert copied["c"].st_nlink == 1
    world.copy("d/a d/e", "/again/")
    assert (world.root / "again/a").stat().st_ino == (world.root / "again/b").stat().st_ino


def test_holes_stay_holes(world: World) -> None:
    with open(world.context / "sparse", "wb") as file:
        file.seek(8 << 20)
        file.write(b"data")
        file.truncate(64 << 20)
    world.copy("sparse", "/sparse")
    copied = world.root / "sparse"
    assert copied.stat().st_size == 64 << 20 and copied.stat().st_blocks * 512 < 1 << 20
    assert copied.read_bytes() == (world.context / "sparse").read_bytes()


@pytest.mark.parametrize("size", [0, 1, copying.SMALL - 1, copying.SMALL, copying.SMALL + 1, 3_000_001])
@pytest.mark.parametrize("in_kernel", [True, False])
def test_files_of_all_sizes(world: World, monkeypatch: pytest.MonkeyPatch, size: int, in_kernel: bool) -> None:
    if not in_kernel:
        monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    (world.context / "a").write_bytes(os.urandom(size))
    world.copy("a", "/")
    assert (world.root / "a").read_bytes() == (world.context / "a").read_bytes()


def test_attributes_and_capabilities_of_a_stage(world: World) -> None:
    make(world.context, "d/ping")
    capability = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw+ep, version 2
    os.setxattr(world.context / "d/ping", "security.capability", capability)
    os.setxattr(world.context / "d", "user.note", b"of a directory that is not copied")
    (world.context / "d/e").mkdir()
    os.setxattr(world.context / "d/e", "user.note", b"x")
    world.copy("d", "/stage/", keep=True, owner=(5, 5))
    world.copy("d", "/context/")
    assert os.getxattr(world.root / "stage/ping", "security.capability") == capability
    assert os.getxattr(world.root / "stage/e", "user.note") == b"x"
    assert not os.listxattr(world.root / "context/ping") and not os.listxattr(world.root / "context/e")


def test_devices_of_a_stage(world: World) -> None:
    os.mknod(world.context / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.chmod(world.context / "null", 0o666)
    world.copy("null", "/dev/", keep=True)
    status = (world.root / "dev/null").stat()
    assert stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3) and status.st_mode & 0o777 == 0o666


def test_parents(world: World) -> None:
    make(world.context, "usr/lib/a/x", "usr/lib/b/y", "usr/share/z")
    make(world.root, "usr/old")
    os.chown(world.root / "usr", 42, 42)
    os.chmod(world.context / "usr", 0o700)
    world.copy("usr/lib/a", "/", parents=True, owner=(9, 9))
    world.copy("usr/./lib/*/y", "/opt/", parents=True)
    assert [name for name, content in world.files().items() if content] == ["opt/lib/b/y", "usr/lib/a/x", "usr/old"]
    assert owner(world.root / "usr") == (42, 42) and owner(world.root / "usr/lib") == (9, 9)


def test_a_heredoc(world: World) -> None:
    root = os.open(world.root, os.O_PATH)
    one = context.inline("EOF", b"#!/bin/sh\necho hello\n")
    copying.copy([one], root, "/bin/", refuse)
    copying.copy([one], root, "/run.sh", refuse, owner=(1, 2), mode=copying.Mode("755"))
    os.close(root)
    assert world.files() == {"bin/": "", "bin/EOF": "#!/bin/sh\necho hello\n", "run.sh": "#!/bin/sh\necho hello\n"}
    assert stat.S_IMODE((world.root / "bin/EOF").stat().st_mode) == 0o644
    assert stat.S_IMODE((world.root / "run.sh").stat().st_mode) == 0o755 and owner(world.root / "run.sh") == (1, 2)


def test_a_file_that_has_changed_since_the_cache_was_asked_is_refused(world: World) -> None:
    make(world.context, "d/a")
    root = os.open(world.root, os.O_PATH)
    with context.Tree(str(world.context)) as tree:
        selected = context.select(tree, ["d"], refuse)
        (world.context / "d/a").write_text("something else")
        with pytest.raises(errors.BuildError, match="/d/a has changed"):
            copying.copy(selected, root, "/", refuse)
    os.close(root)


# --chown and --chmod ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1000", (1000, 1000)),
        ("1000:50", (1000, 50)),
        ("app", (77, 78)),
        ("app:", (77, 78)),
        ("app:wheel", (77, 10)),
        ("app:5", (77, 5)),
        ("4711:wheel", (4711, 10)),
        ("0:0", (0, 0)),
    ],
)
def test_chown(world: World, text: str, wanted: tuple[int, int]) -> None:
    make(world.root, "etc/")
    (world.root / "etc/passwd").write_text("root:x:0:0::/root:\napp:x:77:78::/app:\n")
    (world.root / "etc/group").write_text("root:x:0:\nwheel:x:10:app\n")
    root = os.open(world.root, os.O_PATH)
    assert copying.owner_of(root, text, refuse) == wanted
    for wrong in ("nobody-knows", "app:nobody-knows", "-1", "99999999999"):
        with pytest.raises(errors.BuildError, match=f"--chown={wrong}"):
            copying.owner_of(root, wrong, refuse)
    os.close(root)


def test_chown_does_not_ask_the_host(world: World) -> None:
    """An image without a passwd, or with one that leads out, knows nobody."""
    root = os.open(world.root, os.O_PATH)
    for link in ("/etc/passwd", "../../../../../../etc/passwd"):
        with pytest.raises(errors.BuildError, match="no user 'daemon'"):
            copying.owner_of(root, "daemon", refuse)
        make(world.root, "etc/")
        (world.root / "etc/passwd").unlink(missing_ok=True)
        (world.root / "etc/passwd").symlink_to(link)
    os.close(root)


@pytest.mark.parametrize(
    "text",
    ["755", "0644", "4755", "u+x", "a-w", "go=", "u=rwX,go=rX", "+x", "g+s", "o+t", "u+s,g-r", "ug+w-x", "=r", "a+X"],
)
@pytest.mark.parametrize("mode", [0o644, 0o755, 0o600, 0o4711, 0o1777])
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_chmod_is_chmods(tmp_path: Path, text: str, mode: int, kind: str) -> None:
    """As chmod(1) with a umask of 0 would make it; which leaves a directory's set-id bits where `=` and numbers here
    say nothing of them."""
    path = tmp_path / "x"
    path.mkdir() if kind == "directory" else path.write_text("")
    path.chmod(mode)
    wanted = copying.Mode(text).of(path.stat().st_mode)
    if kind == "directory" and mode & 0o6000 and (text.isdecimal() or "=" in text):
        return
    os.umask(0)
    try:
        subprocess.run(["chmod", text, str(path)], check=True)
    finally:
        os.umask(0o022)
    assert stat.S_IMODE(path.stat().st_mode) == wanted


@pytest.mark.parametrize("text", ["", "8", "77777", "u", "u+y", "x+r", "u+r,", "100000", "u=g"])
def test_what_chmod_cannot_mean(text: str) -> None:
    with pytest.raises(ValueError):
        copying.Mode(text)


def test_chmod_is_for_all_that_is_copied(world: World) -> None:
    make(world.context, "d/x", "d/e/y", "d/link -> x")
    world.copy("d", "/new/t", mode=copying.Mode("u=rwX,go="))
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in world.root.rglob("*")}
    assert modes == {"new": 0o755, "t": 0o755, "e": 0o700, "x": 0o600, "y": 0o600, "link": 0o777}
