"""`--build-context NAME=…`: what a name means that FROM and --from have, in place of an image or a stage of that name.

    NAME=directory                    its files, less what its .dockerignore leaves out; FROM it: an image of them alone
    NAME=docker-image://reference     that image, pulled if it is not here
    NAME=oci-layout://path:tag        the image in a directory, by its tag or @digest; it gets no name here

Names are compared as images': `alpine` is docker.io/library/alpine:latest, too. Nothing of them is in the cache's keys
but what they contain. Source: docker-buildx-build(1), *--build-context*; BuildKit, frontend/dockerui.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from .. import errors
from ..image import reference
from . import context, instructions

DIRECTORY, IMAGE, LAYOUT = "directory", "image", "layout"
SCHEMES = {"docker-image://": IMAGE, "oci-layout://": LAYOUT}
FOREIGN = ("target:", "http://", "https://", "git://", "ssh://", "git@", "github.com/", "input:")


class Named(NamedTuple):
    """What a name means: a directory's path, an image's reference, or a layout's path with `which` of its images."""

    kind: str
    place: str
    which: str = ""


def normal(name: str) -> str:
    """A name as it is compared. Raises InvalidArgument for what no image could be called."""
    return reference.parse(name).familiar().removesuffix(":latest")


def parse(text: str) -> tuple[str, Named]:
    """`NAME=…`. Raises InvalidArgument."""
    name, given, value = text.partition("=")
    if not given or not name or not value:
        raise errors.InvalidArgument(f"--build-context {text}: write NAME=DIRECTORY or NAME=docker-image://IMAGE")
    for scheme, kind in SCHEMES.items():
        if value.startswith(scheme):
            place = value.removeprefix(scheme)
            if kind == IMAGE:
                reference.parse(place)
                return normal(name), Named(kind, place)
            return normal(name), layout(text, place)
    if value.startswith(FOREIGN):
        raise errors.InvalidArgument(f"--build-context {text}: clone or fetch it first, and name the directory")
    return normal(name), Named(DIRECTORY, directory(text, value))


def layout(text: str, place: str) -> Named:
    """`path[:tag][@digest]` of an OCI layout."""
    path, _, digest = place.partition("@")
    head, _, tag = path.rpartition(":")
    if head and "/" not in tag:
        path = head
    else:
        tag = ""
    return Named(LAYOUT, directory(text, path), digest or tag)


def directory(text: str, path: str) -> str:
    """A directory's path from the root."""
    if not os.path.isdir(path):
        raise errors.InvalidArgument(f"--build-context {text}: {path} is no directory")
    return os.path.abspath(path)


def tree(named: Named) -> context.Tree:
    """The files of a directory. Raises BuildError for a .dockerignore that means nothing."""
    return context.Tree(named.place, context.ignored(named.place))


def placed(script: instructions.Script, known: dict[str, Named]) -> instructions.Script:
    """The script with FROM alone in each stage whose name is one of these: that is what they mean now, by name."""
    stages = []
    for stage in script.stages:
        if stage.base.name in known:
            base = stage.base._replace(image=stage.base.name, name="", platform="")
            stage = stage._replace(base=base, instructions=())
        stages.append(stage)
    return script._replace(stages=tuple(stages))
