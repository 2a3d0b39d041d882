"""Is the store whole, and what can be mended: `system check`.

Offers: `check`, which reads every blob and changes nothing, and `repair`, which mends. Both return sentences. A load
under way is left alone, and so is what containers stand on: `in_use` tells the chainIDs of their layers, and is called
while the images lock is held, when no container can begin to use one.
"""

import os

from .. import errors, oci
from . import blobs, downloads, removal, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any


def check(here: store.Store, in_use: "Callable[[], Iterable[str]]" = tuple) -> list[str]:
    """What is wrong, a sentence each; empty if nothing is. Reads every blob. Changes nothing."""
    if not os.path.exists(here.root):
        return []
    here.open(create=False)
    if not os.path.exists(f"{here.root}/store.json"):
        return []
    with here.lock():
        said = _examine(here, set(in_use()), None)
    if not said:
        for image in here.images():
            for chain in image.chain_ids:
                if here.link_of(chain) is None:
                    said.append(f"layer {chain} of {image!r} is not unpacked")
    return said


def repair(here: store.Store, in_use: "Callable[[], Iterable[str]]" = tuple) -> list[str]:
    """Mend what `check` finds, and say what was done. Loads under way are left alone.

    Debris goes; a damaged blob goes, and with it the images that need it; a layer that is missing or has lost its
    link is unpacked or linked again from its blob.
    """
    if not os.path.exists(here.root):
        return []
    with removal.Bin(here) as bin, here.lock():
        said = _examine(here, set(in_use()), bin)
        # Nothing is wrong with these, but who mends a store does not wait for the rest of them.
        said += [f"{path} is a download that broke off" for path in downloads.clean(here.root)]
    return said + _unpack_missing(here)


def _examine(here: store.Store, in_use: set[str], bin: removal.Bin | None) -> list[str]:
    """What is wrong; with a bin, it is mended. The lock is held."""
    said = []
    debris, busy = removal.jobs(here)
    for path in [*debris, *_half_written(here, bool(busy))]:
        said.append(f"{path} was left behind by a process that died")
        if bin:
            bin.take(path)
    said += _examine_blobs(here, bin is not None)
    said += _examine_images(here, bin is not None)
    said += _examine_cache(here, bin is not None)
    if not busy:
        for path in removal.unreferenced(here, in_use):
            said.append(f"{path} belongs to no image")
            if bin:
                bin.take(path)
    return said


def _half_written(here: store.Store, busy: bool) -> list[str]:
    """Temporary files of atomic writes. Whoever holds the lock knows that nobody is at it, but for the build cache's:
    there, that no job is under way."""
    blob_names = store.names(f"{here.root}/blobs/sha256")
    found = [name for name in store.names(here.root) if ".json.tmp-" in name or "layout.tmp-" in name]
    found += [f"blobs/sha256/{name}" for name in blob_names if name.startswith(".tmp-")]
    for place in () if busy else ("build/cache", "build/hashes", "build/last", "build/running"):
        found += [f"{place}/{name}" for name in store.names(f"{here.root}/{place}") if ".tmp-" in name]
    return [f"{here.root}/{name}" for name in found]


def _examine_blobs(here: store.Store, mend: bool) -> list[str]:
    said = []
    for name in store.names(f"{here.root}/blobs/sha256"):
        digest = f"sha256:{name}"
        if oci.is_digest(digest) and blobs.damaged(here.root, digest):
            said.append(f"blob {digest} is damaged")
            if mend:
                os.unlink(blobs.path(here.root, digest))
    return said


def _examine_images(here: store.Store, mend: bool) -> list[str]:
    """Images that lack a document or a blob: they go from the index, named or not."""
    said, kept = [], []
    try:
        index = here.index()
    except errors.InvalidImage as error:
        said.append(str(error))
        index = _manifests(here)
    for entry in index:
        digest = str(entry["digest"])
        try:
            image = store.Image(here, digest, [])
            for layer in image.manifest["layers"]:
                if not blobs.exists(here.root, layer["digest"]):
                    raise errors.InvalidImage(f"blob {layer['digest']} is missing")
            kept.append(entry)
        except errors.InvalidImage as error:
            said.append(f"image {store.familiar(entry) or digest} is incomplete, load it again: {error}")
    if mend and said:
        here.write_index(kept)
    return said


def _examine_cache(here: store.Store, mend: bool) -> list[str]:
    """Records of the build cache whose layer is not there any more, unpacked and as a blob: they go."""
    said = []
    for name, (chain, digest) in here.cached().items():
        if oci.is_digest(digest) and blobs.exists(here.root, digest) and here.link_of(chain):
            continue
        said.append(f"record {name} of the build cache has lost its layer")
        if mend:
            os.unlink(f"{here.root}/build/cache/{name}")
    return said


def _manifests(here: store.Store) -> "list[dict[str, Any]]":
    """Descriptors of all blobs that are manifests: what is left of an index that was lost."""
    found: list[dict[str, Any]] = []
    for name in store.names(f"{here.root}/blobs/sha256"):
        size = os.stat(f"{here.root}/blobs/sha256/{name}").st_size
        if size <= blobs.LARGEST_DOCUMENT:
            try:
                content = store.document(blobs.read(here.root, f"sha256:{name}"), "manifest")
                store.manifest_content(content)
            except errors.InvalidImage:
                continue
            media = str(content.get("mediaType") or oci.MANIFEST)
            found.append({"mediaType": media, "digest": f"sha256:{name}", "size": size})
    return found


def _unpack_missing(here: store.Store) -> list[str]:
    said = []
    for image in here.images():
        if all(here.link_of(chain) for chain in image.chain_ids):
            continue
        from . import archive

        with here.job() as job:
            archive.unpack_from_store(job, image)
            job.commit()
        said.append(f"the layers of {image!r} are unpacked again")
    return said
