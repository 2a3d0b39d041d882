"""SIGKILL before and after every change of a name that commit, save, push, rmi and prune make; and a disk that is full.

Whatever the moment, without any repair: every image that is in the index can be read and run, and doing it again works.
`load` has its own (test_archive.py), `pull` too (test_registry.py).
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from minicontainer.image import blobs, store
from tests import engine_fixtures
from tests.conftest import minicontainer
from tests.registries import Fake, Request, digest

pytestmark = [pytest.mark.root, pytest.mark.needs("overlay", "libseccomp"), pytest.mark.timeout(600)]

KILLED = Path(__file__).parent / "killed.py"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with the images of engine_fixtures and a stopped container of `demo`, to be copied."""
    place = tmp_path / "store"
    monkeypatch.setenv("MINICONTAINER_ROOT", str(place))
    archive = tmp_path / "images.tar"
    archive.write_bytes(engine_fixtures.archive(engine_fixtures.images()))
    minicontainer("load", "-i", str(archive))
    minicontainer("create", "--name", "still", "demo", "cat", "/opt/plain")
    return place


def every_moment(root: Path, words: list[str], proof: Callable[[], None], least: int) -> None:
    """Die at each moment in turn, each time in a fresh copy of the store; then look, do it again, and call `proof`."""
    kept = root.parent / "kept"
    subprocess.run(["cp", "-a", root, kept], check=True)
    moments = 0
    for when in ("before", "after"):
        for moment in range(1, 500):
            shutil.rmtree(root)
            subprocess.run(["cp", "-a", kept, root], check=True)
            done = subprocess.run(
                [sys.executable, KILLED, when, str(moment), *words], capture_output=True, text=True, check=False
            )
            if done.returncode == 3:
                break
            assert done.returncode == -signal.SIGKILL, done
            moments += 1
            whole(root)
            again = minicontainer(*words, check=False)
            assert again.returncode == 0 or "No such image" in again.stderr, again
            proof()
            assert minicontainer("start", "-a", "still").stdout == "nobody may execute this\n"
            minicontainer("system", "check", "--repair")
            assert minicontainer("system", "check").stdout == "nothing is wrong\n"
            whole(root)
    assert moments >= least
    minicontainer("system", "reset", "--force")


def whole(root: Path) -> None:
    """Every image that the index names has all its documents, blobs and layers."""
    here = store.Store(str(root))
    for image in here.images():
        assert len(here.layer_links(image)) == len(image.chain_ids)
        for layer in image.manifest["layers"]:
            assert not blobs.damaged(here.root, layer["digest"])


def there(root: Path) -> set[str]:
    """The names of all images, and an empty one for one without."""
    return {name for image in store.Store(str(root)).images() for name in image.names or [""]}


def test_rmi(root: Path) -> None:
    def proof() -> None:
        assert there(root) == {"demo:latest", "foreign:latest"}

    every_moment(root, ["rmi", "plain"], proof, least=8)


def test_rmi_of_layers_that_nobody_else_has(root: Path) -> None:
    def proof() -> None:
        assert there(root) == {"demo:latest", "plain:latest"}
        chains = {chain[7:] for image in store.Store(str(root)).images() for chain in image.chain_ids}
        assert chains <= set(os.listdir(root / "layers"))

    every_moment(root, ["rmi", "foreign"], proof, least=16)


def test_prune(root: Path) -> None:
    def proof() -> None:
        assert there(root) == {"demo:latest"}

    every_moment(root, ["image", "prune", "-a", "-f"], proof, least=20)


def test_commit(root: Path) -> None:
    minicontainer("run", "--name", "web", "--network", "none", "demo", "sh", "-c", "echo x >/new; rm /opt/noise")

    def proof() -> None:
        words = ("run", "--rm", "--network", "none", "made:1", "sh", "-c", "cat /new; ls /opt")
        assert minicontainer(*words).stdout == "x\nplain\nscript\n"

    every_moment(root, ["commit", "web", "made:1"], proof, least=10)


def test_save(root: Path) -> None:
    out = root.parent / "out.tar"

    def proof() -> None:
        assert out.stat().st_size > 1_000_000 and there(root) == {"demo:latest", "plain:latest", "foreign:latest"}
        out.unlink()

    every_moment(root, ["save", "-o", str(out), "demo"], proof, least=2)


def test_push(root: Path) -> None:
    """Of plain layers, which are compressed on the way; at no moment does the registry's tag mean what is not whole."""
    with Fake() as registry:
        name = f"{registry.host}/demo:1"
        minicontainer("tag", "demo", name)
        torn: list[str] = []

        def look(request: Request) -> bool:
            if request.command == "PUT" and "/manifests/" in request.path:
                manifest = json.loads(request.take())
                torn.extend(
                    blob["digest"]
                    for blob in [manifest["config"], *manifest["layers"]]
                    if digest(registry.blobs.get(blob["digest"], b"")) != blob["digest"]
                )
            return False

        registry.tricks.append(look)

        def proof() -> None:
            assert not torn and "demo@1" in registry.manifests
            assert there(root) == {"demo:latest", "plain:latest", "foreign:latest", name}
            for held in (registry.blobs, registry.manifests, registry.uploads):
                held.clear()

        every_moment(root, ["push", "-q", name], proof, least=10)


FULL = """
set -e
mount -t tmpfs -o size=$1 none "$2"
cp -a "$3/." "$2"
export MINICONTAINER_ROOT="$2"
shift 3
"$@" 2>&1 || echo "exit $?"
python=$1
rm -f "$MINICONTAINER_ROOT/filler"
"$python" -m minicontainer system check
"$python" -m minicontainer images -q
"""


@pytest.mark.parametrize("line", [
    "import TREE tree:1", "load -i ARCHIVE", "commit web made:1", "push NAME", "pull NAME", "tag demo x:1", "rmi plain",
])  # fmt: skip
def test_on_a_full_disk_nothing_is_lost_and_what_to_do_is_said(root: Path, tmp_path: Path, line: str) -> None:
    tree, archive, words = tmp_path / "tree.tar", tmp_path / "archive.tar", line.split()
    big = engine_fixtures.layer({"big": os.urandom(3 << 20)})
    tree.write_bytes(big)
    archive.write_bytes(engine_fixtures.archive({"big:1": ({"config": {}}, [big])}))
    minicontainer("rm", "still")
    if words[0] == "commit":
        minicontainer(
            "run", "--name", "web", "--network", "none", "demo", "sh", "-c", "head -c 3000000 /dev/urandom >/x"
        )
    with Fake() as registry:
        name = registry.image("big", "1", [big]) if words[0] == "pull" else f"{registry.host}/demo:1"
        if words[0] == "push":
            minicontainer("tag", "demo", name)
        places = {"TREE": str(tree), "ARCHIVE": str(archive), "NAME": name}
        fails_on_a_full_disk(root, tmp_path, [places.get(word, word) for word in words])


def fails_on_a_full_disk(root: Path, tmp_path: Path, words: list[str]) -> None:
    """Do it in a copy of the store on a disk too small for it; then everything is as it was."""
    before = minicontainer("images", "-q").stdout.split()
    used = int(subprocess.run(["du", "-sk", root], capture_output=True, text=True, check=True).stdout.split()[0])
    arguments = [f"{used + 2200}k", str(tmp_path / "full"), str(root), sys.executable, "-m", "minicontainer", *words]
    (tmp_path / "full").mkdir()
    script = FULL
    if words[0] in ("push", "tag", "rmi"):  # for these, not a page is left
        script = FULL.replace("shift 3", 'dd if=/dev/zero of="$2/filler" 2>/dev/null || :\nshift 3')
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", *arguments], capture_output=True, text=True)
    assert "Traceback" not in done.stdout + done.stderr, done
    assert "the disk is full: free some space" in done.stdout and "exit 1" in done.stdout
    assert "nothing is wrong" in done.stdout, done
    left = done.stdout.split("nothing is wrong\n")[1].split()
    assert left == before
    minicontainer("system", "reset", "--force")
