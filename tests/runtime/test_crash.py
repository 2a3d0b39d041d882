"""A start that is killed leaves nothing that `system check --repair` does not clean, and disturbs no other start."""

import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer.runtime import state as state_module
from tests import leftovers
from tests.conftest import minicontainer

pytestmark = pytest.mark.root
KILLED_AT = Path(__file__).with_name("killed_at.py")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store of this file's own."""
    with leftovers.store_with_busybox(tmp_path_factory.mktemp("crash") / "store") as root:
        yield root


@pytest.fixture(scope="module")
def stores(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """One for each of two processors. What belongs to one store is not the other's to find, to clean or to count."""
    with leftovers.store_with_busybox(tmp_path_factory.mktemp("crash") / "store") as other:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MINICONTAINER_ROOT", str(store))  # still the one that is meant where none is named
            yield [store, other]


def side_by_side(stores: list[Path], part: Callable[[Path, int], None], times: int) -> None:
    """`part(store, number)` so many times, shared among the stores: a process for each, which stops at its first error
    and tells of it."""
    children: list[tuple[int, int]] = []
    said = []
    for first, store in enumerate(stores):
        reader, writer = os.pipe()
        if not (pid := os.fork()):
            code = 1
            try:
                os.close(reader)
                os.environ["MINICONTAINER_ROOT"] = str(store)
                for number in range(first, times, len(stores)):
                    part(store, number)
                code = 0
            except BaseException:
                os.write(writer, traceback.format_exc().encode())
            finally:
                os._exit(code)
        os.close(writer)
        children.append((pid, reader))
    try:
        while children:
            pid, reader = children[0]
            with os.fdopen(reader, errors="replace") as pipe:
                text = pipe.read()
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            del children[0]
            said.append(text or (f"ended with {code}\n" if code else ""))
    finally:
        for pid, _ in children:  # who waited was interrupted
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert not "".join(said), "".join(said)


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


def kill_at_random_calls(stores: list[Path], log: Path, times: int) -> None:
    """SIGKILL whoever (client, monitor, init) makes a randomly chosen system call."""
    calls = seen_calls(stores[0], log)
    seed = random.randrange(2**32)
    chosen = random.Random(seed).choices(calls, k=times)

    def kill(store: Path, number: int) -> None:
        name, ordinal = chosen[number]
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

    side_by_side(stores, kill, times)


@pytest.mark.brief
@pytest.mark.timeout(300)
@pytest.mark.needs("strace")
def test_killed_at_random_system_calls(stores: list[Path], tmp_path: Path) -> None:
    kill_at_random_calls(stores, tmp_path / "log", 20)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.needs("strace")
def test_killed_at_two_hundred_random_system_calls(stores: list[Path], tmp_path: Path) -> None:
    kill_at_random_calls(stores, tmp_path / "log", 200)


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


POLICIES = ["no", "always", "unless-stopped", "on-failure", "on-failure:2"]
LONG = ["sleep", "1000"]


def kill_at_random_moments(stores: list[Path], times: int) -> None:
    """`run -d --restart …` on and on, and SIGKILL for the client, the monitor or process 1, at a random moment.

    Every record must be true afterwards, without any repair; then a repair leaves nothing but records.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")

    def kill(store: Path, number: int) -> None:
        dice = random.Random(f"{seed} {number}")
        policy, whom = dice.choice(POLICIES), dice.choice(["client", "monitor", "init"])
        words = dice.choice([LONG, ["sh", "-c", f"sleep {dice.uniform(0, 0.1)}; exit 3"]])
        name = f"victim-{number}"
        try:
            kill_one(store, dice, name, policy, whom, words)
            minicontainer("rm", "-f", name)
            is_clean(store)
        except BaseException as error:
            error.add_note(f"{whom} of {' '.join(words)} --restart {policy} killed: seed {seed}, number {number}")
            raise

    side_by_side(stores, kill, times)


def kill_one(store: Path, dice: random.Random, name: str, policy: str, whom: str, words: list[str]) -> None:
    """One container, one SIGKILL, and what is said of it afterwards."""
    command = [*start()[:3], "run", "-d", "--name", name, "--restart", policy, "-p", "0:80", "busybox", *words]
    client = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if whom == "client":
        try:
            client.wait(dice.uniform(0, 0.12))
        except subprocess.TimeoutExpired:
            client.kill()
    client.wait(30)
    struck = False
    if whom != "client":
        # Beyond the second after which the monitor has become another program.
        select.select([], [], [], dice.choice([0, dice.uniform(0, 0.2), dice.uniform(0.9, 1.3)]))
        struck = strike(store, name, whom)
    shown = settled(store, name)
    if whom == "client" or not struck:
        return
    if whom == "monitor":
        assert shown["Status"] == "exited" and shown["ExitCode"] in ((137,) if words == LONG else (137, 3)), shown
        minicontainer("start", name)
        shown = settled(store, name)
    elif words == LONG and policy == "no":
        assert shown["Status"] == "exited" and shown["ExitCode"] == 137, shown
    assert words != LONG or policy == "no" or shown["Running"], shown  # docker's Running: also between two runs


def strike(store: Path, name: str, whom: str) -> bool:
    """SIGKILL for the container's monitor or process 1, if it is there; by pidfd, so for nobody else."""
    try:
        directory = store / "containers" / os.readlink(store / "containers/names" / name)
        run = Path(f"/run/minicontainer{leftovers.suffix(store)}") / directory.name
        if whom == "monitor":
            pid, began = json.loads((directory / "record.json").read_text())["monitor"]
        else:
            state = json.loads((run / "state.json").read_text())
            pid, began = state["pid"], state["start_time"]
        descriptor = os.pidfd_open(pid)
        try:
            if not state_module.alive(pid, began):
                return False
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            select.select([descriptor], [], [])  # readable once it has ended
        finally:
            os.close(descriptor)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return True


def settled(store: Path, name: str) -> dict[str, Any]:
    """What is said of a container once it runs, waits for its restart, or nothing more happens to it; {} if it is not.

    `inspect` and `ps` say the same, and /proc as well: it runs if, and only if, its process is in its cgroup.
    """
    deadline = time.monotonic() + 30
    while True:
        shown = state_of(name)
        listed = minicontainer("ps", "-a", "--format", "{{.State}}", "--filter", f"name=^/{name}$").stdout.strip()
        true = not shown or (shown["Status"] == "running") == inside(store, name, shown["Pid"])
        again = state_of(name)
        goes_on = bool(shown) and shown["Status"] in ("running", "restarting")
        steady = shown == again and (goes_on or not monitor_lives(store, name))
        if steady and true and listed == (shown["Status"] if shown else ""):
            return shown
        assert time.monotonic() < deadline, (shown, again, listed, true)


def inside(store: Path, name: str, pid: int) -> bool:
    """Whether that is a process in the container's cgroup (proc_pid_cgroup(5))."""
    identifier = os.readlink(store / "containers/names" / name)
    try:
        return pid > 0 and identifier in Path(f"/proc/{pid}/cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


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


@pytest.mark.brief
@pytest.mark.timeout(300)
def test_killed_at_random_moments(stores: list[Path]) -> None:
    kill_at_random_moments(stores, 15)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_killed_at_random_moments(stores: list[Path]) -> None:
    kill_at_random_moments(stores, 100)
