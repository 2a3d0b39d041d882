"""Labs: a job for each concept, done by the learner, graded by what the kernel shows.

    labs/NN_topic/README.md     the job
                  lab.py        the stub to fill in, made from the solution by stub.py
                  test_lab.py   what grades it; points are declared at each test
                  adapter.py    a few lines that put the learner's function behind the real tool
    labs/solutions/NN_topic.py  the reference, in the instructor's bundle only
                   NN_package.py   the package's own function behind three lines: scores 60 % at most

`pytest labs/06_overlay` checks the stub in place; `minicontainer lab start 06` copies the folder to the learner's own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from ... import errors

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
LABS = os.path.abspath(os.environ.get("MINICONTAINER_LABS") or f"{CHECKOUT}/labs")
SOLUTIONS = f"{LABS}/solutions"


class Lab(NamedTuple):
    """A lab: its number ("06"), its topic, which is the concept's name for `run --lab`, its title, and its folder."""

    number: str
    topic: str
    title: str
    directory: str

    @property
    def name(self) -> str:
        """Its folder's name: 06_overlay."""
        return f"{self.number}_{self.topic}"

    @property
    def solution(self) -> str:
        """The reference; not in a learner's copy."""
        return f"{SOLUTIONS}/{self.name}.py"

    def wants(self) -> set[str]:
        """What a host must be able to do for all of its tests, in the words of teach.lesson; read, not run."""
        with open(f"{self.directory}/test_lab.py") as file:
            text = file.read()
        words = {
            word for marks in re.findall(r"mark\.needs\(([^)]*)\)", text) for word in re.findall(r'"(\w+)"', marks)
        }
        return words | ({"cgroups"} if re.search(r"^LENT = True", text, re.M) else set())

    def tests(self) -> Iterator[tuple[str, str, float]]:
        """The name, the title and the points of each of its tests, in order; read, not run."""
        import ast  # `lab list` does not wait for it

        with open(f"{self.directory}/test_lab.py") as file:
            body = ast.parse(file.read()).body
        for node in body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                marks = [mark for mark in node.decorator_list if ast.unparse(mark).startswith("pytest.mark.points(")]
                title = (ast.get_docstring(node) or node.name).splitlines()[0]
                if marks and isinstance(marks[0], ast.Call):
                    yield node.name, title, ast.literal_eval(marks[0].args[0])


def every(labs: str = LABS) -> list[Lab]:
    """All labs, by number. The title is the first line of the README."""
    found = []
    for name in sorted(os.listdir(labs)):
        match = re.fullmatch(r"(\d\d)_(\w+)", name)
        if match and os.path.isfile(f"{labs}/{name}/test_lab.py"):
            with open(f"{labs}/{name}/README.md") as file:
                title = file.readline().strip("# \n")
            found.append(Lab(match[1], match[2], title, f"{labs}/{name}"))
    return found


def get(word: str, labs: str = LABS) -> Lab:
    """A lab by its number, its topic or its folder's name. Raises NotFound, which lists them."""
    number = f"{int(word):02}" if word.isdigit() else ""
    known = every(labs)
    for lab in known:
        if word in (lab.topic, lab.name) or number == lab.number:
            return lab
    raise errors.NotFound(f"no lab is called {word}; there are {', '.join(lab.name for lab in known) or 'none'}")
