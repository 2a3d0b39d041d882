"""`bench images`: load, save, push, commit and pull, of a Debian and of 20,000 small files; and how much memory.

    load     a docker-archive, which docker itself wrote where it is here
    save     the loaded image, to a file
    push     the same, to a registry of the bench's own, which has forgotten all that it had
    commit   a container that has copied what is in the image into a layer of its own
    pull     what docker has pushed, from that registry

All engines do the same to the same image in the same rounds. Before each run whatever the last one made is removed by
the engine's own means and dirty pages are written out, so that nobody pays for another's writing. Archives are in the
page cache for all: what is compared is reading, hashing and making files, not the disk's seek.

Memory is the most that the command's process had in RAM (VmHWM, proc_pid_status(5)) with a layer of a gigabyte.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from typing import NamedTuple

from ... import errors, host
from .. import measure as measuring
from . import Bar, Group, Report, Workshop, archives, engines

# The bars: how much of docker's time ours may take; bytes of memory.
FASTER, AS_FAST = 0.40, 0.60
AT_MOST = {"load": FASTER, "save": AS_FAST, "push": AS_FAST, "commit": AS_FAST, "pull": FASTER}
MEMORY, LAYER = 150e6, 10**9
RUNS, WARM_UP = 5, 1
MANY = 20_000


class Subject(NamedTuple):
    """An image: what it is in words, its archive, a command that tells how much is in it, and how many lines that are;
    what a container does before it is committed."""

    title: str
    path: str
    name: str
    shows: str
    least: int
    copies: str


class Contestant(NamedTuple):
    """An engine: the words that its commands begin with, and the flags for a registry without encryption."""

    name: str
    typed: list[str]
    plain: list[str]


def measure(workshop: Workshop, runs: int) -> Report:
    """See the module."""
    if not host.is_root():
        raise errors.Unsupported("bench images compares with docker and podman as root runs them: sudo")
    runs = runs or RUNS
    report = Report("images", "images, in and out, in seconds")
    registry = Registry(workshop)
    report.method = {
        "runs": runs, "warm_up": WARM_UP, "order": "rounds, shuffled", "seed": measuring.SEED,
        "before": "what the last run made removed, sync, archive read into the page cache",
    }  # fmt: skip
    for subject in (make(workshop) for make in SUBJECTS):
        report.method[f"archive_bytes, {subject.title}"] = os.stat(subject.path).st_size
        compare(workshop, report, runs, registry, subject)
    weigh(workshop, report, registry)
    return report


# What is compared ---------------------------------------------------------------------------------------------------


def debian(workshop: Workshop) -> Subject:
    """A Debian by debootstrap, kept for the next bench."""
    name, path = f"localhost/{workshop.tag}-debian:latest", f"{workshop.folder}/debian.tar"
    archives.archive(path, archives.debian_layer(workshop), name, ["bash"])
    return Subject("Debian", path, name, "cat /etc/os-release; ls /usr/bin", 100, "cp -a /usr /copy")


def small_files(workshop: Workshop) -> Subject:
    """A busybox with 20,000 files of a kilobyte or so, a hundred to a directory."""
    name, path = f"localhost/{workshop.tag}-files:latest", f"{workshop.folder}/files.tar"
    tree, layer = f"{workshop.folder}/tree", f"{workshop.folder}/layer.tar"
    archives.busybox_tree(tree)
    archives.small_files(f"{tree}/srv", MANY)
    archives.pack(tree, layer)
    archives.archive(path, layer, name, ["sh"])
    shutil.rmtree(tree)
    os.unlink(layer)
    title = f"{MANY // 1000},000 files"
    return Subject(title, path, name, "find /srv -type f", MANY, "cp -a /srv /copy")


SUBJECTS = (debian, small_files)


def compare(workshop: Workshop, report: Report, runs: int, registry: Registry, subject: Subject) -> None:
    """All verbs with one image."""
    found = contestants(workshop, report, subject)
    remote = f"{registry.host}/{workshop.tag}:latest"
    out = f"{workshop.folder}/out.tar"
    committed = f"localhost/{workshop.tag}-committed:latest"

    def take(verb: str, words: dict[str, list[str]], before: Callable[[list[str]], object]) -> None:
        title = f"{verb}, {subject.title}"
        workshop.tell(f"{title}: {len(found)} contestants, {WARM_UP} round to warm up, {runs} that count")
        timed = {each.name: timer([*each.typed, *words[each.name]]) for each in found}
        prepare = {each.name: settled(before, each.typed) for each in found}
        tell = progress(workshop)
        figures = measuring.interleave(timed, runs, WARM_UP, prepare, tell)
        report.groups.append(Group(title, "minicontainer", figures, "s", 1.0))
        report.bars.append(Bar(title, "minicontainer", "docker", AT_MOST[verb], AT_MOST[verb]))

    def same(*words: str) -> dict[str, list[str]]:
        return {each.name: list(words) for each in found}

    def before_load(typed: list[str]) -> None:
        gone(typed, subject.name)
        with open(subject.path, "rb", buffering=0) as file:
            while file.read(1 << 20):
                pass

    take("load", same("load", "-q", "-i", subject.path), before_load)
    take("save", same("save", "-o", out, subject.name), lambda _: remove_file(out))
    for each in found:
        engines.said([*each.typed, "tag", subject.name, remote])
    pushing = {each.name: ["push", "-q", *each.plain, remote] for each in found}
    take("push", pushing, lambda _: registry.forget())
    for each in found:
        engines.said([*each.typed, "run", "--name", container(workshop), "--network", "none", subject.name, "sh", "-c",
                      subject.copies])  # fmt: skip
    take("commit", same("commit", container(workshop), committed), lambda typed: gone(typed, committed))
    for each in found:
        engines.said([*each.typed, "rm", container(workshop)])
        gone(each.typed, committed)
    registry.forget()
    writer = found[:2][-1]
    engines.said([*writer.typed, *pushing[writer.name]])
    for each in found:
        gone(each.typed, subject.name)
    pulling = {each.name: ["pull", "-q", *each.plain, remote] for each in found}
    take("pull", pulling, lambda typed: gone(typed, remote))
    for each in found:
        gone(each.typed, remote)


def contestants(workshop: Workshop, report: Report, subject: Subject) -> list[Contestant]:
    """Who can take part, ours first, docker second: each has loaded the image, and has shown that it runs."""
    found = []
    for engine in (engines.Minicontainer(), engines.Docker(), engines.Podman()):
        workshop.tell(f"{engine.name}: does it load, and run?")
        try:
            version = engine.prepare(workshop, subject.path, subject.name)
            lines = engine.output("none", ["sh", "-c", subject.shows]).splitlines()
            if len(lines) < subject.least:
                raise engines.Unfit(f"it loaded something that is no {subject.title}")
        except engines.Unfit as reason:
            if isinstance(engine, engines.Minicontainer):
                raise
            if (engine.name, str(reason)) not in report.skipped:
                report.skipped.append((engine.name, str(reason)))
            continue
        plain = ["--tls-verify=false"] if isinstance(engine, engines.Podman) else []
        found.append(Contestant(engine.name, engine.typed, plain))
        if isinstance(engine, engines.Docker) and engine.name == "docker":
            engines.said([*engine.typed, "save", "-o", f"{subject.path}.docker", subject.name])
            os.rename(f"{subject.path}.docker", subject.path)
        workshop.at_end(f"remove {engine.name}'s container", leftovers(workshop, engine.typed))
        if f"{engine.name}: {version}" not in report.facts:
            report.facts.append(f"{engine.name}: {version}")
    return found


def container(workshop: Workshop) -> str:
    """The name of what is committed."""
    return f"{workshop.tag}-container"


def leftovers(workshop: Workshop, typed: list[str]) -> Callable[[], None]:
    """What removes from an engine all that an interrupted bench has left."""

    def remove() -> None:
        with contextlib.suppress(engines.Unfit):
            engines.said([*typed, "rm", "-f", container(workshop)])
        for name in engines.said([*typed, "images", "--format", "{{.Repository}}:{{.Tag}}"]).split():
            if workshop.tag in name:
                gone(typed, name)

    return remove


def gone(typed: list[str], name: str) -> None:
    """`rmi`, whether it is there or not."""
    with contextlib.suppress(engines.Unfit):
        engines.said([*typed, "rmi", "-f", name])


def remove_file(path: str) -> None:
    """unlink(2), whether it is there or not: podman writes over no archive that exists."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def timer(command: list[str]) -> measuring.Timed:
    """One run of the command."""
    return lambda: measuring.spent(command)


def settled(before: Callable[[list[str]], object], typed: list[str]) -> Callable[[], None]:
    """What happens before each run."""

    def prepare() -> None:
        before(typed)
        os.sync()

    return prepare


def progress(workshop: Workshop) -> Callable[[int, int], None]:
    """Rounds, told."""
    return lambda done, all_: workshop.tell(f"round {done} of {all_}")


class Registry:
    """Debian's docker-registry on a port of loopback, for as long as the bench lasts. Its blobs are files."""

    def __init__(self, workshop: Workshop) -> None:
        self.folder = f"{workshop.folder}/registry"
        os.makedirs(self.folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.host = f"127.0.0.1:{port}"
        config = {
            "version": "0.1", "log": {"level": "error", "accesslog": {"disabled": True}}, "http": {"addr": self.host},
            "storage": {"filesystem": {"rootdirectory": f"{self.folder}/data"}},
        }  # fmt: skip
        with open(f"{self.folder}/config.yml", "w") as file:
            json.dump(config, file)  # JSON is YAML
        if not shutil.which("docker-registry"):
            raise errors.Unsupported("bench images pushes to a registry of its own: apt-get install docker-registry")
        self.process = subprocess.Popen(
            ["docker-registry", "serve", f"{self.folder}/config.yml"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        workshop.at_end("end the registry", self.end)
        for _ in range(1000):
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                return
            time.sleep(0.02)
        raise errors.MiniContainerError("docker-registry does not listen")

    def end(self) -> None:
        """SIGKILL: its data go with the bench."""
        self.process.kill()
        self.process.wait()

    def forget(self) -> None:
        """It has no image and no blob any more: it keeps nothing in memory."""
        shutil.rmtree(f"{self.folder}/data", ignore_errors=True)


# Memory -------------------------------------------------------------------------------------------------------------


def weigh(workshop: Workshop, report: Report, registry: Registry) -> None:
    """The most memory that each of our verbs has had, with a layer of a gigabyte."""
    workshop.tell("a layer of a gigabyte: memory")
    typed = engines.Minicontainer().typed
    name, remote = f"localhost/{workshop.tag}-large:latest", f"{registry.host}/large:latest"
    path, out, layer = (f"{workshop.folder}/{file}" for file in ("large.tar", "out.tar", "layer.tar"))
    archives.large_layer(layer, LAYER)
    archives.archive(path, layer, name, ["sh"])
    os.unlink(layer)
    figures = {}
    figures["load"] = [most_memory([*typed, "load", "-q", "-i", path])]
    os.unlink(path)
    figures["save"] = [most_memory([*typed, "save", "-o", out, name])]
    os.unlink(out)
    engines.said([*typed, "tag", name, remote])
    registry.forget()
    figures["push"] = [most_memory([*typed, "push", "-q", remote])]
    engines.said([*typed, "create", "--name", container(workshop), "--network", "none", name, "none"])
    engines.said([*typed, "cp", f"{container(workshop)}:/large", workshop.folder])
    engines.said([*typed, "cp", f"{workshop.folder}/large", f"{container(workshop)}:/copy"])
    os.unlink(f"{workshop.folder}/large")
    committed = f"localhost/{workshop.tag}-committed:latest"
    figures["commit"] = [most_memory([*typed, "commit", container(workshop), committed])]
    engines.said([*typed, "rm", container(workshop)])
    engines.said([*typed, "rmi", committed, name, remote])
    figures["pull"] = [most_memory([*typed, "pull", "-q", remote])]
    engines.said([*typed, "rmi", remote])
    limit = f"{MEMORY / 1e6:.0f} MB"
    group = Group("memory at most, a layer of 1 GB", "", {**figures, limit: [MEMORY]}, "MB", 1e-6, reference=None)
    report.groups.append(group)
    report.bars += [Bar(group.title, verb, limit, 1.0, 1.0) for verb in figures]


def most_memory(command: list[str]) -> float:
    """Run a command; the most bytes of memory that it had. Raises Unfit where it fails.

    Asked of the kernel a hundred times a second: it forgets with the process, and what wait4(2) tells begins with the
    memory of the one that started it.
    """
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    most = 0
    while process.poll() is None:
        with open(f"/proc/{process.pid}/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    most = max(most, int(line.split()[1]) * 1024)
        time.sleep(0.01)
    assert process.stderr is not None
    complaint = process.stderr.read().decode(errors="replace").strip()
    process.stderr.close()
    if process.returncode:
        raise engines.Unfit(f"`{' '.join(command)}` ended with {process.returncode}: {complaint}")
    return float(most)
