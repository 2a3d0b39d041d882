"""`build --output`: the result of a build put where it was asked for."""

from __future__ import annotations

import os
import time
from typing import Any

from ..build import builder
from ..build import output as outputs
from ..engine import client
from . import UsageError, building, output


class Exports:
    """What `--output` asked for. Raises InvalidArgument, UsageError."""

    def __init__(self, texts: list[str], tags: list[str], progress: str) -> None:
        self.outputs = list(map(outputs.parse, texts))
        self.tags = tags
        streams = sum(one.dest == outputs.STANDARD for one in self.outputs)
        if streams > 1 or (streams and progress == "json"):
            raise UsageError("--output: only one thing can go to standard output")
        if streams and os.isatty(1):
            raise UsageError("--output: refusing to write to a terminal; give dest=FILE, or redirect")
        self.to_standard = bool(streams)
        for one in self.outputs:
            if one.push and not (one.names or tags):
                raise UsageError("--output: what is to be pushed needs a name")

    @property
    def names(self) -> list[str]:
        """The names that the image has in the store."""
        if not self.outputs:
            return self.tags
        return [name for one in self.outputs if one.kind == "image" for name in one.names or self.tags]

    def deliver(self, made: outputs.Made, tell: builder.Tell) -> None:
        """Put it everywhere."""
        for number, one in enumerate(self.outputs, made.steps + 1):
            step = builder.Step(number, "", 0, 0, str(one))
            tell("begun", step, None)
            began = time.monotonic()
            put(made, one, list(one.names) or self.tags)
            tell("done", step, time.monotonic() - began)

    def push(self) -> None:
        """Send to registries what is to go there."""
        for one in self.outputs:
            for name in (one.names or self.tags) if one.push else ():
                client.Client().images.push(name)

    def end(self, teller: building.Plain, image: Any) -> None:
        """The last lines."""
        if not self.outputs or "image" in [one.kind for one in self.outputs]:
            teller.end(image, self.names)


def put(made: outputs.Made, one: outputs.Output, names: list[str]) -> None:
    """One output."""
    to = None if one.dest == outputs.STANDARD else one.dest
    if one.kind == "image":
        made.enter(*names)
    elif one.kind == "local":
        made.copy_to(one.dest)
    elif one.kind == "tar":
        output.write(to, made.tar())
    else:
        output.write(to, made.archive("oci" if one.kind == "oci" else "docker-archive", names))
