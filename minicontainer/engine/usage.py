"""What a container uses of the machine, as `docker stats` counts it: two samples of its cgroup, and their difference.

    before = sample(record); time.sleep(1); usage(before, sample(record))

The formulas are those of docker's client (cli/command/container/stats_helpers.go): a processor that was busy all the
time is 100 %, and two are 200 %; memory is without the part of the page cache that could go at once. A container that
does not run uses nothing. Network traffic is that of all its devices but the loopback, of a network of its own.
"""

from __future__ import annotations

import errno
import os

from .. import files
from ..kernel import cgroups
from ..records import namedtuple
from . import containers

Sample = namedtuple("Sample", "machine counters received sent")
Usage = namedtuple("Usage", "cpu memory memory_limit received sent read written pids")


def sample(record: containers.Record) -> Sample | None:
    """What has been used up to now; None where nothing runs. CPU times in nanoseconds, all else in bytes."""
    if record["status"] not in ("running", "paused"):
        return None
    counters = cgroups.stats(record["cgroup"])
    own = record["network"] != "host" and not record["network"].startswith("container:")
    try:
        received, sent = traffic(files.read(f"/proc/{record['pid']}/net/dev").decode()) if own else (0, 0)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESRCH, errno.EINVAL):
            raise
        return None  # it has ended just now
    return Sample(machine_time(files.read("/proc/stat").decode()), counters, received, sent)


def usage(before: Sample | None, after: Sample | None) -> Usage:
    """What was used between two samples (cpu, in percent of one processor), and up to the second one."""
    if after is None:
        return Usage(0.0, 0, 0, 0, 0, 0, 0, 0)
    counters = after.counters
    cpu = 0.0
    if before is not None and after.machine > before.machine:
        spent = counters.get("cpu_usage", 0) - before.counters.get("cpu_usage", 0)
        cpu = max(0.0, spent / (after.machine - before.machine) * (os.cpu_count() or 1) * 100)
    memory, cache = counters.get("memory", 0), counters.get("inactive_file", 0)
    return Usage(
        cpu,
        memory - cache if cache < memory else memory,
        min(counters.get("memory_limit", machine_memory()), machine_memory()),
        after.received,
        after.sent,
        counters.get("read", 0),
        counters.get("written", 0),
        counters.get("pids", 0),
    )


def machine_time(stat: str) -> int:
    """Nanoseconds that all processors together have had, busy or not: /proc/stat's first line (proc_stat(5))."""
    ticks = sum(int(word) for word in stat.partition("\n")[0].split()[1:9])
    return ticks * 10**9 // os.sysconf("SC_CLK_TCK")


def machine_memory() -> int:
    """This machine's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def traffic(text: str) -> tuple[int, int]:
    """Bytes received and sent by all devices but the loopback: /proc/PID/net/dev (proc_pid_net(5))."""
    received = sent = 0
    for line in text.splitlines()[2:]:
        device, _, numbers = line.partition(":")
        if device.strip() != "lo":
            words = numbers.split()
            received, sent = received + int(words[0]), sent + int(words[8])
    return received, sent
