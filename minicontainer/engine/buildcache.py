"""The build cache as what takes space: layers of steps that were done, and what cache mounts keep: `builder du`.

build/cache.py writes it and says what lies where. What goes is a record; its layer goes with it unless an image, a
container or another record needs it. A step counts as used when a later one that stands on it was: so the last of a
chain goes first, and what is left can still be built on.

While a build is under way no layer is collected (image/removal.py): it goes with a later removal.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from typing import Any, NamedTuple

from .. import errors, files
from ..image import removal, store
from . import containers, events, filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Test = Callable[["Entry"], bool]

STEP, MOUNT = "regular", "exec.cachemount"  # docker's words for the two kinds
DIGITS = 25  # of an id: docker's have as many signs
MOMENT = 1e-6  # seconds by which a step counts as used after the one that stands on it


class Entry(NamedTuple):
    """A record of a step, or a cache mount. Times in seconds since 1970, `size` in bytes."""

    id: str
    path: str  # the record's file, or the mount's directory
    kind: str
    description: str
    chain: str  # the layer's chainID, and that of the one below; "" for a mount
    below: str
    size: int
    created: float
    used: float
    in_use: bool  # a build has it mounted
    shared: bool  # an image or a container has the same layer

    def document(self, parents: list[str]) -> dict[str, Any]:
        """docker's document of it; how often it was used nobody counts."""
        return {
            "ID": self.id,
            "Parents": parents,
            "Type": self.kind,
            "Description": self.description,
            "InUse": self.in_use,
            "Shared": self.shared,
            "Size": self.size,
            "CreatedAt": moment(self.created),
            "LastUsedAt": moment(self.used),
        }


def moment(seconds: float) -> str:
    """A time as RFC 3339 has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 10**9):09d}Z"


def df(root: str, asked: filters.Filters | None = None) -> list[dict[str, Any]]:
    """docker's documents of all that is in the cache and passes the filters, used last first."""
    engine = containers.Containers(root)
    wanted = chosen(asked or {})
    found = entries(engine, engine.users(), engine.images.images())
    by_chain = {entry.chain: entry.id for entry in found if entry.chain}
    return [
        entry.document([by_chain[entry.below]] if entry.below in by_chain else [])
        for entry in reversed(found)
        if wanted(entry)
    ]


def entries(engine: containers.Containers, users: list[removal.User], images: list[store.Image]) -> list[Entry]:
    """All that is in the cache, in the order in which it should go."""
    needed = {chain for image in images for chain in image.chain_ids} | {
        chain for user in users for chain in user.layers
    }
    folder = f"{engine.root}/build"
    found = []
    for name in store.names(f"{folder}/cache"):
        if name.endswith(".json") and not name.endswith(".inputs.json"):
            with contextlib.suppress(FileNotFoundError):  # pruned in between
                found.append(step(f"{folder}/cache/{name}", needed))
    used = latest(found)
    found = [entry._replace(used=used.get(entry.chain, entry.used)) for entry in found]
    for name in store.names(f"{folder}/mounts"):
        with contextlib.suppress(FileNotFoundError):
            found.append(mount(f"{folder}/mounts/{name}"))
    return sorted(found, key=lambda entry: entry.used)


def step(path: str, needed: set[str]) -> Entry:
    """A step's record. One that is damaged has no layer."""
    try:
        record = store.document(files.read(path), "record of the build cache")
        chain, below, size = str(record["chain_id"]), str(record.get("below", "")), int(record["size"])
    except (errors.InvalidImage, KeyError, ValueError, TypeError):
        record, chain, below, size = {}, "", "", 0
    used = os.stat(path).st_mtime
    try:
        created = os.stat(inputs_of(path)).st_mtime
    except FileNotFoundError:
        created = used
    name = os.path.basename(path)[:DIGITS]
    text = str(record.get("instruction", ""))
    return Entry(name, path, STEP, text, chain, below, size, created, used, False, chain in needed)


def inputs_of(path: str) -> str:
    """Where the inputs of a record's step lie."""
    return path.removesuffix(".json") + ".inputs.json"


def mount(path: str) -> Entry:
    """A cache mount: its directory is locked as long as a step has it."""
    try:
        os.close(files.lock(path, wait=False, make=False))
        in_use = False
    except BlockingIOError:
        in_use = True
    try:
        identity = str(store.document(files.read(f"{path}/mount.json"), "cache mount").get("id", ""))
    except (FileNotFoundError, errors.InvalidImage):
        identity = ""
    times = [os.stat(path).st_mtime]
    for name in ("data", "mount.json"):
        with contextlib.suppress(FileNotFoundError):
            times.append(os.stat(f"{path}/{name}").st_mtime)
    size = files.disk_usage(f"{path}/data")
    name, text = os.path.basename(path)[:DIGITS], f"cached mount {identity}"
    return Entry(name, path, MOUNT, text, "", "", size, times[-1], max(times), in_use, False)


def latest(found: list[Entry]) -> dict[str, float]:
    """When each layer was used last, the use of one that stands on it included."""
    below = {entry.chain: entry.below for entry in found if entry.chain}
    used: dict[str, float] = {}
    for entry in found:
        chain, when = entry.chain, entry.used
        while chain in below and used.get(chain, 0.0) < when:
            used[chain] = when
            chain, when = below[chain], when + MOMENT
    return used


def chosen(asked: filters.Filters) -> Test:
    """until=24h: not used since; id=PATTERN, type=regular or exec.cachemount, shared=true."""
    filters.check(asked, ("until", "id", "type", "shared"))
    old, shared = filters.until(asked), filters.truth("shared", asked)
    named = filters.found_in(asked.get("id", [""]))
    kinds = asked.get("type", [STEP, MOUNT])
    return lambda entry: (
        old(moment(entry.used))
        and named(entry.id)
        and entry.kind in kinds
        and (shared is None or shared == entry.shared)
    )


def prune(root: str, asked: filters.Filters, every: bool = False, keep: int = 0) -> tuple[list[str], int]:
    """Remove what no build has in use; without `every`, records of layers that images have, too, stay.

    With `keep`, only so much, the longest unused first, that so many bytes are left. Ids of what went, and the bytes.
    What is known of contexts that are not there any more goes, too; with `every`, and nothing else said, of all.
    """
    engine, said, space = containers.Containers(root), [], 0
    wanted = chosen(asked)
    with removal.Bin(engine.images) as bin, engine.images.lock():
        users = engine.users()
        found = entries(engine, users, engine.images.look_at_all())
        left = sum(entry.size for entry in found if not entry.shared)
        for entry in found:
            if keep and left <= keep:
                break
            if (entry.shared and not every) or not wanted(entry) or not take(bin, entry):
                continue
            left -= 0 if entry.shared else entry.size
            space += entry.size if entry.kind == MOUNT else 0
            said.append(entry.id)
        if not removal.jobs(engine.images)[1]:
            strays(root, every and not asked and not keep)
        space += removal.weighed(engine.images, bin, users)[1]
    events.note_prune(root, "builder", space)
    return said, space


def take(bin: removal.Bin, entry: Entry) -> bool:
    """Take an entry from its place, unless a build has it in use."""
    if entry.kind == STEP:
        files.unlink(entry.path)
        files.unlink(inputs_of(entry.path))
        return True
    try:
        lock = files.lock(entry.path, wait=False, make=False)
    except BlockingIOError:
        return False
    try:
        bin.take(entry.path)
    finally:
        os.close(lock)
    return True


def strays(root: str, every: bool) -> None:
    """Take away what belongs to a record or a context that has gone, and halves of files. No build is under way.

    With `every`, what files of all contexts contained: the next build reads them again.
    """
    folder = f"{root}/build"
    for name in store.names(f"{folder}/cache"):
        key = re.fullmatch(r"([0-9a-f]{64})(\.inputs)?\.json", name)
        if not key or not os.path.exists(f"{folder}/cache/{key[1]}.json"):
            files.unlink(f"{folder}/cache/{name}")
    for name in store.names(f"{folder}/last"):
        try:
            key_of_last = str(store.document(files.read(f"{folder}/last/{name}"), "note").get("key"))
        except errors.InvalidImage:
            key_of_last = ""
        if not os.path.exists(f"{folder}/cache/{key_of_last}.json"):
            files.unlink(f"{folder}/last/{name}")
    for name in store.names(f"{folder}/hashes"):
        try:
            context = str(store.document(files.read(f"{folder}/hashes/{name}"), "table of hashes").get("context", ""))
        except errors.InvalidImage:
            context = ""
        if every or not os.path.isdir(context):
            files.unlink(f"{folder}/hashes/{name}")
