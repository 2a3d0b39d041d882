"""Lab 13: images from a registry, between repositories, and one file out of a layer that stays there.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import hashlib
import json
import os
import re
import shutil
import tarfile
import urllib.error
import urllib.parse
import urllib.request

OCI = "application/vnd.oci.image"
INDEX, MANIFEST = f"{OCI}.index.v1+json", f"{OCI}.manifest.v1+json"
ACCEPT = f"{INDEX}, {MANIFEST}"  # a registry gives what is named in the header Accept, and says 404 of all else

# A registry is an address ("http://127.0.0.1:5000"); whatever it answers is a stranger's word. A reference is a tag ("1.2")
# or a digest ("sha256:…"). No registry of this lab asks for a password, but it may ask for a token that anybody can have.


def pull(registry, repository, reference, architecture, folder):
    """Fetch an image into `folder`: its manifest, config and layers, each as blobs/sha256/HEX. Returns the manifest's digest.

    If the reference means an index, the image is the one for linux and this architecture ("arm64"); LookupError if there is
    none. What is here already is not asked for. While a blob comes it is called blobs/sha256/HEX.part; what is there from
    an earlier day, or from before a connection broke, is not asked for again. The third answer in a row that brings nothing
    new is an OSError. What is not what its digest says is ValueError, and nothing of it is left. One token serves for
    all of a pull; it goes to the registry itself only, and not where that sends us for a blob.
    """
    raise NotImplementedError


def copy(registry, source, target, reference):
    """Let `reference` mean in the repository `target` what it means in `source`, of the same registry. Returns its digest.

    An index goes whole: all its images, for every machine, with the same bytes and so the same digests. The registry is asked
    to take each blob over from `source` (mount). Only where it does not, the blob is fetched and sent. What `target` has
    already is left alone, and nothing is sent twice. At no moment does a tag or a manifest speak of what is not there.
    """
    raise NotImplementedError


def peek(registry, repository, layer, path):
    """The text of one regular file, `path`, in a layer that stays where it is; KeyError if the layer has no such file.

    `layer` is its descriptor in the manifest; it is a tar that is not compressed. Of what travels, there is at most a
    kibibyte for each of its entries, 16 KiB, and the file itself. Of two entries with one name, the later one counts.
    """
    raise NotImplementedError
