"""Lab 07 behind the real tool: a container is plugged into the engine's switch by the learner's `wire`."""

import fcntl
import os
import socket
import struct

from minicontainer import netlink, steps
from minicontainer.network import bridge, cable, nat

SIOCSIFNAME = 0x8923  # netdevice(7): a device's new name


def install(lab):
    """From now on the cable, its addresses and its route are one step; published ports are the package's, as before."""

    original = bridge.attach

    def attach(network, container_id, ports=None, device="eth0", address=steps.ADDRESS, **more):
        if device != "eth0":  # a container's second network is the package's
            yield from original(network, container_id, ports, device, address, **more)
            return
        yield steps.call(wire, lab.wire, network, steps.PID, address, container_id, why="the learner's wire()")
        if ports:
            yield from nat.publish(container_id, ports)

    bridge.attach = attach


def wire(learners, network, pid, address, container_id):
    """Let the learner wire a switch with one port, move that port to the engine's, and take the learner's switch away."""
    name, length = f"lab{os.getpid()}"[:15], network.subnet.partition("/")[2]
    learners([{"switch": name, "gateway": None, "containers": [[pid, f"{address}/{length}"]]}])
    index = netlink.link(name).ifindex
    (port,) = [link.name for link in netlink.links() if link.master == index]
    netlink.link_set(port, up=False)
    rename(port, cable(container_id))  # by this name the engine finds it when the container is taken down
    netlink.link_set(cable(container_id), up=True, master=network.device)
    netlink.link_delete(name)
    netlink.route_add("default", network.gateway, namespace=pid)
    for device in (cable(container_id), network.device):
        netlink.link_wait(device)


def rename(old, new):
    """A device that is down gets another name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, SIOCSIFNAME, struct.pack("16s16s", old.encode(), new.encode()))
