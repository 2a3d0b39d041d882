"""Lab 21: a mount that will not go away, because somebody else still has it.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import os

from minicontainer import syscalls


### BEGIN SOLUTION
def spaces():
    """Each mount namespace once: the lowest pid in it, and the fields of its mounts' lines."""
    seen = set()
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            space = os.readlink(f"/proc/{pid}/ns/mnt")
            with open(f"/proc/{pid}/mountinfo") as file:
                lines = [line.split() for line in file]
        except OSError:
            continue
        if space not in seen:
            seen.add(space)
            yield pid, lines


def plain(point):
    """A mount point without mountinfo's escapes."""
    return point.encode().decode("unicode_escape")


def inside(pid, act, *arguments):
    """Call a function in the mount namespace of `pid`: in a child, for there is no way back."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            syscalls.enter_namespace(f"/proc/{pid}/ns/mnt", syscalls.CLONE_NEWNS)
            act(*arguments)
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError(f"{act.__name__}{arguments} failed in the mount namespace of {pid}")


### END SOLUTION
def holders(device):
    """Who has the file system `device` mounted ("0:57", as mountinfo writes it): a list of [pid, mount point], sorted.

    Every mount of it in every mount namespace of this machine is listed once, under the lowest pid that lives in that
    namespace; our own namespace is one of them. A mount point is given by its true name, as that process sees it.
    """
    ### BEGIN SOLUTION
    return sorted([pid, plain(fields[4])] for pid, lines in spaces() for fields in lines if fields[2] == device)
    ### END SOLUTION


def release(device):
    """Let go of the file system `device` everywhere: afterwards no mount namespace has it. Returns nothing.

    Nobody is ended for it, not even who has a file of it open. All other mounts stay, and so does our own namespace.
    """
    ### BEGIN SOLUTION
    for pid, point in reversed(holders(device)):
        inside(pid, syscalls.umount, point, syscalls.MNT_DETACH)
    ### END SOLUTION


def listeners(point):
    """Where else a mount appears that is made below our mount `point`: a list of [pid, kind], sorted.

    Each mount namespace is named by its lowest pid, our own is left out; kind is "shared" where mounts go both ways,
    "slave" where they only arrive.
    """
    ### BEGIN SOLUTION
    (_, mine), *others = spaces()
    group = next(word for fields in mine if plain(fields[4]) == point for word in fields if word.startswith("shared:"))
    found = []
    for pid, lines in others:
        words = {word for fields in lines for word in fields[6 : fields.index("-")]}
        if group in words:
            found.append([pid, "shared"])
        if group.replace("shared", "master") in words:
            found.append([pid, "slave"])
    return sorted(found)
    ### END SOLUTION


def seal(pid, point):
    """From now on no mount made below `point` by others appears in the mount namespace of `pid`, nor the other way round.

    What is mounted there stays mounted, and everybody else goes on as before. Returns nothing.
    """
    ### BEGIN SOLUTION
    inside(pid, syscalls.mount, "", point, "", syscalls.MS_PRIVATE)
    ### END SOLUTION
