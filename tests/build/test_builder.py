"""`build`: what its steps make, what its cache spares, and what is left of a build that failed."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from minicontainer.image import blobs, store
from tests.conftest import minicontainer
from tests.yard import Yard, fresh_yard  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("overlay", "libseccomp")]


def test_a_step_is_a_layer_of_what_it_changed(yard: Yard) -> None:
    yard.build("FROM plain\nRUN echo hello >/tmp/new; rm /etc/group; id -u >/root/who\n")
    assert yard.layer() == {
        "etc": None, "etc/.wh.group": b"", "root": None, "root/who": b"0\n", "tmp": None, "tmp/new": b"hello\n",
    }  # fmt: skip
    assert len(yard.image().chain_ids) == 2
    assert yard.containers() == []
    assert minicontainer("run", "--rm", "--network", "none", "app", "cat", "/tmp/new").stdout == "hello\n"
    assert minicontainer("system", "check").stdout == "nothing is wrong\n"


def test_what_a_step_sees(yard: Yard) -> None:
    done = yard.build(
        'FROM demo\nARG FROM_ARG=1\nARG COLOUR=red\nENV FROM_ENV="a b"\nUSER alice\nWORKDIR sub\n'
        "RUN pwd; id -un; echo $FROM_ARG $FROM_ENV $COLOUR; ls /sys/class/net\n"
    )
    written = "".join(json.loads(line).get("data", "") for line in done.stdout.splitlines())
    assert written == "/srv/sub\nalice\n1 a b red\nlo\n"  # an ARG goes over an earlier ENV, as where docker builds


def test_forms_of_a_command(yard: Yard) -> None:
    done = yard.build(
        'FROM plain\nRUN ["echo", "$HOME"]\nRUN echo $HOME\nSHELL ["sh", "-xc"]\nRUN true it is\n'
        "RUN <<EOF\necho alone\nEOF\nRUN cat <<A && cat <<B\nfirst\nA\nsecond\nB\n"
    )
    told = [one for line in done.stdout.splitlines() if "data" in (one := json.loads(line))]
    written = {
        stream: "".join(one["data"] for one in told if one["stream"] == stream).splitlines() for stream in (1, 2)
    }
    assert written[1] == ["$HOME", "/root", "alone", "first", "second"]
    assert "+ true it is" in written[2]


def test_arguments_programs_and_directories(yard: Yard) -> None:
    """A stage knows the arguments of the stage it stands on; a heredoc with `#!` is a program; a WORKDIR is USER's."""
    lines = yard.written(
        "FROM plain AS one\nARG A=1\nARG B\nFROM one\nENV C c  'd'\nRUN echo $A; hostname; "
        "env | grep -c ^HOSTNAME; echo $C\n"
        'RUN <<E\n#!/bin/sh -u\necho "$0 $*"\nE\nUSER alice\nWORKDIR /home/a/b\nRUN stat -c %u /home /home/a .\n'
        'VOLUME ["/v w"]\n'
    )
    assert lines == ["1", "buildkitsandbox", "0", "c d", "/dev/pipes/E ", "0", "1000", "1000"]
    words = [entry["created_by"] for entry in yard.image().config["history"]]
    assert words[3] == "RUN |2 A=1 B= /bin/sh -c echo $A; hostname; env | grep -c ^HOSTNAME; echo $C # buildkit"
    assert words[4] == "RUN |2 A=1 B= /bin/sh -c /dev/pipes/E # buildkit"
    assert yard.config()["Volumes"] == {"/v w": {}}


def test_a_volume_of_the_image_keeps_what_a_step_writes(yard: Yard) -> None:
    yard.build("FROM demo\nRUN echo 3 >/srv/data/three\n")
    assert yard.layer()["srv/data/three"] == b"3\n"
    assert os.listdir(yard.root / "volumes") == [] if (yard.root / "volumes").exists() else True


def test_what_has_been_done_is_not_done_again(yard: Yard) -> None:
    text = "FROM plain\nWORKDIR /app\nRUN echo {} >first\nRUN echo two >second\nLABEL a={}\n"
    assert yard.told(text.format(1, 1)) == [("done", "/app"), ("done", ">first"), ("done", ">second")]
    before = yard.image()
    assert yard.told(text.format(1, 1)) == [("cached", "/app"), ("cached", ">first"), ("cached", ">second")]
    assert yard.image().digest == before.digest
    assert yard.told(text.format(1, 2)) == [("cached", "/app"), ("cached", ">first"), ("cached", ">second")]
    assert yard.config()["Labels"] == {"a": "2"}
    assert yard.told(text.format(2, 2)) == [("cached", "/app"), ("done", ">first"), ("done", ">second")]
    assert yard.told(text.format(1, 1), "--no-cache") == [("done", "/app"), ("done", ">first"), ("done", ">second")]


def test_the_reason_why_a_step_is_done(yard: Yard) -> None:
    text = "FROM plain\nARG X=1\nENV Y={}\nRUN echo $X\n"
    yard.build(text.format(1))
    done = yard.build(text.format(1), "--build-arg", "X=2", "--why")
    reasons = [json.loads(line)["why"] for line in done.stdout.splitlines() if '"why"' in line]
    assert reasons == [['argument X was "1", is "2"']]
    done = yard.build(text.format(2), "--build-arg", "X=2", "--why")
    reasons = [json.loads(line)["why"] for line in done.stdout.splitlines() if '"why"' in line]
    assert reasons == [['environment Y was "1", is "2"']]


def test_arguments_that_nobody_takes(yard: Yard) -> None:
    """Those of stages that are not built are taken, and of lines that an image has kept; proxies need no ARG."""
    yard.build("FROM scratch\nONBUILD ARG KEPT\n", "-t", "base")
    text = "ARG ABOVE\nFROM scratch AS unneeded\nARG BELOW\nFROM base\nARG HERE\nCMD $UNUSED\n"
    names = ["Z", "ABOVE", "BELOW", "HERE", "KEPT", "https_proxy", "NO_PROXY"]
    words = [word for name in names for word in ("--build-arg", f"{name}=1")]
    done = yard.build(text, *words)
    assert [told for line in done.stdout.splitlines() if (told := json.loads(line))["kind"] == "warning"] == [
        {"kind": "warning", "warning": "One or more build-args [Z] were not consumed"}
    ]
    done = yard.build(text, *words, "--build-arg", "A=", "--progress", "plain")
    assert "\n[Warning] One or more build-args [A Z] were not consumed\n" in done.stderr
    assert "Warning" not in yard.build(text, *words[2:], "--progress", "plain").stderr
    assert yard.build(text, *words, "-q").stderr == ""


def test_the_cache_keeps_its_layers_and_nothing_else_does(yard: Yard) -> None:
    text = "FROM plain\nRUN echo kept >/tmp/kept\n"
    yard.build(text)
    minicontainer("rmi", "app")
    assert minicontainer("system", "check").stdout == "nothing is wrong\n"
    assert yard.told(text) == [("cached", ">/tmp/kept")]
    minicontainer("rmi", "app")
    for record in (yard.root / "build/cache").glob("*.json"):
        record.unlink()
    assert "belongs to no image" in minicontainer("system", "check", check=False).stdout


def test_a_cached_layer_that_is_gone_is_made_again(yard: Yard) -> None:
    text = "FROM plain\nRUN echo kept >/tmp/kept\n"
    yard.build(text)
    digest = yard.image().manifest["layers"][-1]["digest"]
    os.unlink(blobs.path(str(yard.root), digest))
    assert "has lost its layer" in minicontainer("system", "check", "--repair").stdout
    assert yard.told(text) == [("done", ">/tmp/kept")]
    assert yard.layer() == {"tmp": None, "tmp/kept": b"kept\n"}


def test_stages(yard: Yard) -> None:
    text = (
        "ARG BASE=plain\nFROM $BASE AS one\nRUN echo 1 >/tmp/1\nFROM nosuch AS unneeded\nRUN false\n"
        "FROM one\nRUN cat /tmp/1 >/tmp/2\nCMD ls\n"
    )
    yard.build(text)
    assert yard.layer() == {"tmp": None, "tmp/2": b"1\n"}
    assert len(yard.image().chain_ids) == 3
    yard.build(text, "--target", "one")
    assert "Cmd" not in yard.config() and len(yard.image().chain_ids) == 2


def test_a_step_that_fails(yard: Yard) -> None:
    done = yard.build("FROM plain\nRUN true\nRUN echo before; exit 3\n", code=1)
    assert 'Dockerfile:3: process "/bin/sh -c echo before; exit 3" did not complete successfully: exit code: 3' in (
        done.stderr
    )
    assert yard.containers() == []
    assert minicontainer("images", "-q", "app").stdout == ""
    assert minicontainer("system", "check").stdout == "nothing is wrong\n"
    done = yard.build('FROM plain\nRUN ["/nosuch"]\n', code=1)
    assert "/nosuch" in done.stderr and yard.containers() == []
    done = yard.build("FROM nosuch.invalid/image:1\nRUN true\n", code=1)
    assert "Dockerfile:1: FROM nosuch.invalid/image:1" in done.stderr


def test_a_build_that_was_killed_leaves_nothing_for_the_next_one(yard: Yard) -> None:
    (yard.context / "Dockerfile").write_text("FROM plain\nRUN echo done >/tmp/first\nRUN echo now; sleep 100\n")
    words = ["build", "--network", "none", "--progress", "json", str(yard.context)]
    client = subprocess.Popen([sys.executable, "-m", "minicontainer", *words], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    while '"data": "now' not in client.stdout.readline():
        pass
    client.send_signal(signal.SIGKILL)
    client.wait()
    assert len(yard.containers()) == 1
    assert yard.told("FROM plain\nRUN echo done >/tmp/first\n") == [("cached", ">/tmp/first")]
    assert yard.containers() == []
    minicontainer("system", "check", "--repair")  # a process that is killed leaves its folder in tmp
    assert minicontainer("system", "check").stdout == "nothing is wrong\n"


def test_an_interrupt_ends_the_step_too(yard: Yard) -> None:
    (yard.context / "Dockerfile").write_text("FROM plain\nRUN echo now; sleep 100\n")
    words = ["build", "--network", "none", "--progress", "json", str(yard.context)]
    client = subprocess.Popen([sys.executable, "-m", "minicontainer", *words], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    while '"data": "now' not in client.stdout.readline():
        pass
    client.send_signal(signal.SIGINT)
    assert client.wait(30) == 130
    assert yard.containers() == []


def test_the_same_inputs_give_the_same_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    digests = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path / name / "store"))
        yard = Yard(tmp_path / name)
        yard.build("FROM plain\nWORKDIR /app\nRUN echo 1 >a; mkdir b; date >/dev/null; rm /etc/group\nCMD ls\n")
        digests.add(yard.image().digest)
        assert yard.image().created == "2023-11-14T22:13:20.000000000Z"
        time.sleep(1.1)  # so that a time of today in a layer would be another one
        minicontainer("system", "reset", "--force")
    assert len(digests) == 1


def test_the_date_may_be_a_build_argument_and_the_first_of_all(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    text = "FROM plain\nRUN echo 1 >/tmp/a\n"
    yard.build(text)
    done = yard.build(text, "--build-arg", "SOURCE_DATE_EPOCH=0", "--why")
    assert "not consumed" not in done.stdout
    assert ['SOURCE_DATE_EPOCH was "1700000000", is "0"'] in [
        json.loads(line).get("why") for line in done.stdout.splitlines()
    ]
    image = yard.image()
    assert image.created == image.config["history"][-1]["created"] == "1970-01-01T00:00:00.000000000Z"
    with tarfile.open(blobs.path(str(yard.root), image.manifest["layers"][-1]["digest"])) as layer:
        assert [entry.mtime for entry in layer if entry.name == "tmp/a"] == [0]
    done = yard.build(text, "--build-arg", "SOURCE_DATE_EPOCH=today", code=1)
    assert "SOURCE_DATE_EPOCH='today' is no number of seconds" in done.stderr


def test_what_waits_on_an_image_for_its_builds(yard: Yard) -> None:
    yard.build("FROM plain\nONBUILD RUN echo mine >/tmp/onbuild\n", "-t", "base")
    assert yard.config("base")["OnBuild"] == ["RUN echo mine >/tmp/onbuild"]
    yard.build("FROM base\nRUN cat /tmp/onbuild >/tmp/copy\n")
    assert yard.layer() == {"tmp": None, "tmp/copy": b"mine\n"}
    assert "OnBuild" not in yard.config()


def test_names_labels_and_ids(yard: Yard, tmp_path: Path) -> None:
    done = minicontainer(
        "build", "-q", "-t", "one", "-t", "two:2", "--label", "a=1", "--iidfile", str(tmp_path / "id"), "-f", "-",
        str(yard.context), stdin="FROM plain\nLABEL b=2\n",
    )  # fmt: skip
    image = yard.image("two:2")
    assert done.stdout == f"{image.id}\n" and (tmp_path / "id").read_text() == image.id
    assert image.names == ["one:latest", "two:2"]
    assert yard.config("one")["Labels"] == {"a": "1", "b": "2"}


def test_a_dockerfile_from_standard_input_has_the_rules_of_its_context(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not those of the directory one stands in."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".dockerignore").write_text("*\n")
    (yard.context / ".dockerignore").write_text("b\n")
    for name in "ab":
        (yard.context / name).write_text(name)
    monkeypatch.chdir(tmp_path / "elsewhere")
    minicontainer("build", "-q", "-t", "app", "-f", "-", str(yard.context), stdin="FROM plain\nCOPY . /c/\n")
    assert yard.layer() == {"c": None, "c/a": b"a", "c/.dockerignore": b"b\n"}


def test_history_is_what_docker_would_say(yard: Yard) -> None:
    yard.build(
        "FROM plain\nARG V=1\nENV A=b\nWORKDIR /w\nRUN true\nEXPOSE 80 90/udp\nVOLUME /data\nUSER alice\n"
        'CMD ["a","b"]\n'
        "ENTRYPOINT exec x\nSTOPSIGNAL INT\nLABEL k=v\nHEALTHCHECK --interval=90s CMD true\nMAINTAINER me\n"
    )
    history = yard.image().config["history"]
    dates = [entry["created"] for entry in history]  # what was said before the first layer is dated as that is
    assert dates == 3 * [dates[2]] + 10 * [dates[3]] and dates[2] < dates[3]
    words = [entry["created_by"] for entry in history]
    assert words == [
        "ARG V=1", "ENV A=b", "WORKDIR /w", "RUN |1 V=1 /bin/sh -c true # buildkit", "EXPOSE [80/tcp 90/udp]",
        "VOLUME [/data]", "USER alice", 'CMD ["a" "b"]', 'ENTRYPOINT ["/bin/sh" "-c" "exec x"]', "STOPSIGNAL INT",
        "LABEL k=v",
        "HEALTHCHECK {Test:[CMD-SHELL true] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
        "MAINTAINER me",
    ]  # fmt: skip


def test_what_is_replaced_goes(yard: Yard) -> None:
    text = "FROM plain\nRUN cat /proc/uptime >/tmp/now\n"
    yard.build(text)
    chains = {path.name for path in (yard.root / "layers").iterdir()}
    yard.build(text, "--no-cache")
    minicontainer("rmi", *[image.id for image in store.Store(str(yard.root)).images() if not image.names])
    assert minicontainer("system", "check").stdout == "nothing is wrong\n"
    assert len({path.name for path in (yard.root / "layers").iterdir()} - chains) == 1


def test_a_shell_where_it_failed(yard: Yard) -> None:
    (yard.context / "Dockerfile").write_text("FROM plain\nENV A=b\nRUN echo left >/tmp/left; false\n")
    words = ["build", "--network", "none", "--debug-shell", str(yard.context)]
    done = minicontainer(*words, stdin="cat /tmp/left; echo $A; exit 7\n", check=False)
    assert done.returncode == 1 and done.stdout == "left\nb\n"
    assert "exit code: 1" in done.stderr
    assert yard.containers() == []
    assert minicontainer("system", "check").stdout == "nothing is wrong\n"


def test_limits_hold_for_each_step(yard: Yard) -> None:
    lines = yard.written(
        "FROM plain\nRUN ulimit -n; grep -c other /etc/hosts; df -k /dev/shm | tail -1\n",
        "--ulimit", "nofile=77:88", "--add-host", "other:10.0.0.1", "--shm-size", "2m",
    )  # fmt: skip
    assert lines[:2] == ["77", "1"] and lines[2].split()[1] == "2048"
