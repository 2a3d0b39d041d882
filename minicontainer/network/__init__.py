"""Networks: how a container reaches others, and is reached.

    drivers  which of the next three a network is made by
    bridge   the switch: a bridge on the host, a veth pair for each container
    macvlan  a network outside, where each container has an address, as a computer of its own; ipvlan: by IP alone
    ipam     the addresses: who leases which
    nat      the firewall: out through masquerade, in through published ports
    spoofing     … and within: nobody speaks with another's address
    foreign  other people's firewalls, which may drop what ours lets pass
    relay    published ports by IPv6, where a container has IPv4 alone

They know the ground floor and one another, nothing else. All that is done to the kernel is a step. What they share
stands here: what a network is, and the file that it is written in.
"""

from __future__ import annotations

import os

from .. import files
from .. import quickjson as json
from ..records import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Network(
    namedtuple(
        "Network",
        "name device subnet gateway mtu id created driver ip_range internal icc masquerade labels options "
        "subnet6 gateway6 ip_range6 mode owned",
        defaults=("", "", "bridge", "", False, True, True, {}, {}, "", "", "", "", False),
    )
):
    """A network of containers: a bridge `device`, the `subnet` behind it ("172.30.0.0/16") and the host's own address
    in it, the containers' `gateway`.

    Addresses come from `ip_range` where it is given. `internal`: no way out of it, and none in. `icc` (inter-container
    communication): its containers reach one another. `masquerade`: the world sees the host's address for theirs.
    With a `subnet6`, they have an address of IPv6 each as well, and the host has `gateway6`.
    The drivers macvlan and ipvlan have no bridge: `device` is the parent, which is the network's own if it is `owned`,
    `mode` the kernel's word for what they do, and `gateway` somebody else's address.
    """

    name: str
    device: str
    subnet: str
    gateway: str
    mtu: int
    id: str
    created: str
    driver: str
    ip_range: str
    internal: bool
    icc: bool
    masquerade: bool
    labels: dict[str, str]
    options: dict[str, str]  # as they were asked for
    subnet6: str
    gateway6: str
    ip_range6: str
    mode: str
    owned: bool

    @property
    def routed(self) -> bool:
        """Its parent passes packets on by their address alone: there is nobody to send them to but the device."""
        return self.mode in ("l3", "l3s")


def directory(root: str) -> str:
    """Where the networks of the store at `root` are remembered, a file each."""
    return f"{root}/networks"


def load(root: str, name: str) -> Network | None:
    """The network of that name as it was written, or None."""
    try:
        return Network(**json.loads(files.read(f"{directory(root)}/{name}.json")))
    except FileNotFoundError:
        return None


def text(network: Network) -> str:
    """What is written of it: what it has beyond the usual."""
    fields: dict[str, Any] = network._asdict()
    usual = Network._field_defaults
    return json.dumps({name: value for name, value in fields.items() if name not in usual or value != usual[name]})


def every(root: str) -> list[Network]:
    """The networks that are written down, by name."""
    try:
        names = sorted(name[:-5] for name in os.listdir(directory(root)) if name.endswith(".json"))
    except FileNotFoundError:
        return []
    return [network for network in (load(root, name) for name in names) if network]


def cable(container_id: str, device: str = "eth0") -> str:
    """The name of the host's end of a container's cable: 15 bytes at most (IFNAMSIZ, linux/if.h).

    That of eth0 ends in a digit of the id; those of eth1 and on in g, h and on to z, which are no digits.
    """
    number = int(device.removeprefix("eth"))
    return f"veth{container_id[:11]}" if number == 0 else f"veth{container_id[:10]}{chr(ord('f') + number)}"


def hardware_address(container_id: str, device: str = "eth0") -> str:
    """The MAC of a container's end of a cable, as random as its id: whoever knows the container knows it.

    Eleven digits of the id, from another place for each device, and a 2 that says "locally administered, and one
    device's" (IEEE 802, the lowest bits of the first byte).
    """
    place = 2 * int(device.removeprefix("eth"))
    digits = f"{container_id[place]}2{container_id[place + 1 : place + 11]}"
    return ":".join(digits[pair : pair + 2] for pair in range(0, 12, 2))


MOST = 21  # networks that a container can be in: eth0, and a letter of g to z for each other
