"""How a build ends that is told to, or that nobody listens to, or whose disk is full: what is left is nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import engine_fixtures
from tests.conftest import minicontainer
from tests.yard import Yard, fresh_yard  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("overlay", "libseccomp")]


def begin(yard: Yard, text: str) -> subprocess.Popen[str]:
    (yard.context / "Dockerfile").write_text(text)
    words = ["build", "--network", "none", "--progress", "json", str(yard.context)]
    return subprocess.Popen(
        [sys.executable, "-m", "minicontainer", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def nothing_is_left(yard: Yard) -> None:
    assert yard.containers() == [] and os.listdir(yard.root / "build/running") == []
    assert os.listdir(yard.root / "tmp") == []
    assert str(yard.root) not in Path("/proc/self/mountinfo").read_text()
    assert minicontainer("system", "check").stdout == "nothing is wrong\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_two_steps_side_by_side(yard: Yard, number: signal.Signals) -> None:
    step = "RUN --mount=type=cache,target=/c echo now; sleep 100\n"
    with begin(
        yard, f"FROM plain AS a\n{step}FROM plain AS b\n{step}FROM plain\nCOPY --from=a / /\nCOPY --from=b / /\n"
    ) as client:
        assert client.stdout is not None
        seen = 0
        while seen < 2:
            seen += '"data": "now' in client.stdout.readline()
        client.send_signal(number)
        client.communicate(timeout=30)
        assert client.returncode == 128 + number
    nothing_is_left(yard)


def test_a_signal_while_a_big_layer_is_made(yard: Yard) -> None:
    (yard.context / "big").write_bytes(os.urandom(1 << 20) * 48)
    with begin(yard, "FROM plain\nCOPY big /one\nCOPY big /two\nCOPY big /three\n") as client:
        assert client.stdout is not None
        while "COPY big /two" not in client.stdout.readline():
            pass
        client.send_signal(signal.SIGTERM)
        client.communicate(timeout=30)
        assert client.returncode == 143
    nothing_is_left(yard)


def test_nobody_reads_what_a_build_says(yard: Yard) -> None:
    with begin(yard, "FROM plain\nRUN echo now; sleep 0.3; while true; do echo more; sleep 0.1; done\n") as client:
        assert client.stdout is not None and client.stderr is not None
        while '"data": "now' not in client.stdout.readline():
            pass
        client.stdout.close()
        assert client.wait(30) != 0
        assert "Traceback" not in client.stderr.read()
    nothing_is_left(yard)


FULL = """
mount -t tmpfs -o size=$1 none "$2"
cp -a "$3/." "$2"
export MINICONTAINER_ROOT="$2"
shift 3
"$@" 2>&1
echo "exit $?"
ls "$MINICONTAINER_ROOT/containers" "$MINICONTAINER_ROOT/tmp" "$MINICONTAINER_ROOT/build/running"
grep -c "$MINICONTAINER_ROOT/" /proc/self/mountinfo
"$1" -m minicontainer system check
"$1" -m minicontainer images
"""


@pytest.mark.parametrize(("step", "room"), [
    ("COPY big /big", 2000), ("RUN head -c 3000000 /dev/urandom >/big", 2000), ("COPY big /big", 4200),
    ("RUN head -c 3000000 /dev/zero >/big", 4500),
])  # fmt: skip
def test_on_a_full_disk_nothing_is_lost(yard: Yard, tmp_path: Path, step: str, room: int) -> None:
    """First the files do not fit, then the layer's tar beside them."""
    (yard.context / "big").write_bytes(os.urandom(3_000_000))
    (yard.context / "Dockerfile").write_text(f"FROM plain\n{step}\n")
    (tmp_path / "full").mkdir()
    used = int(subprocess.run(["du", "-sk", yard.root], capture_output=True, text=True, check=True).stdout.split()[0])
    words = [sys.executable, "-m", "minicontainer", "build", "-t", "app", "--network", "none", str(yard.context)]
    arguments = [f"{used + room}k", str(tmp_path / "full"), str(yard.root), *words]
    done = subprocess.run(["unshare", "-m", "sh", "-c", FULL, "sh", *arguments], capture_output=True, text=True)
    assert "Traceback" not in done.stdout + done.stderr, done.stdout
    assert "disk is full" in done.stdout or "No space left" in done.stdout, done.stdout
    assert "exit 1\n" in done.stdout and "nothing is wrong\n" in done.stdout, done.stdout
    assert "\n0\n" in done.stdout and "app" not in done.stdout.split("nothing is wrong")[1], done.stdout
    for name in engine_fixtures.images():
        assert name.split(":")[0] in done.stdout.split("nothing is wrong")[1]
