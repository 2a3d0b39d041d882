"""A build's progress in a terminal: what stands on the screen, by a small terminal of the tests' own."""

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios

import pytest

from minicontainer.cli import progress
from tests.yard import Yard, fresh_yard  # noqa: F401

COLUMNS, ROWS = 60, 12


class Terminal:
    """Lines of text, and a cursor: carriage return, newline, up, clear to the end of the line and of the screen."""

    def __init__(self) -> None:
        self.lines = [""]
        self.row = self.column = 0

    def feed(self, text: str) -> None:
        for code, number, verb, sign in re.findall(r"(\x1b\[(\d*)([A-Za-z]))|(.)", text, re.DOTALL):
            if code:
                assert verb in "AKJ", code
                if verb == "A":
                    self.row -= int(number)
                    assert self.row >= max(0, len(self.lines) - ROWS), "above the screen"
                elif verb == "K":
                    self.lines[self.row] = self.lines[self.row][: self.column]
                else:
                    self.lines[self.row] = self.lines[self.row][: self.column]
                    del self.lines[self.row + 1 :]
            elif sign == "\n":
                self.row += 1
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif sign == "\r":
                self.column = 0
            else:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + sign + line[self.column + 1 :]
                self.column += 1
                assert self.column < COLUMNS or not line.startswith((" => ", "[+]")), "the line would break"


def watch(yard: Yard, text: str, code: int = 0, flags: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    """Build in a terminal. The screen after each piece that comes, and at the end."""
    (yard.context / "Dockerfile").write_text(text)
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    words = [sys.executable, "-m", "minicontainer", "build", "-t", "app", "--network", "none", *flags]
    client = subprocess.Popen([*words, str(yard.context)], stderr=theirs, stdin=subprocess.DEVNULL)
    os.close(theirs)
    terminal, screens, rest = Terminal(), [], b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # EIO: nobody has the other end open
            break
        rest += piece
        whole, rest = rest[: rest.rfind(b"\x1b")], rest[rest.rfind(b"\x1b") :]  # no half of a sequence
        # What is drawn anew begins a way up: a reader that is late has several screens in one piece.
        for part in re.split(r"(?=\x1b\[\d*A)", whole.decode().replace("\r\n", "\n\r")):
            terminal.feed(part)
            screens.append("\n".join(terminal.lines))
    terminal.feed(rest.decode().replace("\r\n", "\n\r"))
    os.close(ours)
    assert client.wait(30) == code
    return screens, terminal.lines


@pytest.mark.root
@pytest.mark.needs("overlay", "libseccomp")
class TestScreen:
    def test_steps_are_drawn_in_place_and_stand_there_once(self, yard: Yard) -> None:
        text = "FROM plain\nWORKDIR /app\nRUN for i in $(seq 30); do echo line $i; done; sleep 1; true\nRUN echo é中\n"
        screens, lines = watch(yard, text)
        assert re.fullmatch(r"\[\+\] Building \d+\.\ds \(4/4\) FINISHED", lines[0])
        assert [re.sub(r" +\d+\.\ds$", "", line) for line in lines[1:5]] == [
            " => [1/4] FROM plain",
            " => [2/4] WORKDIR /app",
            " => [3/4] RUN for i in $(seq 30); do echo line $i; do…",
            " => [4/4] RUN echo é中",
        ]
        assert {progress.columns(line) for line in lines[1:5]} == {COLUMNS - 1}
        assert lines[5].startswith("writing image sha256:") and lines[6] == "naming to app"
        tails = [re.findall(r" => => # line (\d+)", screen) for screen in screens]
        assert ["25", "26", "27", "28", "29", "30"] in tails and max(map(len, tails)) == progress.TAIL
        silent = [screen for screen in screens if " => => # line 30" in screen]
        assert len(set(re.findall(r"\[3/4\].* (\d+\.\ds)\n", "\n".join(silent)))) >= 3  # the clock goes on in silence
        screens, lines = watch(yard, text)
        assert sum(" => CACHED [" in line for line in lines) == 3

    def test_all_that_a_step_has_written_stands_there_when_it_fails(self, yard: Yard) -> None:
        _, lines = watch(yard, "FROM plain\nRUN for i in $(seq 30); do echo line $i; done; exit 3\n", code=1)
        assert re.fullmatch(r"\[\+\] Building \d+\.\ds \(2/2\)", lines[0])
        assert lines[2].startswith(" => ERROR [2/2] RUN for i") and lines[3] == "------"
        at = lines.index("line 1")
        assert lines[at : at + 31] == [*(f"line {number}" for number in range(1, 31)), "------"]

    def test_a_warning_stands_below_the_steps(self, yard: Yard) -> None:
        _, lines = watch(yard, "FROM scratch\nCMD x\n", flags=("--build-arg", "X=1"))
        assert lines[1].startswith(" => [1/1] FROM scratch")
        assert lines[2] == "[Warning] One or more build-args [X] were not consumed"


def test_what_a_step_writes_moves_no_cursor() -> None:
    assert progress.cut("a\x1b[2J\tb\rc\x07", 20) == "a[2J   bc"
    assert progress.cut("中" * 20, 9) == "中" * 4 + "…"
    assert progress.columns(progress.padded("中中é", 10)) == 10
