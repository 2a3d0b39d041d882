"""What COPY and ADD read: which files of a tree a source means, and the digest of their content. Nothing is copied.

Offers: `Tree`, a directory that paths are resolved in and never out of: the context, another stage, an image. `select`,
what the sources of one instruction mean in it, by docker's rules; `content`, one digest of all that would be copied,
and for each file what it was made of; `inline` for a heredoc; `from_tar` and `is_tar` for a context from a pipe.

The tree is walked once for each source, not where `.dockerignore` prunes; a file is read only if its hash is not in
the caller's table, by device, inode, size, mtime and ctime. Names are str, as os.fsdecode makes them of any bytes.
Facts: Dockerfile reference, COPY; BuildKit (its fsutil). Raises BuildError.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, NoReturn

from .. import errors, files
from ..image import compression, extract, pack, tar
from . import ignore
from .ignore import Ignore, Rule, Within

CHUNK = 1 << 20
RECENT = 50_000_000  # nanoseconds: a file that has changed so lately may change again and keep its times
ATTEMPTS = 3  # to read a file that somebody writes to meanwhile

Key = tuple[int, int, int, int, int]  # device, inode, size, mtime and ctime in nanoseconds
Refuse = Callable[[str, str], NoReturn]  # a reason, and where in the instruction: dockerfile.refuse with the rest bound


class Node(NamedTuple):
    """One file, directory, link … of a selection. `name` is its path from the selected one, which itself is "".

    `mode` is st_mode, `uid` and `gid` what it has in an image without --chown, `mtime` in nanoseconds, `device`
    st_rdev, `names` st_nlink; a directory is `implied` that is there only for something below it.
    """

    name: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    key: Key
    device: int
    names: int
    implied: bool = False


class Selected(NamedTuple):
    """What one source, or one match of a wildcard, means: the file or directory at `path` in the tree, links resolved.

    `shown` is how the source spells that path, `base` what it is called where it goes into a directory. `nodes`: itself
    (""), then what is below it, parents first, each directory's names in order. `data` is what a heredoc says, whose
    `tree` is None. With an `address`, ADD has fetched it.
    """

    tree: Tree | None
    path: str
    shown: str
    base: str
    nodes: list[Node]
    data: bytes | None = None
    address: str = ""

    @property
    def directory(self) -> bool:
        """Whether its content is meant, not itself."""
        return stat.S_ISDIR(self.nodes[0].mode)


class Content(NamedTuple):
    """`digest` is that of names, types, modes, owners, link targets and data, and of no time; `files` says of each
    path, as the sources spell it, what it was made of, for whoever wants to know which of them has changed."""

    digest: str
    files: dict[str, str]


class Tree:
    """An open directory; `path` may be a descriptor, which stays the caller's. Use it with `with`, or close it.

    `ignored` are the rules of a `.dockerignore`. With `keep`, owners and extended attributes are part of what is
    copied: so it is of a stage; of a context they are the builder's own, and everything is root's.
    """

    def __init__(self, path: str | int, ignored: Ignore | None = None, *, keep: bool = False) -> None:
        self.owned = isinstance(path, str)
        self.root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if isinstance(path, str) else path
        self.ignored = ignored or Ignore(())
        self.keep = keep

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the directory."""
        if self.owned and self.root >= 0:
            os.close(self.root)
            self.root = -1

    def node(self, name: str, status: os.stat_result) -> Node:
        """What a selection says of a file."""
        return Node(
            name, status.st_mode, status.st_uid if self.keep else 0, status.st_gid if self.keep else 0,
            status.st_size, status.st_mtime_ns, key(status), status.st_rdev, status.st_nlink,
        )  # fmt: skip

    def walk(self, path: str, status: os.stat_result, filters: list[Ignore]) -> list[Node]:
        """What is at `path` and below it, less what the tree's rules or one of the `filters` leave out; these see names
        from `path` on. A directory that is left out is there if something below it is not."""
        nodes = [self.node("", status)]
        if stat.S_ISDIR(status.st_mode):
            directory = files.beneath(self.root, path, pack.ENTER)
            try:
                rules = [self.ignored.within(path), *(one.within("") for one in filters)]
                self.walk_below(directory, "", nodes, [within for within in rules if within.readings], 0)
            finally:
                os.close(directory)
        return nodes

    def walk_below(self, directory: int, prefix: str, nodes: list[Node], filters: list[Within], depth: int) -> None:
        """Append what is in an open directory, whose names begin with `prefix`."""
        if depth >= files.DEEPEST_PATH:
            raise errors.BuildError(f"{prefix}: {files.DEEPEST_PATH} directories in one another")
        with os.scandir(directory) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
        for entry in entries:
            name = prefix + entry.name
            kept = True
            inside = filters
            if filters:
                kept = not any(within.ignored(entry.name) for within in filters)
                directory_too = entry.is_dir(follow_symlinks=False)
                if directory_too:
                    inside = [within.enter(entry.name) for within in filters]
                if not kept and (not directory_too or any(within.pruned for within in inside)):
                    continue
                inside = [within for within in inside if within.readings]
            try:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISSOCK(status.st_mode):  # nothing that could be copied, as tar(1) has it
                    continue
                at = len(nodes)
                nodes.append(self.node(name, status))
                if stat.S_ISDIR(status.st_mode):
                    inner = os.open(entry.name, pack.ENTER, dir_fd=directory)
                    try:
                        self.walk_below(inner, f"{name}/", nodes, inside, depth + 1)
                    finally:
                        os.close(inner)
            except OSError as error:
                raise unreadable(error, name) from None
            if not kept:
                if len(nodes) == at + 1:
                    nodes.pop()
                else:
                    nodes[at] = nodes[at]._replace(implied=True)

    def matches(self, base: str, patterns: list[str]) -> list[str]:
        """The paths below the directory `base` that match, a pattern for each name. Raises ValueError for a bad one."""
        found = [base]
        for number, pattern in enumerate(patterns, 1):
            expression = ignore.translated(pattern)
            parents, found = found, []
            for parent in parents:
                directory = files.beneath(self.root, parent, pack.ENTER)
                try:
                    with os.scandir(directory) as scanned:
                        names = sorted(
                            entry.name
                            for entry in scanned
                            if expression.fullmatch(entry.name)
                            and (number == len(patterns) or entry.is_dir(follow_symlinks=False))
                        )
                finally:
                    os.close(directory)
                found += [f"{parent}/{name}" if parent else name for name in names]
        return found


def key(status: os.stat_result) -> Key:
    """By what a file is recognized that has not changed."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def unreadable(error: OSError, name: str) -> errors.BuildError:
    """A file that cannot be read."""
    return errors.BuildError(f"/{name}: cannot be read: {error.strerror}")


# Which files a source means ----------------------------------------------------------------------------------------


def select(
    tree: Tree, sources: Iterable[str], refuse: Refuse, *, exclude: Iterable[str] = (), parents: bool = False,
) -> list[Selected]:  # fmt: skip
    """What the sources of one COPY or ADD mean, in their order. `refuse` raises the BuildError.

    `..` at the root is the root, links on the way stay inside, a source that is a link is what it leads to. A wildcard
    that matches nothing is nothing, as in BuildKit; any other source must be there. `exclude` are patterns as in a
    .dockerignore, on names below a selected directory, and on what a wildcard or a source itself names.
    """
    rules: list[Rule] = []
    for pattern in exclude:
        back = pattern.startswith("!")
        try:
            rules += ignore.rule(pattern[1:] if back else pattern, back)
        except ValueError as error:
            refuse(f"--exclude={pattern}: {error}", pattern)
    excluded = Ignore(tuple(rules))
    selected: list[Selected] = []
    for source in sources:
        try:
            if parents:
                selected += with_parents(tree, source, excluded, refuse)
            else:
                selected += plain(tree, source, excluded, refuse)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                refuse(f'"{clean(source)}": not found', source)
            refuse(f'"{clean(source)}": {error.strerror}', source)
        except errors.BuildError as error:
            if error.line:
                raise
            refuse(error.reason, source)
    return selected


def plain(tree: Tree, source: str, excluded: Ignore, refuse: Refuse) -> Iterator[Selected]:
    """One source's matches, each the file, or the directory whose content is meant."""
    fixed, patterns = split_wildcards(clean(source))
    for path in expand(tree, source, fixed, patterns, refuse):
        below = path[len(fixed) - 1 :].lstrip("/") if patterns else posixpath.basename(path)
        if below and excluded.ignored(below) and excluded.prunes(below):
            continue
        found = visible(tree, path, source, refuse)
        filters = [excluded] if excluded.rules else []
        nodes = tree.walk(found.path, status_of(found), filters)
        if tree.ignored.ignored(found.path) and found.path and len(nodes) == 1:
            refuse(f'"/{path}": not found, for .dockerignore leaves it out', source)
        yield Selected(tree, found.path, path, posixpath.basename(path), nodes)


def with_parents(tree: Tree, source: str, excluded: Ignore, refuse: Refuse) -> Iterator[Selected]:
    """COPY --parents: the names from the pivot `/./` on, or the whole path, are kept; a pattern may have `**`."""
    pivot, given, pattern = source.partition("/./")
    if not given:
        pivot, pattern = "", source
    pattern = clean(pattern)[1:]
    try:
        wanted = Ignore((*ignore.rule("**"), *ignore.rule(pattern, back=True)) if pattern else ())
    except ValueError as error:
        refuse(f"{source}: {error}", source)
    filters = [rules for rules in (wanted, excluded) if rules.rules]
    fixed, patterns = split_wildcards(clean(pivot))
    for path in expand(tree, source, fixed, patterns, refuse):
        found = visible(tree, path, source, refuse)
        status = status_of(found)
        if not stat.S_ISDIR(status.st_mode):
            refuse(f'"/{path}": not a directory, so nothing can be below it', source)
        nodes = tree.walk(found.path, status, filters)
        if len(nodes) > 1 or not pattern:
            yield Selected(tree, found.path, path, posixpath.basename(path), nodes)
        elif not has_wildcard(pattern):
            hidden = files.place(tree.root, f"{found.path}/{pattern}").status is not None
            left_out = ", for .dockerignore or --exclude leaves it out, or a link is on the way" if hidden else ""
            refuse(f'"{posixpath.join("/", path, pattern)}": not found{left_out}', source)


def expand(tree: Tree, source: str, fixed: str, patterns: list[str], refuse: Refuse) -> list[str]:
    """The paths that a source means: itself, or what its wildcards match; without leading slash."""
    if not patterns:
        return [fixed[1:]]
    base = visible(tree, fixed[1:], source, refuse)
    if not stat.S_ISDIR(status_of(base).st_mode):
        refuse(f'"{fixed}": not a directory', source)
    try:
        found = tree.matches(base.path, patterns)
    except ValueError as error:
        refuse(f"{source}: {error}", source)
    # What they are called is seen from the source's own spelling, also where that leads through a link.
    seen = [posixpath.join(fixed[1:], path[len(base.path) :].lstrip("/")) for path in found]
    return [
        path for path, real in zip(seen, found, strict=True)
        if not (tree.ignored.ignored(real) and tree.ignored.prunes(real))
    ]  # fmt: skip


def visible(tree: Tree, path: str, source: str, refuse: Refuse) -> files.Place:
    """Where a path leads in the tree, if all links on the way are part of it."""
    found = files.place(tree.root, path)
    hidden = any(tree.ignored.ignored(link) for link in found.links)
    if found.status is None or hidden or (not stat.S_ISDIR(found.status.st_mode) and tree.ignored.ignored(found.path)):
        left_out = ", for .dockerignore leaves it out" if found.status is not None else ""
        refuse(f'"/{path}": not found{left_out}', source)
    return found


def status_of(found: files.Place) -> os.stat_result:
    """The status of what is there."""
    assert found.status is not None
    return found.status


def clean(path: str) -> str:
    """A source as a path from the root, without `.`, `..` and doubled slashes."""
    return posixpath.normpath("/" + path.lstrip("/"))


def has_wildcard(name: str) -> bool:
    """Whether a name has a `*`, `?` or `[` that no `\\` has taken the meaning from."""
    at = 0
    while at < len(name):
        if name[at] == "\\":
            at += 1
        elif name[at] in "*?[":
            return True
        at += 1
    return False


def split_wildcards(path: str) -> tuple[str, list[str]]:
    """A path's beginning without wildcards, and the names from the first one on that has any."""
    names = path[1:].split("/")
    for at, name in enumerate(names):
        if has_wildcard(name):
            return "/" + "/".join(names[:at]), names[at:]
    return path, []


def inline(name: str, data: bytes, mode: int = 0o644) -> Selected:
    """A file that is in no tree: what a heredoc says."""
    now = time.time_ns()
    node = Node("", stat.S_IFREG | mode, 0, 0, len(data), now, (0, 0, len(data), now, now), 0, 1)
    return Selected(None, name, f"<<{name}", name, [node], data)


# What is in them ---------------------------------------------------------------------------------------------------


def content(selected: Iterable[Selected], hashes: dict[Key, str]) -> Content:
    """The digest of what a COPY would copy. `hashes` is a table of files' sha256 that is looked up and added to.

    A node that has changed since it was selected is brought up to date. Raises BuildError for what cannot be read.
    """
    whole = hashlib.sha256()
    made: dict[str, str] = {}
    for one in selected:
        whole.update(f"{one.base}\0".encode("utf-8", "surrogateescape"))
        for name, fact in facts(one, hashes):
            whole.update(f"{name}\0{fact}\0".encode("utf-8", "surrogateescape"))
            made[posixpath.join(one.shown, name) if name else one.shown or "/"] = fact
        whole.update(b"\0")
    return Content("sha256:" + whole.hexdigest(), made)


def facts(one: Selected, hashes: dict[Key, str]) -> Iterator[tuple[str, str]]:
    """Of each node its name, and what it is made of, in words. A selected directory itself is not copied: its mode and
    owner do not matter."""
    if one.tree is None:
        yield "", f"sha256:{hashlib.sha256(one.data or b'').hexdigest()} {stat.S_IMODE(one.nodes[0].mode):04o}"
        return
    with Parents(one.tree.root, one.path) as parents:
        for at, node in enumerate(one.nodes):
            if at == 0 and one.directory:
                yield "", "the content of a directory"
                continue
            try:
                directory, name = parents.of(node.name)
                yield node.name, fact(one, at, directory, name, hashes)
            except OSError as error:
                raise unreadable(error, posixpath.join(one.path, node.name)) from None


class Parents:
    """The directories of paths below `base` in an open root, opened one after the other: a walk's order makes that
    cheap. No link is followed: they may have come since somebody looked."""

    def __init__(self, root: int, base: str) -> None:
        self.root = root
        self.base = base
        self.above = ""
        self.descriptor = -1

    def __enter__(self) -> Parents:
        return self

    def __exit__(self, *_: object) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def of(self, name: str) -> tuple[int, str]:
        """The directory that a path is in, and its last name; "" is the base itself."""
        path = f"{self.base}/{name}" if self.base and name else self.base or name
        above, _, last = path.rpartition("/")
        if self.descriptor < 0 or above != self.above:
            if self.descriptor >= 0:
                os.close(self.descriptor)
            self.descriptor = -1
            self.descriptor = files.beneath(self.root, above, os.O_PATH | os.O_DIRECTORY)
            self.above = above
        return self.descriptor, last


def fact(one: Selected, at: int, directory: int, name: str, hashes: dict[Key, str]) -> str:
    """What the node number `at` is made of: data, link target or kind, then mode; with owners, also these."""
    node = one.nodes[at]
    kept = one.tree is not None and one.tree.keep
    mode = stat.S_IMODE(node.mode)
    if stat.S_ISREG(node.mode):
        digest = hashes.get(node.key)
        if digest is None:
            digest, status = hashed(directory, name)
            if key(status) != node.key:
                assert one.tree is not None
                node = one.nodes[at] = one.tree.node(node.name, status)
                mode = stat.S_IMODE(node.mode)
            if time.time_ns() - status.st_ctime_ns > RECENT:
                hashes[node.key] = digest
        said = f"sha256:{digest} {mode:04o}"
    elif stat.S_ISLNK(node.mode):
        said = f"link to {os.readlink(name, dir_fd=directory)}"
    elif stat.S_ISDIR(node.mode):
        said = f"directory {mode:04o}"
    elif stat.S_ISFIFO(node.mode):
        said = f"fifo {mode:04o}"
    else:
        kind = "block" if stat.S_ISBLK(node.mode) else "character"
        said = f"{kind} device {os.major(node.device)}:{os.minor(node.device)} {mode:04o}"
    if kept:
        said += f" {node.uid}:{node.gid}"
        attributes = pack.attributes(f"/proc/self/fd/{directory}/{name}")
        said += "".join(f" {attribute}={value.hex()}" for attribute, value in sorted(attributes.items()))
    return said


def hashed(directory: int, name: str) -> tuple[str, os.stat_result]:
    """A file's sha256 in hexadecimal digits, and what it was when that was true."""
    descriptor = os.open(name, pack.READ, dir_fd=directory)
    try:
        before = os.fstat(descriptor)
        for _ in range(ATTEMPTS):
            digest = hashlib.sha256()
            at = 0
            while at < before.st_size and (piece := os.pread(descriptor, min(CHUNK, before.st_size - at), at)):
                digest.update(piece)
                at += len(piece)
            after = os.fstat(descriptor)
            if key(after) == key(before):
                return digest.hexdigest(), after
            before = after
    finally:
        os.close(descriptor)
    raise errors.BuildError(f"{name}: somebody writes to it all the time: a build needs files that keep still")


# A context from a pipe ---------------------------------------------------------------------------------------------


def is_tar(first: bytes) -> bool:
    """Whether data that begins so (512 bytes or more) is an archive, compressed or not; else it is a Dockerfile."""
    if compression.recognize(first[:6], beyond=True):
        return True
    return len(first) >= tar.BLOCK and tar.is_header(first[: tar.BLOCK])


def from_tar(read: compression.Read, folder: str) -> None:
    """Unpack an archive, plain or compressed by gzip, bzip2, xz or zstd, into an empty directory of ours: a context.

    Raises BuildError for what is no archive, or a hostile one.
    """
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        chunks = compression.decompress(read, compression.default_limits(), beyond=True)[1]
        owner = os.geteuid(), os.getegid()
        extract.Extractor(root, "/", owner, wanted=lambda attribute: False).extract(iter(chunks))
    except (errors.InvalidImage, errors.Conflict) as error:
        raise errors.BuildError(f"the context is no proper archive: {error}") from None
    except OSError as error:  # a hard link to nothing, a loop of links, a full disk …
        raise errors.BuildError(f"the context cannot be unpacked: {error}") from None
    finally:
        os.close(root)


def ignored(path: str, dockerfile: str = "") -> Ignore:
    """The rules of the .dockerignore that belongs to a Dockerfile alone, or else of the one in the directory `path`."""
    own, common = ignore.names(dockerfile)
    for place in (*([own] if dockerfile else []), os.path.join(path, common)):
        if os.path.exists(place):
            return ignore.parse(files.read(place), place)
    return Ignore(())


def read_inside(folder: str, name: str) -> bytes | None:
    """A file of a context that came from elsewhere, whose links stay inside; None where there is none.

    Raises BuildError for what is no file that could be read to its end.
    """
    root = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        descriptor = files.inside(root, name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise errors.BuildError(f"{name}: cannot be read: {os.strerror(error.errno or 0)}") from None
    finally:
        os.close(root)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise errors.BuildError(f"{name}: cannot be read: it is no regular file")
        return files.read(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
