"""Lab 06: layers seen as one tree, and what was changed on top of them.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import os
import stat

from minicontainer import syscalls


def stack(layers, top):
    """Mount the tree that `layers` make at `top`/merged; what is written there lands in `top`/upper.

    `layers` are directories, lowest first, one at least; their names may contain any character. `top` is an empty
    directory of your own; make in it what you need. Returns nothing.
    """
    raise NotImplementedError


def freeze(layers, target):
    """Mount the tree that `layers` make at the directory `target`, so that nobody can write to it. No upper directory.

    One layer alone is a tree, too.
    """
    raise NotImplementedError


def changes(layers, top):
    """What was done in `top`/merged since `stack(layers, top)`, as docker diff tells it.

    A list of [kind, path], sorted by path: kind is "A" for what was added, "C" for what was changed, "D" for what was
    deleted; path begins with "/" and is seen from merged. Directories in which something was done are changed, too. Of
    a directory that was deleted, what was in it is not listed.
    """
    raise NotImplementedError
