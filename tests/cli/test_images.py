"""Images as users type it: names, removal, history, archives, what takes space."""

from __future__ import annotations

import concurrent.futures
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer.image import store
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
    told: dict[str, Any]
    for told in ({"history": [{}, {}]}, {"history": [1]}, {"history": {}, "a": 1}):
        path = tmp_path / "bad.tar"
        path.write_bytes(engine_fixtures.archive({"bad:1": ({"config": {}, **told}, [layer])}))
        minicontainer("load", "-i", str(path))
        if told["history"]:
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
