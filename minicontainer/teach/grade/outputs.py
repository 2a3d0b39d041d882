"""Results in the forms that others read: made from records.py's, never the other way round.

    junit.xml                 a suite for each student and lab, as pytest writes it; from the records, because pytest
                              writes its own only at its end, which a run that was cut short never reaches
    gradescope/STUDENT.json   Gradescope's results.json (autograder specifications): each test with points and hint
    canvas.csv                the last roster's gradebook with the labs' points, to be imported again
    nbgrader.csv              the table that `nbgrader export` writes: what stands behind nbgrader reads that
    feedback/STUDENT.md       points and hints, for the student

What was not graded is never written as 0: a test is skipped there, a lab's cell is empty.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

from ... import errors, files
from ..lab import Lab, every
from .records import COUNTED, Entry, Graded, Records

FIXED = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")  # Canvas, "Gradebook CSV format"
# plugin.hint's words
DEFECT = "the test itself failed, which is a defect of the lab"
USELESS = "the test can do nothing with that"
POSSIBLE = "    Points Possible"


def write(records: Records, labs: Sequence[Lab], roster: str = "") -> tuple[list[Graded], list[str]]:
    """Write all of them. Returns the results, and what the instructor should know of them, a sentence each."""
    graded = records.all()
    problems = [
        f"{one.student}, {one.lab}: not wholly graded: {test['title']} {test['hint'].strip()[-200:]}"
        for one in graded
        for test in one.tests
        if test["outcome"] == "not graded" and not one.override
    ]
    for name in sorted({one.lab for one in graded}):
        results = [one for one in graded if one.lab == name]
        lacking = {test["title"] for one in results for test in one.tests if not_here(test, one)}
        if lacking:
            problems.append(
                f"{name}: tests that could not be graded here, so that the lab is unfinished: {len(lacking)}"
            )
        nothing = [one for one in results if one.tests and not one.of]
        for at, why in sorted({(one.host, one.tests[0]["hint"].partition("\n")[0]) for one in nothing}):
            problems.append(f"{name} cannot be graded on {at}, no test of it: {why}")
    problems += defects(graded)
    out = records.out
    files.write(f"{out}/junit.xml", junit(graded), 0o600)
    files.write(f"{out}/nbgrader.csv", nbgrader(graded).encode(), 0o600)
    for directory in ("gradescope", "feedback"):
        files.remove_tree(f"{out}/{directory}")
    for student, results in by_student(graded).items():
        for directory, ending, content in (
            ("gradescope", "json", json.dumps(gradescope(results), indent=1)),
            ("feedback", "md", feedback(student, results, {lab.name: lab.title for lab in labs})),
        ):
            files.make_directory(f"{out}/{directory}", 0o700)
            files.write(f"{out}/{directory}/{student}.{ending}", content.encode(errors="backslashreplace"), 0o600)
    if gradebook := records.roster(roster):
        text, said = canvas(read_roster(gradebook), graded)
        files.write(f"{out}/canvas.csv", text.encode(), 0o600)
        problems += said
    return graded, problems


def not_here(test: Entry, one: Graded) -> bool:
    """Whether points are missing because the host lacks something."""
    return bool(test["outcome"] == "not gradable here" and not one.override)


def defects(graded: Sequence[Graded]) -> list[str]:
    """The tests that broke down instead of saying what was wrong: a value that their author did not expect."""
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for one in graded:
        for test in one.tests:
            if test["outcome"] == "failed" and (DEFECT in test["hint"] or USELESS in test["hint"]):
                found[one.lab, test["title"]].append(one.student)
    return [
        f"{lab}: the test {title!r} itself broke down, for {', '.join(students[:5])}"
        + (f" and {len(students) - 5} more" if len(students) > 5 else "")
        + ": read the hints, and decide"
        for (lab, title), students in found.items()
    ]


def by_student(graded: Sequence[Graded]) -> dict[str, list[Graded]]:
    """The results of each student, in the order of the labs."""
    found: defaultdict[str, list[Graded]] = defaultdict(list)
    for one in graded:
        found[one.student].append(one)
    return dict(found)


# ------------------------------------------------------------------------------------------------------------ junit.xml

# What XML 1.0 cannot hold, whatever a student's code has printed (section 2.2).
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(graded: Sequence[Graded]) -> bytes:
    """JUnit's XML, in the dialect of pytest's --junitxml (xunit2)."""
    root = ElementTree.Element("testsuites", name="minicontainer labs")
    for one in graded:
        count = {word: sum(test["outcome"] == word for test in one.tests) for word in COUNTED}
        suite = ElementTree.SubElement(
            root, "testsuite", name=f"{one.student} {one.lab}", tests=str(len(one.tests)),
            failures=str(count["failed"]), errors="0", skipped=str(len(one.tests) - sum(count.values())),
            time=f"{sum(test['seconds'] for test in one.tests):.3f}", hostname=one.host,
        )  # fmt: skip
        properties = ElementTree.SubElement(suite, "properties")
        for name, value in (
            ("points", f"{one.points:g}"),
            ("of", f"{one.of:g}"),
            ("seed", one.seed),
            ("tier", one.tier),
        ):
            ElementTree.SubElement(properties, "property", name=name, value=value)
        for test in one.tests:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"{one.student}.{one.lab}", name=test["test"], time=str(test["seconds"])
            )
            hint = NOT_XML.sub("\N{REPLACEMENT CHARACTER}", test["hint"])
            if test["outcome"] == "failed":
                ElementTree.SubElement(case, "failure", message=hint).text = hint
            elif test["outcome"] not in COUNTED:
                ElementTree.SubElement(case, "skipped", message=f"{test['outcome']}: {hint}")
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'.encode()


# ----------------------------------------------------------------------------------------------------------- Gradescope


def gradescope(results: Sequence[Graded]) -> dict[str, Any]:
    """One student's results.json; without a top-level score where something was not graded."""
    tests = [test_of(test, one) for one in results for test in one.tests]
    told: dict[str, Any] = {
        "execution_time": round(sum(test["seconds"] for one in results for test in one.tests), 3),
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "output_format": "text",
        "output": "\n".join(remark(one) for one in results if remark(one)),
        "tests": tests,
        "extra_data": {"seeds": {one.lab: one.seed for one in results}, "tier": sorted({one.tier for one in results})},
    }
    if all(one.whole for one in results):
        told["score"] = sum(one.points for one in results)
    return told


def test_of(test: Entry, one: Graded) -> dict[str, Any]:
    """A test as Gradescope shows it; without a score where it was not graded."""
    told = {
        "name": f"{one.lab}: {test['title']}",
        "output": test["hint"],
        "output_format": "text",
        "visibility": "visible",
        "extra_data": {key: test[key] for key in ("test", "lab", "points", "of", "outcome")},
    }
    if test["outcome"] in COUNTED:
        told |= {"score": test["points"], "max_score": test["of"], "status": test["outcome"]}
    else:
        told["output"] = f"{test['outcome']}: {test['hint']}"
    return told


def from_gradescope(document: Any, where: str) -> list[Entry]:
    """The tests of a results.json of our own, as entries. Raises InvalidArgument for anything else."""
    found = []
    known = {lab.name for lab in every()}
    try:
        seeds = document.get("extra_data", {}).get("seeds", {})
        for test in document["tests"]:
            extra = test["extra_data"]
            if extra["outcome"] in COUNTED and extra["lab"] in known:
                told = {key: extra[key] for key in ("test", "lab", "points", "of", "outcome")}
                hint, seed = str(test.get("output", "")), str(seeds.get(extra["lab"], ""))
                found.append({**told, "hint": hint, "seed": seed})
    except (AttributeError, KeyError, TypeError):
        raise errors.InvalidArgument(
            f"{where} is no results.json of our autograder: its tests lack extra_data (lab, test, points, of, outcome)"
        ) from None
    return found


# --------------------------------------------------------------------------------------------------------------- Canvas


class Roster(NamedTuple):
    """A Canvas gradebook: its header, the lines before the students', and the students'."""

    header: list[str]
    above: list[list[str]]
    students: list[list[str]]


def read_roster(path: str) -> Roster:
    """Canvas's export. Raises InvalidArgument for what is none."""
    try:
        text = files.read(path).decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text)) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise errors.InvalidArgument(f"--roster {path}: {error}") from None
    if not rows or rows[0][:2] != ["Student", "ID"]:
        raise errors.InvalidArgument(f"--roster {path}: a Canvas gradebook begins with Student,ID; export one there")
    width = len(rows[0])
    rows = [[*row, *[""] * (width - len(row))] for row in rows]
    first = next((at for at, row in enumerate(rows[1:], 1) if row[0] == POSSIBLE), 0) + 1
    return Roster(rows[0], rows[1:first], rows[first:])


def canvas(roster: Roster, graded: Sequence[Graded]) -> tuple[str, list[str]]:
    """The gradebook with the labs' points, its columns and lines in their order; and what did not fit."""
    header, above, students = (
        list(roster.header),
        [list(row) for row in roster.above],
        [list(row) for row in roster.students],
    )
    problems = []
    who, unknown = matched(roster, graded)
    problems += [f"the roster has no line for {student}" for student in unknown]
    for name in sorted({one.lab for one in graded}):
        results = {one.student: one for one in graded if one.lab == name}
        possible = max(one.possible for one in results.values())
        column = column_of(name, header)
        if column is None:
            column = len(header)
            header.append(name)
            for row in above + students:
                row.append(f"{possible:g}" if row[0] == POSSIBLE else "")
        for row in above:
            if (
                row[0] == POSSIBLE
                and row[column].strip() not in ("", f"{possible:g}")
                and not same(row[column], possible)
            ):
                problems.append(
                    f"column {header[column]!r} has {row[column]} points possible, {name} is worth {possible:g}"
                )
        for student, one in results.items():
            if student in who:
                if one.whole:
                    students[who[student]][column] = f"{one.points:g}"
                else:
                    problems.append(f"{student}, {name}: left empty, for it was not wholly graded here")
    missing = [
        row[0] for at, row in enumerate(roster.students) if at not in who.values() and row[0].strip() != "Student, Test"
    ]
    problems += [f"no submission of {name}" for name in missing]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *above, *students])
    return text.getvalue(), problems


def same(text: str, number: float) -> bool:
    """Whether a cell says this number: 13.00 is 13."""
    try:
        return float(text) == number
    except ValueError:
        return False


def column_of(lab: str, header: list[str]) -> int | None:
    """The assignment of a lab, by its name or its number: "06_overlay (123)", "Lab 6: layers (123)"."""
    number = int(lab.partition("_")[0])
    for at, title in enumerate(header):
        if title not in FIXED and (lab in title or re.search(rf"\blab\s*0*{number}\b", title, re.IGNORECASE)):
            return at
    return None


def matched(roster: Roster, graded: Sequence[Graded]) -> tuple[dict[str, int], list[str]]:
    """Which line is whose: by the platform's number, else by login, id or name. And who has none, or several."""
    numbers = {row[1].strip(): at for at, row in enumerate(roster.students) if row[1].strip()}
    lines: defaultdict[str, set[int]] = defaultdict(set)
    known = [roster.header.index(name) for name in FIXED[1:4] if name in roster.header]
    for at, row in enumerate(roster.students):
        last, _, first = row[0].partition(",")
        for word in (row[0], f"{first} {last}", *(row[column] for column in known)):
            if plain(word):
                lines[plain(word)].add(at)
    found: dict[str, int] = {}
    unknown = []
    for student, number in sorted({(one.student, one.number) for one in graded}):
        candidates = {numbers[number]} if number in numbers else lines.get(plain(student), set())
        if len(candidates) == 1 and not candidates & set(found.values()):
            found[student] = next(iter(candidates))
        else:
            unknown.append(student + (" alone: several could be meant" if candidates else ""))
    return found, unknown


def plain(name: str) -> str:
    """A name's letters and digits alone."""
    return "".join(character for character in name.casefold() if character.isalnum())


# ------------------------------------------------------------------------------------------------------------- nbgrader

NBGRADER = (
    "assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email", "raw_score",
    "late_submission_penalty", "score", "max_score",
)  # fmt: skip


def nbgrader(graded: Sequence[Graded]) -> str:
    """The columns of nbgrader's own export (nbgrader.plugins.export), a line for each student and lab."""
    text = io.StringIO()
    writer = csv.DictWriter(text, NBGRADER, restval="", lineterminator="\n")
    writer.writeheader()
    for one in graded:
        points = f"{one.points:g}" if one.whole else ""
        writer.writerow(
            {"assignment": one.lab, "student_id": one.student, "raw_score": points, "score": points,
             "max_score": f"{one.possible:g}", "late_submission_penalty": "0"}
        )  # fmt: skip
    return text.getvalue()


# ------------------------------------------------------------------------------------------------------------- feedback

SIGNS = {"passed": "✓", "failed": "✗"}


def feedback(student: str, results: Sequence[Graded], titles: dict[str, str]) -> str:
    """What a student gets to read: Markdown."""
    lines = [f"# {student}", ""]
    for one in results:
        lines += [
            f"## {one.lab}: {titles.get(one.lab, '')}".rstrip(": "),
            "",
            f"**{one.points:g} of {one.of:g} points.**",
            "",
        ]
        if remark(one):
            lines += [remark(one), ""]
        for test in one.tests:
            sign = SIGNS.get(test["outcome"], "–")
            worth = f"{test['points']:g}/{test['of']:g}" if test["outcome"] in COUNTED else test["outcome"]
            lines.append(f"- {sign} {worth}: {test['title']}")
            if test["hint"]:
                # Indented by eight: a block of code in the list, so that nothing in it is Markdown.
                lines += ["", *(f"        {line}" for line in test["hint"].splitlines()), ""]
        lines += ["", f"To see the same again: `minicontainer lab check {one.lab[:2]} lab.py --seed={one.seed}`", ""]
    return "\n".join(lines)


def remark(one: Graded) -> str:
    """What is to be said of a result as a whole, "" if nothing is."""
    if one.override:
        tested = sum(test["points"] for test in one.tests if test["outcome"] in COUNTED)
        reason = one.override["reason"]
        return f"{one.lab}: {one.points:g} points were given by hand; the tests alone say {tested:g}. {reason}"
    if not one.whole:
        return f"{one.lab}: not wholly graded; {one.possible - one.of:g} more points are still to be decided."
    return f"{one.lab}: {one.ended}" if one.ended else ""
