"""Volumes: directories that outlive containers; and what `-v`, `--mount` and `--tmpfs` mean.

A volume is `volumes/<name>/_data` in the store, and `volume.json` beside it. The first container that mounts an empty
volume over a directory of its image finds that directory's content copied into it, as docker does.
"""

from __future__ import annotations

import os
import stat
import time

from .. import errors, files, steps
from .. import quickjson as json
from ..records import namedtuple
from . import events, names

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Iterator
    from typing import Any

    Names = list[str]  # inside the class, `list` is its method


class Mount(
    namedtuple(
        "Mount",
        "kind source target readonly options create",
        defaults=(
            False,
            (),
            False,
        ),
    )
):
    """One thing to mount: `kind` is bind, volume or tmpfs; an empty volume name asks for an anonymous one."""

    kind: str
    source: str
    target: str
    readonly: bool
    options: tuple[str, ...]
    create: bool  # make a bind's missing source, as -v does and --mount does not


# What `-v` and `--mount` know.
OPTIONS = frozenset("ro rw z Z rshared rslave rprivate shared slave private nocopy idmap".split())
FIELDS = frozenset("type source target readonly tmpfs-size tmpfs-mode bind-propagation idmap".split())


def parse_volume(text: str) -> Mount:
    """`-v [source:]target[:options]`: a source with a slash is a path to bind, else the name of a volume."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise errors.InvalidArgument(f"invalid volume specification {text!r}: write [SOURCE:]TARGET[:ro]")
    options = parts.pop().split(",") if len(parts) == 3 or (len(parts) == 2 and not parts[1].startswith("/")) else []
    target = parts[-1]
    source = parts[0] if len(parts) == 2 else ""
    if not target.startswith("/"):
        raise errors.InvalidArgument(f"invalid volume specification {text!r}: the target must be an absolute path")
    if os.path.normpath(target) == "/":
        raise errors.InvalidArgument(f"invalid volume specification {text!r}: the target cannot be /")
    readonly = "ro" in options
    for option in options:
        if option not in OPTIONS:
            raise errors.InvalidArgument(f"invalid volume specification {text!r}: no option {option!r}; ro and rw are")
    kept = tuple(option for option in options if option not in ("ro", "rw", "z", "Z"))
    if source.startswith(("/", ".", "~")):
        return Mount("bind", os.path.abspath(os.path.expanduser(source)), target, readonly, kept, create=True)
    if source and not names.valid(source):
        raise errors.InvalidArgument(
            f"{source!r} is no name for a volume: letters, digits, `_.-`; or a path with a `/`"
        )
    return Mount("volume", source, target, readonly, kept)


def parse_tmpfs(text: str) -> Mount:
    """`--tmpfs target[:options]`, the options those of tmpfs(5)."""
    target, _, options = text.partition(":")
    if not target.startswith("/"):
        raise errors.InvalidArgument(f"--tmpfs {text}: the target must be an absolute path")
    words = tuple(options.split(",")) if options else ()
    return Mount("tmpfs", "tmpfs", target, False, ("nosuid", "nodev", "noexec", *words))


def parse_mount(text: str) -> Mount:
    """`--mount type=bind|volume|tmpfs,source=…,target=…[,readonly][,idmap][,tmpfs-size=…][,tmpfs-mode=…]`"""
    fields: dict[str, str] = {}
    for part in text.split(","):
        key, given, value = part.partition("=")
        fields[ALIASES.get(key, key)] = value if given else "true"
    unknown = set(fields) - FIELDS
    if unknown:
        raise errors.InvalidArgument(f"--mount {text}: there is no field {unknown.pop()!r}")
    kind, source, target = fields.get("type", "volume"), fields.get("source", ""), fields.get("target", "")
    readonly = fields.get("readonly", "false") in ("true", "1")
    if kind not in ("bind", "volume", "tmpfs"):
        raise errors.InvalidArgument(f"--mount {text}: type is bind, volume or tmpfs")
    if not target.startswith("/"):
        raise errors.InvalidArgument(f"--mount {text}: target must be an absolute path")
    if kind == "tmpfs":
        options = [f"{key[6:]}={fields[key]}" for key in ("tmpfs-size", "tmpfs-mode") if key in fields]
        return Mount("tmpfs", "tmpfs", target, readonly, ("nosuid", "nodev", "noexec", *options))
    if kind == "bind":
        if not source:
            raise errors.InvalidArgument(f"--mount {text}: a bind needs source=PATH")
        source = os.path.abspath(os.path.expanduser(source))
        if not os.path.exists(source):
            raise errors.InvalidArgument(f"--mount {text}: bind source path does not exist: {source}")
        propagation = (fields["bind-propagation"],) if "bind-propagation" in fields else ()
        mapped = ("idmap",) if fields.get("idmap", "false") in ("true", "1") else ()
        return Mount("bind", source, target, readonly, propagation + mapped)
    return Mount("volume", source, target, readonly)


ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}


class Volumes:
    """The volumes of a store."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.directory = f"{root}/volumes"

    def data(self, name: str) -> str:
        """Where a volume's files lie."""
        return f"{self.directory}/{name}/_data"

    def create(self, name: str = "", labels: dict[str, str] | None = None) -> str:
        """Make a volume; one that exists stays as it is. Without a name it gets 64 hex digits. Returns the name."""
        name = name or names.new_id()
        if not names.valid(name):
            raise errors.InvalidArgument(f"{name!r} is no name for a volume: letters, digits and `_.-`, two at least")
        files.make_directory(self.data(name))
        description = f"{self.directory}/{name}/volume.json"
        if not os.path.exists(description):
            created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            files.write(description, json.dumps({"created": created, "labels": labels or {}}).encode(), sync=True)
        return name

    def list(self) -> Names:
        """Their names, sorted."""
        try:
            return sorted(os.listdir(self.directory))
        except FileNotFoundError:
            return []

    def inspect(self, name: str) -> dict[str, Any]:
        """A volume as `docker volume inspect` describes it. Raises VolumeNotFound."""
        if not names.valid(name) or not os.path.isdir(self.data(name)):
            raise errors.VolumeNotFound(f"no such volume: {name}")
        description = json.loads(files.read(f"{self.directory}/{name}/volume.json"))
        return {
            "CreatedAt": description["created"],
            "Driver": "local",
            "Labels": description["labels"] or None,
            "Mountpoint": self.data(name),
            "Name": name,
            "Options": None,
            "Scope": "local",
        }

    def remove(self, name: str, users: Names) -> None:
        """Remove a volume and what is in it. Raises VolumeNotFound, or Conflict if one of `users` (ids) mounts it."""
        self.inspect(name)
        if users:
            raise errors.Conflict(f"volume {name} is in use by container {users[0][:12]}: remove that one first")
        files.remove_tree(f"{self.directory}/{name}")

    def prune(self, filters: dict[str, Names] | None = None) -> dict[str, Any]:
        """Remove the volumes that no container mounts and that have no name of their own; {"all": ["true"]}: also those
        that have one. Also known: label, label!.

        Returns VolumesDeleted, their names, and SpaceReclaimed, the bytes of their files.
        """
        from ..image import removal
        from . import containers, filters as filtering  # isort: skip

        engine, chosen = containers.Containers(self.root), filtering.of_prunable_volumes(filters or {})
        removed, space = [], 0
        with removal.Bin(engine.images) as bin, engine.images.lock():  # a new container shares it: its mounts are noted
            mounted = engine.volumes_in_use()
            for name in self.list():
                path = f"{self.directory}/{name}"
                try:
                    wanted = name not in mounted and chosen(self.inspect(name))
                except (errors.VolumeNotFound, FileNotFoundError):
                    continue  # somebody is just making it, or removing it
                if not wanted or os.path.ismount(path):
                    continue
                space += files.disk_usage(self.data(name))
                removed.append(name)
                bin.take(path)
        events.note_prune(self.root, "volume", space)
        return {"VolumesDeleted": removed, "SpaceReclaimed": space}


def anonymous(name: str) -> bool:
    """Whether nobody has given the volume its name."""
    return len(name) == 64 and frozenset("0123456789abcdef").issuperset(name)


def prepare(
    volumes: Volumes, mounts: list[Mount], rootfs: str, ids: tuple[int, int] | None = None
) -> Iterator[steps.Step]:
    """Make what is to be mounted: volumes, filled from the image when new; missing directories of binds.

    `ids`: what is root's on disk belongs, in `rootfs`, to the first of these, and so on (userns.py).
    """
    for mount in mounts:
        if mount.kind == "volume":
            yield steps.call(volumes.create, mount.source, why="a directory that outlives the container")
            if "nocopy" not in mount.options:
                yield steps.call(
                    copy_up,
                    rootfs,
                    mount.target,
                    volumes.data(mount.source),
                    *([ids] if ids else []),
                    why="an empty volume starts as the image has it",
                )
        elif mount.kind == "bind" and mount.create:
            yield steps.call(make_source, mount.source, why="-v makes the host path that is missing")


def make_source(path: str) -> None:
    """The directory that `-v` binds, made if nothing is there."""
    if not os.path.exists(path):
        files.make_directory(path)


def copy_up(rootfs: str, target: str, volume: str, ids: tuple[int, int] | None = None) -> None:
    """Copy the image's directory at `target` into the volume, if that is empty."""
    if os.listdir(volume):
        return
    root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        source = files.inside(root, target)
    except errors.KernelError:
        return  # the image has nothing there
    finally:
        os.close(root)
    try:
        if not stat.S_ISDIR(os.fstat(source).st_mode):
            return
        tree, into = os.open(f"/proc/self/fd/{source}", ENTER), os.open(volume, ENTER | os.O_NOFOLLOW)
        try:
            files.copy_tree(tree, into, lambda info: owner(info, ids))
            files.copy_status(tree, into, lambda info: owner(info, ids))
        finally:
            os.close(tree)
            os.close(into)
    finally:
        os.close(source)


ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def owner(info: os.stat_result, ids: tuple[int, int] | None) -> tuple[int, int]:
    """Whose it is, on a disk whose ids are the container's."""
    if not ids:
        return info.st_uid, info.st_gid
    from . import userns

    return userns.inside(ids, info.st_uid), userns.inside(ids, info.st_gid)
