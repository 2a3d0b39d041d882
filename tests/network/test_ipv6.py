"""IPv6 beside IPv4: addresses, the way out, published ports, names; by real sockets, between a LAN and containers."""

import ipaddress
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dnslib
import pytest

from minicontainer import errors, files, host, steps
from minicontainer.network import Network, bridge, ipam
from tests import leftovers
from tests.conftest import minicontainer
from tests.laboratory import Inside, Laboratory, ask, command, fresh_laboratory, write  # noqa: F401
from tests.network.test_nat import DOCKER, load
from tests.network.test_reach import LAN6, LAN_SIDE, LAN_SIDE6, House, listed

pytestmark = [pytest.mark.root, pytest.mark.needs("bridge", "veth", "nftables", "ip", "ipv6")]

SUBNET = "fd00:77::/64"
FORWARDING = "/proc/sys/net/ipv6/conf/all/forwarding"


@pytest.fixture
def house(laboratory: Laboratory, tmp_path: Path) -> Iterator[House]:
    made = House(laboratory, tmp_path)
    yield made
    made.end()


def inspect(*names: str) -> Any:
    return json.loads(minicontainer(*names).stdout)[0]


def address6(name: str, network: str = "six") -> str:
    """What `inspect` says of it."""
    return str(inspect("inspect", name)["NetworkSettings"]["Networks"][network]["GlobalIPv6Address"])


def question(inside: Inside, name: str, kind: str) -> list[str]:
    """What the resolver says, asked from in there."""

    def answer() -> list[str]:
        return [str(record.rdata) for record in dnslib.DNSRecord.parse(asked.send("127.0.0.11", 53, timeout=30)).rr]

    asked = dnslib.DNSRecord.question(name, kind)
    found: list[str] = inside.call(answer)
    return found


# ----------------------------------------------------------------------------------------------------------- addresses


def test_leases_of_both_families_come_and_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host, "run_root", lambda: str(tmp_path))
    network = Network("six", "mc6", "172.30.0.0/16", "172.30.0.1", 1500, subnet6="fd00:77::/125", gateway6="fd00:77::1")
    names = [f"{number:064x}" for number in range(5)]
    assert [ipam.lease6(network, name) for name in names] == [f"fd00:77::{last}" for last in (2, 3, 4, 5, 6)]
    assert ipam.lease6(network, names[0]) == "fd00:77::2"
    with pytest.raises(errors.Conflict, match=r"no address is free in network six, fd00:77::/125: all 5 are leased"):
        ipam.lease6(network, "f" * 64)
    ipam.lease(network, names[0])
    assert ipam.leases(network) == {names[0]: "172.30.0.2"}
    ipam.release(network, names[0])
    assert ipam.leases(network) == {} and ipam.lease6(network, "f" * 64, "fd00:77:0::2") == "fd00:77::2"
    with pytest.raises(errors.Conflict, match="fd00:77::3 is leased by container 000000000000"):
        ipam.lease6(network, "e" * 64, "fd00:77::3")
    for wrong in ("fd00:78::2", "fd00:77::1", "10.0.0.1", "x"):
        with pytest.raises(errors.InvalidArgument, match="is no address"):
            ipam.lease6(network, "e" * 64, wrong)


def test_a_subnet_of_our_own_pool_or_one_that_is_given(house: House) -> None:
    for name in ("one", "two"):
        minicontainer("network", "create", "--ipv6", name)
    pools = [inspect("network", "inspect", name)["IPAM"]["Config"][1] for name in ("one", "two")]
    for pool in pools:
        low, _ = ipam.bounds(pool["Subnet"])
        assert pool["Subnet"].startswith("fd") and pool["Subnet"].endswith("/64")
        assert pool["Gateway"] == ipam.written(low + 1, ":")
    assert pools[0] != pools[1]
    given = [
        "--subnet",
        SUBNET,
        "--subnet",
        "10.77.0.0/24",
        "--gateway",
        "fd00:77::ffff",
        "--ip-range",
        "fd00:77::80/121",
    ]
    minicontainer("network", "create", "--ipv6", *given, "six")
    found = inspect("network", "inspect", "six")
    assert found["EnableIPv6"] is True
    assert found["IPAM"]["Config"] == [
        {"Subnet": "10.77.0.0/24", "Gateway": "10.77.0.1"},
        {"Subnet": SUBNET, "IPRange": "fd00:77::80/121", "Gateway": "fd00:77::ffff"},
    ]
    assert "six true" in minicontainer("network", "ls", "--format", "{{.Name}} {{.IPv6}}").stdout
    for words, complaint in (
        (["--ipv6", "--subnet", "fd00:77::/80"], "overlaps with network six"),
        (["--ipv6", "--subnet", "fd00:51::/48"], "overlaps with a route of this host through lan0"),
        (["--subnet", "fd00:78::/64"], "say --ipv6"),
        (["--ipv6", "--subnet", "fd00:78::/64", "--subnet", "fd00:79::/64"], "multiple subnets"),
        (["--ipv6", "--subnet", "fd00:78::/64", "--gateway", "fd00:79::1"], "no address in"),
        (["--ipv6", "--subnet", "fd00:78::/127"], "no room"),
        (["--ipv6", "-o", "mtu=1000"], "IPv6 needs 1280"),
    ):
        done = minicontainer("network", "create", *words, "wrong", check=False)
        assert done.returncode == 1 and complaint in done.stderr, done
    assert "wrong" not in minicontainer("network", "ls").stdout


def test_an_address_a_way_out_and_all_gone_afterwards(house: House) -> None:
    write(FORWARDING, "0")
    write("/proc/sys/net/ipv6/conf/lan0/accept_ra", "1")
    minicontainer("network", "create", "--ipv6", "--subnet", SUBNET, "six")
    device = inspect("network", "inspect", "six")["Options"]["com.docker.network.bridge.name"]
    assert files.read(f"/proc/sys/net/ipv6/conf/{device}/accept_ra") == b"0\n"
    assert files.read("/proc/sys/net/ipv6/conf/lan0/accept_ra") == b"2\n"  # it goes on believing its router
    web = house.run("web", "--network", "six", "--ip6", "fd00:77::9")
    (eth0,) = json.loads(web.ip("-json", "-6", "address", "show", "dev", "eth0"))
    assert {each["local"]: each.get("tentative") for each in eth0["addr_info"] if each["scope"] == "global"} == {
        "fd00:77::9": None
    }
    assert json.loads(web.ip("-json", "-6", "route", "show", "default"))[0]["gateway"] == "fd00:77::1"
    end = inspect("inspect", "web")["NetworkSettings"]["Networks"]["six"]
    assert (end["GlobalIPv6Address"], end["GlobalIPv6PrefixLen"], end["IPv6Gateway"]) == (
        "fd00:77::9",
        64,
        "fd00:77::1",
    )
    assert end["IPAMConfig"] == {"IPv6Address": "fd00:77::9"}
    assert "fd00:77::9\t" in minicontainer("exec", "web", "cat", "/etc/hosts").stdout
    for protocol in ("tcp", "udp"):
        house.lan.serve(protocol, 80, "lan")
        assert web.ask(protocol, LAN6, 80) == f"lan {LAN_SIDE6}"  # by the host's address: masquerade
    other = minicontainer("run", "--rm", "--network", "six", "--ip6", "fd00:77::9", "plain", "true", check=False)
    assert other.returncode == 125 and "is leased by container" in other.stderr
    plain = minicontainer("run", "--rm", "--ip6", "fd00:77::8", "plain", "true", check=False)
    assert plain.returncode == 125 and "has no IPv6" in plain.stderr
    minicontainer("restart", "-t", "0", "web")
    assert address6("web") == "fd00:77::9"
    minicontainer("rm", "-f", "web")
    minicontainer("network", "rm", "six")
    table = command("nft", "list", "table", "inet", f"minicontainer{leftovers.suffix(house.store)}")
    assert "fd00:77" not in table
    minicontainer("system", "reset", "--force")
    assert files.read(FORWARDING) == b"0\n"
    assert files.read("/proc/sys/net/ipv6/conf/lan0/accept_ra") == b"1\n"


def test_it_may_speak_at_once(laboratory: Laboratory) -> None:
    """No duplicate address detection, neither inside nor at the gateway: no answer is a second late."""
    both = Network("six", "mc6", "172.30.0.0/16", "172.30.0.1", 1500)
    network = both._replace(subnet6=SUBNET, gateway6="fd00:77::1")
    steps.execute(bridge.setup(network), {})
    container = laboratory.machine()
    container.serve("tcp", 80, "it")
    values: steps.Values = {"pid": container.pid, "address": "172.30.0.2", "address6": "fd00:77::2"}
    steps.execute(bridge.attach(network, "a" * 64, address6=steps.Symbol("address6")), values)
    assert ask("tcp", "fd00:77::2", 80) == "it fd00:77::1"  # within PAUSE
    steps.execute(bridge.teardown(network), {})
    assert command("nft", "list", "ruleset") == ""


# ------------------------------------------------------------------------------------------------------- who, and how


def test_names_lead_to_both_addresses_and_follow(house: House) -> None:
    minicontainer("network", "create", "--ipv6", "--subnet", SUBNET, "six")
    minicontainer("network", "create", "four")
    web, db = house.run("web", "--network", "six"), house.run("db", "--network", "four")
    six = address6("web")
    assert question(web, "web", "AAAA") == [six] and len(question(web, "web", "ANY")) == 2
    assert question(web, ipaddress.ip_address(six).reverse_pointer, "PTR") == ["web.six."]
    minicontainer("network", "connect", "--ip6", "fd00:77::42", "six", "db")
    assert question(web, "db", "AAAA") == ["fd00:77::42"] and question(db, "web", "AAAA") == [six]
    assert json.loads(db.ip("-json", "-6", "route", "show", "default"))[0]["dev"] == "eth1"  # its only way out by IPv6
    assert json.loads(db.ip("-json", "route", "show", "default"))[0]["dev"] == "eth0"
    web.serve("tcp", 80, "web")
    assert db.ask("tcp", six, 80) == "web fd00:77::42"
    minicontainer("rename", "db", "base")
    assert question(web, "base", "AAAA") == ["fd00:77::42"]
    minicontainer("network", "disconnect", "six", "base")
    assert question(web, "base", "AAAA") == [] and "inet6 fd00" not in db.ip("address")


def test_docker_user_of_both_families_and_the_refusal_of_either(house: House) -> None:
    load(house.laboratory, DOCKER)
    minicontainer("network", "create", "--ipv6", "--subnet", SUBNET, "six")
    device = inspect("network", "inspect", "six")["Options"]["com.docker.network.bridge.name"]
    words = ["run", "--rm", "--network", "six", "-p", "[::]:8000:80", "plain", "true"]
    minicontainer(*words)  # only IPv4 is dropped
    load(house.laboratory, DOCKER.replace("table ip ", "table ip6 "))
    done = minicontainer(*words, check=False)
    assert done.returncode == 125 and "by IPv6: chain FORWARD" in done.stderr
    assert f"ip6tables -I DOCKER-USER -i {device} -j ACCEPT" in done.stderr
    web = house.run("web", "--network", "six", "--firewall", "docker-user", "-p", "8000:80")
    web.serve("tcp", 80, "web")
    assert house.lan.ask("tcp", LAN_SIDE6, 8000) == f"web {LAN6}"
    minicontainer("rm", "-f", "web")
    minicontainer("network", "rm", "six")
    assert device not in command("nft", "list", "ruleset")


def test_after_a_flush_reload_puts_ports_of_both_families_back(house: House) -> None:
    minicontainer("network", "create", "--ipv6", "--subnet", SUBNET, "six")
    web = house.run("web", "--network", "six", "-p", "8000:80", "-p", "8000:80/udp", "-p", f"[{LAN_SIDE6}]:8001:80")
    plan = json.loads(minicontainer("firewall", "plan", "--network", "six", "--format", "json", "-p", "8002:80").stdout)
    assert any("ports6 {" in rule and "$address6 . 80" in rule for rule in plan["rules"])
    assert {way["who"]: way["why"] for way in plan["ports"][0]["reach"] if way["family"] == "IPv6"}[
        "the LAN"
    ] == "seen with its own address"
    for protocol in ("tcp", "udp"):
        web.serve(protocol, 80, "web")
    table = f"minicontainer{leftovers.suffix(house.store)}"
    before = listed(table)
    command("nft", "flush", "ruleset")
    assert minicontainer("network", "reload").stdout.split()
    assert listed(table) == before
    for protocol in ("tcp", "udp"):
        assert house.lan.ask(protocol, LAN_SIDE6, 8000) == f"web {LAN6}"
        assert house.lan.ask(protocol, LAN_SIDE, 8000)
    assert house.lan.ask("tcp", LAN_SIDE6, 8001) == f"web {LAN6}" and house.lan.ask("tcp", LAN_SIDE, 8001) is None


def test_a_script_of_a_start_with_ipv6_does_the_same(house: House, tmp_path: Path) -> None:
    minicontainer("network", "create", "--ipv6", "--subnet", SUBNET, "six")
    script = tmp_path / "start.sh"
    words = ["run", "--rm", "--network", "six", "-p", "8000:80/udp", "--explain=sh", "plain", "ip", "addr"]
    script.write_text(minicontainer(*words).stdout)
    done = subprocess.run(["sh", str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "inet6 fd00:77::2/64" in done.stdout
