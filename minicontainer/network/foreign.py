"""Other people's firewall rules: who drops what our bridges forward, and what would mend it.

A packet must pass every base chain of a hook: an accept in our table overrides nobody's drop. So whoever publishes a
port has to know (`check`), and the mend is in their chain. We write there where we are told to and docker has made
the place for it: DOCKER-USER (`admit`, `expel`), by rules that bear our name.

Looked at are chains of nftables, which iptables-nft, docker, ufw and firewalld use as well. Not seen: tables of
iptables-legacy.
"""

from __future__ import annotations

from .. import errors, netlink, steps
from ..records import namedtuple
from . import Network, nat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

WAYS = ("", "docker-user", "ignore")  # of --firewall
TOOLS = {"ip": "iptables", "ip6": "ip6tables"}  # whose chains have the family's name
USER = "DOCKER-USER"  # docker jumps there before it looks at anything else, and never changes what is in there

_META_IIFNAME, _META_OIFNAME = 6, 7
_FAMILIES = {number: name for name, number in netlink.FAMILIES.items()}


def owner(table: str, siblings: Iterable[str]) -> str:
    """Whose a table seems to be, by the names of its chains: ufw, docker, firewalld, or nobody's that we know."""
    if any(name.startswith(("ufw-", "ufw6-")) for name in siblings):
        return "ufw"
    if table == "firewalld":
        return "firewalld"
    return "docker" if any(name.startswith("DOCKER") for name in siblings) else ""


class Drop(namedtuple("Drop", "device family table chain siblings")):
    """A chain that drops what the bridge `device` forwards; `siblings` are the names of its table's chains.

    As a string: one sentence, with the command that mends it.
    """

    device: str
    family: str
    table: str
    chain: str
    siblings: frozenset[str]

    def __str__(self) -> str:
        return (
            f"chain {self.chain} of the firewall's table {self.table} drops what containers on {self.device} send and "
            f"receive; to allow it: {self.mend}"
        )

    @property
    def owner(self) -> str:
        """Whose it seems to be, or the empty string."""
        return owner(self.table, self.siblings)

    @property
    def iptables(self) -> bool:
        """Whether it is what iptables(8), or ip6tables(8), calls FORWARD."""
        return self.family in TOOLS and (self.table, self.chain) == ("filter", "FORWARD")

    @property
    def passes_user(self) -> bool:
        """Whether a rule in DOCKER-USER is heard first."""
        return self.iptables and USER in self.siblings

    @property
    def mend(self) -> str:
        """The commands that make it let our bridge's packets pass."""
        device = self.device
        if self.owner == "ufw":
            return mend_of_ufw(device)
        if self.owner == "firewalld":
            return mend_of_firewalld(device)
        if self.iptables:
            where = f"{TOOLS[self.family]} -I {USER if self.passes_user else self.chain}"
            return f"{where} -i {device} -j ACCEPT && {where} -o {device} -j ACCEPT"
        rule = f"nft insert rule {self.family} {self.table} {self.chain}"
        return f"{rule} iifname {device} accept && {rule} oifname {device} accept"


class Closed(namedtuple("Closed", "family table chain siblings protocol number")):
    """A chain that keeps what comes to a port of the host itself; a Drop's fields, and the port."""

    family: str
    table: str
    chain: str
    siblings: frozenset[str]
    protocol: str
    number: int

    def __str__(self) -> str:
        return (
            f"chain {self.chain} of the firewall's table {self.table} drops what comes to the host's port "
            f"{self.number}/{self.protocol}; to allow it: {self.mend}"
        )

    @property
    def owner(self) -> str:
        """Whose it seems to be, or the empty string."""
        return owner(self.table, self.siblings)

    @property
    def mend(self) -> str:
        """The commands that open the port."""
        port = f"{self.number}/{self.protocol}"
        if self.owner == "ufw":
            return f"ufw allow {port}"
        if self.owner == "firewalld":
            return f"firewall-cmd --permanent --add-port={port} && firewall-cmd --reload"
        if (self.family, self.table, self.chain) == ("ip6", "filter", "INPUT"):
            return f"ip6tables -I INPUT -p {self.protocol} --dport {self.number} -j ACCEPT"
        return f"nft insert rule {self.family} {self.table} {self.chain} {self.protocol} dport {self.number} accept"


def mend_of_ufw(device: str) -> str:
    """The commands that make ufw let pass what the bridge forwards."""
    return f"ufw route allow in on {device} && ufw route allow out on {device}"


def mend_of_firewalld(device: str) -> str:
    """The same for firewalld."""
    return f"firewall-cmd --permanent --zone=trusted --add-interface={device} && firewall-cmd --reload"


def owners() -> set[str]:
    """Whose rules are here, of those that we know."""
    tables: dict[tuple[int, str], list[str]] = {}
    for chain in netlink.chains():
        tables.setdefault((chain.family, chain.table), []).append(chain.name)
    return {owner(table, names) for (_, table), names in tables.items()} - {""}


def families(network: Network) -> list[str]:
    """What is forwarded for a network."""
    return ["ip", "ip6"] if network.subnet6 else ["ip"]


def drops(device: str, family: str = "ip") -> list[Drop]:
    """The foreign chains that drop what the bridge `device` forwards by IPv4, or by "ip6".

    Those of the forward hook with policy drop, or whose last rule drops or rejects all that came so far (firewalld);
    not those where a rule of the table lets pass all that comes from, and all that goes to, the device.
    """
    found = []
    for chain, siblings, rules in _dropping("forward", family):
        if not _admitted(rules, device) >= {"iifname", "oifname"}:
            found.append(Drop(device, _FAMILIES[chain.family], chain.table, chain.name, siblings))
    return found


def closed(protocol: str, number: int) -> list[Closed]:
    """The foreign chains that drop what comes by IPv6 to a port of the host: there a relay listens like any program."""
    found = []
    for chain, siblings, rules in _dropping("input", "ip6"):
        if not _opens(rules, protocol, number):
            found.append(Closed(_FAMILIES[chain.family], chain.table, chain.name, siblings, protocol, number))
    return found


def _dropping(hook: str, family: str) -> list[tuple[netlink.Chain, frozenset[str], list[netlink.Rule]]]:
    """The foreign chains of a hook that drop what no rule accepts, with their tables' chains and rules."""
    found = []
    everyone = netlink.chains()
    for chain in everyone:
        if chain.hook != netlink.HOOKS[hook] or chain.table.startswith("minicontainer"):
            continue
        if _FAMILIES.get(chain.family) not in ("inet", family):
            continue
        own = netlink.rules(chain.family, chain.table, chain.name)
        if chain.policy == netlink.NF_DROP or _ends_in_drop(list(own)):
            rules = list(netlink.rules(chain.family, chain.table))
            siblings = [other.name for other in everyone if (other.family, other.table) == (chain.family, chain.table)]
            found.append((chain, frozenset(siblings), rules))
    return found


def check(device: str, ports: Iterable[nat.Port], way: str, families: Iterable[str] = ("ip",)) -> None:
    """Raise Unsupported where a port would be published and nobody outside could reach it. `way` is one of WAYS.

    The host itself reaches it all the same, for what it sends is not forwarded: ports on 127.0.0.1 pass, and those of
    IPv6 where they are relayed, which is where "ip6" is none of the network's `families`.
    """
    if way not in WAYS:
        raise errors.InvalidArgument(f"--firewall {way}: docker-user, ignore")
    ports = list(ports)
    for family in families:
        public = outside(ports, family)
        if not public or way == "ignore":
            continue
        for drop in drops(device, family):
            if way == "docker-user" and drop.passes_user:
                continue
            port = f"{public[0].container}/{public[0].protocol}"
            offer = "--firewall docker-user does it for you, " if drop.passes_user else ""
            raise errors.Unsupported(
                f"port {port} would be published and reached by nobody outside{' by IPv6' if family == 'ip6' else ''}: "
                f"{drop}; {offer}--firewall ignore starts it as it is"
            )


def outside(ports: Iterable[nat.Port], family: str = "ip") -> list[nat.Port]:
    """Those of the ports whose packets are forwarded to a container from other machines."""
    if family == "ip6":
        return [port for port in ports if nat.leads6(port)]
    return [port for port in ports if nat.leads(port) and not port.address.startswith("127.")]


def admit(device: str, families: Iterable[str] = ("ip",)) -> steps.Plan:
    """DOCKER-USER, where that chain is, lets pass what the bridge forwards; our own table says what may be."""
    there = {chain.family for chain in netlink.chains() if chain.name == USER}
    for family in families:
        number = netlink.FAMILIES[family]
        if number not in there:
            continue
        admitted = _admitted(list(netlink.rules(number, "filter", USER)), device)
        missing = [way for way in ("oifname", "iifname") if way not in admitted]
        if missing:
            inserts = [
                ("insert rule", family, "filter", USER, _tag(device), netlink.ifname_is(way, device), netlink.counter(),
                 netlink.accept())
                for way in missing
            ]  # fmt: skip
            why = "docker's FORWARD drops what it does not know; here its users may say otherwise"
            yield steps.nft(*inserts, why=why)


def expel(device: str) -> None:
    """Take what `admit` has put there away; nothing happens if there is nothing."""
    for family in TOOLS:
        found = netlink.rules(netlink.FAMILIES[family], "filter")
        ours = [rule for rule in found if rule.comment == _tag(device)]
        if ours:
            netlink.nft(*[("delete rule", family, "filter", rule.chain, rule.handle) for rule in ours])


def _tag(device: str) -> str:
    """The comment that our rules bear in other people's chains."""
    return f"minicontainer {device}"


def _ends_in_drop(rules: list[netlink.Rule]) -> bool:
    """Whether the last rule of a chain drops or rejects whatever has come so far."""
    parts = _parts(rules[-1]) if rules else []
    return len(parts) == 1 and (parts[0][0] == "reject" or _verdict(parts[0])[0] == netlink.NF_DROP)


def _admitted(rules: list[netlink.Rule], device: str) -> set[str]:
    """{"iifname", "oifname"}: whether a rule accepts all from, or all to, the device, or a zone does that trusts it."""
    wanted = device.encode().ljust(16, b"\0")
    found = set()
    for rule in rules:
        parts = _parts(rule)
        if [name for name, _ in parts] != ["meta", "cmp", "immediate"]:
            continue
        (_, meta), (_, compare), last = parts
        value = dict(netlink.attributes(compare.get(3, b""))).get(netlink.NFTA_DATA_VALUE, b"")
        if value.ljust(16, b"\0") != wanted or int.from_bytes(compare.get(2, b"\1"), "big"):
            continue
        code, chain = _verdict(last)
        if code == netlink.NF_ACCEPT or chain.endswith("_trusted"):
            key = int.from_bytes(meta.get(2, b""), "big")
            found |= {"iifname"} if key == _META_IIFNAME else {"oifname"} if key == _META_OIFNAME else set()
    return found


def _opens(rules: list[netlink.Rule], protocol: str, number: int) -> bool:
    """Whether a rule accepts what goes to a port: `tcp dport 80 accept`, as nft and iptables have it."""
    for rule in rules:
        values = [
            dict(netlink.attributes(data.get(3, b""))).get(netlink.NFTA_DATA_VALUE, b"")
            for name, data in _parts(rule)
            if name == "cmp"
        ]
        port, kind = number.to_bytes(2, "big"), bytes((netlink.PROTOCOLS[protocol],))
        if values == [kind, port] and _verdict(_parts(rule)[-1])[0] == netlink.NF_ACCEPT:
            return True
    return False


def _parts(rule: netlink.Rule) -> list[tuple[str, dict[int, bytes]]]:
    """What a rule consists of, without what changes nothing: counters and comments (iptables' match of that name)."""
    parts = [(name, dict(netlink.attributes(data))) for name, data in rule.expressions if name != "counter"]
    return [(name, data) for name, data in parts if name != "match" or netlink.text(data.get(1, b"")) != "comment"]


def _verdict(part: tuple[str, dict[int, bytes]]) -> tuple[int, str]:
    """The verdict of an `immediate`, and the chain that it leads to; (1000, "") of anything else."""
    name, data = part
    verdict = dict(netlink.attributes(dict(netlink.attributes(data.get(2, b""))).get(netlink.NFTA_DATA_VERDICT, b"")))
    if name != "immediate" or netlink.NFTA_VERDICT_CODE not in verdict:
        return 1000, ""
    code = int.from_bytes(verdict[netlink.NFTA_VERDICT_CODE], "big", signed=True)
    return code, netlink.text(verdict.get(netlink.NFTA_VERDICT_CHAIN, b""))
