"""The images of a store, with docker-py's verbs.

    images = Images(host.root())
    images.load(open("debian.tar", "rb"))      # names, or ids, of what was in it
    images.get("debian").config["config"]["Cmd"]
    images.bootstrap("busybox")
    images.pull("debian:12").image
    images.push("localhost:5000/mine:1").digest

Light to import: whatever only `load`, `pull` and `bootstrap` need is imported by them.
"""

from .. import errors
from ..image import reference, store
from . import events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, BinaryIO

    from ..image import archive
    from . import pulling, pushing

    Names = list[str]  # in the class below, `list` is a method
    History = dict[str, Any]
    Histories = list[History]


class Images:
    """The images under `root`. Constructing it touches nothing."""

    def __init__(self, root: str) -> None:
        self.store = store.Store(root)

    def load(self, source: "BinaryIO | str", progress: "archive.Progress | None" = None) -> "Names":
        """Load every image of an archive: an open file, a pipe, or a path, also that of an OCI layout's directory.

        Returns familiar names, or the id of what has no name. Raises InvalidImage; then nothing was stored.
        """
        from ..image import archive

        names = archive.load(self.store, source, progress)
        loaded = [image for image in map(self.found, names) if image]
        for image in {image.id: image for image in loaded}.values():
            self.note("load", image.id, labels_of(image))
        return names

    def pull(
        self, name: str, platform: str = "", progress: "pulling.Progress | None" = None
    ) -> "pulling.Pulled":  # docker-py: pull(repository, tag, platform=…)
        """Fetch an image from its registry. Raises RegistryError, InvalidImage; then no name has changed."""
        from . import pulling

        pulled = pulling.pull(self.store, name, platform, progress)
        self.note_reference("pull", name, pulled.image)
        return pulled

    def push(self, name: str, progress: "pulling.Progress | None" = None) -> "pushing.Pushed":
        """Send an image to the registry in its name. Raises ImageNotFound, RegistryError."""
        from . import pushing

        pushed = pushing.push(self.store, name, progress)
        image = self.found(name)
        if image:
            self.note_reference("push", name, image)
        return pushed

    def manifest(self, name: str) -> "tuple[str, bytes, str]":
        """Of an image in its registry: media type, bytes and digest of its manifest or index. Raises RegistryError."""
        from . import pulling

        wanted = reference.parse(name)
        return pulling.registries(wanted.domain)[-1].manifest(wanted.path, pulling.tag_of(wanted))

    def tags(self, repository: str) -> "Names":
        """All tags that a registry has of a repository. Raises RegistryError."""
        from . import pulling

        wanted = reference.parse(repository)
        return list(pulling.registries(wanted.domain)[-1].tags(wanted.path))

    def warnings(self, name: str) -> "list[str]":
        """What could not be kept when the image's layers were unpacked: devices and owners in a user namespace …"""
        image = self.store.get(name)
        return [str(text) for chain in image.chain_ids for text in self.store.layer_record(chain).get("warnings", [])]

    def get(self, name: str) -> store.Image:
        """The image of that name, or whose id begins so. Raises ImageNotFound, InvalidArgument."""
        return self.store.get(name)

    def list(self) -> "list[store.Image]":
        """All images, newest first."""
        return self.store.images()

    def history(self, name: str) -> "Histories":
        """What was done to make the image, the last of it first; docker's keys. Nothing checks that it is true.

        Id is "<missing>" but for the first: how an image came about is told by its config, not by other images.
        Created is RFC 3339 or "", Size the bytes of the files in the layer that came of it. Raises InvalidImage.
        """
        return history_of(self.store.get(name))

    def prune(self, filters: "dict[str, Names] | None" = None) -> "dict[str, Any]":
        """Remove the images that have no name and no container; {"dangling": ["false"]}: also those with a name.

        Also known: until, label, label!. Returns ImagesDeleted, a list of {"Untagged": name} and {"Deleted": id or
        layer}, and SpaceReclaimed, the bytes of the layers that went.
        """
        from ..image import removal
        from . import containers, filters as filtering  # isort: skip

        chosen = filtering.of_prunable_images(filters or {})
        going: list[tuple[store.Image, dict[str, str]]] = []

        def goes(image: store.Image) -> bool:
            """Whether it is chosen; then its labels are kept, for nobody can read them any more."""
            if chosen(image):
                going.append((image, labels_of(image)))
                return True
            return False

        deleted: set[str] = set()
        said, space = removal.prune(self.store, containers.Containers(self.store.root).users, goes)
        for image, labels in going:
            for _ in image.names:
                self.note("untag", image.id, labels)
            if f"Deleted: {image.id}" in said:
                deleted.add(image.id)
        for identifier in deleted:
            self.note("delete", identifier, {})
        events.note_prune(self.store.root, "image", space)
        return {"ImagesDeleted": [dict([line.split(": ", 1)]) for line in said], "SpaceReclaimed": space}

    def from_tar(
        self, source: "BinaryIO", name: str = "", comment: str = "", changes: "Names | None" = None, platform: str = ""
    ) -> store.Image:
        """An image of one layer, of a root file system's tar stream: `import`. Raises InvalidImage, InvalidArgument."""
        from . import committing

        image = committing.from_tar(self.store, source, name, comment, changes, platform)
        if name:
            self.note("tag", image.id, labels_of(image), reference.parse(name).familiar())
        self.note("import", image.id, labels_of(image))
        return image

    def explore(self, name: str, file: str = "") -> "History":
        """What each layer added, changed, hid; what is wasted; which layer `file` is from. See image/exploring.py."""
        from ..image import exploring

        return exploring.explore(self.store.get(name), file)

    def save(self, names: "Names", form: str = "docker-archive") -> "Iterator[bytes]":
        """Images as an archive, in chunks; the same bytes each time. Raises ImageNotFound, InvalidImage."""
        from ..image import saving
        from . import committing

        images, chunks = saving.save(self.store, names, form, committing.source_date_epoch())
        for image in images:
            self.note("save", image.id, labels_of(image))
        return chunks

    def tag(self, source: str, name: str) -> store.Image:
        """Let an image also be called `name`."""
        image = self.store.tag(source, name)
        self.note("tag", image.id, labels_of(image), reference.parse(name).familiar())
        return image

    def remove(self, name: str, force: bool = False) -> "Names":
        """Take a name away, and with the last one the image. Returns what went, in docker's words.

        Raises ImageNotFound, and Conflict where a container uses it: with `force`, only for a running one's id.
        """
        from ..image import removal
        from . import containers

        image = self.store.get(name)
        labels = labels_of(image)
        said = removal.remove(self.store, name, containers.Containers(self.store.root).users, force)
        for line in said:
            if line.startswith("Untagged: ") and "@" not in line:
                self.note("untag", image.id, labels)
        if f"Deleted: {image.id}" in said:
            self.note("delete", image.id, {})
        return said

    def found(self, name: str) -> "store.Image | None":
        """The image of that name; None where somebody has removed it since we had it."""
        try:
            return self.store.get(name)
        except errors.ImageNotFound:
            return None

    def note(self, action: str, identifier: str, labels: "dict[str, str]", name: str = "") -> None:
        """What was done to an image, for who follows `events`; docker says its id where it goes by no name."""
        events.note(self.store.root, "image", action, identifier, {**labels, "name": name or identifier})

    def note_reference(self, action: str, name: str, image: store.Image) -> None:
        """The same of what goes by the name that was typed: pull and push."""
        wanted = reference.parse(name)
        self.note(action, wanted.familiar(), labels_of(image), wanted.familiar_name())

    def bootstrap(self, kind: str) -> store.Image:
        """Make `busybox:latest` or `debian:latest` on the spot. Raises InvalidArgument, Unsupported."""
        from . import bootstrap

        image = bootstrap.make(self.store, kind)
        self.note("import", image.id, labels_of(image))
        return image


def labels_of(image: store.Image) -> "dict[str, str]":
    """The labels in its config; none where that is damaged."""
    try:
        return (image.config.get("config") or {}).get("Labels") or {}
    except errors.InvalidImage:
        return {}


def history_of(image: store.Image) -> "Histories":
    """See `Images.history`."""
    entries = image.config.get("history") or []
    chains = iter(image.chain_ids)
    told: Histories = []
    for entry in entries:
        size = 0
        if not entry.get("empty_layer"):
            chain = next(chains, None)
            if chain is None:
                raise errors.InvalidImage("the config is inconsistent: history has more layers than the image")
            size = image.store.size_of([chain])
        texts = [("Created", "created"), ("CreatedBy", "created_by"), ("Comment", "comment")]
        told.insert(0, {"Id": "<missing>", **{key: str(entry.get(name) or "") for key, name in texts}, "Size": size})
    for last in told[:1]:
        last["Id"] = image.id
    return told
