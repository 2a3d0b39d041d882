"""`bench build`: a Dockerfile's steps, beside docker with both its builders, and podman (which is buildah).

    five RUN true    a container and a layer each; nothing from the cache
    all cached       the same again, where nothing has to be done
    20,000 files     COPY of a context of 20,000 small files; nothing from the cache

All build the same Dockerfile on the same image in the same rounds; each has shown before that what it builds has what
it should. Before each run dirty pages are written out, so that nobody pays for another's writing.
"""

from __future__ import annotations

import os
import shutil
from typing import NamedTuple

from ... import errors, host
from .. import measure as measuring
from . import Bar, Group, Report, Workshop, archives, engines, images

STEPS, CACHED, MANY = "five RUN true", "all cached", "20,000 files"
AT_MOST = {STEPS: 0.25, CACHED: 1.0, MANY: 0.5}  # of docker's time
RUNS, WARM_UP = 7, 1


class Builder(NamedTuple):
    """A contestant: its name, and the words that its `build` begins with."""

    name: str
    typed: list[str]


def measure(workshop: Workshop, runs: int) -> Report:
    """See the module."""
    if not host.is_root():
        raise errors.Unsupported("bench build compares with docker and podman as root runs them: sudo")
    runs = runs or RUNS
    report = Report("build", "builds, in seconds")
    report.method = {
        "runs": runs, "warm_up": WARM_UP, "order": "rounds, shuffled", "seed": measuring.SEED, "before": "sync",
    }  # fmt: skip
    base = f"localhost/{workshop.tag}-base:latest"
    made = f"localhost/{workshop.tag}-built:latest"
    few, many = contexts(workshop, base)
    found = contestants(workshop, report, base, made, few)
    for title, context, flags in ((STEPS, few, ["--no-cache"]), (CACHED, few, []), (MANY, many, ["--no-cache"])):
        workshop.tell(f"{title}: {len(found)} contestants, {WARM_UP} round to warm up, {runs} that count")
        timed = {each.name: images.timer([*each.typed, "-t", made, *flags, context]) for each in found}
        prepare = {each.name: os.sync for each in found}
        figures = measuring.interleave(timed, runs, WARM_UP, prepare, images.progress(workshop))
        report.groups.append(Group(title, "minicontainer", figures, "s", 1.0))
        for each in found:
            if each.name.startswith("docker"):
                report.bars.append(Bar(title, "minicontainer", each.name, AT_MOST[title], AT_MOST[title]))
    return report


def contexts(workshop: Workshop, base: str) -> tuple[str, str]:
    """The two directories that are built, and the archive of what they stand on."""
    tree, layer = f"{workshop.folder}/tree", f"{workshop.folder}/layer.tar"
    archives.busybox_tree(tree)
    archives.pack(tree, layer)
    archives.archive(f"{workshop.folder}/base.tar", layer, base, ["sh"])
    shutil.rmtree(tree)
    few, many = f"{workshop.folder}/few", f"{workshop.folder}/many"
    os.mkdir(few)
    archives.small_files(f"{many}/srv", 20_000)
    with open(f"{few}/Dockerfile", "w") as file:
        file.write(f"FROM {base}\n" + "".join(f"RUN true {number}\n" for number in range(5)))
    with open(f"{many}/Dockerfile", "w") as file:
        file.write(f"FROM {base}\nCOPY . /context\n")
    return few, many


def contestants(workshop: Workshop, report: Report, base: str, made: str, context: str) -> list[Builder]:
    """Who can take part, ours first: each has the base image, and has built an image of five layers more."""
    found: list[Builder] = []
    for engine in (engines.Minicontainer(), engines.Docker(), engines.Podman()):
        workshop.tell(f"{engine.name}: does it build?")
        try:
            version = engine.prepare(workshop, f"{workshop.folder}/base.tar", base)
            ways = [Builder(engine.name, [*engine.typed, "build", "-q"])]
            if engine.name == "docker":
                ways = [
                    Builder(name, ["env", f"DOCKER_BUILDKIT={given}", *engine.typed, "build", "-q"])
                    for name, given in (("docker", 0), ("docker buildkit", 1))
                ]
            for each in ways:
                try:
                    engines.said([*each.typed, "-t", made, "--no-cache", context])
                    found.append(each)
                except engines.Unfit as reason:  # docker's other builder may need a plugin that is not here
                    if each is ways[0]:
                        raise
                    report.skipped.append((each.name, str(reason)))
        except engines.Unfit as reason:
            if isinstance(engine, engines.Minicontainer):
                raise
            report.skipped.append((engine.name, str(reason)))
            continue
        workshop.at_end(f"remove {engine.name}'s images", images.leftovers(workshop, engine.typed))
        report.facts.append(f"{engine.name}: {version}")
    return found
