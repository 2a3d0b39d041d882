"""Leases: no address twice, none lost, and those just given back last."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minicontainer import errors, host
from minicontainer.network import Network, ipam


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Network:
    monkeypatch.setattr(host, "run_root", lambda: str(tmp_path))
    return Network("bridge", "mc0", "172.30.0.0/29", "172.30.0.1", 1500)


def test_the_first_address_follows_the_gateway(network: Network):
    assert ipam.lease(network, "a" * 64) == "172.30.0.2"
    assert ipam.lease(network, "b" * 64) == "172.30.0.3"
    assert ipam.leases(network) == {"a" * 64: "172.30.0.2", "b" * 64: "172.30.0.3"}


def test_the_same_container_gets_the_same_address(network: Network):
    assert ipam.lease(network, "a" * 64) == ipam.lease(network, "a" * 64)


def test_an_address_given_back_is_the_last_to_be_leased_again(network: Network):
    given = []
    for turn in range(7):
        given.append(ipam.lease(network, f"{turn:064x}"))
        ipam.release(network, f"{turn:064x}")
    assert given == [f"172.30.0.{last}" for last in (2, 3, 4, 5, 6, 2, 3)]


def test_exhausted_says_so(network: Network):
    for turn in range(5):
        ipam.lease(network, f"{turn:064x}")
    with pytest.raises(errors.Conflict, match=r"no address is free in network bridge, 172.30.0.0/29: all 5 are leased"):
        ipam.lease(network, "f" * 64)
    ipam.release(network, f"{3:064x}")
    assert ipam.lease(network, "f" * 64) == "172.30.0.5"


def test_releasing_twice_takes_nothing_from_the_next(network: Network):
    for turn in range(5):
        ipam.lease(network, f"{turn:064x}")
    ipam.release(network, f"{0:064x}")
    ipam.lease(network, "f" * 64)
    ipam.release(network, f"{0:064x}")
    assert ipam.leases(network)["f" * 64] == "172.30.0.2"
    ipam.release(network, "never heard of")


def test_a_crash_between_the_two_links_loses_nothing(network: Network):
    os.makedirs(ipam.directory(network))
    os.symlink("172.30.0.2", f"{ipam.directory(network)}/{'a' * 64}")  # died here
    assert ipam.lease(network, "b" * 64) == "172.30.0.2"
    ipam.release(network, "a" * 64)
    assert ipam.leases(network) == {"b" * 64: "172.30.0.2"}


def test_a_wanted_address(network: Network):
    assert ipam.lease(network, "a" * 64, "172.30.0.6") == "172.30.0.6"
    with pytest.raises(errors.Conflict, match=r"172.30.0.6 is leased by container aaaaaaaaaaaa"):
        ipam.lease(network, "b" * 64, "172.30.0.6")
    for wrong in ("172.30.0.1", "172.30.0.0", "172.30.0.7", "10.0.0.1", "x"):
        with pytest.raises(errors.InvalidArgument, match="is no address for a container of bridge"):
            ipam.lease(network, "b" * 64, wrong)


@pytest.mark.parametrize(
    "wrong", ["", "172.30.0.0", "172.30.0.1/16", "172.30.0.0/33", "172.30/16", "a/b", "1.2.3.4/-1"]
)
def test_what_is_no_subnet(wrong: str):
    with pytest.raises(errors.InvalidArgument, match="is not a subnet"):
        ipam.bounds(wrong)


def test_twenty_processes_at_a_time_never_share_an_address(network: Network, tmp_path: Path):
    program = f"""
import sys
from minicontainer import host
from minicontainer.network import Network, ipam
host.run_root = lambda: {str(tmp_path)!r}
network = Network("bridge", "mc0", "172.30.0.0/16", "172.30.0.1", 1500)
for turn in range(15):
    print(ipam.lease(network, f"{{sys.argv[1]}}x{{turn}}"))
    if turn % 3 == 0:
        ipam.release(network, f"{{sys.argv[1]}}x{{turn}}")
"""
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(each)], stdout=subprocess.PIPE, text=True)
        for each in range(20)
    ]
    leased = [address for process in running for address in process.communicate()[0].split()]
    assert len(leased) == len(set(leased)) == 300  # even those given back come round only after 65533 others
    assert len(ipam.leases(network)) == 200
