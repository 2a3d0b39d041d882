"""kernel/capabilities: names and rules are pure; what a process really holds is read from /proc/self/status."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from minicontainer import errors, steps
from minicontainer.kernel import capabilities


def in_child(function: Callable[[], str]) -> str:
    """What `function` returns in a process of its own, which may then throw its privileges away."""
    reader, writer = os.pipe()
    if not (pid := os.fork()):
        try:
            text = function()
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return text


def status() -> dict[str, int]:
    """The Cap* and NoNewPrivs lines of /proc/self/status (proc_pid_status(5))."""
    lines = (line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines())
    return {
        key: int(value, 16 if key.startswith("Cap") else 10) for key, value in lines if key.startswith(("Cap", "NoNew"))
    }


def of(granted: list[str]) -> dict[str, list[str]]:
    """`process.capabilities` as the engine writes it."""
    return dict.fromkeys(("bounding", "effective", "permitted"), granted)


def become(granted: list[str], uid: int, ambient: bool = False) -> str:
    """A process that went through the plans in the documented order; its status."""
    wanted = dict.fromkeys(capabilities.Sets._fields, granted) if ambient else of(granted)

    def body() -> str:
        steps.execute(capabilities.no_new_privileges(), {})
        steps.execute(capabilities.bound(wanted), {})
        if uid:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        steps.execute(capabilities.apply(wanted, uid), {})
        return repr(status())

    return in_child(body)


def test_the_kernel_header_agrees() -> None:
    """The table against linux/capability.h, where that header is installed."""
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        return
    for line in header.read_text().splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "#define" and words[1].startswith("CAP_") and words[2].isdigit():
            assert capabilities.NAMES[int(words[2])] == words[1]


def test_fourteen_by_default() -> None:
    assert len(capabilities.DEFAULT) == 14
    assert capabilities.resolve() == list(capabilities.DEFAULT)
    assert capabilities.mask(capabilities.DEFAULT) == 0xA80425FB  # what `docker run` shows as CapBnd


@pytest.mark.parametrize("name", ["NET_RAW", "CAP_NET_RAW", "net_raw", "cap_net_raw"])
def test_with_and_without_prefix(name: str) -> None:
    assert "CAP_NET_RAW" not in capabilities.resolve(drop=[name])
    assert capabilities.resolve(add=[name], drop=["ALL"]) == ["CAP_NET_RAW"]


def test_what_is_added_wins_over_what_is_dropped() -> None:
    assert "CAP_KILL" in capabilities.resolve(add=["KILL"], drop=["KILL"])


def test_all_minus_one() -> None:
    everything = capabilities.resolve(privileged=True)
    assert capabilities.resolve(add=["ALL"], drop=["CHOWN"]) == [n for n in everything if n != "CAP_CHOWN"]
    assert capabilities.resolve(drop=["all"]) == []


def test_unknown_is_refused() -> None:
    with pytest.raises(errors.InvalidArgument, match="FLY"):
        capabilities.resolve(add=["FLY"])
    with pytest.raises(errors.InvalidArgument, match="FLY"):
        capabilities.resolve(drop=["FLY"])


@pytest.mark.root
def test_root_holds_the_defaults_and_nothing_else() -> None:
    held = eval(become(list(capabilities.DEFAULT), 0))
    wanted = capabilities.mask(capabilities.DEFAULT)
    assert held == {
        "CapInh": 0,
        "CapPrm": wanted,
        "CapEff": wanted,
        "CapBnd": wanted,
        "CapAmb": 0,
        "NoNewPrivs": 1,
    }


@pytest.mark.root
def test_a_user_holds_nothing_but_the_bounding_set() -> None:
    held = eval(become(list(capabilities.DEFAULT), 1000))
    assert (held["CapPrm"], held["CapEff"], held["CapAmb"]) == (0, 0, 0)
    assert held["CapBnd"] == capabilities.mask(capabilities.DEFAULT)


@pytest.mark.root
def test_a_user_may_be_given_ambient_capabilities() -> None:
    held = eval(become(["CAP_NET_BIND_SERVICE"], 1000, ambient=True))
    assert {held[key] for key in ("CapPrm", "CapEff", "CapInh", "CapAmb", "CapBnd")} == {1 << 10}


@pytest.mark.root
def test_none_at_all() -> None:
    held = eval(become([], 0))
    assert {held[key] for key in ("CapPrm", "CapEff", "CapInh", "CapAmb", "CapBnd")} == {0}


@pytest.mark.root
def test_more_than_the_engine_holds_is_refused_by_name() -> None:
    def body() -> str:
        steps.execute(capabilities.bound(of([])), {})
        steps.execute(capabilities.apply({}, 0), {})
        steps.execute(capabilities.apply(of(["CAP_MKNOD"]), 0), {})
        return "no error"

    said = in_child(body)
    assert said.startswith("KernelError: capset") and "CAP_MKNOD" in said
