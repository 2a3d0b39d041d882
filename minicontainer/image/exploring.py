"""What is in an image, layer by layer: what each added, changed and hid, what that wastes, and who owns a file.

Offers: `explore`, plain dicts for `image explore` and for whoever writes Python. It reads the unpacked layers from the
lowest to the top, as overlayfs stacks them, and keeps one tree of what would be seen so far.

Wasted are the bytes of files that a layer above has replaced or hidden: they are in every copy of the image, and no
container sees them. A directory counts as changed where its mode or owner is another one than below.

Sources: OCI image specification, layer.md and config.md (ChainID); Linux, Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from .. import errors
from . import changes, store


class _Node:
    """A file or directory as the layers up to now show it: which layer it comes from, and its size there."""

    __slots__ = ("children", "history", "layer", "mode", "owner", "size")

    def __init__(self, layer: int, status: os.stat_result, size: int) -> None:
        self.layer = layer
        self.mode = status.st_mode
        self.owner = (status.st_uid, status.st_gid)
        self.size = size
        self.children: dict[bytes, _Node] = {}
        self.history: list[int] = []  # the layers that had it before

    def files(self, path: bytes) -> list[tuple[bytes, _Node]]:
        """This and all below that is no directory, by path."""
        if not stat.S_ISDIR(self.mode):
            return [(path, self)]
        found = []
        for name, child in self.children.items():
            found += child.files(path + b"/" + name)
        return found


class _Layer:
    """What one layer did."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.added: list[dict[str, Any]] = []
        self.changed: list[dict[str, Any]] = []
        self.hidden: list[dict[str, Any]] = []
        self.files = 0
        self.inodes: set[int] = set()


class _Walk:
    """All layers, stacked one by one."""

    def __init__(self) -> None:
        self.root: _Node | None = None
        self.wasted: dict[int, int] = {}  # layer → bytes of its files that are hidden from above

    def waste(self, node: _Node, path: bytes) -> int:
        """Note that nobody sees this, and what is below it, any more. Its bytes."""
        total = 0
        for _, file in node.files(path):
            self.wasted[file.layer] = self.wasted.get(file.layer, 0) + file.size
            total += file.size
        return total

    def stack(self, directory: int, layer: _Layer, into: _Node, path: bytes) -> None:
        """One directory of a layer onto what the layers below show there."""
        if changes.is_opaque(directory):
            for below in sorted(into.children):
                self.hide(into, below, path + b"/" + below, layer)
        for name in sorted(os.listdir(directory), key=os.fsencode):
            key, status = os.fsencode(name), os.stat(name, dir_fd=directory, follow_symlinks=False)
            whole = path + b"/" + key
            if changes.is_whiteout(status):
                self.hide(into, key, whole, layer)
            elif stat.S_ISDIR(status.st_mode):
                self.directory(directory, name, status, layer, into, whole)
            else:
                self.file(key, status, layer, into, whole)

    def hide(self, into: _Node, key: bytes, path: bytes, layer: _Layer) -> None:
        """A whiteout: of what is below, nothing is left."""
        gone = into.children.pop(key, None)
        if gone is not None:
            layer.hidden.append({"Path": os.fsdecode(path), "Size": self.waste(gone, path), "Layer": gone.layer})

    def directory(
        self, parent: int, name: str, status: os.stat_result, layer: _Layer, into: _Node, path: bytes
    ) -> None:
        key = os.fsencode(name)
        below = into.children.get(key)
        node = _Node(layer.number, status, 0)
        if below is None:
            layer.added.append({"Path": f"{os.fsdecode(path)}/", "Size": 0})
        elif not stat.S_ISDIR(below.mode):
            entry = {"Path": f"{os.fsdecode(path)}/", "Size": 0, "Before": self.waste(below, path)}
            layer.changed.append({**entry, "Layer": below.layer})
        else:
            node.children = below.children
            node.history = [*below.history, below.layer]
            if (below.mode, below.owner) != (node.mode, node.owner):
                entry = {"Path": f"{os.fsdecode(path)}/", "Size": 0, "Before": 0, "Layer": below.layer}
                layer.changed.append(entry)
            else:
                node.layer, node.history = below.layer, below.history
        into.children[key] = node
        inside = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            self.stack(inside, layer, node, path)
        finally:
            os.close(inside)

    def file(self, key: bytes, status: os.stat_result, layer: _Layer, into: _Node, path: bytes) -> None:
        size = 0 if status.st_ino in layer.inodes else status.st_size  # a second name of a file takes no space
        if status.st_nlink > 1:
            layer.inodes.add(status.st_ino)
        layer.files += 1
        node = _Node(layer.number, status, size)
        below = into.children.get(key)
        entry = {"Path": os.fsdecode(path), "Size": size}
        if below is None:
            layer.added.append(entry)
        else:
            layer.changed.append({**entry, "Before": self.waste(below, path), "Layer": below.layer})
            node.history = [*below.history, below.layer]
        into.children[key] = node


def explore(image: store.Image, file: str = "") -> dict[str, Any]:
    """The image as a learner looks at it; with `file`, also which layers have that path. Raises InvalidImage.

    Id, Digest, Names, Size, Wasted; Layers, lowest first: Number, CreatedBy, DiffID, Digest, MediaType, BlobSize,
    ChainID, ChainIDOf (the text whose SHA-256 it is; the lowest has none), Size, Files, Wasted, and lists of Added,
    Changed and Hidden: Path, Size, and of what was below it, Before and Layer. Paths of other bytes than UTF-8 have
    surrogates (os.fsdecode).
    """
    image.store.layer_links(image)  # InvalidImage, if one is not unpacked
    walk, told = _Walk(), []
    record = image.store.layer_record
    diff_ids = image.config["rootfs"]["diff_ids"]
    commands = created_by(image)
    for number, chain in enumerate(image.chain_ids, 1):
        layer = _Layer(number)
        top = os.open(image.store.layer_directory(chain), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if walk.root is None:
                walk.root = _Node(number, os.fstat(top), 0)
            walk.stack(top, layer, walk.root, b"")
        finally:
            os.close(top)
        descriptor = image.manifest["layers"][number - 1]
        told.append(
            {
                "Number": number,
                "CreatedBy": commands.get(number, ""),
                "DiffID": diff_ids[number - 1],
                "Digest": descriptor["digest"],
                "MediaType": descriptor.get("mediaType", ""),
                "BlobSize": descriptor.get("size", 0),
                "ChainID": chain,
                "ChainIDOf": f"{image.chain_ids[number - 2]} {diff_ids[number - 1]}" if number > 1 else "",
                "Size": int(record(chain).get("file_bytes", 0)),
                "Files": layer.files,
                "Added": layer.added,
                "Changed": layer.changed,
                "Hidden": layer.hidden,
            }
        )
    for one in told:
        one["Wasted"] = walk.wasted.get(one["Number"], 0)
    found = {
        "Id": image.id,
        "Digest": image.digest,
        "Names": image.names,
        "Size": image.size,
        "Wasted": sum(walk.wasted.values()),
        "Layers": told,
    }
    return {**found, "File": owner(walk.root, file, told)} if file else found


def created_by(image: store.Image) -> dict[int, str]:
    """By the number of a layer, what the history says has made it."""
    entries = image.config.get("history")
    named = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    made = [str(entry.get("created_by") or "") for entry in named if not entry.get("empty_layer")]
    return dict(enumerate(made, 1)) if len(made) == len(image.chain_ids) else {}


def owner(root: _Node | None, file: str, layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Path; Layer, whose version a container sees, None if it sees none; Earlier, the layers that had one before.

    Symbolic links on the way are not followed. Raises NotFound where no layer has ever had it.
    """
    path = os.path.normpath(f"/{file}").replace("//", "/")
    node = root
    for part in os.fsencode(path).split(b"/")[1:] if path != "/" else []:
        node = node.children.get(part) if node else None
    if node is not None:
        return {"Path": path, "Layer": node.layer, "Earlier": node.history, "Hidden": None}
    for layer in reversed(layers):
        for entry in layer["Hidden"]:
            if path == entry["Path"] or path.startswith(f"{entry['Path']}/"):
                return {"Path": path, "Layer": None, "Earlier": [entry["Layer"]], "Hidden": layer["Number"]}
    raise errors.NotFound(f"no layer has {path}")
