"""SIGKILL before and after changes of names that a build makes: the cache verifies, and the next build is right.

The moments are a sample: every STRIDE-th, those of "before" half a stride off those of "after".
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import minicontainer
from tests.image.test_killed import KILLED, whole
from tests.yard import Yard, fresh_yard  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("overlay", "libseccomp"), pytest.mark.timeout(600)]

TEXT = """\
FROM plain
WORKDIR /app
COPY one two ./
RUN --mount=type=cache,target=/c,id=kept cat one >/app/made; rm /etc/group; echo hit >>/c/count
CMD cat /app/made
"""
EXPECTED = {"app": None, "app/made": b"1\n", "etc": None, "etc/.wh.group": b""}


def of_store(root: Path) -> list[str]:
    """Mounts and processes of this store: of processes, also those who see a mount of it in their own namespace."""
    found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(root) in line]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "cmdline").read_bytes() + (process / "mountinfo").read_bytes()
        except OSError:
            continue
        if process.name != str(os.getpid()) and os.fsencode(root) in text:
            found.append(process.name)
    return found


def every(yard: Yard, stride: int) -> Iterator[tuple[str, int]]:
    """Die at moments of a build, each time in a fresh copy of the store."""
    kept = yard.root.parent / "kept"
    subprocess.run(["cp", "-a", yard.root, kept], check=True)
    words = ["build", "-t", "app", "--network", "none", "--progress", "json", str(yard.context)]
    for when, first in (("before", 1), ("after", 1 + stride // 2)):
        for moment in range(first, 500, stride):
            shutil.rmtree(yard.root)
            subprocess.run(["cp", "-a", kept, yard.root], check=True)
            done = subprocess.run([sys.executable, KILLED, when, str(moment), *words], capture_output=True, text=True)
            if done.returncode == 3:
                break
            assert done.returncode == -signal.SIGKILL, done
            yield when, moment


def dies(yard: Yard, stride: int) -> int:
    (yard.context / "one").write_text("1\n")
    (yard.context / "two").write_text("2\n")
    (yard.context / "Dockerfile").write_text(TEXT)
    moments = 0
    for moments, _ in enumerate(every(yard, stride), 1):
        whole(yard.root)
        if moments % 2:  # a build has to get along without
            minicontainer("system", "check", "--repair")
            assert minicontainer("system", "check").stdout == "nothing is wrong\n"
        yard.build(TEXT)
        assert yard.layer() == EXPECTED
        assert yard.layer(-2) == {"app": None, "app/one": b"1\n", "app/two": b"2\n"}
        assert yard.containers() == [] and os.listdir(yard.root / "build/running") == []
        assert minicontainer("run", "--rm", "--network", "none", "app").stdout == "1\n"
        minicontainer("system", "check", "--repair")
        assert minicontainer("system", "check").stdout == "nothing is wrong\n"
        assert all(kind == "cached" for kind, _ in yard.told(TEXT))
        whole(yard.root)
        assert os.listdir(yard.root / "tmp") == []
        assert of_store(yard.root) == []
    return moments


@pytest.mark.brief
def test_killed_at_some_moments(yard: Yard) -> None:
    assert dies(yard, 71) >= 3


@pytest.mark.slow
def test_killed_at_many_moments(yard: Yard) -> None:
    assert dies(yard, 7) >= 30
