"""Images from files: what `docker save`, skopeo, podman and buildkit write.

Offers: `load`; `borrow`, for an image that is to have no name here; `unpack_from_store`, which the store's repair uses.
Understood are docker-archives of both layouts (`<id>/layer.tar`, and from Docker 25 on `blobs/`), OCI archives (also
with an index of many platforms), a directory with an OCI layout, and any of the archives compressed with gzip or zstd,
from a file or from a pipe.

Every digest and diffID is checked before anything is kept; an archive that fails leaves nothing behind.

Sources: moby image/spec (docker-archive); OCI image specification, image-layout.md and image-index.md.
"""

import errno
import io
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO

from .. import errors, files, oci
from .. import quickjson as json
from ..records import namedtuple
from . import blobs, compression, layers, making, reference, store, tar

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many layers are done, and how many there are."""

MOST_LAYERS = 500  # OVL_MAX_STACK of the kernel
MOST_MEMBERS = 100_000
DEEPEST_INDEX = 4


def load(into: store.Store, source: BinaryIO | str, progress: Progress | None = None) -> list[str]:
    """Load all images of an archive (an open file, or a path) or of an OCI layout's directory (a path).

    Returns what was loaded: familiar names, or the id of an image that has none. Raises InvalidImage for an archive
    that is malformed, hostile, truncated or incomplete: nothing of it was stored then.
    """
    try:
        if not isinstance(source, str):
            return _load_file(into, source, progress)
        if os.path.isdir(source):
            with into.job() as job:
                return _load_members(job, _Folder(source), progress)
        try:
            file = open(source, "rb", buffering=0)  # noqa: SIM115 - closed below; only opening it is the user's error
        except OSError as error:
            raise errors.InvalidArgument(f"cannot read {source}: {error.strerror}") from None
        with file:
            return _load_file(into, file, progress)
    except OSError as error:
        raise layers.kernel_error(error, "load", os.fsencode(error.filename or into.root)) from error


class Borrowed(namedtuple("Borrowed", "id manifest config created")):
    """An image whose layers are here, and which is in no index: `id` is "". A store.Image's names for its documents."""

    id: str
    manifest: dict[str, Any]
    config: dict[str, Any]
    created: str


def borrow(job: store.Job, path: str, which: str = "") -> Borrowed:
    """The layers of one image of an OCI layout's directory, here as long as the job lasts, or somebody stands on them.

    `which` is its digest or tag; without, the only one, or that of the tag latest. Raises NotFound, and as `load` does.
    """
    try:
        members = _Folder(path)
        index = members.document("index.json")
        if index is None or members.document("oci-layout") is None:
            raise errors.InvalidImage(f"{path} is no OCI image layout: it needs oci-layout and index.json")
        listed = manifests_of(store.document(index, "index.json"))
        wanted = which or ("latest" if len(listed) > 1 else "")
        chosen = [one for one in listed if not wanted or wanted in _called(one)]
        found = list(_oci_images(members, json.dumps({"manifests": chosen[:1]}).encode()))
        if not found:
            raise errors.NotFound(f"the layout {path} has no image {wanted or 'at all'}")
        manifest = _import(job, members, found[0], _silent)
        job.commit(more=True)
    except OSError as error:
        raise layers.kernel_error(error, "load", os.fsencode(error.filename or path)) from error
    config = store.document(found[0].config, "config")
    return Borrowed("", store.document(manifest, "manifest"), config, str(config.get("created") or ""))


def _called(descriptor: dict[str, Any]) -> list[str]:
    """By what one of a layout's images may be asked for: its digest, its name, its tag."""
    annotations = descriptor.get("annotations")
    names = [annotations.get(oci.REF_NAME), annotations.get(oci.FULL_NAME)] if isinstance(annotations, dict) else []
    texts = [name for name in names if isinstance(name, str)]
    return [str(descriptor["digest"]), *texts, *(name.rpartition(":")[2] for name in texts)]


def _load_file(into: store.Store, source: BinaryIO | io.FileIO, progress: Progress | None) -> list[str]:
    with into.job() as job:
        descriptor, own = _seekable(job, source)
        try:
            return _load_members(job, _Archive(descriptor), progress)
        finally:
            if own:
                os.close(descriptor)


def _load_members(job: store.Job, members: "_Members", progress: Progress | None) -> list[str]:
    found = list(_images(members))
    if not found:
        raise errors.InvalidImage("the archive holds no image")
    manifests = [(_import(job, members, image, progress or _silent), image.names) for image in found]
    job.commit()
    loaded = []
    for manifest, names in manifests:
        image = job.store.add(manifest, *names)
        loaded += [reference.parse(name).familiar() for name in names] or [image.id]
    return loaded


def _silent(what: str, done: int, total: int) -> None:
    """The progress of who does not want to know."""


# Where the members are ----------------------------------------------------------------------------------------------


def _seekable(job: store.Job, source: BinaryIO | io.FileIO) -> tuple[int, bool]:
    """A descriptor of the plain archive that can be read at any place, and whether it is ours to close.

    A pipe, an object that is no file, and a compressed archive go through a file in the job's folder.
    """
    try:
        descriptor = source.fileno()
        seekable = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except (OSError, io.UnsupportedOperation, AttributeError):
        descriptor, seekable = -1, False
    if seekable:
        first = os.pread(descriptor, 6, 0)
        if not compression.recognize(first):
            return descriptor, False
        read: compression.Read = _window(descriptor, 0, os.fstat(descriptor).st_size)
    elif descriptor >= 0:
        read = partial(os.read, descriptor)
    else:
        read = source.read
    spool = os.open(job.path("spool"), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for piece in compression.decompress(read, compression.default_limits())[1]:
            files.write_all(spool, piece)
    except BaseException:
        os.close(spool)
        raise
    return spool, True


def _window(descriptor: int, offset: int, size: int) -> compression.Read:
    """Read a part of a file from its beginning. Whether it is complete is for digests to say."""
    end = offset + size

    def read(wanted: int) -> bytes:
        nonlocal offset
        piece = os.pread(descriptor, min(wanted, end - offset), offset)
        offset += len(piece)
        return piece

    return read


class _Members:
    """What an archive and a folder have in common: members by name."""

    def find(self, name: str) -> tuple[int, int, int] | None:
        """Descriptor, offset and size of a member, or None."""
        raise NotImplementedError

    def document(self, name: str) -> bytes | None:
        """The content of a small member, or None. Raises InvalidImage if it is too large to be one."""
        found = self.find(name)
        if found is None:
            return None
        descriptor, offset, size = found
        if size > blobs.LARGEST_DOCUMENT:
            raise errors.InvalidImage(f"{name} has {size} bytes, too many for a document")
        content = _window(descriptor, offset, size)(size) if size else b""
        if len(content) != size:
            raise errors.InvalidImage(f"{name} is truncated")
        return content


class _Archive(_Members):
    """A tar file: one pass over its headers, which skips the data, says where everything is."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.files: dict[bytes, tuple[int, int]] = {}
        self.links: dict[bytes, bytes] = {}
        total = os.fstat(descriptor).st_size
        for entry in tar.entries(_Skipping(descriptor)):
            if len(self.files) + len(self.links) > MOST_MEMBERS:
                raise errors.InvalidImage(
                    f"the archive has more than {MOST_MEMBERS} members; an image's has some hundreds"
                )
            name = layers.clean(entry.name)
            if entry.kind == tar.REGULAR and entry.holes is None:
                if entry.position + entry.size > total:
                    raise errors.InvalidImage("the archive is truncated: it ends in the middle of an entry")
                self.files[name] = (entry.position, entry.size)
                self.links.pop(name, None)
            elif entry.kind in (tar.SYMLINK, tar.HARD_LINK):
                # Resolved among the members, so that `..` may lead anywhere but never out of the archive.
                base = os.path.dirname(name) if entry.kind == tar.SYMLINK else b""
                self.links[name] = os.path.normpath(b"/" + os.path.join(base, entry.link.lstrip(b"/"))).lstrip(b"/")
                self.files.pop(name, None)

    def find(self, name: str) -> tuple[int, int, int] | None:
        key = os.fsencode(os.path.normpath(name))
        for _ in range(8):
            if key in self.files:
                return self.descriptor, *self.files[key]
            if key not in self.links:
                return None
            key = self.links[key]
        raise errors.InvalidImage(f"{name} is a symbolic link to itself")


class _Skipping(tar.Stream):
    """A stream over a file that seeks where others read: only the headers of a large archive are ever touched."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(iter(()))
        self.descriptor = descriptor
        self.position = 0

    def next_chunk(self) -> bool:
        self.offset = self.position
        self.at = 0
        self.chunk = os.pread(self.descriptor, 4096, self.position)
        self.position += len(self.chunk)
        return bool(self.chunk)

    def skip(self, size: int) -> bool:
        available = len(self.chunk) - self.at
        if size > available:
            self.position += size - available
            self.chunk, self.at, self.offset = b"", 0, self.position
        else:
            self.at += size
        return True


class _Folder(_Members):
    """A directory with an OCI layout. The file that was asked for last stays open, and only that one."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.file: io.FileIO | None = None

    def find(self, name: str) -> tuple[int, int, int] | None:
        if os.path.isabs(name) or ".." in name.split("/"):
            raise errors.InvalidImage(f"{name} leads out of the layout")
        try:
            # O_NONBLOCK: a FIFO of that name must not make us wait.
            opened = files.inside(self.descriptor, name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        self.file = io.FileIO(opened)  # closes the one before
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            raise errors.InvalidImage(f"{name} is no regular file")
        return opened, 0, status.st_size

    def __del__(self) -> None:
        os.close(self.descriptor)


# What the images are ------------------------------------------------------------------------------------------------


class _Found:
    """An image in an archive. `layers` are members' names, lowest first; `manifest` is None where the format has
    none.
    """

    def __init__(self, config: bytes, members: list[str], names: list[str]) -> None:
        self.config = config
        self.layers = members
        self.names = names
        self.manifest: bytes | None = None
        self.digests: list[str] = []


def _images(members: _Members) -> Iterator[_Found]:
    """The OCI layout is preferred where an archive has both, as Docker's does: it keeps the manifest's own bytes."""
    index = members.document("index.json")
    listing = members.document("manifest.json")
    if index is not None and members.document("oci-layout") is not None:
        found = list(_oci_images(members, index))
        if found:
            yield from found
            return
    if listing is not None:
        yield from _docker_images(members, listing)
    elif index is not None:
        raise errors.InvalidImage("the archive's index leads to no image that is in the archive")
    else:
        raise errors.InvalidImage(
            "not an image archive: neither manifest.json (docker save) nor index.json (OCI) is in it; "
            "a tar of a plain file system is no image"
        )


def _docker_images(members: _Members, listing: bytes) -> Iterator[_Found]:
    try:
        items = json.loads(listing)
    except (ValueError, RecursionError):
        raise errors.InvalidImage("manifest.json is no JSON") from None
    if not isinstance(items, list):
        raise errors.InvalidImage("manifest.json is malformed: not a list")
    for item in items:
        name = item.get("Config") if isinstance(item, dict) else None
        paths = _strings(item.get("Layers") or []) if isinstance(item, dict) else None
        tags = _strings(item.get("RepoTags") or []) if isinstance(item, dict) else None
        if not isinstance(name, str) or paths is None or tags is None:
            raise errors.InvalidImage("manifest.json is malformed: Config, RepoTags and Layers must be strings")
        config = members.document(name)
        if config is None:
            raise errors.InvalidImage(f"the archive is incomplete: {name} is not in it")
        stem = os.path.basename(name).removesuffix(".json")
        if oci.is_digest(f"sha256:{stem}") and oci.digest(config) != f"sha256:{stem}":
            raise errors.InvalidImage(f"the archive is damaged: {name} does not have the digest of its name")
        yield _Found(config, paths, [_full(tag) for tag in tags])


def _strings(value: object) -> list[str] | None:
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def _full(name: str) -> str:
    try:
        return reference.parse(name).full()
    except errors.InvalidArgument as error:
        raise errors.InvalidImage(f"the archive names an image badly: {error}") from None


def _oci_images(members: _Members, index: bytes) -> Iterator[_Found]:
    by_digest: dict[str, _Found] = {}
    for descriptor in manifests_of(store.document(index, "index.json")):
        chosen = _choose(members, descriptor, 0)
        if chosen is None:
            continue
        digest, manifest = chosen
        annotations = descriptor.get("annotations")
        name = ""
        if isinstance(annotations, dict):
            name = str(annotations.get(oci.FULL_NAME) or annotations.get(oci.REF_NAME) or "")
        if digest not in by_digest:
            config_digest, layer_descriptors = store.manifest_content(manifest[1])
            config = _blob(members, config_digest)
            if config is None:
                raise errors.InvalidImage(f"the archive is incomplete: config {config_digest} is not in it")
            found = _Found(config, [_member(layer["digest"]) for layer in layer_descriptors], [])
            found.manifest = manifest[0]
            found.digests = [str(layer["digest"]) for layer in layer_descriptors]
            by_digest[digest] = found
        if name:
            by_digest[digest].names.append(_full(name))
    yield from by_digest.values()


def _choose(
    members: _Members, descriptor: dict[str, Any], depth: int
) -> tuple[str, tuple[bytes, dict[str, Any]]] | None:
    """Follow a descriptor to the manifest for this machine: its digest, its bytes, the document.

    Of an index, what suits the machine best among what the archive really holds, for `docker save` writes an index of
    all platforms and the blobs of one. If nothing suits, the first: an image of another architecture may be loaded,
    not run. None where it leads to something that is no image, or not in the archive.
    """
    content = _blob(members, str(descriptor.get("digest")))
    if content is None:
        return None
    document = store.document(content, "manifest")
    kind = document.get("mediaType") or descriptor.get("mediaType")
    if kind in oci.INDEXES or (kind is None and "manifests" in document):
        if depth == DEEPEST_INDEX:
            raise errors.InvalidImage(f"the archive nests more than {DEEPEST_INDEX} indexes")
        present = [
            candidate for candidate in manifests_of(document)
            if platform_of(candidate).get("architecture") != "unknown"
            and members.find(_member(str(candidate["digest"])))
        ]  # fmt: skip
        best = reference.choose([platform_of(candidate) for candidate in present])
        ordered = present if best is None else [present[best], *present]
        for candidate in ordered:
            chosen = _choose(members, candidate, depth + 1)
            if chosen is not None:
                return chosen
        return None
    if kind is not None and kind not in oci.MANIFESTS:
        raise errors.InvalidImage(f"the archive holds something of type {kind!r}, which is no image")
    config = document.get("config")
    if isinstance(config, dict) and config.get("mediaType") not in oci.CONFIGS:
        return None  # an artifact beside the images: a signature, a bill of materials
    return str(descriptor["digest"]), (content, document)


def manifests_of(index: dict[str, Any]) -> list[dict[str, Any]]:
    """The descriptors in an index. Raises InvalidImage."""
    manifests = index.get("manifests")
    if not isinstance(manifests, list) or len(manifests) > 1000:
        raise errors.InvalidImage("the index is malformed: `manifests` must be a list, of at most 1000")
    for descriptor in manifests:
        if not isinstance(descriptor, dict) or not oci.is_digest(descriptor.get("digest")):
            raise errors.InvalidImage("the index is malformed: a descriptor without a sha256 digest")
    return manifests


def platform_of(descriptor: dict[str, Any]) -> dict[str, object]:
    """The platform that a descriptor in an index is for; {} where it does not say."""
    platform = descriptor.get("platform")
    return platform if isinstance(platform, dict) else {}


def _member(digest: str) -> str:
    return f"blobs/sha256/{digest.partition(':')[2]}"


def _blob(members: _Members, digest: str) -> bytes | None:
    content = members.document(_member(digest))
    if content is not None and oci.digest(content) != digest:
        raise errors.InvalidImage(f"the archive is damaged: blob {digest} has another digest")
    return content


# Bringing them in ---------------------------------------------------------------------------------------------------


def _import(job: store.Job, members: _Members, image: _Found, progress: Progress) -> bytes:
    """Bring an image's documents and layers to the job. Returns the manifest's bytes, made here if it has none."""
    config = store.document(image.config, "config")
    diff_ids = store.config_diff_ids(config)
    if len(diff_ids) != len(image.layers):
        raise errors.InvalidImage(
            f"the archive is inconsistent: {len(image.layers)} layers, but the config speaks of {len(diff_ids)}"
        )
    if len(diff_ids) > MOST_LAYERS:
        raise errors.InvalidImage(f"the image has {len(diff_ids)} layers; the kernel stacks at most {MOST_LAYERS}")
    chains = oci.chain_ids(diff_ids)
    descriptors = []
    for position, member in enumerate(image.layers):
        progress(f"layer {chains[position][7:19]}", position, len(chains))
        expected = image.digests[position] if image.digests else ""
        descriptors.append(_layer(job, members, member, diff_ids[position], chains[: position + 1], expected))
    progress("done", len(chains), len(chains))
    config_digest = job.put(image.config)
    if image.manifest is not None:
        return image.manifest
    return making.manifest_of(config_digest, len(image.config), descriptors)


def _layer(
    job: store.Job, members: _Members, member: str, diff_id: str, chain: list[str], expected: str
) -> dict[str, Any]:
    """Bring one layer in, unless it is here. Returns its descriptor.

    `chain` are the chainIDs up to this layer; `expected` is the blob's digest where the manifest says it.
    """
    record = job.store.layer_record(chain[-1])
    if chain[-1] in job.layers:
        record = store.document(files.read(f"{job.layers[chain[-1]]}/layer.json"), "layer record")
    digest = str(record.get("digest", ""))
    if (
        record
        and expected in ("", digest)
        and (digest in job.blobs or blobs.exists(job.store.root, digest, record["blob_size"]))
    ):
        if chain[-1] not in job.layers:
            job.link(chain[-1])
        return making.descriptor(record)
    found = members.find(member)
    if found is None:
        raise errors.InvalidImage(f"the archive is incomplete: {member} is not in it")
    directory = job.new_layer()
    path = job.path("blob")
    blob = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        unpacked = layers.unpack(_window(*found), directory, blob=blob, lower=making.below(job, chain))
    finally:
        os.close(blob)
    if expected and unpacked.digest != expected:
        raise errors.InvalidImage(f"the archive is damaged: layer {expected} has the digest {unpacked.digest}")
    if unpacked.diff_id != diff_id:
        raise errors.InvalidImage(
            f"the archive is damaged: {member} has the diffID {unpacked.diff_id}, and the config says {diff_id}"
        )
    job.keep_blob(path, unpacked.digest)
    return making.descriptor(making.keep(job, directory, chain[-1], unpacked))


def unpack_from_store(job: store.Job, image: store.Image) -> None:
    """Unpack those layers of an image again that are missing, from its blobs, and give each its short name.

    Raises InvalidImage where a blob is not what the config says. The caller commits.
    """
    diff_ids = store.config_diff_ids(image.config)
    for position, layer in enumerate(image.manifest["layers"]):
        chain = image.chain_ids[: position + 1]
        if job.store.layer_record(chain[-1]):
            job.link(chain[-1])
            continue
        path = blobs.path(job.store.root, layer["digest"])
        directory = job.new_layer()
        with open(path, "rb", buffering=0) as file:
            unpacked = layers.unpack(file.read, directory, lower=making.below(job, chain))
        if unpacked.digest != layer["digest"] or unpacked.diff_id != diff_ids[position]:
            raise errors.InvalidImage(f"blob {layer['digest']} is damaged; load the image again")
        making.keep(job, directory, chain[-1], unpacked)
