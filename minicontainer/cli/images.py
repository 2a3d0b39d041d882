"""`images`: what is in the local store."""

from __future__ import annotations

from .. import errors
from ..engine import client
from ..image import store
from . import flags, table
from .flags import Flag, parse

FLAGS = [
    Flag("-q --quiet", "quiet", "bool", "ids only"),
    Flag("--no-trunc", "no_trunc", "bool", "whole ids"),
    Flag("--digests", "digests", "bool", "the digests of their manifests, too"),
    Flag("--tree", "tree", "bool", "with platforms, what they take here, and whether a container uses them"),
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
    if values["tree"]:
        for given, name in (
            ("quiet", "--quiet"),
            ("no_trunc", "--no-trunc"),
            ("digests", "--digests"),
            ("format", "--format"),
        ):
            if values.get(given):
                raise errors.InvalidArgument(f"{name} is not yet supported with --tree")
        print(tree([image for image in found if not rest or is_called(image, rest[0])]), end="")
        return 0
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


def is_called(image: store.Image, name: str) -> bool:
    """Whether it has this name, or one in this repository."""
    return any(name in (full, full.rpartition(":")[0]) for full in image.names)


def tree(found: list[store.Image]) -> str:
    """Names, and below them the platform. DISK USAGE: blobs and unpacked layers. CONTENT SIZE: blobs. U: in use."""
    used = {record["image_id"] for record in client.Client().containers.records()}
    rows = []
    for image in found:
        size = sum(int(part.get("size") or 0) for part in [image.manifest["config"], *image.manifest["layers"]])
        cells = [image.id[7:19], table.size(size + image.size), table.size(size), "U" if image.id in used else ""]
        names = image.names or ["<untagged>"]
        rows += [[name, "", "", "", ""] for name in names[:-1]]
        rows.append([names[-1], *cells])
        platform = "/".join(filter(None, (image.os, image.architecture, str(image.config.get("variant") or ""))))
        rows.append([f"└─ {platform}", image.digest[7:19], *cells[1:]])
    lines = table.show(["IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA"], rows).split("\n")
    return "".join(f"{line.rstrip()}\n" for line in lines)


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
