"""Images as users type it: names, removal, history, archives, what takes space."""

from __future__ import annotations

import concurrent.futures
import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer.cli import table
from minicontainer.engine.client import Client
from minicontainer.image import saving, store
from tests import engine_fixtures
from tests.conftest import minicontainer
from tests.engine_fixtures import Shop

pytestmark = [pytest.mark.root, pytest.mark.needs("overlay", "libseccomp")]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three images of engine_fixtures, as `docker save` writes them."""
    path = tmp_path_factory.mktemp("archive") / "images.tar"
    path.write_bytes(engine_fixtures.archive(engine_fixtures.images()))
    return path


@pytest.fixture
def shop(tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A store of the test's own, filled anew: here, images come and go."""
    root = tmp_path / "store"
    monkeypatch.setenv("MINICONTAINER_ROOT", str(root))
    minicontainer("load", "-q", "-i", str(archive))
    made = Shop(root)
    yield made
    made.end_all()
    names = minicontainer("ps", "-aq").stdout.split()
    if names:
        minicontainer("rm", "-f", "-v", *names)
    assert minicontainer("system", "check", check=False).stdout == "nothing is wrong\n"
    minicontainer("system", "reset", "--force")


def names(shop: Shop) -> dict[str, str]:
    """What the index on disk says: a name's manifest."""
    index: dict[str, Any] = json.loads((shop.root / "index.json").read_text())
    return {store.familiar(entry): entry["digest"] for entry in index["manifests"]}


def refused(code: int, *words: str) -> str:
    """The one line on stderr of what must fail with that exit code."""
    done = minicontainer(*words, check=False)
    assert done.returncode == code and done.stdout == "", done
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("minicontainer: "), done.stderr
    return done.stderr


# Tag


@pytest.mark.parametrize("words", [("tag",), ("image", "tag")])
def test_a_tag_is_one_more_name_and_takes_it_from_who_had_it(shop: Shop, words: tuple[str, ...]) -> None:
    minicontainer(*words, "demo", "shop.example:5000/team/mine:1")
    assert names(shop)["shop.example:5000/team/mine:1"] == names(shop)["demo:latest"]
    plain = names(shop)["plain:latest"]
    minicontainer(*words, "demo", "plain")
    assert names(shop)["plain:latest"] == names(shop)["demo:latest"] and names(shop)[""] == plain
    identifier = minicontainer("images", "-q", "--no-trunc", "demo").stdout.strip()
    minicontainer(*words, identifier, "mine:2")
    minicontainer(*words, identifier[7:19], "mine:3")
    assert names(shop)["mine:2"] == names(shop)["mine:3"] == names(shop)["demo:latest"]


def test_what_is_no_name_is_refused(shop: Shop) -> None:
    before = names(shop)
    assert "No such image: nosuch" in refused(1, "tag", "nosuch", "x")
    for name in ("Not", "a b", "x@sha256:" + 64 * "0", 64 * "a", "x:" + 129 * "a", ""):
        refused(1, "tag", "demo", name)
    for words in ((), ("demo",), ("demo", "x", "y")):
        refused(1, "tag", *words)
    assert names(shop) == before


# History


def test_history_tells_what_each_step_brought(tmp_path: Path, shop: Shop) -> None:
    path = tmp_path / "told.tar"
    history = [{"created": "2024-01-02T03:04:05Z", "created_by": "ADD busybox"}]
    told = {"told:1": ({"config": {}, "history": history}, [engine_fixtures.base_layer()])}
    path.write_bytes(engine_fixtures.archive(told))
    minicontainer("load", "-i", str(path))
    minicontainer("run", "--name", "web", "--network", "none", "told:1", "sh", "-c", "echo 12345 >/new")
    minicontainer("commit", "-m", "a file", "web", "made")
    image = store.Store(str(shop.root)).get("made")
    shown = minicontainer("history", "--no-trunc", "--human=false", "made").stdout.splitlines()
    assert len(shown) == 3 and shown[1].split()[0] == image.id and "echo 12345 >/new   6 " in shown[1]
    assert shown[1].endswith("a file") and image.created[:19] in shown[1]
    assert minicontainer("image", "history", "-q", "made").stdout == f"{image.id[7:19]}\n<missing>\n"
    assert minicontainer("history", "demo").stdout.count("\n") == 1  # it was made by hand, and tells nothing
    minicontainer("rm", "web")


def test_a_history_that_cannot_be_true_is_refused(tmp_path: Path, shop: Shop) -> None:
    layer = engine_fixtures.layer({"a": b"1"})
    path = tmp_path / "bad.tar"
    told: Any
    for told in ([1], "x", [{"created": "yesterday"}], [{"created": "2024-13-01T00:00:00Z"}]):
        path.write_bytes(engine_fixtures.archive({"bad:1": ({"config": {}, "history": told}, [layer])}))
        assert "the config is malformed" in refused(1, "load", "-i", str(path))
    for told in ({}, [{}, {}]):
        path.write_bytes(engine_fixtures.archive({"bad:1": ({"config": {}, "history": told}, [layer])}))
        minicontainer("load", "-i", str(path))
    assert "history" in refused(1, "history", "bad:1")


# Removal


def layers(shop: Shop) -> set[str]:
    """The chainIDs, without `sha256:`, of the layers on disk."""
    return set(os.listdir(shop.root / "layers")) - {"l"}


def chains(shop: Shop, name: str) -> list[str]:
    """Those of an image, lowest first."""
    return [chain[7:] for chain in store.Store(str(shop.root)).get(name).chain_ids]


@pytest.mark.parametrize("words", [("rmi",), ("image", "rm"), ("image", "remove")])
def test_the_last_name_takes_the_image_with_it_and_its_own_layers(shop: Shop, words: tuple[str, ...]) -> None:
    below, top = chains(shop, "demo")
    identifier = store.Store(str(shop.root)).get("demo").id
    minicontainer("tag", "demo", "mine:1")
    assert minicontainer(*words, "demo").stdout == "Untagged: demo:latest\n"
    done = minicontainer(*words, "nosuch", "mine:1", check=False)
    assert done.stdout == f"Untagged: mine:1\nDeleted: {identifier}\nDeleted: sha256:{top}\n"
    assert done.returncode == 1 and "No such image: nosuch" in done.stderr
    assert top not in layers(shop) and below in layers(shop)  # `plain` has it, too
    assert not (shop.root / "blobs/sha256" / identifier[7:]).exists()
    assert minicontainer(*words, "-f", "nosuch", "plain", check=False).returncode == 0
    assert below not in layers(shop)
    refused(1, *words)


def test_what_a_container_uses_is_refused_and_stays_even_by_force(shop: Shop) -> None:
    identifier = store.Store(str(shop.root)).get("demo").id
    with shop.start("demo", "sh", "-c", "echo ready; exec sleep 100", name="web") as web:
        minicontainer("create", "--name", "still", "plain", "cat", "/etc/passwd")
        assert "must force" in refused(1, "rmi", "demo")
        assert "cannot be forced" in refused(1, "rmi", "-f", identifier)
        assert minicontainer("rmi", "-f", "demo").stdout == "Untagged: demo:latest\n"
        assert "cannot be forced" in refused(1, "rmi", "-f", identifier[7:19])
        assert "must force" in refused(1, "rmi", "plain")
        plain = store.Store(str(shop.root)).get("plain")
        assert "must be forced" in refused(1, "rmi", plain.id)
        assert minicontainer("rmi", "-f", "plain").stdout == f"Untagged: plain:latest\nDeleted: {plain.id}\n"
        assert minicontainer("exec", web.name, "cat", "/opt/plain").stdout == "nobody may execute this\n"
        assert minicontainer("start", "-a", "still").stdout == engine_fixtures.PASSWD
        assert minicontainer("cp", "still:/etc/passwd", "-").stdout and minicontainer("diff", "still").stdout == ""
        assert minicontainer("system", "check").stdout == "nothing is wrong\n"
        minicontainer("rm", "still")
    assert minicontainer("rmi", identifier).stdout.startswith(f"Deleted: {identifier}\nDeleted: sha256:")
    minicontainer("rmi", "foreign")
    assert layers(shop) == set() and os.listdir(shop.root / "blobs/sha256") == os.listdir(shop.root / "layers/l") == []


def test_the_layers_of_an_image_that_has_gone_go_with_its_last_container(shop: Shop) -> None:
    _, top = chains(shop, "demo")
    minicontainer("create", "--name", "still", "demo")
    minicontainer("rmi", "-f", "demo")
    assert top in layers(shop)
    minicontainer("rm", "still")
    assert top not in layers(shop)


def test_containers_and_removals_race_and_neither_is_ever_hurt(shop: Shop, archive: Path) -> None:
    """Somebody loads and removes all the while; whoever gets as far as a container has all of its files."""
    stop = threading.Event()
    removed = []

    def come_and_go() -> None:
        while not stop.is_set():
            minicontainer("load", "-q", "-i", str(archive))
            removed.append(minicontainer("rmi", "demo", "plain", check=False).returncode)

    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        remover = pool.submit(come_and_go)
        try:
            words = ("run", "--rm", "--pull", "never", "--network", "none", "demo", "cat", "/opt/plain")
            ran = list(pool.map(lambda _: minicontainer(*words, check=False), range(40)))
        finally:
            stop.set()
        remover.result()
    for done in ran:
        if done.returncode == 0:
            assert done.stdout == "nobody may execute this\n"
        else:
            assert done.returncode == 125 and "No such image: demo" in done.stderr, done.stderr
    assert 0 in {done.returncode for done in ran} and removed


# Save


def members(content: bytes) -> dict[str, bytes]:
    """An archive's members by name, as Python's tarfile reads them."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {item.name: file.read() for item in archive if (file := archive.extractfile(item))}


@pytest.mark.parametrize("words", [("save",), ("image", "save")])
def test_save_writes_an_oci_layout_that_older_readers_understand(shop: Shop, words: tuple[str, ...]) -> None:
    minicontainer("tag", "demo", "demo:2")
    path = shop.root.parent / "out.tar"
    minicontainer(*words, "-o", str(path), "demo", "plain:latest")
    found = members(path.read_bytes())
    demo = store.Store(str(shop.root)).get("demo")
    assert json.loads(found[f"{demo.id[7:]}.json"]) == demo.config
    assert found[f"{demo.id[7:]}.json"] == found[f"blobs/sha256/{demo.id[7:]}"]
    for name, content in found.items():
        if name.startswith("blobs/"):
            assert hashlib.sha256(content).hexdigest() == name.rpartition("/")[2]
    listed = json.loads(found["manifest.json"])
    assert [item["RepoTags"] for item in listed] == [["demo:latest", "demo:2"], ["plain:latest"]]
    assert all(item["Config"] in found and set(item["Layers"]) <= set(found) for item in listed)
    entries = json.loads(found["index.json"])["manifests"]
    assert [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in entries] == ["latest", "2", "latest"]
    assert json.loads(found["repositories"])["demo"].keys() == {"latest", "2"}
    before = names(shop)
    minicontainer("rmi", "demo", "demo:2", "plain")
    assert minicontainer("load", "-i", str(path)).stdout.splitlines() == [
        "Loaded image: demo:latest", "Loaded image: demo:2", "Loaded image: plain:latest",
    ]  # fmt: skip
    assert names(shop) == before


def test_a_save_made_twice_is_the_same_bytes(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, other = (str(shop.root.parent / f"{number}.tar") for number in range(3))
    for path in (first, second):
        minicontainer("save", "-o", path, "demo", "plain")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    minicontainer("save", "--format", "oci", "-o", other, "demo")
    assert Path(first).read_bytes() == Path(second).read_bytes()
    assert sorted(name for name in members(Path(other).read_bytes()) if "blobs" not in name) == [
        "index.json", "oci-layout",
    ]  # fmt: skip


def test_a_commit_made_twice_is_the_same_image(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for number in (1, 2):
        words = ("--network", "none", "--name", f"c{number}", "plain", "sh", "-c", "mkdir /a; echo x >/a/b; rm /bin/wc")
        minicontainer("run", *words)
        minicontainer("commit", f"c{number}", f"made:{number}")
    assert names(shop)["made:1"] == names(shop)["made:2"]


def test_save_refuses_what_cannot_be_and_leaves_no_half(shop: Shop) -> None:
    there = shop.root.parent
    assert "No such image" in refused(1, "save", "nosuch")
    assert "needs an image" in refused(1, "save")
    assert "format" in refused(1, "save", "--format", "zip", "demo")
    assert "No such file" in refused(1, "save", "-o", str(there / "no/such"), "demo")
    assert "directory" in refused(1, "save", "-o", str(there), "demo")
    layer = store.Store(str(shop.root)).get("demo").manifest["layers"][1]["digest"][7:]
    blob = shop.root / "blobs/sha256" / layer
    content = blob.read_bytes()
    blob.write_bytes(content.replace(b"nobody may", b"anybody may"[:10]))
    assert "damaged" in refused(1, "save", "-o", str(there / "out.tar"), "demo")
    blob.write_bytes(content)
    assert [path.name for path in there.iterdir() if "out.tar" in path.name] == []
    full = minicontainer("save", "-o", "/dev/full", "demo", check=False)
    assert full.returncode == 1 and "No space left on device" in full.stderr


def test_a_removal_takes_nothing_from_a_save_under_way(shop: Shop) -> None:
    here = store.Store(str(shop.root))
    _, chunks = saving.save(here, ["demo"])
    first = next(chunks)
    minicontainer("rmi", "demo", "plain", "foreign")
    assert os.listdir(shop.root / "blobs/sha256") == []
    path = shop.root.parent / "out.tar"
    path.write_bytes(first + b"".join(chunks))
    assert minicontainer("load", "-i", str(path)).stdout == "Loaded image: demo:latest\n"


# Events


def test_what_is_done_to_images_is_told(shop: Shop, archive: Path) -> None:
    """As docker tells it, which test_images_peers.py compares; here the documents, and who asks for some of them."""
    (shop.root / "events.jsonl").unlink(missing_ok=True)
    demo = minicontainer("images", "-q", "--no-trunc", "demo").stdout.strip()
    minicontainer("tag", "demo", "host:5000/mine:2")
    minicontainer("rmi", "-f", "demo", "host:5000/mine:2")
    minicontainer("load", "-i", str(archive))
    minicontainer("image", "prune", "-a", "-f")
    asked = ["events", "--since", "1h", "--until", "0s", "--format", "json"]
    told = [json.loads(line) for line in minicontainer(*asked).stdout.splitlines()]
    first, last = told[0], told[-1]
    assert first["Actor"] == {"ID": demo, "Attributes": {"made": "by hand", "name": "host:5000/mine:2"}}
    assert list(first) == ["status", "id", "Type", "Action", "Actor", "scope", "time", "timeNano"]
    assert [event["Action"] for event in told[:7]] == ["tag", "untag", "untag", "delete", "load", "load", "load"]
    assert last["Action"] == "prune" and last["Actor"]["ID"] == "" and "id" not in last
    assert int(last["Actor"]["Attributes"]["reclaimed"]) > 1_000_000
    for image, count in (("host:5000/mine", 1), ("host:5000/mine:2", 1), ("host", 0), (demo, 7), ("", 0)):
        assert minicontainer(*asked, "-f", f"image={image}").stdout.count("\n") == count, image
    assert minicontainer(*asked, "-f", f"container={demo}").stdout == ""
    assert minicontainer(*asked, "-f", "type=image", "-f", "event=tag", "-f", "label=made").stdout.count("\n") == 1


# Import


@pytest.mark.parametrize("words", [("import",), ("image", "import")])
def test_what_export_wrote_is_an_image_again(shop: Shop, words: tuple[str, ...]) -> None:
    path = shop.root.parent / "tree.tar"
    minicontainer("run", "--name", "web", "--network", "none", "demo", "sh", "-c", "echo here >/new; ln /new /again")
    minicontainer("export", "-o", str(path), "web")
    said = minicontainer(
        *words, "-c", 'CMD ["cat", "/again"]', "-c", "ENV A=b c=d", "-m", "all of it", str(path), "one:1"
    )
    image = store.Store(str(shop.root)).get("one:1")
    assert said.stdout == f"{image.id}\n"
    assert image.config["config"] == {"Cmd": ["cat", "/again"], "Env": ["A=b", "c=d"]}
    assert image.config["history"][0]["comment"] == "all of it" and len(image.chain_ids) == 1
    top = Path(store.Store(str(shop.root)).layer_directories(image)[0])
    assert (top / "new").stat().st_ino == (top / "again").stat().st_ino and (
        top / "srv/data/one"
    ).stat().st_mode & 0o4000
    assert shop.out("one:1") == "here\n"
    compressed = gzip.compress(path.read_bytes())
    done = subprocess.run([sys.executable, "-m", "minicontainer", *words, "-"], input=compressed, capture_output=True)
    other = store.Store(str(shop.root)).get(done.stdout.decode().strip())
    assert other.config["rootfs"] == image.config["rootfs"] and other.names == []
    minicontainer("rm", "web")


def test_what_is_no_tar_is_not_imported(shop: Shop) -> None:
    path = shop.root.parent / "tree.tar"
    path.write_bytes(b"not a tar" * 1000)
    before, blobs = names(shop), set(os.listdir(shop.root / "blobs/sha256"))
    for words in ((str(path),), (str(path), "Bad"), ("-c", "RUN x", str(path)), ("nosuch",), ("http://a/b",), ()):
        refused(1, "import", *words)
    assert names(shop) == before and set(os.listdir(shop.root / "blobs/sha256")) == blobs


# What takes space, and giving it back


def test_a_prune_takes_what_nobody_uses_and_nothing_else(shop: Shop) -> None:
    demo, plain = chains(shop, "demo"), chains(shop, "plain")
    minicontainer("create", "--name", "still", "plain", "cat", "/etc/passwd")
    assert minicontainer("image", "prune", "-f").stdout == "Total reclaimed space: 0B\n"
    minicontainer("tag", "foreign", "demo")  # what was demo has no name now
    said = minicontainer("image", "prune", "-f").stdout
    assert said.splitlines()[:3] == ["Deleted Images:", said.splitlines()[1], f"deleted: sha256:{demo[1]}"]
    assert layers(shop) == {*plain, *chains(shop, "foreign")}
    assert minicontainer("image", "prune", "-a", stdin="n\n").stdout.startswith("WARNING! This will remove all images")
    assert "foreign:latest" in names(shop)
    minicontainer("image", "prune", "-a", stdin="y\n")
    assert layers(shop) == set(plain) and names(shop).keys() == {"plain:latest"}
    assert minicontainer("start", "-a", "still").stdout == engine_fixtures.PASSWD
    minicontainer("system", "prune", "-a", "-f")
    assert layers(shop) == set() and names(shop) == {} and minicontainer("ps", "-aq").stdout == ""


def test_system_prune_takes_volumes_that_have_no_name_of_their_own(shop: Shop) -> None:
    minicontainer("volume", "create", "mine")
    minicontainer("create", "--name", "still", "demo")
    minicontainer("create", "--name", "other", "demo")
    minicontainer("start", "-a", "still")
    minicontainer("start", "-a", "other")
    minicontainer("rm", "other")
    assert len(os.listdir(shop.root / "volumes")) == 3
    assert minicontainer("system", "prune", "--filter", "label=x", "--volumes", "-f").stdout == (
        "Total reclaimed space: 0B\n"
    )
    minicontainer("system", "prune", "--volumes", "-f")
    assert os.listdir(shop.root / "volumes") == ["mine"]


def test_system_prune_takes_networks_and_refuses_until_for_volumes(shop: Shop) -> None:
    for name in ("idle", "used"):
        minicontainer("network", "create", name)
    minicontainer("create", "--name", "still", "--network", "used", "--label", "keep", "demo")
    minicontainer("create", "--name", "other", "demo")
    done = minicontainer("system", "prune", "-f", "--volumes", "--filter", "until=1s", check=False)
    assert done.returncode == 1 and '"until" filter is not supported with "--volumes"' in done.stderr
    assert len(minicontainer("ps", "-aq").stdout.split()) == 2
    said = minicontainer("system", "prune", "-f", "--filter", "label!=keep").stdout
    assert said.count("\n\nDeleted Networks:\nidle\n\n") == 1
    assert minicontainer("ps", "-a", "--format", "{{.Names}}").stdout == "still\n"
    assert {path.stem for path in shop.root.glob("networks/*.json")} == {"used"}


def test_a_prune_makes_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path / "none"))
    for kind in ("container", "network"):
        minicontainer(kind, "prune", "-f")
    assert not (tmp_path / "none").exists()


def test_volume_prune_spares_names_and_what_containers_mount(shop: Shop) -> None:
    for name in ("mine", "used"):
        minicontainer("volume", "create", name)
    minicontainer("create", "--name", "still", "-v", "used:/data", "demo")
    nameless = minicontainer("volume", "create").stdout.strip()
    assert minicontainer("volume", "prune", stdin="n\n").stdout.startswith("WARNING! This will remove anonymous")
    assert minicontainer("volume", "prune", "-f").stdout == (
        f"Deleted Volumes:\n{nameless}\n\nTotal reclaimed space: 0B\n"
    )
    assert minicontainer("volume", "prune", "-f", "--filter", "label=x", "-a").stdout == "Total reclaimed space: 0B\n"
    minicontainer("volume", "prune", "-a", "-f")
    assert os.listdir(shop.root / "volumes") == ["used"]


def test_prunes_of_the_library_are_docker_py_s_and_are_told(shop: Shop) -> None:
    (shop.root / "events.jsonl").unlink(missing_ok=True)
    client = Client(str(shop.root))
    made = client.containers.create("plain", ["true"], labels={"tier": "web"})
    client.networks.create("idle")
    client.volumes.create("mine")
    Path(client.volumes.data("mine"), "file").write_bytes(bytes(5000))
    assert client.containers.prune(filters={"label": ["tier=data"]}) == {"ContainersDeleted": [], "SpaceReclaimed": 0}
    assert client.containers.prune() == {"ContainersDeleted": [made.id], "SpaceReclaimed": 0}
    assert client.networks.prune() == {"NetworksDeleted": ["idle"]}
    assert client.volumes.prune() == {"VolumesDeleted": [], "SpaceReclaimed": 0}
    went = client.volumes.prune(filters={"all": ["true"]})
    assert went["VolumesDeleted"] == ["mine"] and went["SpaceReclaimed"] >= 5000
    demo = client.images.get("demo")
    twin = json.dumps({**demo.manifest, "annotations": {"from": "elsewhere"}}).encode()
    client.images.store.add(twin)  # as one that was loaded and pulled
    client.images.tag("foreign", "demo")
    went = client.images.prune()
    assert went["ImagesDeleted"][0] == {"Deleted": demo.id} and went["SpaceReclaimed"] > 0
    told = [json.loads(line) for line in (shop.root / "events.jsonl").read_text().splitlines()]
    assert [event["Action"] for event in told if event["Actor"]["ID"] == made.id] == ["create", "destroy"]
    assert [event["Action"] for event in told if event["Actor"]["ID"] == demo.id].count("delete") == 1
    pruned = [event for event in told if event["Action"] == "prune"]
    assert [event["Type"] for event in pruned] == ["container", "container", "network", "volume", "volume", "image"]
    assert "status" in pruned[0] and "status" not in pruned[2]
    assert pruned[2]["Actor"] == {"ID": "", "Attributes": {"reclaimed": "0"}}
    assert int(pruned[4]["Actor"]["Attributes"]["reclaimed"]) >= 5000


def test_df_counts_a_layer_once_and_a_file_s_bytes(shop: Shop) -> None:
    minicontainer("run", "--name", "still", "--network", "none", "plain", "sh", "-c", "head -c 5000 /dev/zero >/big")
    rows = {
        row["Type"]: row
        for row in map(json.loads, minicontainer("system", "df", "--format", "json").stdout.splitlines())
    }
    paths = [store.Store(str(shop.root)).layer_directory(f"sha256:{chain}") for chain in layers(shop)]
    inside = [path for top in paths for path in Path(top).rglob("*") if path.is_symlink() or path.is_file()]
    size = sum(path.lstat().st_size for path in inside)
    assert rows["Images"]["Size"] == table.exact_size(size) and rows["Images"]["Active"] == "1"
    assert rows["Containers"]["Size"] == rows["Containers"]["Reclaimable"].partition(" ")[0] == "5kB"
    assert "plain        latest" in minicontainer("system", "df", "-v").stdout


def test_containers_and_prunes_race_and_no_container_is_ever_hurt(shop: Shop, archive: Path) -> None:
    """As with removals; the containers stay for a second start, which finds its files, too."""
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            minicontainer("load", "-q", "-i", str(archive))
            minicontainer("image", "prune", "-a", "-f")

    def twice(number: int) -> list[subprocess.CompletedProcess[str]]:
        words = ("run", "--name", f"c{number}", "--pull", "never", "--network", "none", "demo", "cat", "/opt/plain")
        done = minicontainer(*words, check=False)
        return [done] if done.returncode else [done, minicontainer("start", "-a", f"c{number}", check=False)]

    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        pruner = pool.submit(come_and_go)
        try:
            ran = list(pool.map(twice, range(20)))
        finally:
            stop.set()
        pruner.result()
    for done in [one for pair in ran for one in pair]:
        if done.returncode == 0:
            assert done.stdout == "nobody may execute this\n"
        else:
            assert done.returncode == 125 and "No such image: demo" in done.stderr, done


# Explore


@pytest.fixture
def layered(shop: Shop) -> dict[str, Any]:
    """What `image explore --format json` says of an image whose third layer changes, hides and adds."""
    change = (
        "echo new >/opt/plain; rm /opt/noise; rm -r /srv/data; mkdir /srv/data; echo 1 >/srv/data/x; chmod 700 /home;"
        "ln /opt/plain /opt/again; echo y >/add"
    )
    minicontainer("run", "--name", "web", "--network", "none", "-v", "/none", "demo", "sh", "-c", change, check=False)
    minicontainer("commit", "web", "made")
    minicontainer("rm", "-v", "web")
    found: dict[str, Any] = json.loads(minicontainer("image", "explore", "--format", "json", "made").stdout)
    return found


def paths(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {entry["Path"]: entry for entry in entries}


def test_explore_tells_what_each_layer_added_changed_and_hid(shop: Shop, layered: dict[str, Any]) -> None:
    base, content, top = layered["Layers"]
    assert paths(base["Added"])["/bin/busybox"]["Size"] == os.stat(engine_fixtures.BUSYBOX).st_size
    assert paths(content["Added"])["/opt/noise"]["Size"] == 39 and not content["Changed"] and not content["Hidden"]
    replaced = paths(top["Changed"])["/opt/plain"]
    assert (replaced["Before"], replaced["Layer"]) == (24, 2)
    assert paths(top["Changed"])["/home/"]["Layer"] == 1
    assert paths(top["Hidden"])["/opt/noise"] == {"Path": "/opt/noise", "Size": 39, "Layer": 2}
    assert paths(top["Added"])["/opt/again"]["Size"] + paths(top["Changed"])["/opt/plain"]["Size"] == 4
    assert content["Wasted"] == layered["Wasted"] == 24 + 39 and base["Wasted"] == top["Wasted"] == 0


def test_explore_s_names_are_what_sha256sum_says(shop: Shop, layered: dict[str, Any]) -> None:
    for layer in layered["Layers"]:
        blob = (shop.root / "blobs/sha256" / layer["Digest"][7:]).read_bytes()
        assert layer["DiffID"] == f"sha256:{hashlib.sha256(blob).hexdigest()}" and len(blob) == layer["BlobSize"]
        text = layer["ChainIDOf"]
        assert layer["ChainID"] == (f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" if text else layer["DiffID"])
        assert (shop.root / "layers" / layer["ChainID"][7:]).is_dir()
    shown = minicontainer("image", "explore", "made").stdout
    for line in re.findall(r"printf %s '[^']*' \| sha256sum", shown):
        digest = subprocess.run(["sh", "-c", line], capture_output=True, text=True).stdout.split()[0]
        assert f"sha256:{digest}\n" in shown
    assert "of which 63B (0%) wasted" in shown and "- " in shown and layered["Id"] in shown


def test_explore_names_the_layer_that_a_file_is_from(shop: Shop, layered: dict[str, Any]) -> None:
    def asked(path: str) -> str:
        return minicontainer("image", "explore", "--file", path, "made").stdout

    assert asked("/etc/passwd").startswith("/etc/passwd: from layer 1\n")
    assert "from layer 3" in asked("opt/plain") and "hides that of layer 2" in asked("/opt/plain")
    assert "layer 3 hides it; layer 2 had it" in asked("/opt/noise")
    place = asked("/add").rpartition("on disk: ")[2].strip()
    assert Path(place).read_text() == "y\n"
    assert "no layer has /nosuch" in refused(1, "image", "explore", "--file", "/nosuch", "made")
    refused(1, "image", "explore")
    refused(1, "image", "explore", "nosuch")
    refused(1, "image", "explore", "--format", "xml", "made")


# Lists


def test_a_tree_tells_platforms_and_who_is_in_use(shop: Shop) -> None:
    minicontainer("tag", "demo", "mine:1")
    minicontainer("create", "--name", "still", "plain", "true")
    lines = minicontainer("images", "--tree").stdout.splitlines()
    assert lines[0].split() == ["IMAGE", "ID", "DISK", "USAGE", "CONTENT", "SIZE", "EXTRA"]
    rows = {line.split()[0]: line.split() for line in lines[1:] if not line.startswith("└─")}
    assert rows["plain:latest"][-1] == "U" and rows["mine:1"][-1] != "U" and rows["demo:latest"] == ["demo:latest"]
    assert sum("└─ linux/s390x" in line for line in lines) == 1
    blobs = store.Store(str(shop.root)).get("foreign").manifest
    size = blobs["config"]["size"] + sum(layer["size"] for layer in blobs["layers"])
    assert rows["foreign:latest"][3] == table.size(size)
    assert len(minicontainer("image", "ls", "--tree", "demo").stdout.splitlines()) == 4
    refused(1, "images", "--tree", "-q")


def test_search_looks_at_names_and_descriptions(tmp_path: Path, shop: Shop) -> None:
    path = tmp_path / "told.tar"
    told = {
        "config": {"Labels": {"org.opencontainers.image.description": "a menu for every day of the whole long week"}}
    }
    path.write_bytes(engine_fixtures.archive({"host.example/x:1": (told, [engine_fixtures.layer({"a": b"1"})])}))
    minicontainer("load", "-i", str(path))

    def found(*words: str) -> list[str]:
        return minicontainer("search", "--format", "{{.Name}}", *words).stdout.split()

    assert found("DEM") == ["demo:latest"] and found("menu") == ["host.example/x:1"] and found("nosuch") == []
    assert sorted(found("a")) == ["demo:latest", "foreign:latest", "host.example/x:1", "plain:latest"]
    assert len(found("--limit", "2", "a")) == 2
    assert minicontainer("search", "nosuch").stdout.split() == ["NAME", "DESCRIPTION", "IMAGE", "ID", "SIZE"]
    for words in ((), ("a", "b"), ("--limit", "0", "a")):
        refused(1, "search", *words)
