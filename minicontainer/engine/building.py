"""What a build asks of the engine: places to work in, on layers without an image, and layers of what changed there.

    with Workshop(engine) as workshop:                     nothing that it uses is collected meanwhile
        snapshot = making.snapshot_of(engine.images.get("busybox"))
        with workshop.bench(snapshot) as bench:            COPY, ADD, WORKDIR: the root file system, open
            ...
        snapshot = workshop.layer(snapshot, bench.upper)
        session, record = workshop.start(ground, options)  RUN: a container
        ...
        snapshot = workshop.layer_of(snapshot, record)

The layer is the upper directory of the overlay in which the work was done. With `epoch` (SOURCE_DATE_EPOCH, seconds)
no time in it is later.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from .. import errors, files, steps, syscalls
from .. import quickjson as json
from ..image import changes, making, store
from ..kernel import overlay
from ..runtime import session, state
from . import committing, containers, trees


class Bench(NamedTuple):
    """A root file system to work in: `root` is it, open; `upper` will hold what has changed."""

    root: int
    upper: str


class Workshop:
    """A build's place in the store; use it in a `with` statement, at whose end nothing is left but what was kept."""

    def __init__(self, engine: containers.Containers, epoch: int | None = None) -> None:
        self.engine = engine
        self.epoch = epoch
        self.job = store.Job(engine.images)
        self.started: set[str] = set()  # the containers of ours
        self.memory = ""

    def __enter__(self) -> Workshop:
        self.engine.images.open()
        files.make_directory(f"{self.engine.root}/build/running", 0o700)
        self.sweep()
        self.job.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            for identifier in tuple(self.started):  # of a step that was interrupted while it began
                self.discard(identifier)
            if self.memory:
                syscalls.umount(self.memory, syscalls.MNT_DETACH)
        finally:
            self.job.__exit__(*error)

    def folder(self, kind: str) -> str:
        """A new directory of ours, which goes at the end."""
        path = f"{self.job.path(kind)}-{os.urandom(4).hex()}"  # ext4 spreads by a hash of the name
        os.mkdir(path, 0o700)
        return path

    @contextlib.contextmanager
    def seen(self, snapshot: making.Snapshot) -> Iterator[int]:
        """These layers as one tree, open, for reading alone."""
        with trees.layers(self.engine.images, snapshot.chain_ids, self.folder("seen")) as root:
            yield root

    @contextlib.contextmanager
    def bench(self, snapshot: making.Snapshot) -> Iterator[Bench]:
        """These layers as one tree to be changed, mounted where nobody else sees it."""
        place = self.folder("bench")

        def make() -> str:
            links = self.engine.images.links(snapshot.chain_ids, "the image")
            steps.execute(overlay.mount(self.engine.root, links, place, volatile=True), {})
            return f"{place}/rootfs"

        with trees.Mounted(make) as root:
            yield Bench(root, f"{place}/upper")

    def layer(
        self, snapshot: making.Snapshot, upper: str, record: containers.Record | None = None,
        below: making.Snapshot | None = None,
    ) -> making.Snapshot:  # fmt: skip
        """What has changed in the directory `upper`, as one layer more; `record` is that of the container at work.

        What was made for mounts to stand on is no change, whoever asked for the mount. `below`: what it was changed
        over, where that is not the snapshot that the layer is to lie on.
        """
        path = self.job.path("layer")
        digest = hashlib.sha256()
        with self.seen(snapshot if below is None else below) as lower, trees.opened(upper) as above:
            ours = committing.mount_points(self.engine, {**record, "mounts": []}, lower) if record else frozenset()
            with open(path, "xb") as file:
                for chunk in changes.pack(above, changes.walk(above, lower, ours), self.epoch):
                    digest.update(chunk)
                    file.write(chunk)
            changes.clear(above, lower, ours)
        if self.epoch is None:
            made = making.adopt(self.job, snapshot, upper, path, f"sha256:{digest.hexdigest()}")
        else:  # the times in the tar are others
            made = making.add(self.job, snapshot, path, sync=False)
        self.job.commit(more=True)
        return made

    def start(self, ground: containers.Ground, options: dict[str, Any]) -> tuple[session.Session, containers.Record]:
        """Start a container; `options` are those of Containers.plan. Its session, and its record, for `layer_of`."""
        planned = self.engine.plan(ground, log_config={"type": "none"}, **options)
        owner = [os.getpid(), state.start_time(os.getpid())]
        self.started.add(planned.record["id"])
        files.write(self.mark(planned.record["id"]), json.dumps(owner).encode())
        return self.engine.perform(planned), planned.record

    def mark(self, identifier: str) -> str:
        """The file that says whose step a container is."""
        return f"{self.engine.root}/build/running/{identifier}"

    def layer_of(self, snapshot: making.Snapshot, record: containers.Record) -> making.Snapshot:
        """What a container of ours, which has ended, has changed, as one layer more. The container goes."""
        try:
            return self.layer(snapshot, f"{self.engine.path(record['id'])}/upper", record)
        finally:
            self.discard(record["id"])

    def discard(self, identifier: str) -> None:
        """The container of a step goes, whatever it is at."""
        try:
            self.engine.get(identifier).remove(v=True, force=True)
        except errors.ContainerNotFound:
            if os.path.exists(self.engine.path(identifier)):  # half made: without a record
                from . import system

                repairing = system.System(self.engine.root)
                repairing.examine(identifier, repair=True)
                repairing.orphans(repair=True)
        files.unlink(self.mark(identifier))
        self.started.discard(identifier)

    def sweep(self) -> None:
        """Take away the containers of builds that were killed."""
        for identifier in store.names(f"{self.engine.root}/build/running"):
            if ".tmp-" in identifier:  # half of a mark: somebody writes it, or was killed
                if not os.path.exists(f"/proc/{identifier.rpartition('-')[2]}"):
                    files.unlink(self.mark(identifier))
                continue
            try:
                owner = json.loads(files.read(self.mark(identifier)))
            except FileNotFoundError:
                continue  # it has just ended
            if not state.alive(*owner):
                self.discard(identifier)

    def use_memory(self) -> None:
        """From now on `memory` is a directory on no disk, which this process and those that it starts see, and nobody
        else: it is mounted in a list of mounts of their own, and goes with the last of them, however they end."""
        place = f"{self.engine.root}/build/memory"
        files.make_directory(place, 0o700)
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
        syscalls.mount("tmpfs", place, "tmpfs", flags, "mode=0700")
        self.memory = place

    def image(self, snapshot: making.Snapshot, config: dict[str, Any], *names: str) -> store.Image:
        """The image of these layers, under these names, or none."""
        return making.enter(self.job, snapshot, config, *names)
