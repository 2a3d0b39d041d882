"""Limits as cgroup v1 spells them (Documentation/admin-guide/cgroup-v1): one hierarchy per controller.

Pure: `writes` turns the runtime spec's `linux.resources` into (file, value) pairs. The file's first word is the
controller, and so the hierarchy, that it lies in. Order matters, and is the order to write in: a period before its
quota, memory before memory+swap (the kernel keeps the second at or above the first at all times).
"""

from __future__ import annotations

from ... import errors

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Iterator
    from typing import Any

UNLIMITED = 1 << 62  # a memory limit as big as this is none: the kernel's is the largest number of whole pages

# A container joins these where they are mounted, limits or not: they count, freeze and guard it. cpuset, which has
# to be filled in all the way down before anybody may join, is joined only where it was asked for.
ALWAYS = ("cpu", "cpuacct", "memory", "devices", "freezer", "pids", "blkio")


def writes(resources: dict[str, Any]) -> list[tuple[str, str]]:
    """The values to write for `linux.resources` (config-linux.md of the OCI runtime spec), in this order."""
    return [
        *_cpu(resources.get("cpu") or {}),
        *_memory(resources.get("memory") or {}),
        *_pids(resources),
        *_disk(resources.get("blockIO") or {}),
        *huge(resources, "limit_in_bytes"),
        *adapters(resources),
        *_network(resources.get("network") or {}),
    ]


THROTTLES = {
    "throttleReadBpsDevice": ("read_bps", "rbps"), "throttleWriteBpsDevice": ("write_bps", "wbps"),
    "throttleReadIOPSDevice": ("read_iops", "riops"), "throttleWriteIOPSDevice": ("write_iops", "wiops"),
}  # fmt: skip


def _disk(blocks: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if blocks.get("weight"):
        yield "blkio.bfq.weight", str(blocks["weight"])
    for name, (file, _) in THROTTLES.items():
        for one in blocks.get(name) or ():
            yield f"blkio.throttle.{file}_device", f"{one['major']}:{one['minor']} {one['rate']}"


def huge(resources: dict[str, Any], file: str) -> Iterator[tuple[str, str]]:
    """Bounds on huge pages, by their size: 2MB, 1GB. The two versions' files differ in the end of their names."""
    for one in resources.get("hugepageLimits") or ():
        yield f"hugetlb.{one['pageSize']}.{file}", str(one["limit"])


def adapters(resources: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """rdma.max, the same on both versions (Documentation/admin-guide/cgroup-v1/rdma.rst): a line for each device."""
    for device, limits in (resources.get("rdma") or {}).items():
        words = {"hca_handle": limits.get("hcaHandles"), "hca_object": limits.get("hcaObjects")}
        yield "rdma.max", " ".join([device, *(f"{word}={value}" for word, value in words.items() if value is not None)])


def _network(network: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if network.get("classID"):
        yield "net_cls.classid", str(network["classID"])
    for one in network.get("priorities") or ():
        yield "net_prio.ifpriomap", f"{one['name']} {one['priority']}"


def _cpu(cpu: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if cpu.get("shares"):
        yield "cpu.shares", str(cpu["shares"])
    if cpu.get("period"):
        yield "cpu.cfs_period_us", str(cpu["period"])
    if cpu.get("quota"):
        yield "cpu.cfs_quota_us", str(cpu["quota"] if cpu["quota"] > 0 else -1)
    if cpu.get("burst"):
        yield "cpu.cfs_burst_us", str(cpu["burst"])
    if cpu.get("idle") is not None:
        yield "cpu.idle", str(cpu["idle"])
    if cpu.get("cpus"):
        yield "cpuset.cpus", cpu["cpus"]
    if cpu.get("mems"):
        yield "cpuset.mems", cpu["mems"]


def _memory(memory: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if memory.get("limit"):
        yield "memory.limit_in_bytes", str(memory["limit"])
    if memory.get("swap"):
        yield "memory.memsw.limit_in_bytes", str(memory["swap"])
    if memory.get("reservation"):
        yield "memory.soft_limit_in_bytes", str(memory["reservation"])
    if memory.get("kernelTCP"):
        yield "memory.kmem.tcp.limit_in_bytes", str(memory["kernelTCP"])
    if memory.get("swappiness") is not None:
        yield "memory.swappiness", str(memory["swappiness"])
    if memory.get("disableOOMKiller"):
        yield "memory.oom_control", "1"


def _pids(resources: dict[str, Any]) -> Iterator[tuple[str, str]]:
    limit = (resources.get("pids") or {}).get("limit")
    if limit:
        yield "pids.max", str(limit) if limit > 0 else "max"


def devices(rules: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The device rules, in the list's order, for devices.allow and devices.deny. Raises as `check_denials`.

    After an `a` the kernel reads no further: all devices. So an `a` that says less is a line for each type.
    """
    lines = []
    for rule in rules:
        kind = rule.get("type") or "a"
        file = "devices.allow" if rule.get("allow") else "devices.deny"
        numbers, access = [_number(rule, name) or "*" for name in ("major", "minor")], rule.get("access") or "rwm"
        if kind == "a" and numbers == ["*", "*"] and set(access) == set("rwm"):
            lines.append((file, "a"))
            continue
        lines += [(file, f"{one} {':'.join(numbers)} {access}") for one in ("bc" if kind == "a" else kind)]
    check_denials(lines)
    return lines


def check_denials(lines: list[tuple[str, str]]) -> None:
    """Raise Unsupported for a line that denies and that the kernel would ignore.

    It keeps a list of what is allowed where all else is denied, and strikes out what is written there in the very same
    words; no part of it, nor what is one (security/device_cgroup.c, dev_exception_rm).
    """
    usual, allowed = "devices.allow", dict[tuple[str, ...], set[str]]()  # by type, major, minor
    for file, line in lines:
        if line == "a":
            usual, allowed = file, {}
        elif usual == "devices.deny":
            kind, numbers, access = line.split()
            which = (kind, *numbers.split(":"))
            if file == "devices.allow":
                allowed[which] = allowed.get(which, set()) | set(access)
                continue
            for other, had in allowed.items():
                common = all(one == two or "*" in (one, two) for one, two in zip(which, other, strict=True))
                if common and other != which and had & set(access):
                    raise errors.Unsupported(
                        f"linux.resources.devices: cgroup v1 cannot deny `{line}` after it has allowed "
                        f"`{' '.join(other)}`: allow what is left, device by device"
                    )
            allowed[which] = allowed.get(which, set()) - set(access)


def _number(rule: dict[str, Any], name: str) -> str:
    value = rule.get(name)
    return "" if value is None or value < 0 else str(value)


def blocks(text: str) -> dict[str, int]:
    """Bytes read from and written to block devices, from blkio.throttle.io_service_bytes: `8:0 Read 4096` a line."""
    found = {"read": 0, "written": 0}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[1] in ("Read", "Write"):
            found["read" if words[1] == "Read" else "written"] += int(words[2])
    return found
