"""A place to build in, for the tests of `build`.

from tests.yard import Yard, fresh_yard  # noqa: F401
"""

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer.image import blobs, store
from tests import engine_fixtures
from tests.conftest import minicontainer


class Yard:
    """A place to build in: a store of its own, with the images of engine_fixtures, and an empty context."""

    def __init__(self, place: Path) -> None:
        self.root, self.context = place / "store", place / "context"
        self.context.mkdir()
        archive = place / "images.tar"
        archive.write_bytes(engine_fixtures.archive(engine_fixtures.images()))
        minicontainer("load", "-i", str(archive))

    def build(self, text: str, *flags: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """`build -t app --network none …` of this Dockerfile, which must exit so."""
        (self.context / "Dockerfile").write_text(text)
        done = minicontainer(
            "build", "-t", "app", "--network", "none", "--progress", "json", *flags, str(self.context), check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def told(self, text: str, *flags: str) -> list[tuple[str, str]]:
        """What became of each step, by the last words of its text."""
        lines = [json.loads(line) for line in self.build(text, *flags).stdout.splitlines()]
        return [(one["kind"], one["step"].split()[-1]) for one in lines if one["kind"] in ("done", "cached")]

    def image(self, name: str = "app") -> store.Image:
        return store.Store(str(self.root)).get(name)

    def config(self, name: str = "app") -> dict[str, Any]:
        found: dict[str, Any] = self.image(name).config["config"]
        return found

    def layer(self, index: int = -1, name: str = "app") -> dict[str, bytes | None]:
        """A layer's members by name; of files, the content."""
        digest = self.image(name).manifest["layers"][index]["digest"]
        with tarfile.open(fileobj=io.BytesIO(blobs.read(str(self.root), digest))) as tar:
            return {
                member.name: file.read() if member.isfile() and (file := tar.extractfile(member)) else None
                for member in tar.getmembers()
            }

    def members(self, index: int) -> list[tarfile.TarInfo]:
        """A layer's members."""
        digest = self.image().manifest["layers"][index]["digest"]
        with tarfile.open(fileobj=io.BytesIO(blobs.read(str(self.root), digest))) as tar:
            return tar.getmembers()

    def owners(self, index: int) -> dict[str, tuple[int, int]]:
        """Their owners."""
        return {member.name: (member.uid, member.gid) for member in self.members(index)}

    def modes(self, index: int) -> dict[str, int]:
        """Their modes."""
        return {member.name: member.mode for member in self.members(index)}

    def written(self, text: str, *flags: str) -> list[str]:
        """The lines that a build's steps write."""
        lines = [json.loads(line) for line in self.build(text, *flags).stdout.splitlines()]
        return "".join(one.get("data", "") for one in lines).splitlines()

    def containers(self) -> list[str]:
        return [path.name for path in (self.root / "containers").glob("?" * 64)]


@pytest.fixture(name="yard")
def fresh_yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path / "store"))
    made = Yard(tmp_path)
    yield made
    minicontainer("system", "reset", "--force")
