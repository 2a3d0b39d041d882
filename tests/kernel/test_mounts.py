"""Mounts: what is no container's to see from inside. The rest is in tests/runtime and tests/cli."""

import os
import stat
from pathlib import Path

import pytest

from minicontainer import syscalls
from minicontainer.kernel import mounts

pytestmark = pytest.mark.root


def test_what_lay_beneath_a_tmpfs_is_copied_whole_but_for_devices(tmp_path: Path) -> None:
    """tmpcopyup: owners, modes with their set-id bits, times, links; one copy for this and for a volume's first use."""
    beneath = tmp_path / "root/etc"
    (beneath / "inner").mkdir(parents=True)
    (beneath / "inner/tool").write_text("x")
    os.chown(beneath / "inner/tool", 5, 6)
    os.chmod(beneath / "inner/tool", 0o4710)
    os.symlink("inner/tool", beneath / "link")
    os.mkfifo(beneath / "pipe")
    for name in ("inner/tool", "inner", "link"):
        os.utime(beneath / name, (10**9, 10**9), follow_symlinks=False)
    before = {name: os.lstat(beneath / name) for name in ("inner", "inner/tool", "link")}
    mounts.attach_copy(str(tmp_path / "root"), "tmpfs", "/etc", "tmpfs", syscalls.MS_RDONLY | syscalls.MS_NODEV, "")
    try:
        assert os.statvfs(beneath).f_flag & os.ST_RDONLY
        assert sorted(path.name for path in beneath.rglob("*")) == ["inner", "link", "tool"]
        for name, old in before.items():
            new = os.lstat(beneath / name)
            assert new.st_dev != old.st_dev and stat.filemode(new.st_mode) == stat.filemode(old.st_mode)
            assert (new.st_uid, new.st_gid, new.st_mtime) == (old.st_uid, old.st_gid, old.st_mtime)
        assert (beneath / "link").read_text() == "x"
    finally:
        syscalls.umount(str(beneath))
