"""The notebooks as a course: the learner's copy of them, the kernel they run in, JupyterLab, and runs without a person.

python -m minicontainer.teach.course kernelspec         .venv/share/jupyter/kernels/minicontainer (./dev setup)
python -m minicontainer.teach.course start [ARG…]       JupyterLab on ~/minicontainer-course (./dev notebooks)
python -m minicontainer.teach.course execute [NN…]      every cell of them, headlessly
python -m minicontainer.teach.course html [NN…]         build/notebooks/*.html

Where everything is slow, as in emulation: COURSE_TIME_LIMIT, seconds that one cell may take (60).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from .. import errors, host, syscalls
from . import sandbox

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NOTEBOOKS = f"{CHECKOUT}/notebooks"
KERNEL = "minicontainer"
TIME_LIMIT = int(os.environ.get("COURSE_TIME_LIMIT", "60"))  # seconds for a cell, and for the kernel to answer at first


def originals(words: list[str] | None = None) -> list[str]:
    """The paths of the course's notebooks, or of those that are named by number, by file, or by the file's name."""
    every = sorted(f"{NOTEBOOKS}/{name}" for name in os.listdir(NOTEBOOKS) if re.match(r"\d\d_.*\.ipynb$", name))
    if not words:
        return every
    found = []
    for word in words:
        if os.path.isfile(word):
            found.append(os.path.abspath(word))
            continue
        stem = f"{int(word):02}" if word.isdigit() else word.removesuffix(".ipynb")
        matching = [path for path in every if os.path.basename(path).startswith(stem)]
        if not matching:
            raise errors.NotFound(f"no notebook is called {word}; there are {', '.join(map(short, every)) or 'none'}")
        found += matching
    return found


def short(path: str) -> str:
    """A notebook's name without folder and ending."""
    return os.path.basename(path).removesuffix(".ipynb")


def folder() -> str:
    """The learner's own copy: $MINICONTAINER_COURSE, or ~/minicontainer-course."""
    return os.path.abspath(os.environ.get("MINICONTAINER_COURSE") or os.path.expanduser("~/minicontainer-course"))


def copy(into: str) -> list[str]:
    """Copy what the folder lacks; what a learner has worked in stays as it is. Returns the names that are new."""
    os.makedirs(into, exist_ok=True)
    new = []
    for path in originals():
        target = f"{into}/{os.path.basename(path)}"
        if not os.path.exists(target):
            shutil.copyfile(path, target)
            new.append(short(path))
    return new


def reset(word: str, into: str) -> tuple[str, str]:
    """A fresh copy of one notebook. What was there is kept under a name with the date, which comes back second."""
    (path,) = originals([word])
    target, kept = f"{into}/{os.path.basename(path)}", ""
    os.makedirs(into, exist_ok=True)
    if os.path.exists(target):
        kept = f"{target.removesuffix('.ipynb')}.{time.strftime('%Y-%m-%d-%H%M%S')}.ipynb"
        os.rename(target, kept)
    shutil.copyfile(path, target)
    return target, kept


def kernelspec(prefix: str) -> str:
    """Write the kernel's description below PREFIX/share/jupyter, where every Jupyter of that Python looks."""
    directory = f"{prefix}/share/jupyter/kernels/{KERNEL}"
    os.makedirs(directory, exist_ok=True)
    document = {
        "display_name": KERNEL,
        "language": "python",
        "interrupt_mode": "message",  # a signal would end at the sandbox's door
        "argv": [
            f"{prefix}/bin/python", "-m", "minicontainer.teach.sandbox", "{connection_file}",
            f"{prefix}/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}",
            "--HistoryManager.enabled=False",
        ],
    }  # fmt: skip
    with open(f"{directory}/kernel.json", "w") as file:
        json.dump(document, file, indent=1)
    # What JupyterLab would ask each learner first: whether it may fetch news. There is no network to fetch from. And
    # code is folded at the window's edge, as text is, rather than scrolled to.
    settings = f"{prefix}/share/jupyter/lab/settings"
    os.makedirs(settings, exist_ok=True)
    with open(f"{settings}/overrides.json", "w") as file:
        quiet = {"fetchNews": "false", "checkForUpdates": False}
        folded = {"codeCellConfig": {"lineWrap": True}}
        overrides = {
            "@jupyterlab/apputils-extension:notification": quiet,
            "@jupyterlab/notebook-extension:tracker": folded,
        }
        json.dump(overrides, file, indent=1)
    return directory


@contextlib.contextmanager
def surroundings(course: str) -> Iterator[dict[str, str]]:
    """The environment in which Jupyter finds our kernel, and keeps everything in the course's folder."""
    # A unix socket's path has 107 characters at most (unix(7)), and Jupyter's file names are long: the base is short.
    base = os.environ.get("XDG_RUNTIME_DIR") if not host.is_root() else "/run"
    if not base or len(base) > 40 or not os.access(base, os.W_OK):
        base = "/tmp"
    runtime = tempfile.mkdtemp(prefix="mc-", dir=base)
    own = f"{course}/.jupyter"
    os.makedirs(f"{course}/.cache/ipython", exist_ok=True)
    try:
        yield {
            "MINICONTAINER_COURSE": course,
            "JUPYTER_RUNTIME_DIR": runtime,
            "JUPYTER_CONFIG_DIR": own,
            "JUPYTER_DATA_DIR": own,
            "JUPYTER_PREFER_ENV_PATH": "1",
            "IPYTHONDIR": f"{course}/.cache/ipython",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }
    finally:
        shutil.rmtree(runtime, ignore_errors=True)


# -------------------------------------------------------------------------------------------------------------- running


def start(arguments: list[str]) -> int:
    """JupyterLab in the foreground, on the learner's copy."""
    import subprocess

    mend = sandbox.obstacle()
    if mend:
        raise errors.Unsupported(mend)
    course = folder()
    new = copy(course)
    print(f"Your copy of the course: {course}" + (f" (new: {', '.join(new)})" if new else ""))
    print("A fresh copy of one of them, yours kept: minicontainer notebook reset NN", flush=True)
    # Root's browser would refuse to run, and Jupyter refuses root unless told that it is meant.
    root = ["--allow-root", "--no-browser"] if host.is_root() else []
    with surroundings(course) as more:
        words = [
            sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={course}", "--KernelManager.transport=ipc",
            f"--MultiKernelManager.default_kernel_name={KERNEL}",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=None",
            "--LabApp.extension_manager=readonly", "--Application.log_level=WARN",  # an address, not forty lines
            f"--KernelSpecManager.allowed_kernelspecs={KERNEL}",  # in another kernel, most cells would fail
            *root, *arguments,
        ]  # fmt: skip
        # In JupyterLab's terminal, `minicontainer` is this checkout's.
        more["PATH"] = f"{sys.prefix}/bin:{os.environ.get('PATH', os.defpath)}"
        server = subprocess.Popen(words, env={**os.environ, **more}, cwd=course, preexec_fn=end_with_us)  # noqa: PLW1509 (one thread)
        signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        while True:
            try:
                return server.wait()
            except KeyboardInterrupt:  # it is the server's: it asks whether that was meant
                continue


def end_with_us() -> None:
    """In the child: the kernel asks it to end when we do, however that comes (prctl(2), PR_SET_PDEATHSIG)."""
    syscalls.prctl(sandbox.PR_SET_PDEATHSIG, signal.SIGTERM)


def execute(path: str, course: str, answers: dict[str, Any] | None = None) -> Any:
    """Run every cell of a notebook in our kernel, with `course` as its folder; returns it with its outputs.

    nbclient.exceptions.CellExecutionError at the first cell that raises. `answers` are put into the learner's cells.
    """
    import nbclient
    import nbformat
    from traitlets.config import Config

    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    fill_in(notebook, answers or {})
    os.makedirs(course, exist_ok=True)
    with surroundings(course) as more:
        before = dict(os.environ)
        os.environ.update(more)  # jupyter_client reads its directories there
        try:
            connection = {"transport": "ipc", "connection_file": f"{more['JUPYTER_RUNTIME_DIR']}/kernel.json"}
            client = nbclient.NotebookClient(
                notebook, kernel_name=KERNEL, config=Config({"KernelManager": connection}),
                timeout=TIME_LIMIT, startup_timeout=TIME_LIMIT, resources={"metadata": {"path": course}},
                coalesce_streams=True,  # what was printed in several writes is one output, as JupyterLab shows it
            )  # fmt: skip
            client.execute()
        finally:
            os.environ.clear()
            os.environ.update(before)
    return notebook


def fill_in(notebook: Any, answers: dict[str, Any]) -> None:
    """Replace `answer_N = ...` in the cells tagged "answer"."""
    for cell in notebook.cells:
        if "answer" in cell.metadata.get("tags", ()):
            for name, value in answers.items():
                waiting = re.compile(rf"^{name} = \.\.\.", re.M)
                cell.source = waiting.sub(f"{name} = {value!r}".replace("\\", r"\\"), cell.source)


def instructor_answers(path: str) -> dict[str, Any]:
    """The answers in notebooks/instructor/NN.md, its fenced json block; none if there is no such file."""
    notes = f"{os.path.dirname(path)}/instructor/{short(path)[:2]}.md"
    try:
        with open(notes) as file:
            blocks = re.findall(r"^```json\n(.*?)^```", file.read(), re.M | re.S)
    except FileNotFoundError:
        return {}
    answers: dict[str, Any] = {}
    for block in blocks:
        answers |= json.loads(block)
    return answers


def problems(notebook: Any) -> list[str]:
    """What an executed notebook shows that it should not: errors, words on stderr, plots without content."""
    found = []
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                found.append(f"cell {number} raised {output.ename}: {output.evalue}")
            elif output.output_type == "stream" and output.name == "stderr":
                found.append(f"cell {number} wrote to stderr: {output.text.strip()[:300]}")
            elif "image/png" in output.get("data", {}):
                shades = colours(output.data["image/png"])
                if shades < 8:
                    found.append(f"cell {number} shows an empty plot: {shades} colours")
    return found


def colours(encoded: str) -> int:
    """How many distinct colours a PNG has."""
    import base64
    import io

    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        return len(image.convert("RGB").getcolors(1 << 24) or [])


def execute_all(words: list[str], html: bool) -> int:
    """Execute notebooks one after the other in a folder that goes afterwards; with `html`, keep a page of each."""
    mend = sandbox.obstacle()
    if mend:
        raise errors.Unsupported(mend)
    from nbclient.exceptions import CellExecutionError

    failed = 0
    with tempfile.TemporaryDirectory(prefix="minicontainer-course-", dir="/var/tmp") as course:
        for path in originals(words):
            began = time.monotonic()
            print(f"{short(path):18}", end="", flush=True)
            try:
                notebook = execute(path, course, instructor_answers(path))
                found = problems(notebook)
            except CellExecutionError as error:
                notebook, found = None, [str(error)]
            print(f"{time.monotonic() - began:6.1f} s  {'; '.join(found) or 'fine'}")
            failed += bool(found)
            if html and notebook is not None:
                print(f"{'':18}{page(notebook, path)}")
    return 1 if failed else 0


# A page has no bar to scroll a cell by that would also be there on paper: long lines go on in the next one. Tables and
# text are as wide as is good to read.
WRAPPED = """<style>
.jp-InputArea-editor pre, .jp-OutputArea-output pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.jp-Notebook { max-width: 64rem; margin: 0 auto; }
</style>
"""


def page(notebook: Any, path: str) -> str:
    """The executed notebook as one HTML file that needs nothing else, below build/notebooks; returns its path."""
    import nbconvert

    exporter = nbconvert.HTMLExporter(embed_images=True)  # type: ignore[no-untyped-call]
    exporter.mathjax_url = exporter.require_js_url = ""  # nothing from elsewhere: it is read offline
    text, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": short(path)}})
    directory = f"{CHECKOUT}/build/notebooks"
    os.makedirs(directory, exist_ok=True)
    with open(f"{directory}/{short(path)}.html", "w") as file:
        file.write(text.replace("</head>", f"{WRAPPED}</head>", 1))
    return f"{directory}/{short(path)}.html"


def main(words: list[str]) -> int:
    """kernelspec | start | execute | html"""
    verb, *rest = words or ["start"]
    try:
        if verb == "kernelspec":
            kernelspec(sys.prefix)
            return 0
        return start(rest) if verb == "start" else execute_all(rest, html=verb == "html")
    except errors.MiniContainerError as error:
        print(f"minicontainer: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
