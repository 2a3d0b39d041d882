"""Lab 21: a mount that will not go away, because somebody else still has it.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import os

from minicontainer import syscalls


def holders(device):
    """Who has the file system `device` mounted ("0:57", as mountinfo writes it): a list of [pid, mount point], sorted.

    Every mount of it in every mount namespace of this machine is listed once, under the lowest pid that lives in that
    namespace; our own namespace is one of them. A mount point is given by its true name, as that process sees it.
    """
    raise NotImplementedError


def release(device):
    """Let go of the file system `device` everywhere: afterwards no mount namespace has it. Returns nothing.

    Nobody is ended for it, not even who has a file of it open. All other mounts stay, and so does our own namespace.
    """
    raise NotImplementedError


def listeners(point):
    """Where else a mount appears that is made below our mount `point`: a list of [pid, kind], sorted.

    Each mount namespace is named by its lowest pid, our own is left out; kind is "shared" where mounts go both ways,
    "slave" where they only arrive.
    """
    raise NotImplementedError


def seal(pid, point):
    """From now on no mount made below `point` by others appears in the mount namespace of `pid`, nor the other way round.

    What is mounted there stays mounted, and everybody else goes on as before. Returns nothing.
    """
    raise NotImplementedError
