"""`stats` and `update`: figures and limits are the kernel's."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from minicontainer.cli import table
from minicontainer.engine import usage
from minicontainer.kernel import cgroups
from minicontainer.kernel.cgroups import v1, v2
from tests.conftest import minicontainer
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401
from tests.kernel_files import Limits

SPINS = "while :; do :; done"


@pytest.fixture
def cleared(shop: Shop) -> Iterator[Shop]:
    """The shop; all containers go at the end."""
    yield shop
    left = out("ps", "-aq").split()
    if left:
        minicontainer("rm", "-f", "-v", *left)


def out(*arguments: str) -> str:
    return minicontainer(*arguments).stdout


def inspect(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out("inspect", name))[0]
    return found


def stats(*names: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in out("stats", "--no-stream", "--format", "json", *names).splitlines()]


def size(text: str) -> float:
    """`1.5MiB` in bytes."""
    number, unit = re.fullmatch(r"([\d.e+]+)([A-Za-z]+)", text).groups()  # type: ignore[union-attr]
    units = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
    return float(number) * units[unit]


# Pure


def test_what_lies_between_two_samples() -> None:
    counters = {"cpu_usage": 10**9, "memory": 100, "inactive_file": 30, "memory_limit": 1000, "pids": 3, "read": 5}
    before = usage.Sample(10**10, counters, 7, 8)
    after = usage.Sample(12 * 10**9, {**counters, "cpu_usage": 15 * 10**8}, 17, 28)
    used = usage.usage(before, after)
    assert used.cpu == pytest.approx(25 * (os.cpu_count() or 1))
    assert used[1:] == (70, 1000, 17, 28, 5, 0, 3)
    assert usage.usage(None, after).cpu == 0
    assert usage.usage(before, None) == (0, 0, 0, 0, 0, 0, 0, 0)


def test_what_the_kernels_files_say() -> None:
    device = "  eth0: 1234 9 0 0 0 0 0 0 567 8 0 0 0 0 0 0\n"
    text = f"Inter-|  \n face |\n    lo: 99 1 0 0 0 0 0 0 99 1 0 0 0 0 0 0\n{device}{device.replace('eth0', 'eth1')}"
    assert usage.traffic(text) == (2468, 1134)
    assert v1.blocks("8:0 Read 4096\n8:0 Write 512\n8:0 Sync 1\n8:16 Read 1\n8:0 Total 4608\nTotal 4608\n") == {
        "read": 4097, "written": 512}  # fmt: skip
    assert v2.blocks("8:0 rbytes=4096 wbytes=512 rios=1\n254:0 rbytes=1 wbytes=0\n") == {"read": 4097, "written": 512}
    assert usage.machine_time("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1\n") == 36 * 10**9 // os.sysconf("SC_CLK_TCK")


# stats


root = [pytest.mark.root, pytest.mark.vm, pytest.mark.needs("overlay", "bridge", "veth", "nftables", "libseccomp")]


class TestWithContainers:
    pytestmark = root

    def test_figures_are_the_kernels(self, cleared: Shop) -> None:
        out("run", "-d", "--name", "busy", "-m", "64m", "demo", "sh", "-c",
            f"head -c 20m /dev/zero >/dev/shm/x; ({SPINS}) & sleep 1000 & wait")  # fmt: skip
        out("run", "-d", "--name", "idle", "--network", "none", "plain", "sleep", "1000")
        out("create", "--name", "new", "--network", "none", "plain", "true")
        path = json.loads((cleared.root / "containers" / inspect("busy")["Id"] / "record.json").read_text())["cgroup"]
        pids = cgroups.processes(path)
        while len(pids) < 3 or cgroups.stats(path)["memory"] < 20 << 20:
            pids = cgroups.processes(path)
        gateway = inspect("busy")["NetworkSettings"]["Gateway"]
        pid = inspect("busy")["State"]["Pid"]
        subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", "ping", "-c", "3", "-i", "0.2", "-s", "1000", gateway],
                       capture_output=True)  # fmt: skip
        busy, idle = stats("busy", "idle")
        assert (busy["Container"], busy["Name"]) == ("busy", "busy")
        assert inspect("busy")["Id"].startswith(busy["ID"])
        assert float(busy["CPUPerc"].rstrip("%")) > 1
        assert float(idle["CPUPerc"].rstrip("%")) < 1
        used, _, limit = busy["MemUsage"].partition(" / ")
        assert 20 << 20 <= size(used) <= 64 << 20
        assert limit == "64MiB"
        assert float(busy["MemPerc"].rstrip("%")) == pytest.approx(100 * size(used) / (64 << 20), abs=0.1)
        assert (busy["PIDs"], idle["PIDs"]) == ("3", "1")
        received, sent = (size(text) for text in busy["NetIO"].split(" / "))
        assert min(received, sent) >= 3 * 1000
        assert idle["NetIO"] == "0B / 0B"
        assert [row["Name"] for row in stats()] == ["idle", "busy"]
        assert "new" not in out("stats", "--no-stream")
        assert re.search(r"^\w+ +new +0\.00% +0B / 0B +0\.00% +0B / 0B +0B / 0B +0$", out("stats", "-a"), re.MULTILINE)
        assert minicontainer("stats", "--no-stream", "nosuch", check=False).returncode == 1

    def test_block_devices_are_counted(self, cleared: Shop) -> None:
        """On v1 the kernel counts only where a limit of throughput is in force (since Linux 6.10)."""
        out("run", "-d", "--name", "disk", "--network", "none", "-v", "data:/data", "plain", "sh", "-c",
            "dd if=/dev/zero of=/data/x bs=65536 count=16 oflag=direct && echo written; sleep 1000")  # fmt: skip
        with subprocess.Popen([sys.executable, "-m", "minicontainer", "logs", "-f", "disk"], stdout=subprocess.PIPE,
                              text=True) as logs:  # fmt: skip
            assert logs.stdout is not None
            assert any("written" in line for line in logs.stdout)
            logs.kill()
        path = json.loads((cleared.root / "containers" / inspect("disk")["Id"] / "record.json").read_text())["cgroup"]
        found = cgroups.stats(path)
        assert stats("disk")[0]["BlockIO"] == f"{table.size(found['read'])} / {table.size(found['written'])}"
        if cgroups.version() == 2 and Limits.on_a_device(cleared.root):
            assert found["written"] >= 16 * 65536

    def test_a_terminal_gets_a_table_that_refreshes(self, cleared: Shop) -> None:
        out("run", "-d", "--name", "busy", "--network", "none", "demo", "sh", "-c", SPINS)
        child, master = pty.fork()
        if child == 0:
            os.execv(sys.executable, [sys.executable, "-m", "minicontainer", "stats"])
        seen, until = b"", time.monotonic() + 60
        try:
            while seen.count(b"busy") < 3 and time.monotonic() < until:
                if select.select([master], [], [], 1)[0]:
                    seen += os.read(master, 4096)
        finally:
            os.kill(child, signal.SIGINT)
            status = os.waitpid(child, 0)[1]
            os.close(master)
        frames = seen.split(b"\033[H")
        assert len(frames) >= 4
        assert all(b"CPU %" in frame and b"\033[K" in frame for frame in frames[2:4])
        assert os.waitstatus_to_exitcode(status) == 130

    # update

    def test_limits_change_while_it_runs(self, cleared: Shop) -> None:
        run = ["-m", "64m", "--pids-limit", "30"]
        out("run", "-d", "--name", "web", "--network", "none", *run, "plain", "sleep", "1000")
        limits = Limits(inspect("web")["State"]["Pid"])
        assert limits.read("memory") == str(64 << 20)
        assert (
            out("update", "--cpus", "0.5", "--pids-limit", "20", "-m", "32m", "--cpu-shares", "512", "web") == "web\n"
        )
        assert limits.read("memory") == str(32 << 20)
        assert limits.read("pids") == "20"
        assert limits.read("quota") == "50000"
        assert limits.read("shares") in ("512", "59")  # v1's number, and v2's weight for it
        found = inspect("web")["HostConfig"]
        assert (found["NanoCpus"], found["PidsLimit"], found["Memory"]) == (500_000_000, 20, 32 << 20)
        # More memory than both together may be now, in one go with the latter.
        out("update", "-m", "300m", "--memory-swap", "400m", "web")
        assert limits.read("memory") == str(300 << 20)
        out("update", "--pids-limit", "-1", "--cpuset-cpus", "0", "web")
        assert limits.read("pids") == "max"
        assert limits.status("Cpus_allowed_list") == "0"
        # It is so again after a restart, and exec is inside of it, too.
        out("restart", "-t", "0", "web")
        again = Limits(inspect("web")["State"]["Pid"])
        assert (again.read("memory"), again.status("Cpus_allowed_list")) == (str(300 << 20), "0")
        inside = minicontainer("exec", "web", "grep", "Cpus_allowed_list", "/proc/self/status")
        assert inside.stdout.split()[1] == "0"

    def test_what_does_not_run_is_told_for_later(self, cleared: Shop) -> None:
        out("create", "--name", "later", "--network", "none", "plain", "sleep", "1000")
        out("update", "--pids-limit", "9", "--restart", "on-failure:2", "later")
        assert inspect("later")["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
        out("start", "later")
        assert Limits(inspect("later")["State"]["Pid"]).read("pids") == "9"

    def test_a_restart_policy_holds_from_now_on(self, cleared: Shop) -> None:
        out("run", "-d", "--name", "web", "--network", "none", "--restart", "always", "plain", "sh", "-c",
            "trap exit TERM; echo ready; while :; do sleep 0.05; done")  # fmt: skip
        out("update", "--restart", "no", "web")
        os.kill(inspect("web")["State"]["Pid"], signal.SIGKILL)
        out("wait", "web")
        assert inspect("web")["State"]["Status"] == "exited"
        assert inspect("web")["RestartCount"] == 0

    def test_what_is_refused_changes_nothing(self, cleared: Shop) -> None:
        out("run", "-d", "--name", "web", "--network", "none", "-m", "64m", "--cpus", "0.5", "plain", "sleep", "1000")
        out("run", "-d", "--rm", "--name", "brief", "--network", "none", "plain", "sleep", "1000")
        before = inspect("web")["HostConfig"]
        limits = Limits(inspect("web")["State"]["Pid"])
        for code, words, why in [
            (1, ["web"], "you must provide one or more flags"),
            (1, ["-m", "256m", "web"], "update --memory-swap, too"),
            (1, ["-m", "1m", "web"], "minimum memory limit"),
            (1, ["--cpus", "4096", "web"], "range of CPUs"),
            (1, ["--cpu-quota", "20000", "web"], "--cpus has already been set"),
            (1, ["--cpuset-cpus", "4000", "web"], "this machine has"),
            (1, ["--restart", "foo", "web"], "invalid restart policy"),
            (1, ["--restart", "always", "brief"], "--rm is set"),
            (1, ["--cpu-shares", "1", "web"], "minimum of --cpu-shares"),
            (125, ["--nope", "web"], "unknown flag"),
            (125, ["--cpus", "0.2"], "needs a container"),
            (1, ["--cpus", "0.2", "nosuch"], "No such container"),
        ]:
            done = minicontainer("update", *words, check=False)
            assert done.returncode == code, words
            assert why in done.stderr, done.stderr
        assert inspect("web")["HostConfig"] == before
        assert limits.read("memory") == str(64 << 20)
        assert inspect("web")["RestartCount"] == 0
