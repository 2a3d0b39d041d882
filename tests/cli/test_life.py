"""Containers that live: detached, looked at, stopped, started again, whoever is killed meanwhile."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer.engine import system
from minicontainer.engine.client import Client
from tests import leftovers
from tests.cli.test_terminal import Screen
from tests.conftest import minicontainer
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401

pytestmark = pytest.mark.root

TIME = r"\d{4}-\d\d-\d\dT[\d:.]{18}Z"
LISTENS = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture(autouse=True)
def nobody_stays(shop: Shop) -> Iterator[None]:
    """What a test has left is removed."""
    yield
    names = minicontainer("ps", "-aq").stdout.split()
    if names:
        minicontainer("rm", "-f", "-v", *names)


def run(*arguments: str, name: str = "web") -> str:
    """`run -d`; the id."""
    return minicontainer("run", "-d", "--name", name, "--network", "none", *arguments).stdout.strip()


def look(name: str = "web") -> dict[str, Any]:
    """What `inspect` says."""
    found: dict[str, Any] = json.loads(minicontainer("inspect", name).stdout)[0]
    return found


def until(true: Callable[[], Any], seconds: float = 30) -> Any:
    """Wait until it is true; what it returned."""
    deadline = time.monotonic() + seconds
    while not (result := true()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return result


def monitor_of(pid: int) -> int:
    """The parent of a container's init, as the kernel has it."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def said(name: str = "web") -> str:
    return minicontainer("logs", name).stdout


def wait_for(word: str, name: str = "web") -> None:
    """Read along until it has said so."""
    with subprocess.Popen(
        [sys.executable, "-m", "minicontainer", "logs", "-f", name], stdout=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        assert any(word in line for line in follower.stdout), f"{word!r} never came"
        follower.kill()


def test_run_d_prints_the_id_and_leaves_it_running(shop: Shop) -> None:
    identifier = run("demo", "sleep", "60")
    assert len(identifier) == 64
    state = look()["State"]
    assert state["Status"] == "running" and state["Running"]
    # Its parent is a session leader of its own, below nobody whom we have started, and holds nothing of ours.
    parent = monitor_of(state["Pid"])
    assert os.getsid(parent) == parent
    assert {os.readlink(f"/proc/{parent}/fd/{n}") for n in (0, 1, 2)} == {"/dev/null"}
    assert Path(f"/proc/{state['Pid']}/root/etc/hostname").read_text().strip() == identifier[:12]


@pytest.mark.parametrize(("command", "code"), [("nosuch", 127), ("/etc", 126)])
def test_run_d_of_what_cannot_run(shop: Shop, command: str, code: int) -> None:
    done = minicontainer("run", "-d", "--name", "web", "--network", "none", "demo", command, check=False)
    assert (done.returncode, done.stdout.strip()) == (code, look()["Id"])  # it is there, for all that
    assert look()["State"]["Status"] == "created" and look()["State"]["ExitCode"] == code


def test_the_log_has_both_streams_and_survives_the_end(shop: Shop) -> None:
    identifier = run("demo", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert minicontainer("wait", "web").stdout == "3\n"
    done = minicontainer("logs", "web")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    file = Path(look()["LogPath"])
    assert file.name == f"{identifier}-json.log"
    assert {json.loads(line)["stream"] for line in file.read_text().splitlines()} == {"stdout", "stderr"}
    assert re.fullmatch(rf"{TIME} err\n", minicontainer("logs", "-t", "--tail", "1", "web").stderr)
    assert minicontainer("logs", "--since", "2020-01-01T00:00:00Z", "--until", "1h", "web").stdout == ""


def test_what_is_noted_with_each_entry_survives_a_new_monitor(shop: Shop) -> None:
    run("-e", "E=1", "--log-opt", "env=E", "demo", "sh", "-c", LISTENS)
    parent = monitor_of(look()["State"]["Pid"])
    until(lambda: b"go_on" in Path(f"/proc/{parent}/cmdline").read_bytes())
    minicontainer("stop", "web")
    entries = [json.loads(line) for line in Path(look()["LogPath"]).read_text().splitlines()]
    assert [(entry["log"], entry["attrs"]) for entry in entries] == [("ready\n", {"E": "1"}), ("bye\n", {"E": "1"})]
    assert look()["HostConfig"]["LogConfig"]["Config"]["env"] == "E"


def test_the_log_is_bounded(shop: Shop) -> None:
    run("--log-opt", "max-size=10k", "--log-opt", "max-file=2", "demo", "seq", "10000")
    minicontainer("wait", "web")
    parts = list(Path(look()["LogPath"]).parent.glob("*-json.log*"))
    assert len(parts) == 2 and all(part.stat().st_size <= 10_000 for part in parts)
    assert said().endswith("\n9999\n10000\n")


def test_logs_f_follows_to_the_end(shop: Shop) -> None:
    run("demo", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done")
    assert minicontainer("logs", "-f", "web").stdout == "1\n2\n3\n"


def test_stop_asks_first(shop: Shop) -> None:
    run("demo", "sh", "-c", LISTENS)
    wait_for("ready")
    pid = look()["State"]["Pid"]
    minicontainer("stop", "web")
    assert not exists(pid)
    assert (look()["State"]["Status"], look()["State"]["ExitCode"]) == ("exited", 7)
    assert said() == "ready\nbye\n"
    assert minicontainer("stop", "web").stdout == "web\n"  # once more is no error


def test_stop_kills_who_does_not_listen(shop: Shop) -> None:
    run("demo", "sleep", "60")  # process 1 without a handler ignores SIGTERM
    minicontainer("stop", "-t", "0", "web")
    assert look()["State"]["ExitCode"] == 137


def test_a_stop_signal_of_its_own(shop: Shop) -> None:
    run("--stop-signal", "USR1", "demo", "sh", "-c", "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done")
    wait_for("ready")
    minicontainer("stop", "web")
    assert look()["State"]["ExitCode"] == 9


def test_its_files_are_there_when_it_is_started_again(shop: Shop) -> None:
    run("demo", "sh", "-c", "echo x >>/kept; wc -l </kept")
    minicontainer("wait", "web")
    done = minicontainer("start", "-a", "web")
    assert done.stdout.split() == ["2"]
    assert minicontainer("start", "web").stdout == "web\n"
    minicontainer("wait", "web")
    assert said().split() == ["1", "2", "3"]


def test_create_then_start_with_input(shop: Shop) -> None:
    identifier = minicontainer("create", "-i", "--name", "web", "--network", "none", "demo", "cat").stdout.strip()
    assert look()["State"]["Status"] == "created" and look()["Id"] == identifier
    assert minicontainer("start", "-ai", "web", stdin="typed\n").stdout == "typed\n"


def test_pause_holds_still_and_stop_thaws(shop: Shop) -> None:
    run("demo", "sh", "-c", LISTENS)
    wait_for("ready")
    pid = look()["State"]["Pid"]
    minicontainer("pause", "web")
    assert look()["State"]["Status"] == "paused"
    freezer = next(
        (line.split(":")[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if ":freezer:" in line), ""
    )
    if freezer:
        assert Path(f"/sys/fs/cgroup/freezer{freezer}/freezer.state").read_text() == "FROZEN\n"
    else:
        group = Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::")
        assert "frozen 1" in Path(f"/sys/fs/cgroup{group}/cgroup.events").read_text()
    assert minicontainer("pause", "web", check=False).returncode == 1
    minicontainer("unpause", "web")
    assert look()["State"]["Status"] == "running"
    minicontainer("pause", "web")
    minicontainer("stop", "web")
    assert look()["State"]["ExitCode"] == 7


def test_kill_and_the_signal_s_number(shop: Shop) -> None:
    run("demo", "sh", "-c", "trap 'echo got it' USR2; echo ready; while :; do sleep 0.05; done")
    wait_for("ready")
    minicontainer("kill", "-s", "SIGUSR2", "web")
    wait_for("got it")
    minicontainer("kill", "web")
    assert minicontainer("wait", "web").stdout == "137\n"
    assert minicontainer("kill", "web", check=False).returncode == 1


def test_rename_rm_of_a_running_one_and_rm_f(shop: Shop) -> None:
    run("demo", "sleep", "60")
    pid = look()["State"]["Pid"]
    minicontainer("rename", "web", "other")
    done = minicontainer("rm", "other", check=False)
    assert done.returncode == 1 and "running" in done.stderr and exists(pid)
    minicontainer("rm", "-f", "other")
    assert not exists(pid)
    assert leftovers.none_within(shop.root, shop.suffix) == []


def test_restart_on_failure_so_many_times(shop: Shop) -> None:
    run("--restart", "on-failure:2", "demo", "sh", "-c", "echo once; exit 3")
    until(lambda: look()["State"]["Status"] == "exited")
    assert look()["RestartCount"] == 2 and look()["State"]["ExitCode"] == 3
    assert said() == "once\n" * 3


def test_restart_always_until_it_is_stopped(shop: Shop) -> None:
    run("--restart", "always", "demo", "true")
    until(lambda: look()["RestartCount"] >= 2)
    minicontainer("stop", "web")
    assert look()["State"]["Status"] == "exited"


def test_why_it_could_not_be_restarted_is_noted(shop: Shop) -> None:
    run("demo", "sleep", "60", name="other")
    minicontainer(
        "run", "-d", "--name", "web", "--network", "container:other", "--restart", "always", "demo", "sleep", "60"
    )
    minicontainer("rm", "-f", "other")
    os.kill(look()["State"]["Pid"], signal.SIGKILL)
    assert minicontainer("wait", "web").stdout == "128\n"
    state = look()["State"]
    assert state["Status"] == "exited" and "other" in state["Error"] and state["ExitCode"] == 128


def test_restart_is_another_process(shop: Shop) -> None:
    run("demo", "sh", "-c", LISTENS)
    wait_for("ready")
    before = look()["State"]["Pid"]
    minicontainer("restart", "web")
    assert look()["State"]["Pid"] != before and not exists(before)


def test_a_client_that_is_killed_takes_nothing_with_it(shop: Shop) -> None:
    """Nor does it hold up the output: a pipe's worth and more is written afterwards."""
    client = subprocess.Popen(
        [sys.executable, "-m", "minicontainer", "run", "--name", "web", "--network", "none", "demo",
         "sh", "-c", "echo ready; read x </dev/null; seq 100000; echo done; sleep 60"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert client.stdout is not None and client.stdout.readline() == "ready\n"
    client.kill()
    client.communicate()
    wait_for("done")
    assert look()["State"]["Running"]


def test_a_monitor_that_is_killed(shop: Shop) -> None:
    """The kernel ends the container; the record tells the truth before any repair; `start` works again."""
    run("demo", "sh", "-c", "echo x >>/kept; wc -l </kept; sleep 60")
    pid = until(lambda: look()["State"]["Pid"])
    wait_for("1")
    os.kill(monitor_of(pid), signal.SIGKILL)
    until(lambda: not exists(pid))
    assert (look()["State"]["Status"], look()["State"]["ExitCode"]) == ("exited", 137)
    minicontainer("start", "web")
    wait_for("2")
    minicontainer("rm", "-f", "web")
    assert minicontainer("system", "check").stdout == "nothing is wrong\n"


def test_after_a_reboot(shop: Shop) -> None:
    """/run is empty then, and the processes have gone: here, with the monitor and the container's directory of /run."""
    identifier = run("demo", "sleep", "60")
    pid = look()["State"]["Pid"]
    os.kill(monitor_of(pid), signal.SIGKILL)
    until(lambda: not exists(pid))
    for file in Path(f"/run/minicontainer{shop.suffix}/{identifier}").iterdir():
        file.unlink()
    Path(f"/run/minicontainer{shop.suffix}/{identifier}").rmdir()
    assert look()["State"]["Status"] == "exited"
    minicontainer("start", "web")
    assert look()["State"]["Running"]


def test_what_comes_back_after_a_boot(shop: Shop) -> None:
    """By docker's rule: `always`, and `unless-stopped` where nobody stopped it; not what has another policy."""
    for name, policy in (("one", "always"), ("two", "unless-stopped"), ("three", "unless-stopped"), ("four", "no")):
        run("--restart", policy, "demo", "sleep", "60", name=name)
    minicontainer("stop", "-t", "0", "one", "three")
    for name in ("two", "four"):
        pid = look(name)["State"]["Pid"]
        os.kill(monitor_of(pid), signal.SIGKILL)
        until(lambda pid=pid: not exists(pid))  # type: ignore[misc]
    assert minicontainer("system", "start").stdout.split() == ["one", "two"]
    assert [look(name)["State"]["Running"] for name in ("one", "two", "three", "four")] == [True, True, False, False]
    assert minicontainer("system", "start").stdout == ""


def test_the_unit_is_what_systemd_takes(shop: Shop, tmp_path: Path) -> None:
    """Its command is run as it stands there; systemd itself reads the unit where it is installed."""
    unit = system.unit(str(shop.root))
    command = shlex.split(re.findall("^ExecStart=(.*)$", unit, re.MULTILINE)[0])
    name, value = shlex.split(re.findall("^Environment=(.*)$", unit, re.MULTILINE)[0])[0].split("=", 1)
    assert subprocess.run(command, env={name: value}, capture_output=True).returncode == 0
    if shutil.which("systemd-analyze"):
        (tmp_path / "minicontainer.service").write_text(unit)
        done = subprocess.run(
            ["systemd-analyze", "verify", tmp_path / "minicontainer.service"], capture_output=True, text=True
        )
        assert "minicontainer.service" not in done.stderr, done.stderr


@pytest.mark.skipif(os.path.isdir("/run/systemd/system"), reason="there is a systemd to ask")
def test_enable_says_where_there_is_no_systemd(shop: Shop) -> None:
    done = minicontainer("system", "enable", check=False)
    assert done.returncode == 1 and "system start" in done.stderr


def listener(port: int) -> bool:
    """Whether a socket listens on that port here (/proc/net/tcp, proc_net(5))."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)


@pytest.mark.needs("bridge", "veth", "nftables")
def test_a_published_port_is_shown_and_held_by_the_smaller_monitor_too(shop: Shop) -> None:
    minicontainer("run", "-d", "--name", "web", "-p", "0:80", "demo", "sh", "-c", LISTENS)
    port = int(minicontainer("port", "web", "80").stdout.rpartition(":")[2])
    assert f"0.0.0.0:{port}->80/tcp" in minicontainer("ps").stdout and listener(port)
    parent = monitor_of(look()["State"]["Pid"])
    until(lambda: b"go_on" in Path(f"/proc/{parent}/cmdline").read_bytes())
    assert listener(port)
    minicontainer("restart", "web")
    again = int(minicontainer("port", "web", "80").stdout.rpartition(":")[2])
    assert listener(again)
    minicontainer("stop", "web")
    assert not listener(port) and not listener(again)


@pytest.mark.needs("bridge", "veth", "nftables", "ipv6")
def test_by_ipv6_the_monitor_relays_and_its_connections_outlive_its_change(shop: Shop) -> None:
    """No process for it: the client's bytes come by way of the monitor, before and after it has become small."""
    minicontainer("run", "-d", "--name", "web", "-p", "0:80", "demo", "nc", "-ll", "-p", "80", "-e", "cat")
    four, six = minicontainer("port", "web", "80").stdout.split()
    port = int(six.removeprefix("[::]:"))
    assert four == f"0.0.0.0:{port}" and f", [::]:{port}->80/tcp" in minicontainer("ps").stdout
    parent = monitor_of(look()["State"]["Pid"])

    def echoes(client: socket.socket, word: bytes) -> bool:
        try:
            client.sendall(word)
            return client.recv(100) == word
        except OSError:
            return False

    until(lambda: echoes(socket.create_connection(("::1", port), timeout=30), b"?"))  # nc listens
    client = socket.create_connection(("::1", port), timeout=30)
    assert echoes(client, b"early")
    until(lambda: b"go_on" in Path(f"/proc/{parent}/cmdline").read_bytes())
    assert echoes(client, b"late")
    assert echoes(socket.create_connection(("::1", port), timeout=30), b"new")
    minicontainer("rm", "-f", "web")
    assert not echoes(client, b"?")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("::1", port), timeout=30)


@pytest.mark.parametrize("late", [False, True])
def test_a_monitor_that_is_asked_to_end_ends_its_container_first(shop: Shop, late: bool) -> None:
    """As at a shutdown: not by SIGKILL, and an `unless-stopped` comes back."""
    run("--restart", "unless-stopped", "demo", "sh", "-c", LISTENS)
    wait_for("ready")
    parent = monitor_of(look()["State"]["Pid"])
    if late:
        until(lambda: b"go_on" in Path(f"/proc/{parent}/cmdline").read_bytes())
    os.kill(parent, signal.SIGTERM)
    until(lambda: look()["State"]["Status"] == "exited")
    assert look()["State"]["ExitCode"] == 7
    assert minicontainer("system", "start").stdout == "web\n"


def test_the_monitor_becomes_small(shop: Shop) -> None:
    """A second after the start it is another program, and still the parent, the log's writer, the door."""
    run("demo", "sh", "-c", LISTENS)
    parent = monitor_of(look()["State"]["Pid"])
    until(lambda: b"go_on" in Path(f"/proc/{parent}/cmdline").read_bytes())
    assert monitor_of(look()["State"]["Pid"]) == parent
    minicontainer("stop", "web")
    assert look()["State"]["ExitCode"] == 7 and said() == "ready\nbye\n"


def test_detach_and_attach_again(shop: Shop) -> None:
    screen = Screen("-it", "--name", "web", "demo", "sh")
    try:
        screen.until("# ")
        screen.type("x=41\n\x10\x11")
        assert "read escape sequence" in screen.rest()
        assert screen.wait() == 0
        assert look()["State"]["Running"]
        again = Screen.typing("attach", "web")
        again.type("echo $((x + 1))\n")
        again.until("42\r\n")
        again.type("exit 5\n")
        assert again.wait() == 5
        told = [event["Action"] for event in events_of(shop, "web")]
        assert told[-7:] == ["create", "attach", "start", "detach", "attach", "die", "destroy"]
    finally:
        with contextlib.suppress(OSError):
            os.close(screen.master)


def test_attach_to_what_does_not_run(shop: Shop) -> None:
    run("demo", "true")
    minicontainer("wait", "web")
    done = minicontainer("attach", "web", check=False)
    assert done.returncode == 1 and "stopped container" in done.stderr


def test_inspect_tells_what_a_command_is_attached_to(shop: Shop) -> None:
    """As docker tells it; test_looking_peers.py compares more of them."""
    client = Client()
    made = [
        client.containers.create("demo", ["true"]),
        client.containers.create("demo", ["true"], stdin_open=True),
        client.containers.run("demo", ["true"], detach=True, stdin_open=True),
    ]
    config = [one.attrs["Config"] for one in made]
    names = ("AttachStdin", "AttachStdout", "AttachStderr", "OpenStdin", "StdinOnce")
    assert [[one[name] for name in names] for one in config] == [
        [False, True, True, False, False],
        [True, True, True, True, True],
        [False, False, False, True, False],
    ]


def test_container_prune_spares_what_runs(shop: Shop) -> None:
    run("demo", "sleep", "60")
    ended = run("demo", "true", name="ended")
    minicontainer("wait", "ended")
    assert ended in minicontainer("container", "prune", "-f").stdout
    assert minicontainer("container", "ls", "-aq").stdout.split() == [look()["Id"][:12]]


def test_from_a_process_with_threads(shop: Shop) -> None:
    """docker-py's words, in an interpreter that has threads: nothing is forked."""
    program = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
from minicontainer.engine.client import Client
containers = Client().containers
print(containers.run("demo", ["sh", "-c", "echo hello; echo oops >&2"], network_mode="none", remove=True))
one = containers.run("demo", ["sh", "-c", "echo a; sleep 60"], network_mode="none", name="web", detach=True)
print(one.status, one.name, [other.name for other in containers.list()])
while not one.logs():
    pass
one.stop(timeout=0)
print(one.wait(), one.logs())
one.remove()
print(containers.list(all=True))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "b'hello\\n'", "created web ['web']", "{'StatusCode': 137} b'a\\n'", "[]",
    ]  # fmt: skip


@pytest.mark.parametrize("threads", [0, 1])
def test_from_a_program_that_ignores_how_its_children_end(shop: Shop, threads: int) -> None:
    program = f"""
import signal, threading
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range({threads}):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
from minicontainer.engine.client import Client
web = Client().containers.run("demo", ["sh", "-c", "read x; exit 7"], network_mode="none", stdin_open=True, detach=True)
print(web.exec_run(["sh", "-c", "exit 3"]).exit_code)
web.kill()
print(web.wait())
web.remove()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["3", "{'StatusCode': 137}"]


@pytest.mark.parametrize("userns", [[], ["--userns", "auto"]])
def test_where_the_end_of_children_is_ignored(shop: Shop, userns: list[str]) -> None:
    def ignoring(*words: str) -> int:
        """The exit code of a command that ignores SIGCHLD from its beginning."""
        command = ["env", "--ignore-signal=CHLD", sys.executable, "-m", "minicontainer", *words]
        return subprocess.run(command, stdin=subprocess.DEVNULL, timeout=60).returncode

    assert ignoring("run", "--rm", "--network", "none", *userns, "demo", "sh", "-c", "exit 3") == 3
    assert ignoring("run", "-d", "--name", "web", "--network", "none", *userns, "demo", "sleep", "60") == 0
    assert ignoring("exec", "web", "sh", "-c", "exit 4") == 4
    minicontainer("kill", "web")
    assert minicontainer("wait", "web").stdout == "137\n"


def events_of(shop: Shop, name: str) -> list[dict[str, Any]]:
    """What the journal has of a container."""
    events = [json.loads(line) for line in (shop.root / "events.jsonl").read_text().splitlines()]
    return [event for event in events if event["Actor"]["Attributes"].get("name") == name]


def test_events(shop: Shop) -> None:
    run("--label", "colour=blue", "demo", "true")
    minicontainer("wait", "web")
    minicontainer("rm", "web")
    ours = events_of(shop, "web")[-4:]
    assert [event["Action"] for event in ours] == ["create", "start", "die", "destroy"]
    labels = {"colour": "blue", "made": "by hand"}  # the latter is the image's
    assert ours[2]["Actor"]["Attributes"] == {**labels, "image": "demo", "name": "web", "exitCode": "0"}
    asked = [
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "-f",
        "event=die",
        "-f",
        "event=start",
        "-f",
        "label=colour=blue",
    ]
    told = [json.loads(line) for line in minicontainer(*asked, "--format", "json").stdout.splitlines()]
    assert told == ours[1:3]
    assert re.fullmatch(
        rf"{TIME} container start [0-9a-f]{{64}} \(.*name=web\)", minicontainer(*asked).stdout.split("\n")[0]
    )


def watches(pid: int) -> bool:
    """Whether that process has the kernel tell it of files (inotify(7), proc_pid_fdinfo(5))."""
    links = Path(f"/proc/{pid}/fd").iterdir()
    with contextlib.suppress(FileNotFoundError):
        return any("inotify" in os.readlink(link) for link in links)
    return False  # it has closed one of them meanwhile


def test_events_follow(shop: Shop) -> None:
    command = [sys.executable, "-m", "minicontainer", "events", "-f", "label=told", "--since", "1h"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        run("--label", "told", "demo", "true")
        actions = [follower.stdout.readline().split()[2] for _ in range(3)]
        until(lambda: watches(follower.pid))
        follower.kill()
    assert actions == ["create", "start", "die"]


def test_events_end_when_they_are_to(shop: Shop) -> None:
    """`--until` a moment that is to come: what happens before is told, then it ends by itself."""
    for seconds in (2, 10, 40):  # a machine with much to do may not have got so far by then
        end = time.time() + seconds
        command = [sys.executable, "-m", "minicontainer", "events", "-f", "label=soon", "--until", str(end)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
            assert follower.stdout is not None
            until(lambda: watches(follower.pid) or follower.poll() is not None)  # noqa: B023
            run("--label", "soon", "demo", "true")
            minicontainer("wait", "web")
            in_time = time.time() < end
            told = [line.split()[2] for line in follower.stdout]
            assert follower.wait(30) == 0
        minicontainer("rm", "web")
        if in_time:
            break
    assert told[:3] == ["create", "start", "die"]
