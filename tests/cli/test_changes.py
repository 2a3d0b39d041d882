"""`diff`, `export`, `commit` and `top`: what a container has changed, taken along, made an image of."""

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.engine.client import Client
from tests import leftovers
from tests.cli.test_life import run
from tests.conftest import minicontainer
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401

pytestmark = pytest.mark.root

SLEEP = ("sleep", "100000")

# One change of each kind, in an image that any engine has: busybox and some files.
CHANGES = """
mkdir -p /data/sub; echo 1 >/data/one; echo 2 >/data/sub/two; ln -s one /data/link; ln /data/one /data/again
rm -r /srv; mkdir /srv; echo new >/srv/new; echo x >>/etc/group; chmod 700 /home; rm /bin/wc; touch /etc
mknod /data/null c 1 3; mknod /data/fifo p; chown 5:7 /data/sub; chmod 4755 /data/one
"""


@pytest.fixture(autouse=True)
def nobody_stays(shop: Shop) -> Iterator[None]:
    """What a test has left is removed."""
    yield
    names = minicontainer("ps", "-aq").stdout.split()
    if names:
        minicontainer("rm", "-f", "-v", *names)


def change(image: str = "plain") -> None:
    """A container `web` that runs, with changes."""
    run(image, "sh", "-c", "mkdir -p /srv/old; exec sleep 100000")
    minicontainer("exec", "web", "sh", "-c", CHANGES)


DIFF = """\
C /bin
D /bin/wc
A /data
A /data/again
A /data/fifo
A /data/link
A /data/null
A /data/one
A /data/sub
A /data/sub/two
C /etc
C /etc/group
C /home
A /srv
A /srv/new
"""


@pytest.mark.parametrize("runs", [True, False], ids=["running", "stopped"])
def test_diff(shop: Shop, runs: bool) -> None:
    run("plain", *SLEEP)
    assert minicontainer("diff", "web").stdout == ""
    minicontainer("rm", "-f", "web")
    change()
    if not runs:
        minicontainer("kill", "web")
        minicontainer("wait", "web")
    assert minicontainer("diff", "web").stdout == DIFF
    assert minicontainer("container", "diff", "web").stdout == DIFF


def test_diff_of_nothing(shop: Shop) -> None:
    assert minicontainer("diff", "nosuch", check=False).returncode == 1
    minicontainer("create", "--name", "web", "plain", "true")
    assert minicontainer("diff", "web").stdout == ""


def test_a_place_that_the_user_mounts_is_a_change(shop: Shop, tmp_path: Path) -> None:
    run("-v", f"{tmp_path}:/mine", "plain", *SLEEP)
    assert minicontainer("diff", "web").stdout == "A /mine\n"


def exported(name: str = "web") -> dict[str, tarfile.TarInfo]:
    """The members of an export, by their names."""
    done = subprocess.run([*MINICONTAINER, "export", name], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as opened:
        return {member.name: member for member in opened}


MINICONTAINER = [os.sys.executable, "-m", "minicontainer"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("runs", [True, False], ids=["running", "stopped"])
def test_export(shop: Shop, tmp_path: Path, runs: bool) -> None:
    change()
    if not runs:
        minicontainer("kill", "web")
        minicontainer("wait", "web")
    found = exported()
    assert found["data/one"].islnk() != found["data/again"].islnk()
    assert found["data/sub"].uid == 5 and found["data/sub"].gid == 7 and found["data/null"].ischr()
    assert (found["data/again"].mode, found["home"].mode) == (0o4755, 0o700)
    assert {"bin/busybox", "srv/new", "etc/hosts", "proc", "dev"} <= set(found)
    assert "bin/wc" not in found and "srv/old" not in found
    assert not [name for name in found if name.startswith(("proc/", "dev/", "sys/"))]
    assert found["etc/hosts"].size == 0  # a place for a mount of ours, as with docker
    assert [line for line in leftovers.mounts() if str(shop.root) in line and not runs] == []
    minicontainer("export", "-o", str(tmp_path / "out.tar"), "web")
    assert tarfile.is_tarfile(tmp_path / "out.tar")


def test_export_refuses_a_terminal_and_leaves_no_half(shop: Shop, tmp_path: Path) -> None:
    change()
    done = subprocess.run(["script", "-qec", " ".join([*MINICONTAINER, "export", "web"]), "/dev/null"],
                          capture_output=True, text=True, stdin=subprocess.DEVNULL)  # fmt: skip
    assert done.returncode == 1 and "cowardly refusing to save to a terminal" in done.stdout
    assert minicontainer("export", "-o", str(tmp_path / "no/such"), "web", check=False).returncode == 1
    assert minicontainer("export", "-o", str(tmp_path / "x"), "nosuch", check=False).returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_a_killed_export_of_a_stopped_container_leaves_no_mount(shop: Shop) -> None:
    change()
    minicontainer("kill", "web")
    minicontainer("wait", "web")
    with subprocess.Popen([*MINICONTAINER, "export", "web"], stdout=subprocess.PIPE) as exporting:
        assert exporting.stdout is not None
        exporting.stdout.read(1000)  # it is at it, and waits for us
        done = minicontainer("start", "web", check=False, timeout=60)
        exporting.kill()
    assert done.returncode == 1 and "at work on" in done.stderr  # while it was exported, nobody could start it
    assert [line for line in leftovers.mounts() if str(shop.root) in line] == []
    minicontainer("start", "web")


def test_commit_makes_an_image_that_runs(shop: Shop) -> None:
    change("demo")
    done = minicontainer("commit", "-m", "a message", "-a", "me", "web", "made/here:1")
    identifier = done.stdout.strip()
    image = Client(str(shop.root)).images.get("made/here:1")
    assert image.id == identifier and image.config["author"] == "me"
    last = image.config["history"][-1]
    assert last["comment"] == "a message" and last["created_by"].startswith("sh -c mkdir")
    looked = (
        "ls /srv; cat /data/again; stat -c '%a %u:%g' /data/one /data/sub /home; test -e /bin/wc || echo gone; "
        "cat /etc/hostname | grep -c .; readlink /data/link"
    )
    said = shop.out("made/here:1", "sh", "-c", looked)
    assert said == "data\nnew\n1\n4755 0:0\n755 5:7\n700 0:0\ngone\n1\none\n"
    # Its own config: demo's, and the command that ran.
    config = image.config["config"]
    assert config["Cmd"][:2] == ["sh", "-c"] and "COLOUR=blue" in config["Env"] and config["WorkingDir"] == "/srv"
    minicontainer("system", "check")


def test_what_commit_is_told(shop: Shop) -> None:
    run("-e", "A=run", "-l", "who=run", "demo", *SLEEP)
    told = ['CMD ["echo", "hello"]', "ENV A=1 B='two words'", "ENV C all of it", "EXPOSE 80 53/udp", "LABEL x=y",
            "USER alice", "VOLUME /v", "WORKDIR sub", 'ENTRYPOINT ["/bin/env"]', "ONBUILD RUN true"]  # fmt: skip
    minicontainer("commit", *[word for line in told for word in ("-c", line)], "web", "told")
    config = Client(str(shop.root)).images.get("told").config["config"]
    assert config["Cmd"] == ["echo", "hello"] and config["Entrypoint"] == ["/bin/env"]
    assert config["Env"][-3:] == ["A=1", "B=two words", "C=all of it"]
    assert config["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}
    assert config["Labels"] == {"made": "by hand", "who": "run", "x": "y"}
    assert (config["User"], config["WorkingDir"], config["OnBuild"]) == ("alice", "/srv/sub", ["RUN true"])
    assert config["Volumes"] == {"/srv/data": {}, "/v": {}}
    for line, word in (
        ("RUN true", "run is not a valid"),
        ("NOSUCH x", "nosuch is not"),
        ("CMD [", "JSON"),
        ("ENV", "arg"),
    ):
        done = minicontainer("commit", "-c", line, "web", check=False)
        assert done.returncode == 1 and word in done.stderr, line
    assert minicontainer("commit", "web", "UPPER:case", check=False).returncode == 1


def test_the_same_container_gives_the_same_image(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    change()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first, second = (minicontainer("commit", "web").stdout for _ in range(2))
    assert first == second
    image = Client(str(shop.root)).images.get(first.strip())
    assert image.created.startswith("2023-11-14T22:13:20")
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert minicontainer("commit", "web").stdout != first


def test_a_running_container_is_held_still_meanwhile(shop: Shop) -> None:
    change()
    minicontainer("commit", "web")
    minicontainer("commit", "--pause=false", "web")
    identifier = os.readlink(shop.root / "containers/names/web")
    events = minicontainer("events", "--since", "1h", "--until", "0s", check=False).stdout
    assert events.count(f" pause {identifier}") == events.count(f" unpause {identifier}") == 1
    assert minicontainer("exec", "web", "echo", "it goes on").stdout == "it goes on\n"


@pytest.mark.slow
@pytest.mark.needs("skopeo", "umoci")
def test_others_read_what_was_committed(shop: Shop, tmp_path: Path) -> None:
    """The store is an OCI image layout: skopeo verifies its digests, umoci unpacks the layer with its whiteouts."""
    change()
    minicontainer("commit", "web", "committed:now")
    seen = subprocess.run(["skopeo", "inspect", "--config", f"oci:{shop.root}:committed:now"], capture_output=True)
    assert seen.returncode == 0 and json.loads(seen.stdout)["history"], seen.stderr
    done = subprocess.run(["umoci", "unpack", "--image", f"{shop.root}:committed:now", tmp_path / "bundle"],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    root = tmp_path / "bundle/rootfs"
    assert not (root / "bin/wc").exists() and (root / "srv/new").read_text() == "new\n"
    assert os.stat(root / "data/one").st_mode & 0o7777 == 0o4755 and os.stat(root / "data/sub").st_uid == 5
    assert os.path.samefile(root / "data/one", root / "data/again")
    digest = subprocess.run(["skopeo", "copy", f"oci:{shop.root}:committed:now", f"dir:{tmp_path}/dir"],
                            capture_output=True, text=True)  # fmt: skip
    assert digest.returncode == 0, digest.stderr
    for blob in (tmp_path / "dir").iterdir():
        if len(blob.name) == 64:
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


def test_top(shop: Shop) -> None:
    run("plain", *SLEEP)
    minicontainer("exec", "-d", "web", "-u", "5", check=False)
    minicontainer("exec", "-d", "-u", "1", "web", "sleep", "99999")
    head, *lines = minicontainer("top", "web").stdout.splitlines()
    lines.sort(key=lambda line: line.split(maxsplit=7)[7])  # they come by pid, and pids begin anew
    assert head.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert [line.split(maxsplit=7)[7] for line in lines] == ["sleep 100000", "sleep 99999"]
    assert [line.split()[0] for line in lines] == ["root", "daemon"]
    pid = int(lines[0].split()[1])
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x00100000\x00"
    shown = subprocess.run(["ps", "-o", "pid,ppid,stat,comm,args", "-p", str(pid)], capture_output=True, text=True)
    ours = minicontainer("top", "web", "-o", "pid,ppid,stat,comm,args").stdout
    assert [line.split() for line in shown.stdout.splitlines()] == [line.split() for line in ours.splitlines()[:2]]
    assert minicontainer("top", "web", "aux").stdout.split()[:4] == ["USER", "PID", "%CPU", "%MEM"]
    for words, says in ((("web", "-o", "nosuch"), "unknown user-defined"), (("web", "-o", "user"), "PID field"),
                        (("web", "--weird"), "understood"), (("nosuch",), "No such container")):  # fmt: skip
        done = minicontainer("top", *words, check=False)
        assert done.returncode == 1 and says in done.stderr
    minicontainer("kill", "web")
    minicontainer("wait", "web")
    assert "is not running" in minicontainer("top", "web", check=False).stderr


@pytest.mark.slow
def test_docker_says_the_same(shop: Shop, docker: list[str], tmp_path: Path) -> None:
    """diff, and the titles of top, side by side; docker lists changes in the order of a hash."""
    minicontainer("create", "--name", "base", "plain", "true")
    minicontainer("export", "-o", str(tmp_path / "plain.tar"), "base")
    subprocess.run([*docker, "import", str(tmp_path / "plain.tar"), "peer/plain"], check=True, capture_output=True)
    start = ["run", "-d", "--name", "web", "--network", "none"]
    subprocess.run([*docker, *start, "peer/plain", "sh", "-c", "mkdir -p /srv/old; exec sleep 100000"], check=True,
                   capture_output=True)  # fmt: skip
    try:
        subprocess.run([*docker, "exec", "web", "sh", "-c", CHANGES], check=True)
        change()
        for words in (["diff", "web"], ["top", "web", "-o", "pid,comm"]):
            theirs = subprocess.run([*docker, *words], capture_output=True, text=True).stdout.splitlines()
            ours = minicontainer(*words).stdout.splitlines()
            if words[0] == "diff":
                assert sorted(ours, key=lambda line: line[2:]) == sorted(theirs, key=lambda line: line[2:])
            else:
                assert ours[0] == theirs[0] and len(ours) == len(theirs)
    finally:
        subprocess.run([*docker, "rm", "-f", "web"], capture_output=True)
