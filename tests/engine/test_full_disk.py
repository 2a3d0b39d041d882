"""A disk without any room left: containers go on, end as others do, and can be removed; looking works afterwards."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.engine import events
from tests import leftovers
from tests.conftest import minicontainer

pytestmark = [pytest.mark.root, pytest.mark.needs("overlay", "busybox", "libseccomp")]

SPEAKS = ["busybox", "yes", "x" * 1000]


class Disk:
    """A store on a disk of its own, of 24 MiB."""

    def __init__(self, place: Path) -> None:
        self.store = place / "store"
        self.filler = place / "filler"

    def fill(self) -> None:
        """Leave no room, not even in the last page of the journal: with empty lines, which mean nothing."""
        with (self.store / events.NAME).open("ab", buffering=0) as journal:
            journal.write(b"\n" * (-journal.tell() % 4096))
        with contextlib.suppress(OSError), self.filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def left(self) -> list[str]:
        """What containers have left on the machine; the journal of one that is to stay is none of it."""
        found = leftovers.none_within(self.store, leftovers.suffix(self.store))
        return [trace for trace in found if not trace.startswith(f"{self.store}/containers")]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """It, with busybox."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "disk", place], check=True)
    try:
        made = Disk(place)
        with leftovers.store_with_busybox(made.store):
            try:
                yield made
            finally:
                made.filler.unlink(missing_ok=True)
                for identifier in minicontainer("ps", "-aq").stdout.split():
                    minicontainer("rm", "-f", identifier)
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("options", [[], ["--log-opt", "max-size=1m"], ["--rm"]])
def test_a_container_goes_on_without_its_log_and_leaves_nothing(disk: Disk, options: list[str]) -> None:
    words = ["run", "--name", "web", "-p", "127.0.0.1::80", *options, *SPEAKS]
    with subprocess.Popen([sys.executable, "-m", "minicontainer", *words], stdout=subprocess.PIPE) as client:
        assert client.stdout
        assert client.stdout.read(1001) == b"x" * 1000 + b"\n"
        identifier = os.readlink(disk.store / "containers/names/web")
        disk.fill()
        for _ in range(8):
            assert len(client.stdout.read(1 << 20)) == 1 << 20  # more than would have been room for
        pid = json.loads(minicontainer("inspect", "web").stdout)[0]["State"]["Pid"]
        assert b"yes" in Path(f"/proc/{pid}/cmdline").read_bytes()
        client.stdout.close()
        minicontainer("kill", "web")
        assert client.wait(30) == 137
    assert disk.left() == []
    if "--rm" in options:
        assert not (disk.store / f"containers/{identifier}").exists()
        return
    assert minicontainer("ps", "-a", "--format", "{{.Status}}").stdout.startswith("Exited (137)")
    disk.filler.unlink()
    assert (disk.store / f"containers/{identifier}/{identifier}-json.log").stat().st_size > 1000
    assert minicontainer("logs", "web").stdout.startswith("x" * 1000 + "\n")


def test_what_has_no_room_for_its_state_does_not_start_and_leaves_nothing(disk: Disk) -> None:
    minicontainer("create", "--name", "web", "-p", "127.0.0.1::80", *SPEAKS)
    disk.fill()
    assert "the disk is full" in minicontainer("start", "web", check=False).stderr
    assert disk.left() == []
    minicontainer("rm", "web")
    assert os.listdir(disk.store / "containers/names") == []
    assert len(os.listdir(disk.store / "containers")) == 1
