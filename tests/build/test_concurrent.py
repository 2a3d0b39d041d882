"""Builds beside one another and beside removals: whoever exits 0 has a whole image that runs."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import minicontainer
from tests.image.test_killed import whole
from tests.yard import Yard, fresh_yard  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("overlay", "libseccomp"), pytest.mark.timeout(300)]

TEXT = """\
FROM plain
WORKDIR /app
COPY one ./
RUN --mount=type=cache,target=/c,id=kept echo hit >>/c/count; cat one >made; rm /etc/group
RUN --mount=type=cache,target=/c,id=locked,sharing=locked cat made >again
CMD cat /app/made /app/again
"""


SECONDS = 0.1  # of rounds: one


def begin(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "minicontainer", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def build(context: Path, name: str, *flags: str) -> subprocess.Popen[str]:
    return begin("build", "-t", name, "--network", "none", "--progress", "plain", *flags, str(context))


def prepare(yard: Yard) -> None:
    (yard.context / "one").write_text("1\n")
    (yard.context / "Dockerfile").write_text(TEXT)


def runs(name: str) -> bool:
    return minicontainer("run", "--rm", "--network", "none", name).stdout == "1\n1\n"


def test_four_of_the_same_dockerfile_at_once(yard: Yard) -> None:
    prepare(yard)
    for flags, count in (((), 4), (("--no-cache",), 2)):
        started = [build(yard.context, f"app{number}", *flags) for number in range(count)]
        for number, one in enumerate(started):
            said, _ = one.communicate(timeout=120)
            assert one.returncode == 0, said
            assert runs(f"app{number}")
    whole(yard.root)
    assert yard.containers() == []
    assert minicontainer("system", "check").stdout == "nothing is wrong\n"


@pytest.mark.parametrize("remover", [
    "builder prune -af", "container prune -f", "system check --repair",
    pytest.param("rmi -f gone", marks=pytest.mark.slow), pytest.param("image prune -f", marks=pytest.mark.slow),
])  # fmt: skip
def test_beside_removals(yard: Yard, remover: str) -> None:
    """What is removed in a loop; the base stays, the built images have names that the removals leave alone."""
    prepare(yard)
    if not remover.startswith("container"):
        minicontainer("create", "--name", "holds", "plain", "true")
    ends = time.monotonic() + SECONDS
    round_ = 0
    while time.monotonic() < ends:
        round_ += 1
        minicontainer("tag", "plain", "gone")
        builds = [build(yard.context, f"app{number}", *(["--no-cache"] * (round_ % 2))) for number in range(2)]
        while any(one.poll() is None for one in builds):
            done = minicontainer(*remover.split(), check=False)
            assert done.returncode == 0 or "No such image" in done.stderr, done
        for number, one in enumerate(builds):
            said, _ = one.communicate(timeout=120)
            assert one.returncode == 0, said
            assert runs(f"app{number}")
            minicontainer("rmi", f"app{number}")
    whole(yard.root)
    assert len(yard.containers()) == (not remover.startswith("container"))
    minicontainer("system", "check", "--repair")
    assert minicontainer("system", "check").stdout == "nothing is wrong\n"
