"""The firewall as a whole: put back after somebody has flushed it, and told of before anything is done."""

from __future__ import annotations

from .. import errors, netlink, steps
from ..network import Network, bridge, drivers, every, foreign, nat, spoofing
from ..records import namedtuple
from . import networks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .containers import Containers, Record


class Firewall:
    """What the networks and the running containers of a store need."""

    def __init__(self, containers: Containers) -> None:
        self.containers = containers
        self.root = containers.root

    def running(self) -> list[Record]:
        """The containers that run."""
        return [record for record in self.containers.records() if record["status"] in RUNNING]

    def reload(self) -> list[str]:
        """Put back what `nft flush ruleset` or a reboot took: tables, networks, bridges, ports, addresses.

        Returns the ids of the containers that publish ports.
        What is there stays, so nobody's connection is cut; the table comes back in one transaction. What the monitors
        relay needs nothing of it.
        """
        known, running = every(self.root), self.running()
        bridges = [network for network in known if network.driver == "bridge"]
        if not known:
            return []
        ports = []
        for each in running:
            name = networks.leading(self.root, each["ends"]) if each["ports"] else ""
            if name:
                end = each["ends"][name]
                bound = [nat.Port(**port) for port in each["ports"]]
                ports.append((each["id"], end["address"], end.get("address6", ""), bound))
        switched = {network.name for network in bridges}
        cables = [end for each in running for end in networks.cables(each, switched)]
        nat.restore(bridges, ports, cables)
        for network in known:
            steps.execute(drivers.of(network.driver).setup(network), {})
        if any(each["firewall"] == "docker-user" for each in running):
            for network in bridges:
                steps.execute(foreign.admit(network.device, foreign.families(network)), {})
        still = {record["id"] for record in self.running()}
        for record in running:
            if record["id"] not in still:  # it has ended meanwhile, and taken down what was not there
                nat.withdraw(record["id"])
                spoofing.forget(record["id"])
        return [record["id"] for record in running if record["ports"] and record["id"] in still]

    def plan(self, ports: list[nat.Port], way: str = "", network_name: str = "bridge") -> Plan:
        """What publishing the ports would do, and what would come of it. `way` is run's --firewall. Changes nothing."""
        if way not in foreign.WAYS:
            raise errors.InvalidArgument(f"--firewall {way}: docker-user, ignore")
        network = networks.publishing(self.root, network_name)
        planned = [*bridge.setup(network)]
        if way == "docker-user":
            planned += foreign.admit(network.device, foreign.families(network))
        planned += nat.publish("$container", ports, steps.Symbol("address6") if network.subnet6 else None)
        rules = [netlink.nft_text(command) for step in planned if step.verb == "nft" for command in step.arguments]
        return Plan(network, ports, way, rules)


class Way(namedtuple("Way", "who family reached why")):
    """One way to a published port: from where, by "IPv4" or "IPv6", whether one gets there, and how, or why not."""

    who: str
    family: str
    reached: bool
    why: str


class Plan:
    """Ports that might be published on a network, and the `rules` that would do it, as nft(8) reads them."""

    def __init__(self, network: Network, ports: list[nat.Port], way: str, rules: list[str]) -> None:
        self.network = network
        self.ports = ports
        self.rules = rules
        by_family = [
            [drop for drop in foreign.drops(network.device, family) if not (way == "docker-user" and drop.passes_user)]
            for family in foreign.families(network)
        ]
        self.drops = by_family[0]
        self.drops6 = by_family[1] if network.subnet6 else []
        self.closed = {
            port: foreign.closed(port.protocol, port.host)
            for port in ports
            if port.host and nat.leads6(port) and not network.subnet6  # what is not led there is relayed
        }
        self.refusal = ""  # what `run` would say
        try:
            foreign.check(network.device, ports, way, foreign.families(network))
            nat.check_free(ports)
        except errors.MiniContainerError as error:
            self.refusal = str(error)

    def reach(self, port: nat.Port) -> list[Way]:
        """Who comes to the port, by each way."""
        four, six = port.address in ("", nat.ANY), port.address in ("", nat.ANY6)
        loopback = port.address.startswith("127."), port.address == "::1"
        public = four or ("." in port.address and not loopback[0]), six or (":" in port.address and not loopback[1])
        drop, closed = next(iter(self.drops), None), next(iter(self.closed.get(port, [])), None)
        own, gateway = "seen with its own address", f"seen as the gateway, {self.network.gateway}"
        relayed = f"relayed by the monitor, {gateway}"
        drop6: object = closed
        own6, inside = relayed, ""
        if self.network.subnet6:
            drop6, own6 = next(iter(self.drops6), None), own
            inside = "of those that have such an address; the container itself, too"
        return [
            _way("the LAN", "IPv4", public[0], drop, own),
            _way("the LAN", "IPv6", public[1], drop6, own6),
            _way("localhost", "IPv4", four or loopback[0], None, gateway),
            _way("localhost", "IPv6", six or loopback[1], None, relayed),
            _way("the host's own address", "IPv4", public[0], None, own),
            _way("the host's own address", "IPv6", public[1], None, own6),
            _way("containers, by that address", "IPv4", public[0], drop, "of any network; the container itself, too"),
            _way("containers, by that address", "IPv6", bool(inside) and public[1], drop6, inside),
        ]

    def others(self) -> list[tuple[str, bool, str, str]]:
        """Other people's firewalls: (whose, is it here, what it does or would do, what would mend that)."""
        device = self.network.device
        obstacles: list[foreign.Drop | foreign.Closed] = [
            *self.drops,
            *self.drops6,
            *(each for several in self.closed.values() for each in several),
        ]
        found = [(each.owner, True, str(each).partition("; to allow it: ")[0], each.mend) for each in obstacles]
        here = foreign.owners()
        found += [(name, True, "is here, and lets it pass", "") for name in sorted(here - {who for who, *_ in found})]
        if "ufw" not in here:
            says = "would drop what is forwarded, whatever `ufw allow` says of the port"
            says += ": that is asked where it is relayed, by IPv6" if self.closed else ""
            found.append(("ufw", False, says, foreign.mend_of_ufw(device)))
        if "docker" not in here:
            says = (
                "would leave it alone: it drops what is forwarded only where it was docker that switched forwarding on"
            )
            found.append(("docker", False, says, ""))
        if "firewalld" not in here:
            found.append(("firewalld", False, "would reject what is forwarded", foreign.mend_of_firewalld(device)))
        return found

    def document(self) -> dict[str, Any]:
        """All of it, for programs."""
        ports = [{**port._asdict(), "reach": [way._asdict() for way in self.reach(port)]} for port in self.ports]
        keys = ("owner", "here", "does", "mend")
        return {
            "network": self.network.name,
            "rules": self.rules,
            "ports": ports,
            "foreign": [dict(zip(keys, each, strict=True)) for each in self.others()],
            "refusal": self.refusal,
        }


def _way(who: str, family: str, published: Any, obstacle: object, how: str) -> Way:
    if not published:
        return Way(who, family, False, "not published there" if how else "they have no IPv6")
    if obstacle:
        return Way(who, family, False, str(obstacle).partition(" drops ")[0])
    return Way(who, family, True, how)


RUNNING = ("running", "paused")
