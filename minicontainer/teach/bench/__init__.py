"""Benchmarks: each measures one thing, native or in other engines' containers beside ours, in one run.

A benchmark is a module here with one function, `measure(workshop, runs) -> Report`; BENCHES lists them. It says what it
is doing through `workshop.tell`, keeps whatever it makes in the workshop, and checks that what it compares is the same
thing before it times any of it. `minicontainer.cli.bench` prints a report, whatever it is about:

    Report ── groups ── series: name → figures of the rounds      "bridge": minicontainer, docker, podman
           ── bars                                                what the project promises, and whether it holds
           ── skipped, facts                                      who could not take part, and why
"""

from __future__ import annotations

import compileall
import importlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any

import minicontainer

from ... import errors
from .. import measure

# What is typed → one line of help. The file has the same name.
BENCHES = {
    "start": "`run --rm … true` on bridge, none and host, beside docker, podman, runc and crun",
    "life": "containers that live on: `run -d`, `ps` of 500, an idle one's memory, the 300th start, beside docker",
    "images": "load, save, push, commit, pull of a Debian and of 20,000 files, beside docker and podman; memory",
    "build": "five RUNs, a cached rebuild, a context of 20,000 files, beside docker's two builders and podman",
    "cpu": "a fixed piece of arithmetic: native, in a container, and with --cpus 1",
    "memory": "copying memory: native and in a container",
    "syscalls": "a cheap system call: native, behind seccomp, and with seccomp=unconfined",
    "disk": "files on upper, lower, bind mount, volume and tmpfs, beside native",
    "network": "TCP over bridge, published port and host network, beside native loopback; 500 ports beside one",
    "grade": "twelve submissions of a lab, graded one and two at a time",
    "density": "many idle containers: memory of each, and how long the last one took to start",
}


@dataclass
class Group:
    """Figures that may be compared: each contestant's, of the same rounds; `ours` is one of the names."""

    title: str
    ours: str
    series: dict[str, list[float]]
    unit: str = "ms"
    scale: float = 1000.0  # from what is kept (seconds, bytes per second, bytes) to the unit
    better: str = "less"
    reference: str | None = ""  # whom a plot compares with: None for nobody, "" for native or docker or ours


@dataclass
class Bar:
    """A promise: the ratio of two medians is at most so much, and better still at most `aim`."""

    group: str
    ours: str
    theirs: str
    at_most: float
    aim: float
    ratio: measure.Ratio | None = None  # None: it could not be measured
    why_not: str = ""

    @property
    def held(self) -> bool:
        """Whether it was measured, and the ratio of the medians is no higher than the bar."""
        return self.ratio is not None and self.ratio.value <= self.at_most


@dataclass
class Report:
    """What a benchmark found."""

    name: str
    title: str
    groups: list[Group] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=measure.machine)
    method: dict[str, Any] = field(default_factory=dict)

    def judge(self) -> None:
        """Fill in the bars' ratios from the groups."""
        groups = {group.title: group for group in self.groups}
        reasons = dict(self.skipped)
        for bar in self.bars:
            series = groups[bar.group].series if bar.group in groups else {}
            if bar.ours in series and bar.theirs in series:
                bar.ratio = measure.ratio(series[bar.ours], series[bar.theirs])
            else:
                bar.why_not = reasons.get(f"{bar.theirs}, {bar.group}") or reasons.get(
                    bar.theirs, "it did not take part"
                )

    def raw(self) -> dict[str, Any]:
        """All of it as plain JSON. `figures` × `scale` are in `unit`: seconds, mostly; in the order of the rounds."""
        return {
            "bench": self.name,
            "title": self.title,
            "machine": self.machine,
            "method": self.method,
            "groups": [
                {
                    "title": group.title,
                    "ours": group.ours,
                    "unit": group.unit,
                    "scale": group.scale,
                    "better": group.better,
                    "figures": group.series,
                    "summary": {name: measure.summary(values)._asdict() for name, values in group.series.items()},
                }
                for group in self.groups
            ],
            "bars": [
                {
                    "group": bar.group,
                    "ours": bar.ours,
                    "theirs": bar.theirs,
                    "at_most": bar.at_most,
                    "aim": bar.aim,
                    "ratio": bar.ratio._asdict() if bar.ratio else None,
                    "held": bar.held,
                    "why_not": bar.why_not,
                }
                for bar in self.bars
            ],
            "skipped": [{"what": what, "why": why} for what, why in self.skipped],
            "facts": self.facts,
        }


def draw(report: Report, path: str) -> None:
    """The report's groups as bars, into a file (plot.save)."""
    from .. import plot

    panels = []
    for group in report.groups:
        series = {name: [value * group.scale for value in values] for name, values in group.series.items()}
        reference = group.reference
        if reference == "":
            reference = next((name for name in ("native", "docker", group.ours) if name in series), None)
        panels.append(plot.Panel(group.title, f"{group.unit} ({group.better} is better)", series, reference))
    plot.save(plot.panels(report.title, panels), path)


class Workshop:
    """A place for one bench: a store of its own, a folder, and a promise that nothing is left of either.

    Used in a `with` statement. MINICONTAINER_ROOT names the private store while it is open, so neither the user's
    store nor its bridge, table or cgroups are touched. Ctrl-C and SIGTERM leave by the same door.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell
        self.folder = ""
        self.endings: list[tuple[str, Callable[[], object]]] = []

    def __enter__(self) -> Workshop:
        # Not /tmp unless told: where that is memory, so would be the disk that is measured.
        self.folder = tempfile.mkdtemp(prefix="minicontainer-bench-", dir=os.environ.get("TMPDIR") or "/var/tmp")
        os.chmod(self.folder, 0o711)
        self.before = os.environ.get("MINICONTAINER_ROOT")
        os.environ["MINICONTAINER_ROOT"] = self.root
        self.terminate = signal.signal(signal.SIGTERM, leave)
        return self

    @property
    def root(self) -> str:
        """The private store."""
        return f"{self.folder}/store"

    @property
    def tag(self) -> str:
        """A name for what this bench makes outside of its folder: nobody else's has it.

        It names an image, so no `_`, with which mkdtemp may end: a name cannot.
        """
        return os.path.basename(self.folder).lower().replace("_", "0")

    def at_end(self, what: str, ending: Callable[[], object]) -> None:
        """Have `ending` called when the bench is over, however it ends; the last one first."""
        self.endings.append((what, ending))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        # A second Ctrl-C must not leave half of it behind.
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for what, ending in reversed(self.endings):
                try:
                    ending()
                except Exception as failure:
                    self.tell(f"could not {what}: {failure}")
            if os.path.exists(self.root):
                from ...engine import system

                system.System(self.root).reset()
            shutil.rmtree(self.folder)
        finally:
            if self.before is None:
                del os.environ["MINICONTAINER_ROOT"]
            else:
                os.environ["MINICONTAINER_ROOT"] = self.before
            signal.signal(signal.SIGTERM, self.terminate)
            signal.signal(signal.SIGINT, interrupt)


def leave(_: int, __: FrameType | None) -> None:
    """SIGTERM ends a bench as Ctrl-C does."""
    raise KeyboardInterrupt


def cache() -> str:
    """Where a bench keeps what is dear to make again; a folder that may be removed at any time."""
    base = os.environ.get("XDG_CACHE_HOME") or ("/var/cache" if os.geteuid() == 0 else os.path.expanduser("~/.cache"))
    path = f"{base}/minicontainer/bench"
    os.makedirs(path, exist_ok=True)
    return path


def run(name: str, runs: int, tell: Callable[[str], None]) -> Report:
    """Do one benchmark. Raises InvalidArgument for one that there is not."""
    if name not in BENCHES:
        raise errors.InvalidArgument(f"there is no bench {name!r}: {', '.join(BENCHES)} are there")
    module = importlib.import_module(f"{__name__}.{name}")
    # With PYTHONDONTWRITEBYTECODE in the environment, each start would compile what has changed since: 10 ms of it.
    compileall.compile_dir(os.path.dirname(minicontainer.__file__), quiet=2)
    with Workshop(tell) as workshop:
        report: Report = module.measure(workshop, runs)
    report.judge()
    busy = report.machine["load"][0]
    if busy > report.machine["processors"] / 2:
        report.facts.append(f"others were at work here when it began (load {busy:.1f}): measure again when it is quiet")
    return report
