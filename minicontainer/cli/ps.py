"""`ps`: the containers of the store. Its columns are docker's."""

from __future__ import annotations

from ..engine import client, containers
from . import table
from .flags import Flag, parse

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from typing import Any

FLAGS = [
    Flag("-a --all", "all", "bool", "also those that do not run"),
    Flag("-q --quiet", "quiet", "bool", "ids only"),
    Flag("--no-trunc", "no_trunc", "bool", "whole ids and commands"),
]


def main(arguments: list[str]) -> int:
    """docker-ps(1)."""
    values, _ = parse("ps", FLAGS, arguments)
    records = [
        record
        for record in client.Client().containers.records()
        if values["all"] or record["status"] in containers.LIVE
    ]
    identifiers = [record["id"] if values["no_trunc"] else record["id"][:12] for record in records]
    if values["quiet"]:
        print("\n".join(identifiers), end="\n" if identifiers else "")
        return 0
    rows = []
    for identifier, record in zip(identifiers, records, strict=True):
        words = [f"'{word}'" if " " in word else word for word in record["args"]]
        command = " ".join(words).replace("\n", " ")
        if not values["no_trunc"] and len(command) > 20:
            command = command[:19] + "…"
        created = f"{table.ago(table.seconds_since(record['created']))} ago"
        rows.append(
            [identifier, record["image"], f'"{command}"', created, status(record), ports(record), record["name"]]
        )
    print(table.show(["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"], rows))
    return 0


def status(record: dict[str, Any]) -> str:
    """`Up 4 seconds`, `Exited (0) 2 minutes ago`."""
    if record["status"] in ("running", "paused"):
        paused = " (Paused)" if record["status"] == "paused" else ""
        return f"Up {table.ago(table.seconds_since(record['started']))}{paused}"
    if record["status"] in ("exited", "restarting"):
        since = table.ago(table.seconds_since(record["finished"]))
        return f"{record['status'].capitalize()} ({record['exit_code']}) {since} ago"
    return containers.word(record).capitalize()


def ports(record: dict[str, Any]) -> str:
    """`0.0.0.0:8000->80/tcp`."""
    if record["status"] not in ("running", "paused"):
        return ""
    return ", ".join(
        f"{port['address']}:{port['host']}->{port['container']}/{port['protocol']}" for port in record["ports"]
    )
