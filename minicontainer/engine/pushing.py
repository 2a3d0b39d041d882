"""`push`: an image of the store to a registry.

What is in the store goes as it is, so that an image that was pulled keeps its digest. Layers that lie there plain (of
`commit`, `bootstrap`, or an old docker-archive) are compressed first, the same bytes each time, and the manifest says
so. A blob that the registry has is not sent; one that another of its repositories has, as far as we know, is taken over
from there. The manifest goes last: a tag never means what is not whole.
"""

import concurrent.futures
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from .. import errors, oci
from ..image import blobs, compression, making, provenance, reference, registry, store
from . import pulling

AT_ONCE = 5  # docker's max-concurrent-uploads
MOST_MOUNTS = 3  # repositories that are tried


class Pushed(NamedTuple):
    """What the registry now calls it."""

    digest: str
    size: int


def push(into: store.Store, name: str, progress: pulling.Progress | None = None) -> Pushed:
    """Push the image that is called `name`, to the registry in its name.

    Raises InvalidArgument, ImageNotFound, RegistryError; a tag there then means what it meant.
    """
    wanted = reference.parse(name)
    if wanted.digest:
        raise errors.InvalidArgument("cannot push a digest reference: push a tag")
    image = find(into, wanted)
    target = registry.Registry(wanted.domain, registry.settings_here(), pulling.login_at(wanted.domain))
    with into.job() as job:
        work = Work(job, image, target, wanted, progress or pulling.silent)
        descriptors = work.run()
        content = blobs.read(into.root, image.digest)
        media = str(image.manifest.get("mediaType") or oci.MANIFEST)
        if descriptors != image.manifest["layers"]:
            size = os.stat(blobs.path(into.root, image.id)).st_size
            content, media = making.manifest_of(image.id, size, descriptors), oci.MANIFEST
        target.put_manifest(wanted.path, wanted.tag or reference.DEFAULT_TAG, media, content)
        digest = oci.digest(content)
        into.add(blobs.read(into.root, image.digest), wanted.full(), repo_digest=f"{wanted.name}@{digest}")
    return Pushed(digest, len(content))


def find(into: store.Store, wanted: reference.Reference) -> store.Image:
    """The image of that very name: an id is no place to push to."""
    try:
        return into.get(wanted.full())
    except errors.ImageNotFound:
        raise errors.ImageNotFound(
            f"an image does not exist locally with the tag: {wanted.familiar_name()}; `minicontainer images` lists "
            "those that do"
        ) from None


class Work:
    """All blobs of one image, to one repository."""

    def __init__(
        self, job: store.Job, image: store.Image, target: registry.Registry, wanted: reference.Reference,
        progress: pulling.Progress,
    ) -> None:  # fmt: skip
        self.job = job
        self.root = job.store.root
        self.image = image
        self.target = target
        self.wanted = wanted
        self.progress = progress

    def run(self) -> list[dict[str, Any]]:
        """Send what is missing there. Returns the layers' descriptors, lowest first. One that fails ends the others."""
        layers = self.image.manifest["layers"]
        for position in reversed(range(len(layers))):
            self.tell(position, "Preparing", 0, 0)
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            first = {layer["digest"]: position for position, layer in reversed(list(enumerate(layers)))}
            going = {digest: pool.submit(self.layer, position) for digest, position in first.items()}
            pulling.all_or_none(going.values(), [self.target])
        with blob_of(blobs.path(self.root, self.image.id)) as (read, size):
            if not self.target.has_blob(self.wanted.path, self.image.id):
                self.target.upload(self.wanted.path, self.image.id, size, read)
        return [going[layer["digest"]].result() for layer in layers]

    def tell(self, position: int, what: str, done: int, total: int) -> None:
        self.progress(self.image.config["rootfs"]["diff_ids"][position][7:19], what, done, total)

    def layer(self, position: int) -> dict[str, Any]:
        """Send a layer, if it is missing there. Returns its descriptor."""
        ours: dict[str, Any] = self.image.manifest["layers"][position]
        path = blobs.path(self.root, ours["digest"])
        if not blobs.exists(self.root, ours["digest"], ours["size"]):
            raise blobs.absence(ours["digest"])
        with open(path, "rb") as file:
            plain = not compression.recognize(file.read(6))
        theirs, made = ours, ""
        if plain:
            known = provenance.compressed(self.root, ours["digest"])
            if known is None:
                self.tell(position, "Compressing", 0, ours["size"])
                made, digest, size = self.compress(path, ours["digest"])
                known = digest, size
            theirs = {"mediaType": oci.LAYER_GZIP, "digest": known[0], "size": known[1]}
        said = self.give(position, path, ours, theirs, made)
        provenance.note_repository(self.root, ours["digest"], self.wanted.name)
        self.tell(position, said, theirs["size"], theirs["size"])
        return theirs

    def give(self, position: int, path: str, ours: dict[str, Any], theirs: dict[str, Any], made: str) -> str:
        """See that the repository has a blob. Returns docker's words for how."""
        repository, digest, size = self.wanted.path, theirs["digest"], theirs["size"]
        if self.target.has_blob(repository, digest):
            return "Layer already exists"
        place = ""
        others = [name.partition("/") for name in provenance.repositories(self.root, ours["digest"])]
        others = [found for found in others if found[0] == self.wanted.domain and found[2] != repository]
        for _, _, source in others[:MOST_MOUNTS]:
            try:
                place = self.target.mount(repository, digest, source)
            except registry.Refused as error:
                if error.status not in (401, 403, 404):  # we may not read there, or it is there no more
                    raise
                continue
            if not place:
                return f"Mounted from {source}"
        if theirs is not ours and not made:
            made, again, _ = self.compress(path, ours["digest"])
            if again != digest:  # another zlib than the last time
                theirs.update(digest=again, size=os.stat(made).st_size)
                return self.give(position, path, ours, theirs, made)
        with blob_of(made or path) as (read, _):
            try:
                self.target.upload(
                    repository, digest, size, read, place, lambda done: self.tell(position, "Pushing", done, size)
                )
            except registry.Refused as error:
                if error.status == 400 and not made and blobs.damaged(self.root, digest):
                    raise blobs.damage(digest) from None
                raise
        return "Pushed"

    def compress(self, path: str, digest: str) -> tuple[str, str, int]:
        """A plain layer's gzip, in the job's folder: its path, digest and size."""
        made, state, size = f"{self.job.folder}/gzip-{digest[7:]}", hashlib.sha256(), 0
        of_ours = hashlib.sha256()
        with open(path, "rb", buffering=0) as source, open(made, "wb") as file:

            def read(wanted: int) -> bytes:
                piece = source.read(wanted)
                of_ours.update(piece)
                return piece

            for piece in compression.gzip(read):
                if self.target.stopped.is_set():
                    raise registry.Stopped("stopped")
                state.update(piece)
                size += len(piece)
                file.write(piece)
        if of_ours.hexdigest() != digest[7:]:
            raise blobs.damage(digest)
        found = f"sha256:{state.hexdigest()}"
        provenance.note_compressed(self.root, digest, found, size)
        return made, found, size


@contextmanager
def blob_of(path: str) -> Iterator[tuple[Callable[[int, int], bytes], int]]:
    """`read(offset, size)` of a file, and its size."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield lambda offset, size: os.pread(descriptor, size, offset), os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
