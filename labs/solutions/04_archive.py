"""Lab 04: an image, written by hand and checked by hand.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
REF_NAME = "org.opencontainers.image.ref.name"  # the annotation in index.json that has the image's name


### BEGIN SOLUTION
def below(directory):
    """Every name below a directory, relative to it."""
    for parent, directories, files in os.walk(directory):
        for name in directories + files:
            yield os.path.relpath(f"{parent}/{name}", directory)


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def as_json(document):
    return json.dumps(document, sort_keys=True).encode()


def place(descriptor):
    return "blobs/sha256/" + descriptor["digest"].removeprefix("sha256:")


### END SOLUTION
def pack(directory, target):
    """Write what is below `directory` as a layer: a tar file `target`. Returns its diffID, "sha256:…".

    Names are relative to the directory ("etc/motd"), it itself has no entry. Kept are directories, regular files and
    symbolic links, with content and mode. Two directories that agree in these make the same bytes: whoever owns them,
    whenever their files were made, and in which order. Everything belongs to user and group 0, without names.
    """
    ### BEGIN SOLUTION
    with tarfile.open(target, "w") as tar:
        for path in sorted(below(directory)):
            full = f"{directory}/{path}"
            info = os.lstat(full)
            entry = tarfile.TarInfo(path)  # of user 0 and time 0, if one does not say otherwise
            entry.mode = stat.S_IMODE(info.st_mode)
            if stat.S_ISREG(info.st_mode):
                entry.size = info.st_size
                with open(full, "rb") as file:
                    tar.addfile(entry, file)
                continue
            entry.type = tarfile.DIRTYPE
            if stat.S_ISLNK(info.st_mode):
                entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(full)
            tar.addfile(entry)
    with open(target, "rb") as file:
        return digest(file.read())
    ### END SOLUTION


def build(layers, config, name, target):
    """Write an image archive that is two things at once: what `docker save` writes, and an OCI layout. Returns its id.

    `layers` are tar files as `pack` makes them, lowest first. `config` is a config without its "rootfs": add that.
    `name` is the image's whole name ("mine:1"). The archive `target`, a tar file, has each blob once, as
    blobs/sha256/HEX, uncompressed; manifest.json with one image, whose Config and Layers name these blobs; index.json
    and oci-layout. The same arguments make the same bytes.
    """
    ### BEGIN SOLUTION
    blobs = {}

    def put(content, media):
        blobs[f"blobs/sha256/{digest(content)[7:]}"] = content
        return {"mediaType": media, "digest": digest(content), "size": len(content)}

    descriptors = []
    for layer in layers:
        with open(layer, "rb") as file:
            descriptors.append(put(file.read(), LAYER))
    rootfs = {"type": "layers", "diff_ids": [descriptor["digest"] for descriptor in descriptors]}
    of_config = put(as_json({**config, "rootfs": rootfs}), CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": of_config, "layers": descriptors}
    pointer = {**put(as_json(manifest), MANIFEST), "annotations": {REF_NAME: name}}
    listing = {"Config": place(of_config), "RepoTags": [name], "Layers": [place(layer) for layer in descriptors]}
    members = {
        "oci-layout": as_json({"imageLayoutVersion": "1.0.0"}),
        "index.json": as_json({"schemaVersion": 2, "manifests": [pointer]}),
        "manifest.json": as_json([listing]),
        **blobs,
    }
    with tarfile.open(target, "w") as tar:
        for member, content in members.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return of_config["digest"]
    ### END SOLUTION


def damaged(archive):
    """Which layers of a `docker save` archive are not what its config says: their names in manifest.json, in order.

    The archive, a tar file, has one image. Its layers may be compressed with gzip. A layer that is missing is damaged,
    too.
    """
    ### BEGIN SOLUTION
    found = []
    with tarfile.open(archive) as tar:
        image = json.load(tar.extractfile("manifest.json"))[0]
        promised = json.load(tar.extractfile(image["Config"]))["rootfs"]["diff_ids"]
        for name, diff_id in zip(image["Layers"], promised, strict=True):
            try:
                content = tar.extractfile(name).read()
                if content[:2] == b"\x1f\x8b":
                    content = gzip.decompress(content)
            except (KeyError, OSError, EOFError):
                content = b""
            if digest(content) != diff_id:
                found.append(name)
    return found
    ### END SOLUTION
