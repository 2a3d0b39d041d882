"""index.html: a grading run on one page, for the instructor. It stands alone: no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import html
import urllib.parse
from collections import defaultdict
from collections.abc import Sequence

from ... import errors, files
from ..lab import Lab
from . import similar
from .outputs import by_student, remark
from .records import COUNTED, Graded, Records, now

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff; max-width: 70rem; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.6rem }
h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #d5d9de; padding-bottom: .2rem }
table { border-collapse: collapse; margin: .6rem 0 }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; vertical-align: top }
th { border-bottom: 1px solid #5b636d }
td.n, th.n { text-align: right }
tbody tr:nth-child(even) { background: #f5f6f8 }
.quiet { color: #5b636d }
img { max-width: 100%; height: auto }
.bar { display: block; height: .7rem; background: #6aa5cc; border-right: 1px solid #1b1f24 }
.share { white-space: nowrap }
.rail { display: inline-block; width: 8rem; margin-right: .4rem; background: #e1e5e9 }
"""
MOST_PAIRS = 50


def write(records: Records, graded: Sequence[Graded], labs: Sequence[Lab], problems: Sequence[str]) -> None:
    """Make the page anew."""
    names = sorted({one.lab for one in graded})
    known = {lab.name: lab for lab in labs}
    students = by_student(graded)
    parts = [
        f"<p>Students: {len(students)}. Labs: {len(names)}. {escape(tiers(graded))}. Written {now()}.</p>",
        section("To look at", listing(problems)),
        section("Distribution", picture(graded, names)),
        *(section(f"{name}: {known[name].title if name in known else ''}", success(graded, name)) for name in names),
        section("Not gradable here", not_gradable(graded)),
        section("Similar submissions", resembling(records, graded, known)),
        section("Decided by hand", listing([remark(one) + f" ({one.student})" for one in graded if one.override])),
        section("Students", table_of_students(students, names)),
    ]
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Grades</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{STYLE}</style></head>\n<body><h1>Grades</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )
    files.write(f"{records.out}/index.html", text.encode(errors="backslashreplace"), 0o600)


def escape(text: str) -> str:
    """Text as HTML's."""
    return html.escape(text)


def section(title: str, content: str) -> str:
    """A heading and what stands below it."""
    return f"<h2>{escape(title)}</h2>\n{content or '<p class=quiet>Nothing.</p>'}"


def listing(sentences: Sequence[str]) -> str:
    """A list."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of HTML cells; the columns named in `numbers` stand to the right."""
    if not rows:
        return ""
    kind = [" class=n" if column in numbers else "" for column in range(len(header))]
    head = "".join(f"<th{kind[at]}>{escape(cell)}</th>" for at, cell in enumerate(header))
    body = "".join(
        "<tr>" + "".join(f"<td{kind[at]}>{cell}</td>" for at, cell in enumerate(row)) + "</tr>\n" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def tiers(graded: Sequence[Graded]) -> str:
    """Where and how it was graded."""
    return "; ".join(sorted({f"Graded on {one.host}: {one.tier}" for one in graded}))


def picture(graded: Sequence[Graded], names: Sequence[str]) -> str:
    """The distribution of points, a panel for each lab."""
    series = {name: [one.points / one.of for one in graded if one.lab == name and one.of] for name in names}
    try:
        from .. import plot

        made = plot.histogram("Points reached", "share of the points that could be had", series)
    except errors.MiniContainerError as error:
        return f"<p class=quiet>No picture: {escape(str(error))}</p>"
    image = base64.b64encode(made.png()).decode()
    return f'<img alt="{escape(made.alt)}" src="data:image/png;base64,{image}">'


def table_of_students(students: dict[str, list[Graded]], names: Sequence[str]) -> str:
    """A line for each, its name a link to what the student gets to read."""
    rows = []
    for student, results in students.items():
        points = {one.lab: one for one in results}
        row = [f'<a href="feedback/{urllib.parse.quote(student)}.md">{escape(student)}</a>']
        for name in names:
            one = points.get(name)
            mark = "" if one is None or one.whole else " (unfinished)"
            mark += " (by hand)" if one and one.override else ""
            row.append(f"{one.points:g} of {one.of:g}{mark}" if one else "–")
        rows.append([*row, f"{sum(one.points for one in results):g}"])
    return table(["student", *names, "sum"], rows, [len(names) + 1])


def success(graded: Sequence[Graded], lab: str) -> str:
    """How many passed each test."""
    outcomes: defaultdict[str, list[str]] = defaultdict(list)
    about = {}
    for one in graded:
        if one.lab == lab:
            for test in one.tests:
                outcomes[test["test"]].append(test["outcome"])
                about[test["test"]] = (test["title"], test["of"])
    rows = []
    for name, found in outcomes.items():
        title, of = about[name]
        counted = [outcome for outcome in found if outcome in COUNTED]
        share = found.count("passed") / len(counted) if counted else 0.0
        bar = f'<span class=rail><span class=bar style="width:{share:.0%}"></span></span>{share:.0%}'
        bar = f"<span class=share>{bar}</span>"
        rows.append(
            [escape(title), f"{of:g}", f"{found.count('passed')} of {len(counted)}", bar if counted else "not gradable"]
        )
    return table(["test", "points", "passed", ""], rows, [1, 2])


def not_gradable(graded: Sequence[Graded]) -> str:
    """Each test that a host could not grade, and what it lacks."""
    found = {
        (one.host, one.lab, test["title"], test["hint"])
        for one in graded
        for test in one.tests
        if test["outcome"] == "not gradable here"
    }
    return table(["host", "lab", "test", "why"], [[escape(cell) for cell in row] for row in sorted(found)])


def resembling(records: Records, graded: Sequence[Graded], labs: dict[str, Lab]) -> str:
    """Pairs of students whose texts are alike."""
    parts = []
    for name in sorted({one.lab for one in graded}):
        texts = {one.student: records.source(one.student, name) or "" for one in graded if one.lab == name}
        stub = files.read(f"{labs[name].directory}/lab.py").decode() if name in labs else ""
        pairs = similar.pairs(texts, stub)
        rows = [
            [escape(pair.one), escape(pair.other), f"{pair.share:.0%}", str(pair.common)] for pair in pairs[:MOST_PAIRS]
        ]
        if rows:
            more = f"<p class=quiet>and {len(pairs) - MOST_PAIRS} more pairs</p>" if len(pairs) > MOST_PAIRS else ""
            parts.append(f"<h3>{escape(name)}</h3>" + table(["", "and", "alike", "fingerprints"], rows, [2, 3]) + more)
    if parts:
        parts.insert(
            0, "<p class=quiet>Names, layout and comments are ignored, and what the stub gives. A lab has few good "
            "answers: read both before you say anything.</p>",
        )  # fmt: skip
    return "\n".join(parts)
