"""`build --output`: files, tars and archives in place of an image."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from minicontainer import errors
from minicontainer.build import output
from tests.conftest import minicontainer
from tests.yard import Yard, fresh_yard  # noqa: F401

on_the_machine = [pytest.mark.root, pytest.mark.needs("overlay", "libseccomp")]
TEXT = (
    "FROM plain AS made\nRUN mkdir /out; echo hello >/out/file; ln /out/file /out/other; ln -s file /out/link; "
    "chown 1000:1001 /out/file; chmod 4750 /out/file\nFROM scratch\nCOPY --from=made /out /out\n"
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("out", output.Output("local", "out")),
        ("-", output.Output("tar", "-")),
        ("type=local,dest=a=b", output.Output("local", "a=b")),
        ('type=tar,"dest=a,b"', output.Output("tar", "a,b")),
        ("type=tar", output.Output("tar", "-")),
        ("type=oci,dest=x,name=a:1", output.Output("oci", "x", ("a:1",))),
        ("type=docker", output.Output("image")),
        ("type=docker,dest=-", output.Output("docker", "-")),
        ('type=image,"name=a,b",push=true', output.Output("image", "", ("a", "b"), True)),
        ("type=registry,name=r/a", output.Output("image", "", ("r/a",), True)),
    ],
)
def test_spellings(text: str, found: output.Output) -> None:
    assert output.parse(text) == found


@pytest.mark.parametrize(
    "text",
    ["", "dest=x", "type=nosuch", "type=local", "type=local,dest=-", "type=tar,name=x", "type=image,push=1", '"a,'],
)
def test_what_cannot_be_meant(text: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        output.parse(text)


class TestMade:
    pytestmark = on_the_machine

    def test_files(self, yard: Yard, tmp_path: Path) -> None:
        into = tmp_path / "into"
        (into / "out").mkdir(parents=True)
        (into / "out/kept").write_text("mine")
        (into / "out/file").symlink_to(tmp_path / "victim")
        yard.build(TEXT, "-o", str(into))
        assert sorted(os.listdir(into / "out")) == ["file", "kept", "link", "other"]
        status = (into / "out/file").lstat()
        assert (status.st_uid, status.st_gid, status.st_mode, status.st_nlink) == (1000, 1001, 0o104750, 2)
        assert (into / "out/other").read_text() == "hello\n" and os.readlink(into / "out/link") == "file"
        assert not (tmp_path / "victim").exists()
        assert minicontainer("images", "-aq", "app").stdout == ""  # as with docker, what is exported is no image here
        outside = tmp_path / "outside"
        outside.mkdir()
        os.rename(into / "out", tmp_path / "moved")
        (into / "out").symlink_to(outside)
        assert "cannot overwrite" in yard.build(TEXT, "-o", str(into), code=1).stderr
        assert os.listdir(outside) == []

    def test_a_tar(self, yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (yard.context / "Dockerfile").write_text(TEXT)
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        words = [sys.executable, "-m", "minicontainer", "build", "--network", "none", "--no-cache", "-o"]
        done = subprocess.run([*words, "-", str(yard.context)], capture_output=True, check=True)
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
            assert tar.getnames() == ["out", "out/file", "out/link", "out/other"]
            assert tar.getmember("out/other").linkname == "out/file" and tar.getmember("out/file").uid == 1000
            assert {member.mtime for member in tar.getmembers()} == {1700000000}
        assert b"exporting to client tarball" in done.stderr
        to = tmp_path / "out.tar"
        subprocess.run([*words, f"type=tar,dest={to}", str(yard.context)], capture_output=True, check=True)
        assert to.read_bytes() == done.stdout

    def test_archives_and_an_image_beside_them(self, yard: Yard, tmp_path: Path) -> None:
        oci, docker = tmp_path / "oci.tar", tmp_path / "docker.tar"
        words = ["-o", f"type=oci,dest={oci},name=other:1", "-o", f"type=docker,dest={docker}"]
        yard.build(TEXT, *words)
        assert minicontainer("images", "-aq", "app").stdout == ""
        with tarfile.open(oci) as tar:
            index = json.load(tar.extractfile("index.json") or io.BytesIO())
            assert "manifest.json" not in tar.getnames()
        yard.build(TEXT, *words, "-o", "type=image")
        assert yard.image().digest == index["manifests"][0]["digest"]
        assert minicontainer("load", "-q", "-i", str(oci)).stdout.split()[-1] == "other:1"
        assert minicontainer("load", "-q", "-i", str(docker)).stdout.split()[-1] == "app:latest"
        assert yard.image("other:1").digest == yard.image().digest
        assert minicontainer("system", "check").stdout == "nothing is wrong\n"

    def test_refusals(self, yard: Yard) -> None:
        for words in (["-o", "-"], ["-o", "type=nosuch"], ["-o", "type=registry"], ["-o", "type=local"]):
            done = minicontainer("build", "--progress", "json", *words, str(yard.context), check=False)
            assert done.returncode in (1, 125) and done.stdout == ""
