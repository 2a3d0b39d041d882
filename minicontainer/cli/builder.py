"""`builder`: what the build cache holds, and giving it back. `build` itself is build.py's."""

from __future__ import annotations

from typing import Any

from .. import host
from ..engine import buildcache
from . import Help, UsageError, flags, pruning, table
from .flags import Flag, parse

FLAGS = {
    "du": [
        Flag("--filter", "filters", "list", "until=24h, id=PATTERN, type=regular or exec.cachemount, shared=true"),
        Flag("--verbose", "verbose", "bool", "all that is known of each"),
    ],
    "prune": [
        Flag("-a --all", "all", "bool", "also steps whose layers images have, too"),
        Flag("-f --force", "force", "bool", "do not ask"),
        Flag("--filter", "filters", "list", "until=24h, id=PATTERN, type=regular or exec.cachemount, shared=true"),
        Flag("--keep-storage", "keep", "text", "1g: so much may stay, of what was used last"),
    ],
}

USAGE = "builder du [--verbose] | builder prune [-a] [-f] [--filter until=24h] [--keep-storage 1g] | builder build"


def main(arguments: list[str]) -> int:
    """docker-builder(1)."""
    verb = arguments[0] if arguments else ""
    if verb in ("-h", "--help"):
        raise Help(f"usage: minicontainer {USAGE}")
    if verb not in FLAGS:
        raise UsageError(USAGE)
    values, rest = parse(f"builder {verb}", FLAGS[verb], arguments[1:])
    if rest:
        raise UsageError(f"builder {verb} takes no {rest[0]!r}")
    if verb == "prune":
        return pruning.builder(values)
    found = buildcache.df(host.root(), flags.filters(values["filters"]))
    print(verbose(found) if values["verbose"] else listed(found), end="")
    print(summary(found))
    return 0


def listed(found: list[dict[str, Any]]) -> str:
    """A line for each: buildx's columns. A star: what it holds changes, or others have it, too."""
    rows = [
        [
            one["ID"] + "*" * (one["Type"] == buildcache.MOUNT), truth(not one["InUse"]),
            table.size(one["Size"]) + "*" * one["Shared"], f"{ago(one['LastUsedAt'])} ago",
        ]
        for one in found
    ]  # fmt: skip
    return table.show(["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"], rows) + "\n"


def verbose(found: list[dict[str, Any]]) -> str:
    """Buildx's lines for each."""
    text = ""
    for one in found:
        rows = {
            "ID": one["ID"],
            **({"Parent": one["Parents"][0]} if one["Parents"] else {}),
            "Created at": table.local(one["CreatedAt"]),
            "Mutable": truth(one["Type"] == buildcache.MOUNT),
            "Reclaimable": truth(not one["InUse"]),
            "Shared": truth(one["Shared"]),
            "Size": table.size(one["Size"]),
            "Description": one["Description"],
            "Last used": f"{ago(one['LastUsedAt'])} ago",
            "Type": one["Type"],
        }
        text += table.aligned("\n".join(f"{name}:\t{value}" for name, value in rows.items())) + "\n\n"
    return text


def summary(found: list[dict[str, Any]]) -> str:
    """What it comes to."""
    total = sum(one["Size"] for one in found)
    shared = sum(one["Size"] for one in found if one["Shared"])
    free = sum(one["Size"] for one in found if not one["InUse"])
    rows = [("Shared", shared), ("Private", total - shared)] if shared else []
    rows += [("Reclaimable", free), ("Total", total)]
    return table.aligned("\n".join(f"{name}:\t{table.size(size)}" for name, size in rows))


def truth(value: bool) -> str:
    """As Go prints it."""
    return "true" if value else "false"


def ago(timestamp: str) -> str:
    """How long ago a time was, in docker's words."""
    return table.ago(table.seconds_since(timestamp))
