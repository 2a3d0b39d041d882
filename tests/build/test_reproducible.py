"""The same inputs with SOURCE_DATE_EPOCH give the same digest on another machine, too: here, and on the second kernel.

Every input is this file's own, byte by byte, so the digest is known beforehand. What runs the steps is not among them:
busybox, which each distribution builds anew, is in an image that the steps mount, and that nothing is copied from.
"""

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from minicontainer.image import blobs
from minicontainer.image import store as stores
from tests import engine_fixtures
from tests.conftest import minicontainer

pytestmark = [pytest.mark.root, pytest.mark.needs("overlay", "libseccomp")]

# Who changes what a build writes, and means it, writes down here what the test then says.
DIGEST = "sha256:6c50e03ed62fd3cded15274e4614530dcc6ed91f77aad2ac6ea55010e9b90d64"
EPOCH = 1700000000
PLATFORM = "linux/amd64"  # written in the config, whatever machine this is
TOOLS = "--mount=type=bind,from=tools:1,source=/bin,target=/bin"

DOCKERFILE = f"""\
FROM tools:1 AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/cache mkdir -p /out/sub && mknod -m 666 /out/pipe p && cat parts/* >/cache/all && \\
    sort -r /cache/all >/out/sorted && for i in $(seq 60); do echo $i >/out/sub/$i; done
FROM scratch AS notes
COPY <<END /notes
made by hand
END
FROM fixed:1
LABEL org.example.what="the same everywhere"
WORKDIR /srv/app/deep
ADD pack.tar.gz /opt/
COPY --from=build --chown=7:8 /out /srv/app/out
COPY --from=notes /notes .
COPY --chmod=640 parts /etc/parts
RUN {TOOLS} --mount=type=cache,target=/var/cache/steps set -e; umask 027; \\
    rm /etc/old; rm -r /srv/app/out/sub; mkdir /srv/app/out/sub; echo anew >/srv/app/out/sub/only; \\
    ln -s ../sorted /srv/app/out/sub/link; ln /etc/parts/a /etc/parts/linked; mknod /srv/pipe p; \\
    echo kept >/var/cache/steps/kept; chown 5:6 /opt/pack/file; chmod 4755 /opt/pack/run; \\
    touch -d '2001-02-03 04:05:06' /srv/app/deep/past; for i in $(seq 60); do echo $i >/tmp/$i; done
USER 7:8
ENV A=1
CMD ["/srv/app/run"]
"""


def images() -> bytes:
    """An archive of what the build stands on, `fixed:1`, and of what runs its steps, `tools:1`."""
    files: dict[str, bytes | str | int] = {
        "bin": 0o755, "etc": 0o755, "etc/old": b"old\n", "etc/passwd": b"root:x:0:0::/:\n", "tmp": 0o1777, "var": 0o755,
    }  # fmt: skip
    config = {"architecture": "amd64", "config": {"Env": ["PATH=/bin"]}}
    return engine_fixtures.archive({
        "fixed:1": (config, [engine_fixtures.layer(files)]), "tools:1": (config, [engine_fixtures.base_layer()]),
    })  # fmt: skip


def packed() -> bytes:
    """A compressed archive, with times before the epoch and after it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, target, mtime in (
            ("pack", tarfile.DIRTYPE, "", EPOCH + 1000), ("pack/file", tarfile.REGTYPE, "", EPOCH - 1000),
            ("pack/run", tarfile.REGTYPE, "", EPOCH + 1), ("pack/again", tarfile.LNKTYPE, "pack/file", 0),
            ("pack/to", tarfile.SYMTYPE, "file", EPOCH - 5), ("pack/pipe", tarfile.FIFOTYPE, "", EPOCH + 5),
        ):  # fmt: skip
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mtime, entry.uid, entry.gid = kind, target, mtime, 11, 12
            entry.mode, entry.size = 0o755 if kind == tarfile.DIRTYPE else 0o666, 5 * (kind == tarfile.REGTYPE)
            tar.addfile(entry, io.BytesIO(b"five\n") if kind == tarfile.REGTYPE else None)
    return gzip.compress(buffer.getvalue(), mtime=0)


def write(context: Path) -> None:
    """The context; its files have today's times."""
    (context / "parts").mkdir(parents=True)
    for name, content in {"a": b"1\n", "b": b"2\n", "c": b"3\n"}.items():
        (context / "parts" / name).write_bytes(content)
    (context / "pack.tar.gz").write_bytes(packed())
    (context / "Dockerfile").write_text(DOCKERFILE)
    for path in (context, *context.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def told(image: stores.Image, root: Path) -> str:
    """An image for whoever looks for the difference: each layer's members."""
    lines = [str(image.manifest), str(image.config)]
    for layer in image.manifest["layers"]:
        with tarfile.open(fileobj=io.BytesIO(blobs.read(str(root), layer["digest"]))) as tar:
            lines += ["", layer["digest"], *(f"{one.get_info()} {one.pax_headers}" for one in tar)]
    return "\n".join(lines)


def built(root: Path, place: Path) -> stores.Image:
    """What a build makes of it all."""
    write(place / "context")
    (place / "images.tar").write_bytes(images())
    minicontainer("load", "-i", str(place / "images.tar"))
    minicontainer("build", "--network", "none", "--platform", PLATFORM, "-t", "app", str(place / "context"))
    return stores.Store(str(root)).get("app")


@pytest.mark.vm
def test_another_machine_makes_the_same_image(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(EPOCH))
    image = built(store, tmp_path)
    assert image.digest == DIGEST, told(image, store)


def test_another_user_makes_the_same_image(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with another umask, time zone, language, home."""
    for name, value in (("TZ", "Asia/Kolkata"), ("LC_ALL", "C"), ("HOME", "/nowhere"), ("USER", "nobody")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(EPOCH))
    before = os.umask(0o077)
    try:
        image = built(store, tmp_path)
    finally:
        os.umask(before)
    assert image.digest == DIGEST, told(image, store)
