"""`stats`: what containers use. In a terminal a table that refreshes itself, else one look."""

from __future__ import annotations

import sys
import time
from typing import Any

from ..engine import client, containers, usage
from . import table
from .flags import Flag, parse

FLAGS = [
    Flag("-a --all", "all", "bool", "also those that do not run"),
    Flag("--no-stream", "once", "bool", "one look, in a terminal, too"),
    Flag("--no-trunc", "no_trunc", "bool", "whole ids"),
    Flag("--format", "format", "text", "json, table TEMPLATE or TEMPLATE: '{{.Name}} {{.CPUPerc}}'"),
]

PAUSE = 1.0  # seconds between two looks
USUAL = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"]
# console_codes(4): to the first line, erase to the end of this line, erase all below
HOME, REST_OF_LINE, BELOW = "\033[H", "\033[K", "\033[J"


def main(arguments: list[str]) -> int:
    """docker-stats(1)."""
    values, names = parse("stats [CONTAINER …]", FLAGS, arguments)
    engine = client.Client().containers
    columns = columns_of(bool(values["no_trunc"]))
    form = values.get("format", "")
    live = sys.stdout.isatty() and not values["once"]
    before = looked(engine, names, values["all"])
    if live:
        print(HOME + BELOW, end="")
    while True:
        time.sleep(PAUSE)
        after = looked(engine, names, values["all"])
        rows = [
            (name, record, usage.usage(before.get(record["id"], (None,))[-1], seen))
            for name, record, seen in after.values()
        ]
        shown = table.listing(form, columns, USUAL, rows, "container.statsContext")
        if not live:
            print(shown, end="")
            return 0
        print(HOME + shown.replace("\n", f"{REST_OF_LINE}\n") + BELOW, end="", flush=True)
        before = after


def looked(engine: containers.Containers, names: list[str], everything: bool) -> dict[str, tuple[Any, ...]]:
    """(name as it was typed, record, sample) by id. Raises ContainerNotFound for a name that is nobody's."""
    if names:
        found = [(name, engine.find(name)) for name in names]
    else:
        found = [
            (record["id"][:12], record)
            for record in engine.records()
            if everything or record["status"] in containers.LIVE
        ]
    return {record["id"]: (name, record, usage.sample(record)) for name, record in found}


def columns_of(whole: bool) -> dict[str, table.Column]:
    """Every column, of (name as it was typed, record, usage)."""
    column, size, binary = table.Column, table.size, table.binary_size
    return {
        "Container": column("CONTAINER", lambda row: row[0]),
        "ID": column("CONTAINER ID", lambda row: row[1]["id"] if whole else row[1]["id"][:12]),
        "Name": column("NAME", lambda row: row[1]["name"]),
        "CPUPerc": column("CPU %", lambda row: f"{row[2].cpu:.2f}%"),
        "MemUsage": column("MEM USAGE / LIMIT", lambda row: f"{binary(row[2].memory)} / {binary(row[2].memory_limit)}"),
        "MemPerc": column("MEM %", lambda row: f"{share(row[2]):.2f}%"),
        "NetIO": column("NET I/O", lambda row: f"{size(row[2].received)} / {size(row[2].sent)}"),
        "BlockIO": column("BLOCK I/O", lambda row: f"{size(row[2].read)} / {size(row[2].written)}"),
        "PIDs": column("PIDS", lambda row: str(row[2].pids)),
    }


def share(used: usage.Usage) -> float:
    """Memory in percent of the limit."""
    return 100 * used.memory / used.memory_limit if used.memory_limit else 0.0
