"""`filters`: which containers, images and volumes a list shows; docker's names and meanings: {"label": ["a", "b=c"]}.

Values of one name are alternatives, but for `label`, of which all must hold; different names must all hold. Raises
InvalidArgument for a name or a value that docker does not know either, whether or not there is anything to look at.
"""

from __future__ import annotations

import re
from typing import Any

from .. import errors
from ..network import Network, ipam
from . import containers, health, networks, volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..image import store

    Filters = dict[str, list[str]]
    Test = Callable[[Any], bool]

STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
HEALTH = ("starting", "healthy", "unhealthy", "none")


def check(filters: Filters, known: Iterable[str]) -> None:
    """Raise for a name that is not among these."""
    for name in filters:
        if name not in known:
            raise errors.InvalidArgument(f"Invalid filter '{name}': known are {', '.join(sorted(known))}")


def integer(name: str, text: str) -> int:
    """A number, or a refusal that names the filter."""
    try:
        return int(text)
    except ValueError:
        raise errors.InvalidArgument(f"Invalid filter '{name}={text}': a number") from None


def truth(name: str, filters: Filters) -> bool | None:
    """true or false; None where it was not asked for."""
    values = filters.get(name, [])
    for value in values:
        if value.lower() not in ("true", "false", "1", "0"):
            raise errors.InvalidArgument(f"Invalid filter '{name}={value}': true or false")
    return values[-1].lower() in ("true", "1") if values else None


def found_in(patterns: list[str]) -> Callable[[str], bool]:
    """Whether one of the patterns, regular expressions or the text itself, is found in a text."""
    compiled = []
    for pattern in patterns:
        try:
            compiled.append(re.compile(pattern))
        except re.error as error:
            raise errors.InvalidArgument(f"Invalid filter '{pattern}': {error}") from None
    return lambda text: text in patterns or any(pattern.search(text) for pattern in compiled)


def labelled(wanted: list[str], labels: dict[str, str]) -> bool:
    """Whether all of NAME or NAME=VALUE hold."""
    for text in wanted:
        name, given, value = text.partition("=")
        if name not in labels or (given and labels[name] != value):
            return False
    return True


# Containers


def of_containers(engine: containers.Containers, records: containers.Records, filters: Filters) -> containers.Records:
    """Those of the records that the filters let through."""
    check(filters, CONTAINERS)
    tests = [CONTAINERS[name](engine, values) for name, values in filters.items()]
    return [record for record in records if all(test(record) for test in tests)]


def by_time(engine: containers.Containers, values: list[str], before: bool) -> Test:
    """before=CONTAINER, since=CONTAINER: made earlier, or later."""
    created = engine.find(values[-1])["created"]
    return lambda record: bool(record["created"] < created if before else record["created"] > created)


def by_ancestor(engine: containers.Containers, values: list[str]) -> Test:
    """ancestor=IMAGE. As with docker, an image that is not here is the ancestor of nothing."""
    images = set()
    for value in values:
        try:
            images.add(engine.images.get(value).id)
        except (errors.ImageNotFound, errors.InvalidArgument):
            pass
    return lambda record: record["image_id"] in images


def by_exit_code(engine: containers.Containers, values: list[str]) -> Test:
    """exited=N: it has run, does not now, and ended so."""
    codes = {integer("exited", value) for value in values}
    ended = ("exited", "dead")
    return lambda record: record["status"] in ended and record["exit_code"] in codes


def by_status(engine: containers.Containers, values: list[str]) -> Test:
    """status=running …"""
    for value in values:
        if value not in STATES:
            raise errors.InvalidArgument(f"Invalid filter 'status={value}': known are {', '.join(STATES)}")
    return lambda record: containers.word(record) in values


def by_health(engine: containers.Containers, values: list[str]) -> Test:
    """health=healthy …; none where nobody looks."""
    for value in values:
        if value not in HEALTH:
            known = ", ".join(HEALTH)
            raise errors.InvalidArgument(f"Unrecognised filter value for health: {value}; known are {known}")
    return lambda record: (health.read(engine, record) or {"Status": "none"})["Status"] in values


def by_id(engine: containers.Containers, values: list[str]) -> Test:
    """id=PATTERN, the beginning of an id as a rule."""
    test = found_in(values)
    return lambda record: test(record["id"])


def by_name(engine: containers.Containers, values: list[str]) -> Test:
    """name=PATTERN, with docker's `/` before it or without."""
    test = found_in(values)
    return lambda record: test(record["name"]) or test(f"/{record['name']}")


def by_volume(engine: containers.Containers, values: list[str]) -> Test:
    """volume=NAME, or where it is mounted, or the path of the host that is."""
    return lambda record: any(mount[key] in values for mount in record["mounts"] for key in ("source", "target"))


def by_port(side: str, values: list[str]) -> Test:
    """publish=PORT[-PORT][/PROTOCOL], the host's; expose, the container's."""
    wanted = []
    for value in values:
        numbers, _, protocol = value.partition("/")
        first, _, last = numbers.partition("-")
        wanted.append((integer(side, first), integer(side, last or first), protocol or "tcp"))

    def test(record: containers.Record) -> bool:
        have = {(port[side], port["protocol"]) for port in record["ports"] if record["status"] in containers.LIVE}
        if side == "container":
            have |= {(int(text.partition("/")[0]), text.partition("/")[2]) for text in record["config"]["ExposedPorts"]}
        return any(
            low <= number <= high and kind == protocol for low, high, protocol in wanted for number, kind in have
        )

    return test


CONTAINERS: dict[str, Callable[[containers.Containers, list[str]], Test]] = {
    "ancestor": by_ancestor,
    "before": lambda engine, values: by_time(engine, values, before=True),
    "since": lambda engine, values: by_time(engine, values, before=False),
    "exited": by_exit_code,
    "expose": lambda engine, values: by_port("container", values),
    "publish": lambda engine, values: by_port("host", values),
    "health": by_health,
    "id": by_id,
    "label": lambda engine, values: lambda record: labelled(values, record["config"]["Labels"]),
    "name": by_name,
    "network": lambda engine, values: (
        lambda record: bool({*networks.asked(record), record["network"].partition(":")[0]} & set(values))
    ),
    "status": by_status,
    "volume": by_volume,
}


# Images, volumes


def of_images(images: store.Store, found: list[store.Image], filters: Filters) -> list[store.Image]:
    """Those images that the filters let through."""
    check(filters, ("before", "since", "dangling", "label", "reference"))
    dangling = truth("dangling", filters)
    for value in filters.get("before", []):
        created = images.get(value).created
        found = [image for image in found if image.created < created]
    for value in filters.get("since", []):
        created = images.get(value).created
        found = [image for image in found if image.created > created]
    return [
        image
        for image in found
        if (dangling is None or dangling == (not image.names))
        and labelled(filters.get("label", []), (image.config.get("config") or {}).get("Labels") or {})
        and ("reference" not in filters or any(is_named(filters["reference"], name) for name in image.names))
    ]


def is_named(patterns: list[str], name: str) -> bool:
    """reference=PATTERN: a shell's pattern for the whole name, or for it without its tag."""
    from fnmatch import fnmatchcase

    return any(fnmatchcase(text, pattern) for pattern in patterns for text in (name, name.rpartition(":")[0]))


def of_volumes(found: list[dict[str, Any]], used: set[str], filters: Filters) -> list[dict[str, Any]]:
    """Those volumes, as `inspect` has them, that the filters let through; `used` are mounted by a container."""
    check(filters, ("dangling", "driver", "label", "name"))
    dangling = truth("dangling", filters)
    by_driver, by_name = found_in(filters.get("driver", [""])), found_in(filters.get("name", [""]))
    return [
        volume
        for volume in found
        if (dangling is None or dangling == (volume["Name"] not in used))
        and by_driver(volume["Driver"])
        and by_name(volume["Name"])
        and labelled(filters.get("label", []), volume["Labels"] or {})
    ]


def of_networks(
    root: str, filters: Filters, known: tuple[str, ...] = ("dangling", "driver", "id", "label", "name", "scope", "type")
) -> Callable[[Network], bool]:
    """Which networks the filters let through; a dangling one is one that nobody has an address of."""
    check(filters, known)
    dangling = truth("dangling", filters)
    by_driver, by_name = found_in(filters.get("driver", [""])), found_in(filters.get("name", [""]))
    begun, marked = tuple(filters.get("id", [""])), with_labels(filters)
    scopes, types = filters.get("scope", ["local"]), filters.get("type", ["custom", "builtin"])
    return lambda network: (
        (dangling is None or dangling == (bool(network.id) and not ipam.leases(network)))
        and by_driver(network.driver)
        and by_name(network.name)
        and networks.identity(root, network).startswith(begun)
        and marked(network.labels)
        and "local" in scopes
        and ("custom" if network.id else "builtin") in types
    )


# What a prune takes


def of_prunable_images(filters: Filters) -> Callable[[store.Image], bool]:
    """Which unused images a prune removes: those without a name, unless dangling=false; until=, label=, label!= ."""
    check(filters, ("dangling", "until", "label", "label!"))
    dangling = truth("dangling", filters) is not False
    old, marked = until(filters), with_labels(filters)
    return lambda image: (
        not (dangling and image.names)
        and old(image.created)
        and marked((image.config.get("config") or {}).get("Labels") or {})
    )


def of_prunable_containers(filters: Filters) -> Test:
    """Which of the containers that do not run: until=, label=, label!= ."""
    check(filters, ("until", "label", "label!"))
    old, marked = until(filters), with_labels(filters)
    return lambda record: old(record["created"]) and marked(record["config"]["Labels"])


def of_prunable_volumes(filters: Filters) -> Test:
    """Which unused volumes: those without a name of their own, unless all=true; label=, label!= ."""
    check(filters, ("all", "label", "label!"))
    every, marked = truth("all", filters), with_labels(filters)
    return lambda volume: (every or volumes.anonymous(volume["Name"])) and marked(volume["Labels"] or {})


def of_prunable_networks(filters: Filters) -> Callable[[Network], bool]:
    """Which unused networks: until=, label=, label!= ."""
    check(filters, ("until", "label", "label!"))
    old, marked = until(filters), with_labels(filters)
    return lambda network: old(network.created) and marked(network.labels)


def with_labels(filters: Filters) -> Callable[[dict[str, str]], bool]:
    """label=NAME[=VALUE], all of them, and label!=NAME[=VALUE], none of them."""
    wanted, unwanted = filters.get("label", []), filters.get("label!", [])
    return lambda labels: labelled(wanted, labels) and not any(labelled([text], labels) for text in unwanted)


def until(filters: Filters) -> Callable[[str], bool]:
    """until=24h, 1h30m, 2026-01-31[T12:00:00Z], or seconds since 1970: whether a time, RFC 3339, was before."""
    import calendar
    import time

    values = filters.get("until", [])
    if not values:
        return lambda created: True
    text = values[-1]
    span = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?", text)
    date = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.\d+)?)?)?Z?", text)
    if text and span:
        hours, minutes, seconds = (float(part or 0) for part in span.groups())
        moment = time.time() - 3600 * hours - 60 * minutes - seconds
    elif re.fullmatch(r"\d+(\.\d+)?", text):
        moment = float(text)
    elif date:
        year, month, day, hour, minute, second = (int(part or 0) for part in date.groups())
        moment = calendar.timegm((year, month, day, hour, minute, second))
    else:
        raise errors.InvalidArgument(f'failed to parse value as time or duration: "{text}"')
    limit = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
    return lambda created: not created or created[:19] <= limit
