"""`images`: what is in the local store."""

from __future__ import annotations

from .. import errors
from ..engine import client
from . import flags, table
from .flags import Flag, parse

FLAGS = [
    Flag("-q --quiet", "quiet", "bool", "ids only"),
    Flag("--no-trunc", "no_trunc", "bool", "whole ids"),
    Flag("--digests", "digests", "bool", "the digests of their manifests, too"),
    Flag("-f --filter", "filters", "list", "NAME=VALUE: dangling, label, reference, before, since"),
    Flag("--format", "format", "text", "json, table TEMPLATE or TEMPLATE: '{{.Repository}} {{.Size}}'"),
    Flag("-a --all", "all", "bool", "accepted for docker's sake: nothing is hidden here"),
]


def main(arguments: list[str]) -> int:
    """docker-images(1)."""
    values, rest = parse("images [NAME]", FLAGS, arguments)
    if len(rest) > 1:
        raise errors.InvalidArgument("'minicontainer images' takes one name at most")
    images = client.Client().images
    found = images.list()
    if values["filters"]:
        from ..engine import filters

        found = filters.of_images(images.store, found, flags.filters(values["filters"]))
    rows = []
    for image in found:
        for name in image.names or ["<none>:<none>"]:
            repository, _, tag = name.rpartition(":")
            if not rest or rest[0] in (repository, name):
                rows.append((image, repository, tag))
    whole = bool(values["no_trunc"])
    if values["quiet"]:
        print(
            "".join(f"{image.id if whole else image.id[7:19]}\n" for image in dict.fromkeys(row[0] for row in rows)),
            end="",
        )
        return 0
    usual = ["Repository", "Tag", *(["Digest"] if values["digests"] else []), "ID", "CreatedSince", "Size"]
    print(table.listing(values.get("format", ""), columns(whole), usual, rows, "formatter.imageContext"), end="")
    return 0


def columns(whole: bool) -> dict[str, table.Column]:
    """Every column, of (image, repository, tag)."""
    column = table.Column
    return {
        "Repository": column("REPOSITORY", lambda row: row[1]),
        "Tag": column("TAG", lambda row: row[2]),
        "Digest": column("DIGEST", lambda row: row[0].digest),
        "ID": column("IMAGE ID", lambda row: row[0].id if whole else row[0].id[7:19]),
        "CreatedSince": column("CREATED", lambda row: since(row[0].created)),
        "CreatedAt": column("CREATED AT", lambda row: table.local(row[0].created) if row[0].created else "N/A"),
        "Size": column("SIZE", lambda row: table.size(row[0].size)),
        "Containers": column("CONTAINERS", lambda row: "N/A"),
        "SharedSize": column("SHARED SIZE", lambda row: "N/A"),
        "UniqueSize": column("UNIQUE SIZE", lambda row: "N/A"),
    }


def since(created: str) -> str:
    """How long ago it was made, where that is known."""
    return f"{table.ago(table.seconds_since(created))} ago" if created else "N/A"
