"""COPY and ADD: what context.py has selected goes into a root file system.

Offers: `copy`, which also unpacks archives for ADD; `owner_of` and `Mode`, what --chown and --chmod mean.

The root is that of an image, which may be hostile: where the target leads is found as a process chrooted there would
find it, and from then on no link is followed; nothing is written to that was there before. A file replaces a file or a
link, directories are merged, a file never replaces a directory nor the other way round (BuildKit's rules, and
CVE-2024-23651 and -23652). The caller owes us that nobody else is at work in the root.

What is kept: modes, times to the nanosecond, hard links within one instruction, holes; from a stage also owners and
extended attributes, file capabilities among them. Facts: Dockerfile reference, COPY and ADD; BuildKit's fsutil, copy.
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
import re
import stat
from collections.abc import Sequence
from typing import NamedTuple

from .. import errors, files
from ..engine import users
from ..image import compression, extract, pack, tar
from . import context
from .context import Node, Parents, Refuse, Selected

MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
SMALL = 1 << 16  # bytes that are read and written at once; what is larger may have holes
CHUNK = 1 << 20


def copy(
    selected: Sequence[Selected], root: int, target: str, refuse: Refuse, *, directory: str = "/",
    owner: tuple[int, int] | None = None, mode: Mode | None = None, unpack: bool | None = False,
) -> None:  # fmt: skip
    """Copy into the file system below the open directory `root`. `target` is seen from `directory` (WORKDIR).

    A target that ends in `/` (`.`, `..`), or is a directory, takes files in; else it is the one file's new name. What
    is missing on the way is made, mode 0755. `owner` is --chown's: without it what comes from a stage keeps its own,
    and all else is root's. `refuse` raises the BuildError.

    With `unpack`, a source that is an archive, plain or compressed by gzip, bzip2, xz or zstd, is not copied, but what
    is in it, into the target as a directory, with the archive's modes and times (and owners, without --chown); None
    means only those that were not fetched from an address.
    """
    copier = Copier(root, refuse, owner, mode, unpack)
    try:
        copier.copy(selected, target, directory)
    except errors.BuildError as error:
        if error.line:
            raise
        refuse(error.reason, target)
    except OSError as error:
        refuse(f"cannot copy to {posixpath.join(directory, target)}: {error.strerror}", target)


# --chown and --chmod ------------------------------------------------------------------------------------------------


def owner_of(root: int, text: str, refuse: Refuse, flag: str = "--chown") -> tuple[int, int]:
    """What --chown=user[:group], or a USER, means in the image below `root`: numbers are taken as they are, and one
    alone is both; names are looked up in its /etc/passwd and /etc/group."""
    user, given, group = text.partition(":")
    try:
        if user.isdecimal() and user.isascii() and (not given or (group.isdecimal() and group.isascii())):
            return users.number(user), users.number(group if given else user)
        found = users.lookup(text if group else user, [], [f"/proc/self/fd/{root}"])
    except (errors.NotFound, errors.InvalidArgument) as error:
        refuse(f"{flag}={text}: {error}", flag)
    return found.uid, found.gid


class Mode:
    """--chmod: an octal number, or changes as of chmod(1), `u=rwX,go=rX`, with a umask of 0. Raises ValueError."""

    WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007, "a": 0o7777}  # noqa: RUF012 - never changed
    WHAT = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000}  # noqa: RUF012

    def __init__(self, text: str) -> None:
        self.number: int | None = None
        self.changes: list[tuple[int, str, str]] = []
        if re.fullmatch("[0-7]{1,5}", text) and int(text, 8) <= 0o7777:
            self.number = int(text, 8)
            return
        for clause in text.split(","):
            match = re.fullmatch("([ugoa]*)((?:[-+=][rwxXst]*)+)", clause)
            if not match:
                raise ValueError("an octal number such as 755, or u=rwX,go=rX")
            mask = 0
            for who in match[1] or "a":
                mask |= self.WHO[who]
            self.changes += [(mask, change[0], change[1:]) for change in re.findall("[-+=][rwxXst]*", match[2])]

    def of(self, mode: int) -> int:
        """The permissions of a file that has st_mode `mode`."""
        now = stat.S_IMODE(mode)
        if self.number is not None:
            return self.number
        for mask, operator, letters in self.changes:
            bits = 0
            for letter in letters:
                if letter == "X":
                    bits |= 0o111 if stat.S_ISDIR(mode) or now & 0o111 else 0
                else:
                    bits |= self.WHAT[letter]
            bits &= mask
            now = now | bits if operator == "+" else now & ~bits if operator == "-" else now & ~mask | bits
        return now


# One instruction ----------------------------------------------------------------------------------------------------


class First(NamedTuple):
    """Where a file of several names was copied to first, and the inode that it has there."""

    path: str
    device: int
    inode: int


class Copier:
    """One instruction's work."""

    def __init__(
        self, root: int, refuse: Refuse, owner: tuple[int, int] | None, mode: Mode | None, unpack: bool | None
    ) -> None:  # fmt: skip
        self.root, self.refuse, self.owner, self.mode, self.unpack = root, refuse, owner, mode, unpack
        self.links: dict[tuple[int, int], First] = {}
        self.directories: list[tuple[str, Node, bool]] = []
        self.ours = os.geteuid(), os.getegid()  # whose a new file is …
        self.above: str | None = None
        self.owned = False  # … unless its directory gives it the group
        self.umask = umask()

    def copy(self, selected: Sequence[Selected], target: str, directory: str) -> None:
        """All of it."""
        path = posixpath.join(directory, target)
        asserted = posixpath.basename(path) in ("", ".", "..")
        for one in selected:
            place = self.place(path)
            is_directory = place.status is not None and stat.S_ISDIR(place.status.st_mode)
            archive = self.is_archive(one)
            self.above = None  # what went before may have changed a directory's mode
            if place.status is not None and not is_directory and (asserted or one.directory or archive):
                self.refuse(f"cannot copy to non-directory: /{place.path}", target)
            if len(selected) > 1 and not asserted and not is_directory:
                self.refuse("more than one source: the target must be a directory, and end with a /", target)
            if one.directory:
                self.make(place.path)
                self.below(one, place.path)
            elif archive:
                self.make(place.path)
                self.extract(one, place.path)
            elif asserted or is_directory:
                if not one.base:
                    self.refuse(f"{one.address} does not end in a file's name: let the target have one", target)
                self.make(place.path)
                self.single(one, posixpath.join(place.path, one.base))
            else:
                self.make(posixpath.dirname(place.path))
                self.single(one, place.path)

    def place(self, path: str) -> files.Place:
        """Where a path leads in the image."""
        try:
            return files.place(self.root, path)
        except NotADirectoryError as error:
            self.refuse(f"cannot copy to non-directory: {error.filename}", path)

    def make(self, path: str) -> None:
        """A directory without links in its path, and those above it, where they are not there."""
        if not path or files.look(self.root, path) is not None:
            return
        self.make(posixpath.dirname(path))
        with Parents(self.root, path) as parents:
            parent, name = parents.of("")
            os.mkdir(name, 0o755, dir_fd=parent)
            descriptor = os.open(name, pack.ENTER, dir_fd=parent)
        try:
            os.fchown(descriptor, *(self.owner or (0, 0)))
            os.fchmod(descriptor, 0o755)
        finally:
            os.close(descriptor)

    def single(self, one: Selected, path: str) -> None:
        """One that is no directory, under its new name."""
        if one.tree is None:
            self.data(one, path)
            return
        with Parents(one.tree.root, one.path) as sources, Parents(self.root, path) as targets:
            self.node(one, one.nodes[0], sources, targets, path)

    def below(self, one: Selected, base: str) -> None:
        """A directory's content. The directory itself keeps what it is but for its time."""
        assert one.tree is not None
        with Parents(one.tree.root, one.path) as sources, Parents(self.root, base) as targets:
            for node in one.nodes[1:]:
                self.node(one, node, sources, targets, f"{base}/{node.name}" if base else node.name)
            while self.directories:
                self.finish(one, *self.directories.pop(), sources)
        descriptor = files.beneath(self.root, base, pack.ENTER)
        try:
            os.utime(descriptor, ns=(one.nodes[0].mtime, one.nodes[0].mtime))
        finally:
            os.close(descriptor)

    def is_archive(self, one: Selected) -> bool:
        """Whether a source is an archive that is to be unpacked: what it begins with decides, not its name."""
        wanted = not one.address if self.unpack is None else self.unpack
        if not wanted or one.tree is None or not stat.S_ISREG(one.nodes[0].mode):
            return False
        with opened(one) as file:
            begun = b""
            try:
                for piece in compression.decompress(file.read, compression.default_limits(), beyond=True)[1]:
                    begun += piece
                    if len(begun) >= tar.BLOCK:
                        return tar.is_header(begun[: tar.BLOCK])
            except errors.InvalidImage:
                pass  # damaged, or too much: it is copied as it is, as docker does
            return False

    def extract(self, one: Selected, base: str) -> None:
        """An archive's content into a directory, which is the root for the archive's own links. What is there gives
        way, as where docker unpacks."""
        directory = files.beneath(self.root, base, pack.ENTER)
        try:
            with opened(one) as file:
                chunks = compression.decompress(file.read, compression.default_limits(), beyond=True)[1]
                kept = ("user.", "security.capability")
                extractor = extract.Extractor(
                    directory, "/", self.owner, wanted=lambda name: name.startswith(kept), replace=True
                )
                extractor.extract(iter(chunks))
                if context.key(os.fstat(file.fileno())) != one.nodes[0].key:
                    self.refuse(f"/{one.path} has changed while the build was at it", "")
        except (errors.InvalidImage, OSError) as error:
            self.refuse(f"/{one.path} cannot be unpacked: {error}", "")
        finally:
            os.close(directory)

    def node(self, one: Selected, node: Node, sources: Parents, targets: Parents, path: str) -> None:
        """One node of a selection; `path` is where it goes, from the root."""
        try:
            parent, name = targets.of(node.name)
            if stat.S_ISDIR(node.mode):
                self.directory(node, parent, name, path)
                return
            if node.names > 1 and self.link(node, parent, name, path):
                return
            directory, there = sources.of(node.name)
            if not stat.S_ISREG(node.mode):
                self.special(one, node, directory, there, parent, name, path)
                return
            if targets.above != self.above:
                self.above = targets.above
                self.owned = not os.fstat(parent).st_mode & stat.S_ISGID
            self.file(one, node, directory, there, parent, name, path)
        except OSError as error:
            self.refuse(f"cannot copy to /{path}: {error.strerror}", "")

    def directory(self, node: Node, parent: int, name: str, path: str) -> None:
        """A directory, made or merged with what is there. It gets owner, mode and time when it is filled."""
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
            made = True
        except FileExistsError:
            made = False
            there = files.look(parent, name)
            if there is None or not stat.S_ISDIR(there.st_mode):
                self.refuse(f"cannot copy to non-directory: /{path}", "")
        self.directories.append((path, node, made or not node.implied))

    def finish(self, one: Selected, path: str, node: Node, whole: bool, sources: Parents) -> None:
        """A directory's own mode, owner, attributes and time, now that all is in there. One that was there, and is only
        on the way to what is copied, gets no more than the mode, as in BuildKit."""
        descriptor = files.beneath(self.root, path, pack.ENTER)
        try:
            if not whole:
                os.fchmod(descriptor, self.mode.of(node.mode) if self.mode else stat.S_IMODE(node.mode))
                return
            os.fchown(descriptor, *(self.owner or (node.uid, node.gid)))
            os.fchmod(descriptor, self.mode.of(node.mode) if self.mode else stat.S_IMODE(node.mode))
            directory, name = sources.of(node.name)
            self.attributes(one, directory, name, descriptor)
            os.utime(descriptor, ns=(node.mtime, node.mtime))
        finally:
            os.close(descriptor)

    def make_file(self, parent: int, name: str, path: str, mode: int) -> int:
        """A new file; what had its name goes."""
        try:
            return os.open(name, MAKE, mode, dir_fd=parent)
        except FileExistsError:
            self.clear(parent, name, path)
            return os.open(name, MAKE, mode, dir_fd=parent)

    def clear(self, parent: int, name: str, path: str) -> None:
        """Take away what has the name already; a directory stays."""
        there = files.look(parent, name)
        if there is not None and stat.S_ISDIR(there.st_mode):
            self.refuse(f"cannot replace to directory /{path} with file", "")
        os.unlink(name, dir_fd=parent)

    def file(
        self, one: Selected, node: Node, directory: int, there: str, parent: int, name: str, path: str
    ) -> None:  # fmt: skip
        """A regular file. Refuses one that has changed since it was selected: the cache knows what it was then."""
        mode = self.mode.of(node.mode) if self.mode else stat.S_IMODE(node.mode)
        source = os.open(there, pack.READ, dir_fd=directory)
        try:
            copy = self.make_file(parent, name, path, mode & 0o777)
            try:
                if node.size <= SMALL:
                    piece = os.read(source, SMALL)
                    while piece:
                        piece = piece[os.write(copy, piece) :]
                else:
                    copy_data(source, copy)
                if context.key(os.fstat(source)) != node.key:
                    self.refuse(f"/{posixpath.join(one.path, node.name)} has changed while the build was at it", "")
                self.dress(copy, node, mode, self.owned)
                self.attributes(one, directory, there, copy)
                os.utime(copy, ns=(node.mtime, node.mtime))
                if node.names > 1:
                    status = os.fstat(copy)
                    self.links[node.key[:2]] = First(path, status.st_dev, status.st_ino)
            finally:
                os.close(copy)
        finally:
            os.close(source)

    def dress(self, descriptor: int, node: Node, mode: int, owned: bool) -> None:
        """Owner, then mode: a change of owner takes the set-id bits away. What is so already is not done again."""
        owner = self.owner or (node.uid, node.gid)
        given = not owned or owner != self.ours
        if given:
            os.fchown(descriptor, *owner)
        if given or mode & (self.umask | 0o7000):
            os.fchmod(descriptor, mode)

    def attributes(self, one: Selected, directory: int, name: str, copy: int) -> None:
        """Extended attributes, which only what comes from a stage keeps."""
        if one.tree is not None and one.tree.keep:
            for attribute, value in pack.attributes(f"/proc/self/fd/{directory}/{name}").items():
                os.setxattr(copy, attribute, value)

    def link(self, node: Node, parent: int, name: str, path: str) -> bool:
        """One more name of a file that was copied already; False if it was not, or what was copied has gone since."""
        first = self.links.get(node.key[:2])
        there = files.look(self.root, first.path) if first else None
        if first is None or there is None or (there.st_dev, there.st_ino) != (first.device, first.inode):
            return False
        if first.path == path:
            return True
        if files.look(parent, name) is not None:
            self.clear(parent, name, path)
        with Parents(self.root, first.path) as parents:
            source, original = parents.of("")
            os.link(original, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        return True

    def special(
        self, one: Selected, node: Node, directory: int, there: str, parent: int, name: str, path: str
    ) -> None:  # fmt: skip
        """A symbolic link, a FIFO, a device. Whoever could exchange it meanwhile is not at work here."""
        if files.look(parent, name) is not None:
            self.clear(parent, name, path)
        if stat.S_ISLNK(node.mode):
            os.symlink(os.readlink(there, dir_fd=directory), name, dir_fd=parent)
        else:
            os.mknod(name, stat.S_IFMT(node.mode) | 0o600, node.device, dir_fd=parent)
        os.chown(name, *(self.owner or (node.uid, node.gid)), dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISLNK(node.mode):
            os.chmod(name, self.mode.of(node.mode) if self.mode else stat.S_IMODE(node.mode), dir_fd=parent)
        if one.tree is not None and one.tree.keep:
            for attribute, value in pack.attributes(f"/proc/self/fd/{directory}/{there}").items():
                os.setxattr(f"/proc/self/fd/{parent}/{name}", attribute, value, follow_symlinks=False)
        os.utime(name, ns=(node.mtime, node.mtime), dir_fd=parent, follow_symlinks=False)

    def data(self, one: Selected, path: str) -> None:
        """A heredoc's content."""
        node = one.nodes[0]
        mode = self.mode.of(node.mode) if self.mode else stat.S_IMODE(node.mode)
        with Parents(self.root, path) as targets:
            parent, name = targets.of("")
            copy = self.make_file(parent, name, path, mode & 0o777)
        try:
            files.write_all(copy, one.data or b"")
            self.dress(copy, node, mode, False)
        finally:
            os.close(copy)


def opened(one: Selected) -> io.FileIO:
    """A selected file, to be read."""
    assert one.tree is not None
    with Parents(one.tree.root, one.path) as parents:
        directory, name = parents.of("")
        return io.FileIO(os.open(name, pack.READ, dir_fd=directory))


def copy_data(source: int, copy: int) -> None:
    """All data of a file, in the kernel where that can do it (copy_file_range(2)); holes stay holes."""
    status = os.fstat(source)
    pieces = pack.data_of(source, status)
    for offset, size in [(0, status.st_size)] if pieces is None else pieces:
        os.lseek(source, offset, os.SEEK_SET)
        os.lseek(copy, offset, os.SEEK_SET)
        while size:
            try:
                moved = os.copy_file_range(source, copy, size)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
                moved = 0  # also what some file systems say: read and write then
            if not moved:
                piece = os.read(source, min(size, CHUNK))
                if not piece:  # it has become shorter, which the caller sees
                    return
                files.write_all(copy, piece)
                moved = len(piece)
            size -= moved
    if pieces is not None:
        os.ftruncate(copy, status.st_size)


def umask() -> int:
    """This process's, which umask(2) alone could not tell without changing it for all threads (proc_pid_status(5))."""
    for line in files.read("/proc/self/status").splitlines():
        if line.startswith(b"Umask:"):
            return int(line.split()[1], 8)
    return 0o777
