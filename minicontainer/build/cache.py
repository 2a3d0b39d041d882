"""The build cache: a step that has been done with the same inputs need not be done again.

    inputs = {"base": "sha256:…", "instruction": "RUN make", "file src/a.c": "sha256:…", …}
    key    = the SHA-256 of that
    found  = cache.find(key)            a layer on `base`, unless there is none
    cache.keep(key, inputs, layer)

That is all of it: no times, no names of builds. Whatever can change what a step does is among its inputs, so to ask why
a step was not cached is to ask in what two dictionaries differ.

    <store>/build/cache/<key>.json          the layer: chainID, diffID, descriptor, size; read by removals (image/store)
                                            and by `builder du` and `prune` (engine/buildcache.py)
    <store>/build/cache/<key>.inputs.json   what went in
    <store>/build/last/<place>              the key of the step that this place of this Dockerfile had last, for `why`
    <store>/build/hashes/<context>          what its files contained, by device, inode, size and times; and where it is
    <store>/build/mounts/<name>/data        what `RUN --mount=type=cache` keeps; mount.json beside it says whose it is
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import NamedTuple

from .. import files
from ..image import blobs, making, store

VERSION = "1"  # of what the inputs mean
Inputs = dict[str, str]
Stamp = tuple[int, int, int, int, int]  # device, inode, size, mtime and ctime in nanoseconds: context.Key


class Found(NamedTuple):
    """A cached step: what stands there after it, and when its layer was made (RFC 3339)."""

    snapshot: making.Snapshot
    created: str


class Cache:
    """The cache of a store."""

    def __init__(self, here: store.Store) -> None:
        self.here = here
        self.directory = f"{here.root}/build"

    def open(self) -> None:
        """Make its directories."""
        for name in ("cache", "hashes", "last", "mounts"):
            files.make_directory(f"{self.directory}/{name}", 0o700)

    def path(self, key: str) -> str:
        """Where a record lies, without its ending."""
        return f"{self.directory}/cache/{key}"

    def find(self, job: store.Job, key: str, below: making.Snapshot) -> Found | None:
        """What this step makes on `below`, if its layer is still there, whole. One that was made on other layers, by
        COPY --link, is unpacked here, too, in the job."""
        try:
            record = json.loads(files.read(f"{self.path(key)}.json"))
        except (FileNotFoundError, ValueError):  # a power cut may have left half of it
            return None
        descriptor = record["descriptor"]
        snapshot = making.Snapshot((*below.descriptors, descriptor), (*below.diff_ids, record["diff_id"]))
        if not blobs.exists(self.here.root, descriptor["digest"], descriptor["size"]):
            return None
        if self.here.link_of(snapshot.chain_ids[-1]) is None:
            if snapshot.chain_ids[-1] == record["chain_id"]:  # it was here, and is not any more
                return None
            making.stack(job, below, descriptor)
            job.commit(more=True)
        with contextlib.suppress(FileNotFoundError):  # pruned in between; the job keeps its layer
            os.utime(f"{self.path(key)}.json")  # it was of use: what is pruned by age counts from now
        return Found(snapshot, record["created"])

    def keep(self, key: str, inputs: Inputs, snapshot: making.Snapshot, created: str) -> bool:
        """Remember the topmost layer of a snapshot as what these inputs lead to. Whether another one was that before.

        The layer's content is durable already. A record that a power cut takes away is only one step to be done again.
        """
        chain = snapshot.chain_ids[-1]
        record = {
            "chain_id": chain,
            "below": snapshot.chain_ids[-2] if len(snapshot.diff_ids) > 1 else "",
            "diff_id": snapshot.diff_ids[-1],
            "descriptor": snapshot.descriptors[-1],
            "size": self.here.size_of([chain]),
            "created": created,
            "instruction": inputs.get("instruction", ""),
        }
        before = os.path.exists(f"{self.path(key)}.json")
        files.write(f"{self.path(key)}.inputs.json", json.dumps(inputs).encode())
        files.write(f"{self.path(key)}.json", json.dumps(record).encode())
        return before

    def hashes(self, context: str) -> dict[Stamp, str]:
        """What the files of a context were found to contain at the last build; of no use where they have changed."""
        try:
            rows = json.loads(files.read(self.named("hashes", context)))["files"]
            return {(row[0], row[1], row[2], row[3], row[4]): row[5] for row in rows}
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return {}

    def keep_hashes(self, context: str, hashes: dict[Stamp, str]) -> None:
        """Remember them: of each file, what it was last."""
        newest = {stamp[:2]: stamp for stamp in hashes}  # the later ones win
        hashes = {stamp: digest for stamp, digest in hashes.items() if newest[stamp[:2]] == stamp}
        known = {"context": context, "files": [[*stamp, digest] for stamp, digest in hashes.items()]}
        files.write(self.named("hashes", context), json.dumps(known).encode())

    def named(self, folder: str, name: str) -> str:
        """The file in one of our folders for what has that name, whatever signs are in it."""
        return f"{self.directory}/{folder}/{hashlib.sha256(os.fsencode(name)).hexdigest()}"

    def note(self, place: str, key: str, inputs: Inputs) -> None:
        """This place of a Dockerfile has this step now."""
        files.write(self.named("last", place), json.dumps({"place": place, "key": key, "inputs": inputs}).encode())

    def last(self, place: str) -> Inputs | None:
        """The inputs of the step that this place had at the last build."""
        try:
            inputs: Inputs = json.loads(files.read(self.named("last", place)))["inputs"]
        except (FileNotFoundError, ValueError, KeyError):
            return None
        return inputs


def key_of(inputs: Inputs) -> str:
    """What inputs are called by: the SHA-256 of them all."""
    text = json.dumps({"version": VERSION, **inputs}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def why(before: Inputs | None, now: Inputs) -> list[str]:
    """In what the inputs of a step differ from those of the last time, a line each."""
    if before is None:
        return ["this step has not been built before"]
    lines = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if old is None:
            lines.append(f"{name} is new: {shown(new or '')}")
        elif new is None:
            lines.append(f"{name} has gone; it was {shown(old)}")
        else:
            lines.append(f"{name} was {shown(old)}, is {shown(new)}")
    return lines or ["the same inputs as last time, but its layer is not there any more"]


def shown(value: str) -> str:
    """A value for people: of a digest the first digits, of a text its first line."""
    if value.startswith("sha256:"):
        return value[:19]
    first = value.splitlines()[0] if value else ""
    return json.dumps(first if len(first) < 72 and first == value else f"{first[:71]}…", ensure_ascii=False)
