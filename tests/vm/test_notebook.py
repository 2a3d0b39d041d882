"""Notebook 09 where limits are of version 2 alone: each of its experiments, made by hand and by the package."""

import tempfile

import pytest

pytest.importorskip("nbclient")

from minicontainer.teach import course

pytestmark = pytest.mark.root


@pytest.mark.timeout(300)
def test_the_notebook_of_cgroups_on_version_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "TIME_LIMIT", 240)  # emulation is slow
    (path,) = course.originals(["09"])
    with tempfile.TemporaryDirectory(prefix="mc-course-", dir="/var/tmp") as folder:
        notebook = course.execute(path, folder, course.instructor_answers(path))
    assert course.problems(notebook) == []
    said = "".join(
        output.text for cell in notebook.cells for output in cell.get("outputs", ()) if output.output_type == "stream"
    )
    for line in ("cgroups can be made here: True", "exit code -9", "pids.max 10: [9, ", "files agree: cpu.weight, "):
        assert line in said
    assert said.count("✓ Question") == 3
