"""`.dockerignore`: which files of a build's context are left out. Pure.

A pattern a line: `#` in the first column is a comment; blanks around it go, and the path is cleaned (`./a//b/../c/` is
`a/c`, a leading `/` counts for nothing); `!` takes files back in. `*` and `?` stop at `/`, `**` does not, `[a-z]` and
`[^a-z]` one character, `\\` takes the next one as it is. A pattern matches a file, and all below a directory of that
name; the last one that matches decides (Dockerfile reference: *.dockerignore file*; Go's filepath.Match).
"""

from __future__ import annotations

import posixpath
import re
from typing import NamedTuple

from .. import errors


class Rule(NamedTuple):
    """One line: `parts` are the pattern's names between slashes, None for `**`; `back` if it began with `!`."""

    back: bool
    parts: tuple[re.Pattern[str] | None, ...]


def names(dockerfile: str) -> tuple[str, str]:
    """The files to look for, the first that is there counts: one of that Dockerfile alone, then the context's."""
    return f"{dockerfile}.dockerignore", ".dockerignore"


def parse(text: str | bytes, file: str = ".dockerignore") -> Ignore:
    """A file's rules. Raises BuildError, which names the line."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    rules = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        pattern = line.strip()
        if line.startswith("#") or not pattern:
            continue
        back = pattern.startswith("!")
        path = pattern[1:].strip() if back else pattern
        if not path:
            raise errors.BuildError("a ! without a pattern", file, number, line, line.index("!"))
        try:
            rules += rule(path, back)
        except ValueError as error:
            raise errors.BuildError(f"{pattern}: {error}", file, number, line, line.index(pattern)) from None
    return Ignore(tuple(rules))


def rule(path: str, back: bool = False) -> list[Rule]:
    """One pattern's rule; none if it means the context itself, which cannot be left out. Raises ValueError."""
    path = posixpath.normpath(path).lstrip("/")
    if path in ("", "."):
        return []
    return [Rule(back, tuple(None if part == "**" else translated(part) for part in path.split("/")))]


def translated(part: str) -> re.Pattern[str]:
    """One name's pattern as a regular expression. Raises ValueError."""
    result, at = "", 0
    while at < len(part):
        character = part[at]
        at += 1
        if character == "*":
            # `**` amid a name is a `*`; two repetitions beside one another would only cost time.
            result += "" if result.endswith("[^/]*") else "[^/]*"
        elif character == "?":
            result += "[^/]"
        elif character == "\\":
            if at == len(part):
                raise ValueError("a \\ takes the next character, and there is none")
            result += re.escape(part[at])
            at += 1
        elif character == "[":
            end = part.find("]", at + 1)
            if end < 0:
                raise ValueError("a [ without its ]")
            inside = part[at:end]
            negated = inside.startswith("^")
            inside = re.sub(r"([\[\]\\^&~|])", r"\\\1", inside[negated:])
            try:
                re.compile(f"[{inside}]")
            except re.error:
                raise ValueError(f"[{part[at:end]}] is no set of characters") from None
            result += f"[{'^' if negated else ''}{inside}]"
            at = end + 1
        else:
            result += re.escape(character)
    return re.compile(result, re.DOTALL)


class Ignore(NamedTuple):
    """The rules in order."""

    rules: tuple[Rule, ...]

    def ignored(self, path: str) -> bool:
        """Is the file or directory of that path, relative to the context, left out?"""
        parts = path.split("/")
        found = False
        for rule in self.rules:
            # A rule that would change nothing need not be looked at.
            if rule.back == found and covers(rule.parts, parts):
                found = not rule.back
        return found

    def prunes(self, directory: str) -> bool:
        """Is a directory left out with all that is below it, whatever that is: need a walk not go there?

        True only for certain: where a later `!` might take back something below, the walk has to look.
        """
        parts = directory.split("/")
        pruned = False
        for rule in self.rules:
            if not rule.back and not pruned:
                pruned = covers(rule.parts, parts)
            elif rule.back and pruned:
                pruned = not (covers(rule.parts, parts) or reaches_below(rule.parts, parts))
        return pruned


def states(pattern: tuple[re.Pattern[str] | None, ...], parts: list[str]) -> list[set[int]]:
    """After each name, how many of the pattern's parts may have been used up.

    `**` takes any number of names; at the end at least one: `a/**` is what is in `a`, not `a` itself.
    """
    last = len(pattern) - 1

    def past_stars(reached: set[int]) -> set[int]:
        for at in range(last):
            if at in reached and pattern[at] is None:
                reached.add(at + 1)
        return reached

    found = [past_stars({0})]
    for name in parts:
        after = set()
        for at in found[-1]:
            if at < len(pattern):
                part = pattern[at]
                if part is None:
                    after |= {at, at + 1} if at == last else {at}
                elif part.fullmatch(name):
                    after.add(at + 1)
        found.append(past_stars(after))
    return found


def covers(pattern: tuple[re.Pattern[str] | None, ...], parts: list[str]) -> bool:
    """Does the pattern match that path, or a directory above it?"""
    return any(len(pattern) in reached for reached in states(pattern, parts)[1:])


def reaches_below(pattern: tuple[re.Pattern[str] | None, ...], parts: list[str]) -> bool:
    """Might the pattern match something below that directory?"""
    return bool(states(pattern, parts)[-1])
