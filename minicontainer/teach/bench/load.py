"""`bench load`: how long a Debian image takes from an archive into the store, unpacked and ready to run.

All engines load the same docker-archive, which docker itself wrote where it is here. Before each run the image is
removed by the engine's own means and what is dirty is written out, so that nobody pays for another's writing. The
archive is in the page cache for all: what is compared is reading tar, hashing and making files, not the disk's seek.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from ... import errors, host
from ...image import removal, store
from .. import measure as measuring
from . import Bar, Group, Report, Workshop, cache, engines, images

# The bar: how much of `docker load`'s time ours may take.
AT_MOST = AIM = 0.40
RUNS, WARM_UP = 9, 1


def measure(workshop: Workshop, runs: int) -> Report:
    """See the module."""
    if not host.is_root():
        raise errors.Unsupported("bench load compares with docker and podman as root runs them: sudo")
    runs = runs or RUNS
    report = Report("load", "a Debian image, from an archive to ready to run, in seconds")
    image = f"localhost/{workshop.tag}:latest"
    archive = debian(workshop, image, report)

    timed: dict[str, measuring.Timed] = {}
    before: dict[str, Callable[[], object]] = {}
    for engine in (engines.Minicontainer(), engines.Docker(), engines.Podman()):
        workshop.tell(f"{engine.name}: does it load, and run?")
        try:
            report.facts.append(engine.prepare(workshop, archive, image))
            said = engine.output("none", ["sh", "-c", "cat /etc/os-release; ls /usr/bin | wc -l"])
        except engines.Unfit as reason:
            if isinstance(engine, engines.Minicontainer):
                raise
            report.skipped.append((engine.name, str(reason)))
            continue
        if 'NAME="' not in said or int(said.split()[-1]) < 100:
            raise errors.MiniContainerError(f"{engine.name} loaded something that is no Debian")
        if isinstance(engine, engines.Docker):
            command = [engine.program, "load", "-q", "-i", archive]
            before[engine.name] = settled(engine.remove, archive)
        else:
            command = [*engine.typed, "load", "-q", "-i", archive]
            before[engine.name] = settled(lambda: forget(workshop, image), archive)
        timed[engine.name] = timer(command)
    report.facts[0] = f"timed as minicontainer: {report.facts[0]} load -q -i"

    workshop.tell(f"{len(timed)} contestants, {WARM_UP} round to warm up, {runs} that count")
    figures = measuring.interleave(
        timed, runs, WARM_UP, before, lambda done, all_: workshop.tell(f"round {done} of {all_}")
    )
    report.groups.append(Group("load", "minicontainer", figures, "s", 1.0))
    report.bars.append(Bar("load", "minicontainer", "docker", AT_MOST, AIM))
    report.method = {
        "runs": runs,
        "warm_up": WARM_UP,
        "order": "rounds, shuffled",
        "seed": measuring.SEED,
        "archive_bytes": os.stat(archive).st_size,
        "before": "image removed, sync, archive read into the page cache",
    }
    return report


def timer(command: list[str]) -> measuring.Timed:
    """One run of the command."""
    return lambda: measuring.spent(command)


def settled(remove: Callable[[], object], archive: str) -> Callable[[], None]:
    """What happens before each run: the image goes, dirty pages go to the disk, the archive comes into memory."""

    def prepare() -> None:
        remove()
        os.sync()
        with open(archive, "rb", buffering=0) as file:
            while file.read(1 << 20):
                pass

    return prepare


def forget(workshop: Workshop, image: str) -> None:
    """Our `rmi`."""
    images = store.Store(workshop.root)
    try:
        removal.remove(images, image)
    except errors.ImageNotFound:
        return


def debian(workshop: Workshop, image: str, report: Report) -> str:
    """The archive: a Debian by debootstrap, kept for the next bench; saved by docker itself, if it is here."""
    layer = f"{cache()}/debian-layer.tar"
    if not os.path.exists(layer):
        tree = f"{workshop.folder}/debian"
        images.debian_tree(tree, workshop.tell)
        images.pack(tree, f"{layer}.tmp")
        os.rename(f"{layer}.tmp", layer)
        shutil.rmtree(tree)
    path = f"{workshop.folder}/image.tar"
    images.archive(path, layer, image, ["bash"])
    docker = engines.Docker()
    try:
        docker.prepare(workshop, path, image)
        engines.said([docker.program, "save", "-o", f"{path}.docker", image])
    except engines.Unfit:
        writer = "written by hand"
    else:
        os.rename(f"{path}.docker", path)
        writer = "written by docker save"
    report.title += f" (archive of {os.stat(path).st_size / 1e6:.0f} MB, {writer})"
    return path
