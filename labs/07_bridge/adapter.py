"""Lab 07 behind the real tool: a container is plugged into the engine's switch by the learner's `wire`."""

import os

from minicontainer import netlink, steps
from minicontainer.network import bridge


def install(lab):
    """From now on the cable, its addresses and its route are one step. The switch is there: the learner's own is made
    beside it, and the container's port then moves over."""

    def attach(network, container_id, ports=None):
        yield steps.call(wire, lab.wire, network, steps.PID, steps.ADDRESS, container_id, why="the learner's wire()")

    bridge.attach = attach


def wire(learners, network, pid, address, container_id):
    """Let the learner wire a switch with one port, move that port to the engine's, and take the learner's switch away."""
    name, length = f"lab{os.getpid()}"[:15], network.subnet.partition("/")[2]
    learners([{"switch": name, "gateway": None, "containers": [[pid, f"{address}/{length}"]]}])
    index = netlink.link(name).ifindex
    (port,) = [link.name for link in netlink.links() if link.master == index]
    netlink.link_set(port, master=network.device)
    netlink.link_delete(name)
    netlink.route_add("default", network.gateway, namespace=pid)
