"""From a reference solution to the stub that a learner gets, and to the lines that no learner may get.

    def mount(…):
        \"\"\"What it is to do.\"\"\"
        ### BEGIN SOLUTION
        …                                 becomes   raise NotImplementedError
        ### END SOLUTION

Between markers at the left edge stand whole helpers or imports of the reference: of these nothing is left. The markers
are nbgrader's, so that the same file makes its assignments.

`python -m minicontainer.teach.lab.stub` writes the stub of every lab whose solution is here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ... import errors, files
from . import every

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
TELLING = 20  # characters: a shorter line gives nothing away


def stub(solution: str) -> str:
    """The solution without what is the learner's to write. Raises InvalidArgument for markers without a partner."""
    kept: list[str] = []
    for line, inside in regions(solution):
        if line.strip() == BEGIN:
            indent = line[: len(line) - len(line.lstrip())]
            if indent:
                kept.append(f"{indent}raise NotImplementedError")
        elif line.strip() != END and not inside:
            kept.append(line)
    text = "\n".join(kept).rstrip() + "\n"
    text = re.sub(r"\n{4,}", "\n\n\n", text)
    return re.sub(r"\n{2,}(?=def |class |@)", "\n\n\n", text)  # two empty lines, as formatters want them


def regions(solution: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it is the learner's to write; a marker is not."""
    inside = False
    for number, line in enumerate(solution.splitlines(), 1):
        marker = line.strip()
        if marker in (BEGIN, END):
            if inside is (marker == BEGIN):
                raise errors.InvalidArgument(f"line {number}: {marker} where the other one is due")
            inside = marker == BEGIN
            yield line, False
        else:
            yield line, inside
    if inside:
        raise errors.InvalidArgument(f"the last {BEGIN} has no {END}")


def telling(solution: str) -> set[str]:
    """The lines, without their indentation, that would give the solution away."""
    kept = {line.strip() for line in stub(solution).splitlines()}
    return {line.strip() for line, inside in regions(solution) if inside and len(line.strip()) >= TELLING} - kept


def main() -> None:
    """Write labs/NN_topic/lab.py from labs/solutions/NN_topic.py, for every lab."""
    for lab in every():
        if os.path.exists(lab.solution):
            files.write(f"{lab.directory}/lab.py", stub(files.read(lab.solution).decode()).encode())


if __name__ == "__main__":
    main()
