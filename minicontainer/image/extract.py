"""Extracting: a tar stream in, files below a directory that others may be at work in: what `cp` does with an archive.

Unlike a layer, which is unpacked into an empty and private place (layers.py), this goes into a tree that is in use, and
whose owner may be at work against us: while we look at a directory it may become a link out of the tree
(CVE-2018-15664). So every parent is opened by openat2(2) as a process chrooted to the tree would find it, all else is
done relative to that descriptor, nothing is written to that was there before, and no last link is followed.

What is there already is replaced, but never a directory by something else nor something else by a directory (docker's
NoOverwriteDirNonDir), unless that is asked for.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator

from .. import errors, files
from . import layers, pack, tar

MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Extractor:
    """Into `base`, a directory of the tree below the open directory `root`.

    `owner` is whose the files become, None for those that the archive names; `ids(number)` is what the disk has in
    place of either. `forbidden(status)` says where nothing may be made; `wanted(attribute)` which extended attributes
    are taken over. With `replace`, directories with all that is below them give way to something else, and the other
    way round.
    """

    def __init__(
        self,
        root: int,
        base: str,
        owner: tuple[int, int] | None,
        forbidden: Callable[[os.stat_result], bool] = lambda status: False,
        wanted: Callable[[str], bool] = lambda attribute: True,
        replace: bool = False,
        ids: Callable[[int], int] | None = None,
    ) -> None:
        self.root = root
        self.base = base.rstrip("/")
        self.owner = owner
        self.forbidden = forbidden
        self.wanted = wanted
        self.replace = replace
        self.ids = ids or (lambda number: number)
        self.directories: list[tuple[bytes, tar.Entry]] = []

    def extract(self, chunks: Iterator[bytes]) -> None:
        """All members. Raises InvalidImage for what is no archive, Conflict, OSError; what was done stays done."""
        for entry in tar.entries(tar.Stream(chunks)):
            path = layers.clean(entry.name)
            if not path:
                continue  # the directory itself, which is there
            parent = self.parent(path)
            try:
                self.place(parent, os.path.basename(path), path, entry)
            finally:
                os.close(parent)
        for path, entry in reversed(self.directories):
            self.finish(path, entry)

    def parent(self, path: bytes) -> int:
        """The directory that `path` is in, made if missing, open (O_PATH)."""
        whole = f"{self.base}/{os.fsdecode(os.path.dirname(path))}"
        descriptor = files.make_inside(self.root, whole, directory=True)
        if self.forbidden(os.fstat(descriptor)):
            os.close(descriptor)
            raise errors.NotFound(f"{whole} is the kernel's: nothing can be copied there")
        return descriptor

    def place(self, parent: int, name: bytes, path: bytes, entry: tar.Entry) -> None:
        """Make one member."""
        there = self.look(parent, name)
        if there is not None:
            directory = stat.S_ISDIR(there.st_mode)
            if directory != (entry.kind == tar.DIRECTORY) and self.replace:
                if directory:
                    files.remove_inside(parent, os.fsdecode(name))
                there = None
            elif directory != (entry.kind == tar.DIRECTORY):
                kinds = ("directory", "non-directory") if directory else ("non-directory", "directory")
                raise errors.Conflict(f'cannot overwrite {kinds[0]} "/{os.fsdecode(path)}" with {kinds[1]}')
            if not directory:
                os.unlink(name, dir_fd=parent)
        if entry.kind == tar.DIRECTORY:
            if there is None:
                os.mkdir(name, 0o700, dir_fd=parent)
            descriptor = os.open(name, pack.ENTER, dir_fd=parent)
            try:
                self.dress(descriptor, entry, entry.mode | 0o700)
            finally:
                os.close(descriptor)
            self.directories.append((path, entry))
        elif entry.kind == tar.REGULAR:
            descriptor = os.open(name, MAKE, 0o600, dir_fd=parent)
            try:
                self.fill(descriptor, entry)
                self.dress(descriptor, entry, entry.mode)
                os.utime(descriptor, ns=(entry.mtime, entry.mtime))
            finally:
                os.close(descriptor)
        elif entry.kind == tar.HARD_LINK:
            target = layers.clean(entry.link)
            other = self.parent(target)
            try:
                os.link(os.path.basename(target), name, src_dir_fd=other, dst_dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(other)
        else:
            self.special(parent, name, entry)

    def look(self, parent: int, name: bytes) -> os.stat_result | None:
        """What has the name already."""
        try:
            return os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def fill(self, descriptor: int, entry: tar.Entry) -> None:
        """The content; holes stay holes."""
        if entry.holes is None:
            for piece in entry.stream.data(entry.size):
                files.write_all(descriptor, piece)
            return
        for offset, size in entry.holes:
            os.lseek(descriptor, offset, os.SEEK_SET)
            for piece in entry.stream.data(size):
                files.write_all(descriptor, piece)
        os.ftruncate(descriptor, entry.real_size)

    def dress(self, descriptor: int, entry: tar.Entry, mode: int) -> None:
        """Owner, mode, attributes; in this order, for a change of owner takes the set-id bits away."""
        os.fchown(descriptor, *map(self.ids, self.owner or (entry.uid, entry.gid)))
        os.fchmod(descriptor, mode)
        for attribute, value in entry.xattrs.items():
            if self.wanted(attribute):
                os.setxattr(descriptor, attribute, value)

    def special(self, parent: int, name: bytes, entry: tar.Entry) -> None:
        """A symbolic link, a device, a FIFO. Nobody can have exchanged it before it has its owner but its directory's
        owner, who could have made it so."""
        kinds = {tar.CHARACTER: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}
        if entry.kind == tar.SYMLINK:
            os.symlink(entry.link, name, dir_fd=parent)
        elif entry.kind in kinds:
            os.mknod(name, kinds[entry.kind] | entry.mode & 0o777, os.makedev(entry.major, entry.minor), dir_fd=parent)
        else:
            raise errors.InvalidImage(f"{os.fsdecode(entry.name)!r} is of the unknown kind {entry.kind!r}")
        os.chown(name, *map(self.ids, self.owner or (entry.uid, entry.gid)), dir_fd=parent, follow_symlinks=False)
        if entry.kind in kinds:
            self.special_mode(parent, name, kinds[entry.kind], entry.mode & 0o777)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def special_mode(self, parent: int, name: bytes, kind: int, mode: int) -> None:
        """Of what the umask has taken from: chmod(2), which follows links, on what is not a link."""
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            has = os.fstat(descriptor).st_mode
            if stat.S_IFMT(has) == kind and stat.S_IMODE(has) != mode:
                os.chmod(f"/proc/self/fd/{descriptor}", mode)
        finally:
            os.close(descriptor)

    def finish(self, path: bytes, entry: tar.Entry) -> None:
        """A directory's own mode and time, now that all is in there."""
        parent = self.parent(path)
        try:
            descriptor = os.open(os.path.basename(path), pack.ENTER, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # somebody has taken it away meanwhile
                return
            raise
        finally:
            os.close(parent)
        try:
            if entry.mode | 0o700 != entry.mode:
                os.fchmod(descriptor, entry.mode)
            os.utime(descriptor, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(descriptor)
