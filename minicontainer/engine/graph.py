"""Who is plugged in where, as the kernel has it: what `inspect --graph` draws, and what is broken in it.

    gathered(containers, ["web", "db"])   containers, or networks for all that is in them; none: all that run

Namespaces are told apart by their inodes; the two ends of a cable find one another by index and by the number that each
namespace has for the other's (netlink.Link). Addresses, routes, ports and rules are the kernel's. The records of the
store serve for two things: the names, and what should be there, so that what is missing can be said (`troubles`).
"""

from __future__ import annotations

import os

from .. import errors, files, netlink
from ..network import Network, bridge, dns, foreign, nat, spoofing
from ..records import namedtuple
from . import networks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .containers import Containers, Record

RUNNING = ("running", "paused")


class Device(namedtuple("Device", "link addresses far")):
    """A network device: itself, its addresses, and whom its cable leads to (None where that is nowhere we know)."""

    link: netlink.Link
    addresses: list[str]
    far: Far | None


class Far(namedtuple("Far", "space link")):
    """The other end of a cable: the inode of its namespace, and the device."""

    space: int
    link: netlink.Link


class Space(namedtuple("Space", "inode process owners devices routes resolver troubles")):
    """A network namespace, by a `process` in it (0: our own). `resolver`: names are asked for at its 127.0.0.11."""

    inode: int
    process: int
    owners: list[Record]
    devices: list[Device]
    routes: list[netlink.Route]
    resolver: bool
    troubles: list[str]


class Switch(namedtuple("Switch", "device network masquerade isolated internal others troubles")):
    """A bridge of the host's: its device (None: it has gone), and the network that it is of (None: nobody's we know).

    As the firewall has it: whether the world sees the host's address, whether nothing is forwarded from and to it. Its
    containers are `isolated` from one another if there is no pair of it with itself. `others`: cables not in the graph.
    """

    device: Device | None
    network: Network | None
    masquerade: bool
    isolated: bool
    internal: bool
    others: int
    troubles: list[str]


class Published(namedtuple("Published", "address host protocol to container owner")):
    """An element of the firewall's maps: `address`:`host` leads to the port `container` at the address `to`."""

    address: str
    host: int
    protocol: str
    to: str
    container: int
    owner: str


class Graph(namedtuple("Graph", "host switches spaces absent ports forwarding")):
    """All of it. `absent` are containers that do not run: the kernel knows nothing of them."""

    host: Space
    switches: list[Switch]
    spaces: list[Space]
    absent: list[Record]
    ports: list[Published]
    forwarding: bool


def gathered(containers: Containers, names: list[str], kind: str = "") -> Graph:
    """What is there of these containers, and around them; `kind` "container" or "network": each name is one's.

    Raises NotFound, InvalidArgument.
    """
    every = containers.records()
    chosen = [record for name in names for record in members(containers, every, name, kind)]
    chosen = chosen if names else running(every)
    host = space(0, [])
    found: dict[int, Space] = {host.inode: host}
    absent = []
    for record in {record["id"]: record for record in chosen}.values():
        try:
            inode = number(record["pid"]) if record["status"] in RUNNING else 0
            if inode and inode not in found:
                found[inode] = space(record["pid"], [])
        except (FileNotFoundError, ProcessLookupError):
            inode = 0  # it has ended just now
        if not inode:
            absent.append(record)
    for record in running(every):
        inode = inode_of(record)
        if inode in found and (inode != host.inode or record in chosen):
            found[inode].owners.append(record)
    joined(list(found.values()))
    inside = [each for each in found.values() if each.owners or each is not host]
    ports = published({record["id"] for each in inside for record in each.owners})
    switches = plugged(containers.root, host, inside)
    graph = Graph(host, switches, [each for each in inside if each is not host], absent, ports, forwards())
    for each in inside:
        for record in each.owners:
            each.troubles.extend(missing(containers.root, graph, each, record))
    if switches and not graph.forwarding:
        host.troubles.append("ip_forward is 0: nothing gets from a bridge to anywhere else")
    return graph


def members(containers: Containers, every: list[Record], name: str, kind: str) -> list[Record]:
    """The container of that name, or those that run in the network of that name."""
    if kind != "network":
        try:
            return [containers.find(name)]
        except errors.ContainerNotFound:
            if kind:
                raise
    try:
        network = networks.Networks(containers).find(name)
    except errors.NetworkNotFound:
        if kind:
            raise
        raise errors.NotFound(f"no such container or network: {name}") from None
    return [record for record in running(every) if network.name in networks.asked(record)]


def running(every: list[Record]) -> list[Record]:
    """Those that have a process."""
    return [record for record in every if record["status"] in RUNNING]


# ------------------------------------------------------------------------------------------------ what the kernel says


def number(process: int) -> int:
    """The inode of a process's network namespace (0: our own): two that have the same are in the same one."""
    return os.stat(f"/proc/{process or 'self'}/ns/net").st_ino


def inode_of(record: Record) -> int:
    """That of a container's process; 0 where it has ended just now."""
    try:
        return number(record["pid"])
    except FileNotFoundError:
        return 0


def space(process: int, owners: list[Record]) -> Space:
    """A namespace with its devices, whose cables lead nowhere yet (`joined`)."""
    own = netlink.addresses(process)
    devices = [
        Device(link, [address for index, address in own if index == link.ifindex], None)
        for link in netlink.links(process)
    ]
    return Space(number(process), process, owners, devices, netlink.routes(process), resolves(process), [])


def resolves(process: int) -> bool:
    """Whether a socket waits for questions at 127.0.0.11 there (/proc/net/udp: addresses as hex words, proc(5))."""
    address = int.from_bytes(bytes(map(int, dns.ADDRESS.split("."))), "little")
    lines = files.read(f"/proc/{process or 'self'}/net/udp").decode().splitlines()[1:]
    return any(line.split()[1].startswith(f"{address:08X}:") for line in lines)


def joined(spaces: list[Space]) -> None:
    """Find the other end of each cable, by its index and by the number of its namespace."""
    by_index = {each.inode: {device.link.ifindex: device.link for device in each.devices} for each in spaces}
    for each in spaces:
        numbers = {netlink.namespace_number(other.process or os.getpid(), each.process): other for other in spaces}
        for position, device in enumerate(each.devices):
            link = device.link
            there = numbers.get(link.other_namespace) if link.other_namespace >= 0 else each
            far = by_index[there.inode].get(link.other) if there and link.other else None
            if there and far:
                each.devices[position] = device._replace(far=Far(there.inode, far))


def device_of(where: Space, name: str) -> Device | None:
    """A namespace's device by name."""
    return next((device for device in where.devices if device.link.name == name), None)


def device_at(where: Space, index: int) -> Device | None:
    """The same by number."""
    return next((device for device in where.devices if device.link.ifindex == index), None)


def plugged(root: str, host: Space, spaces: list[Space]) -> list[Switch]:
    """The bridges that the containers' cables lead to, and those of networks that they should lead to."""
    ours = {network.device: network for network in networks_of(root, spaces)}
    ends = [device.far.link for each in spaces for device in each.devices if device.far and each is not host]
    masters = [device_at(host, end.master) for end in ends if end.master]
    names = dict.fromkeys([*ours, *(device.link.name for device in masters if device)])
    return [switch(host, name, ours.get(name), {end.ifindex for end in ends}) for name in names]


def networks_of(root: str, spaces: list[Space]) -> list[Network]:
    """The networks with a bridge that the containers are in, by their records."""
    found = {}
    for each in spaces:
        for record in each.owners:
            for name in networks.asked(record):
                try:
                    network = networks.get(root, name)
                except errors.NetworkNotFound:
                    continue
                if network.driver == "bridge":
                    found[name] = network
    return list(found.values())


def switch(host: Space, name: str, network: Network | None, drawn: set[int]) -> Switch:
    """One of them, with what the firewall knows of it. `drawn` are the indices of cables whose other end is drawn."""
    device = device_of(host, name)
    ports = [each.link for each in host.devices if device and each.link.master == device.link.ifindex]
    troubles = []
    if device is None:
        troubles.append(f"there is no bridge {name}: minicontainer network reload")
    elif not device.link.up:
        troubles.append(f"{name} is down: ip link set {name} up")
    if network:
        own = [address.partition("/")[0] for address in device.addresses] if device else []
        for gateway in (network.gateway, network.gateway6):
            if device and gateway and gateway not in own:
                troubles.append(f"{name} has not the gateway's address {gateway}")
        if not nat.knows(network):
            troubles.append("the firewall does not know it: minicontainer network reload")
        troubles += map(str, foreign.drops(name))
    return Switch(
        device, network,
        masquerade=bool(network and netlink.element(nat.subnets(), (network.subnet,))),
        isolated=netlink.element(nat.within(), (name, name)) is None,
        internal=netlink.element(nat.internal(), (name,)) is not None,
        others=sum(1 for link in ports if link.ifindex not in drawn),
        troubles=troubles,
    )  # fmt: skip


def published(owners: set[str]) -> list[Published]:
    """What the maps of our table lead to these containers."""
    found = []
    for owner in (nat.ports_map(), nat.ports_at_map(), nat.ports6_map(), nat.ports6_at_map()):
        for element in netlink.elements(owner):
            address, protocol, port = element.key if len(element.key) == 3 else ("", *element.key)
            if element.comment in owners:
                found.append(Published(address, port, protocol, element.data[0], element.data[1], element.comment))
    return sorted(found)


def forwards() -> bool:
    """Whether the host is a router."""
    return files.read(bridge.FORWARDING).strip() == b"1"


# ------------------------------------------------------------------------------------------------------ what is broken


def missing(root: str, graph: Graph, where: Space, record: Record) -> list[str]:
    """What a container should have and has not."""
    found = []
    ends = record.get("ends", {})
    leads_out = False
    for name, end in ends.items():
        try:
            network = networks.get(root, name)
        except errors.NetworkNotFound:
            found.append(f"its network {name} has been removed")
            continue
        leads_out = leads_out or not network.internal
        leased = [end[key] for key in ("address", "address6") if end.get(key)]
        found += missing_end(graph, where, network, end["device"], leased)
    way = next((route for route in where.routes if route.destination == "default"), None)
    if leads_out and way is None:
        found.append("there is no default route: nothing but its own networks can be reached")
    gateways = [
        address.partition("/")[0] for each in graph.switches if each.device for address in each.device.addresses
    ]
    bridged = way and device_at(where, way.device)
    if way and way.gateway not in gateways and bridged and bridged.link.kind == "veth":
        found.append(f"its default route leads to {way.gateway}, which is no address of its bridges")
    here = [port for port in graph.ports if port.owner == record["id"]]
    addresses = [address.partition("/")[0] for device in where.devices for address in device.addresses]
    for port in here:
        if port.to not in addresses:
            found.append(f"{port.host}/{port.protocol} leads to {port.to}, which it has not")
    known = {(port.host, port.protocol) for port in here}
    for port in record["ports"]:
        if ":" not in port["address"] and (port["host"], port["protocol"]) not in known:
            found.append(f"no rule leads {port['host']}/{port['protocol']} here: minicontainer network reload")
    return found


def missing_end(graph: Graph, where: Space, network: Network, name: str, leased: list[str]) -> list[str]:
    """The same of one cable: the device, its state, its address, its other end, and where that is plugged in."""
    device = device_of(where, name)
    if device is None:
        return [f"{name}, its end of the cable to {network.name}, is not there"]
    found = []
    if not device.link.up:
        found.append(f"{name} is down")
    own = [each.partition("/")[0] for each in device.addresses]
    found += [
        f"{name} has not the address {address} that was leased for it" for address in leased if address not in own
    ]
    if network.driver != "bridge":
        return found
    if device.far is None:
        return [*found, f"nobody knows the other end of {name}"]
    far = device.far.link
    if not far.up:
        found.append(f"{far.name}, the other end of {name}, is down")
    master = device_at(graph.host, far.master) if far.master else None
    if master is None or master.link.name != network.device:
        where_it_is = f"in {master.link.name}" if master else "in no bridge"
        found.append(
            f"{far.name} is {where_it_is}, not in {network.device}: ip link set {far.name} master {network.device}"
        )
    elif device.link.up and far.up and not device.link.works:
        found.append(f"no packet passes through {name}")
    allowed = guarded(far.name)
    if allowed and own and not any(mac == device.link.mac and address in own for mac, address in allowed):
        words = " or ".join(f"{mac}, {address}" for mac, address in allowed)
        found.append(f"what {name} sends is dropped as forged: {far.name} may speak as {words} alone")
    return found


def guarded(cable: str) -> list[tuple[str, str]]:
    """The (hardware address, address) pairs that what comes by a cable may claim; none where nobody looks."""
    try:
        known = netlink.elements(spoofing.addresses())
    except errors.KernelError as error:
        if error.errno not in spoofing.ABSENT:
            raise
        return []
    return [(element.key[1], element.key[2]) for element in known if element.key[0] == cable]
