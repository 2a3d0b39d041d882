"""The build cache for another machine: `--cache-to` writes it into a directory or registry, `--cache-from` looks there.

It is one OCI manifest, which lists the layers' blobs; its config is our records, by key:

    {"records": {key: {"diff_id", "descriptor", "created", "inputs"}}}

What comes from there is taken step by step, when a build asks for its key: the blob is verified as it is copied, and
what it unpacks to must have the record's diffID. Whether these inputs lead to that layer is the word of whoever wrote
it: as with docker, take caches from where you would take images.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from .. import errors, files, oci
from ..image import blobs, making, reference, store
from . import cache

CONFIG = "application/vnd.minicontainer.buildcache.v1+json"
CHUNK = 1 << 20
Records = dict[str, dict[str, Any]]


class Documents(NamedTuple):
    """A cache as documents: the config's bytes, the manifest's, and the descriptors of the layers."""

    config: bytes
    manifest: bytes
    layers: list[dict[str, Any]]


class Directory:
    """A cache in a directory, as an OCI image layout."""

    def __init__(self, path: str) -> None:
        self.path = path

    def manifest(self) -> bytes:
        """The manifest's bytes. Raises InvalidArgument where there is none."""
        try:
            index = json.loads(files.read(f"{self.path}/index.json"))
        except FileNotFoundError:
            raise errors.InvalidArgument(f"--cache-from: there is no build cache in {self.path}") from None
        return blobs.read(self.path, index["manifests"][0]["digest"])

    def document(self, digest: str, size: int) -> bytes:
        """A small blob, verified."""
        return blobs.read(self.path, digest)

    def fetch(self, digest: str, size: int, target: str) -> None:
        """Copy a blob to a new file. Raises InvalidImage where it is damaged."""
        with open(blobs.path(self.path, digest), "rb", buffering=0) as source:
            copied(source.read, target, digest)

    def write(self, root: str, documents: Documents) -> None:
        """Write a cache whose layers are in the store at `root`. Blobs that are there stay."""
        for name in ("", "/blobs", "/blobs/sha256"):
            files.make_directory(self.path + name)
        for layer in documents.layers:
            target = blobs.path(self.path, layer["digest"])
            if not os.path.exists(target):
                with open(blobs.path(root, layer["digest"]), "rb", buffering=0) as source:
                    copied(source.read, f"{target}.new-{os.getpid()}", layer["digest"])
                os.rename(f"{target}.new-{os.getpid()}", target)
        for content in (documents.config, documents.manifest):
            files.write(blobs.path(self.path, oci.digest(content)), content)
        entry = {"mediaType": oci.MANIFEST, "digest": oci.digest(documents.manifest), "size": len(documents.manifest)}
        files.write(f"{self.path}/oci-layout", oci.LAYOUT)
        index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [entry]}
        files.write(f"{self.path}/index.json", json.dumps(index).encode())


class Repository:
    """A cache under a tag in a registry."""

    def __init__(self, name: str) -> None:
        from ..engine import pulling
        from ..image import registry

        self.path = name
        self.name = reference.parse(name)
        self.tag = self.name.tag or reference.DEFAULT_TAG
        login = pulling.login_at(self.name.domain)
        self.registry = registry.Registry(self.name.domain, registry.settings_here(), login)

    def manifest(self) -> bytes:
        """As Directory has it. Raises RegistryError."""
        return self.registry.manifest(self.name.path, self.tag)[1]

    def document(self, digest: str, size: int) -> bytes:
        """As Directory has it."""
        return self.registry.content(self.name.path, digest, size)

    def fetch(self, digest: str, size: int, target: str) -> None:
        """As Directory has it."""
        copied(self.registry.blob(self.name.path, digest, size).read, target, digest)

    def write(self, root: str, documents: Documents) -> None:
        """As Directory has it: what the registry has is not sent; the manifest goes last."""
        from ..engine import pushing

        for layer in documents.layers:
            with pushing.blob_of(blobs.path(root, layer["digest"])) as (read, size):
                self.give(layer["digest"], size, read)
        config = documents.config
        self.give(oci.digest(config), len(config), lambda at, size: config[at : at + size])
        self.registry.put_manifest(self.name.path, self.tag, oci.MANIFEST, documents.manifest)

    def give(self, digest: str, size: int, read: Callable[[int, int], bytes]) -> None:
        """Send a blob, unless it is there."""
        if not self.registry.has_blob(self.name.path, digest):
            self.registry.upload(self.name.path, digest, size, read)


Place = Directory | Repository


def place_of(flag: str, text: str, field: str) -> Place:
    """`type=local,dest=DIR`, `type=registry,ref=NAME`, or a directory or a name alone. Raises InvalidArgument."""
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    if "=" not in text:
        looks_local = text.startswith((".", "/")) or os.path.isdir(text)
        fields = {"type": "local", field: text} if looks_local else {"type": "registry", "ref": text}
    kind = fields.get("type")
    wanted = {"local": field, "registry": "ref"}.get(kind or "", "")
    if not wanted or not fields.get(wanted) or set(fields) - {"type", wanted, "mode"}:
        raise errors.InvalidArgument(f"{flag} {text}: write type=local,{field}=DIR or type=registry,ref=NAME")
    return Directory(fields[field]) if kind == "local" else Repository(fields["ref"])


def records_of(place: Place) -> Records:
    """The records of a cache. Raises InvalidImage for what is none, and what the place raises."""
    try:
        manifest = json.loads(place.manifest())
        if manifest["config"]["mediaType"] != CONFIG:
            raise errors.InvalidImage(f"{place.path} is an image, and no build cache")
        config = json.loads(place.document(manifest["config"]["digest"], manifest["config"]["size"]))
        return {str(key): dict(record) for key, record in config["records"].items()}
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        raise errors.InvalidImage(f"{place.path} is no build cache that this engine has written") from None


def write(here: store.Store, own: cache.Cache, keys: dict[str, cache.Inputs], place: Place) -> None:
    """Write the records of these keys, and their layers: the cache of this build, in the place of what was there."""
    records: Records = {}
    for key, inputs in keys.items():
        known = json.loads(files.read(f"{own.path(key)}.json"))
        records[key] = {name: known[name] for name in ("diff_id", "descriptor", "created")} | {"inputs": inputs}
    descriptors = {record["descriptor"]["digest"]: record["descriptor"] for record in records.values()}
    layers = [descriptors[digest] for digest in sorted(descriptors)]
    config = json.dumps({"records": records}, sort_keys=True).encode()
    described = {"mediaType": CONFIG, "digest": oci.digest(config), "size": len(config)}
    manifest = {"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": described, "layers": layers}
    place.write(here.root, Documents(config, json.dumps(manifest).encode(), layers))


def copied(read: Callable[[int], bytes], target: str, digest: str) -> None:
    """Copy a blob to a new file, and verify it on the way. Raises InvalidImage: then there is no copy."""
    hashed = hashlib.sha256()
    with open(target, "wb") as file:
        while chunk := read(CHUNK):
            hashed.update(chunk)
            file.write(chunk)
    if f"sha256:{hashed.hexdigest()}" != digest:
        os.unlink(target)
        raise blobs.damage(digest)


def fetch(place: Place, records: Records, job: store.Job, key: str, below: making.Snapshot) -> cache.Found | None:
    """Bring the layer of that key into the store, on top of these; None where it is not known there."""
    record = records.get(key)
    if record is None:
        return None
    # In this order a manifest of ours has them, whose digest it decides about.
    descriptor = {name: record["descriptor"][name] for name in ("mediaType", "digest", "size")}
    digest = str(descriptor["digest"])
    if not blobs.exists(job.store.root, digest):
        path = job.path("blob")
        place.fetch(digest, int(descriptor["size"]), path)
        job.keep_blob(path, digest)
        job.commit(more=True)
    snapshot = making.stack(job, below, descriptor)
    if snapshot.diff_ids[-1] != record["diff_id"]:
        raise errors.InvalidImage(f"{place.path}: layer {digest} is not what its record says")
    job.commit(more=True)
    return cache.Found(snapshot, str(record["created"]))
