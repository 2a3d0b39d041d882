"""What a start imports. `bench start` measures the time; what costs it is held here, where no clock is needed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT, minicontainer

# Each of these is dearer than a namespace, and each has a way back in through some innocent import.
FORBIDDEN = {
    "argparse", "ast", "asyncio", "bz2", "collections", "concurrent", "ctypes.util", "dataclasses", "datetime",
    "decimal", "difflib", "dis", "dnslib", "email", "enum", "getpass", "glob", "gzip", "hashlib", "http",
    "importlib.metadata", "importlib.resources", "importlib.util", "inspect", "isal", "jeepney", "json", "linecache",
    "locale", "logging", "lzma", "multiprocessing", "pathlib", "pickle", "platform", "prctl", "pyroute2", "pyseccomp",
    "queue", "random", "re", "secrets", "shlex", "shutil", "signal", "ssl", "statistics", "string", "subprocess",
    "tarfile", "tempfile", "textwrap", "threading", "traceback", "typing", "typing_extensions", "unittest",
    "urllib", "urllib3", "uuid", "zipfile", "zstandard",
    # of ours: what another command needs
    "minicontainer.image.archive", "minicontainer.image.layers", "minicontainer.engine.bootstrap",
    "minicontainer.image.registry", "minicontainer.engine.pulling", "minicontainer.engine.credentials",
    "minicontainer.network.resolver", "minicontainer.teach",
}  # fmt: skip

IMPORT = "import minicontainer.cli, minicontainer.cli.run"


def guilty(modules: set[str]) -> set[str]:
    """Those that are forbidden, or lie inside of something forbidden."""
    return {name for name in modules if any(name == word or name.startswith(word + ".") for word in FORBIDDEN)}


def environment() -> dict[str, str]:
    """Ours without what makes Python import more: coverage, PYTHON… variables."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COVERAGE"))}


def python(*arguments: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment(), cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


def linked(rest: str) -> list[str]:
    """Python as /usr/local/bin/minicontainer has it: no site.py, two folders on the path."""
    site = next(path for path in sys.path if path.endswith("site-packages"))
    return ["-IS", "-c", f"import sys; sys.path += [{str(CHECKOUT)!r}, {site!r}]; {rest}"]


def test_run_as_it_is_linked_imports_nothing_dear() -> None:
    modules = set(python(*linked(f"{IMPORT}; print(*sys.modules)")).split())
    assert "minicontainer.engine.containers" in modules
    assert guilty(modules) == set()


def test_run_as_a_module_imports_nothing_dear_beyond_what_python_does() -> None:
    """`python -m minicontainer`: site.py's own imports (of .pth files) are the environment's, ours are not."""
    before = set(python("-c", "import sys; print(*sys.modules)").split())
    after = set(python("-c", f"{IMPORT}; import sys; print(*sys.modules)").split())
    assert guilty(after - before) <= {"site"}


def test_an_editable_install_brings_no_import_machinery_back() -> None:
    """A .pth with a path in it is a line read; one with an import hook runs code at each start of this Python."""
    for folder in {path for path in sys.path if path.endswith("site-packages")}:
        for file in Path(folder).glob("*minicontainer*"):
            assert not file.name.startswith("__editable___"), (
                f"{file} is an import hook: ./dev setup writes a plain .pth"
            )
            if file.suffix == ".pth":
                assert not file.read_text().startswith("import "), file


@pytest.mark.root
@pytest.mark.needs("overlay", "busybox", "libseccomp")
def test_a_whole_start_imports_nothing_dear(store: Path) -> None:
    """Not what stands at the top of files, but what is really imported until the container's command runs, by all of
    our processes: Python itself tells (-X importtime). The second start, for the first compiles the seccomp filter."""
    minicontainer("bootstrap", "busybox")
    minicontainer("run", "--rm", "--network", "none", "busybox", "true")
    for network in ("none", "bridge"):
        typed = ["run", "--rm", "--network", network, "busybox", "true"]
        start = linked(f"from minicontainer.cli import main; sys.exit(main({typed}))")
        done = subprocess.run(
            [sys.executable, "-X", "importtime", *start], capture_output=True, text=True, env=environment(), cwd="/",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        imported = set(re.findall(r"^import time: .*\| +([\w.]+)$", done.stderr, re.MULTILINE))
        assert "minicontainer.runtime.init" in imported
        assert guilty(imported) == set(), network


def test_an_idle_monitor_is_small() -> None:
    modules = set(python(*linked("from minicontainer.engine.keeper import go_on; print(*sys.modules)")).split())
    assert "minicontainer.runtime.attach" in modules
    assert guilty(modules) | modules & {"ctypes", "struct", "minicontainer.errors", "minicontainer.files"} == set()


def test_exec_as_it_is_linked_imports_nothing_dear() -> None:
    modules = set(python(*linked("import minicontainer.cli, minicontainer.cli.exec; print(*sys.modules)")).split())
    assert "minicontainer.runtime.enter" in modules
    assert guilty(modules) == set()


@pytest.mark.root
@pytest.mark.needs("overlay", "busybox", "libseccomp")
def test_a_whole_exec_imports_nothing_dear(store: Path) -> None:
    """The same of what `exec` really imports, in all of its processes."""
    minicontainer("bootstrap", "busybox")
    minicontainer("run", "-d", "--name", "web", "--network", "none", "busybox", "sleep", "60")
    try:
        start = "from minicontainer.cli import main; sys.exit(main(['exec', 'web', 'true']))"
        done = subprocess.run(
            [sys.executable, "-X", "importtime", *linked(start)],
            capture_output=True, text=True, env=environment(), cwd="/",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        imported = set(re.findall(r"^import time: .*\| +([\w.]+)$", done.stderr, re.MULTILINE))
        assert "minicontainer.runtime.enter" in imported
        assert guilty(imported) == set()
    finally:
        minicontainer("rm", "-f", "web")


@pytest.mark.root
@pytest.mark.needs("busybox")
@pytest.mark.parametrize("verb", ["state", "start", "kill", "delete"])
def test_oci_imports_what_a_verb_needs(tmp_path: Path, verb: str) -> None:
    """An engine calls one program for each step of a container's life: only `create` needs what makes one."""
    start = f"from minicontainer.cli import main; sys.exit(main(['oci', '--root', {str(tmp_path)!r}, {verb!r}, 'c']))"
    command = [sys.executable, "-X", "importtime", *linked(start)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd="/")
    assert "container does not exist" in done.stderr
    imported = set(re.findall(r"^import time: .*\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "minicontainer.runtime.lifecycle" in imported
    assert guilty(imported) == set()
    assert not {"netlink", "kernel.mounts", "runtime.spec", "runtime.init"} & {
        name.removeprefix("minicontainer.") for name in imported
    }
