"""Where published ports lead while their container is plugged in and out: by sockets, and by the kernel's maps."""

import json
import socket
import time
from pathlib import Path

import pytest

from minicontainer.network import nat
from tests.conftest import minicontainer
from tests.laboratory import PAUSE, Inside, ask, ask_all, command, fresh_laboratory  # noqa: F401
from tests.network.test_reach import House, house  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("bridge", "veth", "nftables", "ip")]

PATIENCE = 20.0  # seconds for an answer that should come
LAN_NET = ["--subnet", "198.51.100.0/24", "--gateway", "198.51.100.2", "--ip-range", "198.51.100.128/25"]
PUBLISH = ["-p", "8000:80", "-p", "8000:80/udp"]
LISTED = "80/tcp -> 0.0.0.0:8000\n80/tcp -> [::]:8000\n80/udp -> 0.0.0.0:8000\n80/udp -> [::]:8000\n"
BOTH = ("tcp", "udp")
WAYS = [(protocol, way) for protocol in BOTH for way in ("127.0.0.1", "::1")]


def answer(protocol: str, address: str, port: int = 8000) -> str:
    """Who answers; a machine with much to do is asked again."""
    until = time.monotonic() + PATIENCE
    while not (found := ask(protocol, address, port)) and time.monotonic() < until:
        time.sleep(0.05)
    return (found or "nobody").partition(" ")[0]


def refusal(address: str) -> bool:
    """Whether who comes by TCP is sent away at once, and does not wait for somebody who does not come."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
        client.settimeout(PATIENCE)
        try:
            client.connect((address, 8000))
            return client.recv(1) == b""
        except ConnectionError:
            return True


def address(name: str, network: str) -> str:
    found = json.loads(minicontainer("inspect", name).stdout)[0]["NetworkSettings"]["Networks"]
    return str(found[network]["IPAddress"])


def leading(name: str, ways: bool) -> set[str]:
    """The addresses that the kernel's maps lead to for a container; and the commands say whether there are `ways`."""
    (found,) = json.loads(minicontainer("inspect", name).stdout)
    ports = found["NetworkSettings"]["Ports"]
    assert sum(len(every or ()) for every in ports.values()) == 4 * ways
    assert minicontainer("port", name).stdout == (LISTED if ways else "")
    assert minicontainer("ps", "--format", "{{.Names}} {{.Ports}}").stdout.count("8000->80/") == (4 if ways else 0)
    table = json.loads(command("nft", "-j", "list", "table", "inet", nat.table()))["nftables"]
    elements = [each for item in table if "map" in item for each in item["map"].get("elem", [])]
    return {value["concat"][0] for key, value in elements if key["elem"]["comment"] == found["Id"]}


def nowhere(name: str) -> None:
    assert leading(name, False) == set()
    assert refusal("127.0.0.1") and refusal("::1")
    assert ask_all([("udp", "127.0.0.1", 8000), ("udp", "::1", 8000)]) == [None, None]


def somewhere(name: str, network: str) -> None:
    assert leading(name, True) == {address(name, network)}
    assert {answer(*way) for way in WAYS} == {name}


def renewed(inside: Inside) -> None:
    """Wait until its monitor has become the small interpreter."""
    (line,) = [line for line in Path(f"/proc/{inside.pid}/status").read_text().splitlines() if line.startswith("PPid:")]
    monitor, until = Path(f"/proc/{line.split()[1]}/cmdline"), time.monotonic() + PATIENCE
    while b"go_on" not in monitor.read_bytes():
        assert time.monotonic() < until, "the monitor was not replaced"
        time.sleep(0.02)


def test_ports_follow_their_container_and_never_lead_to_another(house: House) -> None:
    for name in ("one", "two"):
        minicontainer("network", "create", name)
    web = house.run("web", "--network", "one", *PUBLISH)
    for protocol in BOTH:
        web.serve(protocol, 80, "web")
    somewhere("web", "one")
    for round_ in range(2):  # by the monitor as it began, and by the small interpreter
        before = address("web", "one")
        client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        client.settimeout(PATIENCE)
        client.connect(("::1", 8000))
        client.send(b"?")
        assert client.recv(100).startswith(b"web ")
        minicontainer("network", "disconnect", "one", "web")
        other = house.run("other", "--network", "one", "--ip", before)
        for protocol in BOTH:
            other.serve(protocol, 80, "other")
        assert answer("tcp", before, 80) == "other"
        client.send(b"?")
        assert minicontainer("network", "reload").stdout == ""
        nowhere("web")
        client.settimeout(PAUSE)
        with client, pytest.raises(OSError):
            client.recv(100)
        minicontainer("network", "connect", "two", "web")
        somewhere("web", "two")
        other.end()
        minicontainer("rm", "-f", "other")
        minicontainer("network", "connect", "one", "web")
        assert leading("web", True) == {address("web", "two")}  # the first of its networks
        minicontainer("network", "disconnect", "two", "web")
        somewhere("web", "one")
        if round_ == 0:
            renewed(web)
    web.end()
    minicontainer("network", "disconnect", "one", "web")
    minicontainer("restart", "-t", "0", "web")  # in none: its ports are kept all the same
    again = house.enter("web")
    nowhere("web")
    minicontainer("network", "connect", "two", "web")
    for protocol in BOTH:
        again.serve(protocol, 80, "web")
    somewhere("web", "two")


def test_ports_lead_to_the_first_network_that_lets_anybody_in(house: House) -> None:
    minicontainer("network", "create", "--internal", "closed")
    minicontainer("network", "create", "open")
    web = house.run("web", "--network", "closed", "--network", "open", *PUBLISH)
    for protocol in BOTH:
        web.serve(protocol, 80, "web")
    somewhere("web", "open")
    minicontainer("network", "disconnect", "closed", "web")
    minicontainer("network", "connect", "closed", "web")
    minicontainer("network", "disconnect", "open", "web")
    nowhere("web")
    web.end()
    minicontainer("restart", "-t", "0", "web")  # in an internal network alone
    again = house.enter("web")
    for protocol in BOTH:
        again.serve(protocol, 80, "web")
    nowhere("web")
    assert minicontainer("network", "reload").stdout == ""
    command("nft", "flush", "ruleset")
    minicontainer("network", "connect", "open", "web")
    somewhere("web", "open")
    minicontainer("rm", "-f", "web")
    house.run("next", "-p", "8000:80")  # nobody holds the port any more


@pytest.mark.needs("macvlan")
def test_ports_do_not_lead_into_a_lan(house: House) -> None:
    minicontainer("network", "create", "-d", "macvlan", "-o", "parent=lan0", *LAN_NET, "outside")
    web = house.run("web", "--network", "outside", "--network", "bridge", *PUBLISH)
    for protocol in BOTH:
        web.serve(protocol, 80, "web")
    somewhere("web", "bridge")
    minicontainer("network", "disconnect", "bridge", "web")
    nowhere("web")
