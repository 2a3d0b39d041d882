"""`firewall plan`: the rules that publishing a port would take, before they are there, and who would reach it."""

from __future__ import annotations

import json

from ..engine import client, firewall
from ..network import nat
from . import Help, UsageError, flags, ps, table
from .flags import Flag, parse

FLAGS = [
    Flag("-p --publish", "ports", "list", "[ip:]host:container[/udp], as `run` has it"),
    Flag("-P --publish-all", "publish_all_ports", "bool", "what IMAGE exposes"),
    Flag("--network --net", "network", "text", "bridge (default), or a network's name"),
    Flag("--firewall", "firewall", "text", "docker-user, ignore: as `run` has it"),
    Flag("--format", "format", "text", "json"),
]

USAGE = "firewall plan [-p PORT …] [-P IMAGE]"


def main(arguments: list[str]) -> int:
    """firewall plan: looks, and changes nothing."""
    if arguments and arguments[0] in ("-h", "--help"):
        raise Help(flags.usage(USAGE, FLAGS))
    if not arguments or arguments[0] != "plan":
        raise UsageError(USAGE)
    values, rest = parse(USAGE, FLAGS, arguments[1:], stop=True)
    if values.get("format") not in (None, "json"):
        raise UsageError(f"--format {values['format']}: json")
    here = client.Client()
    ports = nat.parse_ports(values["ports"])
    if values["publish_all_ports"]:
        if not rest:
            raise UsageError("-P publishes what an image exposes: which one?")
        config = here.images.store.get(rest[0]).config.get("config") or {}
        exposed = nat.parse_exposed(list(config.get("ExposedPorts") or {}))
        ports += map(nat.any_free, nat.unpublished(exposed, ports))
    plan = here.firewall.plan(ports, values.get("firewall", ""), values.get("network", "bridge"))
    print(json.dumps(plan.document(), indent=4) if "format" in values else text(plan), end="\n")
    return 0


def text(plan: firewall.Plan) -> str:
    """For a person."""
    parts = ["# What `run` would have nft(8) do for the ports, and for their network if need be:"]
    parts += [f"    {rule}" for rule in plan.rules] or ["    nothing: all of it is there"]
    if any("$" in rule for rule in plan.rules):
        parts.append("    # what begins with $ is known then")
    for port in plan.ports:
        where = f"{ps.place(port.address) or 'all addresses'}, port {numbers(port)}"
        parts += ["", f"# Who would reach {port.container}/{port.protocol}, published on {where}:"]
        rows = [[way.who, way.family, "yes" if way.reached else "no", way.why] for way in plan.reach(port)]
        parts += [f"    {line}" for line in table.show(["FROM", "BY", "REACHED", "HOW"], rows).splitlines()]
    parts += ["", "# Other people's firewalls:"]
    for whose, here, does, mend in plan.others():
        parts.append(f"    {whose or 'somebody'} ({'here' if here else 'not here'}): {does}")
        if mend:
            parts.append(f"        mend: {mend}")
    if plan.refusal:
        parts += ["", f"# `run` would refuse: {plan.refusal}"]
    return "\n".join(parts)


def numbers(port: nat.Port) -> str:
    """`8000`, `any of 8000-8010`, `any that is free`."""
    if not port.host:
        return "any that is free"
    return str(port.host) if port.host == port.host_end else f"any of {port.host}-{port.host_end}"
