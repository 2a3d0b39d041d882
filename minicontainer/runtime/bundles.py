"""From a bundle to a config that this machine can make a container of: what only `create` and `exec` need."""

from __future__ import annotations

import os

from .. import errors, files
from .. import quickjson as json
from ..kernel import cgroups, mounts
from . import spec

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from typing import Any

    Config = dict[str, Any]


def read(bundle: str) -> Config:
    """A bundle's config.json, checked and whole; what it binds by a relative path lies in it (config.md, Mounts).

    Raises InvalidArgument, Unsupported.
    """
    try:
        config = json.loads(files.read(f"{bundle}/config.json"))
    except FileNotFoundError:
        raise errors.InvalidArgument(f"{bundle} is no bundle: it has no config.json") from None
    except ValueError as error:
        raise errors.InvalidArgument(f"{bundle}/config.json is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise errors.InvalidArgument(f"{bundle}/config.json is no object")
    try:
        config = spec.complete(config)
        spec.check(config)
        check_environment(config["process"])
        for entry in config["mounts"]:
            if mounts.is_bind(entry) and entry["source"]:
                entry["source"] = os.path.join(bundle, entry["source"])
    except errors.MISFITS as error:
        raise errors.malformed(f"{bundle}/config.json", error) from None
    return config


def check_environment(process: Config) -> None:
    """Raise InvalidArgument for a variable without a value, which would not be there."""
    for line in process["env"]:
        if "=" not in line[1:]:
            raise errors.InvalidArgument(f"config.json: process.env: {line!r} is not NAME=VALUE")


def check_console(process: Config, console_socket: str, stays: bool) -> None:
    """Raise InvalidArgument where there is a terminal and nobody to hold it, or the other way round.

    Whoever asks for the process may hold it, too, if he `stays`.
    """
    if process.get("terminal") and not console_socket and not stays:
        raise errors.InvalidArgument("process.terminal is set: --console-socket says who gets the terminal")
    if console_socket and not process.get("terminal"):
        raise errors.InvalidArgument("process.terminal is not set: there is no terminal for --console-socket")


def own_root(path: str) -> str:
    """The root's path, without links, where it becomes a mount among our own. Raises Unsupported for our root."""
    path = os.path.realpath(path)
    if path == "/":
        raise errors.Unsupported("root.path is the host's root, and there is no mount namespace: it would be covered")
    return path


def own_cgroup(path: str) -> str:
    """The path of its cgroup, from the top. All that runs in it is the container's, so it may be nobody else's."""
    path = os.path.normpath(f"/{path.lstrip('/')}")
    if path == "/" or ":" in path:
        raise errors.Unsupported(f"linux.cgroupsPath {path!r}: the path of a cgroup of its own is supported")
    path = cgroups.reachable(path)
    if cgroups.processes(path):
        raise errors.Conflict(f"linux.cgroupsPath {path}: processes are in it already, which would end with it")
    return path


def own_scope(path: str, identifier: str) -> tuple[str, str, str]:
    """The scope that systemd is to make: its name, its slice's, its cgroup's path. Raises as scope.py, Conflict."""
    from ..kernel.cgroups import scope

    scope.check()
    meant = scope.meant(path, identifier)
    own_cgroup(meant.path)
    return meant.unit, meant.slice, meant.path


def show_own_cgroup(config: Config) -> None:
    """Where there is no cgroup namespace of its own, a mount of type cgroup becomes bind mounts.

    On v1 of its own cgroup, as runc has it. On v2 of the whole tree, as runc and crun have it: there, /proc/self/cgroup
    names a path from the top. A bind mount, for a new one would set the options of the machine's own (nsdelegate).
    """
    layout, path, shown = cgroups.detect(), config["linux"]["cgroupsPath"], []
    for entry in config["mounts"]:
        if entry["type"] != "cgroup" or mounts.is_bind(entry):
            shown.append(entry)
            continue
        top, lost = entry["destination"], mounts.unknown(entry)  # what a file system of that type would have read
        options = [*(word for word in entry.get("options") or [] if word not in lost), "bind"]
        if layout.version == 2:
            shown.append(spec.mount(top, "bind", layout.mounts[""], options))
            continue
        shown.append(spec.mount(top, "tmpfs", "tmpfs", ["nosuid", "nodev", "noexec", "mode=755"]))
        for directory in cgroups.directories(path, config["linux"]["resources"]):
            name = os.path.basename(directory.removesuffix(path))
            shown.append(spec.mount(f"{top}/{name}", "bind", directory, options))
        if "ro" in options:
            config["linux"]["readonlyPaths"].append(top)  # after what is mounted below it
    config["mounts"] = shown
