"""The registry in lab 13's tests is like a real one: the reference works with Debian's docker-registry, too."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from minicontainer import oci
from minicontainer.image import reference, registry
from minicontainer.teach import lab
from minicontainer.teach.lab import swap
from tests import leftovers
from tests.conftest import minicontainer
from tests.registries import Real

pytestmark = [pytest.mark.root, pytest.mark.needs("docker-registry", "openssl", "busybox")]


@pytest.fixture
def solution(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The reference's functions. Whoever logs in is remembered in the test's own folder."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("no_proxy", "*")
    for variable in ("REGISTRY_AUTH_FILE", "MINICONTAINER_REGISTRIES"):
        monkeypatch.delenv(variable, raising=False)
    return swap.load(lab.get("registry").solution, "lab")


def test_an_image_comes_by_a_token(solution: Any, tmp_path: Path) -> None:
    with Real(tmp_path / "registry", auth="token") as there, leftovers.store_with_busybox(tmp_path / "store"):
        name = f"{there.host}/open/mine:1"
        minicontainer("login", "-u", "alice", "-p", "secret", there.host)
        minicontainer("tag", "busybox", name)
        minicontainer("push", name)
        assert there.tokens
        there.tokens.asked.clear()
        architecture = reference.host_architecture()
        digest = solution.pull(f"http://{there.host}", "open/mine", "1", architecture, str(tmp_path / "image"))
        assert there.tokens.asked == [["repository:open/mine:pull"]]
        blobs = sorted((tmp_path / "image/blobs/sha256").iterdir())
        assert len(blobs) == 3 and digest[7:] in {blob.name for blob in blobs}
        for blob in blobs:
            assert blob.read_bytes() == there.blob(f"sha256:{blob.name}").read_bytes()


def test_a_copy_and_a_look(solution: Any, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as writer:
        for name, content in (("large", b"x" * (1 << 20)), ("etc/motd", b"hello\n")):
            header = tarfile.TarInfo(name)
            header.size = len(content)
            writer.addfile(header, io.BytesIO(content))
    layer = packed.getvalue()
    with Real(tmp_path / "registry") as there, leftovers.store_with_busybox(tmp_path / "store"):
        address, client = f"http://{there.host}", registry.Registry(there.host)
        minicontainer("tag", "busybox", f"{there.host}/mine:1")
        minicontainer("push", f"{there.host}/mine:1")
        digest = solution.copy(address, "mine", "yours", "1")
        assert client.manifest("yours", "1") == client.manifest("mine", "1")
        assert client.manifest("yours", digest)[2] == digest
        client.upload("mine", oci.digest(layer), len(layer), lambda at, size: layer[at : at + size])
        assert (
            solution.peek(address, "mine", {"digest": oci.digest(layer), "size": len(layer)}, "etc/motd") == "hello\n"
        )
