"""The driver "macvlan": each container is a computer of its own in the LAN, with its own hardware address.

Its modes say whom of its neighbours on the same parent a container reaches (ip-link(8)): all of them, at once (bridge),
through a switch that sends back (vepa), or none (private); passthru gives the parent to one container alone.
The rest is parent.py's.
"""

from __future__ import annotations

from .. import netlink, steps
from . import Network, hardware_address, parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OPTIONS = {**parent.OPTIONS, "macvlan_mode": ("mode", tuple(netlink.MODES["macvlan"][1]))}
made6, setup, remove = parent.made6, parent.setup, parent.remove
detach, plugged = parent.detach, parent.plugged


def made(root: str, name: str, identifier: str, subnet: str = "", gateway: str = "", **settings: Any) -> Network:
    """parent.made, in docker's mode."""
    return parent.made(root, name, identifier, subnet, gateway, **{"mode": "bridge", **settings})


def attach(
    network: Network, container_id: str, device: str = "eth0", address: steps.Symbol = steps.ADDRESS, mac: str = "",
    way_out: bool = True, address6: steps.Symbol | None = None, way_out6: bool = True,
) -> steps.Plan:  # fmt: skip
    """The container is in the LAN."""
    mac = mac or hardware_address(container_id, device)
    return parent.attach(network, device, address, mac, way_out, address6, way_out6)
