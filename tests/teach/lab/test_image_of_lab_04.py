"""What lab 04's reference writes is an image: for `minicontainer load` and run, and for docker."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from minicontainer.image import reference
from minicontainer.teach import lab
from minicontainer.teach.lab import swap
from tests import leftovers
from tests.conftest import minicontainer


@pytest.fixture
def image(tmp_path: Path) -> tuple[str, str]:
    """An archive with the image by-hand:4, which has two layers; its path, and the image's id."""
    solution = swap.load(lab.get("archive").solution, "lab")
    os.makedirs(tmp_path / "base/bin")
    shutil.copy("/bin/busybox", tmp_path / "base/bin/sh")
    os.makedirs(tmp_path / "more")
    (tmp_path / "more/greeting").write_text("made by hand\n")
    for name in ("base", "more"):
        solution.pack(str(tmp_path / name), str(tmp_path / f"{name}.tar"))
    architecture, _ = reference.host_platform()
    run = {"Cmd": ["/bin/sh", "-c", "read line </greeting; echo $line"]}
    config = {"architecture": architecture, "os": "linux", "config": run}
    layers = [str(tmp_path / f"{name}.tar") for name in ("base", "more")]
    path = str(tmp_path / "image.tar")
    return path, solution.build(layers, config, "by-hand:4", path)


@pytest.mark.root
@pytest.mark.needs("overlay", "busybox", "libseccomp")
def test_it_is_loaded_and_run(image: tuple[str, str], tmp_path: Path) -> None:
    path, identifier = image
    with leftovers.store_with_busybox(tmp_path / "store"):
        assert "by-hand:4" in minicontainer("load", "-i", path).stdout
        assert json.loads(minicontainer("inspect", "by-hand:4").stdout)[0]["Id"] == identifier
        assert minicontainer("run", "--rm", "--network", "none", "by-hand:4").stdout == "made by hand\n"


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.needs("busybox")
def test_docker_takes_it(image: tuple[str, str], docker: list[str]) -> None:
    path, identifier = image

    def ask(*words: str) -> str:
        return subprocess.run([*docker, *words], capture_output=True, text=True, check=True).stdout

    assert "by-hand:4" in ask("load", "-i", path)
    try:
        assert ask("image", "inspect", "--format", "{{.Id}}", "by-hand:4").strip() == identifier
        assert ask("run", "--rm", "--network", "none", "by-hand:4") == "made by hand\n"
    finally:
        ask("rmi", "by-hand:4")
