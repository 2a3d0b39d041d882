"""The package's own functions behind this lab's door: what they score shows how far copying gets."""

from minicontainer import netlink
from minicontainer.network import Network, foreign, nat


def diagnose(pid, address):
    if any(foreign.drops(link.name) for link in netlink.links()):
        chains = [chain for chain in netlink.chains() if chain.policy == netlink.NF_DROP and chain.hook == 2]
        names = {netlink.NFPROTO_INET: "inet", netlink.NFPROTO_IPV4: "ip"}
        return ["policy", next(f"{names[c.family]} {c.table} {c.name}" for c in chains if c.family in names)]
    return None


def mend(pid, address):
    network = Network("lab", "br0", "10.0.0.0/8", "10.0.0.1", 1500)
    netlink.nft(*nat.table_commands(), *nat.network_commands(network))
