"""Archives, contexts and stages that try to get out of a build: absolute names, `..`, links, devices, odd names.

Whatever they hold, nothing outside the image is read or written, and what cannot be done is refused by name.
"""

import io
import json
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer import errors
from minicontainer.build import context
from minicontainer.cli import build
from tests.build.test_context import make
from tests.build.test_copying import World
from tests.conftest import minicontainer
from tests.yard import Yard, fresh_yard  # noqa: F401

pytestmark = pytest.mark.root

FILE, DIRECTORY, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
DEVICE, FIFO = tarfile.CHRTYPE, tarfile.FIFOTYPE
Members = list[tuple[str, bytes, str]]


def archive(members: Members) -> bytes:
    """A tar of (name, kind, a link's target or a file's content); a device is 1:3, null."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, text in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o755 if kind == DIRECTORY else 0o644
            member.devmajor, member.devminor = 1, 3
            if kind == FILE:
                member.size = len(text)
                member.pax_headers = {"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.trusted.x": "1"}
            else:
                member.linkname = text
            tar.addfile(member, io.BytesIO(text.encode()) if kind == FILE else None)
    return stream.getvalue()


# What it holds; then what is there afterwards, below the root that it is for; or why it is refused.
HOSTILE: dict[str, tuple[Members, list[str] | str]] = {
    "an absolute name": ([("/victim/new", FILE, "x")], ["victim", "victim/new"]),
    "two slashes": ([("//victim//new", FILE, "x")], ["victim", "victim/new"]),
    "up": ([("../victim/new", FILE, "x")], "leads out"),
    "up in the middle": ([("a/../../victim/new", FILE, "x")], "leads out"),
    "a link up, and through it": ([("l", LINK, "../../.."), ("l/victim/new", FILE, "x")],
                                  ["l", "victim", "victim/new"]),
    "an absolute link": ([("l", LINK, "{outside}"), ("l/new", FILE, "x")], "No such file"),
    "a link to the root": ([("l", LINK, "/"), ("l/victim/new", FILE, "x")], ["l", "victim", "victim/new"]),
    "a link, written over": ([("victim", LINK, "{outside}/file"), ("victim", FILE, "x")], ["victim"]),
    "a magic link": ([("l", LINK, "/proc/self/root"), ("l/victim/new", FILE, "x")], "No such file"),
    "a loop": ([("l", LINK, "m"), ("m", LINK, "l"), ("l/new", FILE, "x")], "symbolic links"),
    "a hard link up": ([("h", HARD, "../victim/file")], "leads out"),
    "a hard link to the host's": ([("h", HARD, "{outside}/file"), ("h", FILE, "x")], "No such file"),
    "a hard link through a link": ([("l", LINK, "{outside}"), ("h", HARD, "l/file")], "No such file"),
    "a hard link to a link": ([("l", LINK, "{outside}/file"), ("h", HARD, "l"), ("h", FILE, "x")], ["h", "l"]),
    "a file as a directory": ([("f", FILE, "x"), ("f/new", FILE, "x")], "Not a directory"),
    "a name that is too long": ([("n" * 300, FILE, "x")], "too long"),
    "a device": ([("null", DEVICE, "")], ["null"]),
    "a device, then written to": ([("null", DEVICE, ""), ("null", FILE, "x")], ["null"]),
    "a pipe": ([("pipe", FIFO, ""), ("pipe", FILE, "x")], ["pipe"]),
    "odd names": ([("new\nline", FILE, "x"), ("\x1b[2J", FILE, "x"), (".wh.x", FILE, "x"), (" ", FILE, "x")],
                  sorted(["new\nline", "\x1b[2J", ".wh.x", " "])),
}  # fmt: skip


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host's that stays as it is."""
    place = tmp_path / "victim"
    make(place, "file")
    before = seen(place)
    yield place
    assert seen(place) == before
    assert not [name for name in ("new", "victim", "null", "pipe", "x") if os.path.lexists(f"/{name}")]


def seen(place: Path) -> list[tuple[str, int, int, int]]:
    """All that a change would show in."""
    found = [place, *sorted(place.rglob("*"))]
    return [(str(path), (s := path.lstat()).st_mtime_ns, s.st_ctime_ns, s.st_nlink) for path in found]


def put(members: Members, outside: Path) -> bytes:
    return archive([(name, kind, text.replace("{outside}", str(outside))) for name, kind, text in members])


def below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def checked(root: Path) -> None:
    """What is there has no attributes of the machine's own, and is a file where one was written over something."""
    for path in root.rglob("*"):
        assert not [name for name in os.listxattr(path, follow_symlinks=False) if name.startswith("trusted.")]
        if (path.name == "null" and path.is_file()) or path.name == "pipe":
            assert path.read_text() == "x" and path.stat().st_nlink == 1


@pytest.mark.parametrize("case", HOSTILE)
def test_a_context_from_a_pipe(tmp_path: Path, outside: Path, case: str) -> None:
    members, expected = HOSTILE[case]
    root = tmp_path / "folder"
    root.mkdir()
    try:
        context.from_tar(io.BytesIO(put(members, outside)).read, str(root))
    except errors.BuildError as error:
        assert isinstance(expected, str) and expected in str(error)
    else:
        assert below(root) == expected
    checked(root)


@pytest.mark.parametrize("case", HOSTILE)
def test_an_archive_that_add_unpacks(tmp_path: Path, outside: Path, case: str) -> None:
    members, expected = HOSTILE[case]
    world = World(tmp_path)
    (world.context / "a.tar").write_bytes(put(members, outside))
    (world.root / "there").symlink_to(outside)
    for target in ("/deep/er", "/there/in"):
        try:
            world.copy("a.tar", target, unpack=None)
        except errors.BuildError as error:
            assert error.line == 2 and isinstance(expected, str) and expected in str(error)
        else:
            assert below(world.root / target[1:] if target == "/deep/er" else world.root / str(outside)[1:] / "in") == (
                expected
            )
    checked(world.root)


@pytest.mark.parametrize("name", ["Dockerfile", ".dockerignore", "Dockerfile.dockerignore"])
@pytest.mark.parametrize("kind", [LINK, FIFO, DEVICE, DIRECTORY])
def test_a_dockerfile_that_is_somebody_elses(tmp_path: Path, name: str, kind: bytes) -> None:
    """Of a piped context: the host's file behind a link is not read; nobody waits for a pipe."""
    folder, secret = tmp_path / "folder", tmp_path / "shadow"
    folder.mkdir()
    secret.write_text("FROM secret\n")
    members: Members = [(name, kind, str(secret))]
    if name != "Dockerfile":
        members.insert(0, ("Dockerfile", FILE, "FROM scratch\n"))
    context.from_tar(io.BytesIO(archive(members)).read, str(folder))
    try:
        with build.piped(str(folder), "Dockerfile") as (_, content, found):
            assert kind == LINK and name != "Dockerfile"  # there is none, as far as the context goes
            assert content == b"FROM scratch\n" and found.tree.ignored.rules == ()
    except errors.BuildError as error:
        assert (kind != LINK or name == "Dockerfile") and name in str(error)


def test_a_dockerfile_behind_a_link_of_the_contexts_own(tmp_path: Path) -> None:
    members: Members = [("d/real", FILE, "FROM scratch\n"), ("Dockerfile", LINK, "/d/real"), ("up", LINK, "..")]
    context.from_tar(io.BytesIO(archive(members)).read, str(tmp_path))
    for name in ("Dockerfile", "/d/real", "../up/d/../Dockerfile"):
        with build.piped(str(tmp_path), name) as (_, content, _):
            assert content == b"FROM scratch\n"


@pytest.mark.needs("overlay", "libseccomp")
def test_copy_from_a_hostile_stage(yard: Yard, outside: Path) -> None:
    """A stage with links to the host, devices and odd names: they are copied as what they are, and lead inside."""
    stage = (
        f"FROM plain AS evil\nRUN mkdir -p /e/d; ln -s {outside} /e/abs; ln -s ../../../../..{outside}/file /e/up; "
        "ln -s /proc/self/root /e/magic; mkfifo /e/pipe; mknod /e/null c 1 3; echo 1 >$(printf '/e/d/new\\nline'); "
        "echo 2 >$(printf '/e/\\033[2J'); touch /e/file; ln /e/file /e/hard\nFROM plain\n"
    )
    yard.build(f"{stage}COPY --from=evil /e /e\n")
    found = {member.name: member for member in yard.members(-1)}
    assert found["e/abs"].linkname == str(outside) and found["e/up"].issym() and found["e/magic"].issym()
    assert found["e/pipe"].isfifo() and (found["e/null"].devmajor, found["e/null"].devminor) == (1, 3)
    assert {"e/d/new\nline", "e/\x1b[2J"} <= set(found) and {found["e/file"].type, found["e/hard"].type} == {FILE, HARD}
    for source in ("/e/abs/file", "/e/up", "/e/magic/etc/hostname"):
        done = yard.build(f"{stage}COPY --from=evil {source} /x\n", code=1)
        assert "Dockerfile:4: " in done.stderr and "not found" in done.stderr
    # Into a target that the stage has made a link: it is one of the image's own.
    yard.build(f"FROM plain\nRUN ln -s {outside} /t\nCOPY Dockerfile /t/\nADD Dockerfile /t/two\n")
    names = [name for layer in (-2, -1) for name in (member.name for member in yard.members(layer))]
    assert f"{str(outside)[1:]}/Dockerfile" in names and f"{str(outside)[1:]}/two" in names
    assert minicontainer("system", "check").stdout == "nothing is wrong\n"


@pytest.mark.needs("overlay", "libseccomp")
def test_a_name_does_not_forge_lines_of_the_progress(yard: Yard) -> None:
    odd = yard.context / "a\n#9 DONE\x1b[2J"
    odd.write_text("1")
    text = "FROM scratch\nCOPY . /\n"
    yard.build(text)
    odd.write_text("2")
    done = yard.build(text, "--why", "--progress", "plain")
    assert "#2 why: file a?#9 DONE?[2J was" in done.stderr and "\x1b" not in done.stderr
    lines = [json.loads(line) for line in yard.build(text, "--no-cache").stdout.splitlines()]
    assert stat.S_ISREG(odd.stat().st_mode) and all("kind" in line for line in lines)
