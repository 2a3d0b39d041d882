"""RUN --mount: each kind as a step sees it, and that nothing of it stays."""

import hashlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import minicontainer
from tests.yard import Yard, fresh_yard  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("overlay", "libseccomp")]


def test_files_of_the_context(yard: Yard) -> None:
    (yard.context / "data").mkdir()
    (yard.context / "data/one").write_text("1\n")
    (yard.context / "secret").write_text("!")
    (yard.context / ".dockerignore").write_text("secret\n")
    text = (
        "FROM plain\nRUN --mount=target=/c --mount=source=data/one,target=/f,rw "
        "cat /f /c/data/one; ls /c; echo 2 >/f; touch /c/x 2>/dev/null || cat /f\n"
    )
    assert yard.written(text) == ["1", "1", "Dockerfile", "data", "2"]
    assert yard.layer() == {}
    assert (yard.context / "data/one").read_text() == "1\n"
    assert [kind for kind, _ in yard.told(text)] == ["cached"]
    (yard.context / "data/one").write_text("3\n")
    assert yard.written(text)[:2] == ["3", "3"]


def test_files_of_a_stage_and_of_an_image(yard: Yard) -> None:
    text = (
        "FROM plain AS one\nRUN echo 1 >/tmp/one\nFROM plain\n"
        "RUN --mount=from=one,source=/tmp,target=/m cat /m/one\n"
        "RUN --mount=from=demo,source=srv/data,target=m cat /m/one; stat -c %u /m/one; stat -c %a /m/one\n"
    )
    assert yard.written(text) == ["1", "1", "1000", "4755"]


def test_a_cache_outlives_the_build_and_is_in_no_layer(yard: Yard) -> None:
    mount = "--mount=type=cache,target=/c,id=it,mode=0700,uid=3"
    step = f"FROM plain\nRUN {mount} stat -c %u:%a /c; cat /c/it 2>/dev/null; echo {{}} >/c/it\n"
    assert yard.written(step.format(1)) == ["3:700"]
    assert yard.written(step.format(2)) == ["3:700", "1"]
    assert yard.layer() == {}
    assert yard.written(
        "FROM plain\nRUN --mount=type=cache,target=/it,id=it,ro cat /it/it; touch /it/x 2>/dev/null || echo read-only\n"
    ) == ["2", "read-only"]
    assert yard.written("FROM plain\nRUN --mount=type=cache,target=/other ls /other\n") == []


def test_a_cache_that_begins_with_files(yard: Yard) -> None:
    text = "FROM plain\nRUN --mount=type=cache,target=/c,from=demo,source=/srv/data cat /c/one; rm /c/one\n"
    assert yard.written(text) == ["1"]
    assert yard.written(text.replace("cat /c/one; rm /c/one", "ls /c")) == ["link", "sub"]


def test_who_has_a_cache_for_himself(yard: Yard) -> None:
    """A first build holds it; the second waits for its end (locked), or gets another one, and the first waits for it
    (private)."""
    held = "FROM plain\nRUN --mount=type=cache,target=/go --mount=type=cache,target=/c,id={0},sharing={0} {1}\n"
    for sharing, meanwhile, expected in (
        ("locked", "sleep 2", ["first", "last"]),
        ("private", "until test -e /go/private; do sleep 0.1; done", []),
    ):
        step = f"echo first >/c/who; echo there; {meanwhile}; echo last >>/c/who"
        (yard.context / "first").write_text(held.format(sharing, step))
        words = [
            "build",
            "--network",
            "none",
            "--progress",
            "json",
            "-f",
            str(yard.context / "first"),
            str(yard.context),
        ]
        client = subprocess.Popen([sys.executable, "-m", "minicontainer", *words], stdout=subprocess.PIPE, text=True)
        assert client.stdout is not None
        while '"data": "there' not in client.stdout.readline():
            pass
        assert yard.written(held.format(sharing, f"cat /c/who 2>/dev/null; touch /go/{sharing}")) == expected
        client.communicate(timeout=30)
        assert client.returncode == 0


def test_memory(yard: Yard) -> None:
    text = "FROM plain\nRUN --mount=type=tmpfs,target=/t,size=1m grep ' /t ' /proc/self/mounts; echo 1 >/t/x\n"
    (line,) = yard.written(text)
    assert line.startswith("tmpfs /t tmpfs rw") and "size=1024k" in line
    assert yard.layer() == {}


def test_a_secret_is_nowhere_afterwards(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("geheim-17\n")
    monkeypatch.setenv("TOKEN", "geheim-18")
    text = (
        "FROM plain\nRUN --mount=type=secret,id=s --mount=type=secret,id=t,env=TOKEN --mount=type=secret,id=no "
        "--mount=type=secret,id=s,target=/x,mode=0444,uid=5 "
        "md5sum </run/secrets/s; stat -c %a /run/secrets/s /x; stat -f -c %T /x; echo $TOKEN | md5sum; "
        "ls /run/secrets\n"
    )
    lines = yard.written(text, "--secret", f"id=s,src={tmp_path}/secret", "--secret", "id=t,env=TOKEN")
    assert lines == [
        f"{hashlib.md5(b'geheim-17' + bytes([10])).hexdigest()}  -",
        "400",
        "444",
        "tmpfs",
        f"{hashlib.md5(b'geheim-18' + bytes([10])).hexdigest()}  -",
        "s",
    ]
    assert yard.layer() == {}
    found = subprocess.run(["grep", "-rl", "geheim-1", yard.root, "/run/minicontainer"], capture_output=True, text=True)
    assert found.stdout == ""
    # Another value is no reason to do it again: it is not among what the cache knows.
    (tmp_path / "secret").write_text("other")
    assert [kind for kind, _ in yard.told(text, "--secret", f"id=s,src={tmp_path}/secret")] == ["cached"]
    done = yard.build("FROM plain\nRUN --mount=type=secret,id=no,required true\n", code=1)
    assert "there is no secret 'no'" in done.stderr


def test_an_agent(yard: Yard, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent"))
        listener.listen()
        lines = yard.written(
            "FROM plain\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK; echo $? $SSH_AUTH_SOCK\n",
            "--ssh", f"default={tmp_path}/agent",
        )  # fmt: skip
    assert lines == ["0 /run/buildkit/ssh_agent.0"]
    assert yard.layer() == {}
    done = minicontainer("build", "--ssh", "default=/nosuch", str(yard.context), check=False)
    assert done.returncode and "no socket" in done.stderr


def test_what_mounts_stood_on_below_a_link_is_in_no_layer(yard: Yard, tmp_path: Path) -> None:
    """Where the image's links lead: what was made there goes; what the step has made beside it, and in it, stays."""
    (tmp_path / "s").write_text("x")
    links = "FROM plain\nRUN mkdir /real /other; ln -s real /abs; ln -s ../abs /other/up; ln -s /none /dangling\n"
    mounts = "--mount=target=/abs/new/deep --mount=type=tmpfs,target=/other/up/t --mount=type=secret,id=s,target=/abs/s"
    text = f"{links}RUN {mounts} ls /real/new/deep /real/t /real/s; ls /real\n"
    lines = yard.written(text, "--secret", f"id=s,src={tmp_path}/s")
    assert lines[-3:] == ["new", "s", "t"] and "Dockerfile" in lines
    assert yard.layer() == {}
    yard.build(text.replace("ls /real\n", "echo 1 >/real/new/beside; mkdir /real/mine\n"), "--secret",
               f"id=s,src={tmp_path}/s")  # fmt: skip
    assert yard.layer() == {"real": None, "real/mine": None, "real/new": None, "real/new/beside": b"1\n"}
    yard.build("FROM plain\nRUN mkdir /e; mv /etc/group /etc/passwd /e; rm -rf /etc; ln -s e /etc\nRUN true\n")
    assert yard.layer() == {}
    minicontainer("run", "--name", "linked", "--network", "none", "app", "true")
    assert minicontainer("diff", "linked").stdout == ""


def test_no_link_leads_a_mount_elsewhere(yard: Yard) -> None:
    """CVE-2024-23651 and -23652: what a cache or a stage holds may be a link to anywhere; it is one of its own."""
    yard.build("FROM plain\nRUN --mount=type=cache,target=/c,id=evil ln -s /etc /c/etc; ln -s ../../../../etc /c/up\n")
    text = "FROM plain AS evil\nRUN ln -s / /tmp/root; ln -s /proc/self/fd /tmp/fd\nFROM plain\n"
    step = "RUN --mount=from=evil,source=/tmp/root/etc,target=/m ls /m\n"
    assert yard.written(text + step) == ["group", "passwd"]  # the stage's own
    done = yard.build(text + "RUN --mount=from=evil,source=/tmp/fd/0,target=/m ls /m\n", code=1)
    assert "not found" in done.stderr
    outside = Path(yard.context.parent, "outside")
    outside.write_text("host\n")
    for target in ("/tmp/link", "/tmp/link/x"):
        text = f"FROM plain\nRUN ln -s {outside} /tmp/link\nRUN --mount=type=tmpfs,target={target} true\n"
        assert "Dockerfile:3: " in yard.build(text, code=1).stderr  # there is no such file in the image
    assert outside.read_text() == "host\n"
