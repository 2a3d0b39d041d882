"""Connection tracking: which connections the kernel knows, and how to make it forget some; what `conntrack -D` does.

Sources: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
import struct

from .. import errors
from . import codec
from .codec import attribute, attributes, nested
from .nftables import FAMILIES, PROTOCOLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NFNL_SUBSYS_CTNETLINK = 1
IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 1, 2
CTA_TUPLE_ORIG, CTA_FILTER = 1, 25
CTA_TUPLE_PROTO = 2
CTA_PROTO_NUM, CTA_PROTO_DST_PORT = 1, 3
CTA_FILTER_ORIG_FLAGS = 1
_FILTER_PROTO_NUM, _FILTER_PROTO_DST_PORT = 1 << 3, 1 << 5  # net/netfilter/nf_conntrack_netlink.c, CTA_FILTER_F_*


def conntrack_delete(protocol: str, ports: Sequence[int], family: str = "ip") -> int:
    """Forget the connections whose first packet went to one of the ports; returns how many there were.

    By IPv4, or with `family` "ip6" by IPv6.

    A UDP "connection" lives for as long as its client goes on sending, to wherever its first packet was sent: without
    this, a port that changes hands would go on serving its old clients from the old container, or from nowhere.
    """
    packed = {struct.pack(">H", port) for port in ports}
    code = bytes((PROTOCOLS[protocol],))
    # The kernel walks its whole table, some milliseconds, and hands out what fits (since 5.8; all, before).
    proto, flags = attribute(CTA_PROTO_NUM, code), _FILTER_PROTO_NUM
    if len(packed) == 1:
        proto, flags = proto + attribute(CTA_PROTO_DST_PORT, *packed), flags | _FILTER_PROTO_DST_PORT
    wanted = nested(CTA_TUPLE_ORIG, nested(CTA_TUPLE_PROTO, proto))
    wanted += nested(CTA_FILTER, attribute(CTA_FILTER_ORIG_FLAGS, struct.pack("=I", flags)))
    gone = 0
    for _, body in _ask(family, IPCTNL_MSG_CT_GET, codec.NLM_F_DUMP, wanted, "IPCTNL_MSG_CT_GET", (protocol, *ports)):
        original = dict(attributes(body, 4)).get(CTA_TUPLE_ORIG, b"")
        parts = dict(attributes(dict(attributes(original)).get(CTA_TUPLE_PROTO, b"")))
        if parts.get(CTA_PROTO_NUM) != code or parts.get(CTA_PROTO_DST_PORT) not in packed:
            continue
        target = nested(CTA_TUPLE_ORIG, original)
        try:
            _ask(family, IPCTNL_MSG_CT_DELETE, 0, target, "IPCTNL_MSG_CT_DELETE", (protocol, *ports))
            gone += 1
        except errors.KernelError as error:
            if error.errno != errno.ENOENT:  # it ended by itself meanwhile
                raise
    return gone


def _ask(
    family: str, message: int, flags: int, body: bytes, call: str, arguments: tuple[object, ...]
) -> list[codec.Message]:
    header = struct.pack(">BBH", FAMILIES[family], 0, 0)  # struct nfgenmsg: family, version, resource
    return codec.ask(codec.NETFILTER, NFNL_SUBSYS_CTNETLINK << 8 | message, flags, header + body, call, arguments)
