"""`grade`: submissions for marks, and what learning platforms, students and instructors get of it."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .. import errors
from ..teach import lab, measure
from ..teach.bench import leave
from ..teach.grade import cell, elsewhere, outputs, page, records, slurm, submissions, work
from . import UsageError, flags, table

SYNOPSIS = "grade [SUBMISSIONS] --out RESULTS [FLAGS]"
FLAGS = [
    flags.Flag("--out", "out", "text", "where results are kept; the same once more does what is missing"),
    flags.Flag("--labs", "labs", "text", "05,06: only these (default: all that there are)"),
    flags.Flag("--jobs -j", "jobs", "text", "so many at a time (default: as many as there are processors)"),
    flags.Flag("--limit", "limit", "text", f"seconds for one student in one lab (default: {work.LIMIT:g})"),
    flags.Flag(
        "--roster", "roster", "text", "Canvas's gradebook as CSV, kept for later runs; canvas.csv is it with the points"
    ),
    flags.Flag("--only", "only", "list", "grade this student anew, on the same inputs"),
    flags.Flag("--executor", "executor", "text", "local (default), or slurm: spread over its nodes by a job array"),
    flags.Flag("--task", "task", "text", "LIST: in a job array, grade what its element's line of LIST names"),
    flags.Flag("--override", "override", "bool", "STUDENT LAB POINTS: decide a result by hand; needs --reason"),
    flags.Flag("--reason", "reason", "text", "why; the student reads it, too"),
    flags.Flag("--merge", "merge", "list", "results graded elsewhere: a folder of STUDENT.json, or such files"),
]

BAR = "{percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt}, {elapsed} gone, {remaining} to go{postfix}"


def main(arguments: list[str]) -> int:
    """grade SUBMISSIONS --out RESULTS [--labs 05,06] [--jobs N] [--roster FILE]; --only, --override, --merge."""
    values, rest = flags.parse(SYNOPSIS, FLAGS, arguments)
    if "out" not in values:
        raise UsageError(f"usage: minicontainer {SYNOPSIS}: --out names the folder for results")
    kept = records.Records(values["out"])
    if values.get("roster"):
        outputs.read_roster(values["roster"])  # a wrong one is said before an hour of grading
    if values["override"]:
        override(kept, rest, values.get("reason", ""))
    elif values["merge"]:
        if rest:
            raise UsageError("--merge takes what was graded elsewhere, and grades nothing: no SUBMISSIONS, please")
        for path in values["merge"]:
            for student in elsewhere.merge(kept, path):
                print(f"merged: {student}")
    else:
        wanted = [lab.get(word) for word in values["labs"].split(",")] if values.get("labs") else lab.every()
        if len(rest) != 1:
            raise UsageError(f"usage: minicontainer {SYNOPSIS}")
        limit = flags.number("--limit", values.get("limit", str(work.LIMIT)), float)
        jobs = flags.number("--jobs", values.get("jobs", str(len(os.sched_getaffinity(0)))))
        if not (0 < jobs <= work.SLOTS and limit > 0):
            raise UsageError(f"--jobs is 1 to {work.SLOTS}, --limit more than 0")
        if values.get("executor") != "slurm" and (lacking := cell.obstacle()):
            raise errors.Unsupported(lacking)
        found, left_out = submissions.every(rest[0])
        kept.prepare()
        for sentence in left_out:
            print(f"left out: {sentence}", file=sys.stderr)
        executor = values.get("executor", "local")
        if executor not in ("local", "slurm"):
            raise UsageError(f"--executor {executor}: local or slurm")
        if "task" in values:
            student, which, number = slurm.element(values["task"])
            own = [pair for pair in work.pairs(kept, found, wanted, [student]) if pair.lab.name == which]
            with cell.Place() as place, progress(1) as tell:
                work.Run(place, kept, limit).all(own, 1, tell, number % work.SLOTS)
            return 0
        pairs = work.pairs(kept, found, wanted, values["only"])
        if executor == "slurm":  # which node could do more than another has done, nobody knows beforehand
            pairs = [pair for pair in pairs if not pair.lacking]
        if pairs and executor == "slurm":
            words = [os.path.abspath(rest[0]), "--out", kept.out, "--limit", f"{limit:g}"]
            words += ["--labs", ",".join(one.number for one in wanted)]
            with progress(len(pairs)) as tell:
                slurm.carry_out(kept, pairs, words, jobs, tell)
        elif pairs:
            with cell.Place() as place, progress(len(pairs)) as tell:
                work.Run(place, kept, limit).all(pairs, jobs, tell)
    report(kept, values.get("roster", ""))
    return 0


def override(kept: records.Records, words: list[str], reason: str) -> None:
    """--override STUDENT LAB POINTS."""
    if len(words) != 3:
        raise UsageError("--override takes three words, STUDENT LAB POINTS, and --reason TEXT")
    student, which, points = words
    kept.override(student, lab.get(which).name, flags.number("--override", points, float), reason)


@contextmanager
def progress(count: int) -> Iterator[Callable[[work.Pair], None]]:
    """A bar where somebody looks, a line for each where nobody does. SIGTERM ends the run as ctrl-C does."""
    before = signal.signal(signal.SIGTERM, leave)
    done = 0

    def line(pair: work.Pair) -> None:
        nonlocal done
        done += 1
        print(f"{done} of {count}: {pair.submission.student}, {pair.lab.name}", file=sys.stderr, flush=True)

    try:
        if sys.stderr.isatty() and importlib.util.find_spec("tqdm"):
            from tqdm import tqdm

            with tqdm(total=count, dynamic_ncols=True, bar_format=BAR) as bar:

                def move(pair: work.Pair) -> None:
                    bar.set_postfix_str(pair.submission.student, refresh=False)
                    bar.update()

                yield move
        else:
            yield line
    except KeyboardInterrupt:
        print("\nInterrupted. What is finished is kept; the same command goes on from there.", file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def report(kept: records.Records, roster: str) -> None:
    """Write the outputs, and say on a few lines what there is."""
    labs = lab.every()
    graded, problems = outputs.write(kept, labs, roster)
    if not graded:
        raise errors.NotFound(f"nothing has been graded below {kept.out}")
    page.write(kept, graded, labs, problems)
    kept.hand_over()
    rows = []
    for name in sorted({one.lab for one in graded}):
        results = [one for one in graded if one.lab == name]
        reached = [one.points for one in results if one.of]
        median = f"{measure.median(reached):g}" if reached else "–"
        unfinished = sum(not one.whole for one in results)
        row = [name, str(len(results)), f"{median} of {max(one.possible for one in results):g}"]
        rows.append([*row, str(unfinished) if unfinished else ""])
    print(table.show(["LAB", "STUDENTS", "MEDIAN", "NOT WHOLLY GRADED"], rows))
    for sentence in problems:
        print(f"note: {sentence}")
    print(f"For you: {kept.out}/index.html; for students: {kept.out}/feedback")
