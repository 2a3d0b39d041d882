"""`save`: images as an archive that docker, podman and skopeo read."""

from __future__ import annotations

from .. import errors
from ..engine import client
from . import output
from .flags import Flag, parse

FLAGS = [
    Flag("-o --output", "output", "text", "a file to write to, in place of standard output"),
    Flag("--format", "format", "text", "docker-archive, the default, or oci"),
]


def main(arguments: list[str]) -> int:
    """docker-save(1), podman-save(1)."""
    values, names = parse("save IMAGE …", FLAGS, arguments)
    if not names:
        raise errors.InvalidArgument('"minicontainer save" needs an image; `minicontainer images` lists them')
    form = {"oci-archive": "oci"}.get(values.get("format", ""), values.get("format") or "docker-archive")
    output.write(values.get("output"), client.Client().images.save(names, form))
    return 0
