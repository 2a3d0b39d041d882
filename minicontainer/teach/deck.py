"""The talk as slides: Markdown in, reveal.js out, and every transcript and figure made while it is built.

    python -m minicontainer.teach.deck slides build/slides --reveal FOLDER      (./dev slides does that, and the PDF)

`slides/talk.md` is plain Markdown with a few agreements:

    # Part                             begins a part; a slide with its title alone
    ## Slide {45: 2, 180: 3}           a slide, and its minutes on the short and on the long path; not on a path
                                       whose number is missing
    Note:                              from here to the end of the slide: what the speaker says
    ```run [rule …]                    commands: executed, and shown with what they printed
    ```bench NAME RUNS [panel …]       a bench, drawn; only the panels whose titles begin so (RUNS `again`: no new run)
    ```notebook NN …                   where to go on: title of the notebook, or a mark that it is not written yet
    ```schedule                        the table of both paths, added up from the slides
    ```drawing TEXT                    characters drawn by hand; TEXT is said to who does not see them

In `run`, a line `$ …` is a command that is shown, `% …` one that is not (the stage hand), other lines continue the one
above. The rules say what of its output is left out; a left-out piece is shown as […]:

    head=N  tail=N  grep=REGEX  width=N
    section=WORD (the start's paragraphs of --explain about this concept)  holding=REGEX (only those in which it is)
    exits=N      the last command is meant to fail, so
    expect=REGEX the slide's words rest on this being in the output: without it, the build fails
    figure       the picture that the commands drew into $FIGURE is shown in place of what they said
    quiet        run, show nothing          small  smaller letters          later  its output after a key press
    ordinary     typed by an ordinary user, in a home of their own
    soon         the kit may not know these commands yet. When it says so, the slide says so, in the kit's words.

Commands run in network, mount and pid namespaces and a store of their own, as root; an ordinary user's in a user
namespace, too. What that refuses is marked as refused. For root, whatever fails that should not fails the build.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from markdown_it import MarkdownIt

from .. import errors, host
from . import plot

NOT_YET = re.compile(
    r"^minicontainer: ('\w+' is not a command|unknown (shorthand )?flag|\w+: .* is not there yet)", re.MULTILINE
)
SECONDS = 60  # a fence that runs longer hangs
WIDTH, SMALL_WIDTH = 92, 116  # characters in a line of a transcript
NOBODY = 65534  # an ordinary user that every machine has
PATHS = ("45", "180")
BEGIN, END = "\x1e", "\x1f"  # around what a command prints; no program here prints them
# A stage hand: waits until a container runs, says its process. `started NAME [COMMAND that asks]`
STARTED = """#!/bin/sh
name=$1; shift
for attempt in $(seq 50); do
    sleep 0.1
    "$@" minicontainer inspect "$name" 2>/dev/null | grep -Po '"Pid": \\K[1-9]\\d*' && exit
done
exit 1
"""

# ---------------------------------------------------------------------------------------------------------- the source


class Slide(NamedTuple):
    """One slide, as written: its part, its title, its minutes by path, its text and notes."""

    part: str
    title: str
    minutes: dict[str, float]
    body: str
    notes: str


class Block(NamedTuple):
    """A fence that is more than code: `run`, with its rules."""

    kind: str
    rules: dict[str, str]
    words: list[str]
    text: str


def read(source: str) -> list[Slide]:
    """The slides of a talk, in their order."""
    slides = []
    part = ""
    for piece in split(source):
        heading, _, rest = piece.partition("\n")
        level, _, title = heading.partition(" ")
        braces = re.search(r"\s*\{(.*)\}$", title)
        minutes = {}
        for item in braces[1].split(",") if braces else []:
            path, _, number = item.partition(":")
            if path.strip() not in PATHS:
                raise errors.InvalidArgument(f"slide {title!r}: there is no path of {path.strip()} minutes")
            minutes[path.strip()] = float(number)
        title = title[: braces.start()] if braces else title
        body, _, notes = rest.partition("\nNote:\n")
        if level == "#":
            part = title
        slides.append(Slide(part, "" if level == "#" else title, minutes, body.strip("\n"), notes.strip()))
    return slides


def split(source: str) -> list[str]:
    """The text of each slide, from its heading on. A `#` within a fence is no heading."""
    pieces: list[list[str]] = []
    fenced = False
    for line in source.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        if not fenced and re.match(r"##? ", line):
            pieces.append([])
        if pieces:
            pieces[-1].append(line)
    return ["\n".join(lines) for lines in pieces]


def block(info: str, text: str) -> Block:
    """The first line of a fence, taken apart."""
    kind, *words = [word.replace('"', "") for word in re.findall(r'(?:[^\s"]|"[^"]*")+', info)]
    rules = {}
    rest = []
    for word in words:
        name, equals, value = word.partition("=")
        if equals:
            rules[name] = value
        else:
            rest.append(word)
    return Block(kind, rules, rest, text)


# ------------------------------------------------------------------------------------------------------------ the stage


class Said(NamedTuple):
    """One command of a transcript, what it printed, and how it ended."""

    command: str
    output: str
    code: int
    shown: bool


class Stage:
    """Where the commands run: a home, a store, `minicontainer` on the PATH; for `ordinary`, a home besides."""

    def __init__(self, demo: Path) -> None:
        base = next(
            (path for path in ("/var/tmp", "/tmp") if host.mount_of(path)[1] not in host.NOT_FOR_LAYERS), "/tmp"
        )
        self.folder = Path(tempfile.mkdtemp(prefix="talk-", dir=base))
        self.home = self.folder / "home"
        shutil.copytree(demo, self.home)
        self.learner = self.folder / "learner"
        (self.learner / "run").mkdir(parents=True)
        programs = self.folder / "bin"
        programs.mkdir()
        checkout = Path(__file__).resolve().parent.parent.parent
        python = sys.executable
        self.kit = self.folder / "kit"
        self.kit.mkdir()
        if host_root:
            # The checkout, where an ordinary user finds it: the way to it may lead through root's home.
            self.folder.chmod(0o755)
            for folder in (self.learner, self.learner / "run"):
                os.chown(folder, NOBODY, NOBODY)
            subprocess.run(["mount", "-o", "bind,ro", checkout, self.kit], check=True)
            python = python.replace(str(checkout), str(self.kit))
            checkout = self.kit
        program = programs / "minicontainer"
        program.write_text(f'#!/bin/sh\nPYTHONPATH={checkout} exec {python} -m minicontainer "$@"\n')
        program.chmod(0o755)
        (programs / "started").write_text(STARTED)
        (programs / "started").chmod(0o755)
        self.environment = {
            "HOME": str(self.home), "PATH": f"{programs}:{os.environ['PATH']}", "LANG": "C.UTF-8", "TERM": "dumb",
            "MINICONTAINER_ROOT": str(self.home / "store"), "XDG_RUNTIME_DIR": str(self.folder),
            "MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", str(self.folder / "matplotlib")),
        }  # fmt: skip

    def run(self, text: str, ordinary: bool = False, **more: str) -> list[Said]:
        """The commands of one fence, in one shell."""
        home = self.home
        user: dict[str, Any] = {}
        if ordinary:
            home = self.learner
            more |= {"HOME": str(home), "MINICONTAINER_ROOT": str(home / "store"), "XDG_RUNTIME_DIR": str(home / "run")}
            if host_root:
                user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        commands = commands_of(text)
        script = ["cd"]
        for command in commands:
            script += [f"printf '{BEGIN}'", command[2:], f"printf '{END}%d\\n' $?"]
        said = self.folder / "said"  # a file, not a pipe: what is left running in the background would hold that open
        with said.open("w") as output:
            try:
                subprocess.run(
                    ["bash", "-c", "\n".join(script)], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    env=self.environment | more, timeout=SECONDS, check=False, **user,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise errors.MiniContainerError(f"still running after {SECONDS} s:\n{text}") from None
        pieces = said.read_text(errors="replace").split(BEGIN)[1:]
        result = []
        for command, piece in zip(commands, pieces, strict=True):
            printed, _, code = piece.partition(END)
            late = code.partition("\n")[2]  # what a background job printed after its shell had gone on
            printed = (printed + late).replace(str(home), "~")
            result.append(Said(command[2:], printed.rstrip("\n"), int(code.split()[0]), command[0] == "$"))
        return result

    def clear(self) -> None:
        """Everything that the talk made goes."""
        self.run("% minicontainer system reset --force")
        if host_root:
            subprocess.run(["umount", "-l", self.kit], check=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def commands_of(text: str) -> list[str]:
    """The commands of a fence, each with its prompt."""
    found: list[str] = []
    for line in text.splitlines():
        if line.startswith(("$ ", "% ")):
            found.append(line)
        elif found:
            found[-1] += "\n" + line
    return found


# --------------------------------------------------------------------------------------------------------- transcripts


def trimmed(output: str, rules: dict[str, str]) -> list[str]:
    """What is left of an output by the rules of its fence. `[…]` stands where something was left out."""
    lines = output.splitlines()
    keep = [True] * len(lines)
    if "section" in rules:
        word, holding = rules["section"], rules.get("holding", "")
        for first, end in paragraphs(lines):
            heading = lines[first]
            wanted = (f"─ {word} ─" in heading and not heading.startswith("teardown")) or heading.startswith(f"{word}:")
            wanted = wanted and re.search(holding, "\n".join(lines[first:end])) is not None
            keep[first:end] = [wanted] * (end - first)
    if "grep" in rules:
        keep = [kept and re.search(rules["grep"], line) is not None for kept, line in zip(keep, lines, strict=True)]
    for side, slice_ in (("head", slice(None, None)), ("tail", slice(None, None, -1))):
        if side in rules:
            order = [number for number in range(len(lines)) if keep[number]][slice_]
            for number in order[int(rules[side]) :]:
                keep[number] = False
    result: list[str] = []
    for number, line in enumerate(lines):
        if keep[number]:
            result.append(line.expandtabs())
        elif not result or result[-1] != "[…]":
            if result and not result[-1].strip():
                result.pop()
            result.append("[…]")
    while len(result) > 1 and not result[-1].strip():
        result.pop()
    width = int(rules.get("width", WIDTH))
    return [line if len(line) <= width else line[: width - 1] + "…" for line in result]


def paragraphs(lines: list[str]) -> list[tuple[int, int]]:
    """Where the paragraphs of a text begin and end, each with the empty line after it."""
    ends = [number + 1 for number, line in enumerate(lines) if not line.strip()]
    return list(zip([0, *ends], [*ends, len(lines)], strict=True))


class Failed(errors.MiniContainerError):
    """A command of the talk did what the talk does not expect."""


def transcript(said: list[Said], made: Block) -> tuple[str, str]:
    """A fence's commands and output as HTML, and the mark it bears: "", "soon" or "refused"."""
    shown = []
    mark = ""
    for number, one in enumerate(said):
        expected = int(made.rules.get("exits", "0")) if number == len(said) - 1 else 0
        answer = ""
        if NOT_YET.search(one.output) and "soon" in made.words:
            answer = mark = "soon"
        elif one.code != expected and one.shown:
            if host_root:
                raise Failed(f"exit code {one.code}, not {expected}: {one.command}\n{one.output}")
            answer = mark = "refused"
        if not one.shown:
            continue
        prompt = '<span class="prompt">$ </span><b>' + html.escape(one.command) + "</b>"
        lines = trimmed(one.output, {} if answer else made.rules)
        text = html.escape("\n".join(lines))
        text = re.sub(r"^\[…\]$", '<span class="left-out">[…]</span>', text, flags=re.MULTILINE)
        if answer:
            text = f'<span class="{answer}">{text}</span>'
        elif "later" in made.words and text:
            text = f'<span class="fragment">{text}</span>'
        shown.append(prompt + ("\n" + text if text else ""))
    everything = "\n".join(one.output for one in said)
    if host_root and not mark and not re.search(made.rules.get("expect", ""), everything, re.MULTILINE):
        raise Failed(f"no {made.rules['expect']!r} in what these said:\n{made.text}{everything}")
    words = {"soon": "not yet", "refused": "not on this machine"}
    badge = f'<div class="badge {mark}">{words[mark]}</div>' if mark else ""
    kind = "run small" if "small" in made.words else "run"
    return f'<div class="transcript">{badge}<pre class="{kind}">' + "\n".join(shown) + "</pre></div>\n", mark


# ------------------------------------------------------------------------------------------------------------- building


class Deck:
    """A talk on its way to HTML."""

    def __init__(self, source: Path, out: Path) -> None:
        self.source, self.out = source, out
        self.slides = read((source / "talk.md").read_text())
        self.stage = Stage(source / "demo")
        self.counts = {"commands": 0, "figures": 0, "soon": 0, "refused": 0}
        self.here = self.slides[0]
        self.markdown = MarkdownIt("commonmark", {"html": True, "typographer": True}).enable(["table", "smartquotes"])
        self.markdown.renderer.rules["fence"] = self.fence  # type: ignore[attr-defined]

    def fence(self, tokens: Any, index: int, *_: Any) -> str:
        """What markdown-it asks for each fence."""
        token = tokens[index]
        made = block(token.info or "text", token.content)
        makers = {
            "run": self.run, "bench": self.bench, "notebook": self.notebook, "schedule": self.schedule,
            "drawing": self.drawing,
        }  # fmt: skip
        if made.kind in makers:
            return makers[made.kind](made)
        return f'<pre class="code {made.kind}">{html.escape(made.text.rstrip())}</pre>\n'

    def run(self, made: Block) -> str:
        """```run"""
        name = f"figure-{self.counts['figures'] + 1}.svg"
        path = self.out / "figures" / name
        made.rules.setdefault("width", str(SMALL_WIDTH if "small" in made.words else WIDTH))
        said = self.stage.run(made.text, "ordinary" in made.words, FIGURE=str(path), COLUMNS=made.rules["width"])
        self.counts["commands"] += sum(one.shown for one in said)
        text, mark = transcript(said, made)
        if mark:
            self.counts[mark] += 1
        if "figure" in made.words and path.exists():
            return self.figure(path)
        return "" if "quiet" in made.words and not mark else text

    def bench(self, made: Block) -> str:
        """```bench"""
        name, runs, *titles = made.words
        path = self.out / "figures" / f"figure-{self.counts['figures'] + 1}.svg"
        raw = self.out / "figures" / f"{name}.json"
        said = [Said("", "no such bench has run before", 1, True)]
        if runs != "again":
            said = self.stage.run(f"% minicontainer bench {name} -q -n {runs} --json {shlex.quote(str(raw))}")
        if said[0].code and not raw.exists():
            if host_root:
                raise Failed(said[0].output)
            self.counts["refused"] += 1
            return transcript([said[0]._replace(shown=True, command=f"minicontainer bench {name}")], made)[0]
        report = json.loads(raw.read_text())
        panels = panels_of(report, titles)
        words = f"{report['title']}. " + " ".join(map(plot.in_words, panels))
        plot.save(plot.panels("", panels, words, letters=14), str(path))
        return self.figure(path)

    def figure(self, path: Path) -> str:
        """A picture, with the words that lie in its file."""
        self.counts["figures"] += 1
        text = path.read_text()
        said = re.search(r"<dc:description>(.*?)</dc:description>", text, re.DOTALL)
        size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', text)
        if not said or not size:
            raise Failed(f"{path.name} has no words for who does not see it, or no size")
        alt = html.escape(html.unescape(said[1]), quote=True)
        return f'<img class="figure" src="figures/{path.name}" alt="{alt}">\n'

    def notebook(self, made: Block) -> str:
        """```notebook"""
        items = []
        for number in made.text.split():
            path = next(iter(sorted((self.source.parent / "notebooks").glob(f"{number}_*.ipynb"))), None)
            if path is None:
                self.counts["soon"] += 1
                items.append(f'<li>notebook {number} <span class="badge soon inline">not yet</span></li>')
                continue
            first = "".join(json.loads(path.read_text())["cells"][0]["source"])
            title = first.splitlines()[0].lstrip("# ")
            items.append(f"<li><code>notebooks/{path.name}</code> <br>{html.escape(title)}</li>")
        return '<ul class="notebooks">' + "".join(items) + "</ul>\n"

    def schedule(self, _: Block) -> str:
        """```schedule"""
        rows = []
        total = dict.fromkeys(PATHS, 0.0)
        for part in dict.fromkeys(slide.part for slide in self.slides):
            row = [part]
            for path in PATHS:
                minutes = sum(slide.minutes.get(path, 0) for slide in self.slides if slide.part == part)
                total[path] += minutes
                row.append(f"{minutes:g}" if minutes else "")
            rows.append(row)
        rows.append(["minutes in all", *(f"{total[path]:g}" for path in PATHS)])
        lines = ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
        head = (
            "<tr><th></th>" + "".join(f'<th><a href="?path={path}">{path} minutes</a></th>' for path in PATHS) + "</tr>"
        )
        return f'<table class="schedule"><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table>\n'

    def drawing(self, made: Block) -> str:
        """```drawing"""
        alt = html.escape(" ".join(made.words), quote=True)
        return f'<pre class="drawing" role="img" aria-label="{alt}">{html.escape(made.text.rstrip())}</pre>\n'

    def section(self, slide: Slide) -> str:
        """One slide as HTML."""
        self.here = slide
        paths = " ".join(path for path in PATHS if path in slide.minutes)
        attributes = f'data-paths="{paths}"'
        for path in PATHS:
            attributes += f' data-minutes-{path}="{slide.minutes.get(path, 0):g}"'
        if slide.title:
            head = (
                f'<p class="part">{html.escape(slide.part)}</p>\n<h2>{self.markdown.renderInline(slide.title)}</h2>\n'
            )
        else:
            attributes += ' class="title"'
            head = f"<h1>{self.markdown.renderInline(slide.part)}</h1>\n"
        body = self.markdown.render(slide.body)
        notes = self.markdown.render(slide.notes)
        notes = f'<aside class="notes">{notes}</aside>\n'
        return f'<section {attributes}>\n{head}<div class="body">\n{body}</div>\n{notes}</section>\n'

    def build(self) -> None:
        """Run everything, write index.html. All that goes wrong is told at once."""
        wrong = []
        try:
            sections = []
            for slide in self.slides:
                began = time.monotonic()
                try:
                    sections.append(self.section(slide))
                except errors.MiniContainerError as error:
                    wrong.append(f"slide {slide.title or slide.part!r}: {error}")
                took = time.monotonic() - began
                if took > 2:
                    print(f"  {took:4.1f} s  {slide.title}", file=sys.stderr)
        finally:
            self.stage.clear()
        if wrong:
            raise Failed("\n".join(wrong))
        page = (self.source / "page.html").read_text().replace("<!-- slides -->", "".join(sections))
        (self.out / "index.html").write_text(page)


def panels_of(report: dict[str, Any], titles: list[str]) -> list[plot.Panel]:
    """The panels of a bench's raw data whose titles begin with one of these (all, when none is named)."""
    found = []
    for group in report["groups"]:
        if titles and not any(group["title"].startswith(title) for title in titles):
            continue
        series = {name: [value * group["scale"] for value in values] for name, values in group["figures"].items()}
        reference = "native" if "native" in series else None
        unit = f"{group['unit']} ({group['better']} is better)"
        found.append(plot.Panel(group["title"], unit, series, reference))
    return found


# ----------------------------------------------------------------------------------------------------------- the folder

host_root = os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def furnish(source: Path, out: Path, reveal: Path) -> None:
    """All that index.html asks for, copied beside it: the folder may be carried anywhere."""
    for name in ("reveal.js", "reveal.css", "reset.css", "plugin/notes.js"):
        (out / "reveal" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(reveal / "dist" / name, out / "reveal" / name)
    shutil.copyfile(reveal / "LICENSE", out / "reveal" / "LICENSE")
    shutil.copyfile(source / "style.css", out / "style.css")
    # The same letters on every machine, so that what fits here fits there. They come with matplotlib.
    import matplotlib

    letters = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    (out / "fonts").mkdir()
    for name in (
        "DejaVuSans.ttf",
        "DejaVuSans-Bold.ttf",
        "DejaVuSansMono.ttf",
        "DejaVuSansMono-Bold.ttf",
        "LICENSE_DEJAVU",
    ):
        shutil.copyfile(letters / name, out / "fonts" / name)


def main() -> int:
    """python -m minicontainer.teach.deck"""
    parser = argparse.ArgumentParser(description="Build the slides.")
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--reveal", type=Path, required=True, help="the unpacked package reveal.js")
    values = parser.parse_args()
    if "MINICONTAINER_ON_STAGE" not in os.environ:
        # Namespaces of the talk's own: of the machine's network, mounts and processes nothing is seen, nothing changed.
        more = [] if host_root else ["--map-root-user"]
        os.environ["MINICONTAINER_ON_STAGE"] = "root" if host_root else "user"
        command = [
            "unshare",
            *more,
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            'ip link set lo up && exec "$@"',
            "sh",
        ]
        os.execvp("unshare", [*command, sys.executable, "-m", "minicontainer.teach.deck", *sys.argv[1:]])
    target = values.out.resolve()
    out = target.with_name(target.name + ".new")  # what fails leaves the slides that were there
    shutil.rmtree(out, ignore_errors=True)
    (out / "figures").mkdir(parents=True)
    furnish(values.source, out, values.reveal)
    deck = Deck(values.source.resolve(), out)
    try:
        deck.build()
    except errors.MiniContainerError as error:
        print(f"deck: {error}", file=sys.stderr)
        return 1
    counts = deck.counts
    (out / "built.json").write_text(json.dumps({"slides": len(deck.slides), **counts}) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    out.rename(target)
    said = f"{len(deck.slides)} slides, {counts['commands']} commands run, {counts['figures']} figures drawn"
    print(f"{said}; {counts['soon']} marked as not there yet, {counts['refused']} refused by this machine")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
