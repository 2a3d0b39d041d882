"""Flags as docker parses them: `-it`, `-e A=1`, `-eA=1`, `--env A=1`, `--env=A=1`, `--rm=false`.

argparse would stop neither at the image's name nor at docker's wording, and its import costs 2 ms; this is a loop.
"""

from __future__ import annotations

import os

from ..records import namedtuple
from . import Help, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Container
    from typing import Any


class Flag(namedtuple("Flag", "spellings name kind help")):
    """One flag: its spellings, where its value goes, and whether it takes one.

    `kind` is "bool", "text" (the last one wins), "list" (all of them) or "optional": a value only behind a `=`, and
    without one an empty text.
    """

    spellings: str
    name: str
    kind: str
    help: str


def parse(
    command: str, flags: list[Flag], arguments: list[str], stop: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Sort arguments into flags' values and the rest. With `stop`, the first word that is no flag ends the flags.

    A flag not given is absent from the values, except for lists and bools. Raises UsageError in docker's words; for a
    `--help`, Help.
    """
    table = {spelling: flag for flag in flags for spelling in flag.spellings.split()}
    values: dict[str, Any] = {}
    for flag in flags:
        if flag.kind in ("bool", "list"):
            values[flag.name] = [] if flag.kind == "list" else False
    rest: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word == "--":
            rest += words
            break
        if word == "-" or not word.startswith("-"):
            rest.append(word)
            if stop:
                rest += words
                break
            continue
        if word in ("--help", "-h") and word not in table:
            raise Help(usage(command, flags))
        if word.startswith("--"):
            spelling, given, value = word.partition("=")
            take(command, table, spelling, value if given else None, words, values)
            continue
        # -it: every letter a flag, the last of which may have a value, glued on or in the next word.
        letters = word[1:]
        while letters:
            spelling, letters = f"-{letters[0]}", letters[1:]
            flag = find(command, table, spelling, word)
            if flag.kind == "bool":
                if letters.startswith("="):
                    take(command, table, spelling, letters[1:], words, values)
                    letters = ""
                else:
                    values[flag.name] = True
            else:
                take(command, table, spelling, letters.removeprefix("=") if letters else None, words, values)
                letters = ""
    return values, rest


def verb_of(arguments: list[str], known: Container[str], usage: str) -> str:
    """The word after `volume` or `network`: one of the `known`, or docker's longer word for it. For a --help, Help."""
    verb = {"list": "ls", "remove": "rm"}.get(arguments[0], arguments[0]) if arguments else ""
    if verb in ("-h", "--help"):
        raise Help(usage)
    if verb not in known:
        raise UsageError(usage)
    return verb


def find(command: str, table: dict[str, Flag], spelling: str, word: str) -> Flag:
    """The flag of that spelling, or docker's refusal."""
    if spelling in table:
        return table[spelling]
    what = (
        f"unknown flag: {spelling}" if word.startswith("--") else f"unknown shorthand flag: {spelling[1]!r} in {word}"
    )
    raise UsageError(f"{what}; see `minicontainer {command.partition(' [')[0]} --help`")


def take(
    command: str, table: dict[str, Flag], spelling: str, value: str | None, words: list[str], values: dict[str, Any]
) -> None:
    """Note a flag's value; one that needs a value and has none glued on takes the next word."""
    flag = find(command, table, spelling, spelling)
    if flag.kind == "bool":
        if value not in (None, "true", "false", "1", "0"):
            raise UsageError(f"invalid argument {value!r} for {spelling}: true or false")
        values[flag.name] = value not in ("false", "0")
        return
    if flag.kind == "optional":
        values[flag.name] = value or ""
        return
    if value is None:
        if not words:
            raise UsageError(
                f"flag needs an argument: {spelling}; see `minicontainer {command.partition(' [')[0]} --help`"
            )
        value = words.pop(0)
    if flag.kind == "list":
        values[flag.name].append(value)
    else:
        values[flag.name] = value


def filters(texts: list[str]) -> dict[str, list[str]]:
    """`--filter label=a --filter label=b=c` by name, for engine/filters.py."""
    result: dict[str, list[str]] = {}
    for text in texts:
        name, given, value = text.partition("=")
        if not given:
            raise UsageError(f"invalid argument {text!r} for -f, --filter: bad format of filter (expected name=value)")
        result.setdefault(name.strip().lower(), []).append(value.strip())
    return result


def usage(command: str, flags: list[Flag]) -> str:
    """A command's help."""
    lines = [f"usage: minicontainer {command}", ""]
    for flag in flags:
        shown = ", ".join(flag.spellings.split()) + SHOWN[flag.kind]
        lines.append(f"  {shown:34} {flag.help}")
    return "\n".join(lines)


SHOWN = {"bool": "", "text": " VALUE", "list": " VALUE …", "optional": "[=VALUE]"}


def size(flag: str, text: str) -> int:
    """`64m` in bytes: docker's units b, k, m, g, powers of 1024."""
    from ..engine import configure

    try:
        return configure.bytes_of(text)
    except ValueError:
        raise UsageError(f"invalid argument {text!r} for {flag}: a size like 64m or 1g") from None


def number(flag: str, text: str, kind: type = int) -> Any:
    """A number, or a UsageError that names the flag."""
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"invalid argument {text!r} for {flag}: a number") from None


def environment(pairs: list[str], paths: list[str]) -> dict[str, str | None]:
    """`-e` and `--env-file`, the former last. A bare NAME passes our own variable on, or unsets it if we have none."""
    variables: dict[str, str | None] = {}
    for path in paths:
        try:
            with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
                lines = [line.rstrip("\r\n").lstrip() for line in file]
        except OSError as error:
            raise UsageError(f"--env-file {path}: {error.strerror}") from None
        for line in lines:
            name, given, value = line.partition("=")
            if not line or line.startswith("#"):
                continue
            if not name or name != "".join(name.split()):
                raise UsageError(f"--env-file {path}: {line!r} is no NAME=VALUE")
            if given or name in os.environ:
                variables[name] = value if given else os.environ[name]
    for line in pairs:
        name, given, value = line.partition("=")
        if not name:
            raise UsageError(f"invalid environment variable: {line!r}; write NAME=VALUE")
        variables[name] = value if given else os.environ.get(name)
    return variables
