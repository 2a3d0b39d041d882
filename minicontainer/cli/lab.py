"""`lab`: the course's labs: what there is, a copy of one's own, its points."""

from ..teach import lab
from ..teach.lab import copies
from . import UsageError, table
from .flags import parse

SYNOPSIS = "lab list | start NN | check NN | reset NN | progress"


def main(arguments: list[str]) -> int:
    """lab list | start NN | check NN [FILE] [PYTEST'S FLAGS] | reset NN | progress"""
    if arguments[:1] == ["check"] and len(arguments) > 1 and not arguments[1].startswith("-"):
        return check(*arguments[1:])
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
