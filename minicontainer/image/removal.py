"""Removal: an image's name, the image, and whatever no other image and no container needs.

Offers: `remove`, `prune`, `sweep`; `unreferenced` and `Bin`, also for repair.py; `jobs`: who is at work.

Who uses what is asked while the images lock is held, and a new container writes its record under that lock, shared
(engine/containers.py, `claim`): so the removal sees the container, or the container sees that its image has gone.

The index is written first: from then on nobody finds the image. Each file, link and layer then leaves its place by one
rename(2) or unlink(2), so that no half of a layer is ever seen; only after that, and without the lock, layers go to
pieces. Killed in between, blobs and layers are left that belong to nobody: `system check --repair` and the next removal
take them. While a job is under way nothing is collected, for it may count on any blob that it has seen.
"""

from __future__ import annotations

import os

from .. import errors, files
from ..records import namedtuple
from . import reference, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any


class User(namedtuple("User", "id image_id layers running")):
    """A container: its id, its image's, the chainIDs of the layers that it stands on, and whether it runs."""

    id: str
    image_id: str
    layers: list[str]
    running: bool


def nobody() -> list[User]:
    """A store without containers."""
    return []


def remove(here: store.Store, name: str, users: Callable[[], list[User]] = nobody, force: bool = False) -> list[str]:
    """Take a name away, or with an id or with the last name, the image and what only it needs. docker's rules.

    `users` tells the containers; what they stand on stays in any case. Returns what went, as `docker rmi` words it.
    Raises ImageNotFound, and Conflict for an image that a container uses: unless `force`, and for a running one even
    then, though its name goes.
    """
    with Bin(here) as bin, here.lock():
        image = here.look_up(name)
        containers = users()
        using = [user for user in containers if user.image_id == image.id]
        running = [user for user in using if user.running]
        parsed = None if image.id[7:].startswith(name.removeprefix("sha256:")) else reference.parse(name)
        index = here.index()
        going = [image] if parsed is not None else manifests(here, image.id, index)
        others = without(index, going)
        if parsed is not None and not parsed.digest:
            kept = [entry for entry in index if entry["digest"] == image.digest and store.full_name(entry)]
            kept = [entry for entry in kept if store.full_name(entry) != parsed.full()]
            if not kept and using and not force:
                raise errors.Conflict(
                    f'conflict: unable to remove repository reference "{name}" (must force) - container '
                    f"{using[0].id[:12]} is using its referenced image {image.id[7:19]}"
                )
            said = [f"Untagged: {parsed.familiar()}"]
            if kept or running:
                bare = {key: next(e for e in index if e["digest"] == image.digest)[key] for key in BARE}
                here.write_index([*others, *(kept or [bare])])
                return said
            said += [f"Untagged: {told}" for told in image.repo_digests]
        else:
            names = [told for one in going for told in one.names]
            refuse(image, names, using, running, force)
            said = [f"Untagged: {told}" for told in sorted([*names, *(t for one in going for t in one.repo_digests)])]
        here.write_index(others)
        gone = collect(here, bin, containers)
        return said if manifests(here, image.id, others) else [*said, *deleted(image, gone)]


def manifests(here: store.Store, identifier: str, index: list[dict[str, Any]]) -> list[store.Image]:
    """What the index has of an id: of an image that was loaded and pulled, two manifests, each with its names."""
    found = []
    for digest in dict.fromkeys(str(entry["digest"]) for entry in index):
        try:
            image = here.image_of(index, digest)
        except errors.InvalidImage:
            continue  # another one's damage is no reason not to remove this one
        if image.id == identifier:
            found.append(image)
    return found


def without(index: list[dict[str, Any]], going: list[store.Image]) -> list[dict[str, Any]]:
    """The index without these manifests."""
    digests = {image.digest for image in going}
    return [entry for entry in index if entry["digest"] not in digests]


BARE = ("mediaType", "digest", "size")  # a descriptor of what has no name


def refuse(image: store.Image, names: list[str], using: list[User], running: list[User], force: bool) -> None:
    """Raise Conflict, in docker's words, where an image must not be removed by its id."""
    if running:
        why, how = f"image is being used by running container {running[0].id[:12]}", "cannot be forced"
    elif len(names) > 1:
        why, how = "image is referenced in multiple repositories", "must be forced"
    elif using:
        why, how = f"image is being used by stopped container {using[0].id[:12]}", "must be forced"
    else:
        return
    if running or not force:
        raise errors.Conflict(f"conflict: unable to delete {image.id[7:19]} ({how}) - {why}")


def deleted(image: store.Image, gone: set[str]) -> list[str]:
    """Docker's lines for an image that has gone, and for those of its layers that have gone with it, top first."""
    return [f"Deleted: {image.id}", *(f"Deleted: {chain}" for chain in reversed(image.chain_ids) if chain in gone)]


def prune(
    here: store.Store, users: Callable[[], list[User]], chosen: Callable[[store.Image], bool]
) -> tuple[list[str], int]:
    """Remove the chosen ones among the images that no container uses, with all their names, and what nobody needs.

    Returns what went, in the words of `docker rmi`, and the bytes of the layers that went.
    """
    said: list[str] = []
    with Bin(here) as bin, here.lock():
        containers = users()
        used = {user.image_id for user in containers}
        found = here.look_at_all()
        going = [image for image in found if image.id not in used and chosen(image)]
        if going:
            here.write_index(without(here.index(), going))
        told = {image.id for image in found if image not in going}  # by another manifest they are still there
        gone, space = weighed(here, bin, containers)
        for image in going:
            said += [f"Untagged: {name}" for name in sorted([*image.names, *image.repo_digests])]
            if image.id not in told:
                said += deleted(image, gone)
            told.add(image.id)
            gone.difference_update(image.chain_ids)
    return said, space


def sweep(here: store.Store, users: Callable[[], list[User]]) -> None:
    """Take away what nobody needs: after a container that had outlived its image."""
    with Bin(here) as bin, here.lock():
        collect(here, bin, users())


def collect(here: store.Store, bin: Bin, users: Iterable[User]) -> set[str]:
    """Take away what nobody needs; the lock is held. While a job is under way, it is left for a later removal.

    Returns the chainIDs of the layers that went.
    """
    gone = set()
    if not jobs(here)[1]:
        for path in unreferenced(here, {chain for user in users for chain in user.layers}):
            bin.take(path)
            if os.path.dirname(path) == f"{here.root}/layers":
                gone.add(f"sha256:{os.path.basename(path)}")
    return gone


def weighed(here: store.Store, bin: Bin, users: Iterable[User]) -> tuple[set[str], int]:
    """The same, and the bytes of the layers that went."""
    sizes = {f"sha256:{name}": here.size_of([f"sha256:{name}"]) for name in store.names(f"{here.root}/layers")}
    gone = collect(here, bin, users)
    return gone, sum(sizes[chain] for chain in gone)


def jobs(here: store.Store) -> tuple[list[str], list[str]]:
    """The folders in tmp: of dead processes, and of those who are at work and may count on any blob."""
    dead, alive = [], []
    for name in store.names(f"{here.root}/tmp"):
        path = f"{here.root}/tmp/{name}"
        try:
            os.close(files.lock(path, wait=False, make=False))
            dead.append(path)
        except BlockingIOError:
            if not name.startswith(Bin.kind):
                alive.append(path)
        except FileNotFoundError:  # removed meanwhile
            pass
    return dead, alive


def unreferenced(here: store.Store, in_use: set[str]) -> list[str]:
    """Links, layers and blobs that neither images, containers nor the build cache need.

    The lock is held, and no job is under way.
    """
    cached = here.cached().values()
    needed = {digest[7:] for _, digest in cached}
    chains = {chain[7:] for chain in (*in_use, *(chain for chain, _ in cached))}
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
    for name in store.names(f"{here.root}/distribution"):
        if name.partition(".")[0] not in needed or ".tmp-" in name:  # no job is under way, so nobody is at it
            found.append(f"{here.root}/distribution/{name}")
    return found


class Bin(store.Folder):
    """`with Bin(store) as bin, store.lock():` what `bin.take(path)` takes from its place is removed at the end of the
    block, when nobody waits for the lock any more."""

    kind = "removed-"

    def __enter__(self) -> Bin:
        self.store.open()
        return super().__enter__()

    def take(self, path: str) -> None:
        """Take a file, a link or a tree of the store's from its place, in one step."""
        if os.path.islink(path) or not os.path.isdir(path):
            files.unlink(path)
        else:
            os.rename(path, f"{self.folder}/{os.path.basename(path)}")
