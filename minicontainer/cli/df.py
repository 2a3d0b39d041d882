"""`system df`: what takes space, and how much of it nobody uses."""

from __future__ import annotations

from typing import Any

from .. import host
from ..engine import client, containers, disk
from . import images, ps, table, volume

Row = dict[str, Any]


def main(values: dict[str, Any]) -> int:
    """docker-system-df(1)."""
    found = disk.df(host.root())
    form = values.get("format", "")
    if values["verbose"]:
        print(detailed(form, found) if form not in ("", "table") else verbose(found), end="")
        return 0
    columns = {name: table.Column(header, lambda row, name=name: row[name]) for name, header in SUMMARY}
    usual = [name for name, _ in SUMMARY]
    print(table.listing(form, columns, usual, summary(found), "formatter.diskUsageContext"), end="")
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
        build_cache(found["BuildCache"]),
    ]


def build_cache(found: list[Row]) -> Row:
    """The summary's row of the build cache: what only it has. docker has no share of it."""
    own = sum(one["Size"] for one in found if not one["Shared"])
    used = [one for one in found if one["InUse"]]
    free = own - sum(one["Size"] for one in used if not one["Shared"])
    return {**row("Build Cache", len(found), len(used), own, 0), "Reclaimable": table.exact_size(free)}


def row(kind: str, total: int, active: int, size: int, free: int) -> Row:
    """One row of the summary."""
    share = f" ({free * 100 // size}%)" if size else ""
    counts = {"TotalCount": str(total), "Active": str(active)}
    return {"Type": kind, **counts, "Size": table.exact_size(size), "Reclaimable": table.exact_size(free) + share}


def verbose(found: Row) -> str:
    """A list for each kind of thing."""
    parts = []
    for title, key, usual, columns in kinds(whole=False):
        rows = [[columns[name].cell(row) for name in usual] for row in found[key]]
        parts += [f"{title}:\n", table.show([columns[name].header for name in usual], rows) + "\n"]
    own = sum(one["Size"] for one in found["BuildCache"] if not one["Shared"])
    columns = cache_columns(whole=False)
    usual = ["ID", "CacheType", "Size", "CreatedSince", "LastUsedSince", "UsageCount", "Shared"]
    rows = [[columns[name].cell(row) for name in usual] for row in found["BuildCache"]]
    of_cache = table.show([columns[name].header for name in usual], rows)
    return "\n".join([*parts, f"Build cache usage: {table.size(own)}\n", of_cache]) + "\n"


def detailed(form: str, found: Row) -> str:
    """The same by a template, evaluated once: `.Images`, `.Containers`, `.Volumes` and `.BuildCache` are lists."""
    from . import template, template_functions

    lists = {
        key: [table.methods(columns, row, f"formatter.{kind}Context") for row in found[key]]
        for (_, key, _, columns), kind in zip(kinds(whole=True), ("image", "container", "volume"), strict=True)
    }
    cache = cache_columns(whole=True)
    lists["BuildCache"] = [table.methods(cache, row, "formatter.buildCacheContext") for row in found["BuildCache"]]
    if form == "json":
        return template_functions.to_json(template.Struct(lists))
    usage = template.Methods({name: lambda value=value: value for name, value in lists.items()})
    usage.kind = "*formatter.diskUsageContext"
    source = RAW if form == "raw" else form.removeprefix("table ").replace("\\t", "\t").replace("\\n", "\n")
    return template.render(template.parse(source), usage, source)


RAW = """\
{{range .Images}}type: Image
repository: {{.Repository}}
tag: {{.Tag}}
digest: {{.Digest}}
image_id: {{.ID}}
created_at: {{.CreatedAt}}
virtual_size: {{.Size}}

{{end}}{{range .Containers}}type: Container
container_id: {{.ID}}
image: {{.Image}}
command: {{.Command}}
created_at: {{.CreatedAt}}
state: {{.State}}
status: {{.Status}}
names: {{.Names}}
labels:{{pad .Labels 1 0}}
ports:{{pad .Ports 1 0}}
size: {{.Size}}

{{end}}{{range .Volumes}}type: Volume
name: {{.Name}}
driver: {{.Driver}}

{{end}}"""


def kinds(whole: bool) -> list[tuple[str, str, list[str], dict[str, table.Column]]]:
    """What there is a list of: its title, its name in `found`, the usual columns, and all columns."""
    known = ps.columns_of(client.Client().containers, whole, sized=False)
    known["Size"] = table.Column("SIZE", lambda record: table.size(record["SizeRw"]))
    shown = ["ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"]
    of_images = ["Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers"]
    of_volumes = volume.columns()
    of_volumes["Links"] = table.Column("LINKS", lambda volume: str(volume["UsageData"]["RefCount"]))
    of_volumes["Size"] = table.Column("SIZE", lambda volume: table.size(volume["UsageData"]["Size"]))
    return [
        ("Images space usage", "Images", of_images, image_columns(whole)),
        ("Containers space usage", "Containers", shown, known),
        ("Local Volumes space usage", "Volumes", ["Name", "Links", "Size"], of_volumes),
    ]


def image_columns(whole: bool) -> dict[str, table.Column]:
    """Every column of df's documents of images."""
    column = table.Column
    return {
        "Repository": column("REPOSITORY", lambda image: name_of(image)[0]),
        "Tag": column("TAG", lambda image: name_of(image)[1]),
        "Digest": column("DIGEST", lambda image: ""),
        "ID": column("IMAGE ID", lambda image: image["Id"] if whole else image["Id"][7:19]),
        "CreatedSince": column("CREATED", lambda image: images.since(image["Created"]) if image["Created"] else ""),
        "CreatedAt": column("CREATED AT", lambda image: table.local(image["Created"]) if image["Created"] else NEVER),
        "Size": column("SIZE", lambda image: table.size(image["Size"])),
        "VirtualSize": column("SIZE", lambda image: table.exact_size(image["Size"])),
        "SharedSize": column("SHARED SIZE", lambda image: table.exact_size(image["SharedSize"])),
        "UniqueSize": column("UNIQUE SIZE", lambda image: table.exact_size(unique(image))),
        "Containers": column("CONTAINERS", lambda image: str(image["Containers"])),
    }


def cache_columns(whole: bool) -> dict[str, table.Column]:
    """Every column of df's documents of the build cache."""
    column = table.Column
    return {
        "ID": column("CACHE ID", lambda one: (one["ID"] if whole else one["ID"][:12]) + "*" * one["InUse"]),
        "Parent": column("PARENT", lambda one: ", ".join(one["Parents"])),
        "CacheType": column("CACHE TYPE", lambda one: one["Type"]),
        "Description": column("DESCRIPTION", lambda one: one["Description"]),
        "Size": column("SIZE", lambda one: table.size(one["Size"])),
        "CreatedAt": column("CREATED", lambda one: one["CreatedAt"]),
        "CreatedSince": column("CREATED", lambda one: images.since(one["CreatedAt"])),
        "LastUsedAt": column("LAST USED", lambda one: one["LastUsedAt"]),
        "LastUsedSince": column("LAST USED", lambda one: images.since(one["LastUsedAt"])),
        "UsageCount": column("USAGE", lambda one: "N/A"),
        "InUse": column("IN USE", lambda one: "true" if one["InUse"] else "false"),
        "Shared": column("SHARED", lambda one: "true" if one["Shared"] else "false"),
    }


NEVER = "0001-01-01 00:00:00 +0000 UTC"  # a moment that nobody has set (Go, time.Time)


def name_of(image: Row) -> tuple[str, str]:
    """Repository and tag: of one of its names, as docker does."""
    repository, _, tag = min(image["RepoTags"] or ["<none>:<none>"]).rpartition(":")
    return repository, tag


def unique(image: Row) -> int:
    """The bytes that would be free if only this image went."""
    return int(image["Size"] - image["SharedSize"])
