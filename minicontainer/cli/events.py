"""`events`: what happens to containers and images, as it happens; with `--since` also what has happened."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from .. import errors, host
from ..engine import events
from ..image import reference
from ..runtime import log
from . import UsageError, moments
from .flags import Flag, parse

FLAGS = [
    Flag("--since", "since", "text", "from then on: 2025-01-31T12:00:00Z, seconds since 1970, or 10m ago"),
    Flag("--until", "until", "text", "… until then, and end"),
    Flag("-f --filter", "filters", "list", "container=, event=, image=, label=, type=: only those"),
    Flag("--format", "format", "text", "json: one object a line"),
]


def main(arguments: list[str]) -> int:
    """docker-events(1)."""
    values, rest = parse("events", FLAGS, arguments)
    if rest:
        raise UsageError(f"events takes no {rest[0]!r}")
    if values.get("format", "json") not in ("json", "{{json .}}"):
        raise UsageError(f"--format {values['format']}: json")
    wanted = [condition(text) for text in values["filters"]]
    since = moments.nanoseconds("--since", values.get("since", ""))
    until = moments.nanoseconds("--until", values.get("until", ""))
    with contextlib.suppress(KeyboardInterrupt):
        for event in events.between(host.root(), since, until):
            if matches(event, wanted):
                print(json.dumps(event) if "format" in values else line(event), flush=True)
    return 0


def condition(text: str) -> tuple[str, str]:
    """One --filter."""
    key, given, value = text.partition("=")
    if not given or key not in ("container", "event", "image", "label", "type"):
        raise UsageError(f"invalid filter {text!r}: container=, event=, image=, label=, type=")
    return key, value


def matches(event: dict[str, Any], wanted: list[tuple[str, str]]) -> bool:
    """Filters of one key are alternatives, those of different keys conditions."""
    return all(any(fits(event, key, value) for other, value in wanted if other == key) for key, _ in wanted)


def fits(event: dict[str, Any], key: str, value: str) -> bool:
    """Whether one filter lets an event through."""
    identifier, attributes = event["Actor"]["ID"], event["Actor"]["Attributes"]
    if key == "container":
        called = identifier.startswith(value) or attributes.get("name") == value
        return bool(value) and event["Type"] == "container" and called
    if key == "image":  # by its id or its name, with a tag or without
        called = str(attributes.get("name" if event["Type"] == "image" else "image", ""))
        return bool(value) and value in (identifier, called, without_tag(identifier), without_tag(called))
    if key == "label":
        name, given, content = value.partition("=")
        return name in attributes and (not given or attributes[name] == content)
    if key == "event" and value in ("health_status", "exec_create", "exec_start"):  # without what follows the colon
        return bool(event["Action"].startswith(value))
    return bool({"event": event["Action"], "type": event["Type"]}[key] == value)


def without_tag(name: str) -> str:
    """`host:5000/name:tag` as `host:5000/name`; no possible name is "", as an id is."""
    try:
        return reference.parse(name).familiar_name()
    except errors.InvalidArgument:
        return ""


def line(event: dict[str, Any]) -> str:
    """One line, as docker prints it."""
    attributes = ", ".join(f"{key}={value}" for key, value in sorted(event["Actor"]["Attributes"].items()))
    return f"{log.timestamp(event['timeNano'])} {event['Type']} {event['Action']} {event['Actor']['ID']} ({attributes})"
