"""Submissions are read as text, and nothing else: no archive is unpacked, no link followed, nothing waited for."""

import io
import os
import re
import stat
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from minicontainer.teach import lab as labs
from minicontainer.teach.grade import outputs, records, similar, submissions
from minicontainer.teach.lab import plugin

OVERLAY = labs.get("06")


def read(path: Path, alone: bool = True) -> str:
    one = submissions.named(path.name, str(path))
    assert one
    return submissions.text(one, OVERLAY, alone)


def refusal(path: Path, alone: bool = True) -> str:
    with pytest.raises(submissions.Refused) as error:
        read(path, alone)
    return str(error.value)


@pytest.mark.parametrize("place", ["06_overlay/lab.py", "labs/06_overlay/lab.py", "06/lab.py", "x/06_overlay/lab.py"])
def test_where_a_labs_file_may_be(place: str, tmp_path: Path) -> None:
    file = tmp_path / "ann" / place
    file.parent.mkdir(parents=True)
    file.write_text("x = 'ä'\n")
    assert read(tmp_path / "ann", alone=False) == "x = 'ä'\n"
    with zipfile.ZipFile(tmp_path / "bob.zip", "w") as archive:
        archive.writestr(place, "\ufeffx = 1\n")
    assert read(tmp_path / "bob.zip", alone=False) == "x = 1\n"


def test_one_file_will_do_for_one_lab_alone(tmp_path: Path) -> None:
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann/lab.py").write_text("x = 1\n")
    (tmp_path / "bob.py").write_text("x = 2\n")
    assert read(tmp_path / "ann") == "x = 1\n"
    assert read(tmp_path / "bob.py") == "x = 2\n"
    assert "no 06_overlay/lab.py was handed in" in refusal(tmp_path / "ann", alone=False)
    assert "must say which" in refusal(tmp_path / "bob.py", alone=False)


def test_links_lead_nowhere(tmp_path: Path) -> None:
    """A symbolic link is resolved as if the folder were the root: what is outside cannot be named."""
    (tmp_path / "secret.py").write_text("secret")
    folder = tmp_path / "ann"
    (folder / "06_overlay").mkdir(parents=True)
    for target in ("/etc/passwd", str(tmp_path / "secret.py"), "../../secret.py", "/proc/self/environ"):
        (folder / "06_overlay/lab.py").symlink_to(target)
        assert "handed in" in refusal(folder), target
        (folder / "06_overlay/lab.py").unlink()
    (tmp_path / "eve").symlink_to("/")
    assert "a link or a device" in refusal(tmp_path / "eve")
    with zipfile.ZipFile(tmp_path / "zip.zip", "w") as archive:
        entry = zipfile.ZipInfo("lab.py")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    assert "symbolic link" in refusal(tmp_path / "zip.zip")


def test_what_is_damaged_is_refused_by_name(tmp_path: Path) -> None:
    for name, content in (("a.zip", b"PK\3\4 no more"), ("b.tar.gz", b"\x1f\x8b no more"), ("c.tar", b"x" * 600)):
        (tmp_path / name).write_bytes(content)
        assert "damaged" in refusal(tmp_path / name), name
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("lab.py", "x = 1\n" * 1000)
    content = bytearray(packed.getvalue())
    content[50] ^= 0xFF
    (tmp_path / "d.zip").write_bytes(content)
    assert "damaged" in refusal(tmp_path / "d.zip")
    with open(tmp_path / "e.zip", "wb") as file:
        file.truncate(submissions.LARGEST_ARCHIVE + 1)
    assert "MiB" in refusal(tmp_path / "e.zip")


def test_who_is_a_student_and_who_is_not(tmp_path: Path) -> None:
    for name in ("ann", "Lee Ann_815_assignsubmission_file_", ".git", "__MACOSX"):
        (tmp_path / name).mkdir()
    for name in ("bob.zip", "leeann_LATE_4711_99_lab.zip", "notes.pdf", "ann.tar.gz", "<b>.zip"):
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "pipe")
    found, left_out = submissions.every(str(tmp_path))
    assert {(one.student, one.number) for one in found} == {
        ("ann", ""), ("Lee Ann", "815"), ("bob", ""), ("leeann", "4711"), ("-b-", ""),
        ("pipe", ""),
    }  # fmt: skip
    assert len(left_out) == 2
    assert any("ann has handed in" in sentence for sentence in left_out)


# ------------------------------------------------------------------------------------------------------------- outputs


def graded(student: str, number: str = "", points: float = 3) -> records.Graded:
    test = {"test": "t", "title": "T", "lab": "06_overlay", "points": points, "of": 4, "hint": "", "seconds": 0}
    return records.Graded(student, number, "06_overlay", "s", "h", "t", [{**test, "outcome": "failed"}], "", None)


def gradebook(*students: str) -> outputs.Roster:
    header = "Student,ID,SIS User ID,SIS Login ID,Section".split(",")
    return outputs.Roster(header, [[outputs.POSSIBLE, "", "", "", ""]], [line.split(";") for line in students])


def test_canvas_lines_are_found_by_number_login_and_name() -> None:
    roster = gradebook(
        "Lee, Ann;4711;s1;al1;A", "Öz, Bob;4712;s2;bo2;A", "Öz, Bob;4713;s3;bo3;A", "Lee, Eve;4714;s4;el4;A"
    )
    found, unknown = outputs.matched(
        roster, [graded("leeann"), graded("x", "4712"), graded("bo3"), graded("Eve Lee"), graded("nobody")]
    )
    assert found == {"leeann": 0, "x": 1, "bo3": 2, "Eve Lee": 3}
    assert unknown == ["nobody"]
    found, unknown = outputs.matched(roster, [graded("Bob Öz")])
    assert found == {} and "several" in unknown[0]


def test_a_gradebook_without_the_labs_column_gets_one() -> None:
    text, problems = outputs.canvas(gradebook("Lee, Ann;1;;ann;A", "Ray, Bo;2;;bo;A"), [graded("ann")])
    assert text.splitlines() == [
        "Student,ID,SIS User ID,SIS Login ID,Section,06_overlay",
        "    Points Possible,,,,,4",
        '"Lee, Ann",1,,ann,A,3',
        '"Ray, Bo",2,,bo,A,',
    ]
    assert problems == ["no submission of Ray, Bo"]


def test_a_test_that_broke_down_is_named() -> None:
    """The instructor reads of it; the words are the plugin's own."""
    item = pytest.CallInfo.from_call(lambda: len(None), "call")  # type: ignore[arg-type]
    report = SimpleNamespace(skipped=False)
    returned = SimpleNamespace(returned=("changes", None))
    for keeper in (None, returned):
        one = graded("ann")
        one.tests[0]["hint"] = plugin.hint(report, item, keeper)  # type: ignore[arg-type]
        (said,) = outputs.defects([one])
        assert said == "06_overlay: the test 'T' itself broke down, for ann: read the hints, and decide"
    assert outputs.defects([graded("bob")]) == []


def test_the_last_half_line_of_a_killed_run_is_none(tmp_path: Path) -> None:
    (tmp_path / "x").write_text('{"a": 1}\n{"b": 2')
    assert records.lines(str(tmp_path / "x")) == [{"a": 1}]


def test_what_a_student_prints_breaks_no_output() -> None:
    one = graded("<script>")
    one.tests[0]["hint"] = records.shortened("\ud800 \0 \x1b[31m ]]> </failure> # ``` <script>" + "x" * 9999)
    assert b"\0" not in outputs.junit([one]) and b"<script> 06_overlay" not in outputs.junit([one])
    assert len(outputs.feedback("<script>", [one], {}).encode()) < 3000


# ------------------------------------------------------------------------------------------------------------- similar

LONG = """
def f{0}(a):
    b = []
    for c in range(len(a)):
        if a[c] > {0}:
            b.append(a[c] * {0} + c)
    return sorted(b, key=lambda d: -d)
"""
OWN = """
def g{0}(x):
    while x:
        x -= {0}
        try:
            os.stat(str(x))
        except OSError as e:
            raise ValueError(x) from e
        else:
            yield x, {0}
"""


def test_a_renamed_copy_is_found_and_a_text_of_ones_own_is_not() -> None:
    ann = "".join(LONG.format(number) for number in range(4))
    bob = "# mine\n\n" + re.sub(r"\b[abcd]\b", lambda match: f"my_{match[0]}", ann).replace("    ", "  ")
    own = "".join(OWN.format(number) for number in range(4))
    pairs = similar.pairs({"ann": ann, "bob": bob, "own": own, "none": "def (", "empty": ""}, "")
    assert [(pair.one, pair.other, pair.share) for pair in pairs] == [("ann", "bob", 1.0)]


def test_what_the_stub_gives_makes_nobody_alike() -> None:
    stub = "".join(LONG.format(number) for number in range(4))
    assert similar.pairs({"ann": stub + "x = 1\n", "bob": stub + "y = [2, 3]\n"}, stub) == []
