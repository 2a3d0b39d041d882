"""Health checks: a command that is run inside every so often, and tells by its exit code whether all is well.

    containers/<id>/health.json   what `inspect` shows as State.Health:
    {"Status": "healthy", "FailingStreak": 0, "Log": [{"Start", "End", "ExitCode", "Output"}, …]}

A container that has a check has a process more, the watcher: a child of its monitor, which begins it with each start,
ends it with the container, and takes it with it if it is killed. The command itself is run as `exec` runs one.

The rules are docker's (moby daemon/health.go): a check that has not ended in time has failed; so many failures in a row
make it unhealthy, one success healthy. Failures of the start period do not count until the first success.
"""

from __future__ import annotations

import os
import select
import time

from .. import errors, files, steps, syscalls
from .. import quickjson as json
from .. import signals as signal
from ..runtime import channel, log, monitor
from . import containers, entering, events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..runtime import session

NAME = "health.json"
KEPT = 5  # results
LONGEST = 4096  # bytes of one result's output
SECOND = 10**9
PR_SET_PDEATHSIG = 1  # linux/prctl.h

# Nanoseconds, and a count: what holds where nothing, or zero, is said.
DEFAULTS = {
    "Interval": 30 * SECOND, "Timeout": 30 * SECOND, "StartPeriod": 0, "StartInterval": 5 * SECOND, "Retries": 3,
}  # fmt: skip


def begin(engine: containers.Containers, record: containers.Record) -> int:
    """Begin to watch a container that has just started, if it has a check: the watcher's pid, a child of ours; or 0."""
    if not command(record):
        return 0
    write(engine, record["id"], {"Status": "starting", "FailingStreak": 0, "Log": []})
    # A monitor's next child would be born inside, and the watcher is no business of the container's.
    steps.execute([steps.setns("/proc/self/ns/pid", syscalls.CLONE_NEWPID, why="the container's is for its init")], {})
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    words = monitor.interpreter(__name__, "watch", record["id"], engine.root, str(os.getpid()))
    actions = [(os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1, 2)]
    pid = os.posix_spawn(words[0], words, os.environ, file_actions=actions, setsigmask=[])
    os.close(null)
    return pid


def command(record: containers.Record) -> list[str]:
    """The check's words; none where there is no check."""
    test = (record["config"].get("Healthcheck") or {}).get("Test") or []
    if test[:1] == ["CMD"]:
        return [str(word) for word in test[1:]]
    if test[:1] == ["CMD-SHELL"]:
        return [*(record["config"].get("Shell") or ("/bin/sh", "-c")), *test[1:]]
    return []


def write(engine: containers.Containers, identifier: str, health: dict[str, Any]) -> None:
    """Note how it is."""
    files.write(f"{engine.path(identifier)}/{NAME}", json.dumps(health).encode())


def read(engine: containers.Containers, record: containers.Record) -> dict[str, Any] | None:
    """How it is; None where nobody looks, or ever did. One that has stopped is unhealthy, in docker's words."""
    if not command(record):
        return None
    try:
        found: dict[str, Any] = json.loads(files.read(f"{engine.path(record['id'])}/{NAME}"))
    except FileNotFoundError:
        return None
    return found if record["status"] in containers.LIVE else {**found, "Status": "unhealthy"}


def watch(identifier: str, root: str, parent: str) -> None:
    """Be the watcher, in an interpreter of its own."""
    syscalls.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        return  # it has gone before we could say that we go with it
    os.environ["MINICONTAINER_ROOT"] = root
    engine = containers.Containers(root)
    record = engine.find(identifier)
    said = record["config"]["Healthcheck"]
    check = {name: said.get(name) or value for name, value in DEFAULTS.items()}
    health: dict[str, Any] = {"Status": "starting", "FailingStreak": 0, "Log": []}
    began = time.monotonic()
    while True:
        starting = health["Status"] == "starting" and (time.monotonic() - began) * SECOND < check["StartPeriod"]
        time.sleep(check["StartInterval" if starting else "Interval"] / SECOND)
        starting = starting and (time.monotonic() - began) * SECOND < check["StartPeriod"]
        try:
            result = probe(engine, identifier, command(record), check["Timeout"])
        except errors.Conflict:
            continue  # it is paused
        if result["ExitCode"] and ended(engine, identifier):
            continue  # the check ended with it
        before, health = health, judged(health, result, check["Retries"], starting)
        try:
            write(engine, identifier, health)
        except OSError:
            pass  # a full disk: it is noted with the next result, then
        if health["Status"] != before["Status"]:
            events.write(root, f"health_status: {health['Status']}", record)


def ended(engine: containers.Containers, identifier: str) -> bool:
    """Whether the container has ended, or does just now: a process that is in exit(2) has no program any more."""
    running = engine.running(identifier)
    try:
        return running is None or not os.readlink(f"/proc/{running['pid']}/exe")
    except (FileNotFoundError, ProcessLookupError):
        return True


def judged(health: dict[str, Any], result: dict[str, Any], retries: int, starting: bool) -> dict[str, Any]:
    """How it is after one more result; `starting`, a failure does not count yet."""
    kept = [*health["Log"], result][-KEPT:]
    if result["ExitCode"] == 0:
        return {"Status": "healthy", "FailingStreak": 0, "Log": kept}
    streak = health["FailingStreak"] + (0 if starting else 1)
    status = "unhealthy" if streak >= retries else health["Status"]
    return {"Status": status, "FailingStreak": streak, "Log": kept}


def probe(engine: containers.Containers, identifier: str, words: list[str], timeout: int) -> dict[str, Any]:
    """Run the check once: {"Start", "End", "ExitCode", "Output"}; -1 for what did not begin, or end, in time.

    Raises Conflict where the container is paused, or does not run.
    """
    began, until = log.timestamp(), time.monotonic() + timeout / SECOND
    try:
        code, output = end_of(entering.begin(engine, identifier, words, {}), until)
    except errors.Conflict:
        raise
    except TimeoutError:
        code, output = -1, f"Health check exceeded timeout ({shown(timeout)})".encode()
    except (errors.MiniContainerError, OSError) as error:  # an unknown user, no memory to fork, killed as it began
        code, output = -1, str(error).encode()
    text = output[:LONGEST].decode(errors="replace") + ("..." if len(output) > LONGEST else "")
    return {"Start": began, "End": log.timestamp(), "ExitCode": code, "Output": text}


def end_of(running: session.Session, until: float) -> tuple[int, bytes]:
    """The exit code of a check that runs, and what it wrote. Raises TimeoutError if it has not ended `until` then."""
    output = b""
    try:
        while (left := until - time.monotonic()) > 0 and select.select([running.end], [], [], left)[0]:
            packet, descriptors = channel.receive_packet(running.end)
            if packet[:1] in (b"1", b"2"):
                output = (output + packet[1:])[: LONGEST + 1]
                continue
            message = running.understand(packet, descriptors)
            if "exited" in message:
                return int(message["exited"]), output
        os.kill(running.monitor, signal.SIGKILL)  # its keeper, which takes the command with it
        running.reap()
        raise TimeoutError
    finally:
        running.close()


def shown(nanoseconds: int) -> str:
    """A duration as Go writes it: 1.5s, 500ms, 1m30s."""
    if nanoseconds < SECOND:
        return f"{nanoseconds / 10**6:g}ms"
    minutes, seconds = divmod(nanoseconds / SECOND, 60)
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds:g}s"
