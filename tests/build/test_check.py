"""`build --check`: stages that refer to one another, docker's checks by their names, and the command itself."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from minicontainer import cli, errors
from minicontainer.build import check, dockerfile, instructions

STAGES = "FROM a AS one\nFROM b AS two\nCOPY --from=one / /\nFROM two\nFROM c AS alone\n"


def script_of(text: str) -> instructions.Script:
    return instructions.read(dockerfile.parse(text))


def found(text: str, **build_args: str) -> list[tuple[str, int]]:
    return [(one.rule, one.line) for one in check.check(script_of(text), "", build_args)]


@pytest.mark.parametrize(
    ("target", "stages"),
    [("", [3]), ("alone", [3]), ("ALONE", [3]), ("2", [0, 1, 2]), ("two", [0, 1]), ("one", [0]), ("0", [0])],
)
def test_stages_that_a_target_needs(target: str, stages: list[int]) -> None:
    assert check.needed(script_of(STAGES), target) == stages


def test_a_mount_needs_its_stage_and_other_names_are_images() -> None:
    text = "FROM a AS one\nFROM one AS x\nFROM b\nRUN --mount=from=one,target=/o true\nCOPY --from=debian:12 / /\n"
    assert check.needed(script_of(text)) == [0, 2]
    assert check.needed(script_of("FROM alpine AS alpine\n")) == [0]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("FROM a\nCOPY --from=b / /\nFROM c AS b\n", 2, "later stage (line 3)"),
        ("FROM a AS b\nCOPY --from=b / /\n", 2, "this stage itself"),
        ("FROM a\nRUN \\\n --mount=from=b,target=/ true\nFROM c AS b\n", 3, "later stage"),
        ("FROM a AS x\nCOPY --from=y / /\nFROM b AS y\nCOPY --from=x / /\n", 2, "later stage"),
        ("FROM a\nCOPY --from=7 / /\n", 2, "no stage 7"),
        ("FROM a\nUSER ${x\n", 2, "missing"),
        ("FROM a\nENV a=1 b='x\n", 2, "no end"),
        ("# check=nosuch\nFROM a\n", 1, "skip="),
    ],
)
def test_what_no_build_would_survive(text: str, line: int, said: str) -> None:
    with pytest.raises(errors.BuildError) as caught:
        check.check(script_of(text))
    assert caught.value.line == line and said in caught.value.reason


def test_a_target_that_is_not_there() -> None:
    with pytest.raises(errors.BuildError, match="no stage 'nosuch' to be the target; there are one, two, alone"):
        check.check(script_of(STAGES), "nosuch")


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ('FROM a AS b\nARG x\nWORKDIR /w\nWORKDIR sub\nENV A=$x\nUSER $A\nCMD ["a"]\n', []),
        ("FROM a AS Build\n", [("StageNameCasing", 1)]),
        ("FROM a as b\n", [("FromAsCasing", 1)]),
        ("from a as b\nrun b\n", []),
        ("FROM a AS b\nFROM c AS b\n", [("DuplicateStageName", 2)]),
        ("FROM a AS scratch\n", [("ReservedStageName", 1)]),
        ("FROM a\nCMD b\n", [("JSONArgsRecommended", 2)]),
        ("FROM a\nENTRYPOINT b\n", [("JSONArgsRecommended", 2)]),
        ('FROM a\nSHELL ["s", "-c"]\nCMD b\n', []),
        ("FROM a\nMAINTAINER b\n", [("MaintainerDeprecated", 2)]),
        ("FROM a\nWORKDIR b\nWORKDIR c\n", [("WorkdirRelativePath", 2)]),
        ("FROM a\nrun b\nRUN c\n", [("ConsistentInstructionCasing", 2)]),
        ("from a\nrun b\nRUN c\n", [("ConsistentInstructionCasing", 3)]),
        ("FROM a\nRun b\n", [("ConsistentInstructionCasing", 2)]),
        ("FROM a\nENV b c\nLABEL d e\n", [("LegacyKeyValueFormat", 2), ("LegacyKeyValueFormat", 3)]),
        ("FROM a\nRUN b \\\n\n c\n", [("NoEmptyContinuation", 3)]),
        ('FROM a\nCMD ["b"]\nCMD ["c"]\n', [("MultipleInstructionsDisallowed", 2)]),
        ("FROM scratch\nUSER $x\n", [("UndefinedVar", 2)]),
        ("FROM scratch\nUSER ${x:-y}\n", []),
        ("FROM scratch AS b\nENV x=1\nFROM b\nUSER $x\nUSER $y\n", [("UndefinedVar", 5)]),
        # What an image sets is not known here; what only the FROMs know is.
        ("ARG v=1\nFROM a:$v\nUSER $x\nUSER $v\n", [("UndefinedVar", 4)]),
        ("FROM a:$v\n", [("UndefinedArgInFrom", 1)]),
        ("FROM --platform=$BUILDPLATFORM a\n", []),
        ("# check=skip=StageNameCasing,x\nFROM a AS B\nCMD d\n", [("JSONArgsRecommended", 3)]),
        ("# check=skip=all\nFROM a AS B\nMAINTAINER c\n", []),
    ],
)  # fmt: skip
def test_warnings(text: str, findings: list[tuple[str, int]]) -> None:
    assert found(text) == findings


def test_a_build_argument_is_known_where_arg_says_so() -> None:
    assert found("FROM scratch\nARG x\nUSER ${x:?}\n", x="1") == []
    assert found("FROM scratch\nUSER $x\n", x="1") == [("UndefinedVar", 2)]


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(["build", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text("FROM a AS b\n")
    assert typed(capsys, "--check", str(tmp_path)) == (0, "Check complete, no warnings found.\n", "")
    path.write_text("FROM a AS b\n\tCMD \x1b[2Jx\n")
    code, out, err = typed(capsys, "--check", str(tmp_path))
    assert (code, err) == (1, "")
    first, second, third, last = out.splitlines()
    assert first.startswith(f"{path}:2: JSONArgsRecommended: ")
    assert (second, third) == ("    \tCMD ?[2Jx", "    \t^")
    assert last == "Check complete, 1 warning has been found."
    path.write_text("FROM a AS b\nCOPY x\n")
    code, out, err = typed(capsys, "--check", str(tmp_path))
    assert (code, out) == (1, "") and err.startswith(f"minicontainer: {path}:2: COPY: needs a source and a target\n")
    other = tmp_path / "other"
    other.write_text("FROM a AS b\n")
    assert typed(capsys, "--check", "-f", str(other), "--target", "b", str(tmp_path))[0] == 0
    assert typed(capsys, "--check", "-f", str(other), "--target", "c", str(tmp_path))[0] == 1


def test_a_dockerfile_by_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"FROM a\nCOPY \xff\n")))
    code, out, err = typed(capsys, "--check", "-")
    assert (code, out) == (1, "") and "Dockerfile:2: COPY" in err


def test_what_the_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(capsys, "--check")[0] == 125
    assert typed(capsys, "--nosuch", ".")[0] == 125
    assert typed(capsys, "--check", str(tmp_path))[0] == 1
    assert typed(capsys, "--check", str(tmp_path / "nosuch"))[0] == 1
