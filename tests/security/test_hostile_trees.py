"""Ways to hold the engine up, or lead it astray, by a tree of files: very deep, very large, changed at the moment."""

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from minicontainer import files
from minicontainer.engine import volumes
from minicontainer.kernel import cgroups, rootfs
from tests.conftest import minicontainer
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401
from tests.security.prisoners import PYTHON, python

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox")]

DIG = "import os\nfor _ in range(1500): os.mkdir('d' * 200); os.chdir('d' * 200)\nopen('file', 'w').write('x')"


def test_very_many_directories_in_one_another_keep_nobody_from_anything(shop: Shop, tmp_path: Path) -> None:
    """Deeper than a path can be long, than descriptors can be open, than Python calls itself."""
    shop.run("--name", "deep", *python(), "plain", PYTHON, "-I", "-S", "-c", DIG, remove=False)
    try:
        for words in (["diff", "deep"], ["commit", "deep", "deep"], ["export", "-o", str(tmp_path / "tar"), "deep"]):
            done = minicontainer(*words, check=False)
            assert done.returncode == 1 and "in one another" in done.stderr and "Traceback" not in done.stderr
        for words in (["ps", "-as"], ["system", "df", "-v"], ["inspect", "-s", "deep"]):
            minicontainer(*words)
    finally:
        minicontainer("rm", "-v", "deep")


def test_a_list_of_users_without_end_is_not_read(shop: Shop) -> None:
    with shop.start("plain", "sh", "-c", "echo ready; sleep 1000") as one:
        os.truncate(f"/proc/{one.pid}/root/etc/passwd", 1 << 40)
        done = minicontainer("exec", "-u", "alice", one.name, "id", check=False)
        assert done.returncode and "too large" in done.stderr


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_is_copied_up_is_not_what_a_link_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A tmpfs with tmpcopyup over a part of a volume that another container has: it turns a file, or a directory, into
    a link to the host's after we have seen what it is."""
    source, target, secret = tmp_path / "source", tmp_path / "target", tmp_path / "secret"
    for path in (source, target, secret):
        path.mkdir()
    (secret / "file").write_text("secret")
    if kind == "file":
        (source / "x").write_text("x")
    else:
        (source / "x").mkdir()
    opened = os.open

    def exchange(path: Any, *words: Any, **more: Any) -> int:
        if path == "x" and not (source / "x").is_symlink():
            (source / "x").rename(tmp_path / "old")
            (source / "x").symlink_to(secret / "file" if kind == "file" else secret)
        return opened(path, *words, **more)

    directory, into = os.open(source, os.O_RDONLY), os.open(target, os.O_RDONLY)
    monkeypatch.setattr(os, "open", exchange)
    with pytest.raises(OSError, match=r"Too many levels|Not a directory"):
        files.copy_tree(directory, into, nodes=False)
    assert "secret" not in subprocess.run(["grep", "-r", "", target], capture_output=True, text=True).stdout
    os.close(directory)
    os.close(into)


def test_what_becomes_a_device_or_very_deep_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of somebody else's volume that he turns into a device is not read. Directories without end: an error."""
    source, target = tmp_path / "source", tmp_path / "target"
    target.mkdir()
    source.mkdir()
    (source / "x").write_text("x")
    opened = os.open

    def exchange(path: Any, *words: Any, **more: Any) -> int:
        if path == "x" and (source / "x").is_file():
            (source / "x").unlink()
            os.mknod(source / "x", stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero: it would never end
        return opened(path, *words, **more)

    directory, into = os.open(source, os.O_RDONLY), os.open(target, os.O_RDONLY)
    monkeypatch.setattr(os, "open", exchange)
    with pytest.raises(OSError, match="exchanged"):
        files.copy_tree(directory, into)
    monkeypatch.undo()
    (source / "x").unlink()
    source.joinpath(*["d"] * (files.DEEPEST_PATH + 1)).mkdir(parents=True)
    with pytest.raises(OSError, match="in one another"):
        files.copy_tree(directory, into)
    os.close(directory)
    os.close(into)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_an_empty_volume_that_another_container_fills_with_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What the image has there is copied into it: not to where a link leads that was put in the way."""
    image, volume, victim = tmp_path / "image", tmp_path / "volume", tmp_path / "victim"
    for path in (image / "etc/x", volume, victim):
        path.mkdir(parents=True)
    (image / "etc/x/cron").write_text("evil")
    (image / "etc/file").write_text("evil")
    mkdir = os.mkdir

    def exchange(path: Any, *words: Any, **more: Any) -> None:
        mkdir(path, *words, **more)
        if os.fspath(path).endswith("x") and kind == "directory":
            (volume / "x").rename(tmp_path / "old")
            (volume / "x").symlink_to(victim)

    if kind == "file":
        listdir = os.listdir
        monkeypatch.setattr(os, "listdir", lambda path: listdir(path) or ((volume / "file").symlink_to(victim / "new")))
        (image / "etc/x/cron").unlink()
        (image / "etc/x").rmdir()
    monkeypatch.setattr(os, "mkdir", exchange)
    with pytest.raises(OSError, match=r"File exists|Not a directory"):
        volumes.copy_up(str(image), "/etc", str(volume))
    monkeypatch.undo()
    assert os.listdir(victim) == []


def test_a_device_node_that_becomes_a_link_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a directory that another container has, too (`--device …:/shared/x`): no mode is given to what it leads to."""
    victim, node = tmp_path / "victim", tmp_path / "root/shared/x"
    victim.write_text("")
    victim.chmod(0o600)
    mknod = os.mknod

    def exchanged(path: str, *words: Any) -> None:
        mknod(path, *words)
        assert stat.S_IMODE(node.stat().st_mode) == 0o666 and stat.S_ISCHR(node.stat().st_mode)
        node.unlink()
        node.symlink_to(victim)

    monkeypatch.setattr(os, "mknod", exchanged)
    (tmp_path / "root").mkdir()
    device = {"path": "/shared/x", "type": "c", "major": 1, "minor": 3, "uid": 7}
    rootfs.make_device(str(tmp_path / "root"), device)
    assert (victim.stat().st_mode & 0o777, victim.stat().st_uid) == (0o600, 0)
    assert node.lstat().st_uid == 7, "the control: it was the link that was meant"


def test_very_many_cgroups_in_one_another_end_with_their_container(shop: Shop, tmp_path: Path) -> None:
    """Who has its cgroup to write to may make them; by plain directories first, which a failure leaves to nobody."""
    for number in range(1200):
        os.mkdir(f"{tmp_path}/{'d/' * number}d")
    try:
        levels = cgroups._levels(str(tmp_path))
        assert len(levels) == 1201 and levels == sorted(levels, key=len)
    finally:
        files.remove_tree(str(tmp_path / "d"))  # pytest itself could not
    place = "/sys/fs/cgroup/pids" if cgroups.version() == 1 else "/sys/fs/cgroup"
    dig = f"cd {place}; i=0; while [ $i -lt 700 ]; do mkdir d && cd d || break; i=$((i+1)); done; echo $i"
    assert shop.out("--privileged", "plain", "sh", "-c", dig) == "700\n"  # and nothing is left: the shop looks


def test_removed_is_all_however_deep_and_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside").mkdir()
    os.makedirs(tmp_path / "tree/a")
    directory = os.open(tmp_path / "tree", os.O_RDONLY)
    for number in range(3 * files.DEEPEST):
        os.mkdir("d", dir_fd=directory)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
        os.symlink(tmp_path / "beside", f"link{number}", dir_fd=directory)
        below = os.open("d", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.close(directory)
    assert files.disk_usage(str(tmp_path / "tree")) > 0
    files.remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == ["beside"]
