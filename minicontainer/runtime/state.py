"""Which process is which: a process is its pid *and* its start time, for pids come round again."""

import os

from .. import errors, files


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot (proc_pid_stat(5), field 22); None if there is none."""
    try:
        stat = files.read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command in parentheses, which may itself hold spaces and parentheses.
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def alive(pid: int, started: int) -> bool:
    """Whether this very process still runs (a zombie does not)."""
    try:
        stat = files.read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return False
    fields = stat[stat.rindex(b")") + 2 :].split()
    return int(fields[19]) == started and fields[0] not in (b"Z", b"X")


def hold(pid: int, started: int) -> int:
    """A pidfd of this very process: whatever happens to the pid, the descriptor means no other. Or Conflict."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        raise errors.Conflict("the container has just ended") from None
    if not alive(pid, started):  # asked now: the pid may have been another's before, but cannot have become one since
        os.close(descriptor)
        raise errors.Conflict("the container has just ended")
    return descriptor
