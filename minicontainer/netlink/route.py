"""rtnetlink(7): links, addresses, routes; what `ip` does.

Sources: linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/veth.h.
"""

from __future__ import annotations

import _socket as socket
import errno
import struct
import time

from .. import errors
from ..records import namedtuple
from . import codec
from .codec import attribute, attributes, nested, number, string, text

MESSAGES = {
    "RTM_NEWLINK": 16, "RTM_DELLINK": 17, "RTM_GETLINK": 18, "RTM_SETLINK": 19, "RTM_NEWADDR": 20, "RTM_GETADDR": 22,
    "RTM_NEWROUTE": 24, "RTM_GETROUTE": 26, "RTM_GETNSID": 90,
}  # fmt: skip
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_OPERSTATE = 1, 3, 4, 5, 10, 16
IFLA_LINKINFO, IFLA_NET_NS_PID, IFLA_LINK_NETNSID = 18, 19, 37
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED = 4, 33
VETH_INFO_PEER = 1
IFA_ADDRESS, IFA_LOCAL, IFA_F_NODAD = 1, 2, 2
# IFLA_MACVLAN_MODE, IFLA_IPVLAN_MODE, IFLA_VLAN_ID, number 1 of each kind's attributes: how wide, and its values.
MODES: dict[str, tuple[int, dict[str, int]]] = {
    "macvlan": (4, {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}),
    "ipvlan": (2, {"l2": 0, "l3": 1, "l3s": 2}),
    "vlan": (2, {}),
}
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5
RTM_F_CLONED = 0x200
NETNSA_NSID, NETNSA_PID = 1, 2
RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RTN_UNICAST = 254, 4, 0, 253, 1
IFF_UP = 1
IF_OPER_UP = 6

_IFINFO = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, which flags to change


def _ask(
    message: str, flags: int, body: bytes, arguments: tuple[object, ...], namespace: int = 0
) -> list[codec.Message]:
    return codec.ask(codec.ROUTE, MESSAGES[message], flags, body, message, arguments, namespace)


def _device(name: str, up: bool | None = None) -> bytes:
    """The beginning of a message about a device; `up` None leaves it as it is."""
    return _IFINFO.pack(0, 0, 0, IFF_UP if up else 0, 0 if up is None else IFF_UP) + string(IFLA_IFNAME, name)


# Links


def link_add(
    name: str, kind: str, peer: str = "", namespace: int = 0, master: str = "", mtu: int = 0, mac: str = "",
    up: bool = False, exist_ok: bool = False, peer_mac: str = "", parent: str = "", mode: str = "",
) -> None:  # fmt: skip
    """RTM_NEWLINK: a device of `kind` ("bridge", "veth", "dummy", "macvlan", "ipvlan", "vlan").

    A veth's other end is made at the same time, as `peer` with `peer_mac` and directly inside `namespace`, where it
    stays down. Our end is a port of `master` and up before the call returns. With `exist_ok`, a device of that name is
    fine. A veth takes the place of one of that name, which a network namespace has that is about to go.

    The last three stand on a device of ours, `parent`, in one of MODES (a vlan's is its number), and are made inside
    `namespace` themselves.
    """
    common = number(IFLA_MTU, mtu) if mtu else b""
    details = string(IFLA_INFO_KIND, kind)
    if peer:
        other = _device(peer) + common + (attribute(IFLA_ADDRESS, _hardware(peer_mac)) if peer_mac else b"")
        if namespace:
            other += number(IFLA_NET_NS_PID, namespace)
        details += nested(IFLA_INFO_DATA, nested(VETH_INFO_PEER, other))
    body = _device(name, up or None) + common
    if parent:
        body += number(IFLA_LINK, _existing(parent).ifindex)
        body += number(IFLA_NET_NS_PID, namespace) if namespace else b""
        if mode:
            width, values = MODES[kind]
            value = values[mode] if values else int(mode)
            details += nested(IFLA_INFO_DATA, attribute(1, value.to_bytes(width, "little")))
    if mac:
        body += attribute(IFLA_ADDRESS, _hardware(mac))
    if master:
        body += number(IFLA_MASTER, _existing(master).ifindex)
    body += nested(IFLA_LINKINFO, details)
    words = name, kind, peer, namespace, master
    try:
        if kind == "macvlan":
            _macvlan_add(parent, body, words)
        else:
            _ask("RTM_NEWLINK", codec.NLM_F_CREATE | codec.NLM_F_EXCL, body, words)
    except errors.KernelError as error:
        if error.errno == errno.EOPNOTSUPP:
            hint = f"{error.hint}: this kernel has no {kind} (modprobe {'8021q' if kind == 'vlan' else kind})"
            raise errors.KernelError(errno.EOPNOTSUPP, "RTM_NEWLINK", words, hint) from None
        if error.errno != errno.EEXIST or not (peer or exist_ok):
            raise
        if peer:
            link_delete(name)
            _ask("RTM_NEWLINK", codec.NLM_F_CREATE | codec.NLM_F_EXCL, body, words)


PATIENCE = 5.0  # seconds for another to go


def _macvlan_add(parent: str, body: bytes, words: tuple[object, ...]) -> None:
    """RTM_NEWLINK of a macvlan. One in mode passthru has its parent to itself, or is not made.

    A network namespace that nobody is in any more is taken down on the kernel's own time, so another may be about to
    go. KernelError (EINVAL) if it stays.
    """
    end = time.monotonic() + PATIENCE
    while True:
        try:
            _ask("RTM_NEWLINK", codec.NLM_F_CREATE | codec.NLM_F_EXCL, body, words)
            return
        except errors.KernelError as error:
            if error.errno != errno.EINVAL:
                raise
            if time.monotonic() > end:
                hint = f"another macvlan is on {parent}, and one in mode passthru wants it alone: remove either"
                raise errors.KernelError(errno.EINVAL, "RTM_NEWLINK", words, hint) from None
        time.sleep(0.005)


def _hardware(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def link_set(
    name: str, up: bool | None = None, master: str = "", mtu: int = 0, namespace: int = 0, hairpin: bool = False,
    isolated: bool = False,
) -> None:  # fmt: skip
    """RTM_SETLINK: switch a device on or off, make it a port of a bridge, change its MTU.

    With `hairpin`, its bridge may send a packet out of this port that came in by it; `isolated`, none to another port
    that is isolated as well.
    """
    for asked, kind in ((hairpin, IFLA_BRPORT_MODE), (isolated, IFLA_BRPORT_ISOLATED)):
        if not asked:
            continue
        body = _device(name) + nested(
            IFLA_LINKINFO, string(IFLA_INFO_SLAVE_KIND, "bridge"), nested(IFLA_INFO_SLAVE_DATA, attribute(kind, b"\1"))
        )
        # What belongs to the kind of a device is taken by RTM_NEWLINK alone; without codec.NLM_F_CREATE it makes none.
        _ask("RTM_NEWLINK", 0, body, (name, kind), namespace)
        if up is None and not master and not mtu:
            return
    body = _device(name, up)
    if master:
        body += number(IFLA_MASTER, _existing(master, namespace).ifindex)
    if mtu:
        body += number(IFLA_MTU, mtu)
    _ask("RTM_SETLINK", 0, body, (name, up, master, mtu), namespace)


def link_delete(name: str, namespace: int = 0) -> None:
    """RTM_DELLINK: the device is gone afterwards; a veth takes its other end with it."""
    try:
        _ask("RTM_DELLINK", 0, _device(name), (name,), namespace)
    except errors.KernelError as error:
        if error.errno != errno.ENODEV:
            raise


class Link(namedtuple("Link", "ifindex name up kind master mtu mac works other other_namespace")):
    """A network device. `master` is the index of the bridge that it is a port of, or 0.

    `up` is what was asked for, `works` whether packets pass (RFC 2863's ifOperStatus; not every kind has one). `other`
    is the index of a veth's other end, or of the device that a macvlan stands on, or 0; that is in the namespace which
    this one knows by the number `other_namespace`, in this one itself if that is -1.
    """

    ifindex: int
    name: str
    up: bool
    kind: str
    master: int
    mtu: int
    mac: str
    works: bool
    other: int
    other_namespace: int


def link(name: str, namespace: int = 0) -> Link | None:
    """RTM_GETLINK: the device of that name, or None."""
    try:
        return _link(_ask("RTM_GETLINK", 0, _device(name), (name,), namespace)[0][1])
    except errors.KernelError as error:
        if error.errno != errno.ENODEV:
            raise
        return None


def links(namespace: int = 0) -> list[Link]:
    """RTM_GETLINK: all devices."""
    every = _IFINFO.pack(0, 0, 0, 0, 0)
    return [_link(body) for _, body in _ask("RTM_GETLINK", codec.NLM_F_DUMP, every, (), namespace)]


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    found = dict(attributes(body, 16))
    info = dict(attributes(found.get(IFLA_LINKINFO, b"")))
    return Link(
        index,
        text(found.get(IFLA_IFNAME, b"")),
        bool(flags & IFF_UP),
        text(info.get(IFLA_INFO_KIND, b"")),
        int.from_bytes(found.get(IFLA_MASTER, b""), "little"),
        int.from_bytes(found.get(IFLA_MTU, b""), "little"),
        found.get(IFLA_ADDRESS, b"").hex(":"),
        found.get(IFLA_OPERSTATE) == bytes((IF_OPER_UP,)),
        int.from_bytes(found.get(IFLA_LINK, b""), "little"),
        int.from_bytes(found.get(IFLA_LINK_NETNSID, b"\xff"), "little", signed=True),
    )


def _existing(name: str, namespace: int = 0) -> Link:
    found = link(name, namespace)
    if found is None:
        raise errors.KernelError(errno.ENODEV, "RTM_GETLINK", (name,), f"there is no network device {name}")
    return found


def link_wait(name: str) -> None:
    """Wait until packets pass through the device. Raises KernelError (ETIMEDOUT) after two seconds.

    That both ends of a cable are up tells the kernel's "linkwatch" to let packets through, which it does when it gets
    to it; until then they are dropped, and whoever sent one tries again after a second. Since Linux 6.8 asking for
    the device brings that about; before, it takes its moment, longer where many containers start at once.
    """
    end = time.monotonic() + 2
    while not _existing(name).works:
        if time.monotonic() > end:
            raise errors.KernelError(errno.ETIMEDOUT, "RTM_GETLINK", (name,), "is its other end, or its bridge, down?")
        time.sleep(0.0005)


# Addresses and routes


def address_add(device: str, address: str, namespace: int = 0) -> None:
    """RTM_NEWADDR: the device has `address` ("172.30.0.2/16") afterwards.

    One of IPv6 may be used at once: whoever gives it sees to it that nobody else has it, so the kernel need not ask
    around for a second (duplicate address detection, RFC 4862).
    """
    family, packed, length = _subnet(address)
    # struct ifaddrmsg: family, length of the prefix, flags, scope, index
    flags = IFA_F_NODAD if family == socket.AF_INET6 else 0
    body = struct.pack("=BBBBI", family, length, flags, 0, _existing(device, namespace).ifindex)
    body += attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
    _ask("RTM_NEWADDR", codec.NLM_F_CREATE | codec.NLM_F_REPLACE, body, (device, address), namespace)


def route_add(destination: str, gateway: str, namespace: int = 0, device: str = "") -> None:
    """RTM_NEWROUTE: `destination` ("default" or "10.0.0.0/8") is reached through `gateway` afterwards.

    With a `device`, it lies behind that, and `gateway` says by its family alone of which kind the route is.
    """
    family, through, _ = _subnet(gateway)
    _, target, length = _subnet(destination) if destination != "default" else (family, b"", 0)
    # struct rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type, flags
    body = struct.pack(
        "=BBBBBBBBI", family, length, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC,
        RT_SCOPE_LINK if device else RT_SCOPE_UNIVERSE, RTN_UNICAST, 0,
    )  # fmt: skip
    body += attribute(RTA_DST, target) if target else b""
    way = number(RTA_OIF, _existing(device, namespace).ifindex) if device else attribute(RTA_GATEWAY, through)
    body += way
    _ask("RTM_NEWROUTE", codec.NLM_F_CREATE | codec.NLM_F_REPLACE, body, (destination, gateway), namespace)


class Route(namedtuple("Route", "destination gateway device")):
    """A route of the main table: to `destination` ("default", "10.0.0.0/8") through `gateway` ("": it is right there).

    `device` is the index of the device that it leaves by.
    """

    destination: str
    gateway: str
    device: int


def addresses(namespace: int = 0) -> list[tuple[int, str]]:
    """RTM_GETADDR: (index of its device, "172.30.0.2/16") of all but IPv6's link-local ones, which every device has."""
    found = []
    for _, body in _ask("RTM_GETADDR", codec.NLM_F_DUMP, bytes(8), (), namespace):
        family, length, _, scope, index = struct.unpack_from("=BBBBI", body)
        parts = dict(attributes(body, 8))
        if not (family == socket.AF_INET6 and scope == RT_SCOPE_LINK):
            packed = parts.get(IFA_LOCAL) or parts[IFA_ADDRESS]
            found.append((index, f"{socket.inet_ntop(family, packed)}/{length}"))
    return found


def routes(namespace: int = 0) -> list[Route]:
    """RTM_GETROUTE: the main table's routes to somewhere, but for IPv6's link-local and multicast ones."""
    found = []
    for _, body in _ask("RTM_GETROUTE", codec.NLM_F_DUMP, bytes(12), (), namespace):
        family, length, _, _, table, _, _, kind, flags = struct.unpack_from("=BBBBBBBBI", body)
        parts = dict(attributes(body, 12))
        if table != RT_TABLE_MAIN or kind != RTN_UNICAST or flags & RTM_F_CLONED or RTA_OIF not in parts:
            continue
        target = f"{socket.inet_ntop(family, parts[RTA_DST])}/{length}" if length else "default"
        through = socket.inet_ntop(family, parts[RTA_GATEWAY]) if RTA_GATEWAY in parts else ""
        if not target.startswith(("fe80:", "ff00:")):
            found.append(Route(target, through, int.from_bytes(parts[RTA_OIF], "little")))
    return found


def namespace_number(process: int, namespace: int = 0) -> int:
    """RTM_GETNSID: the number by which `namespace` knows that of `process`; -1 if it has none for it."""
    body = bytes(4) + number(NETNSA_PID, process)
    for _, answer in _ask("RTM_GETNSID", 0, body, (process,), namespace):
        return int.from_bytes(dict(attributes(answer, 4))[NETNSA_NSID], "little", signed=True)
    return -1


def _subnet(given: str) -> tuple[int, bytes, int]:
    """Family, address and length of the prefix of "10.0.0.0/8"; without one, all the address's bits."""
    address, _, prefix = given.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    return family, packed, int(prefix) if prefix else len(packed) * 8
