"""A start that is killed leaves nothing that `system check --repair` does not clean, and disturbs no other start."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import leftovers
from tests.conftest import minicontainer

pytestmark = pytest.mark.root
KILLED_AT = Path(__file__).with_name("killed_at.py")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store of this file's own."""
    with leftovers.store_with_busybox(tmp_path_factory.mktemp("crash") / "store") as root:
        yield root


def is_clean(root: Path) -> None:
    """After a repair, the kernel and the disk show no trace."""
    minicontainer("system", "check", "--repair")
    assert leftovers.none_within(root, leftovers.suffix(root)) == []
    assert minicontainer("system", "check").stdout == "nothing is wrong\n"


FLAGS = ["-p", "0:80", "--memory", "64m", "--cpus", "0.5", "-v", "/data", "--name", "victim"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("who", ["parent", "child", "teardown"])
def test_killed_at_each_step(store: Path, who: str) -> None:
    """SIGKILL right before each step in turn, and after the last."""
    number = 0
    while True:
        command = [sys.executable, str(KILLED_AT), who, str(number), *FLAGS, "busybox", "true"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        is_clean(store)
        if done.returncode == 0:
            break  # no step had that number: the start went through, and took itself down
        number += 1
    assert number > 5, f"only {number} steps of the {who} were seen"


def seen_calls(store: Path, log: Path) -> list[tuple[str, int]]:
    """Every system call of one start, as (name, how many of that name the same process had made)."""
    subprocess.run(["strace", "-f", "-o", log, *start()], check=True, timeout=120)
    counts: Counter[tuple[str, str]] = Counter()
    calls = []
    for line in log.read_text(errors="replace").splitlines():
        match = re.match(r"(\d+) +([a-z0-9_]+)\(", line)
        if match:
            counts[match.groups()] += 1
            calls.append((match[2], counts[match.groups()]))
    return calls


def start() -> list[str]:
    """A start with a bit of everything."""
    return [sys.executable, "-m", "minicontainer", "run", "--rm", *FLAGS, "busybox", "true"]


def kill_at_random_calls(store: Path, log: Path, times: int) -> None:
    """SIGKILL whoever (client, monitor, init) makes a randomly chosen system call."""
    calls = seen_calls(store, log)
    seed = random.randrange(2**32)
    chosen = random.Random(seed).choices(calls, k=times)
    for name, ordinal in chosen:
        # No call is made in the middle of another: the signal arrives when the call is entered.
        inject = f"inject={name}:signal=KILL:when={ordinal}"
        subprocess.run(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={name}", "-e", inject, *start()],
            capture_output=True,
            timeout=120,
        )
        try:
            is_clean(store)
        except BaseException as error:
            error.add_note(f"killed at {name} number {ordinal}, seed {seed}")
            raise


@pytest.mark.timeout(300)
@pytest.mark.needs("strace")
def test_killed_at_random_system_calls(store: Path, tmp_path: Path) -> None:
    kill_at_random_calls(store, tmp_path / "log", 20)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.needs("strace")
def test_killed_at_two_hundred_random_system_calls(store: Path, tmp_path: Path) -> None:
    kill_at_random_calls(store, tmp_path / "log", 200)


def test_repair_disturbs_no_running_start(store: Path) -> None:
    """Twenty starts while repairs run one after the other: every one of them succeeds."""
    stop = threading.Event()

    def repair() -> None:
        while not stop.is_set():
            minicontainer("system", "check", "--repair")

    repairer = threading.Thread(target=repair)
    repairer.start()
    try:
        for _ in range(5):
            running = [subprocess.Popen([*start()[:5], "busybox", "true"], stderr=subprocess.PIPE) for _ in range(4)]
            for process in running:
                _, error = process.communicate(timeout=60)
                assert process.returncode == 0, error.decode()
    finally:
        stop.set()
        repairer.join()
    is_clean(store)


def kill_at_random_moments(store: Path, times: int) -> None:
    """`run -d` on and on, and SIGKILL for the client, the monitor or process 1, a random time after the client began.

    Every record must be true afterwards, without any repair; then a repair leaves nothing but records.
    """
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    for number in range(times):
        name = f"victim-{number}"
        command = [*start()[:3], "run", "-d", "--name", name, "-p", "0:80", "busybox", "sleep", "1000"]
        client = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        whom = dice.choice(["client", "monitor", "init"])
        if whom == "client":
            try:
                client.wait(dice.uniform(0, 0.12))
            except subprocess.TimeoutExpired:
                client.kill()
        client.wait(30)
        shown = state_of(name)
        if whom != "client":
            pid = shown["Pid"]
            victim = pid if whom == "init" else int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            os.kill(victim, signal.SIGKILL)
        else:  # a monitor that had been forked by then goes on to the end of the start
            while shown and shown["Status"] == "created" and monitor_lives(store, name):
                shown = state_of(name)
        try:
            if whom == "client":
                alive = bool(shown) and shown["Running"]
            else:
                deadline = time.monotonic() + 20
                while (shown := state_of(name))["Status"] != "exited":
                    assert time.monotonic() < deadline, shown
                assert shown["ExitCode"] == 137
                alive = False
            assert alive == (bool(shown) and shown["Pid"] > 0 and Path(f"/proc/{shown['Pid']}").exists())
            if shown:
                minicontainer("rm", "-f", name)
            is_clean(store)
        except BaseException as error:
            error.add_note(f"{whom} killed, seed {seed}, number {number}")
            raise


def state_of(name: str) -> dict[str, Any]:
    """What `inspect` says of its state; {} if there is no such container."""
    found = json.loads(minicontainer("inspect", name, check=False).stdout)
    state: dict[str, Any] = found[0]["State"] if found else {}
    return state


def monitor_lives(store: Path, name: str) -> bool:
    """Whether the process that its record names as its monitor is there."""
    try:
        directory = store / "containers" / os.readlink(store / "containers/names" / name)
        record = json.loads((directory / "record.json").read_text())
    except FileNotFoundError:
        return False
    return Path(f"/proc/{record['monitor'][0]}").exists()


@pytest.mark.timeout(300)
def test_killed_at_random_moments(store: Path) -> None:
    kill_at_random_moments(store, 15)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_killed_at_random_moments(store: Path) -> None:
    kill_at_random_moments(store, 100)
