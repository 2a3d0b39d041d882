"""Blobs on their way here: `downloads/<hex>`, a file for each, which grows, breaks off, and goes on another day.

Offers: `Download`, whose `read` yields a blob's bytes: first those that are here, then those from elsewhere, which it
keeps; and `clean`.

Two pulls that want the same blob share it: who holds the exclusive flock downloads, the others wait and then read what
has come. A complete file is held by a shared lock until the job that uses it has ended, so that nobody takes it away
meanwhile. Who waits holds nothing exclusive: no two wait for one another. Callers verify what they read, and call
`spoilt` where it is not what it should be.
"""

import fcntl
import os
from collections.abc import Callable
from typing import Protocol

from .. import files
from . import blobs


class Source(Protocol):
    """Bytes from elsewhere, from some offset on: registry.Blob."""

    def read(self, wanted: int, /) -> bytes:
        """At most so many; none at the end."""


class Download:
    """The blob `digest` of `size` bytes in the store at `root`; `connect(offset)` opens the way to the rest of it.

    `waiting` is called if another process or thread is at it, `moved` with the bytes that are here, now and then.
    Close it when the job has ended that uses `path`.
    """

    def __init__(
        self, root: str, digest: str, size: int, connect: Callable[[int], Source],
        waiting: Callable[[], None] | None = None, moved: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        self.digest = digest
        self.size = size
        self.connect = connect
        self.moved = moved
        self.at = 0
        self.source: Source | None = None
        self.path = f"{root}/downloads/{digest[7:]}"
        self.stored = blobs.path(root, digest)
        files.make_directory(f"{root}/downloads", 0o700)
        self.descriptor = self.take(waiting)
        self.have = os.fstat(self.descriptor).st_size
        self.begun = self.have  # bytes from another day

    def take(self, waiting: Callable[[], None] | None) -> int:
        """Open the file: complete and ours to read, or incomplete and ours to go on with."""
        while True:
            if os.path.exists(self.stored):
                return os.open(self.stored, os.O_RDONLY | os.O_CLOEXEC)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is not None:
                    waiting()
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                if self.is_it(descriptor) and os.fstat(descriptor).st_size == self.size:
                    return descriptor
                os.close(descriptor)  # whoever was at it has given up, or moved it to its place
                continue
            if not self.is_it(descriptor):
                os.close(descriptor)
                continue
            have = os.fstat(descriptor).st_size
            if have > self.size:
                os.ftruncate(descriptor, 0)
            elif have == self.size:
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            return descriptor

    def is_it(self, descriptor: int) -> bool:
        """Whether the file still lies under its name, where another process may have moved it away."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def read(self, wanted: int) -> bytes:
        """The next bytes. What comes from elsewhere is kept first; all of it is durable when the end has been read."""
        if self.at < self.have:
            piece = os.pread(self.descriptor, min(wanted, self.have - self.at), self.at)
        elif self.have == self.size and self.source is None:
            return b""
        else:
            if self.source is None:
                self.source = self.connect(self.at)
            piece = self.source.read(wanted)
            if not piece:
                self.source = None
                os.fsync(self.descriptor)
                fcntl.flock(self.descriptor, fcntl.LOCK_SH)
                return b""
            files.write_all(self.descriptor, piece)
            self.have += len(piece)
        self.at += len(piece)
        if self.moved is not None:
            self.moved(self.at)
        return piece

    def spoilt(self) -> None:
        """What was read is not what it should be: throw it away, whoever else reads it will find the same."""
        if self.is_it(self.descriptor):
            os.unlink(self.path)

    def close(self) -> None:
        """Let go. What has arrived stays for the next time; an empty file does not."""
        if self.is_it(self.descriptor) and not os.fstat(self.descriptor).st_size:
            os.unlink(self.path)
        os.close(self.descriptor)


def clean(root: str) -> list[str]:
    """Remove the downloads that nobody is at. Returns their paths."""
    removed: list[str] = []
    try:
        names = sorted(os.listdir(f"{root}/downloads"))
    except FileNotFoundError:
        return removed
    for name in names:
        path = f"{root}/downloads/{name}"
        try:
            descriptor = files.lock(path, wait=False)
        except BlockingIOError:
            continue
        os.unlink(path)  # with the lock held: who has waited for it sees that it has gone
        os.close(descriptor)
        removed.append(path)
    return removed
