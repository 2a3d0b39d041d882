"""`bench grade`: what `grade --jobs 2` saves: the same submissions, graded one and two at a time.

The submissions are the reference of lab 06, so there must be one: a checkout, or the instructor's bundle. Each run is
the whole command, with the making of its image, the lab's outline and the outputs, into a folder of its own.
"""

from __future__ import annotations

import os
import shutil
import sys

from ... import errors, files
from .. import lab
from .. import measure as measuring
from ..grade import cell
from . import Bar, Group, Report, Workshop

RUNS, STUDENTS = 5, 12
AT_MOST, AIM = 0.75, 0.60  # of the time of one at a time: half of it is what two processors could do at best
ONE, TWO = "--jobs 1", "--jobs 2"


def measure(workshop: Workshop, runs: int) -> Report:
    """See the module."""
    runs = runs or RUNS
    if lacking := cell.obstacle():
        raise errors.Unsupported(lacking)
    overlay = lab.get("06")
    if not os.path.exists(overlay.solution):
        raise errors.Unsupported(f"bench grade grades {overlay.solution}, which is not here: instructors have it")
    report = Report("grade", f"{STUDENTS} submissions of lab {overlay.name}, one and two at a time")
    submissions = f"{workshop.folder}/submissions"
    for number in range(STUDENTS):
        os.makedirs(f"{submissions}/student-{number:02}")
        files.write(f"{submissions}/student-{number:02}/lab.py", files.read(overlay.solution))
    timed = {name: timer(workshop, submissions, name) for name in (ONE, TWO)}
    figures = measuring.interleave(
        timed, runs, 1, tell=lambda done, every: workshop.tell(f"round {done} of {every}")
    )  # fmt: skip
    report.groups.append(Group("the whole command", TWO, figures, "s", 1.0, reference=ONE))
    report.bars.append(Bar("the whole command", TWO, ONE, AT_MOST, AIM))
    ratio = measuring.ratio(figures[ONE], figures[TWO])
    report.facts.append(f"speed-up: {ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})")
    report.method = {
        "runs": runs,
        "warm_up": 1,
        "order": "rounds, shuffled",
        "seed": measuring.SEED,
        "students": STUDENTS,
    }
    if len(os.sched_getaffinity(0)) < 2:
        report.facts.append("there is one processor here: two at a time cannot be quicker")
    return report


def timer(workshop: Workshop, submissions: str, jobs: str) -> measuring.Timed:
    """One run of the command."""
    out = f"{workshop.folder}/results"

    def once() -> float:
        shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, "-m", "minicontainer", "grade", submissions, "--labs", "06", "--out", out]
        return measuring.spent([*command, *jobs.split()])

    return once
