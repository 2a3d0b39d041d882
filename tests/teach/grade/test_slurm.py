"""`grade --executor slurm` on a Slurm of one node: Debian's daemons, in namespaces that end with the test."""

import subprocess
import sys
from pathlib import Path

import pytest

from minicontainer.teach.grade import records
from tests import slurm
from tests.teach.grade import submissions as generated
from tests.teach.grade.test_grade import REFERENCE, expected, hand_in, root  # noqa: F401

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.needs("user-namespace", "overlay", *slurm.COMMANDS),
]


@pytest.mark.timeout(300)
def test_a_class_is_graded_by_a_job_array(tmp_path: Path, root: Path) -> None:
    perfect = {"lab.py": REFERENCE.encode()}
    students = [generated.Student(f"s{number}", perfect, generated.ALL) for number in range(3)]
    students.append(generated.Student("quits", {"lab.py": b"import os\nos._exit(0)\n"}, 0))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "minicontainer", "grade", str(hand_in(tmp_path / "in", students)), "--labs", "06"]
    command += ["--out", str(out), "--jobs", "2", "--executor", "slurm"]
    folder = tmp_path / "slurm"
    done = slurm.run(folder, command)
    logs = "\n".join(path.read_text()[-1500:] for path in [*folder.glob("*.log"), *out.glob("slurm/*/*.log")])
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{logs}"
    found = records.Records(str(out)).all()
    assert expected(students, {one.student: one.points for one in found}) == []
    assert {one.host for one in found} == {"node"}, "graded where Slurm has put it"
    assert len(list(out.glob("slurm/*/*.log"))) == len(students), "an element for each"
    assert (out / "index.html").exists()


def test_without_slurm_it_says_so(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    folder = hand_in(tmp_path / "in", [generated.Student("a", {"lab.py": b""}, 0)])
    command = [
        sys.executable,
        "-m",
        "minicontainer",
        "grade",
        str(folder),
        "--labs",
        "06",
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run([*command, "--executor", "slurm"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "slurm-client" in done.stderr
