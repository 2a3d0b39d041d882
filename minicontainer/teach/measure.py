"""How things are measured here, so that a figure can be believed and taken again by somebody else.

Offers: `spent` (one command, timed), `interleave` (many contestants, in rounds), `summary` and `ratio` (what columns of
numbers say, and how surely), `machine` (where it was measured), `save` (the raw data).

The method, and what each part of it is against:

    in rounds           every contestant once per round, so that a machine that slows down slows all of them
    shuffled            in another order each round: nobody always runs in the wake of the same one
    warmed up           the first rounds are thrown away: they fill caches, make the bridge, compile filters
    medians             one run that met a cron job does not count for more than one run
    intervals           the median's, from the order statistics alone: no bell curve is assumed (times are skewed)
    ratios in a run     two figures of different days are never divided by each other

Times are seconds, as floats, of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .. import __version__, errors, files, host

Timed = Callable[[], float]
"""Does the thing once and returns what it took."""

CONFIDENCE = 0.95
SEED = 1979  # chroot(2)'s year: the same shuffle and the same resampling each time


# ------------------------------------------------------------------------------------------------------------ measuring


def spent(command: Sequence[str], environment: Mapping[str, str] | None = None) -> float:
    """Seconds from just before the command's posix_spawn(3) to its end. Its input and output are /dev/null.

    What it writes to standard error is kept for the one case where it is wanted: a command that fails raises
    MiniContainerError with its last line. posix_spawn, because fork would copy this process's page tables first, and
    the more this process has loaded the longer that takes.
    """
    environment = os.environ if environment is None else environment
    said = os.memfd_create("stderr", os.MFD_CLOEXEC)
    try:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, said, 2),
        ]
        # A Ctrl-C between the spawn and the wait would leave a command behind that nobody waits for.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        began = time.monotonic_ns()
        try:
            child = os.posix_spawnp(command[0], list(command), environment, file_actions=actions, setsigmask=mask)
        except BaseException:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            raise
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            _, status = os.waitpid(child, 0)
        except BaseException:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)
            raise
        took = time.monotonic_ns() - began
        if status:
            os.lseek(said, 0, os.SEEK_SET)
            lines = os.read(said, 65536).decode(errors="replace").strip().splitlines()
            code = os.waitstatus_to_exitcode(status)
            raise errors.MiniContainerError(
                f"`{' '.join(command)}` ended with {code}" + (f": {lines[-1]}" if lines else "")
            )
        return took / 1e9
    finally:
        os.close(said)


def interleave(
    contestants: Mapping[str, Timed],
    runs: int,
    warm_up: int = 2,
    prepare: Mapping[str, Callable[[], object]] | None = None,
    tell: Callable[[int, int], object] | None = None,
) -> dict[str, list[float]]:
    """`runs` figures for each contestant, taken in rounds. The n-th figures of all belong to the same round.

    `prepare[name]` is called, untimed, before each run of that contestant; `tell(done, all)` after each round.
    """
    found: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    shuffler = random.Random(SEED)
    for round_ in range(-warm_up, runs):
        shuffler.shuffle(names)
        for name in names:
            if prepare and name in prepare:
                prepare[name]()
            took = contestants[name]()
            if round_ >= 0:
                found[name].append(took)
        if tell:
            tell(round_ + warm_up + 1, runs + warm_up)
    return found


# -------------------------------------------------------------------------------------------------------- understanding


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which `part` (0 to 1) of the values lie; in between two of them, in proportion."""
    ordered = sorted(values)
    place = part * (len(ordered) - 1)
    below = int(place)
    if below + 1 == len(ordered):
        return ordered[below]
    return ordered[below] + (place - below) * (ordered[below + 1] - ordered[below])


def median(values: Sequence[float]) -> float:
    """The middle one; the mean of the two in the middle."""
    return quantile(values, 0.5)


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Between which two of the values the true median lies, with at least that confidence.

    Each run falls below the true median with probability 1/2, whatever the distribution. So the number of runs below it
    is binomial, and the k-th smallest and k-th largest value enclose it but for the two tails. With fewer than six
    runs, nothing but the whole range is left, and its confidence is less. (David & Nagaraja, Order Statistics, 7.1)
    """
    ordered = sorted(values)
    rank, _ = _rank(len(ordered), confidence)
    return ordered[rank], ordered[len(ordered) - 1 - rank]


def sureness(runs: int, confidence: float = CONFIDENCE) -> float:
    """How sure `median_interval` really is with so many runs: a little more than asked for; with few of them, less."""
    return _rank(runs, confidence)[1]


def _rank(count: int, confidence: float) -> tuple[int, float]:
    """Which value from either end (0: the outermost) encloses the median, and with what probability."""
    tail, ways, rank, sure = 0.0, 1, 0, 1 - 2 * 0.5**count
    for below in range(count // 2):
        tail += ways * 0.5**count
        if 2 * tail > 1 - confidence:
            break
        rank, sure = below, 1 - 2 * tail
        ways = ways * (count - below) // (below + 1)
    return rank, max(sure, 0.0)


class Summary(NamedTuple):
    """A column of numbers: its median, the median's interval, the quartiles, the extremes, how many runs."""

    median: float
    low: float
    high: float
    lower_quartile: float
    upper_quartile: float
    least: float
    most: float
    runs: int


def summary(values: Sequence[float]) -> Summary:
    """What a column of numbers says. There must be one at least."""
    low, high = median_interval(values)
    return Summary(
        median(values),
        low,
        high,
        quantile(values, 0.25),
        quantile(values, 0.75),
        min(values),
        max(values),
        len(values),
    )


class Ratio(NamedTuple):
    """One median divided by another, and between what the ratio lies."""

    value: float
    low: float
    high: float


def ratio(ours: Sequence[float], theirs: Sequence[float], resamples: int = 1000) -> Ratio:
    """The ratio of two medians that were taken in the same rounds, with an interval by the bootstrap.

    Whole rounds are drawn again, with replacement: a slow second of the machine stays in both of its figures.
    (Efron & Tibshirani, An Introduction to the Bootstrap, 13.3: percentiles.)
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError("a ratio needs figures of the same rounds")
    draw = random.Random(SEED)
    count = len(ours)
    drawn = []
    for _ in range(resamples):
        rounds = draw.choices(range(count), k=count)
        drawn.append(median([ours[index] for index in rounds]) / median([theirs[index] for index in rounds]))
    outside = (1 - CONFIDENCE) / 2
    return Ratio(median(ours) / median(theirs), quantile(drawn, outside), quantile(drawn, 1 - outside))


# ----------------------------------------------------------------------------------------------------------- describing


def machine() -> dict[str, Any]:
    """Where a figure was taken: what a reader needs to judge it, or to take it again. Plain JSON."""
    kernel = os.uname()
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "minicontainer": __version__,
        "kernel": kernel.release,
        "architecture": kernel.machine,
        "processor": _field("/proc/cpuinfo", "model name") or _field("/proc/cpuinfo", "CPU implementer"),
        "processors": len(os.sched_getaffinity(0)),
        "memory_bytes": int((_field("/proc/meminfo", "MemTotal") or "0").split()[0]) * 1024,
        "virtual": _is_virtual(),
        "governor": _line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "mitigations": _line("/sys/devices/system/cpu/vulnerabilities/spectre_v2"),
        "load": list(os.getloadavg()),
        "distribution": _field("/etc/os-release", "PRETTY_NAME", "=").strip('"'),
        "python": sys.version.split()[0],
        "root": host.is_root(),
    }


def in_words(described: Mapping[str, Any]) -> str:
    """A machine in one line."""
    memory = described["memory_bytes"] / 2**30
    return (
        f"{described['processors']} × {described['processor'] or described['architecture']}"
        f"{' (virtual machine)' if described['virtual'] else ''}, {memory:.0f} GiB, Linux {described['kernel']}, "
        f"{described['distribution']}, Python {described['python']}, load {described['load'][0]:.2f}"
    )


def _line(path: str) -> str:
    try:
        return files.read(path).decode(errors="replace").strip()
    except OSError:
        return ""


def _field(path: str, key: str, separator: str = ":") -> str:
    for line in _line(path).splitlines():
        name, _, value = line.partition(separator)
        if name.strip() == key:
            return value.strip()
    return ""


def _is_virtual() -> bool:
    return "hypervisor" in _field("/proc/cpuinfo", "flags").split()


def save(path: str, document: Mapping[str, Any]) -> None:
    """Keep raw data as JSON. The directory is made if need be."""
    path = os.path.abspath(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    files.write(path, json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n")
