"""What a cgroup has counted, in the words of `runc events`, the form that containerd and other tools read.

Units as in runc's types/events.go: nanoseconds, bytes, counts. A figure that is 0 is left out where runc leaves it out.
"""

from __future__ import annotations

import os
import select
import time

from ... import files, syscalls
from . import detect, oom_kills

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from typing import Any

NO_LIMIT = (1 << 64) - 1  # how runc writes v2's `max`
OPERATIONS = {"r": "Read", "w": "Write", "d": "Discard"}  # the first letter of io.stat's keys
CPUSET = (
    "cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page", "memory_spread_slab",
    "memory_pressure", "sched_load_balance", "sched_relax_domain_level",
)  # fmt: skip


def figures(path: str) -> dict[str, Any]:
    """The `data` of an event of type stats, for the cgroup at `path`."""
    found = of_v2(detect().mounts[""] + path) if detect().version == 2 else of_v1(path)
    return {**found, "hugetlb": {}, "intel_rdt": {}, "network_interfaces": None}


def of_v1(path: str) -> dict[str, Any]:
    """The same from the files of cgroup v1. A container without a cpuset of its own has that of a cgroup above."""
    at = {controller: mount + path for controller, mount in detect().mounts.items()}
    cpu, blocks, accounts = at.get("cpu", ""), at.get("blkio", ""), at.get("cpuacct", "")
    ticks = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    spent = table(f"{accounts}/cpuacct.stat")
    each = [line.split() for line in text(f"{accounts}/cpuacct.usage_all").splitlines()[1:]]  # cpu user system
    counted = table(f"{cpu}/cpu.stat")
    raw = table(f"{at.get('memory', '')}/memory.stat")
    kinds = {"usage": "", "swap": "memsw.", "kernel": "kmem.", "kernelTCP": "kmem.tcp."}
    cpuset = at.get("cpuset", "")
    while not os.path.isdir(cpuset) and cpuset:
        cpuset = os.path.dirname(cpuset) if cpuset != "/" else ""
    sets = {name: number(f"{cpuset}/cpuset.{name}") for name in CPUSET}
    for name in ("cpus", "mems"):
        sets |= nonzero({name: members(text(f"{cpuset}/cpuset.{name}"))})
    weighed = operations(text(f"{blocks}/blkio.bfq.io_serviced_recursive"))
    scheduler = "bfq" if weighed else "throttle"
    return {
        "cpu": {
            "usage": {
                **nonzero(
                    {
                        "total": number(f"{accounts}/cpuacct.usage"),
                        "percpu": [int(word) for word in text(f"{accounts}/cpuacct.usage_percpu").split()],
                        "percpu_kernel": [int(words[2]) for words in each],
                        "percpu_user": [int(words[1]) for words in each],
                    }
                ),
                "kernel": spent.get("system", 0) * ticks,
                "user": spent.get("user", 0) * ticks,
            },
            "throttling": throttling(counted, counted.get("throttled_time", 0)),
        },
        "cpuset": sets,
        "memory": {
            **nonzero({"cache": raw.get("cache", 0)}),
            **{name: bounded_v1(f"{at.get('memory', '')}/memory.{kind}") for name, kind in kinds.items()},
            **nonzero({"raw": raw}),
        },
        "pids": pids(at.get("pids", "")),
        "blkio": nonzero(
            {
                "ioServiceBytesRecursive": operations(text(f"{blocks}/blkio.{scheduler}.io_service_bytes_recursive")),
                "ioServicedRecursive": operations(text(f"{blocks}/blkio.{scheduler}.io_serviced_recursive")),
            }
        ),
    }


def bounded_v1(prefix: str) -> dict[str, int]:
    """Limit, use, peak and refusals of one kind of memory; `prefix` is the beginning of its files' names."""
    used = {"usage": number(f"{prefix}usage_in_bytes"), "max": number(f"{prefix}max_usage_in_bytes")}
    return {"limit": number(f"{prefix}limit_in_bytes"), **nonzero(used), "failcnt": number(f"{prefix}failcnt")}


def of_v2(directory: str) -> dict[str, Any]:
    """The same from the files of cgroup v2. `swap` is memory and swap together, as v1 has it and runc says it."""
    counted, raw = table(f"{directory}/cpu.stat"), table(f"{directory}/memory.stat")
    limit, used = bound(f"{directory}/memory.max"), number(f"{directory}/memory.current")
    swap_limit, swapped = bound(f"{directory}/memory.swap.max"), number(f"{directory}/memory.swap.current")
    both = swap_limit if swap_limit == NO_LIMIT else min(NO_LIMIT, swap_limit + limit)
    moved, done = devices(text(f"{directory}/io.stat"))
    return {
        "cpu": {
            "usage": {
                **nonzero({"total": counted.get("usage_usec", 0) * 1000}),
                "kernel": counted.get("system_usec", 0) * 1000,
                "user": counted.get("user_usec", 0) * 1000,
            },
            "throttling": throttling(counted, counted.get("throttled_usec", 0) * 1000),
        },
        "cpuset": dict.fromkeys(CPUSET, 0),
        "memory": {
            **nonzero({"cache": raw.get("file", 0)}),
            "usage": {
                "limit": limit, **nonzero({"usage": used, "max": number(f"{directory}/memory.peak")}), "failcnt": 0,
            },
            "swap": {"limit": both, **nonzero({"usage": used + swapped}), "failcnt": 0},
            "kernel": {"limit": 0, "failcnt": 0},
            "kernelTCP": {"limit": 0, "failcnt": 0},
            **nonzero({"raw": raw}),
        },
        "pids": pids(directory),
        "blkio": nonzero({"ioServiceBytesRecursive": moved, "ioServicedRecursive": done}),
    }  # fmt: skip


def throttling(counted: dict[str, int], nanoseconds: int) -> dict[str, int]:
    """From cpu.stat, which both versions have; the time apart, for its unit differs."""
    periods, throttled = counted.get("nr_periods", 0), counted.get("nr_throttled", 0)
    return nonzero({"periods": periods, "throttledPeriods": throttled, "throttledTime": nanoseconds})


def pids(directory: str) -> dict[str, int]:
    """From pids.current and pids.max; no limit is none said."""
    limit = text(f"{directory}/pids.max").strip()
    return nonzero({"current": number(f"{directory}/pids.current"), "limit": 0 if limit in ("", "max") else int(limit)})


def operations(content: str) -> list[dict[str, Any]]:
    """v1's `8:0 Read 4096` a line; the sum of all devices at the end is left out."""
    found = []
    for line in content.splitlines():
        words = line.replace(":", " ").split()
        if len(words) == 4:
            found.append(entry(words[0], words[1], words[2], int(words[3])))
    return found


def devices(content: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """v2's `8:0 rbytes=4096 wbytes=0 rios=1 …` a line: the bytes, and the number of operations."""
    moved: list[dict[str, Any]] = []
    done: list[dict[str, Any]] = []
    for line in content.splitlines():
        name, *words = line.split()
        major, _, minor = name.partition(":")
        for key, _, value in (word.partition("=") for word in words):
            if key[0] in OPERATIONS and key[1:] in ("bytes", "ios"):
                into = moved if key[1:] == "bytes" else done
                into.append(entry(major, minor, OPERATIONS[key[0]], int(value)))
    return moved, done


def entry(major: str, minor: str, operation: str, value: int) -> dict[str, Any]:
    """One operation of one device."""
    return nonzero({"major": int(major), "minor": int(minor), "op": operation, "value": value})


def members(content: str) -> list[int]:
    """The numbers in a list like `0-2,7` (cpuset(7), List format)."""
    found: list[int] = []
    for part in content.strip().split(",") if content.strip() else ():
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def nonzero(values: dict[str, Any]) -> dict[str, Any]:
    """Without what is 0 or empty."""
    return {name: value for name, value in values.items() if value}


def text(path: str) -> str:
    """A file's content; empty if there is none, or the kernel has no answer."""
    try:
        return files.read(path).decode()
    except OSError:
        return ""


def number(path: str) -> int:
    """A file's number; 0 if there is none."""
    return int(text(path).strip() or 0)


def bound(path: str) -> int:
    """The same, where `max` is none."""
    content = text(path).strip()
    return NO_LIMIT if content == "max" else int(content or 0)


def table(path: str) -> dict[str, int]:
    """A file of a name and a number a line."""
    return {name: int(value) for name, value in (line.split() for line in text(path).splitlines())}


class OutOfMemory:
    """Waits for a cgroup to run out of the memory that it may have, or for the container's end.

    v1 says so by an eventfd that is registered with memory.oom_control (cgroup-v1/memory.rst, 10); v2 changes
    memory.events (inotify(7)), and not for that alone, so there a process has to be killed.
    """

    def __init__(self, path: str, process: int) -> None:
        """`process` is a pidfd of the container's."""
        self.path, self.process, self.killed = path, process, oom_kills(path) or 0
        if detect().version == 2:
            self.descriptor = syscalls.inotify(f"{detect().mounts['']}{path}/memory.events", syscalls.IN_MODIFY)
            return
        directory = f"{detect().mounts['memory']}{path}"
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            files.put(f"{directory}/cgroup.event_control", f"{self.descriptor} {control}")
        finally:
            os.close(control)

    def wait(self, seconds: float) -> str:
        """ "oom", "end", or "" when so much time has passed."""
        deadline = time.monotonic() + seconds
        while True:
            heard, _, _ = select.select([self.descriptor, self.process], [], [], max(0, deadline - time.monotonic()))
            if self.descriptor in heard and self.is_out_of_memory():
                return "oom"
            if self.process in heard or not heard:
                return "end" if heard else ""

    def is_out_of_memory(self) -> bool:
        """Whether that is what has been heard. The end of a cgroup is told, too."""
        os.read(self.descriptor, 1 << 12)
        if detect().version == 1:
            return os.path.exists(f"{detect().mounts['memory']}{self.path}")
        before, self.killed = self.killed, oom_kills(self.path) or 0
        return self.killed > before
