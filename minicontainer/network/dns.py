"""Names of containers: where they are written, and where a container asks for them.

A container's resolv.conf names 127.0.0.11, an address of its own loopback. Two sockets, UDP and TCP, wait there for
questions: opened by the start inside the container's network namespace, held outside by its monitor. So no
firewall is in the way, and a network without a way out has names, too. With the first question the monitor gives them
to the network's resolver (resolver.py).

Port 53 itself stays free for a server that the container may run: the sockets have another one, and two rules for each
protocol change the number in what goes there and in what comes back. They know of no connections, so they cost
a comparison or two per packet.

Who is called what is files, so that nobody must be told when it changes:

    <run root>/names/<network>/<id>     "172.30.0.2 web 3f2a0123abcd", and "dns 192.0.2.53 …" where servers were chosen,
                                        "dns none" in an internal network: what is not known here is not asked for;
                                        "ip6 fd00:1::2" where it has such an address
    <run root>/names/.<network>         the door of that network's resolver, while there is one
"""

from __future__ import annotations

import _socket as socket  # its C half: 0.3 ms of every start, not 2
import os

from .. import errors, files, host, netlink, syscalls

ADDRESS = "127.0.0.11"
PORT = 53
TABLE = "minicontainer_dns"
NOBODY = "none"  # in place of servers
LONGEST = 253  # bytes of a name, RFC 1035


def servers(path: str) -> list[str]:
    """The name servers that a resolv.conf(5) tells of; none where it cannot be read."""
    try:
        lines = [line.split() for line in files.read(path).decode(errors="replace").splitlines()]
    except OSError:
        return []
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


def listen(process: int) -> tuple[int, int]:
    """Open the sockets in the network namespace of a process, whose loopback is up: (UDP, TCP), for whoever answers."""
    with syscalls.inside_network(process):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        udp.bind((ADDRESS, 0))
        port = udp.getsockname()[1]
        tcp.bind((ADDRESS, port))  # nobody else is there yet
        tcp.listen(64)
        netlink.nft(*_rules(port), namespace=process)
    except OSError as error:
        if isinstance(error, errors.KernelError):
            raise
        raise errors.KernelError(error.errno or 0, "bind", (ADDRESS, 0)) from None
    return udp.detach(), tcp.detach()


def _rules(port: int) -> list[netlink.Command]:
    commands: list[netlink.Command] = [
        ("add table", TABLE),
        ("add chain", TABLE, "output", "filter", "output", -150),
        ("add rule", TABLE, "output", netlink.ifname_is_not("oifname", "lo"), netlink.accept()),  # no question to us
    ]
    for protocol in ("udp", "tcp"):
        there = netlink.address_in("daddr", f"{ADDRESS}/32"), netlink.port_becomes(protocol, "dport", PORT, port)
        back = netlink.address_in("saddr", f"{ADDRESS}/32"), netlink.port_becomes(protocol, "sport", port, PORT)
        commands += [("add rule", TABLE, "output", *there), ("add rule", TABLE, "output", *back)]
    return commands


def place(network: str) -> str:
    """The directory of a network's names."""
    return f"{host.run_root()}/names/{network}"


def door(network: str) -> str:
    """The socket by which its resolver is reached."""
    return f"{host.run_root()}/names/.{network}"


def announce(
    network: str, container_id: str, address: str, names: list[str], servers: list[str], address6: str = ""
) -> None:
    """From now on the container is called so in the network, and by no other names; in any case of letters."""
    known = [name.lower() for name in names if sayable(name)]
    text = " ".join([address, *dict.fromkeys(known)]) + "\n"
    text += f"dns {' '.join(servers)}\n" if servers else ""
    text += f"ip6 {address6}\n" if address6 else ""
    path = f"{place(network)}/{container_id}"
    try:
        files.write(path, text.encode())
    except FileNotFoundError:  # it is the network's first
        for directory in (os.path.dirname(place(network)), place(network)):
            files.make_directory(directory, 0o700)
        files.write(path, text.encode())


def forget(network: str, container_id: str) -> None:
    """Nobody is called that any more."""
    files.unlink(f"{place(network)}/{container_id}")


def sayable(name: str) -> bool:
    """Whether it can be asked for: not too long, as a whole and between dots."""
    return 0 < len(name) <= LONGEST and all(0 < len(part) <= 63 for part in name.split("."))


def announced(network: str) -> dict[str, tuple[str, list[str], list[str], str]]:
    """Container id → (address, names, servers, address of IPv6), of all in the network."""
    found = {}
    try:
        identifiers = os.listdir(place(network))
    except FileNotFoundError:
        return {}
    for identifier in identifiers:
        if len(identifier) != 64:
            continue  # one that is being written
        try:
            lines = [line.split() for line in files.read(f"{place(network)}/{identifier}").decode().splitlines()]
        except FileNotFoundError:
            continue
        beside = {words[0]: words[1:] for words in lines[1:]}
        found[identifier] = lines[0][0], lines[0][1:], beside.get("dns", []), "".join(beside.get("ip6", []))
    return found


def networks() -> list[str]:
    """The networks that anybody has been called anything in."""
    try:
        return sorted(name for name in os.listdir(f"{host.run_root()}/names") if not name.startswith("."))
    except FileNotFoundError:
        return []
