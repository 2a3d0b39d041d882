"""The machine of `./dev vm` is what the other tests take it for. Asks the kernel alone, nothing of ours."""

from pathlib import Path

import pytest

from tests import conftest

CGROUPS = Path("/sys/fs/cgroup")


def test_cgroup_v2_is_all_there_is() -> None:
    mounted = [line.split(" - ")[1].split()[0] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    assert "cgroup" not in mounted
    assert mounted.count("cgroup2") == 1
    assert {"cpu", "cpuset", "memory", "pids"} <= set((CGROUPS / "cgroup.controllers").read_text().split())


@pytest.mark.parametrize(
    "feature",
    ["overlay", "user-overlay", "user-namespace", "bridge", "veth", "macvlan", "ipvlan", "nftables", "resource-limits"],
)
def test_nothing_need_be_skipped_here(feature: str) -> None:
    assert conftest.missing(feature) is None
