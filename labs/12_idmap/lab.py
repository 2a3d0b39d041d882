"""Lab 12: user namespaces: which number is whom, and on which side.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import os

from minicontainer import syscalls


def enter(uid, gid):
    """Put this process into a new user namespace, in which it is user `uid` and group `gid`, and nobody else is mapped.

    It may be called again, from in there: that makes a namespace in the namespace. It is called where setgroups(2) has
    been denied already, as in the room. Returns nothing.
    """
    raise NotImplementedError


def give(pid, uids, gids):
    """Write the maps of another process, which has just made its user namespace and waits: newuidmap's job.

    `uids` and `gids` are lists of [first id inside, first id outside, how many], one at least.
    """
    raise NotImplementedError


def choose(uid, name, subuid, wanted):
    """The map for a container of a user: the ids 0 to `wanted` - 1 inside, as a list of [inside, outside, how many].

    0 is the user's own `uid`; the others come from the lines of /etc/subuid (its text is `subuid`) that are the user's,
    by name or by number, in their order. There are as few lines as can be: what continues the line before is part of it.
    ValueError if the user has not that many ids.
    """
    raise NotImplementedError


def outside(maps, number):
    """Which user of the machine a number is, that somebody in nested user namespaces sees.

    `maps` are the texts of uid_map, the innermost namespace's first; each one's second column is in the numbers of the
    namespace around it, the last one's in the machine's. None if the number means nobody.
    """
    raise NotImplementedError


def inside(maps, number):
    """The way back: which number a user of the machine has in the innermost namespace, as `ls -l` shows a file there.

    65534, the overflow id, if none.
    """
    raise NotImplementedError
