"""Removal: an image's name, the image, and whatever no other image and no container needs.

Offers: `remove`; `unreferenced` and `Bin`, with which repair.py takes away what is left; `jobs`: who is at work.

The index is written first: from then on nobody finds the image. Each file, link and layer then leaves its place by one
rename(2) or unlink(2), so that no half of a layer is ever seen; only after that, and without the lock, layers go to
pieces. Killed in between, blobs and layers are left that belong to nobody: `system check --repair` and the next removal
take them. While a job is under way nothing is collected, for it may count on any blob that it has seen.
"""

import os

from .. import errors, files
from . import reference, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def remove(here: store.Store, name: str, in_use: "Callable[[], Iterable[str]]" = tuple) -> list[str]:
    """Take a name away, or with an id or with the last name, the image and what only it needs.

    `in_use` tells the chainIDs of layers that containers stand on: they stay. Returns what went, as `docker rmi` words
    it.
    """
    said = []
    with Bin(here) as bin, here.lock():
        image = here.get(name)
        index = here.index()
        parsed = None
        if not image.id[7:].startswith(name.removeprefix("sha256:")):
            parsed = reference.parse(name)
        if parsed is not None and not parsed.digest and len(image.names) > 1:
            index = [entry for entry in index if store.full_name(entry) != parsed.full()]
            said.append(f"Untagged: {parsed.familiar()}")
        else:
            index = [entry for entry in index if entry["digest"] != image.digest]
            said += [f"Untagged: {name}" for name in image.names]
            said.append(f"Deleted: {image.id}")
        here.write_index(index)
        collect(here, bin, in_use())
    return said


def collect(here: store.Store, bin: "Bin", in_use: "Iterable[str]") -> None:
    """Take away what nobody needs; the lock is held. While a job is under way, it is left for a later removal."""
    if not jobs(here)[1]:
        for path in unreferenced(here, set(in_use)):
            bin.take(path)


def jobs(here: store.Store) -> tuple[list[str], list[str]]:
    """The folders in tmp: of dead processes, and of those who are at work and may count on any blob."""
    dead, alive = [], []
    for name in store.names(f"{here.root}/tmp"):
        path = f"{here.root}/tmp/{name}"
        try:
            os.close(files.lock(path, wait=False, make=False))
            dead.append(path)
        except BlockingIOError:
            if not name.startswith("removed-"):
                alive.append(path)
        except FileNotFoundError:  # removed meanwhile
            pass
    return dead, alive


def unreferenced(here: store.Store, in_use: set[str]) -> list[str]:
    """Links, layers and blobs that neither images nor containers need. The lock is held, and no job is under way."""
    needed: set[str] = set()
    chains = {chain[7:] for chain in in_use}
    try:
        index = here.index()
    except errors.InvalidImage:
        return []
    for entry in index:
        digest = str(entry["digest"])
        needed.add(digest[7:])
        try:
            image = store.Image(here, digest, [])
        except errors.InvalidImage:
            return []  # what a damaged image needs is not known: keep all until it is mended
        needed.add(image.id[7:])
        needed.update(str(layer["digest"])[7:] for layer in image.manifest["layers"])
        chains.update(chain[7:] for chain in image.chain_ids)
    found = []
    for name in store.names(f"{here.root}/layers/l"):
        if os.readlink(f"{here.root}/layers/l/{name}").split("/")[1] not in chains:
            found.append(f"{here.root}/layers/l/{name}")
    for name in store.names(f"{here.root}/layers"):
        if name != "l" and name not in chains:
            found.append(f"{here.root}/layers/{name}")
    for name in store.names(f"{here.root}/blobs/sha256"):
        if name not in needed:
            found.append(f"{here.root}/blobs/sha256/{name}")
    return found


class Bin:
    """`with Bin(store) as bin, store.lock():` what `bin.take(path)` takes from its place is removed at the end of the
    block, when nobody waits for the lock any more.

    A folder like a job's: flocked, so that nobody takes it for debris while its process lives.
    """

    def __init__(self, here: store.Store) -> None:
        self.here = here
        self.folder = ""
        self.descriptor = -1

    def __enter__(self) -> "Bin":
        self.here.open()
        with self.here.lock():
            self.folder = f"{self.here.root}/tmp/removed-{os.getpid()}-{os.urandom(6).hex()}"
            os.mkdir(self.folder, 0o700)
            self.descriptor = files.lock(self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            files.remove_tree(self.folder)
        finally:
            os.close(self.descriptor)

    def take(self, path: str) -> None:
        """Take a file, a link or a tree of the store's from its place, in one step."""
        if os.path.islink(path) or not os.path.isdir(path):
            files.unlink(path)
        else:
            os.rename(path, f"{self.folder}/{os.path.basename(path)}")
