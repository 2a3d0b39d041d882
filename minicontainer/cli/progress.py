"""A build in a terminal: a line for each step, redrawn in place, below a running one the last that it has written.

    [+] Building 3.2s (2/3)
     => [1/3] FROM plain                                          0.0s
     => CACHED [2/3] WORKDIR /app                                 0.0s
     => [3/3] RUN make                                            3.1s
     => => # gcc -c a.c

The form is BuildKit's. At the end all of it stands there once, and of a step that has failed all that it has written.
A timer draws meanwhile, in this thread: a second one would keep the engine from forking.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import unicodedata
from typing import Any

from ..build import builder
from .building import Plain

TAIL = 6  # lines of what a running step has written
EVERY = 0.1  # seconds between two drawings
MOST = 1 << 22  # bytes of its output that are kept for the case that it fails


class Row:
    """A step: when it began, how long it took once it is over, and what it has written."""

    def __init__(self, step: builder.Step) -> None:
        self.step, self.began, self.seconds, self.word = step, time.monotonic(), -1.0, ""
        self.why: list[str] = []
        self.output = b""

    def lines(self, now: float, width: int, tail: int) -> list[str]:
        """Its line, right-aligned the time, and those below it, so many of its output at most."""
        running = self.seconds < 0
        text = f" => {self.word + ' ' if self.word else ''}{self.step}"
        took = f"{now - self.began if running else self.seconds:.1f}s"
        found = [f"{padded(text, width - len(took) - 1)} {took}"]
        found += [cut(f" => => why: {sentence}", width) for sentence in self.why]
        if running:
            written = self.output[-TAIL * 4096 :].decode(errors="replace").split("\n")
            shown = [line.rstrip("\r").rpartition("\r")[2] for line in written]
            found += [cut(f" => => # {line}", width) for line in [one for one in shown if one.strip()][-tail:] if tail]
        return found


class Screen(Plain):
    """The steps of a build, drawn in place on the terminal that standard error is."""

    def __init__(self, why: bool) -> None:
        super().__init__(why)
        self.start = time.monotonic()
        self.rows: dict[int, Row] = {}
        self.warnings: list[str] = []  # they stand below all of it
        self.drawn = 0  # lines that stand there
        self.drawing = self.over = False
        self.before = signal.signal(signal.SIGALRM, self.tick)
        signal.siginterrupt(signal.SIGALRM, False)
        signal.setitimer(signal.ITIMER_REAL, EVERY, EVERY)

    def tick(self, *_: object) -> None:
        """The timer."""
        if not self.drawing and not self.over:
            self.draw()

    def tell(self, kind: str, step: builder.Step, told: Any) -> None:
        if kind == "warning":
            self.warnings.append(told)
            return
        if kind == "begun":
            for row in self.rows.values():  # FROM is over when what stands on it begins
                if row.seconds < 0 and row.step.stage == step.stage:
                    row.seconds = time.monotonic() - row.began
            self.rows[step.id] = Row(step)
        row = self.rows[step.id]
        if kind == "cached":
            row.word, row.seconds = "CACHED", 0.0
        elif kind == "why" and self.why:
            row.why = list(told)
        elif kind == "output":
            row.output = (row.output + told[1])[-MOST:]
        elif kind in ("done", "failed"):
            row.word, row.seconds = "ERROR" if kind == "failed" else "", told

    def draw(self) -> None:
        """Draw what fits; the last drawing has all."""
        self.drawing = True
        try:
            size = os.get_terminal_size(2)
        except OSError:
            size = os.terminal_size((80, 24))
        width, height = max(size.columns or 80, 20), max(size.lines or 24, 4)
        now = time.monotonic()
        lines: list[str] = []
        for tail in range(TAIL, -1, -1):
            lines = [line for row in list(self.rows.values()) for line in row.lines(now, width - 1, tail)]
            if len(lines) <= height - 2:
                break
        if not self.over:
            lines = lines[-(height - 2) :]
        done = sum(row.seconds >= 0 for row in self.rows.values())
        of = {row.step.stage: row.step.of for row in self.rows.values() if row.step.of}
        total = sum(of.values()) + sum(not row.step.of for row in self.rows.values())
        end = " FINISHED" if self.over and not any(row.word == "ERROR" for row in self.rows.values()) else ""
        lines.insert(0, cut(f"[+] Building {now - self.start:.1f}s ({done}/{max(done, total)}){end}", width - 1))
        up = f"\x1b[{self.drawn}A" if self.drawn else ""
        text = f"{up}\r" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J"
        sys.stderr.write(text.encode("utf-8", "replace").decode())
        sys.stderr.flush()
        self.drawn = len(lines)
        self.drawing = False

    def close(self) -> None:
        """The build is over, well or not: all of it once more, and what a step that failed has written."""
        if self.over:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)
        self.over = True
        for row in self.rows.values():
            if row.seconds < 0:
                row.seconds = time.monotonic() - row.began
        self.draw()
        for warning in self.warnings:
            self.say(plain(f"[Warning] {warning}"))
        for row in self.rows.values():
            if row.word == "ERROR" and row.output:
                self.say(f"------\n > {plain(str(row.step))}:")
                for line in row.output.decode(errors="replace").rstrip("\n").split("\n"):
                    self.say(plain(line.rstrip("\r")))
                self.say("------")


def plain(text: str) -> str:
    """A line without what would move the cursor or change a colour."""
    text = text.expandtabs()
    return "".join(sign for sign in text if sign.isprintable())


def columns(text: str) -> int:
    """How many columns a terminal needs for it."""
    return sum(map(wide, text))


def wide(sign: str) -> int:
    """The columns of a character: none for one that goes over another, two for one that is wide."""
    if unicodedata.combining(sign):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1


def cut(text: str, width: int) -> str:
    """What of a line fits."""
    text = plain(text)
    if columns(text) <= width:
        return text
    while text and columns(text) > width - 1:
        text = text[: min(len(text) - 1, width - 1)]
    return f"{text}…"


def padded(text: str, width: int) -> str:
    """A line of that width exactly."""
    text = cut(text, width)
    return text + " " * (width - columns(text))
