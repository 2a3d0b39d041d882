"""The package's own functions behind this lab's door: what they score shows how far copying gets."""

import os
import tempfile

from minicontainer import errors
from minicontainer.image import archive, making, store


def build(layers, config, name, target):
    with tempfile.TemporaryDirectory() as root:
        with store.Store(root).job() as job:
            image = making.make(job, config, layers, name)
        os.system(f"tar -cf {target} -C {root} oci-layout index.json blobs")
        return image.id


def damaged(path):
    with tempfile.TemporaryDirectory() as root:
        try:
            archive.load(store.Store(root), path)
        except errors.InvalidImage as error:
            return [word for word in str(error).split() if ".tar" in word]
    return []
