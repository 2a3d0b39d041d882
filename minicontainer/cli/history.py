"""`history`: what was done to make an image, and what each step brought."""

from __future__ import annotations

from typing import Any

from .. import errors
from ..engine import client
from . import images, table
from .flags import Flag, parse

FLAGS = [
    Flag("-H --human", "human", "bool", "sizes and times as people say them (=false: bytes, RFC 3339)"),
    Flag("--no-trunc", "no_trunc", "bool", "whole ids and commands"),
    Flag("-q --quiet", "quiet", "bool", "ids only"),
    Flag("--format", "format", "text", "json, table TEMPLATE or TEMPLATE: '{{.CreatedBy}} {{.Size}}'"),
]

LONGEST = 45  # characters of a command


def main(arguments: list[str]) -> int:
    """docker-history(1)."""
    values, names = parse("history IMAGE", FLAGS, ["--human", *arguments])
    if len(names) != 1:
        raise errors.InvalidArgument('"minicontainer history" needs one image; `minicontainer images` lists them')
    told = client.Client().images.history(names[0])
    known = columns(values["no_trunc"], values["human"])
    form = values.get("format", "")
    if values["quiet"] and not form:
        form = "{{.ID}}"
    usual = ["ID", "CreatedSince" if values["human"] else "CreatedAt", "CreatedBy", "Size", "Comment"]
    print(table.listing(form, known, usual, told, "image.historyContext"), end="")
    return 0


def columns(whole: bool, human: bool) -> dict[str, table.Column]:
    """Every column, of an entry."""
    column = table.Column

    def identifier(entry: dict[str, Any]) -> str:
        return str(entry["Id"]) if whole else str(entry["Id"]).removeprefix("sha256:")[:12]

    def command(entry: dict[str, Any]) -> str:
        text = entry["CreatedBy"].replace("\t", " ")
        return text if whole else table.cut(text, LONGEST)

    def moment(entry: dict[str, Any]) -> str:
        created = entry["Created"]
        return f"{created[:19]}Z" if created else "0001-01-01T00:00:00Z"

    return {
        "ID": column("IMAGE", lambda entry: identifier(entry) if entry["Id"] != "<missing>" else entry["Id"]),
        "CreatedSince": column("CREATED", lambda entry: images.since(entry["Created"]) if human else moment(entry)),
        "CreatedAt": column("CREATED AT", moment),
        "CreatedBy": column("CREATED BY", command),
        "Size": column("SIZE", lambda entry: table.size(entry["Size"]) if human else str(entry["Size"])),
        "Comment": column("COMMENT", lambda entry: entry["Comment"]),
    }
