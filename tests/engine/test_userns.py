"""Which ids `--userns auto` gives: the words, the ranges, who has them. Pure, but for the disk."""

import os
import subprocess
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies

from minicontainer import errors
from minicontainer.engine import userns


@pytest.mark.parametrize(
    ("mode", "count"), [("", 0), ("host", 0), ("auto", 65536), ("auto:size=4096", 4096), ("auto:", 65536)]
)
def test_how_many_ids_are_asked_for(mode: str, count: int) -> None:
    assert userns.count_of(mode) == count


@pytest.mark.parametrize("mode", ["keep-id", "nomap", "private", "automatic", "auto:uidmapping=0:1:2", "container:x"])
def test_what_podman_has_beside_it_is_refused_by_name(mode: str) -> None:
    with pytest.raises(errors.Unsupported, match=mode):
        userns.count_of(mode)


@pytest.mark.parametrize("size", ["0", "-1", "many", "", "16777217"])
def test_a_size_is_a_number_of_ids(size: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="size is a number of ids"):
        userns.count_of(f"auto:size={size}")


def test_where_they_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """From where subuid(5) and subgid(5) agree for `containers`; where neither has it, our own; where one has, none."""
    texts = {"/etc/subuid": "anna:100000:65536\ncontainers:500:100\n"}
    texts["/etc/subgid"] = "containers:550:9\ncontainers:1:2"
    monkeypatch.setattr(userns.idmap, "text_of", lambda path: texts[path])
    assert userns.kept() == [(550, 9)]
    texts["/etc/subgid"] = "anna:100000:65536\n"
    assert userns.kept() == []
    texts["/etc/subuid"] = ""
    assert userns.kept() == [userns.OWN]
    texts |= dict.fromkeys(texts, "containers:2147483647:2147483648")  # as podman's manual has it
    assert sum(userns.kept()[0]) < 1 << 32


pieces = strategies.lists(strategies.tuples(strategies.integers(0, 60), strategies.integers(1, 20)), max_size=6)


@hypothesis.given(pieces, pieces, strategies.integers(1, 20))
def test_what_is_free_is_in_a_range_and_nobodys(
    ranges: list[tuple[int, int]], held: list[tuple[int, int]], count: int
) -> None:
    taken = sorted((first, first + many) for first, many in held)
    fits = [
        at
        for first, many in ranges
        for at in range(first, first + many - count + 1)
        if not any(begin < at + count and at < end for begin, end in taken)
    ]
    try:
        assert userns.free(ranges, taken, count) in fits
    except errors.Unsupported:
        assert fits == []


def test_a_lease_lasts_as_long_as_its_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or as who was about to make it; a dry plan takes none."""
    monkeypatch.setattr(userns, "PLACE", str(tmp_path / "ids"))
    monkeypatch.setattr(userns, "kept", lambda: [(901000, 30)])
    root = str(tmp_path)
    assert [userns.take(root, "a", 10, dry=True), userns.take(root, "a", 10), userns.take(root, "b", 10)] == [
        901000, 901000, 901010,
    ]  # fmt: skip
    userns.give_back(root, "a")
    userns.give_back(root, "a")
    assert userns.take(root, "c", 5) == 901000
    child = os.fork()
    if child == 0:
        userns.take(root, "d", 10)  # planned, and killed
        os._exit(0)
    os.waitpid(child, 0)
    os.mkdir(f"{root}/containers")
    os.mkdir(f"{root}/containers/b")
    assert userns.take(root, "e", 10) == 901020
    assert sorted(userns.leases()) == ["901000-5", "901010-10", "901020-10"]
    with pytest.raises(errors.Unsupported, match="no 10 ids"):
        userns.take(root, "f", 10)


def test_a_start_has_the_ids_of_its_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its store was not to be seen meanwhile, and others have swept; never those of another one."""
    monkeypatch.setattr(userns, "PLACE", str(tmp_path / "ids"))
    monkeypatch.setattr(userns, "kept", lambda: [(901000, 10)])
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    os.makedirs(f"{one}/containers/x")
    lease = f"{userns.PLACE}/901000-10"
    assert userns.take(one, "x", 10) == 901000
    userns.confirm(one, "x", 901000, 10)
    os.unlink(lease)
    userns.confirm(one, "x", 901000, 10)
    assert os.readlink(lease).startswith(f"{one}/containers/x:")
    os.unlink(lease)
    assert userns.take(two, "y", 5) == 901000
    with pytest.raises(errors.Conflict, match=f"given to another one, {two}/containers/y"):
        userns.confirm(one, "x", 901000, 10)


@pytest.mark.root
def test_ids_that_a_process_has_are_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its store may be one that is not to be seen from here."""
    monkeypatch.setattr(userns, "PLACE", str(tmp_path / "ids"))
    monkeypatch.setattr(userns, "kept", lambda: [(901000, 10)])
    os.makedirs(userns.PLACE)
    os.symlink("/nowhere/containers/x:1:1", f"{userns.PLACE}/901000-10")
    process = subprocess.Popen(["sleep", "1000"], user=901009)
    try:
        with pytest.raises(errors.Unsupported, match="no 10 ids"):
            userns.take(str(tmp_path), "y", 10)
    finally:
        process.kill()
        process.wait()
    assert userns.take(str(tmp_path), "y", 10) == 901000


def test_two_stores_share_no_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever their containers are called; what a store had that is not there any more, others get."""
    monkeypatch.setattr(userns, "PLACE", str(tmp_path / "ids"))
    monkeypatch.setattr(userns, "kept", lambda: [(901000, 30)])
    one, two = str(tmp_path / "a:b"), str(tmp_path / "b")
    for root in (one, two):
        os.makedirs(f"{root}/containers/x")
    child = os.fork()
    if child == 0:
        userns.take(one, "x", 10)
        os._exit(0)
    os.waitpid(child, 0)
    assert [userns.take(two, "x", 10), userns.take(two, "y", 10)] == [901010, 901020]
    userns.give_back(two, "x")
    assert sorted(userns.leases()) == ["901000-10", "901020-10"]
    userns.clear()
    assert sorted(userns.leases()) == ["901000-10", "901020-10"], "who has them is there"
    os.rename(one, f"{one}-gone")
    assert [userns.take(two, "z", 10), userns.take(two, "x", 10)] == [901000, 901010]
    for identifier in "xyz":
        userns.give_back(two, identifier)
    userns.clear()
    assert not os.path.exists(userns.PLACE)
