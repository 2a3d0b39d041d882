"""`logs`: what a container has written, each stream to its own."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from ..engine import client
from ..runtime import log
from . import UsageError, moments
from .flags import Flag, parse

FLAGS = [
    Flag("-f --follow", "follow", "bool", "and what it is going to write, until it ends"),
    Flag("-n --tail", "tail", "text", "only so many lines, the last ones"),
    Flag("--since", "since", "text", "from then on: 2025-01-31T12:00:00Z, seconds since 1970, or 10m ago"),
    Flag("--until", "until", "text", "… until then"),
    Flag("-t --timestamps", "timestamps", "bool", "with each line's time"),
    Flag("--details", "details", "bool", "… and what --log-opt labels= and env= told to note with each"),
]


def main(arguments: list[str]) -> int:
    """docker-logs(1)."""
    values, names = parse("logs CONTAINER", FLAGS, arguments)
    if len(names) != 1:
        raise UsageError('"minicontainer logs" needs one container; `minicontainer ps -a` lists them')
    tail = values.get("tail", "all")
    if tail != "all" and not tail.isdecimal():
        tail = "all"  # docker takes a number below zero, and what is none, for all of it
    entries = client.Client().containers.get(names[0]).entries(
        None if tail == "all" else int(tail), moment("--since", values), moment("--until", values), values["follow"]
    )  # fmt: skip
    outputs = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
    with contextlib.suppress(KeyboardInterrupt):
        for entry in entries:
            output = outputs[entry["stream"]]
            words = [entry["time"]] if values["timestamps"] else []
            words += [details(entry)] if values["details"] else []
            output.write(" ".join([*words, entry["log"]]).encode())
            output.flush()
    return 0


def details(entry: dict[str, Any]) -> str:
    """What was noted with an entry, as docker shows it: `a=1,b=two+words`; empty where nothing was."""
    import urllib.parse

    pairs = sorted((entry.get("attrs") or {}).items())
    return ",".join(f"{urllib.parse.quote_plus(key)}={urllib.parse.quote_plus(value)}" for key, value in pairs)


def moment(flag: str, values: dict[str, str]) -> str:
    """The time that a flag names, as the log writes times; empty if it is not there."""
    found = moments.nanoseconds(flag, values.get(flag.removeprefix("--"), ""))
    return log.timestamp(found) if found else ""
