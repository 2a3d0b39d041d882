"""Which submissions resemble one another: fingerprints of their tokens (Schleimer, Wilkerson, Aiken: Winnowing, 2003).

    pairs({"ann": text, "bob": text, …}, stub)  →  [Pair("ann", "bob", 0.93, 41), …], the most alike first

Names, texts and numbers are all one to it, so renaming hides nothing, nor do comments and layout; what the stub gives
is left out. That two are alike proves nothing: a lab has few good answers. It says where a person should look.
"""

from __future__ import annotations

import io
import keyword
import tokenize
import zlib
from collections import defaultdict
from itertools import combinations
from typing import NamedTuple

GRAM = 12  # tokens in a row: shorter ones are idioms
WINDOW = 8  # of this many grams in a row one is kept: a common stretch of GRAM + WINDOW - 1 tokens is always found
FEWEST = 8  # fingerprints: of less than that nothing can be said
ALIKE = 0.6  # share of the smaller one's fingerprints from which on a pair is told

DULL = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


class Pair(NamedTuple):
    """Two students whose texts have `common` fingerprints, which are this share of the smaller text's."""

    one: str
    other: str
    share: float
    common: int


def tokens(text: str) -> list[str]:
    """A text's tokens without names and values; those before an error where it is no Python."""
    found: list[str] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in DULL:
                continue
            if token.type == tokenize.NAME:
                found.append(token.string if keyword.iskeyword(token.string) else "name")
            elif token.type == tokenize.STRING:
                found.append("text")
            elif token.type == tokenize.NUMBER:
                found.append("0")
            else:
                found.append(token.string)
    except (tokenize.TokenError, SyntaxError, ValueError):
        pass
    return found


def fingerprints(text: str) -> set[int]:
    """Of each window of grams the smallest hash, the last of equals."""
    words = tokens(text)
    grams = [zlib.crc32(" ".join(words[at : at + GRAM]).encode()) for at in range(len(words) - GRAM + 1)]
    return {min(grams[at : at + WINDOW]) for at in range(max(1, len(grams) - WINDOW + 1)) if grams}


def pairs(texts: dict[str, str], stub: str) -> list[Pair]:
    """The pairs that are ALIKE."""
    given = all_grams(stub)
    prints = {name: fingerprints(text) - given for name, text in texts.items()}
    holders: defaultdict[int, list[str]] = defaultdict(list)
    for name, marks in prints.items():
        if len(marks) >= FEWEST:
            for mark in marks:
                holders[mark].append(name)
    common: defaultdict[tuple[str, str], int] = defaultdict(int)
    for names in holders.values():
        for one, other in combinations(names, 2):
            common[one, other] += 1
    found = [
        Pair(one, other, count / min(len(prints[one]), len(prints[other])), count)
        for (one, other), count in common.items()
    ]
    return sorted((pair for pair in found if pair.share >= ALIKE), key=lambda pair: (-pair.share, -pair.common, pair))


def all_grams(text: str) -> set[int]:
    """Every gram's hash: whichever of them a window in a student's text would keep."""
    words = tokens(text)
    return {zlib.crc32(" ".join(words[at : at + GRAM]).encode()) for at in range(len(words) - GRAM + 1)}
