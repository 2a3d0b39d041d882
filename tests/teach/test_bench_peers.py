"""The benches beside real docker, podman, runc and crun: that the comparison takes place, and what it must not say.

The bar itself is `bench … --check`'s business, on a quiet machine: who else is at work costs us, who compute, more than
engines that mostly wait. Here it is an error only if half as much again would be too little, beyond doubt.
"""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minicontainer.teach.bench import images
from tests import peers

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]


def bench(
    name: str, runs: int, docker: list[str], podman: list[str], tmp_path: Path,
    ours: tuple[str, ...] = (sys.executable, "-m", "minicontainer"),
) -> tuple[str, dict[str, Any]]:  # fmt: skip
    """What a bench prints, and its raw data. The engines are reached as users tell: $DOCKER_HOST, $PODMAN."""
    wrapper = tmp_path / "podman.sh"
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(podman)} "$@"\n')
    wrapper.chmod(0o755)
    raw = tmp_path / "raw.json"
    done = subprocess.run(
        [*ours, "bench", name, "--runs", str(runs), "--json", str(raw)],
        env={**os.environ, "DOCKER_HOST": docker[docker.index("-H") + 1], "PODMAN": str(wrapper)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(raw.read_text())


@pytest.mark.needs("overlay", "nft", "busybox", "libseccomp", "runc", "crun")
def test_start_beside_all_others(docker: list[str], podman: list[str], tmp_path: Path) -> None:
    said, raw = bench("start", 6, docker, podman, tmp_path)
    took_part = {group["title"]: set(group["figures"]) for group in raw["groups"]}
    engines = {"minicontainer", "docker", "podman"}
    assert took_part["bridge"] == engines, said
    assert took_part["none"] >= engines | {"runc"}, said
    assert took_part["host"] >= engines | {"runc"}, said
    for bar in raw["bars"]:
        assert bar["ratio"]["low"] <= 1.5 * bar["at_most"], said
    left = subprocess.run([*docker, "images"], capture_output=True, text=True, check=True).stdout
    assert "minicontainer-bench" not in left
    assert "minicontainer-bench" not in subprocess.run([*podman, "images"], capture_output=True, text=True).stdout


# Of a tenth of the files, and without the Debian, which takes minutes to make and a minute in each round.
SHORTER = """
import sys
from minicontainer import cli
from minicontainer.teach.bench import images
images.SUBJECTS, images.MANY = [images.small_files], 2000
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.needs("overlay", "docker-registry", "busybox", "libseccomp")
def test_images_beside_docker_and_podman(docker: list[str], podman: list[str], tmp_path: Path) -> None:
    """In the peers' network namespace, for all must reach the bench's registry."""
    words = (*peers.own_network(), sys.executable, "-c", SHORTER)
    said, raw = bench("images", 1, docker, podman, tmp_path, words)
    *beside_others, memory = raw["groups"]
    assert [group["title"].partition(",")[0] for group in beside_others] == list(images.AT_MOST)
    for group in beside_others:
        assert set(group["figures"]) == {"minicontainer", "docker", "podman"}, said
    assert all(most < images.MEMORY for [most] in list(memory["figures"].values())[:-1]), said
    assert {bar["ours"] for bar in raw["bars"] if bar["held"]} >= set(images.AT_MOST), said
    for engine in (docker, podman):
        left = subprocess.run([*engine, "images"], capture_output=True, text=True, check=True).stdout
        assert "minicontainer-bench" not in left
