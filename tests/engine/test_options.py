"""docker-py's spellings and what they mean. What they do is the business of tests/test_examples.py."""

from typing import Any

import pytest

from minicontainer import errors
from minicontainer.engine import configure, options, volumes
from minicontainer.network import nat


@pytest.mark.parametrize(("given", "known"), [
    ({"mem_limit": "64m", "shm_size": 5}, {"mem_limit": 64 << 20, "shm_size": 5}),
    ({"nano_cpus": 1_500_000_000}, {"cpus": 1.5}),
    ({"network": "none", "auto_remove": True}, {"network_mode": "none", "remove": True}),
    ({"environment": ["A=1", "B=", "C"]}, {"environment": {"A": "1", "B": "", "C": None}}),
    ({"environment": {"A": "1"}, "labels": ["a", "b=c"]}, {"environment": {"A": "1"}, "labels": {"a": "", "b": "c"}}),
    ({"user": 1000}, {"user": "1000"}),
    ({"ports": {"80/tcp": 8080, 81: None}}, {"ports": nat.parse_ports(["8080:80/tcp", "81"])}),
    ({"ports": {"53/udp": ("127.0.0.1", 5353)}}, {"ports": nat.parse_ports(["127.0.0.1:5353:53/udp"])}),
    ({"ports": {"80": [8080, 8081]}}, {"ports": nat.parse_ports(["8080:80", "8081:80"])}),
    ({"volumes": {"data": {"bind": "/d", "mode": "ro"}}}, {"mounts": [volumes.parse_volume("data:/d:ro")]}),
    ({"volumes": ["/srv:/s"], "tmpfs": {"/t": "size=1m", "/u": ""}},
     {"mounts": [volumes.parse_volume("/srv:/s"), volumes.parse_tmpfs("/t:size=1m"), volumes.parse_tmpfs("/u")]}),
])  # fmt: skip
def test_docker_pys_spellings(given: dict[str, Any], known: dict[str, Any]) -> None:
    assert options.understood(given) == {"mounts": [], "expose": [], **known}


def test_what_cannot_be_a_size_is_named() -> None:
    with pytest.raises(errors.InvalidArgument, match="mem_limit='much'"):
        options.understood({"mem_limit": "much"})


def test_a_command_is_split_as_a_shell_would() -> None:
    assert options.words("sh -c 'echo a b'") == ["sh", "-c", "echo a b"]
    assert options.words(["a b"]) == ["a b"] and options.words(None) == []


def test_every_option_is_typed() -> None:
    """The names that an editor completes are those that are understood."""
    source = open(options.__file__).read()
    typed = {line.split(":")[0].strip() for line in source.splitlines() if line.startswith("        ") and ":" in line}
    ours = set(configure.DEFAULTS) - {"command", "console_size", "remove"}
    assert ours - typed == set()
