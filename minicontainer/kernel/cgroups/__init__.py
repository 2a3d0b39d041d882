"""Control groups: what a container may use, counted and limited (cgroups(7)).

Offers: plans that create a cgroup with its limits, put a process into it and remove it; its processes and counters.
A cgroup is named by one path, "/minicontainer/<id>", the same in every hierarchy. Version 1 (a hierarchy for each
controller) or 2 (one for all) is chosen once, here, from what is mounted; nothing is ever mounted or remounted.
v1.py and v2.py say what to write into which file; they are pure.

Callers owe it: `parent()` once for the first part of the path; `create` before `enter` or `join`; the same resources to
all three. `enter` is for the process itself, before it unshares the cgroup namespace and while it sees
/sys/fs/cgroup. `join` is for another process, and dear: see there.

A limit that cannot be had is refused by name (errors.Unsupported), never skipped. Where nothing is asked for and no
cgroup may be made (`usable()` is false: a user namespace without delegation), the plans are empty.
"""

from __future__ import annotations

import errno
import os
import time

from ... import errors, files, host, steps, syscalls
from ...records import namedtuple
from . import v1, v2

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Iterator
    from typing import Any

    Resources = dict[str, Any]

NOTHING: Resources = {}

# The parts of linux.resources that we know how to write. Anything else in there is refused, not skipped.
KNOWN: dict[str, tuple[str, ...]] = {
    "cpu": ("shares", "quota", "period", "burst", "idle", "cpus", "mems"),
    "memory": (
        "limit", "reservation", "swap", "swappiness", "disableOOMKiller", "checkBeforeUpdate", "kernel", "kernelTCP",
    ),
    "pids": ("limit",),
    "blockIO": ("weight", *v1.THROTTLES),
    "network": ("classID", "priorities"),
}  # fmt: skip
FREE = ("hugepageLimits", "rdma")  # their parts are page sizes and devices

# v1: what is joined only where it was asked for.
ASKED = {"hugepageLimits": ("hugetlb",), "rdma": ("rdma",), "network": ("net_cls", "net_prio")}
EVERYTHING: Resources = {"cpu": {"cpus": "all"}, **dict.fromkeys(ASKED, True)}

ROUNDS = 1000  # how often we look for what is forked faster than killed
SIGKILL = 9  # signal(7); importing the module for one number costs 3 ms
SYSTEMD = "/run/systemd/system"  # there if systemd is process 1: sd_booted(3)
LEAF = "processes"  # where processes of an inner cgroup are moved: v2 wants them in the leaves


class Layout(namedtuple("Layout", "version mounts own")):
    """What this machine has mounted."""

    version: int  # 1, 2, or 0: nothing is mounted
    mounts: dict[str, str]  # v1: controller → mount point; v2: "" → mount point
    own: str  # v2: the cgroup of this process


_layout: Layout | None = None


def detect() -> Layout:
    """Which hierarchies are mounted where; read once per process. A hybrid host, with controllers in v1, is v1."""
    global _layout
    if _layout is None:
        _layout = parse(files.read("/proc/self/mountinfo").decode(), files.read("/proc/self/cgroup").decode())
    return _layout


def parse(mountinfo: str, membership: str) -> Layout:
    """The layout, from the text of /proc/self/mountinfo (proc_pid_mountinfo(5)) and /proc/self/cgroup (cgroups(7))."""
    mounts: dict[str, str] = {}
    unified = ""
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - cgroup")
        if not separator:
            continue
        point = before.split()[4].replace("\\040", " ")
        kind, _, options = after.split(" ", 2)
        if kind == "2":
            unified = unified or point
            continue
        for controller in options.split()[-1].split(","):
            if controller not in ("rw", "ro", "xattr", "none", "noprefix", "clone_children") and "=" not in controller:
                mounts.setdefault(controller, point)
    if mounts:
        return Layout(1, mounts, "/")
    own = next((line[3:] for line in membership.splitlines() if line.startswith("0::")), "/")
    return Layout(2, {"": unified}, own) if unified else Layout(0, {}, "/")


def version() -> int:
    """1 or 2; 0 where no cgroup hierarchy is mounted."""
    return detect().version


def default_devices() -> list[dict[str, Any]]:
    """What Docker's containers may do with devices: make any node, and use these. As `linux.resources.devices`.

    The last rule that matches decides. Source: runc libcontainer/specconv/spec_linux.go, AllowedDevices.
    """
    usable_ones = (
        (1, 3),  # null
        (1, 5),  # zero
        (1, 7),  # full
        (1, 8),  # random
        (1, 9),  # urandom
        (5, 0),  # tty
        (5, 1),  # console
        (5, 2),  # ptmx
        (136, -1),  # pts/*
        (10, 200),  # net/tun
    )
    return [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "access": "m"},
        {"allow": True, "type": "b", "access": "m"},
        *({"allow": True, "type": "c", "major": n, "minor": m, "access": "rwm"} for n, m in usable_ones),
    ]


def parent(name: str) -> str:
    """The path of the cgroup that all containers of a store lie in; `name` is "minicontainer" with the store's suffix.

    At the top of the hierarchy; under systemd, which owns the top of v2, a service of its own (see `delegate`); without
    privilege, below the cgroup that was delegated to us.
    """
    layout = detect()
    if layout.version == 2:
        if not host.is_root():
            return reachable(f"/{name}")
        if os.path.isdir(SYSTEMD):
            return f"/system.slice/{name}-containers.service"
    return f"/{name}"


def reachable(path: str) -> str:
    """The path, below the cgroup that was delegated to us, where we are an ordinary user (v2): no other is ours."""
    layout = detect()
    if layout.version != 2 or host.is_root():
        return path
    own = layout.own.removesuffix(f"/{LEAF}").rstrip("/")
    return path if path.startswith(f"{own}/") else f"{own}{path}"


def obstacle() -> str:
    """Why this process may make no cgroup, with the mend; empty if it may."""
    layout = detect()
    if layout.version == 0:
        return "no cgroup hierarchy is mounted here; mount -t cgroup2 none /sys/fs/cgroup"
    if host.is_root():
        for point in layout.mounts.values():
            if not os.access(point, os.W_OK):
                return f"{point} cannot be written; mount it read-write"
        return ""
    if layout.version == 1:
        return (
            "cgroup v1 cannot be delegated to a user namespace; run as root of the machine, or boot it with cgroup v2"
        )
    own = layout.own.removesuffix(f"/{LEAF}")
    if own in ("", "/") or not os.access(f"{layout.mounts['']}{own}/cgroup.subtree_control", os.W_OK):
        return (
            "no cgroup has been delegated to this user; run as root of the machine, or inside "
            "`systemd-run --user --scope -p Delegate=yes`"
        )
    return ""


def usable() -> bool:
    """Whether this process may make cgroups. If not, what asks for a limit is refused, and the rest runs without."""
    return not obstacle()


def has_swap_limit() -> bool:
    """Whether memory and swap together can be limited: v1 needs swapaccount=1 on some kernels' command lines."""
    layout = detect()
    if layout.version == 1:
        return os.path.exists(f"{layout.mounts.get('memory', '')}/memory.memsw.limit_in_bytes")
    return os.path.exists("/proc/swaps")


def has_device_rules() -> bool:
    """Whether rules about devices, which nobody asked for, do no harm: on v1 their hierarchy may not be mounted."""
    return version() != 1 or "devices" in detect().mounts or not usable()


# ---------------------------------------------------------------------------------------------------------------- plans


def create(path: str, resources: Resources) -> steps.Plan:
    """The cgroup at `path` with the limits of `linux.resources`. Unsupported for a limit that cannot be had."""
    layout = detect()
    try:
        _refuse_unknown(resources, layout.version)
        limits = v1.writes(resources) if layout.version == 1 else v2.writes(resources)
    except errors.MISFITS as error:
        raise errors.malformed("linux.resources", error) from None
    why_not = obstacle()
    if why_not:
        if limits:
            raise errors.Unsupported(
                f"{limits[0][0]} needs the cgroup controller `{_controller(limits[0][0])}`: {why_not}"
            )
        return iter(())
    plan = _create_v1 if layout.version == 1 else _create_v2
    return plan(layout, path, limits, resources)


def enter(path: str, resources: Resources = NOTHING) -> steps.Plan:
    """This very process, which must have one thread only, goes in.

    On v1 by writing 0 into `tasks`. A thread that moves itself cannot fork meanwhile, so the kernel spares the lock
    against forks that `cgroup.procs` takes, and with it an RCU grace period: 0.2 ms instead of 5 to 10 (kernel/cgroup
    /cgroup.c, cgroup_procs_write_start; measured on Linux 6.18). v2 has no such file (`cgroup.threads` moves a thread
    only within its own domain), so there it waits: 16 ms on Linux 6.1.
    """
    if not usable():
        return
    file = "tasks" if version() == 1 else "cgroup.procs"
    for directory in directories(path, resources):
        yield steps.put(f"{directory}/{file}", "0", why="from here on what I use is counted as the container's")


def follow(path: str, pid: int, resources: Resources = NOTHING) -> steps.Plan:
    """This very process goes where `pid`, the container's first process, has gone: as `enter`, or further down."""
    if version() != 2 or not usable():
        yield from enter(path, resources)
    else:
        yield steps.call(go_in, path, pid, why="from here on what I use is counted as the container's")


def join(path: str, pid: steps.Symbol | int, resources: Resources = NOTHING) -> steps.Plan:
    """Another process goes in, with all its threads. Each call waits out an RCU grace period, 5 to 10 ms."""
    if not usable():
        return
    for directory in directories(path, resources):
        yield steps.put(
            f"{directory}/cgroup.procs", steps.Text((pid,)), why="what it uses is counted as the container's"
        )


def update(path: str, before: Resources, after: Resources) -> steps.Plan:
    """Other limits for the cgroup at `path` and what runs in it. Raises as `create` does, and Conflict."""
    different = {part: value for part, value in after.items() if value and value != before.get(part)}
    changes = create(path, different)
    memory = different.get("memory") or {}
    if memory.get("checkBeforeUpdate"):
        _refuse_less_than_used(path, memory)
    return _update(path, before, different, changes)


def _update(path: str, before: Resources, different: Resources, changes: steps.Plan) -> Iterator[steps.Step]:
    memory = different.get("memory") or {}
    if version() == 1 and memory.get("swap"):
        # The kernel keeps memory at or below memory and swap together at all times: who grows raises the latter first.
        old = (before.get("memory") or {}).get("swap") or -1
        if memory["swap"] < 0 or 0 < old < memory["swap"]:
            file = f"{detect().mounts['memory']}{path}/memory.memsw.limit_in_bytes"
            yield steps.put(file, str(memory["swap"]), why="room for the memory's own limit to grow")
    yield from changes
    cpu, had = different.get("cpu") or {}, before.get("cpu") or {}
    if version() == 1 and (cpu.get("cpus") or cpu.get("mems")) and not (had.get("cpus") or had.get("mems")):
        yield steps.call(gather, path, f"{detect().mounts['cpuset']}{path}", why="it had no cpuset of its own so far")


def remove(path: str) -> steps.Plan:
    """The cgroup at `path` is gone afterwards, with whatever ran in it. From the path alone, as often as one likes."""
    if not usable():
        return
    everywhere = directories(path, EVERYTHING)
    yield steps.call(empty, tuple(everywhere), why="a cgroup can be removed only when nothing runs in it")
    for directory in everywhere:
        yield steps.rmdir(directory, why="the container's limits and counters end with it")


def remove_parent(path: str) -> steps.Plan:
    """For `system reset`: what `parent()` named goes too, with every container that is still in there."""
    unit = _unit(f"{path}/")
    if unit and os.path.isdir(f"{detect().mounts['']}{path}"):
        yield steps.call(systemd, "systemctl", "stop", unit, why="systemd made it, and takes it away")
    yield from remove(path)


def _unit(path: str) -> str:
    """The service below which a container's cgroup lies, where systemd owns the tree; empty if it lies elsewhere."""
    above = os.path.dirname(path)
    if above.startswith("/system.slice/") and above.endswith(".service") and os.path.isdir(SYSTEMD):
        return os.path.basename(above)
    return ""


def _create_v1(layout: Layout, path: str, limits: list[tuple[str, str]], resources: Resources) -> Iterator[steps.Step]:
    rules = resources.get("devices") or []
    for file in [name for name, _ in limits] + ["devices.deny"] * bool(rules):
        controller = _controller(file)
        if controller not in layout.mounts:
            raise errors.Unsupported(
                f"{file} needs the cgroup controller `{controller}`, of which no v1 hierarchy is mounted; "
                f"mount -t cgroup -o {controller} {controller} /sys/fs/cgroup/{controller}"
            )
    if any(name.startswith("memory.memsw") for name, _ in limits) and not has_swap_limit():
        raise errors.Unsupported("this kernel counts no swap for cgroups; boot it with swapaccount=1")
    for directory in directories(path, resources):
        if directory == f"{layout.mounts.get('cpuset')}{path}":
            yield from _cpusets(layout.mounts["cpuset"], path)
        yield steps.mkdir(directory, why="a cgroup of the container's own")
    if "cpuset" in (_controller(name) for name, _ in limits):
        given = dict(limits)
        for file in ("cpuset.cpus", "cpuset.mems"):
            if file not in given:
                limits = [*limits, (file, _first_line(f"{layout.mounts['cpuset']}/{file}"))]
    for file, value in limits:
        yield steps.put(f"{layout.mounts[_controller(file)]}{path}/{file}", value, why=WHY[file.partition(".")[0]])
    for file, value in v1.devices(rules):
        yield steps.put(f"{layout.mounts['devices']}{path}/{file}", value, why=WHY["devices"])


def _cpusets(mount: str, path: str) -> Iterator[steps.Step]:
    """A v1 cpuset is born empty, and empty ones may hold no process and no child with members."""
    level = mount
    for name in path.strip("/").split("/")[:-1]:
        level = f"{level}/{name}"
        yield steps.mkdir(level, why="the parent of all containers")
        for file in ("cpuset.cpus", "cpuset.mems"):
            if not _first_line(f"{level}/{file}"):
                yield steps.put(f"{level}/{file}", _first_line(f"{mount}/{file}"), why="a v1 cpuset is born empty")


def _create_v2(layout: Layout, path: str, limits: list[tuple[str, str]], resources: Resources) -> Iterator[steps.Step]:
    mount = layout.mounts[""]
    level = mount
    if not host.is_root():
        own = layout.own.removesuffix(f"/{LEAF}")
        level = mount + (own if path.startswith(f"{own}/") else os.path.dirname(path))  # `update`, from another cgroup
    elif unit := _unit(path):
        level = mount + os.path.dirname(path)
        if not _first_line(f"{level}/cgroup.subtree_control"):  # written last: whoever sees it need not wait
            yield steps.call(delegate, unit, level, why="systemd owns the tree, and delegates a part")
    available = (_first_line(f"{level}/cgroup.controllers") or _first_line(f"{mount}/cgroup.controllers")).split()
    asked = {_controller(file) for file, _ in limits} - {"cgroup"}
    for controller in sorted(asked):
        if controller not in available:
            file = next(name for name, _ in limits if _controller(name) == controller)
            raise errors.Unsupported(
                f"{file} needs the cgroup controller `{controller}`, which {level} does not have; "
                + (
                    "the kernel lacks it or booted with cgroup_disable"
                    if host.is_root()
                    else "delegate it: systemctl edit user@.service, [Service], "
                    f"Delegate={' '.join(sorted(asked.union(v2.ALWAYS)))}; then log in anew"
                )
            )
    wanted = [name for name in available if name in v2.ALWAYS or name in asked]
    if level != mount and _first_line(f"{level}/cgroup.procs"):
        yield steps.call(move_to_leaf, level, why="only leaves may hold processes")
    below = (mount + path).removeprefix(level).strip("/").split("/")
    for name in below:
        enabled = _first_line(f"{level}/cgroup.subtree_control").split()
        lacking = " ".join(f"+{controller}" for controller in wanted if controller not in enabled)
        if lacking:
            yield steps.put(f"{level}/cgroup.subtree_control", lacking, why="children have only what is handed down")
        level = f"{level}/{name}"
        yield steps.mkdir(level, why="a cgroup of the container's own" if level == mount + path else "its parent")
    for file, value in limits:
        why = WHY.get(file.partition(".")[0], "asked for by its name")
        if file == v2.BFQ:
            yield steps.call(weigh_disks, level, int(value), why=why)
        else:
            yield steps.put(f"{level}/{file}", value, why=why)
    rules = resources.get("devices") or []
    # In a user namespace the kernel itself makes no device node, and devices are bound in: nothing is left to guard.
    if rules and host.is_root():
        yield steps.call(guard_devices, level, rules, why=WHY["devices"])


WHY = {
    "cpu": "no more processor time than this",
    "cpuset": "these processors and no others",
    "memory": "no more memory than this; beyond it the kernel kills",
    "pids": "a fork bomb stays inside",
    "devices": "root in the container makes device nodes, and must not use them",
    "blkio": "no more of the disk than this",
    "io": "no more of the disk than this",
    "hugetlb": "no more huge pages than this",
    "rdma": "no more of the adapter than this",
    "net_cls": "by which the machine's own rules know its packets",
    "net_prio": "which of its packets go first",
}


def _controller(file: str) -> str:
    return file.partition(".")[0]


def directories(path: str, resources: Resources) -> list[str]:
    """The cgroup's directory in each hierarchy that it needs, each once (cpu and cpuacct are often one)."""
    layout = detect()
    if layout.version == 2:
        return [layout.mounts[""] + path]
    cpu = resources.get("cpu") or {}
    wanted = (*v1.ALWAYS, "cpuset") if cpu.get("cpus") or cpu.get("mems") else v1.ALWAYS
    wanted = (*wanted, *(name for part, names in ASKED.items() if resources.get(part) for name in names))
    return list(dict.fromkeys(layout.mounts[name] + path for name in wanted if name in layout.mounts))


def _refuse_unknown(resources: Resources, version: int) -> None:
    for part, content in resources.items():
        if not content or part == "devices" or (part == "unified" and version != 1):
            continue
        if part in FREE:
            continue
        if part not in KNOWN:
            raise errors.Unsupported(f"linux.resources.{part} is not built yet on cgroup v{version}; leave it out")
        for name, value in content.items():
            if value and name not in KNOWN[part]:
                raise errors.Unsupported(f"linux.resources.{part}.{name} is not built; leave it out")
    memory = resources.get("memory") or {}
    for name in ("kernel", "kernelTCP") if version != 1 else ("kernel",):
        _refuse_less(name, memory)


def _refuse_less(name: str, memory: Resources) -> None:
    """What the kernel itself uses for a container has had no limit of its own since Linux 5.16; it counts as memory.

    So a limit that is not less than the memory's own is kept, and no other can be had (cgroup-v1/memory.rst).
    """
    asked, limit = memory.get(name) or -1, memory.get("limit") or -1
    if asked > 0 and (limit < 0 or asked < limit):
        raise errors.Unsupported(
            f"linux.resources.memory.{name} is less than the limit on all memory, of which the kernel counts it as a "
            "part: set linux.resources.memory.limit"
        )


def _refuse_less_than_used(path: str, memory: Resources) -> None:
    """Else v2's kernel would kill for the new limit."""
    used, limit = stats(path).get("memory", 0), memory.get("limit") or -1
    if 0 < limit < used:
        raise errors.Conflict(f"linux.resources.memory.limit: {limit} is less than the {used} bytes that are used")


def _first_line(path: str) -> str:
    """The first line of a file, empty if there is no such file."""
    try:
        return _text(path).partition("\n")[0]
    except PermissionError:
        return ""


# ------------------------------------------------------------------------------------------------------ what they call


def processes(path: str) -> list[int]:
    """The pids in the cgroup and below it, as this machine numbers them; none if there is no such cgroup."""
    layout = detect()
    mount = layout.mounts.get("" if layout.version == 2 else "pids") or next(iter(layout.mounts.values()), "")
    return _processes(mount + path) if mount else []


def _processes(directory: str) -> list[int]:
    found = []
    for level in _levels(directory):
        try:
            found += [int(pid) for pid in files.read(f"{level}/cgroup.procs").split()]
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):  # gone meanwhile; threaded (v2)
                raise
    return found


def _levels(directory: str) -> list[str]:
    """The cgroup and all below it, what is below something after it. A container may have made any number of them."""
    found, left = [], [directory]
    while left:
        level = left.pop()
        try:
            with os.scandir(level) as entries:
                left += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            continue
        found.append(level)
    return found


def stats(path: str) -> dict[str, int]:
    """What the container has used, in bytes, nanoseconds and counts; what the kernel does not count here is left out.

    cpu_usage, throttled, memory, memory_peak, memory_limit (none: left out), inactive_file (what of `memory` is a cache
    that could go at once), pids, pids_limit, read and written (by block devices), oom_kills.
    """
    layout = detect()
    if layout.version == 2:
        directory = layout.mounts[""] + path
        cpu = _table(f"{directory}/cpu.stat")
        found = {
            "cpu_usage": cpu["usage_usec"] * 1000 if "usage_usec" in cpu else None,
            "throttled": cpu.get("nr_throttled"),
            "memory": _integer(f"{directory}/memory.current"),
            "memory_peak": _integer(f"{directory}/memory.peak"),
            "memory_limit": _integer(f"{directory}/memory.max"),
            "inactive_file": _table(f"{directory}/memory.stat").get("inactive_file"),
            "pids": _integer(f"{directory}/pids.current"),
            "pids_limit": _integer(f"{directory}/pids.max"),
            **v2.blocks(_text(f"{directory}/io.stat")),
        }
    else:
        at = {controller: mount + path for controller, mount in layout.mounts.items()}
        limit = _integer(f"{at.get('memory')}/memory.limit_in_bytes")
        found = {
            "cpu_usage": _integer(f"{at.get('cpuacct')}/cpuacct.usage"),
            "throttled": _table(f"{at.get('cpu')}/cpu.stat").get("nr_throttled"),
            "memory": _integer(f"{at.get('memory')}/memory.usage_in_bytes"),
            "memory_peak": _integer(f"{at.get('memory')}/memory.max_usage_in_bytes"),
            "memory_limit": limit if limit and limit < v1.UNLIMITED else None,
            "inactive_file": _table(f"{at.get('memory')}/memory.stat").get("total_inactive_file"),
            "pids": _integer(f"{at.get('pids')}/pids.current"),
            "pids_limit": _integer(f"{at.get('pids')}/pids.max"),
            **v1.blocks(_text(f"{at.get('blkio')}/blkio.throttle.io_service_bytes_recursive")),
        }
    found["oom_kills"] = oom_kills(path)
    return {name: value for name, value in found.items() if value is not None}


def oom_kills(path: str) -> int | None:
    """How many processes the kernel has killed for the cgroup's memory limit; None where it does not count that."""
    layout = detect()
    if layout.version == 2:
        return _table(f"{layout.mounts['']}{path}/memory.events").get("oom_kill")
    return _table(f"{layout.mounts.get('memory')}{path}/memory.oom_control").get("oom_kill")


def _integer(path: str) -> int | None:
    text = _first_line(path)
    return int(text) if text and text != "max" else None


def _table(path: str) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in _text(path).splitlines())}


def send(path: str, number: int) -> set[int]:
    """Send a signal to all that runs in the cgroup and below it, SIGKILL also to what is forked meanwhile.

    Not to this process itself, nor where we could not have made the cgroup. Returns who got it.
    """
    told: set[int] = set()
    for _ in range(ROUNDS if number == SIGKILL else 1):
        new = set(processes(path)) - told - {0, os.getpid()} if usable() else set()
        for pid in new:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        told |= new
        if not new:
            break
    return told


def go_in(path: str, pid: int) -> None:
    """v2: this process is in the cgroup at `path`; where that may hold none, in the one below that `pid` is in.

    Who is root in there may have handed controllers down, as systemd does ("no internal processes"). KernelError
    (EBUSY) if `pid` is not below. So runc has it (libcontainer/process_linux.go, setnsProcess).
    """
    mount = detect().mounts[""]
    try:
        files.put(f"{mount}{path}/cgroup.procs", "0")
    except errors.KernelError as error:
        if error.errno != errno.EBUSY:
            raise
        below = files.read(f"/proc/{pid}/cgroup").decode().strip().removeprefix("0::")
        if not below.startswith(f"{path}/"):
            raise
        files.put(f"{mount}{below}/cgroup.procs", "0")


def gather(path: str, directory: str) -> None:
    """v1: all processes of the cgroup at `path` are in `directory`, too, which is of another hierarchy."""
    while left := set(processes(path)) - set(_processes(directory)):  # what forks meanwhile has children outside
        for pid in left:
            try:
                files.put(f"{directory}/cgroup.procs", str(pid))
            except errors.KernelError as error:
                if error.errno != errno.ESRCH:
                    raise


def empty(directories: tuple[str, ...], patience: float = 10.0) -> None:
    """Kill what runs in these cgroups, wait until it is gone, remove the cgroups below them.

    KernelError (EBUSY) if something is still there after `patience` seconds. This process itself is never killed.
    """
    deadline = time.monotonic() + patience
    pause = 0.0005
    rounds = 0
    while True:
        left = {pid for directory in directories for pid in _processes(directory)}
        if not left and _prune(directories):
            return
        frozen = [directory for directory in directories if os.path.exists(f"{directory}/freezer.state")]
        for directory in directories:
            if os.path.exists(f"{directory}/cgroup.kill"):
                try:
                    files.put(f"{directory}/cgroup.kill", "1")
                except errors.KernelError as error:  # systemd may have removed a scope since
                    if error.errno not in (errno.ENOENT, errno.ENODEV):
                        raise
        if rounds > 3:  # something forks faster than we kill: hold it still meanwhile
            _set_frozen(frozen, "FROZEN")
        for pid in left - {0, os.getpid()}:  # 0: a process outside our pid namespace
            try:
                os.kill(pid, SIGKILL)
            except ProcessLookupError:
                pass
        _set_frozen(frozen, "THAWED")  # what is frozen does not even die
        if time.monotonic() > deadline:
            raise errors.KernelError(
                errno.EBUSY,
                "rmdir",
                directories[:1],
                f"these processes do not die: {sorted(left)}; see ps -o stat,wchan",
            )
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
        rounds += 1


def _set_frozen(directories: list[str], state: str) -> None:
    for directory in directories:
        for level in _levels(directory):
            try:
                files.put(f"{level}/freezer.state", state)
            except errors.KernelError as error:  # removed meanwhile: before it was opened, or after
                if error.errno not in (errno.ENOENT, errno.ENODEV):
                    raise


def freeze(path: str, patience: float = 10.0) -> None:
    """Hold still whatever runs in the cgroup, and return when it does. Raises Unsupported, KernelError (EBUSY)."""
    directory, file, frozen, _ = _freezer(path)
    files.put(f"{directory}/{file}", frozen)
    deadline = time.monotonic() + patience
    while not is_frozen(path):
        if time.monotonic() > deadline:
            files.put(f"{directory}/{file}", _freezer(path)[3])
            raise errors.KernelError(errno.EBUSY, "write", (f"{directory}/{file}", frozen), "a process does not freeze")
        time.sleep(0.001)


def thaw(path: str) -> None:
    """The reverse; nothing happens to what is not frozen, or is gone."""
    directory, file, _, thawed = _freezer(path)
    try:
        files.put(f"{directory}/{file}", thawed)
    except errors.KernelError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise


def is_frozen(path: str) -> bool:
    """Whether all that runs in the cgroup is held still (v1 says FREEZING until it is); not where nothing freezes."""
    try:
        directory = _freezer(path)[0]
    except errors.Unsupported:
        return False
    return _text(f"{directory}/freezer.state").strip() == "FROZEN" or "frozen 1" in _text(f"{directory}/cgroup.events")


def _freezer(path: str) -> tuple[str, str, str, str]:
    """(directory, file, what to write to freeze, and to thaw)."""
    layout = detect()
    if layout.version == 2:
        return layout.mounts[""] + path, "cgroup.freeze", "1", "0"
    if "freezer" not in layout.mounts:
        raise errors.Unsupported("pausing needs the cgroup controller `freezer`, which is not mounted here")
    return layout.mounts["freezer"] + path, "freezer.state", "FROZEN", "THAWED"


def _prune(directories: tuple[str, ...]) -> bool:
    """Remove the cgroups below; whether nothing is left that would keep the directories themselves from removal."""
    for directory in directories:
        if "populated 1" in _text(f"{directory}/cgroup.events"):
            return False
        for level in reversed(_levels(directory)[1:]):
            try:
                files.remove_directory(level)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    return False
                raise
    return True


def _text(path: str) -> str:
    """A file's content, empty if its cgroup is not there, or was removed after the file was opened."""
    try:
        return files.read(path).decode()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise
        return ""


def weigh_disks(directory: str, weight: int) -> None:
    """v2: a weight for disks, of 10 to 1000, by the scheduler BFQ; where that is not, as runc and crun, by cost."""
    if os.path.exists(f"{directory}/{v2.BFQ}"):
        files.put(f"{directory}/{v2.BFQ}", str(weight))
    else:
        files.put(f"{directory}/io.weight", str(v2.cost_weight(weight)))


def guard_devices(directory: str, rules: list[dict[str, Any]]) -> None:
    """Attach the device rules to a v2 cgroup as a BPF program; the cgroup keeps it."""
    program = syscalls.bpf_load(v2.BPF_PROG_TYPE_CGROUP_DEVICE, v2.device_program(rules))
    try:
        target = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscalls.bpf_attach(target, program, v2.BPF_CGROUP_DEVICE, v2.BPF_F_ALLOW_MULTI)
        finally:
            os.close(target)
    finally:
        os.close(program)


def move_to_leaf(directory: str) -> None:
    """v2, "no internal processes": what runs in this cgroup itself moves one level down, to make room for children."""
    leaf = f"{directory}/{LEAF}"
    files.make_directory(leaf)
    for _ in range(100):  # what forks meanwhile has children here again
        pids = files.read(f"{directory}/cgroup.procs").split()
        if not pids:
            return
        if b"0" in pids:  # how the kernel writes who is not in our pid namespace
            raise errors.KernelError(
                errno.EBUSY, "write", (f"{leaf}/cgroup.procs",),
                f"{directory} holds processes from outside this pid namespace, which cannot be moved from in here",
            )  # fmt: skip
        for pid in pids:
            try:
                files.put(f"{leaf}/cgroup.procs", pid.decode())
            except errors.KernelError as error:
                if error.errno != errno.ESRCH:
                    raise
    raise errors.KernelError(errno.EBUSY, "write", (f"{leaf}/cgroup.procs",), "processes are forked faster than moved")


def delegate(unit: str, directory: str) -> None:
    """Have systemd make `directory`, the cgroup of a service with Delegate=yes: what lies below is ours.

    One for all containers of a store, made by the first start after a boot; the next thousand ask systemd nothing. A
    cgroup that systemd has made goes with its last process, so one sleeps in there, and `systemctl stop` ends it with
    every container. A service, because its process is systemd's own child: it holds nothing of whoever came first.

    runc, podman and docker have a scope for each container (org.freedesktop.systemd1(5), StartTransientUnit). No
    process need keep it; but each start waits for process 1, which made ours a fifth longer. One scope for all that
    lived by its containers would go with the last of them, perhaps while the next one begins.
    """
    said = systemd(
        "systemd-run", f"--unit={unit}", "--description=minicontainer: what its containers may use", "--collect",
        "--service-type=exec", *(f"--property={name}" for name in SERVICE), "sleep", "infinity", check=False,
    )  # fmt: skip
    if said:  # another start was first: this waits until its service is there
        refused = systemd("systemctl", "start", unit, check=False)
        if refused or not os.path.isdir(directory):
            raise errors.Unsupported(f"systemd did not make {unit}: {said}; {refused}".removesuffix("; "))
    move_to_leaf(directory)


# systemd.resource-control(5), systemd.service(5)
SERVICE = (
    "Delegate=yes",
    "TasksMax=infinity",  # else 15 % of what the machine may have, for all containers together
    "OOMPolicy=continue",  # a container out of memory is no reason to stop the others
    "TimeoutStopSec=10",  # as long as `stop` waits for one: process 1 of a container ignores SIGTERM unless it wants it
)


def systemd(program: str, *arguments: str, check: bool = True) -> str:
    """Ask systemd, and wait until it is done. What the program said if it failed, empty if it did not."""
    reader, writer = os.pipe()
    command = [program, "--quiet", "--no-ask-password", *arguments]
    try:
        asked = os.posix_spawnp(program, command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, writer, 2)])
    except FileNotFoundError:
        os.close(reader)
        raise errors.Unsupported(f"{program} is not installed: apt-get install systemd") from None
    finally:
        os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read().decode(errors="replace").strip()
    code = os.waitstatus_to_exitcode(os.waitpid(asked, 0)[1])
    if code and check:
        raise errors.Unsupported(f"{' '.join(command)}: {said}")
    return (said or f"{program} ended with {code}") if code else ""
