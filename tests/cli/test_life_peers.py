"""The life of containers, typed to us and to a real docker side by side: the same exit codes, the same output.

Normalised, and nothing else: ids, how long ago something was, blanks between columns, and the words of refusals, of
which only that there are some is compared.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import engine_fixtures
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.slow]

LISTENS = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"

# One line each, as typed behind `docker` or `minicontainer`. `@ready NAME` waits until it has written that word, with a
# number, so many times: before that, its handler of SIGTERM is not there yet.
TRANSCRIPT = [
    ["run", "--rm", "demo", "sh", "-c", "echo out; echo err >&2; exit 3"],
    ["run", "--rm", "demo", "nosuch"],
    ["run", "--rm", "demo", "/etc"],
    ["run", "--name", "failed", "demo", "nosuch"],
    ["ps", "-a"],
    ["rm", "failed"],
    ["run", "-d", "--rm", "demo", "nosuch"],
    ["run", "-d", "--rm", "demo", "/etc"],
    ["ps", "-aq"],
    ["run", "--rm", "-a", "stdout", "demo", "sh", "-c", "echo out; echo err >&2; exit 3"],
    ["run", "--rm", "-a", "STDERR", "demo", "sh", "-c", "echo out; echo err >&2; exit 3"],
    ["run", "--rm", "-i", "-a", "stdin", "demo", "sh", "-c", "cat; echo out; exit 3"],
    ["run", "--rm", "-a", "nosuch", "demo", "true"],
    ["run", "--name", "noted", "--log-opt", "labels=a,made,x", "--log-opt", "env=E,SHAPE", "-l", "a=b c", "-e", "E=f,g",
     "demo", "sh", "-c", "echo out; echo err >&2"],
    ["logs", "--details", "noted"],
    ["logs", "--details", "-t", "noted"],
    ["rm", "noted"],
    ["run", "-d", "--name", "web", "--network", "none", "demo", "sh", "-c", LISTENS],
    ["@ready", "web"],
    ["ps"],
    ["ps", "-q"],
    ["container", "ls", "-a"],
    ["logs", "web"],
    ["logs", "--details", "web"],
    ["logs", "--tail", "0", "web"],
    ["logs", "--tail", "1", "-t", "web"],
    ["logs", "nosuch"],
    ["port", "web"],
    ["exec", "web", "echo", "x"],
    ["exec", "-e", "A=1", "-w", "/tmp", "-u", "alice", "web", "sh", "-c", "echo $A; pwd; id"],
    ["exec", "web", "sh", "-c", "exit 3"],
    ["exec", "web", "sh", "-c", "kill -9 $$"],
    ["exec", "web", "/etc"],
    ["exec", "web", "/opt/plain"],
    ["exec", "-u", "nobodyx", "web", "true"],
    ["exec", "-w", "/no/such", "web", "true"],
    ["exec", "nosuch", "true"],
    ["exec", "web"],
    ["exec", "--nosuch", "web", "true"],
    ["exec", "-d", "web", "true"],
    ["exec", "-d", "web", "nosuch"],
    ["exec", "-it", "web", "true"],
    ["exec", "web", "sh", "-c", "echo x >/new; rm /opt/noise"],
    ["diff", "nosuch"],
    ["export", "nosuch"],
    ["top", "nosuch"],
    ["top", "web", "-o", "user"],
    ["commit", "nosuch"],
    ["commit", "-c", "RUN x", "web"],
    ["commit", "-m", "words", "-c", 'CMD ["cat", "/new"]', "web", "made:1"],
    ["run", "--rm", "made:1"],
    ["run", "--rm", "made:1", "cat", "/opt/noise"],
    ["cp", "nosuch:/x", "."],
    ["cp", "web:/nosuch", "."],
    ["cp", "web:/a", "web:/b"],
    ["rename", "web", "other"],
    ["rename", "web", "again"],
    ["pause", "other"],
    ["pause", "other"],
    ["ps"],
    ["start", "other"],
    ["exec", "other", "true"],
    ["unpause", "other"],
    ["unpause", "other"],
    ["kill", "-s", "WINCH", "other"],
    ["kill", "-s", "NOSUCH", "other"],
    ["rm", "other"],
    ["stop", "other"],
    ["stop", "other"],
    ["kill", "other"],
    ["pause", "other"],
    ["attach", "other"],
    ["exec", "other", "true"],
    ["top", "other"],
    ["ps"],
    ["ps", "-a"],
    ["logs", "other"],
    ["start", "other"],
    ["start", "other"],
    ["@ready", "other", "2"],
    ["restart", "-t", "5", "other"],
    ["@ready", "other", "3"],
    ["stop", "-t", "5", "other"],
    ["wait", "other"],
    ["wait", "nosuch"],
    ["logs", "other"],
    ["start", "nosuch"],
    ["rm", "other"],
    ["create", "--name", "kept", "demo", "sh", "-c", "echo x >>/kept; wc -l </kept"],
    ["ps", "-a"],
    ["start", "-a", "kept"],
    ["start", "-a", "kept"],
    ["start", "-ai", "kept"],
    ["logs", "kept"],
    ["run", "-d", "--name", "kept", "demo", "true"],
    ["run", "-d", "--rm", "--name", "brief", "--network", "none", "demo", "sleep", "60"],
    ["rm", "-f", "brief"],
    ["run", "-d", "--name", "failing", "demo", "nosuch"],
    ["run", "-d", "--name", "again", "--restart", "on-failure:1", "demo", "sh", "-c", "echo run; exit 3"],
    ["run", "--rm", "--restart", "always", "demo", "true"],
    ["run", "-d", "--restart", "sometimes", "demo", "true"],
    ["rm", "nosuch"],
    ["rm", "-f", "nosuch"],
    ["stop", "nosuch"],
    ["kill", "nosuch"],
    ["attach", "nosuch"],
    ["@ready", "again"],
    ["container", "prune", "-f"],
    ["ps", "-aq"],
]  # fmt: skip


@pytest.fixture
def docker_with_demo(docker: list[str], tmp_path: Path) -> Iterator[list[str]]:
    """docker with the same image."""
    archive = tmp_path / "images.tar"
    archive.write_bytes(engine_fixtures.archive(engine_fixtures.images()))
    subprocess.run([*docker, "load", "-q", "-i", archive], check=True, capture_output=True)
    yield docker
    left = subprocess.run([*docker, "ps", "-aq"], capture_output=True, text=True).stdout.split()
    if left:
        subprocess.run([*docker, "rm", "-f", "-v", *left], capture_output=True)


def typed(engine: list[str], words: list[str]) -> tuple[int, str, bool]:
    """Exit code, normalised output, and whether there were complaints."""
    if words[0] == "@ready":
        name, times = words[1], int(words[2]) if len(words) > 2 else words[1] == "web"
        with subprocess.Popen([*engine, "logs", "-f", name], stdout=subprocess.PIPE, text=True) as follower:
            assert follower.stdout is not None
            seen = 0
            while seen < times and (line := follower.stdout.readline()):
                seen += "ready" in line
            assert seen == times
            if times:
                follower.kill()
        if not times:
            subprocess.run([*engine, "wait", name], capture_output=True)
        return 0, "", False
    done = subprocess.run([*engine, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    output, complaint = done.stdout, bool(done.stderr)
    if re.match("OCI runtime exec failed|unable to find user", output):  # docker says so on its standard output
        output, complaint = "", True
    return done.returncode, normal(output), complaint


def normal(text: str) -> str:
    """Without what differs from start to start."""
    text = re.sub(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b", "ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    text = re.sub(r"(Less than a second|About a minute|\d+ (seconds?|minutes))", "AGE", text)
    text = re.sub(r"Total reclaimed space: .*", "Total reclaimed space: SIZE", text)
    return re.sub(r" {2,}", "  ", text)


OURS = [sys.executable, "-m", "minicontainer"]


def test_health_is_told_the_same(shop: Shop, docker_with_demo: list[str]) -> None:
    """From starting over healthy to unhealthy, and stopped; how often they have looked by then is a matter of time."""
    try:
        theirs, here = health_of(docker_with_demo), health_of(OURS)
    finally:
        subprocess.run([*OURS, "rm", "-f", "-v", "web", "slow"], capture_output=True)
    assert here == theirs


def health_of(engine: list[str]) -> list[Any]:
    """What is told of a container that is well and one that nobody has looked at yet."""
    told: list[Any] = []
    began = str(time.time())
    run = [*engine, "run", "-d", "--network", "none"]
    check = ["--health-cmd", "test -e /tmp/well && echo yes", "--health-interval", "100ms", "--health-retries", "2"]
    subprocess.run([*run, "--name", "slow", *check, "--health-interval", "1h", "demo", "sleep", "600"], check=True)
    subprocess.run([*run, "--name", "web", *check, "demo", "sleep", "600"], check=True)
    told += [shown(engine, "slow"), health(engine, "slow")]
    told.append(typed(engine, ["inspect", "-f", "{{json .Config.Healthcheck}} {{.State.Health.Status}}", "slow"]))
    for change, status in (("touch", "healthy"), ("rm", "unhealthy"), ("touch", "healthy")):
        subprocess.run([*engine, "exec", "web", change, "/tmp/well"], check=True)
        told += [until_healthy(engine, status), shown(engine, "web")]
        told.append(typed(engine, ["ps", "--format", "{{.Names}}", "--filter", f"health={status}"]))
    subprocess.run([*engine, "stop", "-t", "0", "web"], check=True)
    told += [shown(engine, "web"), health(engine, "web")["Status"]]
    told.append(typed(engine, ["ps", "-a", "--format", "{{.Names}}", "--filter", "health=unhealthy"]))
    changes = ["events", "--since", began, "--until", str(time.time()), "-f", "event=health_status"]
    told.append([line.split(" ", 1)[1] for line in typed(engine, changes)[1].splitlines()])
    # Whether it was found unhealthy before anybody made it well is a matter of time.
    if told[-1] and "unhealthy" in told[-1][0]:
        told[-1].pop(0)
    return told


def test_events_are_the_same(shop: Shop, docker_with_demo: list[str]) -> None:
    """But for those of networks, and of processes that `exec` starts."""
    try:
        theirs, here = events_of(docker_with_demo), events_of(OURS)
    finally:
        subprocess.run([*OURS, "rm", "-f", "-v", "seen"], capture_output=True)
    assert "\n".join(here) == "\n".join(theirs)


def events_of(engine: list[str]) -> list[str]:
    """What is told of containers that somebody looks on."""
    began = str(time.time())
    run = ["run", "--rm", "--name", "seen", "demo"]
    for words in ([*run, "true"], [*run, "nosuch"],
                  ["create", "--name", "seen", "demo", "sh", "-c", "exit 3"], ["start", "-a", "seen"], ["rm", "seen"],
                  ["run", "-d", "--name", "seen", "demo", "sleep", "600"], ["pause", "seen"], ["unpause", "seen"],
                  ["rename", "seen", "other"], ["rename", "other", "seen"], ["kill", "seen"], ["wait", "seen"],
                  ["start", "seen"], ["stop", "-t", "0", "seen"], ["restart", "-t", "0", "seen"],
                  ["update", "-m", "64m", "--memory-swap", "64m", "seen"], ["rm", "-f", "seen"]):  # fmt: skip
        subprocess.run([*engine, *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    told = typed(engine, ["events", "--since", began, "--until", str(time.time()), "-f", "type=container"])[1]
    return [line for line in told.splitlines() if "exec_" not in line]


def shown(engine: list[str], name: str) -> str:
    """Its status as `ps` has it."""
    words = ["ps", "-a", "--format", "{{.Status}}", "--filter", f"name={name}"]
    return re.sub(r"(Up|ago) .*?(?=\(|$)", r"\1 ", typed(engine, words)[1].replace("AGE", ""))


def health(engine: list[str], name: str) -> dict[str, Any]:
    """What `inspect` has of it, as a program reads it."""
    found: dict[str, Any] = json.loads(typed(engine, ["inspect", "-f", "{{json .State.Health}}", name])[1])
    return found


def until_healthy(engine: list[str], status: str) -> dict[str, Any]:
    """The shape of it once it is so: its keys, in their order, and the last result."""
    patience = time.monotonic() + 30
    while (found := health(engine, "web"))["Status"] != status:
        assert time.monotonic() < patience, found
    last = found["Log"][-1]
    # Of one that is unhealthy, the streak goes on.
    streak = min(found["FailingStreak"], 2)
    return {"keys": [*found, *last], "streak": streak, "code": last["ExitCode"], "output": last["Output"]}


def test_the_transcripts_are_the_same(shop: Shop, docker_with_demo: list[str]) -> None:
    ours = [sys.executable, "-m", "minicontainer"]
    different = []
    try:
        for words in TRANSCRIPT:
            theirs, here = typed(docker_with_demo, words), typed(ours, words)
            if theirs != here:
                different.append((" ".join(words), theirs, here))
    finally:
        shop.end_all()
        left = subprocess.run([*ours, "ps", "-aq"], capture_output=True, text=True).stdout.split()
        if left:
            subprocess.run([*ours, "rm", "-f", "-v", *left], capture_output=True)
    assert not different, "\n".join(f"{words}\n  {theirs}\n  {here}" for words, theirs, here in different)
