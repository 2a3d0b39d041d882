"""Packages made here, as registries serve them: wheels, .debs with apt's index, npm's tarballs, Go modules.

What is hashed by those who want them (`integrity`, `go_sum`) is the same bytes in each call on one machine.
"""

import base64
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

EPOCH = (2020, 1, 1, 0, 0, 0)


def wheel(folder: Path, name: str, body: str, requires: str = "", script: str = "") -> None:
    """A wheel of one module."""
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n" + (
        f"Requires-Dist: {requires}\n" if requires else ""
    )
    files = {
        f"{name}.py": body, f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **({f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:{script}\n"} if script else {}),
    }  # fmt: skip
    record = "".join(f"{one},,\n" for one in files) + f"{info}/RECORD,,\n"
    place = folder / "simple" / name
    place.mkdir(parents=True)
    file = f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(place / file, "w") as archive:
        for one, content in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(zipfile.ZipInfo(one, EPOCH), content)
    (place / "index.html").write_text(f'<a href="{file}">{file}</a>\n')


def deb(
    folder: Path, name: str, depends: str = "", files: dict[str, str] | None = None, script: str = "", more: str = ""
) -> None:
    """A .deb; `more` are further lines of its control file."""
    tree = folder / f"tree-{name}"
    for path, content in {f"usr/share/{name}/about": f"{name}\n", **(files or {})}.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content)
        (tree / path).chmod(0o755 if "/bin/" in path else 0o644)
    (tree / "DEBIAN").mkdir()
    lines = (
        f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: me <me@localhost>\nDescription: {name}\n{more}"
    )
    (tree / "DEBIAN/control").write_text(lines + (f"Depends: {depends}\n" if depends else ""))
    if script:
        (tree / "DEBIAN/postinst").write_text(script)
        (tree / "DEBIAN/postinst").chmod(0o755)
    subprocess.run(
        ["dpkg-deb", "-b", "--root-owner-group", "-Znone", str(tree), str(folder / f"{name}.deb")],
        check=True, capture_output=True, env={**os.environ, "SOURCE_DATE_EPOCH": "1600000000"},
    )  # fmt: skip
    shutil.rmtree(tree)


def repository(folder: Path, name: str) -> None:
    """The .debs in `folder` as a flat repository of apt's, NAME: with an index, as dpkg-scanpackages writes one."""
    place = folder / name
    place.mkdir()
    entries = []
    for path in sorted(folder.glob("*.deb")):
        shutil.copyfile(path, place / path.name)
        control = subprocess.run(["dpkg-deb", "-f", str(path)], capture_output=True, text=True, check=True).stdout
        content = path.read_bytes()
        sums = f"Size: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"
        entries.append(f"{control}Filename: ./{path.name}\n{sums}")
    (place / "Packages").write_text("\n".join(entries))


def npm_tarball(manifest: dict[str, Any], index: str) -> bytes:
    """A package of npm's: its package.json, and index.js."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in (("package.json", json.dumps(manifest)), ("index.js", index)):
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content.encode()))
    return gzip.compress(packed.getvalue(), mtime=0)


def integrity(tarball: bytes) -> str:
    """What package-lock.json says of a tarball (Subresource Integrity)."""
    return "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()


def npm(folder: Path, url: str, manifest: dict[str, Any], index: str) -> None:
    """A package in the registry of npm's that is served from `folder` as `url`. The page of a directory is what the
    registry says of a package: its versions, and where their tarballs are."""
    name, version = manifest["name"], manifest["version"]
    tarball = npm_tarball(manifest, index)
    (folder / name / "-").mkdir(parents=True)
    (folder / name / "-" / f"{name}-{version}.tgz").write_bytes(tarball)
    place = {"tarball": f"{url}/{name}/-/{name}-{version}.tgz", "integrity": integrity(tarball)}
    said = {"name": name, "dist-tags": {"latest": version}, "versions": {version: {**manifest, "dist": place}}}
    (folder / name / "index.html").write_text(json.dumps(said))


def go(folder: Path, module: str, version: str, files: dict[str, str]) -> None:
    """A Go module, as GOPROXY's protocol has it (go.dev/ref/mod, "GOPROXY protocol")."""
    place = folder / module / "@v"
    place.mkdir(parents=True)
    (place / f"{version}.info").write_text(json.dumps({"Version": version, "Time": "2020-01-01T00:00:00Z"}))
    (place / f"{version}.mod").write_text(files["go.mod"])
    with zipfile.ZipFile(place / f"{version}.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(f"{module}@{version}/{name}", EPOCH), content)


def go_sum(module: str, version: str, files: dict[str, str]) -> str:
    """Its two lines of go.sum (go.dev/ref/mod, "go.sum files")."""

    def h1(prefix: str, files: dict[str, str]) -> str:
        lines = [f"{hashlib.sha256(files[name].encode()).hexdigest()}  {prefix}{name}\n" for name in sorted(files)]
        return "h1:" + base64.b64encode(hashlib.sha256("".join(lines).encode()).digest()).decode()

    whole, only = h1(f"{module}@{version}/", files), h1("", {"go.mod": files["go.mod"]})
    return f"{module} {version} {whole}\n{module} {version}/go.mod {only}\n"
