"""Saving: images of the store as an archive, in the form that docker save writes since version 25, or as plain OCI.

Offers: `save`, which yields the archive in chunks; `save_draft`, of an image that is in no index. In both forms it is
an OCI image layout in a tar: `oci-layout`,
`index.json`, `blobs/sha256/…`, blobs and manifests byte for byte as the store has them. The docker form adds
`manifest.json` and `repositories` for older readers, and each config once more as `<id>.json`, where people look.

The same images give the same bytes: members come in the order of their names, nobody's, and as old as the youngest
image (or SOURCE_DATE_EPOCH, if that is earlier). Every blob is open before the first byte is written, so that a removal
meanwhile takes nothing away; and it is verified as it goes by: an archive that is damaged ends in an error.

Sources: moby image/spec (docker-archive); OCI image specification, image-layout.md.
"""

from __future__ import annotations

import calendar
import contextlib
import hashlib
import os
from collections.abc import Iterator
from typing import Any

from .. import errors, oci
from .. import quickjson as json
from . import blobs, making, reference, store, tar

FORMATS = ("docker-archive", "oci")
CHUNK = 1 << 20


class _Chosen:
    """An image to be saved, and the full names that it is to have in the archive."""

    def __init__(self, image: store.Image | making.Draft) -> None:
        self.image = image
        self.names: list[str] = []


def save(
    here: store.Store, names: list[str], form: str = FORMATS[0], epoch: int | None = None
) -> tuple[list[store.Image], Iterator[bytes]]:
    """The images of these names, and the archive of them. A repository without a tag means all of its tags; an id, no
    name.

    Raises ImageNotFound, InvalidArgument for an unknown form, InvalidImage where a blob is damaged.
    """
    if form not in FORMATS:
        raise errors.InvalidArgument(f"there is no archive format {form!r}: {' and '.join(FORMATS)} are there")
    chosen: dict[str, _Chosen] = {}
    opened: dict[str, int] = {}
    try:
        with here.lock(shared=True) if os.path.exists(here.root) else contextlib.nullcontext():  # no store, no lock
            for name in names:
                _choose(here, name, chosen)
            for one in chosen.values():
                for digest in [one.image.digest, one.image.id, *_layers(one.image)]:
                    if digest not in opened:
                        opened[digest] = _open(here, digest)
    except BaseException:
        _close(opened)
        raise
    images = [one.image for one in chosen.values() if isinstance(one.image, store.Image)]
    return images, _archive(list(chosen.values()), opened, form, epoch)


def save_draft(
    here: store.Store, draft: making.Draft, names: list[str], form: str = FORMATS[0], epoch: int | None = None
) -> Iterator[bytes]:
    """The archive of an image that is in no index, under these names. The caller keeps its layers from removals."""
    one = _Chosen(draft)
    one.names = [reference.parse(name).full() for name in names]
    opened: dict[str, int] = {}
    try:
        for digest, content in ((draft.digest, draft.content), (draft.id, draft.config_content)):
            opened[digest] = os.memfd_create("document", os.MFD_CLOEXEC)
            os.pwrite(opened[digest], content, 0)
        for digest in _layers(draft):
            if digest not in opened:
                opened[digest] = _open(here, digest)
    except BaseException:
        _close(opened)
        raise
    return _archive([one], opened, form, epoch)


def _open(here: store.Store, digest: str) -> int:
    try:
        return os.open(blobs.path(here.root, digest), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise blobs.absence(digest) from None


def _close(opened: dict[str, int]) -> None:
    for descriptor in opened.values():
        os.close(descriptor)
    opened.clear()


def _layers(image: store.Image | making.Draft) -> list[str]:
    return [str(layer["digest"]) for layer in image.manifest["layers"]]


def _choose(here: store.Store, name: str, chosen: dict[str, _Chosen]) -> None:
    """Add what `name` means to the images chosen."""
    here.open(create=False)
    try:
        parsed: reference.Reference | None = reference.parse(name)
    except errors.InvalidArgument:
        parsed = None  # an id
    if parsed and not parsed.tag and not parsed.digest:
        found = False
        for entry in here.index():
            full = store.full_name(entry)
            if full and reference.parse(full).name == parsed.name:
                image = here.look_up(full)
                chosen.setdefault(image.digest, _Chosen(image)).names.append(full)
                found = True
        if found:
            return
    image = here.look_up(name)
    one = chosen.setdefault(image.digest, _Chosen(image))
    if parsed and parsed.tag and not parsed.digest and parsed.full() not in one.names:
        one.names.append(parsed.full())


def _archive(chosen: list[_Chosen], opened: dict[str, int], form: str, epoch: int | None) -> Iterator[bytes]:
    try:
        moment = max((_seconds(one.image.created) for one in chosen), default=0)
        moment = moment if epoch is None else min(moment, epoch)
        documents = {"index.json": _index(chosen, opened, form), "oci-layout": oci.LAYOUT}
        if form == FORMATS[0]:
            documents["manifest.json"] = _text([_listed(one) for one in chosen])
            documents["repositories"] = _text(_repositories(chosen))
            for one in chosen:
                documents[f"{one.image.id[7:]}.json"] = _document(one.image.id, opened)
        for name in ("blobs", "blobs/sha256"):
            yield _header(f"{name}/", tar.DIRECTORY, 0o755, 0, moment)
        for digest in sorted(opened):
            yield from _blob(digest, opened[digest], moment)
        for name in sorted(documents):
            yield _header(name, tar.REGULAR, 0o644, len(documents[name]), moment)
            yield documents[name] + tar.padding(len(documents[name]))
        yield tar.END
    finally:
        _close(opened)


def _blob(digest: str, descriptor: int, moment: int) -> Iterator[bytes]:
    """One blob, verified as it goes by."""
    size = os.fstat(descriptor).st_size
    yield _header(f"blobs/sha256/{digest[7:]}", tar.REGULAR, 0o644, size, moment)
    state, offset = hashlib.sha256(), 0
    while piece := os.pread(descriptor, CHUNK, offset):
        state.update(piece)
        offset += len(piece)
        if offset == size and state.hexdigest() != digest[7:]:
            break
        yield piece
    if offset != size or state.hexdigest() != digest[7:]:
        raise blobs.damage(digest)
    yield tar.padding(size)


def _header(name: str, kind: bytes, mode: int, size: int, moment: int) -> bytes:
    return tar.header(tar.Member(name.encode(), kind, mode, 0, 0, size, moment * 10**9, b"", 0, 0, {}, None))


def _text(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _seconds(created: str) -> int:
    """An RFC 3339 time in UTC as seconds since the epoch; 0 for none, or one before."""
    try:
        fields = [int(created[begin:end]) for begin, end in ((0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19))]
        return max(0, min(calendar.timegm(tuple(fields)), (1 << 33) - 1))
    except ValueError:
        return 0


def _document(digest: str, opened: dict[str, int]) -> bytes:
    """A document, verified."""
    content = os.pread(opened[digest], blobs.LARGEST_DOCUMENT, 0)
    if oci.digest(content) != digest:
        raise blobs.damage(digest)
    return content


def _index(chosen: list[_Chosen], opened: dict[str, int], form: str) -> bytes:
    """index.json: a descriptor for each name. docker's ref.name is the tag alone, skopeo's and podman's the name."""
    manifests = []
    for one in chosen:
        bare = {
            "mediaType": str(one.image.manifest.get("mediaType") or oci.MANIFEST),
            "digest": one.image.digest,
            "size": len(_document(one.image.digest, opened)),
        }
        for full in one.names:
            parsed = reference.parse(full)
            short = parsed.tag if form == FORMATS[0] else parsed.familiar()
            manifests.append({**bare, "annotations": {oci.FULL_NAME: full, oci.REF_NAME: short}})
        if not one.names:
            manifests.append(bare)
    return _text({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": manifests})


def _listed(one: _Chosen) -> dict[str, Any]:
    """An image in manifest.json."""
    paths = [f"blobs/sha256/{digest[7:]}" for digest in _layers(one.image)]
    sources = {
        diff_id: {"mediaType": layer.get("mediaType"), "size": layer.get("size"), "digest": layer["digest"]}
        for diff_id, layer in zip(one.image.config["rootfs"]["diff_ids"], one.image.manifest["layers"], strict=True)
    }
    return {
        "Config": f"blobs/sha256/{one.image.id[7:]}",
        "RepoTags": [reference.parse(full).familiar() for full in one.names] or None,
        "Layers": paths,
        "LayerSources": sources,
    }


def _repositories(chosen: list[_Chosen]) -> dict[str, dict[str, str]]:
    """What readers before manifest.json look for: by repository and tag, the topmost layer."""
    found: dict[str, dict[str, str]] = {}
    for one in chosen:
        for full in one.names if one.image.chain_ids else ():
            parsed = reference.parse(full)
            found.setdefault(parsed.familiar_name(), {})[parsed.tag] = one.image.chain_ids[-1][7:]
    return found
