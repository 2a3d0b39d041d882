"""A lab in a notebook, for nbgrader: the learner's cell is the lab's file, and each test is a cell.

    lab = cells.Cells("06_overlay", In)      In: what Jupyter keeps of the cells that were run
    lab.check("test_a_write_lands_in_upper") nothing, or an AssertionError with the hint

The learner's cell is found by its first line, which bundle.py writes. It is run in the lab's room, not in the notebook.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence

from ... import errors, files
from . import bundle, copies, get


class Cells:
    """The lab's tests, on the learner's cell as it was last run."""

    def __init__(self, name: str, history: Sequence[str]) -> None:
        self.lab = get(name)
        mark = f"# {bundle.cells_mark(self.lab)}"
        found = [text for text in history if text.startswith(mark)]
        if not found:
            raise errors.NotFound(f"run the cell that begins with {mark!r} first, and leave that line in it")
        self.source = found[-1]

    def check(self, test: str) -> None:
        """Run one test. AssertionError with its hint if it fails; what this host cannot grade is said, no more."""
        with tempfile.TemporaryDirectory(prefix="minicontainer-cell-") as directory:
            files.write(f"{directory}/lab.py", self.source.encode())
            command = copies.pytest(self.lab, f"{directory}/lab.py", f"{directory}/results", "-k", test)
            done = subprocess.run(
                command,
                cwd=copies.above(self.lab),
                env=copies.environment(),
                capture_output=True,
                text=True,
                check=False,
            )
            entries = [json.loads(line) for line in copies.read(f"{directory}/results").splitlines()]
        if not entries:
            raise errors.MiniContainerError(f"{test} could not be run: {done.stdout[-1000:]}{done.stderr[-1000:]}")
        (entry,) = [entry for entry in entries if entry["test"] == test]
        if entry["outcome"] == "failed":
            raise AssertionError(entry["hint"])
        if entry["outcome"] != "passed":
            print(f"not gradable here: {entry['hint']}")
