"""A Dockerfile's text in, its statements out: lines joined, directives and comments understood, heredocs taken in.

What each instruction means is `instructions`' business; here is what all of them share. Follows BuildKit's parser
(Dockerfile reference: *Format*, *Parser directives*, *Here-Documents*) also where that is odd: a comment or an empty
line between continued lines is skipped, a directive counts only above everything else, and what looks like JSON and
is none is a shell's words (`RUN [ -f x ]`). Lines count from 1. A heredoc's lines end in \\n, also in a file with CRLF.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple, NoReturn

from .. import errors
from . import expand

BLANKS = " \t\v\f\r\n"
DIRECTIVES = ("syntax", "escape", "check")
DIRECTIVE = re.compile(r"#[ \t]*([a-zA-Z][a-zA-Z0-9]*)[ \t]*=[ \t]*(.+?)[ \t]*$")
HEREDOC = re.compile(r"(\d*)<<(-?)([^<]+)$")
TAKES_HEREDOCS = ("ADD", "COPY", "RUN")
TAKES_JSON = ("ADD", "CMD", "COPY", "ENTRYPOINT", "HEALTHCHECK", "RUN", "SHELL", "VOLUME")


class Heredoc(NamedTuple):
    """`<<NAME` and what follows: `word` as it stands in the instruction; it `expands` unless its name is quoted."""

    word: str
    name: str
    content: str
    expands: bool
    line: int


class Flag(NamedTuple):
    """`--name=value`; `value` is None where there is no `=`."""

    name: str
    value: str | None


class Statement(NamedTuple):
    """One instruction: `keyword` in capitals, `spelled` as written, `text` all behind the flags, on one line.

    `words` is what a JSON array says, or None: the shell form. `first` and `last` are its lines, heredocs included.
    """

    keyword: str
    spelled: str
    flags: tuple[Flag, ...]
    text: str
    words: tuple[str, ...] | None
    heredocs: tuple[Heredoc, ...]
    first: int
    last: int


class Source(NamedTuple):
    """A Dockerfile taken apart; `empty_continuations` are the empty lines amid instructions."""

    file: str
    lines: tuple[str, ...]
    directives: dict[str, str]
    statements: tuple[Statement, ...]
    empty_continuations: tuple[int, ...]

    @property
    def escape(self) -> str:
        """What continues a line, and takes the meaning from the next character."""
        return self.directives.get("escape", "\\")


def parse(text: str | bytes, file: str = "Dockerfile") -> Source:
    """The statements of a Dockerfile. Raises BuildError, which names the line."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    lines = [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]
    for at, line in enumerate(lines):
        if "\0" in line:
            raise errors.BuildError(
                "a NUL byte: this is no text", file, at + 1, line.replace("\0", "?"), line.index("\0")
            )
    directives = read_directives(lines, file)
    source = Source(file, tuple(lines), directives, (), ())
    statements: list[Statement] = []
    empty: list[int] = []
    at = 0
    while at < len(lines):
        if not lines[at].strip(BLANKS) or is_comment(lines[at]):
            at += 1
            continue
        first = at
        logical, at, skipped = join(lines, at, source.escape)
        empty += skipped
        statement = split(source, logical, first + 1, at)
        if takes_heredocs(statement):
            heredocs, at = read_heredocs(source, statement, at)
            statement = statement._replace(heredocs=heredocs, last=at)
        statements.append(statement)
    if not statements:
        raise errors.BuildError("no instruction in it: a Dockerfile begins with FROM", file)
    return source._replace(statements=tuple(statements), empty_continuations=tuple(empty))


def read_directives(lines: list[str], file: str) -> dict[str, str]:
    """`# escape=` and its kin, which stand above all else: the first line that is none of that form ends them."""
    found: dict[str, str] = {}
    for at, line in enumerate(lines):
        match = DIRECTIVE.match(line.strip(BLANKS))
        if not match:
            break
        name, value = match[1].lower(), match[2]
        if name not in DIRECTIVES:
            continue
        if name in found:
            raise errors.BuildError(f"the directive {name} is given twice", file, at + 1, line)
        if name == "escape" and value not in ("\\", "`"):
            raise errors.BuildError(f"escape={value}: may be \\ or `", file, at + 1, line, line.rindex(value))
        found[name] = value
    return found


def is_comment(line: str) -> bool:
    return line.lstrip(BLANKS).startswith("#")


def join(lines: list[str], at: int, escape: str) -> tuple[str, int, list[int]]:
    """The lines from `at` on that are one: their text, the index behind them, and which empty ones were among them."""
    # An escaped escape at the end of a line is itself, and continues nothing.
    continued = re.compile(rf"(?:^|[^{re.escape(escape)}]){re.escape(escape)}[ \t]*$")
    parts: list[str] = []
    empty: list[int] = []
    end = at
    while at < len(lines):
        line = lines[at]
        at += 1
        if parts and is_comment(line):
            continue
        if parts and not line.strip(BLANKS):
            if at < len(lines):  # not what is behind the file's last newline
                empty.append(at)
            continue
        end = at
        if continued.search(line):
            parts.append(line.rstrip(" \t")[:-1])
            continue
        parts.append(line)
        break
    empty = [line for line in empty if line < end]
    return "".join(parts).strip(BLANKS), end, empty


def split(source: Source, logical: str, first: int, last: int) -> Statement:
    """A joined line's keyword, flags and rest."""
    spelled, text = cut(logical)
    statement = Statement(spelled.upper(), spelled, (), text, None, (), first, last)
    if not re.fullmatch("[A-Za-z]+", spelled):
        refuse(source, statement, f"{spelled!r} is no instruction", spelled)
    flags, text = read_flags(text)
    return with_words(source, statement._replace(flags=flags, text=text))


def with_words(source: Source, statement: Statement) -> Statement:
    """The statement with its JSON form read, where it has one."""
    if statement.keyword not in TAKES_JSON or not statement.text.startswith("["):
        return statement
    try:
        words = json.loads(statement.text, parse_constant=no_json)
    except (ValueError, RecursionError):
        return statement
    if not all(isinstance(word, str) for word in words):
        refuse(source, statement, "a JSON array of an instruction has strings in it, nothing else", "[")
    # Half of a surrogate pair is no character; Go reads a replacement for it, too.
    return statement._replace(
        words=tuple(re.sub("[\ud800-\udbff\udc00-\udc7f\udd00-\udfff]", "\ufffd", w) for w in words)
    )


def no_json(name: str) -> NoReturn:
    """NaN and the infinities are Python's own idea of JSON."""
    raise ValueError(name)


def cut(text: str) -> tuple[str, str]:
    """The first word, and what is behind it."""
    word, *rest = text.split(None, 1) or [""]
    return word, rest[0].strip(BLANKS) if rest else ""


def read_flags(text: str) -> tuple[tuple[Flag, ...], str]:
    """The words that begin with `--`, their quotes taken off, and the rest; a bare `--` ends them."""
    flags: list[Flag] = []
    while text.startswith("--"):
        word, at, quote = "", 0, ""
        while at < len(text) and (quote or text[at] not in BLANKS):
            character = text[at]
            if character == "\\" and at + 1 < len(text):
                at += 1
                word += text[at]
            elif character == quote:
                quote = ""
            elif not quote and character in "'\"":
                quote = character
            else:
                word += character
            at += 1
        text = text[at:].lstrip(BLANKS)
        if word == "--":
            break
        name, given, value = word[2:].partition("=")
        flags.append(Flag(name, value if given else None))
    return tuple(flags), text


def takes_heredocs(statement: Statement) -> bool:
    keyword = cut(statement.text)[0].upper() if statement.keyword == "ONBUILD" else statement.keyword
    return keyword in TAKES_HEREDOCS and statement.words is None


def read_heredocs(source: Source, statement: Statement, at: int) -> tuple[tuple[Heredoc, ...], int]:
    """The heredocs that a statement announces, from line index `at` on, and the index behind them."""
    heredocs: list[Heredoc] = []
    for word in expand.split_words(statement.text, source.escape):
        match = HEREDOC.match(word)
        if not match:
            continue
        try:
            name = expand.unquote(match[3], "\\")
        except expand.Malformed:
            continue
        first, content = at + 1, []
        while True:
            if at == len(source.lines):
                refuse(source, statement, f"the heredoc {word} has no end: no line is {name!r} alone", word)
            line = source.lines[at].lstrip("\t") if match[2] else source.lines[at]
            at += 1
            if line == name:
                break
            content.append(line + "\n")
        heredocs.append(Heredoc(word, name, "".join(content), name == match[3], first))
    return tuple(heredocs), at


def place(source: Source, statement: Statement, at: str = "") -> tuple[int, str, int]:
    """Line, its text and the column of the text `at` in a statement; the statement's own where it is nowhere."""
    for number in range(statement.first, statement.last + 1) if at else ():
        column = source.lines[number - 1].find(at)
        if column >= 0:
            return number, source.lines[number - 1], column
    line = source.lines[statement.first - 1]
    return statement.first, line, len(line) - len(line.lstrip(BLANKS))


def refuse(source: Source, statement: Statement, reason: str, at: str = "") -> NoReturn:
    """Raise the BuildError that points at the text `at` of a statement."""
    raise errors.BuildError(reason, source.file, *place(source, statement, at))
