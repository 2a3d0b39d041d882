"""Lab 09: how much a group of processes may use, on both versions of cgroups.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.

In every function, `version` is 1 or 2, and `groups` is {"cpu": a directory, "memory": …, "pids": …}: a cgroup that is
yours, in the hierarchy of each controller. On version 2 there is one hierarchy, so the three are the same.
"""

import os
import signal
import time

PERIOD = 100_000  # microseconds: over each such time, processor time is counted


def limit(version, groups, name, cpus, memory, processes):
    """Make the cgroup `name` below ours: at most `cpus` processors (0.5 is half of one), `memory` bytes, `processes`."""
    raise NotImplementedError


def enter(version, groups, name):
    """This process, and all that it forks from now on, is in the cgroup `name`."""
    raise NotImplementedError


def share(version, groups, weights):
    """A cgroup below ours for each name in `weights` ({"web": 3, "batch": 1}): where all want the processor, time is
    divided in this proportion. Weights are whole numbers from 1 to 100."""
    raise NotImplementedError


def used(version, groups, name):
    """What the cgroup `name` uses: {"processes": how many there are, "memory": bytes now, "throttled": in which part
    of its periods (0.0 to 1.0) it had to wait because its time was used up}. No period yet is 0.0."""
    raise NotImplementedError


def end(version, groups, name):
    """The cgroup `name`, the cgroups below it, and every process in them are gone afterwards. Others are unharmed."""
    raise NotImplementedError
