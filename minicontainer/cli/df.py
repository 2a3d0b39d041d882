"""`system df`: what takes space, and how much of it nobody uses."""

from __future__ import annotations

from typing import Any

from .. import errors, host
from ..engine import client, containers, disk
from . import images, ps, table

Row = dict[str, Any]


def main(values: dict[str, Any]) -> int:
    """docker-system-df(1)."""
    found = disk.df(host.root())
    form = values.get("format", "")
    if not values["verbose"]:
        columns = {name: table.Column(header, lambda row, name=name: row[name]) for name, header in SUMMARY}
        usual = [name for name, _ in SUMMARY]
        print(table.listing(form, columns, usual, summary(found), "formatter.diskUsageContext"), end="")
        return 0
    if form:
        raise errors.InvalidArgument("system df -v has no --format here: `system df --format json`, or inspect")
    print(verbose(found), end="")
    return 0


SUMMARY = (
    ("Type", "TYPE"), ("TotalCount", "TOTAL"), ("Active", "ACTIVE"), ("Size", "SIZE"), ("Reclaimable", "RECLAIMABLE"),
)  # fmt: skip


def summary(found: Row) -> list[Row]:
    """A row for each kind of thing. As docker counts it, a layer that a used image shares with others may go."""
    used = sum(unique(image) for image in found["Images"] if image["Containers"])
    active = [record for record in found["Containers"] if record["status"] in containers.LIVE]
    own = sum(record["SizeRw"] for record in found["Containers"])
    mounted = [volume for volume in found["Volumes"] if volume["UsageData"]["RefCount"]]
    held = sum(volume["UsageData"]["Size"] for volume in mounted)
    kept = sum(volume["UsageData"]["Size"] for volume in found["Volumes"])
    layers = found["LayersSize"]
    active_images = sum(image["Containers"] > 0 for image in found["Images"])
    return [
        row("Images", len(found["Images"]), active_images, layers, layers - used),
        row("Containers", len(found["Containers"]), len(active), own, own - sum(r["SizeRw"] for r in active)),
        row("Local Volumes", len(found["Volumes"]), len(mounted), kept, kept - held),
        row("Build Cache", 0, 0, 0, 0),
    ]


def row(kind: str, total: int, active: int, size: int, free: int) -> Row:
    """One row of the summary."""
    share = f" ({free * 100 // size}%)" if size else ""
    counts = {"TotalCount": str(total), "Active": str(active)}
    return {"Type": kind, **counts, "Size": table.exact_size(size), "Reclaimable": table.exact_size(free) + share}


def verbose(found: Row) -> str:
    """A list for each kind of thing."""
    rows = []
    for image in found["Images"]:
        created = images.since(image["Created"]) if image["Created"] else ""
        sizes = (table.size(image["Size"]), *map(table.exact_size, (image["SharedSize"], unique(image))))
        repository, _, tag = min(image["RepoTags"] or ["<none>:<none>"]).rpartition(":")  # one of them, as docker does
        rows.append([repository, tag, image["Id"][7:19], created, *sizes, str(image["Containers"])])
    header = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"]
    parts = ["Images space usage:\n", table.show(header, rows)]
    known = ps.columns_of(client.Client().containers, whole=False, sized=False)
    usual = ["ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"]
    cells = {**{name: known[name].cell for name in usual}, "Size": lambda record: table.size(record["SizeRw"])}
    rows = [[cells[name](record) for name in usual] for record in found["Containers"]]
    parts += ["\nContainers space usage:\n", table.show([known[name].header for name in usual], rows)]
    usages = [(volume["Name"], volume["UsageData"]) for volume in found["Volumes"]]
    rows = [[name, str(usage["RefCount"]), table.size(usage["Size"])] for name, usage in usages]
    parts += ["\nLocal Volumes space usage:\n", table.show(["VOLUME NAME", "LINKS", "SIZE"], rows)]
    header = ["CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED"]
    parts += ["\nBuild cache usage: 0B\n", table.show(header, [])]
    return "\n".join(parts) + "\n"


def unique(image: Row) -> int:
    """The bytes that would be free if only this image went."""
    return int(image["Size"] - image["SharedSize"])
