"""Reading a container's log (runtime/log.py): the last lines, from a time on, and what is still to come.

Who follows asks the monitor to be nudged when the log grows, and reads the file: no polling, and nobody who reads
slowly holds up the container. The end of the connection is the end of the container.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from .. import errors
from .. import quickjson as json
from ..runtime import channel, session

Entry = dict[str, str]


def read(
    path: str,
    monitor: Callable[[], session.Session] | None = None,
    tail: int | None = None,
    since: str = "",
    until: str = "",
) -> Iterator[Entry]:
    """The entries of the log at `path` and its rotated parts, oldest first; `tail` of them at most, the last ones.

    `since` and `until` are RFC 3339 in UTC, which sorts as text. With `monitor`, which opens a session, what comes
    later follows, until the container ends or `until` has passed.
    """
    opened = None
    if monitor:
        try:
            opened = monitor()
            opened.ask({"follow": True})
        except (errors.Conflict, channel.Gone):
            opened = None  # it does not run: what is there is all
    try:
        file = Follower(path)
        there: Iterator[Entry] = (entry for entry in file.rest() if not since or entry["time"] >= since)
        if tail is not None:
            there = iter(deque(there, maxlen=tail))
        for entry in there:
            if until and entry["time"] > until:
                return
            yield entry
        while opened and nudged(opened):
            for entry in file.rest():
                if until and entry["time"] > until:
                    return
                yield entry
        if opened:
            yield from file.rest()
    finally:
        if opened:
            opened.close()


def nudged(opened: session.Session) -> bool:
    """Wait until the log has grown; False when the container has ended."""
    packet, descriptors = channel.receive_packet(opened.end)
    for descriptor in descriptors:
        os.close(descriptor)
    return bool(packet) and b'"exited"' not in packet


class Follower:
    """A log that is being written and rotated, read once from its beginning."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.file: Any = None
        self.half = b""  # a line of which the end is not there yet

    def rest(self) -> Iterator[Entry]:
        """What has been written since the last time."""
        if self.file is None:
            self.file = self.oldest()
        while self.file is not None:
            newer = self.newer()  # asked first: to a file that has been rotated nothing is added
            for line in self.file:
                self.half += line
                if self.half.endswith(b"\n"):
                    whole, self.half = self.half, b""
                    try:
                        entry = json.loads(whole)
                    except ValueError:
                        continue  # the disk was full, or the writer killed in the middle of it
                    yield entry
            if newer is None:
                return
            self.file.close()
            self.file, self.half = newer, b""

    def oldest(self) -> Any:
        """The oldest part that is there, opened; None where nothing was logged yet."""
        number = 0
        while os.path.exists(f"{self.path}.{number + 1}"):
            number += 1
        try:
            return open(f"{self.path}.{number}" if number else self.path, "rb")
        except FileNotFoundError:
            return None

    def newer(self) -> Any:
        """The part after the one that is open; None if that is the current one."""
        inode = os.fstat(self.file.fileno()).st_ino
        newer, number = self.path, 0
        while True:
            name = f"{self.path}.{number}" if number else self.path
            try:
                if os.stat(name).st_ino == inode:
                    return open(newer, "rb") if number else None
            except FileNotFoundError:
                return open(self.path, "rb") if os.path.exists(self.path) else None  # ours has been rotated away
            newer, number = name, number + 1
