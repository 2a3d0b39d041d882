"""Lab 05: layers applied, asked about, and made into one.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import contextlib
import os
import shutil
import stat
import tarfile

WHITEOUT = ".wh."  # etc/.wh.motd: what the layers below have as etc/motd is gone
OPAQUE = ".wh..wh..opq"  # etc/.wh..wh..opq: whatever the layers below have in etc is gone

# The layers of this lab are tar files of directories, regular files and symbolic links. Their names are clean
# ("etc/motd"). Every directory on the way to a name has an entry, before what is in it. Marks (the two above) stand
# anywhere in the archive, and may speak of what is not there. The top of the tree itself is never opaque.


def apply(layers, target):
    """Make in the empty directory `target` the tree that a stack of layers stands for, with their modes.

    `layers` are tar files, lowest first. A mark speaks of the layers below its own only. A name that is something else
    in an upper layer replaces what was there; a directory on a directory adds to it. Nothing is ever changed outside of
    `target`: a name that leads through a symbolic link raises ValueError.
    """
    raise NotImplementedError


def owner(layers, path):
    """Which layer a file of that tree comes from: its number in `layers`, from 0.

    `path` is a clean name. None if the tree has no regular file or symbolic link of that name. Nothing is unpacked.
    """
    raise NotImplementedError


def squash(layers, target):
    """Write one layer, the tar file `target`, that does to whatever lies below it what these layers do, in their order.

    It has no name twice, no whiteout of a name that it has itself, and no content that a later one of the layers has
    removed or replaced.
    """
    raise NotImplementedError
