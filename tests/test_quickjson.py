"""quickjson says what json says, of any value and of any text; and without `re` and `enum`."""

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from minicontainer import quickjson

VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
    max_leaves=20,
)
HALF = some.sampled_from([*'{}[]:,a1-.e "\\\n', "null", "NaN", "é"])


def outcome(function: Any, text: str | bytes) -> str:
    """What it returns, or raises."""
    try:
        return repr(function(text))
    except ValueError as error:
        return f"{type(error).__name__}: {error}"


@given(VALUES, some.sampled_from([None, 1, "\t"]), some.booleans(), some.booleans())
def test_writing(value: Any, indent: int | str | None, ascii_: bool, order: bool) -> None:
    for separators in (None, (",", ":")):
        flags: dict[str, Any] = {"indent": indent, "separators": separators, "ensure_ascii": ascii_, "sort_keys": order}
        assert quickjson.dumps(value, **flags) == json.dumps(value, **flags)


@given(VALUES, some.sampled_from(["utf-8", "utf-16", "utf-8-sig", "utf-32"]))
def test_reading(value: Any, encoding: str) -> None:
    text = json.dumps(value, ensure_ascii=False)
    if "surrogates" not in outcome(str.encode, text):
        assert outcome(quickjson.loads, text.encode(encoding)) == outcome(json.loads, text.encode(encoding))
    assert outcome(quickjson.loads, f" {text}\n") == outcome(json.loads, text)


@given(some.lists(HALF).map("".join) | some.text())
def test_what_is_no_json_is_refused_in_the_same_words(text: str) -> None:
    assert outcome(quickjson.loads, text) == outcome(json.loads, text)
    raw = text.encode("utf-8", "surrogatepass")
    assert outcome(quickjson.loads, raw) == outcome(json.loads, raw)


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", {"a": object()}])
def test_what_has_no_form_is_refused(value: Any) -> None:
    with pytest.raises(TypeError) as ours:
        quickjson.dumps(value)
    with pytest.raises(TypeError) as theirs:
        json.dumps(value)
    assert str(ours.value) == str(theirs.value)


def test_it_brings_neither_re_nor_enum() -> None:
    code = "import sys; from minicontainer import quickjson; quickjson.loads(quickjson.dumps({'a': [1.5, None]})); " \
           "print(sorted({'re', 'enum', 'json'} & set(sys.modules)))"  # fmt: skip
    assert subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_where_json_has_not_been_imported_either() -> None:
    """The scanner's own errors are json's, which it looks for among what is imported."""
    code = "import sys; from minicontainer import quickjson\ntry: quickjson.loads(sys.argv[1].encode())\n" \
           "except ValueError as error: print(error)"  # fmt: skip
    for text in ("{", '{"a" 1}', '["\\', '{"a": 1,}', "[1 2]", '["\n"]'):
        done = subprocess.run([sys.executable, "-S", "-c", code, text], capture_output=True, text=True)
        assert f"ValueError: {done.stdout.strip()}" == outcome(json.loads, text).replace("JSONDecode", "Value")
