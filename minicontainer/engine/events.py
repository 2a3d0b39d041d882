"""What has happened to containers and images: a journal of the store, a line of JSON in docker's shape for each deed.

    <store>/events.jsonl      what is new is appended, by whoever does the deed
    <store>/events.jsonl.1    what came before, once that had a megabyte

One write(2) of one line to a file opened with O_APPEND is whole, whoever else writes at that time; on a full disk,
only a part of it may be there. The deed is done, whether or not it can be noted.
"""

from __future__ import annotations

import os
import select
import time

from .. import files, syscalls
from .. import quickjson as json

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Iterator
    from typing import Any

NAME = "events.jsonl"
MOST = 1 << 20  # bytes of one file


def write(root: str, action: str, record: dict[str, Any], **attributes: str) -> None:
    """Note that `action` was done to the container whose record that is."""
    told = {**record["labels"], "image": record["image"], "name": record["name"], **attributes}
    note(root, "container", action, record["id"], told, record["image"])


def note_prune(root: str, kind: str, space: int) -> None:
    """Note that what nobody uses of that kind was removed, and how many bytes that gave back."""
    if os.path.isdir(root):  # else nobody has made a store yet, and a prune need not
        note(root, kind, "prune", "", {"reclaimed": str(space)})


def note(root: str, kind: str, action: str, identifier: str, attributes: dict[str, str], image: str = "") -> None:
    """Note what was done to a thing of that kind, or with no identifier, to all of them; `image`: a container's."""
    now = time.time_ns()
    event = {
        **({"status": action} if kind in ("container", "image") else {}),  # docker keeps old names for old kinds
        **({"id": identifier} if identifier else {}),
        **({"from": image} if image else {}),
        "Type": kind,
        "Action": action,
        "Actor": {"ID": identifier, "Attributes": attributes},
        "scope": "local",
        "time": now // 10**9,
        "timeNano": now,
    }
    try:
        append(f"{root}/{NAME}", json.dumps(event).encode() + b"\n")
    except OSError:
        pass  # a full disk must keep nobody from making room


def append(path: str, line: bytes) -> None:
    """Append a line to the journal; after one of which only a part is there, on a line of its own."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            line = b"\n" + line
        os.write(file, line)
        if size + len(line) > MOST:
            rotate(path, file)
    finally:
        os.close(file)


def rotate(path: str, file: int) -> None:
    """Begin a new journal, unless somebody has while we wrote to `file`: then `path` is the new one."""
    with files.locked(path):
        if os.stat(path).st_ino == os.fstat(file).st_ino:
            os.rename(path, f"{path}.1")


def read(root: str, follow: bool = False, until: float | None = None) -> Iterator[dict[str, Any]]:
    """All events that are kept, oldest first. With `follow`, then what is new, until that moment of time.time()."""
    from . import logs

    file = logs.Follower(f"{root}/{NAME}")
    if not follow:
        yield from file.rest()
        return
    files.make_directory(root)
    # Of the directory, for the journal may not be there yet, and is renamed when it is full.
    watch = syscalls.inotify(root, syscalls.IN_MODIFY | syscalls.IN_CREATE | syscalls.IN_MOVED_TO)
    try:
        while True:
            yield from file.rest()
            left = None if until is None else until - time.time()
            if left is not None and left <= 0:
                return
            if select.select([watch], [], [], left)[0]:
                os.read(watch, 1 << 16)  # what has happened is in the journal
    finally:
        os.close(watch)


def between(root: str, since: int, until: int) -> Iterator[dict[str, Any]]:
    """What happens from `since` until `until`, in nanoseconds since 1970; 0 is now, and never."""
    since = since or time.time_ns()
    for event in read(root, not until or until > time.time_ns(), until / 10**9 if until else None):
        if since <= event["timeNano"] and (not until or event["timeNano"] <= until):
            yield event
