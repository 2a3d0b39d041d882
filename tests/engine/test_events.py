"""The journal of what has happened: whatever befalls who writes to it, the others' lines are kept and read."""

import json
import os
from pathlib import Path

import pytest

from minicontainer.engine import events


def note(root: Path, name: str) -> None:
    events.note(str(root), "volume", "create", name, {})


def names(root: Path) -> list[str]:
    return [event["Actor"]["ID"] for event in events.read(str(root))]


def test_part_of_a_line_spoils_no_other(tmp_path: Path) -> None:
    note(tmp_path, "one")
    with (tmp_path / events.NAME).open("ab") as file:  # as a full disk leaves it
        file.write(b'{"Type":"volume","Action":"cre')
    assert names(tmp_path) == ["one"]
    note(tmp_path, "three")
    assert names(tmp_path) == ["one", "three"]


def test_a_deed_that_cannot_be_noted_is_done(tmp_path: Path) -> None:
    (tmp_path / events.NAME).symlink_to("/dev/full")
    note(tmp_path, "one")


def test_a_journal_is_put_aside_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else finds it full at the same time, puts it aside, and notes something in the new one."""
    path, before = tmp_path / events.NAME, tmp_path / f"{events.NAME}.1"
    path.write_text(json.dumps({"Actor": {"ID": "long ago"}}) + "\n")
    write = os.write

    def interrupted(file: int, line: bytes) -> int:
        monkeypatch.undo()
        written = write(file, line)
        monkeypatch.setattr(events, "MOST", 10)
        path.rename(before)
        path.write_text(json.dumps({"Actor": {"ID": "theirs"}}) + "\n")
        return written

    monkeypatch.setattr(os, "write", interrupted)
    note(tmp_path, "ours")
    assert names(tmp_path) == ["long ago", "ours", "theirs"]
