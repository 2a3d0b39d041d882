"""`image explore`: an image layer by layer, and how its names come about."""

from __future__ import annotations

import json
import os
from typing import Any

from .. import errors
from ..engine import client
from . import table

MOST = 10  # lines of one kind for a layer, unless --all

Document = dict[str, Any]


def main(values: Document, names: list[str]) -> int:
    """Ours alone: docker has nothing of the kind; dive(1) is the program that people use there."""
    if len(names) != 1:
        raise errors.InvalidArgument('"minicontainer image explore" needs one image; `minicontainer images` lists them')
    form = values.get("format", "")
    if form not in ("", "json"):
        raise errors.InvalidArgument(f"--format {form}: json, or nothing for people")
    found = client.Client().images.explore(names[0], values.get("file", ""))
    if form:
        print(json.dumps(found))
        return 0
    text = of_file(found) if "File" in found else whole(found, values["all"])
    print(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    return 0


def whole(found: Document, every: bool) -> str:
    """All of it."""
    size, wasted = found["Size"], found["Wasted"]
    share = f" ({wasted * 100 // size}%)" if size else ""
    name = ", ".join(found["Names"]) or "<none>"
    lines = [f"{name}: {len(found['Layers'])} layers, {table.size(size)}, of which {table.size(wasted)}{share} wasted"]
    for layer in found["Layers"]:
        lines += ["", f"Layer {layer['Number']}: {table.size(layer['Size'])} in {layer['Files']} files"]
        if layer["CreatedBy"]:
            lines.append(f"  made by   {table.cut(layer['CreatedBy'].replace(chr(10), ' '), 100)}")
        if layer["Wasted"]:
            lines.append(f"  wasted    {table.size(layer['Wasted'])}: replaced or hidden by layers above")
        for word, sign, kind in (("added", "+", "Added"), ("changed", "~", "Changed"), ("hid", "-", "Hidden")):
            lines += list(entries(word, sign, layer[kind], every))
    return "\n".join([*lines, "", *identities(found)])


def entries(word: str, sign: str, listed: list[Document], every: bool) -> list[str]:
    """What a layer did, the largest first where that is not all."""
    if not listed:
        return []
    shown = listed if every or len(listed) <= MOST else sorted(listed, key=lambda e: -e["Size"])[:MOST]
    more = f", the largest {MOST} (all of them: --all)" if len(shown) < len(listed) else ""
    lines = [f"  {word:9} {len(listed)}{more}"]
    for entry in shown:
        below = (
            f"   of layer {entry['Layer']}" if sign == "-" else f"   over layer {entry['Layer']}" if sign == "~" else ""
        )
        if entry.get("Before"):
            below += f", whose {table.size(entry['Before'])} stay in the image"
        lines.append(f"    {sign} {table.size(entry['Size']):>8}  {entry['Path']}{below}")
    return lines


def identities(found: Document) -> list[str]:
    """Which bytes each name is the SHA-256 of. Whoever has the blobs can check it with sha256sum."""
    lines = ["How the names come about: each is the SHA-256 of some bytes"]
    for layer in found["Layers"]:
        packed = layer["Digest"] != layer["DiffID"]
        lines += [
            f"  layer {layer['Number']}   diffID   of the tar:  {layer['DiffID']}",
            f"            digest   of the blob, {'compressed' if packed else 'the same tar'}:  {layer['Digest']}",
        ]
        if layer["ChainIDOf"]:
            lines += [
                "            chainID  of the chainID below, a blank, and the diffID:",
                f"                     printf %s '{layer['ChainIDOf']}' | sha256sum",
                f"                     {layer['ChainID']}",
            ]
        else:
            lines.append(f"            chainID  of the lowest layer: its diffID:  {layer['ChainID']}")
    lines += [
        f"  image     id       of the config, which names every diffID:  {found['Id']}",
        f"            digest   of the manifest, which names the config and every blob:  {found['Digest']}",
    ]
    return lines


def of_file(found: Document) -> str:
    """Which layer a file is from."""
    file = found["File"]
    earlier = " and ".join(map(str, file["Earlier"]))
    if file["Layer"] is None:
        return f"{file['Path']}: layer {file['Hidden']} hides it; layer {earlier} had it, and its bytes are still there"
    made = found["Layers"][file["Layer"] - 1]["CreatedBy"]
    line = f"{file['Path']}: from layer {file['Layer']}" + (f" ({table.cut(made, 60)})" if made else "")
    inside = f"layers/{found['Layers'][file['Layer'] - 1]['ChainID'][7:]}/diff{file['Path']}"
    hides = f"\n  it hides that of layer {earlier}" if earlier else ""
    return f"{line}{hides}\n  on disk: {os.path.join(client.Client().root, inside)}"
