"""Packing: a directory tree in, a tar stream out; the one door through which this engine writes archives.

Offers: `Packer`. Its generators yield chunks of bytes; whoever takes them hashes, compresses, writes. What survives a
round trip through layers.unpack: kinds, modes, owners, times to the nanosecond, extended attributes, hard links,
device nodes, FIFOs, holes, and names of any bytes and length. Sockets are left out, as docker and GNU tar do it.

The tree may be a container's that runs, and its processes may be at work against us: every directory is entered by a
descriptor and without following links, and a file that shrinks while it is read is filled up with zeros. Entries come
in the order of their names, without user names or access times, so the same tree gives the same bytes; with an
`epoch` (SOURCE_DATE_EPOCH, reproducible-builds.org), nothing is younger than that.

Sources: POSIX pax; OCI image specification, layer.md (whiteouts); lseek(2), SEEK_DATA and SEEK_HOLE.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator

from .. import errors, files
from . import tar

CHUNK = 1 << 20
ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

KINDS = {
    stat.S_IFREG: tar.REGULAR, stat.S_IFDIR: tar.DIRECTORY, stat.S_IFLNK: tar.SYMLINK, stat.S_IFIFO: tar.FIFO,
    stat.S_IFCHR: tar.CHARACTER, stat.S_IFBLK: tar.BLOCK_DEVICE,
}  # fmt: skip

# The kernel's own book-keeping, and a label that means nothing on another machine.
NOT_CONTENT = ("trusted.overlay.", "user.overlay.", "security.selinux")


class Packer:
    """One archive. `leave(status)` says of a directory that its content is somebody else's: a mount.

    `ids(number)` is the owner or group that the archive has in place of a file's.
    """

    def __init__(
        self, epoch: int | None = None, leave: Callable[[os.stat_result], bool] | None = None,
        ids: Callable[[int], int] | None = None,
    ) -> None:  # fmt: skip
        self.epoch = epoch
        self.ids = ids or (lambda number: number)
        self.leave = leave or (lambda status: False)
        self.links: dict[tuple[int, int], bytes] = {}  # (device, inode) of a file with several names → the first one

    def tree(self, directory: int, name: str, path: bytes) -> Iterator[bytes]:
        """What `name` in the open directory is, with all below it; the archive calls it `path`."""
        yield from self.node(directory, name, path)
        try:
            descriptor = os.open(name, ENTER, dir_fd=directory)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENOENT):  # no directory, or not any more
                return
            raise
        try:
            yield from self.below(descriptor, path)
        finally:
            os.close(descriptor)

    def below(self, directory: int, path: bytes) -> Iterator[bytes]:
        """All that is in the open directory, which the archive calls `path`; empty for its root."""
        refuse_deep(b"/" + path)
        if self.leave(os.fstat(directory)):
            return
        for name in sorted(os.listdir(directory), key=os.fsencode):
            yield from self.tree(directory, name, path + b"/" * bool(path) + os.fsencode(name))

    def node(self, directory: int, name: str, path: bytes) -> Iterator[bytes]:
        """One member: what `name` in the open directory is, without what is below it. Nothing if it has gone."""
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                descriptor = os.open(name, READ, dir_fd=directory)
                try:
                    yield from self.file(descriptor, path)
                finally:
                    os.close(descriptor)
                return
            link = os.fsencode(os.readlink(name, dir_fd=directory)) if stat.S_ISLNK(status.st_mode) else b""
            xattrs = attributes(f"/proc/self/fd/{directory}/{name}")
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.EINVAL):  # it is something else by now
                return
            raise
        kind = KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:  # a socket
            return
        if kind == tar.DIRECTORY:
            path += b"/"
        first = self.first_name(status, path)
        if first and kind != tar.DIRECTORY:
            kind, link, xattrs = tar.HARD_LINK, first, {}
        yield tar.header(self.member(status, path, kind, link, xattrs))

    def file(self, descriptor: int, path: bytes) -> Iterator[bytes]:
        """A regular file, opened: its header, and its data where it is not a link to one that went before."""
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):  # exchanged between a look and an open
            return
        first = self.first_name(status, path)
        if first:
            yield tar.header(self.member(status, path, tar.HARD_LINK, first, {}))
            return
        pieces = data_of(descriptor, status)
        member = self.member(status, path, tar.REGULAR, b"", attributes(descriptor))
        yield tar.header(member._replace(size=status.st_size, pieces=pieces))
        total = 0
        for offset, size in [(0, status.st_size)] if pieces is None else pieces:
            total += size
            yield from read_exactly(descriptor, offset, size)
        yield tar.padding(total)

    def first_name(self, status: os.stat_result, path: bytes) -> bytes:
        """The name under which this very file has gone before; empty for the first."""
        if status.st_nlink < 2 or stat.S_ISDIR(status.st_mode):
            return b""
        first = self.links.setdefault((status.st_dev, status.st_ino), path)
        return b"" if first == path else first

    def member(
        self, status: os.stat_result, path: bytes, kind: bytes, link: bytes, xattrs: dict[str, bytes]
    ) -> tar.Member:
        """What a header says of it."""
        mtime = status.st_mtime_ns if self.epoch is None else min(status.st_mtime_ns, self.epoch * 1_000_000_000)
        device = kind in (tar.CHARACTER, tar.BLOCK_DEVICE)
        return tar.Member(
            path, kind, stat.S_IMODE(status.st_mode), self.ids(status.st_uid), self.ids(status.st_gid), 0,
            mtime, link,
            os.major(status.st_rdev) if device else 0, os.minor(status.st_rdev) if device else 0, xattrs, None,
        )  # fmt: skip

    def empty(self, path: bytes, mtime: int = 0) -> bytes:
        """An empty regular file of root's: what a whiteout is. `mtime` in nanoseconds."""
        mtime = mtime if self.epoch is None else min(mtime, self.epoch * 1_000_000_000)
        return tar.header(tar.Member(path, tar.REGULAR, 0o600, 0, 0, 0, mtime, b"", 0, 0, {}, None))


def refuse_deep(path: bytes) -> None:
    """Raise Unsupported for a directory, by its path from the root, in which no image may have anything (layers.py):
    each that is entered takes a descriptor, and a container may make thousands."""
    if path.count(b"/") >= files.DEEPEST_PATH:
        raise errors.Unsupported(
            f"{files.DEEPEST_PATH} directories lie in one another, in which no image has anything: "
            f"{os.fsdecode(path[:40])!r}…"
        )


def attributes(file: int | str) -> dict[str, bytes]:
    """The extended attributes of a descriptor, or a path whose last link is not followed (xattr(7))."""
    follow = isinstance(file, int)
    try:
        names = os.listxattr(file, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return {}
        raise
    found = {}
    for name in names:
        if not name.startswith(NOT_CONTENT):
            try:
                found[name] = os.getxattr(file, name, follow_symlinks=follow)
            except OSError as error:
                if error.errno != errno.ENODATA:  # taken away meanwhile
                    raise
    return found


def data_of(descriptor: int, status: os.stat_result) -> list[tuple[int, int]] | None:
    """The pieces of a file that are no holes, as (offset, size); None where it has none worth speaking of."""
    if status.st_blocks * 512 >= status.st_size:
        return None
    pieces, at = [], 0
    while at < status.st_size:
        try:
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
            at = min(os.lseek(descriptor, begin, os.SEEK_HOLE), status.st_size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # holes up to the end
                break
            if error.errno == errno.EINVAL:  # a file system that does not tell
                return None
            raise
        if begin < at:
            pieces.append((begin, at - begin))
    if pieces == [(0, status.st_size)]:
        return None
    end = sum(pieces[-1]) if pieces else 0
    return (
        pieces if end == status.st_size else [*pieces, (status.st_size, 0)]
    )  # GNU tar knows a hole at the end by this


def read_exactly(descriptor: int, offset: int, size: int) -> Iterator[bytes]:
    """So many bytes of a file: what it lacks by now is zeros, for its header has promised them."""
    while size:
        piece = os.pread(descriptor, min(size, CHUNK), offset) or bytes(min(size, CHUNK))
        offset += len(piece)
        size -= len(piece)
        yield piece
