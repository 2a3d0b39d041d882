"""Images go round: what docker, podman, buildah and skopeo push is pulled and run here, what is pushed here, by them.

All of them, and the registry, in the peers' network namespace: its loopback is where they meet.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import peers
from tests.conftest import minicontainer
from tests.registries import Real

pytestmark = [
    pytest.mark.root, pytest.mark.slow,
    pytest.mark.needs("docker-registry", "skopeo", "buildah", "busybox", "overlay", "libseccomp"),
]  # fmt: skip


class Round:
    """A registry where all meet, and an archive of busybox for those who need one."""

    def __init__(self, folder: Path) -> None:
        self.words = peers.own_network()
        self.real = Real(folder / "registry", words=tuple(self.words))
        self.store = folder / "source"
        self.folder = folder
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MINICONTAINER_ROOT", str(self.store))
            minicontainer("bootstrap", "busybox")
        self.archive = folder / "busybox.tar"
        self.do("skopeo", "copy", "-q", f"oci:{self.store}:busybox:latest", f"docker-archive:{self.archive}:busybox:1")

    def name(self, who: str) -> str:
        return f"{self.real.host}/{who}/busybox:1"

    def do(self, *command: str) -> str:
        """A command in there; what it prints."""
        done = subprocess.run([*self.words, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def buildah(self) -> list[str]:
        """Its command, with a storage of its own, and podman's containers.conf, for its ulimits."""
        configuration = next(word for word in peers.podman() if word.startswith("CONTAINERS_CONF="))
        places = ["--root", f"{self.folder}/buildah", "--runroot", f"{self.folder}/buildah-run"]
        return ["env", configuration, "buildah", *places, "--storage-driver", "vfs"]

    def ours(self, *arguments: str) -> str:
        """minicontainer in there."""
        return self.do(sys.executable, "-m", "minicontainer", *arguments)


@pytest.fixture(scope="module")
def all_round(_peers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Round]:
    made = Round(tmp_path_factory.mktemp("round"))
    yield made
    made.real.__exit__()


def pulled_and_run_here(all_round: Round, name: str) -> None:
    assert all_round.ours("pull", "-q", name) == f"{name}\n"
    done = minicontainer("run", "--rm", "--network", "none", name, "cat", "/etc/passwd")
    assert done.stdout.startswith("root:")
    minicontainer("system", "check")


def test_what_docker_pushes(all_round: Round, docker: list[str], store: Path) -> None:
    name = all_round.name("docker")
    all_round.do(*docker, "load", "-q", "-i", str(all_round.archive))
    all_round.do(*docker, "tag", "busybox:1", name)
    all_round.do(*docker, "push", "-q", name)
    all_round.do(*docker, "rmi", "-f", name)
    pulled_and_run_here(all_round, name)


def test_what_podman_pushes(all_round: Round, podman: list[str], store: Path) -> None:
    for kind in ("gzip", "zstd"):
        name = all_round.name(f"podman-{kind}")
        all_round.do(*podman[len(all_round.words) :], "load", "-q", "-i", str(all_round.archive))
        all_round.do(
            *podman[len(all_round.words) :], "push", "-q", "--tls-verify=false", "--compression-format", kind,
            "busybox:1", f"docker://{name}",
        )  # fmt: skip
        pulled_and_run_here(all_round, name)


def test_what_skopeo_and_buildah_push(all_round: Round, store: Path) -> None:
    for format in ("oci", "v2s2"):
        name = all_round.name(f"skopeo-{format}")
        all_round.do(
            "skopeo", "copy", "-q", "--dest-tls-verify=false", "--format", format,
            f"docker-archive:{all_round.archive}", f"docker://{name}",
        )  # fmt: skip
        pulled_and_run_here(all_round, name)
    name = all_round.name("buildah")
    own = all_round.buildah()
    container = all_round.do(*own, "from", f"docker-archive:{all_round.archive}").strip()
    all_round.do(*own, "config", "--label", "by=buildah", container)
    all_round.do(*own, "commit", "-q", "--tls-verify=false", container, f"docker://{name}")
    all_round.do(*own, "rm", container)
    pulled_and_run_here(all_round, name)
    assert json.loads(minicontainer("inspect", name).stdout)[0]["Config"]["Labels"]["by"] == "buildah"


def test_what_is_pushed_here(all_round: Round, docker: list[str], podman: list[str], store: Path) -> None:
    name = all_round.name("ours")
    minicontainer("load", "-i", str(all_round.archive))
    minicontainer("tag", "busybox:1", name)
    all_round.ours("push", name)
    command = ["run", "--rm", "--network", "none"]
    assert all_round.do(*docker, *command, name, "echo", "docker").endswith("docker\n")
    told = podman[len(all_round.words) :]
    all_round.do(*told, "pull", "-q", "--tls-verify=false", name)
    assert all_round.do(*told, *command, name, "echo", "podman") == "podman\n"
    own = all_round.buildah()
    runtime = podman[podman.index("--runtime") + 1]
    container = all_round.do(*own, "from", "--tls-verify=false", f"docker://{name}").strip()
    told = [*own, "run", "--runtime", runtime, "--network", "none", container, "echo", "buildah"]
    assert all_round.do(*told) == "buildah\n"
    all_round.do(*own, "rm", container)
    seen = json.loads(all_round.do("skopeo", "inspect", "--tls-verify=false", f"docker://{name}"))
    copy = f"{all_round.folder}/copy"
    all_round.do("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{name}", f"oci:{copy}:1")  # it verifies
    assert os.path.exists(f"{copy}/blobs/sha256/{seen['Digest'][7:]}")
    digests = json.loads(minicontainer("inspect", name).stdout)[0]["RepoDigests"]
    assert digests == [f"{name.rpartition(':')[0]}@{seen['Digest']}"]
    all_round.do(*docker, "rmi", "-f", name)
    assert os.path.exists(all_round.real.blob(seen["Digest"]))
