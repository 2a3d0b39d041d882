"""Grading: each submission in a container, the assertions outside; whatever it does costs it its own points alone."""

import csv
import fcntl
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import pytest

from minicontainer.teach import lab as labs
from minicontainer.teach.grade import records
from minicontainer.teach.lab import proof
from tests import leftovers
from tests.conftest import CHECKOUT, minicontainer
from tests.teach.grade import submissions as generated

pytestmark = [pytest.mark.root, pytest.mark.needs("user-namespace", "overlay")]

# Under emulation Python is ten times slower: a student and lab that take a second here take twelve there.
EMULATED = 380 if "MINICONTAINER_VM" in os.environ else 110

OVERLAY = labs.get("06")
REFERENCE = proof.solution(OVERLAY)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where stores would be; after the test nothing of any cell is left, on disk or in the kernel."""
    monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("MINICONTAINER_SECRET", "not for students")
    yield tmp_path / "root"
    assert not Path(f"{tmp_path}/root-grade").exists()
    assert [line for line in leftovers.mounts() if f" {tmp_path}/" in line] == []
    assert at_work(tmp_path / "root") == []


def at_work(root: Path) -> list[str]:
    """Every process that was started for a store below there: pytest, the clients and monitors of cells."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if f"MINICONTAINER_ROOT={root}-grade/".encode() in Path(f"/proc/{name}/environ").read_bytes():
                found.append(Path(f"/proc/{name}/cmdline").read_text())
        except OSError:
            continue  # it has ended
    return found


def grade(
    folder: Path, out: Path, *flags: str, timeout: float = 110, check: bool = True
) -> subprocess.CompletedProcess[str]:
    return minicontainer("grade", str(folder), "--labs", "06", "--out", str(out), *flags, timeout=timeout, check=check)


def hand_in(folder: Path, students: list[generated.Student]) -> Path:
    folder.mkdir()
    for one in students:
        one.write(folder)
    return folder


def scores(out: Path) -> dict[str, float]:
    return {one.student: one.points for one in records.Records(str(out)).all()}


def some(*names: str) -> list[generated.Student]:
    """A perfect one, and these of the hostile ones."""
    perfect = generated.Student("perfect", {"06_overlay/lab.py": REFERENCE.encode()}, generated.ALL)
    return [perfect, *(one for one in generated.hostile(REFERENCE, [], "/") if one.name in names)]


def expected(students: list[generated.Student], found: dict[str, float]) -> list[str]:
    """Who has not got the points that he should have."""
    return [
        f"{one.name}: {found.get(one.name)} in place of {one.points}"
        for one in students
        if found.get(one.name) != one.points
    ]


def secrets_of(tmp_path: Path) -> list[str]:
    """What no student should see."""
    return [
        str(tmp_path / "in"),
        str(tmp_path / "out"),
        f"{CHECKOUT}/labs",
        f"{CHECKOUT}/tests",
        "/etc/shadow",
        "/var/lib",
    ]


@pytest.mark.vm
@pytest.mark.timeout(400)
def test_a_class_is_graded_and_everybody_gets_what_he_should(tmp_path: Path, root: Path) -> None:
    """On either version of cgroups, so with lab 09: the cgroup that it is lent lies outside of the cell's own."""
    students = some("evil-os-exit", "evil-conftest", "evil-fifo", "evil-exit-in-function", "evil-slip")
    students[0].files["09_cgroups/lab.py"] = proof.solution(labs.get("09")).encode()
    partial = {"handed-in/06_overlay/lab.py": generated.without(REFERENCE, "changes").encode()}
    students.append(generated.Student("partial", partial, 9, "zip"))
    spying = generated.spy(secrets_of(tmp_path), str(CHECKOUT)) + REFERENCE
    students.append(generated.Student("spy", {"06/lab.py": spying.encode()}, generated.ALL, "tar.gz"))
    folder, out = hand_in(tmp_path / "in", students), tmp_path / "out"
    minicontainer("grade", str(folder), "--labs", "06,09", "--out", str(out), timeout=EMULATED)
    graded = records.Records(str(out)).all()
    assert expected(students, {one.student: one.points for one in graded if one.lab == "06_overlay"}) == []
    assert [one.student for one in graded if one.lab == "09_cgroups" and one.points] == ["perfect"]
    assert [one.points for one in graded if one.lab == "09_cgroups" and one.points] == [18]
    (one,) = [one for one in graded if one.student == "evil-fifo" and one.lab == "06_overlay"]
    assert {test["hint"] for test in one.tests} == {"06_overlay/lab.py is no regular file"}
    seeds = {one.seed for one in graded}
    assert len(seeds) == 2 * len(students), "inputs differ from student to student, and from lab to lab"


def test_what_a_cell_is_to_the_kernel(tmp_path: Path, root: Path) -> None:
    """While a student's code runs: another user of the machine, no network, limits, no new privileges, a filter."""
    slow = "import time\ntime.sleep(60)\n"
    folder = hand_in(tmp_path / "in", [generated.Student("slow", {"lab.py": slow.encode()}, 0)])
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
    with subprocess.Popen([*command, "--jobs", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        worker = 0
        while not worker and time.monotonic() < deadline:
            worker = sleeper()
        assert worker, "the student's code was never seen running"
        assert len(at_work(root)) >= 3, "what the fixture looks for is there while it runs"
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{worker}/status").read_text().splitlines() if ":" in line
        )
        groups = Path(f"/proc/{worker}/cgroup").read_text()
        network = os.readlink(f"/proc/{worker}/ns/net")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
    assert int(status["Uid"].split()[0]) in range(60600, 61100)
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    assert "minicontainer-" in groups
    assert network != os.readlink("/proc/self/ns/net")
    assert not records.Records(str(tmp_path / "out")).finished("slow", "06_overlay"), "it was interrupted"


def sleeper() -> int:
    """The pid of process 1 of a room in a cell: three pid namespaces deep, and asleep; 0 if there is none."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            numbers = next(line.split()[1:] for line in lines if line.startswith("NSpid:"))
            user = next(int(line.split()[1]) for line in lines if line.startswith("Uid:"))
            waiting = Path(f"/proc/{pid}/wchan").read_text()
        except (OSError, StopIteration):
            continue
        if len(numbers) >= 3 and 60600 <= user < 61100 and "nanosleep" in waiting:
            return int(pid)
    return 0


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, root: Path) -> None:
    """Finished results stay as they are, to the byte; the others are made; what the killed run left is gone."""
    students = [generated.Student(f"s{n}", {"lab.py": REFERENCE.encode()}, generated.ALL) for n in range(4)]
    folder, out = hand_in(tmp_path / "in", students), tmp_path / "out"
    command = [sys.executable, "-m", "minicontainer", "grade", str(folder), "--labs", "06", "--out", str(out)]
    with subprocess.Popen([*command, "--jobs", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while len(list(out.glob("results/*/*.jsonl"))) < 2 and time.monotonic() < deadline:
            os.sched_yield()
        process.kill()
    kept = {path: path.read_bytes() for path in out.glob("results/*/*.jsonl")}
    assert 2 <= len(kept) < 4
    orphan = (tmp_path / "root-grade").iterdir().__next__().name
    wait_for_orphans(tmp_path / "root-grade" / orphan)
    grade(folder, out)
    assert {path: path.read_bytes() for path in kept} == kept
    assert expected(students, scores(out)) == []


def wait_for_orphans(folder: Path) -> None:
    """The killed grader's pytest finishes by itself; until then it holds the folder's lock."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.close(descriptor)


def test_one_is_graded_anew_on_the_same_inputs(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And by sudo: what came of it is his who typed it."""
    students = some()
    folder, out = hand_in(tmp_path / "in", students), tmp_path / "out"
    grade(folder, out)
    before = records.Records(str(out)).all()[0]
    (folder / "perfect/06_overlay/lab.py").write_text(generated.without(REFERENCE, "changes"))
    grade(folder, out)
    assert scores(out) == {"perfect": 13}, "what is finished is not graded again by itself"
    assert {path.stat().st_uid for path in out.rglob("*")} == {0}
    monkeypatch.setenv("SUDO_UID", "12345")
    monkeypatch.setenv("SUDO_GID", "12346")
    grade(folder, out, "--only", "perfect")
    after = records.Records(str(out)).all()[0]
    assert (after.points, after.seed) == (9, before.seed)
    assert {(path.stat().st_uid, path.stat().st_gid) for path in (out, *out.rglob("*"))} == {(12345, 12346)}
    done = grade(folder, out, "--only", "nobody", check=False)
    assert done.returncode == 1 and "no submission of nobody" in done.stderr


ROSTER = """\
Student,ID,SIS User ID,SIS Login ID,Section,Essay (11),"Lab 6: layers (12)",Final Score
    Points Possible,,,,,10,13.00,(read only)
"Perfect, Percy",4711,s1,perfect,A,7,,
"Missing, Mia",4712,s2,mia,A,8,,
"Student, Test",99,,,A,,,
"""


def test_every_output_of_a_run(tmp_path: Path, root: Path) -> None:
    """Canvas, Gradescope, JUnit, nbgrader, Markdown and the page say the same, and an override is everywhere."""
    students = some("evil-os-exit")
    folder, out = hand_in(tmp_path / "in", students), tmp_path / "out"
    (tmp_path / "roster.csv").write_text(ROSTER)
    grade(folder, out)
    done = minicontainer(
        "grade", "--out", str(out), "--override", "evil-os-exit", "06", "2.5", "--reason", "asked <me> & showed it",
        "--roster", str(tmp_path / "roster.csv"),
    )  # fmt: skip
    assert "no submission of Missing, Mia" in done.stdout
    assert "the roster has no line for evil-os-exit" in done.stdout
    rows = list(csv.reader(io.StringIO((out / "canvas.csv").read_text())))
    assert rows[0] == next(csv.reader(io.StringIO(ROSTER)))
    assert [row[6] for row in rows[1:]] == ["13.00", "13", "", ""]
    minicontainer("grade", "--out", str(out), "--override", "perfect", "06", "12", "--reason", "late")
    assert [row[6] for row in csv.reader((out / "canvas.csv").open())][2] == "12", "the gradebook is remembered"
    minicontainer("grade", "--out", str(out), "--override", "perfect", "06", "13", "--reason", "not late")
    open_ones = [path.name for path in (out, *out.iterdir()) if path.is_file() and path.stat().st_mode & 0o077]
    assert (open_ones, out.stat().st_mode & 0o077) == ([], 0), "names and points are for nobody else"
    assert [row[5] for row in rows[1:]] == ["10", "7", "8", ""]
    perfect = json.loads((out / "gradescope/perfect.json").read_text())
    assert perfect["score"] == sum(test["score"] for test in perfect["tests"]) == 13
    given = json.loads((out / "gradescope/evil-os-exit.json").read_text())
    assert given["score"] == 2.5
    table = {row["student_id"]: row for row in csv.DictReader(io.StringIO((out / "nbgrader.csv").read_text()))}
    assert table["perfect"]["score"] == "13" and table["evil-os-exit"]["score"] == "2.5"
    suites = {suite.get("name"): suite for suite in ElementTree.parse(out / "junit.xml").getroot()}
    assert suites["evil-os-exit 06_overlay"].get("failures") == "5"
    assert suites["perfect 06_overlay"].get("failures") == "0"
    text = (out / "feedback/evil-os-exit.md").read_text()
    assert "2.5 of 13" in text and "asked <me> & showed it" in text and "ended the process" in text
    page = (out / "index.html").read_text()
    assert "asked &lt;me&gt; &amp; showed it" in page and "<me>" not in page
    assert 'src="http' not in page and "data:image/png" in page
    done = minicontainer("grade", "--out", str(out), "--override", "perfect", "06", "99", "--reason", "x", check=False)
    assert done.returncode == 1 and "worth 13" in done.stderr


def poor(tmp_path: Path, lacking: Path) -> Path:
    """A copy of two labs for a host that, while the file `lacking` is there, can run no test of one, and all but one
    of the other."""
    folder = tmp_path / "labs"
    folder.mkdir()
    shutil.copy(f"{CHECKOUT}/labs/conftest.py", folder)
    for lab, more in (
        (labs.get("01"), f"import os\nassert not os.path.exists({str(lacking)!r}), 'no such device'\n"),
        (OVERLAY, f"""
import os
@pytest.fixture(autouse=True)
def lacking(request):
    if request.node.name == {[name for name, _, _ in OVERLAY.tests()][4]!r} and os.path.exists({str(lacking)!r}):
        pytest.skip("this kernel has no such thing")
"""),
    ):  # fmt: skip
        shutil.copytree(lab.directory, folder / lab.name, ignore=shutil.ignore_patterns("__pycache__"))
        with (folder / lab.name / "test_lab.py").open("a") as file:
            file.write(more)
    return folder


def test_what_a_host_cannot_grade_is_no_zero_and_is_made_up_for(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test or a whole lab is left out of the points; the others count. Another grader, or a mend, does the rest."""
    lacking = tmp_path / "lacking"
    lacking.touch()
    monkeypatch.setenv("MINICONTAINER_LABS", str(poor(tmp_path, lacking)))
    texts = {"01/lab.py": proof.solution(labs.get("01")).encode(), "06/lab.py": REFERENCE.encode()}
    folder = hand_in(tmp_path / "in", [generated.Student(name, texts, 0) for name in ("perfect", "second")])
    out = tmp_path / "out"
    (tmp_path / "roster.csv").write_text(ROSTER)
    command = ["grade", str(folder), "--labs", "01,06", "--out", str(out)]
    done = minicontainer(*command, "--roster", str(tmp_path / "roster.csv"), timeout=110)
    assert "left empty" in done.stdout and "01_process cannot be graded on" in done.stdout
    process, overlay, *_ = records.Records(str(out)).all()
    assert (process.points, process.of, process.whole) == (0, 0, False)
    assert process.possible > 0 and "no such device" in process.tests[0]["hint"]
    assert (overlay.points, overlay.of, overlay.possible, overlay.whole) == (9, 9, 13, False)
    told = json.loads((out / "gradescope/perfect.json").read_text())
    without = [test["extra_data"]["test"] for test in told["tests"] if "score" not in test]
    missing = overlay.tests[4]["test"]
    assert "score" not in told and without == [*(test["test"] for test in process.tests), missing]
    assert "this kernel has no such thing" in (out / "index.html").read_text()

    test = {"test": missing, "lab": "06_overlay", "points": 3, "of": 4, "outcome": "failed"}
    elsewhere = tmp_path / "elsewhere/perfect"
    elsewhere.mkdir(parents=True)
    (elsewhere / "results.json").write_text(json.dumps({"tests": [{"output": "nearly", "extra_data": test}]}))
    minicontainer("grade", "--out", str(out), "--merge", str(tmp_path / "elsewhere"))
    whole = {(one.student, one.lab): one.points for one in records.Records(str(out)).all() if one.whole}
    assert whole == {("perfect", "06_overlay"): 12}

    before = (out / "results/second/06_overlay.jsonl").read_bytes()
    minicontainer(*command, timeout=110)
    assert (out / "results/second/06_overlay.jsonl").read_bytes() == before, "there is nothing new to be had here"
    lacking.unlink()
    minicontainer(*command, timeout=110)
    whole |= {(student, "01_process"): process.possible for student in ("perfect", "second")}
    whole["second", "06_overlay"] = 13
    assert {(one.student, one.lab): one.points for one in records.Records(str(out)).all() if one.whole} == whole


def test_where_no_lab_can_be_graded_nobody_has_a_result(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is the machine and not the lab, and the reason is the command's own."""
    (tmp_path / "lacking").touch()
    monkeypatch.setenv("MINICONTAINER_LABS", str(poor(tmp_path, tmp_path / "lacking")))
    folder = hand_in(tmp_path / "in", [generated.Student("ann", {"lab.py": REFERENCE.encode()}, 0)])
    done = minicontainer("grade", str(folder), "--labs", "01", "--out", str(tmp_path / "out"), check=False)
    assert done.returncode == 1 and "no such device" in done.stderr
    assert not (tmp_path / "out/results").exists()


def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines(tmp_path: Path, root: Path) -> None:
    folder = hand_in(tmp_path / "in", some())
    assert "1 of 1: perfect, 06_overlay" in grade(folder, tmp_path / "piped").stderr
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 90, 0, 0))
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
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs, check=True, timeout=60)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    os.close(theirs)
    assert "  0% |" in shown and "100% |" in shown and "1 of 1" in shown and "perfect" in shown


def test_a_time_limit_keeps_what_was_scored(tmp_path: Path, root: Path) -> None:
    """The wall limit ends a lab that goes on; tests before it count, tests after it are 0 and say why.

    A call has five seconds: one of four is in time, and the second is where the lab's time is over.
    """
    source = REFERENCE.replace("    if len(layers) == 1:", "    import time; time.sleep(4)\n    if len(layers) == 1:")
    students = [generated.Student("slow", {"lab.py": source.encode()}, 6)]
    out = tmp_path / "out"
    grade(hand_in(tmp_path / "in", students), out, "--limit", "7.8")
    (one,) = records.Records(str(out)).all()
    assert one.points == 6
    assert "the time for this lab was over" in one.tests[-1]["hint"]


def test_marks_need_root_or_a_cgroup_and_say_so(tmp_path: Path) -> None:
    folder = hand_in(tmp_path / "in", some())
    command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set=-all"]
    command += [sys.executable, "-m", "minicontainer", "grade", str(folder), "--labs", "06", "--out", "/tmp/nobodys"]
    environment = {**os.environ, "MINICONTAINER_ROOT": str(tmp_path / "none")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/")
    assert done.returncode == 1
    assert "sudo minicontainer grade" in done.stderr and "lab check" in done.stderr
    assert not os.path.exists("/tmp/nobodys/results")
    shutil.rmtree("/tmp/nobodys", ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_labs_reference_gets_all_its_points_in_a_cell(tmp_path: Path, root: Path) -> None:
    """What a lab needs, a cell has: /usr, its own /proc, mounts, system calls, a cgroup where one is lent."""
    known = [lab for lab in labs.every() if os.path.exists(lab.solution)]
    files = {f"{lab.name}/lab.py": proof.solution(lab).encode() for lab in known}
    out = tmp_path / "out"
    folder = hand_in(tmp_path / "in", [generated.Student("reference", files, 0)])
    minicontainer("grade", str(folder), "--out", str(out), timeout=280)
    found = records.Records(str(out)).all()
    assert [one.lab for one in found] == [lab.name for lab in known]
    lost = [f"{one.lab}: {test['hint']}" for one in found for test in one.tests if test["outcome"] == "failed"]
    assert lost == []
    here = {one.lab: sum(test["outcome"] == "not gradable here" for test in one.tests) for one in found}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        left_out = list(pool.map(lambda lab: proof.score(lab, proof.solution(lab)).left_out, known))
    assert here == dict(zip([lab.name for lab in known], left_out, strict=True)), "gradable out here, too"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_submissions_in_one_command(tmp_path: Path, root: Path) -> None:
    """Perfect, partial, empty, broken, malicious: every score as expected, and nothing is left (the fixture)."""
    students = generated.students(100, REFERENCE, secrets_of(tmp_path), str(CHECKOUT))
    assert len(students) == 100
    out = tmp_path / "out"
    began = time.monotonic()
    grade(hand_in(tmp_path / "in", students), out, "--jobs", "2", timeout=800)
    print(f"a hundred submissions: {time.monotonic() - began:.0f} seconds")
    wrong = expected(students, scores(out))
    failed = [
        f"{one.student}: {test['hint']}"
        for one in records.Records(str(out)).all() for test in one.tests
        if test["outcome"] == "failed" and wrong and wrong[0].startswith(f"{one.student}:")
    ]  # fmt: skip
    assert wrong == [], failed
    assert all(one.whole for one in records.Records(str(out)).all()), "nobody is left ungraded"
