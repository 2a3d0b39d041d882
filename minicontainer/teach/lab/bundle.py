"""The labs to hand out: to students, to another instructor, to Gradescope, to nbgrader.

    student(out)       minicontainer-labs.zip: README, stub, tests and adapter of each lab; no solution
    instructor(out)    minicontainer-labs-instructor.zip: the same, with solutions and the instructor's page
    gradescope(out)    minicontainer-autograder.zip: setup.sh and run_autograder, for the tests that need no namespaces
    nbgrader(out)      source/NN_topic/NN_topic.ipynb and nbgrader_config.py: an assignment for each lab

Each returns the paths that it has written below `out`. All but the student's need the solutions, and say so.
"""

from __future__ import annotations

import os
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

from ... import errors, files
from . import CHECKOUT, LABS, SOLUTIONS, Lab, copies

Entries = dict[str, bytes]  # what is in an archive: {name: content}
ROOT = "minicontainer-labs"
# pytest's settings, which a checkout has in pyproject.toml: two labs' tests bear one name.
SETTINGS = b"[pytest]\naddopts = --import-mode=importlib -ra\n"
PROGRAMS = ("setup.sh", "run_autograder")  # of an archive: may be executed


def student(out: str, labs: Sequence[Lab]) -> list[str]:
    """What a learner gets: with it and an installed minicontainer, `pytest minicontainer-labs/06_overlay`."""
    return [archive(f"{out}/{ROOT}.zip", below(ROOT, given(labs)))]


def instructor(out: str, labs: Sequence[Lab]) -> list[str]:
    """What another instructor gets: everything."""
    entries = given(labs)
    for lab in labs:
        entries[f"solutions/{lab.name}.py"] = read(lab.solution)
        package = f"{SOLUTIONS}/{lab.number}_package.py"
        if os.path.exists(package):
            entries[f"solutions/{os.path.basename(package)}"] = read(package)
    entries["INSTRUCTOR.md"] = read(f"{LABS}/INSTRUCTOR.md")
    return [archive(f"{out}/{ROOT}-instructor.zip", below(f"{ROOT}-instructor", entries))]


def given(labs: Sequence[Lab]) -> Entries:
    """The files of labs that everybody may have."""
    entries = {"pytest.ini": SETTINGS, **{name: read(f"{LABS}/{name}") for name in ("README.md", "conftest.py")}}
    for lab in labs:
        for name in copies.given(lab):
            entries[f"{lab.name}/{name}"] = read(f"{lab.directory}/{name}")
    return entries


def below(root: str, entries: Entries) -> Entries:
    """The same, in a folder of that name."""
    return {f"{root}/{name}": content for name, content in entries.items()}


def read(path: str) -> bytes:
    """A file of this checkout. NotFound, with the reason, for a solution that is not here."""
    try:
        return files.read(path)
    except FileNotFoundError:
        raise errors.NotFound(f"{path} is not here: solutions are in the instructor's checkout only") from None


def archive(path: str, entries: Entries) -> str:
    """Write a zip; the same bytes for the same entries. Returns its path."""
    files.make_directory(os.path.dirname(os.path.abspath(path)))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name in sorted(entries):
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if name in PROGRAMS else 0o644) << 16
            zipped.writestr(entry, entries[name])
    return path


# ----------------------------------------------------------------------------------------------------------- Gradescope

# Gradescope unpacks the archive into /autograder/source and runs setup.sh once; run_autograder for each submission.
SETUP = """\
#!/bin/sh
# What the tests run on: Python, and what the package imports. (The image is built with network.)
set -eu
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \\
    python3-venv python3-dev gcc libc6-dev libcap-dev
python3 -m venv /opt/minicontainer
/opt/minicontainer/bin/pip install -q -r "$(dirname "$0")/requirements.txt"
"""
RUN = """\
#!/bin/sh
# Grades what needs no namespaces; $AUTOGRADER and $PYTHON are for trying it elsewhere.
base=${{AUTOGRADER:-/autograder}}
cd "$base/source"
mkdir -p "$base/results"
chmod 700 "$base/source/labs" "$base/results"    # the student's code runs as another user
exec "${{PYTHON:-/opt/minicontainer/bin/python}}" -B -m minicontainer.teach.grade.gradescope "$base" {labs}
"""


def gradescope(out: str, labs: Sequence[Lab]) -> list[str]:
    """An autograder of the labs that have tests marked `pure`. InvalidArgument if none of them has."""
    pure = [lab for lab in labs if b"mark.pure" in read(f"{lab.directory}/test_lab.py")]
    if not pure:
        raise errors.InvalidArgument(
            f"{', '.join(lab.name for lab in labs)}: every test needs namespaces, which Gradescope's containers forbid"
        )
    entries = {f"labs/{name}": content for name, content in package("labs", ("conftest.py",)).items()}
    for lab in pure:
        for name in ("README.md", "test_lab.py"):
            entries[f"labs/{lab.name}/{name}"] = read(f"{lab.directory}/{name}")
    entries |= {f"minicontainer/{name}": content for name, content in package("minicontainer").items()}
    with open(f"{CHECKOUT}/pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    tools = [word for word in project["optional-dependencies"]["test"] if word.startswith("pytest==")]
    entries["requirements.txt"] = "".join(f"{word}\n" for word in [*project["dependencies"], *tools]).encode()
    entries["pytest.ini"] = SETTINGS
    entries["setup.sh"] = SETUP.encode()
    entries["run_autograder"] = RUN.format(labs=" ".join(lab.name for lab in pure)).encode()
    return [archive(f"{out}/minicontainer-autograder.zip", entries)]


def package(name: str, only: Sequence[str] = ()) -> Entries:
    """A directory of this checkout: its Python and JSON, or the files named."""
    found = {}
    for directory, _, names in os.walk(f"{CHECKOUT}/{name}"):
        for file in names:
            path = os.path.relpath(f"{directory}/{file}", f"{CHECKOUT}/{name}")
            if path in only or (not only and file.endswith((".py", ".json", "py.typed"))):
                found[path] = read(f"{directory}/{file}")
    return found


# ------------------------------------------------------------------------------------------------------------- nbgrader

CONFIG = """\
# What a solution is replaced by. `raise NotImplementedError()`, nbgrader's own, would keep a module from being loaded:
# solutions have helpers beside the functions, too.
c = get_config()
c.ClearSolutions.code_stub = {"python": "pass  # yours to write"}
"""
BEFORE = """\
# Writes the cell above into a file, and gets the lab's tests ready. Run it after each change.
from minicontainer.teach.lab import cells

lab = cells.Cells({name!r}, In)"""


def nbgrader(out: str, labs: Sequence[Lab]) -> list[str]:
    """An assignment for each lab: `nbgrader generate_assignment NN_topic` makes what students get."""
    import nbformat

    written = [f"{out}/nbgrader_config.py"]
    files.make_directory(out)
    files.write(written[0], CONFIG.encode())
    for lab in labs:
        notebook = nbformat.v4.new_notebook(cells=list(assignment(lab)))  # type: ignore[no-untyped-call]
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.validate(notebook)
        files.make_directory(f"{out}/source/{lab.name}")
        written.append(f"{out}/source/{lab.name}/{lab.name}.ipynb")
        files.write(written[-1], nbformat.writes(notebook).encode())  # type: ignore[no-untyped-call]
    return written


def assignment(lab: Lab) -> Iterator[Any]:
    """The notebook's cells: the job, the learner's cell with the solution marked, and a cell for each test."""
    from nbformat import v4

    def metadata(name: str, kind: str, **more: Any) -> dict[str, Any]:
        told = {"schema_version": 3, "grade": False, "solution": False, "locked": True, "task": False}
        return {"nbgrader": {**told, "grade_id": f"{lab.topic}-{name}", "cell_type": kind, **more}}

    readme = read(f"{lab.directory}/README.md").decode()
    yield v4.new_markdown_cell(readme, metadata=metadata("job", "markdown"))  # type: ignore[no-untyped-call]
    solution = f"# {cells_mark(lab)}\n{read(lab.solution).decode()}".rstrip()
    yield v4.new_code_cell(solution, metadata=metadata("lab", "code", solution=True, locked=False))  # type: ignore[no-untyped-call]
    before = BEFORE.format(name=lab.name)
    yield v4.new_code_cell(before, metadata=metadata("before", "code"))  # type: ignore[no-untyped-call]
    for name, title, points in lab.tests():
        text = f"# {title}\nlab.check({name!r})"
        yield v4.new_code_cell(text, metadata=metadata(name, "code", grade=True, points=points))  # type: ignore[no-untyped-call]


def cells_mark(lab: Lab) -> str:
    """The first line of a learner's cell, by which it is found."""
    return f"lab.py of {lab.name}"


KINDS = {"student": student, "instructor": instructor, "gradescope": gradescope, "nbgrader": nbgrader}
