"""`search`: images of the local store by a word of their name or description. No registry is asked."""

from __future__ import annotations

from .. import errors
from ..engine import client
from ..image import store
from . import table
from .flags import Flag, number, parse

FLAGS = [
    Flag("--limit", "limit", "text", "so many at most (default 25)"),
    Flag("--no-trunc", "no_trunc", "bool", "whole descriptions"),
    Flag("--format", "format", "text", "json, table TEMPLATE or TEMPLATE: '{{.Name}} {{.Description}}'"),
]

DESCRIPTIONS = ("org.opencontainers.image.description", "org.opencontainers.image.title", "description")
LONGEST = 45  # characters of a description


def main(arguments: list[str]) -> int:
    """docker-search(1), which asks Docker Hub instead."""
    values, words = parse("search TERM", FLAGS, arguments)
    if len(words) != 1:
        raise errors.InvalidArgument('"minicontainer search" needs one word')
    limit = number("--limit", values.get("limit", "25"))
    if not 1 <= limit <= 100:
        raise errors.InvalidArgument(f"limit {limit} is outside the range of [1, 100]")
    term = words[0].lower()
    rows = []
    for image in client.Client().images.list():
        told = description(image)
        for name in image.names:
            if term in name.lower() or term in told.lower():
                rows.append((name, told.replace("\n", " "), image))
    column = table.Column
    columns = {
        "Name": column("NAME", lambda row: row[0]),
        "Description": column("DESCRIPTION", lambda row: row[1] if values["no_trunc"] else table.cut(row[1], LONGEST)),
        "ID": column("IMAGE ID", lambda row: row[2].id[7:19]),
        "Size": column("SIZE", lambda row: table.size(row[2].size)),
    }
    usual = ["Name", "Description", "ID", "Size"]
    print(table.listing(values.get("format", ""), columns, usual, rows[:limit], "formatter.searchContext"), end="")
    return 0


def description(image: store.Image) -> str:
    """What the image says of itself in a label."""
    labels = (image.config.get("config") or {}).get("Labels") or {}
    return next((str(labels[name]) for name in DESCRIPTIONS if labels.get(name)), "")
