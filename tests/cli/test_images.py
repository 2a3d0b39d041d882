"""Images as users type it: names, removal, history, archives, what takes space."""

from __future__ import annotations

import json
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
