"""Images that builds stand on, made of this machine's own programs beside busybox: no registry, no minutes.

    system:1   python, pip's wheel, dpkg, apt and tar
    node:1     node, and npm where it is there
    golang:1   Go's toolchain, and of its standard library what `modules` import

`archive(name)` is what `docker save` would write of one of them.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path

from tests import engine_fixtures, twins

PYTHON = "/usr/bin/python3.11"
UNWANTED = (
    "test",
    "idlelib",
    "lib2to3",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "distutils",
    "pydoc_data",
    "__pycache__",
)
# Debian's own image has it: packages are not kept, and no cache of the lists, which would have times in it.
DOCKER_CLEAN = """\
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";
"""
FOLDERS = (
    "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial",
    "var/log/apt", "etc/dpkg/dpkg.cfg.d", "etc/apt/sources.list.d", "etc/apt/preferences.d", "etc/apt/trusted.gpg.d",
    "usr/local/bin", "usr/local/go", "go",
)  # fmt: skip


class Files:
    """A layer's files, as engine_fixtures.layer takes them."""

    def __init__(self) -> None:
        self.tree: dict[str, bytes | str | int] = {}

    def folder(self, name: str) -> None:
        for at in range(1, name.count("/") + 2):
            self.tree.setdefault("/".join(name.split("/")[:at]), 0o755)

    def put(self, source: str | Path, name: str = "") -> None:
        """A file of this machine; a link to one is followed."""
        name = (name or str(source)).lstrip("/")
        self.folder(os.path.dirname(name))
        self.tree[name] = Path(source).read_bytes()

    def programs(self, *programs: str) -> None:
        """Programs, with the shared libraries that ldd(1) tells."""
        for program in programs:
            self.put(program)
            for line in subprocess.run(["ldd", program], capture_output=True, text=True).stdout.splitlines():
                for word in line.split():
                    if word.startswith("/") and word.lstrip("/") not in self.tree:
                        self.put(word)


def archive(name: str, modules: Path | None = None, proxy: Path | None = None) -> bytes:
    """An archive of `NAME:1`. `modules` is a Go module, whose imports golang:1 is to have; what is not of the standard
    library is looked for in `proxy`, a directory as GOPROXY's protocol has it."""
    files = Files()
    path = "/usr/local/bin:/usr/bin:/bin"
    if name == "system":
        system(files)
    elif name == "node":
        node(files)
    else:
        assert modules is not None and proxy is not None
        golang(files, modules, proxy)
        path = f"/go/bin:/usr/local/go/bin:{path}"
    for folder in FOLDERS:
        files.folder(folder)
    modes = {one: 0o755 for one in files.tree if {"bin", "methods", "tool"} & set(one.split("/")) or "ld-linux" in one}
    modes = {one: mode for one, mode in modes.items() if not isinstance(files.tree[one], int)}
    layer = engine_fixtures.layer(files.tree, modes=modes)
    config, layers = twins.base_image()
    config = {**config, "config": {**config["config"], "Env": [f"PATH={path}", "LANG=C.UTF-8"]}}
    history = [*config["history"], {"created": "2020-01-02T00:00:00Z", "created_by": name}]
    return engine_fixtures.archive({f"{name}:1": ({**config, "history": history}, [*layers, layer])})


def system(files: Files) -> None:
    """What is in `system:1`."""
    files.programs(PYTHON, *(f"/usr/bin/{one}" for one in ("dpkg", "dpkg-deb", "dpkg-query", "dpkg-split", "tar")))
    files.programs("/usr/bin/apt-get", *(f"/usr/lib/apt/methods/{one}" for one in ("http", "store", "copy", "file")))
    for table in ("cputable", "tupletable"):  # what apt asks for
        files.put(f"/usr/share/dpkg/{table}")
    modules = Path("/usr/lib/python3.11")
    files.programs(*map(str, modules.glob("lib-dynload/*.so")))
    for path in modules.rglob("*"):
        if path.is_file() and not set(path.parts) & set(UNWANTED) and path.suffix not in (".pyc", ".a"):
            files.put(path)
    for wheel in Path("/usr/share/python-wheels").glob("pip-*.whl"):
        files.put(wheel, "usr/share/pip.whl")
    files.folder("etc/apt/apt.conf.d")
    files.folder("var/lib/dpkg")
    files.tree["etc/passwd"] = f"{engine_fixtures.PASSWD}_apt:x:42:65534::/nonexistent:/bin/false\n".encode()
    files.tree |= {"var/lib/dpkg/status": b"", "var/lib/dpkg/available": b"", "usr/bin/python3": "python3.11"}
    files.tree["etc/apt/apt.conf.d/docker-clean"] = DOCKER_CLEAN.encode()
    files.tree["usr/bin/pip"] = b'#!/bin/sh\nexec /usr/bin/python3 /usr/share/pip.whl/pip "$@"\n'
    for program in ("ldconfig", "start-stop-daemon"):  # what dpkg asks for
        files.tree[f"usr/bin/{program}"] = b"#!/bin/sh\n"


def node(files: Files) -> None:
    """What is in `node:1`."""
    files.programs("/usr/bin/node")
    npm = Path("/usr/bin/npm").resolve().parent.parent
    if npm.name == "npm":
        for path in npm.rglob("*"):
            if path.is_file() and not {"man", "docs"} & set(path.parts):
                files.put(path)
        files.tree["usr/bin/npm"] = f"{npm}/bin/npm-cli.js"
    files.tree["usr/bin/env"] = "/bin/busybox"


def golang(files: Files, modules: Path, proxy: Path) -> None:
    """What is in `golang:1`: the compiler, the assembler, the linker, and sources, for `-trimpath` uses no others."""
    own = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -modcacherw", "GOPROXY": f"file://{proxy}", "GOSUMDB": "off",
           "GOTOOLCHAIN": "local", "GOWORK": "off"}  # fmt: skip

    def go(*words: str) -> str:
        with tempfile.TemporaryDirectory() as kept:
            environment = {**os.environ, **own, "GOMODCACHE": kept}
            done = subprocess.run(["go", *words], cwd=modules, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    root, tools = (Path(line) for line in go("env", "GOROOT", "GOTOOLDIR").splitlines())
    target = "/usr/local/go"
    files.programs(str(root / "bin/go"))
    files.put(root / "bin/go", f"{target}/bin/go")
    del files.tree[str(root / "bin/go")[1:]]
    wanted = [root / "VERSION", root / "go.env", root / "src/go.mod", *(root / "pkg/include").iterdir()]
    wanted += [*(root / "src/runtime/cgo").glob("*.h"), *(tools / one for one in ("asm", "compile", "link"))]
    listed = go("list", "-deps", "-json=Dir,Standard,GoFiles,SFiles,HFiles", "./...")
    for package in json.loads("[" + listed.replace("}\n{", "},{") + "]"):
        names = [name for kind in ("GoFiles", "SFiles", "HFiles") for name in package.get(kind, [])]
        wanted += [Path(package["Dir"]) / name for name in names if package.get("Standard")]
    for path in wanted:
        if path.is_file():
            files.put(path, f"{target}/{path.relative_to(root)}")
