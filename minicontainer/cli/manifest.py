"""`manifest inspect`: what a registry says that an image is, without fetching it."""

from __future__ import annotations

import json
from typing import Any

from .. import errors, oci
from ..engine import client, images
from ..image import archive, reference, store
from . import UsageError
from .flags import Flag, parse

INSPECT = [
    Flag("-v --verbose", "verbose", "bool", "of every platform, with its layers"),
    Flag("--insecure", "insecure", "bool", "name the registry in insecure-registries instead"),
]
FLAGS = {"inspect": INSPECT}
USAGE = "manifest inspect NAME shows a manifest; no other command is here"


def main(arguments: list[str]) -> int:
    """docker-manifest(1)."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(f"usage: minicontainer {USAGE}")
        return 0
    if arguments[:1] != ["inspect"]:
        raise UsageError(USAGE)
    values, rest = parse("manifest inspect [-v] NAME", INSPECT, arguments[1:])
    if len(rest) != 1:
        raise errors.InvalidArgument('"minicontainer manifest inspect" needs one name')
    if values["insecure"]:
        raise UsageError("--insecure: name the registry in insecure-registries (registries.json)")
    engine = client.Client().images
    wanted = reference.parse(rest[0])
    media, content, digest = engine.manifest(wanted.full())
    found: Any = store.document(content, "manifest")
    if values["verbose"]:
        descriptor = {"mediaType": media, "digest": digest, "size": len(content)}
        found = verbose(engine, wanted, descriptor, found)
    print(json.dumps(found, indent="\t" if not values["verbose"] else 4, ensure_ascii=False))
    return 0


def verbose(engine: images.Images, wanted: reference.Reference, descriptor: Any, document: dict[str, Any]) -> Any:
    """Docker's longer form: each manifest under its descriptor; a list where there is an index."""
    if descriptor["mediaType"] not in oci.INDEXES:
        return entry(wanted, descriptor, descriptor["mediaType"], document)
    found = []
    for listed in archive.manifests_of(document):
        name = f"{wanted.name}@{listed['digest']}"
        kind, inner, _ = engine.manifest(name)
        found.append(entry(reference.parse(name), listed, kind, store.document(inner, "manifest")))
    return found


def entry(wanted: reference.Reference, descriptor: Any, media: str, document: dict[str, Any]) -> dict[str, Any]:
    """One manifest of those."""
    schema = "SchemaV2Manifest" if media == oci.DOCKER_MANIFEST else "OCIManifest"
    return {"Ref": wanted.full(), "Descriptor": descriptor, schema: document}
