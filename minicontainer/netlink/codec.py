"""netlink(7): a message is a header, a fixed part and attributes, some of which are made of attributes again.

Offers: the packing of attributes and their parsing, `message`, and `ask`, which sends one request and returns what the
kernel answered. The kernel handles a request inside send(2): when that returns, the answer is there to be read.
"""

from __future__ import annotations

import _socket as socket  # its C half: 0.3 ms of every start, not 2
import errno
import os
import struct

from .. import errors, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing costs every start 4 ms
    from collections.abc import Iterator

    Message = tuple[int, bytes]  # type, and what follows the header

# linux/netlink.h
ROUTE, NETFILTER = 0, 12
SOL_NETLINK = 270
NETLINK_CAP_ACK, NETLINK_EXT_ACK = 10, 11
NLM_F_REQUEST, NLM_F_ACK = 0x001, 0x004
NLM_F_DUMP = 0x300  # to a request for what is there: all of it
NLM_F_DUMP_INTR = 0x10  # of an answer to that: it has changed since the answer before
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800  # to a request to make something
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200  # of an acknowledgement
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLMSGERR_ATTR_MSG = 1
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type


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


def message(kind: int, flags: int, body: bytes, sequence: int = 1) -> bytes:
    """A request."""
    return _HEADER.pack(16 + len(body), kind, NLM_F_REQUEST | flags, sequence, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence number, body) of each message in a datagram."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < 16:
            return
        yield kind, flags, sequence, data[offset + 16 : offset + length]
        offset += length + (-length % 4)


def refusal(flags: int, body: bytes) -> tuple[int, str]:
    """The error number and the kernel's words in an NLMSG_ERROR (struct nlmsgerr); number 0 is an acknowledgement."""
    (code,) = struct.unpack_from("=i", body)
    words = ""
    if flags & NLM_F_ACK_TLVS:
        offset = 20 if flags & NLM_F_CAPPED else 4 + struct.unpack_from("=I", body, 4)[0]
        words = "".join(text(value) for kind, value in attributes(body, offset) if kind == NLMSGERR_ATTR_MSG)
    return -code, words


TRIES = 30  # of a dump


def ask(
    protocol: int, kind: int, flags: int, body: bytes, call: str, arguments: tuple[object, ...], namespace: int = 0
) -> list[Message]:
    """Send one request; return what the kernel answered. Raises KernelError with `call` and `arguments`.

    A dump comes a part with each recv(2). Where something else has changed what is there between two of them, an entry
    may be missing or come twice: then it is asked for once more.
    """
    channel = open_socket(protocol, namespace)
    try:
        for _ in range(TRIES):
            channel.send(message(kind, NLM_F_ACK | flags, body))
            answers, whole, code, words = _answers(channel)
            if code:
                raise errors.KernelError(code, call, arguments, words)
            if whole:
                return answers
        raise errors.KernelError(errno.EINTR, call, arguments, "it has changed each time that it was read")
    finally:
        if namespace:
            channel.close()


def _answers(channel: socket.socket) -> tuple[list[Message], bool, int, str]:
    """What comes until the answer's end; whether nothing changed meanwhile; and `refusal`'s number and words."""
    answers: list[Message] = []
    whole = True
    while True:
        for kind, flags, _, content in messages(channel.recv(1 << 18)):
            if kind == NLMSG_ERROR:
                return answers, whole, *refusal(flags, content)
            whole = whole and not flags & NLM_F_DUMP_INTR
            if kind == NLMSG_DONE:  # with the number that an NLMSG_ERROR begins with
                return answers, whole, -struct.unpack_from("=i", content)[0], ""
            answers.append((kind, content))


sockets: dict[tuple[int, int, int], socket.socket] = {}  # those of our own namespace stay open


def open_socket(protocol: int, namespace: int = 0) -> socket.socket:
    """A socket of `namespace`. A network namespace lives as long as a socket in it: only our own is kept open."""
    if namespace:
        with syscalls.inside_network(namespace):
            return _open(protocol)
    # After fork(2) the two would read one another's answers, after setns(2) it would be the wrong namespace's.
    key = (protocol, os.getpid(), os.stat("/proc/thread-self/ns/net").st_ino)
    if key not in sockets:
        sockets[key] = _open(protocol)
    return sockets[key]


def close_sockets() -> None:
    """None is kept open any more. The next request opens one."""
    for opened in sockets.values():
        opened.close()
    sockets.clear()


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
