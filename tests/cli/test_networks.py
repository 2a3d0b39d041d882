"""Networks by name: who reaches whom, by real sockets in the containers' own network namespaces."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer import errors, syscalls
from minicontainer.engine import networks
from minicontainer.engine.client import Client
from tests import leftovers
from tests.conftest import minicontainer
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("bridge", "veth", "nftables", "ip")]


@pytest.fixture(autouse=True)
def nothing_stays(shop: Shop) -> Iterator[None]:
    """What a test has left is removed; then no device but the default bridge is there, and no network's file."""
    before = set(os.listdir("/sys/class/net"))
    yield
    names = minicontainer("ps", "-aq").stdout.split()
    if names:
        minicontainer("rm", "-f", "-v", *names)
    minicontainer("network", "prune", "-f")
    assert leftovers.none_within(shop.root, shop.suffix) == []
    assert {name for name in os.listdir("/sys/class/net") if name.endswith(shop.suffix)} - before <= {
        f"mc0{shop.suffix}"
    }
    assert {path.name for path in shop.root.glob("networks/*")} <= {"bridge.json"}


class End:
    """A container that sleeps, and sockets in its network namespace."""

    def __init__(self, name: str, *flags: str) -> None:
        self.name = name
        minicontainer("run", "-d", "--name", name, *flags, "plain", "sleep", "1000")
        self.look()

    def look(self) -> dict[str, Any]:
        """What `inspect` says; its pid and its addresses are remembered."""
        found: dict[str, Any] = json.loads(minicontainer("inspect", self.name).stdout)[0]
        self.pid = found["State"]["Pid"]
        networks = found["NetworkSettings"]["Networks"]
        self.addresses = {name: end["IPAddress"] for name, end in networks.items()}
        return found

    def ip(self, *words: str) -> Any:
        """`ip -json` in there: the kernel's own word."""
        command = ["nsenter", "-t", str(self.pid), "-n", "ip", "-json", *words]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout or "[]")

    def serve(self, port: int = 80) -> socket.socket:
        """A socket that listens in there."""
        with syscalls.inside_network(self.pid):
            opened = socket.socket()
            opened.bind(("0.0.0.0", port))
            opened.listen()
        return opened

    def reaches(self, address: str, port: int = 80) -> bool:
        """Whether a connection from in there is accepted. What is dropped is given a second."""
        with syscalls.inside_network(self.pid):
            opened = socket.socket()
        with opened:
            opened.settimeout(1)
            try:
                opened.connect((address, port))
                return True
            except OSError:
                return False


def create(*words: str) -> str:
    """`network create`; the id."""
    return minicontainer("network", "create", *words).stdout.strip()


def refused(*words: str) -> str:
    """The sentence of a command that must fail with 1."""
    done = minicontainer(*words, check=False)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stderr


def device(name: str) -> str:
    """The bridge of a network."""
    form = '{{index .Options "com.docker.network.bridge.name"}}'
    return minicontainer("network", "inspect", "-f", form, name).stdout.strip()


# ------------------------------------------------------------------------------------------------- made, seen, removed


def test_a_network_is_a_bridge_and_goes_with_it() -> None:
    identifier = create("--label", "a=b", "backend")
    assert len(identifier) == 64
    bridge = device("backend")
    (link,) = json.loads(subprocess.run(["ip", "-json", "addr", "show", bridge], capture_output=True, text=True).stdout)
    (found,) = json.loads(minicontainer("network", "inspect", identifier[:8]).stdout)
    pool = found["IPAM"]["Config"][0]
    assert pool["Gateway"] in [address["local"] for address in link["addr_info"]] and "UP" in link["flags"]
    assert found["Labels"] == {"a": "b"} and found["Created"].startswith("20")
    listed = minicontainer("network", "ls", "--format", "{{.ID}} {{.Name}} {{.Driver}}").stdout.split("\n")
    assert f"{identifier[:12]} backend bridge" in listed
    assert minicontainer("network", "ls", "-q", "--no-trunc", "-f", "label=a=b").stdout == f"{identifier}\n"
    assert minicontainer("network", "rm", "backend").stdout == "backend\n"
    assert not Path("/sys/class/net", bridge).exists()
    assert "network backend not found" in refused("network", "rm", "backend")


def test_two_networks_never_have_one_subnet() -> None:
    create("one")
    create("two")
    subnets = [
        minicontainer("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", name).stdout
        for name in ("one", "two")
    ]
    assert subnets[0] != subnets[1]
    assert "overlaps with network one" in refused("network", "create", "--subnet", subnets[0].strip(), "three")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("bridge",), "already exists"),
        (("x",), "no name for a network"),
        (("--subnet", "10.1.2.3/24", "net"), "not a subnet"),
        (("--subnet", "10.151.0.0/31", "net"), "no room"),
        (("--subnet", "10.151.0.0/24", "--gateway", "10.9.0.1", "net"), "no address in"),
        (("--subnet", "10.151.0.0/24", "--ip-range", "10.152.0.0/25", "net"), "not within"),
        (("--driver", "overlay", "net"), "no network driver"),
        (("-o", "nosuch=1", "net"), "no option 'nosuch'"),
        (("-o", "mtu=3", "net"), "MTU"),
    ],
    ids=str,
)
def test_what_cannot_be_made_is_refused_and_leaves_nothing(words: tuple[str, ...], complaint: str) -> None:
    assert complaint in refused("network", "create", *words)


def test_a_subnet_of_the_hosts_routes_is_refused(shop: Shop) -> None:
    link = f"dm{shop.suffix}"
    subprocess.run(["ip", "link", "add", link, "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "addr", "add", "10.152.9.1/24", "dev", link], check=True)
        subprocess.run(["ip", "link", "set", link, "up"], check=True)
        assert f"a route of this host through {link}" in refused("network", "create", "--subnet", "10.152.0.0/16", "n2")
    finally:
        subprocess.run(["ip", "link", "del", link], check=True)


def test_a_monitor_that_has_been_stopped_is_said_and_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    create("net")
    web = End("web", "--network", "net", "-p", "127.0.0.1::80")
    parent = int(Path(f"/proc/{web.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGSTOP)
    try:
        monkeypatch.setattr(networks, "PATIENCE", 0.2)
        with pytest.raises(errors.Conflict, match=r"has not answered for 0\.2 seconds"):
            Client().networks.disconnect("net", "web")
        assert [device["ifname"] for device in web.ip("link")] == ["lo", "eth0"]
    finally:
        os.kill(parent, signal.SIGCONT)
    minicontainer("network", "disconnect", "net", "web")
    assert [device["ifname"] for device in web.ip("link")] == ["lo"]


def test_one_that_is_in_use_stays(shop: Shop) -> None:
    create("busy")
    End("web", "--network", "busy")
    assert "active endpoints: web" in refused("network", "rm", "busy")
    assert minicontainer("network", "prune", "-f").stdout == ""
    minicontainer("rm", "-f", "web")
    assert minicontainer("network", "prune", "-f").stdout == "Deleted Networks:\nbusy\n\n"


# ---------------------------------------------------------------------------------------------------------- addresses


def test_addresses_are_taken_from_the_range_and_reused_last() -> None:
    create("--subnet", "10.151.0.0/24", "--ip-range", "10.151.0.8/30", "net")
    first = End("first", "--network", "net")
    assert first.addresses == {"net": "10.151.0.8"}
    minicontainer("rm", "-f", "first")
    got = [End(f"c{number}", "--network", "net").addresses["net"] for number in range(4)]
    assert got == ["10.151.0.9", "10.151.0.10", "10.151.0.11", "10.151.0.8"]
    done = minicontainer("run", "--rm", "--network", "net", "plain", "true", check=False)
    assert done.returncode == 125 and "no address is free in network net" in done.stderr
    chosen = End("chosen", "--network", "net", "--ip", "10.151.0.77", "--mac-address", "02:00:00:00:00:77")
    (eth0,) = chosen.ip("-4", "addr", "show", "dev", "eth0")
    assert eth0["addr_info"][0]["local"] == "10.151.0.77"
    assert chosen.ip("link", "show", "dev", "eth0")[0]["address"] == "02:00:00:00:00:77"
    taken = minicontainer("run", "--rm", "--network", "net", "--ip", "10.151.0.77", "plain", "true", check=False)
    assert taken.returncode == 125 and "10.151.0.77 is leased by container" in taken.stderr


def test_a_container_keeps_its_networks_when_it_starts_again() -> None:
    create("--subnet", "10.151.0.0/24", "net")
    web = End("web", "--network", "net", "--ip", "10.151.0.50")
    minicontainer("restart", "-t", "0", "web")
    web.look()
    assert web.addresses == {"net": "10.151.0.50"}
    minicontainer("stop", "-t", "0", "web")
    minicontainer("network", "rm", "net")
    assert "no such network: net" in refused("start", "web")


# ------------------------------------------------------------------------------------------------- who reaches whom


def test_containers_of_one_network_reach_one_another_and_nobody_elses() -> None:
    create("one")
    create("two")
    a, b, c = End("ann", "--network", "one"), End("bob", "--network", "one"), End("eve", "--network", "two")
    with b.serve(), c.serve():
        assert a.reaches(b.addresses["one"])
        assert not a.reaches(c.addresses["two"])


def test_an_internal_network_has_no_way_out_whatever_routes_a_container_makes() -> None:
    create("--internal", "closed")
    create("open")
    inside, sibling = (
        End("inside", "--network", "closed", "--cap-add", "NET_ADMIN"),
        End("sibling", "--network", "closed"),
    )
    outside = End("outside", "--network", "open")
    assert inside.ip("route", "show", "default") == []
    gateway = minicontainer("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "closed").stdout.strip()
    minicontainer("exec", "--privileged", "inside", "ip", "route", "add", "default", "via", gateway)
    with sibling.serve(), outside.serve():
        assert inside.reaches(sibling.addresses["closed"])
        assert not inside.reaches(outside.addresses["open"])
        assert not outside.reaches(sibling.addresses["closed"])
    for words in (["-p", "18091:80"], ["-P", "--expose", "80"]):
        done = minicontainer("run", "--rm", "--network", "closed", *words, "plain", "true", check=False)
        assert done.returncode == 125 and "internal" in done.stderr
    minicontainer("run", "--rm", "--network", "closed", "-P", "plain", "true")  # it exposes none


def test_without_icc_siblings_do_not_hear_one_another() -> None:
    create("-o", "com.docker.network.bridge.enable_icc=false", "apart")
    a, b = End("ann", "--network", "apart"), End("bob", "--network", "apart")
    with b.serve():
        assert not a.reaches(b.addresses["apart"])
        with socket.create_connection((b.addresses["apart"], 80), timeout=30):
            pass  # the host itself does


# ------------------------------------------------------------------------------------------------ plugged in and out


def test_a_running_container_is_plugged_in_and_out() -> None:
    create("one")
    create("two")
    a, b = End("ann", "--network", "one"), End("bob", "--network", "two")
    with b.serve():
        minicontainer("network", "connect", "--alias", "first", "two", "ann")
        a.look()
        (eth1,) = a.ip("-4", "addr", "show", "dev", "eth1")
        assert eth1["addr_info"][0]["local"] == a.addresses["two"]
        assert f"{a.addresses['two']}\t" in minicontainer("exec", "ann", "cat", "/etc/hosts").stdout
        assert a.reaches(b.addresses["two"])
        assert "already exists in network two" in refused("network", "connect", "two", "ann")
        minicontainer("network", "disconnect", "one", "ann")
        a.look()
        assert list(a.addresses) == ["two"]
        assert [link["ifname"] for link in a.ip("link")] == ["lo", "eth1"]
        assert a.ip("route", "show", "default")[0]["dev"] == "eth1"
        assert a.reaches(b.addresses["two"])
    assert "is not connected to network one" in refused("network", "disconnect", "one", "ann")
    for verb in ("connect", "disconnect"):
        assert "host is no network to be plugged into" in refused("network", verb, "host", "ann")
    minicontainer("restart", "-t", "0", "ann")
    a.look()
    assert list(a.addresses) == ["two"] and [link["ifname"] for link in a.ip("link")] == ["lo", "eth0"]


def test_one_begun_without_a_network_asks_for_names_once_it_is_in_one() -> None:
    create("net")
    web, db = End("web", "--network", "none"), End("db", "--network", "net")
    for _ in range(2):
        minicontainer("network", "connect", "net", "web")
        assert "nameserver 127.0.0.11\n" in minicontainer("exec", "web", "cat", "/etc/resolv.conf").stdout
        found = minicontainer("exec", "web", "busybox", "nslookup", "db").stdout
        assert f"Address: {db.addresses['net']}" in found
        minicontainer("network", "disconnect", "net", "web")
    minicontainer("network", "connect", "net", "web")
    minicontainer("restart", "-t", "0", "web")
    assert f"Address: {db.addresses['net']}" in minicontainer("exec", "web", "busybox", "nslookup", "db").stdout
    assert web.look()["HostConfig"]["NetworkMode"] == "net"


def test_two_networks_from_the_start_and_one_way_out() -> None:
    create("--internal", "closed")
    create("open")
    both = End("both", "--network", "closed", "--network", "open")
    assert both.ip("route", "show", "default")[0]["dev"] == "eth1"
    assert set(both.addresses) == {"closed", "open"}
    minicontainer("rm", "-f", "both")


def test_one_that_does_not_run_is_plugged_in_at_its_next_start() -> None:
    create("later")
    minicontainer("create", "--name", "web", "plain", "sleep", "1000")
    minicontainer("network", "connect", "later", "web")
    minicontainer("start", "web")
    found = json.loads(minicontainer("inspect", "web").stdout)[0]["NetworkSettings"]["Networks"]
    assert list(found) == ["bridge", "later"] and all(end["IPAddress"] for end in found.values())


def test_a_connect_that_fails_leaves_the_container_as_it_was() -> None:
    create("--subnet", "10.151.0.0/24", "net")
    web = End("web")
    assert "is no address" in refused("network", "connect", "--ip", "10.9.9.9", "net", "web")
    web.look()
    assert list(web.addresses) == ["bridge"]
    assert [link["ifname"] for link in web.ip("link")] == ["lo", "eth0"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--network", "nosuch"), "no such network: nosuch"),
        (("--network", "none", "--ip", "10.0.0.1"), "there is no address"),
        (("--network", "host", "--network", "bridge"), "cannot go together"),
        (("--network", "bridge", "--mac-address", "01:00:00:00:00:00"), "address of a group"),
        (("--network", "bridge", "--mac-address", "02:00"), "no MAC address"),
    ],
    ids=str,
)
def test_a_network_that_cannot_be_is_refused(shop: Shop, words: tuple[str, ...], complaint: str) -> None:
    assert complaint in shop.refused(125, *words, "plain", "true")


def test_a_script_of_a_start_in_two_networks_does_the_same(shop: Shop, tmp_path: Path) -> None:
    create("one")
    create("two")
    command = ["run", "--rm", "--network", "one", "--network", "two", "--explain=sh", "plain", "ip", "-4", "addr"]
    script = tmp_path / "start.sh"
    script.write_text(minicontainer(*command).stdout)
    done = subprocess.run(["sh", str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "eth0" in done.stdout and "eth1" in done.stdout


def test_the_library_has_dockers_words(shop: Shop) -> None:
    program = """
from minicontainer.engine import client
networks = client.Client().networks
made = networks.create("fromlib", labels={"a": "b"})
print(made.name in [network.name for network in networks.list()], networks.remove("fromlib"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True fromlib\n"
