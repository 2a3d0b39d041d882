"""`inspect`: all that is known of containers, images, volumes and networks, whole, by a template, or as a picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from .. import errors
from ..engine import client, describe
from . import UsageError
from .flags import Flag, parse

FLAGS = [
    Flag("-f --format", "format", "text", "json, or a template: '{{.State.Pid}}', '{{json .Mounts}}'"),
    Flag("--type", "type", "text", "container, image, network or volume"),
    Flag("-s --size", "size", "bool", "also what a container's own files take"),
    Flag("--graph", "graph", "bool", "a picture of how containers, or all of a network, are wired; none named: of all"),
    Flag("-o --output", "output", "text", "FILE.svg, .png or .pdf: the picture there, not as text"),
]

# What docker's client knows to be maps, and lists that may be null: a template shows them otherwise than structures.
MAPS = frozenset(
    "Containers Data DriverOpts ExposedPorts Labels Networks Options PortBindings Ports Sysctls Volumes".split()
)
LISTS = frozenset(
    "Aliases Binds CapAdd CapDrop Cmd Entrypoint Env ExecIDs Links MaskedPaths OnBuild ReadonlyPaths SecurityOpt "
    "Ulimits".split()
)

# What a template may ask of any image's Config, whether it says so or not.
IMAGE_CONFIG: dict[str, Any] = {
    "User": "", "WorkingDir": "", "StopSignal": "",
    **dict.fromkeys(("Env", "Cmd", "Entrypoint", "OnBuild", "ExposedPorts", "Volumes", "Labels")),
}  # fmt: skip


def main(arguments: list[str]) -> int:
    """docker-inspect(1)."""
    values, names = parse("inspect NAME …", FLAGS, arguments)
    if values["graph"]:
        return draw(names, values)
    if values.get("output"):
        raise UsageError("-o is where --graph draws to")
    if not names:
        raise UsageError('"minicontainer inspect" needs a name or an id')
    engine = client.Client()
    lookups: dict[str, Callable[[str], dict[str, Any]]] = {
        "container": lambda name: describe.container(
            engine.containers, engine.containers.find(name), bool(values["size"])
        ),
        "image": lambda name: describe.image(engine.containers, name),
        "network": lambda name: describe.network(engine.containers, name),
        "volume": engine.volumes.inspect,
    }
    kind = values.get("type", "")
    if kind and kind not in lookups:
        raise errors.InvalidArgument(f"unknown type: {kind!r}: must be one of container, image, network, volume")
    form = values.get("format", "")
    nodes: list[Any] = []
    if form not in ("", "json"):
        from . import template

        try:
            nodes = template.parse(form)
        except template.BadTemplate as error:
            print(f"minicontainer: {error}", file=sys.stderr)
            return 64
    found, missing = [], []
    for name in names:
        for lookup in [lookups[kind]] if kind else lookups.values():
            try:
                found.append(lookup(name))
                break
            except (errors.NotFound, errors.InvalidArgument) as error:
                last = error
        else:
            missing.append(str(last) if kind else f"no such object: {name}")
    failed = write(found, form, nodes)
    for sentence in missing + failed:
        print(f"minicontainer: {sentence}", file=sys.stderr)
    return 1 if missing or failed else 0


def draw(names: list[str], values: dict[str, Any]) -> int:
    """The network of containers as the kernel has it, as text or as a picture in a file."""
    from ..engine import graph
    from ..teach import wiring

    path = values.get("output", "")
    if values.get("format") or values["size"] or values.get("type", "container") not in ("container", "network"):
        raise UsageError("--graph draws containers, or a network's: it goes with -o FILE alone")
    if path and not path.lower().endswith((".svg", ".png", ".pdf")):
        raise UsageError(f"-o {path}: it draws .svg, .png or .pdf")
    found = graph.gathered(client.Client().containers, names, values.get("type", ""))
    if path:
        from ..teach import plot

        plot.save(wiring.picture(found), path)
    else:
        print(wiring.text(found, plain=not sayable(wiring.BROKEN + "╬")))
    return 0


def sayable(letters: str) -> bool:
    """Whether standard output has these letters: in the locale C it has none but ASCII's."""
    try:
        letters.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def write(found: list[dict[str, Any]], form: str, nodes: list[Any]) -> list[str]:
    """Print the documents; sentences about what a template could not do with them."""
    if form in ("", "json"):
        short = {"separators": (",", ":")} if form else {"indent": 4}
        print(json.dumps(found, ensure_ascii=False, **short))
        return []
    from . import template

    for document in found:
        try:
            print(template.render(nodes, typed(document), form))
        except template.TemplateFailed as error:
            print()
            return [f"template parsing error: {error}"]
    if not found:
        print()
    return []


def typed(document: dict[str, Any]) -> Any:
    """The document as docker's client has it: with structures, maps, and fields that are known but left out."""
    from . import template

    if "RootFS" in document:
        document = {**document, "Config": {**IMAGE_CONFIG, **document["Config"]}}
    structure = template.structs(document, MAPS, LISTS)
    if "State" in structure:
        structure.absent = ("SizeRw", "SizeRootFs")
        structure["State"].absent = () if "Health" in structure["State"] else ("Health",)
    return structure
