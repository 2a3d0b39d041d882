"""Containers that live, on the second kernel: what is held still, counted, changed and copied by cgroup v2."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import minicontainer

pytestmark = pytest.mark.root

CGROUPS = Path("/sys/fs/cgroup")


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A container that runs, in a store of this file's own: its cgroup."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINICONTAINER_ROOT", str(tmp_path_factory.mktemp("store")))
        minicontainer("bootstrap", "busybox")
        minicontainer("run", "-d", "--name", "web", "--network", "none", "-m", "64m", "busybox", "sleep", "600")
        pid = json.loads(minicontainer("inspect", "web").stdout)[0]["State"]["Pid"]
        [line] = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        assert line.startswith("0::/")
        yield CGROUPS / line[4:]
        minicontainer("rm", "-f", "web")
        minicontainer("system", "reset", "--force")


def test_held_still_and_let_go(web: Path) -> None:
    minicontainer("pause", "web")
    assert (web / "cgroup.freeze").read_text() == "1\n"
    assert "frozen 1" in (web / "cgroup.events").read_text()
    assert "(Paused)" in minicontainer("ps").stdout
    minicontainer("unpause", "web")
    assert "frozen 0" in (web / "cgroup.events").read_text()


def test_other_limits_while_it_runs_and_what_it_uses(web: Path) -> None:
    minicontainer("update", "-m", "96m", "--memory-swap", "128m", "--cpus", "0.5", "--pids-limit", "30", "web")
    files = ("memory.max", "memory.swap.max", "cpu.max", "pids.max")
    assert [(web / file).read_text().strip() for file in files] == [
        str(96 << 20), str(32 << 20), "50000 100000", "30",
    ]  # fmt: skip
    shown = json.loads(minicontainer("stats", "--no-stream", "--format", "json", "web").stdout)
    assert shown["PIDs"] == (web / "pids.current").read_text().strip() == "1"
    assert shown["MemUsage"].endswith(" / 96MiB")


def test_files_in_and_out(web: Path, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("work\n")
    minicontainer("cp", str(tmp_path / "note"), "web:/note")
    assert minicontainer("exec", "web", "cat", "/note").stdout == "work\n"
    minicontainer("cp", "web:/note", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "work\n"


def test_stopped_it_leaves_no_cgroup_and_comes_back(web: Path) -> None:
    minicontainer("stop", "-t", "0", "web")
    assert not web.exists()
    minicontainer("start", "web")
    assert (web / "memory.max").read_text().strip() == str(96 << 20)  # as it was told while it ran
    assert subprocess.run(["grep", "-c", ".", web / "cgroup.procs"], capture_output=True, text=True).stdout == "1\n"
