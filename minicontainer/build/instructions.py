"""What the statements of a Dockerfile mean: stages, each a FROM and typed instructions. Pure.

Each instruction is a plain tuple of its own type; the first field is the Statement that it was read from, so whoever
refuses it later can still point at its line. Nothing is expanded here: that needs the values of a build. What has a
`$` in it is therefore checked when it is known. Facts: Dockerfile reference, BuildKit's instructions.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from . import dockerfile, expand
from .dockerfile import Heredoc, Source, Statement


class Command(NamedTuple):
    """What RUN, CMD, ENTRYPOINT and a health check run: `words` as they are, or else `text` by the stage's SHELL."""

    words: tuple[str, ...] | None
    text: str
    heredocs: tuple[Heredoc, ...] = ()


class Mount(NamedTuple):
    """One `RUN --mount`; defaults are filled in where they do not depend on the build. `mode` is octal, as written."""

    type: str
    target: str
    source: str
    from_: str
    id: str
    readonly: bool
    required: bool
    sharing: str
    size: str
    mode: str
    uid: str
    gid: str
    env: str


class Add(NamedTuple):
    """ADD: as Copy, and archives are unpacked, addresses fetched."""

    statement: Statement
    sources: tuple[str, ...]
    target: str
    chown: str
    chmod: str
    link: bool
    exclude: tuple[str, ...]
    checksum: str
    keep_git_dir: bool
    unpack: bool | None


class Arg(NamedTuple):
    """ARG: names, each with its default, or None."""

    statement: Statement
    pairs: tuple[tuple[str, str | None], ...]


class Cmd(NamedTuple):
    """CMD: what a container runs if nobody says otherwise."""

    statement: Statement
    command: Command


class Copy(NamedTuple):
    """COPY: a source that is the `word` of one of the statement's heredocs means its content."""

    statement: Statement
    sources: tuple[str, ...]
    target: str
    from_: str
    chown: str
    chmod: str
    link: bool
    parents: bool
    exclude: tuple[str, ...]


class Entrypoint(NamedTuple):
    """ENTRYPOINT: what CMD's words are arguments of."""

    statement: Statement
    command: Command


class Env(NamedTuple):
    """ENV: names and values, not yet expanded; `legacy` is the form without `=`."""

    statement: Statement
    pairs: tuple[tuple[str, str], ...]
    legacy: bool


class Expose(NamedTuple):
    """EXPOSE: ports, `80`, `80/udp` or `80-90/tcp`."""

    statement: Statement
    ports: tuple[str, ...]


class From(NamedTuple):
    """FROM: an image or an earlier stage, and what this stage is called, in small letters, or ""."""

    statement: Statement
    image: str
    name: str
    platform: str


class Healthcheck(NamedTuple):
    """HEALTHCHECK: times in nanoseconds, 0 for the default; without a command: NONE."""

    statement: Statement
    command: Command | None
    interval: int
    timeout: int
    start_period: int
    start_interval: int
    retries: int


class Label(NamedTuple):
    """LABEL: as Env."""

    statement: Statement
    pairs: tuple[tuple[str, str], ...]
    legacy: bool


class Maintainer(NamedTuple):
    """MAINTAINER: of old; a label says it now."""

    statement: Statement
    name: str


class Onbuild(NamedTuple):
    """ONBUILD: an instruction for the builds that stand on this image."""

    statement: Statement
    instruction: Instruction


class Run(NamedTuple):
    """RUN: a step. `network` and `security` are "" where nothing is said."""

    statement: Statement
    command: Command
    mounts: tuple[Mount, ...]
    network: str
    security: str


class Shell(NamedTuple):
    """SHELL: what runs the shell forms from here on."""

    statement: Statement
    words: tuple[str, ...]


class Stopsignal(NamedTuple):
    """STOPSIGNAL: a name or a number."""

    statement: Statement
    signal: str


class User(NamedTuple):
    """USER: `user[:group]`."""

    statement: Statement
    user: str


class Volume(NamedTuple):
    """VOLUME: directories that outlive a container."""

    statement: Statement
    paths: tuple[str, ...]


class Workdir(NamedTuple):
    """WORKDIR: relative to the one before."""

    statement: Statement
    path: str


Instruction = (
    Add | Arg | Cmd | Copy | Entrypoint | Env | Expose | From | Healthcheck | Label | Maintainer | Onbuild | Run | Shell
    | Stopsignal | User | Volume | Workdir
)  # fmt: skip


class Stage(NamedTuple):
    """One FROM and what follows it."""

    base: From
    instructions: tuple[Instruction, ...]


class Script(NamedTuple):
    """A whole Dockerfile: ARGs above the first FROM, then the stages in order."""

    source: Source
    arguments: tuple[Arg, ...]
    stages: tuple[Stage, ...]


def read(source: Source) -> Script:
    """A Dockerfile's stages. Raises BuildError, which names the line."""
    arguments: list[Arg] = []
    stages: list[Stage] = []
    for statement in source.statements:
        instruction = read_one(source, statement)
        if isinstance(instruction, From):
            stages.append(Stage(instruction, ()))
        elif stages:
            stages[-1] = stages[-1]._replace(instructions=(*stages[-1].instructions, instruction))
        elif isinstance(instruction, Arg):
            arguments.append(instruction)
        else:
            dockerfile.refuse(source, statement, f"{statement.keyword} before the first FROM: only ARG may stand there")
    if not stages:
        dockerfile.refuse(source, source.statements[-1], "no FROM: there is nothing to build on")
    return Script(source, tuple(arguments), tuple(stages))


def read_one(source: Source, statement: Statement) -> Instruction:
    """One statement as its instruction."""
    if statement.keyword not in READERS:
        near = difflib.get_close_matches(statement.keyword, READERS, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        dockerfile.refuse(source, statement, f"{statement.spelled}: no such instruction{hint}", statement.spelled)
    reader, allowed = READERS[statement.keyword]
    return reader(Words(source, statement, allowed.split()))


class Words:
    """A statement being read: its flags, each of them known, and what may be asked of the rest."""

    def __init__(self, source: Source, statement: Statement, allowed: list[str]) -> None:
        self.source, self.statement = source, statement
        self.flags: dict[str, list[str]] = {}
        for name, value in statement.flags:
            known = [word.rstrip("?*") for word in allowed]
            if name not in known:
                self.refuse(f"unknown flag --{name}", f"--{name}")
            spelled = allowed[known.index(name)]
            if name in self.flags and not spelled.endswith("*"):
                self.refuse(f"--{name} is given twice", f"--{name}")
            if value is None and not spelled.endswith("?"):
                self.refuse(f"--{name} needs a value: --{name}=…", f"--{name}")
            self.flags.setdefault(name, []).append("true" if value is None else value)

    def refuse(self, reason: str, at: str = "") -> NoReturn:
        dockerfile.refuse(self.source, self.statement, f"{self.statement.keyword}: {reason}", at)

    def flag(self, name: str) -> str:
        return self.flags.get(name, [""])[0]

    def switch(self, name: str) -> bool:
        value = self.flag(name)
        if value not in ("", "true", "false"):
            self.refuse(f"--{name}={value}: true or false", f"--{name}")
        return value == "true"

    def list(self) -> tuple[str, ...]:
        """Words between blanks, or a JSON array's."""
        return tuple(self.statement.text.split()) if self.statement.words is None else self.statement.words

    def some(self, least: int, what: str) -> tuple[str, ...]:
        words = self.list()
        if len(words) < least or not all(words[:least]):
            self.refuse(f"needs {what}")
        return words

    def one(self, what: str) -> str:
        """All the text, which may not be empty."""
        if not self.statement.text:
            self.refuse(f"needs {what}")
        return self.statement.text

    def command(self) -> Command:
        statement = self.statement
        return Command(statement.words, "" if statement.words is not None else statement.text, statement.heredocs)

    def pairs(self) -> tuple[tuple[tuple[str, str], ...], bool]:
        """`a=1 b="2 3"`, or in the form of old `a 1`, as pairs, and whether it was the latter."""
        text = self.one("a name and a value: NAME=value")
        words = expand.split_words(text, self.source.escape)
        if "=" not in words[0]:
            name, value = dockerfile.cut(text)
            if not value:
                self.refuse(f"{name} has no value: {name}=value", name)
            return ((name, value),), True
        found = []
        for word in words:
            name, given, value = word.partition("=")
            if not given:
                self.refuse(f"{word!r} has no =: a value with blanks in it stands in quotes", word)
            if not name:
                self.refuse(f"{word!r} has no name before its =", word)
            found.append((name, value))
        return tuple(found), False


def read_files(words: Words) -> tuple[tuple[str, ...], str]:
    *sources, target = words.some(2, "a source and a target")
    for heredoc in words.statement.heredocs:
        if heredoc.word == target:
            words.refuse("a heredoc cannot be the target", target)
    return tuple(sources), target


def read_add(words: Words) -> Add:
    sources, target = read_files(words)
    unpack = words.switch("unpack") if "unpack" in words.flags else None
    checksum = words.flag("checksum")
    if checksum and "$" not in checksum and not re.fullmatch("sha256:[0-9a-f]{64}", checksum):
        words.refuse(f"--checksum={checksum}: sha256: and 64 hexadecimal digits", "--checksum")
    return Add(
        words.statement, sources, target, words.flag("chown"), words.flag("chmod"), words.switch("link"),
        tuple(words.flags.get("exclude", [])), checksum, words.switch("keep-git-dir"), unpack,
    )  # fmt: skip


def read_arg(words: Words) -> Arg:
    found: list[tuple[str, str | None]] = []
    for word in expand.split_words(words.one("a name"), words.source.escape):
        name, given, value = word.partition("=")
        if not name:
            words.refuse(f"{word!r} has no name before its =", word)
        found.append((name, value if given else None))
    return Arg(words.statement, tuple(found))


def read_cmd(words: Words) -> Cmd:
    return Cmd(words.statement, words.command())


def read_copy(words: Words) -> Copy:
    sources, target = read_files(words)
    return Copy(
        words.statement, sources, target, words.flag("from"), words.flag("chown"), words.flag("chmod"),
        words.switch("link"), words.switch("parents"), tuple(words.flags.get("exclude", [])),
    )  # fmt: skip


def read_entrypoint(words: Words) -> Entrypoint:
    return Entrypoint(words.statement, words.command())


def read_env(words: Words) -> Env:
    return Env(words.statement, *words.pairs())


def read_expose(words: Words) -> Expose:
    ports = words.some(1, "a port")
    for port in ports:
        match = re.fullmatch(r"(?:(?:[^/]*:)?)(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?", port, re.ASCII | re.IGNORECASE)
        if "$" in port:
            continue
        if not match:
            words.refuse(f"{port} is no port: 80, 80/udp or 80-90/tcp", port)
        elif any(len(end) > 5 or int(end) > 65535 for end in match.groups()[:2] if end):
            words.refuse(f"{port}: ports end at 65535", port)
        elif match[2] and int(match[2]) < int(match[1]):
            words.refuse(f"{port}: a range goes up", port)
    return Expose(words.statement, ports)


def read_from(words: Words) -> From:
    found = words.list()
    name = ""
    if len(found) == 3 and found[1].lower() == "as":
        name = found[2].lower()
        if not re.fullmatch("[a-z][a-z0-9._-]*", name):
            words.refuse(
                f"{found[2]!r} cannot be a stage's name: a letter, then letters, digits, `.`, `_`, `-`", found[2]
            )
    elif len(found) != 1:
        words.refuse("needs an image, and may have a name: FROM image AS name")
    return From(words.statement, found[0], name, words.flag("platform"))


def read_healthcheck(words: Words) -> Healthcheck:
    kind, rest = dockerfile.cut(words.one("CMD and a command, or NONE"))
    command = None
    if kind.upper() == "NONE":
        if rest or words.flags:
            words.refuse("NONE stands alone")
    elif kind.upper() == "CMD":
        inner = dockerfile.with_words(words.source, words.statement._replace(text=rest, words=None))
        command = Words(words.source, inner._replace(flags=()), []).command()
        if not rest or command.words == ():
            words.refuse("CMD needs a command")
    else:
        words.refuse(f"{kind!r}: CMD or NONE", kind)
    retries = words.flag("retries") or "0"
    if not re.fullmatch("[0-9]{1,9}", retries):
        words.refuse(f"--retries={retries}: a number", "--retries")
    times = [duration(words, name) for name in ("interval", "timeout", "start-period", "start-interval")]
    return Healthcheck(words.statement, command, times[0], times[1], times[2], times[3], int(retries))


UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")


def duration(words: Words, flag: str) -> int:
    """A flag's `1m30s` in nanoseconds, 0 if it is not given: Go's time.ParseDuration, a millisecond at least."""
    text = words.flag(flag)
    if text in ("", "0"):
        return 0
    if len(text) > 40 or not re.fullmatch(f"(?:{DURATION.pattern})+", text):
        words.refuse(f"--{flag}={text}: a time such as 30s or 1m30s", f"--{flag}")
    total = int(sum(float(number) * UNITS[unit] for number, unit in DURATION.findall(text)))
    if total >= 1 << 63:
        words.refuse(f"--{flag}={text}: 292 years at most", f"--{flag}")
    if 0 < total < 10**6:
        words.refuse(f"--{flag}={text}: a millisecond at least", f"--{flag}")
    return total


def read_label(words: Words) -> Label:
    return Label(words.statement, *words.pairs())


def read_maintainer(words: Words) -> Maintainer:
    return Maintainer(words.statement, words.one("a name"))


def read_onbuild(words: Words) -> Onbuild:
    text = words.one("an instruction")
    outer = words.statement
    inner = dockerfile.split(words.source, text, outer.first, outer.last)._replace(heredocs=outer.heredocs)
    if inner.keyword in ("ONBUILD", "FROM", "MAINTAINER"):
        words.refuse(f"{inner.keyword} may not stand behind it", inner.spelled)
    return Onbuild(outer, read_one(words.source, inner))


def read_run(words: Words) -> Run:
    command = words.command()
    if command.words == () or (command.words is None and not command.text):
        words.refuse("needs a command")
    network, security = words.flag("network"), words.flag("security")
    if network not in ("", "default", "none", "host"):
        words.refuse(f"--network={network}: default, none or host", "--network")
    if security not in ("", "sandbox", "insecure"):
        words.refuse(f"--security={security}: sandbox or insecure", "--security")
    return Run(
        words.statement, command, tuple(read_mount(words, x) for x in words.flags.get("mount", [])), network, security
    )


MOUNTS = {
    "bind": "target source from readonly readwrite",
    "cache": "target source from readonly readwrite id sharing mode uid gid",
    "tmpfs": "target size",
    "secret": "target id required mode uid gid env",
    "ssh": "target id required mode uid gid",
}
SHORTER = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
SWITCHES = ("readonly", "readwrite", "required")
CHECKED = {
    "mode": ("0?[0-7]{1,4}", "an octal number"),
    "uid": ("[0-9]{1,10}", "a number"),
    "gid": ("[0-9]{1,10}", "a number"),
    "size": ("[0-9]+(?:\\.[0-9]+)?[bkmgtBKMGT]?[bB]?", "a number of bytes, such as 64m"),
    "sharing": ("shared|private|locked", "shared, private or locked"),
    "env": ("[A-Za-z_][A-Za-z0-9_]*", "a variable's name"),
}


def read_mount(words: Words, text: str) -> Mount:
    """One `--mount=type=cache,target=/x`: a line of CSV. A bind mount may not be written to unless `rw` says so."""
    try:
        fields = next(iter(csv.reader([text], strict=True)), [])
    except csv.Error:
        fields = []
    if not fields or not all(fields):
        words.refuse(f"--mount={text}: type=…, and what belongs to it, with commas between", "--mount")
    given: dict[str, str] = {}
    for field in fields:
        name, has_value, value = field.partition("=")
        name = SHORTER.get(name.lower(), name.lower())
        if not has_value and name not in SWITCHES:
            words.refuse(f"--mount: {field!r} needs a value", field)
        given[name] = value if has_value else "true"
    kind = given.pop("type", "bind")
    if kind not in MOUNTS:
        words.refuse(f"--mount: no type {kind!r}; there are {', '.join(MOUNTS)}", kind)
    for name, value in given.items():
        if name not in MOUNTS[kind].split():
            words.refuse(f"--mount: a mount of type {kind} has no option {name!r}", name)
        if "$" in value:
            continue
        if name in SWITCHES and value.lower() not in ("true", "false", "1", "0"):
            words.refuse(f"--mount: {name}={value}: true or false", value)
        pattern, what = CHECKED.get(name, ("(?s:.*)", ""))
        if not re.fullmatch(pattern, value):
            words.refuse(f"--mount: {name}={value}: {what}", f"{name}={value}")
    target, identity = given.get("target", ""), given.get("id", "")
    if kind in ("bind", "cache", "tmpfs") and not target:
        words.refuse(f"--mount: a mount of type {kind} needs a target", "--mount")
    if kind == "secret":
        identity = identity or target.rpartition("/")[2] or given.get("source", "")
        if not identity:
            words.refuse("--mount: a secret needs an id or a target", "--mount")
        if not target and "env" not in given:
            target = f"/run/secrets/{identity}"
    on = {name: given.get(name, "").lower() in ("true", "1") for name in SWITCHES}
    return Mount(
        type=kind,
        target=target,
        source=given.get("source", ""),
        from_=given.get("from", ""),
        id=identity or {"cache": target, "ssh": "default"}.get(kind, ""),
        readonly=not on["readwrite"] if kind == "bind" and "readonly" not in given else on["readonly"],
        required=on["required"],
        sharing=given.get("sharing", "shared") if kind == "cache" else "",
        size=given.get("size", ""),
        mode=given.get("mode", {"cache": "0755", "secret": "0400", "ssh": "0600"}.get(kind, "")),
        uid=given.get("uid", ""),
        gid=given.get("gid", ""),
        env=given.get("env", ""),
    )


def read_shell(words: Words) -> Shell:
    if not words.statement.words:
        words.refuse('needs a JSON array: SHELL ["/bin/bash", "-c"]')
    return Shell(words.statement, words.list())


def read_stopsignal(words: Words) -> Stopsignal:
    return Stopsignal(words.statement, words.one("a signal"))


def read_user(words: Words) -> User:
    return User(words.statement, words.one("a user"))


def read_volume(words: Words) -> Volume:
    paths = words.some(1, "a path")
    if not all(path.strip() for path in paths):
        words.refuse("a path may not be empty")
    return Volume(words.statement, paths)


def read_workdir(words: Words) -> Workdir:
    return Workdir(words.statement, words.one("a path"))


# Who reads which, and the flags: `?` may go without a value, `*` may be given more than once.
READERS: dict[str, tuple[Callable[[Words], Instruction], str]] = {
    "ADD": (read_add, "checksum chmod chown exclude* keep-git-dir? link? unpack?"),
    "ARG": (read_arg, ""),
    "CMD": (read_cmd, ""),
    "COPY": (read_copy, "chmod chown exclude* from link? parents?"),
    "ENTRYPOINT": (read_entrypoint, ""),
    "ENV": (read_env, ""),
    "EXPOSE": (read_expose, ""),
    "FROM": (read_from, "platform"),
    "HEALTHCHECK": (read_healthcheck, "interval retries start-interval start-period timeout"),
    "LABEL": (read_label, ""),
    "MAINTAINER": (read_maintainer, ""),
    "ONBUILD": (read_onbuild, ""),
    "RUN": (read_run, "mount* network security"),
    "SHELL": (read_shell, ""),
    "STOPSIGNAL": (read_stopsignal, ""),
    "USER": (read_user, ""),
    "VOLUME": (read_volume, ""),
    "WORKDIR": (read_workdir, ""),
}
