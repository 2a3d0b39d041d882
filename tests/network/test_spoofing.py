"""Forged senders: whole frames by packet(7), as a container with CAP_NET_RAW sends them; the neighbour is witness.

In a laboratory one set-up serves all frames. With real containers it is shown that a start, a connect, a reload and a
repair keep the table as it should be.
"""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer import errors, host, netlink, steps, syscalls
from minicontainer.network import bridge, cable, hardware_address, ipam, spoofing
from tests.conftest import minicontainer
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401
from tests.laboratory import Laboratory, Machine, ask, command, fresh_laboratory  # noqa: F401
from tests.network.test_bridge import attach, identifier, set_up
from tests.network.test_dns import until

pytestmark = [pytest.mark.root, pytest.mark.needs("bridge", "veth", "nftables", "ip")]

IP, ARP, IP6, VLAN, QINQ = 0x0800, 0x0806, 0x86DD, 0x8100, 0x88A8
EVERYBODY = "ff:ff:ff:ff:ff:ff"
MARK = b"a frame of this test"
NAME = 48  # bytes for what a frame is called


def raw(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def frame(sender: str, kind: int, body: bytes, target: str = EVERYBODY) -> bytes:
    return raw(target) + raw(sender) + struct.pack(">H", kind) + body


def packet(source: str, target: str = "172.30.0.3") -> bytes:
    """An IPv4 header (RFC 791) of protocol 253, for experiments, and what we know it by."""
    length = 20 + len(MARK) + NAME
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, length, 0, 0, 64, 253, 0, ipv4(source), ipv4(target))
    total = sum(struct.unpack(">10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + header[12:] + MARK


def packet6(source: str = "::") -> bytes:
    """An IPv6 header (RFC 8200), to nobody, for nothing."""
    sender = socket.inet_pton(socket.AF_INET6, source)
    return struct.pack(">IHBB16s16x", 6 << 28, len(MARK) + NAME, 59, 64, sender) + MARK


def arp(mac: str, address: str, operation: int = 2) -> bytes:
    """What says that `address` is at `mac` (RFC 826)."""
    return struct.pack(">HHBBH6s4s6s4s", 1, IP, 6, 4, operation, raw(mac), ipv4(address), bytes(6), bytes(4)) + MARK


def ipv4(address: str) -> bytes:
    return socket.inet_aton(address)


def advertised(source: str, target: str, mac: str) -> bytes:
    """A neighbour advertisement (RFC 4861, 4.4) to all nodes: `target` is at `mac`, whatever you knew."""
    said = struct.pack(">BBHI", 136, 0, 0, 0x20000000) + raw6(target) + b"\2\1" + raw(mac)
    ends = raw6(source) + raw6("ff02::1")
    total = sum(struct.unpack(">36H", ends + struct.pack(">II", len(said), 58) + said))
    total = (total & 0xFFFF) + (total >> 16)
    said = said[:2] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + said[4:]
    return struct.pack(">IHBB", 6 << 28, len(said), 58, 255) + ends + said


def place(source: str, target: str, mac: str, behind: bytes = b"") -> bytes:
    """The same with what we know it by, perhaps behind another header, whose first byte says what follows."""
    told = advertised(source, target, mac)
    header = struct.pack(">IHB", 6 << 28, len(told) - 40 + len(behind) + len(MARK) + NAME, 60 if behind else 58)
    return header + told[7:40] + behind + told[40:] + MARK


def raw6(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, address)


def ear(pid: int, device: str = "eth0") -> socket.socket:
    """A socket that hears every frame that comes in by the device of that network namespace."""
    with syscalls.inside_network(pid):
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
        opened.bind((device, 3))
    opened.settimeout(30)
    return opened


def heard(sender: socket.socket, listener: socket.socket, frames: dict[str, bytes], last: bytes) -> set[str]:
    """Which of the frames, each sent with its name at the end, arrive. `last` is one that does, whatever the others."""
    for name, content in frames.items():
        sender.send(content + name.encode().ljust(NAME, b"\0"))
    sender.send(last + b"the last".ljust(NAME, b"\0"))
    found = set()
    while True:
        got = listener.recv(2000)
        if MARK in got:
            name = got.split(MARK)[1].rstrip(b"\0").decode()
            if name == "the last":
                return found
            found.add(name)


def frames_of(
    mac: str, address: str, other: str, others: str, gateway: str
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What may pass, and what may not, of a container with `mac` and `address` beside one with `other` and `others`."""
    none = "0.0.0.0"
    lies = struct.pack(">H", IP) + packet(gateway)  # in a tag: of VLAN 0, which everybody is in (IEEE 802.1Q)
    tag, second = bytes(2), struct.pack(">H", VLAN) + bytes(2)
    link, others_link = spoofing.link_local(mac), spoofing.link_local(other)
    told = place(link, others_link, mac)
    # Destination options (RFC 8200, 4.6) of one padding option, which looks as if it told of the own address.
    options = bytes((58, 2, 1, 20)) + bytes(4) + raw6(link)
    honest = {
        "ip": frame(mac, IP, packet(address)),
        "ip of nobody": frame(mac, IP, packet(none)),
        "ip tagged": frame(mac, VLAN, tag + struct.pack(">H", IP) + packet(address)),
        "arp reply": frame(mac, ARP, arp(mac, address)),
        "arp probe": frame(mac, ARP, arp(mac, none, 1)),
        "ipv6 of nobody": frame(mac, IP6, packet6()),
        "ipv6 of its link": frame(mac, IP6, packet6(link)),
        "place of its link": frame(mac, IP6, place(link, link, mac)),
        "place tagged": frame(mac, VLAN, tag + struct.pack(">H", IP6) + place(link, link, mac)),
        "something else": frame(mac, 0x88B5, MARK),
    }
    forged = {
        "ip of the neighbour": frame(mac, IP, packet(others)),
        "ip of the gateway": frame(mac, IP, packet(gateway)),
        "ip of the world": frame(mac, IP, packet("192.0.2.1")),
        "ip from the neighbour's mac": frame(other, IP, packet(address)),
        "ip and mac of the neighbour": frame(other, IP, packet(others)),
        "ip of nobody from a mac of nobody": frame("02:00:00:00:00:99", IP, packet(none)),
        "ip tagged of the gateway": frame(mac, VLAN, tag + lies),
        "ip tagged twice": frame(mac, VLAN, tag + second + lies),
        "ip tagged by the provider": frame(mac, QINQ, tag + second + lies),
        "arp: the gateway is here": frame(mac, ARP, arp(mac, gateway)),
        "arp: the neighbour is here": frame(mac, ARP, arp(mac, others)),
        "arp: the gateway is there": frame(mac, ARP, arp(other, gateway)),
        "arp: my address is there": frame(mac, ARP, arp(other, address)),
        "arp question of the gateway's": frame(mac, ARP, arp(mac, gateway, 1)),
        "arp from the neighbour's mac": frame(other, ARP, arp(other, others)),
        "ipv6 from the neighbour's mac": frame(other, IP6, packet6()),
        "ipv6 of the neighbour's link": frame(mac, IP6, packet6(others_link)),
        "place of the neighbour's link": frame(mac, IP6, told),
        "place of the neighbour's link, from nobody": frame(mac, IP6, place("::", others_link, mac)),
        "place of the neighbour's link, tagged": frame(mac, VLAN, tag + struct.pack(">H", IP6) + told),
        "place of the neighbour's link, far in": frame(mac, IP6, place(link, others_link, mac, options)),
        "ipv6 of the world": frame(mac, IP6, packet6("2001:db8::1")),
        "something else from the neighbour's mac": frame(other, 0x88B5, MARK),
    }
    return honest, forged


def test_a_forged_frame_reaches_nobody_and_an_honest_one_the_neighbour(laboratory: Laboratory) -> None:
    network = set_up()
    liar, witness = laboratory.machine(), laboratory.machine()
    address, others = attach(network, 1, liar), attach(network, 2, witness)
    mac, other = hardware_address(identifier(1)), hardware_address(identifier(2))
    assert mac == liar.call(lambda: netlink.link("eth0").mac) and int(mac[:2], 16) & 3 == 2
    honest, forged = frames_of(mac, address, other, others, network.gateway)
    with ear(liar.pid) as mouth, ear(witness.pid) as listener:
        assert heard(mouth, listener, {**honest, **forged}, honest["ip"]) == set(honest)
        # The switch has not learned where the neighbour is not: what is sent to him arrives, and does not come back.
        fdb = json.loads(command("bridge", "-json", "fdb", "show", "br", network.device))
        assert {each["ifname"] for each in fdb if each["mac"] == other} <= {cable(identifier(2))}
        # Without the table all of it passes: it is these rules that stop it.
        spoofing.remove()
        assert heard(mouth, listener, {**honest, **forged}, honest["ip"]) == {*honest, *forged}
    with pytest.raises(errors.KernelError, match="network reload"):
        attach(network, 3, laboratory.machine())


def test_nobody_believes_that_a_neighbour_or_the_gateway_is_elsewhere(laboratory: Laboratory) -> None:
    """By the witness's neighbour table, and the host's: what the frame would have said is not what they know."""
    network = bridge.default(host.root())._replace(subnet="172.30.0.0/16", gateway="172.30.0.1")
    network = network._replace(subnet6="fd00:77::/64", gateway6="fd00:77::1")
    steps.execute(bridge.setup(network), {})
    liar, witness, victim = (laboratory.machine() for _ in range(3))
    for number, machine in enumerate((liar, witness, victim), 1):
        values: steps.Values = {"pid": machine.pid, "address": ipam.lease(network, identifier(number))}
        values["address6"] = ipam.lease6(network, identifier(number))
        steps.execute(bridge.attach(network, identifier(number), address6=steps.Symbol("address6")), values)
    mac, honest = hardware_address(identifier(1)), hardware_address(identifier(3))
    router = netlink.link(network.device).mac  # type: ignore
    victim.serve("udp", 80, "victim")
    with ear(liar.pid) as mouth, ear(witness.pid) as listener:

        def known() -> list[str]:
            """Where the witness has the victim and the gateway, and the host the victim."""
            text = witness.ip("-6", "neigh", "show"), command("ip", "-6", "neigh", "show", "dev", network.device)
            lines = [line.split() for line in "".join(text).splitlines()]
            return [words[words.index("lladdr") + 1] for address in ("fd00:77::4", "fd00:77::1")
                    for words in sorted(lines) if words[0] == address and "lladdr" in words]  # fmt: skip

        def lie() -> None:
            for target in ("fd00:77::4", "fd00:77::1"):
                mouth.send(frame(mac, IP6, advertised("fd00:77::2", target, mac)))
            assert heard(mouth, listener, {}, frame(mac, 0x88B5, MARK)) == set()

        assert witness.ask("udp", "fd00:77::4", 80) == "victim fd00:77::3"
        assert ask("udp", "fd00:77::4", 80) == "victim fd00:77::1"
        witness.ask("udp", "fd00:77::1", 80)  # nobody is there, but now it knows where
        assert known() == [honest, honest, router]
        lie()
        assert known() == [honest, honest, router]
        assert witness.ask("udp", "fd00:77::4", 80) == "victim fd00:77::3"
        spoofing.remove()
        lie()
        assert known() == [mac, mac, mac]
    steps.execute(bridge.teardown(network), {})


def test_every_port_that_is_not_a_containers_is_left_alone(laboratory: Laboratory) -> None:
    """On a bridge of somebody else's, and on ours: a cable that an administrator has plugged in."""
    network = set_up()
    witness, guest = laboratory.machine(), laboratory.machine()
    attach(network, 1, witness)
    command("ip", "link", "add", "guest0", "type", "veth", "peer", "name", "eth0", "netns", str(guest.pid))
    command("ip", "link", "set", "guest0", "master", network.device, "up")
    guest.ip("link", "set", "eth0", "up")
    netlink.link_wait("guest0")
    anything = frame("02:00:00:00:00:99", IP, packet("192.0.2.1"))
    with ear(guest.pid) as mouth, ear(witness.pid) as listener:
        assert heard(mouth, listener, {"it": anything}, anything) == {"it"}


def test_what_two_take_away_at_once_has_gone(laboratory: Laboratory) -> None:
    """One of them has taken a part away, the other finds that missing."""
    netlink.nft(*spoofing.table_commands())
    spoofing.admit(identifier(1), "veth1", "02:00:00:00:00:01", "172.30.0.2", "fd00::2")
    netlink.nft(("delete element", spoofing.cables(), ("veth1",)))
    spoofing.forget(identifier(1))
    sets = spoofing.cables(), spoofing.macs(), spoofing.addresses(), spoofing.addresses6(), spoofing.targets6()
    assert [netlink.elements(each) for each in sets] == [[]] * 5


def test_the_rules_are_what_nft_lists(laboratory: Laboratory) -> None:
    set_up()
    listing = command("nft", "list", "table", *spoofing.table().split())
    for each in spoofing.table_commands():
        if each[0] == "add rule":
            assert f"\t\t{netlink.nft_text(each).split(maxsplit=5)[5]}\n" in listing
    assert listing.count("drop") == 9
    script = "".join(f"{netlink.nft_text(each)}\n" for each in spoofing.table_commands())
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)
    assert command("nft", "list", "table", *spoofing.table().split()) == listing


def test_a_kernel_without_the_family_is_told_of_by_name(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook that this kernel does not know stands for it: nf_tables says the same."""
    assert spoofing.lacking() == ""
    monkeypatch.setattr(netlink.nftables, "NFPROTO_BRIDGE", 11)
    monkeypatch.setitem(netlink.FAMILIES, "bridge", 11)
    monkeypatch.setattr(spoofing, "_known", [])
    assert "CONFIG_NF_TABLES_BRIDGE" in spoofing.lacking()
    network = set_up()
    attach(network, 1, laboratory.machine())
    steps.execute(bridge.detach(network, identifier(1)), {})
    steps.execute(bridge.teardown(network), {})
    assert command("nft", "list", "ruleset") == ""


# --------------------------------------------------------------------------------------------------- real containers


class End:
    """A container that sleeps."""

    def __init__(self, name: str, *flags: str) -> None:
        minicontainer("run", "-d", "--name", name, *flags, "plain", "sleep", "1000")
        self.look(name)

    def look(self, name: str) -> None:
        found: dict[str, Any] = json.loads(minicontainer("inspect", name).stdout)[0]
        self.id, self.pid = found["Id"], found["State"]["Pid"]
        self.ends = found["NetworkSettings"]["Networks"]


def elements(shop: Shop) -> list[str]:
    """What nft lists of the table's elements, in any order."""
    text = command("nft", "list", "table", "bridge", f"minicontainer{shop.suffix}")
    return sorted(word.strip() for word in text.replace("}", ",").replace("= {", ",").split(",") if "comment" in word)


@contextlib.contextmanager
def cleaned() -> Iterator[None]:
    try:
        yield
    finally:
        names = minicontainer("ps", "-aq").stdout.split()
        if names:
            minicontainer("rm", "-f", *names)
        minicontainer("network", "prune", "-f")


def test_real_containers_speak_for_themselves_whatever_they_were_given(shop: Shop) -> None:
    with cleaned():
        minicontainer("network", "create", "--ipv6", "--subnet", "10.149.0.0/24", "net")
        wished = ["--network", "net", "--ip", "10.149.0.9", "--mac-address", "02:00:00:00:00:09", "--privileged"]
        liar, witness = End("liar", *wished), End("witness", "--network", "net")
        address, others = (end.ends["net"]["IPAddress"] for end in (liar, witness))
        mac, other = (end.ends["net"]["MacAddress"] for end in (liar, witness))
        assert (address, mac) == ("10.149.0.9", "02:00:00:00:00:09")
        honest, forged = frames_of(mac, address, other, others, "10.149.0.1")
        six, sixth = (end.ends["net"]["GlobalIPv6Address"] for end in (liar, witness))
        link, router = spoofing.link_local(mac), liar.ends["net"]["IPv6Gateway"]
        honest["ipv6 of its own"] = frame(mac, IP6, packet6(six))
        honest["place of its own"] = frame(mac, IP6, place(link, six, mac))
        forged["ipv6 of the neighbour"] = frame(mac, IP6, packet6(sixth))
        forged["place of the neighbour"] = frame(mac, IP6, place(six, sixth, mac))
        forged["place of the gateway"] = frame(mac, IP6, place(six, router, mac))
        assert link in command("nsenter", "-t", str(liar.pid), "-n", "ip", "-6", "address", "show", "eth0")
        minicontainer("network", "connect", "net", End("late").id)
        with ear(liar.pid) as mouth, ear(witness.pid) as listener:
            every = {**honest, **forged}
            assert heard(mouth, listener, every, honest["ip"]) == set(honest)
            before = elements(shop)
            assert len(before) == 7 + 7 + 7 + 5  # late is in two networks
            for table in (["inet"], ["bridge"], ["inet", "bridge"]):
                for family in table:
                    command("nft", "delete", "table", family, f"minicontainer{shop.suffix}")
                minicontainer("network", "reload")
                assert elements(shop) == before
            assert heard(mouth, listener, every, honest["ip"]) == set(honest)
        minicontainer("network", "disconnect", "net", "late")
        assert len(elements(shop)) == 7 + 7 + 5
        minicontainer("restart", "-t", "0", "witness")
        assert len(elements(shop)) == 7 + 7 + 5
        minicontainer("rm", "-f", "witness", "late")
        assert elements(shop) == sorted(
            f'{key} comment "{liar.id}"'
            for end in [f'"{cable(liar.id)}"']
            for key in (
                end,
                f"{end} . {mac}",
                *(f"{end} . {mac} . {own}" for own in (address, link, six)),
                *(f"{end} . {mac} . {spoofing.as_number(own)}" for own in (link, six)),
            )
        )
        # A monitor that is killed takes nothing down; whoever repairs does.
        monitor = int(Path(f"/proc/{liar.pid}/status").read_text().partition("PPid:")[2].split()[0])
        os.kill(monitor, signal.SIGKILL)
        until(lambda: not os.path.exists(f"/proc/{liar.pid}"))  # it goes with its monitor
        minicontainer("system", "check", "--repair", check=False)
        assert elements(shop) == []


def test_an_element_of_nobodys_is_found_and_taken_away(shop: Shop) -> None:
    with cleaned():
        minicontainer("run", "--rm", "plain", "true")
        table, cable_, nobody = f"minicontainer{shop.suffix}", "vethffffffffffff"[:15], "f" * 64
        for name, key in (("cables", f'"{cable_}"'), ("macs", f'"{cable_}" . 02:00:00:00:00:01'),
                          ("addresses", f'"{cable_}" . 02:00:00:00:00:01 . 10.1.1.1')):  # fmt: skip
            command("nft", f'add element bridge {table} {name} {{ {key} comment "{nobody}" }}')
        assert "ffffffffffff" in minicontainer("system", "check", check=False).stdout
        minicontainer("system", "check", "--repair", check=False)
        assert elements(shop) == []


def test_inspect_and_the_doctor_say_that_nobody_forges(shop: Shop) -> None:
    form = '{{index .Options "minicontainer.forged_addresses"}}'
    assert minicontainer("network", "inspect", "-f", form, "bridge").stdout == "dropped\n"
    facts = json.loads(minicontainer("doctor", "--json").stdout)["facts"]
    (fact,) = [fact for fact in facts if fact["name"] == "forged addresses"]
    assert fact["state"] == "ok"
