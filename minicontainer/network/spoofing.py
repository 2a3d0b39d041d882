"""Nobody speaks with another's address: what comes out of a container's cable bears the container's own.

A switch believes what it is told. With CAP_NET_RAW, which containers have by default (as docker's do), a program writes
whole frames: from a neighbour's address, or an ARP answer that says "I am the gateway". So a second table of ours, of
the family bridge, looks at each frame that comes in by a port of our bridges, before the switch learns from it:

    set cables       the host's ends of the containers' cables
    set macs         cable, hardware address
    set addresses    cable, hardware address, IPv4 address
    set addresses6   the same of IPv6: the link-local one that goes with the hardware address, and the network's
    set targets6     the same once more, as numbers

A frame from another's hardware address is dropped, whatever is in it; so is a packet from another's address, and an
ARP message that says where any other address is, and a neighbour advertisement, which IPv6 has in place of that. Who
claims none may speak: 0.0.0.0 is what asks DHCP for an address (RFC 2131, section 4.1), and whether one is free (RFC
5227); `::` does it by IPv6. That holds for what a container forwards for others, too. An advertisement behind another
header than IPv6's own is dropped: its target is not where the rule looks.

An element's comment is the id of the container that it belongs to. A kernel may lack the family, by its configuration
(CONFIG_NF_TABLES_BRIDGE): then networks work, containers can forge, and `lacking` says so to who makes a network,
inspects one or asks the doctor.
"""

from __future__ import annotations

import _socket as socket  # its C half: 0.3 ms of every start, not 2
import errno

from .. import errors, host, netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Cable = tuple[str, str, str, str, str]  # id of the container, host's end, hardware address, those of IPv4 and IPv6


ABSENT = (errno.ENOENT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT)  # what kernels say of a family that they have not


def table() -> str:
    """This store's table, with its family."""
    return f"bridge minicontainer{host.suffix()}"


def cables() -> netlink.Set:
    """The ports that are looked at; others', on our bridges or elsewhere, are theirs."""
    return netlink.Set(table(), "cables", ("ifname",))


def macs() -> netlink.Set:
    """Which hardware address is whose."""
    return netlink.Set(table(), "macs", ("ifname", "ether_addr"))


def addresses() -> netlink.Set:
    """Which IPv4 address is whose."""
    return netlink.Set(table(), "addresses", ("ifname", "ether_addr", "ipv4_addr"))


def addresses6() -> netlink.Set:
    """Which IPv6 address is whose."""
    return netlink.Set(table(), "addresses6", ("ifname", "ether_addr", "ipv6_addr"))


def targets6() -> netlink.Set:
    """Whose place may be told by IPv6."""
    return netlink.Set(table(), "targets6", ("ifname", "ether_addr", "nd_target"))


def link_local(mac: str) -> str:
    """The address that the kernel makes of a hardware address (RFC 4291, appendix A), as it is written there."""
    code = bytes.fromhex(mac.replace(":", ""))
    code = bytes((code[0] ^ 2,)) + code[1:3] + b"\xff\xfe" + code[3:]
    return socket.inet_ntop(socket.AF_INET6, b"\xfe\x80" + bytes(6) + code)


def table_commands() -> list[netlink.Command]:
    """The table but for its elements, which may be done again. Its version is that of nat.LAYOUT."""
    own = table()
    n = netlink

    def rule(*expressions: netlink.Expression) -> netlink.Command:
        return ("add rule", own, "prerouting", *expressions)

    return [
        ("add table", own),
        ("flush table", own),
        ("add set", cables()),
        ("add set", macs()),
        ("add set", addresses()),
        ("add set", addresses6()),
        ("add set", targets6()),
        ("add chain", own, "prerouting", "filter", "prerouting", -300),
        # Nearly all frames are honest packets of IPv4: one look-up. (What has a second tag is not `meta protocol ip`.)
        rule(n.sender_among("addresses", "ether saddr", "ip saddr"), n.accept()),
        rule(n.ifname_in("iifname", "cables", inverted=True), n.accept()),
        rule(n.sender_not_among("macs", "ether saddr"), n.drop()),
        # A tag of a VLAN is taken off before; in a second one, whatever is inside could not be seen.
        rule(n.protocol_is("8021q"), n.drop()),
        rule(n.protocol_is("8021ad"), n.drop()),
        rule(n.sender_not_among("addresses", "ether saddr", "ip saddr", nobody="0.0.0.0"), n.drop()),
        rule(n.sender_not_among("addresses6", "ether saddr", "ip6 saddr", nobody="::"), n.drop()),
        # ARP says it once more, inside: there the neighbours read it.
        rule(n.sender_not_among("macs", "arp saddr ether"), n.drop()),
        rule(n.sender_not_among("addresses", "arp saddr ether", "arp saddr ip", nobody="0.0.0.0"), n.drop()),
        rule(n.neighbour_advertised(), n.something_between(), n.drop()),
        rule(n.neighbour_advertised(), n.sender_not_among("targets6", "ether saddr", "@nh,384,128"), n.drop()),
    ]


def lacking() -> str:
    """Why containers can forge addresses on this machine: the kernel's word. Empty if they cannot."""
    if not _known:
        _known.append("" if netlink.has_table(table()) else _tried())
    return _known[0]


_known: list[str] = []  # an answer that holds while this kernel runs


def _tried() -> str:
    """Ten milliseconds: the kernel makes it all, and takes it back."""
    try:
        netlink.nft(*table_commands(), check=True)
    except errors.KernelError as error:
        if error.errno not in ABSENT:
            raise
        return (
            "a container can forge its address in a network: this kernel's nf_tables has no family bridge "
            f"(CONFIG_NF_TABLES_BRIDGE; {error.strerror})"
        )
    return ""


def cable_commands(found: Iterable[Cable]) -> list[netlink.Command]:
    """The elements of cables."""
    commands: list[netlink.Command] = []
    for container_id, cable, mac, address, address6 in found:
        commands += [
            ("add element", cables(), (cable,), (), container_id),
            ("add element", macs(), (cable, mac), (), container_id),
            ("add element", addresses(), (cable, mac, address), (), container_id),
        ]
        for own in (link_local(mac), *([address6] if address6 else [])):
            commands += commands6(container_id, cable, mac, own, as_number(own))
    return commands


def as_number(address: str) -> str:
    """An address of IPv6, however it was spelled, as nft(8) writes 128 bits."""
    return f"0x{socket.inet_pton(socket.AF_INET6, address).hex()}"


def commands6(container_id: str, cable: str, mac: str, address: str, number: str) -> list[netlink.Command]:
    """The elements of one address of IPv6, which is that `number`."""
    return [
        ("add element", addresses6(), (cable, mac, address), (), container_id),
        ("add element", targets6(), (cable, mac, number), (), container_id),
    ]


def admit(container_id: str, cable: str, mac: str, address: str, address6: str = "") -> None:
    """From now on the cable speaks for these addresses alone. Owed: the table, where the kernel can have it."""
    try:
        netlink.nft(*cable_commands([(container_id, cable, mac, address, address6)]))
    except errors.KernelError as error:
        if error.errno not in ABSENT or not lacking():
            raise


def forget(container_id: str, cable: str = "") -> None:
    """The container has no such cable any more, or none at all; nothing happens if it never had one."""
    doomed: list[tuple[netlink.Set, tuple[str, ...]]] = []
    for element in netlink.elements(addresses(), container_id):
        end, mac, _ = element.key
        if cable in ("", end):
            doomed += [(cables(), (end,)), (macs(), (end, mac)), (addresses(), element.key)]
    for element in netlink.elements(addresses6(), container_id):
        if cable in ("", element.key[0]):
            doomed.append((addresses6(), element.key))
            end, mac, address = element.key
            target = end, mac, as_number(address)
            if netlink.element(targets6(), target):  # an earlier version wrote none
                doomed.append((targets6(), target))
    netlink.delete_elements(doomed, container_id)


def owners() -> set[str]:
    """The ids of all containers that an element is there of."""
    return {element.comment for element in netlink.elements(addresses())}


def remove() -> None:
    """The table is gone afterwards."""
    try:
        netlink.nft(("delete table", table()))
    except errors.KernelError as error:
        if error.errno not in ABSENT:
            raise
