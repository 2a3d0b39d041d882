"""Run a function in a fresh process with one thread, from a notebook.

A Jupyter kernel has threads, and the kernel (the other one, Linux) refuses some calls to a process with threads:
unshare(CLONE_NEWUSER) gives EINVAL (unshare(2)), and a fork would copy locks that no thread is left to open. Besides,
whoever unshares, chroots or drops capabilities cannot go back: the notebook wants to stay what it is.

    from minicontainer.teach import child

    def alone():
        import os
        os.unshare(os.CLONE_NEWUTS)         # Python 3.12; minicontainer.syscalls.unshare before
        return os.readlink("/proc/self/ns/uts")

    child.run(alone)

    the notebook ── starts ──▶ keeper ── fork ──▶ worker: the function, and all that it forks
                 ◀── JSON ──────────────────────── what it returned
                                      kills what the worker left, then ends

The keeper is a subreaper (PR_SET_CHILD_SUBREAPER, prctl(2)): orphans become its children, so none escapes it.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import json
import os
import selectors
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from .. import errors

# What the fresh Python runs. It is given: the descriptor to read the task from, and the one to write the answer to.
KEEPER = "from minicontainer.teach.child import keep; keep()"
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def run(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call `function(*arguments)` in a fresh process, and return what it returns.

    The process knows nothing of the notebook: the function's source travels, so it imports what it needs in its own
    first lines. Arguments and the value travel as JSON. What it prints appears here; an exception is raised again. It
    may fork, and become another program (execve): then the value is None, and a failing exit code an exception.
    """
    if inspect.isfunction(function) and function.__code__.co_freevars:
        lacking = ", ".join(function.__code__.co_freevars)
        raise TypeError(f"{function.__name__} uses {lacking} from around it, which a fresh process has not: pass it")
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        raise TypeError(
            f"child.run needs a function written with `def` in a cell or a file, not {function!r}"
        ) from None
    if not isinstance(ast.parse(source).body[0], ast.FunctionDef):
        raise TypeError("child.run needs a function written with `def`: what a lambda is made of cannot be cut out")
    return task({"source": source, "function": function.__name__, "arguments": arguments, "names": {}})


def cell(source: str, names: Mapping[str, Any]) -> None:
    """Run the text of a whole cell so; `names` are variables that it finds there."""
    task({"source": source, "function": "", "arguments": [], "names": dict(names)})


def task(described: Mapping[str, Any]) -> Any:
    """Hand a task to a fresh process, show what it prints, return or raise what it answers."""
    question = json.dumps({**described, "path": sys.path}, default=as_text).encode()
    task_in, task_out = os.pipe()
    answer_in, answer_out = os.pipe()
    # subprocess forks and executes in C, with no Python between: Python 3.12 need not warn of threads.
    with subprocess.Popen(
        [sys.executable, "-u", "-c", KEEPER, str(task_in), str(answer_out)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        pass_fds=(task_in, answer_out), start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as keeper:  # fmt: skip
        os.close(task_in)
        os.close(answer_out)
        assert keeper.stdout and keeper.stderr
        sources: dict[int, TextIO | bytearray] = {
            keeper.stdout.fileno(): sys.stdout, keeper.stderr.fileno(): sys.stderr, answer_in: bytearray(),
        }  # fmt: skip
        try:
            with open(task_out, "wb") as pipe:
                pipe.write(question)
            answer = listen(sources)
        except BaseException:  # the cell was interrupted: so is what it started
            keeper.terminate()
            raise
        finally:
            os.close(answer_in)
    return said(answer, keeper.returncode)


def listen(sources: dict[int, TextIO | bytearray]) -> bytes:
    """Copy what comes from each descriptor to where it belongs until all have ended; returns what came as bytes."""
    kept = bytearray()
    with selectors.DefaultSelector() as selector:
        for descriptor, target in sources.items():
            selector.register(descriptor, selectors.EVENT_READ, target)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fd)
                elif isinstance(key.data, bytearray):
                    kept += data
                else:
                    key.data.write(data.decode(errors="replace"))
                    key.data.flush()
    return bytes(kept)


def said(answer: bytes, code: int) -> Any:
    """The value in an answer; raises what it tells of instead."""
    if not answer:  # no return, no exception: it became another program, or was killed
        if code:
            how = f"was ended by signal {code - 128}" if code > 128 else f"ended with exit code {code}"
            raise ChildProcessError(f"the process {how} before the function returned")
        return None
    told = json.loads(answer)
    if "error" not in told:
        return told["value"]
    error = rebuilt(told)
    error.add_note(f"in the child, {told['where']}")
    raise error


def rebuilt(told: Mapping[str, Any]) -> Exception:
    """The exception that the child told of: of its own class if that is Python's or ours, else of one of that name."""
    name, text = told["error"], told["text"]
    known = getattr(builtins, name, None) or getattr(errors, name, None)
    if isinstance(known, type) and issubclass(known, Exception):
        try:
            error: Exception = known(*told["arguments"])
            if str(error) == text:
                return error
        except Exception:
            pass
    raised: Exception = type(name, (RuntimeError,), {})(text)
    return raised


def as_text(value: Any) -> str:
    """What JSON does not know: paths are text."""
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    raise TypeError(f"{type(value).__name__} {value!r} cannot travel between two processes: use text, numbers, lists")


# ------------------------------------------------------------------------------------------------- in the fresh process


def keep() -> None:
    """The keeper: fork the worker, wait for it, kill whatever is left."""
    import signal

    from .. import syscalls

    with open(int(sys.argv[1]), "rb") as pipe:
        described = json.loads(pipe.read())
    answer = int(sys.argv[2])
    sys.argv[1:] = []
    os.set_inheritable(answer, False)
    syscalls.prctl(PR_SET_CHILD_SUBREAPER, 1)
    worker = os.fork()
    if worker == 0:
        work(described, answer)
    os.close(answer)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(worker, signal.SIGKILL))  # the cell was interrupted
    _, status = os.waitpid(worker, 0)
    end_children()
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def end_children() -> None:
    """Kill every child until there is none: those of a killed one become ours, and are next."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return
        for child in children(os.getpid()):
            os.kill(child, 9)
        os.waitpid(-1, 0)


def children(pid: int) -> Sequence[int]:
    """The children of a process (proc_pid_stat(5): the fourth field, counted behind the name, is the parent)."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                if int(file.read().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(name))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def work(described: Mapping[str, Any], answer: int) -> None:
    """The worker: call the function, answer, end. What it forked and let run on to here ends silently."""
    copies: list[bool] = []
    os.register_at_fork(after_in_child=lambda: copies.append(True))
    code = 0
    try:
        told: dict[str, Any] = {"value": call(described)}
        text = json.dumps(told, default=as_text)
    except SystemExit as end:
        text, code = "", end.code if isinstance(end.code, int) else bool(end.code)
    except BaseException as error:
        text = json.dumps(told_of(error), default=repr)
        if copies:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            code = 1
    if text and not copies:
        with open(answer, "w") as pipe:
            pipe.write(text)
    sys.stdout.flush()
    os._exit(code)


def call(described: Mapping[str, Any]) -> Any:
    """Execute the source, and call its function if it has one to call."""
    import linecache

    name, source = "<child>", described["source"]
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    space: dict[str, Any] = {"__name__": "__main__", **described["names"]}
    exec(compile(source, name, "exec"), space)
    return space[described["function"]](*described["arguments"]) if described["function"] else None


def told_of(error: BaseException) -> dict[str, Any]:
    """An exception as it travels: its class, what it was made of, its text, and the line of the function it left."""
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == "<child>"]
    reduced = error.__reduce__()
    return {
        "error": type(error).__name__,
        "arguments": reduced[1] if isinstance(reduced, tuple) else error.args,
        "text": str(error),
        "where": f"line {lines[-1]}" if lines else "before its first line",
    }
