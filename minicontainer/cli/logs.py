"""`logs`: what a container has written, each stream to its own."""

from __future__ import annotations

import contextlib
import sys
import time

from ..engine import client
from ..runtime import log
from . import UsageError
from .flags import Flag, Help, parse

FLAGS = [
    Flag("-f --follow", "follow", "bool", "and what it is going to write, until it ends"),
    Flag("-n --tail", "tail", "text", "only so many lines, the last ones"),
    Flag("--since", "since", "text", "from then on: 2025-01-31T12:00:00Z, seconds since 1970, or 10m ago"),
    Flag("--until", "until", "text", "… until then"),
    Flag("-t --timestamps", "timestamps", "bool", "with each line's time"),
    Flag("--details", "details", "bool", "taken, as docker does; there are none to show"),
]

SECONDS = {"s": 1, "m": 60, "h": 3600}


def main(arguments: list[str]) -> int:
    """docker-logs(1)."""
    try:
        values, names = parse("logs CONTAINER", FLAGS, arguments)
    except Help as help:
        print(help)
        return 0
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
            output.write((f"{entry['time']} {entry['log']}" if values["timestamps"] else entry["log"]).encode())
            output.flush()
    return 0


def moment(flag: str, values: dict[str, str]) -> str:
    """The time that a flag names, as the log writes times; empty if it is not there."""
    text = values.get(flag.removeprefix("--"), "")
    if not text:
        return ""
    try:
        return log.timestamp(int((time.time() - duration(text)) * 1e9))
    except ValueError:
        pass
    try:
        return log.timestamp(max(1, int(float(text) * 1e9)))
    except ValueError:
        pass
    import datetime

    try:
        then = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"invalid value {text!r} for {flag}: 2025-01-31T12:00:00Z, or 10m") from None
    return log.timestamp(max(1, int(then.timestamp() * 1e9)))


def duration(text: str) -> float:
    """`1h30m` in seconds, as Go writes durations. Raises ValueError."""
    total, rest = 0.0, text
    while rest:
        digits = next((index for index, letter in enumerate(rest) if letter not in "0123456789."), len(rest))
        unit = rest[digits : digits + 1]
        if unit not in SECONDS:
            raise ValueError(text)
        total += float(rest[:digits]) * SECONDS[unit]
        rest = rest[digits + 1 :]
    return total
