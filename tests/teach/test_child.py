"""A notebook's function in a fresh process: what travels, what is raised again, what is left."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from minicontainer import errors
from minicontainer.teach import child, lesson


def test_arguments_and_the_value_travel() -> None:
    def add(a: int, b: list[int]) -> dict[str, Any]:
        import os

        return {"sum": [a, *b], "pid": os.getpid()}

    value = child.run(add, 1, [2, 3])
    assert value["sum"] == [1, 2, 3] and value["pid"] != os.getpid()


def test_what_it_prints_appears_here(capsys: pytest.CaptureFixture[str]) -> None:
    def talk() -> None:
        import os
        import sys

        print("once")
        if os.fork() == 0:
            return  # a copy that falls out of the function ends, and says nothing
        os.wait()
        print("aside", file=sys.stderr)

    assert child.run(talk) is None
    assert capsys.readouterr() == ("once\n", "aside\n")


def test_an_exception_is_raised_again() -> None:
    def mount() -> None:
        from minicontainer import syscalls

        syscalls.mount("none", "/nowhere", "tmpfs")

    def own() -> None:
        class Strange(Exception):
            pass

        raise Strange("it happened")

    with pytest.raises(errors.KernelError, match=r"mount\('none', '/nowhere'"):
        child.run(mount)
    with pytest.raises(RuntimeError, match="it happened") as caught:
        child.run(own)
    assert type(caught.value).__name__ == "Strange"
    assert caught.value.__notes__ == ["in the child, line 5"]


def test_it_may_become_another_program(capsys: pytest.CaptureFixture[str]) -> None:
    def become(code: int) -> None:
        import os

        os.execv("/bin/sh", ["sh", "-c", f"echo other; exit {code}"])

    assert child.run(become, 0) is None
    with pytest.raises(ChildProcessError, match="exit code 3"):
        child.run(become, 3)
    assert capsys.readouterr().out == "other\nother\n"


def test_what_it_leaves_running_is_killed() -> None:
    def leave() -> int:
        import os
        import time

        reader, writer = os.pipe()
        if os.fork() == 0:
            if os.fork() == 0:
                os.setsid()
                os.write(writer, str(os.getpid()).encode())
                time.sleep(60)
            os._exit(0)
        return int(os.read(reader, 20))

    began = time.monotonic()
    assert not Path(f"/proc/{child.run(leave)}").exists()
    assert time.monotonic() - began < 20


def test_what_cannot_travel_is_refused_by_name() -> None:
    around = 5

    def closure() -> int:
        return around

    with pytest.raises(TypeError, match="around"):
        child.run(closure)
    with pytest.raises(TypeError, match="def"):
        child.run(lambda: 1)
    with pytest.raises(TypeError, match="bytes"):
        child.run(test_what_it_leaves_running_is_killed, b"")


def test_answers_are_compared_kindly(capsys: pytest.CaptureFixture[str]) -> None:
    assert lesson.alike(" Yes", "yes") and lesson.alike([1, 2], (1, 2)) and lesson.alike({"b", "a"}, ["a", "b"])
    assert not lesson.alike(1, True) and not lesson.alike([1], [1, 2])
    lesson.check(1, ..., lambda: 1 / 0)
    lesson.check(1, 4, lambda: 5, hint="count again")
    lesson.check(1, 5, lambda: 5)
    said = capsys.readouterr().out.splitlines()
    assert "waits" in said[0] and "count again" in said[1] and "5" not in said[1] and said[2].startswith("✓")
