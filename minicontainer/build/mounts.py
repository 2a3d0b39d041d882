"""RUN --mount: what a step sees while it runs, and nothing of which gets into its layer.

    bind     files of the context, of a stage or of an image: copied, so that whoever writes there changes the copy
    cache    <store>/build/mounts/<name>/data, which outlives the build; a lock keeps it from being pruned meanwhile
    tmpfs    memory
    secret   a file in memory that is mounted for this build's processes alone (building.Workshop.use_memory), or a
             variable, which no file of the container's has: both on no disk at any time. In no layer, in no history,
             in no key of the cache
    ssh      the socket of an agent of the user's

Every path is resolved inside its own root when it is copied, and what the kernel binds is a directory of ours that no
step can reach but by that mount: no link in a cache or a stage leads the mount elsewhere (CVE-2024-23651, -23652).
Source: Dockerfile reference, *RUN --mount*.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from .. import files
from ..engine import volumes
from . import cache, context, copying, dockerfile, instructions

if TYPE_CHECKING:
    from .builder import Builder, Stage

AGENT = "/run/buildkit/ssh_agent."  # where a step finds an agent's socket, and a number: BuildKit's place
PATIENCE = 0.02  # seconds between two looks at a cache that somebody else has for himself


class Prepared(NamedTuple):
    """What to mount, the variables that come with it, those of them that nothing may write down, and the locks of
    caches, to be closed after the step."""

    mounts: list[volumes.Mount]
    environment: dict[str, str]
    secret: dict[str, str]
    locks: list[int]


class Mounts:
    """The mounts of one RUN."""

    def __init__(self, builder: Builder, stage: Stage, one: instructions.Run) -> None:
        self.builder, self.stage, self.statement = builder, stage, one.statement
        self.all = [self.expanded(mount) for mount in one.mounts]
        self.prepared = Prepared([], {}, {}, [])

    def expanded(self, mount: instructions.Mount) -> instructions.Mount:
        """A mount with its variables put in, and its target from the root. `from` has none (BuildKit)."""
        if "$" in mount.from_:
            self.refuse(f"--mount: from={mount.from_}: a variable may not stand here; name a stage", mount.from_)
        for name, value in mount._asdict().items():
            if isinstance(value, str) and "$" in value:
                text = self.builder.text_of(self.stage, self.statement, value)
                mount = mount._replace(**{name: text})  # type: ignore[arg-type]
        if mount.target:
            directory = self.stage.image.directory
            mount = mount._replace(target=posixpath.normpath(posixpath.join("/", directory, mount.target)))
        if mount.target == "/":
            self.refuse("--mount: nothing can be mounted at /", "--mount")
        return mount

    def refuse(self, reason: str, at: str = "") -> NoReturn:
        """Raise BuildError for this instruction."""
        dockerfile.refuse(self.builder.source, self.statement, f"RUN: {reason}", at)

    def inputs(self) -> cache.Inputs:
        """What of them can change what a step does: their shape, and of bind mounts, the files."""
        found: cache.Inputs = {}
        for mount in self.all:
            said = [f"{name}={value}" for name, value in mount._asdict().items() if value not in ("", False)]
            found[f"mount {mount.target or mount.id}"] = ",".join(said)
            if mount.type == "bind":
                with self.builder.tree(self.stage, self.statement, mount.from_) as tree:
                    content = context.content(self.selected(tree, mount), self.builder.hashes)
                found |= {f"mount {mount.target} file {name}": fact for name, fact in content.files.items()}
        return found

    def selected(self, tree: context.Tree, mount: instructions.Mount) -> list[context.Selected]:
        """What a mount's source means."""
        return context.select(tree, [mount.source or "/"], self.refuse)

    def prepare(self) -> Iterator[None]:
        """Make what is to be mounted; yields while a cache is somebody else's. Then `prepared` has it."""
        for number, mount in enumerate(self.all):
            if mount.type == "bind":
                self.add(self.copied(mount), mount, readonly=mount.readonly)
            elif mount.type == "cache":
                while (place := self.cache(mount)) is None:
                    time.sleep(PATIENCE)
                    yield
                self.add(place, mount, readonly=mount.readonly)
            elif mount.type == "tmpfs":
                size = (f"size={mount.size.lower().removesuffix('b')}",) if mount.size else ()
                self.prepared.mounts.append(
                    volumes.Mount("tmpfs", "tmpfs", mount.target, False, ("nosuid", "nodev", *size))
                )
            elif mount.type == "secret":
                self.secret(number, mount)
            else:
                self.agent(number, mount)

    def add(self, path: str, mount: instructions.Mount, readonly: bool) -> None:
        """Bind a path of ours at the mount's target."""
        self.prepared.mounts.append(volumes.Mount("bind", path, mount.target, readonly, ()))

    def close(self) -> None:
        """The step has ended: the caches are anybody's."""
        while self.prepared.locks:
            os.close(self.prepared.locks.pop())

    def copied(self, mount: instructions.Mount) -> str:
        """A copy of what is to be bound: a directory, or a file."""
        folder = self.builder.workshop.folder("bind")
        with self.builder.tree(self.stage, self.statement, mount.from_) as tree:
            return self.copy(tree, mount, folder)

    def copy(self, tree: context.Tree, mount: instructions.Mount, folder: str) -> str:
        """Copy a mount's source into an empty directory. Returns where it lies there."""
        selected = self.selected(tree, mount)
        whole = selected[0].directory
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            copying.copy(selected, root, "/content/" if whole else "/content", self.refuse)
        finally:
            os.close(root)
        return f"{folder}/content"

    def cache(self, mount: instructions.Mount) -> str | None:
        """A cache's directory, locked as its `sharing` says; None while it is somebody else's alone."""
        shared = mount.sharing == "shared"
        for name in names_of(mount.id, mount.sharing == "private"):
            place = f"{self.builder.cache.directory}/mounts/{name}"
            files.make_directory(place, 0o700)
            try:
                lock = files.lock(place, shared=shared, wait=False, make=False)
            except BlockingIOError:
                continue
            except FileNotFoundError:  # pruned in between
                continue
            if not same(lock, place):  # pruned between the two
                os.close(lock)
                continue
            self.prepared.locks.append(lock)
            if not os.path.exists(f"{place}/mount.json"):
                with files.locked(f"{place}/making"):  # whoever shares it may be at the same
                    self.make_cache(mount, place)
            os.utime(f"{place}/mount.json")  # it was of use: what is pruned by age counts from now
            return f"{place}/data"
        return None

    def make_cache(self, mount: instructions.Mount, place: str) -> None:
        """A cache at its first use: empty, or with what `from` and `source` say."""
        if not os.path.exists(f"{place}/data"):
            new = data = f"{place}/new"
            files.remove_tree(new)  # of a build that was killed
            files.make_directory(new)
            if mount.from_:
                with self.builder.tree(self.stage, self.statement, mount.from_) as tree:
                    data = self.copy(tree, mount, new)
            os.chmod(data, int(mount.mode, 8))
            os.chown(data, int(mount.uid or 0), int(mount.gid or 0))
            os.rename(data, f"{place}/data")
            files.remove_tree(new)
        files.write(f"{place}/mount.json", json.dumps({"id": mount.id}).encode())

    def secret(self, number: int, mount: instructions.Mount) -> None:
        """A secret as a file, a variable, or both."""
        value = self.builder.settings.secrets.get(mount.id)
        if value is None:
            if mount.required:
                name = mount.id
                self.refuse(f"--mount: there is no secret {name!r}: build --secret id={name},src=FILE", "secret")
            return
        if mount.env:
            self.prepared.secret[mount.env] = value.decode("utf-8", "surrogateescape")
        if mount.target:
            path = f"{self.builder.workshop.memory}/{self.stage.index}-{self.stage.number}-{number}"
            files.write(path, value, 0o600)
            os.chown(path, int(mount.uid or 0), int(mount.gid or 0))
            os.chmod(path, int(mount.mode, 8))
            self.add(path, mount, readonly=True)

    def document(self, content: str, target: str) -> None:
        """A program of the Dockerfile's own, where it is to be found."""
        path = f"{self.builder.workshop.folder('document')}/program"
        files.write(path, content.encode("utf-8", "surrogateescape"), 0o755)
        os.chmod(path, 0o755)
        self.prepared.mounts.append(volumes.Mount("bind", path, target, True, ()))

    def agent(self, number: int, mount: instructions.Mount) -> None:
        """The socket of an ssh agent, and the variable that leads to it."""
        path = self.builder.settings.sockets.get(mount.id)
        if path is None:
            if mount.required:
                self.refuse(f"--mount: there is no agent {mount.id!r}: build --ssh {mount.id}", "ssh")
            return
        target = mount.target or f"{AGENT}{number}"
        self.prepared.environment["SSH_AUTH_SOCK"] = target
        self.add(path, mount._replace(target=target), readonly=False)


def same(descriptor: int, path: str) -> bool:
    """Whether that is still what lies there."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def names_of(identity: str, private: bool) -> list[str]:
    """What a cache's directory may be called; a private one that is in use has another one beside it."""
    name = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return [name, *(f"{name}-{number}" for number in range(1, MOST_PRIVATE))] if private else [name]


MOST_PRIVATE = 64
