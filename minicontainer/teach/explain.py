"""`--explain`: a plan, told to a person (text), to a program (json) or to a shell (sh).

    text    each step when it has been done: which process, how long, the call with its real arguments, why; and at
            the head of each concept the notebook that teaches it. Goes where the `Reporter` is told to, never to the
            container's own output
    json    the plan alone, one object a step; nothing is done
    sh      the plan as a script for sh(1), which does the same by hand: see shell.py

A call is shown as its man page would write it, flags by their names. What only run time knows stands there as `$pid`.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import IO, Any, NamedTuple

from .. import netlink, steps, syscalls
from ..kernel import capabilities
from . import shell

# Concept → number and title of its notebook. The one place besides the course's own table of contents.
NOTEBOOKS = {
    "": ("01", "a process and its exit code"),
    "terminal": ("01", "a process and its exit code"),
    "namespaces": ("02", "namespaces"),
    "rootfs": ("03", "the root filesystem"),
    "overlay": ("06", "overlay and copy-on-write"),
    "bridge": ("07", "network namespaces, veth, bridge"),
    "nat": ("08", "NAT and published ports"),
    "cgroups": ("09", "cgroups, v1 and v2"),
    "mounts": ("10", "volumes and bind mounts"),
    "capabilities": ("11", "capabilities and seccomp"),
    "seccomp": ("11", "capabilities and seccomp"),
    "idmap": ("12", "user namespaces"),
}

# ------------------------------------------------------------------------------------------ a step, as people write it


def constants(prefix: str) -> dict[str, int]:
    """The flags of `syscalls` whose names so begin, by their bits."""
    found = {name: value for name, value in vars(syscalls).items() if name.startswith(prefix)}
    return dict(sorted(found.items(), key=lambda item: item[1]))


MOUNT = constants("MS_")
UMOUNT = {"MNT_FORCE": 1, "MNT_DETACH": 2, "MNT_EXPIRE": 4, "UMOUNT_NOFOLLOW": 8}
CLONE = constants("CLONE_")
CAPABILITIES = {name: 1 << number for number, name in enumerate(capabilities.NAMES)}
MODE: dict[str, int] = {}  # a number in octal

# Which argument of which verb or function is a set of flags.
FLAGS: dict[str, dict[int, dict[str, int]]] = {
    "mkdir": {1: MODE},
    "mount": {3: MOUNT},
    "umount": {1: UMOUNT},
    "umount_all": {1: UMOUNT},
    "unshare": {0: CLONE},
    "setns": {1: CLONE},
    "namespaces.join": {1: CLONE},
    "mounts.attach": {4: MOUNT},
    "mounts.bind": {3: MOUNT, 4: MOUNT},
    "mounts.cgroup_tree": {3: MOUNT},
    "mounts.propagate": {2: MOUNT},
    "mounts.remount": {1: MOUNT},
    "capabilities.limit_bounding_set": {0: CAPABILITIES},
    "capabilities.set_capabilities": {0: CAPABILITIES, 1: CAPABILITIES, 2: CAPABILITIES},
    "capabilities.set_ambient": {0: CAPABILITIES},
}

# Functions whose first argument is the plan of another process, and what that is called.
FORKS = {"init.fork": "child", "enter.send": "joiner", "enter.fork": "command"}

# The optional arguments of a verb, by name; those that say nothing are left out.
NAMED = {
    "link_add": ("", "", "peer", "namespace", "master", "mtu", "mac", "up", "exist_ok", "peer_mac", "parent", "mode"),
    "link_set": ("", "up", "master", "mtu", "namespace", "hairpin", "isolated"),
    "address_add": ("", "", "namespace"),
    "link_delete": ("", "namespace"),
    "route_add": ("", "", "namespace", "device"),
}


class Told(NamedTuple):
    """A step as words: `call` is its verb or, for `call`, the function's name; `words` its arguments, flags decoded."""

    call: str
    words: list[Any]


def tell(verb: str, arguments: Iterable[Any]) -> Told:
    """The step's name, and its arguments as values of JSON, flags and symbols as text."""
    call, words = verb, list(arguments)
    if verb == "call":
        call = words[0] if isinstance(words[0], str) else shell.name_of(words[0])
        words = words[1:]
    if verb == "nft":
        return Told(call, [netlink.nft_text(command) for command in words])
    if call in FORKS:
        return Told(call, [f"<the child's plan, {len(words[0])} steps>", *map(plain, words[1:])])
    flags = FLAGS.get(call, {})
    return Told(call, [flag_names(word, flags[n]) if n in flags else plain(word) for n, word in enumerate(words)])


def flag_names(value: int, names: dict[str, int]) -> str:
    """`MS_NOSUID|MS_NODEV`; what has no name is added in hexadecimal, nothing at all is `0`."""
    if not names:
        return f"0{value:o}"
    found = [name for name, bit in names.items() if value & bit]
    rest = value & ~sum(names.values())
    return "|".join([*found, *([hex(rest)] if rest else [])]) or "0"


def plain(value: Any) -> Any:
    """The value as JSON can hold it."""
    if isinstance(value, steps.Symbol | steps.Text):
        return str(value)
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        fields = getattr(value, "_asdict", None)
        return plain(fields()) if fields else [plain(inner) for inner in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value) if not callable(value) else shell.name_of(value)


def processes(plan: Iterable[steps.Step], process: str = "parent") -> Iterator[tuple[str, steps.Step]]:
    """Every step with the process that takes it: a fork's plan follows the fork."""
    for step in plan:
        yield process, step
        forks = FORKS.get(shell.name_of(step.arguments[0])) if step.verb == "call" else None
        if forks:
            yield from processes(step.arguments[1], forks)


# ----------------------------------------------------------------------------------------------------------- renderings


def render(form: str, planned: Any) -> str:
    """A planned start (engine.containers.Start) as "json" or "sh". Nothing is done, nothing is taken."""
    return shell.script(planned) if form == "sh" else as_json(planned.plan)


def as_json(plan: Iterable[steps.Step]) -> str:
    """A list of {"process", "verb", "arguments", "why", "concept", "result"}."""
    listed = []
    for process, step in processes(plan):
        told = tell(step.verb, step.arguments)
        arguments = [told.call, *told.words] if step.verb == "call" else told.words
        listed.append(
            {
                "process": process,
                "verb": step.verb,
                "arguments": arguments,
                "why": step.why,
                "concept": step.concept,
                "result": step.result,
            }
        )
    return json.dumps(listed, indent=1, ensure_ascii=False) + "\n"


def text(plan: Iterable[steps.Step], process: str = "teardown", width: int = 0, colour: bool | None = None) -> str:
    """A plan that has not been performed, for a terminal."""
    page = Page(width or terminal_width(1), wants_colour(1) if colour is None else colour)
    for who, step in processes(plan, process):
        page.step(who, step.verb, step.arguments, step.why, step.concept, step.result)
    return "\n".join(page.lines)


def terminal_width(descriptor: int) -> int:
    """Columns to fill: the terminal's, between 60 and 120; 80 where there is none."""
    try:
        columns = os.get_terminal_size(descriptor).columns
    except OSError:
        columns = int(os.environ.get("COLUMNS") or 80) if os.environ.get("COLUMNS", "").isdigit() else 80
    return max(60, min(columns or 80, 120))


def wants_colour(descriptor: int) -> bool:
    """Only on a terminal, and not where the user has set NO_COLOR (no-color.org)."""
    try:
        return os.isatty(descriptor) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    except OSError:
        return False


# ECMA-48, Select Graphic Rendition
STYLES = {
    "parent": "1;36", "keeper": "1;36", "child": "1;33", "joiner": "1;33", "command": "1;32", "teardown": "1;35",
    "title": "1", "why": "3;38;5;245", "quiet": "38;5;245",
    "slow": "1;31", "call": "1;32", "bar": "36",
}  # fmt: skip
INDENT = 12  # where calls begin: behind the duration


class Page:
    """Lines for a terminal of `width` columns. A heading where process or concept change, a why where it changes."""

    def __init__(self, width: int, colour: bool, names: list[tuple[str, str]] | None = None) -> None:
        self.width = width
        self.colour = colour
        self.names = names or []  # (value, name): `$container` is written for the container's directory
        self.lines: list[str] = []
        self.heading = ("", "")
        self.why = ""
        self.limit = 60  # characters of one value
        self.spelled: list[str] = []  # long sets of flags that have been written in full

    def style(self, style: str, words: str) -> str:
        """The words in colour, if there is any."""
        return f"\033[{STYLES[style]}m{words}\033[0m" if self.colour and words else words

    def step(
        self,
        process: str,
        verb: str,
        arguments: Iterable[Any],
        why: str,
        concept: str,
        result: str = "",
        milliseconds: float | None = None,
    ) -> None:
        """Add what is to be said of one step."""
        if (process, concept) != self.heading:
            self.heading, self.why = (process, concept), ""
            self.lines += ["", self.head(process, concept)]
        if why != self.why:
            self.why = why
            for line in textwrap.wrap(why, self.width - INDENT - 2):
                self.lines.append(" " * INDENT + self.style("why", f"# {line}"))
        took = "" if milliseconds is None else f"{milliseconds:.2f} ms"
        slow = milliseconds is not None and milliseconds >= 1
        written = self.written(verb, arguments, f"{result} = " if result else "")
        for number, line in enumerate(written):
            margin = self.style("slow" if slow else "quiet", f"{took if number == 0 else '':>{INDENT - 2}}")
            self.lines.append(f"{margin}  {self.emphasised(line) if number == 0 else line}".rstrip())

    def head(self, process: str, concept: str) -> str:
        """`parent ─ overlay ───────── 06 overlay and copy-on-write`"""
        number, title = NOTEBOOKS.get(concept, ("", ""))
        right = f" notebook {number}: {title}" if number else ""
        left = f"{process} ─ {concept or 'process'} "
        if len(left + right) > self.width - 2:
            right = f" notebook {number}"
        line = "─" * max(2, self.width - len(left) - len(right))
        return self.style(process, left) + self.style("quiet", line) + self.style("title", right)

    def emphasised(self, line: str) -> str:
        """The call's name in colour."""
        name, parenthesis, rest = line.partition("(")
        return self.style("call", name) + parenthesis + rest if parenthesis else line

    def written(self, verb: str, arguments: Iterable[Any], result: str = "") -> list[str]:
        """The call as C or Python would write it, over as few lines as it needs."""
        told = tell(verb, arguments)
        if verb == "nft":
            lines = [self.short(word, self.width - INDENT - 4) for word in told.words]
            return ["nft(", *(f"    {line}" for line in lines), ")"]
        whole = ""
        spelled = list(self.spelled)
        for self.limit in (96, 72, 60, 52, 44, 36):  # long values are cut only as far as one line asks for
            self.spelled = list(spelled)
            words = [self.word(told.call, position, word) for position, word in enumerate(told.words)]
            whole = f"{result}{told.call}({', '.join(word for word in words if word)})"
            if len(whole) <= self.width - INDENT:
                return [whole]
        # Break behind a comma or a flag's bar. A space within a string is a bad place; a no-break space stands in.
        breakable = whole.replace(" ", "\u00a0").replace(",\u00a0", ", ").replace("|", "|\u200b ")
        lines = textwrap.wrap(breakable, self.width - INDENT - 4, break_long_words=True, break_on_hyphens=False)
        joined = [line.replace("\u200b ", "").replace("\u200b", "").replace("\u00a0", " ") for line in lines]
        return [joined[0], *(" " * 4 + line for line in joined[1:])]

    def word(self, call: str, position: int, word: Any) -> str:
        """One argument. Empty for one that says nothing."""
        if call == "channel.wait" and position == 2:
            return ""
        if call == "rootfs.make_device" and isinstance(word, dict):
            return "\"{}\", '{}', {}:{}, 0{:o}".format(
                word["path"], word["type"], word.get("major", 0), word.get("minor", 0), word.get("fileMode", 0o666)
            )
        name = NAMED.get(call, ())[position : position + 1]
        if name and name[0]:
            word = word if isinstance(word, str) and word.startswith("$") else self.value(word) if word else ""
            return f"{name[0]}={word}" if word not in ("", 0, None, False) else ""
        symbol = isinstance(word, str) and word.startswith(("$", "<")) and "/" not in word
        if position in FLAGS.get(call, {}) and len(word) > 100:
            # A whole set of capabilities is spelled out once; it comes again for each set of the process.
            if word in self.spelled:
                return f"<the same {word.count('|') + 1}>"
            self.spelled.append(word)
        if symbol or position in FLAGS.get(call, {}):
            return str(word)
        return self.value(word)

    def value(self, value: Any) -> str:
        """A value in few characters: a string in quotes, a long one as its beginning and its size."""
        if isinstance(value, str):
            limit = self.limit if "\n" not in value and len(value) < 400 else min(self.limit, 40)
            line = self.named(value).replace("\n", "⏎").replace("\t", " ")
            line = re.sub(r"⏎ *", "⏎", line) if value.startswith("{") else line
            if len(line) > limit:
                size = len(value.encode())
                line = f"{line[: limit // 2]}…" + (f"({size} bytes)" if size > 400 else line[-(limit // 2 - 4) :])
            return f'"{line}"'
        if isinstance(value, dict):
            inside = ", ".join(f"{key}: {self.value(inner)}" for key, inner in value.items())
            return "{" + self.short(inside, self.limit) + "}"
        if isinstance(value, list | tuple):
            return "[" + self.short(", ".join(map(self.value, value)), self.limit) + "]"
        if isinstance(value, bool) or value is None:
            return {None: "NULL", True: "true", False: "false"}[value]
        return str(value)

    def short(self, line: str, limit: int) -> str:
        """The line's beginning, if it is long."""
        line = self.named(line)
        return line if len(line) <= limit else f"{line[: limit - 1]}…"

    def named(self, line: str) -> str:
        """With names in place of long values; any other long id is cut as `ps` cuts it."""
        for value, name in self.names:
            if name != "$cgroup" or "/sys/" in line:
                line = line.replace(value, name)
        return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1…", line)


class Reporter:
    """Tells of each step of a start as it is reported, then where the time went.

    `planned` is the engine's Start, `stream` where to write (stderr: stdout is the container's).
    """

    def __init__(self, planned: Any, stream: IO[str]) -> None:
        self.stream = stream
        self.parent = list(planned.plan)
        self.child = [step for who, step in processes(planned.plan) if who == "child"]
        record = planned.record
        try:
            descriptor = stream.fileno()
        except (OSError, ValueError):
            descriptor = -1
        names = shell.names_of(planned)
        abbreviations = [(name.value, f"${name.name}") for name in reversed(names)]
        self.page = Page(terminal_width(descriptor), wants_colour(descriptor), abbreviations)
        self.spent: dict[str, float] = {}
        self.count = {"parent": 0, "child": 0, "teardown": 0}
        self.first = self.last = 0.0
        title = f"{record['name']}: {record['image']} {' '.join(record['args'])}"
        self.page.lines.append(self.page.style("title", title))
        for name in names:
            self.page.lines.append(self.page.style("quiet", f"  {'$' + name.name:<11} {name.definition}"))

    def step(self, message: dict[str, Any]) -> None:
        """One message of the monitor's: a step has been done."""
        by, began, ended = message["by"], message["began"], message["ended"]
        if by == "teardown":
            step = steps.Step(message["verb"], tuple(message["arguments"]), message["why"], message["concept"])
        else:
            step = (self.parent if by == "parent" else self.child)[message["step"]]
        self.note(by, step, began, ended)
        running = by == "parent" and message["step"] == len(self.parent) - 1
        if running:
            for unheard in self.child[self.count["child"] :]:  # execve leaves nobody to report
                self.add("child", unheard, None)
        self.add(by, step, (ended - began) * 1000)
        if running:
            self.total("start")
        if by == "teardown" and not message["left"]:
            self.total("teardown")
        if running or by == "teardown":  # in one piece, which what the container says does not cut in two
            self.flush()

    def add(self, by: str, step: steps.Step, milliseconds: float | None) -> None:
        """The step's lines."""
        self.count[by] += 1
        self.page.step(by, step.verb, step.arguments, step.why, step.concept, step.result, milliseconds)

    def note(self, by: str, step: steps.Step, began: float, ended: float) -> None:
        """Where the time goes: by concept; waiting for the other process is nobody's."""
        self.first = self.first or began
        self.last = max(self.last, ended)
        waiting = step.verb == "call" and tell(step.verb, step.arguments).call == "channel.wait"
        if not waiting:
            concept = step.concept or "process"
            self.spent[concept] = self.spent.get(concept, 0) + (ended - began) * 1000

    def total(self, what: str) -> None:
        """How long it took, and a bar for each concept."""
        page, spent = self.page, sorted(self.spent.items(), key=lambda item: -item[1])
        counts = ", ".join(f"{count} by the {by}" for by, count in self.count.items() if count)
        whole = (self.last - self.first) * 1000
        heading = f"{what}: {whole:.1f} ms, {sum(self.count.values())} steps ({counts})"
        page.lines += ["", page.style("title", heading)]
        room = page.width - 30
        largest = max([amount for _, amount in spent] or [1]) or 1
        for concept, amount in spent:
            bar = "█" * round(room * amount / largest) or "▏"
            number = NOTEBOOKS.get(concept if concept != "process" else "", ("  ", ""))[0]
            page.lines.append(f"  {number} {concept:<13}{amount:>7.2f} ms  {page.style('bar', bar)}")
        self.spent, self.count, self.first, page.heading = {}, dict.fromkeys(self.count, 0), 0.0, ("", "")

    def flush(self) -> None:
        """Write what has come together. Owed by the caller after a start that failed."""
        self.stream.write("".join(f"{line}\n" for line in self.page.lines))
        self.stream.flush()
        self.page.lines = []
