"""ADD: archives are unpacked, addresses fetched."""

import hashlib
import http.server
import io
import os
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer import errors
from minicontainer.build import adding, context, copying
from minicontainer.image import registry
from tests.build.test_context import COMPRESS, make
from tests.build.test_copying import World, owner, refuse

pytestmark = pytest.mark.root


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    os.umask(0o022)
    yield World(tmp_path)


# Archives -----------------------------------------------------------------------------------------------------------


def archive(*members: tuple[str, bytes, str, int], owner: int = 4711) -> bytes:
    """A tar of (name, kind, link or content, mode)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, kind, text, mode in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid, member.gid, member.mtime = kind, mode, owner, owner + 1, 1234567890
            if kind == tarfile.REGTYPE:
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text.encode()))
            else:
                member.linkname = text
                tar.addfile(member)
    return stream.getvalue()


FILE, DIRECTORY, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
ROOTFS = (("bin/", DIRECTORY, "", 0o750), ("bin/sh", FILE, "#!", 0o4755), ("bin/ash", HARD, "bin/sh", 0o755),
          ("lib", LINK, "bin", 0o777))  # fmt: skip


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("target", ["/", "/opt/new", "/opt/new/"])
def test_an_archive_is_unpacked(world: World, compression: str, target: str) -> None:
    """By its content, whatever its name says; into the target as a directory, also without a slash."""
    (world.context / "rootfs.txt").write_bytes(COMPRESS[compression](archive(*ROOTFS)))
    world.copy("rootfs.txt", target, unpack=None)
    root = world.root / target.strip("/")
    assert sorted(path.name for path in root.iterdir()) == ["bin", "lib"]
    status = (root / "bin/sh").stat()
    assert stat.S_IMODE(status.st_mode) == 0o4755 and status.st_mtime == 1234567890
    assert status.st_ino == (root / "bin/ash").stat().st_ino and owner(root / "bin/sh") == (4711, 4712)
    assert stat.S_IMODE((root / "bin").stat().st_mode) == 0o750


def test_what_is_no_archive_is_copied(world: World) -> None:
    (world.context / "text.tar").write_text("no tar at all\n" * 100)
    (world.context / "text.gz").write_bytes(COMPRESS["gzip"](b"one file\n" * 100))
    (world.context / "cut.tar.gz").write_bytes(COMPRESS["gzip"](archive(*ROOTFS))[:20])
    (world.context / "empty.tar").write_bytes(bytes(10240))
    (world.context / "d").mkdir()
    (world.context / "d/a.tar").write_bytes(archive(*ROOTFS))
    world.copy("text.tar text.gz cut.tar.gz empty.tar d", "/", unpack=None)
    assert sorted(path.name for path in world.root.iterdir()) == [
        "a.tar", "cut.tar.gz", "empty.tar", "text.gz", "text.tar",
    ]  # fmt: skip


def test_copy_and_add_without_unpack_leave_an_archive_as_it_is(world: World) -> None:
    (world.context / "a.tar").write_bytes(archive(*ROOTFS))
    world.copy("a.tar", "/one/", unpack=False)
    world.copy("a.tar", "/two/")
    assert (world.root / "one/a.tar").is_file() and (world.root / "two/a.tar").is_file()


def test_chown_holds_for_what_is_unpacked(world: World) -> None:
    (world.context / "a.tar").write_bytes(archive(*ROOTFS))
    world.copy("a.tar", "/t/", unpack=None, owner=(5, 6))
    assert {owner(path) for path in (world.root / "t").rglob("*")} == {(5, 6)}


def test_an_archive_replaces_what_is_there(world: World) -> None:
    make(world.root, "t/bin/old", "t/file/x", "t/was -> bin", "t/plain")
    members = [("bin/new", FILE, "new", 0o644), ("file", FILE, "file", 0o644), ("was/", DIRECTORY, "", 0o755),
               ("plain/", DIRECTORY, "", 0o755)]  # fmt: skip
    (world.context / "a.tar").write_bytes(archive(*members))
    world.copy("a.tar", "/t", unpack=None)
    assert world.files() == {
        "t/": "", "t/bin/": "", "t/bin/new": "new", "t/bin/old": "t/bin/old", "t/file": "file", "t/plain/": "",
        "t/was/": "",
    }  # fmt: skip


def test_an_archive_cannot_leave_its_target(world: World, tmp_path: Path) -> None:
    members = [("up", LINK, "../..", 0o777), ("up/escaped", FILE, "x", 0o644), ("etc/", DIRECTORY, "", 0o755),
               ("abs", LINK, "/etc", 0o777), ("abs/passwd", FILE, "x", 0o644)]  # fmt: skip
    make(world.root, "etc/passwd", "t -> ../../../..")
    (world.context / "a.tar").write_bytes(archive(*members))
    world.copy("a.tar", "/deep/er", unpack=None)
    assert (world.root / "etc/passwd").read_text() == "etc/passwd"
    assert (world.root / "deep/er/escaped").exists() and (world.root / "deep/er/etc/passwd").exists()
    world.copy("a.tar", "/t/", unpack=None)
    assert (world.root / "escaped").exists() and not list(tmp_path.glob("escaped"))
    (world.context / "b.tar").write_bytes(archive(("../x", FILE, "x", 0o644)))
    with pytest.raises(errors.BuildError, match=r"/b\.tar cannot be unpacked"):
        world.copy("b.tar", "/deep/er", unpack=None)


def test_an_archive_needs_a_directory(world: World) -> None:
    make(world.root, "file")
    (world.context / "a.tar").write_bytes(archive(*ROOTFS))
    with pytest.raises(errors.BuildError, match="cannot copy to non-directory: /file"):
        world.copy("a.tar", "/file", unpack=None)


def test_an_archive_that_breaks_off_is_refused(world: World) -> None:
    (world.context / "a.tar").write_bytes(archive(("a", FILE, "x" * 5000, 0o644))[:2000])
    with pytest.raises(errors.BuildError, match=r"/a\.tar cannot be unpacked: .*truncated"):
        world.copy("a.tar", "/", unpack=None)


# Addresses ----------------------------------------------------------------------------------------------------------


class Server(http.server.ThreadingHTTPServer):
    """Answers by path: (status, headers, body) each; the requests that came are in `seen`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.answers: dict[str, list[tuple[int, dict[str, str], bytes]]] = {}
        self.seen: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Request(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        answers = self.server.answers[self.path.partition("?")[0]]
        status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(registry, "PAUSE", 0.01)
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


@pytest.fixture
def add(world: World, tmp_path: Path) -> Callable[..., None]:
    (tmp_path / "fetched").mkdir()

    def added(sources: str, target: str, checksum: str = "", **how: Any) -> None:
        root = os.open(world.root, os.O_PATH)
        try:
            with context.Tree(str(world.context)) as tree, context.Tree(str(tmp_path / "fetched")) as fetched:
                selected = adding.select(tree, sources.split(), refuse, fetched, checksum=checksum)
                copying.copy(selected, root, target, refuse, unpack=how.pop("unpack", None), **how)
        finally:
            os.close(root)

    return added


MODIFIED = {"Last-Modified": "Fri, 13 Feb 2009 23:31:30 GMT"}


def test_a_file_is_fetched(world: World, server: Server, add: Callable[..., None]) -> None:
    server.answers = {"/d/a%20b.txt": [(200, MODIFIED, b"content")], "/old": [(200, {}, b"")]}
    add(f"{server.url}/d/a%20b.txt?x=1#part {server.url}/old", "/into/")
    add(f"{server.url}/d/a%20b.txt", "/named", owner=(3, 4), mode=copying.Mode("755"))
    assert world.files() == {"into/": "", "into/a b.txt": "content", "into/old": "", "named": "content"}
    status = (world.root / "into/a b.txt").stat()
    assert stat.S_IMODE(status.st_mode) == 0o600 and status.st_mtime == 1234567890
    assert (world.root / "into/old").stat().st_mtime == 0
    assert owner(world.root / "named") == (3, 4) and stat.S_IMODE((world.root / "named").stat().st_mode) == 0o755
    assert server.seen[0][0] == "/d/a%20b.txt?x=1"


def test_it_is_not_unpacked_unless_asked_for(world: World, server: Server, add: Callable[..., None]) -> None:
    server.answers = {"/a.tar": [(200, {}, archive(*ROOTFS))]}
    add(f"{server.url}/a.tar", "/one/")
    add(f"{server.url}/a.tar", "/two/", unpack=True)
    assert (world.root / "one/a.tar").is_file() and (world.root / "two/bin/sh").is_file()


def test_beside_files_of_the_context(world: World, server: Server, add: Callable[..., None]) -> None:
    make(world.context, "local")
    server.answers = {"/far": [(200, {}, b"far")]}
    add(f"local {server.url}/far", "/")
    assert world.files() == {"far": "far", "local": "local"}


def test_checksum(world: World, server: Server, add: Callable[..., None]) -> None:
    server.answers = {"/a": [(200, {}, b"content")]}
    make(world.context, "local")
    right = "sha256:" + hashlib.sha256(b"content").hexdigest()
    add(f"{server.url}/a", "/", checksum=right)
    with pytest.raises(errors.BuildError, match=f"digest mismatch {right}: sha256:0+"):
        add(f"{server.url}/a", "/b", checksum="sha256:" + 64 * "0")
    with pytest.raises(errors.BuildError, match="--checksum is for http and https"):
        add("local", "/", checksum=right)
    assert world.files() == {"a": "content"}


def test_redirects_and_who_we_are(world: World, server: Server, add: Callable[..., None]) -> None:
    """A password in an address is for that host alone."""
    elsewhere = server.url.replace("127.0.0.1", "localhost")
    server.answers = {
        "/a": [(302, {"Location": "/b"}, b"")], "/b": [(307, {"Location": f"{elsewhere}/c"}, b"")],
        "/c": [(200, {}, b"found")],
    }  # fmt: skip
    add(f"{server.url.replace('//', '//me:secret@')}/a", "/")
    assert world.files() == {"a": "found"}
    assert [bool(who) for _, who in server.seen] == [True, True, False]


def test_what_may_go_better_is_tried_again(world: World, server: Server, add: Callable[..., None]) -> None:
    broken = (200, {"Content-Length": "100"}, b"half of it")
    server.answers = {"/a": [(503, {}, b""), broken, (200, {}, b"whole")]}
    add(f"{server.url}/a", "/")
    assert world.files() == {"a": "whole"}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("URL/missing", "cannot fetch .*/missing': 404"),
        ("URL/loop", "redirects more than"),
        ("URL/away", "no address of the web"),
        ("http://127.0.0.1:1/x", "connection refused"),
        ("http://[/x", "is no address"),
        ("URL/", "does not end in a file's name"),
        ("URL/%2E%2E", "does not end in a file's name"),
        ("https://example.org/x.git", "repositories are not fetched"),
        ("https://example.org/x.git#main", "repositories are not fetched"),
        ("git@example.org:me/x", "repositories are not fetched"),
        ("git://example.org/x", "repositories are not fetched"),
    ],
)
def test_what_cannot_be_fetched(
    world: World, server: Server, add: Callable[..., None], source: str, reason: str
) -> None:
    server.answers = {
        "/missing": [(404, {}, b"")], "/loop": [(302, {"Location": "/loop"}, b"")], "/": [(200, {}, b"")],
        "/away": [(302, {"Location": "file:///etc/passwd"}, b"")], "/%2E%2E": [(200, {}, b"")],
    }  # fmt: skip
    with pytest.raises(errors.BuildError, match=reason) as caught:
        add(source.replace("URL", server.url), "/into/")
    assert caught.value.line == 2 and not [name for name, text in world.files().items() if text]


@pytest.mark.parametrize("text", ["", "yesterday", "Fri, 13 Feb 999999 23:31:30 GMT", "Mon, 01 Jan 1900 00:00:00 GMT"])
def test_a_date_that_is_none(text: str) -> None:
    assert registry.moment(text) == 0
