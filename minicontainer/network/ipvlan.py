"""The driver "ipvlan": the containers share their parent's hardware address, and are told apart by their IP addresses.

For a LAN that lets in one hardware address a port. Its modes (the kernel's Documentation/networking/ipvlan.rst): l2, in
the LAN as macvlan is; l3, the parent routes, and the LAN needs a route to the network; l3s, the same through the host's
netfilter. The rest is parent.py's.
"""

from __future__ import annotations

from .. import netlink, steps
from . import Network, parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OPTIONS = {**parent.OPTIONS, "ipvlan_mode": ("mode", tuple(netlink.MODES["ipvlan"][1]))}
made6, setup, remove = parent.made6, parent.setup, parent.remove
detach, plugged = parent.detach, parent.plugged


def made(root: str, name: str, identifier: str, subnet: str = "", gateway: str = "", **settings: Any) -> Network:
    """parent.made, in docker's mode."""
    return parent.made(root, name, identifier, subnet, gateway, **{"mode": "l2", **settings})


def attach(
    network: Network, container_id: str, device: str = "eth0", address: steps.Symbol = steps.ADDRESS, mac: str = "",
    way_out: bool = True, address6: steps.Symbol | None = None, way_out6: bool = True,
) -> steps.Plan:  # fmt: skip
    """The container is in the LAN, with its parent's hardware address: `mac` is not given."""
    return parent.attach(network, device, address, "", way_out, address6, way_out6)
