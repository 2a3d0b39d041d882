"""A learner's own copies of the labs: started, checked, begun anew, and how far they are.

    ~/minicontainer-course/labs/06_overlay/     README.md, lab.py, test_lab.py, adapter.py
                               progress.json    the best score of each lab, by its name

The tests that count are the ones of this checkout: what a learner changes in the copy of test_lab.py changes nothing.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from ... import errors, files
from .. import course
from . import LABS, Lab

GIVEN = ("README.md", "lab.py", "test_lab.py", "adapter.py")


class Score(NamedTuple):
    """Points reached and to be had, of the tests that this host can run; and how many tests it cannot."""

    points: float
    of: float
    left_out: int


def folder() -> str:
    """Where a learner's labs lie: beside the notebooks' copies."""
    return f"{course.folder()}/labs"


def path(lab: Lab) -> str:
    """The learner's copy of a lab, which may not be there yet."""
    return f"{folder()}/{lab.name}"


def given(lab: Lab) -> list[str]:
    """The files of a lab that a learner gets: not every lab has an adapter."""
    return [name for name in GIVEN if os.path.exists(f"{lab.directory}/{name}")]


def start(lab: Lab) -> bool:
    """Copy what the learner's folder lacks; False if the lab has been started before, whose lab.py stays as it is."""
    os.makedirs(path(lab), exist_ok=True)
    shutil.copyfile(f"{LABS}/conftest.py", f"{folder()}/conftest.py")
    new = not os.path.exists(f"{path(lab)}/lab.py")
    for name in given(lab):
        if name != "lab.py" or new:
            shutil.copyfile(f"{lab.directory}/{name}", f"{path(lab)}/{name}")
    return new


def reset(lab: Lab) -> str:
    """A fresh stub. What was there is kept under a name with the date, which is returned; "" if nothing was there."""
    mine, kept = f"{path(lab)}/lab.py", ""
    if os.path.exists(mine):
        kept = f"{path(lab)}/lab.{time.strftime('%Y-%m-%d-%H%M%S')}.py"
        os.rename(mine, kept)
    start(lab)
    return kept


def check(lab: Lab, file: str = "", arguments: tuple[str, ...] = ()) -> tuple[int, Score]:
    """Run the lab's tests on the learner's lab.py, or on `file`; pytest's exit code, and the score, which is noted."""
    file = file or f"{path(lab)}/lab.py"
    if not os.path.exists(file):
        raise errors.NotFound(f"{file} is not there: minicontainer lab start {lab.number}")
    with tempfile.TemporaryDirectory(prefix="minicontainer-lab-") as directory:
        results = f"{directory}/results"
        command = pytest(lab, file, results, *arguments)
        code = subprocess.run(command, cwd=above(lab), env=environment(), check=False).returncode
        entries = [json.loads(line) for line in read(results).splitlines()]
    counted = [entry for entry in entries if entry["outcome"] in ("passed", "failed")]
    reached = Score(sum(e["points"] for e in counted), sum(e["of"] for e in counted), len(entries) - len(counted))
    if os.path.dirname(os.path.abspath(file)) == path(lab):
        note(lab, reached)
    return code, reached


def pytest(lab: Lab, file: str, results: str, *arguments: str) -> list[str]:
    """The command that runs a lab's tests on a file. To be run in `above(lab)` with `environment()`."""
    command = [sys.executable, "-B", "-m", "pytest", "-qq", "-p", "no:cacheprovider", lab.directory]
    if importlib.util.find_spec("pytest_timeout"):  # a checkout's settings speak of it
        command += ["-p", "pytest_timeout"]
    return [*command, f"--lab-file={os.path.abspath(file)}", f"--results={results}", *arguments]


def environment() -> dict[str, str]:
    """Ours, without whatever plugins of pytest somebody has installed: looking for them takes longer than a lab."""
    return {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def above(lab: Lab) -> str:
    """The directory above labs/: pytest's root, where its settings are."""
    return os.path.dirname(os.path.dirname(lab.directory))


def note(lab: Lab, score: Score) -> None:
    """Keep the best score of a lab."""
    scores = progress()
    if lab.name not in scores or scores[lab.name].points <= score.points:
        scores[lab.name] = score
        files.write(f"{folder()}/progress.json", json.dumps(scores, indent=1).encode())


def progress() -> dict[str, Score]:
    """The best score of each lab that was checked."""
    return {name: Score(*score) for name, score in json.loads(read(f"{folder()}/progress.json") or "{}").items()}


def read(path: str) -> str:
    """A file's text; none if there is no such file."""
    try:
        return files.read(path).decode()
    except FileNotFoundError:
        return ""
