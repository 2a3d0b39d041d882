"""Docker's `--format` templates: the part of Go's text/template that people type. A text and a value in, text out.

    render(parse("{{range .Mounts}}{{.Source}} {{end}}"), document)

Known are fields, variables (`$x :=`, `=`), pipes, parentheses, literals, comments, `{{- -}}`, and `if`, `else if`,
`with`, `range`, `break`, `continue`, `end`; the functions stand in template_functions.py. `define`, `template` and
`block` are not known. Source: pkg.go.dev/text/template, and what docker 28 prints.

Values are JSON's. Of these, dicts are Go's maps: a key that is not there is `<no value>`. A Struct is one of fixed
keys, and another one is an error; Methods are computed when asked for.

Raises BadTemplate for what cannot be parsed, TemplateFailed for what cannot be evaluated, both in docker's words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from .. import errors
from ..records import namedtuple

DEEPEST = 100  # blocks and parentheses in one another


class BadTemplate(errors.InvalidArgument):
    """No template: says in which line, and why."""


class TemplateFailed(errors.InvalidArgument):
    """It could not be evaluated on this value: says at which line, column and expression, and why."""


class Struct(dict[str, Any]):
    """A value of fixed keys, as docker's documents are; those in `absent` are known and have no value here."""

    absent: tuple[str, ...] = ()


class Methods(dict[str, Callable[..., Any]]):
    """Names, and functions that give their values; `kind` is what an error calls it."""

    kind = "interface {}"


class Nil(list[Any]):
    """Go's nil list or map: nothing in it, null in JSON; as text it is `shown`."""

    def __init__(self, shown: str) -> None:
        super().__init__()
        self.shown = shown


class Nothing:
    """What a map answers for a key that it does not have."""


NOTHING = Nothing()


def structs(value: Any, maps: frozenset[str], lists: frozenset[str] = frozenset(), key: str = "") -> Any:
    """A JSON document as docker's typed one: dicts are Structs, but for those under a name in `maps`.

    A null under such a name is an empty map, one under a name in `lists` an empty list.
    """
    if isinstance(value, dict):
        inner = {name: structs(item, maps, lists, name) for name, item in value.items()}
        return dict(inner) if key in maps else Struct(inner)
    if isinstance(value, list):
        return [structs(item, maps, lists) for item in value]
    if value is None and key in maps:
        return Nil("map[]")
    return Nil("[]") if value is None and key in lists else value


# Words of an expression. `position` is where an error points to, `text` how it is quoted there.
Dot = namedtuple("Dot", "position text")
Null = namedtuple("Null", "position text")
Literal = namedtuple("Literal", "position text value")
Function = namedtuple("Function", "position text")
Field = namedtuple("Field", "position text names")  # .State.Pid
Variable = namedtuple("Variable", "position text name names")  # $x.Pid
Chain = namedtuple("Chain", "position text inner names")  # (index .X 0).Pid

# `names` are variables to set before the first command's value is used; `declares` says whether they are new.
Pipe = namedtuple("Pipe", "position text names declares commands")

# What a template is a list of.
Text = namedtuple("Text", "text")
Action = namedtuple("Action", "pipe")
Block = namedtuple("Block", "kind pipe body otherwise")  # if, with, range
Jump = namedtuple("Jump", "kind")  # break, continue

Token = namedtuple("Token", "kind text position spaced")  # `spaced`: blanks stand before it


# To tokens

TOKENS = re.compile(
    r"""(?P<string>"(?:[^"\\\n]|\\.)*") | (?P<raw>`[^`]*`) | (?P<char>'(?:[^'\\\n]|\\.)+')
      | (?P<number>[+-]?(?:\d[\w.]*(?:(?<=[eE])[+-]\d+)?|\.\d+(?:[eE][+-]?\d+)?))
      | (?P<field>\.[^\W\d]\w*) | (?P<variable>\$\w*) | (?P<word>[^\W\d]\w*)
      | (?P<mark>:=|[=,|().]) | (?P<other>[!-~])""",
    re.VERBOSE,
)
BLANKS = " \t\r\n"


def bad(source: str, position: int, why: str) -> BadTemplate:
    """The error, with the line that it is in."""
    return BadTemplate(f"template parsing error: template: :{source.count(chr(10), 0, position) + 1}: {why}")


def split(source: str) -> Iterator[tuple[int, list[Token] | str]]:
    """Text, and the tokens of each action, with their positions; blanks that `{{-` and `-}}` take away are gone."""
    position, trim = 0, False
    while True:
        start = source.find("{{", position)
        text = source[position:] if start < 0 else source[position:start]
        if trim:
            text = text.lstrip(BLANKS)
        if start < 0:
            yield position, text
            return
        inside = start + 2
        if source.startswith("-", inside) and source[inside + 1 : inside + 2] in tuple(BLANKS):
            text, inside = text.rstrip(BLANKS), inside + 1
        yield position, text
        tokens: list[Token] = []
        comment = re.compile(r"[ \t\r\n]*/\*").match(source, inside)
        if comment:
            end = source.find("*/", comment.end())
            if end < 0:
                raise bad(source, start, "unclosed comment")
            closing = re.compile(r"(?:[ \t\r\n]-)?\}\}").match(source, end + 2)
            if not closing:
                raise bad(source, start, "comment ends before closing delimiter")
            position, trim = closing.end(), len(closing[0]) > 2
            continue
        position = inside
        while True:
            blank = re.compile(r"[ \t\r\n]*").match(source, position)
            spaced = blank is not None and blank.end() > position
            position = blank.end() if blank else position
            if spaced and source.startswith("-}}", position):
                position, trim = position + 3, True
                break
            if source.startswith("}}", position):
                position, trim = position + 2, False
                break
            token = one_token(source, position, spaced)
            tokens.append(token)
            position += len(token.text)
        yield start, tokens


def one_token(source: str, position: int, spaced: bool) -> Token:
    """The token that begins here."""
    if position == len(source):
        raise bad(source, position, "unclosed action")
    found = TOKENS.match(source, position)
    character = source[position]
    if not found or (found.lastgroup == "other" and character in UNTERMINATED):
        what = UNTERMINATED.get(character)
        raise bad(source, position, f"unterminated {what}" if what else bad_character(character))
    kind, end = str(found.lastgroup), found.end()
    if kind in ("field", "variable", "word") and end < len(source):
        if source[end] not in BLANKS + ".,|:)(" and not source.startswith(("}}", "-}}"), end):
            raise bad(source, end, bad_character(source[end]))
    return Token(kind, found[0], position, spaced)


UNTERMINATED = {'"': "quoted string", "`": "raw quoted string", "'": "character constant"}


def bad_character(character: str) -> str:
    """What cannot stand where it stands."""
    return f"bad character U+{ord(character):04X} {character!r}"


def quoted(text: str) -> str:
    """A text as Go's %q has it."""
    result = []
    for character in text:
        number = ord(character)
        if character in ESCAPED:
            result.append(ESCAPED[character])
        elif character.isprintable():
            result.append(character)
        else:
            result.append(
                f"\\x{number:02x}" if number < 0x80 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
            )
    return '"' + "".join(result) + '"'


ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"', "'": "'"}
ESCAPED = {value: f"\\{key}" for key, value in ESCAPES.items() if key != "'"}


def unquoted(text: str) -> str | None:
    """What stands between quotes with its escapes resolved; None if one is unknown."""
    result, position = [], 0
    pattern = re.compile(r"\\(?:([abfnrtv\\\"'])|([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")
    while position < len(text):
        if text[position] != "\\":
            result.append(text[position])
            position += 1
            continue
        found = pattern.match(text, position)
        if not found:
            return None
        if found[1]:
            result.append(ESCAPES[found[1]])
        else:
            number = int(found[2], 8) if found[2] else int(found[3] or found[4] or found[5], 16)
            if number > 0x10FFFF or 0xD800 <= number < 0xE000:
                return None
            result.append(chr(number))
        position = found.end()
    return "".join(result)


# To nodes


def parse(source: str) -> list[Any]:
    """A template's text as nodes. Raises BadTemplate."""
    return Parser(source).template()


class Parser:
    """One pass over the tokens; which variables are known is kept as they come."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.parts = list(split(source))
        self.variables = ["$"]
        self.loops = 0
        self.depth = 0
        self.tokens: list[Token] = []
        self.start = 0  # of the action at hand

    def fail(self, why: str, position: int | None = None) -> BadTemplate:
        """An error in the action at hand."""
        return bad(self.source, self.start if position is None else position, why)

    def template(self) -> list[Any]:
        """The whole."""
        nodes, end = self.nodes()
        if end:
            raise self.fail(f"unexpected {{{{{end}}}}}")
        return nodes

    def nodes(self) -> tuple[list[Any], str]:
        """Until an `end` or `else` that is not ours, whose word is returned; its own words are left in `tokens`."""
        result: list[Any] = []
        while self.parts:
            self.start, part = self.parts.pop(0)
            if isinstance(part, str):
                if part:
                    result.append(Text(part))
                continue
            self.tokens = part
            first = part[0].text if part and part[0].kind == "word" else ""
            if first in ("end", "else"):
                self.tokens.pop(0)
                if first == "end" and self.tokens:
                    raise self.fail(f"unexpected {described(self.tokens[0])} in end")
                return result, first
            if first in ("if", "with", "range"):
                self.tokens.pop(0)
                result.append(self.block(first))
            elif first in ("break", "continue"):
                if not self.loops:
                    raise self.fail(f"{{{{{first}}}}} outside {{{{range}}}}")
                if len(part) > 1:
                    raise self.fail(f"unexpected {described(part[1])} in {{{{{first}}}}}")
                result.append(Jump(first))
            else:
                result.append(Action(self.whole_pipe("command")))
        return result, ""

    def block(self, kind: str) -> Block:
        """`if`, `with` or `range`, to its end."""
        self.deeper()
        known = len(self.variables)
        pipe = self.whole_pipe(kind)
        self.loops += kind == "range"
        body, end = self.nodes()
        self.loops -= kind == "range"
        otherwise: list[Any] = []
        if end == "else":
            del self.variables[known + len(pipe.names) :]
            words = [token.text for token in self.tokens[:1] if token.kind == "word"]
            if words and words[0] in ("if", "with") and kind == words[0]:
                self.tokens.pop(0)
                otherwise = [self.block(words[0])]  # its end is ours
                end = "end"
            else:
                if self.tokens:
                    raise self.fail(f"unexpected {described(self.tokens[0])} in else")
                otherwise, end = self.nodes()
                if end == "else":
                    raise self.fail("expected end; found {{else}}")
        if end != "end":
            raise self.fail("unexpected EOF", len(self.source))
        del self.variables[known:]
        self.depth -= 1
        return Block(kind, pipe, body, otherwise)

    def deeper(self) -> None:
        """Python's own stack is finite."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.fail("max expression depth exceeded")

    def whole_pipe(self, context: str) -> Any:
        """A pipe that takes all of the action's words."""
        pipe = self.pipe(context)
        if self.tokens:
            raise self.fail(f"unexpected {described(self.tokens[0])}")
        return pipe

    def pipe(self, context: str, end: str = "") -> Any:
        """`$x := a | b`, until `end` or the last word."""
        position = self.tokens[0].position if self.tokens else self.start
        names, declares = self.declaration(context)
        commands: list[tuple[Any, ...]] = []
        while True:
            if not self.tokens or self.tokens[0].text == end:
                break
            words = self.command(end)
            if commands and isinstance(words[0], Literal | Dot | Null):
                raise self.fail(f"non executable command in pipeline stage {len(commands) + 1}")
            commands.append(words)
            if self.tokens and self.tokens[0].text == "|":
                self.tokens.pop(0)
        if not commands:
            raise self.fail(f"missing value for {context}")
        if declares:
            self.variables += names
        quoted_commands = " | ".join(command_text(words) for words in commands)
        setting = f"{', '.join(names)} {':=' if declares else '='} " if names else ""
        return Pipe(position, setting + quoted_commands, names, declares, commands)

    def declaration(self, context: str) -> tuple[list[str], bool]:
        """The variables that a pipe sets, and whether they are new."""
        texts = [token.text for token in self.tokens[:4]]
        kinds = [token.kind for token in self.tokens[:4]]
        if kinds[:1] != ["variable"]:
            return [], False
        if texts[1:2] in ([":="], ["="]):
            names, used = texts[:1], 2
        elif texts[1:2] == [","] and kinds[2:3] == ["variable"] and texts[3:4] in ([":="], ["="], [","]):
            names, used = [texts[0], texts[2]], 4
            if context != "range" or texts[3] == ",":
                raise self.fail(f"too many declarations in {context}")
        else:
            return [], False
        declares = texts[used - 1] == ":="
        if not declares:
            for name in names:
                self.known(name)
        del self.tokens[:used]
        return names, declares

    def known(self, name: str) -> None:
        """Raise unless that variable has been declared."""
        if name not in self.variables:
            raise self.fail(f"undefined variable {quoted(name)}")

    def command(self, end: str) -> tuple[Any, ...]:
        """Words up to a `|`."""
        words: list[Any] = []
        while self.tokens and self.tokens[0].text not in ("|", end):
            if words and self.tokens[0].text == ")":
                raise self.fail("unexpected right paren")
            if words and not self.tokens[0].spaced:
                raise self.fail(f"unexpected {described(self.tokens[0])} in operand")
            words.append(self.operand(not words))
        if not words:
            raise self.fail(f'unexpected "{self.tokens[0].text}" in command')
        return tuple(words)

    def operand(self, first: bool) -> Any:
        """One word, with the fields that hang on it; `first` of its command."""
        word = self.term(first)
        names = []
        place = self.tokens[0].position if self.tokens else 0
        while self.tokens and self.tokens[0].kind == "field" and not self.tokens[0].spaced:
            names.append(self.tokens.pop(0).text[1:])
        if not names:
            return word
        text = word.text + "".join(f".{name}" for name in names)
        if isinstance(word, Field | Variable):
            return word._replace(position=place, text=text, names=[*word.names, *names])
        if isinstance(word, Pipe):
            return Chain(place, f"({word.text}){text[len(word.text) :]}", word, names)
        raise self.fail(f"unexpected . after term {quoted(word.text)}")

    def term(self, first: bool) -> Any:
        """One word."""
        token = self.tokens.pop(0)
        kind, text, position = token.kind, token.text, token.position
        if kind == "field":
            return Field(position, text, [text[1:]])
        if kind == "variable":
            self.known(text)
            return Variable(position, text, text, [])
        if kind == "word":
            return self.named(token)
        if kind == "raw":
            return Literal(position, text, text[1:-1])
        if kind == "string":
            value = unquoted(text[1:-1])
            if value is None:
                raise self.fail("invalid syntax")
            return Literal(position, text, value)
        if kind == "char":
            value = unquoted(text[1:-1])
            if value is None or len(value) != 1:
                raise self.fail(f"malformed character constant: {text}")
            return Literal(position, text, ord(value))
        if kind == "number":
            return Literal(position, text, self.number(text))
        if text == ".":
            return Dot(position, ".")
        if text == "(":
            self.deeper()
            pipe = self.pipe("parenthesized pipeline", ")")
            if not self.tokens:
                raise self.fail("unclosed left paren")
            self.tokens.pop(0)
            self.depth -= 1
            return pipe
        raise self.fail(f"unexpected {described(token)} in {'command' if first else 'operand'}")

    def named(self, token: Token) -> Any:
        """true, nil, or a function."""
        from . import template_functions

        text = token.text
        if text in ("true", "false"):
            return Literal(token.position, text, text == "true")
        if text == "nil":
            return Null(token.position, text)
        if text in ("and", "or") or text in template_functions.FUNCTIONS:
            return Function(token.position, text)
        if text in ("define", "template", "block"):
            raise self.fail(f"{{{{{text}}}}} is not known here")
        raise self.fail(f"function {quoted(text)} not defined")

    def number(self, text: str) -> int | float:
        """A number as Go writes it: 3, -3, 0x10, 1.5, 1e3."""
        try:
            digits = text.replace("_", "")
            value: int | float
            if re.fullmatch(r"[+-]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|[1-9]\d*|0)", digits, re.ASCII):
                value = int(digits, 0)
            elif re.fullmatch(r"[+-]?0[0-7]+", digits, re.ASCII):
                value = int(digits, 8)
            elif re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", digits, re.ASCII):
                value = float(digits)
                if value.is_integer() and abs(value) < 2**63 and "." not in digits:
                    value = int(value)
            else:
                raise ValueError
            if abs(value) >= (2**63 if isinstance(value, int) else float("inf")):
                raise self.fail(f"integer overflow: {quoted(text)}")
            return value
        except ValueError:
            raise self.fail(f"bad number syntax: {quoted(text)}") from None


KEYWORDS = (".", "break", "continue", "define", "else", "end", "if", "nil", "range", "template", "with", "block")


def described(token: Token) -> str:
    """A token as an error names it."""
    return f"<{token.text}>" if token.text in KEYWORDS else quoted(token.text)


def command_text(words: tuple[Any, ...]) -> str:
    """A command as an error quotes it."""
    return " ".join(f"({word.text})" if isinstance(word, Pipe) else word.text for word in words)


# To text


def render(nodes: list[Any], value: Any, source: str = "") -> str:
    """The template's text for this value. Raises TemplateFailed; `source` lets it name the place."""
    writer = Writer(value, source)
    writer.walk(nodes, value)
    return "".join(writer.output)


class Broken(Exception):  # noqa: N818
    """A `break` on its way to its `range`."""


class Continued(Exception):  # noqa: N818
    """A `continue`."""


class Writer:
    """Walks the nodes; variables are a stack, newest last."""

    def __init__(self, value: Any, source: str) -> None:
        self.source = source
        self.output: list[str] = []
        self.variables: list[list[Any]] = [["$", value]]

    def fail(self, word: Any, why: str, text: str = "") -> TemplateFailed:
        """An error at a word."""
        line = self.source.count("\n", 0, word.position) + 1
        column = word.position - (self.source.rfind("\n", 0, word.position) + 1)
        return TemplateFailed(f'template: :{line}:{column}: executing "" at <{text or word.text}>: {why}')

    def walk(self, nodes: list[Any], dot: Any) -> None:
        """Write what the nodes say, `.` being `dot`."""
        from . import template_functions

        for node in nodes:
            if isinstance(node, Text):
                self.output.append(node.text)
            elif isinstance(node, Jump):
                raise Broken if node.kind == "break" else Continued
            elif isinstance(node, Action):
                value = self.pipe(node.pipe, dot)
                if not node.pipe.names:
                    self.output.append(template_functions.text(value))
            else:
                mark = len(self.variables)
                self.block(node, dot)
                del self.variables[mark:]

    def block(self, node: Any, dot: Any) -> None:
        """if, with, range."""
        from . import template_functions

        if node.kind == "range":
            self.loop(node, dot)
            return
        value = self.pipe(node.pipe, dot)
        if template_functions.true(value):
            self.walk(node.body, value if node.kind == "with" else dot)
        else:
            self.walk(node.otherwise, dot)

    def loop(self, node: Any, dot: Any) -> None:
        """range: over lists, maps by their sorted keys, and numbers."""
        value = self.pipe(node.pipe._replace(names=[]), dot)
        items: Any = ()
        if isinstance(value, Struct | Methods) or isinstance(value, bool | str | float):
            from . import template_functions

            shown = template_functions.text(value)
            raise self.fail(node.pipe.commands[-1][0], f"range can't iterate over {shown}")
        if isinstance(value, dict):
            items = sorted(value.items())
        elif isinstance(value, list):
            items = enumerate(value)
        elif isinstance(value, int):
            items = ((number, number) for number in range(value))
        mark, ran = len(self.variables), False
        names = node.pipe.names
        for key, item in items:
            ran = True
            for name, bound in zip(names, (key, item) if len(names) == 2 else (item,), strict=False):
                self.bind(name, bound, node.pipe.declares)
            try:
                self.walk(node.body, item)
            except Broken:
                break
            except Continued:
                pass
            finally:
                del self.variables[mark:]
        if not ran:
            self.walk(node.otherwise, dot)

    def bind(self, name: str, value: Any, declares: bool) -> None:
        """Declare a variable, or set the newest of that name."""
        if declares:
            self.variables.append([name, value])
            return
        next(pair for pair in reversed(self.variables) if pair[0] == name)[1] = value

    def pipe(self, pipe: Any, dot: Any) -> Any:
        """A pipe's value: that of its last command, each with its predecessor's as last argument."""
        value: Any = self.command(pipe.commands[0], dot, [])
        for words in pipe.commands[1:]:
            value = self.command(words, dot, [value])
        for name in pipe.names:
            self.bind(name, value, pipe.declares)
        return value

    def command(self, words: tuple[Any, ...], dot: Any, final: list[Any]) -> Any:
        """One command's value."""
        first, rest = words[0], words[1:]
        if isinstance(first, Function):
            return self.call(first, words, dot, final)
        if isinstance(first, Field):
            return self.fields(first, dot, first.names, [self.word(word, dot) for word in rest] + final)
        if rest or final:
            raise self.fail(first, f"can't give argument to non-function {first.text}")
        if isinstance(first, Null):
            raise self.fail(first, "nil is not a command")
        return self.word(first, dot)

    def word(self, word: Any, dot: Any) -> Any:
        """One word's value."""
        if isinstance(word, Dot):
            return dot
        if isinstance(word, Null):
            return None
        if isinstance(word, Literal):
            return word.value
        if isinstance(word, Pipe):
            return self.pipe(word, dot)
        if isinstance(word, Function):
            return self.call(word, (word,), dot, [])
        if isinstance(word, Field):
            return self.fields(word, dot, word.names, [])
        if isinstance(word, Variable):
            value = next(pair for pair in reversed(self.variables) if pair[0] == word.name)[1]
            return self.fields(word, value, word.names, [])
        return self.fields(word, self.pipe(word.inner, dot), word.names, [])

    def call(self, function: Any, words: tuple[Any, ...], dot: Any, final: list[Any]) -> Any:
        """A function's value; `and` and `or` look no further than they must."""
        from . import template_functions

        if function.text in ("and", "or"):
            if not words[1:] and not final:
                raise self.fail(function, f"wrong number of args for {function.text}: want at least 1 got 0")
            value: Any = None
            for word in words[1:]:
                value = self.word(word, dot)
                if template_functions.true(value) == (function.text == "or"):
                    return value
            return final[0] if final else value
        arguments = [self.word(word, dot) for word in words[1:]] + final
        try:
            return template_functions.call(function.text, arguments)
        except template_functions.WrongCount as error:
            raise self.fail(function, str(error)) from None
        except template_functions.WrongArgument as error:
            place = words[1 + error.index] if error.index + 1 < len(words) else function
            raise self.fail(place, error.why(place.text if isinstance(place, Literal) else "")) from None
        except template_functions.CannotDo as error:
            why = f"error calling {function.text}: {error}"
            raise self.fail(function, why, command_text(words)) from None

    def fields(self, word: Any, value: Any, names: list[str], arguments: list[Any]) -> Any:
        """`.A.B.C` of a value; arguments are for a method at the end."""
        for index, name in enumerate(names):
            last = index + 1 == len(names)
            if isinstance(value, Methods):
                if name not in value:
                    raise self.fail(word, f"can't evaluate field {name} in type {value.kind}")
                try:
                    value = value[name](*(arguments if last else ()))
                except TypeError:
                    raise self.fail(word, f"wrong number of args for {name}") from None
                if last:
                    return value
            elif isinstance(value, Struct):
                if name not in value and not (last and name in value.absent):
                    raise self.fail(word, f'map has no entry for key "{name}"')
                value = value.get(name)
            elif isinstance(value, dict):
                if name not in value and not last:
                    raise self.fail(word, f'map has no entry for key "{name}"')
                value = value.get(name, NOTHING)
            elif value is None or isinstance(value, Nothing | Nil):
                raise self.fail(word, f"nil pointer evaluating interface {{}}.{name}")
            else:
                raise self.fail(word, f"can't evaluate field {name} in type interface {{}}")
        if names and arguments:
            raise self.fail(word, f"{names[-1]} is not a method but has arguments")
        return value
