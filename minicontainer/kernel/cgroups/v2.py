"""Limits as cgroup v2 spells them (Documentation/admin-guide/cgroup-v2.rst): one hierarchy, and devices by BPF.

Pure: `writes` turns the runtime spec's `linux.resources` into (file, value) pairs, and `device_program` turns device
rules into the eBPF program that the kernel asks at every open and mknod. Conversions are those of runc and crun,
each named where it stands, so that `--cpu-shares 512` means the same everywhere.
"""

from __future__ import annotations

from ... import errors
from . import v1

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Iterator
    from typing import Any

# Enabled for every container where the kernel has them; cpuset only where it was asked for.
ALWAYS = ("cpu", "memory", "pids", "io")

BFQ = "io.bfq.weight"  # there with the scheduler's module alone

BPF_PROG_TYPE_CGROUP_DEVICE = 15  # linux/bpf.h
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2


def writes(resources: dict[str, Any]) -> list[tuple[str, str]]:
    """The values to write for `linux.resources`, in this order. Unsupported for what v2 has no file for."""
    return [
        *_cpu(resources.get("cpu") or {}),
        *_memory(resources.get("memory") or {}),
        *_pids(resources),
        *_disk(resources.get("blockIO") or {}),
        *v1.huge(resources, "max"),
        *v1.adapters(resources),
        *_network(resources.get("network") or {}),
        *((name, str(value)) for name, value in (resources.get("unified") or {}).items()),
    ]


def weight(shares: int) -> int:
    """cpu.weight (1 to 10000, 100 unless told) for v1's cpu.shares (2 to 262144, 1024 unless told).

    The curve through these three pairs of runc 1.3.2 and crun 1.23 (opencontainers/cgroups utils.go,
    ConvertCPUSharesToCgroupV2Value). The straight line of older versions made 1024 into 39.
    """
    from math import ceil, log2

    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    length = log2(shares)
    return ceil(10 ** ((length * length + 125 * length) / 612 - 7 / 34))


def cost_weight(weight: int) -> int:
    """io.weight (1 to 10000) for a weight of 10 to 1000 (opencontainers/cgroups, ConvertBlkIOToIOWeightValue)."""
    return 1 + (weight - 10) * 9999 // 990


def _cpu(cpu: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if cpu.get("shares"):
        yield "cpu.weight", str(weight(cpu["shares"]))
    if cpu.get("quota") or cpu.get("period"):
        quota = cpu.get("quota") or -1
        yield "cpu.max", f"{quota if quota > 0 else 'max'} {cpu.get('period') or 100000}"
    if cpu.get("burst"):
        yield "cpu.max.burst", str(cpu["burst"])
    if cpu.get("idle") is not None:
        yield "cpu.idle", str(cpu["idle"])
    if cpu.get("cpus"):
        yield "cpuset.cpus", cpu["cpus"]
    if cpu.get("mems"):
        yield "cpuset.mems", cpu["mems"]


def _memory(memory: dict[str, Any]) -> Iterator[tuple[str, str]]:
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    if limit:
        yield "memory.max", _bytes(limit)
    if swap:
        # The spec's number is memory and swap together, the file's is swap alone (runc's
        # ConvertMemorySwapToCgroupV2Value).
        if swap > 0 and limit <= 0:
            raise errors.InvalidArgument("a limit on memory and swap together needs a limit on memory")
        if 0 < swap < limit:
            raise errors.InvalidArgument(f"memory and swap together ({swap}) is less than memory alone ({limit})")
        yield "memory.swap.max", _bytes(swap - limit if swap > 0 else swap)
    if memory.get("reservation"):
        yield "memory.low", _bytes(memory["reservation"])
    if memory.get("swappiness") is not None:
        raise errors.Unsupported("cgroup v2 has no swappiness for one container: set sysctl vm.swappiness, or leave it")
    if memory.get("disableOOMKiller"):
        raise errors.Unsupported("cgroup v2 cannot disable the OOM killer for one container: leave the flag out")


def _bytes(value: int) -> str:
    return str(value) if value >= 0 else "max"


def _disk(blocks: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if blocks.get("weight"):
        yield BFQ, str(blocks["weight"])
    for name, (_, word) in v1.THROTTLES.items():
        for one in blocks.get(name) or ():
            yield "io.max", f"{one['major']}:{one['minor']} {word}={one['rate']}"


def _network(network: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if network:
        raise errors.Unsupported(
            "linux.resources.network cannot be had: cgroup v2 has neither net_cls nor net_prio; nftables knows a cgroup"
        )
    yield from ()


def _pids(resources: dict[str, Any]) -> Iterator[tuple[str, str]]:
    limit = (resources.get("pids") or {}).get("limit")
    if limit:
        yield "pids.max", str(limit) if limit > 0 else "max"


def blocks(text: str) -> dict[str, int]:
    """Bytes read from and written to block devices, from io.stat: `8:0 rbytes=4096 wbytes=0 …` a line."""
    found = {"read": 0, "written": 0}
    for line in text.splitlines():
        for key, _, value in (word.partition("=") for word in line.split()[1:]):
            if key in ("rbytes", "wbytes"):
                found["read" if key == "rbytes" else "written"] += int(value)
    return found


# An assembler for the few instructions that device rules need (Documentation/bpf/standardization/instruction-set.rst).
# r1 points to struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }: the type of the device in the low
# half of the first word (1 block, 2 char), what is wanted in the high half (1 mknod, 2 read, 4 write).

TYPES = {"b": 1, "c": 2}
ACCESS = {"m": 1, "r": 2, "w": 4}


def instruction(code: int, destination: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    """One struct bpf_insn."""
    registers = bytes((code, source << 4 | destination))
    return registers + offset.to_bytes(2, "little", signed=True) + (immediate & 0xFFFFFFFF).to_bytes(4, "little")


def load_word(register: int, offset: int) -> bytes:
    """register = *(u32 *)(r1 + offset)"""
    return instruction(0x61, register, 1, offset)


def move(register: int, source: int) -> bytes:
    """register = source register, 32 bits"""
    return instruction(0xBC, register, source)


def set_to(register: int, value: int) -> bytes:
    """register = value"""
    return instruction(0xB7, register, immediate=value)


def mask(register: int, value: int) -> bytes:
    """register &= value, 32 bits"""
    return instruction(0x54, register, immediate=value)


def shift_right(register: int, count: int) -> bytes:
    """register >>= count, 32 bits"""
    return instruction(0x74, register, immediate=count)


def skip_unless_equal(register: int, value: int, count: int) -> bytes:
    """if register != value, skip `count` instructions; 32 bits"""
    return instruction(0x56, register, offset=count, immediate=value)


def skip_if_equal(register: int, value: int, count: int) -> bytes:
    """if register == value, skip `count` instructions; 32 bits"""
    return instruction(0x16, register, offset=count, immediate=value)


LEAVE = instruction(0x95)


def device_program(rules: list[dict[str, Any]]) -> bytes:
    """A BPF_PROG_TYPE_CGROUP_DEVICE program: the last rule that matches decides; where none does, the answer is yes.

    A rule that allows matches when it grants all that is wanted; one that denies, when it takes any of it.
    """
    code = [load_word(2, 0), move(3, 2), mask(2, 0xFFFF), shift_right(3, 16), load_word(4, 4), load_word(5, 8)]
    for rule in reversed(rules):
        test: list[tuple[bool, int, int]] = []  # (equal?, register, value) that a matching device passes
        body: list[bytes] = []
        if rule.get("type", "a") in TYPES:
            test.append((True, 2, TYPES[rule["type"]]))
        for register, name in ((4, "major"), (5, "minor")):
            value = rule.get(name)
            if value is not None and value >= 0:
                test.append((True, register, value))
        granted = sum(ACCESS[letter] for letter in set(rule.get("access") or "rwm"))
        if granted != 7:
            body = [move(6, 3), mask(6, ~granted & 7 if rule.get("allow") else granted)]
            test.append((bool(rule.get("allow")), 6, 0))
        verdict = [set_to(0, 1 if rule.get("allow") else 0), LEAVE]
        # Every test that fails jumps behind the verdict; count the instructions still to come.
        tail = len(body) + len(test) + len(verdict)
        for equal, register, value in test:
            if register == 6:
                code += body
                tail -= len(body)
            tail -= 1
            code.append((skip_unless_equal if equal else skip_if_equal)(register, value, tail))
        code += verdict
        if not test:  # it matches everything: what would follow is out of reach, and the verifier refuses that
            return b"".join(code)
    return b"".join([*code, set_to(0, 1), LEAVE])
