"""What a container has changed: told (`diff`), and made an image of (`commit`); a tree made an image of (`import`).

The layer is the container's writable layer; the config is the image's, with what `run` was told and what `commit` is
told laid over it. With SOURCE_DATE_EPOCH in the environment the same container gives the same image twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, BinaryIO

from .. import errors, files
from .. import quickjson as json
from ..image import changes, layers, making, reference, store
from ..runtime import log
from . import containers, trees


def diff(engine: containers.Containers, record: containers.Record) -> list[changes.Change]:
    """Every change of the container's files over its image, in the order of their names."""
    with trees.upper(engine, record) as upper, trees.lower(engine, record) as lower:
        return list(changes.walk(upper, lower, mount_points(engine, record, lower)))


def mount_points(engine: containers.Containers, record: containers.Record, lower: int) -> frozenset[bytes]:
    """Where a start makes empty files and directories for mounts of ours, if the image's links, seen in the open
    directory `lower`, are as they were. Those for the user's count as changes."""
    config = json.loads(files.read(f"{engine.path(record['id'])}/config.json"))
    theirs = {os.path.normpath(mount["target"]) for mount in record["mounts"]}
    places = {os.path.normpath(mount["destination"]) for mount in config["mounts"]} - theirs
    found = {leads_to(lower, place) for place in places}
    return frozenset(os.fsencode(path) for place in found for path in (place, *parents(place)))


def leads_to(root: int, path: str) -> str:
    """Where a path leads below an open directory, through the links there; itself where it leads nowhere."""
    try:
        return f"/{files.place(root, path).path}"
    except OSError:
        return path


def parents(path: str) -> Iterator[str]:
    """The directories above, but for the root."""
    while (path := os.path.dirname(path)) not in ("/", ""):
        yield path


def commit(
    engine: containers.Containers, record: containers.Record, name: str = "", author: str = "", comment: str = "",
    instructions: list[str] | None = None,
) -> store.Image:  # fmt: skip
    """An image of the container as it is, under `name` if there is one. `instructions` are lines of a Dockerfile.

    A container that runs should be held still meanwhile. Raises InvalidArgument, ImageNotFound where its own is gone.
    """
    check_name(name)
    described = described_as(record["config"], instructions or [])
    base = engine.images.get(record["image_id"])
    epoch = source_date_epoch()
    with engine.images.job() as job:
        path = job.path("layer")
        with trees.upper(engine, record) as upper, trees.lower(engine, record) as lower, open(path, "xb") as file:
            for chunk in changes.pack(upper, changes.walk(upper, lower, mount_points(engine, record, lower)), epoch):
                file.write(chunk)
        created = moment(epoch)
        entry = {"created": created, "created_by": " ".join(record["args"]), "author": author, "comment": comment}
        history = [*(base.config.get("history") or []), {key: value for key, value in entry.items() if value}]
        config = {key: base.config[key] for key in ("architecture", "os", "variant") if base.config.get(key)}
        config |= {"created": created, "config": described, "history": history}
        if author:
            config["author"] = author
        changed = making.add(job, making.snapshot_of(base), path)
        return making.enter(job, changed, config, *([name] if name else []))


def check_name(name: str) -> None:
    """Raise InvalidArgument for what no image that is made here can be called; "" is no name."""
    if name and reference.parse(name).digest:
        raise errors.InvalidArgument(f"{name!r} has a digest: an image's name is a repository and a tag")


def moment(epoch: int | None) -> str:
    """When an image is made, in RFC 3339: now, unless an epoch is given."""
    return log.timestamp(None if epoch is None else epoch * 10**9)


def source_date_epoch(given: str = "") -> int | None:
    """What is given, or $SOURCE_DATE_EPOCH: seconds (reproducible-builds.org), or None. Raises InvalidArgument."""
    text = given or os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()) or int(text) >= 1 << 33:
        raise errors.InvalidArgument(f"SOURCE_DATE_EPOCH={text!r} is no number of seconds since 1970")
    return int(text)


def from_tar(
    into: store.Store, source: BinaryIO, name: str = "", comment: str = "", instructions: list[str] | None = None,
    platform: str = "",
) -> store.Image:  # fmt: skip
    """An image of one layer: the tar stream of a root file system, plain or compressed; the reverse of `export`.

    Raises InvalidImage for what is no tar, KernelError for a full disk; then nothing is left.
    """
    check_name(name)
    described = described_as({}, instructions or [])
    architecture, variant = asked_platform(platform)
    epoch = source_date_epoch()
    created = moment(epoch)
    history = [{"created": created, "comment": comment or "Imported from -"}]
    config: dict[str, Any] = {"architecture": architecture, "os": "linux", **({"variant": variant} if variant else {})}
    config |= {"created": created, "config": described, "history": history}
    with into.job() as job:
        path = job.path("layer")
        try:
            with open(path, "xb", buffering=0) as file:
                while chunk := source.read(1 << 20):
                    files.write_all(file.fileno(), chunk)
            return making.make(job, config, [path], *([name] if name else []))
        except OSError as error:
            raise layers.kernel_error(error, "import", os.fsencode(error.filename or into.root)) from error


def asked_platform(text: str) -> tuple[str, str]:
    """Architecture and variant of `linux/arm64`, `linux/arm/v7`; of nothing, this machine's. Raises InvalidArgument."""
    if not text:
        return reference.host_architecture(), ""
    from . import pulling

    parsed = pulling.parse_platform(text)
    assert parsed is not None
    return parsed if text.count("/") == 2 else (parsed[0], "")


def described_as(config: dict[str, Any], instructions: list[str]) -> dict[str, Any]:
    """An image's config with the changes made (OCI image specification, config.md), what is empty left out."""
    described: dict[str, Any] = json.loads(json.dumps(config))
    for line in instructions:
        word, _, rest = line.strip().partition(" ")
        change = CHANGES.get(word.upper())
        if change is None:
            raise errors.InvalidArgument(f"{word.lower()} is not a valid change command: {', '.join(CHANGES)} are")
        if not rest.strip():
            raise errors.InvalidArgument(f"{word.upper()} needs an argument")
        change(described, rest.strip())
    return {key: value for key, value in sorted(described.items()) if value not in (None, "", [], {})}


def words_of(text: str) -> list[str]:
    """A command in JSON, or for a shell."""
    if text.startswith("["):
        try:
            words = json.loads(text)
        except ValueError:
            words = None
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise errors.InvalidArgument(f"{text} is no list of strings in JSON")
        return words
    return ["/bin/sh", "-c", text]


def pairs_of(text: str) -> dict[str, str]:
    """`A=1 B="two words"`, or the old form `A everything behind it`."""
    import shlex

    first = text.split(maxsplit=1)[0]
    if "=" not in first:
        return {first: text[len(first) :].strip()}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise errors.InvalidArgument(f"{text}: {error}") from None
    if not all("=" in word for word in words):
        raise errors.InvalidArgument(f"{text}: write NAME=VALUE")
    return dict(word.split("=", 1) for word in words)


def set_environment(described: dict[str, Any], text: str) -> None:
    """ENV"""
    variables = dict(line.split("=", 1) for line in described.get("Env") or []) | pairs_of(text)
    described["Env"] = [f"{key}={value}" for key, value in variables.items()]


def set_ports(described: dict[str, Any], text: str) -> None:
    """EXPOSE"""
    ports: dict[str, Any] = {port if "/" in port else f"{port}/tcp": {} for port in text.split()}
    described["ExposedPorts"] = {**(described.get("ExposedPorts") or {}), **ports}


def set_labels(described: dict[str, Any], text: str) -> None:
    """LABEL"""
    described["Labels"] = {**(described.get("Labels") or {}), **pairs_of(text)}


def set_volumes(described: dict[str, Any], text: str) -> None:
    """VOLUME"""
    paths = words_of(text) if text.startswith("[") else text.split()
    described["Volumes"] = {**(described.get("Volumes") or {}), **{path: {} for path in paths}}


def set_directory(described: dict[str, Any], text: str) -> None:
    """WORKDIR"""
    described["WorkingDir"] = os.path.normpath(os.path.join("/", described.get("WorkingDir") or "", text))


# What `commit --change` takes: docker's list (moby builder/dockerfile, validCommitCommands).
CHANGES = {
    "CMD": lambda described, text: described.update(Cmd=words_of(text)),
    "ENTRYPOINT": lambda described, text: described.update(Entrypoint=words_of(text)),
    "ENV": set_environment,
    "EXPOSE": set_ports,
    "LABEL": set_labels,
    "ONBUILD": lambda described, text: described.update(OnBuild=[*(described.get("OnBuild") or []), text]),
    "USER": lambda described, text: described.update(User=text),
    "VOLUME": set_volumes,
    "WORKDIR": set_directory,
}
