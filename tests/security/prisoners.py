"""Containers with an attacker in them: the probe, where it runs, what it has found."""

import contextlib
import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine_fixtures import Shop

PROBE = Path(__file__).with_name("probe.py")
PYTHON = os.path.realpath(sys.executable)


def trees() -> list[str]:
    """Directories with our Python and what it is linked to."""
    found = ["/usr", "/lib"] + (["/lib64"] if os.path.exists("/lib64") else [])
    return found if PYTHON.startswith("/usr/") else [*found, os.path.realpath(sys.base_prefix)]


def python() -> list[str]:
    """Flags of `run` that bring our Python, and what it is linked to, into an image that has none."""
    return [word for tree in trees() for word in ("-v", f"{tree}:{tree}:ro")]


def disk() -> int:
    """The number of a block device of the host's that can be opened: the root's, where it may be, or the next best."""
    numbers = [os.stat("/").st_dev]
    for path in sorted(Path("/sys/class/block").glob("*/dev")):
        major, minor = path.read_text().split(":")
        numbers.append(os.makedev(int(major), int(minor)))
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            path = Path(folder) / str(number)
            os.mknod(path, stat.S_IFBLK | 0o600, number)
            with contextlib.suppress(OSError):
                os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
                return number
    pytest.fail("no disk of this machine can be opened, not even by the host's root")


def arguments(stranger: int) -> list[str]:
    """The probe's: a disk, and a process of the host's."""
    return ["-I", "-S", "-c", PROBE.read_text(), str(disk()), str(stranger)]


def attack(shop: Shop, stranger: int, *flags: str) -> dict[str, str]:
    """What an attacker finds in a container that is made with these flags."""
    found: dict[str, str] = json.loads(shop.out(*python(), *flags, "plain", PYTHON, *arguments(stranger)))
    return found


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process of the host's, root's, that is none of the container's business."""
    process = subprocess.Popen(["sleep", "1000"])
    yield process.pid
    process.kill()
    process.wait()
