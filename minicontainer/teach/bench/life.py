"""`bench life`: what it costs that containers live on: `run -d`, `exec`, `ps` of many, memory, the 300th start.

Five questions, beside docker where it is there. Memory is PSS (proc_pid_smaps(5)) of the process that stays beside a
container: our monitor, docker's shim; docker's daemons, which we have none of, are not counted. What runs in the
containers is `sleep`, which says in the log that it is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ...engine import client
from .. import measure as measuring
from . import Bar, Group, Report, Workshop, archives, density, engines

RUNS, WARM_UP = 20, 2
LISTED = 500  # containers that `ps` shows
CROWD = 300  # containers at once
PEERS = 20  # of docker's: its shims are all alike
EDGE = 30  # of the crowd: the first so many, and the last

SLEEP = ["sleep", "100000"]


def measure(workshop: Workshop, runs: int) -> Report:
    """See the module. `runs` is the number of rounds; the numbers of containers stay."""
    runs = runs or RUNS
    report = Report("life", "containers that live on")
    image = f"localhost/{workshop.tag}:latest"
    workshop.tell("making an image from the static busybox")
    archives.busybox_tree(f"{workshop.folder}/tree")
    archives.pack(f"{workshop.folder}/tree", f"{workshop.folder}/layer.tar")
    archives.archive(f"{workshop.folder}/image.tar", f"{workshop.folder}/layer.tar", image, ["sh"])
    contestants: list[engines.Minicontainer | engines.Docker] = []
    for engine in (engines.Minicontainer(), engines.Docker()):
        try:
            report.facts.append(f"{engine.name}: {engine.prepare(workshop, f'{workshop.folder}/image.tar', image)}")
            contestants.append(engine)
        except engines.Unfit as reason:
            if isinstance(engine, engines.Minicontainer):
                raise
            report.skipped.append((engine.name, str(reason)))
    words = {engine.name: engine.typed for engine in contestants}
    workshop.at_end("remove our containers", lambda: clear(words["minicontainer"], image))

    workshop.tell(f"run -d, {runs} rounds")
    detached = {name: timed_run(typed, image) for name, typed in words.items()}
    report.groups.append(Group("run -d", "minicontainer", measuring.interleave(detached, runs, WARM_UP)))

    workshop.tell(f"exec, {runs} rounds")
    entered = {name: timed_exec(typed, engines.said([*typed, "run", "-d", image, *SLEEP]).strip())
               for name, typed in words.items()}  # fmt: skip
    report.groups.append(Group("exec", "minicontainer", measuring.interleave(entered, runs, WARM_UP)))
    for typed in words.values():
        clear(typed, image)

    workshop.tell(f"making {LISTED} containers each")
    ours = client.Client(workshop.root).containers
    for _ in range(LISTED):
        ours.create(image, SLEEP, network_mode="none")
    for typed in list(words.values())[1:]:
        for number in range(LISTED):
            engines.said([*typed, "create", "--network", "none", image, *SLEEP])
            workshop.tell(f"round {number + 1} of {LISTED}")
    listing = {name: lister([*typed, "ps", "-a"]) for name, typed in words.items()}
    report.groups.append(Group(f"ps -a of {LISTED}", "minicontainer", measuring.interleave(listing, runs, WARM_UP)))
    for typed in words.values():
        clear(typed, image)

    took, weights = crowd(workshop, words["minicontainer"], image, CROWD)
    memory = {"minicontainer": weights[:: CROWD // PEERS][:PEERS]}  # weighed while all of them run
    if "docker" in words:
        workshop.tell(f"{PEERS} of docker's")
        memory["docker"] = crowd(workshop, words["docker"], image, PEERS)[1]
        clear(words["docker"], image)
    report.groups.append(Group("what stays beside an idle one (PSS)", "minicontainer", memory, "MiB", 1 / (1 << 20)))
    first, last = f"1 to {EDGE}", f"{CROWD - EDGE + 1} to {CROWD}"
    report.groups.append(
        Group(f"run -d, of {CROWD} at once", last, {first: took[:EDGE], last: took[-EDGE:]}, reference=first)
    )
    report.bars += [
        Bar("run -d", "minicontainer", "docker", 0.30, 0.20),
        Bar("exec", "minicontainer", "docker", 0.70, 0.55),
        Bar(f"ps -a of {LISTED}", "minicontainer", "docker", 1.5, 1.0),
        Bar("what stays beside an idle one (PSS)", "minicontainer", "docker", 0.50, 0.35),
        Bar(f"run -d, of {CROWD} at once", last, first, 1.2, 1.1),
    ]
    report.method = {"runs": runs, "warm_up": WARM_UP, "listed": LISTED, "crowd": CROWD, "of docker's": PEERS}
    return report


def timed_run(typed: list[str], image: str) -> measuring.Timed:
    """`run -d` on the bridge; the container is removed when the clock has stopped."""

    def once() -> float:
        began = time.monotonic()
        identifier = engines.said([*typed, "run", "-d", image, *SLEEP]).strip()
        ended = time.monotonic()
        engines.said([*typed, "rm", "-f", identifier])
        return ended - began

    return once


def timed_exec(typed: list[str], identifier: str) -> measuring.Timed:
    """`exec … true` in a container that runs, the whole command."""

    def once() -> float:
        began = time.monotonic()
        engines.said([*typed, "exec", identifier, "true"])
        return time.monotonic() - began

    return once


def lister(command: list[str]) -> measuring.Timed:
    """`ps`, which must show them all."""

    def once() -> float:
        began = time.monotonic()
        lines = engines.said(command).splitlines()
        ended = time.monotonic()
        if len(lines) <= LISTED:
            raise engines.Unfit(f"{command[0]} ps shows {len(lines) - 1} containers of {LISTED}")
        return ended - began

    return once


def crowd(workshop: Workshop, typed: list[str], image: str, count: int) -> tuple[list[float], list[float]]:
    """Start so many at once: how long each took, and what the process beside each weighs, in bytes."""
    parents: Callable[[str], int] = parent_of_ours if typed != ["docker"] else parent_of_dockers
    took, identifiers = [], []
    for number in range(count):
        began = time.monotonic()
        identifiers.append(engines.said([*typed, "run", "-d", image, *SLEEP]).strip())
        took.append(time.monotonic() - began)
        workshop.tell(f"round {number + 1} of {count}")
    workshop.tell("weighing")
    time.sleep(3)  # a monitor shrinks when its container has run for a second
    return took, [density.pss(parents(identifier)) for identifier in identifiers]


def parent_of_ours(identifier: str) -> int:
    """The monitor of one of our containers."""
    running = client.Client().containers.running(identifier)
    return parent(running["pid"]) if running else 0


def parent_of_dockers(identifier: str) -> int:
    """The shim of one of docker's containers."""
    return parent(int(engines.said(["docker", "inspect", "-f", "{{.State.Pid}}", identifier])))


def parent(process: int) -> int:
    """proc_pid_stat(5), field 4."""
    with open(f"/proc/{process}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def clear(typed: list[str], image: str) -> None:
    """Remove the bench's containers: all of our private store, and of docker's those of the bench's image."""
    filters = ["--filter", f"ancestor={image}"] if typed == ["docker"] else []
    left = engines.said([*typed, "ps", "-aq", *filters]).split()
    for begin in range(0, len(left), 50):
        engines.said([*typed, "rm", "-f", *left[begin : begin + 50]])
