"""Layers: a tar stream in, a directory that overlayfs can stack out, and the digests of what went by.

Offers: `unpack`, which writes a layer into an empty directory, translates whiteouts, and hashes blob and content in the
same single pass; `inherit`, which a layer needs that was unpacked before those below it; `Owners`; `clean`.

Entries are made as they come, the later over the earlier. Whiteouts wait for the end: they are about the layers below,
wherever in the archive they stand, and what this layer itself has there by then tells how overlayfs must hear of them.

An archive comes from a stranger. What holds, whatever it says:
- nothing is made, changed or read outside the target: no `..`, no path through a symbolic link, no hard link out of it;
- no name is opened that was there before: every file is made with O_EXCL, so a device or FIFO is never written to;
- no more memory, output or inodes than the limits allow, however small the archive.
What breaks a rule raises InvalidImage; the caller owes us that the target is private (mode 0700 above it) and that it
throws the target away after an error.

Two threads share the work: one reads, stores the blob, hashes and decompresses (all of which let go of the
interpreter's lock), the other makes files. On two processors a layer costs as long as its files, and its digest is
free.

Sources: OCI image specification, layer.md (whiteouts); Linux Documentation/filesystems/overlayfs.rst (whiteouts and
opaque directories).
"""

import contextlib
import errno
import hashlib
import os
import queue
import stat
import threading
from collections.abc import Callable, Iterator
from typing import Any

from .. import errors, files, host
from . import changes, compression, tar
from .compression import Limits, Read

IN_FLIGHT = 16  # chunks between the two threads

LONGEST_PATH = 4095  # PATH_MAX, less its NUL
LONGEST_NAMES = 256 << 20  # bytes of all directories' and whiteouts' paths in a layer: they are kept in memory
MOST_REPLACED = 1000  # directories that a later entry of the same layer turns into something else

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
AUFS = b".wh..wh."  # what else begins so is housekeeping of the aufs driver, no part of the image


class Owners:
    """Which owners can be kept, and how overlayfs spells an opaque directory here.

    Root of the machine keeps all. In a user namespace, ids that are not mapped become 0 (the set-id bit goes, for it
    would now mean another user), devices cannot be made, and the attribute is `user.overlay.opaque` (mount option
    userxattr). `uids` and `gids`: ranges of ids that exist here; None means all.
    """

    def __init__(self, flavour: str, uids: list[range] | None = None, gids: list[range] | None = None) -> None:
        self.opaque = f"{flavour}.overlay.opaque"
        self.uids = uids
        self.gids = gids
        self.devices = uids is None


def owners_here() -> Owners:
    """The rules for this process, read from its id map (user_namespaces(7))."""
    if not host.in_user_namespace():
        return Owners("trusted")
    return Owners("user", _mapped("/proc/self/uid_map"), _mapped("/proc/self/gid_map"))


def _mapped(path: str) -> list[range]:
    ranges = []
    with open(path) as file:
        for line in file:
            inside, _, count = map(int, line.split())
            ranges.append(range(inside, inside + count))
    return ranges


INHERITS = ("emptied", "implied", "whited")  # what of an Unpacked nobody needs after `inherit`


class Unpacked:
    """What `unpack` saw: digest and size of the blob as it came, the diffID and size of the tar inside, its compression
    ("", "gzip" or "zstd"), the bytes of files and links, how many entries, and warnings: what could not be kept.

    For `inherit`: `implied` are the directories that the layer passes through and does not mention, `whited` those with
    a whiteout in them, `emptied` whether the root is opaque.
    """

    __slots__ = (
        "blob_size", "compression", "count", "diff_id", "digest", "emptied", "file_bytes", "implied", "tar_size",
        "warnings", "whited",
    )  # fmt: skip

    def __init__(self) -> None:
        self.implied: list[bytes] = []
        self.whited: list[bytes] = []
        self.emptied = False
        self.digest = ""
        self.blob_size = 0
        self.diff_id = ""
        self.tar_size = 0
        self.compression = ""
        self.file_bytes = 0
        self.count = 0
        self.warnings: list[str] = []


def unpack(
    read: Read, target: str, *, blob: int = -1, limits: Limits | None = None, owners: Owners | None = None,
    lower: list[str] | None = None,
) -> Unpacked:  # fmt: skip
    """Unpack the layer that `read` yields into the empty directory `target`. Durable only after a later syncfs(2).

    `blob` is a descriptor that gets the bytes as they come, and is fsynced (-1: none). `lower` are the directories of
    the layers below, top first, for `inherit`, which the caller does later where they are not there yet (None). The
    caller compares the digests returned with those it expects before it keeps anything. Raises InvalidImage, or
    KernelError where the host fails (disk full).
    """
    limits = limits or compression.default_limits()
    result = Unpacked()
    tree = _Tree(target, owners or owners_here())
    try:
        with _Supply(read, blob, limits, result) as chunks:
            for entry in tar.entries(tar.Stream(chunks)):
                result.count += 1
                if result.count > limits.count:
                    raise errors.InvalidImage(f"the layer has more than {limits.count} entries; {compression.RAISE}")
                tree.place(entry)
            tree.finish()
            for _ in chunks:  # whatever follows the end of the archive belongs to the digests
                pass
    finally:
        tree.close()
    result.file_bytes = tree.file_bytes
    result.warnings = tree.told()
    result.implied = sorted(path for path, meant in tree.directories.items() if meant.implied)
    result.whited = sorted(tree.whited)
    result.emptied = tree.directories[b""].opaque
    if lower is not None:
        inherit(target, result, lower)
    return result


def inherit(target: str, unpacked: Unpacked, lower: list[str]) -> None:
    """What a layer takes from those below it; `lower` are their directories, top first, themselves finished.

    The directories that it does not mention get the mode, owner and time that they have there, for ours will hide
    those. Whiteouts in a directory that nothing is below go: overlayfs would list them there, and find none of them.
    An opaque root becomes a whiteout for each name below: overlayfs reads no such attribute of a layer's root.
    """
    root, implied = os.open(target, _ENTER), set(unpacked.implied)
    try:
        for path in sorted({*implied, *unpacked.whited}, reverse=True):
            try:
                found = _below(lower, path)
                if found is None or not stat.S_ISDIR(found.st_mode):
                    _uncover(root, path, found is None and path in implied)
                elif path in implied:
                    _take_after(root, path, found)
            except OSError as error:
                raise _refusal(error, path) from None
        if unpacked.emptied:
            try:
                _empty(root, {name for layer in lower for name in os.listdir(layer)})
            except OSError as error:
                raise _refusal(error, b"") from None
    finally:
        os.close(root)


def _empty(root: int, names: set[str]) -> None:
    """A whiteout for each of these; directories of ours are opaque by now, and files hide by themselves."""
    with _keeping_time(root, b""):
        for name in names:
            with contextlib.suppress(FileExistsError):
                os.mknod(name, stat.S_IFCHR, 0, dir_fd=root)


def _take_after(root: int, path: bytes, found: os.stat_result) -> None:
    """Mode, owner and time of the same directory below."""
    descriptor = os.open(path, _FINISH, dir_fd=root)  # made by us, where nobody else comes in
    try:
        os.fchown(descriptor, found.st_uid, found.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
        os.utime(descriptor, ns=(found.st_mtime_ns, found.st_mtime_ns))
    finally:
        os.close(descriptor)


def _uncover(root: int, path: bytes, whole: bool) -> None:
    """Take the whiteouts out of a directory; `whole`: the directory, too, where nothing else is in it."""
    with _keeping_time(root, path) as descriptor:
        for name in os.listdir(descriptor):
            if changes.is_whiteout(os.stat(name, dir_fd=descriptor, follow_symlinks=False)):
                os.unlink(name, dir_fd=descriptor)
        empty = whole and not os.listdir(descriptor)
    if empty:
        with _keeping_time(root, path.rpartition(b"/")[0]):
            os.rmdir(path, dir_fd=root)


@contextlib.contextmanager
def _keeping_time(root: int, path: bytes) -> Iterator[int]:
    """An open directory of ours, whose time is afterwards what it was."""
    descriptor = os.open(path or b".", _FINISH, dir_fd=root)
    try:
        before = os.fstat(descriptor).st_mtime_ns
        yield descriptor
        os.utime(descriptor, ns=(before, before))
    finally:
        os.close(descriptor)


class _Supply:
    """The first thread: reads, keeps, hashes, decompresses. `with` it, the second has the tar in chunks.

    A semaphore bounds how far it runs ahead; an error travels through the queue.
    """

    def __init__(self, read: Read, blob: int, limits: Limits, result: Unpacked) -> None:
        self.read = read
        self.blob = blob
        self.limits = limits
        self.result = result
        self.queue: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()
        self.room = threading.Semaphore(IN_FLIGHT)
        self.stopped = False
        self.thread = threading.Thread(target=self.run, name="layer-supply", daemon=True)

    def __enter__(self) -> Iterator[bytes]:
        self.thread.start()
        return self.chunks()

    def __exit__(self, *_: object) -> None:
        """Let the thread end, wherever it is."""
        self.stopped = True
        self.room.release()
        self.thread.join()

    def chunks(self) -> Iterator[bytes]:
        while chunk := self.queue.get():
            self.room.release()
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk

    def run(self) -> None:
        try:
            self.work()
            self.queue.put(b"")
        except OSError as error:
            self.queue.put(kernel_error(error, "read and store", b"layer"))
        except BaseException as error:  # of whatever kind: the other thread raises it
            self.queue.put(error)

    def work(self) -> None:
        result = self.result
        of_blob, of_tar = hashlib.sha256(), hashlib.sha256()

        def read(size: int) -> bytes:
            piece = self.read(size)
            of_blob.update(piece)
            result.blob_size += len(piece)
            if self.blob >= 0:
                files.write_all(self.blob, piece)
            return piece

        result.compression, chunks = compression.decompress(read, self.limits)
        for chunk in chunks:
            if result.compression:  # else both digests are the same one
                of_tar.update(chunk)
            result.tar_size += len(chunk)
            self.room.acquire()
            if self.stopped:
                return
            self.queue.put(chunk)
        result.digest = "sha256:" + of_blob.hexdigest()
        result.diff_id = "sha256:" + of_tar.hexdigest() if result.compression else result.digest
        if self.blob >= 0:
            os.fsync(self.blob)


# The tree -----------------------------------------------------------------------------------------------------------

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ENTER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FINISH = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Directory:
    """What a directory shall become once everything in it is made: making a file changes its mtime, and a mode without
    `w` or with the set-group bit would get in our way before."""

    __slots__ = ("gid", "implied", "mode", "mtime", "opaque", "uid", "xattrs")

    def __init__(self, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        self.implied = False  # the layer has things in it, and no word about itself
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime: int | None = None
        self.xattrs: dict[str, bytes] = {}
        self.opaque = False


class _Tree:
    """The second thread's half: entries in, files out.

    Every name is resolved from the target's descriptor, a component at a time, without following a link; the directory
    last used stays open, for archives go through a directory file by file. A path in `directories` is made of
    directories that we made, where nobody else can come in: such a path may be used in one piece.
    """

    def __init__(self, target: str, owners: Owners) -> None:
        self.root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.owners = owners
        self.directories: dict[bytes, _Directory] = {b"": _Directory()}
        self.hidden: set[bytes] = set()  # paths of which nothing below this layer is to be seen
        self.whited: set[bytes] = set()  # directories that we have put a whiteout into
        self.here = b""  # the directory that is open …
        self.descriptor = self.root  # … and its descriptor
        self.uid, self.gid = os.geteuid(), os.getegid()  # what a new file has without being given away
        if os.fstat(self.root).st_gid != self.gid:
            self.gid = -1  # a set-group directory above, or mount option grpid: nothing can be taken for granted
        self.replaced = 0
        self.remembered = 0
        self.file_bytes = 0
        self.warnings: dict[str, tuple[int, bytes]] = {}

    def close(self) -> None:
        self.leave()
        os.close(self.root)

    def warn(self, what: str, path: bytes) -> None:
        """Remember that something could not be kept: how often, and the first path."""
        count, first = self.warnings.get(what, (0, path))
        self.warnings[what] = (count + 1, first)

    def told(self) -> list[str]:
        """The warnings, one sentence for each kind."""
        return [
            f"{what}: {_shown(first)}" + (f" and {count - 1} more" if count > 1 else "")
            for what, (count, first) in self.warnings.items()
        ]

    def place(self, entry: tar.Entry) -> None:
        """Make what the entry says. Raises InvalidImage, or KernelError where it is the host that fails."""
        path = clean(entry.name)
        parent, _, name = path.rpartition(b"/")
        kind = entry.kind
        if not path and kind != tar.DIRECTORY:
            raise errors.InvalidImage(f"{_shown(entry.name)} is the image's root, and is said to be no directory")
        try:
            if AUFS in path and any(part.startswith(AUFS) for part in path.split(b"/")):
                if name == OPAQUE:
                    self.enter(parent)
                    self.directories[parent].opaque = True
                return
            if name.startswith(WHITEOUT):
                self.hide(parent, name[len(WHITEOUT) :])
                return
            if parent != self.here:
                self.enter(parent)
            if kind == tar.REGULAR:
                self.file(entry, path, name)
            elif kind == tar.DIRECTORY:
                self.directory(entry, path, name)
            elif kind == tar.SYMLINK:
                self.symlink(entry, path, name)
            elif kind == tar.HARD_LINK:
                self.hard_link(entry, path, name)
            elif kind in (tar.CHARACTER, tar.BLOCK_DEVICE, tar.FIFO):
                self.device(entry, path, name)
            else:
                raise errors.InvalidImage(f"{_shown(path)} has the type {kind!r}, which no layer may have")
        except (OSError, OverflowError) as error:
            raise _refusal(error, path) from None

    # Directories

    def enter(self, path: bytes) -> None:
        """Make `path` the directory that is open; what is missing on the way is made."""
        missing = path
        if self.here and path.startswith(self.here + b"/"):
            missing = path[len(self.here) + 1 :]
        else:
            self.leave()
        for part in missing.split(b"/") if missing else ():
            done = self.here + b"/" + part if self.here else part
            if done not in self.directories:
                self.imply(done, part)
            try:
                descriptor = os.open(part, _ENTER, dir_fd=self.descriptor)
            except NotADirectoryError:
                raise errors.InvalidImage(
                    f"{_shown(path)} leads through {_shown(done)}, which is no directory"
                ) from None
            self.leave()
            self.descriptor, self.here = descriptor, done

    def leave(self) -> None:
        """Back to the root."""
        if self.descriptor != self.root:
            os.close(self.descriptor)
        self.descriptor, self.here = self.root, b""

    def imply(self, path: bytes, name: bytes) -> None:
        """A directory that the layer does not mention; `inherit` will make it as it is in the layers below."""
        try:
            os.mkdir(name, 0o700, dir_fd=self.descriptor)
        except FileExistsError:
            return  # no directory: entering it will say so
        meant = _Directory()
        meant.implied = True
        self.remember(path)
        self.directories[path] = meant

    def directory(self, entry: tar.Entry, path: bytes, name: bytes) -> None:
        uid, gid, mode = self.owner(entry, path)
        known = self.directories.get(path)
        if known is None:
            self.make(path, os.mkdir, name, 0o700, dir_fd=self.descriptor)
        meant = _Directory(mode, uid, gid)
        meant.mtime = entry.mtime
        meant.xattrs = entry.xattrs
        meant.opaque = known is not None and known.opaque
        self.remember(path)
        self.directories[path] = meant

    def remember(self, path: bytes) -> None:
        self.remembered += len(path)
        if self.remembered > LONGEST_NAMES:
            raise errors.InvalidImage(f"the names of the layer's directories add up to more than {LONGEST_NAMES} bytes")

    def make(self, path: bytes, call: Callable[..., Any], *arguments: object, **options: object) -> Any:
        """Call what makes `path`. What an earlier entry of this layer put there goes: the later wins."""
        try:
            return call(*arguments, **options)
        except FileExistsError:
            self.displace(path)
            return call(*arguments, **options)

    def displace(self, path: bytes) -> None:
        """Remove what an earlier entry made; of what is below that, nothing comes back."""
        self.conceal(path)
        name = path.rpartition(b"/")[2]
        if path not in self.directories:
            os.unlink(name, dir_fd=self.descriptor)
            return
        self.replaced += 1
        if self.replaced > MOST_REPLACED:
            raise errors.InvalidImage(f"the layer replaces more than {MOST_REPLACED} of its own directories")
        below = path + b"/"
        for known in [known for known in self.directories if known == path or known.startswith(below)]:
            del self.directories[known]
        files.remove_tree(f"/proc/self/fd/{self.descriptor}/{os.fsdecode(name)}")

    # Everything else

    def file(self, entry: tar.Entry, path: bytes, name: bytes) -> None:
        descriptor = self.make(path, os.open, name, _CREATE, 0o600, dir_fd=self.descriptor)
        try:
            for offset, size in [(0, entry.size)] if entry.holes is None else entry.holes:
                if offset:
                    os.lseek(descriptor, offset, os.SEEK_SET)
                for piece in entry.stream.data(size):
                    files.write_all(descriptor, piece)
            if entry.holes is not None:
                os.ftruncate(descriptor, entry.real_size)
            self.file_bytes += entry.size
            uid, gid, mode = self.owner(entry, path)
            if uid != self.uid or gid != self.gid:
                os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
            self.attributes(descriptor, entry.xattrs, path)
            os.utime(descriptor, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(descriptor)

    def symlink(self, entry: tar.Entry, path: bytes, name: bytes) -> None:
        if not entry.link:
            raise errors.InvalidImage(f"{_shown(path)} is a symbolic link to nothing")
        self.make(path, os.symlink, entry.link, name, dir_fd=self.descriptor)
        self.file_bytes += len(entry.link)  # as stat(2) and docker count it
        self.dress(entry, path, name)

    def hard_link(self, entry: tar.Entry, path: bytes, name: bytes) -> None:
        target = clean(entry.link)
        directory = target.rpartition(b"/")[0]
        if target == path:
            raise errors.InvalidImage(f"{_shown(path)} is a hard link to itself")
        if target in self.directories:
            raise errors.InvalidImage(f"{_shown(path)} is a hard link to a directory, {_shown(target)}")
        nothing = f"{_shown(path)} is a hard link to {_shown(target)}, which this layer does not have"
        if directory not in self.directories:
            raise errors.InvalidImage(nothing)
        try:
            self.make(
                path, os.link, target, name, src_dir_fd=self.root, dst_dir_fd=self.descriptor, follow_symlinks=False
            )
        except FileNotFoundError:
            raise errors.InvalidImage(nothing) from None

    def device(self, entry: tar.Entry, path: bytes, name: bytes) -> None:
        if entry.kind == tar.CHARACTER and entry.major == entry.minor == 0:
            raise errors.InvalidImage(
                f"{_shown(path)} is character device 0/0, which is how overlayfs marks a deleted file"
            )
        if not self.owners.devices and entry.kind != tar.FIFO:
            self.warn("device nodes cannot be made in a user namespace, left out", path)
            return
        kind = {tar.CHARACTER: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}[entry.kind]
        number = os.makedev(entry.major, entry.minor)
        self.make(path, os.mknod, name, kind | 0o600, number, dir_fd=self.descriptor)
        self.dress(entry, path, name)

    # Whiteouts

    def hide(self, parent: bytes, name: bytes) -> None:
        """`.wh.NAME`: what the layers below have under NAME is gone; what this layer has, before or after, stays."""
        if name in (b"", b".", b".."):
            raise errors.InvalidImage(
                f"a whiteout of {name!r} in {_shown(parent)} would reach outside of its directory"
            )
        for above in _way(parent):
            if above not in self.directories and self.has(above):
                raise errors.InvalidImage(f"{_shown(parent)} leads through {_shown(above)}, which is no directory")
        self.conceal(parent + b"/" + name if parent else name)

    def conceal(self, path: bytes) -> None:
        if path not in self.hidden:
            self.remember(path)
            self.hidden.add(path)

    def has(self, path: bytes) -> bool:
        """Whether this layer has made something there, in directories of its own."""
        try:
            os.stat(path, dir_fd=self.root, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def whiteout(self, path: bytes) -> None:
        """Tell overlayfs that of `path` in the layers below nothing is to be seen: at the end, the shortest first."""
        if path in self.directories:
            self.directories[path].opaque = True
            return
        parent, _, name = path.rpartition(b"/")
        if any(self.covers(above) for above in _way(parent)):
            return
        self.enter(parent)
        try:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=self.descriptor)
        except FileExistsError:
            return  # a file hides what is below it by itself
        except PermissionError as error:
            raise kernel_error(error, "mknod", path, "whiteouts in a user namespace need Linux 5.8 or later") from None
        self.whited.add(parent)

    def covers(self, path: bytes) -> bool:
        """Whether nothing that the layers below have in `path` is seen anyway."""
        if path in self.directories:
            return self.directories[path].opaque
        return path in self.hidden or self.has(path)

    # Owner, mode, attributes, times

    def owner(self, entry: tar.Entry, path: bytes) -> tuple[int, int, int]:
        """Owner, group and mode as they can be kept here."""
        uid, gid, mode = entry.uid, entry.gid, entry.mode
        if uid >= 0xFFFFFFFF or gid >= 0xFFFFFFFF:
            raise errors.InvalidImage(f"{_shown(path)} has an owner or group out of range")
        if self.owners.uids is not None and not any(uid in ids for ids in self.owners.uids):
            self.warn("owners that this user namespace does not have, now 0", path)
            uid = 0
            mode &= ~stat.S_ISUID
        if self.owners.gids is not None and not any(gid in ids for ids in self.owners.gids):
            self.warn("groups that this user namespace does not have, now 0", path)
            gid = 0
            mode &= ~stat.S_ISGID
        return uid, gid, mode

    def dress(self, entry: tar.Entry, path: bytes, name: bytes) -> None:
        """Owner, mode, attributes and time of what has no descriptor: a link, a device, a FIFO."""
        uid, gid, mode = self.owner(entry, path)
        if uid != self.uid or gid != self.gid:
            os.chown(name, uid, gid, dir_fd=self.descriptor, follow_symlinks=False)
        if entry.kind != tar.SYMLINK:
            os.chmod(name, mode, dir_fd=self.descriptor)
        self.attributes(b"/proc/self/fd/%d/%s" % (self.descriptor, name), entry.xattrs, path)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=self.descriptor, follow_symlinks=False)

    def attributes(self, file: int | bytes, xattrs: dict[str, bytes], path: bytes) -> None:
        """Extended attributes (xattr(7)). overlayfs's own are an order to the kernel, not content: never taken over."""
        for name, value in xattrs.items():
            if name.startswith(("trusted.overlay.", "user.overlay.")):
                self.warn(f"attribute {name} is overlayfs's own, left out", path)
                continue
            try:
                os.setxattr(file, name, value, follow_symlinks=isinstance(file, int))
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENODATA, errno.EINVAL, errno.EACCES):
                    raise
                self.warn(f"attribute {name} is refused here ({error.strerror}), left out", path)

    def finish(self) -> None:
        """Make the whiteouts, and give the directories what they were meant to have, the deepest first: a parent may
        become unsearchable."""
        for path in sorted(self.hidden):
            try:
                self.whiteout(path)
            except OSError as error:
                raise _refusal(error, path) from None
        emptied = self.directories[b""].opaque
        for path in sorted(self.directories, reverse=True):
            meant = self.directories[path]
            if emptied and b"/" not in path:
                meant.opaque = True
            try:
                descriptor = os.open(path or b".", _FINISH, dir_fd=self.root)
                try:
                    if meant.uid != self.uid or meant.gid != self.gid:
                        os.fchown(descriptor, meant.uid, meant.gid)
                    os.fchmod(descriptor, meant.mode)
                    self.attributes(descriptor, meant.xattrs, path)
                    if meant.opaque:
                        os.setxattr(descriptor, self.owners.opaque, b"y")
                    if meant.mtime is not None:
                        os.utime(descriptor, ns=(meant.mtime, meant.mtime))
                finally:
                    os.close(descriptor)
            except (OSError, OverflowError) as error:
                raise _refusal(error, path) from None


def clean(name: bytes) -> bytes:
    """A member's name as a path below the root: `./usr//bin/` → `usr/bin`; a leading slash means the image's root.

    Raises InvalidImage for `..`, and for what is longer or deeper than a kernel or a person would make it.
    """
    path = name.strip(b"/")
    if path.startswith(b"./"):
        path = path[2:].lstrip(b"/")
    if b"//" in path or b"/." in path or path[:1] == b".":
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise errors.InvalidImage(f"{_shown(name)} leads out of the archive")
        path = b"/".join(parts)
    if len(path) > LONGEST_PATH or path.count(b"/") >= files.DEEPEST_PATH:
        raise errors.InvalidImage(
            f"{_shown(path)} is longer than {LONGEST_PATH} bytes or deeper than {files.DEEPEST_PATH} directories"
        )
    return path


def _way(path: bytes) -> Iterator[bytes]:
    """A path and the directories on the way there, the shortest first: `a/b` → the root, `a`, `a/b`."""
    yield b""
    for place, letter in enumerate(path):
        if letter == ord("/"):
            yield path[:place]
    if path:
        yield path


def _below(lower: list[str], path: bytes) -> os.stat_result | None:
    """What overlayfs shows under `path` of these layers, top first; None where that is nothing."""
    for layer in lower:
        status, last = _look(layer, path)
        if status is not None or last:
            return status
    return None


def _look(layer: str, path: bytes) -> tuple[os.stat_result | None, bool]:
    """What one layer has under `path`, without following any link, and whether it hides what the next ones have."""
    descriptor = os.open(layer, _FINISH)
    hides = False
    try:
        parent, _, name = path.rpartition(b"/")
        for part in parent.split(b"/") if parent else ():
            deeper = os.open(part, _FINISH, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = deeper
            hides = hides or changes.is_opaque(descriptor)
        status = os.stat(name or b".", dir_fd=descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return None, hides
    except NotADirectoryError:
        return None, True
    finally:
        os.close(descriptor)
    return (None, True) if changes.is_whiteout(status) else (status, hides)


def _shown(path: bytes) -> str:
    shortened = path if len(path) <= 120 else path[:117] + "…".encode()
    return repr("/" + os.fsdecode(shortened).lstrip("/"))


def _refusal(error: OSError | OverflowError, path: bytes) -> Exception:
    """What it means that the kernel, or Python on the way there, refused: the archive's fault, or the host's."""
    if isinstance(error, OverflowError):
        return errors.InvalidImage(f"{_shown(path)} has a time, owner or device number out of range")
    if isinstance(error, errors.KernelError):
        return error
    if error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.EILSEQ):
        return errors.InvalidImage(f"{_shown(path)} cannot be unpacked: {error.strerror}")
    return kernel_error(error, "unpack", path)


def kernel_error(error: OSError, call: str, path: bytes, hint: str = "") -> errors.KernelError:
    """The house's form of an OSError that is the host's fault, with what to do about a full disk."""
    if isinstance(error, errors.KernelError):
        return error
    if error.errno == errno.ENOSPC:
        hint = "the disk is full: free some space, or put the store elsewhere with MINICONTAINER_ROOT"
    elif error.errno == errno.EDQUOT:
        hint = "the disk quota is used up"
    return errors.KernelError(error.errno or errno.EIO, call, (os.fsdecode(path),), hint)
