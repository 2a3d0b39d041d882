"""A container's files as open directories: for `cp`, `diff`, `export` and `commit`, whether it runs or not.

    with merged(engine, record) as tree:       what its processes see, volumes included
        files.inside(tree.root, "/etc/passwd")
    with rootfs(engine, record) as tree:       layers and changes without any mount
    with lower(engine, record) as descriptor:  the image's layers alone

What does not run is mounted for the moment, where nobody else sees it: a thread may have a mount namespace of its own
(unshare(2)), and whatever happens to this process, the namespace and all its mounts go with the thread. Meanwhile the
container's journal is locked: nobody starts or removes it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator

from .. import errors, files, steps, syscalls
from .. import quickjson as json
from ..image import store
from ..kernel import mounts, overlay
from ..runtime import state
from . import containers, volumes

ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Mounted:
    """`with Mounted(make) as descriptor:` the directory that `make()` mounts and names, open; nobody else has it."""

    def __init__(self, make: Callable[[], str]) -> None:
        self.make = make
        self.descriptor = -1
        self.error: BaseException | None = None
        self.ready, self.over = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.hold, daemon=True)

    def __enter__(self) -> int:
        self.thread.start()
        self.ready.wait()
        if self.error is not None:
            self.thread.join()
            raise self.error
        return self.descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)
        self.over.set()
        self.thread.join()

    def hold(self) -> None:
        """The thread: mount, and unmount when that is over."""
        path = ""
        try:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
            path = self.make()
            self.descriptor = os.open(path, ENTER)
        except BaseException as error:
            self.error = error
        self.ready.set()
        if self.error is None:
            self.over.wait()
        if path:
            syscalls.umount_all(path, syscalls.MNT_DETACH)  # at once, not when the kernel gets round to the namespace


class Tree:
    """An open root, and the devices of /proc and /sys below it, which are the kernel's and no files of anybody's.

    `inside` and `outside`: from an id as we see it in there to what the container's files have, and back; None where
    they are the same. With ids of its own a container that runs shows them (userns.py), and one that does not, none.
    """

    def __init__(self, root: int, ids: tuple[int, int] | None = None) -> None:
        self.root = root
        self.inside = self.outside = None
        if ids:
            from . import userns

            self.inside = functools.partial(userns.inside, ids)
            self.outside = functools.partial(userns.outside, ids)
        self.kernels = set()
        for path in ("/proc", "/sys"):
            with contextlib.suppress(OSError):
                descriptor = files.inside(root, path)
                if os.fstat(descriptor).st_dev != os.fstat(root).st_dev:
                    self.kernels.add(os.fstat(descriptor).st_dev)
                os.close(descriptor)

    def is_kernels(self, status: os.stat_result) -> bool:
        """Whether that lies in /proc or /sys."""
        return status.st_dev in self.kernels


@contextlib.contextmanager
def merged(engine: containers.Containers, record: containers.Record) -> Iterator[Tree]:
    """What the container's processes see; its volumes are there even if it does not run. Raises Conflict."""
    running = engine.running(record["id"])
    if running:
        with held(f"/proc/{running['pid']}/root", running) as root:
            yield Tree(root, record.get("ids"))
        return
    config = json.loads(files.read(f"{engine.path(record['id'])}/config.json"))

    def make() -> str:
        place = mount_overlay(engine, record)
        wanted = [volumes.Mount(**mount) for mount in record["mounts"]]
        steps.execute(
            volumes.prepare(engine.volumes, wanted, place), {}
        )  # as the first start does, which may not have been
        for mount in config["mounts"]:
            options = mounts.parse_options(mount.get("options", []))
            if options.flags & syscalls.MS_BIND and os.path.exists(mount["source"]):
                mounts.bind(place, mount["source"], mount["destination"], options.flags, options.propagation)
        return place

    with locked(engine, record), Mounted(make) as root:
        yield Tree(root)


@contextlib.contextmanager
def rootfs(engine: containers.Containers, record: containers.Record) -> Iterator[Tree]:
    """The container's layers and its changes, seen as one tree, and no mount in it. Raises Conflict."""
    running = engine.running(record["id"])
    if running:
        # Where its monitor has mounted it: in the mount namespace of the monitor, the parent of its init.
        keeper = parent(running["pid"])
        with held(f"/proc/{keeper}/root{engine.path(record['id'])}/rootfs", running) as root:
            yield Tree(root, record.get("ids"))
        return
    with locked(engine, record), Mounted(lambda: mount_overlay(engine, record)) as root:
        yield Tree(root)


@contextlib.contextmanager
def lower(engine: containers.Containers, record: containers.Record) -> Iterator[int]:
    """The image's layers as one tree, without what the container has changed."""
    with layers(engine.images, record["layers"], f"{engine.path(record['id'])}/rootfs") as descriptor:
        yield descriptor


@contextlib.contextmanager
def layers(here: store.Store, chain_ids: list[str], place: str) -> Iterator[int]:
    """These layers of the store, lowest first, as one tree; where they are several, mounted at `place` meanwhile."""
    if len(chain_ids) == 1:
        with opened(here.layer_directory(chain_ids[0])) as descriptor:
            yield descriptor
        return

    def make() -> str:
        files.make_directory(place)
        if not chain_ids:  # an image of nothing
            syscalls.mount("tmpfs", place, "tmpfs", syscalls.MS_RDONLY, "size=0k,nr_inodes=1")
            return place
        data = f"lowerdir={':'.join(reversed(here.links(chain_ids, 'the image')))}"
        overlay.mount_at(here.root, data, os.path.relpath(place, here.root))
        return place

    with Mounted(make) as descriptor:
        yield descriptor


@contextlib.contextmanager
def upper(engine: containers.Containers, record: containers.Record) -> Iterator[int]:
    """The container's writable layer; an empty one before its first start."""
    path = f"{engine.path(record['id'])}/upper"
    files.make_directory(path)
    with opened(path) as descriptor:
        yield descriptor


@contextlib.contextmanager
def locked(engine: containers.Containers, record: containers.Record) -> Iterator[None]:
    """The journal of a container that does not run, so that nobody starts it meanwhile."""
    if record["status"] == "restarting":
        raise errors.Conflict(f"Container {record['id']} is restarting, wait until the container is running")
    lock = containers.lock_journal(engine.path(record["id"]))
    try:
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def held(path: str, running: dict[str, int]) -> Iterator[int]:
    """A directory that a process's files of /proc lead to, open, if it is still that process's. Raises Conflict."""
    try:
        process = state.hold(running["pid"], running["start_time"])
        os.close(process)
        with opened(path) as descriptor:
            if not state.alive(running["pid"], running["start_time"]):
                raise errors.Conflict("the container has just ended")
            yield descriptor
    except FileNotFoundError:
        raise errors.Conflict("the container has just ended") from None


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    """A directory, open."""
    descriptor = os.open(path, ENTER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def mount_overlay(engine: containers.Containers, record: containers.Record) -> str:
    """Mount the container's root file system as a start does. Its path."""
    directory = engine.path(record["id"])
    steps.execute(overlay.mount(engine.root, engine.links(record), directory, volatile=False), {})
    return f"{directory}/rootfs"


def parent(pid: int) -> int:
    """The parent of a process (proc_pid_stat(5), field 4)."""
    return int(files.read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[1])
