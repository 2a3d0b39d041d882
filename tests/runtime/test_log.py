"""The log's format: docker's, whatever a container writes and however it comes."""

import json
import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from minicontainer.engine import logs
from minicontainer.runtime import log


def entries(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_an_entry_with_docker_s_three_fields(tmp_path: Path) -> None:
    writer = log.Writer(str(tmp_path / "log"))
    writer.write(1, b'one "quoted"\ntw')
    writer.write(2, b"complaint\n")
    writer.write(1, b"o\n\xff\xfe\n")
    found = entries(tmp_path / "log")
    assert [list(entry) for entry in found] == [["log", "stream", "time"]] * 4
    assert [(entry["stream"], entry["log"]) for entry in found] == [
        ("stdout", 'one "quoted"\n'), ("stderr", "complaint\n"), ("stdout", "two\n"), ("stdout", "\ufffd\ufffd\n"),
    ]  # fmt: skip
    assert len({len(entry["time"]) for entry in found}) == 1 and found[0]["time"].endswith("Z")


def test_a_long_line_is_cut_into_pieces_and_an_unfinished_one_waits(tmp_path: Path) -> None:
    writer = log.Writer(str(tmp_path / "log"))
    writer.write(1, b"x" * 40000 + b"\nrest")
    assert [len(entry["log"]) for entry in entries(tmp_path / "log")] == [16384, 16384, 40000 - 32768 + 1]
    writer.flush()
    assert entries(tmp_path / "log")[-1]["log"] == "rest"


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_nothing_is_lost_or_added(chunks: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        writer = log.Writer(f"{folder}/log")
        for chunk in chunks:
            writer.write(1, chunk)
        writer.flush()
        path = Path(folder, "log")
        written = "".join(entry["log"] for entry in entries(path)) if path.exists() else ""
        # A character that is cut by the end of a line of bytes is two that are none: compared line by line.
        lines = b"".join(chunks).split(b"\n")
        assert written == "\n".join(line.decode(errors="replace") for line in lines)


def test_it_is_rotated_and_read_as_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = log.Writer(str(path), max_size=1000, max_file=3)
    follower = logs.Follower(str(path))
    seen = []
    for number in range(100):
        writer.write(1, b"line %d\n" % number)
        seen += [entry["log"] for entry in follower.rest()]
    assert seen == [f"line {number}\n" for number in range(100)]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert all(file.stat().st_size <= 1000 for file in tmp_path.iterdir())
    kept = [entry["log"] for entry in logs.read(str(path))]
    assert 20 < len(kept) < 100 and kept == seen[-len(kept) :]
    assert [entry["log"] for entry in logs.read(str(path), tail=2)] == seen[-2:]


def test_a_writer_goes_on_in_another_interpreter(tmp_path: Path) -> None:
    writer = log.Writer(str(tmp_path / "log"))
    writer.write(1, b"half a li")
    log.Writer(**writer.state()).write(1, b"ne\n")
    assert [entry["log"] for entry in entries(tmp_path / "log")] == ["half a line\n"]


def test_what_the_disk_has_no_room_for_is_dropped() -> None:
    writer = log.Writer("/dev/full")
    writer.write(1, b"one\nhalf")
    writer.flush()
    assert writer.file == -1 and writer.held == {1: b"", 2: b""}


def test_a_log_that_cannot_be_rotated_goes_on_when_it_can(tmp_path: Path) -> None:
    folder, gone = tmp_path / "folder", tmp_path / "gone"
    folder.mkdir()
    writer = log.Writer(str(folder / "log"), max_size=100, max_file=2)
    writer.write(1, b"one\n")
    folder.rename(gone)
    writer.write(1, b"two\n")  # is to go into a new file, for which there is no place
    folder.mkdir()
    writer.write(1, b"three\n")
    assert [entry["log"] for entry in entries(gone / "log")] == ["one\n"]
    assert [entry["log"] for entry in entries(folder / "log")] == ["three\n"]


def test_part_of_a_line_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = log.Writer(str(path), max_size=200, max_file=2)
    writer.write(1, b"one\n")
    follower = logs.Follower(str(path))
    seen = [entry["log"] for entry in follower.rest()]
    with path.open("ab") as file:  # as who is killed in the middle of it leaves it
        file.write(b'{"log":"tw')
    seen += [entry["log"] for entry in follower.rest()]
    log.Writer(**writer.state()).write(1, b"three\n")
    seen += [entry["log"] for entry in follower.rest()]
    assert seen == ["one\n", "three\n"]
    with path.open("ab") as file:
        file.write(b'{"log":"four","stream":"std')
    os.rename(path, f"{path}.1")
    log.Writer(**writer.state()).write(1, b"five\n")
    assert [entry["log"] for entry in follower.rest()] == ["five\n"]
    assert [entry["log"] for entry in logs.read(str(path))] == ["one\n", "three\n", "five\n"]
