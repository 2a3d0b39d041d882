"""The package's own functions behind this lab's door: what they score shows how far copying gets."""

from minicontainer import netlink, steps
from minicontainer.network import Network, bridge


def wire(segments):
    for segment in segments:
        gateway, _, length = (segment["gateway"] or "0.0.0.0/24").partition("/")
        network = Network("lab", segment["switch"], f"{gateway}/{length}", gateway, 1500)
        netlink.link_add(network.device, "bridge")
        netlink.address_add(network.device, segment["gateway"])
        netlink.link_set(network.device, up=True)
        for pid, address in segment["containers"]:
            values = {"pid": pid, "address": address.partition("/")[0]}
            steps.execute(bridge.attach(network, f"{pid:064}"[::-1], guarded=False), values)


def port_of(pid):
    inner = netlink.link("eth0", pid)
    return next((link.name for link in netlink.links() if inner and link.ifindex == inner.other), None)
