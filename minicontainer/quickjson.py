"""`loads` and `dumps` of json, by the same C functions, for what a start imports.

`import json` brings `re` and `enum` along, 4 ms of every start, for two things that a start does not need: to say where
a text that is no JSON is wrong, and to indent. For these two, json is fetched when they are asked for.
"""

from __future__ import annotations

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from typing import Any

WHITE = " \t\n\r"
CONSTANTS = {"-Infinity": float("-inf"), "Infinity": float("inf"), "NaN": float("nan")}


class Decoding:
    """What the scanner asks about: all as json.JSONDecoder has it by default."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int, parse_constant = float, int, CONSTANTS.__getitem__


scan = _json.make_scanner(Decoding)  # type: ignore[arg-type]


def loads(text: str | bytes) -> Any:
    """json.loads(text). Raises ValueError (json.JSONDecodeError), which says where it is wrong, and RecursionError."""
    if isinstance(text, bytes):
        if text[:1] not in (b"{", b"[") or text[1:2] == b"\0":  # perhaps it is UTF-16, or begins with a mark
            return slow().loads(text)
        text = text.decode("utf-8", "surrogatepass")
    try:
        value, end = scan(text, len(text) - len(text.lstrip(WHITE)))
    except (StopIteration, SystemError):  # the latter: the C function looks for json's error, and json is not there
        return slow().loads(text)  # which raises
    if text[end:].strip(WHITE):
        return slow().loads(text)  # which raises
    return value


def dumps(value: Any, indent: int | str | None = None, separators: tuple[str, str] | None = None,
          sort_keys: bool = False, ensure_ascii: bool = True) -> str:  # fmt: skip
    """json.dumps(value, …). Raises TypeError for what JSON has no form for, ValueError for what contains itself."""
    if indent is not None:
        return str(slow().dumps(value, indent=indent, separators=separators, sort_keys=sort_keys,
                                ensure_ascii=ensure_ascii))  # fmt: skip
    between, after = separators or (", ", ": ")
    quote = _json.encode_basestring_ascii if ensure_ascii else _json.encode_basestring
    return "".join(_json.make_encoder({}, refuse, quote, None, after, between, sort_keys, False, True)(value, 0))


def refuse(value: object) -> None:
    """Raise TypeError: JSON has no form for it."""
    raise TypeError(f"Object of type {value.__class__.__name__} is not JSON serializable")


def slow() -> Any:
    """The library's own."""
    import json

    return json
