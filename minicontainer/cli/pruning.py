"""What the prunes share: asking first, and docker's lists of what went. `image`, `builder` and `system prune`."""

from __future__ import annotations

import sys
from typing import Any

from .. import host
from ..engine import buildcache, client, disk
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


def image(values: dict[str, Any]) -> int:
    """docker-image-prune(1)."""
    what = "all images without at least one container associated to them" if values["all"] else "all dangling images"
    asked = flags.filters(values["filters"])
    if not sure(f"WARNING! This will remove {what}.", values["force"], values["filters"]):
        return 0
    if values["all"]:
        asked = {"dangling": ["false"], **asked}
    said, space = client.Client().images.prune(asked)
    told("Deleted Images", said)
    print(f"Total reclaimed space: {table.exact_size(space)}")
    return 0


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
    """docker-system-prune(1). There is one network, and it stays."""
    every = bool(values["all"])
    lines = [
        "all stopped containers",
        "all networks not used by at least one container",
        *(["all anonymous volumes not used by at least one container"] if values["volumes"] else []),
        "all images without at least one container associated to them" if every else "all dangling images",
        "all build cache" if every else "unused build cache",
    ]
    asked = flags.filters(values["filters"])
    warning = "\n".join(["WARNING! This will remove:", *(f"  - {line}" for line in lines), ""])
    if not sure(warning, values["force"], values["filters"]):
        return 0
    root = host.root()
    names, space = disk.prune_containers(root, asked)
    told("Deleted Containers", names)
    if values["volumes"]:
        names, more = disk.prune_volumes(root, False, asked)
        told("Deleted Volumes", names)
        space += more
    names, more = client.Client().images.prune({**asked, **({"dangling": ["false"]} if every else {})})
    told("Deleted Images", names)
    space += more
    if not {"label", "label!"} & asked.keys():  # what is in the build cache has no labels
        names, more = buildcache.prune(root, asked, every)
        told("Deleted build cache objects", names)
        space += more
    print(f"Total reclaimed space: {table.exact_size(space)}")
    return 0
