"""Lab 03: a chroot and the way out of it; a root without a way out, which can be read and hardly written.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import os

from minicontainer import syscalls


def jail(directory):
    """Make `directory` the root of this process by chroot(2), and stand at its top. No descriptor of it stays open."""
    raise NotImplementedError


def escape():
    """From within a jail: make the top of the tree of mounts the root of this process again, and stand there.

    What was outside of the jail is not known, and nothing of it is open. Where there is no way out, this process has the
    root that it had, or an OSError is raised.
    """
    raise NotImplementedError


def pivot(directory, writable):
    """Make `directory` the root of this process by pivot_root(2), stand at its top, and let go of the old root.

    What is mounted below `directory` comes along. Nothing in the new root can be written, not even by root and not in
    those mounts, but for the places in `writable`: absolute paths as seen from the new root, at each of which an empty
    file system in memory (tmpfs) is to be. A place that is not there is made. No mount is made or lost in any other
    namespace.
    """
    raise NotImplementedError
