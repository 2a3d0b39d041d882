"""What makes a network what it is: a module per driver, and each has the same.

OPTIONS                    docker's names of its options: which field of Network each is, and what it may say
made(root, name, id, …)    a network that is not there yet, what is not given chosen; made6, with IPv6, too
setup, remove              plans: what all of its containers share
attach, detach             plans: one container
plugged(network, id, …)    the container's device in it, by the kernel's word
"""

from __future__ import annotations

from .. import errors
from . import bridge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAMES = ("bridge", "macvlan", "ipvlan")


def of(name: str) -> Any:
    """The module of a driver. Raises InvalidArgument."""
    if name == "bridge":
        return bridge
    if name not in NAMES:
        raise errors.InvalidArgument(f"there is no network driver {name!r}: {', '.join(NAMES)}")
    from . import ipvlan, macvlan  # most starts need neither

    return macvlan if name == "macvlan" else ipvlan
