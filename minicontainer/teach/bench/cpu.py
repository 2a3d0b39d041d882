"""`bench cpu`: a fixed piece of integer arithmetic, native and in containers; alone, and on every processor at once.

The kernel runs a container's instructions as it runs any other's, so the first group should show no difference: what
it shows is how far the method may be trusted. The second shows what `--cpus 1` does: of several processors, one's time.
"""

from __future__ import annotations

import os

from . import Group, Report, Workshop, inside

RUNS = 10

PROGRAM = """\
def work():
    value = 1
    for _ in range(3_000_000):
        value = value * 1103515245 + 12345 & 0x7fffffff
    return value
def crowd(count):
    began = now()
    for _ in range(count):
        if os.fork() == 0:
            work()
            os._exit(0)
    for _ in range(count):
        os.wait()
    return now() - began
tell(alone=crowd(1), together=crowd(int(sys.argv[1])))
"""


def measure(workshop: Workshop, runs: int) -> Report:
    """See the module."""
    report = Report("cpu", "Three million steps of integer arithmetic")
    processors = len(os.sched_getaffinity(0))
    program = inside.python(PROGRAM, str(processors))
    commands = {"native": program}
    for engine in inside.prepare(workshop, report):
        commands[engine.name] = engine.command("none", program, inside.binds())
        if engine.name != "podman":
            commands[f"{engine.name} --cpus 1"] = engine.command("none", program, [*inside.binds(), "--cpus", "1"])
    found = inside.rounds(workshop, report, commands, runs or RUNS)
    report.groups.append(Group("one process", "minicontainer", found["alone"]))
    if processors > 1:
        report.groups.append(Group(f"{processors} processes at once", "minicontainer", found["together"]))
    return report
