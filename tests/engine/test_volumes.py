"""Volumes: what `-v`, `--mount` and `--tmpfs` mean (pure), and what containers find in them (root)."""

import json
import os
import socket
import stat
from pathlib import Path

import pytest

from minicontainer import errors
from minicontainer.engine import volumes
from minicontainer.engine.client import Client
from minicontainer.engine.volumes import Mount, Volumes
from tests.conftest import minicontainer
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401

# ---------------------------------------------------------------------------------------------------------- the words


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/host:/inside", Mount("bind", "/host", "/inside", create=True)),
        ("/host:/inside:ro", Mount("bind", "/host", "/inside", True, create=True)),
        ("/host:/inside:rw,rslave", Mount("bind", "/host", "/inside", False, ("rslave",), create=True)),
        ("/host:/inside:z", Mount("bind", "/host", "/inside", create=True)),
        ("name:/inside", Mount("volume", "name", "/inside")),
        ("name:/inside:ro", Mount("volume", "name", "/inside", True)),
        ("/inside", Mount("volume", "", "/inside")),
        ("/a b:/c d", Mount("bind", "/a b", "/c d", create=True)),
    ],
)
def test_v(text: str, mount: Mount) -> None:
    assert volumes.parse_volume(text) == mount


def test_v_of_a_relative_path_and_of_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert volumes.parse_volume("./here:/x").source == f"{tmp_path}/here"
    assert volumes.parse_volume("~/there:/x").source == "/home/me/there"


def test_nocopy_is_remembered() -> None:
    assert "nocopy" in volumes.parse_volume("name:/x:nocopy").options


@pytest.mark.parametrize(
    "text", ["", ":", "/x:", ":/x", "a:b", "a:/b:c", "a:/b:ro:rw", "a:/", "bad name:/x", "a:/b:ro,no"]
)
def test_v_that_means_nothing(text: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        volumes.parse_volume(text)


TMPFS = ("nosuid", "nodev", "noexec")
SMALL = (*TMPFS, "size=1m", "mode=700")


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("type=bind,source=/etc,target=/x", Mount("bind", "/etc", "/x")),
        ("type=bind,src=/etc,dst=/x,ro", Mount("bind", "/etc", "/x", True)),
        ("type=bind,src=/etc,destination=/x,readonly=true", Mount("bind", "/etc", "/x", True)),
        ("type=bind,src=/etc,target=/x,readonly=false", Mount("bind", "/etc", "/x")),
        ("type=bind,src=/etc,target=/x,bind-propagation=rslave", Mount("bind", "/etc", "/x", False, ("rslave",))),
        ("type=volume,source=name,target=/x", Mount("volume", "name", "/x")),
        ("source=name,target=/x", Mount("volume", "name", "/x")),
        ("target=/x", Mount("volume", "", "/x")),
        ("type=tmpfs,target=/x", Mount("tmpfs", "tmpfs", "/x", False, TMPFS)),
        ("type=tmpfs,target=/x,tmpfs-size=1m,tmpfs-mode=700", Mount("tmpfs", "tmpfs", "/x", False, SMALL)),
    ],
)
def test_mount(text: str, mount: Mount) -> None:
    assert volumes.parse_mount(text) == mount


@pytest.mark.parametrize(
    "text",
    [
        "",
        "type=bind,src=/etc",
        "type=bind,src=/no/such,dst=/x",
        "type=no,dst=/x",
        "dst=x",
        "a=b,dst=/x",
        "type=bind,dst=/x",
    ],
)
def test_mount_that_means_nothing(text: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        volumes.parse_mount(text)


def test_tmpfs() -> None:
    assert volumes.parse_tmpfs("/x") == Mount("tmpfs", "tmpfs", "/x", False, TMPFS)
    assert volumes.parse_tmpfs("/x:size=1m,exec").options == (*TMPFS, "size=1m", "exec")
    with pytest.raises(errors.InvalidArgument):
        volumes.parse_tmpfs("x")


def test_the_store_of_volumes(tmp_path: Path) -> None:
    store = Volumes(str(tmp_path))
    assert store.list() == []
    assert store.create("data", {"a": "1"}) == "data"
    created = store.inspect("data")
    assert created["Labels"] == {"a": "1"} and Path(created["Mountpoint"]).is_dir()
    Path(created["Mountpoint"], "file").write_text("kept")
    assert store.create("data") == "data", "one that exists stays as it is"
    assert store.inspect("data") == created and Path(created["Mountpoint"], "file").read_text() == "kept"
    assert len(store.create()) == 64
    assert len(store.list()) == 2
    with pytest.raises(errors.Conflict, match="abc"):
        store.remove("data", ["abc" + "0" * 61])
    store.remove("data", [])
    assert "data" not in store.list() and not Path(created["Mountpoint"]).exists()
    for name in ("data", "../etc", ""):
        with pytest.raises(errors.VolumeNotFound):
            store.remove(name, [])
    with pytest.raises(errors.InvalidArgument):
        store.create("no/name")


def test_a_prune_leaves_what_is_just_being_made(tmp_path: Path) -> None:
    """`create` was killed, or is at it: there is a directory, and not yet what describes it."""
    volumes = Client(str(tmp_path)).volumes
    old = volumes.create()
    half = Path(volumes.data("a" * 64))
    half.mkdir(parents=True)
    assert volumes.prune()["VolumesDeleted"] == [old] and half.is_dir()


# ----------------------------------------------------------------------------------------------------- in a container

root = pytest.mark.root


@root
def test_an_empty_volume_starts_as_the_image_has_it(shop: Shop) -> None:
    """Owners, modes, times, links and the setgid bit: what `ls` shows is the same from both sides."""
    data = shop.root / "volumes/filled/_data"
    shop.run("-v", "filled:/srv/data", "demo", "true")
    try:
        assert (data / "one").read_text() == "1\n" and (data / "sub/two").read_text() == "22\n"
        assert os.readlink(data / "link") == "../../etc/passwd"
        for path, mode in ((data, 0o750), (data / "sub", 0o2775), (data / "one", 0o4755)):
            info = path.stat()
            assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (mode, 1000, 1000), path
        assert (data / "one").stat().st_mtime == 0, "the layer says 1970"
    finally:
        minicontainer("volume", "rm", "filled")


@root
def test_a_volume_that_holds_something_is_left_alone(shop: Shop) -> None:
    minicontainer("volume", "create", "mine")
    try:
        (shop.root / "volumes/mine/_data/own").write_text("mine")
        assert shop.out("-v", "mine:/srv/data", "demo", "ls", "/srv/data") == "own\n"
    finally:
        minicontainer("volume", "rm", "mine")


@root
def test_nocopy(shop: Shop) -> None:
    assert shop.out("-v", "bare:/srv/data:nocopy", "demo", "ls", "-A", "/srv/data") == ""
    minicontainer("volume", "rm", "bare")


@root
def test_a_volume_outlives_its_containers_and_is_shared(shop: Shop) -> None:
    shop.run("-v", "kept:/data", "demo", "sh", "-c", "echo 1 >/data/file")
    try:
        assert shop.out("-v", "kept:/elsewhere:ro", "demo", "cat", "/elsewhere/file") == "1\n"
        done = shop.run("-v", "kept:/data:ro", "demo", "touch", "/data/x", check=False)
        assert done.returncode == 1 and "Read-only" in done.stderr
        with shop.start("-v", "kept:/data", "demo", "sh", "-c", "echo ready; sleep 60"):
            done = minicontainer("volume", "rm", "kept", check=False)
            assert done.returncode == 1 and "in use" in done.stderr
        names = json.loads(minicontainer("volume", "inspect", "kept").stdout)
        assert names[0]["Mountpoint"] == str(shop.root / "volumes/kept/_data")
    finally:
        minicontainer("volume", "rm", "kept")
    assert not (shop.root / "volumes/kept").exists()


@root
def test_anonymous_volumes_go_with_rm_and_named_ones_stay(shop: Shop) -> None:
    """demo declares /srv/data to be a volume: an anonymous one is made for it, and filled."""
    with shop.start("-v", "/more", "-v", "named:/named", "demo", "sh", "-c", "ls /srv/data; sleep 60") as container:
        assert container.ready == "link"
        there = os.listdir(shop.root / "volumes")
        assert len(there) == 3 and sorted(map(len, there)) == [5, 64, 64]
        assert {"/srv/data", "/more", "/named"} <= set(container.mounts())
    assert os.listdir(shop.root / "volumes") == ["named"]
    minicontainer("volume", "rm", "named")


@root
def test_without_rm_anonymous_volumes_stay_until_the_container_goes(shop: Shop) -> None:
    shop.run("--name", "keeper", "demo", "sh", "-c", "echo kept >/srv/data/kept", remove=False)
    (name,) = os.listdir(shop.root / "volumes")
    try:
        assert (shop.root / "volumes" / name / "_data/kept").read_text() == "kept\n"
    finally:
        minicontainer("rm", "keeper")
    minicontainer("volume", "rm", name, check=False)


@root
def test_binds(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host\n")
    assert shop.out("-v", f"{tmp_path}:/x", "demo", "sh", "-c", "cat /x/file; echo back >/x/new") == "from the host\n"
    assert (tmp_path / "new").read_text() == "back\n"
    assert shop.out("-v", f"{tmp_path}/file:/etc/one:ro", "demo", "cat", "/etc/one") == "from the host\n"
    done = shop.run("-v", f"{tmp_path}:/x:ro", "demo", "sh", "-c", "echo x >/x/file", check=False)
    assert done.returncode == 1 and "Read-only" in done.stderr
    done = shop.run("--mount", f"type=bind,src={tmp_path},dst=/x,ro", "demo", "touch", "/x/y", check=False)
    assert done.returncode == 1 and "Read-only" in done.stderr


@root
def test_v_makes_the_hosts_path_and_mount_does_not(shop: Shop, tmp_path: Path) -> None:
    shop.run("-v", f"{tmp_path}/made/for/you:/x", "demo", "true")
    assert (tmp_path / "made/for/you").is_dir()
    shop.refused(125, "--mount", f"type=bind,src={tmp_path}/not/made,dst=/x", "demo", "true")
    assert not (tmp_path / "not").exists()


@root
def test_a_socket_can_be_bound(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        text = shop.out("-v", f"{tmp_path}/socket:/run/socket", "demo", "stat", "-c", "%F", "/run/socket")
        assert text == "socket\n"


@root
def test_a_mount_below_a_mount(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "outer/inner").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("inner\n")
    flags = ["-v", f"{tmp_path}/other:/x/inner", "-v", f"{tmp_path}/outer:/x"]
    assert shop.out(*flags, "demo", "cat", "/x/inner/file") == "inner\n"


@root
def test_propagation_is_private(shop: Shop, tmp_path: Path) -> None:
    with shop.start("-v", f"{tmp_path}:/x", "demo", "sh", "-c", "echo ready; sleep 60") as container:
        fields = container.mounts()["/x"]
        assert fields[6] == "-", "no shared:, master: or propagate_from: tag"


@root
def test_a_tmpfs_and_its_options(shop: Shop) -> None:
    flags = ["--tmpfs", "/a", "--tmpfs", "/b:size=1m,mode=700,exec", "--mount", "type=tmpfs,dst=/c,tmpfs-size=2m,ro"]
    with shop.start(*flags, "demo", "sh", "-c", "echo ready; sleep 60") as container:
        mounts = container.mounts()
        assert mounts["/a"][5].split(",")[:4] == ["rw", "nosuid", "nodev", "noexec"]
        assert "noexec" not in mounts["/b"][5] and "size=1024k" in mounts["/b"][-1] and "mode=700" in mounts["/b"][-1]
        assert mounts["/c"][5].startswith("ro") and "size=2048k" in mounts["/c"][-1]
    assert shop.out("--tmpfs", "/t", "demo", "stat", "-c", "%a", "/t") == "1777\n"


@root
def test_a_tmpfs_may_be_put_over_a_volume_of_the_image(shop: Shop) -> None:
    assert shop.out("--tmpfs", "/srv/data", "demo", "ls", "-A", "/srv/data") == ""
    assert not (shop.root / "volumes").exists() or os.listdir(shop.root / "volumes") == []
