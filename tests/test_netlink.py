"""netlink: what it asks the kernel for, seen through `ip`, `nft` and pyroute2."""

import contextlib
import errno
import json
import struct
import sys
from typing import Any

import pytest

from minicontainer import errors, netlink
from minicontainer.netlink import codec, nftables
from tests.laboratory import Laboratory, Machine, command, fresh_laboratory  # noqa: F401

PORTS = netlink.Set("t", "ports", ("inet_proto", "inet_service"), ("ipv4_addr", "inet_service"))


def shown(machine: Machine, *words: str) -> Any:
    return json.loads(machine.ip("-json", *words))


# ---------------------------------------------------------------------------------------------------------- the codec


def test_an_attribute_is_padded_but_its_length_is_not():
    assert netlink.attribute(3, b"abcde") == struct.pack("=HH", 9, 3) + b"abcde\0\0\0"


def test_attributes_come_back_as_they_went():
    data = netlink.string(1, "mc0") + netlink.nested(2, netlink.number(7, 1500))
    found = dict(netlink.attributes(data))
    assert netlink.text(found[1]) == "mc0"
    assert dict(netlink.attributes(found[2])) == {7: struct.pack("=I", 1500)}


@pytest.mark.parametrize("garbage", [b"", b"\1", b"\0\0\1\0", b"\3\0\1\0aaaa", b"\xff\xff\1\0a"])
def test_garbage_ends_the_parse_and_does_not_hang(garbage):
    assert len(list(netlink.attributes(garbage))) <= 1


class Kernel:
    """Answers each request with the next of `answers`, a datagram with each recv(2)."""

    def __init__(self, *answers: list[bytes]) -> None:
        self.answers, self.waiting, self.asked = list(answers), [], 0  # type: ignore[var-annotated]

    def send(self, data: bytes) -> None:
        assert self.waiting == [], "the answer before was not read to its end"
        self.waiting = list(self.answers[min(self.asked, len(self.answers) - 1)])
        self.asked += 1

    def recv(self, size: int, flags: int = 0) -> bytes:
        return self.waiting.pop(0)


def said(kind: int, flags: int = 0, body: bytes = bytes(4)) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


ROUTE, DONE, CHANGED = 24, 3, 0x10  # RTM_NEWROUTE, NLMSG_DONE, NLM_F_DUMP_INTR


def dumped(monkeypatch: pytest.MonkeyPatch, kernel: Kernel) -> list[bytes]:
    monkeypatch.setattr(codec, "open_socket", lambda protocol, namespace: kernel)
    found = codec.ask(codec.ROUTE, 26, codec.NLM_F_DUMP, b"", "RTM_GETROUTE", ("all",))
    return [body for _, body in found]


@pytest.mark.parametrize(
    "broken",
    [
        [said(ROUTE, 2, b"aaaa"), said(ROUTE, 2 | CHANGED, b"aaaa") + said(DONE, 2)],
        [said(ROUTE, 2, b"aaaa"), said(DONE, 2 | CHANGED)],
    ],
)
def test_a_dump_that_something_changed_meanwhile_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, broken: list[bytes]
):
    kernel = Kernel(broken, broken, [said(ROUTE, 2, b"aaaa") + said(ROUTE, 2, b"bbbb"), said(DONE, 2)])
    assert dumped(monkeypatch, kernel) == [b"aaaa", b"bbbb"]
    assert kernel.asked == 3
    with pytest.raises(errors.KernelError, match="RTM_GETROUTE") as refusal:
        dumped(monkeypatch, Kernel(broken))
    assert refusal.value.errno == errno.EINTR


def test_a_dump_may_fail_at_its_end(monkeypatch: pytest.MonkeyPatch):
    broken = [said(ROUTE, 2, b"aaaa"), said(DONE, 2, struct.pack("=i", -errno.ENOBUFS))]
    with pytest.raises(errors.KernelError, match="RTM_GETROUTE") as refusal:
        dumped(monkeypatch, Kernel(broken))
    assert refusal.value.errno == errno.ENOBUFS


def listed(generation: int, *ports: int) -> bytes:
    """A part of a map, as the kernel says it; `generation` is that of all rules (struct nfgenmsg, res_id)."""
    items = b"".join(nftables._element(PORTS, ("tcp", port), ("172.30.0.2", port), "mine") for port in ports)
    return said(10 << 8 | 12, 2, struct.pack(">BBH", 1, 0, generation) + netlink.nested(3, items))


@pytest.mark.parametrize(
    "broken",
    [
        [listed(7, 1), listed(8, 3), said(DONE, 2)],  # others' rules or elements came or went
        [listed(7, 1, 2), listed(7, 2, 3), said(DONE, 2)],  # the kernel made the map's table larger
    ],
)
def test_a_map_that_changed_while_it_was_read_is_read_again(monkeypatch: pytest.MonkeyPatch, broken: list[bytes]):
    kernel = Kernel(broken, broken, [listed(9, 1, 2), listed(9, 3), said(DONE, 2)])
    monkeypatch.setattr(codec, "open_socket", lambda protocol, namespace: kernel)
    assert [element.key[1] for element in netlink.elements(PORTS, "mine")] == [1, 2, 3]
    assert kernel.asked == 3


def test_of_a_map_that_changes_all_the_time_each_that_was_ever_seen_counts_once(monkeypatch: pytest.MonkeyPatch):
    kernel = Kernel([listed(7, 1, 2), listed(8, 2), said(DONE, 2)], [listed(8, 2), listed(9, 3), said(DONE, 2)])
    monkeypatch.setattr(codec, "open_socket", lambda protocol, namespace: kernel)
    assert [element.key[1] for element in netlink.elements(PORTS)] == [1, 2, 3]


def test_a_transaction_reads_as_nft_writes_it():
    ports = netlink.Set("t", "ports", ("inet_proto", "inet_service"), ("ipv4_addr", "inet_service"))
    bridges = netlink.Set("t", "bridges", ("ifname",))
    commands: list[netlink.Command] = [
        ("add table", "t"),
        ("add set", ports),
        ("add chain", "t", "forward", "filter", "forward", 0),
        ("add rule", "t", "forward", netlink.ifname_in("oifname", "bridges"), netlink.drop()),
        ("add element", bridges, ("mc0",), (), "rules 1"),
        ("create element", ports, ("tcp", 8000), ("172.30.0.2", 80), "3f2a"),
        ("delete element", ports, ("tcp", 8000)),
    ]
    assert [netlink.nft_text(command) for command in commands] == [
        "add table inet t",
        "add map inet t ports { type inet_proto . inet_service : ipv4_addr . inet_service; }",
        "add chain inet t forward { type filter hook forward priority 0; policy accept; }",
        "add rule inet t forward oifname @bridges drop",
        'add element inet t bridges { "mc0" comment "rules 1" }',
        'create element inet t ports { tcp . 8000 comment "3f2a" : 172.30.0.2 . 80 }',
        "delete element inet t ports { tcp . 8000 }",
    ]


def test_importing_it_stays_light():
    heavy = "import sys; before = set(sys.modules); import minicontainer.netlink; print(*(set(sys.modules) - before))"
    loaded = set(command(sys.executable, "-c", heavy).split())
    dear = {
        "pyroute2",
        "ipaddress",
        "json",
        "subprocess",
        "hashlib",
        "dataclasses",
        "asyncio",
        "typing",
        "re",
        "socket",
    }
    assert not loaded & dear


# ------------------------------------------------------------------------------ eight link verbs, over both libraries


class Ours:
    """The verbs, by our own netlink."""

    def add_bridge(self, name: str, mac: str) -> None:
        netlink.link_add(name, "bridge", mac=mac)

    def add_cable(self, name: str, peer: str, pid: int, bridge: str) -> None:
        netlink.link_add(name, "veth", peer=peer, namespace=pid, master=bridge, up=True, mtu=1400)

    def up(self, name: str, pid: int = 0) -> None:
        netlink.link_set(name, up=True, namespace=pid)

    def down(self, name: str) -> None:
        netlink.link_set(name, up=False)

    def mtu(self, name: str, mtu: int) -> None:
        netlink.link_set(name, mtu=mtu)

    def address(self, name: str, address: str, pid: int = 0) -> None:
        netlink.address_add(name, address, namespace=pid)

    def route(self, gateway: str, pid: int) -> None:
        netlink.route_add("default", gateway, namespace=pid)

    def delete(self, name: str) -> None:
        netlink.link_delete(name)


class Theirs:
    """The same, by pyroute2."""

    def _at(self, pid: int) -> Any:
        pyroute2 = pytest.importorskip("pyroute2")
        return pyroute2.NetNS(f"/proc/{pid}/ns/net") if pid else pyroute2.IPRoute()

    def _link(self, verb: str, name: str, pid: int = 0, **settings: Any) -> None:
        with self._at(pid) as ip:
            ip.link(verb, index=ip.link_lookup(ifname=name)[0], **settings)

    def add_bridge(self, name: str, mac: str) -> None:
        with self._at(0) as ip:
            ip.link("add", ifname=name, kind="bridge", address=mac)

    def add_cable(self, name: str, peer: str, pid: int, bridge: str) -> None:
        with self._at(0) as ip:
            inside = {"ifname": peer, "net_ns_pid": pid, "mtu": 1400}
            master = ip.link_lookup(ifname=bridge)[0]
            ip.link("add", ifname=name, kind="veth", peer=inside, mtu=1400)
            index = ip.link_lookup(ifname=name)[0]
            ip.link("set", index=index, master=master, state="up")

    def up(self, name: str, pid: int = 0) -> None:
        self._link("set", name, pid, state="up")

    def down(self, name: str) -> None:
        self._link("set", name, state="down")

    def mtu(self, name: str, mtu: int) -> None:
        self._link("set", name, mtu=mtu)

    def address(self, name: str, address: str, pid: int = 0) -> None:
        with self._at(pid) as ip:
            host, prefix = address.split("/")
            ip.addr("replace", index=ip.link_lookup(ifname=name)[0], address=host, prefixlen=int(prefix))

    def route(self, gateway: str, pid: int) -> None:
        with self._at(pid) as ip:
            ip.route("replace", dst="default", gateway=gateway)

    def delete(self, name: str) -> None:
        with contextlib.suppress(IndexError):
            self._link("del", name)


@pytest.mark.root
@pytest.mark.needs("bridge", "veth", "ip")
@pytest.mark.parametrize("library", [Ours(), Theirs()], ids=["netlink", "pyroute2"])
def test_eight_link_verbs_do_the_same_over_both_libraries(laboratory: Laboratory, library: Any):
    inside = laboratory.machine()
    library.add_bridge("mc0", "02:6d:ac:1e:00:01")
    library.address("mc0", "172.30.0.1/16")
    library.up("mc0")
    library.mtu("mc0", 1300)
    library.add_cable("vethab", "eth0", inside.pid, "mc0")
    library.address("eth0", "172.30.0.2/16", inside.pid)
    library.up("eth0", inside.pid)
    library.route("172.30.0.1", inside.pid)

    bridge, cable = json.loads(command("ip", "-json", "-details", "link", "show"))[1:]
    assert (bridge["ifname"], bridge["linkinfo"]["info_kind"], bridge["mtu"]) == ("mc0", "bridge", 1300)
    assert bridge["address"] == "02:6d:ac:1e:00:01" and "UP" in bridge["flags"]
    assert (cable["ifname"], cable["master"], cable["mtu"]) == ("vethab", "mc0", 1400)
    assert "UP" in cable["flags"] and cable["linkinfo"]["info_kind"] == "veth"
    (address,) = json.loads(command("ip", "-json", "-4", "address", "show", "dev", "mc0"))[0]["addr_info"]
    assert (address["local"], address["prefixlen"]) == ("172.30.0.1", 16)
    (eth0,) = shown(inside, "-4", "address", "show", "dev", "eth0")
    assert (eth0["addr_info"][0]["local"], eth0["mtu"], eth0["operstate"]) == ("172.30.0.2", 1400, "UP")
    default, *_ = shown(inside, "route")
    assert (default["dst"], default["gateway"], default["dev"]) == ("default", "172.30.0.1", "eth0")
    assert inside.call(lambda: netlink.link("eth0") is not None)

    library.down("mc0")
    assert "UP" not in json.loads(command("ip", "-json", "link", "show", "mc0"))[0]["flags"]
    library.delete("vethab")
    library.delete("vethab")  # and again: it is gone afterwards
    library.delete("mc0")
    assert [link["ifname"] for link in json.loads(command("ip", "-json", "link"))] == ["lo"]
    assert "eth0" not in inside.ip("link")


@pytest.mark.root
@pytest.mark.needs("bridge", "veth", "ip")
def test_what_is_there_can_be_read(laboratory: Laboratory):
    netlink.link_add("mc0", "bridge", mac="02:00:00:00:00:01")
    netlink.link_add("vethab", "veth", peer="other", master="mc0", up=True)
    found = netlink.link("mc0")
    assert found is not None and (found.kind, found.mac, found.up) == ("bridge", "02:00:00:00:00:01", False)
    ports = [link.name for link in netlink.links() if link.master == found.ifindex]
    assert ports == ["vethab"]
    assert netlink.link("nosuch") is None


@pytest.mark.root
@pytest.mark.needs("veth", "ip")
def test_a_cable_takes_the_place_of_one_that_a_dying_namespace_still_has(laboratory: Laboratory):
    before, after = laboratory.machine(), laboratory.machine()
    netlink.link_add("vethab", "veth", peer="eth0", namespace=before.pid, up=True)
    netlink.link_add("vethab", "veth", peer="eth0", namespace=after.pid, up=True)
    assert "eth0" not in before.ip("link") and "eth0" in after.ip("link")
    with pytest.raises(errors.KernelError, match="File exists"):  # here it is the other end's name
        netlink.link_add("vethcd", "veth", peer="eth0", namespace=after.pid)


@pytest.mark.root
@pytest.mark.needs("bridge", "ip")
def test_a_refusal_names_the_message_and_what_was_asked(laboratory: Laboratory):
    with pytest.raises(errors.KernelError) as refusal:
        netlink.link_add("name-longer-than-fifteen", "bridge")
    assert refusal.value.call == "RTM_NEWLINK" and "name-longer-than-fifteen" in str(refusal.value)
    with pytest.raises(errors.KernelError, match="Unknown device type"):  # the kernel's own words
        netlink.link_add("mc0", "nonsense")
    with pytest.raises(errors.KernelError, match="no network device nosuch"):
        netlink.address_add("nosuch", "10.0.0.1/24")
    netlink.link_add("mc0", "bridge")
    netlink.link_add("mc0", "bridge", exist_ok=True)
    with pytest.raises(errors.KernelError, match="File exists"):
        netlink.link_add("mc0", "bridge")


@pytest.mark.root
@pytest.mark.needs("veth", "ip")
def test_a_look_into_a_namespace_does_not_keep_it_alive(laboratory: Laboratory):
    """A socket in it would; and then the host's end of the cable would stay, too."""
    inside = laboratory.machine()
    netlink.link_add("vethab", "veth", peer="eth0", namespace=inside.pid, up=True)
    netlink.link_set("eth0", up=True, namespace=inside.pid)
    inside.end()
    wait_until(lambda: netlink.link("vethab") is None)


def wait_until(condition: Any) -> None:
    import time

    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


# ----------------------------------------------------------------------------------------------------------- firewall


@pytest.mark.root
@pytest.mark.needs("nftables")
def test_a_transaction_is_all_or_nothing(laboratory: Laboratory):
    with pytest.raises(errors.KernelError) as refusal:
        netlink.nft(("add table", "t"), ("add rule", "t", "nosuch", netlink.drop()), ("add set", PORTS))
    assert "add rule inet t nosuch drop" in str(refusal.value)
    assert command("nft", "list", "ruleset") == ""
    netlink.nft(("add table", "t"), ("add set", PORTS))
    assert "map ports" in command("nft", "list", "ruleset")


@pytest.mark.root
@pytest.mark.needs("nftables")
def test_an_element_that_is_taken_names_its_holder(laboratory: Laboratory):
    netlink.nft(("add table", "t"), ("add set", PORTS))
    netlink.nft(("create element", PORTS, ("udp", 53), ("172.30.0.2", 5353), "3f2a" * 16))
    with pytest.raises(errors.Conflict, match="53/udp is already taken by container 3f2a3f2a3f2a"):
        netlink.nft(("create element", PORTS, ("udp", 53), ("172.30.0.3", 53), "beef"))
    found = netlink.element(PORTS, ("udp", 53))
    assert found == (("udp", 53), ("172.30.0.2", 5353), "3f2a" * 16)
    assert netlink.element(PORTS, ("tcp", 53)) is None
    assert netlink.elements(PORTS, "3f2a" * 16) == [found]
    assert netlink.elements(PORTS, "beef") == []
    netlink.nft(("delete element", PORTS, ("udp", 53)))
    assert netlink.elements(PORTS) == []


@pytest.mark.root
@pytest.mark.needs("nftables")
def test_the_answers_of_a_failed_transaction_do_not_reach_the_next(laboratory: Laboratory):
    for _ in range(3):
        with pytest.raises(errors.KernelError):
            netlink.nft(("delete table", "a"), ("delete table", "b"), ("delete table", "c"))
        netlink.nft(("add table", "t"))


@pytest.mark.root
@pytest.mark.needs("nftables")
def test_a_thousand_elements_are_read_back(laboratory: Laboratory):
    netlink.nft(("add table", "t"), ("add set", PORTS))
    for start in (1, 501):
        netlink.nft(
            *[
                ("create element", PORTS, ("tcp", port), ("172.30.0.2", port), "a" * 64)
                for port in range(start, start + 500)
            ]
        )
    assert {element.key[1] for element in netlink.elements(PORTS)} == set(range(1, 1001))


@pytest.mark.root
@pytest.mark.needs("nftables")
def test_of_elements_those_are_deleted_that_are_there_and_bear_the_comment(laboratory: Laboratory):
    netlink.nft(("add table", "t"), ("add set", PORTS))
    for port, comment in ((1, "mine"), (2, "mine"), (4, "another's"), (5, "mine")):
        netlink.nft(("create element", PORTS, ("tcp", port), ("172.30.0.2", port), comment))
    netlink.delete_elements([(PORTS, ("tcp", port)) for port in (1, 2, 2, 3, 4)], "mine")
    assert {element.key[1] for element in netlink.elements(PORTS)} == {4, 5}
    netlink.nft(("delete table", "t"))
    netlink.delete_elements([(PORTS, ("tcp", 5))], "mine")
