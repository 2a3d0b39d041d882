"""`lab`: the course's labs: what there is, a copy of one's own, its points."""

from ..teach import lab
from ..teach.lab import bundle, copies
from . import UsageError, table
from .flags import Flag, parse

SYNOPSIS = "lab list | start NN | check NN | reset NN | progress | bundle --KIND OUT"
BUNDLE = [
    Flag("--student", "student", "bool", "a zip for learners: stubs, tests, no solution"),
    Flag("--instructor", "instructor", "bool", "a zip with the solutions"),
    Flag("--gradescope", "gradescope", "bool", "an autograder zip: the tests that need no namespaces"),
    Flag("--nbgrader", "nbgrader", "bool", "assignments for nbgrader: source/NN_topic/NN_topic.ipynb"),
    Flag("--labs", "labs", "text", "05,06: only these"),
]


def main(arguments: list[str]) -> int:
    """lab list | start NN | check NN [FILE] [PYTEST'S FLAGS] | reset NN | progress"""
    if arguments[:1] == ["check"] and len(arguments) > 1 and not arguments[1].startswith("-"):
        return check(*arguments[1:])
    if arguments[:1] == ["bundle"]:
        return make_bundle(arguments[1:])
    _, rest = parse(SYNOPSIS, [], arguments)
    if rest in ([], ["list"], ["progress"]):
        show()
        return 0
    if len(rest) != 2 or rest[0] not in ("start", "reset"):
        raise UsageError(f"usage: minicontainer {SYNOPSIS}")
    wanted = lab.get(rest[1])
    if rest[0] == "start":
        new = copies.start(wanted)
        print(f"{'Your copy' if new else 'Started before; yours stays'}: {copies.path(wanted)}")
        print(f"Read README.md there, fill in lab.py, then: minicontainer lab check {wanted.number}")
        return 0
    kept = copies.reset(wanted)
    print(f"A fresh copy: {copies.path(wanted)}/lab.py")
    if kept:
        print(f"Yours is kept: {kept}")
    return 0


def check(number: str, *words: str) -> int:
    """Run a lab's tests; exit code 0 if every point was reached."""
    file = words[0] if words and not words[0].startswith("-") else ""
    code, _ = copies.check(lab.get(number), file, words[1:] if file else words)
    return code


def make_bundle(arguments: list[str]) -> int:
    """bundle --student|--instructor|--gradescope|--nbgrader [--labs 05,06] OUT"""
    values, rest = parse("lab bundle --student|--instructor|--gradescope|--nbgrader OUT", BUNDLE, arguments)
    kinds = [kind for kind in bundle.KINDS if values[kind]]
    if len(rest) != 1 or not kinds:
        raise UsageError("usage: minicontainer lab bundle --student|--instructor|--gradescope|--nbgrader OUT")
    labs = [lab.get(word) for word in values["labs"].split(",")] if values.get("labs") else lab.every()
    for kind in kinds:
        for path in bundle.KINDS[kind](rest[0], labs):
            print(path)
    return 0


def show() -> None:
    """A line for each lab: its job, and the learner's best score."""
    scores = copies.progress()
    rows = []
    for one in lab.every():
        score = scores.get(one.name)
        said = f"{score.points:g} of {score.of:g} points" if score else "not begun"
        if score and score.left_out:
            said += f" ({score.left_out} tests cannot run here)"
        rows.append([one.number, one.topic, one.title, said])
    print(table.show(["NR", "LAB", "JOB", "YOUR BEST"], rows))
