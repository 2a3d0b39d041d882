"""`volume`: directories that outlive containers. `volume inspect` is inspect.py's."""

from __future__ import annotations

from typing import Any

from ..engine import client
from . import UsageError, flags, pruning, table
from .each import one_by_one
from .flags import Flag, parse, verb_of

FLAGS = {
    "create": [
        Flag("--label", "labels", "list", "NAME=VALUE"),
        Flag("-d --driver", "driver", "text", "local, the only one"),
    ],
    "ls": [
        Flag("-q --quiet", "quiet", "bool", "names only"),
        Flag("-f --filter", "filters", "list", "NAME=VALUE: dangling, driver, label, name"),
        Flag("--format", "format", "text", "json, table TEMPLATE or TEMPLATE: '{{.Name}} {{.Mountpoint}}'"),
    ],
    "rm": [],
    "prune": [
        Flag("-a --all", "all", "bool", "also those that have a name"),
        Flag("-f --force", "force", "bool", "do not ask"),
        Flag("--filter", "filters", "list", "label=NAME[=VALUE], label!=NAME[=VALUE]"),
    ],
}

USAGE = "volume create | ls | inspect | rm | prune"


def main(arguments: list[str]) -> int:
    """docker-volume(1)."""
    verb = verb_of(arguments, FLAGS, USAGE)
    values, names = parse(f"volume {verb}", FLAGS[verb], arguments[1:])
    engine = client.Client()
    volumes = engine.volumes
    if verb == "create":
        if values.get("driver", "local") != "local":
            raise UsageError(f"there is no volume driver {values['driver']!r}: local is the only one")
        labels = dict(text.partition("=")[::2] for text in values["labels"])
        print(volumes.create(names[0] if names else "", labels))
        return 0
    if verb == "ls":
        print(listing(engine, values), end="")
        return 0
    if verb == "prune":
        if names:
            raise UsageError(f"volume prune takes no {names[0]!r}")
        return pruning.volume(values)
    if not names:
        raise UsageError(f"volume {verb} needs a name; `minicontainer volume ls` lists them")

    def remove(name: str) -> str:
        volumes.remove(name, engine.containers.using_volume(name))
        return name

    return one_by_one(names, remove)


def listing(engine: client.Client, values: dict[str, Any]) -> str:
    """docker-volume-ls(1)."""
    found = [engine.volumes.inspect(name) for name in engine.volumes.list()]
    if values["filters"]:
        from ..engine import filters

        found = filters.of_volumes(found, set(engine.containers.volumes_in_use()), flags.filters(values["filters"]))
    if values["quiet"]:
        return "".join(f"{volume['Name']}\n" for volume in found)
    return table.listing(values.get("format", ""), columns(), ["Driver", "Name"], found, "formatter.volumeContext")


def columns() -> dict[str, table.Column]:
    """Every column, of `volume inspect`'s documents."""
    known = {name: table.Column(header, lambda volume, name=name: volume.get(name, "N/A")) for name, header in SHOWN}
    known["Labels"] = table.Column("LABELS", lambda volume: ",".join(f"{k}={v}" for k, v in labels(volume)))
    known["Label"] = table.Column("", lambda volume, name="": dict(labels(volume)).get(name, ""))
    return known


def labels(volume: dict[str, Any]) -> list[tuple[str, str]]:
    """A volume's labels, sorted."""
    return sorted((volume["Labels"] or {}).items())


SHOWN = (
    ("Name", "VOLUME NAME"), ("Driver", "DRIVER"), ("Scope", "SCOPE"), ("Mountpoint", "MOUNTPOINT"), ("Size", "SIZE"),
    ("Links", "LINKS"), ("Availability", "AVAILABILITY"), ("Group", "GROUP"), ("Status", "STATUS"),
)  # fmt: skip
