"""`network`: bridges by name, and containers plugged in and out of them. `network inspect` is inspect.py's."""

from __future__ import annotations

import sys
from typing import Any

from .. import errors
from ..engine import client, networks
from ..network import Network, bridge, spoofing
from . import UsageError, flags, pruning, table
from .each import one_by_one
from .flags import Flag, parse, verb_of
from .run import pair

FLAGS = {
    "create": [
        Flag("-d --driver", "driver", "text", "bridge (default), macvlan, ipvlan"),
        Flag("--subnet", "subnet", "list", "the addresses behind it: 172.29.0.0/16 (default: one that nobody has)"),
        Flag("--gateway", "gateway", "list", "the host's own address in it (default: the first)"),
        Flag("--ip-range", "ip_range", "list", "the part of the subnet that addresses are taken from"),
        Flag("--ipv6", "ipv6", "bool", "addresses of IPv6, too; --subnet fd00:1::/64, or one of this store's own"),
        Flag("--internal", "internal", "bool", "no way out of it, and none in"),
        Flag("--label", "labels", "list", "NAME=VALUE"),
        Flag("-o --opt", "options", "list", f"NAME=VALUE: {', '.join(bridge.OPTIONS)}; parent, {{mac,ip}}vlan_mode"),
    ],
    "ls": [
        Flag("-q --quiet", "quiet", "bool", "ids only"),
        Flag("--no-trunc", "no_trunc", "bool", "whole ids"),
        Flag("-f --filter", "filters", "list", "NAME=VALUE: dangling, driver, id, label, name, scope, type"),
        Flag("--format", "format", "text", "json, table TEMPLATE or TEMPLATE: '{{.Name}} {{.Driver}}'"),
    ],
    "connect": [
        Flag("--ip", "ip", "text", "the address that it is to have there"),
        Flag("--ip6", "ip6", "text", "its address of IPv6 there"),
        Flag("--alias", "aliases", "list", "one more name of the container in that network"),
    ],
    "disconnect": [Flag("-f --force", "force", "bool", "as it is without: nothing can hold it back")],
    "rm": [Flag("-f --force", "force", "bool", "say nothing of one that is not there")],
    "reload": [],
    "prune": [
        Flag("-f --force", "force", "bool", "do not ask"),
        Flag("--filter", "filters", "list", "until=24h, label=NAME[=VALUE], label!=NAME[=VALUE]"),
    ],
}

USAGE = "network create | ls | inspect | connect | disconnect | rm | prune | reload"
WORDS = {"create": "NETWORK", "connect": "NETWORK CONTAINER", "disconnect": "NETWORK CONTAINER", "rm": "NETWORK …"}


def main(arguments: list[str]) -> int:
    """docker-network(1)."""
    verb = verb_of(arguments, FLAGS, USAGE)
    values, names = parse(f"network {verb} {WORDS.get(verb, '')}".rstrip(), FLAGS[verb], arguments[1:])
    needed = len(WORDS.get(verb, "").split())
    if (len(names) < 1) if verb == "rm" else (len(names) != needed):
        raise UsageError(f"network {verb} takes {WORDS.get(verb) or 'nothing'}")
    if verb == "reload":
        return reload()
    found = client.Client().networks
    return {"create": create, "ls": ls, "connect": connect, "disconnect": disconnect, "rm": rm, "prune": prune}[verb](
        found, names, values
    )


def reload() -> int:
    """podman-network-reload(1), for all containers."""
    for identifier in client.Client().firewall.reload():
        print(identifier)
    return 0


def create(found: networks.Networks, names: list[str], values: dict[str, Any]) -> int:
    """docker-network-create(1)."""
    options = dict(pair("--opt", text) for text in values.pop("options"))
    labels = dict(pair("--label", text, empty=True) for text in values.pop("labels"))
    for name in ("subnet", "gateway", "ip_range"):
        given = values.pop(name)
        for key, six in ((name, False), (f"{name}6", True)):
            texts = [text for text in given if (":" in text) == six]
            if len(texts) > 1:
                raise errors.InvalidArgument("bridge driver doesn't support multiple subnets: one of each family")
            values[key] = "".join(texts)
    network = found.make(names[0], labels=labels, options=options, **values)
    print(network.id)
    if network.driver == "bridge" and spoofing.lacking():
        print(f"minicontainer: warning: {spoofing.lacking()}", file=sys.stderr)
    return 0


def connect(found: networks.Networks, names: list[str], values: dict[str, Any]) -> int:
    """docker-network-connect(1)."""
    addresses = {name: values.get(name, "") for name in ("ip", "ip6")}
    found.connect(names[0], names[1], aliases=tuple(values["aliases"]), **addresses)
    return 0


def disconnect(found: networks.Networks, names: list[str], values: dict[str, Any]) -> int:
    """docker-network-disconnect(1)."""
    found.disconnect(names[0], names[1])
    return 0


def rm(found: networks.Networks, names: list[str], values: dict[str, Any]) -> int:
    """docker-network-rm(1)."""

    def remove(name: str) -> str | None:
        try:
            return found.remove(name)
        except errors.NetworkNotFound:
            if not values["force"]:
                raise
            return None

    return one_by_one(names, remove)


def prune(found: networks.Networks, names: list[str], values: dict[str, Any]) -> int:
    """docker-network-prune(1)."""
    warning = "WARNING! This will remove all custom networks not used by at least one container."
    if pruning.sure(warning, values["force"], values["filters"]):
        pruning.told("Deleted Networks", found.prune(flags.filters(values["filters"]))["NetworksDeleted"])
    return 0


def ls(found: networks.Networks, names: list[str], values: dict[str, Any]) -> int:
    """docker-network-ls(1)."""
    from ..engine import filters

    predefined = [Network(name, "", "", "", 0, driver=name.replace("none", "null")) for name in ("host", "none")]
    wanted = filters.of_networks(found.root, flags.filters(values["filters"]))
    shown = [network for network in sorted([*found.known(), *predefined]) if wanted(network)]
    width = 64 if values["no_trunc"] else 12
    if values["quiet"]:
        print("".join(f"{networks.identity(found.root, network)[:width]}\n" for network in shown), end="")
        return 0
    columns = {
        "ID": table.Column("NETWORK ID", lambda network: networks.identity(found.root, network)[:width]),
        "Name": table.Column("NAME", lambda network: network.name),
        "Driver": table.Column("DRIVER", lambda network: network.driver),
        "Scope": table.Column("SCOPE", lambda network: "local"),
        "CreatedAt": table.Column("CREATED AT", lambda network: network.created),
        "IPv6": table.Column("IPV6", lambda network: str(bool(network.subnet6)).lower()),
        "Internal": table.Column("INTERNAL", lambda network: str(network.internal).lower()),
        "Labels": table.Column(
            "LABELS", lambda network: ",".join(f"{k}={v}" for k, v in sorted(network.labels.items()))
        ),
        "Label": table.Column("", lambda network, name="": network.labels.get(name, "")),
    }
    usual = ["ID", "Name", "Driver", "Scope"]
    print(table.listing(values.get("format", ""), columns, usual, shown, "formatter.networkContext"), end="")
    return 0
