"""Networks without a bridge: real containers in a LAN that the test makes, by sockets; what stands where, by `ip`."""

import json
import os
import time
from pathlib import Path

import pytest

from minicontainer import errors, netlink
from tests.conftest import minicontainer
from tests.laboratory import Inside, Laboratory, Machine, ask, command, fresh_laboratory  # noqa: F401
from tests.network.test_reach import IN_THE_LAN, LAN, LAN6, LAN_SIDE, House, house  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("bridge", "veth", "nftables", "ip")]
macvlan, ipvlan = pytest.mark.needs("macvlan"), pytest.mark.needs("ipvlan")

LAN_NET = ["--ipv6", *IN_THE_LAN]
BOTH = ("tcp", "udp")


def create(driver: str, name: str, *words: str) -> None:
    minicontainer("network", "create", "-d", driver, *words, name)


def address(name: str, network: str, six: bool = False) -> str:
    found = json.loads(minicontainer("inspect", name).stdout)[0]["NetworkSettings"]["Networks"]
    return str(found[network]["GlobalIPv6Address" if six else "IPAddress"])


def devices() -> set[str]:
    return {link["ifname"] for link in json.loads(command("ip", "-json", "link"))}


def refused(*words: str) -> str:
    done = minicontainer(*words, check=False)
    assert done.returncode and "Traceback" not in done.stderr
    return done.stderr


def heard(who: Machine, where: str) -> list[str | None]:
    return [who.ask(protocol, where, 80) for protocol in BOTH]


def in_a_lan(house: House, driver: str, mode: str) -> None:
    """What holds of both drivers: in the LAN by one's own address, and apart from the host."""
    create(driver, "outside", *LAN_NET, "-o", "parent=lan0", "-o", f"{driver}_mode={mode}")
    create("bridge", "within")
    web = house.run("web", "--network", "outside", "--ip", "198.51.100.77", "--ip6", "fd00:51::77")
    sibling = house.run("sibling", "--network", "outside", "--network", "within")
    for protocol in BOTH:
        web.serve(protocol, 80, "web")
        house.lan.serve(protocol, 80, "lan")
    other, other6 = address("sibling", "outside"), address("sibling", "outside", six=True)
    assert int(other.rpartition(".")[2]) >= 128 and int(other6.rpartition(":")[2], 16) >= 0x80
    (link,) = json.loads(web.ip("-json", "-details", "link", "show", "eth0"))
    assert link["linkinfo"]["info_kind"] == driver and link["linkinfo"]["info_data"]["mode"] == mode
    for family, router in (("-4", LAN), ("-6", LAN6)):
        assert [way["gateway"] for way in json.loads(web.ip("-json", family, "route", "show", "default"))] == [router]
    near = mode != "private"
    for own, neighbour, theirs in (("198.51.100.77", LAN, other), ("fd00:51::77", LAN6, other6)):
        assert heard(house.lan, own) == [f"web {neighbour}"] * 2
        assert heard(web, neighbour) == [f"lan {own}"] * 2
        assert heard(sibling, own) == ([f"web {theirs}"] if near else [None]) * 2
        assert [ask(protocol, own, 80) for protocol in BOTH] == [None] * 2  # not the host
    names = minicontainer("exec", "web", "busybox", "nslookup", "sibling").stdout
    assert names.count(other) == names.count(other6) == 1
    # Nothing of the firewall's is there for it, and the host has no end of its own.
    assert "198.51.100" not in command("nft", "list", "ruleset")
    assert web.ask("tcp", LAN_SIDE, 80) is None
    # Out of it, and in again, while it runs.
    assert "active endpoints" in refused("network", "rm", "outside")
    minicontainer("network", "disconnect", "outside", "sibling")
    assert {link["ifname"] for link in json.loads(sibling.ip("-json", "link"))} == {"lo", "eth1"}
    (way,) = json.loads(sibling.ip("-json", "route", "show", "default"))  # the other network's, now
    assert way["dev"] == "eth1"
    minicontainer("network", "connect", "--ip", "198.51.100.99", "--ip6", "fd00:51::99", "outside", "sibling")
    for flag, own, neighbour in (("--ip", "198.51.100.99", LAN), ("--ip6", "fd00:51::99", LAN6)):
        assert heard(sibling, neighbour) == [f"lan {own}"] * 2
        assert "is leased by" in refused("run", "--rm", "--network", "outside", flag, own, "plain", "true")
    assert "own address" in refused("run", "--rm", "--network", "outside", "-p", "80:80", "plain", "true")
    minicontainer("network", "reload")
    web.end()
    minicontainer("restart", "-t", "0", "web")
    house.enter("web").serve("tcp", 80, "again")
    assert house.lan.ask("tcp", "198.51.100.77", 80) == f"again {LAN}"
    assert house.lan.ask("tcp", "fd00:51::77", 80) == f"again {LAN6}"
    minicontainer("rm", "-f", "web", "sibling")
    assert set(minicontainer("network", "prune", "-f").stdout.split()) >= {"outside", "within"}
    assert "lan0" in devices()


@macvlan
@pytest.mark.parametrize("mode", ["bridge", "private"])
def test_a_macvlan_is_in_the_lan(house: House, mode: str) -> None:
    in_a_lan(house, "macvlan", mode)


@ipvlan
@pytest.mark.vm
def test_an_ipvlan_is_in_the_lan(house: House) -> None:
    in_a_lan(house, "ipvlan", "l2")


@macvlan
def test_hardware_addresses_are_the_containers_and_documents_say_so(house: House) -> None:
    create("macvlan", "outside", *LAN_NET, "-o", "parent=lan0")
    mac = "02:00:00:00:00:77"
    web = house.run("web", "--network", "outside", "--mac-address", mac)
    assert json.loads(web.ip("-json", "link", "show", "eth0"))[0]["address"] == mac
    other = house.run("other", "--network", "outside")
    own = json.loads(other.ip("-json", "link", "show", "eth0"))[0]["address"]
    web.serve("udp", 80, "web")
    assert other.ask("udp", address("web", "outside"), 80)
    (found,) = json.loads(minicontainer("network", "inspect", "outside").stdout)
    assert (found["Driver"], found["Internal"]) == ("macvlan", False)
    assert found["Options"] == {"parent": "lan0", "macvlan_mode": "bridge"} and found["EnableIPv6"]
    assert [(pool["Subnet"], pool["Gateway"]) for pool in found["IPAM"]["Config"]] == [
        ("198.51.100.0/24", LAN), ("fd00:51::/64", LAN6)
    ]  # fmt: skip
    assert {end["IPv6Address"] for end in found["Containers"].values()} == {"fd00:51::80/64", "fd00:51::81/64"}
    assert {end["MacAddress"] for end in found["Containers"].values()} == {mac, own}
    assert "outside macvlan" in minicontainer("network", "ls", "--format", "{{.Name}} {{.Driver}}").stdout.split("\n")
    assert minicontainer("network", "ls", "-q", "-f", "driver=macvlan").stdout.split() == [found["Id"][:12]]


@macvlan
@pytest.mark.needs("dummy")
@pytest.mark.vm
def test_without_a_parent_siblings_reach_one_another_alone(house: House) -> None:
    before = devices()
    create("macvlan", "alone")
    (parent,) = devices() - before
    assert json.loads(minicontainer("network", "inspect", "alone").stdout)[0]["Internal"]
    web, sibling = house.run("web", "--network", "alone"), house.run("sibling", "--network", "alone")
    for protocol in BOTH:
        web.serve(protocol, 80, "web")
    assert all(heard(sibling, address("web", "alone")))
    assert json.loads(web.ip("-json", "route", "show", "default")) == []
    minicontainer("rm", "-f", "web", "sibling")
    command("ip", "link", "delete", parent)  # as a reboot does: a start makes it again
    minicontainer("run", "--rm", "--network", "alone", "plain", "true")
    assert parent in devices()
    minicontainer("network", "rm", "alone")
    assert devices() <= before


@macvlan
@pytest.mark.needs("vlan")
@pytest.mark.vm
def test_a_vlan_of_a_device_is_made_and_goes_with_the_network(house: House) -> None:
    house.lan.ip("link", "add", "link", "eth0", "name", "tagged", "type", "vlan", "id", "42")
    house.lan.ip("address", "add", "203.0.113.1/24", "dev", "tagged")
    house.lan.ip("link", "set", "tagged", "up")
    create("macvlan", "tagged", "--subnet", "203.0.113.0/24", "--gateway", "203.0.113.1", "-o", "parent=lan0.42")
    (link,) = json.loads(command("ip", "-json", "-details", "link", "show", "lan0.42"))
    assert link["linkinfo"]["info_data"]["id"] == 42 and "UP" in link["flags"]
    web = house.run("web", "--network", "tagged")
    web.serve("tcp", 80, "web")
    assert house.lan.ask("tcp", address("web", "tagged"), 80) == "web 203.0.113.1"
    minicontainer("rm", "-f", "web")
    minicontainer("network", "rm", "tagged")
    assert "lan0.42" not in devices()


@macvlan
def test_passthru_has_its_parent_alone_and_says_who_has_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    create("macvlan", "alone", *LAN_NET, "-o", "parent=lan0", "-o", "macvlan_mode=passthru")
    create("bridge", "within")
    minicontainer("create", "--name", "waiting", "--network", "alone", "plain", "true")  # that takes nothing yet
    minicontainer("run", "-d", "--name", "web", "--network", "alone", "plain", "sleep", "600")
    house.run("other", "--network", "within")
    (identifier,) = minicontainer("ps", "-q", "-f", "name=web").stdout.split()
    for words, code in (
        (["run", "--rm", "--network", "alone", "plain", "true"], 125),
        (["network", "connect", "alone", "other"], 1),
        (["start", "waiting"], 1),
    ):
        done = minicontainer(*words, check=False)
        assert (done.returncode, done.stderr.count(identifier)) == (code, 1), done
        assert "passthru" in done.stderr and "stop that or disconnect it" in done.stderr, done
    for _ in range(3):  # the kernel may not have taken the one before down yet
        minicontainer("restart", "-t", "0", "web")
    minicontainer("rm", "-f", "web")
    minicontainer("start", "-a", "waiting")
    # Somebody else's: it is waited for, for a while.
    netlink.link_add("foreign0", "macvlan", parent="lan0", mode="bridge")
    with monkeypatch.context() as patch:  # `undo` would take the laboratory's store away, too
        patch.setattr(netlink.route, "PATIENCE", 0.05)
        with pytest.raises(errors.KernelError, match="another macvlan is on lan0"):
            netlink.link_add("eth7", "macvlan", parent="lan0", mode="passthru")
    gone = Inside(os.getpid()).begin(lambda: (time.sleep(0.2), netlink.link_delete("foreign0")))
    netlink.link_add("eth7", "macvlan", parent="lan0", mode="passthru")
    gone()
    assert {"eth7"} == devices() & {"eth7", "foreign0"}


def test_what_cannot_be_is_refused_and_leaves_nothing(house: House) -> None:
    before = devices()
    create("macvlan", "there", *LAN_NET, "-o", "parent=lan0")
    for words, complaint in (
        (["-o", "parent=nosuch0"], "no such device"),
        (["-o", "parent=lan0.4095"], "no such device"),
        (["-o", "parent=lo"], "loopback"),
        (["-o", "parent=lan0"], "already using parent"),
        (["-o", "parent=lan0.7", "--internal"], "leave out"),
        (["-o", "parent=lan0.7", "--subnet", "198.51.100.0/25"], "overlaps with network there"),
        (["-o", "parent=lan0.7", "-o", "macvlan_mode=nosuch"], "private, vepa, bridge or passthru"),
        (["-o", "com.docker.network.bridge.name=x"], "no option"),
        (["-o", "parent=lan0.7", "-o", "mtu=1501"], "lan0 has its 1500 at most"),
        (["-o", "parent=lan0.7", "--ipv6", "--subnet", "fd00:51::/80"], "overlaps with network there"),
        (["-o", "parent=lan0.7", "--ipv6", "--subnet", "fd00:52::/64", "--gateway", "fd00:51::2"], "no address in"),
        (["-o", "parent=lan0.7", "--ipv6", "-o", "mtu=1000"], "IPv6 needs 1280"),
    ):
        assert complaint in refused("network", "create", "-d", "macvlan", *words, "net")
    assert "own address" in refused("firewall", "plan", "-p", "80:80", "--network", "there")
    minicontainer("network", "rm", "there")
    assert devices() == before
    assert list((house.store / "networks").iterdir()) == []


def test_a_kernel_without_ipvlan_is_named(house: House, tmp_path: Path) -> None:
    """Where it has one, the parent that is a macvlan's already is what it refuses."""
    create("ipvlan", "net", *LAN_NET, "-o", "parent=lan0")
    assert "parent's address" in refused(
        "run", "--rm", "--network", "net", "--mac-address", "02:00:00:00:00:09", "plain", "true"
    )
    done = minicontainer("run", "--rm", "--network", "net", "plain", "true", check=False)
    assert done.returncode == 0 or (done.returncode == 125 and "this kernel has no ipvlan" in done.stderr)
    assert minicontainer("ps", "-aq").stdout == ""
