"""Lab 17: a container, from the first system call to the last, of nothing but your own functions.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import os
import signal

from minicontainer import netlink, syscalls
from minicontainer.kernel.capabilities import NUMBERS  # "CAP_CHOWN": 0, …

# linux/prctl.h
PR_CAPBSET_READ, PR_CAPBSET_DROP = 23, 24


def start(layers, top, command, hostname, address, gateway, keep):
    """Start a container; returns the pid of its process 1, which is the command, as soon as that runs or has failed.

    Its `/` is the tree of `layers` (directories, lowest first); what it writes lands in `top`/upper, where `top` is an
    empty directory. It sees nothing else of ours: only a /proc of its own is mounted in it. Its namespaces are its own,
    all kinds but user and time. Its host name is `hostname`. Its `eth0` has `address` ("10.1.0.2/24"), a device here, of
    whatever name, is the other end and has `gateway` ("10.1.0.1/24"), which leads everywhere. Of capabilities it has
    those in `keep`, for good. Its environment is PATH=/bin, no signal is ignored, no file of ours is open but 0, 1, 2.

    We are the process that orphans come to. We stay where we are, and keep no mount, no descriptor and no other process.
    """
    raise NotImplementedError


def finish(pid):
    """Wait until a container that `start` has started ends; its exit code, as a shell shows it: 126, 127, 128+n and all.

    What it has written is in `top`/upper. Nothing else is left of it: no process, no mount, no device.
    """
    raise NotImplementedError
