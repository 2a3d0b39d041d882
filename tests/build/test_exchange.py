"""The build cache in a directory: what another store takes from it, and what it does not."""

import json
from pathlib import Path

import pytest

from minicontainer.image import blobs
from tests import registries
from tests.conftest import minicontainer
from tests.yard import Yard

pytestmark = [pytest.mark.root, pytest.mark.needs("overlay", "libseccomp")]

TEXT = "FROM plain\nWORKDIR /app\nCOPY a .\nRUN cat /proc/uptime >/app/now\n"


@pytest.mark.parametrize("where", ["directory", "registry"])
def test_another_machine_need_not_do_it_again(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with registries.Fake() as fake:
        shared = f"{fake.host}/cache:1" if where == "registry" else f"{tmp_path}/shared"
        to = f"type=registry,ref={shared}" if where == "registry" else f"type=local,dest={shared}"
        exchanged(tmp_path, monkeypatch, to, shared)


def exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, shared: str) -> None:
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path / name / "store"))
        yard = Yard(tmp_path / name)
        (yard.context / "a").write_text("1")
        # The Dockerfile's own place is no input: the other machine has it elsewhere.
        flags = ["--cache-to", to] if name == "one" else ["--cache-from", shared]
        kinds = [kind for kind, _ in yard.told(TEXT, *flags)]
        found.append((kinds, yard.image().digest, yard.layer()["app/now"]))
        assert minicontainer("system", "check").stdout == "nothing is wrong\n"
        if name == "two":
            (yard.context / "a").write_text("2")
            assert [kind for kind, _ in yard.told(TEXT, *flags)] == ["cached", "done", "done"]
        minicontainer("system", "reset", "--force")
    assert [kinds for kinds, *_ in found] == [["done"] * 3, ["cached"] * 3]
    assert found[0][1:] == found[1][1:]


def test_what_is_damaged_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path / "store"))
    yard = Yard(tmp_path)
    (yard.context / "a").write_text("1")
    shared = tmp_path / "shared"
    yard.build(TEXT, "--cache-to", f"type=local,dest={shared}")
    minicontainer("rmi", "app")
    minicontainer("builder", "prune", "-af")
    digest = next(
        layer["digest"]
        for layer in json.loads(
            blobs.read(str(shared), json.loads((shared / "index.json").read_text())["manifests"][0]["digest"])
        )["layers"]
    )
    blob = Path(blobs.path(str(shared), digest))
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    done = yard.build(TEXT, "--cache-from", f"type=local,src={shared}", code=1)
    assert digest in done.stderr
    assert yard.build(TEXT, "--cache-from", str(tmp_path / "nosuch"), code=1).stderr
    (shared / "index.json").write_text("{}")
    assert "no build cache" in yard.build(TEXT, "--cache-from", str(shared), code=1).stderr
    assert minicontainer("system", "check").stdout == "nothing is wrong\n"
    minicontainer("system", "reset", "--force")
