"""`notebook`: the course's notebooks, and a fresh copy of one whose own copy is kept."""

import os

from ..teach import course, lesson
from . import UsageError, table
from .flags import parse

SYNOPSIS = "notebook list | reset NN"


def main(arguments: list[str]) -> int:
    """notebook list | reset NN"""
    _, rest = parse(SYNOPSIS, [], arguments)
    if rest in ([], ["list"]):
        show()
        return 0
    if len(rest) == 2 and rest[0] == "reset":
        path, kept = course.reset(rest[1], course.folder())
        print(f"A fresh copy: {path}")
        if kept:
            print(f"Yours is kept: {kept}")
        return 0
    raise UsageError(f"usage: minicontainer {SYNOPSIS}")


def show() -> None:
    """A line for each: its time, and whether the learner has begun it."""
    rows = []
    for path in course.originals():
        number = int(os.path.basename(path)[:2])
        topic = lesson.TOPICS.get(number)
        rows.append(
            [f"{number:02}", topic.title if topic else "", f"{topic.minutes} min" if topic else "", state(path)]
        )
    print(table.show(["NR", "NOTEBOOK", "TIME", "YOUR COPY"], rows))


def state(path: str) -> str:
    """What the learner's folder has of a notebook."""
    mine = f"{course.folder()}/{os.path.basename(path)}"
    if not os.path.exists(mine):
        return "none yet: ./dev notebooks makes it"
    with open(path, "rb") as original, open(mine, "rb") as copy:
        return "as it came" if original.read() == copy.read() else "worked in"
