"""The firewall, by packets: who reaches what, from where, and with which address."""

import os
import re
import signal
import socket
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from minicontainer import errors, host, netlink, steps
from minicontainer.network import Network, bridge, foreign, ipam, nat
from tests.laboratory import (  # noqa: F401
    PAUSE,
    Laboratory,
    Machine,
    ask,
    be_alone,
    command,
    fresh_laboratory,
    write,
)

pytestmark = [pytest.mark.root, pytest.mark.needs("bridge", "veth", "nftables", "ip")]

PROTOCOLS = pytest.mark.parametrize("protocol", ["tcp", "udp"])


class World(NamedTuple):
    """A host between a LAN and the internet, with two containers; the first has published ports."""

    laboratory: Laboratory
    network: Network
    web: Machine
    sibling: Machine
    lan: Machine
    internet: Machine


NETWORK = Network("bridge", "mc0", "172.30.0.0/16", "172.30.0.1", 1500)
WEB, SIBLING = "172.30.0.2", "172.30.0.3"
LAN_SIDE, LAN = "198.51.100.1", "198.51.100.2"
INTERNET_SIDE, INTERNET = "203.0.113.1", "203.0.113.2"
PUBLISHED = ["8000:80", "8000:80/udp", "127.0.0.1:9000:80", "127.0.0.1:9000:80/udp", f"{LAN_SIDE}:7000:80"]


def identifier(number: int) -> str:
    return f"{number:011x}" + "c" * 53


def attach(network: Network, number: int, machine: Machine, *ports: str) -> str:
    values: steps.Values = {"pid": machine.pid, "address": ipam.lease(network, identifier(number))}
    steps.execute(bridge.attach(network, identifier(number), nat.parse_ports(list(ports))), values)
    return str(values["address"])


def detach(network: Network, number: int) -> None:
    steps.execute(bridge.detach(network, identifier(number)), {})


@pytest.fixture
def world(laboratory: Laboratory) -> Iterator[World]:
    lan = laboratory.neighbour("lan0", LAN_SIDE, LAN)
    internet = laboratory.neighbour("wan0", INTERNET_SIDE, INTERNET)
    lan.ip("route", "add", "172.30.0.0/16", "via", LAN_SIDE)  # a neighbour that knows where containers are
    network = bridge.default(host.root())._replace(subnet="172.30.0.0/16", gateway="172.30.0.1")
    steps.execute(bridge.setup(network), {})
    web, sibling = laboratory.machine(), laboratory.machine()
    assert attach(network, 1, web, *PUBLISHED) == WEB
    assert attach(network, 2, sibling) == SIBLING
    for protocol in ("tcp", "udp"):
        web.serve(protocol, 80, "web")
        web.serve(protocol, 81, "hidden")
        internet.serve(protocol, 80, "internet")
    yield World(laboratory, network, web, sibling, lan, internet)
    for number in (1, 2, 3):
        detach(network, number)


@PROTOCOLS
def test_out_a_container_reaches_the_internet_under_the_hosts_address(world: World, protocol: str):
    assert world.web.ask(protocol, INTERNET, 80) == f"internet {INTERNET_SIDE}"
    assert world.sibling.ask(protocol, INTERNET, 80) == f"internet {INTERNET_SIDE}"


@PROTOCOLS
def test_in_a_published_port_is_reached_from_everywhere(world: World, protocol: str):
    gateway = world.network.gateway
    assert world.lan.ask(protocol, LAN_SIDE, 8000) == f"web {LAN}"  # its own address is preserved
    assert ask(protocol, LAN_SIDE, 8000) == f"web {LAN_SIDE}"  # the host, through one of its addresses
    assert ask(protocol, gateway, 8000) == f"web {gateway}"
    assert ask(protocol, "127.0.0.1", 8000) == f"web {gateway}"


BRIDGE_NETFILTER = "/proc/sys/net/bridge/bridge-nf-call-iptables"


@PROTOCOLS
@pytest.mark.parametrize("bridge_netfilter", ["0", "1"])
def test_a_published_port_is_reached_from_containers(world: World, protocol: str, bridge_netfilter: str):
    """With br_netfilter, which docker loads, packets between ports of a bridge meet the firewall as well."""
    if os.path.exists(BRIDGE_NETFILTER):
        write(BRIDGE_NETFILTER, bridge_netfilter)
    gateway = world.network.gateway
    for address in (LAN_SIDE, gateway):
        assert world.sibling.ask(protocol, address, 8000) in (f"web {gateway}", f"web {SIBLING}")
        assert world.web.ask(protocol, address, 8000) == f"web {gateway}"  # itself: the hairpin
    assert world.sibling.ask(protocol, WEB, 81) == f"hidden {SIBLING}"


@PROTOCOLS
def test_a_port_published_on_one_address_is_not_on_the_others(world: World, protocol: str):
    assert ask(protocol, "127.0.0.1", 9000) == f"web {world.network.gateway}"
    assert ask(protocol, LAN_SIDE, 9000) is None
    assert world.lan.ask(protocol, LAN_SIDE, 9000) is None
    assert world.sibling.ask(protocol, world.network.gateway, 9000) is None
    if protocol == "tcp":
        assert world.lan.ask("tcp", LAN_SIDE, 7000) == f"web {LAN}"
        assert ask("tcp", INTERNET_SIDE, 7000) is None


@PROTOCOLS
def test_nobody_outside_reaches_what_is_published_on_loopback(world: World, protocol: str):
    """A neighbour may well send a packet to 127.0.0.1 our way."""
    world.lan.ip("address", "del", "127.0.0.1/8", "dev", "lo")
    world.lan.ip("route", "add", "127.0.0.0/8", "via", LAN_SIDE)
    world.lan.put("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1")
    assert world.lan.ask(protocol, "127.0.0.1", 9000) is None
    assert world.lan.ask(protocol, "127.0.0.1", 8000) is None
    world.sibling.ip("address", "del", "127.0.0.1/8", "dev", "lo")
    world.sibling.ip("route", "add", "127.0.0.0/8", "via", world.network.gateway)
    world.sibling.put("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1")
    assert world.sibling.ask(protocol, "127.0.0.1", 9000) is None


@PROTOCOLS
def test_nobody_outside_reaches_an_unpublished_port(world: World, protocol: str):
    assert world.lan.ask(protocol, LAN_SIDE, 81) is None
    assert world.lan.ask(protocol, WEB, 81) is None
    assert world.lan.ask(protocol, WEB, 80) is None  # nor a published one past its door
    assert world.sibling.ask(protocol, WEB, 81) == f"hidden {SIBLING}"  # a neighbour does
    assert ask(protocol, WEB, 81) == f"hidden {world.network.gateway}"  # and the host


@PROTOCOLS
def test_after_detach_the_port_is_free_and_leads_nowhere(world: World, protocol: str):
    assert world.lan.ask(protocol, LAN_SIDE, 8000)
    detach(world.network, 1)
    assert world.lan.ask(protocol, LAN_SIDE, 8000) is None
    attach(world.network, 3, world.laboratory.machine(), "8000:80", "8000:80/udp")


def test_a_client_that_goes_on_sending_finds_the_new_container(world: World):
    """A UDP "connection" remembers where its first packet went; a port that changes hands must make it forget."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        client.connect((LAN_SIDE, 8000))
        client.send(b"?")
        assert client.recv(100) == f"web {LAN_SIDE}".encode()
        detach(world.network, 1)
        client.settimeout(PAUSE)
        client.send(b"?")  # to nobody; and that is remembered, too
        with pytest.raises(OSError):
            client.recv(100)
        other = world.laboratory.machine()
        other.serve("udp", 80, "other")
        attach(world.network, 3, other, "8000:80/udp")
        client.settimeout(20)
        client.send(b"?")
        assert client.recv(100) == f"other {LAN_SIDE}".encode()


# ------------------------------------------------------------------------------------------------------- whose is it


def test_a_port_that_a_container_has_names_the_container(world: World):
    for wanted in ("8000:1", "127.0.0.1:8000:1", f"{LAN_SIDE}:8000:1", "9000:1"):
        with pytest.raises(errors.Conflict, match=f"is already published by container {identifier(1)[:12]}"):
            attach(world.network, 3, world.laboratory.machine(), wanted)
        detach(world.network, 3)
    attach(world.network, 3, world.laboratory.machine(), f"{LAN_SIDE}:9000:1")  # another address, no clash


@pytest.mark.needs("ipv6")
def test_a_port_of_ipv6_that_a_container_has_names_the_container(laboratory: Laboratory):
    netlink.nft(*nat.table_commands())
    ports = nat.parse_ports(["[::]:8000:80/udp", "[::1]:9000:80"])
    nat.reserve(identifier(1), ports)
    netlink.nft(*nat.port_commands("add element", identifier(1), WEB, [(port, port.host) for port in ports], "fd00::2"))
    for wanted in ("[::]:8000:80/udp", "[::1]:8000:80/udp", "8000:80/udp"):
        with pytest.raises(errors.Conflict, match=f"is already published by container {identifier(1)[:12]}"):
            nat.reserve(identifier(2), nat.parse_ports([wanted]))
    with pytest.raises(errors.Conflict, match="another process"):  # it is relayed, which no rule tells
        nat.reserve(identifier(2), nat.parse_ports(["[::1]:9000:80"]))
    nat.withdraw(identifier(1))
    nat.reserve(identifier(2), ports)
    nat.withdraw(identifier(2))


@PROTOCOLS
def test_a_port_that_a_process_has_says_so(world: World, protocol: str):
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 5000))
        if protocol == "tcp":
            taken.listen()
        with pytest.raises(errors.Conflict, match=f"5000/{protocol} is in use by another process of this host"):
            attach(world.network, 3, world.laboratory.machine(), f"5000:80/{protocol}")
    detach(world.network, 3)
    attach(world.network, 3, world.laboratory.machine(), f"5000:80/{protocol}")


def test_a_port_whose_container_was_killed_still_names_it(world: World):
    for held, _ in nat._held.pop(identifier(1)):
        held.close()  # the monitor is gone, its elements are not
    with pytest.raises(errors.Conflict, match=f"already taken by container {identifier(1)[:12]}"):
        attach(world.network, 3, world.laboratory.machine(), "8000:80")
    detach(world.network, 3)
    assert len(nat.published(identifier(1))) == len(PUBLISHED)  # nothing of the other's was touched


@PROTOCOLS
@pytest.mark.needs("ipv6")
def test_each_family_has_its_own_socket(world: World, protocol: str):
    """What has the port for IPv6 alone is in the way of `-p 5000:80`, and not of one that is for IPv4 alone."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET6, kind) as taken:
        taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(("::1", 5000))
        if protocol == "tcp":
            taken.listen()
        with pytest.raises(errors.Conflict, match=rf"\[::\]:5000/{protocol} is in use by another process"):
            attach(world.network, 3, world.laboratory.machine(), f"5000:80/{protocol}")
        detach(world.network, 3)
        attach(world.network, 3, world.laboratory.machine(), f"0.0.0.0:5000:80/{protocol}")
        assert [port.address for port in nat.bound(identifier(3))] == ["0.0.0.0"]
    detach(world.network, 3)
    attach(world.network, 3, world.laboratory.machine(), f"0:80/{protocol}")
    four, six = nat.bound(identifier(3))
    assert (four.address, six.address) == ("0.0.0.0", "::") and four.host == six.host > 1023


def test_an_address_that_the_host_lacks(world: World):
    with pytest.raises(errors.InvalidArgument, match=r"192\.0\.2\.99 is not an address of this host"):
        attach(world.network, 3, world.laboratory.machine(), "192.0.2.99:80:80")


def test_any_free_port(world: World):
    machine = world.laboratory.machine()
    machine.serve("tcp", 80, "any")
    attach(world.network, 3, machine, "80", "7999-8001:80")
    (_, one), (_, two) = sorted(nat.published(identifier(3)), key=lambda each: each[1].host == 7999)
    assert one.host > 1023 and two.host == 7999
    assert world.lan.ask("tcp", LAN_SIDE, one.host) == f"any {LAN}"


def test_a_thousand_ports_are_two_rules(world: World):
    before = command("nft", "list", "chain", "inet", nat.table(), "published")
    machine = world.laboratory.machine()
    machine.serve("tcp", 21000, "thousandth")
    attach(world.network, 3, machine, "20001-21000:20001-21000")
    assert command("nft", "list", "chain", "inet", nat.table(), "published") == before
    assert world.lan.ask("tcp", LAN_SIDE, 21000) == f"thousandth {LAN}"
    detach(world.network, 3)
    assert nat.published(identifier(3)) == []


def test_all_ports_of_a_container_go_while_those_of_others_come_and_go(laboratory: Laboratory):
    netlink.nft(*nat.table_commands())

    def lead(number: int, text: str) -> list[nat.Port]:
        ports = nat.parse_ports([text])
        pairs = [(port, port.host) for port in ports]
        netlink.nft(*nat.port_commands("add element", identifier(number), WEB, pairs))
        return ports

    other = os.fork()
    if other == 0:
        try:
            be_alone(0)
            while True:
                lead(2, "2000-2009:80-89")
                nat.withdraw(identifier(2))
        finally:
            os._exit(1)
    try:
        for _ in range(50):
            ports = lead(1, "3000-3299:3000-3299")
            nat.withdraw(identifier(1))
            assert [port for port in ports if netlink.element(nat.ports_map(), ("tcp", port.host))] == []
    finally:
        os.kill(other, signal.SIGKILL)
        _, status = os.waitpid(other, 0)
    assert os.WIFSIGNALED(status), "the other one failed"


# ------------------------------------------------------------------------------------------ the rules, as nft has them


def test_the_rules_are_what_their_text_says(laboratory: Laboratory):
    """Fed to nft(8), our own text gives the same table; so `--explain=sh` tells the truth."""
    network = NETWORK._replace(subnet6="fd00:1::/64", gateway6="fd00:1::1")
    commands = [*nat.table_commands(), *nat.network_commands(network)]
    commands.append(("create element", nat.ports_map(), ("tcp", 8000), (WEB, 80), "3f2a"))
    commands.append(("create element", nat.ports_at_map(), ("127.0.0.1", "udp", 53), (WEB, 53), "3f2a"))
    commands.append(("create element", nat.ports6_map(), ("tcp", 8000), ("fd00:1::2", 80), "3f2a"))
    commands.append(("create element", nat.ports6_at_map(), ("fd00:51::1", "udp", 53), ("fd00:1::2", 53), "3f2a"))
    netlink.nft(*commands)
    ours = command("nft", "list", "ruleset")
    command("nft", "delete", "table", "inet", nat.table())
    for each in commands:
        command("nft", netlink.nft_text(each))
    assert command("nft", "list", "ruleset") == ours
    for each in commands:
        if each[0] == "add rule":
            assert f"\t\t{netlink.nft_text(each).split(maxsplit=5)[5]}\n" in ours


# ------------------------------------------------------------------------------------------------ other people's rules


DOCKER = """
table ip filter {
    chain DOCKER-USER { counter return; }
    chain FORWARD { type filter hook forward priority 0; policy drop; counter jump DOCKER-USER; }
}
"""
UFW = """
table ip filter {
    chain ufw-user-forward { }
    chain FORWARD { type filter hook forward priority 0; policy drop;
        ct state established,related accept; counter jump ufw-user-forward; }
}
"""
NATIVE = """
table inet mine {
    chain guard { type filter hook forward priority 10; policy drop; }
}
"""


def load(laboratory: Laboratory, rules: str) -> None:
    path = f"/tmp/rules-{os.getpid()}"
    write(path, rules)
    try:
        command("nft", "-f", path)
    finally:
        os.unlink(path)


FIREWALLD = """
table inet firewalld {
    chain filter_FWD_trusted { accept; }
    chain filter_FWD_public { }
    chain filter_FORWARD_ZONES { goto filter_FWD_public; }
    chain filter_FORWARD { type filter hook forward priority 10; policy accept;
        ct state established,related accept; ct status dnat accept; iifname "lo" accept;
        jump filter_FORWARD_ZONES; reject with icmpx admin-prohibited; }
}
"""
# What a docker without containers has made; its DOCKER-USER with a comment, as iptables writes one.
WHOLE_DOCKER = """
table ip nat {
    chain DOCKER { iifname "docker0" counter return; }
    chain PREROUTING { type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local counter jump DOCKER; }
    chain OUTPUT { type nat hook output priority -100; policy accept;
        ip daddr != 127.0.0.0/8 fib daddr type local counter jump DOCKER; }
    chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept;
        ip saddr 172.17.0.0/16 oifname != "docker0" counter masquerade; }
}
table ip filter {
    chain DOCKER { iifname != "docker0" oifname "docker0" counter drop; }
    chain DOCKER-ISOLATION-STAGE-1 { iifname "docker0" oifname != "docker0" counter jump DOCKER-ISOLATION-STAGE-2; }
    chain DOCKER-ISOLATION-STAGE-2 { oifname "docker0" counter drop; }
    chain DOCKER-FORWARD {
        oifname "docker0" ct state established,related counter accept;
        counter jump DOCKER-ISOLATION-STAGE-1; oifname "docker0" counter jump DOCKER; iifname "docker0" counter accept;
    }
    chain DOCKER-USER { counter return; }
    chain FORWARD { type filter hook forward priority filter; policy drop;
        counter jump DOCKER-USER; counter jump DOCKER-FORWARD; }
}
"""


def mended(drop: foreign.Drop) -> list[str]:
    assert str(drop).endswith(f"; to allow it: {drop.mend}")
    return drop.mend.split(" && ")


def test_with_no_foreign_rules_there_is_nothing_to_say(world: World):
    assert foreign.drops(world.network.device) == []


@pytest.mark.needs("iptables")
def test_dockers_drop_is_named_and_its_mend_works(world: World):
    load(world.laboratory, DOCKER)
    assert world.web.ask("tcp", INTERNET, 80) is None  # no rule of ours can override it
    (drop,) = foreign.drops(world.network.device)
    assert "chain FORWARD" in str(drop) and "iptables -I DOCKER-USER" in drop.mend
    for line in mended(drop):
        command(*line.split())
    assert foreign.drops(world.network.device) == []
    assert world.web.ask("tcp", INTERNET, 80) == f"internet {INTERNET_SIDE}"
    assert world.lan.ask("tcp", LAN_SIDE, 8000) == f"web {LAN}"
    assert world.lan.ask("tcp", WEB, 81) is None


def test_a_drop_of_nftables_own_is_named_and_its_mend_works(world: World):
    load(world.laboratory, NATIVE)
    assert world.web.ask("tcp", INTERNET, 80) is None
    (drop,) = foreign.drops(world.network.device)
    assert "chain guard" in str(drop) and "table mine" in str(drop)
    for line in mended(drop):
        command(*line.split())
    assert foreign.drops(world.network.device) == []
    assert world.web.ask("tcp", INTERNET, 80) == f"internet {INTERNET_SIDE}"
    assert world.lan.ask("tcp", LAN_SIDE, 8000) == f"web {LAN}"


def test_ufw_is_asked_by_its_own_command(world: World):
    load(world.laboratory, UFW)
    (drop,) = foreign.drops(world.network.device)
    device = world.network.device
    assert mended(drop) == [f"ufw route allow in on {device}", f"ufw route allow out on {device}"]


def test_what_ends_in_a_reject_is_a_drop_as_well_unless_its_zone_trusts_us(world: World):
    load(world.laboratory, FIREWALLD)
    device = world.network.device
    (drop,) = foreign.drops(device)
    assert drop.owner == "firewalld" and mended(drop)[0].endswith(f"--zone=trusted --add-interface={device}")
    for way in ("iifname", "oifname"):
        rule = [way, device, "goto", "filter_FWD_trusted"]
        command("nft", "insert", "rule", "inet", "firewalld", "filter_FORWARD_ZONES", *rule)
    assert foreign.drops(device) == []


def test_a_port_that_nobody_outside_could_reach_is_refused_with_the_mend(world: World):
    load(world.laboratory, WHOLE_DOCKER)
    device = world.network.device
    everywhere, loopback = nat.parse_ports(["8000:80"]), nat.parse_ports(["127.0.0.1:8000:80", "[::]:8000:80"])
    mend = f"iptables -I DOCKER-USER -i {device} -j ACCEPT && iptables -I DOCKER-USER -o {device} -j ACCEPT"
    with pytest.raises(errors.Unsupported, match=f"port 80/tcp .* chain FORWARD .* to allow it: {mend}; --firewall"):
        foreign.check(device, everywhere, "")
    foreign.check(device, loopback, "")  # what the host sends is not forwarded
    foreign.check(device, everywhere, "ignore")
    foreign.check(device, everywhere, "docker-user")
    load(world.laboratory, NATIVE)
    with pytest.raises(errors.Unsupported, match="chain guard"):  # DOCKER-USER is no help against that
        foreign.check(device, everywhere, "docker-user")
    with pytest.raises(errors.InvalidArgument, match="--firewall nonsense"):
        foreign.check(device, [], "nonsense")


@pytest.mark.needs("iptables")
def test_in_docker_user_our_rules_let_pass_and_go_with_the_network(world: World):
    load(world.laboratory, WHOLE_DOCKER)
    before = command("nft", "list", "table", "ip", "filter")
    device = world.network.device
    assert world.lan.ask("tcp", LAN_SIDE, 8000) is None
    for _ in range(2):  # the second time there is nothing left to do
        plan = list(foreign.admit(device))
        steps.execute(plan, {})
    assert plan == []
    assert command("iptables", "-S", "DOCKER-USER").splitlines()[1:] == [
        f'-A DOCKER-USER -{way} {device} -m comment --comment "minicontainer {device}" -j ACCEPT' for way in "io"
    ] + ["-A DOCKER-USER -j RETURN"]
    assert foreign.drops(device) == []
    for protocol in ("tcp", "udp"):
        assert world.lan.ask(protocol, LAN_SIDE, 8000) == f"web {LAN}"
        assert world.web.ask(protocol, INTERNET, 80) == f"internet {INTERNET_SIDE}"
        assert world.lan.ask(protocol, WEB, 81) is None  # our own table still says what may be
    for number in (1, 2):
        detach(world.network, number)
    steps.execute(bridge.teardown(world.network), {})
    assert re.sub(r"packets \d+ bytes \d+", "", command("nft", "list", "table", "ip", "filter")) == re.sub(
        r"packets \d+ bytes \d+", "", before
    )


def test_a_rule_for_somebody_elses_chain_is_what_its_text_says(laboratory: Laboratory):
    load(laboratory, DOCKER)
    (plan,) = foreign.admit("mc0")
    netlink.nft(*plan.arguments)
    ours = command("nft", "list", "table", "ip", "filter")
    assert ours.count("minicontainer mc0") == 2
    foreign.expel("mc0")
    assert "minicontainer" not in command("nft", "list", "table", "ip", "filter")
    for each in plan.arguments:
        command("nft", netlink.nft_text(each))
    assert command("nft", "list", "table", "ip", "filter") == ours


def test_accepting_another_bridge_does_not_help_us(world: World):
    load(world.laboratory, NATIVE)
    for direction in ("iifname", "oifname"):
        command("nft", "add", "rule", "inet", "mine", "guard", direction, "mc9", "accept")
        command("nft", "add", "rule", "inet", "mine", "guard", direction, world.network.device, "drop")
    assert len(foreign.drops(world.network.device)) == 1


def test_a_port_is_held_no_longer_than_published(world: World):
    detach(world.network, 1)
    assert identifier(1) not in nat._held
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as free:
        free.bind(("0.0.0.0", 8000))
