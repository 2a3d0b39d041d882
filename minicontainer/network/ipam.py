"""Addresses: each container leases one of its network's subnet, and gives it back.

A lease is two symbolic links in one directory of /run, so `ls -l` shows all there is to know:

    3f2a… -> 172.30.0.2         this container has that address
    172.30.0.2 -> 3f2a…         and that address belongs to this container
    last -> 172.30.0.2          the search goes on after this one

A network with a subnet of IPv6 has three more of each kind: `3f2a…:6`, the address, `last:6`.

The container's link comes first and goes last: whatever moment a crash picks, its release finds what there is. An
address just given back is the last to be leased again: its old neighbours may still have it in their caches.

Callers owe nothing: each function takes the directory's flock. Pure file work, needs no privilege.
"""

from __future__ import annotations

import _socket as socket  # its C half: 0.3 ms of every start, not 2
import os
import struct

from .. import errors, files, host
from . import Network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def directory(network: Network) -> str:
    """Where the leases of a network lie: gone at the next boot, as the containers are."""
    return f"{host.run_root()}/leases/{network.name}"


def lease(network: Network, container_id: str, wanted: str = "") -> str:
    """An address for the container, dotted quad; the same one if it has one.

    Raises Conflict if all are leased, `wanted` belongs to another, or the network is one container's alone and has it;
    InvalidArgument if `wanted` is not to be had.
    """
    return _lease(network, container_id, wanted, "")


def lease6(network: Network, container_id: str, wanted: str = "") -> str:
    """The same, of the network's subnet of IPv6."""
    pool = network._replace(subnet=network.subnet6, gateway=network.gateway6, ip_range=network.ip_range6)
    return _lease(pool, container_id, wanted, SIX)


def _lease(network: Network, container_id: str, wanted: str, mark: str) -> str:
    place = directory(network)
    files.make_directory(place, 0o700)
    link, last = f"{place}/{container_id}{mark}", f"{place}/last{mark}"
    with files.locked(place):
        own = _target(link)
        if own and _target(f"{place}/{own}") == container_id:
            return own
        if network.mode == "passthru":
            _alone(network, place, container_id)
        address = _particular(network, place, wanted) if wanted else _next(network, place, _target(last))
        files.unlink(link)
        os.symlink(address, link)
        os.symlink(container_id, f"{place}/{address}")
        files.unlink(last)
        os.symlink(address, last)
        return address


def release(network: Network, container_id: str) -> None:
    """Give the container's addresses back; nothing happens if it has none."""
    place = directory(network)
    if not os.path.isdir(place):
        return
    with files.locked(place):
        for link in (f"{place}/{container_id}", f"{place}/{container_id}{SIX}"):
            address = _target(link)
            if address and _target(f"{place}/{address}") == container_id:
                os.unlink(f"{place}/{address}")
            files.unlink(link)


def leases(network: Network) -> dict[str, str]:
    """Container id → address, of all who have one, or have begun to have one."""
    place = directory(network)
    try:
        names = os.listdir(place)
    except FileNotFoundError:
        return {}
    return {name: _target(f"{place}/{name}") for name in names if not {".", ":"} & {*name} and name != "last"}


def leases6(network: Network) -> dict[str, str]:
    """The same, of IPv6."""
    place = directory(network)
    try:
        names = [name.removesuffix(SIX) for name in os.listdir(place) if name.endswith(SIX)]
    except FileNotFoundError:
        return {}
    return {name: _target(f"{place}/{name}{SIX}") for name in names if ":" not in name and name != "last"}


def bounds(subnet: str) -> tuple[int, int]:
    """The first and the last address of a subnet, as numbers. Raises InvalidArgument for what is none."""
    address, slash, prefix = subnet.partition("/")
    try:
        first = number(address)
        size = 1 << (128 if ":" in address else 32) - int(prefix)
    except (OSError, ValueError):
        size, first = 0, 1
    if not slash or not size or first % size:
        raise errors.InvalidArgument(f"{subnet} is not a subnet: write it like 172.30.0.0/16, or fd00:1::/64")
    return first, first + size - 1


def number(address: str) -> int:
    """An address as a number. Raises OSError for what is none."""
    if ":" in address:
        return int.from_bytes(socket.inet_pton(socket.AF_INET6, address), "big")
    return int(struct.unpack(">I", socket.inet_pton(socket.AF_INET, address))[0])


def check(subnet: str, taken: Iterable[tuple[str, int, int]]) -> None:
    """Raise InvalidArgument for a subnet without room, Conflict for one that overlaps with (whose, first, last)."""
    low, high = bounds(subnet)
    if high - low < 3:
        least = 126 if ":" in subnet else 30
        raise errors.InvalidArgument(f"{subnet} has no room for a gateway and a container: /{least} at least")
    for used, first, last in taken:
        if low <= last and first <= high:
            raise errors.Conflict(f"subnet {subnet} overlaps with {used}: choose another, or none")


def router(subnet: str, gateway: str) -> str:
    """The gateway of a subnet: this one, or its first address. Raises InvalidArgument for one that is not inside."""
    low, high = bounds(subnet)
    try:
        address = number(gateway) if gateway else low + 1
    except OSError:
        address = low
    if not low < address < high:
        raise errors.InvalidArgument(f"the gateway {gateway} is no address in {subnet}")
    return written(address, subnet)


def is_address(text: str) -> bool:
    """Whether that is an address, IPv4 or IPv6."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
            return True
        except OSError:
            pass
    return False


def dotted(value: int) -> str:
    """A number as a dotted quad."""
    return socket.inet_ntoa(struct.pack(">I", value))


def written(value: int, subnet: str) -> str:
    """A number as an address of that subnet's family."""
    return socket.inet_ntop(socket.AF_INET6, value.to_bytes(16, "big")) if ":" in subnet else dotted(value)


SIX = ":6"  # what an id has behind it that leads to an address of IPv6


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""


def _alone(network: Network, place: str, container_id: str) -> None:
    others = set(leases(network)) - {container_id}
    if others:
        raise errors.Conflict(
            f"network {network.name} is in passthru mode, which gives {network.device} to one container alone, now "
            f"{min(others)[:12]}: stop that or disconnect it, or make the network with -o macvlan_mode=bridge"
        )


def _particular(network: Network, place: str, wanted: str) -> str:
    first, last = bounds(network.subnet)
    try:
        address = written(number(wanted), network.subnet)  # however it was spelled
        inside = first < number(address) < last and address != network.gateway
    except (OSError, struct.error):
        inside = False
    if not inside:
        raise errors.InvalidArgument(f"{wanted} is no address for a container of {network.name}, {network.subnet}")
    holder = _target(f"{place}/{address}")
    if holder:
        raise errors.Conflict(f"address {address} is leased by container {holder[:12]}")
    return address


def _next(network: Network, place: str, recent: str) -> str:
    """The first free address after the one leased last, `recent`, from the start again after the end."""
    first, last = bounds(network.subnet)
    low, high = bounds(network.ip_range) if network.ip_range else (first, last)
    low, high = max(low, first + 1), min(high, last - 1)  # neither the subnet's own address nor its broadcast
    gateway = number(network.gateway)
    count = high - low + 1
    offset = number(recent) - low + 1 if recent else 0
    for step in range(count):
        candidate = low + (offset + step) % count
        if candidate == gateway:
            continue
        address = written(candidate, network.subnet)
        if not os.path.lexists(f"{place}/{address}"):
            return address
    raise errors.Conflict(
        f"no address is free in network {network.name}, {network.ip_range or network.subnet}: all "
        f"{count - (low <= gateway <= high)} are leased: remove some"
    )
