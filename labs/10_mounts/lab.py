"""Lab 10: directories of elsewhere in a container's root, and what a volume begins with.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import os
import shutil

from minicontainer import syscalls

FLAGS = {
    "ro": syscalls.MS_RDONLY,
    "nosuid": syscalls.MS_NOSUID,
    "nodev": syscalls.MS_NODEV,
    "noexec": syscalls.MS_NOEXEC,
}


def arrange(root, wanted):
    """Bind directories and files into the tree at `root`, which will be a container's `/`.

    `wanted` is a list, in any order, of {"source": a path of ours, "target": a path as the container sees it,
    "options": words of FLAGS}. A target that is missing is made. All that is mounted below the source comes along,
    and the options hold for all of it. What the source's own mounts forbid stays forbidden. What is mounted later at the
    source does not appear in the container. ValueError, with nothing mounted, if two targets are the same place.

    The tree is a stranger's: a symbolic link in it means what it means to somebody whose `/` is `root`.
    """
    raise NotImplementedError


def fill(volume, directory):
    """Give an empty volume what the image has in `directory`; returns whether it did.

    Contents, modes, times, symbolic links as links, and two names of one file as two names of one file. A volume that
    holds anything is left as it is.
    """
    raise NotImplementedError
