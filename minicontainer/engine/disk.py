"""What takes space. `df` is docker-py's: for each image, container, volume and record of the build cache its bytes.

A layer counts once, however many images have it.
"""

from __future__ import annotations

from typing import Any

from .. import files
from . import buildcache, containers, images

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
