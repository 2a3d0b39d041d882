"""Making images: a layer from a tar file or from an overlay's upper directory, on top of others, and at last a config.

    snapshot = making.snapshot_of(base)            what there is to stand on; Snapshot() is nothing: FROM scratch
    snapshot = making.add(job, snapshot, tar)      one layer more
    job.commit()                                   now containers can stand on it
    making.enter(job, snapshot, config, "app")     the image, in the index

A layer is there twice: as a blob, whose digest images and registries know, and unpacked under its chainID, which
containers mount. Sources: OCI image specification, layer.md, config.md, manifest.md.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple, Protocol

from .. import oci
from .. import quickjson as json
from . import blobs, layers, store


class Snapshot(NamedTuple):
    """A root file system by its layers, lowest first: the descriptors of their blobs, and their diffIDs."""

    descriptors: tuple[dict[str, Any], ...] = ()
    diff_ids: tuple[str, ...] = ()

    @property
    def chain_ids(self) -> list[str]:
        """Which unpacked layers they are, lowest first."""
        return oci.chain_ids(list(self.diff_ids))


class Documents(Protocol):
    """What has an image's manifest and config: one of the store, or one that is in no index."""

    @property
    def manifest(self) -> dict[str, Any]: ...

    @property
    def config(self) -> dict[str, Any]: ...


def snapshot_of(image: Documents) -> Snapshot:
    """An image's layers, under the OCI's media types, whoever wrote them."""
    descriptors = []
    for layer in image.manifest["layers"]:
        media = str(layer.get("mediaType"))
        ending = "+gzip" if media.endswith("gzip") else "+zstd" if media.endswith("zstd") else ""
        descriptors.append({"mediaType": oci.LAYER + ending, "digest": layer["digest"], "size": layer["size"]})
    return Snapshot(tuple(descriptors), tuple(image.config["rootfs"]["diff_ids"]))


def add(job: store.Job, below_it: Snapshot, tar: str, sync: bool = True) -> Snapshot:
    """One layer more: the tar file in the job's folder, which becomes its blob. `job.commit` makes it lasting.

    Without `sync`, the blob is left to that commit's syncfs(2). Raises InvalidImage where the file is no layer.
    """
    directory = job.new_layer()
    with open(tar, "rb", buffering=0) as file:
        unpacked = layers.unpack(file.read, directory, lower=below(job, [*below_it.chain_ids, ""]))
        if sync:
            os.fsync(file.fileno())
    job.keep_blob(tar, unpacked.digest)
    diff_ids = (*below_it.diff_ids, unpacked.diff_id)
    record = keep(job, directory, oci.chain_ids(list(diff_ids))[-1], unpacked)
    return Snapshot((*below_it.descriptors, descriptor(record)), diff_ids)


def adopt(job: store.Job, below_it: Snapshot, upper: str, tar: str, digest: str) -> Snapshot:
    """One layer more: an overlay's upper directory, which becomes the unpacked layer as it is, and a tar file that says
    the same, `digest` its SHA-256. Both are the job's from now on; its commit makes them durable.
    """
    known = layers.Unpacked()
    known.digest = known.diff_id = digest
    known.blob_size = known.tar_size = os.stat(tar).st_size
    for _, _, files, descriptor_ in os.fwalk(upper, follow_symlinks=False):
        known.count += len(files) + 1
        known.file_bytes += sum(os.stat(name, dir_fd=descriptor_, follow_symlinks=False).st_size for name in files)
    directory = job.new_layer()
    os.rename(upper, directory)
    job.keep_blob(tar, digest)
    diff_ids = (*below_it.diff_ids, digest)
    record = keep(job, directory, oci.chain_ids(list(diff_ids))[-1], known)
    return Snapshot((*below_it.descriptors, descriptor(record)), diff_ids)


def stack(job: store.Job, below_it: Snapshot, descriptor_: dict[str, Any]) -> Snapshot:
    """One layer more, of a blob that the store has: unpacked on top of these, where it may never have been.

    Raises InvalidImage where the blob is damaged.
    """
    directory = job.new_layer()
    with open(blobs.path(job.store.root, descriptor_["digest"]), "rb", buffering=0) as file:
        unpacked = layers.unpack(file.read, directory, lower=below(job, [*below_it.chain_ids, ""]))
    if unpacked.digest != descriptor_["digest"]:
        raise blobs.damage(descriptor_["digest"])
    diff_ids = (*below_it.diff_ids, unpacked.diff_id)
    keep(job, directory, oci.chain_ids(list(diff_ids))[-1], unpacked)
    return Snapshot((*below_it.descriptors, descriptor_), diff_ids)


class Draft:
    """An image that is in no index: its layers, and the documents that it would have. `Image`'s names for them."""

    def __init__(self, snapshot: Snapshot, config: dict[str, Any]) -> None:
        rootfs = {"type": "layers", "diff_ids": list(snapshot.diff_ids)}
        self.config: dict[str, Any] = {**config, "rootfs": rootfs}
        self.config_content = json.dumps(self.config, separators=(",", ":")).encode()
        self.id = oci.digest(self.config_content)
        self.content = manifest_of(self.id, len(self.config_content), list(snapshot.descriptors))
        self.digest = oci.digest(self.content)
        self.manifest: dict[str, Any] = json.loads(self.content)
        self.chain_ids = snapshot.chain_ids
        self.created = str(config.get("created") or "")


def enter(job: store.Job, snapshot: Snapshot, config: dict[str, Any], *names: str) -> store.Image:
    """The image of these layers and a config that lacks only its `rootfs`, under these names, or none."""
    draft = Draft(snapshot, config)
    job.put(draft.config_content)
    job.commit()
    return job.store.add(draft.content, *names)


def make(job: store.Job, config: dict[str, Any], tars: list[str], *names: str) -> store.Image:
    """An image from tar files in the job's folder, lowest layer first. They become the blobs.

    `config` and what is raised: as `enter` and `add` have it.
    """
    snapshot = Snapshot()
    for tar in tars:
        snapshot = add(job, snapshot, tar)
    return enter(job, snapshot, config, *names)


def manifest_of(config: str, size: int, descriptors: list[dict[str, Any]]) -> bytes:
    """The bytes of an OCI manifest: the config's digest and size, and the layers, lowest first."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "config": {"mediaType": oci.CONFIG, "digest": config, "size": size},
        "layers": descriptors,
    }
    return json.dumps(manifest, separators=(",", ":")).encode()


def below(job: store.Job, chain: list[str]) -> list[str]:
    """The directories of the layers below the last of the chain, the top one first."""
    return [
        f"{job.layers[lower]}/diff" if lower in job.layers else job.store.layer_directory(lower)
        for lower in reversed(chain[:-1])
    ]


def keep(job: store.Job, directory: str, chain: str, unpacked: layers.Unpacked) -> dict[str, Any]:
    """Hand an unpacked layer to the job under its chainID. Returns the record that lies beside it."""
    record = {name: getattr(unpacked, name) for name in layers.Unpacked.__slots__ if name not in layers.INHERITS}
    job.keep_layer(directory, chain, record)
    return record


def descriptor(record: dict[str, Any]) -> dict[str, Any]:
    """The OCI descriptor of a layer's blob, by the record that lies beside the unpacked layer."""
    media = {"": oci.LAYER, "gzip": oci.LAYER_GZIP, "zstd": oci.LAYER_ZSTD}[record["compression"]]
    return {"mediaType": media, "digest": record["digest"], "size": record["blob_size"]}
