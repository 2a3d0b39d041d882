"""The default network: a bridge on the host, and for each container a virtual cable to it.

    host:  mc0 (bridge, 172.30.0.1) ── veth3f2a… ┄┄ eth0 (172.30.0.2) :container

Offers the facts (`default`) and the plans: `setup` and `teardown` for what all containers share, `attach` and `detach`
for one of them. Shared things are made once and stay; each step of `setup` may be done twice, by two starts at the
same time, and the bridge goes up last: a bridge that is up is a network that is complete.

`attach` runs in the host's namespaces while the container's init, process steps.PID, waits in its own.
"""

from __future__ import annotations

import json
import os

from .. import errors, files, host, netlink, steps, syscalls
from . import Network, cable, foreign, ipam, nat

FORWARDING = "/proc/sys/net/ipv4/ip_forward"


def default(root: str) -> Network:
    """The network "bridge" of the store at `root`: as it was set up, or as it would be on this host now."""
    try:
        return Network(**json.loads(files.read(f"{root}/networks/bridge.json")))
    except FileNotFoundError:
        device = f"mc0{host.suffix()}"
        subnet = _free_subnet(device)
        return Network("bridge", device, subnet, ipam.dotted(ipam.bounds(subnet)[0] + 1), _mtu())


def setup(network: Network) -> steps.Plan:
    """Everything that the network's containers share; no step at all where it is there."""
    forwarding = files.read(FORWARDING).strip() == b"1"
    if forwarding and nat.knows(network) and _is_up(network):
        return
    path = f"{host.root()}/networks/bridge.json"
    yield steps.mkdir(os.path.dirname(path), why="where networks are remembered")
    yield steps.write(path, json.dumps(network._asdict()), why="the subnet was chosen for this host: keep to it")
    yield steps.link_add(
        network.device, "bridge", mtu=network.mtu, mac=_mac(network.gateway), exist_ok=True,
        why="the switch that the containers are plugged into; with its own MAC, or it would take each new port's",
    )  # fmt: skip
    length = network.subnet.partition("/")[2]
    yield steps.address_add(
        network.device, f"{network.gateway}/{length}", why="the containers' gateway is the host itself"
    )
    yield steps.put(
        f"/proc/sys/net/ipv4/conf/{network.device}/route_localnet", "1",
        why="a port published on 127.0.0.1 sends packets from 127.0.0.1 out on the bridge",
    )  # fmt: skip
    if os.path.exists("/proc/sys/net/ipv6"):
        yield steps.put(
            f"/proc/sys/net/ipv6/conf/{network.device}/disable_ipv6", "1",
            why="a container that announces itself as an IPv6 router must not become the host's",
        )  # fmt: skip
    if not forwarding:
        yield steps.call(remember_forwarding, why="`system reset` leaves ip_forward as it was")
        yield steps.put(FORWARDING, "1", why="the host becomes the containers' router")
    yield steps.nft(*nat.table_commands(), *nat.network_commands(network), why="the firewall, in one table")
    yield steps.link_set(network.device, up=True, why="last: a bridge that is up is complete")


def teardown(network: Network) -> steps.Plan:
    """The host as it was before `setup`. Owed: no container is attached any more."""
    yield steps.nft(*nat.removal_commands(), why="our table, with all that is in it")
    yield steps.call(foreign.expel, network.device, why="what --firewall docker-user has put into other people's chain")
    yield steps.link_delete(network.device, why="the switch")
    yield steps.call(restore_forwarding, why="as it was before the first container")
    yield steps.remove_tree(ipam.directory(network), why="no container, no lease")
    yield steps.unlink(f"{host.root()}/networks/bridge.json", why="another time, perhaps another subnet")


def attach(network: Network, container_id: str, ports: list[nat.Port] | None = None) -> steps.Plan:
    """The container gets its eth0 with the address steps.ADDRESS, a way out, and its published ports."""
    length = network.subnet.partition("/")[2]
    there = steps.PID
    yield steps.link_add(
        cable(container_id), "veth", peer="eth0", namespace=there, master=network.device, mtu=network.mtu, up=True,
        why="a cable: one end in the switch, the other inside, called eth0",
    )  # fmt: skip
    if os.path.exists("/proc/sys/net/ipv6"):
        yield steps.call(
            ipv4_only, there, "eth0", why="IPv6 would announce itself through the switch to all others, who each listen"
        )
    yield steps.link_set("lo", up=True, namespace=there, why="a new network namespace's loopback is down")
    yield steps.address_add("eth0", steps.Text((steps.ADDRESS, "/", length)), namespace=there, why="the leased address")
    yield steps.link_set("eth0", up=True, namespace=there, why="plugged in at both ends")
    yield steps.route_add("default", network.gateway, namespace=there, why="all else is behind the host")
    yield steps.link_wait(cable(container_id), why="a packet sent too early is lost, and sent again a second later")
    yield steps.link_wait(network.device, why="the first cable has just brought the switch to life")
    if ports:
        yield from nat.publish(container_id, ports)


def detach(network: Network, container_id: str, published: bool = True, unplug: bool = True) -> steps.Plan:
    """Nothing of the container is left in the network. Every step may be repeated; the id is all they need.

    A caller that knows that there was no port says so with `published=False`, and saves a look through the map. One
    that knows that the container's network namespace is gone, or going, may leave the cable to the kernel, which
    then deletes it a moment later on its own time: `unplug=False` saves the ten milliseconds of waiting for it.
    """
    if published:
        yield from nat.unpublish(container_id)
    if unplug:
        yield steps.link_delete(cable(container_id), why="with it goes the end inside")
    yield steps.call(ipam.release, network, container_id, why="the address may be leased again")


def remains(network: Network) -> set[str]:
    """The ids of all containers that a cable, a lease or a published port is there of, for `detach`.

    Of a cable alone, only the first eleven digits of the id are known; that will do for it.
    """
    found = set(ipam.leases(network)) | {owner for owner, _ in nat.published()}
    device = netlink.link(network.device)
    cables = [link.name for link in netlink.links() if device and link.master == device.ifindex]
    known = {cable(container_id) for container_id in found}
    return found | {name.removeprefix("veth") for name in cables if name.startswith("veth") and name not in known}


def ipv4_only(process: int, device: str) -> None:
    """Switch IPv6 off on a device of a process's network namespace: /proc/sys/net is that of whoever opens it.

    A device that comes up announces its groups and looks for its own address and for routers, by multicast: a switch
    gives each such packet to every container, so that a start would cost more with each that is there.
    """
    with syscalls.inside_network(process):
        files.put(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6", "1")


def remember_forwarding() -> None:
    """Note the host's ip_forward, once, before we first change it."""
    path = _forwarding_note()
    files.make_directory(os.path.dirname(path), 0o700)
    value = files.read(FORWARDING)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        os.write(descriptor, value)
    finally:
        os.close(descriptor)


def restore_forwarding() -> None:
    """Put back what `remember_forwarding` noted; nothing happens if it noted nothing."""
    path = _forwarding_note()
    try:
        value = files.read(path).decode().strip()
    except FileNotFoundError:
        return
    if value:
        files.put(FORWARDING, value)
    files.unlink(path)


def _forwarding_note() -> str:
    # In /run: after a boot the kernel's value is the administrator's again, and nothing is to be restored. Each
    # network namespace has its own.
    return f"{host.run_root()}/ip_forward-{os.stat('/proc/self/ns/net').st_ino}"


def _is_up(network: Network) -> bool:
    found = netlink.link(network.device)
    return found is not None and found.up


def _mac(gateway: str) -> str:
    """A locally administered address (bit 1 of the first byte) that says which gateway it is."""
    return "02:6d:" + ":".join(f"{int(part):02x}" for part in gateway.split("."))


def _routes() -> list[tuple[str, int, int]]:
    """(device, first address, last address) of each IPv4 route: /proc/net/route, proc(5); addresses as hex words."""
    found = []
    for line in files.read("/proc/net/route").decode().splitlines()[1:]:
        device, target, _, _, _, _, _, mask = line.split()[:8]
        first = int.from_bytes(bytes.fromhex(target), "little")
        size = 0x100000000 - int.from_bytes(bytes.fromhex(mask), "little")
        found.append((device, first, first + size - 1))
    return found


def _free_subnet(own: str) -> str:
    """A private subnet that no route of the host leads into, but for the default route and our own bridge's."""
    taken = [(first, last) for device, first, last in _routes() if device != own and last - first < 0xFFFFFFFF]
    candidates = [f"172.{second}.0.0/16" for second in range(30, 17, -1)]
    candidates += [f"10.{second}.0.0/16" for second in range(255, 159, -1)]
    candidates += [f"192.168.{third}.0/24" for third in range(240, 99, -1)]
    # Two stores that choose at the same moment do not see one another's routes: let them begin at different places.
    begin = int(host.suffix().removeprefix("-") or "0", 16) % 109
    for candidate in candidates[begin:] + candidates[:begin]:
        low, high = ipam.bounds(candidate)
        if all(high < first or last < low for first, last in taken):
            return candidate
    raise errors.Conflict("every private subnet that a bridge could use clashes with a route of this host (ip route)")


def _mtu() -> int:
    """What fits through the device that the default route leaves by, at most Ethernet's 1500."""
    for device, first, last in _routes():
        if last - first == 0xFFFFFFFF:
            found = netlink.link(device)
            if found:
                return min(found.mtu, 1500)
    return 1500
