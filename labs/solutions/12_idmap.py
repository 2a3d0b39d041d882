"""Lab 12: user namespaces: which number is whom, and on which side.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import os

from minicontainer import syscalls


### BEGIN SOLUTION
def put(path, text):
    """A map is taken in one write(2), or not at all: hence no buffer."""
    with open(path, "wb", buffering=0) as file:
        file.write(text.encode())


### END SOLUTION
def enter(uid, gid):
    """Put this process into a new user namespace, in which it is user `uid` and group `gid`, and nobody else is mapped.

    It may be called again, from in there: that makes a namespace in the namespace. It is called where setgroups(2) has
    been denied already, as in the room. Returns nothing.
    """
    ### BEGIN SOLUTION
    was_uid, was_gid = os.getuid(), os.getgid()
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    put("/proc/self/uid_map", f"{uid} {was_uid} 1")
    put("/proc/self/gid_map", f"{gid} {was_gid} 1")
    ### END SOLUTION


def give(pid, uids, gids):
    """Write the maps of another process, which has just made its user namespace and waits: newuidmap's job.

    `uids` and `gids` are lists of [first id inside, first id outside, how many], one at least.
    """
    ### BEGIN SOLUTION
    for name, lines in (("uid_map", uids), ("gid_map", gids)):
        put(f"/proc/{pid}/{name}", "".join(f"{inside} {outside} {count}\n" for inside, outside, count in lines))
    ### END SOLUTION


def choose(uid, name, subuid, wanted):
    """The map for a container of a user: the ids 0 to `wanted` - 1 inside, as a list of [inside, outside, how many].

    0 is the user's own `uid`; the others come from the lines of /etc/subuid (its text is `subuid`) that are the user's,
    by name or by number, in their order. There are as few lines as can be: what continues the line before is part of it.
    ValueError if the user has not that many ids.
    """
    ### BEGIN SOLUTION
    lines, inside = [[0, uid, 1]], 1
    for entry in subuid.splitlines():
        who, first, count = entry.split(":")
        taken = min(int(count), wanted - inside)
        if who not in (name, str(uid)) or taken <= 0:
            continue
        if lines[-1][1] + lines[-1][2] == int(first):
            lines[-1][2] += taken
        else:
            lines.append([inside, int(first), taken])
        inside += taken
    if inside < wanted:
        raise ValueError(f"{name} has {inside} ids, and {wanted} are wanted")
    return lines
    ### END SOLUTION


### BEGIN SOLUTION
OVERFLOW = 65534


def step(text, number, here, there):
    """One map: a number of the column `here` in the numbers of the column `there`; None for nobody."""
    for line in text.splitlines():
        columns = [int(word) for word in line.split()]
        if number is not None and columns[here] <= number < columns[here] + columns[2]:
            return number - columns[here] + columns[there]
    return None


### END SOLUTION
def outside(maps, number):
    """Which user of the machine a number is, that somebody in nested user namespaces sees.

    `maps` are the texts of uid_map, the innermost namespace's first; each one's second column is in the numbers of the
    namespace around it, the last one's in the machine's. None if the number means nobody.
    """
    ### BEGIN SOLUTION
    for text in maps:
        number = step(text, number, 0, 1)
    return number
    ### END SOLUTION


def inside(maps, number):
    """The way back: which number a user of the machine has in the innermost namespace, as `ls -l` shows a file there.

    65534, the overflow id, if none.
    """
    ### BEGIN SOLUTION
    for text in reversed(maps):
        number = step(text, number, 1, 0)
    return OVERFLOW if number is None else number
    ### END SOLUTION
