"""What takes space, and giving it back: `df`, and `prune` for containers, volumes and images together.

`df` is docker-py's: for each image, container, volume and record of the build cache its bytes. A layer counts once,
however many images have it.
"""

from __future__ import annotations

import os
from typing import Any

from .. import files
from ..image import removal
from . import buildcache, containers, filters, images, volumes

Document = dict[str, Any]


def df(root: str) -> Document:
    """LayersSize; Images (Size, and SharedSize, which others have, too), Containers (SizeRw), Volumes (UsageData);
    BuildCache, as buildcache.df has it."""
    engine, here = containers.Containers(root), images.Images(root)
    records, found = engine.records(), here.list()
    sizes = {chain: here.store.size_of([chain]) for image in found for chain in image.chain_ids}
    owners = [chain for image in {image.id: image for image in found}.values() for chain in image.chain_ids]
    shared = {chain for chain in sizes if owners.count(chain) > 1}
    mounted = engine.volumes_in_use()
    return {
        "LayersSize": sum(sizes.values()),
        "Images": [
            {
                "Id": image.id,
                "RepoTags": image.names,
                "Created": image.created,
                "Size": image.size,
                "SharedSize": sum(sizes[chain] for chain in image.chain_ids if chain in shared),
                "Containers": sum(record["image_id"] == image.id for record in records),
            }
            for image in found
        ],
        "Containers": [
            {**record, "SizeRw": files.disk_usage(f"{engine.path(record['id'])}/upper")} for record in records
        ],
        "Volumes": [
            {
                **engine.volumes.inspect(name),
                "UsageData": {
                    "Size": files.disk_usage(engine.volumes.data(name)),
                    "RefCount": len(mounted.get(name, [])),
                },
            }
            for name in engine.volumes.list()
        ],
        "BuildCache": buildcache.df(root),
    }


def prune_containers(root: str, asked: filters.Filters) -> tuple[list[str], int]:
    """Remove containers that do not run. Their ids, and the bytes of their own files."""
    engine = containers.Containers(root)
    filters.check(asked, ("until", "label", "label!"))
    old, marked = filters.until(asked), filters.with_labels(asked)
    return engine.prune(lambda record: old(record["created"]) and marked(record["config"]["Labels"]))


def prune_volumes(root: str, named_too: bool, asked: filters.Filters) -> tuple[list[str], int]:
    """Remove volumes that no container mounts: those without a name of their own, or all. Names, and bytes.

    Under the images lock, which a new container shares when it writes down what it mounts.
    """
    engine = containers.Containers(root)
    marked = filters.with_labels(asked)
    removed, space = [], 0
    with removal.Bin(engine.images) as bin, engine.images.lock():
        mounted = engine.volumes_in_use()
        for name in engine.volumes.list():
            if not (named_too or volumes.anonymous(name)) or name in mounted:
                continue
            path = f"{engine.volumes.directory}/{name}"
            if not marked(engine.volumes.inspect(name)["Labels"] or {}) or os.path.ismount(path):
                continue
            space += files.disk_usage(engine.volumes.data(name))
            removed.append(name)
            bin.take(path)
    return removed, space
