"""Lab 03: a chroot and the way out of it; a root without a way out, which can be read and hardly written.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import os

from minicontainer import syscalls


def jail(directory):
    """Make `directory` the root of this process by chroot(2), and stand at its top. No descriptor of it stays open."""
    ### BEGIN SOLUTION
    os.chroot(directory)
    os.chdir("/")
    ### END SOLUTION


def escape():
    """From within a jail: make the top of the tree of mounts the root of this process again, and stand there.

    What was outside of the jail is not known, and nothing of it is open. Where there is no way out, this process has the
    root that it had, or an OSError is raised.
    """
    ### BEGIN SOLUTION
    os.makedirs("/tmp/below", exist_ok=True)
    os.chroot("/tmp/below")
    os.chdir("../" * 64)
    os.chroot(".")
    ### END SOLUTION


### BEGIN SOLUTION
AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = -100, 0x8000, 1  # linux/fcntl.h, linux/mount.h


def set_readonly(path):
    """mount_setattr(2): this mount and every one below it, in one call."""
    attributes = MOUNT_ATTR_RDONLY.to_bytes(8, "little") + bytes(
        24
    )  # struct mount_attr: set, clear, propagation, userns
    syscalls.syscall("mount_setattr", AT_FDCWD, path.encode(), AT_RECURSIVE, attributes, len(attributes))


### END SOLUTION
def pivot(directory, writable):
    """Make `directory` the root of this process by pivot_root(2), stand at its top, and let go of the old root.

    What is mounted below `directory` comes along. Nothing in the new root can be written, not even by root and not in
    those mounts, but for the places in `writable`: absolute paths as seen from the new root, at each of which an empty
    file system in memory (tmpfs) is to be. A place that is not there is made. No mount is made or lost in any other
    namespace.
    """
    ### BEGIN SOLUTION
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount(directory, directory, "", syscalls.MS_BIND | syscalls.MS_REC)
    os.chdir(directory)
    for place in writable:
        os.makedirs(f".{place}", exist_ok=True)
    syscalls.pivot_root(".", ".")
    syscalls.umount(".", syscalls.MNT_DETACH)
    os.chdir("/")
    set_readonly("/")
    for place in writable:
        syscalls.mount("tmpfs", place, "tmpfs")
    ### END SOLUTION
