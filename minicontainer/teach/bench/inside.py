"""The same Python program, native and in containers: what cpu, memory, syscalls, disk and network are measured with.

The image is a tree of empty directories. The host's own /usr (and /bin, /lib …, where they are no links into it) is
bound into it read-only, so the same interpreter with the same libraries runs on either side, and what differs is the
container. The program takes its own time: neither the container's start nor Python's is in the figures.

    prepare(workshop, report)   who takes part: each engine that runs `python3` from that image
    rounds(commands, runs, …)   each command once per round, shuffled; each prints its figures as one JSON object
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from ... import errors
from .. import measure
from . import Report, Workshop, archives, engines

PYTHON = os.path.realpath(sys.executable)
DIRECTORIES = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
LOWER_BYTES = 16 << 20

# Before every program: the clock, and how figures are told.
PRELUDE = """\
import json, os, sys
from time import perf_counter as now
def tell(**figures): print(json.dumps(figures), flush=True)
"""


def python(program: str, *arguments: str) -> list[str]:
    """The program as a command, for either side. -IS: no site, no $PYTHON…"""
    return [PYTHON, "-IS", "-c", PRELUDE + program, *arguments]


def binds() -> list[str]:
    """`-v` for each directory of the host that the interpreter lives in."""
    places = [path for path in DIRECTORIES if os.path.isdir(path) and not os.path.islink(path)]
    if not PYTHON.startswith("/usr/"):
        places.append(os.path.realpath(sys.base_prefix))
    return [word for path in places for word in ("-v", f"{path}:{path}:ro")]


def tree(path: str) -> None:
    """The image's tree: mount points, the host's links, and one file of 16 MiB for `disk` to find on a lower layer."""
    for directory in ("proc", "dev", "sys", "tmp", "etc", "work", "mnt"):
        os.makedirs(f"{path}/{directory}")
    for place in DIRECTORIES:
        if os.path.islink(place):
            os.symlink(os.readlink(place), path + place)
        elif os.path.isdir(place):
            os.makedirs(path + place)
    with open(f"{path}/work/lower", "wb") as file:
        file.write(os.urandom(LOWER_BYTES))


def prepare(workshop: Workshop, report: Report, peers: bool = True) -> list[engines.Engine]:
    """The engines that can run Python from the image, ours first; the others are skipped by name."""
    image = f"localhost/{workshop.tag}:latest"
    workshop.tell("making an image of empty directories")
    tree(f"{workshop.folder}/tree")
    archives.pack(f"{workshop.folder}/tree", f"{workshop.folder}/layer.tar")
    archives.archive(f"{workshop.folder}/image.tar", f"{workshop.folder}/layer.tar", image, ["python3"])
    able: list[engines.Engine] = []
    everyone: list[Callable[[], engines.Engine]] = [engines.Minicontainer]
    if peers:
        everyone += [engines.Docker, engines.Podman]
    for make in everyone:
        engine = make()
        workshop.tell(f"{engine.name}: does it run the same Python?")
        try:
            version = engine.prepare(workshop, f"{workshop.folder}/image.tar", image)
            said = engines.said(engine.command("none", python("tell(version=sys.version)"), binds()))
        except engines.Unfit as reason:
            if isinstance(engine, engines.Minicontainer):
                raise
            report.skipped.append((engine.name, str(reason)))
            continue
        if json.loads(said)["version"] != sys.version:
            raise errors.MiniContainerError(f"{engine.name} runs another Python than the host's")
        report.facts.append(f"measured as minicontainer: {version} run --rm" if not able else version)
        able.append(engine)
    return able


def rounds(
    workshop: Workshop,
    report: Report,
    commands: Mapping[str, Sequence[str]],
    runs: int,
    warm_up: int = 1,
    prepare: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, dict[str, list[float]]]:
    """figure → name → its values, one a round. A command that fails in a first try is skipped, by name."""
    told: list[dict[str, float]] = []

    def contestant(command: Sequence[str]) -> measure.Timed:
        def once() -> float:
            told.append(json.loads(engines.said(command)))
            return len(told) - 1  # where its figures are

        return once

    timed: dict[str, measure.Timed] = {}
    for name, command in commands.items():
        try:
            if prepare and name in prepare:
                prepare[name]()
            engines.said(command)
            timed[name] = contestant(command)
        except engines.Unfit as reason:
            if name in ("native", "minicontainer"):
                raise
            report.skipped.append((name, str(reason)))
    workshop.tell(f"{len(timed)} contestants, {warm_up} rounds to warm up, {runs} that count")
    places = measure.interleave(
        timed, runs, warm_up, prepare, lambda done, all_: workshop.tell(f"round {done} of {all_}")
    )
    found: dict[str, dict[str, list[float]]] = {}
    for name, numbers in places.items():
        for number in numbers:
            for figure, value in told[int(number)].items():
                found.setdefault(figure, {}).setdefault(name, []).append(value)
    report.method = {"runs": runs, "warm_up": warm_up, "order": "rounds, shuffled", "seed": measure.SEED}
    return found
