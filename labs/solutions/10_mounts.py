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


### BEGIN SOLUTION
def beneath(root, path):
    """Where `path` is for somebody whose `/` is `root`: symbolic links and `..` end at the root."""
    here, parts = [], path.split("/")
    while parts:
        part = parts.pop(0)
        place = "/".join([root, *here, part])
        if part == "..":
            here = here[:-1]
        elif os.path.islink(place):
            link = os.readlink(place)
            here = [] if link.startswith("/") else here
            parts = link.split("/") + parts
        elif part not in ("", "."):
            here.append(part)
    return "/".join([root, *here])


def bind(source, place, options):
    """One bind mount; its options hold for everything that came along with it."""
    if os.path.isdir(source):
        os.makedirs(place, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        open(place, "a").close()
    syscalls.mount(source, place, "", syscalls.MS_BIND | syscalls.MS_REC)
    syscalls.mount("", place, "", syscalls.MS_PRIVATE | syscalls.MS_REC)
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split() for line in file]
    for point, has in [(fields[4], fields[5]) for fields in mounts]:
        if f"{point}/".startswith(f"{place}/"):
            flags = syscalls.MS_BIND | syscalls.MS_REMOUNT
            for word in [*has.split(","), *options]:
                flags |= FLAGS.get(word, 0)
            syscalls.mount("", point, "", flags)


### END SOLUTION
def arrange(root, wanted):
    """Bind directories and files into the tree at `root`, which will be a container's `/`.

    `wanted` is a list, in any order, of {"source": a path of ours, "target": a path as the container sees it,
    "options": words of FLAGS}. A target that is missing is made. All that is mounted below the source comes along,
    and the options hold for all of it. What the source's own mounts forbid stays forbidden. What is mounted later at the
    source does not appear in the container. ValueError, with nothing mounted, if two targets are the same place.

    The tree is a stranger's: a symbolic link in it means what it means to somebody whose `/` is `root`.
    """
    ### BEGIN SOLUTION
    places = [beneath(root, one["target"]) for one in wanted]
    if len(set(places)) < len(places):
        raise ValueError("two mounts at one place")
    for place, one in sorted(zip(places, wanted, strict=True), key=lambda pair: pair[0].count("/")):
        bind(one["source"], place, one["options"])
    ### END SOLUTION


def fill(volume, directory):
    """Give an empty volume what the image has in `directory`; returns whether it did.

    Contents, modes, times, symbolic links as links, and two names of one file as two names of one file. A volume that
    holds anything is left as it is.
    """
    ### BEGIN SOLUTION
    if os.listdir(volume):
        return False
    known = {}

    def copy(source, target):
        number = os.stat(source, follow_symlinks=False).st_ino
        if number in known:
            os.link(known[number], target, follow_symlinks=False)
        else:
            shutil.copy2(source, target, follow_symlinks=False)
            known[number] = target

    shutil.copytree(directory, volume, symlinks=True, copy_function=copy, dirs_exist_ok=True)
    return True
    ### END SOLUTION
