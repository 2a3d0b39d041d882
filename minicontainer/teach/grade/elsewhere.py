"""Results of another grader, merged into ours: of Gradescope, say, which grades what needs no namespaces.

    merge(records, "downloads/")         a folder of STUDENT.json, or STUDENT/results.json
    merge(records, "downloads/ann.json")

They are Gradescope's results.json, as our own autograder writes it. A test that was graded here stays as it is; one
that this host could not grade takes what is found there.
"""

from __future__ import annotations

import json
import os

from ... import errors, files
from . import outputs, records, submissions


def merge(kept: records.Records, path: str) -> list[str]:
    """Keep what is found; the students of whom it was. Raises NotFound, InvalidArgument."""
    found = results(path)
    if not found:
        raise errors.NotFound(f"--merge {path}: there is no STUDENT.json and no STUDENT/results.json")
    for student, file in found.items():
        try:
            document = json.loads(files.read(file))
        except (ValueError, OSError) as error:
            raise errors.InvalidArgument(f"--merge {file}: {error}") from None
        kept.merge(student, outputs.from_gradescope(document, file))
    return sorted(found)


def results(path: str) -> dict[str, str]:
    """The files, by student."""
    if not os.path.isdir(path):
        folder, name = os.path.split(os.path.abspath(path))
        base = os.path.basename(folder) if name == "results.json" else os.path.splitext(name)[0]
        return {submissions.printable(base): path} if os.path.exists(path) else {}
    found = {}
    for name in sorted(os.listdir(path)):
        inner = f"{path}/{name}/results.json"
        if os.path.isfile(inner):
            found[submissions.printable(name)] = inner
        elif name.endswith(".json"):
            found[submissions.printable(name.removesuffix(".json"))] = f"{path}/{name}"
    return found
