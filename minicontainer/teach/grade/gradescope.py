"""Gradescope's autograder: python -m minicontainer.teach.grade.gradescope /autograder 05_layers …

    BASE/submission/             what the student has handed in
    BASE/results/results.json    written anew after each test, so that a time-out loses nothing

Its containers allow neither unshare nor mount: only tests marked `pure` are graded there, in plain rooms, with the
student's code as another user. The rest is graded by `minicontainer grade`, and `--merge` puts the two together.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time

from ... import files
from ..lab import Lab, copies, get
from . import outputs, submissions
from .records import Entry, Graded

LIMIT = 300.0  # seconds for one lab


def main(base: str, *names: str) -> int:
    """Grade the labs of these names, one after the other."""
    labs = [get(name) for name in names]
    handed_in = submissions.Submission("submission", "", f"{base}/submission")
    graded: list[Graded] = []
    for lab in labs:
        seed = secrets.token_hex(4)
        try:
            source, refused = submissions.text(handed_in, lab, len(labs) == 1), ""
        except submissions.Refused as error:
            source, refused = "", str(error)
        graded.append(Graded("submission", "", lab.name, seed, "gradescope", "pure", [], refused, None))
        grade(base, lab, source, refused, graded)
    return 0


def grade(base: str, lab: Lab, source: str, refused: str, graded: list[Graded]) -> None:
    """Run a lab's pure tests on a text, and write down each result as it comes."""
    with tempfile.TemporaryDirectory(prefix="minicontainer-grade-") as directory:
        results = f"{directory}/results"
        files.write(f"{directory}/lab.py", source.encode())
        command = copies.pytest(lab, f"{directory}/lab.py", results, "--tier=pure", f"--seed={graded[-1].seed}")
        running = subprocess.Popen(
            command,
            cwd=copies.above(lab),
            env=copies.environment(),
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + LIMIT
        while True:
            ended = running.poll() is not None
            entries = [json.loads(line) for line in copies.read(results).splitlines()]
            write(base, graded, [{**entry, "hint": refused or entry["hint"]} for entry in entries])
            if ended:
                return
            if time.monotonic() > deadline:
                running.kill()
            time.sleep(0.1)


def write(base: str, graded: list[Graded], entries: list[Entry]) -> None:
    """Replace results.json by what is known so far."""
    graded[-1] = graded[-1]._replace(tests=entries)
    os.makedirs(f"{base}/results", exist_ok=True)
    files.write(f"{base}/results/results.json", json.dumps(outputs.gradescope(graded), indent=1).encode())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
