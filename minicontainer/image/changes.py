"""Changes: what a container's writable layer says about the layers below it, and that as a layer of an image.

Offers: `walk`, every change in the order of its names; `pack`, the same as a tar stream with the OCI's whiteouts.

overlayfs has its own way to write down that something is gone: a character device 0/0 in its place, and for a whole
directory an attribute that says that nothing below it counts. In an image, the first is a file `.wh.NAME`, the second a
file `.wh..wh..opq` inside (OCI image specification, layer.md; Linux, Documentation/filesystems/overlayfs.rst).

Changed is what differs as docker compares it (moby pkg/archive, changes_linux.go): kind, mode, owner; of files also
size and time. A directory counts if it differs, or if something below it has changed: copying it up is no change.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from .. import errors
from ..records import namedtuple
from . import pack as packing
from . import tar

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
FLAVOURS = ("trusted", "user")  # who mounted it: root of the machine, or of a user namespace (mount option userxattr)

ADDED, CHANGED, DELETED = "A", "C", "D"


class Change(namedtuple("Change", "kind path opaque mtime")):
    """One change. `opaque`: of what is below, in the layers below, nothing is left. Of a `DELETED`, that its directory
    says so already. `mtime` is in nanoseconds."""

    kind: str
    path: bytes
    opaque: bool
    mtime: int


def walk(upper: int, lower: int, ours: frozenset[bytes] = frozenset()) -> Iterator[Change]:
    """The changes in the open directory `upper` over what the open directory `lower` shows.

    `ours` are paths (`/etc/hosts`) where an empty file or directory was made for a mount: they do not count as long as
    they are empty. Raises Unsupported where an overlay was mounted with options that leave changes in other places.
    """
    return _below(upper, lower, b"", False, ours)


def _below(upper: int, lower: int, path: bytes, opaque: bool, ours: frozenset[bytes]) -> Iterator[Change]:
    names = set(os.listdir(upper))
    if opaque and lower >= 0:
        names |= set(os.listdir(lower))
    for name in sorted(names, key=os.fsencode):
        whole = path + b"/" + os.fsencode(name)
        above, below = look(upper, name), look(lower, name) if lower >= 0 else None
        if above is None:
            yield Change(DELETED, whole, True, 0)
            continue
        if is_whiteout(above):
            if below is not None:
                yield Change(DELETED, whole, opaque, above.st_mtime_ns)
            continue
        if stat.S_ISDIR(above.st_mode):
            yield from _directory(upper, lower, name, whole, above, below, ours)
        elif not (whole in ours and below is None and above.st_size == 0 and stat.S_ISREG(above.st_mode)):
            kind = ADDED if below is None else CHANGED if differ(above, below) else ""
            if kind:
                yield Change(kind, whole, False, above.st_mtime_ns)


def _directory(
    upper: int, lower: int, name: str, whole: bytes, above: os.stat_result, below: os.stat_result | None,
    ours: frozenset[bytes],
) -> Iterator[Change]:  # fmt: skip
    packing.refuse_deep(whole)
    try:
        inside = os.open(name, packing.ENTER, dir_fd=upper)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):  # the container runs, and has taken it away
            return
        raise
    beneath = -1
    try:
        refuse_elsewhere(inside, whole)
        if below is not None and stat.S_ISDIR(below.st_mode):
            beneath = os.open(name, packing.ENTER, dir_fd=lower)
        opaque = beneath >= 0 and is_opaque(inside) and bool(os.listdir(beneath))
        changes = _below(inside, beneath, whole, opaque, ours)
        first = next(changes, None)
        new = below is None and not (whole in ours and first is None)
        if new or first is not None or (below is not None and differ(above, below)):
            yield Change(ADDED if below is None else CHANGED, whole, opaque, above.st_mtime_ns)
        if first is not None:
            yield first
        yield from changes
    finally:
        os.close(inside)
        if beneath >= 0:
            os.close(beneath)


def clear(upper: int, lower: int, ours: frozenset[bytes]) -> None:
    """Take away what `walk` does not count: the empty files and directories that were made for mounts."""
    for path in sorted(ours, reverse=True):
        *parents, name = path[1:].split(b"/")
        above, below = os.dup(upper), os.dup(lower)
        try:
            for parent in parents:
                above, below = enter(above, parent), enter(below, parent)
            if above >= 0 and (below < 0 or look(below, os.fsdecode(name)) is None):
                status = look(above, os.fsdecode(name))
                if status and stat.S_ISDIR(status.st_mode):
                    with contextlib.suppress(OSError):  # something is in it: that was not us
                        os.rmdir(name, dir_fd=above)
                elif status and stat.S_ISREG(status.st_mode) and not status.st_size:
                    os.unlink(name, dir_fd=above)
        finally:
            for descriptor in (above, below):
                if descriptor >= 0:
                    os.close(descriptor)


def enter(directory: int, name: bytes) -> int:
    """The directory of that name in place of the one it is in, which is closed; -1 where there is none."""
    if directory < 0:
        return -1
    try:
        return os.open(name, packing.ENTER, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return -1
        raise
    finally:
        os.close(directory)


def look(directory: int, name: str) -> os.stat_result | None:
    """What is there, without following a link; None for nothing."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def differ(above: os.stat_result, below: os.stat_result) -> bool:
    """Whether that is a change."""
    for field in ("st_mode", "st_uid", "st_gid", "st_rdev"):
        if getattr(above, field) != getattr(below, field):
            return True
    if stat.S_ISDIR(above.st_mode):
        return False
    return (above.st_size, above.st_mtime_ns) != (below.st_size, below.st_mtime_ns)


def is_whiteout(status: os.stat_result) -> bool:
    """Whether it is overlayfs's mark for what is gone: character device 0/0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(directory: int) -> bool:
    """Whether overlayfs shows nothing of the layers below it here."""
    return any(attribute(directory, f"{flavour}.overlay.opaque") == b"y" for flavour in FLAVOURS)


def refuse_elsewhere(directory: int, path: bytes) -> None:
    """Raise Unsupported for a directory whose content overlayfs keeps under another name (redirect_dir)."""
    if any(attribute(directory, f"{flavour}.overlay.redirect") is not None for flavour in FLAVOURS):
        raise errors.Unsupported(
            f"{os.fsdecode(path)} was renamed by an overlay with redirect_dir, which no layer can express: "
            "echo N >/sys/module/overlay/parameters/redirect_dir"
        )


def attribute(file: int, name: str) -> bytes | None:
    """One extended attribute; None where it is not set."""
    try:
        return os.getxattr(file, name)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return None
        raise


def pack(upper: int, changes: Iterator[Change], epoch: int | None = None) -> Iterator[bytes]:
    """The changes as a layer: a tar stream, in chunks. `upper` is the directory that they were found in."""
    packer = packing.Packer(epoch)
    for change in changes:
        *parents, name = change.path[1:].split(b"/")
        directory = os.dup(upper)
        try:
            if change.kind == DELETED:
                if not change.opaque:
                    yield packer.empty(b"/".join([*parents, WHITEOUT + name]), change.mtime)
                continue
            for parent in parents:
                inner = os.open(parent, packing.ENTER, dir_fd=directory)
                os.close(directory)
                directory = inner
            if name.startswith(WHITEOUT):
                raise errors.Unsupported(
                    f"{os.fsdecode(change.path)} cannot be in an image: .wh. means a removal there"
                )
            yield from packer.node(directory, os.fsdecode(name), change.path[1:])
            if change.opaque:
                yield packer.empty(change.path[1:] + b"/" + OPAQUE, change.mtime)
        finally:
            os.close(directory)
    yield tar.END
