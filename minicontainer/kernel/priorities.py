"""Who gets the processor and the disk first, and which machine a process takes itself to run on.

sched(7), ioprio_set(2), personality(2), by the OCI spec's process.scheduler, process.ioPriority, linux.personality.
What may be had is the kernel's to say: a real-time policy needs CAP_SYS_NICE outside of any user namespace, so one who
goes into such a namespace is given it from outside.
"""

from __future__ import annotations

import os

from .. import errors, steps, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Iterator
    from typing import Any

# linux/sched.h; ISO is reserved there, and not implemented
POLICIES = {"SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_IDLE": 5, "SCHED_DEADLINE": 6}
FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 1, "SCHED_FLAG_RECLAIM": 2, "SCHED_FLAG_DL_OVERRUN": 4, "SCHED_FLAG_KEEP_POLICY": 8,
    "SCHED_FLAG_KEEP_PARAMS": 16, "SCHED_FLAG_UTIL_CLAMP_MIN": 32, "SCHED_FLAG_UTIL_CLAMP_MAX": 64,
}  # fmt: skip
# linux/ioprio.h
CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
IOPRIO_CLASS_SHIFT, IOPRIO_WHO_PROCESS = 13, 1
DOMAINS = {"LINUX": 0, "LINUX32": 8}  # linux/personality.h


def check(process: dict[str, Any], linux: dict[str, Any]) -> None:
    """Raise InvalidArgument for words that the specification does not have, and numbers that are none."""
    scheduler, disk = process.get("scheduler") or {}, process.get("ioPriority") or {}
    known = [("process.scheduler.policy", scheduler.get("policy"), POLICIES, scheduler)]
    known += [("process.scheduler.flags", flag, FLAGS, True) for flag in scheduler.get("flags") or []]
    known += [("process.ioPriority.class", disk.get("class"), CLASSES, disk)]
    domain = linux.get("personality") or {}
    known += [("linux.personality.domain", domain.get("domain"), DOMAINS, domain)]
    for name, word, words, asked in known:
        if asked and word not in words:
            raise errors.InvalidArgument(f"config.json: {name} {word!r} is none of {', '.join(words)}")
    if domain.get("flags"):
        raise errors.InvalidArgument("config.json: linux.personality.flags: the specification has none")
    if not 0 <= disk.get("priority", 0) <= 7:
        raise errors.InvalidArgument(f"config.json: process.ioPriority.priority {disk['priority']}: 0 to 7")
    for name in ("nice", "priority", "runtime", "deadline", "period"):
        if not isinstance(scheduler.get(name, 0), int):
            raise errors.InvalidArgument(f"config.json: process.scheduler.{name} is no number")


def plan(process: dict[str, Any], pid: int | steps.Symbol = 0) -> Iterator[steps.Step]:
    """What a checked process asks for, of the one with that pid, or of this very process."""
    if process.get("scheduler"):
        yield steps.call(schedule, process["scheduler"], pid, why="when it gets a processor")
    if process.get("ioPriority"):
        yield steps.call(queue, process["ioPriority"], pid, why="when it gets the disk")


def check_affinity(affinity: dict[str, str]) -> None:
    """Raise InvalidArgument for a process.execCPUAffinity that is none."""
    for name, text in affinity.items():
        if name not in ("initial", "final"):
            raise errors.InvalidArgument(f"config.json: process.execCPUAffinity.{name}: it has initial and final")
        try:
            processors(text)
        except ValueError:
            raise errors.InvalidArgument(
                f"config.json: process.execCPUAffinity.{name} {text!r}: a list like 0-2,7 is meant"
            ) from None


def processors(text: str) -> set[int]:
    """The numbers in a list like `0-2,7` (cpuset(7), List format). Raises ValueError."""
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        if not first.strip().isdecimal() or int(last or first) > 1 << 16:
            raise ValueError(part)
        found |= set(range(int(first), int(last or first) + 1))
    return found


def affinity(process: dict[str, Any], moment: str) -> Iterator[steps.Step]:
    """The spec's process.execCPUAffinity, at its "initial" or "final" moment."""
    wanted = processors((process.get("execCPUAffinity") or {}).get(moment) or "")
    if wanted:
        yield steps.call(run_on, tuple(sorted(wanted)), why="on which processors it is executed")


def run_on(numbers: tuple[int, ...]) -> None:
    """sched_setaffinity(2)."""
    try:
        os.sched_setaffinity(0, numbers)
    except OSError as error:
        hint = "process.execCPUAffinity: are these among the container's own processors (cpuset)?"
        raise errors.KernelError(error.errno or 0, "sched_setaffinity", (0, *numbers), hint) from None


def schedule(asked: dict[str, Any], pid: int = 0) -> None:
    """sched_setattr(2) with the spec's process.scheduler; runtime, deadline and period in nanoseconds."""
    flags = sum(FLAGS[name] for name in set(asked.get("flags") or []))
    # struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period
    numbers = [(48, 4), (POLICIES[asked["policy"]], 4), (flags, 8), (asked.get("nice", 0), 4)]
    numbers += [(asked.get("priority", 0), 4)]
    numbers += [(asked.get(name, 0), 8) for name in ("runtime", "deadline", "period")]
    try:
        attributes = b"".join(value.to_bytes(width, "little", signed=value < 0) for value, width in numbers)
    except OverflowError:
        raise errors.InvalidArgument(f"config.json: process.scheduler: a number is too large in {asked}") from None
    try:
        syscalls.syscall("sched_setattr", pid, attributes, 0)
    except errors.KernelError as error:
        error.hint = f"process.scheduler asks for {asked}; real time needs CAP_SYS_NICE, on cgroup v1 cpu.rt_runtime_us"
        raise


def queue(asked: dict[str, Any], pid: int = 0) -> None:
    """ioprio_set(2) with the spec's process.ioPriority."""
    value = CLASSES[asked["class"]] << IOPRIO_CLASS_SHIFT | asked.get("priority", 0)
    try:
        syscalls.syscall("ioprio_set", IOPRIO_WHO_PROCESS, pid, value)
    except errors.KernelError as error:
        error.hint = f"process.ioPriority asks for {asked}; IOPRIO_CLASS_RT needs CAP_SYS_NICE"
        raise


def pose(domain: dict[str, Any]) -> Iterator[steps.Step]:
    """The spec's linux.personality."""
    yield steps.call(take_for, DOMAINS[domain["domain"]], why="which machine uname(2) speaks of in there")


def take_for(domain: int) -> None:
    """personality(2)."""
    syscalls.syscall("personality", domain)
