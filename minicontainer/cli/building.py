"""How a build is told of: plain lines, as BuildKit's `--progress=plain` has them, or JSON, a line for each thing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from ..build import builder
from ..engine import client, containers
from ..image import making, store
from . import UsageError, attached


class Plain:
    """Lines: `#3 [2/4] RUN make`, what it writes with the seconds before it, `#3 DONE 1.2s` or `#3 CACHED`."""

    def __init__(self, why: bool) -> None:
        self.why = why
        self.began: dict[int, float] = {}
        self.rest: dict[int, bytes] = {}

    def tell(self, kind: str, step: builder.Step, told: Any) -> None:
        """One thing that has happened (builder.Tell)."""
        if kind == "begun":
            self.began[step.id] = time.monotonic()
            self.say(f"#{step.id} {step}")
        elif kind == "cached":
            self.say(f"#{step.id} CACHED")
        elif kind == "why" and self.why:
            for sentence in told:
                self.say(f"#{step.id} why: {visible(sentence)}")
        elif kind == "output":
            *lines, self.rest[step.id] = (self.rest.get(step.id, b"") + told[1]).split(b"\n")
            for line in lines:
                self.line(step, line)
        elif kind in ("done", "failed"):
            if self.rest.get(step.id):
                self.line(step, self.rest[step.id])
            self.say(f"#{step.id} {'DONE' if kind == 'done' else 'ERROR'} {told:.1f}s")
        elif kind == "warning":
            self.say(f"[Warning] {told}")

    def line(self, step: builder.Step, line: bytes) -> None:
        """A line that a step has written."""
        seconds = time.monotonic() - self.began[step.id]
        self.say(f"#{step.id} {seconds:.3f} {line.decode(errors='replace')}")

    def say(self, line: str) -> None:
        """Print it where progress goes."""
        print(line.encode("utf-8", "replace").decode(), file=sys.stderr, flush=True)

    def close(self) -> None:
        """The build is over, well or not."""

    def end(self, image: store.Image | making.Draft, names: list[str]) -> None:
        """The image is there."""
        self.say(f"writing image {image.id}")
        for name in names:
            self.say(f"naming to {name}")


def visible(text: str) -> str:
    """A line with a file's name in it, which may hold what would break the line or move the cursor."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


class Json(Plain):
    """A line of JSON for each thing: kind, step, and what there is to say."""

    def tell(self, kind: str, step: builder.Step, told: Any) -> None:
        document: dict[str, Any] = {"kind": kind, "id": step.id, "step": str(step)}
        if kind == "warning":
            document = {"kind": kind}
        if kind == "output":
            document |= {"stream": told[0], "data": told[1].decode(errors="replace")}
        elif kind in ("why", "warning"):
            document[kind] = told
        elif told is not None:
            document["seconds"] = round(told, 3)
        print(json.dumps(document), flush=True)

    def end(self, image: store.Image | making.Draft, names: list[str]) -> None:
        print(json.dumps({"kind": "image", "image": image.id, "names": names}), flush=True)


class Quiet(Plain):
    """Nothing but the image's id at the end."""

    def tell(self, kind: str, step: builder.Step, told: Any) -> None:
        pass

    def end(self, image: store.Image | making.Draft, names: list[str]) -> None:
        print(image.id)


@contextlib.contextmanager
def orderly() -> Iterator[None]:
    """SIGTERM and SIGHUP end a build as SIGINT does: its steps end, too, and the exit code is 128 and the number.

    One that is ignored (nohup) stays so; further ones do not disturb the end.
    """

    def leave(number: int, _: object) -> NoReturn:
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        raise SystemExit(128 + number)

    numbers = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is signal.SIG_DFL]
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def teller(progress: str, quiet: bool, why: bool, debug: bool = False) -> Plain:
    """Who tells of a build; with `debug`, a shell may want the terminal. Raises UsageError."""
    if progress not in ("auto", "plain", "tty", "json"):
        raise UsageError(f"invalid progress {progress!r}: auto, plain, tty or json")
    if quiet:
        return Quiet(why)
    if progress == "tty" or (progress == "auto" and os.isatty(2) and not debug):
        from . import progress as drawn

        return drawn.Screen(why)
    return Json(why) if progress == "json" else Plain(why)


def shell(ground: containers.Ground, options: dict[str, Any]) -> None:
    """A shell where a RUN has failed: on what it has left, with its mounts. The build goes on failing when it ends."""
    print("The step has failed; this is a shell on what it left. `exit` ends the build.", file=sys.stderr, flush=True)
    terminal = os.isatty(0)
    size = os.get_terminal_size(0)[::-1] if terminal else (0, 0)
    engine = client.Client().containers
    planned = engine.plan(
        ground, **{**options, "command": ["/bin/sh"]}, stdin_open=True, tty=terminal, console_size=size, remove=True
    )
    with attached.Signals() as signals:
        session = engine.perform(planned)
        session.wait_started()
        attached.stay(session, True, signals, b"", None)
