"""nfnetlink, nf_tables: what `nft` does, in one transaction a call.

A transaction is a tuple of commands, and a command a plain tuple that begins with nft(8)'s own words for it:
    ("add table", table)    ("flush table", table)    ("delete table", table)
    ("add set", Set)
    ("add chain", table, name)    ("add chain", table, name, type, hook, priority)
    ("add rule", table, chain, Expression, ...)
    ("add element", Set, key, data, comment)    ("create element", ...)    ("delete element", Set, key)
    ("insert rule", family, table, chain, comment, Expression, ...)    ("delete rule", family, table, chain, handle)
The last two are for other people's chains. A table is of the family inet, unless its name says more: "bridge mine".

Sources: linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h. Numbers in attributes are in network byte order here.
"""

from __future__ import annotations

import _socket as socket
import errno
import struct

from .. import errors
from ..records import namedtuple
from . import codec
from .codec import NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, attribute, attributes, nested, string, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    Command = tuple[Any, ...]

NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11
NFNL_SUBSYS_NFTABLES = 10
NFPROTO_UNSPEC, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_BRIDGE, NFPROTO_IPV6 = 0, 1, 2, 7, 10
FAMILIES = {"inet": NFPROTO_INET, "ip": NFPROTO_IPV4, "bridge": NFPROTO_BRIDGE, "ip6": NFPROTO_IPV6}
NFT_MSG_NEWTABLE, NFT_MSG_GETTABLE, NFT_MSG_DELTABLE = 0, 1, 2
NFT_MSG_NEWCHAIN, NFT_MSG_GETCHAIN = 3, 4
NFT_MSG_NEWRULE, NFT_MSG_GETRULE, NFT_MSG_DELRULE = 6, 7, 8
NFT_MSG_NEWSET = 9
NFT_MSG_NEWSETELEM, NFT_MSG_GETSETELEM, NFT_MSG_DELSETELEM = 12, 13, 14
NFTA_LIST_ELEM = 1
NFTA_TABLE_NAME = 1
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE = 1, 3, 4, 5, 7
NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY = 1, 2
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_HANDLE, NFTA_RULE_EXPRESSIONS, NFTA_RULE_USERDATA = 1, 2, 3, 4, 7
NFTA_SET_TABLE, NFTA_SET_NAME, NFTA_SET_FLAGS, NFTA_SET_KEY_TYPE, NFTA_SET_KEY_LEN = 1, 2, 3, 4, 5
NFTA_SET_DATA_TYPE, NFTA_SET_DATA_LEN, NFTA_SET_ID, NFTA_SET_USERDATA = 6, 7, 10, 13
NFT_SET_INTERVAL, NFT_SET_MAP = 4, 8
NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_ELEMENTS = 1, 2, 3
NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_FLAGS, NFTA_SET_ELEM_USERDATA = 1, 2, 3, 6
NFT_SET_ELEM_INTERVAL_END = 1
NFTA_DATA_VALUE, NFTA_DATA_VERDICT = 1, 2
NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN = 1, 2
NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 2
NF_DROP, NF_ACCEPT, NFT_JUMP = 0, 1, -3

_SO_SNDBUFFORCE = 32  # socket(7)
_ROOM = 1 << 17  # bytes of a transaction that every socket has room for
CHUNK = 500  # elements in a transaction: one message of the kernel's is at most some 200 KiB
_TRIES = 10  # of a look at a set that others change

HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
PROTOCOLS = {"tcp": 6, "udp": 17}
_NAMES = {6: "tcp", 17: "udp"}


# What nft(8) calls the type of a key: its number there (src/datatype.c, TYPE_*), its width in bytes, how to pack and to
# unpack it. The kernel only needs the width; the number is what lets `nft list` print the key as a person would.
# A set of ipv4_subnet or ipv6_subnet (our words) is one of ipv4_addr or ipv6_addr with "flags interval". An
# nd_target (ours, too) is whose place a neighbour's message of IPv6 tells: Debian 12's nft has no name for it, only for
# the number that lies there.
def _packed6(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, address)


def _written6(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET6, packed)


TYPES: dict[str, tuple[int, int, Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    "ipv4_addr": (7, 4, socket.inet_aton, socket.inet_ntoa),
    "ipv4_subnet": (7, 4, socket.inet_aton, socket.inet_ntoa),
    "ipv6_addr": (8, 16, _packed6, _written6),
    "ipv6_subnet": (8, 16, _packed6, _written6),
    "nd_target": (4, 16, lambda number: int(number, 16).to_bytes(16, "big"), lambda packed: f"0x{packed.hex()}"),
    "ether_addr": (9, 6, lambda mac: bytes.fromhex(mac.replace(":", "")), lambda mac: mac.hex(":")),
    "inet_proto": (12, 1, lambda name: bytes((PROTOCOLS[name],)), lambda code: _NAMES.get(code[0], str(code[0]))),
    "inet_service": (13, 2, lambda port: struct.pack(">H", port), lambda port: int.from_bytes(port, "big")),
    "ifname": (41, 16, str.encode, text),
}


_INTERVALS = ("ipv4_subnet", "ipv6_subnet")


class Set(namedtuple("Set", "table name key data", defaults=((),))):
    """A named set of `table`, or a map if it has `data`. Keys and data are lists of TYPES."""

    table: str
    name: str
    key: tuple[str, ...]
    data: tuple[str, ...]


class Element(namedtuple("Element", "key data comment")):
    """What a set holds. The comment is where we write whose it is."""

    key: tuple[Any, ...]
    data: tuple[Any, ...]
    comment: str


class Chain:
    """A chain of anybody's: the table's family and name, its own name, its hook (-1 if it is none) and policy."""

    def __init__(self, family: int, table: str, name: str, hook: int, policy: int) -> None:
        self.family = family
        self.table = table
        self.name = name
        self.hook = hook
        self.policy = policy


class Rule:
    """A rule of anybody's: its chain, its number, what it consists of (names and attributes), its comment."""

    def __init__(self, chain: str, handle: int, expressions: list[tuple[str, bytes]], comment: str) -> None:
        self.chain = chain
        self.handle = handle
        self.expressions = expressions
        self.comment = comment


class Expression:
    """A part of a rule: as nft(8) writes it, and as the kernel wants it (NFTA_LIST_ELEM attributes)."""

    def __init__(self, text: str, code: bytes) -> None:
        self.text = text
        self.code = code


# Commands


def nft(*commands: Command, namespace: int = 0, check: bool = False) -> None:
    """All commands in one transaction: the kernel does them all, or none.

    With `check` it looks whether it could, and does none: a transaction without an end, as `nft --check` sends.
    Raises KernelError for the first that it refused; Conflict, naming the holder, where "create element" found one.
    """
    channel = codec.open_socket(codec.NETFILTER, namespace)
    parts = [codec.message(NFNL_MSG_BATCH_BEGIN, 0, _header(NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES), 0)]
    for sequence, command in enumerate(commands, 1):
        message, flags, body = _encode(command)
        if sequence == len(commands):
            flags |= codec.NLM_F_ACK
        kind = NFNL_SUBSYS_NFTABLES << 8 | message
        parts.append(codec.message(kind, flags, _header(FAMILIES[_place(command)[0]]) + body, sequence))
    if not check:
        end = _header(NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES)
        parts.append(codec.message(NFNL_MSG_BATCH_END, 0, end, len(commands) + 1))
    batch = b"".join(parts)
    if len(batch) > _ROOM:  # the kernel takes a message whole; CAP_NET_ADMIN may have more room than net.core.wmem_max
        try:
            channel.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * len(batch))
        except OSError:  # not in a user namespace; then it is refused, which says so
            pass
    try:
        channel.send(batch)
    except OSError as error:
        what = nft_text(commands[0]), f"and {len(commands) - 1} more"
        raise errors.KernelError(error.errno or 0, "nft", what) from None
    refused: tuple[int, int, str] | None = None
    while True:  # a refusal of any command, then the acknowledgement of the last; all are there already
        try:
            data = channel.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
        for kind, flags, sequence, body in codec.messages(data):
            code, words = codec.refusal(flags, body) if kind == codec.NLMSG_ERROR else (0, "")
            if code and refused is None:
                refused = code, sequence, words
    if namespace:
        channel.close()
    if refused:
        code, sequence, words = refused
        raise _refusal(commands[min(max(sequence, 1), len(commands)) - 1], code, words)


def delete_elements(found: Iterable[tuple[Set, Sequence[Any]]], comment: str) -> None:
    """Delete elements, (set, key) each: those of them that are there, and bear the comment."""
    doomed = [("delete element", owner, key) for owner, key in dict.fromkeys(found)]
    for start in range(0, len(doomed), CHUNK):
        chunk = doomed[start : start + CHUNK]
        while chunk:
            try:
                nft(*chunk)
                break
            except errors.KernelError as error:
                if error.errno != errno.ENOENT:
                    raise
            # Somebody else has deleted one of them, so none was deleted now; perhaps another's is there by now.
            there = [(command, element(*command[1:])) for command in chunk]
            chunk = [command for command, item in there if item and item.comment == comment]


def _place(command: Command) -> tuple[str, str]:
    """The family and the name of the table that a command is about."""
    verb, where = command[:2]
    if verb in ("insert rule", "delete rule"):
        return where, command[2]
    return _table(where.table if isinstance(where, Set) else where)


def _table(table: str) -> tuple[str, str]:
    """Family and name."""
    family, _, name = table.rpartition(" ")
    return family or "inet", name


def _refusal(command: Command, code: int, words: str) -> Exception:
    if code == errno.EEXIST and command[0] == "create element":
        holder = element(command[1], command[2])
        whose = f" by container {holder.comment[:12]}" if holder and holder.comment else ""
        key = "/".join(map(str, reversed(command[2])))
        return errors.Conflict(f"{key} is already taken{whose} in the firewall's {command[1].name}")
    if code == errno.EOPNOTSUPP or (code == errno.ENOENT and command[0] == "add rule"):
        words = words or "the kernel lacks a part: modprobe -a nf_tables nft_chain_nat nft_ct nft_masq nft_fib_inet"
    if code == errno.ENOENT and command[0] in ("add element", "create element"):
        words = words or "its table is not there any more: `network reload` puts it back"
    return errors.KernelError(code, "nft", (nft_text(command),), words)


def nft_text(command: Command) -> str:
    """The command as a line for nft(8). Symbols in it stand there by their names."""
    verb, *words = command
    place = " ".join(_place(command))
    if verb in ("add element", "create element", "delete element"):
        owner, key, data, comment = (*words, (), "")[:4]
        fields = zip(owner.key, key, strict=True)
        inside = " . ".join(f'"{part}"' if kind == "ifname" else str(part) for kind, part in fields)
        inside += f' comment "{comment}"' if comment else ""
        inside += " : " + " . ".join(map(str, data)) if data else ""
        return f"{verb} {place} {owner.name} {{ {inside} }}"
    if verb == "add rule":
        _, chain, *expressions = words
        return f"add rule {place} {chain} " + " ".join(expression.text for expression in expressions)
    if verb == "insert rule":
        family, table, chain, comment, *expressions = words
        inside = " ".join(expression.text for expression in expressions)
        return f'insert rule {family} {table} {chain} {inside} comment "{comment}"'
    if verb == "delete rule":
        return "delete rule {} {} {} handle {}".format(*words)
    if verb == "add chain":
        _, name, *base = words
        hook = " {{ type {} hook {} priority {}; policy accept; }}".format(*base) if base else ""
        return f"add chain {place} {name}{hook}"
    if verb == "add set":
        owner = words[0]
        kind = "map" if owner.data else "set"
        types = " : ".join(" . ".join(types) for types in (owner.key, owner.data) if types)
        if "nd_target" in owner.key:
            types = " . ".join(_EXPRESSIONS[each][0] for each in owner.key)
            return f"add {kind} {place} {owner.name} {{ typeof {types}; }}"
        for subnets in _INTERVALS:
            types = types.replace(subnets, f"{subnets[:4]}_addr; flags interval")
        return f"add {kind} {place} {owner.name} {{ type {types}; }}"
    return f"{verb} {place}"


def _encode(command: Command) -> tuple[int, int, bytes]:
    """(message, flags, attributes) of one command."""
    verb, *words = command
    own = _place(command)[1]
    if verb in ("add element", "create element", "delete element"):
        body = _whose(words[0]) + nested(NFTA_SET_ELEM_LIST_ELEMENTS, _element(*words))
        if verb == "delete element":
            return NFT_MSG_DELSETELEM, 0, body
        return NFT_MSG_NEWSETELEM, NLM_F_CREATE | (NLM_F_EXCL if verb == "create element" else 0), body
    if verb == "add rule":
        _, chain, *expressions = words
        body = string(NFTA_RULE_TABLE, own) + string(NFTA_RULE_CHAIN, chain)
        body += nested(NFTA_RULE_EXPRESSIONS, *[expression.code for expression in expressions])
        return NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, body
    if verb == "insert rule":
        _, _, chain, comment, *expressions = words
        body = string(NFTA_RULE_TABLE, own) + string(NFTA_RULE_CHAIN, chain)
        body += nested(NFTA_RULE_EXPRESSIONS, *[expression.code for expression in expressions])
        return NFT_MSG_NEWRULE, NLM_F_CREATE, body + attribute(NFTA_RULE_USERDATA, _comment(comment))
    if verb == "delete rule":
        _, _, chain, handle = words
        body = string(NFTA_RULE_TABLE, own) + string(NFTA_RULE_CHAIN, chain)
        return NFT_MSG_DELRULE, 0, body + attribute(NFTA_RULE_HANDLE, struct.pack(">Q", handle))
    if verb == "add chain":
        _, name, *base = words
        body = string(NFTA_CHAIN_TABLE, own) + string(NFTA_CHAIN_NAME, name)
        if base:
            kind, hook, priority = base
            at = _number(NFTA_HOOK_HOOKNUM, HOOKS[hook]) + _number(NFTA_HOOK_PRIORITY, priority)
            body += nested(NFTA_CHAIN_HOOK, at) + string(NFTA_CHAIN_TYPE, kind) + _number(NFTA_CHAIN_POLICY, NF_ACCEPT)
        return NFT_MSG_NEWCHAIN, NLM_F_CREATE, body
    if verb == "add set":
        return NFT_MSG_NEWSET, NLM_F_CREATE, _set(words[0])
    if verb == "flush table":  # its rules; what is in its sets stays
        return NFT_MSG_DELRULE, 0, string(NFTA_RULE_TABLE, own)
    if verb == "add table":
        return NFT_MSG_NEWTABLE, NLM_F_CREATE, string(NFTA_TABLE_NAME, own)
    if verb == "delete table":
        return NFT_MSG_DELTABLE, 0, string(NFTA_TABLE_NAME, own)
    raise errors.InvalidArgument(f"nft: no command {verb!r}")


def _header(family: int, resource: int = 0) -> bytes:
    """struct nfgenmsg: family, version, resource."""
    return struct.pack(">BBH", family, 0, resource)


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def _value(kind: int, value: bytes) -> bytes:
    return nested(kind, attribute(NFTA_DATA_VALUE, value))


# Sets and what is in them. Keys and data lie in registers, which are four bytes wide, or sixteen.


def _set(owner: Set) -> bytes:
    body = string(NFTA_SET_TABLE, _table(owner.table)[1]) + string(NFTA_SET_NAME, owner.name)
    body += _number(NFTA_SET_KEY_TYPE, _type(owner.key)) + _number(NFTA_SET_KEY_LEN, _width(owner.key))
    flags = (NFT_SET_MAP if owner.data else 0) | (NFT_SET_INTERVAL if owner.key[0] in _INTERVALS else 0)
    body += _number(NFTA_SET_ID, 1) + _number(NFTA_SET_FLAGS, flags)
    if owner.key == ("ifname",):
        # libnftnl's user data: type 0 (byte order of the key), length 4, 1 (the host's). A name is a string to
        # everyone but `nft list`, which would print it backwards.
        body += attribute(NFTA_SET_USERDATA, bytes((0, 4)) + struct.pack("=I", 1))
    if "nd_target" in owner.key:
        body += attribute(NFTA_SET_USERDATA, _typeof(owner.key))
    if owner.data:
        body += _number(NFTA_SET_DATA_TYPE, _type(owner.data)) + _number(NFTA_SET_DATA_LEN, _width(owner.data))
    return body


# How nft(8) notes what a key is like (`typeof`), where its type does not tell how wide it is: the words, the kind of
# expression, its numbers (src/meta.c: key; src/payload.c: protocol, field, and if both are 0, base, offset, length).
_EXPRESSIONS: dict[str, tuple[str, int, tuple[int, ...]]] = {
    "ifname": ("iifname", 9, (6,)),
    "ether_addr": ("ether saddr", 7, (17, 2)),
    "nd_target": ("@nh,384,128", 7, (0, 0, 2, 384, 128)),
}
_EXPR_CONCAT = 13


def _typeof(kinds: tuple[str, ...]) -> bytes:
    """libnftnl's user data of a set: type 3, the expressions of its key; type 0, the byte order, which they have."""
    parts = b""
    for place, (_, expression, numbers) in enumerate(_EXPRESSIONS[kind] for kind in kinds):
        data = b"".join(_noted(each, struct.pack("=I", number)) for each, number in enumerate(numbers))
        parts += _noted(place, _noted(0, struct.pack("=I", expression)) + _noted(1, data))
    key = _noted(0, struct.pack("=I", _EXPR_CONCAT)) + _noted(1, parts)
    return _noted(0, bytes(4)) + _noted(3, key)


def _noted(kind: int, value: bytes) -> bytes:
    return bytes((kind, len(value))) + value


def _type(kinds: tuple[str, ...]) -> int:
    """The number of a concatenation: six bits for each part (nft's TYPE_BITS)."""
    value = 0
    for kind in kinds:
        value = value << 6 | TYPES[kind][0]
    return value


def _width(kinds: tuple[str, ...]) -> int:
    if len(kinds) == 1:
        return TYPES[kinds[0]][1]
    return sum(map(_room, kinds))


def _room(kind: str) -> int:
    """The bytes of registers that a part of a concatenation takes."""
    return -(-TYPES[kind][1] // 4) * 4


def _whose(owner: Set) -> bytes:
    return string(NFTA_SET_ELEM_LIST_TABLE, _table(owner.table)[1]) + string(NFTA_SET_ELEM_LIST_SET, owner.name)


def _element(owner: Set, key: Sequence[Any], data: Sequence[Any] = (), comment: str = "") -> bytes:
    if owner.key[0] in _INTERVALS:
        return _interval(key[0], TYPES[owner.key[0]])
    parts = _value(NFTA_SET_ELEM_KEY, _pack(owner.key, key))
    if data:
        parts += _value(NFTA_SET_ELEM_DATA, _pack(owner.data, data))
    if comment:
        parts += attribute(NFTA_SET_ELEM_USERDATA, _comment(comment))
    return nested(NFTA_LIST_ELEM, parts)


def _comment(said: str) -> bytes:
    """libnftnl's user data: type 0 (comment), length, the string with its NUL."""
    return _noted(0, said.encode() + b"\0")


def _interval(subnet: str, kind: tuple[int, int, Callable[[Any], bytes], Callable[[bytes], Any]]) -> bytes:
    """A subnet in a set of intervals: the element that begins it, and the one that begins what is no more in it."""
    address, _, prefix = subnet.partition("/")
    _, width, pack, _ = kind
    end = int.from_bytes(pack(address), "big") + (1 << 8 * width - int(prefix))
    first = nested(NFTA_LIST_ELEM, _value(NFTA_SET_ELEM_KEY, pack(address)))
    if end >> 8 * width:
        return first
    after = _value(NFTA_SET_ELEM_KEY, end.to_bytes(width, "big"))
    beyond = after + _number(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END)
    return first + nested(NFTA_LIST_ELEM, beyond)


def _pack(kinds: tuple[str, ...], values: Sequence[Any]) -> bytes:
    packed = b""
    for kind, value in zip(kinds, values, strict=True):
        packed += TYPES[kind][2](value).ljust(_room(kind), b"\0")
    return packed[: _width(kinds)]


def _unpack(kinds: tuple[str, ...], data: bytes) -> tuple[Any, ...]:
    values = []
    for kind in kinds:
        _, width, _, unpack = TYPES[kind]
        values.append(unpack(data[:width]))
        data = data[_room(kind) :]
    return tuple(values)


# What is there


def has_table(table: str) -> bool:
    """Whether there is a table of that name."""
    family, name = _table(table)
    try:
        _ask(NFT_MSG_GETTABLE, 0, FAMILIES[family], string(NFTA_TABLE_NAME, name), "NFT_MSG_GETTABLE", (table,))
    except errors.KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    return True


def element(owner: Set, key: Sequence[Any]) -> Element | None:
    """The element with this key, or None: one look-up, however many there are."""
    body = _whose(owner) + nested(NFTA_SET_ELEM_LIST_ELEMENTS, _element(owner, key))
    return next(_elements(owner, 0, body, (owner.name, key)), None)


def elements(owner: Set, comment: str = "") -> list[Element]:
    """All elements of a set, or those with this comment; none if there is no such set."""
    return list(_elements(owner, NLM_F_DUMP, _whose(owner), (owner.table, owner.name), comment))


def _elements(
    owner: Set, flags: int, body: bytes, arguments: tuple[object, ...], comment: str = ""
) -> Iterator[Element]:
    wanted = comment.encode()
    for item in _items(owner, flags, body, arguments):
        if wanted not in item:  # a quick look before a slow one: most of a long list is other people's
            continue
        found = dict(attributes(item))
        note = text(found.get(NFTA_SET_ELEM_USERDATA, b"")[2:])
        if wanted and note != comment:
            continue
        key, data = (
            dict(attributes(found.get(part, b""))).get(NFTA_DATA_VALUE, b"")
            for part in (NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_DATA)
        )
        yield Element(_unpack(owner.key, key), _unpack(owner.data, data) if data else (), note)


def _items(owner: Set, flags: int, body: bytes, arguments: tuple[object, ...]) -> Iterable[bytes]:
    """The elements as the kernel says them, each once.

    It says a long list a part at a time, and begins each by counting how many it has said. If others change the set
    meanwhile, one may be left out or said twice, and no NLM_F_DUMP_INTR tells. What does: each answer has the number
    of the rules' generation; and where the set has only grown a larger table, some elements come twice. Then it is
    asked again; and if that never ends, any that was ever said counts.
    """
    family = FAMILIES[_table(owner.table)[0]]
    ever: dict[bytes, None] = {}
    for _ in range(_TRIES):
        try:
            answers = _ask(NFT_MSG_GETSETELEM, flags, family, body, "NFT_MSG_GETSETELEM", arguments)
        except errors.KernelError as error:
            if error.errno != errno.ENOENT:
                raise
            return ()
        items = [
            item
            for answer in answers
            for _, item in attributes(dict(attributes(answer, 4)).get(NFTA_SET_ELEM_LIST_ELEMENTS, b""))
        ]
        found = dict.fromkeys(items)
        generations = {answer[2:4] for answer in answers}  # struct nfgenmsg, res_id
        if len(found) == len(items) and len(generations) < 2:
            return found
        ever |= found
    return ever


def chains() -> list[Chain]:
    """The chains of all tables. `hook` is -1 where a chain is only jumped to."""
    found = []
    for body in _ask(NFT_MSG_GETCHAIN, NLM_F_DUMP, NFPROTO_UNSPEC, b"", "NFT_MSG_GETCHAIN", ()):
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


def rules(family: int, table: str, chain: str = "") -> Iterator[Rule]:
    """The rules of a table, chain by chain, or those of one chain."""
    wanted = string(NFTA_RULE_TABLE, table) + (string(NFTA_RULE_CHAIN, chain) if chain else b"")
    for body in _ask(NFT_MSG_GETRULE, NLM_F_DUMP, family, wanted, "NFT_MSG_GETRULE", (table,)):
        parts = dict(attributes(body, 4))
        expressions = []
        for _, item in attributes(parts.get(NFTA_RULE_EXPRESSIONS, b"")):
            found = dict(attributes(item))
            expressions.append((text(found[NFTA_EXPR_NAME]), found.get(NFTA_EXPR_DATA, b"")))
        note = parts.get(NFTA_RULE_USERDATA, b"")
        comment = text(note[2 : 2 + note[1]]) if note[:1] == b"\0" else ""
        handle = int.from_bytes(parts[NFTA_RULE_HANDLE], "big")
        yield Rule(text(parts[NFTA_RULE_CHAIN]), handle, expressions, comment)


def _ask(message: int, flags: int, family: int, body: bytes, call: str, arguments: tuple[object, ...]) -> list[bytes]:
    kind = NFNL_SUBSYS_NFTABLES << 8 | message
    return [answer for _, answer in codec.ask(codec.NETFILTER, kind, flags, _header(family) + body, call, arguments)]


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
    """Bytes of the packet; base 0 is the link-layer header, 1 the network header, 2 the transport header."""
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


def _ipv6() -> bytes:
    return _meta(15) + _compare(bytes((NFPROTO_IPV6,)))


def _address6(direction: str) -> bytes:
    """struct ipv6hdr has saddr at byte 8 and daddr at byte 24."""
    return _payload(1, 8 if direction == "saddr" else 24, 16)


def ifname_in(direction: str, name: str, inverted: bool = False) -> Expression:
    """`oifname @name`: the device that a packet came in by ("iifname") or leaves by is in the set."""
    code = _meta(6 if direction == "iifname" else 7) + _lookup(name, inverted)
    return Expression(f"{direction} {'!= ' if inverted else ''}@{name}", code)


def ifname_pair_in(name: str) -> Expression:
    """`iifname . oifname @name`."""
    return Expression(f"iifname . oifname @{name}", _meta(6, _REG_1) + _meta(7, _REG_2) + _lookup(name))


# What a frame says of its sender: base, offset and length; in ARP (RFC 826) the protocol's sender is an IPv4 address.
_SENDER = {
    "ether saddr": (0, 6, 6), "ip saddr": (1, 12, 4), "arp saddr ether": (1, 8, 6), "arp saddr ip": (1, 14, 4),
    "ip6 saddr": (1, 8, 16), "@nh,384,128": (1, 48, 16),
}  # fmt: skip
_ETHER_TYPES = {"ip": 0x0800, "arp": 0x0806, "8021q": 0x8100, "ip6": 0x86DD, "8021ad": 0x88A8}  # linux/if_ether.h


def protocol_is(name: str) -> Expression:
    """`meta protocol arp`: what a frame carries, after one tag of a VLAN's that it may have (NFT_META_PROTOCOL = 1)."""
    return Expression(f"meta protocol {name}", _meta(1) + _compare(struct.pack(">H", _ETHER_TYPES[name])))


def sender_not_among(name: str, *fields: str, nobody: str = "") -> Expression:
    """`iifname . ether saddr . ip saddr != @name`: who sends by this device is not in the set.

    With `nobody`, "0.0.0.0" or "::", the last field may say that as well: `ip saddr != 0.0.0.0` before. A field of ip
    or arp is looked for in such frames only, which nft(8) sees to, and leaves out when it prints. "@nh,384,128" is for
    what is neighbour_advertised: 128 bits of the network header's, from 384 on.
    """
    return _sender(name, fields, nobody, inverted=True)


def sender_among(name: str, *fields: str) -> Expression:
    """`iifname . ether saddr . ip saddr @name`: who sends by this device is in the set."""
    return _sender(name, fields, "", inverted=False)


def _sender(name: str, fields: tuple[str, ...], nobody: str, inverted: bool) -> Expression:
    text, code, register = " . ".join(("iifname", *fields)), b"", _REG32 + 4
    last = fields[-1]
    if not last.startswith(("ether", "@")):
        code += protocol_is(last.partition(" ")[0]).code
    if nobody:
        text = f"{last} != {nobody} {text}"
        code += _payload(*_SENDER[last]) + _compare(bytes(_SENDER[last][2]), unequal=True)
    code += _meta(6)
    for field in fields:
        code += _payload(*_SENDER[field], register)
        register += -(-_SENDER[field][2] // 4)
    return Expression(f"{text} {'!= ' if inverted else ''}@{name}", code + _lookup(name, inverted))


def neighbour_advertised() -> Expression:
    """`icmpv6 type nd-neighbor-advert`: a message of IPv6 that says where an address is (RFC 4861, 4.4)."""
    code = protocol_is("ip6").code + _meta(16) + _compare(bytes((58,))) + _payload(2, 0, 1) + _compare(bytes((136,)))
    return Expression("icmpv6 type nd-neighbor-advert", code)


def something_between() -> Expression:
    """`ip6 nexthdr != ipv6-icmp`: another header comes before ICMPv6's, which then is not at byte 40 of the packet."""
    return Expression("ip6 nexthdr != ipv6-icmp", _payload(1, 6, 1) + _compare(bytes((58,)), unequal=True))


def ifname_is(direction: str, device: str) -> Expression:
    """`iifname "mc0"`, as iptables-nft has it for `-i mc0`: the name and its NUL."""
    code = _meta(6 if direction == "iifname" else 7) + _compare(device.encode() + b"\0")
    return Expression(f'{direction} "{device}"', code)


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


def address_is(direction: str, address: str) -> Expression:
    """`ip6 daddr ::1`."""
    return Expression(f"ip6 {direction} {address}", _ipv6() + _address6(direction) + _compare(_packed6(address)))


def address_among(direction: str, name: str, family: str = "ip") -> Expression:
    """`ip saddr @name`, `ip6 saddr @name`: the address is in the set, or in one of its subnets."""
    if family == "ip6":
        return Expression(f"ip6 {direction} @{name}", _ipv6() + _address6(direction) + _lookup(name))
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


def port_becomes(protocol: str, direction: str, port: int, other: int) -> Expression:
    """`udp dport 53 udp dport set 5300`: that packet goes on with another port, and a checksum that is right.

    The source port is at byte 0 of either header, the destination port at byte 2; the checksum of udp is at 6, of tcp
    at 16 (NFT_PAYLOAD_CSUM_INET = 1).
    """
    offset = 0 if direction == "sport" else 2
    code = _meta(16) + _compare(bytes((PROTOCOLS[protocol],))) + _payload(2, offset, 2) + _compare(_port(port))
    code += _expression("immediate", _number(1, _REG_1), _value(2, _port(other)))
    where = _number(2, 2), _number(3, offset), _number(4, 2)
    checksum = _number(6, 1), _number(7, 6 if protocol == "udp" else 16)
    code += _expression("payload", *where, _number(5, _REG_1), *checksum)
    return Expression(f"{protocol} {direction} {port} {protocol} {direction} set {other}", code)


def _port(number: int) -> bytes:
    return struct.pack(">H", number)


def _verdict(code: int, chain: str = "") -> bytes:
    parts = _number(NFTA_VERDICT_CODE, code) + (string(NFTA_VERDICT_CHAIN, chain) if chain else b"")
    return _expression("immediate", _number(1, 0), nested(2, nested(NFTA_DATA_VERDICT, parts)))


def accept() -> Expression:
    """`accept`: done with this chain's hook; chains of other tables still have their say."""
    return Expression("accept", _verdict(NF_ACCEPT))


def counter() -> Expression:
    """`counter`: how many packets and bytes; iptables has one in each rule."""
    return Expression("counter", _expression("counter", attribute(1, bytes(8)), attribute(2, bytes(8))))


def drop() -> Expression:
    """`drop`: the packet is gone, whatever anybody else says."""
    return Expression("drop", _verdict(NF_DROP))


def jump(chain: str) -> Expression:
    """`jump chain`: go on there, and come back."""
    return Expression(f"jump {chain}", _verdict(NFT_JUMP, chain))


def masquerade() -> Expression:
    """`masquerade`: the packet leaves with the address of the device it leaves by."""
    return Expression("masquerade", _expression("masq"))


def dnat_by_map(name: str, with_address: bool, family: str = "ip") -> Expression:
    """`dnat ip to meta l4proto . th dport map @name`: one look-up gives the new address and port.

    With `with_address` the key begins with `ip daddr`. Both headers of tcp and udp have the destination port at byte 2.
    An address takes one register, or four (`family` "ip6").
    """
    six = family == "ip6"
    wide = 4 if six else 1
    before, key, code, register = f"meta nfproto {'ipv6' if six else 'ipv4'} ", "meta l4proto . th dport", b"", _REG32
    if with_address:
        there = _payload(1, 24 if six else 16, 4 * wide, _REG32)
        before, key, code, register = "", f"{family} daddr . {key}", there, _REG32 + wide
    code = (_ipv6() if six else _ipv4()) + code + _meta(16, register) + _payload(2, 2, 2, register + 1)
    code += _lookup(name, result=_REG_1)
    nat = _number(1, 1), _number(2, FAMILIES["ip6" if six else "ip"]), _number(3, _REG32), _number(5, _REG32 + wide)
    return Expression(f"{before}dnat {family} to {key} map @{name}", code + _expression("nat", *nat))
