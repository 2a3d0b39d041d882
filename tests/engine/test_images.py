"""Images made on the spot, and docker-py's verbs."""

import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from minicontainer import errors
from minicontainer.engine import bootstrap, images

pytestmark = pytest.mark.root


@pytest.mark.needs("busybox")
def test_busybox_is_the_same_image_wherever_it_is_made(tmp_path: Path) -> None:
    first, second = (images.Images(str(tmp_path / name)) for name in ("one", "two"))
    made = first.bootstrap("busybox")
    assert made.names == ["busybox:latest"]
    assert second.bootstrap("busybox").digest == made.digest
    assert first.bootstrap("busybox").digest == made.digest and len(first.list()) == 1
    assert first.store.check() == []
    (top,) = map(Path, first.store.layer_directories(made))
    assert os.readlink(top / "bin/sh") == "busybox" and os.stat(top / "tmp").st_mode & 0o7777 == 0o1777
    assert made.config["config"] == {"Cmd": ["sh"], "Env": [bootstrap.PATH]}
    done = subprocess.run(["chroot", top, "/bin/sh", "-c", "id -un; echo $((6*7))"], capture_output=True, text=True)
    assert done.stdout == "root\n42\n"


@pytest.mark.needs("busybox")
def test_a_program_is_static_if_it_names_no_interpreter() -> None:
    assert bootstrap._is_static(shutil.which("busybox") or "")
    assert not bootstrap._is_static("/bin/sh") and not bootstrap._is_static("/etc/passwd")


def test_what_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = images.Images(str(tmp_path / "store"))
    with pytest.raises(errors.InvalidArgument, match="busybox and debian"):
        here.bootstrap("gentoo")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.Unsupported, match="apt-get install debootstrap"):
        here.bootstrap("debian")
    monkeypatch.setattr(bootstrap, "_is_static", lambda path: False)
    with pytest.raises(errors.Unsupported, match="busybox-static"):
        here.bootstrap("busybox")
    assert here.list() == [] and here.store.check() == []


@pytest.mark.parametrize(
    ("content", "mirror"),
    [
        ("deb http://m/debian bookworm main\n", "http://m/debian"),
        ("deb [arch=amd64 signed-by=/x] http://m/debian bookworm main\n", "http://m/debian"),
        ("# deb http://no/ bookworm main\ndeb-src http://no bookworm main\ndeb http://s bookworm-security main\n", ""),
        ("Types: deb\nURIs: http://m/debian\nSuites: bookworm bookworm-updates\nComponents: main\n", "http://m/debian"),
        ("Types: deb\nURIs: http://s\nSuites: bookworm-security\n\nURIs: http://m\nSuites: bookworm\n", "http://m"),
    ],
)
def test_the_host_s_mirror_is_found_in_either_style_of_file(tmp_path: Path, content: str, mirror: str) -> None:
    (tmp_path / "sources").write_text(content)
    assert bootstrap._mirror(str(tmp_path / "sources"), "bookworm") == mirror


@pytest.mark.slow
@pytest.mark.needs("debootstrap")
def test_debian_by_debootstrap(tmp_path: Path) -> None:
    here = images.Images(str(tmp_path / "store"))
    made = here.bootstrap("debian")
    (top,) = map(Path, here.store.layer_directories(here.get("debian")))
    done = subprocess.run(["chroot", top, "/bin/bash", "-c", "dpkg -l | grep -c ^ii"], capture_output=True, text=True)
    assert int(done.stdout) > 50 and made.config["config"]["Cmd"] == ["bash"]
    assert not (top / "etc/hostname").exists() and os.listdir(top / "dev") == []
    assert not list((top / "var/cache/apt").rglob("*.deb")) and here.store.check() == []


@pytest.mark.needs("busybox")
def test_load_get_list_tag_remove(tmp_path: Path) -> None:
    here = images.Images(str(tmp_path / "store"))
    made = here.bootstrap("busybox")
    assert here.tag("busybox", "mine:1").names == ["busybox:latest", "mine:1"]
    here.remove("busybox")
    assert [image.names for image in here.list()] == [["mine:1"]]
    other = images.Images(str(tmp_path / "other"))
    assert other.load(here.store.root) == ["mine:1"]  # a store is an OCI layout
    assert other.get(made.id[:20]).digest == made.digest
    with pytest.raises(errors.InvalidImage):
        other.load(io.BytesIO(b"not an archive"))
