"""What a grading run keeps: one file for each student and lab, and what an instructor has decided. See the package.

A file is written under another name as results come, and gets its own with its last line: what has its own is finished.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from ... import errors, files
from ..lab import Lab, every

Entry = dict[str, Any]  # a test's line, as the plugin writes it: test, title, lab, points, of, outcome, hint, seconds

OURS = (
    "results", "hosts", "merged", "slurm", "secret", "overrides.jsonl", "roster.csv",
    "index.html", "junit.xml", "canvas.csv", "nbgrader.csv", "gradescope", "feedback",
)  # fmt: skip
COUNTED = ("passed", "failed")
LONGEST_HINT = 2000  # characters; a student's value may stand in it


class Graded(NamedTuple):
    """One student's result in one lab; a test for each that the lab has, in the lab's order."""

    student: str
    number: str
    lab: str
    seed: str
    host: str
    tier: str
    tests: list[Entry]
    ended: str
    override: dict[str, Any] | None

    @property
    def points(self) -> float:
        """What counts: the sum of the tests, or what an instructor has decided."""
        if self.override:
            return float(self.override["points"])
        return float(sum(test["points"] for test in self.tests if test["outcome"] in COUNTED))

    @property
    def of(self) -> float:
        """What could be had in the tests that were graded; with an override, in all."""
        return float(sum(test["of"] for test in self.tests if self.override or test["outcome"] in COUNTED))

    @property
    def possible(self) -> float:
        """What the whole lab is worth."""
        return float(sum(test["of"] for test in self.tests))

    @property
    def whole(self) -> bool:
        """Whether the points are the lab's final ones: every test was graded, or an instructor has decided."""
        return bool(self.override) or all(test["outcome"] in COUNTED for test in self.tests)


class Records:
    """The folder of a grading run (--out)."""

    def __init__(self, out: str) -> None:
        self.out = os.path.abspath(out)

    def prepare(self) -> None:
        """The folder is its owner's alone: whoever can enter it finds names and points."""
        files.make_directory(self.out, 0o700)

    def roster(self, path: str) -> str:
        """Keep a gradebook, so that each later run fills it in again; the path of the one that is kept, "" for none."""
        kept = f"{self.out}/roster.csv"
        if path:
            files.write(kept, files.read(path), 0o600)
        return kept if os.path.exists(kept) else ""

    def hand_over(self) -> None:
        """Who has become root by sudo owns what came of it, and can open it: sudo(8), SUDO_UID."""
        uid, gid = int(os.environ.get("SUDO_UID", "0")), int(os.environ.get("SUDO_GID", "0"))
        if os.geteuid() != 0 or not uid:
            return
        paths = [self.out, *(f"{self.out}/{name}" for name in OURS if name in names(self.out))]
        for path in list(paths[1:]):
            for top, folders, inside in os.walk(path):
                paths += [f"{top}/{name}" for name in (*folders, *inside)]
        for path in paths:
            os.chown(path, uid, gid, follow_symlinks=False)

    # One student, one lab

    def path(self, student: str, lab: str) -> str:
        """The results of a student in a lab, without an ending: .jsonl when finished, .py is what was graded."""
        return f"{self.out}/results/{student}/{lab}"

    def finished(self, student: str, lab: str) -> bool:
        """Whether that has been graded."""
        return os.path.exists(f"{self.path(student, lab)}.jsonl")

    def seed(self, student: str, lab: str) -> str:
        """Of the inputs of a student in a lab: always the same in this folder, and not to be guessed."""
        if self.finished(student, lab):
            return str(lines(f"{self.path(student, lab)}.jsonl")[0]["seed"])
        return hashlib.blake2s(f"{self.secret()} {student} {lab}".encode(), digest_size=4).hexdigest()

    def secret(self) -> str:
        """Drawn once; whoever is first to make the link has drawn it."""
        path = f"{self.out}/secret"
        if not os.path.exists(path):
            self.prepare()
            drawn = f"{path}.{secrets.token_hex(4)}"
            files.write(drawn, secrets.token_hex(16).encode(), 0o600)
            try:
                os.link(drawn, path)
            except FileExistsError:
                pass
            os.unlink(drawn)
        return files.read(path).decode()

    def begin(self, student: str, lab: str, **header: Any) -> str:
        """A file for the results to come, with its first line; those of a killed attempt go. Returns its path."""
        directory = os.path.dirname(self.path(student, lab))
        files.make_directory(directory, 0o700)
        for name in os.listdir(directory):
            if name.startswith(f"{lab}.part-"):
                os.unlink(f"{directory}/{name}")
        part = f"{directory}/{lab}.part-{secrets.token_hex(4)}"
        append(part, {"student": student, "lab": lab, "began": now(), **header})
        return part

    def finish(self, part: str, student: str, lab: str, **footer: Any) -> None:
        """The last line; from now on it counts, in place of what was there."""
        append(part, {"finished": now(), **footer})
        os.rename(part, f"{self.path(student, lab)}.jsonl")

    def forget(self, student: str, lab: str) -> None:
        """It is not finished any more; its seed stays, for it is made from the secret."""
        files.unlink(f"{self.path(student, lab)}.jsonl")

    def graded(self, student: str, lab: str, overrides: dict[tuple[str, str], Any]) -> Graded:
        """A finished result, completed by what the lab's outline at that time knew of tests that left no line."""
        header, *entries, footer = lines(f"{self.path(student, lab)}.jsonl")
        tests = complete(entries, header["outline"], footer["ended"], footer["defect"])
        return Graded(
            student, header["number"], lab, header["seed"], header["host"], header["tier"], tests, footer["ended"],
            overrides.get((student, lab)),
        )  # fmt: skip

    def all(self) -> list[Graded]:
        """Every finished result, by student and lab; also of what was graded elsewhere alone."""
        overrides = {(line["student"], line["lab"]): line for line in self.overrides()}
        merged = self.merged()
        found = []
        for student in sorted(names(f"{self.out}/results")):
            for name in sorted(names(f"{self.out}/results/{student}")):
                lab, ending = os.path.splitext(name)
                if ending == ".jsonl":
                    one = self.graded(student, lab, overrides)
                    found.append(one._replace(tests=[better(test, merged, student) for test in one.tests]))
        here = {(one.student, one.lab) for one in found}
        labs = {one.name: one for one in every()}
        for student, name in sorted({(student, name) for student, name, _ in merged} - here):
            found.append(elsewhere(student, labs[name], merged, overrides.get((student, name))))
        return sorted(found, key=lambda one: (one.student, one.lab))

    def source(self, student: str, lab: str) -> str | None:
        """The text that was graded; None where nothing could be read."""
        try:
            return files.read(f"{self.path(student, lab)}.py").decode()
        except FileNotFoundError:
            return None

    # What a host can grade

    def outline_path(self, host: str, lab: str) -> str:
        """The results of a lab's stub on a host."""
        return f"{self.out}/hosts/{host}/{lab}.jsonl"

    def outline(self, host: str, lab: str) -> list[Entry]:
        """The tests of a lab, and which of them this host cannot grade: what the stub scored there."""
        return [line for line in lines(self.outline_path(host, lab)) if "test" in line]

    def keep_outline(self, host: str, lab: str, outline: Iterable[Entry]) -> None:
        """Of this host, until it is asked anew; each result keeps the outline that it was graded by."""
        path = self.outline_path(host, lab)
        files.make_directory(os.path.dirname(path), 0o700)
        files.write(path, "".join(json.dumps(entry) + "\n" for entry in outline).encode(), 0o600)

    # What an instructor decides

    def overrides(self) -> list[dict[str, Any]]:
        """All of them, the oldest first; of several for one result the last one counts."""
        path = f"{self.out}/overrides.jsonl"
        return lines(path) if os.path.exists(path) else []

    def override(self, student: str, lab: str, points: float, reason: str) -> None:
        """Decide a result. Raises NotFound for one that is not there, InvalidArgument without a reason."""
        if not reason.strip():
            raise errors.InvalidArgument("an override needs its reason: --reason TEXT; the student reads it, too")
        graded = self.all()
        one = next((one for one in graded if (one.student, one.lab) == (student, lab)), None)
        if one is None:
            known = ", ".join(sorted({one.student for one in graded})[:20]) or "nobody"
            raise errors.NotFound(f"{student} has no result in {lab} below {self.out}; graded are {known}")
        possible = one.possible
        if not 0 <= points <= possible:
            raise errors.InvalidArgument(f"{lab} is worth {possible:g} points: {points:g} cannot be given")
        line = {"student": student, "lab": lab, "points": points, "reason": reason.strip(), "when": now()}
        append(f"{self.out}/overrides.jsonl", line)

    # What was graded elsewhere

    def merge(self, student: str, tests: Iterable[Entry]) -> None:
        """Keep what another grader found of a student, for the tests that no host of ours could grade."""
        self.prepare()
        files.make_directory(f"{self.out}/merged", 0o700)
        files.write(f"{self.out}/merged/{student}.json", json.dumps(list(tests), indent=1).encode())

    def merged(self) -> dict[tuple[str, str, str], Entry]:
        """By student, lab and test."""
        found = {}
        for name in names(f"{self.out}/merged"):
            for entry in json.loads(files.read(f"{self.out}/merged/{name}")):
                found[name.removesuffix(".json"), entry["lab"], entry["test"]] = entry
        return found


def complete(entries: list[Entry], outline: list[Entry], ended: str, defect: bool) -> list[Entry]:
    """A line for each test of the outline. What this host can grade counts, whatever a student's code has done."""
    by_name = {entry["test"]: entry for entry in entries}
    found = []
    for test in outline:
        entry = by_name.get(test["test"])
        if test["outcome"] not in COUNTED:
            entry = test
        elif entry is None:
            hint = ended or "the test was not reached"
            entry = {**test, "points": 0, "outcome": "not graded" if defect else "failed", "hint": hint, "seconds": 0}
        elif entry["outcome"] not in COUNTED:
            entry = {**entry, "points": 0, "outcome": "failed"}
        found.append({**entry, "hint": shortened(entry["hint"])})
    return found


def uncounted(tests: Iterable[Entry]) -> frozenset[str]:
    """The names of the tests that nobody has graded yet."""
    return frozenset(test["test"] for test in tests if test["outcome"] not in COUNTED)


def not_here(lab: Lab, why: str) -> list[Entry]:
    """An entry for each test of a lab of which a host can run none."""
    return [
        {"test": name, "title": title, "lab": lab.name, "points": 0, "of": points, "outcome": "not gradable here",
         "hint": why, "seconds": 0}
        for name, title, points in lab.tests()
    ]  # fmt: skip


def better(test: Entry, merged: dict[tuple[str, str, str], Entry], student: str) -> Entry:
    """A test that was not graded here, as another grader has it."""
    other = merged.get((student, test["lab"], test["test"]))
    if test["outcome"] in COUNTED or other is None:
        return test
    return {**test, **other, "of": test["of"], "points": min(float(other["points"]), float(test["of"]))}


def elsewhere(
    student: str, where: Lab, merged: dict[tuple[str, str, str], Entry], override: dict[str, Any] | None
) -> Graded:
    """What another grader found of a student in a lab of which nothing was graded here."""
    without = not_here(where, "this lab was graded elsewhere, without this test")
    tests = [better(test, merged, student) for test in without]
    seed = next((test["seed"] for test in reversed(tests) if test.get("seed")), "")
    return Graded(student, "", where.name, seed, "elsewhere", "graded elsewhere", tests, "", override)


def shortened(hint: str) -> str:
    """At most LONGEST_HINT characters, all of which can be written."""
    hint = hint.encode(errors="backslashreplace").decode()
    return hint if len(hint) <= LONGEST_HINT else f"{hint[:LONGEST_HINT]} …"


def lines(path: str) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; half a line at its end, of a write that was cut short, is none."""
    found = []
    for line in files.read(path).split(b"\n"):
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def append(path: str, line: dict[str, Any]) -> None:
    """A line more, in a file that is its owner's alone."""
    with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "a") as file:
        file.write(json.dumps(line) + "\n")


def names(directory: str) -> list[str]:
    """What a directory holds; nothing where there is none."""
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def now() -> str:
    """The time, in UTC: 2026-02-03T10:20:30Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
