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


def pack(directory, target):
    """Write what is below `directory` as a layer: a tar file `target`. Returns its diffID, "sha256:…".

    Names are relative to the directory ("etc/motd"), it itself has no entry. Kept are directories, regular files and
    symbolic links, with content and mode. Two directories that agree in these make the same bytes: whoever owns them,
    whenever their files were made, and in which order. Everything belongs to user and group 0, without names.
    """
    raise NotImplementedError


def build(layers, config, name, target):
    """Write an image archive that is two things at once: what `docker save` writes, and an OCI layout. Returns its id.

    `layers` are tar files as `pack` makes them, lowest first. `config` is a config without its "rootfs": add that.
    `name` is the image's whole name ("mine:1"). The archive `target`, a tar file, has each blob once, as
    blobs/sha256/HEX, uncompressed; manifest.json with one image, whose Config and Layers name these blobs; index.json
    and oci-layout. The same arguments make the same bytes.
    """
    raise NotImplementedError


def damaged(archive):
    """Which layers of a `docker save` archive are not what its config says: their names in manifest.json, in order.

    The archive, a tar file, has one image. Its layers may be compressed with gzip. A layer that is missing is damaged,
    too.
    """
    raise NotImplementedError
