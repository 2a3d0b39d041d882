"""Lab 09: how much a group of processes may use, on both versions of cgroups.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.

In every function, `version` is 1 or 2, and `groups` is {"cpu": a directory, "memory": …, "pids": …}: a cgroup that is
yours, in the hierarchy of each controller. On version 2 there is one hierarchy, so the three are the same.
"""

import os
import signal
import time

PERIOD = 100_000  # microseconds: over each such time, processor time is counted


### BEGIN SOLUTION
# What is written where, seen from our cgroup in a controller's hierarchy.
HAND_DOWN = ("cpu", "cgroup.subtree_control", "+cpu +memory +pids")
LIMITS = {
    1: [
        ("cpu", "{name}/cpu.cfs_period_us", "{period}"),
        ("cpu", "{name}/cpu.cfs_quota_us", "{quota}"),
        ("memory", "{name}/memory.limit_in_bytes", "{memory}"),
        ("pids", "{name}/pids.max", "{processes}"),
    ],
    2: [
        HAND_DOWN,
        ("cpu", "{name}/cpu.max", "{quota} {period}"),
        ("memory", "{name}/memory.max", "{memory}"),
        ("pids", "{name}/pids.max", "{processes}"),
    ],
}
WEIGHT = {
    1: [("cpu", "{name}/cpu.shares", "{weight}")],
    2: [HAND_DOWN, ("cpu", "{name}/cpu.weight", "{weight}")],
}
USED = {1: "memory.usage_in_bytes", 2: "memory.current"}


def make(groups, writes, **values):
    """A cgroup below ours, and what is to be written."""
    for directory in set(groups.values()):
        os.mkdir(f"{directory}/{values['name']}")
    for kind, file, value in writes:
        with open(f"{groups[kind]}/{file}".format(**values), "w") as target:
            target.write(value.format(**values))


def table(path):
    """A file of lines "key number"."""
    with open(path) as file:
        return {key: int(value) for key, value in map(str.split, file)}


def number(path):
    """A file of one number."""
    with open(path) as file:
        return int(file.read())


### END SOLUTION
def limit(version, groups, name, cpus, memory, processes):
    """Make the cgroup `name` below ours: at most `cpus` processors (0.5 is half of one), `memory` bytes, `processes`."""
    ### BEGIN SOLUTION
    quota = round(cpus * PERIOD)
    make(groups, LIMITS[version], name=name, quota=quota, period=PERIOD, memory=memory, processes=processes)
    ### END SOLUTION


def enter(version, groups, name):
    """This process, and all that it forks from now on, is in the cgroup `name`."""
    ### BEGIN SOLUTION
    for directory in groups.values():
        with open(f"{directory}/{name}/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))
    ### END SOLUTION


def share(version, groups, weights):
    """A cgroup below ours for each name in `weights` ({"web": 3, "batch": 1}): where all want the processor, time is
    divided in this proportion. Weights are whole numbers from 1 to 100."""
    ### BEGIN SOLUTION
    for name, weight in weights.items():
        make(groups, WEIGHT[version], name=name, weight=weight * 100)
    ### END SOLUTION


def used(version, groups, name):
    """What the cgroup `name` uses: {"processes": how many there are, "memory": bytes now, "throttled": in which part
    of its periods (0.0 to 1.0) it had to wait because its time was used up}. No period yet is 0.0."""
    ### BEGIN SOLUTION
    told = table(f"{groups['cpu']}/{name}/cpu.stat")
    return {
        "processes": number(f"{groups['pids']}/{name}/pids.current"),
        "memory": number(f"{groups['memory']}/{name}/{USED[version]}"),
        "throttled": told["nr_throttled"] / told["nr_periods"] if told["nr_periods"] else 0.0,
    }
    ### END SOLUTION


def end(version, groups, name):
    """The cgroup `name`, the cgroups below it, and every process in them are gone afterwards. Others are unharmed."""
    ### BEGIN SOLUTION
    tops = set(groups.values())
    levels = [path for top in tops for path, _, _ in os.walk(f"{top}/{name}", topdown=False)]
    while True:
        found = set()
        for level in levels:
            with open(f"{level}/cgroup.procs") as file:
                found |= {int(line) for line in file}
        if not found:
            break
        for pid in found - {0}:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)
    for level in levels:
        os.rmdir(level)
    ### END SOLUTION
