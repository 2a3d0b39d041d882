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


### BEGIN SOLUTION
def is_mark(name):
    return os.path.basename(name).startswith(WHITEOUT)


def marked(name):
    """What a mark speaks of, and whether only of what is in it."""
    parent, base = os.path.split(name)
    if base == OPAQUE:
        return parent, True
    return os.path.join(parent, base.removeprefix(WHITEOUT)), False


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def leads_out(target, name):
    """Whether a symbolic link is on the way to a name, or something else that is no directory."""
    way = target
    for part in name.split("/")[:-1]:
        way = f"{way}/{part}"
        if not os.path.lexists(way) or not stat.S_ISDIR(os.lstat(way).st_mode):
            return True
    return False


def hide(target, name):
    path, inside = marked(name)
    if leads_out(target, f"{path}/x" if inside else path):
        return  # nothing of that name is in the tree
    for victim in os.listdir(f"{target}/{path}") if inside else [""]:
        remove(f"{target}/{path}/{victim}".rstrip("/"))


def place(tar, member, target):
    path = f"{target}/{member.name}"
    if leads_out(target, member.name):
        raise ValueError(f"{member.name} leads through something that is no directory")
    if not (member.isdir() and os.path.isdir(path) and not os.path.islink(path)):
        remove(path)
        if member.isdir():
            os.mkdir(path)
        elif member.issym():
            os.symlink(member.linkname, path)
        else:
            with open(path, "xb") as file:
                shutil.copyfileobj(tar.extractfile(member), file)
    if not member.issym():
        os.chmod(path, member.mode)


def hides(entries, path):
    """Whether a layer hides what the layers below have under a path."""
    while path:
        parent, base = os.path.split(path)
        if os.path.join(parent, WHITEOUT + base) in entries or f"{parent}/{OPAQUE}" in entries:
            return True
        if parent in entries and not entries[parent].isdir():
            return True
        path = parent
    return False


### END SOLUTION
def apply(layers, target):
    """Make in the empty directory `target` the tree that a stack of layers stands for, with their modes.

    `layers` are tar files, lowest first. A mark speaks of the layers below its own only. A name that is something else
    in an upper layer replaces what was there; a directory on a directory adds to it. Nothing is ever changed outside of
    `target`: a name that leads through a symbolic link raises ValueError.
    """
    ### BEGIN SOLUTION
    for layer in layers:
        with tarfile.open(layer) as tar:
            members = tar.getmembers()
            for member in members:
                if is_mark(member.name):
                    hide(target, member.name)
            for member in members:
                if not is_mark(member.name):
                    place(tar, member, target)
    ### END SOLUTION


def owner(layers, path):
    """Which layer a file of that tree comes from: its number in `layers`, from 0.

    `path` is a clean name. None if the tree has no regular file or symbolic link of that name. Nothing is unpacked.
    """
    ### BEGIN SOLUTION
    for number in reversed(range(len(layers))):
        with tarfile.open(layers[number]) as tar:
            entries = {member.name: member for member in tar}
        if path in entries:
            return None if entries[path].isdir() else number
        if hides(entries, path):
            return None
    return None
    ### END SOLUTION


def squash(layers, target):
    """Write one layer, the tar file `target`, that does to whatever lies below it what these layers do, in their order.

    It has no name twice, no whiteout of a name that it has itself, and no content that a later one of the layers has
    removed or replaced.
    """
    ### BEGIN SOLUTION
    entries, gone, opaque = {}, {}, {}

    def forget(path, itself):
        for kept in (entries, gone, opaque):
            for name in list(kept):
                if name.startswith(f"{path}/") or (itself and name == path):
                    del kept[name]

    with contextlib.ExitStack() as stack:
        archives = [stack.enter_context(tarfile.open(layer)) for layer in layers]
        for tar in archives:
            members = tar.getmembers()
            for member in members:
                if is_mark(member.name):
                    path, inside = marked(member.name)
                    forget(path, not inside)
                    (opaque if inside else gone)[path] = True
            for member in members:
                name = member.name
                if is_mark(name):
                    continue
                if not member.isdir():
                    forget(name, True)
                elif name in gone or (name in entries and not entries[name][1].isdir()):
                    forget(name, True)
                    opaque[name] = True  # a new directory, and not what may lie below under that name
                entries[name] = (tar, member)
        with tarfile.open(target, "w") as squashed:
            for _, (tar, member) in sorted(entries.items()):
                squashed.addfile(member, tar.extractfile(member) if member.isreg() else None)
            for path in gone:
                parent, base = os.path.split(path)
                squashed.addfile(tarfile.TarInfo(os.path.join(parent, WHITEOUT + base)))
            for path in opaque:
                squashed.addfile(tarfile.TarInfo(f"{path}/{OPAQUE}"))
    ### END SOLUTION
