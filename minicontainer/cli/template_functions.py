"""The functions of a template (template.py), and how Go shows a value: docker's own few, and those of text/template.

Offers `call(name, arguments)`, `text` and `true`. Source: pkg.go.dev/text/template and fmt; docker's templates package.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from . import template

WIDEST = 10**6  # Go's bound of a width or precision


class CannotDo(Exception):  # noqa: N818
    """A function refuses its arguments; template.py makes its error of it."""


class WrongCount(Exception):  # noqa: N818
    """Too many arguments, or too few."""


class WrongArgument(Exception):  # noqa: N818
    """The argument at `index` is of a type that the function does not take."""

    def __init__(self, index: int, wanted: str, value: Any) -> None:
        super().__init__(index, wanted, value)
        self.index, self.wanted, self.value = index, wanted, value

    def why(self, literal: str) -> str:
        """Go's words; a literal is quoted, of other values the type is told."""
        if self.wanted == "[]string":
            return f"can't handle {literal or text(self.value)} for arg of type []string"
        if literal:
            return f"expected {self.wanted}; found {literal}"
        return f"wrong type for value; expected {self.wanted}; got {kind(self.value)}"


def call(name: str, arguments: list[Any]) -> Any:
    """The function's value for these arguments."""
    function, types, more = FUNCTIONS[name]
    if len(arguments) < len(types) or (len(arguments) > len(types) and not more):
        least = "at least " if more else ""
        raise WrongCount(f"wrong number of args for {name}: want {least}{len(types)} got {len(arguments)}")
    for index, (argument, wanted) in enumerate(zip(arguments, types, strict=False)):
        if wanted is str and not isinstance(argument, str):
            raise WrongArgument(index, "string", argument)
        if wanted is int and (not isinstance(argument, int) or isinstance(argument, bool)):
            raise WrongArgument(index, "integer", argument)
        if wanted is list:
            if not isinstance(argument, list) or any(not isinstance(item, str) for item in argument):
                raise WrongArgument(index, "[]string", argument)
    return function(*arguments)


# Values


def true(value: Any) -> bool:
    """What `if` takes for true: whatever is not zero, not empty, not nothing."""
    return isinstance(value, template.Struct | template.Methods) or (
        not isinstance(value, template.Nothing) and bool(value)
    )


def text(value: Any) -> str:
    """A value as Go's %v shows it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>"
    if isinstance(value, template.Nothing):
        return "<no value>"
    if isinstance(value, float):
        return float_text(value)
    if isinstance(value, template.Nil):
        return value.shown
    if isinstance(value, list):
        return f"[{' '.join(text(item) for item in value)}]"
    if isinstance(value, template.Methods):
        return f"{{{' '.join(text(function()) for name, function in value.items() if name != 'Label')}}}"
    if isinstance(value, template.Struct):
        items = [*value.values(), *[None for _ in value.absent]]
        return f"{{{' '.join(text(item) for item in items)}}}"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{text(item)}' for key, item in sorted(value.items()))}]"
    return str(value)


def float_text(value: float) -> str:
    """The shortest digits that mean this number; an exponent below 1e-4 and from 1e21 on."""
    if value != value or value in (float("inf"), float("-inf")):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[str(value)]
    if value == 0 or 1e-4 <= abs(value) < 1e21:
        shown = f"{value:.17f}" if "e" in repr(value) else repr(value)
        return shown.rstrip("0").rstrip(".") if "." in shown else shown
    mantissa, _, exponent = f"{value!r}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent):+03d}"


def plain(value: Any) -> Any:
    """A value for json.dumps: maps by their sorted keys, as Go has them."""
    if isinstance(value, template.Methods):
        return {name: plain(function()) for name, function in sorted(value.items()) if name != "Label"}
    if isinstance(value, template.Struct):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, dict):
        return {name: plain(item) for name, item in sorted(value.items())}
    if isinstance(value, template.Nil | template.Nothing):
        return None
    return [plain(item) for item in value] if isinstance(value, list) else value


def to_json(value: Any) -> str:
    """One line, as Go writes it; of a list command's row with `<`, `>` and `&` escaped, as docker's are."""
    line = json.dumps(plain(value), separators=(",", ":"), ensure_ascii=False)
    if isinstance(value, template.Methods):
        for character in "<>&":
            line = line.replace(character, f"\\u{ord(character):04x}")
    return line


def kind(value: Any) -> str:
    """A value's type, as Go calls it."""
    if value is None or isinstance(value, template.Nothing):
        return "nil"
    names = ((bool, "bool"), (str, "string"), (int, "int"), (float, "float64"), (list, "[]interface {}"))
    return next((name for type, name in names if isinstance(value, type)), "map[string]interface {}")


# Functions


def length(value: Any) -> int:
    """len"""
    if isinstance(value, str):
        return len(value.encode(errors="surrogatepass"))
    if isinstance(value, list | dict) and not isinstance(value, template.Methods):
        return len(value)
    raise CannotDo(f"len of {'nil pointer' if value is None else f'type {kind(value)}'}")


def index(value: Any, *keys: Any) -> Any:
    """index X 1 "a": X[1]["a"]"""
    for key in keys:
        if value is None or isinstance(value, template.Nothing):
            raise CannotDo("index of untyped nil")
        if isinstance(value, dict) and not isinstance(value, template.Methods):
            if not isinstance(key, str):
                raise CannotDo(f"value has type {kind(key)}; should be string")
            value = value.get(key, "" if all(isinstance(item, str) for item in value.values()) else None)
        elif isinstance(value, list | str):
            if not isinstance(key, int) or isinstance(key, bool):
                raise CannotDo(f"cannot index slice/array with type {kind(key)}")
            value = value.encode(errors="surrogatepass") if isinstance(value, str) else value
            if not 0 <= key < len(value):
                raise CannotDo(f"index out of range: {key}")
            value = value[key]
        else:
            raise CannotDo(f"can't index item of type {kind(value)}")
    return value


def slice_of(value: Any, *bounds: Any) -> Any:
    """slice X 1 2: X[1:2]"""
    if len(bounds) > 2:
        raise CannotDo(f"too many slice indexes: {len(bounds)}")
    if not isinstance(value, list | str):
        raise CannotDo("slice of untyped nil" if value is None else f"can't slice item of type {kind(value)}")
    whole = value.encode(errors="surrogatepass") if isinstance(value, str) else value
    limits = [0, len(whole)]
    for place, bound in enumerate(bounds):
        if not isinstance(bound, int) or isinstance(bound, bool):
            raise CannotDo(f"cannot index slice/array with type {kind(bound)}")
        if not 0 <= bound <= len(whole):
            raise CannotDo(f"index out of range: {bound}")
        limits[place] = bound
    if limits[0] > limits[1]:
        raise CannotDo(f"invalid slice index: {limits[0]} > {limits[1]}")
    part = whole[limits[0] : limits[1]]
    return part.decode(errors="replace") if isinstance(part, bytes) else part


def comparable(value: Any, *others: Any) -> None:
    """Raise unless all are of one simple type; nothing can be compared for equality only."""
    kinds = set()
    for item in (value, *others):
        if isinstance(item, list | dict):
            raise CannotDo(f"non-comparable type {text(item)}: {kind(item)}")
        kinds.add(kind(item))
    if len(kinds - {"nil"}) > 1:
        raise CannotDo("incompatible types for comparison")


def equal(first: Any, *others: Any) -> bool:
    """eq A B C: whether A is B, or C."""
    if not others:
        raise CannotDo("missing argument for comparison")
    comparable(first, *others)
    return any(first == other for other in others)


def unequal(first: Any, second: Any) -> bool:
    """ne"""
    comparable(first, second)
    return bool(first != second)


def less(first: Any, second: Any) -> bool:
    """lt"""
    comparable(first, second)
    if kind(first) in ("bool", "nil") or kind(second) == "nil":
        raise CannotDo("invalid type for comparison")
    return bool(first < second)


def printed(*values: Any) -> str:
    """print: a blank between two that are both no text."""
    result = ""
    for place, value in enumerate(values):
        if place and not isinstance(value, str) and not isinstance(values[place - 1], str):
            result += " "
        result += text(value)
    return result


def title(value: str) -> str:
    """title: the first letter of each word large."""
    return re.sub(r"(?<!\w)\w", lambda found: found[0].upper(), value)


# Printf

VERB = re.compile(r"%([-+# 0]*)(\d*)(?:\.(\d*))?(.)?", re.DOTALL)


def printf(form: str, *arguments: Any) -> str:
    """Go's fmt.Sprintf, with v s q d x X o b c t f e g T and flags, width and precision."""
    result, position, used = [], 0, 0
    for found in VERB.finditer(form):
        result.append(form[position : found.start()])
        position = found.end()
        flags, width, precision, verb = found.groups()
        if verb is None:
            result.append("%!(NOVERB)")
        elif verb == "%":
            result.append("%")
        elif used == len(arguments):
            result.append(f"%!{verb}(MISSING)")
        elif int(width or 0) > WIDEST or int(precision or 0) > WIDEST:
            result.append("%!(BADWIDTH)")
            used += 1
        else:
            shown = formatted(arguments[used], verb, flags, None if precision is None else int(precision or 0))
            used += 1
            result.append(padded(shown, flags, int(width or 0), verb in "dxXobfeEgFG"))
    result.append(form[position:])
    if used < len(arguments):
        left = ", ".join("<nil>" if value is None else f"{kind(value)}={text(value)}" for value in arguments[used:])
        result.append(f"%!(EXTRA {left})")
    return "".join(result)


def padded(shown: str, flags: str, width: int, number: bool) -> str:
    """To the width asked for: by blanks, or zeros behind a number's sign."""
    if "-" in flags:
        return shown.ljust(width)
    if "0" in flags and number:
        sign = shown[:1] if shown[:1] in ("-", "+") else ""
        return sign + shown[len(sign) :].rjust(width - len(sign), "0")
    return shown.rjust(width)


def formatted(value: Any, verb: str, flags: str, precision: int | None) -> str:
    """One value by one verb; what does not fit is said as Go says it."""
    if verb == "v":
        return text(value)
    if verb == "T":
        return "<nil>" if value is None else kind(value)
    if isinstance(value, list):
        return f"[{' '.join(formatted(item, verb, flags, precision) for item in value)}]"
    if isinstance(value, bool):
        if verb == "t":
            return text(value)
    elif isinstance(value, str):
        if verb in "sq":
            shown = value if precision is None else value[:precision]
            return template.quoted(shown) if verb == "q" else shown
        if verb in "xX":
            digits = value.encode(errors="surrogatepass").hex()
            return digits.upper() if verb == "X" else digits
    elif isinstance(value, int):
        if verb in "dxXob":
            return format(value, verb if "+" not in flags else f"+{verb}")
        if verb in "cq":
            character = chr(value) if 0 <= value <= 0x10FFFF and not 0xD800 <= value < 0xE000 else "\ufffd"
            return character if verb == "c" else f"'{character}'"
    elif isinstance(value, float):
        if verb in "feEgFG":
            if verb in "gG" and precision is None:
                return float_text(value)
            digits = "" if precision is None else f".{min(precision, 100)}"
            return format(value, f"{'+' if '+' in flags else ''}{digits}{verb}")
    if value is None:
        return f"%!{verb}(<nil>)"
    return f"%!{verb}({kind(value)}={text(value)})"


# A name: the function, the types of the arguments that it must have, whether it takes more.
FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[type, ...], bool]] = {
    "not": (lambda value: not true(value), (object,), False),
    "len": (length, (object,), False),
    "index": (index, (object,), True),
    "slice": (slice_of, (object,), True),
    "eq": (equal, (object,), True),
    "ne": (unequal, (object, object), False),
    "lt": (less, (object, object), False),
    "le": (lambda first, second: not less(second, first), (object, object), False),
    "gt": (lambda first, second: less(second, first), (object, object), False),
    "ge": (lambda first, second: not less(first, second), (object, object), False),
    "print": (printed, (), True),
    "println": (lambda *values: " ".join(text(value) for value in values) + "\n", (), True),
    "printf": (printf, (str,), True),
    "json": (to_json, (object,), False),
    "join": (lambda words, between: between.join(words), (list, str), False),
    "split": (lambda value, between: value.split(between) if between else list(value), (str, str), False),
    "lower": (lambda value: value.lower(), (str,), False),
    "upper": (lambda value: value.upper(), (str,), False),
    "title": (title, (str,), False),
    "pad": (lambda value, before, after: " " * min(before, WIDEST) + value + " " * min(after, WIDEST) if value else "",
            (str, int, int), False),
    "truncate": (lambda value, count: value[: max(0, count)], (str, int), False),
}  # fmt: skip
