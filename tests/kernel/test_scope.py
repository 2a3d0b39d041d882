"""What systemd is asked for: names, paths and limits in its words. How it answers: tests/vm/test_systemd.py."""

import pytest

from minicontainer import errors
from minicontainer.kernel.cgroups import scope


@pytest.mark.parametrize(
    ("path", "unit", "below"),
    [
        ("system.slice:docker:abc", "docker-abc.scope", "/system.slice"),
        ("machine.slice:libpod:abc", "libpod-abc.scope", "/machine.slice"),
        ("a-b-c.slice::x", "-x.scope", "/a.slice/a-b.slice/a-b-c.slice"),
        ("-.slice:p:x", "p-x.scope", ""),
        (":p:x", "p-x.scope", "/system.slice"),
        ("", "minicontainer-id.scope", "/system.slice"),
    ],
)
def test_which_unit_a_path_means(path: str, unit: str, below: str) -> None:
    assert scope.meant(path, "id")[::2] == (unit, f"{below}/{unit}")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/docker/abc", 'to be of format "slice:prefix:name" for systemd cgroups, got "/docker/abc" instead'),
        ("a.slice:b:", "slice:prefix:name"),
        ("a/../b.slice:p:x", "not the name of a slice"),
        ("a--b.slice:p:x", "not the name of a slice"),
        ("a-.slice:p:x", "not the name of a slice"),
        ("a.service:p:x", "not the name of a slice"),
        ("a.slice:../p:x", "no slash"),
        ("a.slice:p:x.slice", "in a scope, not in a slice"),
    ],
)
def test_what_names_no_scope(path: str, said: str) -> None:
    with pytest.raises(errors.MiniContainerError, match=said):
        scope.meant(path, "id")


def test_limits_in_the_words_of_systemd() -> None:
    """As runc words them: processor time in whole hundredths, rounded up; processors as bits."""
    resources = {
        "cpu": {"shares": 1024, "quota": 12345, "period": 50000, "cpus": "0-2,9", "mems": "0"},
        "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 1 << 20},
        "blockIO": {"weight": 500},
        "unified": {"memory.high": "max", "io.weight": "default 50", "memory.oom.group": "1"},
    }
    assert dict(scope.properties(resources)) == {
        "CPUWeight": ("t", 100),
        "CPUQuotaPerSecUSec": ("t", 250000),
        "CPUQuotaPeriodUSec": ("t", 50000),
        "AllowedCPUs": ("ay", bytes([0b111, 0b10])),
        "AllowedMemoryNodes": ("ay", bytes([1])),
        "MemoryMax": ("t", 64 << 20),
        "MemorySwapMax": ("t", 32 << 20),
        "MemoryLow": ("t", 1 << 20),
        "MemoryHigh": ("t", 2**64 - 1),
        "IOWeight": ("t", 4950),
        "OOMPolicy": ("s", "kill"),
        "TasksMax": ("t", 2**64 - 1),
    }
    assert dict(scope.properties({"cpu": {"period": 100000}}))["CPUQuotaPerSecUSec"] == ("t", 2**64 - 1)


@pytest.mark.parametrize(
    ("file", "value"),
    [
        ("memory.high", "64M"), ("memory.max", "-2"), ("memory.max", str(1 << 64)), ("cpu.weight", "idle"),
        ("cpu.max", "1 0"), ("cpu.max", ""), ("cpuset.cpus", "0-"), ("cpuset.cpus", "2-1"), ("cpuset.mems", "x"),
        ("cpuset.cpus", "0-99999999999"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_to_systemd(file: str, value: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=f"^{file}: '{value}' cannot be said to systemd"):
        scope.properties({"unified": {file: value}})
