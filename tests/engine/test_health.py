"""Health checks: judged by docker's rules, run inside, and gone with their container."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer import errors
from minicontainer.cli import UsageError, run
from minicontainer.engine import configure, containers, entering, events, health
from minicontainer.runtime import channel, session
from tests import leftovers
from tests.conftest import minicontainer
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401

OFTEN = ["--network", "none", "--health-interval", "50ms"]


def result(code: int) -> dict[str, Any]:
    return {"Start": "", "End": "", "ExitCode": code, "Output": ""}


def after(codes: list[int], retries: int = 2, starting: int = 0) -> tuple[str, int, list[int]]:
    """Status, streak and kept exit codes after these; the first so many are of the start period."""
    found: dict[str, Any] = {"Status": "starting", "FailingStreak": 0, "Log": []}
    for number, code in enumerate(codes):
        early = number < starting and found["Status"] == "starting"
        found = health.judged(found, result(code), retries, early)
    return found["Status"], found["FailingStreak"], [entry["ExitCode"] for entry in found["Log"]]


def test_how_results_are_judged() -> None:
    assert after([]) == ("starting", 0, [])
    assert after([1]) == ("starting", 1, [1])
    assert after([1, -1]) == ("unhealthy", 2, [1, -1])
    assert after([1, 0]) == ("healthy", 0, [1, 0])
    assert after([0, 1]) == ("healthy", 1, [0, 1])
    assert after([0, 1, 1, 1]) == ("unhealthy", 3, [0, 1, 1, 1])
    assert after([1, 1, 0]) == ("healthy", 0, [1, 1, 0])
    assert after([1, 1, 1], starting=3) == ("starting", 0, [1, 1, 1])
    assert after([1, 1, 1, 1], starting=2) == ("unhealthy", 2, [1, 1, 1, 1])
    assert after([0, 1, 1], starting=3) == ("unhealthy", 2, [0, 1, 1])  # the first success ends the start period
    assert after([1, 2, 3, 4, 5, 6])[2] == [2, 3, 4, 5, 6]


def test_the_image_says_it_and_flags_say_it_better() -> None:
    image = {"Test": ["CMD", "look"], "Interval": 5, "Retries": 7}
    assert configure.healthcheck({}, {}) == {}
    assert configure.healthcheck({}, image) == {"Healthcheck": image}
    merged = configure.healthcheck({"test": "true", "retries": 2, "timeout": 10**9}, image)
    assert merged == {"Healthcheck": {
        "Test": ["CMD-SHELL", "true"], "Interval": 5, "Timeout": 10**9, "Retries": 2}}  # fmt: skip
    none = {"config": configure.healthcheck({"test": ["NONE"]}, image)}
    assert health.command(none) == []
    assert health.command({"config": {"Healthcheck": image}}) == ["look"]
    shell = {"Healthcheck": {"Test": ["CMD-SHELL", "a b"]}, "Shell": ["/bin/ash", "-c"]}
    assert health.command({"config": shell}) == ["/bin/ash", "-c", "a b"]
    with pytest.raises(errors.InvalidArgument, match="Interval in Healthcheck cannot be less than 1ms"):
        configure.healthcheck({"interval": 1}, {})


@pytest.mark.parametrize(("text", "nanoseconds"), [
    ("0", 0), ("30s", 30 * 10**9), ("1m30s", 90 * 10**9), ("500ms", 5 * 10**8), ("1.5s", 15 * 10**8),
    ("2h", 7200 * 10**9), ("-1s", -(10**9)), ("1ns", 1),
])  # fmt: skip
def test_durations(text: str, nanoseconds: int) -> None:
    assert run.nanoseconds("--health-interval", text) == nanoseconds


@pytest.mark.parametrize("text", ["5", "s", "1x", "1s2", "x"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="--health-interval: a time like"):
        run.nanoseconds("--health-interval", text)


def test_durations_as_go_writes_them() -> None:
    assert [health.shown(int(seconds * 10**9)) for seconds in (0.5, 1, 1.5, 90, 3600)] == [
        "500ms", "1s", "1.5s", "1m30s", "1h0m0s"]  # fmt: skip


@pytest.mark.parametrize("what", ["no process", "killed", "unknown user"])
def test_what_does_not_begin_has_failed_and_ends_no_watcher(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    def begin(*_: object) -> session.Session:
        if what == "killed":  # before it has said a word
            ours, theirs = channel.pair()
            theirs.close()
            return session.Session(ours)
        raise OSError(errno.EAGAIN, what) if what == "no process" else errors.NotFound(what)

    monkeypatch.setattr(entering, "begin", begin)
    found = health.probe(containers.Containers("/nosuch"), "a" * 64, ["true"], 10**9)
    assert found["ExitCode"] == -1 and what in found["Output"]


def test_one_that_writes_without_end_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faster than it is read, a packet every hundredth of a second."""
    ours, theirs = channel.pair()
    theirs.send(b"1x")
    clock = [0.0]

    def packet(end: object) -> tuple[bytes, list[int]]:
        clock[0] += 0.01
        assert clock[0] < 2
        return b"1x", []

    monkeypatch.setattr(channel, "receive_packet", packet)
    monkeypatch.setattr(health, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(session, "leaving", [])
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as keeper:
        monkeypatch.setattr(entering, "begin", lambda *_: session.Session(ours, keeper.pid))
        found = health.probe(containers.Containers("/nosuch"), "a" * 64, ["yes"], 10**9)
        assert (found["ExitCode"], found["Output"]) == (-1, "Health check exceeded timeout (1s)")
    assert keeper.returncode in (-signal.SIGKILL, 0)  # 0: the session was first to reap it


root = [pytest.mark.root, pytest.mark.needs("overlay", "libseccomp")]


class TestWithContainers:
    pytestmark = root

    @pytest.fixture
    def cleared(self, shop: Shop) -> Iterator[Shop]:
        """The shop; all containers go at the end."""
        yield shop
        left = minicontainer("ps", "-aq").stdout.split()
        if left:
            minicontainer("rm", "-f", "-v", *left)

    def test_it_follows_what_is_inside(self, cleared: Shop) -> None:
        start("web", "--health-cmd", "echo looking; test -e /tmp/well", "--health-retries", "2")
        start("slow", "--health-cmd", "true", "--health-interval", "1h")
        assert seen("slow") == {"Status": "starting", "FailingStreak": 0, "Log": []}
        assert "(health: starting)" in minicontainer("ps", "--filter", "name=slow").stdout
        found = until("web", "unhealthy")
        assert found["FailingStreak"] >= 2
        assert found["Log"][-1]["ExitCode"] == 1
        assert found["Log"][-1]["Output"] == "looking\n"
        assert minicontainer("ps", "--format", "{{.Names}}", "--filter", "health=unhealthy").stdout == "web\n"
        assert "(unhealthy)" in minicontainer("ps").stdout
        minicontainer("exec", "web", "touch", "/tmp/well")
        found = until("web", "healthy")
        assert found["FailingStreak"] == 0
        assert len(found["Log"]) <= health.KEPT
        assert "(healthy)" in minicontainer("ps").stdout
        assert minicontainer("inspect", "-f", "{{.State.Health.Status}}", "web").stdout == "healthy\n"
        actions = [json.loads(line)["Action"] for line in (cleared.root / "events.jsonl").read_text().splitlines()]
        changes = [action for action in actions if action.startswith("health_status")]
        assert changes[-2:] == ["health_status: unhealthy", "health_status: healthy"]
        # It begins anew with the container, whose last results are still told of when it has stopped.
        minicontainer("stop", "-t", "0", "web")
        stopped = seen("web")
        assert stopped["Status"] == "unhealthy" and stopped["Log"][-1]["ExitCode"] == 0
        minicontainer("start", "web")
        assert until("web", "healthy")["Log"]

    def test_it_runs_as_exec_does_and_its_output_is_bounded(self, cleared: Shop) -> None:
        said = "id -u; readlink /proc/self/ns/pid; head -c 9000 /dev/zero | tr '\\0' x"
        start("web", "-u", "alice", "--health-cmd", said, image="demo")
        output = until("web", "healthy")["Log"][-1]["Output"]
        user, namespace, rest = output.split("\n")
        pid = json.loads(minicontainer("inspect", "web").stdout)[0]["State"]["Pid"]
        assert (user, namespace) == ("1000", os.readlink(f"/proc/{pid}/ns/pid"))
        assert output.endswith("xxx...")
        assert len(output) == health.LONGEST + len("...")
        assert set(rest) == {"x", "."}

    def test_one_that_does_not_end_has_failed(self, cleared: Shop) -> None:
        start("web", "--health-cmd", "exec sleep 1000", "--health-timeout", "100ms", "--health-retries", "1")
        last = until("web", "unhealthy")["Log"][0]
        assert (last["ExitCode"], last["Output"]) == (-1, "Health check exceeded timeout (100ms)")
        minicontainer("pause", "web")
        minicontainer("unpause", "web")
        assert until("web", "unhealthy")

    def test_one_that_ends_with_its_container_has_not_failed(self, cleared: Shop) -> None:
        start("web", "--health-cmd", "sleep 1001", "--health-timeout", "1h", "--health-retries", "1")
        patience = time.monotonic() + 30
        while "sleep 1001" not in minicontainer("top", "web").stdout:
            assert time.monotonic() < patience
        minicontainer("kill", "web")
        minicontainer("wait", "web")
        assert seen("web") == {"Status": "unhealthy", "FailingStreak": 0, "Log": []}  # one that has ended is called so
        identifier = os.readlink(cleared.root / "containers/names/web")
        happened = [event["Action"] for event in events.read(str(cleared.root)) if event["Actor"]["ID"] == identifier]
        assert sorted(happened) == ["create", "die", "kill", "start"]

    def test_what_cannot_be_noted_is_noted_with_the_next_result(self, cleared: Shop) -> None:
        start("web", "--health-cmd", "true")
        until("web", "healthy")
        path = cleared.root / "containers" / os.readlink(cleared.root / "containers/names/web") / health.NAME
        while not path.is_dir():  # what is being noted now may be there again before the directory
            path.unlink(missing_ok=True)
            with contextlib.suppress(FileExistsError):
                path.mkdir()
        began = path.parent.stat().st_mtime_ns
        patience = time.monotonic() + 30
        while path.parent.stat().st_mtime_ns == began:  # a file was made there, to be renamed to this
            assert time.monotonic() < patience
        path.rmdir()
        while not path.is_file():
            assert time.monotonic() < patience
        assert until("web", "healthy")

    def test_one_that_cannot_begin_has_failed(self, cleared: Shop) -> None:
        start("web", "--health-cmd", "nosuch", "--health-retries", "1")
        assert until("web", "unhealthy")["Log"][0]["ExitCode"] == 127

    def test_the_watcher_is_not_inside_and_goes_with_its_monitor(self, cleared: Shop) -> None:
        start("web", "--health-cmd", "true")
        until("web", "healthy")
        identifier = minicontainer("inspect", "-f", "{{.Id}}", "web").stdout.strip()
        record = json.loads((cleared.root / "containers" / identifier / "record.json").read_text())
        children = Path(f"/proc/{record['monitor'][0]}/task/{record['monitor'][0]}/children").read_text().split()
        watching = [pid for pid in watchers(identifier) if str(pid) in children]  # a check's keeper is the watcher's
        assert len(watching) == 1
        for kind in ("pid", "mnt", "net"):
            assert os.readlink(f"/proc/{watching[0]}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")
        os.kill(record["monitor"][0], signal.SIGKILL)
        gone(identifier)
        minicontainer("start", "web")
        until("web", "healthy")
        minicontainer("rm", "-f", "web")
        gone(identifier)

    def test_what_nobody_can_look_after_is_taken_down(self, cleared: Shop) -> None:
        """Its command runs already when the watcher is to begin."""
        minicontainer(
            "create", "--name", "web", "--health-cmd", "true", "-p", "127.0.0.1::80", "plain", "sleep", "1000"
        )
        identifier = os.readlink(cleared.root / "containers/names/web")
        (cleared.root / "containers" / identifier / health.NAME).mkdir()
        assert "health.json" in minicontainer("start", "web", check=False).stderr
        left = leftovers.none_within(cleared.root, cleared.suffix)
        assert [trace for trace in left if not trace.startswith(f"{cleared.root}/containers")] == []
        (cleared.root / "containers" / identifier / health.NAME).rmdir()
        state = json.loads(minicontainer("inspect", "web").stdout)[0]["State"]
        assert state["Status"] == "exited" and "health.json" in state["Error"]

    def test_none_is_none(self, cleared: Shop) -> None:
        start("web", "--no-healthcheck")
        found = json.loads(minicontainer("inspect", "web").stdout)[0]
        assert "Health" not in found["State"]
        assert found["Config"]["Healthcheck"] == {"Test": ["NONE"]}
        assert watchers(found["Id"]) == []

    @pytest.mark.parametrize(("words", "why"), [
        (["--health-interval", "5"], "a time like 30s"), (["--health-retries", "-1"], "cannot be negative"),
        (["--health-timeout", "-1s"], "cannot be negative"), (["--health-interval", "1ns"], "less than 1ms"),
        (["--no-healthcheck", "--health-cmd", "x"], "--no-healthcheck conflicts"),
    ])  # fmt: skip
    def test_refused(self, shop: Shop, words: list[str], why: str) -> None:
        assert why in shop.refused(125, *words, "plain", "true")


def start(name: str, *words: str, image: str = "plain") -> None:
    often = OFTEN if "--no-healthcheck" not in words else OFTEN[:2]
    minicontainer("run", "-d", "--name", name, *often, *words, image, "sleep", "1000")


def seen(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(minicontainer("inspect", name).stdout)[0]["State"]["Health"]
    return found


def until(name: str, status: str) -> dict[str, Any]:
    """What is known once it is so."""
    patience = time.monotonic() + 30
    while (found := seen(name))["Status"] != status:
        assert time.monotonic() < patience, found
    return found


def watchers(identifier: str) -> list[int]:
    """The processes that watch this container."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"minicontainer.engine.health" in words and identifier.encode() in words:
            found.append(int(path.parent.name))
    return found


def gone(identifier: str) -> None:
    """Wait until nobody watches it."""
    patience = time.monotonic() + 30
    while watchers(identifier):
        assert time.monotonic() < patience
