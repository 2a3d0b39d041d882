"""Lab 07: switches, cables, a router between them, and names.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import ipaddress
import os
import socket
import struct

from minicontainer import netlink, syscalls

### BEGIN SOLUTION
FORWARDING = "/proc/sys/net/ipv4/ip_forward"


def plug(switch, pid, address, gateway):
    """A cable from the switch to a container, and what the container must know to use it."""
    port = f"to{pid}"
    netlink.link_add(port, "veth", peer="eth0", namespace=pid, master=switch, up=True)
    netlink.link_set("lo", up=True, namespace=pid)
    netlink.address_add("eth0", address, namespace=pid)
    netlink.link_set("eth0", up=True, namespace=pid)
    netlink.link_wait(port)
    if gateway:
        netlink.route_add("default", gateway.partition("/")[0], namespace=pid)


### END SOLUTION
def wire(segments):
    """Build networks for containers that are there already, each a process in a network namespace of its own.

    `segments` is a list of {"switch": the name of a bridge to make here, "gateway": "10.1.0.1/24" or None,
    "containers": [[pid, "10.1.0.2/24"], …]}. Afterwards each container has a loopback that is up and an `eth0` that is
    plugged into its switch, up, with that address; packets pass. A segment with a gateway has it on its switch, and its
    containers reach every other segment that has one through it. A segment without a gateway is nobody's but its own:
    no packet gets in or out.
    """
    ### BEGIN SOLUTION
    for segment in segments:
        switch, gateway = segment["switch"], segment["gateway"]
        netlink.link_add(switch, "bridge")
        if gateway:
            netlink.address_add(switch, gateway)
        netlink.link_set(switch, up=True)
        for pid, address in segment["containers"]:
            plug(switch, pid, address, gateway)
    with open(FORWARDING, "w") as file:
        file.write("1")
    ### END SOLUTION


def port_of(pid):
    """The name of the device here that is the other end of a container's `eth0`, whatever it is called.

    (What one asks who sees `eth0@if12` in a container and wants to listen to it from outside.) None if it has no eth0.
    """
    ### BEGIN SOLUTION
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            network = f"/proc/{pid}/ns/net"
            syscalls.enter_namespace(network, syscalls.CLONE_NEWNET)
            own_mounts = syscalls.CLONE_NEWNS
            syscalls.unshare(own_mounts)
            syscalls.mount("sysfs", "/sys", "sysfs", syscalls.MS_RDONLY)
            with open("/sys/class/net/eth0/iflink", "rb") as file:
                os.write(writer, file.read())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        number = pipe.read().strip()
    os.waitpid(child, 0)
    return socket.if_indextoname(int(number)) if number else None
    ### END SOLUTION


def answer(question, asker, known):
    """What a resolver says to a question of DNS. Both messages are hexadecimal digits; they come and go by UDP.

    `known` tells who is called what, in all networks: {"db": ["10.1.0.2", "10.2.0.7"]}. `asker` is the container that
    asks, "10.1.0.9/24": it hears of its neighbours, and of all their addresses for a name. What none of its neighbours is
    called does not exist for it (NXDOMAIN, 3). Letters are the same whether small or large. Who asks of a neighbour for
    anything but its IPv4 address (A, 1) hears that there is none: no error, and no record.
    """
    ### BEGIN SOLUTION
    message = bytes.fromhex(question)
    pieces, at = [], 12
    while message[at]:
        pieces.append(message[at + 1 : at + 1 + message[at]].decode())
        at += 1 + message[at]
    wanted, kind = ".".join(pieces).lower(), int.from_bytes(message[at + 1 : at + 3], "big")
    around = ipaddress.ip_interface(asker).network
    bearers = {name.lower(): addresses for name, addresses in known.items()}.get(wanted, [])
    found = [address for address in bearers if ipaddress.ip_address(address) in around]
    code = 0 if found else 3
    records = [struct.pack(">3HIH", 0xC00C, 1, 1, 5, 4) + socket.inet_aton(address) for address in found if kind == 1]
    head = message[:2] + bytes([0x80 | message[2] & 1, 0x80 | code]) + struct.pack(">4H", 1, len(records), 0, 0)
    return (head + message[12 : at + 5] + b"".join(records)).hex()
    ### END SOLUTION
