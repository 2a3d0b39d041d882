"""The same Dockerfile built here and by a real docker, and the two images compared by content.

docker's builder is BuildKit, which is asked over the daemon's own socket (POST /build?version=2, Docker Engine API), so
that no buildx is needed. Docker 20.10's BuildKit is 0.8: it knows no heredocs, so a case that has some gives docker the
same steps spelled out, and its history is not compared.
"""

import ast
import hashlib
import http.client
import io
import json
import os
import re
import socket
import stat
import subprocess
import tarfile
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from minicontainer.image import blobs, store
from tests import engine_fixtures
from tests.conftest import minicontainer

DIRECTORIES = ("bin", "dev", "etc", "home", "proc", "root", "run", "srv", "sys", "usr", "usr/bin", "var")
BASE_CONFIG = {"Env": ["PATH=/bin:/usr/bin", "FROM_BASE=yes"], "Cmd": ["sh"], "Labels": {"of": "base"}}
Tree = dict[str, tuple[Any, ...]]


class Case(NamedTuple):
    """A Dockerfile, its context (a string beginning with -> is a link; a name ending in / a directory), and its flags.

    `spelled` is what docker 20.10 is given where it does not know the Dockerfile's words; `left` are files in which it
    is known to differ from newer ones; `ignored` is what docker's client would not send, by the .dockerignore; `prints`
    is what the image's own command writes, where somebody runs it.
    """

    text: str | bytes
    files: dict[str, str | bytes] = {}  # noqa: RUF012 - never changed
    args: dict[str, str] = {}  # noqa: RUF012
    target: str = ""
    spelled: str = ""
    skip: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    prints: str = ""


class Result(NamedTuple):
    """An image: its files by name, and what its config says."""

    tree: Tree
    config: dict[str, Any]
    history: list[tuple[str, bool]]


def base() -> bytes:
    """An archive of `base:1`."""
    return engine_fixtures.archive({"base:1": base_image()})


def base_image() -> tuple[dict[str, Any], list[bytes]]:
    """busybox with all its applets, some users and directories: its config and its layers."""
    listed = subprocess.run([engine_fixtures.BUSYBOX, "--list"], capture_output=True, text=True, check=True)
    applets = {f"bin/{name}": "busybox" for name in listed.stdout.split() if name != "busybox" and "/" not in name}
    files: dict[str, bytes | str | int] = {
        **dict.fromkeys(DIRECTORIES, 493), "tmp": 0o1777, **applets,
        "bin/busybox": Path(engine_fixtures.BUSYBOX).read_bytes(),
        "etc/passwd": engine_fixtures.PASSWD.encode(), "etc/group": engine_fixtures.GROUP.encode(),
    }  # fmt: skip
    layer = engine_fixtures.layer(files, modes={"bin/busybox": 0o755})
    history = [{"created": "2020-01-01T00:00:00Z", "created_by": "base"}]
    return {"config": BASE_CONFIG, "history": history}, [layer]


def write(context: Path, case: Case) -> None:
    """The case's files, in an empty directory."""
    for name, content in {**case.files, "Dockerfile": case.text}.items():
        path = context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        elif isinstance(content, str) and content.startswith("->"):
            path.symlink_to(content[2:])
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            path.chmod(0o755 if name.endswith((".sh", "/manage.py")) else 0o644)


def here(context: Path, case: Case, *flags: str) -> Result:
    """The image that is built here."""
    words = [word for name, value in case.args.items() for word in ("--build-arg", f"{name}={value}")]
    words += ["--target", case.target] if case.target else []
    build = ("build", "--progress", "plain", "-t", "twin", *words, *flags, str(context))
    done = minicontainer(*build, check=False, timeout=300)  # seconds: one compiles
    assert done.returncode == 0, done.stdout + done.stderr
    root = os.environ["MINICONTAINER_ROOT"]
    image = store.Store(root).get("twin")
    layers = [Path(blobs.path(root, layer["digest"])).read_bytes() for layer in image.manifest["layers"]]
    return result(image.config, layers)


def docker(words: list[str], context: Path, case: Case, network: str = "none") -> Result:
    """The image that docker's BuildKit builds. Raises RuntimeError with its words, where it fails."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:  # it knows a context by its start
        for path in sorted(context.rglob("*")):
            name = str(path.relative_to(context))
            if name.split("/", maxsplit=1)[0] in case.ignored:
                continue
            if name == "Dockerfile" and case.spelled:
                entry = tarfile.TarInfo(name)
                entry.size = len(case.spelled.encode())
                tar.addfile(entry, io.BytesIO(case.spelled.encode()))
            else:
                tar.add(path, name, recursive=False)
    query = {"version": "2", "t": "twin:1", "networkmode": network, "buildargs": json.dumps(case.args),
             "target": case.target}  # fmt: skip
    connection = Connection(words[words.index("-H") + 1].removeprefix("unix://"))
    headers = {"Content-Type": "application/x-tar"}
    connection.request("POST", f"/build?{urllib.parse.urlencode(query)}", packed.getvalue(), headers)
    said = [json.loads(line) for line in connection.getresponse().read().splitlines() if line.strip()]
    connection.close()
    failed = [one["error"] for one in said if "error" in one]
    if failed:
        raise RuntimeError(failed[0])
    saved = subprocess.run([*words, "save", "twin:1"], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        (manifest,) = json.loads(member(tar, "manifest.json"))
        return result(json.loads(member(tar, manifest["Config"])), [member(tar, name) for name in manifest["Layers"]])


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("docker")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def member(tar: tarfile.TarFile, name: str) -> bytes:
    """A member's content; a link within the archive is followed."""
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


def result(document: dict[str, Any], layers: Iterable[bytes]) -> Result:
    """An image, taken apart."""
    config = {name: value for name, value in document["config"].items() if value}
    for name in ("Hostname", "Image"):
        config.pop(name, None)
    config["author"] = document.get("author", "")
    history = [(one.get("created_by", ""), bool(one.get("empty_layer"))) for one in document["history"]]
    return Result(flat(layers), config, history)


def flat(layers: Iterable[bytes]) -> Tree:
    """Layers one over the other: each file's kind, mode, owner, link target, extended attributes and content."""
    tree: Tree = {}
    for layer in layers:
        before = set(tree)
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            for entry in tar.getmembers():
                name = os.path.normpath(entry.name).strip("/")
                folder, base_name = os.path.split(name)
                if base_name.startswith(".wh."):
                    opaque = base_name == ".wh..wh..opq"
                    gone = folder if opaque else os.path.join(folder, base_name[4:])
                    for one in before:
                        if one.startswith(f"{gone}/") or (one == gone and not opaque):
                            tree.pop(one, None)
                    continue
                if name != ".":
                    tree[name] = facts(tar, entry, tree)
    return tree


def facts(tar: tarfile.TarFile, entry: tarfile.TarInfo, tree: Tree) -> tuple[Any, ...]:
    """What is to be the same of a file."""
    if entry.islnk():
        return tree[os.path.normpath(entry.linkname).strip("/")]
    attributes = sorted(item for item in entry.pax_headers.items() if item[0].startswith("SCHILY.xattr."))
    content = member(tar, entry.name) if entry.isfile() else entry.linkname.encode()
    if len(content) > 300:
        content = hashlib.sha256(content).hexdigest().encode()
    mode = 0 if entry.issym() else stat.S_IMODE(entry.mode)
    return entry.type, oct(mode), entry.uid, entry.gid, attributes, (entry.devmajor, entry.devminor), content


def differences(ours: Result, theirs: Result, case: Case) -> list[str]:
    """What is not the same, a line each."""
    found = []
    for name in sorted({*ours.tree, *theirs.tree}):
        one, other = ours.tree.get(name), theirs.tree.get(name)
        if one != other and name not in case.left:
            found.append(f"file {name}: {str(one)[:300]}, docker {str(other)[:300]}")
    for name in sorted({*ours.config, *theirs.config}):
        if ours.config.get(name) != theirs.config.get(name) and name not in case.skip:
            found.append(f"config {name}: {ours.config.get(name)}, docker {theirs.config.get(name)}")
    if not case.spelled and "history" not in case.skip:
        if len(ours.history) != len(theirs.history):
            found.append(f"history: {len(ours.history)} entries, docker {len(theirs.history)}")
        for one, other in zip(map(as_before, ours.history), map(as_before, theirs.history), strict=False):
            if one != other:
                found.append(f"history {one}, docker {other}")
    return found


def as_before(entry: tuple[str, bool]) -> tuple[str, bool]:
    """An entry of the history as BuildKit 0.8 and a newer one, which is followed here, would both tell it.

    The flags of COPY and HEALTHCHECK's --start-interval are not in the earlier one's; an ARG is as its author wrote it,
    ports come in any order, and a check's fields are without their names.
    """
    words, empty = entry
    words = re.sub(r"^(COPY|ADD)(?: --(?:chown|chmod|parents)\S*)+", r"\1", words)
    words = re.sub(r"^(ARG [^=]*)=.*", r"\1", words)
    if words.startswith("EXPOSE "):
        words = " ".join(["EXPOSE", *sorted(set(re.findall(r"\d+/\w+", words)))])
    checked = re.fullmatch(r"HEALTHCHECK &{\[(.*)\] \"(\S+)\" \"(\S+)\" \"(\S+)\" ('.*')}", words)
    if checked:
        quoted, *times, retries = checked.groups()
        test = " ".join(json.loads(f"[{','.join(re.findall(QUOTED, quoted))}]"))
        known = zip(("Interval", "Timeout", "StartPeriod"), times, strict=True)
        shown = " ".join(f"{name}:{value}" for name, value in known)
        words = f"HEALTHCHECK {{Test:[{test}] {shown} Retries:{ord(ast.literal_eval(retries))}}}"
    return re.sub(r"^(HEALTHCHECK .*) StartInterval:\S+", r"\1", words), empty


QUOTED = r'"(?:[^"\\]|\\.)*"'
