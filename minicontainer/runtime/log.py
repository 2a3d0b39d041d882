"""The log: what a container has written, line by line, in docker's json-file format.

    {"log":"hello\\n","stream":"stdout","time":"2025-01-31T12:00:00.123456789Z"}

One object a line. What is longer than 16 KiB is cut into several objects, all but the last without a `\\n` in `log`, as
docker does it; bytes that are no UTF-8 become U+FFFD. A file that would outgrow `max_size` is renamed to `.1`, older
ones to `.2` and so on, `max_file` of them in all. What cannot be written, for the disk is full, is dropped, and the
container goes on: it may leave part of a line, which whoever writes next ends, and whoever reads skips.

The monitor imports this into an interpreter that has little else: nothing here imports json, or the house's `files`.
"""

from __future__ import annotations

import os
import time
from _json import encode_basestring  # the C half of json, whose other half is a megabyte

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LONGEST = 16384  # bytes of one entry: docker's daemon/logger/copier.go
STREAMS = {1: "stdout", 2: "stderr"}


def timestamp(now: int | None = None) -> str:
    """Now, or `now` in nanoseconds since the epoch, in RFC 3339 with nanoseconds, as docker writes times."""
    now = time.time_ns() if now is None else now
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z"


def write_all(descriptor: int, content: bytes) -> None:
    """write(2) until nothing is left."""
    while content:
        content = content[os.write(descriptor, content) :]


class Writer:
    """The log of one container at `path`. A `max_size` of 0 is no bound; an empty `path` keeps no log at all.

    `attrs` is noted with each entry, as JSON; none where it is empty. `held` is what has come of a line that is not
    finished, by stream: it outlives the interpreter (monitor.renew).
    """

    def __init__(
        self, path: str, max_size: int = 0, max_file: int = 1, attrs: str = "", held: dict[int, bytes] | None = None
    ) -> None:
        self.path, self.max_size, self.max_file, self.attrs = path, max_size, max_file, attrs
        self.held = held or {1: b"", 2: b""}
        self.file = -1  # opened by the first write

    def open(self) -> None:
        """Open the current file, to append to; a line of which only a part is there ends here."""
        self.file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        size = os.fstat(self.file).st_size
        if size and os.pread(self.file, 1, size - 1) != b"\n":
            write_all(self.file, b"\n")

    def close(self) -> None:
        """Close the current file, if it is open."""
        file, self.file = self.file, -1
        if file >= 0:
            os.close(file)

    def write(self, stream: int, data: bytes) -> None:
        """Log what the container wrote to its descriptor `stream`; an unfinished line waits for its end."""
        held, position, entries = self.held[stream] + data, 0, []
        while True:
            end = held.find(b"\n", position, position + LONGEST) + 1
            if not end:
                if len(held) - position < LONGEST:
                    break
                end = position + LONGEST
            entries.append(held[position:end])
            position = end
        self.held[stream] = held[position:]
        self.put(stream, entries)

    def flush(self) -> None:
        """Log what is left of lines that will not be finished any more."""
        for stream, held in self.held.items():
            self.held[stream] = b""
            self.put(stream, [held] if held else [])

    def put(self, stream: int, entries: list[bytes]) -> None:
        """Append the entries, all with this moment's time, or as many as there is room for."""
        if not self.path or not entries:
            return
        attrs = f',"attrs":{self.attrs}' if self.attrs else ""
        tail = f',"stream":"{STREAMS[stream]}"{attrs},"time":"{timestamp()}"}}\n'
        lines = [f'{{"log":{encode_basestring(entry.decode(errors="replace"))}{tail}'.encode() for entry in entries]
        try:
            self.append(lines)
        except OSError:
            self.close()  # the next one opens it again, and looks what is there

    def append(self, lines: list[bytes]) -> None:
        """Append the lines, and rotate where it is due. Raises OSError where there is no room."""
        if self.file < 0:
            self.open()
        if not self.max_size:
            write_all(self.file, b"".join(lines))
            return
        size = os.fstat(self.file).st_size
        batch: list[bytes] = []
        for line in lines:
            if size + len(line) > self.max_size and size:
                write_all(self.file, b"".join(batch))
                self.rotate()
                batch, size = [], 0
            batch.append(line)
            size += len(line)
        write_all(self.file, b"".join(batch))

    def rotate(self) -> None:
        """Begin a new file; the oldest goes."""
        self.close()
        for number in range(self.max_file - 1, 0, -1):
            older = f"{self.path}.{number}"
            newer = f"{self.path}.{number - 1}" if number > 1 else self.path
            try:
                os.rename(newer, older)
            except FileNotFoundError:
                pass
        if self.max_file == 1:
            os.unlink(self.path)
        self.open()

    def state(self) -> dict[str, Any]:
        """What `Writer(**state)` is made of."""
        names = ("path", "max_size", "max_file", "attrs", "held")
        return {name: getattr(self, name) for name in names}
