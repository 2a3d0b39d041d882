"""The package's own functions behind this lab's door: what they score shows how far copying gets."""

import io
import tarfile

from minicontainer import errors
from minicontainer.engine import pulling, pushing
from minicontainer.image import blobs, store
from minicontainer.image import registry as protocol


def pull(registry, repository, reference, architecture, folder):
    mark = "@" if ":" in reference else ":"
    name = f"{registry.removeprefix('http://')}/{repository}{mark}{reference}"
    try:
        return pulling.pull(store.Store(folder), name, f"linux/{architecture}").image.digest
    except errors.MiniContainerError as error:
        raise ValueError(str(error)) from None


def copy(registry, source, target, reference):
    host, here = registry.removeprefix("http://"), store.Store("/tmp/store")
    pulled = pulling.pull(here, f"{host}/{source}:{reference}")
    here.add(blobs.read(here.root, pulled.image.digest), f"{host}/{target}:{reference}")
    return pushing.push(here, f"{host}/{target}:{reference}").digest


def peek(registry, repository, layer, path):
    there = protocol.Registry(registry.removeprefix("http://"))
    content = there.content(repository, layer["digest"], layer["size"])
    return tarfile.open(fileobj=io.BytesIO(content)).extractfile(path).read().decode()
