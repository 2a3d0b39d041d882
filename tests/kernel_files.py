"""What the kernel says of a process: limits by one name each, whichever version of cgroups this machine has."""

import os
from pathlib import Path

FILES = {
    "memory": ("memory", "memory.limit_in_bytes", "memory.max"),
    "pids": ("pids", "pids.max", "pids.max"),
    "quota": ("cpu", "cpu.cfs_quota_us", "cpu.max"),
    "shares": ("cpu", "cpu.shares", "cpu.weight"),
}


class Limits:
    """Those of the process `pid`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def read(self, name: str) -> str:
        """memory (bytes), pids, quota (microseconds per period), shares."""
        controller, first, second = FILES[name]
        for line in Path(f"/proc/{self.pid}/cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                return Path(f"/sys/fs/cgroup/{controller}{path}/{first}").read_text().strip()
            if number == "0" and Path("/sys/fs/cgroup/cgroup.controllers").exists():
                return Path(f"/sys/fs/cgroup{path}/{second}").read_text().split()[0]
        raise KeyError(name)

    def status(self, field: str) -> str:
        """One line of /proc/PID/status."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{field}:"))

    @staticmethod
    def on_a_device(path: Path) -> bool:
        """Whether a file system lies on a block device, and not in memory or elsewhere."""
        number = os.stat(path).st_dev
        return Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").exists()
