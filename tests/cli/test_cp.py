"""`cp`, both ways, of containers that run and that do not; and containers that would lead it elsewhere."""

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.engine.client import Client
from minicontainer.engine.container import Container
from tests import leftovers
from tests.cli.test_life import run, until
from tests.conftest import minicontainer
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401

pytestmark = pytest.mark.root

SLEEP = ("sleep", "100000")
FILL = """
mkdir -p /data/sub; echo 1 >/data/one; echo 2 >/data/sub/two; ln -s one /data/link; ln -s /data/sub /data/to-sub
ln /data/one /data/again; chown 5:7 /data/one /data/sub; chmod 4751 /data/one; chmod 700 /data/sub
"""


@pytest.fixture(autouse=True)
def nobody_stays(shop: Shop) -> Iterator[None]:
    """What a test has left is removed, and nothing of it is mounted."""
    yield
    names = minicontainer("ps", "-aq").stdout.split()
    if names:
        minicontainer("rm", "-f", "-v", *names)
    assert [line for line in leftovers.mounts() if str(shop.root) in line] == []


@pytest.fixture(params=[True, False], ids=["running", "stopped"])
def web(shop: Shop, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container `web` with files, and a working directory with some."""
    fill(minicontainer_run=True)
    if not request.param:
        minicontainer("kill", "web")
        minicontainer("wait", "web")
    here(tmp_path, monkeypatch)


def fill(minicontainer_run: bool) -> None:
    run("plain", *SLEEP)
    minicontainer("exec", "web", "sh", "-c", FILL)


def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("d").mkdir()
    Path("d/f").write_text("in d\n")
    Path("file").write_text("file\n")
    Path("link").symlink_to("file")


# What is typed, and what must hold then: the exit code, and a part of what is said.
TYPED = [
    (("file", "web:/tmp/"), 0, ""),
    (("file", "web:/tmp/name"), 0, ""),
    (("file", "web:/tmp/nodir/"), 1, "no such directory"),
    (("file", "web:/nodir/x"), 1, "Could not find the file /nodir in container web"),
    (("file/", "web:/tmp"), 1, "not a directory"),
    (("d", "web:/tmp"), 0, ""),
    (("d", "web:/tmp/dd"), 0, ""),
    (("d/.", "web:/tmp/ddd"), 0, ""),
    (("d/.", "web:/tmp"), 0, ""),
    (("d", "web:/data/one"), 1, "cannot copy directory"),
    (("d/.", "web:/data/one"), 1, "cannot copy directory"),
    (("link", "web:/tmp"), 0, ""),
    (("-L", "link", "web:/tmp/followed"), 0, ""),
    (("file", "web:/data/to-sub"), 0, ""),
    (("nosuch", "web:/tmp"), 1, "no such file or directory"),
    (("web:/nosuch", "."), 1, "Could not find the file /nosuch in container web"),
    (("web:/data", "out"), 0, ""),
    (("web:/data", "out"), 0, ""),
    (("web:/data/.", "out2"), 0, ""),
    (("web:/data/one", "o1"), 0, ""),
    (("web:/data/one", "nodir/"), 1, "no such directory"),
    (("web:/data/one", "nodir/x"), 1, "does not exist"),
    (("web:/data", "file"), 1, "cannot copy directory"),
    (("web:/data/link", "l1"), 0, ""),
    (("-L", "web:/data/link", "l2"), 0, ""),
    (("web:/data/to-sub/", "l3"), 0, ""),
    (("web:/proc/version", "v"), 1, "Could not find the file /proc/version in container web"),
    (("a", "b"), 1, "must specify at least one container source"),
    (("web:/a", "web:/b"), 1, "copying between containers is not supported"),
    (("nosuch:/a", "b"), 1, "No such container: nosuch"),
]


def listing() -> list[tuple[str, int, int, int, bytes]]:
    """All that lies in the working directory."""
    found = []
    for path in sorted(Path().rglob("*")):
        status = path.lstat()
        content = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found.append((str(path), status.st_mode, status.st_uid, status.st_gid, content))
    return found


LISTED = (
    "cd /tmp && find . | sort | while read f; do stat -c '%n %a %u:%g %F' $f; cat $f 2>/dev/null; done; ls /data/sub"
)


def test_what_is_typed(web: None) -> None:
    for words, code, says in TYPED:
        done = minicontainer("cp", *words, check=False)
        assert done.returncode == code and says in done.stderr and done.stdout == "", (words, done.stderr)
        assert len(done.stderr.splitlines()) == (1 if code else 0), done.stderr
    assert sorted(os.listdir("out")) == ["again", "data", "link", "one", "sub", "to-sub"]
    assert sorted(os.listdir("out2")) == ["again", "link", "one", "sub", "to-sub"]
    assert os.readlink("l1") == "one" and not os.path.islink("l2") and sorted(os.listdir("l3")) == ["file", "two"]
    status = os.stat("o1")
    assert (status.st_mode & 0o7777, status.st_uid) == (0o4751, 0)
    assert os.path.samefile("out/one", "out/again")
    minicontainer("start", "web")
    said = minicontainer("exec", "web", "sh", "-c", LISTED).stdout
    for line in (
        "./dd/f 644 0:0 regular file\nin d\n",
        "./name 644 0:0 regular file\nfile\n",
        "./ddd/f 644 ",
        "./f 644 ",
        "./d/f 644 ",
        "./link 777 0:0 symbolic link\n",
        "./followed 644 0:0 regular file\nfile\n",
        "\nfile\ntwo\n",
    ):
        assert line in said, line


def test_archive_keeps_owners(web: None) -> None:
    os.chown("file", 1234, 2345)
    minicontainer("cp", "-a", "file", "web:/tmp/a")
    minicontainer("cp", "file", "web:/tmp/b")
    minicontainer("cp", "-a", "web:/data/one", "one")
    minicontainer("cp", "-a", "web:/tmp/a", "a")
    minicontainer("cp", "-a", "web:/tmp/b", "b")
    owners = [(os.stat(name).st_uid, os.stat(name).st_gid) for name in ("one", "a", "b")]
    assert owners == [(5, 7), (1234, 2345), (0, 0)]


def test_tar_in_and_out(web: None) -> None:
    done = subprocess.run([*MINICONTAINER, "cp", "web:/data/sub", "-"], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as opened:
        assert opened.getnames() == ["sub", "sub/two"]
    packed = subprocess.run(["tar", "-cz", "d", "file"], capture_output=True, check=True).stdout
    for target, code in (("web:/tmp", 0), ("web:/tmp/nosuch", 1), ("web:/data/one", 1)):
        sent = subprocess.run([*MINICONTAINER, "cp", "-", target], input=packed, capture_output=True)
        assert sent.returncode == code, sent.stderr
        assert code == 0 or f'destination "{target}" must be a directory'.encode() in sent.stderr
    minicontainer("cp", "web:/tmp", "back")
    assert Path("back/d/f").read_text() == "in d\n"


MINICONTAINER = [sys.executable, "-m", "minicontainer"]


def test_the_library(web: None, shop: Shop) -> None:
    container = Client(str(shop.root)).containers.get("web")
    assert isinstance(container, Container)
    stream, status = container.get_archive("/data/one")
    assert (status["name"], status["size"], status["mode"] & 0o7777) == ("one", 2, 0o4751)
    content = b"".join(stream)
    assert container.put_archive("/tmp", content)
    stream, _ = container.get_archive("/tmp/one")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as opened:
        assert opened.extractfile("one").read() == b"1\n"  # type: ignore[union-attr]


def test_volumes_are_there_in_both(web: None, shop: Shop, tmp_path: Path) -> None:
    minicontainer("create", "--name", "second", "-v", "data:/vol", "-v", f"{tmp_path}:/host:ro", "plain", "true")
    minicontainer("cp", "file", "second:/vol/x")
    assert (shop.root / "volumes/data/_data/x").read_text() == "file\n"
    minicontainer("cp", "second:/host/d/f", "copied")
    assert Path("copied").read_text() == "in d\n"
    done = minicontainer("cp", "file", "second:/host/y", check=False)
    assert done.returncode == 1 and "Read-only" in done.stderr and not Path("y").exists()


def test_a_directory_is_not_replaced_by_a_file(web: None) -> None:
    minicontainer("cp", "web:/data", "copy")
    Path("other").mkdir()
    Path("other/sub").write_text("no directory")
    done = minicontainer("cp", "other/.", "web:/data", check=False)
    assert done.returncode == 1 and "cannot overwrite directory" in done.stderr
    Path("other/sub").unlink()
    Path("other/one").mkdir()
    done = minicontainer("cp", "other/.", "web:/data", check=False)
    assert done.returncode == 1 and "cannot overwrite non-directory" in done.stderr


# ------------------------------------------------------------------------------------------------------------- attacks


def test_links_lead_nowhere_but_inside(web: None, tmp_path: Path) -> None:
    """A link in the container to a path of the host's means the container's own."""
    Path("secret").write_text("of the host")
    minicontainer("start", "web")
    minicontainer("exec", "web", "sh", "-c", f"ln -s {tmp_path} /data/out; ln -s /proc/1/root{tmp_path} /data/magic; "
                  f"ln -s ../../../../../..{tmp_path} /data/up")  # fmt: skip
    for name in ("out", "magic", "up"):
        assert minicontainer("cp", f"web:/data/{name}/secret", "got", check=False).returncode == 1
        assert minicontainer("cp", "d/f", f"web:/data/{name}/secret", check=False).returncode == 1
    assert not Path("got").exists() and Path("secret").read_text() == "of the host"


def test_cve_2018_15664_a_racing_container(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory is all the time exchanged with a link to a directory of the host's, while we copy out and in."""
    here(tmp_path, monkeypatch)
    Path("hosts").mkdir()
    Path("hosts/w00t").write_text("FAILED: of the host")
    run("plain", "sh", "-c", f"mkdir -p /stash /x; echo inside >/stash/w00t; ln -s {tmp_path}/hosts /x/link; "
        "mv /stash /x/real; touch /ready; cd /x; while :; do mv real totally_safe; mv totally_safe real; "
        "mv link totally_safe; mv totally_safe link; done")  # fmt: skip
    until(lambda: minicontainer("exec", "web", "ls", "/ready", check=False).returncode == 0)
    outcomes = set()
    for number in range(40):
        done = minicontainer("cp", "web:/x/totally_safe/w00t", f"got{number}", check=False)
        outcomes.add(done.returncode)
        if done.returncode == 0:
            assert Path(f"got{number}").read_text() == "inside\n"
        done = minicontainer("cp", "d/f", "web:/x/totally_safe/w00t2", check=False)
        assert os.listdir("hosts") == ["w00t"]
        minicontainer("cp", "web:/x", f"all{number}", check=False)
        for path in Path(f"all{number}").rglob("w00t"):  # a link is copied as one; what lies below it is not ours
            assert path.parent.is_symlink() or path.read_text() == "inside\n"
    assert Path("hosts/w00t").read_text() == "FAILED: of the host"
    assert 1 in outcomes


def test_a_hostile_archive(web: None, tmp_path: Path) -> None:
    for name, link in (("../../evil", ""), ("a/../../../evil", ""), ("x", str(tmp_path))):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as made:
            entry = tarfile.TarInfo(name)
            if link:
                entry.type, entry.linkname = tarfile.SYMTYPE, link
                made.addfile(entry)
                entry = tarfile.TarInfo("x/evil")
            entry.size = 4
            made.addfile(entry, io.BytesIO(b"evil"))
        subprocess.run([*MINICONTAINER, "cp", "-", "web:/tmp"], input=buffer.getvalue(), capture_output=True)
    assert not list(tmp_path.rglob("evil")) and not Path("/evil").exists()


def test_a_killed_cp_of_a_stopped_container_leaves_nothing(shop: Shop) -> None:
    fill(minicontainer_run=True)
    minicontainer("kill", "web")
    minicontainer("wait", "web")
    with subprocess.Popen([*MINICONTAINER, "cp", "web:/", "-"], stdout=subprocess.PIPE) as copying:
        assert copying.stdout is not None
        copying.stdout.read(1000)
        copying.kill()
    assert [line for line in leftovers.mounts() if str(shop.root) in line] == []
    minicontainer("start", "web")


# ------------------------------------------------------------------------------------------------------- beside docker


@pytest.mark.slow
def test_docker_does_the_same(shop: Shop, docker: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is typed above, side by side: exit codes, and what lies here and there afterwards."""
    minicontainer("create", "--name", "base", "plain", "true")
    minicontainer("export", "-o", str(tmp_path / "plain.tar"), "base")
    minicontainer("rm", "base")
    subprocess.run([*docker, "import", str(tmp_path / "plain.tar"), "peer/copied"], check=True, capture_output=True)
    subprocess.run([*docker, "run", "-d", "--name", "web", "--network", "none", "peer/copied", *SLEEP], check=True,
                   capture_output=True)  # fmt: skip
    try:
        subprocess.run([*docker, "exec", "web", "sh", "-c", FILL], check=True)
        fill(minicontainer_run=True)
        results = []
        for command in (docker, MINICONTAINER):
            folder = tmp_path / Path(command[0]).name
            folder.mkdir()
            here(folder, monkeypatch)
            codes = [subprocess.run([*command, "cp", *words], capture_output=True).returncode for words, _, _ in TYPED]
            inside = subprocess.run(
                [*command, "exec", "web", "sh", "-c", LISTED], capture_output=True, text=True
            ).stdout
            results.append((codes, listing(), inside))
        assert results[0] == results[1]
    finally:
        subprocess.run([*docker, "rm", "-f", "web"], capture_output=True)
