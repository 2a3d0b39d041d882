"""The only raw AF_NETLINK: rtnetlink(7) for links, addresses and routes, nfnetlink for the firewall. One small codec.

Offers, each as one call that returns when the kernel has answered:
    link_add link_set link_delete link_wait address_add route_add     what `ip` does
    nft, and the expressions that rules are made of                   what `nft` does, one transaction a call
    link links chains rules elements element                          what is there
    conntrack_delete                                                  what `conntrack -D` does
Callers name devices, never numbers; `namespace` is the pid of a process in the network namespace meant, 0 for ours.

A message is a header, a fixed part and attributes (type, length, value, padded to four bytes), some of which are made
of attributes again. The kernel handles a request inside send(2): when that returns, the answer is there to be read.

Contract: a refusal raises KernelError with the message's name, what was asked and the kernel's own words (its
"extended ack"). Imports nothing but socket and struct: this is on the path of every start.
"""

from __future__ import annotations

import _socket as socket  # its C half: 0.3 ms of every start, not 2
import errno
import os
import struct
import time
from collections import namedtuple

from . import errors, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing costs every start 4 ms
    from collections.abc import Iterator, Sequence
    from typing import Any

# --------------------------------------------------------------------------------------------------------- the codec

# linux/netlink.h
ROUTE = 0
NETFILTER = 12
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NLM_F_REQUEST = 0x001
NLM_F_ACK = 0x004
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSGERR_ATTR_MSG = 1
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type

if TYPE_CHECKING:
    Message = tuple[int, bytes]  # type, and what follows the header


def attribute(kind: int, value: bytes) -> bytes:
    """struct nlattr, its value, and padding to four bytes."""
    length = 4 + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def number(kind: int, value: int) -> bytes:
    """A 32-bit attribute as rtnetlink wants it: in this machine's byte order."""
    return attribute(kind, struct.pack("=I", value))


def string(kind: int, value: str) -> bytes:
    """A NUL-terminated string."""
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The attributes in `data` from `offset` on: (type without its flag bits, value)."""
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            return
        yield kind & NLA_TYPE_MASK, data[offset + 4 : offset + length]
        offset += length + (-length % 4)


def text(value: bytes) -> str:
    """The string in an attribute."""
    return value.split(b"\0", 1)[0].decode(errors="replace")


_sockets: dict[tuple[int, int, int], socket.socket] = {}


def _open(protocol: int) -> socket.socket:
    try:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    except OSError as error:
        if error.errno == errno.EPROTONOSUPPORT:
            raise errors.Unsupported(f"this kernel has no netlink protocol {protocol}: modprobe nfnetlink") from None
        raise errors.KernelError(error.errno or 0, "socket", ("AF_NETLINK", protocol)) from None
    opened.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)  # an error need not repeat the request
    opened.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)  # but say in words what is wrong
    return opened


def _socket(protocol: int, namespace: int) -> socket.socket:
    """A socket of `namespace`. A network namespace lives as long as a socket in it: only our own is kept open."""
    if namespace:
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.enter_namespace(f"/proc/{namespace}/ns/net", syscalls.CLONE_NEWNET)
            try:
                return _open(protocol)
            finally:
                syscalls.setns(home, syscalls.CLONE_NEWNET)
        finally:
            os.close(home)
    # After fork(2) the two would read one another's answers, after setns(2) it would be the wrong namespace's.
    key = (protocol, os.getpid(), os.stat("/proc/thread-self/ns/net").st_ino)
    if key not in _sockets:
        _sockets[key] = _open(protocol)
    return _sockets[key]


def _refusal(flags: int, body: bytes) -> tuple[int, str]:
    """The error number and the kernel's words in an NLMSG_ERROR (struct nlmsgerr); number 0 is an acknowledgement."""
    (code,) = struct.unpack_from("=i", body)
    words = ""
    if flags & NLM_F_ACK_TLVS:
        offset = 20 if flags & NLM_F_CAPPED else 4 + struct.unpack_from("=I", body, 4)[0]
        words = "".join(text(value) for kind, value in attributes(body, offset) if kind == NLMSGERR_ATTR_MSG)
    return -code, words


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence number, body) of each message in a datagram."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < 16:
            return
        yield kind, flags, sequence, data[offset + 16 : offset + length]
        offset += length + (-length % 4)


def _ask(
    protocol: int, kind: int, flags: int, body: bytes, call: str, arguments: tuple[object, ...], namespace: int = 0
) -> list[Message]:
    """Send one request; return what the kernel answered. Raises KernelError with `call` and `arguments`."""
    channel = _socket(protocol, namespace)
    answers: list[Message] = []
    try:
        channel.send(_HEADER.pack(16 + len(body), kind, NLM_F_REQUEST | NLM_F_ACK | flags, 1, 0) + body)
        while True:
            for answer, answer_flags, _, content in _messages(channel.recv(1 << 18)):
                if answer == NLMSG_ERROR:
                    code, words = _refusal(answer_flags, content)
                    if code:
                        raise errors.KernelError(code, call, arguments, words)
                    return answers
                if answer == NLMSG_DONE:
                    return answers
                answers.append((answer, content))
    finally:
        if namespace:
            channel.close()


# ------------------------------------------------------------------------------------- links, addresses, routes: `ip`

# linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/veth.h
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR = 20
RTM_NEWROUTE = 24
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_OPERSTATE, IFLA_LINKINFO, IFLA_NET_NS_PID = (
    1,
    3,
    4,
    10,
    16,
    18,
    19,
)
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_BRPORT_MODE = 4
VETH_INFO_PEER = 1
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_GATEWAY = 1, 5
RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST = 254, 4, 0, 1
IFF_UP = 1
IF_OPER_UP = 6

_IFINFO = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, which flags to change


class Link(namedtuple("Link", "ifindex name up kind master mtu mac works")):
    """A network device. `master` is the index of the bridge that it is a port of, or 0.

    `up` is what was asked for, `works` whether packets pass (RFC 2863's ifOperStatus; not every kind has one).
    """

    ifindex: int
    name: str
    up: bool
    kind: str
    master: int
    mtu: int
    mac: str
    works: bool


def _packed(address: str) -> tuple[int, bytes]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.inet_pton(family, address)


def link_add(
    name: str,
    kind: str,
    peer: str = "",
    namespace: int = 0,
    master: str = "",
    mtu: int = 0,
    mac: str = "",
    up: bool = False,
    exist_ok: bool = False,
) -> None:
    """RTM_NEWLINK: a device of `kind` ("bridge", "veth", "dummy").

    A veth's other end is made at the same time, as `peer` and directly inside `namespace`, where it stays down. Our
    end is a port of `master` and up before the call returns. With `exist_ok`, a device of that name is fine.
    """
    common = number(IFLA_MTU, mtu) if mtu else b""
    details = [string(IFLA_INFO_KIND, kind)]
    if peer:
        other = _IFINFO.pack(0, 0, 0, 0, 0) + string(IFLA_IFNAME, peer) + common
        if namespace:
            other += number(IFLA_NET_NS_PID, namespace)
        details.append(nested(IFLA_INFO_DATA, attribute(VETH_INFO_PEER | NLA_F_NESTED, other)))
    body = _IFINFO.pack(0, 0, 0, IFF_UP if up else 0, IFF_UP if up else 0) + string(IFLA_IFNAME, name) + common
    if mac:
        body += attribute(IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
    if master:
        body += number(IFLA_MASTER, _index(master))
    body += nested(IFLA_LINKINFO, *details)
    try:
        _ask(ROUTE, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, "RTM_NEWLINK", (name, kind, peer, namespace, master))
    except errors.KernelError as error:
        if not (exist_ok and error.errno == errno.EEXIST):
            raise


def link_set(
    name: str, up: bool | None = None, master: str = "", mtu: int = 0, namespace: int = 0, hairpin: bool = False
) -> None:
    """RTM_SETLINK: switch a device on or off, make it a port of a bridge, change its MTU.

    With `hairpin`, its bridge may send a packet out of this port that came in by it.
    """
    if hairpin:
        mode = nested(IFLA_INFO_SLAVE_DATA, attribute(IFLA_BRPORT_MODE, b"\1"))
        body = _IFINFO.pack(0, 0, 0, 0, 0) + string(IFLA_IFNAME, name)
        body += nested(IFLA_LINKINFO, string(IFLA_INFO_SLAVE_KIND, "bridge"), mode)
        # What belongs to the kind of a device is taken by RTM_NEWLINK alone; without NLM_F_CREATE it makes none.
        _ask(ROUTE, RTM_NEWLINK, 0, body, "RTM_NEWLINK", (name, "hairpin"), namespace)
        if up is None and not master and not mtu:
            return
    body = _IFINFO.pack(0, 0, 0, IFF_UP if up else 0, 0 if up is None else IFF_UP) + string(IFLA_IFNAME, name)
    if master:
        body += number(IFLA_MASTER, _index(master, namespace))
    if mtu:
        body += number(IFLA_MTU, mtu)
    _ask(ROUTE, RTM_SETLINK, 0, body, "RTM_SETLINK", (name, up, master, mtu), namespace)


def link_delete(name: str) -> None:
    """RTM_DELLINK: the device is gone afterwards; a veth takes its other end with it."""
    try:
        body = _IFINFO.pack(0, 0, 0, 0, 0) + string(IFLA_IFNAME, name)
        _ask(ROUTE, RTM_DELLINK, 0, body, "RTM_DELLINK", (name,))
    except errors.KernelError as error:
        if error.errno != errno.ENODEV:
            raise


def address_add(device: str, address: str, namespace: int = 0) -> None:
    """RTM_NEWADDR: the device has `address` ("172.30.0.2/16") afterwards."""
    host, _, prefix = address.partition("/")
    family, packed = _packed(host)
    length = int(prefix) if prefix else len(packed) * 8
    # struct ifaddrmsg: family, length of the prefix, flags, scope, index
    body = struct.pack("=BBBBI", family, length, 0, 0, _index(device, namespace))
    body += attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
    flags = NLM_F_CREATE | NLM_F_REPLACE
    _ask(ROUTE, RTM_NEWADDR, flags, body, "RTM_NEWADDR", (device, address), namespace)


def route_add(destination: str, gateway: str, namespace: int = 0) -> None:
    """RTM_NEWROUTE: `destination` ("default" or "10.0.0.0/8") is reached through `gateway` afterwards."""
    family, packed = _packed(gateway)
    length, target = 0, b""
    if destination != "default":
        network, _, prefix = destination.partition("/")
        target = _packed(network)[1]
        length = int(prefix) if prefix else len(target) * 8
    # struct rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type, flags
    body = struct.pack(
        "=BBBBBBBBI", family, length, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0
    )
    body += (attribute(RTA_DST, target) if target else b"") + attribute(RTA_GATEWAY, packed)
    flags = NLM_F_CREATE | NLM_F_REPLACE
    _ask(ROUTE, RTM_NEWROUTE, flags, body, "RTM_NEWROUTE", (destination, gateway), namespace)


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
    )


def link(name: str, namespace: int = 0) -> Link | None:
    """RTM_GETLINK: the device of that name, or None."""
    try:
        body = _IFINFO.pack(0, 0, 0, 0, 0) + string(IFLA_IFNAME, name)
        return _link(_ask(ROUTE, RTM_GETLINK, 0, body, "RTM_GETLINK", (name,), namespace)[0][1])
    except errors.KernelError as error:
        if error.errno != errno.ENODEV:
            raise
        return None


def links(namespace: int = 0) -> list[Link]:
    """RTM_GETLINK: all devices."""
    body = _IFINFO.pack(0, 0, 0, 0, 0)
    return [_link(found) for _, found in _ask(ROUTE, RTM_GETLINK, NLM_F_DUMP, body, "RTM_GETLINK", (), namespace)]


def link_wait(name: str) -> None:
    """Wait until packets pass through the device. Raises KernelError (ETIMEDOUT) after two seconds.

    That both ends of a cable are up tells the kernel's "linkwatch" to let packets through, which it does when it gets
    to it; until then they are dropped, and whoever sent one tries again after a second. Since Linux 6.8 asking for
    the device brings that about; before, it takes its moment, longer where many containers start at once.
    """
    end = time.monotonic() + 2
    while True:
        found = link(name)
        if found is None:
            raise errors.KernelError(errno.ENODEV, "RTM_GETLINK", (name,), f"there is no network device {name}")
        if found.works:
            return
        if time.monotonic() > end:
            raise errors.KernelError(errno.ETIMEDOUT, "RTM_GETLINK", (name,), "is its other end, or its bridge, down?")
        time.sleep(0.0005)


def _index(name: str, namespace: int = 0) -> int:
    found = link(name, namespace)
    if found is None:
        raise errors.KernelError(errno.ENODEV, "RTM_GETLINK", (name,), f"there is no network device {name}")
    return found.ifindex


# -------------------------------------------------------------------------------------------------- firewall: `nft`

# linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h. Numbers in attributes are in network byte order here.
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11
NFNL_SUBSYS_CTNETLINK, NFNL_SUBSYS_NFTABLES = 1, 10
NFPROTO_UNSPEC, NFPROTO_INET, NFPROTO_IPV4 = 0, 1, 2
NFT_MSG_NEWTABLE, NFT_MSG_GETTABLE, NFT_MSG_DELTABLE = 0, 1, 2
NFT_MSG_NEWCHAIN, NFT_MSG_GETCHAIN = 3, 4
NFT_MSG_NEWRULE, NFT_MSG_GETRULE, NFT_MSG_DELRULE = 6, 7, 8
NFT_MSG_NEWSET = 9
NFT_MSG_NEWSETELEM, NFT_MSG_GETSETELEM, NFT_MSG_DELSETELEM = 12, 13, 14
NFTA_LIST_ELEM = 1
NFTA_TABLE_NAME = 1
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE = 1, 3, 4, 5, 7
NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY = 1, 2
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS = 1, 2, 4
NFTA_SET_TABLE, NFTA_SET_NAME, NFTA_SET_FLAGS, NFTA_SET_KEY_TYPE, NFTA_SET_KEY_LEN = 1, 2, 3, 4, 5
NFTA_SET_DATA_TYPE, NFTA_SET_DATA_LEN, NFTA_SET_ID, NFTA_SET_USERDATA = 6, 7, 10, 13
NFT_SET_MAP = 8
NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_ELEMENTS = 1, 2, 3
NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_FLAGS, NFTA_SET_ELEM_USERDATA = 1, 2, 3, 6
NFT_SET_INTERVAL, NFT_SET_ELEM_INTERVAL_END = 4, 1
NFTA_DATA_VALUE, NFTA_DATA_VERDICT = 1, 2
NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN = 1, 2
NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 2
NF_DROP, NF_ACCEPT, NFT_JUMP = 0, 1, -3

HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
PROTOCOLS = {"tcp": 6, "udp": 17}

# What nft(8) calls the type of a key: its number there (src/datatype.c, TYPE_*) and its width in bytes. The kernel
# only needs the width; the number is what lets `nft list` print the key as a person would.
# A set of ipv4_subnet (our word) is one of ipv4_addr with "flags interval".
TYPES = {
    "ipv4_addr": (7, 4),
    "ipv4_subnet": (7, 4),
    "inet_proto": (12, 1),
    "inet_service": (13, 2),
    "ifname": (41, 16),
}


class Set(namedtuple("Set", "table name key data", defaults=((),))):
    """A named set of the inet table `table`, or a map if it has `data`. Keys and data are lists of TYPES."""

    table: str
    name: str
    key: tuple[str, ...]
    data: tuple[str, ...]


class Element(namedtuple("Element", "key data comment")):
    """What a set holds. The comment is where we write whose it is."""

    key: tuple[Any, ...]
    data: tuple[Any, ...]
    comment: str


class Expression(namedtuple("Expression", "text code")):
    """A part of a rule: as nft(8) writes it, and as the kernel wants it (NFTA_LIST_ELEM attributes)."""

    text: str
    code: bytes


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def _pack_field(kind: str, value: Any) -> bytes:
    """One field of a key, in a register's width: registers are four bytes wide, or sixteen."""
    if kind == "ipv4_addr":
        return socket.inet_aton(value)
    if kind == "inet_proto":
        return bytes((PROTOCOLS[value], 0, 0, 0))
    if kind == "inet_service":
        return struct.pack(">Hxx", value)
    return str(value).encode().ljust(16, b"\0")


def _unpack_fields(kinds: tuple[str, ...], data: bytes) -> tuple[Any, ...]:
    values: list[Any] = []
    for kind in kinds:
        if kind == "ipv4_addr":
            values.append(socket.inet_ntoa(data[:4]))
        elif kind == "inet_proto":
            values.append(next((name for name, value in PROTOCOLS.items() if value == data[0]), str(data[0])))
        elif kind == "inet_service":
            values.append(int.from_bytes(data[:2], "big"))
        else:
            values.append(text(data[:16]))
        data = data[max(TYPES[kind][1], 4) :]
    return tuple(values)


def _width(kinds: tuple[str, ...]) -> int:
    if len(kinds) == 1:
        return TYPES[kinds[0]][1]
    return sum(max(TYPES[kind][1], 4) for kind in kinds)


def _type(kinds: tuple[str, ...]) -> int:
    """The number of a concatenation: six bits for each part (nft's TYPE_BITS)."""
    value = 0
    for kind in kinds:
        value = value << 6 | TYPES[kind][0]
    return value


def _fields(kinds: tuple[str, ...], values: Sequence[Any]) -> bytes:
    packed = b"".join(_pack_field(kind, value) for kind, value in zip(kinds, values, strict=True))
    return packed[: _width(kinds)]


def _value(kind: int, value: bytes) -> bytes:
    return nested(kind, attribute(NFTA_DATA_VALUE, value))


def _element(owner: Set, key: Sequence[Any], data: Sequence[Any] = (), comment: str = "") -> bytes:
    if owner.key == ("ipv4_subnet",):
        return _interval(key[0])
    parts = _value(NFTA_SET_ELEM_KEY, _fields(owner.key, key))
    if data:
        parts += _value(NFTA_SET_ELEM_DATA, _fields(owner.data, data))
    if comment:
        # libnftnl's user data: type 0 (comment), length, the string with its NUL
        encoded = comment.encode() + b"\0"
        parts += attribute(NFTA_SET_ELEM_USERDATA, bytes((0, len(encoded))) + encoded)
    return nested(NFTA_LIST_ELEM, parts)


def _interval(subnet: str) -> bytes:
    """A subnet in a set of intervals: the element that begins it, and the one that begins what is no more in it."""
    address, _, prefix = subnet.partition("/")
    end = int.from_bytes(socket.inet_aton(address), "big") + (1 << 32 - int(prefix))
    first = nested(NFTA_LIST_ELEM, _value(NFTA_SET_ELEM_KEY, socket.inet_aton(address)))
    if end > 0xFFFFFFFF:
        return first
    beyond = _value(NFTA_SET_ELEM_KEY, struct.pack(">I", end)) + _number(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END)
    return first + nested(NFTA_LIST_ELEM, beyond)


# A transaction is a tuple of commands, and a command a plain tuple that begins with nft's own words for it:
#     ("add table", table)    ("flush table", table)    ("delete table", table)
#     ("add set", Set)
#     ("add chain", table, name)    ("add chain", table, name, type, hook, priority)
#     ("add rule", table, chain, Expression, ...)
#     ("add element", Set, key, data, comment)    ("create element", ...)    ("delete element", Set, key)
if TYPE_CHECKING:
    Command = tuple[Any, ...]


def _encode(command: Command) -> tuple[int, int, bytes]:
    """(message, flags, attributes) of one command."""
    verb, *words = command
    if verb in ("add element", "create element", "delete element"):
        owner: Set = words[0]
        body = string(NFTA_SET_ELEM_LIST_TABLE, owner.table) + string(NFTA_SET_ELEM_LIST_SET, owner.name)
        body += nested(NFTA_SET_ELEM_LIST_ELEMENTS, _element(*words))
        if verb == "delete element":
            return NFT_MSG_DELSETELEM, 0, body
        return NFT_MSG_NEWSETELEM, NLM_F_CREATE | (NLM_F_EXCL if verb == "create element" else 0), body
    if verb == "add rule":
        table, chain, *expressions = words
        body = string(NFTA_RULE_TABLE, table) + string(NFTA_RULE_CHAIN, chain)
        body += nested(NFTA_RULE_EXPRESSIONS, *[expression.code for expression in expressions])
        return NFT_MSG_NEWRULE, NLM_F_CREATE | 0x800, body  # NLM_F_APPEND: at the end of the chain
    if verb == "add chain":
        table, name, *base = words
        body = string(NFTA_CHAIN_TABLE, table) + string(NFTA_CHAIN_NAME, name)
        if base:
            kind, hook, priority = base
            at = _number(NFTA_HOOK_HOOKNUM, HOOKS[hook]) + _number(NFTA_HOOK_PRIORITY, priority)
            body += nested(NFTA_CHAIN_HOOK, at) + string(NFTA_CHAIN_TYPE, kind) + _number(NFTA_CHAIN_POLICY, NF_ACCEPT)
        return NFT_MSG_NEWCHAIN, NLM_F_CREATE, body
    if verb == "add set":
        owner = words[0]
        body = string(NFTA_SET_TABLE, owner.table) + string(NFTA_SET_NAME, owner.name)
        body += _number(NFTA_SET_KEY_TYPE, _type(owner.key)) + _number(NFTA_SET_KEY_LEN, _width(owner.key))
        flags = (NFT_SET_MAP if owner.data else 0) | (NFT_SET_INTERVAL if owner.key == ("ipv4_subnet",) else 0)
        body += _number(NFTA_SET_ID, 1) + _number(NFTA_SET_FLAGS, flags)
        if owner.key == ("ifname",):
            # libnftnl's user data again: type 0 (byte order of the key), length 4, 1 (the host's). A name is a string
            # to everyone but `nft list`, which would print it backwards.
            body += attribute(NFTA_SET_USERDATA, bytes((0, 4)) + struct.pack("=I", 1))
        if owner.data:
            body += _number(NFTA_SET_DATA_TYPE, _type(owner.data)) + _number(NFTA_SET_DATA_LEN, _width(owner.data))
        return NFT_MSG_NEWSET, NLM_F_CREATE, body
    if verb == "flush table":  # its rules; what is in its sets stays
        return NFT_MSG_DELRULE, 0, string(NFTA_RULE_TABLE, words[0])
    if verb == "add table":
        return NFT_MSG_NEWTABLE, NLM_F_CREATE, string(NFTA_TABLE_NAME, words[0])
    if verb == "delete table":
        return NFT_MSG_DELTABLE, 0, string(NFTA_TABLE_NAME, words[0])
    raise errors.InvalidArgument(f"nft: no command {verb!r}")


def nft_text(command: Command) -> str:
    """The command as a line for nft(8). Symbols in it stand there by their names."""
    verb, *words = command
    if verb in ("add element", "create element", "delete element"):
        owner, key, data, comment = (*words, (), "")[:4]
        fields = zip(owner.key, key, strict=True)
        inside = " . ".join(f'"{part}"' if kind == "ifname" else str(part) for kind, part in fields)
        inside += f' comment "{comment}"' if comment else ""
        inside += " : " + " . ".join(map(str, data)) if data else ""
        return f"{verb} inet {owner.table} {owner.name} {{ {inside} }}"
    if verb == "add rule":
        table, chain, *expressions = words
        return f"add rule inet {table} {chain} " + " ".join(expression.text for expression in expressions)
    if verb == "add chain":
        table, name, *base = words
        hook = " {{ type {} hook {} priority {}; policy accept; }}".format(*base) if base else ""
        return f"add chain inet {table} {name}{hook}"
    if verb == "add set":
        owner = words[0]
        kind = "map" if owner.data else "set"
        types = " : ".join(" . ".join(types) for types in (owner.key, owner.data) if types)
        types = types.replace("ipv4_subnet", "ipv4_addr; flags interval")
        return f"add {kind} inet {owner.table} {owner.name} {{ type {types}; }}"
    return f"{verb} inet {words[0]}"


def nft(*commands: Command) -> None:
    """All commands in one transaction: the kernel does them all, or none.

    Raises KernelError for the first that it refused; Conflict, naming the holder, where "create element" found one.
    """
    channel = _socket(NETFILTER, 0)
    batch = struct.pack(">BBH", NFPROTO_UNSPEC, 0, NFNL_SUBSYS_NFTABLES)
    family = struct.pack(">BBH", NFPROTO_INET, 0, 0)
    parts = [_HEADER.pack(20, NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, 0, 0) + batch]
    for sequence, command in enumerate(commands, 1):
        kind, flags, body = _encode(command)
        if sequence == len(commands):
            flags |= NLM_F_ACK
        header = _HEADER.pack(20 + len(body), NFNL_SUBSYS_NFTABLES << 8 | kind, NLM_F_REQUEST | flags, sequence, 0)
        parts.append(header + family + body)
    last = len(commands)
    parts.append(_HEADER.pack(20, NFNL_MSG_BATCH_END, NLM_F_REQUEST, last + 1, 0) + batch)
    try:
        channel.send(b"".join(parts))
    except OSError as error:
        raise errors.KernelError(error.errno or 0, "nft", (nft_text(commands[0]), f"and {last - 1} more")) from None
    refused: tuple[int, int, str] | None = None
    while True:  # a refusal of any command, then the acknowledgement of the last; all are there already
        try:
            data = channel.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
        for kind, flags, sequence, body in _messages(data):
            code, words = _refusal(flags, body) if kind == NLMSG_ERROR else (0, "")
            if code and refused is None:
                refused = code, sequence, words
    if refused:
        code, sequence, words = refused
        command = commands[min(max(sequence, 1), last) - 1]
        if code == errno.EEXIST and command[0] == "create element":
            holder = element(command[1], command[2])
            whose = f" by container {holder.comment[:12]}" if holder and holder.comment else ""
            key = "/".join(map(str, reversed(command[2])))
            raise errors.Conflict(f"{key} is already taken{whose} in the firewall's {command[1].name}")
        if code == errno.EOPNOTSUPP or (code == errno.ENOENT and command[0] == "add rule"):
            words = words or "the kernel lacks a part: modprobe -a nf_tables nft_chain_nat nft_ct nft_masq nft_fib_inet"
        raise errors.KernelError(code, "nft", (nft_text(command),), words)


def _dump(
    message: int, flags: int, family: int, body: bytes, call: str, arguments: tuple[object, ...]
) -> list[Message]:
    header = struct.pack(">BBH", family, 0, 0)
    return _ask(NETFILTER, NFNL_SUBSYS_NFTABLES << 8 | message, flags, header + body, call, arguments)


def _elements(owner: Set, answers: list[Message], comment: str = "") -> Iterator[Element]:
    wanted = comment.encode()
    for _, body in answers:
        if wanted not in body:  # a quick look before a slow one: most of a long list is other people's
            continue
        for kind, value in attributes(body, 4):
            if kind != NFTA_SET_ELEM_LIST_ELEMENTS:
                continue
            for _, item in attributes(value):
                found = dict(attributes(item))
                note = text(found.get(NFTA_SET_ELEM_USERDATA, b"")[2:])
                if wanted and note != comment:
                    continue
                key, data = (
                    dict(attributes(found.get(part, b""))).get(NFTA_DATA_VALUE, b"")
                    for part in (NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_DATA)
                )
                data_fields = _unpack_fields(owner.data, data) if data else ()
                yield Element(_unpack_fields(owner.key, key), data_fields, note)


def elements(owner: Set, comment: str = "") -> list[Element]:
    """All elements of a set, or those with this comment; none if there is no such set."""
    body = string(NFTA_SET_ELEM_LIST_TABLE, owner.table) + string(NFTA_SET_ELEM_LIST_SET, owner.name)
    arguments = (owner.table, owner.name)
    try:
        answers = _dump(NFT_MSG_GETSETELEM, NLM_F_DUMP, NFPROTO_INET, body, "NFT_MSG_GETSETELEM", arguments)
    except errors.KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        return []
    return list(_elements(owner, answers, comment))


def element(owner: Set, key: Sequence[Any]) -> Element | None:
    """The element with this key, or None: one look-up, however many there are."""
    body = string(NFTA_SET_ELEM_LIST_TABLE, owner.table) + string(NFTA_SET_ELEM_LIST_SET, owner.name)
    body += nested(NFTA_SET_ELEM_LIST_ELEMENTS, _element(owner, key))
    try:
        answers = _dump(NFT_MSG_GETSETELEM, 0, NFPROTO_INET, body, "NFT_MSG_GETSETELEM", (owner.name, key))
    except errors.KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        return None
    return next(_elements(owner, answers), None)


class Chain(namedtuple("Chain", "family table name hook policy")):
    """A chain of anybody's: the table's family and name, its own name, its hook ("" if it is none) and policy."""

    family: int
    table: str
    name: str
    hook: int
    policy: int


def chains() -> list[Chain]:
    """The chains of all tables. `hook` is -1 where a chain is only jumped to."""
    found = []
    for _, body in _dump(NFT_MSG_GETCHAIN, NLM_F_DUMP, NFPROTO_UNSPEC, b"", "NFT_MSG_GETCHAIN", ()):
        parts = dict(attributes(body, 4))
        hook = dict(attributes(parts.get(NFTA_CHAIN_HOOK, b"")))
        found.append(
            Chain(
                body[0],
                text(parts[NFTA_CHAIN_TABLE]),
                text(parts[NFTA_CHAIN_NAME]),
                int.from_bytes(hook[NFTA_HOOK_HOOKNUM], "big") if NFTA_HOOK_HOOKNUM in hook else -1,
                int.from_bytes(parts.get(NFTA_CHAIN_POLICY, b"\1"), "big"),
            )
        )
    return found


def rules(family: int, table: str) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """The rules of a table: (chain, [(expression's name, its attributes)])."""
    body = string(NFTA_RULE_TABLE, table)
    for _, answer in _dump(NFT_MSG_GETRULE, NLM_F_DUMP, family, body, "NFT_MSG_GETRULE", (table,)):
        parts = dict(attributes(answer, 4))
        expressions = []
        for _, item in attributes(parts.get(NFTA_RULE_EXPRESSIONS, b"")):
            found = dict(attributes(item))
            expressions.append((text(found[NFTA_EXPR_NAME]), found.get(NFTA_EXPR_DATA, b"")))
        yield text(parts[NFTA_RULE_CHAIN]), expressions


# Expressions. A rule is a little program for a machine with one verdict register and sixteen 4-byte ones; the first
# four of those together are also called register 1, the next four register 2. Each expression loads, compares or acts;
# a comparison that fails ends the rule. `nft --debug=netlink list ruleset` prints rules in just these words.

_REG_1, _REG_2 = 1, 2
_REG32 = 8  # the first of the sixteen


def _expression(name: str, *parts: bytes) -> bytes:
    return nested(NFTA_LIST_ELEM, string(NFTA_EXPR_NAME, name), nested(NFTA_EXPR_DATA, *parts))


def _meta(key: int, register: int = _REG_1) -> bytes:
    """enum nft_meta_keys: 6 iifname, 7 oifname, 15 nfproto, 16 l4proto."""
    return _expression("meta", _number(1, register), _number(2, key))


def _compare(value: bytes, unequal: bool = False) -> bytes:
    return _expression("cmp", _number(1, _REG_1), _number(2, int(unequal)), _value(3, value))


def _payload(base: int, offset: int, length: int, register: int = _REG_1) -> bytes:
    """Bytes of the packet; base 1 is the network header, 2 the transport header."""
    return _expression("payload", _number(1, register), _number(2, base), _number(3, offset), _number(4, length))


def _masked(mask: bytes) -> bytes:
    return _expression(
        "bitwise", _number(1, _REG_1), _number(2, _REG_1), _number(3, len(mask)), _value(4, mask), _value(5, bytes(4))
    )


def _lookup(name: str, inverted: bool = False, result: int = 0) -> bytes:
    parts = [string(1, name), _number(2, _REG_1)]
    if result:
        parts.append(_number(3, result))
    if inverted:
        parts.append(_number(5, 1))
    return _expression("lookup", *parts)


def _ipv4() -> bytes:
    """`meta nfproto ipv4`: nft(8) puts it before any `ip` match in an inet table, and leaves it out when it prints."""
    return _meta(15) + _compare(bytes((NFPROTO_IPV4,)))


def ifname_in(direction: str, name: str, inverted: bool = False) -> Expression:
    """`oifname @name`: the device that a packet came in by ("iifname") or leaves by is in the set."""
    code = _meta(6 if direction == "iifname" else 7) + _lookup(name, inverted)
    return Expression(f"{direction} {'!= ' if inverted else ''}@{name}", code)


def ifname_pair_in(name: str) -> Expression:
    """`iifname . oifname @name`."""
    return Expression(f"iifname . oifname @{name}", _meta(6, _REG_1) + _meta(7, _REG_2) + _lookup(name))


def ifname_is_not(direction: str, device: str) -> Expression:
    """`iifname != "lo"`."""
    code = _meta(6 if direction == "iifname" else 7) + _compare(device.encode().ljust(16, b"\0"), unequal=True)
    return Expression(f'{direction} != "{device}"', code)


def address_in(direction: str, subnet: str) -> Expression:
    """`ip daddr 127.0.0.0/8`: struct iphdr has saddr at byte 12 and daddr at byte 16."""
    network, _, prefix = subnet.partition("/")
    mask = struct.pack(">I", 0xFFFFFFFF << (32 - int(prefix)) & 0xFFFFFFFF)
    code = _ipv4() + _payload(1, 12 if direction == "saddr" else 16, 4) + _masked(mask)
    return Expression(f"ip {direction} {subnet}", code + _compare(socket.inet_aton(network)))


def address_among(direction: str, name: str) -> Expression:
    """`ip saddr @name`: the address is in the set, or in one of its subnets."""
    code = _ipv4() + _payload(1, 12 if direction == "saddr" else 16, 4) + _lookup(name)
    return Expression(f"ip {direction} @{name}", code)


def destination_is_local() -> Expression:
    """`fib daddr type local`: the routing table says that the packet is for this machine (RTN_LOCAL = 2)."""
    code = _expression("fib", _number(1, _REG_1), _number(2, 3), _number(3, 2)) + _compare(struct.pack("=I", 2))
    return Expression("fib daddr type local", code)


_CT_STATES = {"invalid": 1, "established": 2, "related": 4, "new": 8}
_CT_STATUS = {"dnat": 0x20}  # IPS_DST_NAT, linux/netfilter/nf_conntrack_common.h


def _ct(key: int, bits: int) -> bytes:
    """enum nft_ct_keys: 0 state, 2 status. True if any of the bits is set."""
    return (
        _expression("ct", _number(1, _REG_1), _number(2, key))
        + _masked(struct.pack("=I", bits))
        + _compare(bytes(4), unequal=True)
    )


def ct_state(*states: str) -> Expression:
    """`ct state established,related`: what the packet is to the connection it belongs to."""
    return Expression(f"ct state {','.join(states)}", _ct(0, sum(_CT_STATES[state] for state in states)))


def ct_status(status: str) -> Expression:
    """`ct status dnat`: what has been done to the connection."""
    return Expression(f"ct status {status}", _ct(2, _CT_STATUS[status]))


def _verdict(code: int, chain: str = "") -> bytes:
    parts = _number(NFTA_VERDICT_CODE, code) + (string(NFTA_VERDICT_CHAIN, chain) if chain else b"")
    return _expression("immediate", _number(1, 0), nested(2, nested(NFTA_DATA_VERDICT, parts)))


def accept() -> Expression:
    """`accept`: done with this chain's hook; chains of other tables still have their say."""
    return Expression("accept", _verdict(NF_ACCEPT))


def drop() -> Expression:
    """`drop`: the packet is gone, whatever anybody else says."""
    return Expression("drop", _verdict(NF_DROP))


def jump(chain: str) -> Expression:
    """`jump chain`: go on there, and come back."""
    return Expression(f"jump {chain}", _verdict(NFT_JUMP, chain))


def masquerade() -> Expression:
    """`masquerade`: the packet leaves with the address of the device it leaves by."""
    return Expression("masquerade", _expression("masq"))


def dnat_by_map(name: str, with_address: bool) -> Expression:
    """`dnat ip to meta l4proto . th dport map @name`: one look-up gives the new address and port.

    With `with_address` the key begins with `ip daddr`. Both headers of tcp and udp have the destination port at byte 2.
    """
    before, key, code, register = "meta nfproto ipv4 ", "meta l4proto . th dport", b"", _REG32
    if with_address:
        before, key, code, register = "", f"ip daddr . {key}", _payload(1, 16, 4, _REG32), _REG32 + 1
    code = _ipv4() + code + _meta(16, register) + _payload(2, 2, 2, register + 1) + _lookup(name, result=_REG_1)
    nat = _number(1, 1), _number(2, NFPROTO_IPV4), _number(3, _REG32), _number(5, _REG32 + 1)
    return Expression(f"{before}dnat ip to {key} map @{name}", code + _expression("nat", *nat))


# ------------------------------------------------------------------------------- connection tracking: `conntrack -D`

# linux/netfilter/nfnetlink_conntrack.h
IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 1, 2
CTA_TUPLE_ORIG, CTA_FILTER = 1, 25
CTA_TUPLE_PROTO = 2
CTA_PROTO_NUM, CTA_PROTO_DST_PORT = 1, 3
CTA_FILTER_ORIG_FLAGS = 1
_FILTER_PROTO_NUM, _FILTER_PROTO_DST_PORT = 1 << 3, 1 << 5  # net/netfilter/nf_conntrack_netlink.c, CTA_FILTER_F_*


def conntrack_delete(protocol: str, ports: Sequence[int]) -> int:
    """Forget the IPv4 connections whose first packet went to one of the ports; returns how many there were.

    A UDP "connection" lives for as long as its client goes on sending, to wherever its first packet was sent: without
    this, a port that changes hands would go on serving its old clients from the old container, or from nowhere.
    """
    header = struct.pack(">BBH", socket.AF_INET, 0, 0)
    packed = {struct.pack(">H", port) for port in ports}
    code = bytes((PROTOCOLS[protocol],))
    # The kernel walks its whole table, some milliseconds, and hands out what fits (since 5.8; all, before).
    proto, flags = attribute(CTA_PROTO_NUM, code), _FILTER_PROTO_NUM
    if len(packed) == 1:
        proto, flags = proto + attribute(CTA_PROTO_DST_PORT, *packed), flags | _FILTER_PROTO_DST_PORT
    wanted = nested(CTA_TUPLE_ORIG, nested(CTA_TUPLE_PROTO, proto))
    wanted += nested(CTA_FILTER, attribute(CTA_FILTER_ORIG_FLAGS, struct.pack("=I", flags)))
    get, delete = (NFNL_SUBSYS_CTNETLINK << 8 | message for message in (IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE))
    gone = 0
    for _, body in _ask(NETFILTER, get, NLM_F_DUMP, header + wanted, "IPCTNL_MSG_CT_GET", (protocol, *ports)):
        original = dict(attributes(body, 4)).get(CTA_TUPLE_ORIG, b"")
        parts = dict(attributes(dict(attributes(original)).get(CTA_TUPLE_PROTO, b"")))
        if parts.get(CTA_PROTO_NUM) != code or parts.get(CTA_PROTO_DST_PORT) not in packed:
            continue
        try:
            target = header + nested(CTA_TUPLE_ORIG, original)
            _ask(NETFILTER, delete, 0, target, "IPCTNL_MSG_CT_DELETE", (protocol, *ports))
            gone += 1
        except errors.KernelError as error:
            if error.errno != errno.ENOENT:  # it ended by itself meanwhile
                raise
    return gone
