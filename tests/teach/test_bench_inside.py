"""The benches of what runs inside: that each measures what it says, shows it, and leaves nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from minicontainer.teach import bench
from minicontainer.teach.bench import density, disk, inside
from tests.conftest import minicontainer


def measured(name: str, runs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The raw data of a bench without peers; nothing may be left in its folder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    monkeypatch.setenv("PODMAN", "/nonexistent")
    picture = tmp_path / "plot.png"
    minicontainer("bench", name, "--runs", str(runs), "--json", str(tmp_path / "raw.json"), "--plot", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert list(folder.iterdir()) == []
    raw: dict[str, Any] = json.loads((tmp_path / "raw.json").read_text())
    assert raw["machine"]["processor"]
    return raw


@pytest.mark.root
@pytest.mark.needs("overlay", "nft", "busybox", "libseccomp")
@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("cpu", {"native", "minicontainer", "minicontainer --cpus 1"}),
        ("memory", {"native", "minicontainer", "minicontainer --memory 512m"}),
        ("syscalls", {"native", "minicontainer", "minicontainer, unconfined"}),
        ("disk", {"native", "upper", "upper, kept", "bind", "volume", "tmpfs"}),
        ("network", {"native", "bridge", "published", "gateway", "host"}),
    ],
)
def test_native_and_inside_are_measured_in_the_same_rounds(
    name: str, wanted: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = measured(name, 2, tmp_path, monkeypatch)
    assert set(raw["groups"][0]["figures"]) >= wanted
    for group in raw["groups"]:
        assert all(len(values) == 2 and min(values) > 0 for values in group["figures"].values())
        assert group["unit"] and group["better"] in ("less", "more")
    assert {said["what"] for said in raw["skipped"]} == {"docker", "podman"}


@pytest.mark.root
@pytest.mark.needs("overlay", "nft", "busybox", "libseccomp")
def test_density_weighs_every_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = measured("density", 4, tmp_path, monkeypatch)
    memory, start = raw["groups"]
    for whole, *parts in zip(*memory["figures"].values(), strict=True):
        assert whole == sum(parts)
        assert min(parts) > 50_000
    assert [len(values) for values in start["figures"].values()] == [2, 2]


@pytest.mark.root
@pytest.mark.needs("overlay", "nft", "busybox", "libseccomp")
@pytest.mark.parametrize(("name", "seen"), [("cpu", "rounds to warm up"), ("network", "rounds to warm up")])
def test_an_interrupted_bench_leaves_nothing(name: str, seen: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "minicontainer", "bench", name, "--runs", "500", "--json", str(tmp_path / "raw.json")],
        env={**os.environ, "TMPDIR": str(folder), "DOCKER_HOST": "unix:///nonexistent", "PODMAN": "/nonexistent"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if seen in line or "round to warm up" in line:
            break
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert list(folder.iterdir()) == []
    mounts = Path("/proc/self/mounts").read_text()
    assert str(folder) not in mounts


def test_too_many_containers_are_refused() -> None:
    done = minicontainer("bench", "density", "--runs", str(density.AT_MOST + 1), check=False)
    assert done.returncode == 1
    assert "at most" in done.stderr


def test_the_interpreter_is_what_is_bound() -> None:
    assert os.path.exists(inside.PYTHON)
    assert all(word == "-v" or word.endswith(":ro") for word in inside.binds())
    said = subprocess.run(inside.python("tell(sum=1 + 1)"), capture_output=True, text=True, check=True).stdout
    assert json.loads(said) == {"sum": 2}


def test_a_file_system_is_named() -> None:
    assert disk.filesystem("/proc/self") == "proc"


def test_what_a_workshop_is_called_is_a_name_for_an_image() -> None:
    workshop = bench.Workshop(lambda text: None)
    workshop.folder = "/var/tmp/minicontainer-bench-a_bc__9_"
    assert workshop.tag == "minicontainer-bench-a0bc0090"
    assert workshop.tag.replace("-", "").isalnum()
