"""The driver "bridge": a bridge on the host, and for each container a virtual cable to it.

    host:  mc0 (bridge, 172.30.0.1) ── veth3f2a… ┄┄ eth0 (172.30.0.2) :container

A network may have a subnet of IPv6 beside that of IPv4; then bridge and eth0 have an address of each. Without one, the
devices have no IPv6 at all.

Offers the facts (`default`, `made`) and the plans: `setup` and `teardown` for what all containers share, `attach` and
`detach` for one of them. Shared things are made once and stay; each step of `setup` may be done twice, by two starts at
the same time, and the bridge goes up last: a bridge that is up is a network that is complete.

`attach` runs in the host's namespaces while the container's init, process steps.PID, waits in its own.
"""

from __future__ import annotations

import _socket as socket  # its C half: 0.3 ms of every start, not 2
import errno
import os
import time

from .. import errors, files, host, netlink, steps, syscalls
from . import MOST, Network, cable, directory, dns, every, foreign, hardware_address, ipam, load, nat, spoofing, text

# docker's names of the options (docker-network-create(1)): which field of a Network each is, and its kind.
OPTIONS = {
    "com.docker.network.driver.mtu": ("mtu", int), "mtu": ("mtu", int),
    "com.docker.network.bridge.name": ("device", str),
    "com.docker.network.bridge.enable_icc": ("icc", bool),
    "com.docker.network.bridge.enable_ip_masquerade": ("masquerade", bool),
}  # fmt: skip
RESOLV_CONF = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")  # where systemd-resolved keeps the real servers
FORWARDING = "/proc/sys/net/ipv4/ip_forward"
SETTINGS6 = "/proc/sys/net/ipv6/conf"
FORWARDING6 = f"{SETTINGS6}/all/forwarding"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def default(root: str) -> Network:
    """The network "bridge" of the store at `root`: as it was set up, or as it would be on this host now."""
    found = load(root, "bridge")
    if found is None:
        device = f"mc0{host.suffix()}"
        subnet = free_subnet(device, every(root))
        found = Network("bridge", device, subnet, ipam.dotted(ipam.bounds(subnet)[0] + 1), _mtu())
    return found


def made(
    root: str, name: str, identifier: str, subnet: str = "", gateway: str = "", mtu: int = 0, **settings: Any
) -> Network:
    """A network of this host that is not there yet: what is not given is chosen. `settings` are fields of it.

    Raises InvalidArgument for what is no subnet, no address in it or no MTU; Conflict for a subnet that is taken, by
    another network or by a route of the host's.
    """
    device = f"mc{identifier[:6]}{host.suffix()}"
    if subnet:
        ipam.check(subnet, _taken(device, every(root)))
    else:
        subnet = free_subnet(device, every(root))
    gateway = ipam.router(subnet, gateway)
    check_mtu(mtu)
    name_of_it = settings.get("device", "")
    if name_of_it and (len(name_of_it) > 15 or netlink.link(name_of_it)):
        raise errors.InvalidArgument(f"a bridge {name_of_it}: 15 bytes at most, and no device that is there")
    return Network(name, device, subnet, gateway, mtu or _mtu(), identifier)._replace(**settings)


def check_mtu(mtu: int) -> None:
    """Raise InvalidArgument for what is no MTU; 0 is none that was asked for."""
    if mtu and not 68 <= mtu <= 65535:
        raise errors.InvalidArgument(f"an MTU of {mtu}: 68 to 65535 (ip(7) needs 68)")


def made6(
    root: str, network: Network, subnet: str = "", gateway: str = "", ip_range: str = "", outside: bool = False
) -> Network:
    """The same network with a subnet of IPv6, too. Raises what `made` raises, and Unsupported.

    What is `outside` may lie where a route of the host's leads.
    """
    if not os.path.exists(SETTINGS6):
        raise errors.Unsupported("this kernel has no IPv6: it was booted with ipv6.disable=1, or built without")
    if network.mtu < 1280:
        raise errors.InvalidArgument(f"an MTU of {network.mtu}: IPv6 needs 1280 at least (RFC 8200)")
    taken = _taken6(network.device, every(root))
    if subnet:
        subnet = f"{ipam.written(ipam.bounds(subnet)[0], subnet)}/{subnet.partition('/')[2]}"  # however it was spelled
        ipam.check(subnet, _subnets6(every(root)) if outside else taken)
    else:
        subnet = _free_subnet6(root, [(first, last) for _, first, last in taken])
    return network._replace(subnet6=subnet, gateway6=ipam.router(subnet, gateway), ip_range6=ip_range)


def setup(network: Network) -> steps.Plan:
    """Everything that the network's containers share; no step at all where it is there."""
    forwarding = files.read(FORWARDING).strip() == b"1"
    forwarding6 = not network.subnet6 or files.read(FORWARDING6).strip() == b"1"
    if forwarding and forwarding6 and nat.knows(network) and _is_up(network):
        return
    place = directory(host.root())
    yield steps.mkdir(place, why="where networks are remembered")
    yield steps.write(f"{place}/{network.name}.json", text(network), why="the subnet was chosen for this host: keep it")
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
    if network.subnet6:
        yield from _settings6(network)
    elif os.path.exists(SETTINGS6):
        yield steps.put(
            f"{SETTINGS6}/{network.device}/disable_ipv6", "1",
            why="a container that announces itself as an IPv6 router must not become the host's",
        )  # fmt: skip
    if not forwarding6:
        yield steps.call(remember_forwarding6, why="a router ignores others' announcements, unless it is told not to")
        yield steps.put(FORWARDING6, "1", why="the host becomes the containers' router by IPv6, too")
    if not forwarding:
        yield steps.call(remember_forwarding, why="`system reset` leaves ip_forward as it was")
        yield steps.put(FORWARDING, "1", why="the host becomes the containers' router")
    guard = [] if spoofing.lacking() else spoofing.table_commands()
    yield steps.nft(
        *nat.table_commands(), *nat.network_commands(network), *guard,
        why="the firewall: a table for what passes the host, one for what passes the switch",
    )  # fmt: skip
    yield steps.link_set(network.device, up=True, why="last: a bridge that is up is complete")


def _settings6(network: Network) -> steps.Plan:
    place = f"{SETTINGS6}/{network.device}"
    yield steps.put(
        f"{place}/accept_ra", "0", why="a container that announces itself as a router must not become the host's"
    )
    yield steps.put(f"{place}/accept_dad", "0", why="nobody else has the bridge's addresses: they serve at once")
    yield steps.put(f"{place}/disable_ipv6", "0", why="whatever the host's default is")
    length = network.subnet6.partition("/")[2]
    yield steps.address_add(
        network.device, f"{network.gateway6}/{length}", why="the host is the containers' gateway by IPv6, too"
    )


def remove(network: Network) -> steps.Plan:
    """The host as it was before `setup` of this network; others stay. Owed: no container is attached any more."""
    yield steps.call(nat.forget, network, why="the firewall knows it no more")
    yield steps.call(foreign.expel, network.device, why="what --firewall docker-user has put into other people's chain")
    yield steps.remove_tree(dns.place(network.name), why="no container, no name")
    yield steps.link_delete(network.device, why="the switch")
    yield steps.remove_tree(ipam.directory(network), why="no container, no lease")
    yield steps.unlink(f"{directory(host.root())}/{network.name}.json", why="another time, perhaps another subnet")


def teardown(network: Network) -> steps.Plan:
    """The host as it was before the first `setup`. Owed: no other network is there any more."""
    yield steps.nft(*nat.removal_commands(), why="our table, with all that is in it")
    yield steps.call(spoofing.remove, why="and the one that looks at senders")
    yield from remove(network)
    yield steps.call(restore_forwarding, why="as it was before the first container")
    yield steps.call(restore_forwarding6, why="as it was before the first network with IPv6")


def attach(
    network: Network,
    container_id: str,
    ports: list[nat.Port] | None = None,
    device: str = "eth0",
    address: steps.Symbol = steps.ADDRESS,
    mac: str = "",
    way_out: bool = True,
    guarded: bool = True,
    address6: steps.Symbol | None = None,
    way_out6: bool = True,
) -> steps.Plan:
    """The container gets its eth0 with a leased address, a way out, and its published ports.

    It may be another `device`, with a symbol of its own for its address. `guarded`: it cannot forge that. With
    `address6`, it has an address of IPv6 as well, and perhaps the way out by that.
    """
    length = network.subnet.partition("/")[2]
    there = steps.PID
    end = cable(container_id, device)
    mac = mac or hardware_address(container_id, device)
    if guarded:
        own = [address, address6] if address6 else [address]
        yield steps.call(
            spoofing.admit, container_id, end, mac, *own, why="what comes by this cable bears these addresses"
        )
    yield steps.link_add(
        end, "veth", peer=device, namespace=there, master=network.device, mtu=network.mtu, up=True, peer_mac=mac,
        why=f"a cable: one end in the switch, the other inside, called {device}",
    )  # fmt: skip
    if not network.icc:
        yield steps.link_set(end, isolated=True, why="the switch lets it talk to the host, and to no other such port")
    if address6:
        yield steps.call(ipv6_quietly, there, device, why="its address is ours to give, and its router known")
    elif os.path.exists(SETTINGS6):
        yield steps.call(
            ipv4_only, there, device, why="IPv6 would announce itself through the switch to all others, who each listen"
        )
    yield steps.link_set("lo", up=True, namespace=there, why="a new network namespace's loopback is down")
    yield steps.address_add(device, steps.Text((address, "/", length)), namespace=there, why="the leased address")
    yield steps.link_set(device, up=True, namespace=there, why="plugged in at both ends")
    if way_out and not network.internal:
        yield steps.route_add("default", network.gateway, namespace=there, why="all else is behind the host")
    if address6:
        subnet = steps.Text((address6, "/", network.subnet6.partition("/")[2]))
        yield steps.address_add(device, subnet, namespace=there, why="the leased address of IPv6")
        if way_out6 and not network.internal:
            yield steps.route_add("default", network.gateway6, namespace=there, why="and by IPv6, too")
    yield steps.link_wait(end, why="a packet sent too early is lost, and sent again a second later")
    yield steps.link_wait(network.device, why="the first cable has just brought the switch to life")
    if address6:
        yield steps.call(listens, there, device, address6, why="so that the first who asks for it gets an answer")
    if ports:
        yield from nat.publish(container_id, ports, address6)


def detach(
    network: Network, container_id: str, published: bool = True, unplug: bool = True, device: str = "eth0"
) -> steps.Plan:
    """Nothing of the container is left in the network. Every step may be repeated; the id is all they need.

    A caller that knows that there was no port says so with `published=False`, and saves a look through the map. One
    that knows that the container's network namespace is gone, or going, may leave the cable to the kernel, which
    then deletes it a moment later on its own time: `unplug=False` saves the ten milliseconds of waiting for it.
    """
    if published:
        yield from nat.unpublish(container_id)
    if unplug:
        yield steps.link_delete(cable(container_id, device), why="with it goes the end inside")
    ends = [cable(container_id, device)] if unplug else []
    yield steps.call(spoofing.forget, container_id, *ends, why="nobody speaks for its addresses")
    yield steps.call(ipam.release, network, container_id, why="the address may be leased again")


def plugged(network: Network, container_id: str, process: int, known: set[str]) -> str:
    """The end inside of a cable of the container's, none of those that are `known`; or the empty string."""
    switch = netlink.link(network.device)
    for device in (f"eth{number}" for number in range(MOST)):
        port = netlink.link(cable(container_id, device))
        if switch and port and port.master == switch.ifindex and device not in known:
            return device
    return ""


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


def ipv6_quietly(process: int, device: str) -> None:
    """IPv6 on a device of a process's network namespace, without what it would look for by itself.

    No router is asked for or believed, and a link-local address, made of the hardware address (spoofing.py), serves at
    once: by default the kernel asks for a second whether somebody has it.
    """
    with syscalls.inside_network(process):
        for name, value in (("accept_ra", "0"), ("accept_dad", "0"), ("addr_gen_mode", "0"), ("disable_ipv6", "0")):
            files.put(f"{SETTINGS6}/{device}/{name}", value)


def listens(process: int, device: str, address: str) -> None:
    """Wait until a device of a process's network namespace hears who asks for its address of IPv6 (RFC 4861, 7.2.1).

    That is asked by multicast, to the solicited-node group (RFC 4291, 2.7.1), which the kernel joins when it gets to
    it. A question before that is lost, and asked again a second later. KernelError (ETIMEDOUT) after two seconds.
    """
    group = "ff0200000000000000000001ff" + socket.inet_pton(socket.AF_INET6, address)[-3:].hex()
    joined = f"/proc/{process}/net/igmp6"
    end = time.monotonic() + 2
    while [device, group] not in [line.split()[1:3] for line in files.read(joined).decode().splitlines()]:
        if time.monotonic() > end:
            raise errors.KernelError(
                errno.ETIMEDOUT, "read", (joined,), f"{device} does not hear who asks for {address}"
            )
        time.sleep(0.0005)


def remember_forwarding() -> None:
    """Note the host's ip_forward, once, before we first change it."""
    _remember(_forwarding_note(), files.read(FORWARDING))


def remember_forwarding6() -> None:
    """The same for IPv6; and have the devices that believe routers' announcements go on doing so.

    A machine that forwards is a router itself, and believes none where accept_ra is 1: the host would lose its own
    default route. 2 means that it believes all the same (Documentation/networking/ip-sysctl.rst).
    """
    believing = []
    for device in sorted(os.listdir(SETTINGS6)):
        here = f"{SETTINGS6}/{device}"
        if device not in ("all", "default", "lo") and files.read(f"{here}/accept_ra").strip() == b"1":
            if files.read(f"{here}/forwarding").strip() == b"0":
                believing.append(device)
    _remember(_forwarding_note("6"), b" ".join([files.read(FORWARDING6).strip(), *map(os.fsencode, believing)]))
    for device in believing:
        files.put(f"{SETTINGS6}/{device}/accept_ra", "2")


def restore_forwarding6() -> None:
    """Put back what `remember_forwarding6` noted and changed; nothing happens if it noted nothing."""
    path = _forwarding_note("6")
    try:
        value, *believing = files.read(path).decode().split()
    except FileNotFoundError:
        return
    files.put(FORWARDING6, value)
    for device in believing:
        if os.path.exists(f"{SETTINGS6}/{device}"):
            files.put(f"{SETTINGS6}/{device}/accept_ra", "1")
    files.unlink(path)


def _remember(path: str, value: bytes) -> None:
    files.make_directory(os.path.dirname(path), 0o700)
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


def _forwarding_note(family: str = "") -> str:
    # In /run: after a boot the kernel's value is the administrator's again, and nothing is to be restored. Each
    # network namespace has its own.
    return f"{host.run_root()}/ip{family}_forward-{os.stat('/proc/self/ns/net').st_ino}"


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


def _taken(own: str, networks: list[Network]) -> list[tuple[str, int, int]]:
    """(who, first address, last address) of what no network may overlap, but for those of the device `own`.

    That is what a route of the host leads into (but for the default route), what belongs to another network, and the
    host's name servers: a bridge that has their addresses would take its names from it.
    """
    found = [(f"network {other.name}", *ipam.bounds(other.subnet)) for other in networks if other.device != own]
    for device, first, last in _routes():
        if device != own and last - first < 0xFFFFFFFF:
            found.append((f"a route of this host through {device} (ip route)", first, last))
    for address in _name_servers():
        found.append((f"a name server of this host, {address}", ipam.number(address), ipam.number(address)))
    return found


def _name_servers() -> list[str]:
    """The host's, by IPv4: resolv.conf(5)."""
    found = [address for path in RESOLV_CONF for address in dns.servers(path)]
    return [address for address in found if ipam.is_address(address) and ":" not in address]


def _taken6(own: str, networks: list[Network]) -> list[tuple[str, int, int]]:
    """The same of IPv6: /proc/net/ipv6_route has address and length of each target, and last its device."""
    found = _subnets6(networks)
    for line in files.read("/proc/net/ipv6_route").decode().splitlines():
        target, length, *_, device = line.split()
        if device != own and int(length, 16):
            first = int(target, 16)
            last = first + (1 << 128 - int(length, 16)) - 1
            found.append((f"a route of this host through {device} (ip -6 route)", first, last))
    return found


def _subnets6(networks: list[Network]) -> list[tuple[str, int, int]]:
    return [(f"network {other.name}", *ipam.bounds(other.subnet6)) for other in networks if other.subnet6]


def _free_subnet6(root: str, taken: list[tuple[int, int]]) -> str:
    """A /64 that nobody has, of a /48 that is this machine's and store's alone: a unique local one (RFC 4193).

    Its forty bits are drawn once, so to speak: from the machine's id, that a network made anew has the same again.
    """
    from .. import oci

    try:
        machine = files.read("/etc/machine-id").decode(errors="replace")
    except FileNotFoundError:
        machine = os.uname().nodename
    bits = oci.digest(f"{machine}\0{root}".encode())[7:17]
    base = int(f"fd{bits}", 16) << 80
    for number in range(1 << 16):
        first = base + (number << 64)
        if all(first + (1 << 64) <= low or high < first for low, high in taken):
            return f"{ipam.written(first, ':')}/64"
    raise errors.Conflict("every subnet of IPv6 that is this store's is taken: give one, --subnet fd00:…/64")


def free_subnet(own: str, networks: list[Network]) -> str:
    """A private subnet that nobody has."""
    taken = [(first, last) for _, first, last in _taken(own, networks)]
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
