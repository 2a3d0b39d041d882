"""`oci events`: what a container uses, as runc says it; the oracle is runc itself, asked of the same cgroup."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from minicontainer.kernel import cgroups
from minicontainer.kernel.cgroups import figures
from tests.conftest import CHECKOUT
from tests.runtime.test_oci import Engine, engine  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox")]

HUNGRY = "read wait; x=0123456789abcdef; while :; do x=$x$x; done"  # until the kernel kills it


def spoken(engine: Engine, *flags: str) -> dict[str, Any]:  # noqa: F811
    """One event."""
    told: dict[str, Any] = json.loads(engine("events", *flags, "c", check=True).stdout)
    return told


def test_what_it_uses_is_what_the_kernel_counts(engine: Engine) -> None:  # noqa: F811
    engine.config["linux"]["resources"] = {"pids": {"limit": 20}, "memory": {"limit": 1 << 26}}
    engine.command("sh", "-c", "sleep 1000 & wait")
    engine.create()
    engine("start", "c", check=True)
    path = engine.config["linux"]["cgroupsPath"]
    while len(cgroups.processes(path)) < 2:
        time.sleep(0.01)
    told = spoken(engine, "--stats")
    used = cgroups.stats(path)
    assert (told["type"], told["id"]) == ("stats", "c")
    data = told["data"]
    assert data["pids"] == {"current": 2, "limit": 20}
    assert data["memory"]["usage"]["limit"] == 1 << 26
    assert 0 < data["memory"]["usage"]["usage"] <= data["memory"]["usage"]["max"] <= 1 << 26
    assert 0 < data["cpu"]["usage"]["total"] <= used["cpu_usage"]
    engine("kill", "c", "KILL", check=True)
    engine.until("stopped")
    assert "is not running" in engine("events", "--stats", "c").stderr


@pytest.mark.needs("runc", "cgroup1")
def test_the_same_words_and_figures_as_runcs(engine: Engine, tmp_path: Path) -> None:  # noqa: F811
    runc = ["runc", "--root", str(tmp_path / "runc")]
    name = "minicontainer-test-events"
    # A bundle's cgroup namespace hides nothing from either: both read the host's files.
    engine.config["linux"]["resources"] = {"memory": {"limit": 1 << 26}, "cpu": {"quota": 50000, "period": 100000}}
    engine.write()
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "timeout": 60}
    subprocess.run([*runc, "run", "--detach", "--bundle", engine.bundle, name], check=True, **quiet)
    try:
        path = engine.config["linux"]["cgroupsPath"]
        for _ in range(100):  # while nothing has been counted in between
            ours = figures.figures(path)
            said = subprocess.run([*runc, "events", "--stats", name], check=True, timeout=60, stdout=subprocess.PIPE)
            theirs = json.loads(said.stdout)["data"]
            if ours == figures.figures(path):
                break
        assert ours == theirs
    finally:
        subprocess.run([*runc, "delete", "--force", name], check=True, **quiet)


def test_it_tells_again_and_again_that_memory_did_not_suffice_and_ends_with_it(engine: Engine) -> None:  # noqa: F811
    engine.config["linux"]["resources"] = {"memory": {"limit": 1 << 24, "swap": 1 << 24}}
    engine.command("sh", "-c", HUNGRY)
    with subprocess.Popen(
        engine.words("run", "--bundle", str(engine.bundle), "c"), stdin=subprocess.PIPE, cwd=CHECKOUT
    ) as running:
        engine_is_there(engine, running)
        command = engine.words("events", "--interval", "100ms", "c")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as following:
            assert following.stdout and running.stdin
            first = [json.loads(following.stdout.readline()) for _ in range(2)]
            assert [one["type"] for one in first] == ["stats", "stats"]
            running.stdin.write(b"go\n")
            running.stdin.close()
            types = [json.loads(line)["type"] for line in following.stdout]  # up to its end
            assert following.wait(60) == 0
        assert running.wait(60) == 137
    assert "oom" in types


def engine_is_there(engine: Engine, running: subprocess.Popen[bytes]) -> None:  # noqa: F811
    """Wait until its command runs."""
    while not (engine.state / "c/state.json").exists() or engine.status()["status"] != "running":
        assert running.poll() is None
        time.sleep(0.02)


@pytest.mark.parametrize("interval", ["5", "0s", "often"])
def test_an_interval_is_a_time(engine: Engine, interval: str) -> None:  # noqa: F811
    assert "--interval" in engine("events", "--interval", interval, "c").stderr


def test_version_2_in_the_words_of_version_1(tmp_path: Path) -> None:
    for name, content in {
        "cpu.stat": "usage_usec 3\nuser_usec 2\nsystem_usec 1\nnr_periods 4\nnr_throttled 1\nthrottled_usec 9\n",
        "memory.stat": "anon 1\nfile 2\n", "memory.current": "100\n", "memory.max": "200\n", "memory.peak": "150\n",
        "memory.swap.current": "10\n", "memory.swap.max": "max\n", "pids.current": "2\n", "pids.max": "max\n",
        "io.stat": "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(content)
    found = figures.of_v2(str(tmp_path))
    assert found["cpu"]["usage"] == {"total": 3000, "kernel": 1000, "user": 2000}
    assert found["cpu"]["throttling"] == {"periods": 4, "throttledPeriods": 1, "throttledTime": 9000}
    assert found["memory"]["usage"] == {"limit": 200, "usage": 100, "max": 150, "failcnt": 0}
    assert found["memory"]["swap"] == {"limit": figures.NO_LIMIT, "usage": 110, "failcnt": 0}
    assert found["memory"]["cache"] == 2 and found["pids"] == {"current": 2}
    assert found["blkio"]["ioServiceBytesRecursive"][0] == {"major": 8, "op": "Read", "value": 4096}
    assert found["blkio"]["ioServicedRecursive"][1] == {"major": 8, "op": "Write"}
    assert figures.members("0-2,7\n") == [0, 1, 2, 7]
