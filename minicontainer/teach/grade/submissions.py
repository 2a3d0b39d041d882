"""What students handed in: found, and read as text. Nothing is unpacked, executed or followed.

    submissions/ann/                         a folder, or a git checkout
                bob.zip  eve.tar.gz          an archive
                lee.py                       the file itself, where one lab alone is graded
                leeann_LATE_4711_9_lab.py    as Canvas names downloads: student 4711
                Ann Lee_815_assignsubmission_file_/        as Moodle does: student 815

The file of lab 06 is 06_overlay/lab.py, labs/06_overlay/lab.py, 06/lab.py, or lab.py where one lab alone is graded; in
an archive or a folder that holds a single folder, also below that one. Whatever else is handed in is ignored.

What cannot be read is `Refused`: its text is that student's hint.
"""

from __future__ import annotations

import errno
import gzip
import io
import os
import re
import stat
import tarfile
import zipfile
import zlib
from typing import NamedTuple

from ... import errors, files
from ..lab import Lab

ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar")
LARGEST_ARCHIVE = 32 << 20  # bytes, as handed in
LARGEST_TAR = 64 << 20  # bytes, unpacked
LONGEST = 256 << 10  # bytes of a lab.py: a reference has less than 10,000
CANVAS = r"(?P<name>[^_]+)_(?:LATE_)?(?P<number>\d+)_\d+_.+"
MOODLE = r"(?P<name>.+)_(?P<number>\d+)_assignsubmission_\w+"
NO_FILES = ("__MACOSX", ".git")


class Refused(errors.InvalidArgument):
    """A submission, or a file of it, that is not read; the text says why, for the student."""


class Submission(NamedTuple):
    """What one student handed in. `number` is the learning platform's, "" where the name does not have it."""

    student: str
    number: str
    path: str


def every(directory: str) -> tuple[list[Submission], list[str]]:
    """All submissions in a directory, by student; and a sentence about each entry that is none."""
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise errors.NotFound(
            f"{directory}: {error.strerror}; it should hold a folder or an archive per student"
        ) from None
    found: dict[str, Submission] = {}
    left_out = []
    for name in names:
        if name.startswith(".") or name in NO_FILES:
            continue
        one = named(name, f"{directory}/{name}")
        if one is None:
            left_out.append(f"{printable(name)}: neither a folder nor {', '.join(ARCHIVES)} nor .py")
        elif one.student in found:
            left_out.append(
                f"{printable(name)}: {one.student} has handed in {os.path.basename(found[one.student].path)}, too"
            )
        else:
            found[one.student] = one
    if not found:
        raise errors.NotFound(f"{directory} holds no submission: a folder, {', '.join(ARCHIVES)} per student")
    return list(found.values()), left_out


def named(name: str, path: str) -> Submission | None:
    """A directory's entry as a submission: its name without the ending is the student's. None if it is none."""
    base = name
    if stat.S_ISREG(os.lstat(path).st_mode):
        ending = next((ending for ending in (*ARCHIVES, ".py") if name.lower().endswith(ending)), "")
        if not ending:
            return None
        base = name[: -len(ending)] or name
    match = re.fullmatch(MOODLE, base) or re.fullmatch(CANVAS, base)
    if match:
        return Submission(printable(match["name"]), match["number"], path)
    return Submission(printable(base), "", path)


def printable(name: str) -> str:
    """A file's name as it may stand in a report: whatever is neither letter, digit nor one of ` ._@+-'` becomes `-`."""
    return re.sub(r"[^\w .@+'-]", "-", name.encode(errors="replace").decode())


def places(lab: Lab, alone: bool) -> list[str]:
    """Where the file of a lab may be, the likeliest first."""
    found = [f"{lab.name}/lab.py", f"labs/{lab.name}/lab.py", f"{lab.number}/lab.py"]
    return [*found, "lab.py"] if alone else found


def text(submission: Submission, lab: Lab, alone: bool) -> str:
    """The student's lab.py. Raises Refused, with the hint, also where there is none."""
    path = submission.path
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISDIR(mode):
            content = from_folder(path, places(lab, alone))
        elif not stat.S_ISREG(mode):
            raise Refused("the submission is neither a folder nor an archive, but a link or a device")
        elif path.endswith(".py"):
            if not alone:
                raise Refused("the submission is one file; with several labs it must say which: a folder or an archive")
            content = from_folder(os.path.dirname(path), [os.path.basename(path)])
        else:
            content = from_archive(path, places(lab, alone))
    except OSError as error:
        raise Refused(f"the submission cannot be read: {error.strerror or error}") from None
    if content is None:
        raise Refused(f"no {lab.name}/lab.py was handed in" + (", and no lab.py" if alone else ""))
    return decoded(content)


def decoded(content: bytes) -> str:
    """As Python source, in UTF-8, with or without a mark in front. Raises Refused."""
    if len(content) > LONGEST:
        raise Refused(f"lab.py has more than {LONGEST >> 10} KiB: more than any solution needs")
    try:
        found = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Refused(f"lab.py is not text in UTF-8: line {line} has the byte 0x{content[error.start]:02x}") from None
    if "\0" in found:
        raise Refused(f"lab.py is not text: line {found[: found.index(chr(0))].count(chr(10)) + 1} has a null byte")
    return found


def from_folder(path: str, wanted: list[str]) -> bytes | None:
    """The first of the wanted files below a folder; a symbolic link cannot lead out of it. None if there is none."""
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        names = [name for name in os.listdir(root) if not name.startswith(".") and name not in NO_FILES]
        for prefix in ("", f"{names[0]}/") if len(names) == 1 else ("",):
            for name in wanted:
                try:
                    # O_NONBLOCK: opening a FIFO would wait for somebody to write.
                    descriptor = files.inside(root, prefix + name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
                except OSError as error:
                    if error.errno in (errno.ENOENT, errno.ENOTDIR):
                        continue
                    raise Refused(f"{name} cannot be read: {os.strerror(error.errno or 0)}") from None
                with open(descriptor, "rb") as file:
                    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                        raise Refused(f"{name} is no regular file")
                    return file.read(LONGEST + 1)
        return None
    finally:
        os.close(root)


def from_archive(path: str, wanted: list[str]) -> bytes | None:
    """The first of the wanted members of an archive, read in memory; nothing is unpacked. None if there is none."""
    if os.stat(path).st_size > LARGEST_ARCHIVE:
        raise Refused(f"the archive has more than {LARGEST_ARCHIVE >> 20} MiB: hand in lab.py files alone")
    try:
        return from_zip(path, wanted) if path.lower().endswith(".zip") else from_tar(path, wanted)
    except (
        zipfile.BadZipFile,
        gzip.BadGzipFile,
        tarfile.TarError,
        zlib.error,
        EOFError,
        ValueError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise Refused(f"the archive is damaged, or of a kind that is not read here: {error}") from None


def from_zip(path: str, wanted: list[str]) -> bytes | None:
    """zipfile reads a member up to the size asked for, so that one which unpacks to gigabytes does no harm."""
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        name = chosen([name for name in members if not name.endswith("/")], wanted)
        if name is None:
            return None
        if stat.S_ISLNK(members[name].external_attr >> 16):
            raise Refused(f"{name} is a symbolic link")
        with archive.open(members[name]) as file:
            return file.read(LONGEST + 1)


def from_tar(path: str, wanted: list[str]) -> bytes | None:
    """The whole of it is unpacked in memory first, which bounds it: a tar's names stand between its contents."""
    with open(path, "rb") as packed:
        unpacked = packed if path.lower().endswith(".tar") else gzip.GzipFile(fileobj=packed)
        content = unpacked.read(LARGEST_TAR + 1)
    if len(content) > LARGEST_TAR:
        raise Refused(f"the archive unpacks to more than {LARGEST_TAR >> 20} MiB: hand in lab.py files alone")
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        members = {member.name.removeprefix("./"): member for member in archive.getmembers()}
        name = chosen([name for name, member in members.items() if not member.isdir()], wanted)
        if name is None:
            return None
        file = archive.extractfile(members[name]) if members[name].isreg() else None
        if file is None:
            raise Refused(f"{name} is no regular file")
        return file.read(LONGEST + 1)


def chosen(names: list[str], wanted: list[str]) -> str | None:
    """The member that is wanted most; where all lie below one folder, also below that."""
    names = [name for name in names if name.partition("/")[0] not in NO_FILES]
    tops = {name.partition("/")[0] for name in names}
    below = f"{tops.pop()}/" if len(tops) == 1 else ""
    return next(
        (name for prefix in ("", below) for name in (prefix + place for place in wanted) if name in names), None
    )
