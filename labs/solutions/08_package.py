"""The package's own functions behind this lab's door: what they score shows how far copying gets."""

from minicontainer import netlink, steps
from minicontainer.network import Network, nat


def masquerade(subnet, device):
    network = Network("lab", "br0", subnet, subnet.replace(".0/24", ".1"), 1500)
    netlink.nft(*nat.table_commands(), *nat.network_commands(network))


def publish(ports, to, protocol, source):
    plan = nat.publish(f"{ports} {protocol}", nat.parse_ports([f"{ports}/{protocol}"]))
    # Without what it does to a container's own cable: here are none of the package's containers.
    steps.execute((step for step in plan if step.verb != "link_set"), {"address": to})


def unpublish(ports, protocol):
    steps.execute(nat.unpublish(f"{ports} {protocol}"), {})


def isolate(subnets, allowed):
    for number, subnet in enumerate([subnets[0], subnets[-1]]):
        netlink.nft(
            *nat.table_commands(),
            *nat.network_commands(Network("lab", f"br{number}", subnet, subnet.replace(".0/24", ".1"), 1500)),
        )
