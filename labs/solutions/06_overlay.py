"""Lab 06: layers seen as one tree, and what was changed on top of them.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import os
import stat

from minicontainer import syscalls

### BEGIN SOLUTION
RESERVED = ":,\\"  # overlay's options give these characters a meaning of their own


def short(layers, top):
    """Links with plain names to layers whose own names cannot stand in the options."""
    names = []
    for number, layer in enumerate(layers):
        link = f"{top}/link{number}"
        if any(character in layer for character in RESERVED):
            os.symlink(layer, link)
            layer = link
        names.append(layer)
    return names


### END SOLUTION
def stack(layers, top):
    """Mount the tree that `layers` make at `top`/merged; what is written there lands in `top`/upper.

    `layers` are directories, lowest first, one at least; their names may contain any character. `top` is an empty
    directory of your own; make in it what you need. Returns nothing.
    """
    ### BEGIN SOLUTION
    for name in ("upper", "work", "merged"):
        os.mkdir(f"{top}/{name}")
    lower = ":".join(reversed(short(layers, top)))
    data = f"lowerdir={lower},upperdir={top}/upper,workdir={top}/work,userxattr"
    syscalls.mount("overlay", f"{top}/merged", "overlay", 0, data)
    ### END SOLUTION


def freeze(layers, target):
    """Mount the tree that `layers` make at the directory `target`, so that nobody can write to it. No upper directory.

    One layer alone is a tree, too.
    """
    ### BEGIN SOLUTION
    if len(layers) == 1:
        syscalls.mount(layers[0], target, "", syscalls.MS_BIND)
        syscalls.mount("", target, "", syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY)
        return
    lower = ":".join(reversed(layers))
    syscalls.mount("overlay", target, "overlay", syscalls.MS_RDONLY, f"lowerdir={lower},userxattr")
    ### END SOLUTION


def changes(layers, top):
    """What was done in `top`/merged since `stack(layers, top)`, as docker diff tells it.

    A list of [kind, path], sorted by path: kind is "A" for what was added, "C" for what was changed, "D" for what was
    deleted; path begins with "/" and is seen from merged. Directories in which something was done are changed, too. Of
    a directory that was deleted, what was in it is not listed.
    """
    ### BEGIN SOLUTION
    found = []
    for directory, names, files in os.walk(f"{top}/upper"):
        for name in names + files:
            path = f"{directory}/{name}".removeprefix(f"{top}/upper")
            info = os.lstat(f"{directory}/{name}")
            there = any(os.path.lexists(f"{layer}{path}") for layer in layers)
            if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
                found.append(["D", path])
            else:
                found.append(["C" if there else "A", path])
    return sorted(found, key=lambda change: change[1])
    ### END SOLUTION
