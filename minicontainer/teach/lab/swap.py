"""`run --lab overlay=lab.py`: the real tool on a learner's own functions.

    install(["overlay=mine.py"])      load mine.py, and let labs/06_overlay/adapter.py put its functions into the plan
    install(["all=my/labs"])          the same for every my/labs/NN_topic/lab.py whose lab has an adapter

To be called before a start is planned: an adapter replaces functions of the package that plan. The adapter is always
this checkout's; the learner's file runs with the rights of who typed the command, as any program of his would.

What goes wrong in the learner's code comes out as a MiniContainerError that names his file and line, so the start
fails as any other: its monitor takes down what was done so far.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn

from ... import errors, files
from . import Lab, every, get

PATIENCE = 10  # seconds that a function may take: the monitor hears no ctrl-C


def install(words: list[str]) -> None:
    """Swap what each word names, "TOPIC=FILE" or "all=DIRECTORY"; of two for one topic the last one counts.

    Raises InvalidArgument, NotFound, and MiniContainerError for a file that cannot be loaded.
    """
    chosen: dict[str, tuple[Lab, str]] = {}
    for word in words:
        for lab, path in named(word):
            chosen[lab.name] = (lab, path)
    sys.meta_path.insert(0, NothingFromTheImage())  # it only ever refuses
    for lab, path in chosen.values():
        load(adapter(lab), "adapter").install(Learners(lab, path))


def named(word: str) -> list[tuple[Lab, str]]:
    """The labs that a word names, and the learner's file for each."""
    topic, given, path = word.partition("=")
    if not given or not path:
        raise errors.InvalidArgument(f"--lab {word}: write TOPIC=FILE, or all=DIRECTORY; `minicontainer lab list`")
    if topic != "all":
        lab = get(topic)
        if not os.path.exists(adapter(lab)):
            raise errors.InvalidArgument(f"lab {lab.name} has no adapter: nothing of `run` can be swapped for it")
        return [(lab, path)]
    found = [(lab, f"{path}/{lab.name}/lab.py") for lab in every() if os.path.exists(adapter(lab))]
    found = [(lab, file) for lab, file in found if os.path.exists(file)]
    if not found:
        raise errors.NotFound(f"--lab {word}: no NN_topic/lab.py is in there; `minicontainer lab start NN` makes one")
    return found


def adapter(lab: Lab) -> str:
    """The lines that put a lab behind the real tool; not every lab has them."""
    return f"{lab.directory}/adapter.py"


def load(path: str, name: str) -> types.ModuleType:
    """A file as a module of that name, which `--explain` shows. What it raises comes out as it is."""
    module = types.ModuleType(name)
    module.__file__ = path
    exec(compile(files.read(path), path, "exec"), module.__dict__)
    return module


class Learners:
    """A learner's module as an adapter sees it: each function explains itself when it fails."""

    def __init__(self, lab: Lab, path: str) -> None:
        self._lab = lab
        self._path = path
        try:
            self._module = load(path, "lab")
        except OSError as error:
            if error.filename != path:
                raise errors.MiniContainerError(told(path, "", error)) from None
            raise errors.NotFound(f"--lab {lab.topic}={path}: {error.strerror}") from None
        except (Exception, SystemExit) as error:
            raise errors.MiniContainerError(told(path, "", error)) from None

    def __getattr__(self, name: str) -> Any:
        try:
            found = getattr(self._module, name)
        except AttributeError:
            raise errors.InvalidArgument(f"{self._path} has no {name}(), which lab {self._lab.name} asks for") from None
        return watched(found, self._path) if isinstance(found, types.FunctionType) else found


def watched(function: Callable[..., Any], path: str) -> Callable[..., Any]:
    """The function, whose exceptions and endless loops end in a sentence about the learner's file."""

    def late(number: int, frame: object) -> NoReturn:
        raise TimeoutError(f"it did not come back within {PATIENCE} seconds")

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        before = signal.signal(signal.SIGALRM, late)
        remaining, _ = signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        try:
            return function(*arguments, **named)
        except (Exception, SystemExit) as error:
            raise errors.MiniContainerError(told(path, function.__name__, error)) from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, remaining)
            signal.signal(signal.SIGALRM, before)

    return call


def told(path: str, function: str, error: BaseException) -> str:
    """What happened and in which line of the learner's file: "lab.py, line 12, in stack(): OSError: …"."""
    line = error.lineno if isinstance(error, SyntaxError) else 0
    place = error.__traceback__
    while place is not None:
        if place.tb_frame.f_code.co_filename == path:
            line = place.tb_lineno
        place = place.tb_next
    where = f"{path}, line {line}" if line else path
    where += f", in {function}()" if function else ""
    if isinstance(error, NotImplementedError):
        return f"{where}: still the stub"
    said = error.msg if isinstance(error, SyntaxError) else error
    return f"{where}: {type(error).__name__}: {said}"


class NothingFromTheImage:
    """An import once the root has changed would load the image's code into a process with our rights: refused.

    A finder, asked before all others (importlib, sys.meta_path), for what is not loaded yet.
    """

    def __init__(self) -> None:
        self.root = identity("/")

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """None: ask the others. ImportError where `/` is not what it was."""
        if identity("/") != self.root:
            raise ImportError(f"{name} would come from the image by now: import it at the top of the file")


def identity(path: str) -> tuple[int, int]:
    """Which directory it is: device and inode."""
    status = os.stat(path)
    return status.st_dev, status.st_ino
