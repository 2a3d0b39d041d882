"""The only raw AF_NETLINK: rtnetlink(7) and nfnetlink, one small codec."""

from typing import Any


def link_add(*arguments: Any) -> None:
    raise NotImplementedError


link_set = link_delete = address_add = route_add = nft = link_add
