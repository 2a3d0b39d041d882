"""The root filesystem: from a directory to `/`, with no way back.

chroot(2) only moves a pointer, and root can walk out of it; pivot_root(2) exchanges the mount itself, and the old
root is then unmounted: there is nothing left to walk to. These plans run in the child, in its own mount namespace.

    private     nothing that is mounted from here on reaches the host
    mounts      /proc, /dev, /sys, volumes, below the new root
    devices     the few device nodes a program expects
    pivot       the new root becomes /, the old one is gone
    hide        what /proc and /sys would tell about, or let do to, the host

A bundle may ask to live among its caller's mounts. Then there is no root to exchange, and chroot(2) is what is left:

    lend        the root becomes a mount of its own, on which all others will lie
    enter       the new root becomes /, for who does not walk out of it
    take_back   with that mount, all go
"""

from __future__ import annotations

import os
import stat

from .. import errors, files, host, steps, syscalls
from . import mounts

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Iterator
    from typing import Any

# Made in every container (config-linux.md, Default Devices): name, major, minor (the kernel's devices.txt).
DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))

# (config-linux.md, Default Devices; runtime-linux.md, Dev symbolic links)
LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)


def private(root: str, propagation: str = "private") -> Iterator[steps.Step]:
    """Cut the new mount namespace off from the host's, and make the root a mount point, as pivot_root(2) demands.

    `propagation` is the spec's linux.rootfsPropagation: a slave goes on hearing of what the host mounts.
    """
    kind = syscalls.MS_SLAVE if propagation in ("slave", "rslave") else syscalls.MS_PRIVATE
    yield steps.mount("", "/", "", syscalls.MS_REC | kind, why="mounts made from here on stay in this namespace")
    yield steps.mount(
        root, root, "", syscalls.MS_BIND | syscalls.MS_REC, why="pivot_root wants a mount point, so the root is one"
    )


def lend(root: str, propagation: str = "private") -> Iterator[steps.Step]:
    """The same where the mount namespace is not the container's: nothing of it is changed but what lies at `root`."""
    kind = syscalls.MS_SLAVE if propagation in ("slave", "rslave") else syscalls.MS_PRIVATE
    yield steps.mount(
        root, root, "", syscalls.MS_BIND | syscalls.MS_REC, why="one mount below all others: they will go with it"
    )
    yield steps.mount("", root, "", syscalls.MS_REC | kind, why="what is mounted in here reaches no other namespace")


def beneath(root: str) -> int:
    """The id of the mount that a directory lies in (name_to_handle_at(2), proc_pid_fdinfo(5)). Raises KernelError."""
    try:
        directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise errors.KernelError(error.errno or 0, "open", (root,), "root.path is a directory of the bundle") from None
    try:
        lines = files.read(f"/proc/self/fdinfo/{directory}").decode().splitlines()
    finally:
        os.close(directory)
    return int(dict(line.split(":", 1) for line in lines)["mnt_id"])


def take_back(root: str, parent: int) -> Iterator[steps.Step]:
    """Undo `lend`, of a `root` that lay in the mount `parent` before; as often as one likes."""
    yield steps.call(let_go, root, parent, why="what was mounted for it among our own mounts goes")


def let_go(root: str, parent: int) -> None:
    """umount2(2) what is mounted at `root` on the mount `parent`, with all that lies on it.

    Made private first: what a shared bind mount shows would be unmounted at its source, too.
    """
    while syscalls.is_mounted(root, parent):
        syscalls.mount("", root, "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.umount(root, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)


def devices(root: str, extra: list[dict[str, Any]], bound: bool = False) -> Iterator[steps.Step]:
    """The device nodes in `/dev`, and the links every program expects. `extra` is the spec's `linux.devices`.

    `bound`: the container has a user namespace of its own.
    """
    bound = bound or host.in_user_namespace()
    why = "a device node: a name for a driver" + (", bound: a user namespace may not make one" if bound else "")
    for name, major, minor in DEVICES:
        device = {"path": f"/dev/{name}", "type": "c", "major": major, "minor": minor, "fileMode": 0o666}
        yield steps.call(bind_device if bound else make_device, root, device, why=why)
    for device in extra:
        yield steps.call(bind_device if bound else make_device, root, device, why=why)
    for name, target in LINKS:
        yield steps.call(link, root, target, f"/dev/{name}", why=f"/dev/{name} is a name for {target}")


def make_device(root: str, device: dict[str, Any]) -> None:
    """mknod(2) one device of the spec ({path, type, major, minor, fileMode, uid, gid}) below `root`."""
    kind = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}[device["type"]]
    directory, name = os.path.split(device["path"])
    with mounts.Target(root, directory, directory=True) as parent:
        path = f"{parent}/{name}"
        before = os.umask(0)  # no chmod(2) afterwards: that would follow a link put in the node's place meanwhile
        try:
            mode = kind | device.get("fileMode", 0o666)
            os.mknod(path, mode, os.makedev(device.get("major", 0), device.get("minor", 0)))
        except FileExistsError:
            return  # the spec names a default device once more
        except OSError as error:
            raise errors.KernelError(error.errno or 0, "mknod", (device["path"],)) from None
        finally:
            os.umask(before)
        os.chown(path, device.get("uid", 0), device.get("gid", 0), follow_symlinks=False)


def bind_device(root: str, device: dict[str, Any]) -> None:
    """Bind the host's node of the same name below `root`."""
    mounts.bind(root, device["path"], device["path"], syscalls.MS_BIND, 0)


def link(root: str, target: str, path: str) -> None:
    """A symbolic link below `root`; one that is there stays."""
    directory, name = os.path.split(path)
    with mounts.Target(root, directory, directory=True) as parent:
        try:
            os.symlink(target, f"{parent}/{name}")
        except FileExistsError:
            pass  # pts/ptmx or a bind mount of the user's own /dev: theirs is meant


def pivot(root: str) -> Iterator[steps.Step]:
    """Make `root` the process's `/` and let go of the host's."""
    yield steps.chdir(root, why="stand in the new root: `.` is how pivot_root will know it")
    yield steps.pivot_root(".", ".", why="exchange the root mount itself; chroot can be walked out of, this cannot")
    yield steps.umount(".", syscalls.MNT_DETACH, why="the host's root now lies over ours: take it off")
    yield steps.chdir("/", why="no working directory outside the root is left over")


def enter(root: str) -> Iterator[steps.Step]:
    """Make `root` the process's `/` where the host's cannot be exchanged: root inside can walk out of it."""
    yield steps.chdir(root, why="stand in the new root, or one could walk up from outside of it")
    yield steps.call(os.chroot, ".", why="a pointer is moved; the host's root stays where it is, for all others")
    yield steps.chdir("/", why="no working directory outside the root is left over")


def hide(masked: list[str], readonly: list[str]) -> Iterator[steps.Step]:
    """The spec's `maskedPaths` and `readonlyPaths`. To be planned after `pivot`: paths are the container's own."""
    for path in readonly:
        yield steps.call(mounts.make_readonly, path, why="read it, but do not set the machine's knobs")
    for path in masked:
        yield steps.call(mounts.mask, path, why="not the container's business, or a way to harm the host")


def propagate(propagation: str) -> Iterator[steps.Step]:
    """The spec's linux.rootfsPropagation as far as `private` has not done it. To be planned after the last bind mount.

    What is shared is so in a peer group of its own, never the host's (config-linux.md, Rootfs Mount Propagation).
    """
    if propagation.removeprefix("r") in ("shared", "unbindable"):
        yield steps.mount(
            "", "/", "", mounts.PROPAGATION[propagation], why=f"the container asked for a {propagation} root"
        )


def readonly() -> Iterator[steps.Step]:
    """Make the root itself read-only (`--read-only`). To be planned after `pivot`."""
    yield steps.call(
        mounts.remount, "/", syscalls.MS_RDONLY, why="the container asked to be unable to change its files"
    )
