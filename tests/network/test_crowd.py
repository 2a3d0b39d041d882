"""Two hundred containers in twenty networks, begun and removed ten at a time: nothing is lost, and nothing is left."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests import leftovers
from tests.conftest import minicontainer
from tests.laboratory import Laboratory, command, fresh_laboratory  # noqa: F401
from tests.network.test_reach import listed

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.needs("bridge", "veth", "nftables", "ip", "ipv6")]

CONTAINERS, NETWORKS, AT_ONCE = 200, 20, 10


def at_once(commands: Iterable[list[str]]) -> None:
    """Commands of ours, ten at the same time."""
    waiting = list(commands)
    while waiting:
        words = [[sys.executable, "-m", "minicontainer", *command] for command in waiting[:AT_ONCE]]
        del waiting[:AT_ONCE]
        running = [
            subprocess.Popen(each, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for each in words
        ]
        for process in running:
            _, complaint = process.communicate(timeout=120)
            assert process.returncode == 0, complaint


def devices() -> list[str]:
    """Their names."""
    return sorted(link["ifname"] for link in json.loads(command("ip", "-json", "link")))


def cables() -> list[str]:
    """The host's ends of veth pairs: each goes with its namespace, which the kernel takes down in its own time."""
    return [name for name in devices() if name.startswith("veth")]


def wait_for(count: int, found: Callable[[], list]) -> None:
    """Until as many are found, which takes a moment after each first question and after each end."""
    end = time.monotonic() + 60
    while len(found()) != count:
        assert time.monotonic() < end, f"{len(found())}, not {count}: {found()}"
        time.sleep(0.05)


@pytest.mark.timeout(600)
def test_two_hundred_containers_in_twenty_networks(laboratory: Laboratory, tmp_path: Path) -> None:
    store = tmp_path / "store"
    suffix = leftovers.suffix(store)
    table = f"minicontainer{suffix}"
    with leftovers.store_with_busybox(store):
        minicontainer("run", "--rm", "busybox", "true")  # the default network is there, and stays
        wait_for(0, cables)
        before = listed(table), devices()
        names = [f"net{number}" for number in range(NETWORKS)]
        at_once(["network", "create", *(["--ipv6"] if number % 2 else []), name] for number, name in enumerate(names))
        at_once(
            ["run", "-d", "--name", f"c{number}", "--network", names[number % NETWORKS], "-p", "80", "busybox",
             "sh", "-c", 'nslookup "$(hostname)"; exec sleep 1000']
            for number in range(CONTAINERS)
        )  # fmt: skip
        found = json.loads(minicontainer("inspect", *minicontainer("ps", "-q").stdout.split()).stdout)
        ends = [end for each in found for end in each["NetworkSettings"]["Networks"].values()]
        four = {end["IPAddress"] for end in ends}
        six = {end["GlobalIPv6Address"] for end in ends} - {""}
        ports = {place["HostPort"] for each in found for place in each["NetworkSettings"]["Ports"]["80/tcp"]}
        assert (len(found), len(four), len(six), len(ports)) == (CONTAINERS, CONTAINERS, CONTAINERS // 2, CONTAINERS)
        assert len(cables()) == CONTAINERS
        wait_for(NETWORKS, lambda: leftovers.resolvers(store))
        at_once(["rm", "-f", each["Id"]] for each in found)
        wait_for(0, lambda: leftovers.resolvers(store))
        wait_for(0, cables)
        assert leftovers.none_within(store, suffix) == []
        at_once(["network", "rm", name] for name in names)
        assert (listed(table), devices()) == before
        assert os.listdir(f"/run/minicontainer{suffix}/leases") == ["bridge"]
        assert minicontainer("system", "check").stdout == "nothing is wrong\n"
