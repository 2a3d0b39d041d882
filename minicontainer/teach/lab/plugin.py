"""What pytest needs for labs: points, hints, a room for the learner's code, inputs that differ from learner to learner.

    @pytest.mark.points(2)                 a test says what it is worth
    @pytest.mark.needs("overlay")          and what this host must be able to do; else it is not gradable here
    def test_a_copy_is_made(room, rng):
        \"\"\"A write goes to the upper directory.\"\"\"       what is shown of it
        assert …, "the hint, in words of what the kernel showed"

    pytest labs/06_overlay                          the lab.py beside the tests
    pytest labs/06_overlay --lab-file mine.py       another one
        --seed TEXT           the same inputs as a run that printed this seed
        --tier pure           only tests marked `pure`, in plain rooms: no namespaces, no mounts (Gradescope)
        --results FILE        a line of JSON for each test, written as soon as it is known
        --cell UID            for marks: in a container of ours, as this user (minicontainer grade)

labs/conftest.py imports this module's names, so that pytest finds them; a learner's own conftest.py is no part of it.
"""

from __future__ import annotations

import functools
import json
import os
import random
import reprlib
import secrets
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

import pytest

from ... import errors, files
from . import keeper as keeping
from . import lending, rooms

__all__ = [
    "cgroup", "keeper", "lent", "make_room", "pytest_addoption", "pytest_collection_modifyitems", "pytest_configure",
    "pytest_report_header", "pytest_runtest_makereport", "pytest_terminal_summary", "rng", "room",
]  # fmt: skip

T = TypeVar("T")
Results = dict[str, dict[str, Any]]
RESULTS = pytest.StashKey[Results]()
PRINTED = pytest.StashKey[list[str]]()
LINES = 20  # of what a learner's code has printed, behind a hint


def pytest_addoption(parser: pytest.Parser) -> None:
    """--lab-file, --seed, --tier, --results, --cell."""
    group = parser.getgroup("labs")
    group.addoption("--lab-file", help="the learner's file (default: the lab.py beside the tests)")
    group.addoption("--seed", default=secrets.token_hex(4), help="what the tests' inputs are drawn from")
    group.addoption("--tier", choices=("room", "pure"), default="room", help="pure: where nobody may make namespaces")
    group.addoption("--results", help="write a line of JSON for each test into this file")
    group.addoption("--cell", type=int, metavar="UID", help="for marks: in a container of ours, as this user")


def pytest_configure(config: pytest.Config) -> None:
    """The marks, and hints in place of tracebacks."""
    config.addinivalue_line("markers", "points(n): what the test is worth")
    config.addinivalue_line("markers", "pure: gradable anywhere, for it needs neither namespaces nor mounts")
    config.addinivalue_line("markers", "needs(*words): what a room must be able to do, in teach.lesson's words")
    config.stash[RESULTS] = {}
    if config.option.tbstyle == "auto":
        config.option.tbstyle = "no"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """--tier pure deselects what needs a whole room."""
    if config.option.tier == "pure":
        config.hook.pytest_deselected(items=[item for item in items if not item.get_closest_marker("pure")])
        items[:] = [item for item in items if item.get_closest_marker("pure")]


def pytest_report_header(config: pytest.Config) -> str:
    """Who runs the learner's code, and on which inputs."""
    return f"labs: {tier(config.option.tier)}; seed {config.option.seed}"


def tier(chosen: str) -> str:
    """By whom rooms are made: what the report calls the tier."""
    if chosen == "pure":
        return "plain rooms: tests marked pure, without namespaces"
    return "rooms made by root" if os.geteuid() == 0 else f"rooms made by an ordinary user (uid {os.geteuid()})"


# ------------------------------------------------------------------------------------------------------------- fixtures


@pytest.fixture(scope="module")
def lent(request: pytest.FixtureRequest) -> Iterator[lending.Lent | None]:
    """A cgroup for the rooms of a lab that says LENT = True at its top; None for the others."""
    if not getattr(request.module, "LENT", False):
        yield None
        return
    if said := lending.obstacle():
        pytest.skip(said)
    cell = request.config.option.cell
    made = lending.Lent(keeping.owner(cell or rooms.NOBODY), "/cgroup" if cell else "")
    yield made
    made.close()


@pytest.fixture
def cgroup(lent: lending.Lent, room: rooms.Room) -> Iterator[lending.Lent]:
    """The lent cgroup, empty, for this test's room; its version and its directories are what a test passes on."""
    lent.admit(room.pid, lambda: room.prepare(begin_here))
    yield lent
    lent.clear()


def begin_here() -> None:
    """In a room: a cgroup namespace whose root is where we are now."""
    from minicontainer import syscalls

    syscalls.unshare(syscalls.CLONE_NEWCGROUP)


@pytest.fixture(scope="module")
def keeper(lent: lending.Lent | None, request: pytest.FixtureRequest) -> Iterator[rooms.Keeper]:
    """The process that makes rooms; one for all tests of a lab."""
    uid = request.config.option.cell
    if uid:
        from ..grade import cell  # the engine: who only checks a lab does not wait for it

        made = cell.keeper(uid, lent.binds if lent else {})
    else:
        made = rooms.local()
    yield made
    made.close()


@pytest.fixture
def make_room(
    keeper: rooms.Keeper, lent: lending.Lent | None, request: pytest.FixtureRequest
) -> Iterator[Callable[..., rooms.Room]]:
    """A room each time it is called; the one before is closed. For tests that let the learner's code run twice."""
    plain = request.config.option.tier == "pure"
    for word in [word for mark in request.node.iter_markers("needs") for word in mark.args]:
        if not plain and (lacking := or_left_out(functools.partial(obstacle, keeper, word))):
            pytest.skip(lacking)
    printed = request.node.stash.setdefault(PRINTED, [])
    uid, writable = request.config.option.cell or rooms.NOBODY, tuple(lent.binds.values()) if lent else ()
    for make in rooms.rooms(keeper, source(request), printed, uid=uid, plain=plain, writable=writable):
        yield functools.partial(or_left_out, make)


def or_left_out(work: Callable[[], T]) -> T:
    """Do it; where this machine makes no room at all, the test is not gradable here. Says the kernel, before any of the
    learner's code is there."""
    try:
        return work()
    except errors.Unsupported as error:
        pytest.skip(str(error))


@functools.cache
def obstacle(keeper: rooms.Keeper, word: str) -> str:
    """Why no room here can do what `word` names, with the mend; empty if one can. Asked in a room of nobody's."""
    room = rooms.Room(keeper, "")
    try:
        said, mend = room.prepare(probe, word)
    finally:
        room.close()
    return f"{said}; to have it: {mend}" if said else ""


def probe(word: str) -> list[str]:
    """In a room: what lesson.obstacle says there."""
    from minicontainer.teach import lesson

    return list(lesson.obstacle(word))


@pytest.fixture
def room(make_room: Callable[..., rooms.Room]) -> rooms.Room:
    """A fresh room with the learner's code in it: rooms.Room tells what a test can do with it."""
    return make_room()


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """The source of this test's inputs: other ones for each seed, and so for each learner."""
    return random.Random(f"{request.config.option.seed} {request.node.name}")


def source(request: pytest.FixtureRequest) -> str:
    """The learner's file, as text: it is never imported out here."""
    path = request.config.option.lab_file or f"{request.path.parent}/lab.py"
    try:
        return files.read(path).decode()
    except OSError as error:
        raise rooms.Failed(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise rooms.Failed(f"{path} is not text in UTF-8") from None


# -------------------------------------------------------------------------------------------------------------- results


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note each test's points and hint as soon as they are known; a run that is cut short keeps what it had."""
    report = yield
    if report.when == "teardown" and item.name in item.config.stash[RESULTS]:
        said = item.stash.setdefault(PRINTED, [])
        item.config.stash[RESULTS][item.name]["printed"] = "".join(said)
    mark = item.get_closest_marker("points")
    if not isinstance(item, pytest.Function) or mark is None or (report.when != "call" and report.passed):
        return report
    results = item.config.stash[RESULTS]
    if item.name in results and report.when == "teardown":
        return report  # what a room left when it was closed is no fault of the test's
    points, keeper = mark.args[0], item.funcargs.get("keeper")
    results[item.name] = entry = {
        "test": item.name,
        "title": (item.function.__doc__ or item.name).strip().splitlines()[0],
        "lab": item.path.parent.name,
        "points": points if report.passed else 0,
        "of": points,
        "outcome": "not gradable here" if report.skipped else report.outcome,
        "hint": "" if report.passed else hint(report, call, keeper if isinstance(keeper, rooms.Keeper) else None),
        "seconds": round(call.duration, 3),
    }
    if item.config.option.results:
        with open(item.config.option.results, "a") as file:
            file.write(json.dumps(entry) + "\n")
    return report


# What a test raises that takes a value for a list, say, and has been given None.
SURPRISED = (AttributeError, IndexError, KeyError, TypeError, ValueError)
USELESS = "the test can do nothing with that"


def hint(report: pytest.TestReport, call: pytest.CallInfo[None], keeper: rooms.Keeper | None) -> str:
    """Why a test failed or was left out: an assertion's own words, without what pytest adds to them."""
    if report.skipped and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    assert call.excinfo is not None
    error = call.excinfo.value
    said = str(error).partition("\nassert ")[0].strip()
    if isinstance(error, AssertionError | errors.MiniContainerError) and said and not said.startswith("assert "):
        return said
    if isinstance(error, SURPRISED) and keeper and keeper.returned:
        name, value = keeper.returned
        return f"{name}() returned {reprlib.repr(value)}: {USELESS} ({type(error).__name__}: {said})"
    return f"the test itself failed, which is a defect of the lab: {type(error).__name__}: {said}"


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Points, and a hint for each failure; in place of pytest's own list of them, which would come behind it."""
    results = list(config.stash[RESULTS].values())
    if not results:
        return
    terminalreporter.reportchars = ""
    terminalreporter.section("points")
    for entry in results:
        sign = {"passed": "✓", "failed": "✗"}.get(entry["outcome"], "–")
        terminalreporter.write_line(f"{sign} {entry['points']}/{entry['of']}  {entry['title']}")
        if entry["hint"]:
            word = "  hint: " if sign == "✗" else "  not gradable here: "
            terminalreporter.write_line(f"      {word}{entry['hint']}")
        for line in entry.get("printed", "").splitlines()[-LINES:] if sign == "✗" else ():
            terminalreporter.write_line(f"        printed: {line}")
    gradable = [entry for entry in results if entry["outcome"] in ("passed", "failed")]
    seed = f" (--seed={config.option.seed} is the same again)" if any(e["outcome"] == "failed" for e in results) else ""
    points, of = sum(e["points"] for e in gradable), sum(e["of"] for e in gradable)
    terminalreporter.write_line(f"{points} of {of} points{seed}")
