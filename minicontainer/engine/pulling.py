"""`pull`: an image from a registry into the store.

Layers come side by side. Each is hashed, kept, decompressed and unpacked in one pass, while it arrives; what the layers
below would tell it (layers.inherit) it learns at the end, from the bottom up. A layer that breaks off goes on where it
was, also in the next pull, and two pulls that want the same one share it (image/downloads.py). The image has its name
when all of it is durable, or not at all.
"""

import concurrent.futures
import errno
import threading
from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any, NamedTuple

from .. import errors, oci
from ..image import archive, blobs, downloads, layers, making, provenance, reference, registry, store
from . import credentials

AT_ONCE = 3  # layers side by side: docker's max-concurrent-downloads

Progress = Callable[[str, str, int, int], None]
"""Called, from any thread, with the first 12 digits of a layer's digest, docker's words for what happens to it, and how
many of how many bytes are here."""


class Pulled(NamedTuple):
    """The image; its digest as the registry calls it, of the index if there is one; whether it is new here."""

    image: store.Image
    digest: str
    newer: bool


def pull(into: store.Store, name: str, platform: str = "", progress: Progress | None = None) -> Pulled:
    """Pull an image by name, `debian:12` or `debian@sha256:…`, for this machine's platform or for `platform`,
    `linux/arm64/v8`.

    Raises InvalidArgument, RegistryError, InvalidImage, KernelError; then nothing is named, and what has arrived whole
    or in part is kept for the next time.
    """
    wanted = reference.parse(name)
    host = parse_platform(platform)
    sources = registries(wanted.domain)
    source, (media, content, told) = first(sources, lambda source: source.manifest(wanted.path, tag_of(wanted)))
    if source is not sources[-1]:  # a mirror that has the manifest has the blobs, as a rule
        sources = [source, sources[-1]]
    content, digest = choose(source, wanted, media, content, told, host, 0)
    manifest = store.document(content, "manifest")
    config_digest, descriptors = store.manifest_content(manifest)
    check_layers(descriptors)
    size = int(manifest["config"].get("size") or 0)
    config = first(sources, lambda source: source.content(wanted.path, config_digest, size))[1]
    parsed = store.document(config, "config")
    architecture = str(parsed.get("architecture") or "")
    if host and reference.normal(architecture, "")[0] != host[0]:
        raise errors.InvalidImage(f"{wanted.familiar()} is for linux/{architecture}, and {platform} was asked for")
    diff_ids = store.config_diff_ids(parsed)
    if len(diff_ids) != len(descriptors):
        raise errors.InvalidImage(
            f"the image has {len(descriptors)} layers, but its config speaks of {len(diff_ids)}: it is malformed"
        )
    into.open()
    before = present(into, wanted)
    with into.job() as job, ExitStack() as held:
        work = Work(job, sources, wanted, descriptors, diff_ids, progress or silent, held)
        work.run()
        job.put(config)
        job.commit()
        names = [] if wanted.digest else [wanted.full()]
        image = into.add(content, *names, repo_digest=f"{wanted.name}@{told}")
    return Pulled(image, told, before != digest)


def to_fetch(name: str, policy: str = "") -> reference.Reference | None:
    """What to pull for who wants to run an image that is not here: None for an id, which no registry knows, and where
    registries.json says "never", unless `policy` says "missing"."""
    if not policy and registry.settings_here().pull == "never":
        return None
    try:
        return reference.parse(name)
    except errors.InvalidArgument:
        return None


def silent(layer: str, what: str, done: int, total: int) -> None:
    """The progress of who does not want to know."""


def tag_of(wanted: reference.Reference) -> str:
    """What stands behind the name: the digest, where there is one."""
    return wanted.digest or wanted.tag or reference.DEFAULT_TAG


def present(into: store.Store, wanted: reference.Reference) -> str:
    """The manifest's digest of what has that name here, or ""."""
    try:
        return into.get(wanted.full()).digest
    except (errors.ImageNotFound, errors.InvalidImage):
        return ""


def registries(domain: str) -> list[registry.Registry]:
    """Whom to ask for an image: mirrors first, the registry itself last."""
    settings = registry.settings_here()
    asked = []
    for address in settings.mirrors.get(domain, []):
        if "://" not in address:
            raise errors.InvalidArgument(f"registry-mirrors: {address!r} is no address; write https://{address}")
        host = address.partition("://")[2].partition("/")[0]
        if address.startswith("http://") and not settings.is_insecure(host):
            raise errors.InvalidArgument(f"the mirror {address} is not encrypted: name it in insecure-registries, too")
        asked.append(registry.Registry(host, settings, login_at(host), address))
    return [*asked, registry.Registry(domain, settings, login_at(domain))]


def login_at(host: str) -> Callable[[], registry.Login | None]:
    """Who we are there, looked up when it asks."""
    return lambda: credentials.find(host)


def first(sources: list[registry.Registry], ask: Callable[[registry.Registry], Any]) -> tuple[registry.Registry, Any]:
    """The first that answers, and what; raises what the last one does."""
    for source in sources[:-1]:
        try:
            return source, ask(source)
        except errors.RegistryError:
            continue  # a mirror that fails is nobody's problem: the registry itself comes last
    return sources[-1], ask(sources[-1])


# Which image --------------------------------------------------------------------------------------------------------


def parse_platform(text: str) -> tuple[str, str] | None:
    """`linux/arm64/v8`, `linux/arm64` or `arm64` as architecture and variant; "" is None. Raises InvalidArgument."""
    if not text:
        return None
    parts = text.lower().split("/")
    if len(parts) == 1 and parts[0] != "linux":
        parts = ["linux", *parts]
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise errors.InvalidArgument(f"{text!r} is no platform: write linux/arm64, or linux/arm/v7")
    if parts[0] != "linux":
        raise errors.Unsupported(f"an image for {parts[0]} cannot be used here: only linux can")
    return reference.normal(parts[1], parts[2] if len(parts) == 3 else "")


def choose(
    source: registry.Registry, wanted: reference.Reference, media: str, content: bytes, digest: str,
    host: tuple[str, str] | None, depth: int,
) -> tuple[bytes, str]:  # fmt: skip
    """Of an index, what suits the platform best; a manifest is itself. Returns its bytes and its digest."""
    if media not in oci.INDEXES:
        return content, digest
    if depth == archive.DEEPEST_INDEX:
        raise errors.InvalidImage(f"{wanted.familiar()} nests more than {depth} indexes")
    listed = archive.manifests_of(store.document(content, "index"))
    at = reference.choose([archive.platform_of(entry) for entry in listed], host)
    if at is None:
        shown = "/".join(filter(None, ("linux", *(host or reference.host_platform()))))
        parts = ("os", "architecture", "variant")
        there = {"/".join(str(archive.platform_of(entry).get(part) or "") for part in parts) for entry in listed}
        raise errors.RegistryError(
            f"no matching manifest for {shown} in the manifest list entries of {wanted.familiar()}; there are "
            f"{', '.join(sorted(text.strip('/') for text in there))}"
        )
    media, content, digest = source.manifest(wanted.path, str(listed[at]["digest"]))
    return choose(source, wanted, media, content, digest, host, depth + 1)


def check_layers(descriptors: list[dict[str, Any]]) -> None:
    """Refuse what cannot be pulled. Raises InvalidImage."""
    if len(descriptors) > archive.MOST_LAYERS:
        raise errors.InvalidImage(
            f"the image has {len(descriptors)} layers; the kernel stacks at most {archive.MOST_LAYERS}"
        )
    for layer in descriptors:
        media = str(layer.get("mediaType") or oci.LAYER)
        if "foreign" in media or "nondistributable" in media:
            raise errors.InvalidImage(
                f"layer {layer['digest']} is foreign: it lies not in the registry but with its maker (as Windows' base "
                "images do), and is not fetched from there"
            )
        if media not in oci.LAYERS:
            raise errors.InvalidImage(f"layer {layer['digest']} is of type {media!r}, which is no file system's")
        if not isinstance(layer.get("size"), int) or layer["size"] < 0:
            raise errors.InvalidImage("the manifest is malformed: a layer without a size")


# The layers ---------------------------------------------------------------------------------------------------------


class Mirrored:
    """A blob from the first registry that has it; where one fails, the next goes on."""

    def __init__(self, sources: list[registry.Registry], repository: str, digest: str, size: int, offset: int) -> None:
        self.rest = list(sources)
        self.at = offset
        self.what = (repository, digest, size)
        self.blob = self.rest.pop(0).blob(*self.what, offset)

    def read(self, wanted: int) -> bytes:
        """The next bytes, from whoever sends them."""
        while True:
            try:
                piece = self.blob.read(wanted)
                self.at += len(piece)
                return piece
            except registry.Stopped:
                raise
            except errors.RegistryError:
                if not self.rest:
                    raise
                self.blob = self.rest.pop(0).blob(*self.what, self.at)


def all_or_none(under_way: Collection[concurrent.futures.Future[Any]], asked: list[registry.Registry]) -> None:
    """Wait until all is done. One that fails ends the others, wherever they wait for a registry, and is raised."""
    try:
        for done in concurrent.futures.as_completed(under_way):
            done.result()
    except BaseException:
        for future in under_way:
            future.cancel()
        for each in asked:
            each.stop()
        raise


class Work:
    """All layers of one image, into one job. `held` closes what must be held until the image has its name."""

    def __init__(
        self, job: store.Job, sources: list[registry.Registry], wanted: reference.Reference,
        descriptors: list[dict[str, Any]], diff_ids: list[str], progress: Progress, held: ExitStack,
    ) -> None:  # fmt: skip
        self.job = job
        self.sources = sources
        self.name, self.repository = wanted.name, wanted.path
        self.descriptors = descriptors
        self.diff_ids = diff_ids
        self.chains = oci.chain_ids(diff_ids)
        self.progress = progress
        self.held = held
        self.lock = threading.Lock()

    def run(self) -> None:
        """Bring them all to the job. One that fails ends the others."""
        missing = [position for position in range(len(self.chains)) if not self.is_here(position)]
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            coming = {pool.submit(self.bring, position): position for position in missing}
            all_or_none(coming, self.sources)
        for future, position in sorted(coming.items(), key=lambda item: item[1]):
            directory, unpacked = future.result()
            chain = self.chains[: position + 1]
            layers.inherit(directory, unpacked, making.below(self.job, chain))
            making.keep(self.job, directory, chain[-1], unpacked)
            self.tell(position, "Pull complete")
        for layer in self.descriptors:
            provenance.note_repository(self.job.store.root, layer["digest"], self.name)
        for position in set(range(len(self.chains))) - set(missing):
            self.job.link(self.chains[position])

    def is_here(self, position: int) -> bool:
        """Whether layer and blob are in the store; says which of both it is."""
        layer, root = self.descriptors[position], self.job.store.root
        record = self.job.store.layer_record(self.chains[position])
        here = bool(record) and blobs.exists(root, layer["digest"], layer["size"])
        self.tell(position, "Already exists" if here else "Pulling fs layer")
        return here

    def tell(self, position: int, what: str, done: int = 0) -> None:
        layer = self.descriptors[position]
        self.progress(layer["digest"][7:19], what, done, layer["size"])

    def bring(self, position: int) -> tuple[str, layers.Unpacked]:
        """Download and unpack a layer. Where what an earlier pull has left is damaged, once more, afresh."""
        layer = self.descriptors[position]
        while True:
            with self.lock:
                directory = self.job.new_layer()
            download = downloads.Download(
                self.job.store.root, layer["digest"], layer["size"],
                lambda offset: Mirrored(self.sources, self.repository, layer["digest"], layer["size"], offset),
                lambda: self.tell(position, "Waiting"),
                lambda done: self.tell(position, "Downloading", done),
            )  # fmt: skip
            with self.lock:
                self.held.callback(download.close)
            try:
                unpacked = layers.unpack(download.read, directory)
                self.verify(position, unpacked)
            except errors.InvalidImage:
                download.spoilt()
                if not download.begun:
                    raise
                continue
            except errors.KernelError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):  # what is kept for the next time must not fill the disk
                    download.spoilt()
                raise
            self.tell(position, "Download complete", layer["size"])
            with self.lock:
                if download.path != download.stored and download.is_it(download.descriptor):
                    self.job.keep_blob(download.path, layer["digest"])
            return directory, unpacked

    def verify(self, position: int, unpacked: layers.Unpacked) -> None:
        """That what came is what manifest and config speak of. Raises InvalidImage."""
        digest, diff_id = self.descriptors[position]["digest"], self.diff_ids[position]
        if unpacked.digest != digest:
            raise errors.InvalidImage(
                f"layer {digest} came damaged: it has the digest {unpacked.digest}; nothing of it is kept, pull again"
            )
        if unpacked.diff_id != diff_id:
            raise errors.InvalidImage(
                f"layer {digest} has the diffID {unpacked.diff_id}, and the config says {diff_id}: the image is "
                "malformed"
            )
