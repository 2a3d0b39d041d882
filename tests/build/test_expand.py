"""Variables in an instruction's text, as BuildKit's shell has them. Pure."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer.build import expand

VARIABLES = {"x": "abcabc", "empty": "", "path": "/a/b.tar.gz", "two": "p q", "star": "*b"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("$x", "abcabc"), ("${x}y", "abcabcy"), ("$xy", ""), ("a$", "a$"), ("$ a", "$ a"), ("$/", "$/"),
        ("${none}", ""), ("${none:-d}", "d"), ("${none-d}", "d"), ("${empty:-d}", "d"), ("${empty-d}", ""),
        ("${x:+d}", "d"), ("${empty:+d}", ""), ("${empty+d}", "d"), ("${none+d}", ""), ("${x:?no}", "abcabc"),
        ("${none:-${x}}", "abcabc"), ("${none:-a\\}b}", "a}b"), ("${none:-'}'}", "}"), ("${none:-}", ""),
        ("${path##*/}", "b.tar.gz"), ("${path#*/}", "a/b.tar.gz"), ("${path%.*}", "/a/b.tar"), ("${path%%.*}", "/a/b"),
        ("${x#z}", "abcabc"), ("${x%c}", "abcab"), ("${x#?}", "bcabc"), ("${x#$star}", "cabc"), ("${x##$star}", "c"),
        ("${x/b/-}", "a-cabc"), ("${x//b/-}", "a-ca-c"), ("${x//b/}", "acac"), ("${x/b*/-}", "a-"),
        ("${x/z/-}", "abcabc"),
        ("${path//\\//_}", "_a_b.tar.gz"), ("${x/\\*/-}", "abcabc"),
        ("'$x'", "$x"), ('"$x"', "abcabc"), ("\\$x", "$x"), ('"\\$x"', "$x"), ('"\\a"', "\\a"), ("\\a", "a"),
        ('"a \\" b"', 'a " b'), ("a\\", "a"), ("a'b'\"c\"", "abc"), ("é$x", "éabcabc"),
    ],
)  # fmt: skip
def test_expansions(text: str, said: str) -> None:
    assert expand.expand(text, VARIABLES).text == said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a  b", ("a", "b")),
        ("$two", ("p", "q")),
        ('"$two" c', ("p q", "c")),
        ("a\\ b", ("a b",)),
        ("''", ("",)),
        ("$empty", ()),
        ("x$two", ("xp", "q")),
    ],
)
def test_words(text: str, words: tuple[str, ...]) -> None:
    assert expand.expand(text, VARIABLES).words == words


def test_a_backtick_that_escapes() -> None:
    assert expand.expand('C:\\dir `$x "`$x"', VARIABLES, "`").text == "C:\\dir $x $x"


def test_names_that_nothing_was_known_of() -> None:
    assert expand.expand("$a ${b} ${c:-x} $a $x", VARIABLES).unset == ("a", "b")


@pytest.mark.parametrize(
    "text", ["'a", '"a', "${", "${x", "${}", "${x:", "${x:-a", "${x!}", "${x:#a}", "${x/a}", "${x?"]
)
def test_what_does_not_end_or_does_not_exist(text: str) -> None:
    with pytest.raises(expand.Malformed):
        expand.expand(text, VARIABLES)


def test_a_variable_that_must_be_set() -> None:
    with pytest.raises(expand.Malformed, match="none: say so"):
        expand.expand("${none:?say so}", VARIABLES)


def test_a_pattern_of_many_stars_comes_to_an_end() -> None:
    """Backtracking would try 10^40 ways, and meet the suite's time limit."""
    assert expand.expand("${x#" + "*a" * 20 + "*c}", {"x": "a" * 2000}).text == "a" * 2000


@settings(max_examples=300, deadline=None, database=None)
@given(st.text(alphabet="ax$${}{}:-+?#%/\\'\"` *", max_size=30))
def test_noise_ends_in_malformed_alone(text: str) -> None:
    for escape in "\\`":
        try:
            found = expand.expand(text, VARIABLES, escape)
        except expand.Malformed:
            continue
        assert isinstance(found.text, str)
