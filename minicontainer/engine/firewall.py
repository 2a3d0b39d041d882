"""The firewall as a whole: put back after somebody has flushed it, and told of before anything is done."""

from __future__ import annotations

import os

from .. import steps
from ..network import Network, bridge, foreign, nat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .containers import Containers, Record


class Firewall:
    """What the networks and the running containers of a store need."""

    def __init__(self, containers: Containers) -> None:
        self.containers = containers
        self.root = containers.root

    def networks(self) -> list[Network]:
        """Those that have been set up."""
        return [bridge.default(self.root)] if os.path.exists(f"{self.root}/networks/bridge.json") else []

    def running(self) -> list[Record]:
        """The containers that run and publish ports."""
        return [record for record in self.containers.records() if record["status"] in RUNNING and record["ports"]]

    def reload(self) -> list[str]:
        """Put back what `nft flush ruleset` or a reboot took: table, networks, bridges, ports. The containers' ids.

        What is there stays, so nobody's connection is cut; the table comes back in one transaction. For IPv6 there is
        nothing to put back: what comes by it is relayed by the monitor.
        """
        networks, running = self.networks(), self.running()
        if not networks:
            return []
        ports = [(each["id"], each["address"], [nat.Port(**port) for port in each["ports"]]) for each in running]
        nat.restore(networks, ports)
        for network in networks:
            steps.execute(bridge.setup(network), {})
        if any(each["firewall"] == "docker-user" for each in running):
            for network in networks:
                steps.execute(foreign.admit(network.device), {})
        still = {record["id"] for record in self.running()}
        for record in running:
            if record["id"] not in still:  # it has ended meanwhile, and taken down what was not there
                nat.withdraw(record["id"])
        return [record["id"] for record in running if record["id"] in still]


RUNNING = ("running", "paused")
