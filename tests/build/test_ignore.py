"""`.dockerignore`: who is left out, and where a walk need not go. Pure."""

import fnmatch
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer import errors
from minicontainer.build import ignore


@pytest.mark.parametrize(
    ("lines", "left_out", "kept"),
    [
        ("a", ["a", "a/b", "a/b/c"], ["b", "b/a", "ab"]),
        ("/a/", ["a", "a/b"], ["b/a"]),
        ("  ./a//x/../b  ", ["a/b", "a/b/c"], ["a", "a/x"]),
        ("*.md", ["x.md", "x.md/y"], ["d/x.md", "xmd"]),
        ("*/*.md", ["d/x.md"], ["x.md", "e/d/x.md"]),
        ("**/*.md", ["x.md", "d/x.md", "e/d/x.md"], ["x.mdx"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "b", "ab"]),
        ("**", ["a", "a/b"], []),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["a/b", "z"]),
        ("temp?", ["tempa"], ["temp", "tempab"]),
        ("[a-c]x", ["ax", "cx"], ["dx", "x"]),
        ("[^a-c]x", ["dx"], ["ax"]),
        ("\\*", ["*"], ["a"]),
        ("[\\]\\-^a]", ["]", "-", "^", "a"], ["\\", "b"]),
        ("[!a]", ["!", "a"], ["b"]),
        ("# a\n #b\n\n", ["#b"], ["a", "# a"]),
        ("a\r\nb\r\n", ["a", "b"], ["a\r"]),
        ("*\n!a", ["b", "b/a"], ["a", "a/b"]),
        ("*.md\n!README*.md\nREADME-secret.md", ["x.md", "README-secret.md"], ["README-1.md"]),
        ("*.md\nREADME-secret.md\n!README*.md", ["x.md"], ["README-secret.md"]),
        ("a\n! a/b ", ["a", "a/c"], ["a/b", "a/b/c"]),
        (".\n/\n..", [], ["a", "b/c"]),
        ("", [], ["a"]),
    ],
)
def test_what_is_left_out(lines: str, left_out: list[str], kept: list[str]) -> None:
    rules = ignore.parse(lines)
    assert [path for path in left_out + kept if rules.ignored(path)] == left_out


@pytest.mark.parametrize(
    ("lines", "pruned", "walked"),
    [
        ("a", ["a", "a/b"], ["b"]),
        ("*\n!a/b", ["c", "a/c"], ["a", "a/b"]),
        ("a\n!**/x", [], ["a", "a/b"]),
        ("a\n!x", ["a"], ["x"]),
        ("a\n!a/b\na/b", ["a/b"], ["b"]),
        ("*.md", ["d.md"], ["d"]),
    ],
)
def test_where_a_walk_need_not_go(lines: str, pruned: list[str], walked: list[str]) -> None:
    rules = ignore.parse(lines)
    assert [path for path in pruned + walked if rules.prunes(path)] == pruned


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\n!\n", 2),
        ("a\n\n[b\n", 3),
        ("a\\", 1),
        ("[b-a]", 1),
        ("# x\n! ", 2),
        *((f"[{x}", 1) for x in ("]", "^]a]", "-a]", "a-]", "a\\")),
    ],
)
def test_an_error_names_its_line(text: str, line: int) -> None:
    with pytest.raises(errors.BuildError) as caught:
        ignore.parse(text)
    assert caught.value.line == line


def test_a_dockerfiles_own_comes_first() -> None:
    assert ignore.names("docker/app.Dockerfile") == ("docker/app.Dockerfile.dockerignore", ".dockerignore")


PATTERNS = st.lists(st.sampled_from(["a", "b", "*", "**", "!", "/", "\n", "\n!", "?", "a*", "#", " "]), max_size=14)
PATHS = st.lists(st.sampled_from(["a", "b", "ab", "c"]), min_size=1, max_size=3)


@settings(max_examples=400, deadline=None, database=None)
@given(PATTERNS, PATHS, PATHS)
def test_what_is_pruned_has_nothing_that_is_kept(pattern: list[str], directory: list[str], below: list[str]) -> None:
    try:
        rules = ignore.parse("".join(pattern))
    except errors.BuildError:
        return
    if rules.prunes("/".join(directory)):
        assert rules.ignored("/".join(directory)) and rules.ignored("/".join(directory + below))


def covers(parts: list[str], names: list[str]) -> bool:
    """Whether a pattern matches a path or a directory above it, said as shortly as can be."""
    if not parts:
        return True
    if not names:
        return False
    if parts[0] == "**":
        return (parts == ["**"]) or covers(parts[1:], names) or covers(parts, names[1:])
    return fnmatch.fnmatchcase(names[0], parts[0]) and covers(parts[1:], names[1:])


NAMED = st.sampled_from(["a", "b", "ab", "**", "*", "a*", "?", "*b"])
RULES = st.lists(st.tuples(st.booleans(), st.lists(NAMED, min_size=1, max_size=4)), max_size=4)


@settings(max_examples=500, deadline=None, database=None)
@given(RULES, st.lists(st.sampled_from(["a", "b", "ab", "c"]), min_size=1, max_size=4))
def test_the_last_rule_that_matches_decides(rules: list[tuple[bool, list[str]]], path: list[str]) -> None:
    text = "\n".join(("!" if back else "") + "/".join(parts) for back, parts in rules)
    wanted = False
    for back, parts in rules:
        if covers(parts, path):
            wanted = not back
    assert ignore.parse(text).ignored("/".join(path)) == wanted


@settings(max_examples=200, deadline=None, database=None)
@given(st.text(alphabet="ab*?[]^-\\/!# .\n&|~é", max_size=30))
def test_noise_ends_in_build_errors_alone(text: str) -> None:
    try:
        rules = ignore.parse(text)
    except errors.BuildError as error:
        assert error.line
    else:
        assert not rules.rules or rules.ignored("a/b") in (True, False)


def test_very_many_stars_take_no_longer() -> None:
    began = time.monotonic()
    rules = ignore.parse("a*" * 500 + "b\n" + "*[a-b]" * 500 + "c\n" + "**/" * 300 + "x*y\n")
    assert not rules.ignored("a" * 255) and not rules.ignored("/".join(["a" * 250] * 16))
    assert time.monotonic() - began < 3
    assert ignore.parse("a*b?*c*\n").ignored("aXbYbZZcc") and not ignore.parse("a*bc*c\n").ignored("abc")
