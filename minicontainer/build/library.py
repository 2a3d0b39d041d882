"""Builds for who writes Python, in docker-py's words: what `client.images.build` is there.

    from minicontainer import build

    image, log = build.build(client, path=".", tag="app:1", buildargs={"VERSION": "3"})

It is no method of the client, for a build stands on the client, and the engine knows of no builds (ARCHITECTURE.md,
*Floors*). Callers owe it a process without threads where a RUN is to run: its container is forked from this process.
"""

from __future__ import annotations

import codecs
import contextlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from .. import errors, files
from ..engine import committing
from ..image import store
from . import builder, instructions
from . import dockerfile as parsing

if TYPE_CHECKING:
    from ..engine.client import Client

Log = list[dict[str, str]]
"""docker-py's: {"stream": text}, one after another."""


def build(
    client: Client, path: str = "", tag: str = "", *, fileobj: BinaryIO | None = None, dockerfile: str = "",
    buildargs: Mapping[str, str] | None = None, target: str = "", nocache: bool = False, pull: bool = False,
    labels: Mapping[str, str] | None = None, platform: str = "", network_mode: str = "bridge",
) -> tuple[store.Image, Log]:  # fmt: skip
    """An image by the Dockerfile in the directory `path`, or by `fileobj`, a Dockerfile without a context.

    `dockerfile` is its name below `path`. Returns the image and the log of the build. Raises BuildError for what the
    Dockerfile says and for a step that fails, InvalidArgument, and Unsupported in a process with threads.
    """
    if bool(path) == (fileobj is not None):
        raise errors.InvalidArgument("build: give it either path or fileobj")
    if tag:
        committing.check_name(tag)
    arguments = dict(buildargs or {})
    settings = builder.Settings(
        target=target,
        build_args=arguments,
        labels=dict(labels or {}),
        use_cache=not nocache,
        pull=pull,
        platform=platform,
        network=network_mode,
        epoch=committing.source_date_epoch(arguments.get("SOURCE_DATE_EPOCH", "")),
    )
    log: Log = []
    decoders: dict[tuple[str, int], codecs.IncrementalDecoder] = {}  # a character may come in two pieces

    def tell(kind: str, step: builder.Step, told: Any) -> None:
        """What happens, as a line of the log."""
        if kind in ("begun", "cached"):
            log.append({"stream": f"{step}\n" if kind == "begun" else " ---> Using cache\n"})
        elif kind == "output":
            decoder = decoders.setdefault((str(step), told[0]), codecs.getincrementaldecoder("utf-8")("replace"))
            log.append({"stream": decoder.decode(told[1])})
        elif kind == "warning":
            log.append({"stream": f"[Warning] {told}\n"})

    with contextlib.ExitStack() as held:
        name, context = "Dockerfile", None
        if fileobj is None:
            name = os.path.join(path, dockerfile or name)
            if not os.path.isfile(name):
                raise errors.BuildError("no such Dockerfile", name)
            context = held.enter_context(builder.given(path, name))
        content = files.read(name) if fileobj is None else fileobj.read()
        script = instructions.read(parsing.parse(content, name))
        try:
            image = builder.Builder(client.containers, script, settings, tell, context).build(*([tag] if tag else []))
        except errors.BuildError as error:
            error.build_log = log
            raise
    assert isinstance(image, store.Image)  # anything else is for an output, and none was asked for
    log.append({"stream": f"Successfully built {image.id[7:19]}\n"})
    return image, log
