"""The prunes of all kinds: asking first, and docker's lists of what went."""

from __future__ import annotations

import sys
from typing import Any

from .. import errors, host
from ..engine import buildcache, client
from . import flags, table


def sure(warning: str, force: bool, filters: list[str] | None = None, end: str = "\n") -> bool:
    """Whether it shall be done: nobody is asked with -f; who says nothing says no."""
    if force:
        return True
    print(warning, end=end)
    if filters:
        print("\n  Items to be pruned will be filtered with:", *(f"  - {text}" for text in filters), sep="\n")
    print("Are you sure you want to continue? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def told(title: str, names: list[str]) -> None:
    """One of docker's lists."""
    if names:
        print(f"{title}:", *names, "", sep="\n")


def container(values: dict[str, Any]) -> int:
    """docker-container-prune(1)."""
    if not sure("WARNING! This will remove all stopped containers.", values["force"], values["filters"]):
        return 0
    went = client.Client().containers.prune(flags.filters(values["filters"]))
    told("Deleted Containers", went["ContainersDeleted"])
    print(f"Total reclaimed space: {table.exact_size(went['SpaceReclaimed'])}")
    return 0


def volume(values: dict[str, Any]) -> int:
    """docker-volume-prune(1), as docker 23 and later do it: without -a, those that have no name of their own."""
    what = "all" if values["all"] else "anonymous"
    warning = f"WARNING! This will remove {what} local volumes not used by at least one container."
    if not sure(warning, values["force"], values["filters"]):
        return 0
    asked = flags.filters(values["filters"])
    went = client.Client().volumes.prune({**asked, "all": ["true"]} if values["all"] else asked)
    told("Deleted Volumes", went["VolumesDeleted"])
    print(f"Total reclaimed space: {table.exact_size(went['SpaceReclaimed'])}")
    return 0


def image(values: dict[str, Any]) -> int:
    """docker-image-prune(1)."""
    what = "all images without at least one container associated to them" if values["all"] else "all dangling images"
    asked = flags.filters(values["filters"])
    if not sure(f"WARNING! This will remove {what}.", values["force"], values["filters"]):
        return 0
    if values["all"]:
        asked = {"dangling": ["false"], **asked}
    went = client.Client().images.prune(asked)
    told("Deleted Images", images_told(went["ImagesDeleted"]))
    print(f"Total reclaimed space: {table.exact_size(went['SpaceReclaimed'])}")
    return 0


def images_told(went: list[dict[str, str]]) -> list[str]:
    """docker's lines: `untagged: NAME`, `deleted: ID`."""
    return [f"{what.lower()}: {which}" for line in went for what, which in line.items()]


def builder(values: dict[str, Any]) -> int:
    """docker-builder-prune(1)."""
    keep = flags.size("--keep-storage", values["keep"]) if "keep" in values else 0
    asked = flags.filters(values["filters"])
    what = "all build cache" if values["all"] else "all dangling build cache"
    if not sure(f"WARNING! This will remove {what}.", values["force"], end=" "):
        return 0
    names, space = buildcache.prune(host.root(), asked, values["all"], keep)
    told("Deleted build cache objects", names)
    print(f"Total reclaimed space: {table.size(space)}")
    return 0


def system(values: dict[str, Any]) -> int:
    """docker-system-prune(1)."""
    every = bool(values["all"])
    lines = [
        "all stopped containers",
        "all networks not used by at least one container",
        *(["all anonymous volumes not used by at least one container"] if values["volumes"] else []),
        "all images without at least one container associated to them" if every else "all dangling images",
        "all build cache" if every else "unused build cache",
    ]
    asked = flags.filters(values["filters"])
    if values["volumes"] and "until" in asked:
        raise errors.InvalidArgument('The "until" filter is not supported with "--volumes"')
    warning = "\n".join(["WARNING! This will remove:", *(f"  - {line}" for line in lines), ""])
    if not sure(warning, values["force"], values["filters"]):
        return 0
    engine = client.Client()
    went: dict[str, Any] = engine.containers.prune(asked)
    told("Deleted Containers", went["ContainersDeleted"])
    space = went["SpaceReclaimed"]
    told("Deleted Networks", engine.networks.prune(asked)["NetworksDeleted"])
    if values["volumes"]:
        went = engine.volumes.prune(asked)
        told("Deleted Volumes", went["VolumesDeleted"])
        space += went["SpaceReclaimed"]
    went = engine.images.prune({**asked, **({"dangling": ["false"]} if every else {})})
    told("Deleted Images", images_told(went["ImagesDeleted"]))
    space += went["SpaceReclaimed"]
    if not {"label", "label!"} & asked.keys():  # what is in the build cache has no labels
        names, more = buildcache.prune(engine.root, asked, every)
        told("Deleted build cache objects", names)
        space += more
    print(f"Total reclaimed space: {table.exact_size(space)}")
    return 0
