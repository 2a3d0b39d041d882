"""`build --build-context`: names that mean a directory, an image, or an image in a directory."""

import json
import tarfile
from pathlib import Path

import pytest

from minicontainer import errors
from minicontainer.build import contexts, dockerfile, instructions
from tests.conftest import minicontainer
from tests.yard import Yard, fresh_yard  # noqa: F401

on_the_machine = [pytest.mark.root, pytest.mark.needs("overlay", "libseccomp")]


@pytest.mark.parametrize(
    ("text", "name", "found"),
    [
        ("a=docker-image://b:1", "a", contexts.Named("image", "b:1")),
        ("docker.io/library/a:latest=docker-image://b", "a", contexts.Named("image", "b")),
        ("r.example/a:2=docker-image://b", "r.example/a:2", contexts.Named("image", "b")),
        ("a=/", "a", contexts.Named("directory", "/")),
        ("a=oci-layout:///tmp", "a", contexts.Named("layout", "/tmp")),
        ("a=oci-layout:///tmp:v1", "a", contexts.Named("layout", "/tmp", "v1")),
        (f"a=oci-layout:///tmp@sha256:{'0' * 64}", "a", contexts.Named("layout", "/tmp", f"sha256:{'0' * 64}")),
    ],
)
def test_spellings(text: str, name: str, found: contexts.Named) -> None:
    assert contexts.parse(text) == (name, found)


@pytest.mark.parametrize(
    "text",
    ["", "a", "a=", "=/", "A=/", "a=/nosuch/directory", "a=docker-image://", "a=https://x/y.git", "a=target:b"],
)
def test_what_cannot_be_meant(text: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        contexts.parse(text)


def test_a_stage_of_that_name_gives_way() -> None:
    script = instructions.read(dockerfile.parse("FROM x AS one\nRUN a\nFROM y AS two\nRUN b\nFROM one\n", "Dockerfile"))
    placed = contexts.placed(script, {"one": contexts.Named("image", "z")})
    assert [(stage.base.image, stage.base.name, len(stage.instructions)) for stage in placed.stages] == [
        ("one", "", 0), ("y", "two", 1), ("one", "", 0),
    ]  # fmt: skip


class TestBuild:
    pytestmark = on_the_machine

    def reasons(self, yard: Yard, text: str, *flags: str) -> list[str]:
        lines = [json.loads(line) for line in yard.build(text, *flags, "--why").stdout.splitlines()]
        return [sentence for line in lines for sentence in line.get("why", [])]

    def test_files_of_a_directory(self, yard: Yard, tmp_path: Path) -> None:
        """As the context's own: root's, and less what its .dockerignore leaves out; all that may have a --from."""
        other = tmp_path / "other"
        (other / "sub").mkdir(parents=True)
        (other / "sub/one").write_text("1\n")
        (other / "left").write_text("")
        (other / ".dockerignore").write_text("left\n")
        (other / "out").symlink_to(tmp_path)
        text = "FROM plain\nCOPY --from=o sub /a\nRUN --mount=from=o,target=/m ls /m; cat /m/sub/one >/b\n"
        flags = ["--build-context", f"o={other}"]
        assert sorted(yard.written(text, *flags)) == ["out", "sub"]
        assert yard.layer(1) == {"a": None, "a/one": b"1\n"} and yard.layer(2)["b"] == b"1\n"
        assert [kind for kind, _ in yard.told(text, *flags)] == ["cached", "cached"]
        (other / "left").write_text("2\n")
        assert [kind for kind, _ in yard.told(text, *flags)] == ["cached", "cached"]
        (other / "sub/one").write_text("2\n")
        first, *_ = self.reasons(yard, text, *flags)
        assert first.startswith("file sub/one was ")
        done = yard.build("FROM plain\nCOPY --from=o left /\n", *flags, code=1)
        assert "Dockerfile:2: " in done.stderr and "left" in done.stderr
        done = yard.build("FROM plain\nCOPY --from=o out/context/Dockerfile /\n", *flags, code=1)
        assert "not found" in done.stderr

    def test_a_directory_is_an_image(self, yard: Yard, tmp_path: Path) -> None:
        other = tmp_path / "other"
        other.mkdir()
        (other / "file").write_text("1\n")
        flags = ["--build-context", f"base={other}"]
        text = "FROM plain AS base\nRUN false\nFROM base\nCOPY Dockerfile /d\nLABEL a=b\n"
        yard.build(text, *flags)
        assert yard.layer(0) == {"file": b"1\n"} and list(yard.layer(1)) == ["d"]
        assert yard.image().config["history"][0]["created_by"] == "FROM base # buildkit"
        assert yard.owners(0) == {"file": (0, 0)} and yard.config()["Labels"] == {"a": "b"}
        assert [kind for kind, _ in yard.told(text, *flags)] == ["cached", "cached"]
        (other / "file").write_text("2\n")
        assert self.reasons(yard, text, *flags)[0].startswith("file file was ")
        yard.build(text, *flags, "--target", "base")
        assert yard.layer() == {"file": b"2\n"} and len(yard.image().chain_ids) == 1

    def test_an_image(self, yard: Yard) -> None:
        yard.build("FROM plain\nENV WHICH=1\nRUN echo 1 >/tmp/1\n", "-t", "one:1")
        flags = ["--build-context", "nosuch.invalid/x=docker-image://one:1"]
        text = "FROM nosuch.invalid/x:latest\nCOPY --from=nosuch.invalid/x /tmp/1 /2\nRUN cat /2; echo $WHICH\n"
        assert yard.written(text, *flags) == ["1", "1"]
        yard.build("FROM plain\nENV WHICH=2\nRUN echo 2 >/tmp/1\n", "-t", "one:1")
        assert any(sentence.startswith("base was ") for sentence in self.reasons(yard, text, *flags))
        done = yard.build("FROM x\n", "--build-context", "x=docker-image://nosuch.invalid/y", code=1)
        assert "Dockerfile:1: " in done.stderr and "nosuch.invalid/y" in done.stderr

    def test_an_image_in_a_directory(self, yard: Yard, tmp_path: Path) -> None:
        """It gets no name here, and is collected with the last image that stands on it."""
        place = tmp_path / "layout"
        yard.build("FROM scratch\nCOPY Dockerfile /here\nENV FROM_LAYOUT=1\n", "-t", "lay:v1")
        minicontainer("save", "--format", "oci", "-o", str(tmp_path / "saved.tar"), "lay:v1")
        with tarfile.open(tmp_path / "saved.tar") as tar:
            tar.extractall(place)
        minicontainer("rmi", "lay:v1", "app")
        minicontainer("builder", "prune", "-af")
        for which in ("", ":v1"):
            flags = ["--build-context", f"base=oci-layout://{place}{which}"]
            yard.build("FROM base\nCOPY --from=base /here /there\n", *flags)
            assert yard.config()["Env"][-1] == "FROM_LAYOUT=1" and len(yard.image().chain_ids) == 2
        assert "lay" not in minicontainer("images", "-a").stdout
        minicontainer("rmi", "app")
        minicontainer("builder", "prune", "-af")
        yard.build("FROM plain\nCOPY --from=base /here /there\n", *flags)
        assert minicontainer("system", "check").stdout == "nothing is wrong\n"
        done = yard.build("FROM base\n", "--build-context", f"base=oci-layout://{place}:nosuch", code=1)
        assert "Dockerfile:1: " in done.stderr and "nosuch" in done.stderr
