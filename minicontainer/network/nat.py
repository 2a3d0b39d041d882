"""The firewall: out through masquerade, in through published ports, and nothing else.

One table of our own (the switch has another, in spoofing.py), and never a foreign rule touched. Its rules never change;
networks and ports are elements of its sets and maps, so a packet meets as many rules with a thousand ports as with one:

    set bridges      the devices of our networks
    set internal     those of them that nothing leaves or enters
    set subnets      the addresses behind those that reach the world by the host's address
    set within       (bridge, bridge): who may talk to whom
    map ports        protocol, port             → container's address, port     published on every address of the host
    map ports_at     address, protocol, port    → container's address, port     published on one of them

… and subnets6, ports6 and ports6_at, where networks have a subnet of IPv6.

An element's comment is the id of the container that it belongs to. A published port is also held by a socket of the
process that published it (`reserve`), so that the kernel itself says who else wants it, container or not. For IPv6
that socket is more: what comes there is relayed (relay.py), where a container has IPv4 alone or it was sent to ::1.
"""

from __future__ import annotations

import _socket as socket  # its C half: 0.3 ms of every start, not 2
import errno
import os

from .. import errors, host, netlink, steps
from ..netlink import conntrack
from ..records import namedtuple
from . import Network, cable, spoofing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from . import relay

    Held = tuple[int, str, int, bool]  # descriptor, "tcp" or "udp", the container's port, whether it is of IPv6

ANY = "0.0.0.0"
ANY6 = "::"
LOOPBACK6 = "::1"


class Port(namedtuple("Port", "address host host_end container protocol")):
    """A published port: `address`:`host` leads to `container`. `host` 0 means any that is free, up to `host_end`.

    The empty address is every address of the host, of both families; ANY and ANY6 are those of one.
    """

    address: str
    host: int
    host_end: int
    container: int
    protocol: str


# ------------------------------------------------------------------------------------------------- the table's rules


def table() -> str:
    """The name of this store's table in the family inet."""
    return f"minicontainer{host.suffix()}"


def bridges() -> netlink.Set:
    """The devices of our networks."""
    return netlink.Set(table(), "bridges", ("ifname",))


def internal() -> netlink.Set:
    """Devices that nothing is forwarded from or to."""
    return netlink.Set(table(), "internal", ("ifname",))


def subnets() -> netlink.Set:
    """The addresses that the world is to see as the host's."""
    return netlink.Set(table(), "subnets", ("ipv4_subnet",))


def subnets6() -> netlink.Set:
    """The same of IPv6."""
    return netlink.Set(table(), "subnets6", ("ipv6_subnet",))


def within() -> netlink.Set:
    """Pairs of devices between which containers may talk."""
    return netlink.Set(table(), "within", ("ifname", "ifname"))


def ports_map() -> netlink.Set:
    """Ports published on every address of the host."""
    return netlink.Set(table(), "ports", ("inet_proto", "inet_service"), ("ipv4_addr", "inet_service"))


def ports_at_map() -> netlink.Set:
    """Ports published on one address of the host."""
    key = ("ipv4_addr", "inet_proto", "inet_service")
    return netlink.Set(table(), "ports_at", key, ("ipv4_addr", "inet_service"))


def ports6_map() -> netlink.Set:
    """`ports_map` of containers that have an address of IPv6."""
    return netlink.Set(table(), "ports6", ("inet_proto", "inet_service"), ("ipv6_addr", "inet_service"))


def ports6_at_map() -> netlink.Set:
    """`ports_at_map` of these."""
    key = ("ipv6_addr", "inet_proto", "inet_service")
    return netlink.Set(table(), "ports6_at", key, ("ipv6_addr", "inet_service"))


def table_commands() -> list[netlink.Command]:
    """The whole table but for its elements, as one transaction that may be done again: then only rules are replaced.

    A packet meets the chains of a hook in the order of their priorities. Each rule's text, as nft(8) has it, is what
    stands here without the parentheses; `nft list table inet minicontainer` shows it so.
    """
    own = table()
    n = netlink

    def chain(name: str, *base: str | int) -> netlink.Command:
        return ("add chain", own, name, *base)

    def rule(name: str, *expressions: netlink.Expression) -> netlink.Command:
        return ("add rule", own, name, *expressions)

    return [
        ("add table", own),
        ("flush table", own),
        ("add set", bridges()),
        ("add set", internal()),
        ("add set", subnets()),
        ("add set", subnets6()),
        ("add set", within()),
        ("add set", ports_map()),
        ("add set", ports_at_map()),
        ("add set", ports6_map()),
        ("add set", ports6_at_map()),
        # Nobody outside may speak to 127.0.0.1. The kernel sees to that after these hooks, when a port published on
        # 127.0.0.1 would have been translated already; and not at all where route_localnet is on.
        chain("loopback", "filter", "prerouting", -300),
        rule("loopback", n.ifname_is_not("iifname", "lo"), n.address_in("daddr", "127.0.0.0/8"), n.drop()),
        # In: what is meant for this machine and for a published port goes to the container ...
        chain("published"),
        rule("published", n.dnat_by_map("ports_at", with_address=True)),
        rule("published", n.dnat_by_map("ports", with_address=False)),
        rule("published", n.dnat_by_map("ports6_at", with_address=True, family="ip6")),
        rule("published", n.dnat_by_map("ports6", with_address=False, family="ip6")),
        # ... from elsewhere and from containers,
        chain("prerouting", "nat", "prerouting", -100),
        rule("prerouting", n.destination_is_local(), n.jump("published")),
        # ... and from the host itself, which meets no prerouting. What is sent to ::1 never leaves loopback, whatever
        # its new address would be: there the published port's own socket is asked.
        chain("output", "nat", "output", -100),
        rule("output", n.address_is("daddr", LOOPBACK6), n.accept()),
        rule("output", n.destination_is_local(), n.jump("published")),
        # Out: the rest of the world does not know the containers' addresses, only the host's.
        chain("postrouting", "nat", "postrouting", 100),
        rule(
            "postrouting", n.address_among("saddr", "subnets"), n.ifname_in("oifname", "bridges", True), n.masquerade()
        ),
        rule(
            "postrouting",
            n.address_among("saddr", "subnets6", "ip6"),
            n.ifname_in("oifname", "bridges", True),
            n.masquerade(),
        ),
        # A container that reaches a published port of a neighbour, or of its own: the answer must come back this way,
        # too, for it was not this address that the question went to. (With br_netfilter, a packet that stays on the
        # bridge has no iifname here.)
        rule(
            "postrouting",
            n.address_among("saddr", "subnets"),
            n.ifname_in("oifname", "bridges"),
            n.ct_status("dnat"),
            n.masquerade(),
        ),
        rule(
            "postrouting",
            n.address_among("saddr", "subnets6", "ip6"),
            n.ifname_in("oifname", "bridges"),
            n.ct_status("dnat"),
            n.masquerade(),
        ),
        # The host through 127.0.0.1: no container could answer to that.
        rule("postrouting", n.address_in("saddr", "127.0.0.0/8"), n.ifname_in("oifname", "bridges"), n.masquerade()),
        # Through: towards a container goes a neighbour's packet, an answer, or what was published. Nothing else.
        chain("forward", "filter", "forward", 0),
        rule("forward", n.ifname_pair_in("within"), n.accept()),
        rule("forward", n.ifname_in("iifname", "internal"), n.drop()),
        rule("forward", n.ifname_in("oifname", "internal"), n.drop()),
        rule("forward", n.ifname_in("oifname", "bridges"), n.ct_state("established", "related"), n.accept()),
        rule("forward", n.ifname_in("oifname", "bridges"), n.ct_status("dnat"), n.accept()),
        rule("forward", n.ifname_in("oifname", "bridges"), n.drop()),
    ]


# The version of the rules above and of those in spoofing.py, in the comment of a network's element: another one, and
# `setup` replaces them.
LAYOUT = "rules 7"


def network_commands(network: Network) -> list[netlink.Command]:
    """The network is one of ours."""
    device = network.device
    hidden = network.masquerade and not network.internal
    return [
        *([("add element", subnets(), (network.subnet,))] if hidden else []),
        *([("add element", subnets6(), (network.subnet6,))] if hidden and network.subnet6 else []),
        *([("add element", within(), (device, device))] if network.icc else []),
        *([("add element", internal(), (device,))] if network.internal else []),
        # An element that is there keeps its comment, perhaps an older LAYOUT: hence out and in again, in one step.
        ("add element", bridges(), (device,)),
        ("delete element", bridges(), (device,)),
        ("add element", bridges(), (device,), (), LAYOUT),
    ]


def forget(network: Network) -> None:
    """The network is none of ours any more; nothing happens if it never was."""
    device = network.device
    for owner, key in (
        (bridges(), (device,)), (within(), (device, device)), (internal(), (device,)), (subnets(), (network.subnet,)),
        *([(subnets6(), (network.subnet6,))] if network.subnet6 else []),
    ):  # fmt: skip
        try:
            netlink.nft(("delete element", owner, key))
        except errors.KernelError as error:
            if error.errno != errno.ENOENT:
                raise


def removal_commands() -> list[netlink.Command]:
    """The table is gone afterwards; "add" first, so that it is there to be deleted."""
    return [("add table", table()), ("delete table", table())]


def knows(network: Network) -> bool:
    """Whether the table is there, as this version makes it, and has the network."""
    found = netlink.element(bridges(), (network.device,))
    return found is not None and found.comment == LAYOUT


# --------------------------------------------------------------------------------------------------- published ports


def publish(
    container_id: str,
    ports: list[Port],
    address6: steps.Symbol | None = None,
    address: steps.Symbol | None = steps.ADDRESS,
    device: str = "eth0",
) -> steps.Plan:
    """The ports lead to the container's address, that of its `device`, and to that of IPv6 if it has one there.

    Without an address they are held, and lead nowhere yet.
    """
    numbers: list[int | steps.Symbol] = []
    fixed = [port for port in ports if _is_fixed(port)]
    if fixed:
        yield steps.call(reserve, container_id, fixed, why="nobody else, container or not, may have these ports")
    for position, port in enumerate(ports):
        if _is_fixed(port):
            numbers.append(port.host)
            continue
        symbol = steps.Symbol(f"port_{position}")
        numbers.append(symbol)
        yield steps.call(reserve_any, container_id, port, why="a port that is free", result=symbol.name)
    if address is None:
        return
    pairs = list(zip(ports, numbers, strict=True))
    commands = port_commands("create element", container_id, address, pairs, address6)
    for start in range(0, len(commands), netlink.CHUNK):
        yield steps.nft(
            *commands[start : start + netlink.CHUNK], why="one look-up in a map, however many ports there are"
        )
    if ports and os.path.exists("/proc/sys/net/bridge"):
        yield steps.link_set(
            cable(container_id, device), hairpin=True,
            why="with br_netfilter, who asks for his own published port is sent out of the bridge's port he came in by",
        )  # fmt: skip
    for family, led in (("ip", leads), ("ip6", leads6)):
        udp = [number for port, number in pairs if port.protocol == "udp" and led(port)]
        if udp and (address6 or family == "ip"):
            why = "who is sending already is sent here from now on"
            yield steps.call(conntrack.conntrack_delete, "udp", udp, *([family] if address6 else []), why=why)


def lead(container_id: str, ports: list[Port], address: str, address6: str = "", device: str = "eth0") -> None:
    """Ports that a monitor holds, as they are `bound`, lead to these addresses from now on, and no longer elsewhere.

    Without an address they lead nowhere.
    """
    withdraw(container_id)
    _forget_udp(ports)
    if not address:
        return
    commands = port_commands("add element", container_id, address, [(port, port.host) for port in ports], address6)
    for start in range(0, len(commands), netlink.CHUNK):
        netlink.nft(*commands[start : start + netlink.CHUNK])
    if os.path.exists("/proc/sys/net/bridge"):
        netlink.link_set(cable(container_id, device), hairpin=True)  # as in `publish`
    _forget_udp([port for port in ports if leads(port) or address6])


def leads(port: Port) -> bool:
    """Whether the firewall leads what comes by IPv4 to a port."""
    return ":" not in port.address


def leads6(port: Port) -> bool:
    """Whether it leads what comes by IPv6, to a container that has an address of that."""
    return "." not in port.address and port.address != LOOPBACK6


def port_commands(
    verb: str,
    container_id: str,
    to: str | steps.Symbol,
    ports: Iterable[tuple[Port, int | steps.Symbol]],
    to6: str | steps.Symbol | None = None,
) -> list[netlink.Command]:
    """The elements that lead ports, each with its number on the host, to the container's addresses."""
    commands = []
    for port, number in ports:
        key: tuple[str | int | steps.Symbol, ...] = (port.protocol, number)
        if leads(port):
            everywhere = port.address in ("", ANY)
            owner, whole = (ports_map(), key) if everywhere else (ports_at_map(), (port.address, *key))
            commands.append((verb, owner, whole, (to, port.container), container_id))
        if to6 and leads6(port):
            everywhere = port.address in ("", ANY6)
            owner, whole = (ports6_map(), key) if everywhere else (ports6_at_map(), (port.address, *key))
            commands.append((verb, owner, whole, (to6, port.container), container_id))
    return commands


def restore(
    networks: list[Network], ports: Iterable[tuple[str, str, str, list[Port]]], cables: Iterable[spoofing.Cable]
) -> None:
    """Both tables as they should be, in one transaction: what is missing comes back, what is there stays.

    `ports` are those of the running containers, as they were bound: (container id, its address, that of IPv6, ports).
    `cables` are all that are plugged in.
    """
    commands = table_commands()
    if not spoofing.lacking():
        commands += spoofing.table_commands() + spoofing.cable_commands(cables)
    for network in networks:
        commands += network_commands(network)
    led: list[Port] = []
    for container_id, address, address6, bound in ports:
        commands += port_commands("add element", container_id, address, [(port, port.host) for port in bound], address6)
        led += [port for port in bound if leads(port) or address6]
    netlink.nft(*commands)
    _forget_udp(led)  # what came meanwhile went to the host itself, which the kernel remembers


def _forget_udp(ports: list[Port]) -> None:
    """Who sends to them goes on somewhere else."""
    for family, led in (("ip", leads), ("ip6", leads6)):
        udp = [port.host for port in ports if port.protocol == "udp" and led(port)]
        if udp:
            conntrack.conntrack_delete("udp", udp, family)


def _is_fixed(port: Port) -> bool:
    return port.host == port.host_end != 0


def unpublish(container_id: str) -> steps.Plan:
    """No port leads to the container any more."""
    yield steps.call(withdraw, container_id, why="all that bears the container's id, and the sockets")


_held: dict[str, list[tuple[socket.socket, Port]]] = {}


def reserve(container_id: str, ports: list[Port]) -> None:
    """Bind the ports, and keep them for as long as this process lives or until `withdraw`.

    Raises Conflict, naming the container that has one where it is a container, and InvalidArgument for an address
    that is not this host's. Then none is held.
    """
    _make_room(sum(1 if port.address else 2 for port in ports))
    held = _held.setdefault(container_id, [])
    try:
        for port in ports:
            held += _bind(port, port.host)
    except BaseException:
        for opened, _ in _held.pop(container_id):
            opened.close()
        raise


def check_free(ports: list[Port]) -> None:
    """Raise what `reserve` and `reserve_any` would, and hold no port."""
    found: list[tuple[socket.socket, Port]] = []
    try:
        for port in ports:
            if _is_fixed(port):
                found += _bind(port, port.host)
    finally:
        for opened, _ in found:
            opened.close()


def reserve_any(container_id: str, port: Port) -> int:
    """Bind the first that is free of the port's range, or any; return its number."""
    attempts = list(range(port.host, port.host_end + 1))
    if not port.host:  # the kernel chooses; what it finds free for IPv4 may not be so for IPv6
        attempts = [0] * 16
    last = len(attempts) - 1
    for attempt, number in enumerate(attempts):
        try:
            opened = _bind(port, number)
        except errors.Conflict:
            if attempt == last:
                raise
            continue
        _held.setdefault(container_id, []).extend(opened)
        return int(opened[0][1].host)
    raise errors.InvalidArgument(f"{port.host}-{port.host_end} is no range of ports")


def _bind(port: Port, number: int) -> list[tuple[socket.socket, Port]]:
    """A socket at the port's address, or with the same number for each family; and what each of them is."""
    if port.address:
        return [_bind_one(port, number)]
    both = [_bind_one(port._replace(address=ANY), number)]
    try:
        both.append(_bind_one(port._replace(address=ANY6), both[0][1].host))
    except errors.MiniContainerError as error:
        if isinstance(error, errors.KernelError) and error.errno == errno.EAFNOSUPPORT:
            return both  # a kernel without IPv6: then nobody comes by it
        both[0][0].close()
        raise
    return both


def _bind_one(port: Port, number: int) -> tuple[socket.socket, Port]:
    kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if ":" in port.address else socket.AF_INET
    opened = None
    try:
        opened = socket.socket(family, kind)
        if kind == socket.SOCK_STREAM:
            # As every server does: connections of a predecessor, long closed, are no reason to fail. Listening is
            # what then keeps others from doing the same.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.setblocking(False)
            if kind == socket.SOCK_DGRAM:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        opened.bind((port.address, number))
        if kind == socket.SOCK_STREAM:
            opened.listen(socket.SOMAXCONN if family == socket.AF_INET6 else 1)
        number = int(opened.getsockname()[1])
        return opened, port._replace(host=number, host_end=number)
    except OSError as error:
        if opened:
            opened.close()
        address = f"[{port.address}]" if ":" in port.address else port.address
        name = f"{number}/{port.protocol}" if port.address == ANY else f"{address}:{number}/{port.protocol}"
        if error.errno == errno.EADDRINUSE:
            holder = _holder(port, number)
            if holder:
                raise errors.Conflict(f"port {name} is already published by container {holder[:12]}") from None
            raise errors.Conflict(f"port {name} is in use by another process of this host (ss -lnp)") from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise errors.InvalidArgument(f"port {name}: {port.address} is not an address of this host") from None
        hint = "ports below net.ipv4.ip_unprivileged_port_start need root" if error.errno == errno.EACCES else ""
        raise errors.KernelError(error.errno or 0, "bind", (port.address, number, port.protocol), hint) from None


def _make_room(count: int) -> None:
    """Raise the soft limit of descriptors to the hard one, where so many more come near it."""
    if count < 256:
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 256:
        raise errors.Unsupported(
            f"{count} published ports take a descriptor each, {hard} is the limit: raise ulimit -Hn"
        )
    if soft < count + 256:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _holder(port: Port, number: int) -> str:
    """The container that published what clashes with the port, or the empty string."""
    key = (port.protocol, number)
    places = [(ports_map(), ports_at_map(), ANY)]
    if ":" in port.address:  # else it is relayed, if it is one of both families
        places.insert(0, (ports6_map(), ports6_at_map(), ANY6))
    for everywhere, at, every in places:
        found = netlink.element(everywhere, key)
        if found:
            return found.comment
        for other in netlink.elements(at):
            if other.key[1:] == key and port.address in (every, other.key[0]):
                return other.comment
    return ""


def published(container_id: str = "") -> list[tuple[str, Port]]:
    """(container id, port) of what the kernel has published, of all containers or one."""
    found = []
    for item in netlink.elements(ports_map(), container_id):
        protocol, number = item.key
        found.append((item.comment, Port(ANY, number, number, item.data[1], protocol)))
    for item in netlink.elements(ports6_map(), container_id):
        protocol, number = item.key
        found.append((item.comment, Port(ANY6, number, number, item.data[1], protocol)))
    for owner in (ports_at_map(), ports6_at_map()):
        for item in netlink.elements(owner, container_id):
            address, protocol, number = item.key
            found.append((item.comment, Port(address, number, number, item.data[1], protocol)))
    return found


def held(container_id: str) -> list[Held]:
    """The sockets that keep the container's ports, for a process that goes on as another program (execve(2))."""
    return [
        (opened.fileno(), port.protocol, port.container, ":" in port.address)
        for opened, port in _held.get(container_id, [])
    ]


def relayed(ports: list[Held], address: str) -> list[relay.Listener]:
    """What is to be relayed to a container's `address`: what comes by IPv6.

    Without an address that is nowhere. Then no rule leads TCP of IPv4 past its sockets either: who comes there is sent
    away, and does not wait for ever.
    """
    return [
        (descriptor, protocol, address, number)
        for descriptor, protocol, number, six in ports
        if six or (not address and protocol == "tcp")
    ]


def bound(container_id: str) -> list[Port]:
    """The container's ports as `publish` bound them: where any would do, the one that it took; each family's."""
    return [port for _, port in _held.get(container_id, [])]


def withdraw(container_id: str) -> None:
    """Delete all elements that bear the container's id, forget their UDP clients, and let go of the ports."""
    found: list[Port] = []
    while left := [port for _, port in published(container_id)]:  # and again: a look may miss what others move
        netlink.delete_elements([_element(port) for port in left], container_id)
        found += left
    _forget_udp(found)
    for opened, _ in _held.pop(container_id, []):
        opened.close()


def _element(port: Port) -> tuple[netlink.Set, tuple[str | int, ...]]:
    """Where the firewall has a port that is `published`: the map and the key."""
    key = (port.protocol, port.host)
    if port.address in (ANY, ANY6):
        return ports_map() if port.address == ANY else ports6_map(), key
    return ports6_at_map() if ":" in port.address else ports_at_map(), (port.address, *key)


# ------------------------------------------------------------------------------------------- `-p`: what a person types


def parse_ports(texts: list[str]) -> list[Port]:
    """`[ip:][host]:container[/tcp|/udp]`, each number perhaps a range `a-b`, as docker reads it; `[::1]` is an ip.

    A port given twice is one. Raises InvalidArgument in docker's words (go-connections, nat/nat.go).
    """
    found: dict[Port, None] = {}
    for given in texts:
        found.update(dict.fromkeys(_parse(given)))
    return list(found)


def _parse(given: str) -> list[Port]:
    body, _, protocol = given.partition("/")
    protocol = protocol.lower() or "tcp"
    *before, container_text = body.split(":")
    host_text = before.pop() if before else ""
    if not container_text:
        raise errors.InvalidArgument(f"no port specified: {given}<empty>")
    address = _address(":".join(before))
    first, last = _range(container_text, "containerPort")
    if first == 0:
        raise errors.InvalidArgument(f"invalid containerPort: {container_text}")
    host_first, host_last = _range(host_text, "hostPort") if host_text else (0, 0)
    if protocol not in netlink.PROTOCOLS:
        raise errors.InvalidArgument(f"invalid proto: {protocol}")
    if host_text and host_last - host_first != last - first:
        if first != last:
            raise errors.InvalidArgument(
                f"invalid ranges specified for container and host Ports: {container_text} and {host_text}"
            )
        return [Port(address, host_first, host_last, first, protocol)]  # any one of the range
    ports = []
    for offset in range(last - first + 1):
        number = host_first + offset if host_first else 0
        ports.append(Port(address, number, number, first + offset, protocol))
    return ports


def parse_exposed(texts: list[str]) -> list[str]:
    """`80`, `53/udp`, `8000-8002`, as --expose and images have them: each as "80/tcp"."""
    found = []
    for given in texts:
        numbers, _, protocol = given.partition("/")
        protocol = protocol.lower() or "tcp"
        if protocol not in netlink.PROTOCOLS:
            raise errors.InvalidArgument(f"invalid proto: {protocol}")
        first, last = _range(numbers, "exposed port")
        if first == 0:
            raise errors.InvalidArgument(f"invalid exposed port: {numbers}")
        found += [f"{number}/{protocol}" for number in range(first, last + 1)]
    return list(dict.fromkeys(found))


def unpublished(exposed: list[str], ports: list[Port]) -> list[str]:
    """Those of the exposed ports ("80/tcp") that none of `ports` publishes."""
    given = {f"{port.container}/{port.protocol}" for port in ports}
    return [port for port in exposed if port not in given]


def any_free(exposed: str) -> Port:
    """A port that is exposed ("80/tcp"), published on any that is free."""
    number, _, protocol = exposed.partition("/")
    return Port("", 0, 0, int(number), protocol)


def _address(given: str) -> str:
    """An IPv4 or IPv6 address as the kernel writes it, the latter perhaps in brackets; or nothing."""
    if not given:
        return ""
    inside = given[1:-1] if given[0] == "[" and given[-1] == "]" else given
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            packed = socket.inet_pton(family, inside)
        except OSError:
            continue
        mapped = len(packed) == 16 and packed[:12] == bytes(10) + b"\xff\xff"  # ::ffff:192.0.2.1 is an IPv4 address
        return socket.inet_ntop(socket.AF_INET, packed[12:]) if mapped else socket.inet_ntop(family, packed)
    raise errors.InvalidArgument(f"invalid IP address: {given}")


def _range(given: str, what: str) -> tuple[int, int]:
    low, dash, high = given.partition("-")
    high = high if dash else low
    digits = low.isascii() and low.isdigit() and high.isascii() and high.isdigit()
    if not digits or not int(low) <= int(high) <= 65535:
        raise errors.InvalidArgument(f"invalid {what}: {given}")
    return int(low), int(high)
