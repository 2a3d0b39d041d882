"""`bench memory`: how fast memory is copied and made available, native and in containers.

Copying within memory that is there needs no kernel, so no container can be in its way. Memory asked for anew does: each
page's first touch is a fault, and the kernel charges the page to the container's memory cgroup.
"""

from __future__ import annotations

from . import Group, Report, Workshop, inside

RUNS = 10

PROGRAM = """\
import mmap
size, times = 64 << 20, 8
source, target = bytearray(os.urandom(1 << 20) * (size >> 20)), bytearray(size)
view = memoryview(target)
view[:] = source
began = now()
for _ in range(times):
    view[:] = source
copied = now() - began
began = now()
for _ in range(4):
    fresh = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for place in range(0, size, 4096):
        fresh[place] = 1
    fresh.close()
faulted = now() - began
tell(copy=size * times / copied, fault=faulted / (4 * size / 4096))
"""


def measure(workshop: Workshop, runs: int) -> Report:
    """See the module."""
    report = Report("memory", "Memory, native and in a container")
    program = inside.python(PROGRAM)
    commands = {"native": program}
    for engine in inside.prepare(workshop, report):
        commands[engine.name] = engine.command("none", program, inside.binds())
        if engine.name == "minicontainer":
            limited = [*inside.binds(), "--memory", "512m"]
            commands["minicontainer --memory 512m"] = engine.command("none", program, limited)
    found = inside.rounds(workshop, report, commands, runs or RUNS)
    report.groups.append(Group("copying 64 MiB", "minicontainer", found["copy"], "GB/s", 1e-9, "more"))
    report.groups.append(Group("first touch of a page", "minicontainer", found["fault"], "ns per page", 1e9))
    return report
