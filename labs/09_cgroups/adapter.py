"""Lab 09 behind the real tool: --cpus, --memory and --pids-limit are the learner's `limit`."""

import os

from minicontainer import steps
from minicontainer.kernel import cgroups

# What the learner writes instead of the package, in both versions' words.
LEARNERS = ("cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.max", "memory.limit_in_bytes", "memory.max", "pids.max")


def install(lab):
    """From now on, a container that is limited in all three is limited by the learner; all else is the package's."""
    package = cgroups.create

    def create(path, resources):
        plan = list(package(path, resources))
        cpu, memory, pids = (resources.get(kind) or {} for kind in ("cpu", "memory", "pids"))
        if not (cpu.get("quota") and memory.get("limit") and pids.get("limit")):
            yield from plan
            return
        version, mounts = cgroups.version(), cgroups.detect().mounts
        above, name = os.path.split(path)
        groups = {kind: mounts[kind if version == 1 else ""] + above for kind in ("cpu", "memory", "pids")}
        made = list(dict.fromkeys(f"{directory}/{name}" for directory in groups.values()))
        first = next(place for place, step in enumerate(plan) if written(step)[0] in made)
        yield from plan[:first]
        for directory in made:
            yield steps.rmdir(directory, why="the learner makes it")
        cpus = cpu["quota"] / cpu["period"]
        arguments = (version, groups, name, cpus, memory["limit"], pids["limit"])
        yield steps.call(lab.limit, *arguments, why="the learner's limit()")
        yield from [step for step in plan[first:] if written(step)[1] not in LEARNERS]

    cgroups.create = create


def written(step):
    """(directory, file) of a step that writes a limit; of another one, two empty names."""
    return os.path.split(step.arguments[0]) if step.verb == "put" else ("", "")
