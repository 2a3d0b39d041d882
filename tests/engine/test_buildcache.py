"""What the build cache holds, and what a prune takes of it."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minicontainer import errors, files
from minicontainer.build import context as reading
from minicontainer.engine import buildcache
from minicontainer.image import blobs
from tests.conftest import minicontainer
from tests.yard import Yard, fresh_yard  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("overlay", "libseccomp")]

TEXT = "FROM plain\nRUN echo one >/tmp/1\nRUN head -c 5000 /dev/zero >/tmp/2\n"


def records(yard: Yard) -> list[Path]:
    """The cache's records."""
    return [path for path in (yard.root / "build/cache").glob("*.json") if not path.name.endswith(".inputs.json")]


def keys(yard: Yard) -> dict[str, str]:
    """What a record is called, by the last word of its instruction."""
    return {json.loads(path.read_text())["instruction"].split()[-1]: path.stem[:25] for path in records(yard)}


def age(yard: Yard, hours: float, word: str = "") -> None:
    """Let the records be unused for so long: all, or those of an instruction that ends so."""
    for path in records(yard):
        if json.loads(path.read_text())["instruction"].endswith(word):
            os.utime(path, (time.time() - hours * 3600,) * 2)


def prune(yard: Yard, *flags: str) -> tuple[list[str], str]:
    """`builder prune -f …`: what went, and the last line."""
    lines = minicontainer("builder", "prune", "-f", *flags).stdout.splitlines()
    assert len(lines) == 1 or (lines[0] == "Deleted build cache objects:" and lines[-2] == "")
    return lines[1:-2], lines[-1]


def cache_mount(yard: Yard, name: str, identity: str, size: int) -> Path:
    """What a step with a cache mount leaves."""
    place = yard.root / "build/mounts" / name
    (place / "data").mkdir(parents=True)
    (place / "data/file").write_bytes(bytes(size))
    (place / "mount.json").write_text(json.dumps({"id": identity}))
    return place


def test_a_prune_spares_what_images_have_and_then_takes_all(yard: Yard) -> None:
    yard.build(TEXT)
    digest = yard.image().manifest["layers"][-1]["digest"]
    assert prune(yard) == ([], "Total reclaimed space: 0B")
    minicontainer("rmi", "app")
    known = keys(yard)
    assert prune(yard) == ([known[">/tmp/2"], known[">/tmp/1"]], "Total reclaimed space: 5kB")
    assert not os.path.exists(blobs.path(str(yard.root), digest))
    assert [os.listdir(yard.root / "build" / name) for name in ("cache", "last")] == [[], []]
    assert minicontainer("system", "check").stdout == "nothing is wrong\n"
    assert yard.told(TEXT) == [("done", ">/tmp/1"), ("done", ">/tmp/2")]
    assert len(prune(yard, "--all")[0]) == 2
    assert minicontainer("run", "--rm", "--network", "none", "app", "cat", "/tmp/1").stdout == "one\n"


def test_the_end_of_a_chain_goes_first(yard: Yard) -> None:
    """--keep-storage, until=: a step is used when one that stands on it is."""
    yard.build(TEXT)
    yard.build(TEXT.replace("one", "three"), "-t", "other")
    minicontainer("rmi", "app", "other")
    minicontainer("image", "prune", "-f")
    assert len(keys(yard)) == 2 and len(records(yard)) == 4
    age(yard, 48)
    age(yard, 1, ">/tmp/2")
    assert prune(yard, "--filter", "until=24h") == ([], "Total reclaimed space: 0B")
    went, space = prune(yard, "--keep-storage", "5009b")
    assert len(went) == 2 and space.split()[-1] in ("5kB", "5.01kB")
    left = [json.loads(path.read_text()) for path in records(yard)]
    by_chain = {one["chain_id"]: one["below"] for one in left}
    assert len(by_chain) == 2 and set(by_chain.values()) & set(by_chain)  # a step, and the one that it stands on
    assert minicontainer("system", "check").stdout == "nothing is wrong\n"
    age(yard, 48)
    assert len(prune(yard, "--filter", "until=24h")[0]) == 2


def test_filters(yard: Yard) -> None:
    yard.build(TEXT)
    minicontainer("rmi", "app")
    key = keys(yard)[">/tmp/1"]
    assert prune(yard, "--filter", f"id={key[:12]}")[0] == [key]
    prune(yard)
    yard.build(TEXT)
    known = keys(yard)
    assert prune(yard, "-a", "--filter", "type=exec.cachemount")[0] == []
    assert prune(yard, "-a", "--filter", "shared=false")[0] == []
    assert prune(yard, "-a", "--filter", "shared=true")[0] == [known[">/tmp/2"], known[">/tmp/1"]]
    for words in (["--filter", "colour=red"], ["--filter", "until=1x"], ["--keep-storage", "x"], ["word"]):
        assert minicontainer("builder", "prune", "-f", *words, check=False).returncode in (1, 125)
    with pytest.raises(errors.InvalidArgument):
        buildcache.df(str(yard.root), {"colour": ["red"]})


def test_a_cache_mount_goes_unless_a_step_has_it(yard: Yard) -> None:
    yard.build("FROM plain\nRUN true\n")
    one, two = cache_mount(yard, "a" * 32, "/root/.cache", 2000), cache_mount(yard, "b" * 32, "apt", 3000)
    lock = files.lock(str(one), shared=True)
    try:
        rows = [line.split() for line in minicontainer("builder", "du").stdout.splitlines()]
        assert ["a" * 25 + "*", "false", "2kB"] in [row[:3] for row in rows]
        assert rows[-2:] == [["Reclaimable:", "3kB"], ["Total:", "5kB"]]
        assert prune(yard) == (["b" * 25], "Total reclaimed space: 3kB")
    finally:
        os.close(lock)
    assert one.exists() and not two.exists()
    assert prune(yard) == (["a" * 25], "Total reclaimed space: 2kB")


def test_a_cache_mount_is_as_old_as_its_last_use(yard: Yard) -> None:
    text = "FROM plain\nARG N\nRUN --mount=type=cache,target=/cache echo $N >>/cache/file\n"
    yard.build(text, "--build-arg", "N=1")
    (place,) = (yard.root / "build/mounts").iterdir()
    for path in (place, place / "data", place / "mount.json"):
        os.utime(path, (time.time() - 48 * 3600,) * 2)
    yard.build(text, "--build-arg", "N=2")
    assert prune(yard, "--filter", "until=24h")[0] == [] and (place / "data/file").read_text() == "1\n2\n"
    os.utime(place / "mount.json", (time.time() - 48 * 3600,) * 2)
    os.utime(place / "data", (time.time() - 48 * 3600,) * 2)
    os.utime(place, (time.time() - 48 * 3600,) * 2)
    assert prune(yard, "--filter", "until=24h")[0] == [place.name[:25]]


def test_halves_that_a_killed_build_has_left_go(yard: Yard) -> None:
    yard.build(TEXT)
    for name in (f"cache/{'0' * 64}.inputs.json", f"cache/{'1' * 64}.json.tmp-1", f"cache/{'2' * 64}.json", "last/x"):
        (yard.root / "build" / name).write_text("{}")
    minicontainer("builder", "prune", "-f")
    left = os.listdir(yard.root / "build/cache")
    assert len(left) == 4 and not [name for name in left if len(set(name[:64])) == 1]
    assert "x" not in os.listdir(yard.root / "build/last")


def test_what_is_known_of_a_context_goes_with_it(yard: Yard, tmp_path: Path) -> None:
    """A context from a pipe leaves nothing; one that has gone, until the next prune; the others, until one of all."""
    hashes = yard.root / "build/hashes"
    other = tmp_path / "other"
    other.mkdir()
    text = "FROM scratch\nCOPY file /\n"
    for context in (yard.context, other):
        (context / "file").write_text("1\n")
        (context / "Dockerfile").write_text(text)
    # What has been written this moment is not remembered: it may change again and keep its times.
    time.sleep(2 * reading.RECENT / 10**9)
    done = subprocess.run(
        f"tar -c -C {other} . | {sys.executable} -m minicontainer build -", shell=True, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert os.listdir(hashes) == []
    yard.build(text)
    minicontainer("build", str(other))
    assert len(os.listdir(hashes)) == 2
    (hashes / "half.tmp-1").write_bytes(b"{")
    prune(yard)
    assert len(os.listdir(hashes)) == 2
    shutil.rmtree(other)
    prune(yard, "-a", "--filter", "until=1h")
    (left,) = hashes.iterdir()
    assert json.loads(left.read_text())["context"] == str(yard.context)
    prune(yard, "-a")
    assert os.listdir(hashes) == []
    assert yard.told(text) == [("done", "/")]


def test_du_and_df_tell_of_each(yard: Yard) -> None:
    yard.build(TEXT)
    cache_mount(yard, "c" * 32, "apt", 1000)
    text = minicontainer("buildx", "du", "--verbose").stdout
    of_mount, of_child = (block for block in text.split("\n\n") if "Parent" in block or "exec." in block)
    assert "cached mount apt" in of_mount
    assert keys(yard)[">/tmp/1"] in of_child and "head -c 5000 /dev/zero >/tmp/2" in of_child
    assert [line.split() for line in text.splitlines()[-4:]] == [
        ["Shared:", "5kB"], ["Private:", "1kB"], ["Reclaimable:", "6kB"], ["Total:", "6kB"],
    ]  # fmt: skip
    row = minicontainer("system", "df", "--format", "{{.TotalCount}} {{.Active}} {{.Size}} {{.Reclaimable}}")
    assert row.stdout.splitlines()[-1] == "3 0 1kB 1kB"
    shown = minicontainer("system", "df", "-v").stdout.partition("Build cache usage: 1kB\n\n")[2].splitlines()
    assert shown[0].split() == ["CACHE", "ID", "CACHE", "TYPE", "SIZE", "CREATED", "LAST", "USED", "USAGE", "SHARED"]
    assert sorted(line.split()[1] for line in shown[1:]) == ["exec.cachemount", "regular", "regular"]
    told = minicontainer("system", "df", "-v", "--format", "{{range .BuildCache}}{{.CacheType}} {{.Shared}};{{end}}")
    assert told.stdout.count("regular true;") == 2


def test_system_prune_takes_the_build_cache_too(yard: Yard) -> None:
    yard.build(TEXT)
    assert "  - unused build cache\n" in minicontainer("system", "prune", stdin="n\n").stdout
    assert minicontainer("system", "prune", "-f").stdout == "Total reclaimed space: 0B\n"
    assert minicontainer("builder", "prune", stdin="n\n").stdout == (
        "WARNING! This will remove all dangling build cache. Are you sure you want to continue? [y/N] "
    )
    said = minicontainer("system", "prune", "-a", "-f").stdout
    assert said.partition("Deleted build cache objects:\n")[2].split() == [
        *[one for one in said.split() if len(one) == 25], "Total", "reclaimed", "space:", said.split()[-1],
    ]  # fmt: skip
    assert os.listdir(yard.root / "layers") == ["l"]
    assert '"Type": "builder"' in minicontainer("events", "--since", "1h", "--until", "0s", "--format", "json").stdout
