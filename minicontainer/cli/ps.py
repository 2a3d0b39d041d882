"""`ps`: the containers of the store. Columns, filters and words are docker's."""

from __future__ import annotations

import sys

from .. import errors, files
from ..engine import client, containers
from . import flags, table
from .flags import Flag, number, parse

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from typing import Any

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
        "Networks": column("NETWORKS", lambda record: record["network"].partition(":")[0]),
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
    """`0.0.0.0:8000-8001->80-81/tcp, 443/tcp`: what is published, and what is only exposed."""
    if record["status"] not in ("running", "paused"):
        return ""
    published = sorted((port["container"], port["protocol"], port["address"], port["host"]) for port in record["ports"])
    taken = {(inside, protocol) for inside, protocol, _, _ in published}
    shown: list[list[Any]] = []
    for inside, protocol, address, outside in published:
        for run in shown:
            if run[:2] == [protocol, address] and (inside, outside) == (run[3] + 1, run[5] + 1):
                run[3], run[5] = inside, outside
                break
        else:
            shown.append([protocol, address, inside, inside, outside, outside])
    texts = [
        f"{place(address)}:{span(outside, last_outside)}->{span(inside, last)}/{protocol}"
        for protocol, address, inside, last, outside, last_outside in shown
    ]
    exposed = (
        [text.partition("/") for text in record["config"]["ExposedPorts"]] if record["network"] == "bridge" else []
    )
    free = sorted((int(text), protocol) for text, _, protocol in exposed if (int(text), protocol) not in taken)
    return ", ".join([*texts, *(f"{number}/{protocol}" for number, protocol in free)])


def place(address: str) -> str:
    """An address as it stands before a port: `0.0.0.0`, `[::]`."""
    return f"[{address}]" if ":" in address else address


def span(first: int, last: int) -> str:
    """`80`, or `80-82`."""
    return str(first) if first == last else f"{first}-{last}"
