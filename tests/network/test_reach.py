"""Who reaches a published port, by sockets: everybody, over every way; with real containers, and docker's rules."""

import json
import os
import re
import socket
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from tests import engine_fixtures, leftovers
from tests.conftest import minicontainer
from tests.laboratory import Inside, Laboratory, Machine, ask, ask_all, command, fresh_laboratory  # noqa: F401
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


# ------------------------------------------------------------------------------------------------ who reaches whom

# `4`: by IPv4, `6`: by IPv6, `-`: not so, `..`: not asked. "container" shares the network of the container `user`. One
# more driver is one more network here, a row of DIRECT, and a word of OUT.
NETWORKS = {
    "bridge": [], "user": ["--ipv6"], "closed": ["--ipv6", "--internal"], "other": ["--ipv6"],
    "outside": [
        "-d", "macvlan", "-o", "parent=lan0", "--subnet", "198.51.100.0/24", "--ip-range", "198.51.100.128/25",
        "--gateway", LAN, "--ipv6", "--subnet", "fd00:51::/64", "--ip-range", "fd00:51::80/121", "--gateway", LAN6,
    ],
}  # fmt: skip
PORTS = {"bridge": 8000, "user": 8001, "container": 8002, "host": 8003}
#                 LAN  localhost  host address  sibling  itself  another network's
PUBLISHED = {
    "bridge":    "46   46         46            4-       4-      46",  # its containers have no IPv6: others are relayed
    "user":      "46   46         46            46       46      46",
    "container": "46   46         46            46       46      46",
    "host":      "46   46         46            46       46      46",
}  # fmt: skip
UNPUBLISHED = dict.fromkeys(("bridge", "user", "container"), "-- " * 6)  # on the host's addresses
DIRECT = {  # a port that is not published, at the container's own address
    "bridge":    "--   ..         4-            4-       4-      --",
    "user":      "--   ..         46            46       46      --",
    "container": "--   ..         46            46       46      --",
    "closed":    "--   ..         46            46       46      --",
    "outside":   "46   ..         --            46       46      --",  # a macvlan's: in the LAN, and not with the host
}  # fmt: skip
OUT = {
    "bridge": "4-",
    "user": "46",
    "container": "46",
    "closed": "--",
    "outside": "46",
    "host": "46",
    "none": "--",
}  # to the LAN
SOURCES = ("LAN", "localhost", "host address", "sibling", "self", "other")
FAMILIES = {"4": ("127.0.0.1", LAN_SIDE, LAN), "6": ("::1", LAN_SIDE6, LAN6)}
PROTOCOLS = ("tcp", "udp")


class Questions:
    """What is to be asked by whom, and whether an answer is right."""

    def __init__(self) -> None:
        self.asks: dict[tuple[Machine | None, tuple[str, str, int]], tuple[str, bool]] = {}

    def expect(self, source: str, machine: Machine | None, address: str, port: int, name: str, answer: bool) -> None:
        for protocol in PROTOCOLS:
            words = f"{source} asks {name} by {protocol} at {address} {port}"
            self.asks[machine, (protocol, address, port)] = words, answer

    def probe(self) -> dict[str, str]:
        """Everybody asks all at once: the answers, or nothing, by the words that say what was asked.

        Who should have got an answer, and has not, asks once more: a machine with much to do may be late.
        """
        found = self._probe(self.asks)
        late = {key: asked for key, asked in self.asks.items() if asked[1] and not found[asked[0]]}
        return found | self._probe(late)

    def _probe(self, asks: Collection[tuple[Machine | None, tuple[str, str, int]]]) -> dict[str, str]:
        begun = []
        for machine in dict.fromkeys(machine for machine, _ in asks):
            questions = [question for other, question in asks if other is machine]
            at_work = (machine or Inside(os.getpid())).begin(lambda questions=questions: ask_all(questions))  # type: ignore
            begun.append((machine, questions, at_work))
        found = {}
        for machine, questions, at_work in begun:
            for question, answer in zip(questions, at_work(), strict=True):
                found[self.asks[machine, question][0]] = answer or ""
        return found

    def wrong(self, found: dict[str, str]) -> list[str]:
        """What should have been answered and was not, or the other way round, or by somebody else."""
        said = []
        for words, answer in self.asks.values():
            name = words.split(" asks ")[1].split(" by ")[0]
            if bool(found[words]) != answer or (answer and found[words].split(" ")[0].strip(",") != name):
                said.append(f"{words}: {found[words] or 'no answer'}")
        return said


class Matrix(Questions):
    """A container in each network, with a sibling."""

    def __init__(self, house: House) -> None:
        super().__init__()
        self.house = house
        for name, flags in NETWORKS.items():
            if name != "bridge":
                minicontainer("network", "create", *flags, name)
        publish = [f"-p{PORTS[name]}:{port}/{protocol}" for name, port in (("user", 80), ("container", 90))
                   for protocol in PROTOCOLS]  # fmt: skip
        lenient = ["--firewall", "docker-user"]
        both = [f"-p{PORTS['bridge']}:80/{protocol}" for protocol in PROTOCOLS]
        self.inside = {
            "bridge": house.run("bridge", *lenient, *both),
            "user": house.run("user", "--network", "user", *lenient, *publish),
            "container": house.run("container", "--network", "container:user"),
            "closed": house.run("closed", "--network", "closed", *lenient),
            "host": house.run("host", "--network", "host"),
            "none": house.run("none", "--network", "none"),
            "outside": house.run("outside", "--network", "outside"),
            "other": house.run("other", "--network", "other", *lenient),
        }
        self.siblings = {
            name: house.run(f"{name}2", "--network", name) for name in ("bridge", "user", "closed", "outside")
        }
        self.siblings |= {"container": self.siblings["user"], "host": self.inside["host"]}
        for protocol in PROTOCOLS:
            house.lan.serve(protocol, 80, "LAN")
            for name, inside in self.inside.items():
                # Published, and not published; what is shared has its own ports.
                first = {"container": 90, "host": PORTS["host"]}.get(name, 80)
                inside.serve(protocol, first, name)
                inside.serve(protocol, first + 1, f"{name}, hidden")
        self.fill()

    def address(self, name: str, family: str) -> str:
        """A container's own, or nothing."""
        (end,) = json.loads(minicontainer("inspect", name).stdout)[0]["NetworkSettings"]["Networks"].values()
        return str(end["IPAddress" if family == "4" else "GlobalIPv6Address"])

    def fill(self) -> None:
        """The tables, question by question."""
        house = self.house
        for name in ("user", "closed", "bridge"):  # a neighbour who knows the way to the containers
            for pool in json.loads(minicontainer("network", "inspect", name).stdout)[0]["IPAM"]["Config"]:
                gateway = LAN_SIDE6 if ":" in pool["Subnet"] else LAN_SIDE
                house.lan.ip("route", "add", pool["Subnet"], "via", gateway)
                if name == "closed":  # … and one who would like to go out
                    self.inside[name].ip("route", "add", "default", "via", pool["Gateway"])
        for family, (loopback, ours, theirs) in FAMILIES.items():
            for table, port_of in (
                (PUBLISHED, PORTS), (UNPUBLISHED, {"bridge": 81, "user": 81, "container": 91}),
                (DIRECT, {"bridge": 81, "user": 81, "container": 91, "closed": 81, "outside": 81}),
            ):  # fmt: skip
                for name, row in table.items():
                    own = self.address("user" if name == "container" else name, family) if table is DIRECT else ""
                    if table is DIRECT and not own:
                        continue
                    who = (house.lan, None, None, self.siblings[name], self.inside[name], self.inside["other"])
                    for source, machine, cell in zip(SOURCES, who, row.split(), strict=True):
                        if cell != "..":
                            address = own or (loopback if source == "localhost" else ours)
                            self.expect(source, machine, address, port_of[name], name, family in cell)
            for name, cell in OUT.items():
                self.expect(f"{name} itself", self.inside[name], theirs, 80, "LAN", family in cell)
            self.expect("none itself", self.inside["none"], loopback, 80, "none", True)
            self.expect("none itself", self.inside["none"], ours, PORTS["user"], "user", False)


@pytest.mark.needs("macvlan")
def test_who_reaches_whom_in_every_network_and_beside_docker(house: House) -> None:
    matrix = Matrix(house)
    found = matrix.probe()
    assert matrix.wrong(found) == []
    # Everybody's own address is preserved, where the kernel does it; what is relayed, and what came from the host's
    # loopback or from behind the same bridge, is the gateway's.
    (four,), (also, six) = ([pool["Gateway"] for pool in json.loads(minicontainer("network", "inspect", name).stdout)[0]
                             ["IPAM"]["Config"]] for name in ("bridge", "user"))  # fmt: skip
    for protocol in PROTOCOLS:
        for source, address, name, seen in (
            ("LAN", LAN_SIDE, "bridge", LAN), ("LAN", LAN_SIDE6, "bridge", four),
            ("LAN", LAN_SIDE, "user", LAN), ("LAN", LAN_SIDE6, "user", LAN6),
            ("localhost", "127.0.0.1", "bridge", four), ("localhost", "::1", "bridge", four),
            ("localhost", "127.0.0.1", "user", also), ("localhost", "::1", "user", also),
            ("host address", LAN_SIDE, "bridge", LAN_SIDE), ("host address", LAN_SIDE6, "bridge", four),
            ("host address", LAN_SIDE, "user", LAN_SIDE), ("host address", LAN_SIDE6, "user", LAN_SIDE6),
            ("self", LAN_SIDE, "bridge", four), ("self", LAN_SIDE6, "user", six),
        ):  # fmt: skip
            words = f"{source} asks {name} by {protocol} at {address} {PORTS[name]}"
            assert found[words] == f"{name} {seen}", words
    load(house.laboratory, WHOLE_DOCKER + DOCKER.replace("table ip ", "table ip6 "))
    blocked = matrix.probe()
    assert (
        not blocked[f"LAN asks user by tcp at {LAN_SIDE} 8001"]
        and not blocked[f"LAN asks user by udp at {LAN_SIDE6} 8001"]
    )
    minicontainer("network", "reload")  # --firewall docker-user: now there is such a chain
    again = matrix.probe()
    assert matrix.wrong(again) == [] and again == found


# Networks without a bridge: their containers are in the LAN, at their own addresses. Whom of the others on the same
# parent they reach is the mode's; the host stands behind that parent as well, and reaches a container only where a
# switch outside sends back what came in by the same cable ("vepa, sent back"). An ipvlan that routes has a subnet of
# its own, to which the LAN knows the way: by the host. That hears its containers, and has itself no way back to them.
IN_LAN = {
    #                           LAN  localhost  host address  sibling  itself  another network's
    "macvlan bridge":          "46   --         --            46       46      --",
    "macvlan private":         "46   --         --            --       46      --",
    "macvlan vepa":            "46   --         --            --       46      --",
    "macvlan vepa, sent back": "46   --         46            46       46      46",
    "macvlan passthru":        "46   --         --            ..       46      --",  # the parent is one container's
    "ipvlan l2":               "46   --         --            46       46      --",
    "ipvlan l3":               "46   --         --            46       46      --",
    "ipvlan l3s":              "46   --         --            46       46      --",
}  # fmt: skip
IN_THE_LAN = [
    "--subnet", "198.51.100.0/24", "--ip-range", "198.51.100.128/25", "--gateway", LAN,
    "--subnet", "fd00:51::/64", "--ip-range", "fd00:51::80/121", "--gateway", LAN6,
]  # fmt: skip
BEHIND_THE_HOST = {"203.0.113.0/24": LAN_SIDE, "fd00:113::/64": LAN_SIDE6}


def send_back(lan: Machine) -> None:
    """The LAN's computer becomes a switch that sends a frame back by the port it came in by (IEEE 802.1Qbg)."""
    for words in (
        "link add br0 type bridge", "link set eth0 master br0", "link set eth0 type bridge_slave hairpin on",
        "link set br0 up", f"address delete {LAN}/24 dev eth0", f"address delete {LAN6}/64 dev eth0",
        f"address add {LAN}/24 dev br0", f"address add {LAN6}/64 dev br0 nodad",
    ):  # fmt: skip
        lan.ip(*words.split())


ROWS = [
    pytest.param(kind, marks=[pytest.mark.needs(kind.split()[0]), *([pytest.mark.vm] if "ipvlan" in kind else [])])
    for kind in IN_LAN
]


@pytest.mark.parametrize("kind", ROWS)
def test_who_reaches_whom_in_the_lan_and_beside_docker(house: House, kind: str) -> None:
    driver, mode = kind.partition(",")[0].split()
    if kind.endswith("sent back"):
        send_back(house.lan)
    pool = IN_THE_LAN
    if mode in ("l3", "l3s"):
        pool = [word for subnet in BEHIND_THE_HOST for word in ("--subnet", subnet)]
        for subnet, way in BEHIND_THE_HOST.items():
            house.lan.ip("route", "add", subnet, "via", way)
    options = ["-o", "parent=lan0", "-o", f"{driver}_mode={mode}"]
    minicontainer("network", "create", "-d", driver, "--ipv6", *pool, *options, "outside")
    minicontainer("network", "create", "--ipv6", "within")
    first, other = house.run("first", "--network", "outside"), house.run("other", "--network", "within")
    sibling = None if mode == "passthru" else house.run("sibling", "--network", "outside")
    host = Inside(os.getpid())
    house.inside.append(host)
    for protocol in PROTOCOLS:
        for name, machine in (("first", first), ("LAN", house.lan), ("host", host)):
            machine.serve(protocol, {"first": 80, "LAN": 81, "host": 82}[name], name)
    (end,) = json.loads(minicontainer("inspect", "first").stdout)[0]["NetworkSettings"]["Networks"].values()
    own = {"4": end["IPAddress"], "6": end["GlobalIPv6Address"]}
    (eth0,) = json.loads(first.ip("-json", "address", "show", "dev", "eth0"))
    assert [each["local"] for each in eth0["addr_info"] if each["scope"] == "global"] == list(own.values())
    matrix = Questions()
    who = (house.lan, None, None, sibling, first, other)
    for source, machine, cell in zip(SOURCES, who, IN_LAN[kind].split(), strict=True):
        for family, (loopback, *_) in FAMILIES.items():
            if cell != "..":
                address = loopback if source == "localhost" else own[family]
                matrix.expect(source, machine, address, 80, "first", family in cell)
    for family, (_, ours, theirs) in FAMILIES.items():
        matrix.expect("first itself", first, theirs, 81, "LAN", True)
        back = IN_LAN[kind].split()[2]  # the host is as far from a container as the container from the host
        matrix.expect("first itself", first, ours, 82, "host", family in back)
        matrix.expect("LAN", house.lan, ours, 82, "host", mode != "passthru")  # which takes all that comes in
    found = matrix.probe()
    assert matrix.wrong(found) == []
    for family, (_, _, theirs) in FAMILIES.items():
        assert found[f"LAN asks first by tcp at {own[family]} 80"] == f"first {theirs}"
        assert found[f"first itself asks LAN by udp at {theirs} 81"] == f"LAN {own[family]}"
    load(house.laboratory, WHOLE_DOCKER + DOCKER.replace("table ip ", "table ip6 "))
    blocked = {words: answer for words, answer in found.items() if answer and words.startswith("other")}
    # Only what goes through the host's own forwarding is docker's to drop.
    assert matrix.probe() == found | dict.fromkeys(blocked, "")
    if mode == "passthru":
        done = minicontainer("run", "--rm", "--network", "outside", "plain", "true", check=False)
        assert done.returncode == 125 and "gives lan0 to one container alone" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
        assert minicontainer("ps", "-aq").stdout.split() == minicontainer("ps", "-q").stdout.split()


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
    minicontainer("network", "create", "--internal", "closed")
    web = minicontainer("run", "-d", "--firewall", "ignore", "-p", "8000:80", "plain", "sleep", "600").stdout[:12]
    for words, complaint in (
        (["--firewall", "ignore", "-p", "8000:80"], f"port 8000/tcp is already published by container {web}"),
        (["-p", "8001:80", "--network", "closed"], "it is internal, nobody may come in"),
        (["-p", "8001:80", "--network", "host"], "on a bridge only, not with --network host"),
    ):
        done = minicontainer("firewall", "plan", *words, check=False)
        assert complaint in (done.stderr if done.returncode else done.stdout.splitlines()[-1])
        assert complaint in minicontainer("run", "--rm", *words, "plain", "true", check=False).stderr
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
            client.settimeout(30)
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
