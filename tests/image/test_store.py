"""The store's own promises: names, ids, links, what `check` sees and `repair` mends."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from minicontainer import errors, files, oci
from minicontainer.image import blobs, making, reference, removal, store

pytestmark = pytest.mark.root


def layer(**content: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return packed.getvalue()


def make(here: store.Store, name: str, *tars: bytes, **config: Any) -> store.Image:
    with here.job() as job:
        paths = []
        for content in tars:
            paths.append(job.path("tar"))
            files.write(paths[-1], content)
        return making.make(job, {"os": "linux", "config": {}, **config}, paths, name)


@pytest.fixture
def here(tmp_path: Path) -> store.Store:
    return store.Store(str(tmp_path / "store"))


def test_an_empty_store_has_no_images_and_is_not_made_by_looking(here: store.Store) -> None:
    assert here.images() == [] and here.check() == [] and here.repair() == []
    with pytest.raises(errors.ImageNotFound, match="No such image: debian; "):
        here.get("debian")
    assert not os.path.exists(here.root)


def test_an_image_is_found_by_every_name_it_has(here: store.Store) -> None:
    made = make(here, "debian", layer(a="1"))
    names = [
        "debian", "debian:latest", "library/debian", "docker.io/library/debian:latest", made.id, made.id[7:],
        made.id[:12], made.id[7:10], f"debian@{made.digest}", f"debian:other@{made.digest}",
    ]  # fmt: skip
    assert {here.get(name).id for name in names} == {made.id}
    for name in ("debian:12", "ebian", f"ubuntu@{made.digest}", f"debian@{made.id}", "sha256:" + "0" * 64, "f" * 64):
        with pytest.raises(errors.ImageNotFound):
            here.get(name)
    for name in ("Debian", "a b", ""):
        with pytest.raises(errors.InvalidArgument):
            here.get(name)


def test_a_beginning_that_two_ids_share_is_refused(here: store.Store) -> None:
    made = [make(here, f"i{number}", layer(a=str(number))).id[7:] for number in range(17)]
    first = next(identifier[0] for identifier in made if sum(other[0] == identifier[0] for other in made) > 1)
    with pytest.raises(errors.InvalidArgument, match="give more digits"):
        here.get(f"sha256:{first}")


def test_documents_are_read_as_they_came_and_verified(here: store.Store) -> None:
    made = make(here, "a", layer(a="1"), created="2024-01-01T00:00:00Z", architecture="arm64")
    assert oci.digest(blobs.read(here.root, made.id)) == made.id
    assert oci.digest(blobs.read(here.root, made.digest)) == made.digest
    assert (made.created, made.architecture, made.os) == ("2024-01-01T00:00:00Z", "arm64", "linux")
    path = blobs.path(here.root, made.id)
    content = files.read(path)
    Path(path).write_bytes(content.replace(b"arm64", b"amd64"))
    with pytest.raises(errors.InvalidImage, match="damaged"):
        here.get("a")
    os.unlink(path)
    with pytest.raises(errors.InvalidImage, match="missing"):
        here.get("a")


def test_nobody_else_may_enter_the_layers(here: store.Store) -> None:
    make(here, "a", layer(a="1"))
    for name in ("", "layers", "tmp"):
        assert os.stat(f"{here.root}/{name}").st_mode & 0o777 == 0o700


def test_tagging_and_removing(here: store.Store) -> None:
    made = make(here, "a", layer(a="1"), layer(b="2"))
    other = make(here, "b", layer(a="1"))
    assert here.tag("a", "x.io/c:1").names == ["a:latest", "x.io/c:1"]
    assert removal.remove(here, "a") == ["Untagged: a:latest"]
    assert here.get("x.io/c:1").id == made.id
    assert removal.remove(here, "x.io/c:1") == [
        "Untagged: x.io/c:1",
        f"Deleted: {made.id}",
        f"Deleted: {made.chain_ids[1]}",
    ]
    with pytest.raises(errors.ImageNotFound):
        here.get(made.id)
    assert sorted(os.listdir(f"{here.root}/layers")) == sorted([other.chain_ids[0][7:], "l"])
    assert len(os.listdir(f"{here.root}/layers/l")) == 1 and len(os.listdir(f"{here.root}/blobs/sha256")) == 3
    assert here.check() == []
    removal.remove(here, other.id[7:19])
    assert os.listdir(f"{here.root}/blobs/sha256") == [] and here.check() == []


def twins(here: store.Store) -> store.Image:
    """An image with two manifests, as one that was loaded and pulled; the second one's name is `b`."""
    made = make(here, "a", layer(a="1"))
    here.add(json.dumps({**made.manifest, "annotations": {"from": "elsewhere"}}).encode(), "b")
    assert here.get("b").id == made.id and here.get("b").digest != made.digest
    return made


def test_an_image_goes_with_the_last_of_its_manifests(here: store.Store) -> None:
    made = twins(here)
    assert removal.remove(here, "a") == ["Untagged: a:latest"]
    last = here.get("b")
    make(here, "b", layer(a="2"))  # takes the name away
    gone = [f"Deleted: {made.id}", f"Deleted: {made.chain_ids[0]}"]
    assert removal.prune(here, removal.nobody, lambda image: image.digest == last.digest)[0] == gone


def test_a_prune_does_not_call_deleted_what_is_still_there(here: store.Store) -> None:
    made = twins(here)
    only = made.digest
    assert removal.prune(here, removal.nobody, lambda image: image.digest == only)[0] == ["Untagged: a:latest"]
    assert here.get(made.id).names == ["b:latest"]
    here.add(json.dumps(made.manifest).encode())
    assert removal.prune(here, removal.nobody, bool)[0] == [
        "Untagged: b:latest", f"Deleted: {made.id}", f"Deleted: {made.chain_ids[0]}",
    ]  # fmt: skip


def test_an_id_means_all_manifests_of_the_image(here: store.Store) -> None:
    made = twins(here)
    with pytest.raises(errors.Conflict, match=r"must be forced.* referenced in multiple repositories"):
        removal.remove(here, made.id)
    assert removal.remove(here, made.id, force=True) == [
        "Untagged: a:latest", "Untagged: b:latest", f"Deleted: {made.id}", f"Deleted: {made.chain_ids[0]}",
    ]  # fmt: skip
    assert here.images() == []


def test_layers_in_use_outlive_their_image(here: store.Store) -> None:
    made = make(here, "a", layer(a="1"))
    removal.remove(here, "a", lambda: [removal.User("1", made.id, made.chain_ids, False)], force=True)
    assert os.path.isdir(here.layer_directory(made.chain_ids[0]))
    assert here.check(in_use=lambda: made.chain_ids) == []
    assert len(here.check()) == 2  # the layer and its link belong to no image
    here.repair()
    assert os.listdir(f"{here.root}/layers") == ["l"] and here.check() == []


def test_sixty_layers_have_links_that_fit_one_page(here: store.Store) -> None:
    made = make(here, "a", *[layer(a=str(number)) for number in range(60)])
    links = here.layer_links(made)
    assert len(":".join(links)) < 1000 and len(set(links)) == 60
    assert [Path(here.root, link, "a").read_text() for link in links] == [str(number) for number in range(60)]


def test_short_names_that_collide(here: store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "short_names", lambda chain: ["SAME", chain[7:11].upper(), chain[11:15].upper()])
    made = make(here, "a", *[layer(a=str(number)) for number in range(4)])
    links = here.layer_links(made)
    assert links[0] == "layers/l/SAME" and len(set(links)) == 4
    assert [Path(here.root, link, "a").read_text() for link in links] == list("0123")


@pytest.mark.parametrize("part", ["layer", "link", "link elsewhere", "blob", "config", "manifest", "index entry"])
def test_repair_mends_what_can_be_mended_and_says_what_cannot(here: store.Store, part: str) -> None:
    made = make(here, "a", layer(a="1"), layer(b="2"))
    make(here, "b", layer(c="3"))
    chain = made.chain_ids[1]
    link = f"{here.root}/{here.layer_links(made)[1]}"
    if part == "layer":
        files.remove_tree(os.path.dirname(here.layer_directory(chain)))
    elif part == "link":
        os.unlink(link)
    elif part == "link elsewhere":
        os.unlink(link)
        os.symlink("../nothing/diff", link)
    elif part == "blob":
        with open(blobs.path(here.root, made.manifest["layers"][1]["digest"]), "r+b") as file:
            file.write(b"damage")
    elif part in ("config", "manifest"):
        os.unlink(blobs.path(here.root, made.id if part == "config" else made.digest))
    else:
        index = json.loads(files.read(f"{here.root}/index.json"))
        files.write(f"{here.root}/index.json", json.dumps({**index, "manifests": index["manifests"][1:]}).encode())
    assert here.check() != []
    assert here.repair() != []
    assert here.check() == []
    assert here.get("b").names == ["b:latest"]
    if part.startswith(("layer", "link")):
        assert Path(here.layer_directories(here.get("a"))[1], "b").read_text() == "2"
        assert len(here.layer_links(here.get("a"))) == 2
    else:
        with pytest.raises(errors.ImageNotFound):
            here.get("a")
        assert make(here, "a", layer(a="1"), layer(b="2")).id == made.id
        assert here.check() == []


def test_an_index_that_is_damaged_is_not_an_empty_one(here: store.Store) -> None:
    """Repair brings the images back without their names, rather than throw everything away."""
    made = make(here, "a", layer(a="1"))
    files.write(f"{here.root}/index.json", b"{")
    with pytest.raises(errors.InvalidImage, match="index"):
        here.get("a")
    assert here.check() != []
    here.repair()
    assert here.get(made.id).names == [] and here.check() == []


def test_a_manifest_without_its_blobs_is_not_entered(here: store.Store) -> None:
    made = make(here, "a", layer(a="1"))
    manifest = blobs.read(here.root, made.digest)
    with pytest.raises(errors.InvalidImage, match="not in the store"):
        here.add(manifest.replace(made.id.encode(), b"sha256:" + b"0" * 64), "b")
    for wrong in (b"", b"[]", b"{}", b'{"schemaVersion": 1}'):
        with pytest.raises(errors.InvalidImage):
            here.add(wrong, "b")


def test_another_version_s_or_kind_s_store_is_refused(here: store.Store) -> None:
    make(here, "a", layer(a="1"))
    kind = json.loads(files.read(f"{here.root}/store.json"))
    for wrong in ({**kind, "version": 2}, {**kind, "xattrs": "user", "uid_map": "0 1000 1"}, []):
        files.write(f"{here.root}/store.json", json.dumps(wrong).encode())
        with pytest.raises(errors.Conflict, match="MINICONTAINER_ROOT"):
            here.get("a")
    files.write(f"{here.root}/store.json", b"?")
    with pytest.raises(errors.Conflict):
        here.images()


def test_names_that_foreign_tools_write_are_understood(here: store.Store) -> None:
    made = make(here, "a", layer(a="1"))
    index = json.loads(files.read(f"{here.root}/index.json"))
    index["manifests"][0]["annotations"] = {oci.REF_NAME: "b:2"}
    index["manifests"].append({**index["manifests"][0], "annotations": {oci.REF_NAME: "Not A Name"}})
    files.write(f"{here.root}/index.json", json.dumps(index).encode())
    assert here.get("b:2").id == made.id and here.get("b:2").names == ["b:2"]


def test_reading_the_store_imports_nothing_heavy() -> None:
    code = "import sys; from minicontainer.image import store, reference; print(*sys.modules)"
    loaded = _modules(code)
    heavy = {"hashlib", "typing", "dataclasses", "inspect", "pathlib", "subprocess", "tarfile", "tempfile", "threading",
             "logging", "asyncio", "urllib", "zlib"}  # fmt: skip
    assert not heavy & loaded
    assert reference.__name__ in loaded


def _modules(code: str) -> set[str]:
    bare = subprocess.run([sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True)
    full = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(full.stdout.split()) - set(bare.stdout.split())


def test_layers_are_spread_over_the_disk_where_the_file_system_can(here: store.Store) -> None:
    with here.job() as job:
        flags = subprocess.run(["lsattr", "-d", job.folder], capture_output=True, text=True).stdout.split(" ")[0]
        kind = subprocess.run(["stat", "-f", "-c", "%T", job.folder], capture_output=True, text=True).stdout.strip()
        assert "T" in flags or kind != "ext2/ext3"
        first, second = job.new_layer(), job.new_layer()
        assert os.path.dirname(first) != os.path.dirname(second)
