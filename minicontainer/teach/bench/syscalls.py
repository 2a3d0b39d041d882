"""`bench syscalls`: what the seccomp filter costs each system call, in nanoseconds.

getppid(2) does nothing but cross into the kernel and back. A filter is a BPF program that runs before each call; since
Linux 5.11 the kernel remembers which calls a filter allows whatever their arguments are, and asks it no more
(seccomp_cache_prepare in kernel/seccomp.c). What Python itself takes per turn of the loop is measured and subtracted.
"""

from __future__ import annotations

from . import Group, Report, Workshop, inside

RUNS = 12

PROGRAM = """\
from itertools import repeat
count = 200_000
def loop(call):
    began = now()
    for _ in repeat(None, count):
        call()
    return now() - began
zero = os.open("/dev/zero", os.O_RDONLY)
pread = os.pread
def read():
    began = now()
    for _ in repeat(None, count):
        pread(zero, 1, 0)
    return now() - began
python = min(loop("".isascii) for _ in range(3))
tell(getppid=(loop(os.getppid) - python) / count, pread=(read() - python) / count)
"""


def measure(workshop: Workshop, runs: int) -> Report:
    """See the module."""
    report = Report("syscalls", "A system call, with and without a seccomp filter")
    program = inside.python(PROGRAM)
    commands = {"native": program}
    for engine in inside.prepare(workshop, report):
        commands[engine.name] = engine.command("none", program, inside.binds())
        without = [*inside.binds(), "--security-opt", "seccomp=unconfined"]
        commands[f"{engine.name}, unconfined"] = engine.command("none", program, without)
    found = inside.rounds(workshop, report, commands, runs or RUNS)
    report.groups.append(Group("getppid()", "minicontainer", found["getppid"], "ns per call", 1e9))
    report.groups.append(Group("pread() of one byte", "minicontainer", found["pread"], "ns per call", 1e9))
    return report
