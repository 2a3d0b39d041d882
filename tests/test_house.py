"""The rules of the house that no tool off the shelf holds (ARCHITECTURE.md): what may stand on which floor, and what a
start may import. The arrows between the floors are import-linter's business (`./dev check`)."""

import ast
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import minicontainer

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = CHECKOUT / "minicontainer"
SOURCES = sorted(PACKAGE.rglob("*.py"))
FACES = ("cli", "teach")


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def on_top_floor(path: Path) -> bool:
    return path.relative_to(PACKAGE).parts[0] in (*FACES, "__main__.py")


def parsed(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(), str(path)))


def imports(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, anywhere in it."""
    found = set()
    for node in parsed(path):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_ctypes_is_spoken_in_syscalls_alone() -> None:
    assert [name(path) for path in SOURCES if "ctypes" in imports(path)] in ([], ["syscalls.py"])


def test_http_is_spoken_in_the_registry_alone() -> None:
    assert [name(path) for path in SOURCES if "urllib3" in imports(path)] == ["image/registry.py"]


def test_dns_is_spoken_in_the_resolver_alone() -> None:
    assert [name(path) for path in SOURCES if "dnslib" in imports(path)] == ["network/resolver.py"]


def test_dbus_is_spoken_for_scopes_alone() -> None:
    assert [name(path) for path in SOURCES if "jeepney" in imports(path)] == ["kernel/cgroups/scope.py"]


@pytest.mark.parametrize("path", [path for path in SOURCES if not on_top_floor(path)], ids=name)
def test_only_the_faces_print_and_exit(path: Path) -> None:
    for node in parsed(path):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("print", "sys.exit", "exit", "sys.stdout.write"), (
                f"{name(path)}:{node.lineno}: {called}"
            )


# What `bootstrap` makes is what debootstrap and dpkg-deb install; writing a tar file there is Python's tarfile's job.
# A credential helper is the user's own program, named in docker's config.json.
CALLS_PROGRAMS = ("engine/bootstrap.py", "engine/credentials.py")


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if not on_top_floor(path) and name(path) not in CALLS_PROGRAMS], ids=name
)
def test_the_engine_calls_no_other_program(path: Path) -> None:
    """No `ip`, `nft`, `mount`, `tar`: those belong to the notebooks and to --explain=sh."""
    assert not imports(path) & {"subprocess", "tarfile", "pty"}, name(path)
    for node in parsed(path):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in ("os.system", "os.popen", "os.spawnvp"), f"{name(path)}:{node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not tree.body or ast.get_docstring(tree), f"{name(path)} has no docstring"


def test_no_file_names_a_package_registry() -> None:
    """Where pip fetches from is the machine's own setting: classrooms have mirrors."""
    hosts = ["pypi" + ".org", "python" + "hosted.org"]
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True)
    if listed.returncode:
        files = [CHECKOUT / "dev", CHECKOUT / "pyproject.toml", *SOURCES, *(CHECKOUT / "tests").rglob("*.py")]
    else:
        files = [CHECKOUT / line for line in listed.stdout.split("\0") if line]
    for path in files:
        if path.is_file():
            text = path.read_bytes().decode("utf-8", "replace")
            assert not [host for host in hosts if host in text], path


def test_every_module_can_be_imported() -> None:
    """Alone, each: no module leans on what another one happened to import first."""
    modules = [module.name for module in pkgutil.walk_packages([str(PACKAGE)], "minicontainer.")]
    modules = [module for module in modules if not module.endswith("__main__")]
    for module in modules:
        done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True)
        assert done.returncode == 0, f"{module}: {done.stderr}"


# What a start must not import (ARCHITECTURE.md): each costs more than a namespace does.
HEAVY = {
    "argparse",
    "asyncio",
    "concurrent.futures",
    "dataclasses",
    "dnslib",
    "email",
    "http",
    "importlib.metadata",
    "inspect",
    "logging",
    "multiprocessing",
    "pathlib",
    "pyroute2",
    "pyseccomp",
    "random",
    "shutil",
    "subprocess",
    "tarfile",
    "tempfile",
    "typing_extensions",
    "urllib",
    "urllib3",
    "isal",
    "jeepney",
    "zstandard",
}


def loaded(statement: str) -> set[str]:
    """The modules that a statement loads beyond those of bare Python, in a process of its own."""
    code = f"import sys; old = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - old))"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COVERAGE"))}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    return set(done.stdout.split())


def test_importing_the_package_costs_nothing() -> None:
    assert loaded("import minicontainer") <= {"minicontainer"}


def test_the_ground_floor_is_light() -> None:
    for path in (*PACKAGE.glob("*.py"), PACKAGE / "netlink"):
        if path.stem not in ("__main__", "__init__"):
            assert not loaded(f"import minicontainer.{path.stem}") & HEAVY, path.stem


def test_a_start_imports_nothing_heavy() -> None:
    """All modules that `run` has loaded when its container's process is about to be made."""
    assert not loaded("import minicontainer.cli.run, minicontainer.engine.client") & HEAVY


def test_the_version_is_told_once() -> None:
    import tomllib

    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert minicontainer.__version__ == project["version"]
