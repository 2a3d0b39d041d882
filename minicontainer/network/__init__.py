"""Networks: how a container reaches others, and is reached.

    bridge   the switch: a bridge on the host, a veth pair for each container
    ipam     the addresses: who leases which
    nat      the firewall: out through masquerade, in through published ports
    foreign  other people's firewalls, which may drop what ours lets pass
    relay    published ports by IPv6, where a container has IPv4 alone

They know the ground floor and one another, nothing else. All that is done to the kernel is a step. What they share
stands here.
"""

from __future__ import annotations

from collections import namedtuple


class Network(namedtuple("Network", "name device subnet gateway mtu")):
    """A network of containers: a bridge `device`, the `subnet` behind it ("172.30.0.0/16") and the host's own address
    in it, the containers' `gateway`."""

    name: str
    device: str
    subnet: str
    gateway: str
    mtu: int


def cable(container_id: str) -> str:
    """The name of the host's end of a container's cable: 15 bytes at most (IFNAMSIZ, linux/if.h)."""
    return f"veth{container_id[:11]}"
