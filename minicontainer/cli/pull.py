"""`pull`: an image from a registry."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any, TextIO

from .. import errors
from ..engine import client, images, pulling
from ..image import reference
from .flags import Flag, parse

FLAGS = [
    Flag("-a --all-tags", "all_tags", "bool", "every tag of the repository"),
    Flag("--platform", "platform", "text", "linux/arm64, linux/arm/v7: not what suits this machine best"),
    Flag("-q --quiet", "quiet", "bool", "print the name alone"),
    Flag("--disable-content-trust", "trust", "bool", "accepted for docker's sake"),
]


def main(arguments: list[str]) -> int:
    """docker-pull(1)."""
    values, rest = parse("pull [FLAGS] NAME[:TAG|@DIGEST]", FLAGS, ["--disable-content-trust", *arguments])
    if len(rest) != 1:
        raise errors.InvalidArgument('"minicontainer pull" needs one name: debian, debian:12, host:5000/name')
    wanted = reference.parse(rest[0])
    output = None if values["quiet"] else sys.stdout
    engine = client.Client().images
    platform = values.get("platform", "")
    if values["all_tags"]:
        if wanted.tag or wanted.digest:
            raise errors.InvalidArgument("tag can't be used with --all-tags/-a")
        for tag in engine.tags(wanted.name):
            pull(engine, reference.Reference(wanted.domain, wanted.path, tag), platform, output)
        print(wanted.name)
        return 0
    if output and not wanted.tag and not wanted.digest:
        print("Using default tag: latest", file=output)
    pull(engine, wanted, platform, output)
    print(wanted.full())
    return 0


def pull(engine: images.Images, wanted: reference.Reference, platform: str, output: TextIO | None) -> None:
    """Pull one image, and say in docker's words what happens."""
    if output is None:
        engine.pull(wanted.full(), platform)
        return
    label = wanted.full() if wanted.digest else wanted.tag or reference.DEFAULT_TAG
    print(f"{label}: Pulling from {wanted.path}", file=output, flush=True)
    with display(output) as show:
        pulled = engine.pull(wanted.full(), platform, show.progress)
    for warning in engine.warnings(pulled.image.id):
        print(f"minicontainer: warning: {wanted.familiar()}: {warning}", file=sys.stderr)
    said = "Downloaded newer image for" if pulled.newer else "Image is up to date for"
    print(f"Digest: {pulled.digest}\nStatus: {said} {wanted.familiar()}", file=output, flush=True)


def fetch(name: str, quiet: bool) -> None:
    """Pull for `run` and `create`, whose own output is another: what is said goes to standard error."""
    wanted = reference.parse(name)
    pull(client.Client().images, wanted, "", None if quiet else sys.stderr)


def missing(name: str, policy: str, quiet: bool) -> bool:
    """Pull an image that is not here, if that is wanted. Returns whether it was. Raises RegistryError."""
    wanted = pulling.to_fetch(name, policy)
    if wanted is None:
        return False
    if not quiet:
        print(f"Unable to find image '{wanted.familiar()}' locally", file=sys.stderr)
    fetch(name, quiet)
    return True


def display(output: TextIO) -> Bars | Lines:
    """How progress is shown there."""
    return Bars(output) if output.isatty() else Lines(output)


class Lines:
    """Progress into a pipe: a line where a layer gets on, none for its bytes."""

    def __init__(self, output: TextIO) -> None:
        self.output = output
        self.lock = threading.Lock()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to do."""

    def progress(self, layer: str, what: str, done: int, total: int) -> None:
        """pulling.Progress."""
        if what not in MOVING:
            with self.lock:
                print(f"{layer}: {what}", file=self.output, flush=True)


class Bars:
    """Progress in a terminal: a line for each layer, which changes, with a bar while its bytes come."""

    def __init__(self, output: TextIO) -> None:
        self.output = output
        self.bars: dict[str, Any] = {}
        self.lock = threading.Lock()

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the lines as they are, and go on below them."""
        for bar in self.bars.values():
            bar.close()

    def progress(self, layer: str, what: str, done: int, total: int) -> None:
        """pulling.Progress."""
        from tqdm import tqdm

        with self.lock:
            bar = self.bars.get(layer)
            if bar is None:
                columns, rows = os.get_terminal_size(self.output.fileno())
                bar = self.bars[layer] = tqdm(
                    total=total, file=self.output, position=len(self.bars), unit="B", unit_scale=True, leave=True,
                    ncols=columns or 80, nrows=rows or 24, bar_format=STILL,
                )  # fmt: skip
            moving = what in MOVING
            bar.total = total or bar.total
            bar.bar_format = BAR if moving else STILL
            bar.set_description_str(f"{layer}: {what}", refresh=False)
            if moving:
                bar.update(done - bar.n)
            else:
                bar.refresh()


MOVING = ("Downloading", "Pushing")  # what has a bar, and makes no line of its own
STILL = "{desc}"
BAR = "{desc} |{bar}| {n_fmt}/{total_fmt} {rate_fmt}"
