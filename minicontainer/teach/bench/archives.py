"""Images for benchmarks, as archives that every engine loads: what `docker save` would have written, made by hand.

Sources: moby image/spec/v1.2.md (manifest.json, one folder per layer), OCI image-spec config.md.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable

from ... import errors
from ...image import reference
from . import Workshop, cache


def archive(path: str, layer: str, name: str, command: list[str]) -> None:
    """Write a docker-archive of one layer, the tar file `layer`, as image `name`."""
    with open(layer, "rb") as file:
        diff = hashlib.file_digest(file, "sha256").hexdigest()
    config = {
        "architecture": reference.host_architecture(),
        "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
        "created": "1970-01-01T00:00:00Z",
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "minicontainer bench"}],
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff}"]},
    }
    content = json.dumps(config).encode()
    config_name = f"{hashlib.sha256(content).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [f"{diff}/layer.tar"]}]
    temporary = f"{path}.tmp-{os.getpid()}"
    with tarfile.open(temporary, "w") as tar:
        tar.add(layer, f"{diff}/layer.tar")
        for member, data in ((config_name, content), ("manifest.json", json.dumps(manifest).encode())):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    os.rename(temporary, path)


def busybox_tree(path: str) -> None:
    """The root of a system that is one static binary: /bin/busybox and its names, /etc/passwd, empty mount points."""
    binary = shutil.which("busybox")
    if not binary:
        raise errors.Unsupported("the bench's image is made from a static busybox: apt-get install busybox-static")
    for directory in ("bin", "etc", "proc", "dev", "sys", "tmp", "root"):
        os.makedirs(f"{path}/{directory}")
    shutil.copyfile(binary, f"{path}/bin/busybox")
    os.chmod(f"{path}/bin/busybox", 0o755)
    listed = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in listed:
        if applet != "busybox":
            os.symlink("busybox", f"{path}/bin/{applet}")
    with open(f"{path}/etc/passwd", "w") as file:
        file.write("root:x:0:0:root:/root:/bin/sh\n")


def pack(tree: str, layer: str) -> None:
    """A directory as a layer: an uncompressed tar with owners, links and devices as they are."""
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(tree, ".")


def debian_tree(path: str, tell: Callable[[str], None]) -> None:
    """A minimal Debian, by debootstrap(8) from the mirror that this machine uses: a minute or two."""
    if not shutil.which("debootstrap"):
        raise errors.Unsupported("the bench's image is a Debian: apt-get install debootstrap")
    suite = "stable"
    with open("/etc/os-release") as file:
        for line in file:
            if line.startswith("VERSION_CODENAME="):
                suite = line.partition("=")[2].strip().strip('"')
    tell(f"debootstrap {suite}: a minute or two, the first time")
    done = subprocess.run(
        ["debootstrap", "--variant=minbase", suite, path],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        raise errors.MiniContainerError(f"debootstrap {suite} failed: {''.join(last)}")


def debian_layer(workshop: Workshop) -> str:
    """The Debian as a layer, kept for the next bench; returns its path."""
    layer = f"{cache()}/debian-layer.tar"
    if not os.path.exists(layer):
        tree = f"{workshop.folder}/debian"
        debian_tree(tree, workshop.tell)
        pack(tree, f"{layer}.tmp")
        os.rename(f"{layer}.tmp", layer)
        shutil.rmtree(tree)
    return layer


def small_files(path: str, count: int) -> None:
    """So many files of up to two kilobytes below a directory, a hundred in each; the same each time."""
    draw = random.Random(count)
    for number in range(count):
        directory = f"{path}/{number // 100}"
        if number % 100 == 0:
            os.makedirs(directory)
        with open(f"{directory}/{number}", "wb") as file:
            file.write(draw.randbytes(draw.randrange(100)) * 20)


def large_layer(path: str, size: int) -> None:
    """A layer of one file, `large`, of which gzip saves three quarters."""
    draw = random.Random(size)
    with tarfile.open(path, "w") as tar, tempfile.TemporaryFile(dir=os.path.dirname(path)) as file:
        for _ in range(size >> 20):
            file.write(draw.randbytes(1 << 18) + bytes(3 << 18))
        file.seek(0)
        info = tarfile.TarInfo("large")
        info.size = size >> 20 << 20
        tar.addfile(info, file)
