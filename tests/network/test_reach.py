"""Who reaches a published port, by sockets: everybody, over every way; with real containers, and docker's rules."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import engine_fixtures, leftovers
from tests.conftest import minicontainer
from tests.laboratory import Inside, Laboratory, Machine, ask, command, fresh_laboratory  # noqa: F401
from tests.network.test_nat import DOCKER, WHOLE_DOCKER, load

pytestmark = [pytest.mark.root, pytest.mark.needs("bridge", "veth", "nftables", "ip")]

LAN_SIDE, LAN = "198.51.100.1", "198.51.100.2"
LAN_SIDE6, LAN6 = "fd00:51::1", "fd00:51::2"


class House:
    """The host of a laboratory, with a store, and a computer in the LAN."""

    def __init__(self, laboratory: Laboratory, store: Path) -> None:
        archive = store / "images.tar"
        archive.write_bytes(engine_fixtures.archive(engine_fixtures.images()))
        minicontainer("load", "-q", "-i", str(archive))
        self.laboratory = laboratory
        self.store = store / "store"
        self.lan = laboratory.neighbour("lan0", LAN_SIDE, LAN)
        command("ip", "address", "add", f"{LAN_SIDE6}/64", "dev", "lan0", "nodad")
        self.lan.ip("address", "add", f"{LAN6}/64", "dev", "eth0", "nodad")
        self.inside: list[Inside] = []

    def run(self, name: str, *flags: str) -> Inside:
        """A container, by its network."""
        minicontainer("run", "-d", "--name", name, *flags, "plain", "sleep", "600")
        return self.enter(name)

    def enter(self, name: str) -> Inside:
        made = Inside(json.loads(minicontainer("inspect", name).stdout)[0]["State"]["Pid"])
        self.inside.append(made)
        return made

    def end(self) -> None:
        for each in self.inside:
            each.end()
        names = minicontainer("ps", "-aq").stdout.split()
        if names:
            minicontainer("rm", "-f", *names)
        minicontainer("system", "reset", "--force")


@pytest.fixture
def house(laboratory: Laboratory, tmp_path: Path) -> Iterator[House]:
    made = House(laboratory, tmp_path)
    yield made
    made.end()


def reached(house: House, web: Machine, sibling: Machine, gateway: str, port: int) -> dict[str, str | None]:
    """What each of them hears of each way in: the server's name and the address that it was asked from."""
    found: dict[str, str | None] = {}
    for protocol in ("tcp", "udp"):
        for who, from_there, addresses in (
            ("LAN", house.lan.ask, (LAN_SIDE, LAN_SIDE6)),
            ("localhost", ask, ("127.0.0.1", "::1")),
            ("host address", ask, (LAN_SIDE, LAN_SIDE6)),
            ("sibling", sibling.ask, (LAN_SIDE, gateway)),
            ("self", web.ask, (LAN_SIDE, gateway)),
        ):
            for address in addresses:
                found[f"{who} {protocol} {address}"] = from_there(protocol, address, port)
    return found


@pytest.mark.parametrize("beside", ["nobody", "docker"])
def test_everybody_reaches_a_published_port_over_every_way(house: House, beside: str) -> None:
    flags = []
    if beside == "docker":
        load(house.laboratory, WHOLE_DOCKER)
        flags = ["--firewall", "docker-user"]
    web = house.run("web", *flags, "-p", "8000:80", "-p", "8000:80/udp")
    sibling = house.run("sibling")
    gateway = json.loads(minicontainer("inspect", "web").stdout)[0]["NetworkSettings"]["Gateway"]
    for protocol in ("tcp", "udp"):
        web.serve(protocol, 80, "web")
        web.serve(protocol, 81, "hidden")
    found = reached(house, web, sibling, gateway, 8000)
    neighbours = {address: found.pop(f"sibling {protocol} {address}")
                  for protocol in ("tcp", "udp") for address in (LAN_SIDE, gateway)}  # fmt: skip
    # From a sibling it may look as if the gateway had asked; so it does for the container itself, else the answer would
    # not come back this way. Who comes by IPv6 is relayed, by the host. Everybody else's address is preserved.
    assert all(heard and heard.startswith("web ") for heard in neighbours.values()), neighbours
    assert found == {
        f"{who} {protocol} {address}": f"web {seen}"
        for protocol in ("tcp", "udp")
        for who, address, seen in (
            ("LAN", LAN_SIDE, LAN), ("LAN", LAN_SIDE6, gateway),
            ("localhost", "127.0.0.1", gateway), ("localhost", "::1", gateway),
            ("host address", LAN_SIDE, LAN_SIDE), ("host address", LAN_SIDE6, gateway),
            ("self", LAN_SIDE, gateway), ("self", gateway, gateway),
        )
    }  # fmt: skip
    for protocol in ("tcp", "udp"):
        assert house.lan.ask(protocol, LAN_SIDE, 81) is None and house.lan.ask(protocol, LAN_SIDE6, 81) is None
        assert sibling.ask(protocol, LAN_SIDE, 81) is None  # past its door a neighbour may, by its own address


INPUT = """
table ip6 filter {
    chain ufw6-user-input { }
    chain INPUT { type filter hook input priority filter; policy drop;
        iifname "lo" accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept;
        jump ufw6-user-input; }
}
"""


@pytest.mark.parametrize("way", ["docker-user", "ignore"])
def test_firewall_plan_foretells_who_gets_through(house: House, way: str) -> None:
    load(house.laboratory, WHOLE_DOCKER + INPUT)
    command("nft", "add rule ip6 filter ufw6-user-input udp dport 8000 accept")
    ports = ["-p", "8000:80", "-p", "8000:80/udp", "-p", "127.0.0.1:8001:80", "-p", f"[{LAN_SIDE6}]:8002:80"]
    before = command("nft", "list", "ruleset")
    minicontainer("firewall", "plan", *ports)  # for a person
    plan = json.loads(minicontainer("firewall", "plan", "--firewall", way, "--format", "json", *ports).stdout)
    assert command("nft", "list", "ruleset") == before
    web = house.run("web", "--firewall", way, *ports)
    sibling = house.run("sibling")
    for protocol in ("tcp", "udp"):
        web.serve(protocol, 80, "web")
    asks = {"the LAN": house.lan.ask, "localhost": ask, "the host's own address": ask,
            "containers, by that address": sibling.ask}  # fmt: skip
    foretold, found = {}, {}
    for port in plan["ports"]:
        for one in port["reach"]:
            four, six = ("127.0.0.1", "::1") if one["who"] == "localhost" else (LAN_SIDE, LAN_SIDE6)
            address = four if one["family"] == "IPv4" else six
            key = f"{one['who']} {address} {port['host']} {port['protocol']}"
            foretold[key] = one["reached"]
            found[key] = bool(asks[one["who"]](port["protocol"], address, port["host"]))
    assert found == foretold
    assert foretold[f"the LAN {LAN_SIDE} 8000 tcp"] is (way == "docker-user")
    assert foretold[f"the LAN {LAN_SIDE6} 8000 udp"] and not foretold[f"the LAN {LAN_SIDE6} 8000 tcp"]
    # What the plan said is what nft lists now, but for what nobody could know.
    listing = command("nft", "list", "ruleset")
    for rule in plan["rules"]:
        if rule.startswith("add rule"):
            assert f"\t\t{rule.split(maxsplit=5)[5]}\n" in listing
    mends = {each["mend"] for each in plan["foreign"] if each["here"] and each["mend"]}
    assert {"ufw allow 8000/tcp", "ufw allow 8002/tcp"} <= mends
    assert any("iptables -I DOCKER-USER" in mend for mend in mends) is (way == "ignore")


def test_firewall_plan_says_what_run_would_refuse(house: House) -> None:
    load(house.laboratory, DOCKER)
    plan = minicontainer("firewall", "plan", "-p", "8000:80").stdout
    refusal = minicontainer("run", "--rm", "-p", "8000:80", "plain", "true", check=False).stderr.strip()
    assert plan.endswith(f"# `run` would refuse: {refusal.removeprefix('minicontainer: ')}\n")
    assert "would refuse" not in minicontainer("firewall", "plan", "-p", "127.0.0.1:8000:80").stdout
    for wrong in (
        ["nonsense"],
        ["plan", "-P"],
        ["plan", "--firewall", "x"],
        ["plan", "--format", "x"],
        ["plan", "-p", "x"],
    ):
        assert minicontainer("firewall", *wrong, check=False).returncode


def test_a_port_on_one_address_of_ipv6_is_on_no_other(house: House) -> None:
    web = house.run("web", "-p", "[::1]:8000:80", "-p", f"[{LAN_SIDE6}]:8001:80/udp")
    web.serve("tcp", 80, "web")
    web.serve("udp", 80, "web")
    assert (ask("tcp", "::1", 8000) or "").startswith("web ")
    assert (house.lan.ask("udp", LAN_SIDE6, 8001) or "").startswith("web ")
    assert [house.lan.ask("tcp", LAN_SIDE6, 8000), ask("tcp", "127.0.0.1", 8000), ask("udp", "::1", 8001)] == [None] * 3
    assert minicontainer("port", "web").stdout == f"80/tcp -> [::1]:8000\n80/udp -> [{LAN_SIDE6}]:8001\n"


def test_behind_somebody_elses_drop_a_port_is_refused_or_passed_by_their_own_rule(house: House) -> None:
    load(house.laboratory, DOCKER)
    done = minicontainer("run", "--rm", "-p", "8000:80", "plain", "true", check=False)
    assert done.returncode == 125 and "chain FORWARD" in done.stderr and "iptables -I DOCKER-USER" in done.stderr
    assert minicontainer("ps", "-aq").stdout == ""
    minicontainer("run", "--rm", "-p", "127.0.0.1:8000:80", "plain", "true")
    minicontainer("run", "--rm", "--firewall", "ignore", "-p", "8000:80", "plain", "true")
    web = house.run("web", "--firewall", "docker-user", "-p", "8000:80")
    web.serve("tcp", 80, "web")
    assert house.lan.ask("tcp", LAN_SIDE, 8000) == f"web {LAN}"
    command("nft", "flush", "chain", "ip", "filter", "DOCKER-USER")
    web.end()  # else its server would keep the old namespace
    minicontainer("restart", "-t", "0", "web")  # its rules are put back
    house.enter("web").serve("tcp", 80, "again")
    assert house.lan.ask("tcp", LAN_SIDE, 8000) == f"again {LAN}"
    minicontainer("rm", "-f", "web")
    minicontainer("system", "reset", "--force")
    assert "minicontainer" not in command("nft", "list", "ruleset")


def test_after_a_flush_network_reload_puts_everything_back(house: House) -> None:
    foreign = "table inet mine {\n\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n\t}\n}\n"
    load(house.laboratory, foreign)
    web = house.run("web", "-p", "8000:80", "-p", f"{LAN_SIDE}:8001:80/udp", "-p", "20001-20600:20001-20600")
    house.run("other", "-p", "[::1]:8003:80")
    web.serve("tcp", 80, "web")
    web.serve("udp", 80, "web")
    table = f"minicontainer{leftovers.suffix(house.store)}"
    before = listed(table)
    device = json.loads(command("ip", "-j", "link", "show", "type", "bridge"))[0]["ifname"]
    for destroy in (
        ["nft", "delete", "table", "inet", table],
        ["nft", "flush", "table", "inet", table],
        ["nft", "flush", "map", "inet", table, "ports"],
        ["true"],  # all is there: nothing changes
        ["nft", "flush", "ruleset"],
    ):
        assert command("nft", "list", "table", "inet", "mine") == foreign
        command(*destroy)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.connect((LAN_SIDE, 8001))
            client.send(b"?")  # to nobody, unless it is still there: the kernel remembers it so
            ids = minicontainer("network", "reload").stdout.split()
            assert len(ids) == 2
            client.send(b"?")
            assert client.recv(100) == f"web {LAN_SIDE}".encode()
        assert listed(table) == before
        assert house.lan.ask("tcp", LAN_SIDE, 8000) == f"web {LAN}"
    command("ip", "link", "set", device, "down")
    minicontainer("network", "reload")
    assert house.lan.ask("tcp", LAN_SIDE, 8000) == f"web {LAN}"
    minicontainer("rm", "-f", "web", "other")
    assert minicontainer("network", "reload").stdout == ""
    assert "20600" not in command("nft", "list", "table", "inet", table)


def test_where_no_network_is_there_is_nothing_to_reload(house: House) -> None:
    assert minicontainer("network", "reload").stdout == ""
    assert command("nft", "list", "ruleset") == ""


def listed(table: str) -> list[str]:
    """A table as nft lists it, elements of sets in any order."""
    text = command("nft", "list", "table", "inet", table)
    return sorted(word.strip() for line in text.splitlines() for word in re.split("[,{}]|elements =", line))
