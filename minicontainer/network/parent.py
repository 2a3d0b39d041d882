"""What the drivers macvlan and ipvlan share: a network outside, and devices that stand on one of the host's.

    LAN ── eth1 (parent) ┄┄ eth0 (192.168.1.10) :container
                         ┄┄ eth0 (192.168.1.11) :another

No bridge, no cable, no firewall: the containers are in the LAN with addresses of their own, and their gateway is the
LAN's. So no port can be published, and the host itself is not reached by them: what it sends to the LAN leaves by the
parent, below them.

The parent is a device of the host's, or a sub-interface for a VLAN of it (eth1.100), made with the network and gone
with it; without one a dummy, on which the containers reach one another and nobody else.
"""

from __future__ import annotations

import errno
import os
import time

from .. import errors, host, netlink, steps
from . import Network, bridge, directory, dns, every, ipam, text

OPTIONS = {
    "parent": ("device", str), "com.docker.network.driver.mtu": ("mtu", int), "mtu": ("mtu", int),
}  # fmt: skip


def made(
    root: str, name: str, identifier: str, subnet: str = "", gateway: str = "", mtu: int = 0, device: str = "",
    internal: bool = False, mode: str = "",
) -> Network:  # fmt: skip
    """A network of this host that is not there yet: what is not given is chosen.

    Raises InvalidArgument, and Conflict for a parent or a subnet of another network.
    """
    owned = not device or netlink.link(device) is None
    if device:
        check(root, device, internal)
    if subnet:
        # A route of the host's may well lead there: by the parent.
        ipam.check(subnet, [(f"network {other.name}", *ipam.bounds(other.subnet)) for other in every(root)])
    else:
        subnet = bridge.free_subnet(device, every(root))
    gateway = ipam.router(subnet, gateway)
    bridge.check_mtu(mtu)
    below = netlink.link(device) or netlink.link(trunk(device)[0])
    if below and mtu > below.mtu:
        raise errors.InvalidArgument(f"an MTU of {mtu}: what stands on {below.name} has its {below.mtu} at most")
    return Network(
        name, device or f"mc{identifier[:6]}{host.suffix()}", subnet, gateway, mtu or (below.mtu if below else 1500),
        identifier, internal=internal or not device, mode=mode, owned=owned,
    )  # fmt: skip


def made6(root: str, network: Network, subnet: str = "", gateway: str = "", ip_range: str = "") -> Network:
    """bridge.made6 for a network outside: the gateway is the LAN's router."""
    return bridge.made6(root, network, subnet, gateway, ip_range, outside=True)


def check(root: str, device: str, internal: bool) -> None:
    """Raise InvalidArgument for what is no parent, Conflict for another network's."""
    if internal:
        raise errors.InvalidArgument(f"--internal is a network without a way out: leave out -o parent={device}")
    if device == "lo":
        raise errors.InvalidArgument("-o parent=lo: the loopback leads nowhere")
    for other in every(root):
        if other.device == device:
            raise errors.Conflict(f"network {other.name} is already using parent interface {device}")
    below, number = trunk(device)
    if netlink.link(device) is None and not (0 < number < 4095 and len(device) <= 15 and netlink.link(below)):
        raise errors.InvalidArgument(
            f"-o parent={device}: this host has no such device (ip link), nor one that it is a VLAN of (eth1.100)"
        )


def trunk(device: str) -> tuple[str, int]:
    """The device that a VLAN's sub-interface stands on and the VLAN's number; 0 if it is called otherwise."""
    below, dot, number = device.rpartition(".")
    return below, int(number) if dot and number.isdecimal() else 0


def setup(network: Network) -> steps.Plan:
    """The parent, where it is ours, and the network's file; no step at all where they are there."""
    place = f"{directory(host.root())}/{network.name}.json"
    found = netlink.link(network.device)
    if os.path.exists(place) and found and (found.up or not network.owned):
        return
    yield steps.mkdir(directory(host.root()), why="where networks are remembered")
    yield steps.write(place, text(network), why="what was asked for")
    if not network.owned:
        return
    below, number = trunk(network.device)
    if network.internal:
        yield steps.link_add(network.device, "dummy", exist_ok=True, why="a parent that leads nowhere")
    else:
        yield steps.link_add(
            network.device, "vlan", parent=below, mode=str(number), exist_ok=True,
            why="what has this VLAN's tag on the cable comes by this device, without it",
        )  # fmt: skip
    yield steps.link_set(network.device, up=True, why="what stands on it may be up only if it is")


def remove(network: Network) -> steps.Plan:
    """The host as it was before `setup`. Owed: no container is attached any more."""
    yield steps.remove_tree(dns.place(network.name), why="no container, no name")
    if network.owned:
        yield steps.link_delete(network.device, why="the parent was made for this network")
    yield steps.remove_tree(ipam.directory(network), why="no container, no lease")
    yield steps.unlink(f"{directory(host.root())}/{network.name}.json", why="another time, perhaps another subnet")


def attach(
    network: Network, device: str, address: steps.Symbol, mac: str, way_out: bool, address6: steps.Symbol | None,
    way_out6: bool,
) -> steps.Plan:  # fmt: skip
    """The container gets a device on the parent, its leased address (one of IPv6 as well, perhaps), and a way out."""
    there = steps.PID
    towards = device if network.routed else ""
    yield steps.link_add(
        device, network.driver, namespace=there, mtu=network.mtu, mac=mac, parent=network.device, mode=network.mode,
        why=f"a device on {network.device}, made inside: what comes in there for it is the container's",
    )  # fmt: skip
    if address6:
        yield steps.call(bridge.ipv6_quietly, there, device, why="its address is ours to give, and its router known")
    elif os.path.exists(bridge.SETTINGS6):
        yield steps.call(bridge.ipv4_only, there, device, why="the network has no IPv6, whatever the LAN announces")
    yield steps.link_set("lo", up=True, namespace=there, why="a new network namespace's loopback is down")
    length = network.subnet.partition("/")[2]
    yield steps.address_add(device, steps.Text((address, "/", length)), namespace=there, why="the leased address")
    yield steps.call(
        switch_on,
        there,
        device,
        why="in the LAN; who had this MAC before may take a moment to go",
    )
    if way_out and not network.internal:
        yield steps.route_add(
            "default", network.gateway, namespace=there, device=towards,
            why="all else is behind the LAN's own router",
        )  # fmt: skip
    if not address6:
        return
    subnet6 = steps.Text((address6, "/", network.subnet6.partition("/")[2]))
    yield steps.address_add(device, subnet6, namespace=there, why="the leased address of IPv6")
    if way_out6 and not network.internal:
        yield steps.route_add("default", network.gateway6, namespace=there, device=towards, why="and by IPv6, too")
    if not network.routed:  # else nobody asks for it
        yield steps.call(
            bridge.listens, there, device, address6, why="so that the first who asks for it gets an answer"
        )


def switch_on(process: int, device: str) -> None:
    """The device is up. Raises KernelError (EADDRINUSE) where another on its parent has its address after five seconds.

    The kernel takes a network namespace that nobody is in any more down on its own time, and a container that is
    started again at once meets its own predecessor there.
    """
    end = time.monotonic() + 5
    while True:
        try:
            netlink.link_set(device, up=True, namespace=process)
            return
        except errors.KernelError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                raise
        time.sleep(0.005)


def detach(
    network: Network, container_id: str, published: bool = True, unplug: bool = True, device: str = "eth0"
) -> steps.Plan:
    """Nothing of the container is left in the network. With `unplug`, it is a process that goes on, steps.PID."""
    if unplug:
        yield steps.link_delete(device, namespace=steps.PID, why="out of the LAN")
    yield steps.call(ipam.release, network, container_id, why="the address may be leased again")


def plugged(network: Network, container_id: str, process: int, known: set[str]) -> str:
    """A device of that kind that the container has, none of those that are `known`; or the empty string."""
    found = [link.name for link in netlink.links(process) if link.kind == network.driver and link.name not in known]
    return found[0] if found else ""
