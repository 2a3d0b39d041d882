"""Overlay and copy-on-write: many read-only layers and one writable directory, seen as one tree.

    merged   what the container sees
    upper    what it has written: copies of changed files, whiteouts for removed ones
    lower    the image's layers, shared by every container, never written

Source: the kernel's Documentation/filesystems/overlayfs.rst. The options of one mount(2) must fit one page, so lower
directories are given by short links, relative to the store (`layers/l/AB3`): sixty layers fit.
"""

from __future__ import annotations

import errno
import os

from .. import errors, host, steps, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from . import idmap

PAGE = 4096


def options(lower: list[str], upper: str, work: str, user: bool, volatile: bool) -> str:
    """The mount's data. `lower` is lowest first, as an image lists its layers; the kernel wants the topmost first.

    `user` chooses xattrs that the root of a user namespace may set (`user.overlay.*`). `volatile` spares the disk:
    fsync(2) inside does nothing, and umount(2) does not wait for a sync of the whole file system below. It is for what
    is thrown away afterwards. Raises InvalidArgument where the options would not fit one page: mount(2) would cut them
    silently.
    """
    for path in (*lower, upper, work):
        if any(character in path for character in ":,\\"):
            raise errors.InvalidArgument(
                f"overlay cannot mount {path}: its options reserve `:`, `,` and `\\` in a path"
            )
    text = f"lowerdir={':'.join(reversed(lower))},upperdir={upper},workdir={work}"
    if user:
        text += ",userxattr"
    if volatile:
        text += ",volatile"
    if len(os.fsencode(text)) >= PAGE:
        raise errors.InvalidArgument(
            f"{len(lower)} layers make {len(text)} bytes of mount options and a page has {PAGE}: flatten the image"
        )
    return text


def mount(
    store: str, lower: list[str], container: str, volatile: bool, maps: idmap.Maps | None = None
) -> Iterator[steps.Step]:
    """Mount the container's root file system at `<container>/rootfs`. Lower directories are relative to `store`.

    With `maps`, all files in it belong to those whom these say, and on disk to whom they belong there (Linux 5.19).
    """
    relative = os.path.relpath(container, store)
    if not lower:  # an image of no layers at all (FROM scratch): overlay wants one
        lower = [f"{relative}/lower"]
        yield steps.mkdir(f"{container}/lower", why="the image has no layer, and overlay needs one below: an empty one")
    for name, why in (
        ("upper", "the writable layer: all that this container changes"),
        ("work", "where overlay prepares a copy before it renames it into the upper directory"),
        ("rootfs", "where the layers appear as one tree"),
    ):
        yield steps.mkdir(f"{container}/{name}", why=why)
    data = options(lower, f"{relative}/upper", f"{relative}/work", host.in_user_namespace(), volatile)
    if maps:
        yield steps.call(
            mount_translated,
            store,
            data,
            container,
            maps,
            why="layers below, a writable directory on top, seen through a mount that translates ids: no copies",
        )
        return
    yield steps.call(
        mount_at,
        store,
        data,
        f"{relative}/rootfs",
        why="layers below, one writable directory on top: a file is copied up when first written",
    )


def mount_at(directory: str, data: str, target: str) -> None:
    """mount(2) an overlay whose paths are relative to `directory`. The working directory is as before afterwards."""
    before = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        os.chdir(directory)
        syscalls.mount("overlay", target, "overlay", 0, data)
    finally:
        os.fchdir(before)
        os.close(before)


def mount_translated(store: str, data: str, container: str, maps: idmap.Maps) -> None:
    """The same in two mounts: the whole store with its ids translated, from inside of which the overlay takes its
    layers and both its directories, as its own clones (overlayfs.rst, Permission model), so that it can go again.

    It stands on the directory `work` for that moment. Raises Unsupported where the kernel cannot.
    """
    from . import idmap

    space, place = idmap.namespace(maps), f"{container}/work"
    try:
        tree = idmap.tree(store, False, space)
    finally:
        os.close(space)
    try:
        # Where / is shared, so is its clone: the overlay would be mounted in there, too, and go with it.
        syscalls.propagate(tree, syscalls.MS_PRIVATE)
        syscalls.move_mount(tree, place)
    finally:
        os.close(tree)
    try:
        mount_at(place, data, f"{container}/rootfs")
    except errors.KernelError as error:
        if error.errno == errno.EINVAL:
            raise errors.Unsupported(TOO_OLD) from error
        raise
    finally:
        syscalls.umount(place, syscalls.MNT_DETACH)


TOO_OLD = "this kernel's overlayfs takes no layers whose ids are translated (--userns auto): Linux 5.19 does"


def translated_obstacle(store: str, maps: idmap.Maps) -> str:
    """Why layers below `store` cannot be mounted with their ids translated; empty if they can.

    Tried where nobody sees it: a lower layer alone, so nothing is written there.
    """
    from . import idmap

    def attempt() -> None:
        tree = idmap.tree(store, False, idmap.namespace(maps))
        syscalls.mount("tmpfs", "/tmp", "tmpfs")
        for name in ("layers", "more", "rootfs"):
            os.mkdir(f"/tmp/{name}")
        syscalls.move_mount(tree, "/tmp/layers")
        try:
            syscalls.mount("overlay", "/tmp/rootfs", "overlay", syscalls.MS_RDONLY, "lowerdir=/tmp/layers:/tmp/more")
        except errors.KernelError as error:
            raise errors.Unsupported(TOO_OLD) if error.errno == errno.EINVAL else error from None

    return host.probe(attempt, syscalls.CLONE_NEWNS)


def umount(container: str, translated: bool = False) -> Iterator[steps.Step]:
    """The reverse, idempotent."""
    if translated:
        yield steps.umount_all(
            f"{container}/work", syscalls.MNT_DETACH, why="where its layers were translated, if a start was cut short"
        )
    yield steps.umount_all(
        f"{container}/rootfs", syscalls.MNT_DETACH, why="the tree disappears, the writable layer stays on disk"
    )
