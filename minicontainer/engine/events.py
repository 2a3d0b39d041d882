"""What has happened to containers: a journal of the store, a line of JSON in docker's shape for each deed.

    <store>/events.jsonl      what is new is appended, by whoever does the deed
    <store>/events.jsonl.1    what came before, once that had a megabyte

One write(2) of one line to a file opened with O_APPEND is whole, whoever else writes at that time.
"""

from __future__ import annotations

import json
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Iterator
    from typing import Any

NAME = "events.jsonl"
MOST = 1 << 20  # bytes of one file


def write(root: str, action: str, record: dict[str, Any], **attributes: str) -> None:
    """Note that `action` was done to the container whose record that is."""
    now = time.time_ns()
    event = {
        "status": action,
        "id": record["id"],
        "from": record["image"],
        "Type": "container",
        "Action": action,
        "Actor": {
            "ID": record["id"],
            "Attributes": {**record["labels"], "image": record["image"], "name": record["name"], **attributes},
        },
        "scope": "local",
        "time": now // 10**9,
        "timeNano": now,
    }
    path = f"{root}/{NAME}"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, json.dumps(event).encode() + b"\n")
        full = os.fstat(file).st_size > MOST
    finally:
        os.close(file)
    if full:
        try:
            os.rename(path, f"{path}.1")
        except FileNotFoundError:
            pass  # somebody else was first


def read(root: str, follow: bool = False, pause: float = 0.1) -> Iterator[dict[str, Any] | None]:
    """All events that are kept, oldest first. With `follow`, then None every so many seconds, and what is new."""
    from . import logs

    file = logs.Follower(f"{root}/{NAME}")
    while True:
        yield from file.rest()
        if not follow:
            return
        yield None
        time.sleep(pause)


def between(root: str, since: int, until: int) -> Iterator[dict[str, Any]]:
    """What happens from `since` until `until`, in nanoseconds since 1970; 0 is now, and never."""
    since = since or time.time_ns()
    for event in read(root, follow=not until or until > time.time_ns()):
        if event is None:
            if until and time.time_ns() > until:
                return
        elif since <= event["timeNano"] and (not until or event["timeNano"] <= until):
            yield event
