"""Lab 09 behind the real tool: --cpus, --memory and --pids-limit are the learner's `limit`."""

import os

from minicontainer import steps
from minicontainer.kernel import cgroups


def install(lab):
    """From now on, a container that is limited in all three is limited by the learner; all else is the package's."""
    package = cgroups.create

    def create(path, resources):
        cpu, memory, pids = (resources.get(kind) or {} for kind in ("cpu", "memory", "pids"))
        if not (cpu.get("quota") and memory.get("limit") and pids.get("limit")):
            yield from package(path, resources)
            return
        rest = {kind: value for kind, value in resources.items() if kind not in ("cpu", "memory", "pids")}
        yield from package(os.path.dirname(path), {"cpu": {"quota": -1}} if cgroups.version() == 2 else {})
        cpus = cpu["quota"] / cpu["period"]
        yield steps.call(place, lab.limit, path, cpus, memory["limit"], pids["limit"], why="the learner's limit()")
        yield from package(path, rest)

    cgroups.create = create


def place(limit, path, cpus, memory, processes):
    """The cgroup's parent in each hierarchy is there; the learner makes the rest."""
    version, mounts = cgroups.version(), cgroups.detect().mounts
    parent, name = os.path.split(path)
    groups = {kind: mounts[kind if version == 1 else ""] + parent for kind in ("cpu", "memory", "pids")}
    limit(version, groups, name, cpus, memory, processes)
