"""The images on this machine: an OCI image layout, and beside it every layer unpacked once.

    oci-layout, index.json, blobs/sha256/<hex>
                                  as skopeo and umoci read it; a name is an annotation in the index
    layers/<chain>/diff           an unpacked layer, named by its chainID; complete if it is there
    layers/<chain>/layer.json     what it was made from: diffID, blob, sizes, warnings
    layers/l/<XXXX>               a short symbolic link to it, for mount(2)'s one page of options
    store.json                    format version, xattr flavour, id map: what the folder was made under
    images.lock                   one writer at a time
    tmp/<job>/                    a load under way, flocked by its process; without a lock, debris
    distribution/<hex>.json       which repositories have a blob (provenance.py)
    downloads/<hex>               a blob on its way from a registry (downloads.py): what broke off goes on from there
    tmp/removed-<job>/            what has been taken from its place and is being removed; the same

Offers: `Store`, `Image`, and `Job`, the way in for whoever brings blobs and layers (archive, bootstrap, later
registry and build). What is taken away again is removal.py's; what is wrong, repair.py's. Reading takes no lock: every
file appears complete by rename(2), and the index is replaced in one step. Writing takes the images lock for the moment
of the rename only, never while a layer is unpacked. Import cost is a constraint: `run` reads the store through this
module.

Raises ImageNotFound, InvalidImage (what lies here is damaged), Conflict (the folder belongs to another kind of store).
"""

import errno
import os
import sys

from .. import errors, files, host, oci
from .. import quickjson as json
from . import blobs, reference

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself would cost `run` three milliseconds
    from collections.abc import Callable, Iterable
    from typing import Any, Self, TypeVar

    T = TypeVar("T")

VERSION = 1
# linux/fs.h, on all 64-bit machines but a few (there the request fails, and the hint is lost)
_GET_FLAGS, _SET_FLAGS, _TOP_DIRECTORY = 0x80086601, 0x40086602, 0x00020000
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


class Image:
    """One image of the store, its documents verified.

    `id` is the digest of the config's bytes, `digest` that of the manifest's; `names` are familiar forms,
    `debian:latest`, and empty for an image that lost its name. `config` and `manifest` are the documents as parsed.
    `chain_ids` name the unpacked layers, lowest first. `repo_digests` are what registries call it,
    `debian@sha256:…`: of an image of several platforms, the digest of their index.
    """

    __slots__ = ("chain_ids", "config", "digest", "id", "manifest", "names", "repo_digests", "store")

    def __init__(self, store: "Store", digest: str, names: "list[str]", repo_digests: "Iterable[str]" = ()) -> None:
        self.store = store
        self.digest = digest
        self.names = names
        self.repo_digests = list(dict.fromkeys(repo_digests))
        self.manifest: dict[str, Any] = document(blobs.read(store.root, digest), "manifest")
        self.id, layers = manifest_content(self.manifest)
        self.config: dict[str, Any] = document(blobs.read(store.root, self.id), "config")
        diff_ids = config_diff_ids(self.config)
        self.config["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
        if len(diff_ids) != len(layers):
            raise errors.InvalidImage(f"the image has {len(layers)} layers, but its config speaks of {len(diff_ids)}")
        self.chain_ids = oci.chain_ids(diff_ids)

    @property
    def created(self) -> str:
        """RFC 3339, or "" where the config does not say."""
        return str(self.config.get("created") or "")

    @property
    def architecture(self) -> str:
        """amd64, arm64, …; "" where the config does not say."""
        return str(self.config.get("architecture") or "")

    @property
    def os(self) -> str:
        """linux, as a rule."""
        return str(self.config.get("os") or "linux")

    @property
    def size(self) -> int:
        """Bytes of the files in all layers."""
        return self.store.size_of(self.chain_ids)

    def __repr__(self) -> str:
        return f"<Image {', '.join(self.names) or self.id[7:19]}>"


class Store:
    """The store under `root`. Constructing one costs nothing and touches nothing."""

    def __init__(self, root: str) -> None:
        self.root = root

    # Opening

    def open(self, create: bool = True) -> None:
        """See that the folder is a store of this kind; make it at first use. Raises Conflict where it is another's.

        A store's layers carry `trusted.overlay` or `user.overlay` attributes, and owners as one id map has them: under
        another map they would be somebody else's.
        """
        try:
            found = json.loads(files.read(f"{self.root}/store.json"))
        except FileNotFoundError:
            if create:
                self._create()
            return
        except PermissionError:
            raise errors.Unsupported(
                f"{self.root} belongs to somebody else; name a folder of your own in MINICONTAINER_ROOT"
            ) from None
        except ValueError:
            raise errors.Conflict(f"{self.root}/store.json is damaged; is {self.root} a minicontainer store?") from None
        wanted = kind_here()
        if not isinstance(found, dict) or found.get("version") != VERSION:
            raise errors.Conflict(
                f"{self.root} is a store of another format version; use the minicontainer that made it, "
                "or another folder (MINICONTAINER_ROOT)"
            )
        if found != wanted:
            raise errors.Conflict(
                f"{self.root} was made with {_describe(found)}, and this process has {_describe(wanted)}: "
                "layers cannot be shared between the two; name another folder in MINICONTAINER_ROOT"
            )

    def _create(self) -> None:
        files.make_directory(self.root, 0o700)
        with self.lock():
            if os.path.exists(f"{self.root}/store.json"):
                return
            # layers holds set-id programs and device nodes of strangers: nobody but us may walk in.
            for directory, mode in (("blobs/sha256", 0o755), ("layers", 0o700), ("layers/l", 0o700), ("tmp", 0o700)):
                files.make_directory(f"{self.root}/{directory}", mode)
            files.write(f"{self.root}/oci-layout", oci.LAYOUT, sync=True)
            if not os.path.exists(f"{self.root}/index.json"):
                self.write_index([])
            files.write(
                f"{self.root}/store.json", json.dumps(kind_here()).encode(), sync=True
            )  # last: now it is a store

    def lock(self, shared: bool = False) -> files.locked:
        """The images lock. First in the order images → containers → networks. Shared, it keeps removals away."""
        return files.locked(f"{self.root}/images.lock", shared)

    # Reading

    def index(self) -> "list[dict[str, Any]]":
        """The descriptors of the index: a manifest each, and a name, if it has one, in its annotations."""
        try:
            content = files.read(f"{self.root}/index.json")
        except FileNotFoundError:
            return []
        manifests = document(content, "index").get("manifests")
        if not isinstance(manifests, list) or not all(
            isinstance(entry, dict) and oci.is_digest(entry.get("digest")) for entry in manifests
        ):
            raise errors.InvalidImage(f"{self.root}/index.json is damaged; `system check` says more")
        return manifests

    def steadily(self, look: "Callable[[], T]") -> "T":
        """What `look` finds. Where it may have met a removal halfway, it looks once more while the lock, shared, keeps
        removals away: what is missing then is missing indeed. Not for who holds the lock alone."""
        try:
            return look()
        except errors.InvalidImage:
            with self.lock(shared=True):
                return look()

    def get(self, name: str) -> Image:
        """The image of that name, or whose id begins so. Raises ImageNotFound, InvalidArgument for no possible name."""
        return self.steadily(lambda: self.look_up(name))

    def look_up(self, name: str) -> Image:
        """The same for who holds the lock."""
        self.open(create=False)
        index = self.index()
        digest = _by_name(index, name)
        if digest:
            return self.image_of(index, digest)
        matches = {}
        prefix = name.removeprefix("sha256:")
        if prefix and frozenset("0123456789abcdef").issuperset(prefix):
            for digest in {str(entry["digest"]) for entry in index}:
                try:
                    image = self.image_of(index, digest)
                except errors.InvalidImage:
                    continue  # a damaged neighbour is `check`'s business
                if image.id[7:].startswith(prefix):
                    matches[image.id] = image
        if len(matches) > 1:
            raise errors.InvalidArgument(f"{name} is the beginning of {len(matches)} images' ids; give more digits")
        for image in matches.values():
            return image
        raise errors.ImageNotFound(
            f"No such image: {name}; `images` lists what is here, `pull`, `load -i FILE` or `bootstrap busybox` brings "
            "one"
        )

    def images(self) -> list[Image]:
        """All images, newest first. Several names of one image are one Image."""
        return self.steadily(self.look_at_all)

    def look_at_all(self) -> list[Image]:
        """The same for who holds the lock."""
        self.open(create=False)
        index = self.index()
        found = [self.image_of(index, digest) for digest in dict.fromkeys(str(entry["digest"]) for entry in index)]
        found.sort(key=lambda image: image.created, reverse=True)
        return found

    def image_of(self, index: "list[dict[str, Any]]", digest: str) -> Image:
        """The image of that manifest, with the names that it has in the index."""
        entries = [entry for entry in index if entry["digest"] == digest]
        names = [familiar(entry) for entry in entries if full_name(entry)]
        return Image(
            self, digest, names, [reference.parse(told).familiar() for told in map(repo_digest, entries) if told]
        )

    def layer_links(self, image: Image) -> list[str]:
        """The layers' short names relative to the store's root, lowest first: `layers/l/K7QX`.

        14 bytes and a colon each: 127 layers, Docker's most, fit into the page that mount(2) has for its options.
        Raises InvalidImage for a layer that is not unpacked, ImageNotFound for an image that is being removed.
        """
        whose = (image.names or [image.id])[0]

        def look() -> list[str]:
            if not blobs.exists(self.root, image.id):
                raise errors.ImageNotFound(f"No such image: {whose}; it was removed just now")
            return self.links(image.chain_ids, whose)

        return self.steadily(look)

    def links(self, chain_ids: "list[str]", whose: str) -> list[str]:
        """The same for these layers; `whose` is what an error calls the image."""
        links = []
        for chain in chain_ids:
            link = self.link_of(chain)
            if link is None:
                raise errors.InvalidImage(
                    f"layer {chain[7:19]} of {whose} is not unpacked; `system check --repair` does it"
                )
            links.append(link)
        return links

    def layer_directories(self, image: Image) -> list[str]:
        """The layers' directories, absolute, lowest first."""
        return [self.layer_directory(chain) for chain in image.chain_ids]

    def layer_directory(self, chain: str) -> str:
        """Where the layer of that chainID lies unpacked, or would."""
        return f"{self.root}/layers/{chain[7:]}/diff"

    def layer_record(self, chain: str) -> "dict[str, Any]":
        """What is known about an unpacked layer: diff_id, digest, file_bytes, warnings; {} if it is not there."""
        try:
            return document(files.read(f"{self.root}/layers/{chain[7:]}/layer.json"), "layer record")
        except FileNotFoundError:
            return {}

    def size_of(self, chain_ids: "list[str]") -> int:
        """Bytes of the files in these layers."""
        return sum(int(self.layer_record(chain).get("file_bytes", 0)) for chain in chain_ids)

    def link_of(self, chain: str) -> "str | None":
        """An unpacked layer's short name, `layers/l/K7QX`; None where layer or link is missing."""
        for name in short_names(chain):
            try:
                target = os.readlink(f"{self.root}/layers/l/{name}")
            except FileNotFoundError:
                return None
            if target == f"../{chain[7:]}/diff":
                return f"layers/l/{name}" if os.path.isdir(f"{self.root}/layers/{chain[7:]}/diff") else None
        return None

    def cached(self) -> "dict[str, tuple[str, str]]":
        """What the build cache (build/cache.py) keeps, by the name of its record: a layer's chainID, its blob's digest.

        Of a record that is none, two empty texts.
        """
        found = {}
        for name in names(f"{self.root}/build/cache"):
            if not name.endswith(".json") or name.endswith(".inputs.json"):
                continue
            try:
                record = document(files.read(f"{self.root}/build/cache/{name}"), "record of the build cache")
                found[name] = (str(record["chain_id"]), str(record["descriptor"]["digest"]))
            except (errors.InvalidImage, KeyError, TypeError):
                found[name] = ("", "")
        return found

    # Writing

    def job(self) -> "Job":
        """A folder for something that takes time; use it in a `with` statement."""
        self.open()
        return Job(self)

    def tag(self, source: str, name: str) -> Image:
        """Let the image also be called `name`; an image that had the name loses it. Returns the image."""
        parsed = _name(name)
        with self.lock():
            image = self.look_up(source)
            self._name(image.digest, len(blobs.read(self.root, image.digest)), image.manifest, [parsed.full()])
            return self.look_up(image.id)

    def add(self, manifest: bytes, *names: str, repo_digest: str = "") -> Image:
        """Enter a manifest, whose config and layers are in the store, under these names, or none. Returns it.

        `repo_digest`: what the registry calls it that it comes from, or was pushed to (`debian@sha256:…`).
        """
        full = [_name(name).full() for name in names]
        parsed = document(manifest, "manifest")
        config, layers = manifest_content(parsed)
        with self.lock():
            for digest in [config, *(str(layer["digest"]) for layer in layers)]:
                if not blobs.exists(self.root, digest):
                    raise errors.InvalidImage(f"the manifest speaks of {digest}, which is not in the store")
            digest = blobs.put(self.root, manifest, f"{self.root}/blobs/sha256/.tmp-{os.getpid()}")
            self._name(digest, len(manifest), parsed, full, reference.parse(repo_digest).full() if repo_digest else "")
            return self.image_of(self.index(), digest)

    def _name(self, digest: str, size: int, manifest: "dict[str, Any]", full: list[str], told: str = "") -> None:
        """Write the index anew; the lock is held."""
        index = self.index()
        orphans = {str(entry["digest"]) for entry in index if full_name(entry) in full}
        index = [entry for entry in index if full_name(entry) not in full]
        if full:  # a name replaces "no name"
            index = [entry for entry in index if entry["digest"] != digest or full_name(entry) or repo_digest(entry)]
        index = [entry for entry in index if not told or repo_digest(entry) != told or full_name(entry)]
        bare = {
            "mediaType": str(manifest.get("mediaType") or oci.MANIFEST),
            "digest": digest,
            "size": size,
        }
        for name in full:
            annotations = {oci.REF_NAME: reference.parse(name).familiar(), oci.FULL_NAME: name}
            if told:
                annotations[oci.REPO_DIGEST] = told
            index.append({**bare, "annotations": annotations})
        if told and not full:
            index.append({**bare, "annotations": {oci.REPO_DIGEST: told}})
        present = {str(entry["digest"]) for entry in index}
        if digest not in present:
            index.append(bare)
        for orphan in sorted(orphans - present - {digest}):  # as with docker, the image stays, without a name
            index.append({**bare, "digest": orphan, "size": os.stat(blobs.path(self.root, orphan)).st_size})
        self.write_index(index)

    def write_index(self, manifests: "list[dict[str, Any]]") -> None:
        """Replace the index; the lock is held."""
        index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": manifests}
        files.write(f"{self.root}/index.json", json.dumps(index, indent=1).encode(), sync=True)

    # Checking

    def check(self, in_use: "Callable[[], Iterable[str]]" = tuple) -> list[str]:
        """What is wrong, a sentence each; empty if nothing is. See repair.py."""
        from . import repair

        return repair.check(self, in_use)

    def repair(self, in_use: "Callable[[], Iterable[str]]" = tuple) -> list[str]:
        """Mend what `check` finds, and say what was done. See repair.py."""
        from . import repair

        return repair.repair(self, in_use)


class Folder:
    """A folder of the store's tmp, used in a `with` statement, at whose end it goes.

    It is flocked as long as its process lives, so that nobody takes it for debris.
    """

    kind = ""  # what its name begins with

    def __init__(self, store: Store) -> None:
        self.store = store
        self.folder = ""
        self.descriptor = -1

    def __enter__(self) -> "Self":
        with self.store.lock():  # so that nobody takes us for debris between mkdir and flock
            self.folder = f"{self.store.root}/tmp/{self.kind}{os.getpid()}-{os.urandom(6).hex()}"
            os.mkdir(self.folder, 0o700)
            self.descriptor = files.lock(self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            files.remove_tree(self.folder)
        finally:
            os.close(self.descriptor)


class Job(Folder):
    """A load under way: a private folder, flocked for as long as the process lives, and the steps that end in the
    index.

    with store.job() as job:
        … write blobs to job.path("…") and layers to job.layer_directory(), then keep_blob() and keep_layer()
        job.commit()            # all of it durable, then all of it in place
        store.add(manifest, name)

    Leaving the block removes the folder; whatever was not committed is gone. The job must still be open when the
    image is entered into the index: until then its blobs belong to nobody, and only the lock protects them.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.counter = 0
        self.blobs: dict[str, str] = {}  # digest → file that waits
        self.layers: dict[str, str] = {}  # chainID → directory that waits
        self.unsaved = False  # whether names were given that need not last yet

    def __enter__(self) -> "Job":
        super().__enter__()
        _spread(self.descriptor)
        return self

    def path(self, kind: str) -> str:
        """A name in the folder that nobody has."""
        self.counter += 1
        return f"{self.folder}/{kind}-{self.counter}"

    def new_layer(self) -> str:
        """An empty directory to unpack a layer into: the `diff` of one that `keep_layer` may then name."""
        path = f"{self.path('layer')}-{os.urandom(4).hex()}"  # ext4 spreads by a hash of the name
        os.mkdir(path, 0o700)
        os.mkdir(f"{path}/diff", 0o755)
        os.chmod(f"{path}/diff", 0o755)
        return f"{path}/diff"

    def keep_blob(self, path: str, digest: str) -> None:
        """The file is complete, verified and fsynced: `commit` gives it its name."""
        blobs.path("", digest)
        self.blobs[digest] = path

    def put(self, content: bytes) -> str:
        """Keep a document. Returns its digest."""
        digest = oci.digest(content)
        if not blobs.exists(self.store.root, digest, len(content)) and digest not in self.blobs:
            path = self.path("blob")
            files.write(path, content, sync=True)
            self.keep_blob(path, digest)
        return digest

    def keep_layer(self, directory: str, chain: str, record: "dict[str, Any]") -> None:
        """The layer is complete and verified: `commit` makes it durable and gives it its name."""
        files.write(f"{os.path.dirname(directory)}/layer.json", json.dumps(record).encode())
        self.layers[chain] = os.path.dirname(directory)

    def commit(self, more: bool = False) -> None:
        """Make everything kept durable (one syncfs(2) for all the layers), then give it its names.

        With `more`, there will be another commit before the image is entered: until then, the names need not last.
        Killed before, nothing was stored; killed between, complete blobs and layers lie there that `repair` collects
        and the next load of the image uses.
        """
        root = self.store.root
        if self.layers or (self.unsaved and not more):
            from .. import syscalls  # costs ctypes, which reading the store never needs

            syscalls.syncfs(self.descriptor)
        with self.store.lock():
            for chain, path in self.layers.items():
                try:
                    os.rename(path, f"{root}/layers/{chain[7:]}")
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    # Somebody else loaded the same layer meanwhile; theirs is as good.
            for chain in self.layers:
                self._link(chain)
            for digest, path in self.blobs.items():
                try:
                    blobs.adopt(root, path, digest)
                except FileNotFoundError:
                    if not blobs.exists(root, digest):
                        raise
                    # Two pulls shared a download; the other one has named it.
            if self.layers and not more:
                files.sync_directory(f"{root}/layers")
                files.sync_directory(f"{root}/layers/l")
            if self.blobs and not more:
                files.sync_directory(f"{root}/blobs/sha256")
        self.unsaved = more
        self.layers = {}
        self.blobs = {}

    def link(self, chain: str) -> None:
        """Give a layer that lies unpacked its short name again."""
        with self.store.lock():
            self._link(chain)
            files.sync_directory(f"{self.store.root}/layers/l")

    def _link(self, chain: str) -> None:
        target = f"../{chain[7:]}/diff"
        for name in short_names(chain):
            place = f"{self.store.root}/layers/l/{name}"
            try:
                os.symlink(target, place)
                return
            except FileExistsError:
                if os.readlink(place) == target:
                    return
                # Taken by another layer: the next four letters. One in a million.
        raise errors.Conflict(f"no short name is left for layer {chain}")


# Documents ----------------------------------------------------------------------------------------------------------


def document(content: bytes, what: str) -> "dict[str, Any]":
    """Parse a JSON object. Raises InvalidImage for anything else, of whatever depth."""
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        raise errors.InvalidImage(f"the {what} is no JSON") from None
    if not isinstance(parsed, dict):
        raise errors.InvalidImage(f"the {what} is no JSON object")
    return parsed


def manifest_content(manifest: "dict[str, Any]") -> "tuple[str, list[dict[str, Any]]]":
    """Of a manifest: the digest of its config, and the descriptors of its layers. Raises InvalidImage."""
    config, layers = manifest.get("config"), manifest.get("layers")
    if manifest.get("schemaVersion") != 2 or not isinstance(config, dict) or not isinstance(layers, list):
        raise errors.InvalidImage("the manifest is malformed, or of the long retired schema 1")
    if config.get("mediaType") not in oci.CONFIGS:
        raise errors.InvalidImage(f"not a container image but an artifact of type {config.get('mediaType')!r}")
    for descriptor in [config, *layers]:
        if not isinstance(descriptor, dict) or not oci.is_digest(descriptor.get("digest")):
            raise errors.InvalidImage("the manifest is malformed: a descriptor without a sha256 digest")
        size = descriptor.get("size", 0)
        if not isinstance(size, int) or size < 0:
            raise errors.InvalidImage("the manifest is malformed: a size that is none")
    return config["digest"], layers


def config_diff_ids(config: "dict[str, Any]") -> list[str]:
    """Of a config: the layers' diffIDs, lowest first. Raises InvalidImage, also for fields of the wrong type that
    whoever runs the image would stumble over."""
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if diff_ids is None:
        diff_ids = []
    if not isinstance(diff_ids, list) or not all(oci.is_digest(diff_id) for diff_id in diff_ids):
        raise errors.InvalidImage("the config is malformed: rootfs.diff_ids must be a list of sha256 digests")
    inner = config.get("config")
    if inner is None:
        inner = {}
    if not isinstance(inner, dict):
        raise errors.InvalidImage("the config is malformed: `config` must be an object")
    for key in ("Env", "Cmd", "Entrypoint", "Shell", "OnBuild"):
        value = inner.get(key)
        if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise errors.InvalidImage(f"the config is malformed: {key} must be a list of strings")
    for key in ("User", "WorkingDir", "StopSignal"):
        if not isinstance(inner.get(key) or "", str):
            raise errors.InvalidImage(f"the config is malformed: {key} must be a string")
    for key in ("Labels", "Volumes", "ExposedPorts"):
        if not isinstance(inner.get(key) or {}, dict):
            raise errors.InvalidImage(f"the config is malformed: {key} must be an object")
    _check_healthcheck(inner.get("Healthcheck") or {})
    for key in ("architecture", "os", "variant", "created", "author", "docker_version"):
        if not isinstance(config.get(key) or "", str):
            raise errors.InvalidImage(f"the config is malformed: {key} must be a string")
    history = config.get("history") or []
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise errors.InvalidImage("the config is malformed: `history` must be a list of objects")
    for entry in [config, *history]:
        if not _is_moment(entry.get("created") or ""):
            raise errors.InvalidImage("the config is malformed: `created` must be a time, 2024-01-31T12:00:00Z")
    return diff_ids


def _check_healthcheck(wished: object) -> None:
    """Raise InvalidImage for what is not like {"Test": ["CMD", …], "Interval": nanoseconds, …, "Retries": 3}."""
    if not isinstance(wished, dict):
        raise errors.InvalidImage("the config is malformed: Healthcheck must be an object")
    test = wished.get("Test") or []
    if not isinstance(test, list) or not all(isinstance(word, str) for word in test):
        raise errors.InvalidImage("the config is malformed: Healthcheck.Test must be a list of strings")
    for key in ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"):
        value = wished.get(key) or 0
        if not isinstance(value, int) or value < 0:
            raise errors.InvalidImage(f"the config is malformed: Healthcheck.{key} must be a number, 0 or more")


def _is_moment(text: object) -> bool:
    """Whether it is an RFC 3339 time, or ""."""
    if not isinstance(text, str) or text[:19].translate(_TO_ZERO) not in ("", "0000-00-00T00:00:00"):
        return False
    if not text:
        return True
    month, day, hour, minute, second = (int(text[at : at + 2]) for at in (5, 8, 11, 14, 17))
    return text[:4] != "0000" and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 61


_TO_ZERO = str.maketrans("123456789", "000000000")


def full_name(entry: "dict[str, Any]") -> str:
    """The full name in a descriptor's annotations, or "". Foreign tools write only the short one into our index."""
    annotations = entry.get("annotations")
    if not isinstance(annotations, dict):
        return ""
    named = annotations.get(oci.FULL_NAME) or annotations.get(oci.REF_NAME)
    try:
        return reference.parse(named).full() if isinstance(named, str) else ""
    except errors.InvalidArgument:
        return ""


def repo_digest(entry: "dict[str, Any]") -> str:
    """What a registry calls it, in full, or ""."""
    annotations = entry.get("annotations")
    told = annotations.get(oci.REPO_DIGEST) if isinstance(annotations, dict) else None
    try:
        return reference.parse(told).full() if isinstance(told, str) else ""
    except errors.InvalidArgument:
        return ""


def familiar(entry: "dict[str, Any]") -> str:
    """The familiar name in a descriptor's annotations, or ""."""
    full = full_name(entry)
    return reference.parse(full).familiar() if full else ""


def short_names(chain: str) -> list[str]:
    """The four-letter names a layer may have, in the order to try: windows onto its chainID, five bits a letter."""
    number = int(chain[7:], 16)
    letters = []
    for _ in range(48):
        letters.append(_LETTERS[number & 31])
        number >>= 5
    text = "".join(letters)
    return [text[at : at + 4] for at in range(0, 48, 4)]


def _by_name(index: "list[dict[str, Any]]", name: str) -> str:
    """The manifest's digest of the image that a person calls `name`, or "". Raises InvalidArgument for no possible
    name.
    """
    hexadecimal = frozenset("0123456789abcdef").issuperset(name.removeprefix("sha256:"))
    if hexadecimal and (len(name) == 64 or name.startswith("sha256:")):
        return ""  # an id, or the beginning of one
    wanted = reference.parse(name)
    for entry in index:
        full = full_name(entry)
        if wanted.digest and repo_digest(entry) == wanted.full():
            return str(entry["digest"])
        if not full:
            continue
        if full == wanted.full():
            return str(entry["digest"])
        if wanted.digest and entry["digest"] == wanted.digest and reference.parse(full).name == wanted.name:
            return str(entry["digest"])
    return ""


def _name(text: str) -> reference.Reference:
    parsed = reference.parse(text)
    if parsed.digest:
        raise errors.InvalidArgument(f"{text!r} has a digest: an image's name is a repository and a tag")
    return parsed


def kind_here() -> "dict[str, Any]":
    """What decides whether a store's layers are of use to this process."""
    mapped = host.in_user_namespace()
    return {
        "version": VERSION,
        "xattrs": "user" if mapped else "trusted",
        "uid_map": _map("uid") if mapped else "all",
        "gid_map": _map("gid") if mapped else "all",
    }


def _map(kind: str) -> str:
    return "; ".join(" ".join(line.split()) for line in files.read(f"/proc/self/{kind}_map").decode().splitlines())


def _describe(kind: "dict[str, Any]") -> str:
    if kind.get("xattrs") == "trusted":
        return "the ids of the whole machine"
    return f"the user namespace map {kind.get('uid_map')!r}"


def _spread(descriptor: int) -> None:
    """Tell ext4 that the subdirectories of this one are strangers to one another (the T of chattr(1)).

    Each layer then gets a part of the disk of its own, not the one where a layer lay that was just removed: there,
    ext4 steps over every inode freed in the last minute, one by one, for each file made. Three times the work.
    """
    import fcntl

    try:
        flags = fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8))
        wanted = int.from_bytes(flags[:4], sys.byteorder) | _TOP_DIRECTORY
        fcntl.ioctl(descriptor, _SET_FLAGS, wanted.to_bytes(4, sys.byteorder) + bytes(4))
    except OSError:
        pass  # a hint, to a file system that may not know it


def names(directory: str) -> list[str]:
    """What is in a directory, sorted; nothing where it is not there."""
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
