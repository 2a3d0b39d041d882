"""Dockerfiles taken apart: golden files, BuildKit's odd corners, errors that name their line, and noise. Pure.

Who changes the parser on purpose writes the golden files anew by `python tests/build/test_dockerfile.py`, and reads
what that changed.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer import errors
from minicontainer.build import check, dockerfile, instructions

GOLDEN = Path(__file__).parent / "golden"


def told(value: Any) -> Any:
    """A tree of named tuples as plain JSON; of a statement, where it stands."""
    if isinstance(value, dockerfile.Statement):
        return f"{value.spelled} {value.first}-{value.last}"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        fields = {name: told(part) for name, part in zip(value._fields, value, strict=True)}
        return {"is": type(value).__name__, **fields}
    return [told(part) for part in value] if isinstance(value, tuple) else value


def document(path: Path) -> str:
    source = dockerfile.parse(path.read_bytes(), path.name)
    script = instructions.read(source)
    whole = {
        "directives": source.directives,
        "empty continuations": told(source.empty_continuations),
        "arguments": told(script.arguments),
        "stages": told(script.stages),
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def script_of(text: str) -> instructions.Script:
    return instructions.read(dockerfile.parse(text))


def only(line: str) -> Any:
    """The one instruction of a stage."""
    (instruction,) = script_of(f"FROM a\n{line}\n").stages[0].instructions
    return instruction


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.Dockerfile")), ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    assert document(path) == path.with_suffix(".json").read_text()


def test_every_instruction_is_in_a_golden_file() -> None:
    sources = [dockerfile.parse(path.read_bytes()) for path in GOLDEN.glob("*.Dockerfile")]
    used = {statement.keyword for source in sources for statement in source.statements}
    assert used == set(instructions.READERS)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('CMD ["a", "b c"]', ("a", "b c")),
        ("CMD []", ()),
        ("CMD ['a']", None),
        ("CMD [ -f x ]", None),
        ('CMD ["a"] && b', None),
        ("CMD [NaN]", None),
        ('CMD ["a",]', None),
        ('CMD ["\\u00e4"]', ("ä",)),
        ('CMD ["\\ud800"]', ("\ufffd",)),
        ("CMD a [b]", None),
    ],
)
def test_what_is_json_and_what_is_a_shells(line: str, words: tuple[str, ...] | None) -> None:
    assert only(line).command.words == words


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("RUN a \\\nb", "a b"),
        ("RUN a \\  \n  b", "a   b"),
        ("RUN a\\\nb", "ab"),
        ("RUN a \\\\\n", "a \\\\"),
        ("RUN a \\\n# c\n  # d\nb", "a b"),
        ("RUN a \\\n\n\nb", "a b"),
        ("RUN a \\", "a"),
        ("  RUN\ta  ", "a"),
        ("RUN a # b", "a # b"),
        ("RUN \\\n a", "a"),
    ],
)
def test_lines_that_are_one(text: str, said: str) -> None:
    assert only(text).command.text == said


def test_lines_are_counted_in_the_file() -> None:
    source = dockerfile.parse("\n# c\nFROM a\n\nRUN a \\\n\n# d\n b\nRUN <<E\nx\nE\n\n")
    assert [(one.first, one.last) for one in source.statements] == [(3, 3), (5, 8), (9, 11)]
    assert source.empty_continuations == (6,)


@pytest.mark.parametrize(
    ("text", "directives"),
    [
        ("#escape=`\nFROM a", {"escape": "`"}),
        ("# Syntax = x/y:1 \n# check=skip=all;error=true\nFROM a", {"syntax": "x/y:1", "check": "skip=all;error=true"}),
        ("# unknown=1\n# escape=`\nFROM a", {"escape": "`"}),
        ("# words\n# escape=`\nFROM a", {}),
        ("\n# escape=`\nFROM a", {}),
        ("FROM a\n# escape=`", {}),
        ("\ufeff# escape=`\r\nFROM a", {"escape": "`"}),
    ],
)
def test_directives(text: str, directives: dict[str, str]) -> None:
    assert dockerfile.parse(text).directives == directives


def test_defaults_of_mounts() -> None:
    bind, cache, secret, ssh, variable = only(
        "RUN --mount=target=/x --mount=type=cache,dst=/c,ro=false --mount=type=secret,target=/etc/key"
        " --mount=type=ssh --mount=type=secret,id=a,env=TOKEN true"
    ).mounts
    assert (bind.type, bind.readonly, bind.source, bind.from_) == ("bind", True, "", "")
    assert (cache.id, cache.sharing, cache.mode, cache.readonly) == ("/c", "shared", "0755", False)
    assert (secret.id, secret.target, secret.mode, secret.required) == ("key", "/etc/key", "0400", False)
    assert (ssh.id, ssh.mode) == ("default", "0600")
    assert (variable.target, variable.env) == ("", "TOKEN")


# Each with the line that it must name, and a word of what it must say.
BROKEN = [
    ("", 0, "no instruction"),
    ("# only\n", 0, "no instruction"),
    ("RUN a\nFROM b", 1, "before the first FROM"),
    ("ARG a=1\n", 1, "no FROM"),
    ("# escape=x\nFROM a", 1, "escape=x"),
    ("# escape=`\n# escape=`\nFROM a", 2, "twice"),
    ("FROM", 1, "needs an image"),
    ("FROM a b", 1, "needs an image"),
    ("FROM a AS 1x", 1, "cannot be a stage's name"),
    ("FROM a\n\nNOSUCH x", 3, "no such instruction"),
    ("FROM a\nCOPPY x y", 2, "COPPY: no such instruction (did you mean COPY?)"),
    ("FROM a\n&& b", 2, "no instruction"),
    ("FROM a\nRUN", 2, "needs a command"),
    ("FROM a\nRUN []", 2, "needs a command"),
    ("FROM a\nRUN [1]", 2, "strings"),
    ("FROM a\nRUN <<E\nx\n", 2, "has no end"),
    ("FROM a\nRUN a \\\n <<E\nx\n", 3, "has no end"),
    ("FROM a\nCOPY a", 2, "a source and a target"),
    ("FROM a\nCOPY a <<E\nE\n", 2, "cannot be the target"),
    ("FROM a\nCOPY --form=x a b", 2, "unknown flag --form"),
    ("FROM a\nCOPY \\\n  --from a b", 3, "needs a value"),
    ("FROM a\nCOPY --link=maybe a b", 2, "true or false"),
    ("FROM a\nCOPY --from=a --from=b a b", 2, "twice"),
    ("FROM a\nADD --checksum=md5:1 a b", 2, "sha256"),
    ("FROM a\nENV", 2, "needs a name"),
    ("FROM a\nENV a", 2, "no value"),
    ("FROM a\nENV a=1 \\\n  b", 3, "has no ="),
    ("FROM a\nLABEL =x", 2, "no name"),
    ("FROM a\nARG", 2, "needs a name"),
    ("FROM a\nEXPOSE x", 2, "no port"),
    ("FROM a\nEXPOSE 80 \\\n 70000", 3, "65535"),
    ("FROM a\nEXPOSE 90-80", 2, "goes up"),
    ("FROM a\nHEALTHCHECK x", 2, "CMD or NONE"),
    ("FROM a\nHEALTHCHECK NONE x", 2, "stands alone"),
    ("FROM a\nHEALTHCHECK CMD", 2, "needs a command"),
    ("FROM a\nHEALTHCHECK --interval=5 CMD a", 2, "a time"),
    ("FROM a\nHEALTHCHECK --interval=1us CMD a", 2, "millisecond"),
    ("FROM a\nHEALTHCHECK --retries=x CMD a", 2, "a number"),
    ("FROM a\nONBUILD", 2, "needs an instruction"),
    ("FROM a\nONBUILD FROM b", 2, "may not stand behind"),
    ("FROM a\nONBUILD ONBUILD RUN b", 2, "may not stand behind"),
    ("FROM a\nONBUILD COPY b", 2, "a source and a target"),
    ("FROM a\nSHELL bash -c", 2, "JSON array"),
    ("FROM a\nSHELL []", 2, "JSON array"),
    ("FROM a\nUSER", 2, "needs a user"),
    ("FROM a\nWORKDIR", 2, "needs a path"),
    ("FROM a\nSTOPSIGNAL", 2, "needs a signal"),
    ("FROM a\nMAINTAINER", 2, "needs a name"),
    ('FROM a\nVOLUME [""]', 2, "a path"),
    ("FROM a\nRUN --network=lan b", 2, "default, none or host"),
    ("FROM a\nRUN --mount=type=nfs,target=/x b", 2, "no type 'nfs'"),
    ("FROM a\nRUN --mount=type=cache b", 2, "needs a target"),
    ("FROM a\nRUN --mount=type=secret b", 2, "an id or a target"),
    ("FROM a\nRUN --mount=type=tmpfs,target=/x,sharing=shared b", 2, "no option 'sharing'"),
    ("FROM a\nRUN true \\\n && b\nRUN --mount=type=cache,target=/x,sharing=some b", 4, "shared, private or locked"),
    ("FROM a\nRUN --mount=type=cache,target b", 2, "needs a value"),
    ("FROM a\nRUN --mount= b", 2, "commas"),
    ("FROM a\nRUN a\0b", 2, "NUL"),
]


@pytest.mark.parametrize(("text", "line", "said"), BROKEN)
def test_an_error_names_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(errors.BuildError) as caught:
        script_of(text)
    assert caught.value.line == line and said in caught.value.reason
    if line:
        assert caught.value.source.replace("?", "") == text.split("\n")[line - 1].replace("\0", "")
        assert 0 <= caught.value.column < len(caught.value.source)


def test_an_error_is_drawn_with_a_caret() -> None:
    with pytest.raises(errors.BuildError) as caught:
        instructions.read(dockerfile.parse("FROM a\n\tCOPY  --form=x a b\n", "Dockerfile.test"))
    assert str(caught.value) == (
        "Dockerfile.test:2: COPY: unknown flag --form\n    \tCOPY  --form=x a b\n    \t      ^"
    )


FRAGMENTS = st.sampled_from(
    [*instructions.READERS, "\n", "\n", "\r\n", " ", "\\\n", "\\", "`", "# escape=`\n", "#", "<<", "<<E", "<<-'E'",
     "\nE\n", "[",
     "]", '["a"]', '"', "'", ",", "--", "--from=", "--mount=type=", "cache", "bind,", "target=/x", "=", "$", "${",
     "}", "a", "AS", "1", "80/tcp", "CMD", "NONE", "\t", "\0", "\ufeff", "é", "\udc80", "\u2028", "\x1c"]
)  # fmt: skip


@settings(max_examples=400, deadline=None, database=None)
@given(st.one_of(st.lists(FRAGMENTS, max_size=40).map("".join), st.text(max_size=60)))
def test_noise_ends_in_build_errors_alone(text: str) -> None:
    for whole in (text, f"FROM a\n{text}"):
        try:
            script = script_of(whole)
            check.check(script)
        except errors.BuildError as error:
            assert error.line <= whole.count("\n") + 1
            assert str(error)
        else:
            assert script.stages


if __name__ == "__main__":
    for file in GOLDEN.glob("*.Dockerfile"):
        file.with_suffix(".json").write_text(document(file))
