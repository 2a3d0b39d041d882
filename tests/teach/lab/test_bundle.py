"""Labs handed out: what is in each bundle, and that each does its work where it is unpacked."""

import csv
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import pytest

from minicontainer.teach import lab as labs
from minicontainer.teach.grade import records
from minicontainer.teach.lab import bundle, cells, stub
from tests.conftest import CHECKOUT, minicontainer, need

SOLUTION = (CHECKOUT / "labs" / "solutions" / "05_layers.py").read_text()


def unpacked(path: str, to: Path) -> Path:
    """An archive's folder."""
    with zipfile.ZipFile(path) as zipped:
        zipped.extractall(to)
    return to


@pytest.mark.needs("user-namespace")
def test_a_student_unpacks_and_checks(tmp_path: Path) -> None:
    minicontainer("lab", "bundle", "--student", str(tmp_path), "--labs", "01,05")
    folder = unpacked(f"{tmp_path}/minicontainer-labs.zip", tmp_path) / "minicontainer-labs"
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["01_process", "05_layers"]
    assert not [path for path in folder.rglob("*") if "solution" in path.name or "package" in path.name]
    (folder / "05_layers" / "lab.py").write_text(SOLUTION)
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "05_layers", "01_process"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout
    assert "launch() is still the stub" in done.stdout
    assert "✗ 0/2  " in done.stdout
    assert "✓ 3/3  " in done.stdout


@pytest.mark.needs("user-namespace")
def test_a_check_ends_with_the_points(tmp_path: Path) -> None:
    """And a value with which a test can do nothing is named; the seed makes the same inputs once more."""
    reference = (CHECKOUT / "labs" / "solutions" / "16_measure.py").read_text()
    source = reference.replace("def compare(", "def compare(*_): return None\n\n\ndef unused(")
    assert source != reference
    (tmp_path / "lab.py").write_text(source)
    done = minicontainer("lab", "check", "16", str(tmp_path / "lab.py"), "--seed=abc", check=False)
    assert done.returncode == 1
    assert "hint: compare() returned None: the test can do nothing with that (TypeError: " in done.stdout
    assert done.stdout.splitlines()[-1] == "15 of 19 points (--seed=abc is the same again)"


def test_an_instructor_gets_everything(tmp_path: Path) -> None:
    (path,) = bundle.instructor(str(tmp_path), [labs.get("06")])
    with zipfile.ZipFile(path) as zipped:
        names = {name.partition("/")[2] for name in zipped.namelist()}
    assert {"solutions/06_overlay.py", "solutions/06_package.py", "INSTRUCTOR.md", "06_overlay/test_lab.py"} <= names


def test_a_lab_that_needs_namespaces_is_not_for_gradescope(tmp_path: Path) -> None:
    done = minicontainer("lab", "bundle", "--gradescope", str(tmp_path), "--labs", "06", check=False)
    assert done.returncode == 1
    assert "06_overlay" in done.stderr
    assert "namespaces" in done.stderr


def autograde(folder: Path, source: str | None, *around: str, lab: str = "05") -> dict[str, Any]:
    """Gradescope's part, for one lab: unpack, hand in, run; what results.json says."""
    minicontainer("lab", "bundle", "--gradescope", str(folder), "--labs", lab)
    unpacked(f"{folder}/minicontainer-autograder.zip", folder / "source")
    assert (folder / "source" / "setup.sh").read_text().startswith("#!/bin/sh")
    (folder / "submission").mkdir()
    (folder / "submission" / "conftest.py").write_text("raise SystemExit('the student was here')\n")
    if source is not None:
        (folder / "submission" / "lab.py").write_text(source)
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid():
            path.chmod(path.stat().st_mode | 0o011)  # the student's code runs as another user, and reads the package
    told = {**os.environ, "AUTOGRADER": str(folder), "PYTHON": sys.executable}
    command = [*around, "sh", str(folder / "source" / "run_autograder")]
    done = subprocess.run(command, env=told, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads((folder / "results" / "results.json").read_text())
    return document


HOSTILE = """\
import atexit, os, sys
open("/tmp/results.json", "w").write('{"score": 100}')
for place in ("../results", "../../results", "/autograder/results"):
    try:
        open(place + "/results.json", "w").write('{"score": 100}')
    except OSError:
        pass
def apply(*_): os._exit(0)
def owner(*_): sys.exit(0)
def squash(*_): raise SystemExit(0)
"""


@pytest.mark.root
@pytest.mark.parametrize(("source", "score"), [(SOLUTION, 16), (None, 0), (HOSTILE, 0), ("def apply(:", 0)])
def test_gradescope_where_nobody_may_unshare(tmp_path: Path, source: str | None, score: int) -> None:
    """Root as in its containers: without CAP_SYS_ADMIN neither unshare(2) nor mount(2)."""
    need("setpriv")
    around = ("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin")
    assert subprocess.run([*around, "unshare", "-m", "true"], capture_output=True).returncode != 0
    document = autograde(tmp_path, source, *around)
    assert document["score"] == score
    assert sum(test["score"] for test in document["tests"]) == score
    assert sum(test["max_score"] for test in document["tests"]) == 16
    assert {test["status"] for test in document["tests"]} == {"passed" if score else "failed"}
    assert all(score or test["output"] for test in document["tests"]), "a failed test says why"


ROSTER = "Student,ID,SIS User ID,SIS Login ID,Section\nAnn,1,,ann,\nBob,2,,bob,\n"


@pytest.mark.root
def test_what_gradescope_found_is_merged(tmp_path: Path) -> None:
    """The autograder's own results.json: all of lab 05, and of lab 12 the tests that need no namespaces."""
    around = ("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin")
    twelve = (CHECKOUT / "labs" / "solutions" / "12_idmap.py").read_text()
    found = {}
    for student, source, lab in (("ann", SOLUTION, "05"), ("bob", twelve, "12")):
        found[student] = autograde(tmp_path / student, source, *around, lab=lab)
        (tmp_path / "downloads" / student).mkdir(parents=True)
        results = (tmp_path / student / "results" / "results.json").read_bytes()
        (tmp_path / "downloads" / student / "results.json").write_bytes(results)
    pure = sum(test["score"] for test in found["bob"]["tests"])
    assert found["ann"]["score"] == 16 and 0 < pure < 16
    out = tmp_path / "out"
    (tmp_path / "roster.csv").write_text(ROSTER)
    merge = (
        "grade",
        "--out",
        str(out),
        "--merge",
        str(tmp_path / "downloads"),
        "--roster",
        str(tmp_path / "roster.csv"),
    )
    done = minicontainer(*merge)
    assert done.stdout.startswith("merged: ann\nmerged: bob\n")
    ann, bob = records.Records(str(out)).all()
    assert (ann.lab, ann.points, ann.possible, ann.whole) == ("05_layers", 16, 16, True)
    assert (bob.lab, bob.points, bob.of, bob.possible, bob.whole) == ("12_idmap", pure, pure, 16, False)
    assert ann.seed == found["ann"]["extra_data"]["seeds"]["05_layers"]
    rows = list(csv.DictReader((out / "canvas.csv").read_text().splitlines()))
    assert [(row["05_layers"], row["12_idmap"]) for row in rows] == [("16", ""), ("", "")], "half a lab is no mark"
    told = json.loads((out / "gradescope" / "bob.json").read_text())
    assert "score" not in told
    assert [test["score"] for test in told["tests"] if "score" in test] == [
        test["score"] for test in found["bob"]["tests"]
    ]
    minicontainer("grade", "--out", str(out), "--override", "bob", "12", "15", "--reason", "shown by hand")
    assert [one.points for one in records.Records(str(out)).all()] == [16, 15]


def test_an_assignment_is_one_as_nbgrader_has_it(tmp_path: Path) -> None:
    """The format: https://nbgrader.readthedocs.io, "nbgrader cell metadata", version 3."""
    paths = bundle.nbgrader(str(tmp_path), labs.every())
    assert paths[0].endswith("nbgrader_config.py")
    for lab, path in zip(labs.every(), paths[1:], strict=True):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        told = [cell.metadata.nbgrader for cell in notebook.cells]
        assert len({one.grade_id for one in told}) == len(told)
        for cell, one in zip(notebook.cells, told, strict=True):
            assert one.schema_version == 3
            assert one.cell_type == cell.cell_type
            assert isinstance(one.grade, bool) and isinstance(one.locked, bool) and isinstance(one.solution, bool)
            assert ("points" in one) == one.grade
        (answer,) = [cell for cell in notebook.cells if cell.metadata.nbgrader.solution]
        assert stub.BEGIN in answer.source and not answer.metadata.nbgrader.locked
        graded = [cell for cell in notebook.cells if cell.metadata.nbgrader.grade]
        assert len(graded) >= 3, lab.name
        assert sum(cell.metadata.nbgrader.points for cell in graded) >= 10, lab.name


@pytest.mark.needs("user-namespace", "overlay")
def test_a_cell_is_quiet_or_raises_the_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """Any output on stderr, and any error, costs all points of a cell; so a pass must not make a sound."""
    lab = labs.get("06")
    mark = f"# {bundle.cells_mark(lab)}\n"
    solution = (CHECKOUT / "labs" / "solutions" / "06_overlay.py").read_text()
    good = cells.Cells(lab.name, ["x = 1", f"{mark}def stack(", f"{mark}{solution}"])
    good.check("test_a_write_lands_in_upper")
    assert capsys.readouterr() == ("", "")
    cleared = cells.Cells(lab.name, [f"{mark}def stack(layers, top):\n    pass  # yours to write\n"])
    with pytest.raises(AssertionError, match="no overlay"):
        cleared.check("test_layers_are_seen_as_one_tree")
