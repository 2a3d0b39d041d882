"""The package's own functions behind this lab's door: what they score shows how far copying gets."""

import os

from minicontainer import steps
from minicontainer.kernel.cgroups import empty, v1, v2


def limit(version, groups, name, cpus, memory, processes):
    cpu = {"quota": round(cpus * 100_000), "period": 100_000}
    wanted = {"cpu": cpu, "memory": {"limit": memory}, "pids": {"limit": processes}}
    for directory in set(groups.values()):
        os.mkdir(f"{directory}/{name}")
    for file, value in (v1 if version == 1 else v2).writes(wanted):
        steps.execute([steps.put(f"{groups[file.partition('.')[0]]}/{name}/{file}", value, why="")], {})


def end(version, groups, name):
    empty(tuple(f"{directory}/{name}" for directory in set(groups.values())))
    for directory in set(groups.values()):
        os.rmdir(f"{directory}/{name}")
