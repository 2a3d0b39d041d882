"""A start's steps, kept while they happen, for a picture of them afterwards: `run --explain --plot FILE`.

    Moment      one step that was taken: by whom, which call, of which concept, from when to when
    Recorder    gathers them from the monitor's messages; `draw` makes the picture, or keeps them as JSON
    recorded    reads such JSON

What draws (plot.py) is imported when the container has ended: a process that has loaded matplotlib forks more slowly,
and the picture would show that.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from .. import errors
from . import explain

KINDS = (".png", ".svg", ".pdf", ".json")


class Moment(NamedTuple):
    """One step that has been taken: by "parent", "child" or "teardown"; seconds of one clock."""

    by: str
    call: str
    concept: str
    began: float
    ended: float


class Recorder:
    """Keeps the steps of a planned start (engine.containers.Start). Refuses a path that cannot be written."""

    def __init__(self, planned: Any, path: str, teller: Callable[[dict[str, Any]], object] | None = None) -> None:
        folder = os.path.dirname(os.path.abspath(path))
        if os.path.splitext(path)[1].lower() not in KINDS:
            raise errors.InvalidArgument(f"--plot {path}: it writes {', '.join(KINDS)}")
        if os.path.isdir(path) or not os.access(folder, os.W_OK):
            raise errors.InvalidArgument(f"--plot {path}: there is no directory to write that to")
        if not path.lower().endswith(".json") and not importlib.util.find_spec("matplotlib"):
            raise errors.Unsupported(
                "--plot draws with matplotlib: ./dev setup installs it, or pip install 'minicontainer[plot]'; "
                "--plot FILE.json works without"
            )
        self.path = path
        self.teller = teller
        self.title = f"{planned.record['image']} {' '.join(planned.record['args'])}"
        self.parent = list(planned.plan)
        self.child = [step for who, step in explain.processes(planned.plan) if who == "child"]
        self.moments: list[Moment] = []

    def step(self, message: dict[str, Any]) -> None:
        """One message of the monitor's; it is passed on to `teller`."""
        by = message["by"]
        if by == "teardown":
            verb, arguments, concept = message["verb"], message["arguments"], message["concept"]
        else:
            verb, arguments, _, concept, *_ = (self.parent if by == "parent" else self.child)[message["step"]]
        call = explain.tell(verb, arguments).call
        concept = "waiting" if call == "channel.wait" else concept or "process"
        self.moments.append(Moment(by, call, concept, message["began"], message["ended"]))
        if self.teller:
            self.teller(message)

    def draw(self) -> None:
        """What has been kept, into the file."""
        if not self.moments:
            return
        if self.path.lower().endswith(".json"):
            from . import measure

            steps = [moment._asdict() for moment in self.moments]
            measure.save(self.path, {"title": self.title, "machine": measure.machine(), "steps": steps})
            return
        from . import plot

        plot.save(plot.timeline(self.moments), self.path)


def recorded(path: str) -> list[Moment]:
    """The steps that `run --explain --plot FILE.json` has kept."""
    with open(path) as file:
        return [Moment(**step) for step in json.load(file)["steps"]]
