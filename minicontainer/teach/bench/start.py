"""`bench start`: how long a container takes from the key to the prompt, `run --rm … true`, on three networks.

What is timed is the whole command that a user types, from its start to its end, clean-up included. First each
contestant shows that its container is one: a seccomp filter, the fourteen capabilities, on the bridge a gateway that
answers. Ours must pass or there is no figure; another that fails is left out, by name.

The OCI runtimes make the same container of a bundle, `oci run` beside `runc run`; and by the three commands that
engines call, create, start, delete. Each of ours starts a Python: what that alone takes is measured, too.
"""

from __future__ import annotations

import os
import sys

from ... import errors, host
from .. import measure as measuring
from . import Bar, Group, Report, Workshop, archives, engines

# The bars: how much of docker's and podman's time a start on the bridge may take, and what we aim at.
AT_MOST, AIM = 0.20, 0.15
# How much of runc's time `oci run` may take; create, start and delete; and these without the starts of Python in them.
RUN, STEPS, STEPS_ALONE = (1.2, 1.0), (1.6, 1.2), (0.8, 0.6)
OCI, BY_STEPS, ALONE = "minicontainer oci", "create, start, delete", "create, start, delete, less three Pythons"

# Docker's fourteen, as /proc/PID/status has them: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap,
# net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap (bits 0 1 3 4 5 6 7 8 10 13 18 27 29 31).
FOURTEEN = 0xA80425FB

RUNS, WARM_UP = 20, 2

INTERPRETER = [sys.executable, "-IS", "-c"]  # as the command in /usr/local/bin starts it: without site.py


def measure(workshop: Workshop, runs: int) -> Report:
    """See the module."""
    runs = runs or RUNS
    if not host.is_root():
        raise errors.Unsupported("bench start compares with docker and podman as root runs them: sudo")
    report = Report("start", "run --rm … true: the whole command, in milliseconds")
    image = f"localhost/{workshop.tag}:latest"
    workshop.tell("making an image from the static busybox")
    archives.busybox_tree(f"{workshop.folder}/tree")
    archives.pack(f"{workshop.folder}/tree", f"{workshop.folder}/layer.tar")
    archives.archive(f"{workshop.folder}/image.tar", f"{workshop.folder}/layer.tar", image, ["sh"])

    contestants: dict[str, dict[str, measuring.Timed]] = {network: {} for network in engines.NETWORKS}
    by_steps: dict[str, measuring.Timed] = {}
    for make in engines.everyone():
        engine = make()
        ours = isinstance(engine, engines.Minicontainer)
        workshop.tell(f"{engine.name}: is its container one?")
        try:
            report.facts.append(engine.prepare(workshop, f"{workshop.folder}/image.tar", image))
        except engines.Unfit as reason:
            if ours:
                raise
            report.skipped.append((engine.name, str(reason)))
            continue
        for network in engine.networks:
            try:
                problem, note = judge(network, engines.shown(engine, network), ours)
            except engines.Unfit as reason:
                problem, note = str(reason), ""
            if problem and ours:
                raise errors.MiniContainerError(
                    f"--network {network}: {problem}; nothing is timed that is not a container"
                )
            if problem:
                report.skipped.append((f"{engine.name}, {network}", problem))
                continue
            if note and (engine.name, note) not in report.skipped:
                report.facts.append(f"{engine.name}, {network}: {note}")
            contestants[network][engine.name] = engine.timed(network, ["true"])
            if isinstance(engine, engines.Runtime) and network == "none":
                by_steps[engine.name] = engine.in_steps(["true"])
    report.facts[0] = f"timed as minicontainer: {report.facts[0]} run --rm"

    flat = {f"{name}/{network}": once for network, rows in contestants.items() for name, once in rows.items()}
    flat |= {f"{name}/steps": once for name, once in by_steps.items()}
    flat["Python/steps"] = lambda: sum(measuring.spent([*INTERPRETER, "pass"]) for _ in range(3))
    workshop.tell(f"{len(flat)} contestants, {WARM_UP} rounds to warm up, {runs} that count")
    figures = measuring.interleave(
        flat, runs, WARM_UP, tell=lambda done, all_: workshop.tell(f"round {done} of {all_}")
    )
    for network, rows in contestants.items():
        series = {name: figures[f"{name}/{network}"] for name in rows}
        report.groups.append(Group(network, "minicontainer", series))
    series = {name: figures[f"{name}/steps"] for name in by_steps}
    against = "runc" if "runc" in series else ""
    report.groups.append(Group(BY_STEPS, OCI, series, reference=against))
    pythons = figures["Python/steps"]
    alone = {OCI: [all_ - python for all_, python in zip(series.get(OCI, []), pythons, strict=True)]}
    report.groups.append(Group(ALONE, OCI, {**series, **alone}, reference=against))
    for peer in ("docker", "podman"):
        report.bars.append(Bar("bridge", "minicontainer", peer, AT_MOST, AIM))
    for group, bar in (("none", RUN), (BY_STEPS, STEPS), (ALONE, STEPS_ALONE)):
        report.bars.append(Bar(group, OCI, "runc", *bar))
    report.method = {"runs": runs, "warm_up": WARM_UP, "order": "rounds, shuffled", "seed": measuring.SEED}
    report.facts.append(imports())
    return report


def judge(network: str, fields: dict[str, str], ours: bool) -> tuple[str, str]:
    """What is wrong with a container, and what is merely different; empty where nothing is."""
    if fields.get("Seccomp") != "2":
        return f"no seccomp filter (Seccomp: {fields.get('Seccomp')})", ""
    if network == "bridge" and "Gateway" not in fields:
        return "its gateway does not answer", ""
    note = ""
    for kind in ("CapEff", "CapBnd"):
        mask = int(fields.get(kind, "0"), 16)
        if mask != FOURTEEN:
            note = f"{mask.bit_count()} capabilities ({kind} {mask:016x}), not Docker's 14"
    if ours and note:
        return note, ""
    if ours and network == "bridge" and fields["Gateway"] != "answers ping":
        return "its gateway does not answer a ping", ""
    return "", note


def imports(runs: int = 15) -> str:
    """What the modules of `run` cost over bare Python: one sentence, with the median of paired differences."""
    paths = [path for path in sys.path if path and os.path.isdir(path)]
    bare = f"import os, sys; sys.path[:] = {paths!r}"
    leave = "os._exit(0)"  # as the command does: an interpreter is not taken down
    figures = measuring.interleave(
        {
            "bare": lambda: measuring.spent([*INTERPRETER, f"{bare}; {leave}"]),
            "site": lambda: measuring.spent([sys.executable, "-I", "-c", f"{bare}; {leave}"]),
            "run": lambda: measuring.spent([*INTERPRETER, f"{bare}; import minicontainer.cli.run; {leave}"]),
        },
        runs,
    )
    over = {}
    for floor in ("bare", "site"):
        differences = [run - other for run, other in zip(figures["run"], figures[floor], strict=True)]
        over[floor] = measuring.summary(differences)
    return (
        f"imports: {over['site'].median * 1000:.1f} ms over bare Python ({over['site'].low * 1000:.1f} to "
        f"{over['site'].high * 1000:.1f}), which takes {measuring.median(figures['site']) * 1000:.1f} ms; "
        f"{over['bare'].median * 1000:.1f} over Python without site.py, as it is started; the budget is 15 ms"
    )
