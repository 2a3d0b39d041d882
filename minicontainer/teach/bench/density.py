"""`bench density`: many idle containers at once: what memory each takes, and whether the last one starts more slowly.

Memory is PSS, proportional set size (proc_pid_smaps(5)): a page that three processes share counts a third for each, so
that the sum is what they really take. A container is three processes: the client that was typed, the monitor that
waits for its end, and its own, here `sleep`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time

from ... import errors
from . import Group, Report, Workshop, archives, engines

CONTAINERS = 20
AT_MOST = 100  # whoever wants more than this on a laptop measures its swap


class Idle:
    """One container that sleeps; `took` is how long it was until it said so."""

    def __init__(self, command: list[str]) -> None:
        began = time.monotonic()
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline()
        self.took = time.monotonic() - began
        if not line:
            raise errors.MiniContainerError(f"a container did not start: {self.process.stderr.read().strip()}")

    def end(self) -> None:
        """SIGTERM, which the client passes on; SIGKILL after three seconds, and `reset` does the rest."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(3)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()


def measure(workshop: Workshop, runs: int) -> Report:
    """See the module. `runs` is the number of containers."""
    count = runs or CONTAINERS
    if count > AT_MOST:
        raise errors.InvalidArgument(f"bench density --runs {count}: at most {AT_MOST} containers at once")
    report = Report("density", f"{count} idle containers at once")
    image = f"localhost/{workshop.tag}:latest"
    workshop.tell("making an image from the static busybox")
    archives.busybox_tree(f"{workshop.folder}/tree")
    archives.pack(f"{workshop.folder}/tree", f"{workshop.folder}/layer.tar")
    archives.archive(f"{workshop.folder}/image.tar", f"{workshop.folder}/layer.tar", image, ["sh"])
    engine = engines.Minicontainer()
    report.facts.append(f"measured as minicontainer: {engine.prepare(workshop, f'{workshop.folder}/image.tar', image)}")
    # --init is not ours to add: `sleep` alone is process 1, so the shell answers the signal and takes it along.
    sleep = ["sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 1000 & wait $!; done"]
    Idle(engine.command("bridge", sleep)).end()  # the bridge, the filter's BPF: made once
    before = available()
    containers: list[Idle] = []
    for number in range(count):
        if available() < 512 << 20:
            raise errors.MiniContainerError(f"less than 512 MiB of memory are left after {number} containers")
        containers.append(Idle(engine.command("bridge", sleep)))
        workshop.at_end("end a container", containers[-1].end)
        workshop.tell(f"round {number + 1} of {count}")
    workshop.tell("weighing them")
    client, monitor, own = [], [], []
    for container in containers:
        below = descendants(container.process.pid)
        client.append(pss(container.process.pid))
        monitor.append(pss(below[0]) if below else 0.0)
        own.append(sum(map(pss, below[1:])))
    whole = [sum(parts) for parts in zip(client, monitor, own, strict=True)]
    rows = {"all of it": whole, "client": client, "monitor": monitor, "its own processes": own}
    report.groups.append(Group("memory of a container (PSS)", "all of it", rows, "MiB", 1 / (1 << 20), reference=None))
    took = [container.took for container in containers]
    half = count // 2
    if half:
        halves = {f"1 to {half}": took[:half], f"{count - half + 1} to {count}": took[count - half :]}
        last = f"{count - half + 1} to {count}"
        report.groups.append(Group("start until its first word, on the bridge", last, halves, reference=f"1 to {half}"))
    fallen = (before - available()) / count / (1 << 20)
    report.facts.append(
        f"MemAvailable fell by {fallen:.1f} MiB a container (page tables, kernel objects, tmpfs included)"
    )
    report.facts.append(f"the first took {took[0] * 1000:.1f} ms, number {count} {took[-1] * 1000:.1f} ms")
    report.method = {"containers": count, "start_seconds": took, "warm_up": 1}
    return report


def descendants(process: int) -> list[int]:
    """The processes below one, nearest first (proc_pid_task_tid_children(5))."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{process}/task"):
            with open(f"/proc/{process}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    return found + [far for near in list(found) for far in descendants(near)]


def pss(process: int) -> float:
    """Bytes of its proportional set size."""
    with contextlib.suppress(OSError), open(f"/proc/{process}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024.0
    return 0.0


def available() -> int:
    """Bytes of memory that could be had without swapping."""
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 1 << 62
