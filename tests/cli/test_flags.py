"""Flags as docker parses them. Pure."""

from pathlib import Path
from typing import Any

import pytest

from minicontainer import cli, errors
from minicontainer.cli import UsageError, flags, run

FLAGS = [
    flags.Flag("-i --interactive", "interactive", "bool", ""),
    flags.Flag("-t --tty", "tty", "bool", ""),
    flags.Flag("-e --env", "env", "list", ""),
    flags.Flag("-w --workdir", "workdir", "text", ""),
    flags.Flag("--name", "name", "text", ""),
]


def parse(*words: str, stop: bool = True) -> tuple[dict[str, Any], list[str]]:
    return flags.parse("run [FLAGS] IMAGE", FLAGS, list(words), stop)


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["-it"], {"interactive": True, "tty": True}),
        (["-ti"], {"interactive": True, "tty": True}),
        (["-i", "-t"], {"interactive": True, "tty": True}),
        (["--interactive=true", "--tty=false"], {"interactive": True, "tty": False}),
        (["-i=false"], {"interactive": False}),
        (["-t", "--tty=0"], {"tty": False}),
        (["-e", "A=1", "-eB=2", "--env", "C=3", "--env=D=4=5"], {"env": ["A=1", "B=2", "C=3", "D=4=5"]}),
        (["-ite", "A=1"], {"interactive": True, "tty": True, "env": ["A=1"]}),
        (["-iteA=1"], {"interactive": True, "tty": True, "env": ["A=1"]}),
        (["-w=/x"], {"workdir": "/x"}),
        (["-w", "/x", "-w", "/y"], {"workdir": "/y"}),
        (["--name", "-x"], {"name": "-x"}),
        (["--name="], {"name": ""}),
    ],
)
def test_spellings(words: list[str], values: dict[str, Any]) -> None:
    found, rest = parse(*words, "image")
    assert rest == ["image"]
    absent: dict[str, Any] = {"interactive": False, "tty": False, "env": []}
    assert found == {**absent, **values}


def test_the_first_word_that_is_no_flag_ends_the_flags() -> None:
    values, rest = parse("-i", "image", "-t", "--name", "x")
    assert (values["interactive"], values["tty"]) == (True, False)
    assert rest == ["image", "-t", "--name", "x"]


def test_elsewhere_flags_may_follow() -> None:
    values, rest = parse("a", "-i", "b", stop=False)
    assert values["interactive"] and rest == ["a", "b"]


def test_two_dashes_end_the_flags() -> None:
    assert parse("-i", "--", "-t", stop=False)[1] == ["-t"]
    assert parse("--", "image", "--", "x")[1] == ["image", "--", "x"]


def test_one_dash_is_a_word() -> None:
    assert parse("-", stop=False)[1] == ["-"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nosuch"], "unknown flag: --nosuch"),
        (["--nosuch=1"], "unknown flag: --nosuch"),
        (["-x"], "unknown shorthand flag: 'x' in -x"),
        (["-ix"], "unknown shorthand flag: 'x' in -ix"),
        (["--name"], "flag needs an argument: --name"),
        (["-e"], "flag needs an argument: -e"),
        (["-it="], "invalid argument '' for -t"),
        (["--tty=maybe"], "invalid argument 'maybe' for --tty"),
    ],
)
def test_refusals(words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(*words)
    assert said in str(caught.value)


def test_a_refusal_names_the_command_to_ask_for_help() -> None:
    with pytest.raises(UsageError, match="`minicontainer run --help`"):
        parse("--nosuch")


def test_help_lists_every_flag() -> None:
    with pytest.raises(cli.Help) as caught:
        flags.parse("run", run.FLAGS, ["--help"])
    for flag in run.FLAGS:
        for spelling in flag.spellings.split():
            assert spelling in str(caught.value)


def test_no_spelling_is_used_twice() -> None:
    spellings = [spelling for flag in run.FLAGS for spelling in flag.spellings.split()]
    assert len(spellings) == len(set(spellings))


@pytest.mark.parametrize(
    ("text", "count"),
    [("5", 5), ("5b", 5), ("1k", 1024), ("64m", 64 << 20), ("64M", 64 << 20), ("64mb", 64 << 20), ("1g", 1 << 30),
     ("1.5g", 3 << 29), ("2t", 2 << 40), ("0", 0)],
)  # fmt: skip
def test_sizes(text: str, count: int) -> None:
    assert flags.size("--memory", text) == count


@pytest.mark.parametrize("text", ["", "x", "1x", "-1m", "1mm", "m", "1 m", "inf", "nan", "1e400g"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="--memory"):
        flags.size("--memory", text)


def options(*words: str) -> dict[str, Any]:
    """What `run` would ask the engine for."""
    return run.engine_options(flags.parse("run", run.FLAGS, [*words])[0])


def test_limits() -> None:
    found = options(
        "--cpus", "0.5", "-m", "64m", "--memory-swap", "-1", "--pids-limit", "50", "-c", "512", "--shm-size", "1g"
    )
    assert found["cpus"] == 0.5
    assert (found["mem_limit"], found["memswap_limit"], found["shm_size"]) == (64 << 20, -1, 1 << 30)
    assert (found["pids_limit"], found["cpu_shares"]) == (50, 512)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--cpus -1", "range of CPUs"),
        ("--cpus 0.001", "range of CPUs"),
        ("--cpus nan", "range of CPUs"),
        ("--cpus inf", "range of CPUs"),
        ("--cpus 10000", "range of CPUs"),
        ("--cpus half", "--cpus"),
        ("--cpus 1 --cpu-quota 1000", "say the same thing twice"),
        ("--memory 1m", "minimum memory limit"),
        ("--memory -64m", "--memory:"),
        ("--memory-reservation x", "--memory-reservation"),
        ("--memory-swap 64m", "set --memory"),
        ("--memory 64m --memory-swap 32m", "at least --memory"),
        ("--shm-size -1", "--shm-size"),
        ("--cpu-shares 1", "--cpu-shares"),
        ("--cpu-period x", "--cpu-period"),
        ("--pids-limit many", "--pids-limit"),
        ("--oom-score-adj 1001", "--oom-score-adj"),
        ("--ulimit nosuch=1", "invalid ulimit type: nosuch"),
        ("--ulimit nofile", "--ulimit"),
        ("--ulimit nofile=x", "--ulimit"),
        ("--ulimit nofile=5:2", "soft limit"),
        ("--sysctl name", "--sysctl"),
        ("--label =x", "--label"),
        ("-e =x", "invalid environment variable"),
        ("-v /a:/x -v /b:/x/", "duplicate mount point: /x"),
        ("-v /a:/x --tmpfs /x", "duplicate mount point: /x"),
        ("--env-file /nosuch", "--env-file /nosuch: No such file"),
    ],
)
def test_values_that_cannot_be_meant(words: str, said: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        options(*words.split())
    assert said in str(caught.value)


def test_no_cpu_limit_is_zero_as_docker_has_it() -> None:
    assert options("--cpus", "0")["cpus"] == 0


def test_ulimits() -> None:
    found = options("--ulimit", "nofile=10:20", "--ulimit", "core=-1", "--ulimit", "nproc=5")["ulimits"]
    assert found == {"nofile": (10, 20), "core": (-1, -1), "nproc": (5, 5)}


def test_an_environment_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docker's format: leading blanks go, trailing ones are the value's, nothing is unquoted, # begins a line only."""
    monkeypatch.setenv("OURS", "from the client")
    monkeypatch.delenv("NOT_OURS", raising=False)
    file = tmp_path / "env"
    file.write_bytes(b'\xef\xbb\xbf# comment\n\nA=1\n  B= two \n  # another\nC="x" # y\nD=\nOURS\nNOT_OURS\nE=a=b\r\n')
    found = run.environment([], [str(file)])
    assert found == {"A": "1", "B": " two ", "C": '"x" # y', "D": "", "OURS": "from the client", "E": "a=b"}


def test_a_variable_of_the_command_line_beats_one_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GONE", raising=False)
    file = tmp_path / "env"
    file.write_text("A=file\nB=file\nGONE=file\n")
    assert run.environment(["A=line", "GONE"], [str(file)]) == {"A": "line", "B": "file", "GONE": None}


@pytest.mark.parametrize("line", ["A B=1", "=1", "A\t=1", "A =1"])
def test_an_environment_file_with_a_bad_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "env"
    file.write_text(f"GOOD=1\n{line}\n")
    with pytest.raises(UsageError, match="--env-file"):
        run.environment([], [str(file)])


@pytest.mark.parametrize(
    ("words", "explain", "rest"),
    [
        (["--explain", "image", "cmd"], "", ["image", "cmd"]),
        (["--rm", "--explain=json", "image"], "json", ["image"]),
        (["--name", "--explain", "image"], None, ["image"]),
        (["-e", "A=1", "--explain=sh", "image"], "sh", ["image"]),
        (["-eA=w", "image", "sh", "--explain"], None, ["image", "sh", "--explain"]),
        (["image", "--explain=json"], None, ["image", "--explain=json"]),
    ],
)
def test_explain_is_ours_only_before_the_image(words: list[str], explain: str | None, rest: list[str]) -> None:
    """And its value is optional, which none of docker's is."""
    values, left = flags.parse("run", run.FLAGS, words, stop=True)
    assert (values.get("explain"), left) == (explain, rest)


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_tells_of_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    verbs = {"container": "prune", "system": "check", "volume": "ls", "network": "ls", "builder": "prune"}
    words = [verbs[command]] if command in verbs else []
    assert cli.main([command, *words, "--help"]) == 0
    assert f"minicontainer {command}" in capsys.readouterr().out
