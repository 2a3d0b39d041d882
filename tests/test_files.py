"""Files that are whole or not there, trees that go without following links, paths that stay inside."""

import errno
import fcntl
import os
import stat
from pathlib import Path

import pytest

from minicontainer import errors, files


def test_write_replaces_whole_files_and_leaves_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "file"
    files.write(str(target), b"one", sync=True)
    before = target.stat().st_ino
    files.write(str(target), b"two")
    assert target.read_bytes() == b"two"
    assert target.stat().st_ino != before, "written in place: a reader could see half of it"
    assert os.listdir(tmp_path) == ["file"]


def test_write_follows_no_link_planted_under_its_temporary_name(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f"file.tmp-{os.getpid()}").symlink_to(victim)
    with pytest.raises(OSError):
        files.write(str(tmp_path / "file"), b"x")
    assert victim.read_text() == "precious"


def test_put_names_the_file_and_the_value_that_the_kernel_refused() -> None:
    with pytest.raises(errors.KernelError) as caught:
        files.put("/proc/self/oom_score_adj", "5000")
    assert caught.value.errno == errno.EINVAL
    assert "/proc/self/oom_score_adj" in str(caught.value) and "5000" in str(caught.value)


def test_remove_tree_removes_links_not_what_they_lead_to(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/out").symlink_to(outside)
    files.remove_tree(str(tree))
    assert not tree.exists() and (outside / "kept").exists()
    files.remove_tree(str(tree))  # idempotent


def test_a_lock_excludes_until_its_descriptor_is_closed(tmp_path: Path) -> None:
    held = files.lock(str(tmp_path))
    with pytest.raises(BlockingIOError):
        files.lock(str(tmp_path), wait=False)
    os.close(held)
    os.close(files.lock(str(tmp_path), wait=False))


def test_a_lock_closes_on_exec(tmp_path: Path) -> None:
    held = files.lock(str(tmp_path / "lock"))
    assert fcntl.fcntl(held, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(held)


@pytest.mark.parametrize("link", ["/etc", "../../../../etc", "/../etc"])
def test_inside_resolves_links_as_if_the_root_were_slash(tmp_path: Path, link: str) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/mine").touch()
    (tmp_path / "way").symlink_to(link)
    root = os.open(tmp_path, os.O_PATH)
    found = files.inside(root, "way/mine")
    assert os.readlink(f"/proc/self/fd/{found}") == str(tmp_path / "etc/mine")
    os.close(found)
    os.close(root)


def test_make_inside_makes_parents_within_the_root_only(tmp_path: Path) -> None:
    root_path = tmp_path / "root"
    root_path.mkdir()
    (root_path / "var").symlink_to("/deep/down")
    (root_path / "deep").mkdir()
    root = os.open(root_path, os.O_PATH)
    with pytest.raises(errors.KernelError):  # a link to nowhere is not a place to make things in
        files.make_inside(root, "/var", directory=True)
    os.close(files.make_inside(root, "/deep/down", directory=True))
    os.close(files.make_inside(root, "/var/log/file", directory=False))
    assert (root_path / "deep/down/log/file").is_file()
    os.close(root)
    assert sorted(os.listdir(tmp_path)) == ["root"]


def test_what_make_inside_makes_has_its_mode_whatever_the_umask_is(tmp_path: Path) -> None:
    root = os.open(tmp_path, os.O_PATH)
    before = os.umask(0o077)
    try:
        os.close(files.make_inside(root, "/a/b/c", directory=True))
        os.close(files.make_inside(root, "/a/b/file", directory=False))
    finally:
        os.umask(before)
    os.close(root)
    modes = {path: oct(stat.S_IMODE((tmp_path / path).stat().st_mode)) for path in ("a", "a/b", "a/b/c", "a/b/file")}
    assert modes == {"a": "0o755", "a/b": "0o755", "a/b/c": "0o755", "a/b/file": "0o644"}


def test_inside_takes_no_magic_link(tmp_path: Path) -> None:
    """/proc/self/root of a bound /proc would lead to the host's root."""
    root = os.open("/", os.O_PATH)
    with pytest.raises(errors.KernelError) as caught:
        files.inside(root, "/proc/self/root/etc")
    assert caught.value.errno == errno.ELOOP
    os.close(root)
