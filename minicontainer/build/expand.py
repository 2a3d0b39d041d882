"""`$NAME` and `${NAME…}` in an instruction's text, its quotes and its escapes: BuildKit's small shell.

    ${x:-word} ${x-word}    word, where x is unset (with the colon: or empty)
    ${x:+word} ${x+word}    word, where x is set (and not empty)
    ${x:?word} ${x?word}    the build ends, and says word, where x is unset (or empty)
    ${x#pat} ${x##pat}      x without its shortest, longest beginning that matches
    ${x%pat} ${x%%pat}      the same for its end
    ${x/pat/word} ${x//pat/word}    the first match, every match replaced

In a pattern `*` and `?` stand for anything and for one character. Single quotes keep all; in double ones `\\` takes
the meaning of `"`, `$` and itself alone. `# escape=` puts a backtick in the backslash's place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

BLANKS = " \t\v\f\r\n"
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
DIGITS = "0123456789"
DEEPEST = 50


class Malformed(Exception):
    """A quote or brace without its end, or no such modifier; whoever knows the line says it as BuildError."""


class Required(Malformed):
    """`${x:?word}`, and x is not set."""


class Expansion(NamedTuple):
    """The text as one, the same split into words at its unquoted blanks, and the names that nothing was known of."""

    text: str
    words: tuple[str, ...]
    unset: tuple[str, ...]


def expand(text: str, variables: Mapping[str, str], escape: str = "\\") -> Expansion:
    """A text with its variables put in and its quotes taken off. Raises Malformed."""
    reader = Reader(text, variables, escape)
    reader.read("")
    reader.end_word()
    return Expansion("".join(reader.result), tuple(reader.words), tuple(dict.fromkeys(reader.unset)))


def document(text: str, variables: Mapping[str, str]) -> str:
    """A heredoc's text with its variables put in: quotes are nothing special there, and a backslash takes the meaning
    from whatever is behind it. Raises Malformed."""
    reader = Reader(text, variables, "\\")
    reader.quotes = False
    reader.read("")
    return "".join(reader.result)


def unquote(text: str, escape: str) -> str:
    """A text without its quotes and escapes, every `$` as it is. Raises Malformed where a quote does not end."""
    quote, result, at = "", "", 0
    while at < len(text):
        character = text[at]
        at += 1
        if character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
        elif character == escape and quote != "'" and at < len(text):
            result += text[at]
            at += 1
        else:
            result += character
    if quote:
        raise Malformed(f"a quote {quote} has no end")
    return result


def split_words(text: str, escape: str) -> list[str]:
    """Words between blanks, with their quotes and escapes still on; a quote that does not end goes to the end."""
    words, word, quote, at = [], "", "", 0
    while at < len(text):
        character = text[at]
        at += 1
        if character in BLANKS and not quote:
            if word:
                words.append(word)
            word = ""
            continue
        word += character
        if character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
        elif character == escape and quote != "'" and at < len(text):
            word += text[at]
            at += 1
    return [*words, word] if word else words


class Reader:
    """One text being expanded: where we are in it, and what came out so far."""

    def __init__(self, text: str, variables: Mapping[str, str], escape: str, depth: int = 0) -> None:
        self.text, self.variables, self.escape, self.depth = text, variables, escape, depth
        self.at = 0
        self.result: list[str] = []
        self.words: list[str] = []
        self.word: list[str] | None = None
        self.unset: list[str] = []
        self.quotes = True

    def peek(self) -> str:
        """The next character, or nothing at the end."""
        return self.text[self.at : self.at + 1]

    def take(self) -> str:
        character = self.peek()
        self.at += 1
        return character

    def put(self, text: str, quoted: bool) -> None:
        """Add to the result; blanks that are not quoted part words, whether written or out of a variable."""
        self.result.append(text)
        if quoted:
            self.word = self.word or []
            self.word.append(text)
            return
        for character in text:
            if character in BLANKS:
                self.end_word()
            else:
                self.word = self.word or []
                self.word.append(character)

    def end_word(self) -> None:
        if self.word is not None:
            self.words.append("".join(self.word))
        self.word = None

    def read(self, stop: str) -> None:
        """Up to a character that is one of `stop`, which is taken; to the end, if there is none to stop at."""
        while self.at < len(self.text):
            character = self.take()
            if stop and character == stop:
                return
            if character == "'" and self.quotes:
                end = self.text.find("'", self.at)
                if end < 0:
                    raise Malformed("a quote ' has no end")
                self.put(self.text[self.at : end], quoted=True)
                self.at = end + 1
            elif character == '"' and self.quotes:
                self.double_quoted()
            elif character == "$":
                self.put(self.variable(), quoted=False)
            elif character == self.escape:
                self.put(self.take(), quoted=True)
            else:
                self.put(character, quoted=False)
        if stop:
            raise Malformed(f"a {stop} is missing behind ${{")

    def double_quoted(self) -> None:
        self.put("", quoted=True)
        while self.at < len(self.text):
            character = self.take()
            if character == '"':
                return
            if character == "$":
                self.put(self.variable(), quoted=True)
            elif character == self.escape and self.peek() and self.peek() in '"$' + self.escape:
                self.put(self.take(), quoted=True)
            else:
                self.put(character, quoted=True)
        raise Malformed('a quote " has no end')

    def name(self) -> str:
        """A variable's name: letters, or digits, or one of the shell's own signs. Nothing, if none is here."""
        first = self.peek()
        if first and first in LETTERS:
            allowed = LETTERS + DIGITS
        elif first and first in DIGITS:
            allowed = DIGITS
        elif first and first in "@*#?-$!":
            self.at += 1
            return first
        else:
            return ""
        start = self.at
        while self.peek() and self.peek() in allowed:
            self.at += 1
        return self.text[start : self.at]

    def variable(self) -> str:
        """What stands behind a `$`, which is taken already."""
        if self.peek() != "{":
            name = self.name()
            return self.value(name) or "" if name else "$"
        self.at += 1
        name = self.name()
        if not name:
            raise Malformed("${ is not followed by a variable's name")
        sign = self.take()
        if sign == "}":
            return self.value(name) or ""
        if not sign:
            raise Malformed("a } is missing behind ${")
        colon = sign == ":"
        if colon:
            sign = self.take()
        if sign in ("-", "+", "?"):
            return self.choose(name, sign, empty_is_unset=colon)
        if sign in ("#", "%", "/") and not colon:
            return self.edit(name, sign)
        raise Malformed(f"${{{name}{':' if colon else ''}{sign}…}} is no modifier that exists")

    def value(self, name: str) -> str | None:
        if name not in self.variables:
            self.unset.append(name)
        return self.variables.get(name)

    def inner(self, stop: str, pattern: bool = False) -> str:
        """The text to a `stop`, expanded; a pattern keeps its escapes."""
        if self.depth == DEEPEST:
            raise Malformed(f"variables in variables, {DEEPEST} deep")
        if pattern:
            return self.pattern(stop)
        inside = Reader(self.text, self.variables, self.escape, self.depth + 1)
        inside.at, inside.quotes = self.at, self.quotes
        inside.read(stop)
        self.at = inside.at
        self.unset += inside.unset
        return "".join(inside.result)

    def pattern(self, stop: str) -> str:
        result = ""
        while self.at < len(self.text):
            character = self.take()
            if character == stop:
                return result
            if character == "$":
                result += self.variable()
            elif character == self.escape:
                result += "\\" + self.take()
            else:
                result += character
        raise Malformed(f"a {stop} is missing behind ${{")

    def choose(self, name: str, sign: str, empty_is_unset: bool) -> str:
        word = self.inner("}")
        value = self.variables.get(name)
        is_set = bool(value) if empty_is_unset else value is not None
        if sign == "+":
            return word if is_set else ""
        if is_set:
            return value or ""
        if sign == "?":
            raise Required(f"{name}: {word or 'is not set'}")
        return word

    def edit(self, name: str, sign: str) -> str:
        twice = self.peek() == sign
        if twice:
            self.at += 1
        value = self.value(name) or ""
        if sign == "/":
            wanted = pieces(self.inner("/", pattern=True))
            return replace(value, wanted, self.inner("}"), everywhere=twice)
        wanted = pieces(self.inner("}", pattern=True))
        if sign == "%":
            lengths = beginnings(wanted[::-1], value[::-1])
            return value[: len(value) - (max(lengths) if twice else min(lengths))] if lengths else value
        lengths = beginnings(wanted, value)
        return value[max(lengths) if twice else min(lengths) :] if lengths else value


def pieces(pattern: str) -> list[str]:
    """A pattern's signs: `*`, `?`, or `=c` for the character c."""
    result, at = [], 0
    while at < len(pattern):
        character = pattern[at]
        if character == "\\" and at + 1 < len(pattern):
            at += 1
            result.append("=" + pattern[at])
        else:
            result.append(character if character in "*?" else "=" + character)
        at += 1
    return result


def beginnings(pattern: list[str], text: str) -> list[int]:
    """How many characters of the text's beginning the pattern can take, each way; [] if it does not match."""
    # All ways at once, sign by sign: backtracking would take for ever on `*a*a*a*`.
    reached = {0}
    for sign in pattern:
        if not reached:
            break
        if sign == "*":
            reached = set(range(min(reached), len(text) + 1))
        elif sign == "?":
            reached = {at + 1 for at in reached if at < len(text)}
        else:
            reached = {at + 1 for at in reached if text[at : at + 1] == sign[1:]}
    return sorted(reached)


def replace(text: str, pattern: list[str], word: str, everywhere: bool) -> str:
    """The text with the longest match from the left replaced, and with `everywhere` those behind it, too."""
    result, at = "", 0
    while at < len(text):
        lengths = beginnings(pattern, text[at:])
        if not lengths or not lengths[-1]:
            result += text[at]
            at += 1
            continue
        result += word
        at += lengths[-1]
        if not everywhere:
            break
    return result + text[at:]
