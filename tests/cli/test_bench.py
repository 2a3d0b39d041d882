"""What `bench` answers before it measures anything."""

import os
from pathlib import Path

import pytest

from minicontainer.teach import bench
from tests.conftest import minicontainer


def test_without_a_name_it_lists_what_there_is() -> None:
    said = minicontainer("bench").stdout
    assert all(name in said for name in bench.BENCHES)


@pytest.mark.parametrize(
    ("words", "code", "answer"),
    [
        (["unknown"], 1, "there is no bench 'unknown'"),
        (["start", "images"], 125, "one thing at a time"),
        (["start", "--runs", "many"], 125, "a number"),
        (["start", "--runs", "-1"], 125, "1 or more"),
        (["start", "--plot", "x.gif"], 125, "it draws .png"),
        (["start", "--plot", "/nonexistent/x.png"], 125, "no directory"),
        (["start", "--loud"], 125, "unknown flag: --loud"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(words: list[str], code: int, answer: str) -> None:
    done = minicontainer("bench", *words, check=False)
    assert done.returncode == code
    assert answer in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.userns
@pytest.mark.parametrize("name", ["start", "images", "grade"])
def test_an_ordinary_user_is_told_why_not(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = minicontainer("bench", name, "--runs", "1", "--json", os.devnull, check=False)
    assert done.returncode == 1
    assert "sudo" in done.stderr
    assert list(tmp_path.iterdir()) == []
