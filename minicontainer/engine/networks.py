"""Networks by name: made, looked at, removed; and a container plugged in and out while it runs.

    networks/<name>.json     what it is (network.Network): made first, removed last
    leases/<name>/           in /run: who has which address of it

A record's `networks` says where the container's cables go, in the order of eth0, eth1 and on, and what was asked for
there: {"backend": {"ip": "", "ip6": "", "mac": "", "aliases": []}}. Its state's `ends` says what it has got, while it
runs: {"backend": {"device": "eth0", "address": "172.29.0.2", "mac": "32:f2:a0:12:34:56"}}, with "address6" where the
network has IPv6. Published ports lead to the first of them that is a bridge and not internal; where there is none, the
state's `ports` are empty, and `held` are those that the monitor keeps meanwhile.

What is asked for is written before anything is done, and what is taken away is taken before that is written: a
teardown always knows of it.
"""

from __future__ import annotations

import os
import time

from .. import errors, files, host, netlink, steps
from .. import quickjson as json
from ..network import (
    MOST,
    Network,
    bridge,
    cable,
    directory,
    dns,
    drivers,
    every,
    foreign,
    hardware_address,
    ipam,
    load,
    nat,
    spoofing,
)
from ..records import namedtuple
from . import events, names

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Iterable, Mapping
    from typing import Any

    from . import network as nouns
    from .containers import Containers, Record

    List = list[Network]  # inside the class, `list` is its method
    Nouns = list[nouns.Network]
    Names = list[str]
    Filters = dict[str, list[str]]

PREDEFINED = ("bridge", "host", "none")


class Plug(namedtuple("Plug", "network device symbol wanted mac way_out symbol6 wanted6 way_out6")):
    """One of a container's cables: the end inside is `device`, and `symbol` stands for its address.

    `wanted` is the address asked for, if any, `mac` the hardware address; the way to everything else is the first's
    that has one. The same for IPv6: `symbol6` is None where the network has none.
    """

    network: Network
    device: str
    symbol: steps.Symbol
    wanted: str
    mac: str
    way_out: bool
    symbol6: steps.Symbol | None
    wanted6: str
    way_out6: bool


# What a start needs


def get(root: str, name: str) -> Network:
    """The network of that name. Raises NetworkNotFound."""
    found = bridge.default(root) if name == "bridge" else load(root, name) if names.valid(name) else None
    if found is None:
        others = ", ".join(["bridge", "host", *(network.name for network in every(root) if network.name != "bridge")])
        raise errors.NetworkNotFound(f"no such network: {name}; {others}, none and container:NAME are there")
    return found


def own(mode: str) -> bool:
    """Whether a network mode is the name of a network, with an end of its own for each container."""
    return mode not in ("host", "none") and not mode.startswith("container:")


def publishing(root: str, mode: str) -> Network:
    """The network of that mode, on which ports can be published. Raises InvalidArgument, NetworkNotFound."""
    if not own(mode):
        raise errors.InvalidArgument(f"ports can be published on a bridge only, not with --network {mode}")
    found = get(root, mode)
    if found.driver != "bridge":
        raise errors.InvalidArgument(
            f"ports cannot be published on {mode}: in a {found.driver}, a container is reached by its own address"
        )
    if found.internal:
        raise errors.InvalidArgument(f"ports cannot be published on {mode}: it is internal, nobody may come in")
    return found


def leads(network: Network) -> bool:
    """Whether published ports can lead to a container of that network."""
    return network.driver == "bridge" and not network.internal


def leading(root: str, among: Iterable[str]) -> str:
    """The first of the networks that published ports can lead to; or the empty string."""
    for name in among:
        found = bridge.default(root) if name == "bridge" else load(root, name) if own(name) else None
        if found and leads(found):
            return name
    return ""


def asked(record: Record) -> dict[str, dict[str, Any]]:
    """What a record's `networks` says; an earlier version wrote none."""
    found: dict[str, dict[str, Any]] | None = record.get("networks")
    return ({"bridge": {}} if record["network"] == "bridge" else {}) if found is None else found


def plugs(root: str, record: Record) -> list[Plug]:
    """Where its cables go. Raises NetworkNotFound for a network that has been removed since."""
    found: list[Plug] = []
    for number, (name, end) in enumerate(asked(record).items()):
        network = get(root, name)
        symbol = steps.Symbol(f"address_{number}") if number else steps.ADDRESS
        way_out = not network.internal and not any(other.way_out for other in found)
        way_out6 = bool(network.subnet6) and not network.internal and not any(other.way_out6 for other in found)
        found.append(plug(network, f"eth{number}", symbol, end, way_out, way_out6))
    return found


def plug(
    network: Network, device: str, symbol: steps.Symbol, end: Mapping[str, Any], way_out: bool, way_out6: bool
) -> Plug:
    """One cable, with what is asked for there. Raises InvalidArgument for an address of IPv6 where there is none."""
    ip, ip6, mac = (end.get(name, "") for name in ("ip", "ip6", "mac"))
    if ip6 and not network.subnet6:
        raise errors.InvalidArgument(
            f"{ip6} is no address for a container of {network.name}, which has no IPv6: network create --ipv6"
        )
    if mac and network.driver == "ipvlan":
        raise errors.InvalidArgument(f"{mac}: {network.name} is an ipvlan, whose containers have its parent's address")
    symbol6 = steps.Symbol(symbol.name.replace("address", "address6")) if network.subnet6 else None
    return Plug(network, device, symbol, ip, mac, way_out, symbol6, ip6, way_out6)


def ends(record: Record, values: steps.Values) -> dict[str, dict[str, str]]:
    """What it has got by a start, by network."""
    found = {}
    for number, name in enumerate(asked(record)):
        mark = f"_{number}" if number else ""
        six = values.get(f"address6{mark}", "")
        found[name] = end_of(record, name, f"eth{number}", values[f"address{mark}"], six)
    return found


def end_of(record: Record, name: str, device: str, address: str, address6: str = "") -> dict[str, str]:
    """What it has got in one network."""
    mac = asked(record)[name].get("mac") or hardware_address(record["id"], device)
    return {"device": device, "address": address, "mac": mac, **({"address6": address6} if address6 else {})}


def cables(record: Record, bridges: set[str]) -> list[spoofing.Cable]:
    """The cables of a container that runs, to networks that are `bridges`, and the addresses that it has there."""
    identifier = record["id"]
    found = record.get("ends", {}).items()
    ends = [end for name, end in found if name in bridges and "mac" in end]  # an earlier version noted none
    return [
        (identifier, cable(identifier, end["device"]), end["mac"], end["address"], end.get("address6", ""))
        for end in ends
    ]


def plug_in(plug: Plug, identifier: str) -> steps.Plan:
    """One more cable of a container, process steps.PID, whose address is leased."""
    six = {"address6": plug.symbol6, "way_out6": plug.way_out6} if plug.symbol6 else {}
    plan: steps.Plan = drivers.of(plug.network.driver).attach(
        plug.network, identifier, device=plug.device, address=plug.symbol, mac=plug.mac, way_out=plug.way_out, **six
    )
    return plan


def leases(plug: Plug, identifier: str) -> steps.Plan:
    """Its address, or both."""
    asked_for, free = "the address that was asked for", "an address that nobody else has"
    wanted = [plug.wanted] if plug.wanted else []
    why = asked_for if wanted else free
    yield steps.call(ipam.lease, plug.network, identifier, *wanted, why=why, result=plug.symbol.name)
    if plug.symbol6:
        wanted = [plug.wanted6] if plug.wanted6 else []
        why = asked_for if wanted else free
        yield steps.call(ipam.lease6, plug.network, identifier, *wanted, why=why, result=plug.symbol6.name)


def announce(network: Network, record: Record, address: str, address6: str = "") -> None:
    """Say what a container is called in a network: its name, the beginning of its id, its host name, its aliases."""
    called = [record["name"], record["id"][:12], record["hostname"], *asked(record)[network.name].get("aliases", [])]
    servers = [dns.NOBODY] if network.internal else record["dns"]["servers"]
    dns.announce(network.name, record["id"], address, called, servers, address6)


def unplug(root: str, record: Record) -> steps.Plan:
    """Nothing of the container is left in any network; its cables go with its namespace."""
    if record["ports"]:
        yield from nat.unpublish(record["id"])
    for name in asked(record):
        network = load(root, name) or Network(name, "", "", "", 0)  # one that has gone has no lease either
        yield steps.unlink(f"{dns.place(name)}/{record['id']}", why="nobody is called that")
        yield from drivers.of(network.driver).detach(network, record["id"], published=False, unplug=False)


class Networks:
    """The networks of a store."""

    def __init__(self, containers: Containers) -> None:
        self.containers = containers
        self.root = containers.root

    # By docker-py's names

    def create(
        self, name: str, driver: str = "bridge", ipam: Mapping[str, Any] | None = None, enable_ipv6: bool = False,
        **given: Any,
    ) -> nouns.Network:  # fmt: skip
        """Make a network; `given` are `make`'s: internal, labels, options …

        `ipam` is docker's: {"Config": [{"Subnet": "10.20.0.0/24", "Gateway": "10.20.0.1", "IPRange": "10.20.0.8/29"}]};
        with `enable_ipv6` perhaps one more of that.
        """
        from . import network as nouns

        words = {"Subnet": "subnet", "Gateway": "gateway", "IPRange": "ip_range"}
        pools = list((ipam or {}).get("Config") or [])
        unknown = sorted({key for pool in pools for key, value in pool.items() if value and key not in words})
        by_family = {"6" if ":" in (pool.get("Subnet") or "") else "": pool for pool in pools}
        if len(pools) > len(by_family) or unknown:
            raise errors.InvalidArgument(
                f"ipam: one Config of Subnet, Gateway and IPRange for each family{', not '.join(['', *unknown])}"
            )
        asked_for = {
            words[key] + mark: value for mark, pool in by_family.items() for key, value in pool.items() if value
        }
        return nouns.Network(self, self.make(name, driver, **asked_for, ipv6=enable_ipv6, **given))

    def get(self, name: str) -> nouns.Network:
        """A network by name, id or any unique prefix of its id. Raises NetworkNotFound, InvalidArgument."""
        from . import network as nouns

        return nouns.Network(self, self.find(name))

    def list(self, names: Names | None = None, ids: Names | None = None, filters: Filters | None = None) -> Nouns:
        """The networks of these names or beginnings of ids, or all but host and none. `filters`: filters.py."""
        from . import filters as filtering, network as nouns  # isort: skip

        wished = {**({"name": names} if names else {}), **({"id": ids} if ids else {}), **(filters or {})}
        wanted = filtering.of_networks(self.root, wished)
        return [nouns.Network(self, network) for network in self.known() if wanted(network)]

    # By ours

    def known(self) -> List:
        """All of them but host and none, by name; the default one as well, which is made by its first container."""
        return sorted([bridge.default(self.root), *(each for each in every(self.root) if each.name != "bridge")])

    def find(self, name: str) -> Network:
        """A network by name, id, or any unique prefix of its id. Raises NetworkNotFound, InvalidArgument."""
        known = self.known()
        found = [network for network in known if network.name == name]
        found = found or [network for network in known if name and identity(self.root, network).startswith(name)]
        if len(found) > 1:
            raise errors.InvalidArgument(f"{name} is the beginning of {len(found)} ids of networks: write more of it")
        if not found:
            raise errors.NetworkNotFound(f"network {name} not found")
        return found[0]

    def make(
        self, name: str, driver: str = "bridge", subnet: str = "", gateway: str = "", ip_range: str = "",
        internal: bool = False, labels: Mapping[str, str] | None = None, options: Mapping[str, str] | None = None,
        ipv6: bool = False, subnet6: str = "", gateway6: str = "", ip_range6: str = "",
    ) -> Network:  # fmt: skip
        """Make a network, and what it stands on. What is not given is chosen; `options` are its driver's OPTIONS.

        With `ipv6` it has a subnet of that, too. Raises Conflict for a name or a subnet that is taken, InvalidArgument.
        """
        if not names.valid(name) or name.startswith("container:") or len(name) > 64:
            raise errors.InvalidArgument(f"{name!r} is no name for a network: letters, digits and `_.-`, two at least")
        module = drivers.of(driver)
        wished = dict(options or {})
        settings = settings_of(driver, wished)
        for given, whole in ((ip_range, subnet), (ip_range6, subnet6)):
            low, high = ipam.bounds(given) if given else (1, 0)
            first, last = ipam.bounds(whole) if whole else (1, 0)
            if given and not first <= low <= high <= last:
                raise errors.InvalidArgument(f"the range {given} is not within --subnet {whole or '(none given)'}")
        if (subnet6 or gateway6) and not ipv6:
            raise errors.InvalidArgument(f"{subnet6 or gateway6} is of IPv6: say --ipv6, too")
        files.make_directory(directory(self.root))
        with files.locked(directory(self.root)):
            if name in PREDEFINED or load(self.root, name):
                raise errors.Conflict(f"network with name {name} already exists")
            settings["internal"] = internal
            network: Network = module.made(self.root, name, names.new_id(), subnet, gateway, **settings)
            network = network._replace(
                created=timestamp(), driver=driver, ip_range=ip_range, labels=dict(labels or {}), options=wished
            )
            if ipv6:
                network = module.made6(self.root, network, subnet6, gateway6, ip_range6)
            try:
                steps.execute(module.setup(network), {})
            except BaseException:
                steps.execute(module.remove(network), {})
                raise
        return network

    def remove(self, name: str) -> str:
        """Remove a network that no running container is in. Returns its name. Raises NetworkNotFound, Conflict."""
        if name in PREDEFINED:
            raise errors.Conflict(f"{name} is a pre-defined network and cannot be removed")
        network = self.find(name)
        if network.name == "bridge":
            raise errors.Conflict("bridge is a pre-defined network and cannot be removed")
        files.make_directory(ipam.directory(network), 0o700)
        with files.locked(directory(self.root)), files.locked(ipam.directory(network)):
            users = ipam.leases(network)
            if users:
                known = {identifier: self.containers.read(identifier) for identifier in users}
                words = [f"{record['name']} ({key[:12]})" if record else key[:12] for key, record in known.items()]
                raise errors.Conflict(
                    f"network {network.name} has active endpoints: {', '.join(sorted(words))}: stop or disconnect them"
                )
            steps.execute(drivers.of(network.driver).remove(network), {})
        return str(network.name)

    def prune(self, filters: dict[str, Names] | None = None) -> dict[str, Names]:
        """Remove the networks that no container, running or not, is in; `filters`: until, label, label!.

        Returns NetworksDeleted, their names.
        """
        from . import filters as filtering

        chosen = filtering.of_prunable_networks(filters or {})
        used = {name for record in self.containers.records() for name in asked(record)}
        gone = []
        for network in self.known():
            if network.name not in used and network.name != "bridge" and chosen(network):
                try:
                    gone.append(self.remove(network.name))
                except (errors.Conflict, errors.NetworkNotFound):
                    pass  # a container has come, or somebody else has removed it
        events.note_prune(self.root, "network", 0)
        return {"NetworksDeleted": gone}

    # Plugging in and out

    def connect(
        self, name: str, container: str, ip: str = "", mac: str = "", aliases: tuple[str, ...] = (), ip6: str = ""
    ) -> None:
        """One more network for a container: at once if it runs, else at its next start.

        Raises NetworkNotFound, ContainerNotFound, Conflict, InvalidArgument.
        """
        network = self._shared(name)
        record = self.containers.find(container)
        if not own(record["network"]) and record["network"] != "none":
            raise errors.InvalidArgument(f"{record['name']} has no network of its own: it shares {record['network']}")
        end = {"ip": ip, "ip6": ip6, "mac": mac_address(mac), "aliases": list(aliases)}
        with files.locked(directory(self.root)):
            record = self.containers.find(record["id"])
            there = asked(record)
            if network.name in there:
                raise errors.Conflict(f"endpoint with name {record['name']} already exists in network {network.name}")
            if len(there) >= MOST:
                raise errors.Conflict(f"{record['name']} is in {MOST} networks, which is the most")
            mode = network.name if record["network"] == "none" else record["network"]
            running = record["status"] in ("running", "paused")
            if running and record.get("held") and leads(network):
                ports = [nat.Port(**port) for port in record["held"]]
                self.containers.check_firewall([network.name], ports, record["firewall"])
            self.containers.change(record["id"], networks={**there, network.name: end}, network=mode)
            if running:
                try:
                    self._plug_in(record, network, end)
                except BaseException:
                    try:
                        self._unplug(record, network)
                    finally:
                        self.containers.change(record["id"], networks=there, network=record["network"])
                    raise

    def disconnect(self, name: str, container: str) -> None:
        """One network less for a container, at once if it runs. Raises what `connect` raises."""
        network = self._shared(name)
        with files.locked(directory(self.root)):
            record = self.containers.find(container)
            there = asked(record)
            if network.name not in there:
                raise errors.Conflict(f"container {record['id']} is not connected to network {network.name}")
            if record["status"] in ("running", "paused"):
                self._unplug(record, network)
            rest = {other: end for other, end in there.items() if other != network.name}
            mode = record["network"] if record["network"] in rest else next(iter(rest), "none")
            self.containers.change(record["id"], networks=rest, network=mode)

    def _shared(self, name: str) -> Network:
        if name in ("host", "none"):
            raise errors.InvalidArgument(f"{name} is no network to be plugged into or out of: run --network {name}")
        return self.find(name)

    def _plug_in(self, record: Record, network: Network, end: dict[str, Any]) -> None:
        ends = record["ends"]
        taken = {other["device"] for other in ends.values()}
        device = next(name for name in (f"eth{number}" for number in range(MOST)) if name not in taken)
        way_out = not network.internal and not any(self._leads_out(other) for other in ends)
        way_out6 = self._leads_out(network.name, True) and not any(self._leads_out(other, True) for other in ends)
        wired = plug(network, device, steps.ADDRESS, end, way_out, way_out6)
        values: steps.Values = {"pid": record["pid"]}
        plan = [*drivers.of(network.driver).setup(network), *leases(wired, record["id"]), *plug_in(wired, record["id"])]
        if record["firewall"] == "docker-user" and network.driver == "bridge":
            plan += foreign.admit(network.device, foreign.families(network))
        steps.execute(plan, values)
        address6 = values.get("address6", "")
        found = end_of(self.containers.find(record["id"]), network.name, device, values["address"], address6)
        self._note(record, ends={**ends, network.name: found})
        announce(network, self.containers.find(record["id"]), values["address"], address6)
        if not record.get("asks"):
            self._listen(record)
        with open(f"{self.containers.path(record['id'])}/hosts", "a") as file:
            file.write("".join(f"{each}\t{record['hostname']}\n" for each in (values["address"], address6) if each))
        if leads(network) and not leading(self.root, ends):
            self._lead(record, {**ends, network.name: found})

    def _lead(self, record: Record, ends: Mapping[str, dict[str, str]]) -> None:
        """Its published ports lead to the first of its `ends` that they can lead to, or nowhere.

        First the monitor, whose answer says that nothing more is relayed elsewhere; then the firewall. `ports` of its
        state are those that lead somewhere, `held` those that will.
        """
        held = record["ports"] or record.get("held", [])
        if not held:
            return
        name = leading(self.root, ends)
        end = ends.get(name, {"address": "", "device": ""})
        if not self._tell(record, {"lead": end["address"]}, "led"):
            raise errors.Conflict(f"container {record['id']} is not running")
        if name:
            network = get(self.root, name)
            steps.execute(bridge.setup(network), {})  # as it is there, unless somebody has flushed the table
        ports = [nat.Port(**port) for port in held]
        nat.lead(record["id"], ports, end["address"], end.get("address6", ""), end["device"])
        alive = self.containers.running(record["id"])
        if alive is None or alive["pid"] != record["pid"]:  # it has ended meanwhile, and taken down what was not there
            nat.withdraw(record["id"])
            raise errors.Conflict(f"container {record['id']} is not running")
        self._note(record, ports=held if name else [], held=[] if name else held)

    def _tell(self, record: Record, message: dict[str, Any], answer: str, *descriptors: int) -> bool:
        """Ask the monitor for something; its `answer`. Its door opens a moment after the start is noted.

        Raises Conflict where it has gone, or does not answer.
        """
        from ..runtime import channel, session

        until = time.monotonic() + PATIENCE
        while True:
            try:
                opened = session.connect(self.containers.run_directory(record["id"]))
                break
            except errors.Conflict:
                alive = self.containers.running(record["id"])
                if alive is None or alive["pid"] != record["pid"] or time.monotonic() > until:
                    raise
            time.sleep(0.005)
        try:
            channel.send(opened.end, message, *descriptors)
            return bool(opened.until(answer, patience=PATIENCE)[answer])
        except TimeoutError:
            raise errors.Conflict(
                f"the monitor of container {record['id']} has not answered for {PATIENCE:g} seconds: has it been "
                f"stopped? (ps -o pid,stat,args --ppid 1; kill -CONT it, and try again)"
            ) from None
        finally:
            opened.close()

    def _listen(self, record: Record) -> None:
        """One that began in no network asks for names from now on: its monitor gets the sockets, as by a start."""
        sockets = dns.listen(record["pid"])
        try:
            self._tell(record, {"questions": True}, "taken", *sockets)
        finally:
            for descriptor in sockets:
                os.close(descriptor)
        with open(f"{self.containers.path(record['id'])}/resolv.conf", "r+") as file:  # in place, as hosts
            file.write(self.containers.resolver_settings(record, asks_us=True))
            file.truncate()
        self._note(record, asks=True)

    def _unplug(self, record: Record, network: Network) -> None:
        ends = dict(record["ends"])
        end = ends.pop(network.name, None)
        driver = drivers.of(network.driver)
        noted = {other["device"] for other in ends.values()}
        device = end["device"] if end else driver.plugged(network, record["id"], record["pid"], noted)
        led = leading(self.root, record["ends"])
        if led == network.name or (end is None and not led and leads(network)):
            self._lead(record, ends)  # before anybody else can have the address
        dns.forget(network.name, record["id"])
        if device:
            steps.execute(driver.detach(network, record["id"], False, device=device), {"pid": record["pid"]})
        else:
            ipam.release(network, record["id"])
        if end is None:
            try:
                self._note(record, ends=ends)  # a `connect` that failed may have noted it
            except FileNotFoundError:
                pass  # it has ended
            return
        self._note(record, ends=ends)
        hosts = f"{self.containers.path(record['id'])}/hosts"
        lines = files.read(hosts).decode(errors="replace").splitlines(keepends=True)
        with open(hosts, "r+") as file:  # in place: it is bound into the container
            file.writelines(line for line in lines if line.split("\t")[0] not in end.values())
            file.truncate()
        for six in (False, True):
            following = next((name for name in ends if self._leads_out(name, six)), "")
            if self._leads_out(network.name, six) and following:
                found = get(self.root, following)
                towards = ends[following]["device"] if found.routed else ""
                gateway = found.gateway6 if six else found.gateway
                netlink.route_add("default", gateway, namespace=record["pid"], device=towards)

    def _leads_out(self, name: str, six: bool = False) -> bool:
        network = load(self.root, name)
        if network is None:
            return not six
        return not network.internal and (bool(network.subnet6) or not six)

    def _note(self, record: Record, **fields: Any) -> None:
        path = f"{self.containers.run_directory(record['id'])}/state.json"
        state = json.loads(files.read(path))
        files.write(path, json.dumps({**state, **fields}).encode())


PATIENCE = 10.0  # seconds that a monitor has to take what it is given


def settings_of(driver: str, options: Mapping[str, str]) -> dict[str, Any]:
    """What options say. Raises InvalidArgument for an unknown one, or a value that it cannot have."""
    found: dict[str, Any] = {}
    known = drivers.of(driver).OPTIONS
    for name, value in options.items():
        if name not in known:
            raise errors.InvalidArgument(f"there is no option {name!r} of a {driver}: {', '.join(known)}")
        field, kind = known[name]
        if kind is int and not value.isdecimal():
            raise errors.InvalidArgument(f"{name}={value}: a number")
        choices = ("true", "false") if kind is bool else kind if isinstance(kind, tuple) else ()
        if choices and value not in choices:
            raise errors.InvalidArgument(f"{name}={value}: {', '.join(choices[:-1])} or {choices[-1]}")
        if kind is str and not names.valid(value):
            raise errors.InvalidArgument(f"{name}={value}: a device's name has letters, digits and `_.-`")
        found[field] = value == "true" if kind is bool else int(value) if kind is int else value
    return found


def mac_address(text: str) -> str:
    """A hardware address as the kernel writes it. Raises InvalidArgument for what is none, or a group's."""
    parts = text.lower().replace("-", ":").split(":")
    digits = frozenset("0123456789abcdef")
    if text and not (len(parts) == 6 and all(len(part) == 2 and digits.issuperset(part) for part in parts)):
        raise errors.InvalidArgument(f"{text} is no MAC address: write it like 02:42:ac:11:00:02")
    if text and int(parts[0], 16) & 1:
        raise errors.InvalidArgument(f"{text} is the address of a group, not of one device: make the first byte even")
    return ":".join(parts) if text else ""


def identity(root: str, network: Network) -> str:
    """A network's 64 digits; those of a predefined one are this store's and its name's."""
    if network.id:
        return str(network.id)
    return predefined_id(root, network.name)


def predefined_id(root: str, name: str) -> str:
    """The same for bridge, host and none."""
    from .. import oci

    return oci.digest(f"{root}\0{name}".encode())[7:]


def timestamp() -> str:
    """Now, as documents have it."""
    from ..runtime import log

    return log.timestamp()


def attached() -> dict[str, dict[str, str]]:
    """Every lease, by network, of networks that have gone, too: who has which address. For `system check`."""
    place = f"{host.run_root()}/leases"
    names = {"bridge", *(os.listdir(place) if os.path.isdir(place) else [])}
    return {name: ipam.leases(Network(name, "", "", "", 0)) for name in sorted(names)}
