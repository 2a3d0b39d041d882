"""The build cache in a directory, for another machine: `--cache-to` writes it, `--cache-from` looks there.

The directory is an OCI image layout whose one manifest lists the layers' blobs; its config is our records, by key:

    {"records": {key: {"diff_id", "descriptor", "created", "inputs"}}}

What comes from there is taken step by step, when a build asks for its key: the blob is verified as it is copied, and
what it unpacks to must have the record's diffID. Whether these inputs lead to that layer is the word of whoever wrote
it: as with docker, take caches from where you would take images.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from .. import errors, files, oci
from ..image import blobs, making, store
from . import cache

CONFIG = "application/vnd.minicontainer.buildcache.v1+json"
CHUNK = 1 << 20


def place_of(flag: str, text: str, field: str) -> str:
    """The directory in `type=local,dest=DIR`, or in `DIR` alone. Raises InvalidArgument."""
    if "=" not in text:
        return text
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    if fields.get("type") != "local":
        raise errors.InvalidArgument(f"{flag} {text}: type=local,{field}=DIR is what there is")
    if not fields.get(field) or set(fields) - {"type", field, "mode"}:
        raise errors.InvalidArgument(f"{flag} {text}: write type=local,{field}=DIR")
    return fields[field]


def write(here: store.Store, own: cache.Cache, keys: dict[str, cache.Inputs], directory: str) -> None:
    """Write the records of these keys, and their layers, into a directory. What another build has left there stays.

    Raises KernelError where it cannot be written.
    """
    for name in ("", "/blobs", "/blobs/sha256"):
        files.make_directory(directory + name)
    records = {}
    if os.path.exists(f"{directory}/index.json"):
        records = Imported(directory).records
    for key, inputs in keys.items():
        known = json.loads(files.read(f"{own.path(key)}.json"))
        records[key] = {name: known[name] for name in ("diff_id", "descriptor", "created")} | {"inputs": inputs}
    descriptors = {record["descriptor"]["digest"]: record["descriptor"] for record in records.values()}
    for digest in descriptors:
        target = blobs.path(directory, digest)
        if not os.path.exists(target):
            with open(blobs.path(here.root, digest), "rb", buffering=0) as source:
                copied(source.fileno(), target, digest)
    config = put(directory, json.dumps({"records": records}, sort_keys=True).encode())
    layers = [descriptors[digest] for digest in sorted(descriptors)]
    manifest = {"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": {"mediaType": CONFIG, **config}}
    manifest["layers"] = layers
    entry = {"mediaType": oci.MANIFEST, **put(directory, json.dumps(manifest).encode())}
    files.write(f"{directory}/oci-layout", oci.LAYOUT)
    index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [entry]}
    files.write(f"{directory}/index.json", json.dumps(index).encode())


def put(directory: str, content: bytes) -> dict[str, Any]:
    """Write a document among the blobs. Its digest and size."""
    digest = oci.digest(content)
    files.write(blobs.path(directory, digest), content)
    return {"digest": digest, "size": len(content)}


def copied(source: int, target: str, digest: str) -> None:
    """Copy a blob, and verify it on the way. Raises InvalidImage: then there is no copy."""
    hashed = hashlib.sha256()
    with open(f"{target}.new-{os.getpid()}", "wb") as file:
        while chunk := os.read(source, CHUNK):
            hashed.update(chunk)
            file.write(chunk)
    if f"sha256:{hashed.hexdigest()}" != digest:
        os.unlink(file.name)
        raise blobs.damage(digest)
    os.rename(file.name, target)


class Imported:
    """A cache that somebody has written into a directory. Raises InvalidImage for what is none."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        try:
            index = json.loads(files.read(f"{directory}/index.json"))
            manifest = json.loads(blobs.read(directory, index["manifests"][0]["digest"]))
            if manifest["config"]["mediaType"] != CONFIG:
                raise errors.InvalidImage(f"{directory} is an image, and no build cache")
            config = json.loads(blobs.read(directory, manifest["config"]["digest"]))
            self.records: dict[str, Any] = config["records"]
        except FileNotFoundError:
            raise errors.InvalidArgument(f"--cache-from: there is no build cache in {directory}") from None
        except (KeyError, IndexError, TypeError, ValueError):
            raise errors.InvalidImage(f"{directory} is no build cache that this engine has written") from None

    def fetch(self, job: store.Job, key: str, below: making.Snapshot) -> cache.Found | None:
        """Bring the layer of that key into the store, on top of these; None where it is not known here."""
        record = self.records.get(key)
        if record is None:
            return None
        # In this order a manifest of ours has them, whose digest it decides about.
        descriptor = {name: record["descriptor"][name] for name in ("mediaType", "digest", "size")}
        digest = str(descriptor["digest"])
        if not blobs.exists(job.store.root, digest):
            path = job.path("blob")
            with open(blobs.path(self.directory, digest), "rb", buffering=0) as source:
                copied(source.fileno(), path, digest)
            job.keep_blob(path, digest)
            job.commit(more=True)
        snapshot = making.stack(job, below, descriptor)
        if snapshot.diff_ids[-1] != record["diff_id"]:
            raise errors.InvalidImage(f"{self.directory}: layer {digest} is not what its record says")
        job.commit(more=True)
        return cache.Found(snapshot, str(record["created"]))
