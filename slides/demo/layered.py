"""Make shop.tar: an image of three layers on busybox, by hand. What `build` would do, with nothing but tar and JSON.

layer 1: busybox, as it is in the store · layer 2: a catalogue of 4 MiB · layer 3: the catalogue is deleted again
"""

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

store = Path(os.environ["MINICONTAINER_ROOT"])


def blob(digest: str) -> bytes:
    return (store / "blobs" / digest.replace(":", "/")).read_bytes()


def layer(files: dict[str, bytes]) -> bytes:
    """A layer is a tar of what it adds and changes; `.wh.NAME` says that NAME is gone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(content), 1767225600, 0o644
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def base() -> tuple[dict, list[bytes]]:
    """busybox: its config and its layers, from the store's index."""
    index = json.loads((store / "index.json").read_text())
    manifest = json.loads(blob(index["manifests"][0]["digest"]))
    layers = []
    for descriptor in manifest["layers"]:
        content = blob(descriptor["digest"])
        if content[:2] == b"\x1f\x8b":
            import gzip

            content = gzip.decompress(content)
        layers.append(content)
    return json.loads(blob(manifest["config"]["digest"])), layers


config, layers = base()
layers += [layer({"catalogue": b"\x2a" * (4 << 20), "motd": b"welcome\n"}), layer({".wh.catalogue": b""})]
config["history"] += [
    {"created": "2026-01-01T00:00:00Z", "created_by": "COPY catalogue motd /"},
    {"created": "2026-01-01T00:00:00Z", "created_by": "RUN rm /catalogue"},
    {"created": "2026-01-01T00:00:00Z", "created_by": 'CMD ["cat", "/motd"]', "empty_layer": True},
]
config["config"]["Cmd"] = ["cat", "/motd"]
config["rootfs"]["diff_ids"] = ["sha256:" + hashlib.sha256(content).hexdigest() for content in layers]
files = {f"layer-{number}.tar": content for number, content in enumerate(layers, 1)}
files["config.json"] = json.dumps(config).encode()
files["manifest.json"] = json.dumps(
    [{"Config": "config.json", "RepoTags": ["shop:1"], "Layers": list(files)[:3]}]
).encode()
Path("shop.tar").write_bytes(layer(files))
