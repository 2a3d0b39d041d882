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
    """One name's pattern as a regular expression. Raises ValueError.

    What stands between two `*` is matched where it comes first, once and for all (an atomic group): another place
    would leave less for the rest. So a name takes no longer than its length times the pattern's, however many `*`.
    """
    pieces, at = [""], 0  # what stands before, between and after the `*`
    while at < len(part):
        character = part[at]
        at += 1
        if character == "*":
            if pieces[-1] or len(pieces) == 1:  # `**` amid a name is a `*`
                pieces.append("")
        elif character == "?":
            pieces[-1] += "[^/]"
        elif character == "\\":
            if at == len(part):
                raise ValueError("a \\ takes the next character, and there is none")
            pieces[-1] += re.escape(part[at])
            at += 1
        elif character == "[":
            inside, at = character_class(part, at)
            pieces[-1] += inside
        else:
            pieces[-1] += re.escape(character)
    begun, *between = pieces
    last = f"[^/]*{between.pop()}" if between else ""
    return re.compile(begun + "".join(f"(?>[^/]*?{piece})" for piece in between) + last, re.DOTALL)


def character_class(part: str, at: int) -> tuple[str, int]:
    """`[a-z]` from behind its `[` on, as a regular expression's, and where it ends. Raises ValueError.

    As in Go: at least one character or range, `-` and `]` as such only behind a `\\`.
    """
    result = "["
    if part[at : at + 1] == "^":
        result, at = "[^", at + 1
    begun = at
    while at == begun or part[at : at + 1] != "]":
        low, at = class_member(part, at)
        high = low
        if part[at : at + 1] == "-":
            high, at = class_member(part, at + 1)
        if low > high:
            raise ValueError(f"{low}-{high} in brackets ends before it begins")
        result += f"{re.escape(low)}-{re.escape(high)}"
    return f"{result}]", at + 1


def class_member(part: str, at: int) -> tuple[str, int]:
    """One character in brackets, and where the next one is."""
    if part[at : at + 1] == "\\":
        at += 1
    elif part[at : at + 1] in ("-", "]"):
        raise ValueError(f"{part[at]} in brackets stands behind a \\, or ends a range")
    if at >= len(part):
        raise ValueError("a [ without its ]")
    return part[at], at + 1


class Ignore(NamedTuple):
    """The rules in order."""

    rules: tuple[Rule, ...]

    def ignored(self, path: str) -> bool:
        """Is the file or directory of that path, relative to the context, left out?"""
        directory, _, name = path.rpartition("/")
        return self.within(directory).ignored(name)

    def prunes(self, directory: str) -> bool:
        """Is a directory left out with all that is below it, whatever that is: need a walk not go there?

        True only for certain: where a later `!` might take back something below, the walk has to look.
        """
        return self.within(directory).pruned

    def within(self, directory: str) -> Within:
        """The rules as they are for what is in a directory; "" is the context itself."""
        seen = Within(tuple(reading(rule, {0}, False) for rule in self.rules))
        for name in directory.split("/") if directory else ():
            seen = seen.enter(name)
        return seen


class Reading(NamedTuple):
    """How far a rule's pattern has been read on the way to a directory: `reached`, how many of its parts may have been
    used up; `covers`, whether the directory, or one above it, matches; `last`, what a name in there must be to match.
    """

    rule: Rule
    reached: frozenset[int]
    covers: bool
    last: tuple[re.Pattern[str] | None, ...]


def reading(rule: Rule, reached: set[int], covers: bool) -> Reading:
    """`**` takes any number of names; at the end at least one: `a/**` is what is in `a`, not `a` itself."""
    end = len(rule.parts) - 1
    for at in range(end):
        if at in reached and rule.parts[at] is None:
            reached.add(at + 1)
    return Reading(rule, frozenset(reached), covers, (rule.parts[end],) if end in reached else ())


class Within(NamedTuple):
    """The rules of an Ignore as they are for the names in one directory, less those that cannot matter there. A walk
    goes from one to the next: each name is looked at once, however deep it is."""

    readings: tuple[Reading, ...]

    def ignored(self, name: str) -> bool:
        """Is the file or directory of that name left out?"""
        found = False
        for (back, _), _, covers, last in self.readings:
            # A rule that would change nothing need not be looked at.
            if back == found and (covers or any(part is None or part.fullmatch(name) for part in last)):
                found = not back
        return found

    def enter(self, name: str) -> Within:
        """The rules for what is in the directory of that name."""
        found = []
        for rule, reached, covers, last in self.readings:
            after = set()
            for at in reached:
                part = rule.parts[at]
                if part is None:
                    after.add(at)
                elif at + 1 < len(rule.parts) and part.fullmatch(name):
                    after.add(at + 1)
            covers = covers or any(part is None or bool(part.fullmatch(name)) for part in last)
            if after or covers:
                found.append(reading(rule, after, covers))
        return Within(tuple(found))

    @property
    def pruned(self) -> bool:
        """Is the directory left out with all that is below it?"""
        pruned = False
        for rule, reached, covers, _ in self.readings:
            if not rule.back:
                pruned = pruned or covers
            elif pruned:
                pruned = not (covers or reached)
        return pruned
