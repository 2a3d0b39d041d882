"""`cp`: files between the host and a container, whether it runs or not; between two trees, by way of a tar stream.

Both sides are open directories (trees.py), and every path is resolved inside of its side as a process chrooted there
would resolve it. What a path means is docker's (docker-cp(1)): `DIR/.` is a directory's content, a destination that is
a directory takes the source in, one that is not there gives it its name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Any

from .. import errors, files
from ..image import compression, extract, pack, tar
from . import containers, trees

MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Source:
    """What is to be copied: a path below the open directory `root`. Use it in a `with` statement.

    `base` is what an archive of it calls it: its name, or `.` for a directory's content. With `follow`, the last link
    is followed. Raises OSError.
    """

    def __init__(self, root: int, path: str, follow: bool = False) -> None:
        name = os.path.basename(path.rstrip("/"))
        content = name in (".", "..", "")
        self.base = b"." if content else os.fsencode(name)
        self.directory = self.file = -1
        self.name = name
        if content or follow or path.endswith("/"):
            self.directory, self.name = files.inside(root, path, os.O_PATH), "."
            self.status = os.fstat(self.directory)
            if not stat.S_ISDIR(self.status.st_mode):
                os.close(self.directory)
                if content or path.endswith("/"):
                    raise NotADirectoryError(errno.ENOTDIR, "not a directory", path)
                self.directory, self.file = -1, files.inside(root, path, os.O_RDONLY | os.O_NONBLOCK)
                self.status = os.fstat(self.file)
        else:
            self.directory = files.inside(root, os.path.dirname(path.rstrip("/")) or "/", os.O_PATH | os.O_DIRECTORY)
            try:
                self.status = os.stat(name, dir_fd=self.directory, follow_symlinks=False)
            except BaseException:
                os.close(self.directory)
                raise

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (self.directory, self.file):
            if descriptor >= 0:
                os.close(descriptor)

    @property
    def is_directory(self) -> bool:
        """Whether there is something below it."""
        return stat.S_ISDIR(self.status.st_mode)

    def chunks(self, packer: pack.Packer, name: bytes) -> Iterator[bytes]:
        """It, and what is below it, as a tar stream in which it is called `name`."""
        if self.file >= 0:
            yield from packer.file(self.file, name)
        else:
            yield from packer.tree(self.directory, self.name, name)
        yield tar.END


def destination(root: int, path: str, source: Source) -> tuple[str, bytes]:
    """Into which directory below `root` the source goes, and what it is called there.

    docker's rules (moby pkg/archive, copy.go, PrepareArchiveCopy). Raises InvalidArgument in docker's words.
    """
    bare = path.rstrip("/")
    asserted = path.endswith("/") or os.path.basename(bare) in (".", "..", "")
    try:
        found = files.inside(root, bare or "/", os.O_PATH)
    except errors.KernelError as error:
        if error.errno not in MISSING:
            raise
        if asserted and not source.is_directory:
            raise errors.InvalidArgument("no such directory") from None
    else:
        is_directory = stat.S_ISDIR(os.fstat(found).st_mode)
        os.close(found)
        if is_directory:
            return bare or "/", source.base
        if source.is_directory:
            raise errors.InvalidArgument("cannot copy directory")
        if asserted:
            raise errors.InvalidArgument("no such directory")
    whole = os.path.normpath(bare) if asserted else bare
    return os.path.dirname(whole) or "/", os.fsencode(os.path.basename(whole))


def read(
    engine: containers.Containers, record: containers.Record, path: str, follow: bool = False
) -> tuple[Iterator[bytes], dict[str, Any]]:
    """A tar stream of what is at `path` in the container, and what it is: {"name", "size", "mode", "mtime"}.

    The container's tree stays open until the stream has ended, or is let go of.
    """

    def stream() -> Iterator[Any]:
        with trees.merged(engine, record) as tree, source_in(tree, record, path, follow) as source:
            yield {
                "name": os.fsdecode(source.base),
                "size": source.status.st_size,
                "mode": source.status.st_mode,
                "mtime": source.status.st_mtime_ns,
            }
            yield from source.chunks(pack.Packer(leave=tree.is_kernels, ids=tree.inside), source.base)

    begun = stream()
    return begun, next(begun)


def write(
    engine: containers.Containers, record: containers.Record, path: str, chunks: Iterable[bytes], archive: bool = False
) -> None:
    """Extract a tar stream, compressed or not, into the directory at `path`; with `archive`, owners are kept.

    Raises NotFound, InvalidImage, Conflict.
    """
    pending = bytearray()
    pieces = iter(chunks)

    def some(size: int) -> bytes:
        while len(pending) < size and (piece := next(pieces, b"")):
            pending.extend(piece)
        taken = bytes(pending[:size])
        del pending[:size]
        return taken

    with trees.merged(engine, record) as tree:
        place = find_directory(tree, record, path)
        os.close(place)
        plain = compression.decompress(some, compression.default_limits())[1]
        owner = None if archive else (0, 0)
        extract.Extractor(tree.root, path, owner, tree.is_kernels, ids=tree.outside).extract(iter(plain))


def copy_out(
    engine: containers.Containers, record: containers.Record, path: str, to: str, follow: bool, archive: bool
) -> None:
    """Copy from the container to the host. What arrives is ours, unless its owners are to be kept."""
    to = os.path.join(os.getcwd(), to)
    parent = os.path.dirname(to.rstrip("/")) or "/"
    if not os.path.isdir(parent):
        raise errors.InvalidArgument(f'invalid output path: directory "{parent}" does not exist')
    owner = None if archive else (os.geteuid(), os.getegid())
    with (
        trees.merged(engine, record) as tree,
        source_in(tree, record, path, follow) as source,
        trees.opened("/") as host,
    ):
        directory, name = destination(host, to, source)
        with trees.opened(directory) as into:
            # Attributes of the machine's own (security., trusted.) are not a container's to give.
            extractor = extract.Extractor(into, "", owner, wanted=lambda attribute: attribute.startswith("user."))
            extractor.extract(source.chunks(pack.Packer(leave=tree.is_kernels, ids=tree.inside), name))


def copy_in(
    engine: containers.Containers, record: containers.Record, path: str, to: str, follow: bool, archive: bool
) -> None:
    """Copy from the host to the container. What arrives is root's there, unless its owners are to be kept."""
    path = os.path.join(os.getcwd(), path)
    to = to if to.startswith("/") else f"/{to}"
    with trees.opened("/") as host:
        try:
            source = Source(host, path, follow)
        except OSError as error:
            if error.errno == errno.ENOTDIR:
                raise errors.InvalidArgument("not a directory") from None
            raise errors.NotFound(f"lstat {path}: {os.strerror(error.errno or 0).lower()}") from None
        with source, trees.merged(engine, record) as tree:
            directory, name = destination(tree.root, to, source)
            os.close(find_directory(tree, record, directory))
            owner = None if archive else (0, 0)
            extractor = extract.Extractor(tree.root, directory, owner, tree.is_kernels, ids=tree.outside)
            extractor.extract(source.chunks(pack.Packer(), name))


@contextlib.contextmanager
def source_in(tree: trees.Tree, record: containers.Record, path: str, follow: bool) -> Iterator[Source]:
    """A source in the container. Raises NotFound, in docker's words."""
    missing = errors.NotFound(f"Could not find the file {path} in container {record['name']}")
    try:
        found = Source(tree.root, path if path.startswith("/") else f"/{path}", follow)
    except OSError as error:
        if error.errno in MISSING:
            raise missing from None
        raise
    with found:
        if tree.is_kernels(found.status):
            raise missing
        yield found


def find_directory(tree: trees.Tree, record: containers.Record, path: str) -> int:
    """A directory of the container's, open (O_PATH). Raises NotFound, InvalidArgument."""
    missing = errors.NotFound(f"Could not find the file {path} in container {record['name']}")
    try:
        found = files.inside(tree.root, path, os.O_PATH)
    except OSError as error:
        if error.errno in MISSING:
            raise missing from None
        raise
    status = os.fstat(found)
    if not stat.S_ISDIR(status.st_mode) or tree.is_kernels(status):
        os.close(found)
        raise missing if tree.is_kernels(status) else errors.InvalidArgument(f"{path} is not a directory")
    return found
