"""`images`: what is in the local store."""

from ..engine import client
from . import table
from .flags import Flag, parse

FLAGS = [
    Flag("-q --quiet", "quiet", "bool", "ids only"),
    Flag("--no-trunc", "no_trunc", "bool", "whole ids"),
    Flag("-a --all", "all", "bool", "accepted for docker's sake: nothing is hidden here"),
]


def main(arguments: list[str]) -> int:
    """docker-images(1)."""
    values, rest = parse("images [NAME]", FLAGS, arguments)
    rows = []
    for image in client.Client().images.list():
        identifier = image.id if values["no_trunc"] else image.id[7:19]
        created = f"{table.ago(table.seconds_since(image.created))} ago" if image.created else "N/A"
        for name in image.names or ["<none>:<none>"]:
            repository, _, tag = name.rpartition(":")
            if not rest or rest[0] in (repository, name):
                rows.append([repository, tag, identifier, created, table.size(image.size)])
    if values["quiet"]:
        print("\n".join(dict.fromkeys(row[2] for row in rows)), end="\n" if rows else "")
    else:
        print(table.show(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"], rows))
    return 0
