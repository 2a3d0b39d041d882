"""`ps`: the containers of the store. Columns, filters and words are docker's."""

from __future__ import annotations

import sys

from .. import errors, files
from ..engine import client, containers, networks
from . import flags, table
from .flags import Flag, number, parse

FLAGS = [
    Flag("-a --all", "all", "bool", "also those that do not run"),
    Flag("-q --quiet", "quiet", "bool", "ids only"),
    Flag("-n --last", "last", "text", "the newest N, whether they run or not"),
    Flag("-l --latest", "latest", "bool", "the newest one"),
    Flag("-s --size", "size", "bool", "what their own files take"),
    Flag("-f --filter", "filters", "list", "NAME=VALUE: status, name, label, ancestor, exited, publish, volume …"),
    Flag("--format", "format", "text", "json, table TEMPLATE or TEMPLATE: '{{.Names}} {{.Status}}'"),
    Flag("--no-trunc", "no_trunc", "bool", "whole ids, commands and mounts"),
]

USUAL = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"]


def main(arguments: list[str]) -> int:
    """docker-ps(1)."""
    values, rest = parse("ps", FLAGS, arguments)
    if rest:
        raise errors.InvalidArgument("'minicontainer ps' accepts no arguments; --filter name=… narrows the list")
    last = number("-n, --last", values["last"]) if "last" in values else -1
    if values["latest"]:
        last = 1
    engine = client.Client().containers
    form = values.get("format", "")
    found = engine.records()
    asked = flags.filters(values["filters"])
    if asked:
        from ..engine import filters

        found = filters.of_containers(engine, found, asked)
    if not values["all"] and last < 0 and "status" not in asked:
        found = [record for record in found if record["status"] in containers.LIVE]
    found = found[:last] if last > 0 else found
    if values["quiet"] and not form:
        print("".join(f"{record['id'] if values['no_trunc'] else record['id'][:12]}\n" for record in found), end="")
        return 0
    if values["quiet"]:
        print("WARNING: Ignoring custom format, because both --format and --quiet are set.", file=sys.stderr)
        form = "{{.ID}}"
    sized = values["size"] or ".Size" in form
    usual = [*USUAL, "Size"] if values["size"] else USUAL
    columns = columns_of(engine, whole=values["no_trunc"], sized=sized)
    print(table.listing(form, columns, usual, found, "formatter.ContainerContext"), end="")
    return 0


def columns_of(engine: containers.Containers, whole: bool, sized: bool) -> dict[str, table.Column]:
    """Every column, of records; `whole`, nothing is cut off."""

    def size(record: containers.Record) -> str:
        if not sized:
            return "0B"
        own = files.disk_usage(f"{engine.path(record['id'])}/upper")
        return f"{table.size(own)} (virtual {table.size(own + engine.images.size_of(record['layers']))})"

    meant: dict[str, str] = {}  # by an image's name, the id that it has now: looked up once, however many use it

    def image(record: containers.Record) -> str:
        """The image's name as it was typed; once that is another's or nobody's, its id."""
        name = record["image"]
        if name not in meant:
            meant[name] = id_of(engine, name)
        if meant[name] == record["image_id"]:
            return str(name)
        return str(record["image_id"] if whole else record["image_id"][7:19])

    column = table.Column
    return {
        "ID": column("CONTAINER ID", lambda record: record["id"] if whole else record["id"][:12]),
        "Image": column("IMAGE", image),
        "Command": column("COMMAND", lambda record: f'"{cut(command(record), 20, whole)}"'),
        "RunningFor": column("CREATED", lambda record: f"{table.ago(table.seconds_since(record['created']))} ago"),
        "Status": column("STATUS", status),
        "Ports": column("PORTS", ports),
        "Names": column("NAMES", lambda record: record["name"]),
        "Size": column("SIZE", size),
        "State": column("STATE", containers.word),
        "CreatedAt": column("CREATED AT", lambda record: table.local(record["created"])),
        "Labels": column("LABELS", lambda record: ",".join(f"{k}={v}" for k, v in sorted(labels(record).items()))),
        "Label": column("", lambda record, name="": labels(record).get(name, "")),
        "LocalVolumes": column("LOCAL VOLUMES", lambda record: str(len(mounts(record, "volume")))),
        "Mounts": column("MOUNTS", lambda record: ",".join(cut(name, 15, whole) for name in mounts(record))),
        "Networks": column(
            "NETWORKS", lambda record: ",".join(networks.asked(record)) or record["network"].partition(":")[0]
        ),
        "Platform": column("PLATFORM", lambda record: None),
    }


def id_of(engine: containers.Containers, name: str) -> str:
    """The id of the image that has this name, "" where it has gone or is damaged."""
    try:
        return engine.images.get(name).id
    except (errors.NotFound, errors.InvalidArgument, errors.InvalidImage):
        return ""


def cut(text: str, most: int, whole: bool) -> str:
    """So many characters, an ellipsis among them where that is not all."""
    return text if whole else table.cut(text, most)


def command(record: containers.Record) -> str:
    """What it runs, in one line."""
    words = [f"'{word}'" if " " in word else word for word in record["args"]]
    return " ".join(words).replace("\n", " ")


def labels(record: containers.Record) -> dict[str, str]:
    """Its labels, its image's among them."""
    found: dict[str, str] = record["config"]["Labels"]
    return found


def mounts(record: containers.Record, kind: str = "") -> list[str]:
    """The names of its volumes, and the paths that are bound in."""
    return [mount["source"] for mount in record["mounts"] if mount["kind"] == (kind or mount["kind"]) != "tmpfs"]


def status(record: containers.Record) -> str:
    """`Up 4 seconds (healthy)`, `Exited (0) 2 minutes ago`."""
    if record["status"] in ("running", "paused"):
        more = f" ({record['health']})" if record.get("health") else ""
        more = " (Paused)" if record["status"] == "paused" else more.replace("(starting", "(health: starting")
        return f"Up {table.ago(table.seconds_since(record['started']))}{more}"
    if record["status"] in ("exited", "restarting"):
        since = table.ago(table.seconds_since(record["finished"]))
        return f"{record['status'].capitalize()} ({record['exit_code']}) {since} ago"
    return containers.word(record).capitalize()


def ports(record: containers.Record) -> str:
    """`443/tcp, 0.0.0.0:9000-9001->9000-9001/tcp, 0.0.0.0:8000->80/tcp`: what is exposed and what is published.

    In docker's order: ranges are what has the same numbers on both sides, and come first (DisplayablePorts of its cli).
    """
    if record["status"] not in ("running", "paused"):
        return ""
    every = {(port["container"], port["address"], port["host"], port["protocol"]) for port in record["ports"]}
    taken = {(inside, protocol) for inside, _, _, protocol in every}
    if record["network"] == "bridge":
        exposed = [text.partition("/") for text in record["config"]["ExposedPorts"]]
        every |= {(int(text), "", 0, kind) for text, _, kind in exposed if (int(text), kind) not in taken}
    groups: dict[tuple[str, str], list[int]] = {}
    ranges, single = [], []
    for inside, address, outside, protocol in sorted(every):
        if address and inside != outside:
            single.append(f"{place(address)}:{outside}->{inside}/{protocol}")
            continue
        group = groups.setdefault((address, protocol), [inside, inside - 1])
        if inside != group[1] + 1:
            ranges.append(span(address, protocol, *group))
            group[0] = inside
        group[1] = inside
    ranges += [span(*key, *group) for key, group in groups.items()]
    return ", ".join(ranges + single)


def place(address: str) -> str:
    """An address as it stands before a port: `0.0.0.0`, `[::]`."""
    return f"[{address}]" if ":" in address else address


def span(address: str, protocol: str, first: int, last: int) -> str:
    """`80/tcp`, `80-82/tcp`, `0.0.0.0:80-82->80-82/tcp`."""
    numbers = str(first) if first == last else f"{first}-{last}"
    return f"{place(address)}:{numbers}->{numbers}/{protocol}" if address else f"{numbers}/{protocol}"
