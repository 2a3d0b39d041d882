"""Every notebook of the course, executed cell by cell in its own kernel, as root and as an ordinary user: no error, no
word on stderr, no empty plot, every question answered right by the instructor's answers, nothing left on the host."""

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbclient")

from minicontainer.teach import course, lesson

NOTEBOOKS = [Path(path) for path in course.originals()]
QUICK = {"root": "02", "userns": "01"}  # the one of each tier that plain test runs execute


def tier(name: str) -> list[Any]:
    """The notebooks as parameters of a tier's test: all but one are for --all."""
    return [
        pytest.param(path, marks=[] if path.name.startswith(QUICK[name]) else pytest.mark.slow, id=path.stem)
        for path in NOTEBOOKS
    ]


# ------------------------------------------------------------------------------------------------------ what is written


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def written(request: pytest.FixtureRequest) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(request.param.read_text())
    document["path"] = request.param
    return document


def text(cell: dict[str, Any]) -> str:
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def test_no_output_is_committed(written: dict[str, Any]) -> None:
    for cell in written["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None, text(cell)


def test_the_format_and_the_kernel(written: dict[str, Any]) -> None:
    assert (written["nbformat"], written["nbformat_minor"]) == (4, 5)
    assert written["metadata"]["kernelspec"]["name"] == course.KERNEL
    identifiers = [cell["id"] for cell in written["cells"]]
    assert len(set(identifiers)) == len(identifiers)


def test_it_begins_and_ends_as_all_do(written: dict[str, Any]) -> None:
    number = int(written["path"].name[:2])
    first = next(cell for cell in written["cells"] if cell["cell_type"] == "markdown")
    assert text(first).startswith("# ")
    code = [text(cell) for cell in written["cells"] if cell["cell_type"] == "code"]
    assert f"lesson.begin({number})" in code[0]
    assert "lesson.end()" in code[-1]
    assert lesson.TOPICS[number].file == written["path"].stem


def test_three_questions_wait_for_an_answer(written: dict[str, Any]) -> None:
    cells = [text(cell) for cell in written["cells"] if "answer" in cell["metadata"].get("tags", ())]
    waiting = set(re.findall(r"^(answer_\d) = \.\.\.", "\n".join(cells), re.M))
    asked = set(re.findall(r"lesson\.question\(\s*(\d)", "\n".join(map(text, written["cells"]))))
    assert len(waiting) >= 3 and {f"answer_{number}" for number in asked} == waiting
    assert set(course.instructor_answers(str(written["path"]))) == waiting


def test_what_it_wants_of_the_host_stands_in_the_table(written: dict[str, Any]) -> None:
    """`doctor` and the first cell go by it."""
    whole = "\n".join(map(text, written["cells"]))
    used = set(re.findall(r'here\.can\("(\w+)"\)', whole)) | ({"overlay"} if "lesson.run(" in whole else set())
    assert used <= set(lesson.TOPICS[int(written["path"].name[:2])].wants)


def test_what_every_notebook_has(written: dict[str, Any]) -> None:
    """Aims and time first, predictions, the package's own source, a picture; it ends at its lab."""
    first = text(written["cells"][0])
    number = f"{int(written['path'].name[:2]):02}"
    assert f"# {number} · " in first and "able to\n\n* " in first
    assert f"**Time:** {lesson.TOPICS[int(number)].minutes} minutes." in first
    whole = "\n".join(map(text, written["cells"]))
    assert "*Predict" in whole and "inspect.getsource(" in whole and "plot." in whole
    last = written["cells"][-1]
    assert last["cell_type"] == "markdown" and text(last).startswith(f"## Lab {number}")
    assert f"minicontainer lab start {number} " in text(last) and f"minicontainer lab check {number} " in text(last)


def test_diagrams_are_not_folded(written: dict[str, Any]) -> None:
    """JupyterLab in a window of 1280 pixels, the list of files open beside it, has room for so many letters."""
    for cell in written["cells"]:
        for drawing in re.findall(r"```text\n(.*?)```", text(cell), re.S) if cell["cell_type"] == "markdown" else ():
            assert max(map(len, drawing.splitlines())) <= 87, drawing


def test_images_have_words_for_who_does_not_see_them(written: dict[str, Any]) -> None:
    for cell in written["cells"]:
        assert not re.search(r"!\[\s*\]\(", text(cell)), text(cell)
        for tag in re.findall(r"<img[^>]*>", text(cell)):
            assert re.search(r'alt="[^"]+"', tag), tag


def test_a_page_folds_long_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat.v4 as v4

    monkeypatch.setattr(course, "CHECKOUT", str(tmp_path))
    page = course.page(v4.new_notebook(cells=[v4.new_code_cell("1 + " * 200 + "1")]), "01_process.ipynb")
    head = Path(page).read_text().partition("</head>")[0]
    assert page == f"{tmp_path}/build/notebooks/01_process.html" and head.endswith(course.WRAPPED)


# -------------------------------------------------------------------------------------------------------------- run


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A course's folder on a file system for layers; short, for it may have unix sockets in it."""
    monkeypatch.setattr(course, "TIME_LIMIT", 300)  # whoever waits knows why; here, others are at work
    with tempfile.TemporaryDirectory(prefix="mc-course-", dir="/var/tmp") as path:
        yield Path(path)


def marks(notebook: Any) -> set[str]:
    """What the names of a lesson's cgroups and devices have in them, from lesson.begin's own output."""
    found = set()
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            found |= set(output.get("metadata", {}).get("lesson", {}).values())
    assert len(found) >= 2
    return found


def traces(marks: set[str]) -> set[str]:
    """What a notebook could leave on this host, in words: mounts (namespaces kept by a mount, too), network devices,
    cgroups, and processes, whose namespaces live as long as they do. Only what bears a mark: others work here, too."""
    found = {f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    found |= {f"link {line}" for line in links.splitlines()}
    for root, directories, _ in os.walk("/sys/fs/cgroup"):
        found |= {f"cgroup {root}/{name}" for name in directories}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        except OSError:
            continue
        if int(process.name) != os.getpid():
            found.add(f"process {process.name}: {words.decode(errors='replace')}")
    return {trace for trace in found if any(mark in trace for mark in marks)}


def left(marks: set[str]) -> set[str]:
    """What is there after a moment: the kernel takes a dead namespace's devices away in its own time."""
    for _ in range(150):
        found = traces(marks)
        if not found:
            break
        time.sleep(0.2)
    return found


def run(path: Path, folder: Path) -> None:
    answers = course.instructor_answers(str(path))
    notebook = course.execute(str(path), str(folder), answers)
    assert course.problems(notebook) == []
    for cell in notebook.cells:  # what one cell printed in a row is one output
        names = [output.get("name") for output in cell.get("outputs", ())]
        assert all(one is None or one != two for one, two in pairwise(names)), cell.source
    said = "".join(
        output.text for cell in notebook.cells for output in cell.get("outputs", ()) if output.output_type == "stream"
    )
    for name in answers:
        assert f"✓ Question {name[-1]}" in said
    assert "✗ Question" not in said
    assert left({str(folder), *marks(notebook)}) == set()
    assert not list((folder / ".scratch").iterdir())


@pytest.mark.root
@pytest.mark.needs("overlay", "busybox", "libseccomp", "ip")
@pytest.mark.timeout(400)
@pytest.mark.parametrize("path", tier("root"))
def test_as_root(path: Path, folder: Path) -> None:
    run(path, folder)


@pytest.mark.userns
@pytest.mark.needs("user-namespace", "user-overlay", "busybox", "libseccomp", "ip")
@pytest.mark.timeout(400)
@pytest.mark.parametrize("path", tier("userns"))
def test_as_an_ordinary_user(path: Path, folder: Path) -> None:
    run(path, folder)
