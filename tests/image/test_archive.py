"""Archives: every shape that docker, podman, skopeo and buildkit write, and what is wrong with the bad ones."""

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest
import zstandard

from minicontainer import errors, oci
from minicontainer.image import archive, layers, reference, store

pytestmark = pytest.mark.root  # owners are given away, whiteouts made


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def tar(*members: tuple[str, bytes | str | None]) -> bytes:
    """A tar: bytes are a file, a string a symbolic link, None a directory."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as writer:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            writer.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return packed.getvalue()


LAYERS = [
    tar(("etc", None), ("etc/release", b"one\n")),
    tar(("etc", None), ("etc/release", b"two\n")),
    tar((".wh.x", b"")),
]


def config_of(tars: list[bytes], **fields: Any) -> bytes:
    return json.dumps(
        {
            "architecture": reference.host_architecture(), "os": "linux", "created": "2024-01-02T03:04:05Z",
            "config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in tars]},
            **fields,
        }
    ).encode()  # fmt: skip


def docker_old(tars: list[bytes], tags: list[str] | None, **fields: Any) -> dict[str, bytes | str | None]:
    """Docker up to 24: a directory for each layer; a layer that repeats is a symbolic link to the first."""
    config = config_of(tars, **fields)
    name = hashlib.sha256(config).hexdigest() + ".json"
    members: dict[str, bytes | str | None] = {name: config}
    paths, seen = [], {}
    for position, layer in enumerate(tars):
        folder = hashlib.sha256(b"%d" % position + layer).hexdigest()
        members[folder] = None
        members[f"{folder}/VERSION"] = b"1.0"
        members[f"{folder}/layer.tar"] = f"../{seen[layer]}/layer.tar" if layer in seen else layer
        seen.setdefault(layer, folder)
        paths.append(f"{folder}/layer.tar")
    members["manifest.json"] = json.dumps([{"Config": name, "RepoTags": tags, "Layers": paths}]).encode()
    members["repositories"] = b"{}"
    return members


def oci_layout(
    tars: list[bytes], names: list[str], compress: Any = lambda layer: layer, media: str = oci.LAYER, **fields: Any
) -> dict[str, bytes | str | None]:
    config = config_of(tars, **fields)
    packed = [compress(layer) for layer in tars]
    manifest = json.dumps(
        {
            "schemaVersion": 2, "mediaType": oci.MANIFEST,
            "config": {"mediaType": oci.CONFIG, "digest": digest(config), "size": len(config)},
            "layers": [{"mediaType": media, "digest": digest(blob), "size": len(blob)} for blob in packed],
        }
    ).encode()  # fmt: skip
    descriptor: dict[str, Any] = {"mediaType": oci.MANIFEST, "digest": digest(manifest), "size": len(manifest)}
    listed = [{**descriptor, "annotations": {oci.REF_NAME: name}} for name in names] or [descriptor]
    members: dict[str, bytes | str | None] = {
        "oci-layout": oci.LAYOUT,
        "index.json": json.dumps({"schemaVersion": 2, "manifests": listed}).encode(),
    }
    for blob in [config, manifest, *packed]:
        members["blobs/sha256/" + hashlib.sha256(blob).hexdigest()] = blob
    return members


def docker_new(tars: list[bytes], tags: list[str]) -> dict[str, bytes | str | None]:
    """Docker from 25 on: both descriptions over one set of blobs."""
    members = oci_layout(tars, tags)
    name = f"blobs/sha256/{hashlib.sha256(config_of(tars)).hexdigest()}"
    paths = [f"blobs/sha256/{hashlib.sha256(layer).hexdigest()}" for layer in tars]
    members["manifest.json"] = json.dumps([{"Config": name, "RepoTags": tags, "Layers": paths}]).encode()
    return members


def packed(members: dict[str, bytes | str | None]) -> bytes:
    return tar(*members.items())


@pytest.fixture
def here(tmp_path: Path) -> store.Store:
    return store.Store(str(tmp_path / "store"))


def load(into: store.Store, members: dict[str, bytes | str | None]) -> list[str]:
    return archive.load(into, io.BytesIO(packed(members)))


def snapshot(root: str) -> list[str]:
    """Everything in a store that has to do with images, but for what opening it makes."""
    found = []
    for base, directories, names in os.walk(root):
        found += [os.path.relpath(f"{base}/{name}", root) for name in [*directories, *names]]
    return sorted(found)


def is_whole(into: store.Store, name: str = "test:1") -> None:
    image = into.get(name)
    assert image.id == digest(json.dumps(image.config).encode()) or oci.is_digest(image.id)
    top = into.layer_directories(image)
    assert [Path(f"{path}/etc/release").read_text() for path in top[:2]] == ["one\n", "two\n"]
    for link, path in zip(into.layer_links(image), top, strict=True):
        assert os.path.realpath(f"{into.root}/{link}") == path
        assert len(link) == 13
    assert into.check() == []
    assert os.listdir(f"{into.root}/tmp") == []


SHAPES = {
    "docker, old": lambda: docker_old(LAYERS, ["test:1"]),
    "docker, new": lambda: docker_new(LAYERS, ["test:1"]),
    "oci": lambda: oci_layout(LAYERS, ["test:1"]),
    "oci, full name": lambda: oci_layout(LAYERS, ["docker.io/library/test:1"]),
    "oci, gzip": lambda: oci_layout(LAYERS, ["test:1"], gzip.compress, oci.LAYER_GZIP),
    "oci, zstd": lambda: oci_layout(LAYERS, ["test:1"], zstandard.compress, oci.LAYER_ZSTD),
    "oci, gzip called tar": lambda: oci_layout(LAYERS, ["test:1"], gzip.compress),
    "docker, gzip inside": lambda: {
        name: gzip.compress(content) if name.endswith("layer.tar") and isinstance(content, bytes) else content
        for name, content in docker_old(LAYERS, ["test:1"]).items()
    },
    "names with ./": lambda: {f"./{name}": content for name, content in docker_old(LAYERS, ["test:1"]).items()},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_archive_is_loaded(here: store.Store, shape: str) -> None:
    members = SHAPES[shape]()
    assert load(here, members) == ["test:1"]
    is_whole(here)
    assert load(here, members) == ["test:1"]  # and again: nothing to do
    is_whole(here)


@pytest.mark.parametrize("way", ["file", "path", "pipe", "gzip file", "zstd pipe", "folder"])
def test_every_way_an_archive_comes_in(here: store.Store, tmp_path: Path, way: str) -> None:
    content = packed(docker_new(LAYERS, ["test:1"]))
    content = gzip.compress(content) if "gzip" in way else zstandard.compress(content) if "zstd" in way else content
    path = tmp_path / "archive"
    path.write_bytes(content)
    if way == "folder":
        for name, part in oci_layout(LAYERS, ["test:1"]).items():
            (tmp_path / "layout" / name).parent.mkdir(parents=True, exist_ok=True)
            assert isinstance(part, bytes)
            (tmp_path / "layout" / name).write_bytes(part)
        assert archive.load(here, str(tmp_path / "layout")) == ["test:1"]
    elif way == "path":
        assert archive.load(here, str(path)) == ["test:1"]
    elif "pipe" in way:
        reading, writing = os.pipe()

        def feed() -> None:
            with open(writing, "wb") as pipe:
                pipe.write(content)

        thread = threading.Thread(target=feed)
        thread.start()
        with open(reading, "rb") as pipe:
            assert archive.load(here, pipe) == ["test:1"]
        thread.join()
    else:
        with path.open("rb") as file:
            assert archive.load(here, file) == ["test:1"]
    is_whole(here)


def test_a_layer_that_repeats_is_stored_once_and_stacked_twice(here: store.Store) -> None:
    repeated = [LAYERS[0], LAYERS[1], LAYERS[0]]
    load(here, docker_old(repeated, ["test:1"]))
    image = here.get("test:1")
    assert len(set(image.chain_ids)) == 3
    assert image.manifest["layers"][0] == image.manifest["layers"][2]
    is_whole(here)


def test_images_that_share_layers_share_directories(here: store.Store) -> None:
    load(here, docker_old(LAYERS[:2], ["a"]))
    load(here, docker_old(LAYERS, ["b"]))
    first, second = here.get("a"), here.get("b")
    assert first.chain_ids == second.chain_ids[:2]
    assert len(os.listdir(f"{here.root}/layers")) == 4  # three, and `l`


def test_an_image_without_a_name_is_loaded_by_its_id(here: store.Store) -> None:
    (identifier,) = load(here, docker_old(LAYERS, None))
    image = here.get(identifier)
    assert image.names == [] and image.id == identifier == digest(config_of(LAYERS))
    assert here.get(identifier[7:15]).id == here.get(identifier[7:]).id == identifier


def test_a_name_that_is_taken_moves_and_the_old_image_stays(here: store.Store) -> None:
    load(here, docker_old(LAYERS[:1], ["test:1", "other"]))
    load(here, docker_old(LAYERS[:2], ["test:1"]))
    assert here.get("test:1").id == digest(config_of(LAYERS[:2]))
    assert here.get("other").names == ["other:latest"]
    load(here, docker_old(LAYERS, ["other"]))
    assert sorted(image.names for image in here.images()) == [[], ["other:latest"], ["test:1"]]


def test_several_images_in_one_archive(here: store.Store) -> None:
    one, two = docker_old(LAYERS[:1], ["one", "uno:1"]), docker_old(LAYERS[:2], ["two"])
    listing = json.loads(one["manifest.json"] or b"") + json.loads(two["manifest.json"] or b"")
    assert load(here, {**one, **two, "manifest.json": json.dumps(listing).encode()}) == [
        "one:latest",
        "uno:1",
        "two:latest",
    ]
    assert here.get("one").names == ["one:latest", "uno:1"]


def index_of(*manifests: tuple[dict[str, bytes | str | None], dict[str, str]]) -> dict[str, bytes | str | None]:
    """Wrap OCI layouts into one whose index leads to an index of platforms, as buildkit and containerd write it."""
    members: dict[str, bytes | str | None] = {}
    descriptors = []
    for layout, platform in manifests:
        members |= layout
        (descriptor,) = json.loads(layout["index.json"] or b"")["manifests"]
        descriptors.append({**descriptor, "platform": platform})
    inner = json.dumps({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": descriptors}).encode()
    members["blobs/sha256/" + hashlib.sha256(inner).hexdigest()] = inner
    outer = {"mediaType": oci.INDEX, "digest": digest(inner), "size": len(inner)}
    listed = [{**outer, "annotations": {oci.FULL_NAME: "docker.io/library/test:1", oci.REF_NAME: "1"}}]
    members["index.json"] = json.dumps({"schemaVersion": 2, "manifests": listed}).encode()
    return members


def test_of_an_index_the_platform_of_this_machine_is_chosen(here: store.Store) -> None:
    mine = {"os": "linux", "architecture": reference.host_architecture()}
    attestation = (oci_layout(LAYERS[2:], []), {"os": "unknown", "architecture": "unknown"})
    other = (oci_layout(LAYERS[:1], [], architecture="s390x"), {"os": "linux", "architecture": "s390x"})
    members = index_of(attestation, other, (oci_layout(LAYERS[:2], []), mine))
    assert load(here, members) == ["test:1"]
    assert here.get("test:1").id == digest(config_of(LAYERS[:2]))


def test_an_index_whose_other_platforms_are_not_in_the_archive(here: store.Store) -> None:
    mine = {"os": "linux", "architecture": reference.host_architecture()}
    absent = oci_layout(LAYERS[2:], [])
    members = index_of((absent, mine), (oci_layout(LAYERS[:1], [], architecture="s390x"), {"architecture": "s390x"}))
    for name in absent:
        if name.startswith("blobs/") and name not in oci_layout(LAYERS[:1], []):
            del members[name]
    load(here, members)
    assert here.get("test:1").architecture == "s390x"  # loaded; `run` is who refuses it
    assert not reference.runs_here("s390x")


# ------------------------------------------------------------ bad archives


def without(members: dict[str, bytes | str | None], *parts: str) -> dict[str, bytes | str | None]:
    return {name: content for name, content in members.items() if not any(part in name for part in parts)}


def changed(members: dict[str, bytes | str | None], part: str, content: bytes) -> dict[str, bytes | str | None]:
    assert any(part in name for name in members)
    return {name: content if part in name else old for name, old in members.items()}


def listing(**fields: Any) -> bytes:
    return json.dumps([{"Config": "c.json", "RepoTags": [], "Layers": [], **fields}]).encode()


HEX = [hashlib.sha256(layer).hexdigest() for layer in LAYERS]
BAD = {
    "nothing in it": lambda: {"hello": b"x"},
    "a plain file system": lambda: {"etc": None, "etc/passwd": b"x"},
    "a layer is missing": lambda: without(docker_new(LAYERS, ["a"]), HEX[1]),
    "the config is missing": lambda: without(docker_old(LAYERS, ["a"]), ".json") | {"manifest.json": listing()},
    "a layer of other content": lambda: changed(docker_new(LAYERS, ["a"]), HEX[1], tar(("x", b"evil"))),
    "a layer of other content, old": lambda: changed(docker_old(LAYERS[:1], ["a"]), "layer.tar", tar(("x", b"evil"))),
    "a blob with bytes behind it": lambda: changed(docker_new(LAYERS, ["a"]), HEX[1], LAYERS[1] + bytes(512)),
    "a config of other content": lambda: changed(
        docker_old(LAYERS[:1], ["a"]), hashlib.sha256(config_of(LAYERS[:1])).hexdigest(), config_of(LAYERS[:2])
    ),
    "fewer layers than diffIDs": lambda: {**docker_old(LAYERS, ["a"]), "manifest.json": b""} | {
        "c.json": config_of(LAYERS), "manifest.json": listing(Layers=[])
    },
    "a manifest that is no JSON": lambda: changed(docker_old(LAYERS, ["a"]), "manifest.json", b"{"),
    "a manifest nested a million deep": lambda: changed(docker_old(LAYERS, ["a"]), "manifest.json", b"[" * 1_000_000),
    "a manifest that is no list": lambda: changed(docker_old(LAYERS, ["a"]), "manifest.json", b"{}"),
    "a manifest of no strings": lambda: changed(docker_old(LAYERS, ["a"]), "manifest.json", listing(Layers=[7])),
    "a manifest without images": lambda: changed(docker_old(LAYERS, ["a"]), "manifest.json", b"[]"),
    "a config elsewhere": lambda: changed(docker_old(LAYERS, ["a"]), "manifest.json", listing(Config="/etc/passwd")),
    "a config outside": lambda: changed(docker_old(LAYERS, ["a"]), "manifest.json", listing(Config="../../etc/passwd")),
    "a name that is none": lambda: docker_old(LAYERS, ["Not A Name"]),
    "a config with a wrong type": lambda: docker_old(LAYERS, ["a"], config={"Env": "PATH=/"}),
    "diffIDs that are none": lambda: docker_old(LAYERS, ["a"], rootfs={"diff_ids": ["../../../etc"] * 3}),
    "a link to itself": lambda: changed(docker_old(LAYERS[:1], ["a"]), "layer.tar", b"") | {
        name: "layer.tar" for name in docker_old(LAYERS[:1], ["a"]) if name.endswith("layer.tar")
    },
    "a layer that is hostile": lambda: docker_old([*LAYERS, tar(("../../escaped", b"x"))], ["a"]),
    "a layer that is no tar": lambda: docker_old([*LAYERS, b"<html>" * 500], ["a"]),
    "a digest that is a path": lambda: changed(
        oci_layout(LAYERS, ["a"]), "index.json", b'{"manifests": [{"digest": "sha256:../../../../etc/passwd"}]}'
    ),
    "a digest of another kind": lambda: changed(
        oci_layout(LAYERS, ["a"]), "index.json", json.dumps({"manifests": [{"digest": "sha512:" + "0" * 128}]}).encode()
    ),
    "an index that leads nowhere": lambda: without(oci_layout(LAYERS, ["a"]), "blobs/"),
    "five hundred and one layers": lambda: docker_old([LAYERS[0]] * 501, ["a"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_archive_is_refused_and_nothing_of_it_is_kept(here: store.Store, tmp_path: Path, name: str) -> None:
    here.open()
    before, around = snapshot(here.root), sorted(os.listdir(tmp_path))
    with pytest.raises(errors.InvalidImage) as caught:
        load(here, BAD[name]())
    assert len(str(caught.value)) < 400
    assert [path for path in snapshot(here.root) if path != "images.lock"] == [
        path for path in before if path != "images.lock"
    ]
    assert sorted(os.listdir(tmp_path)) == around
    assert here.check() == [] and here.images() == []


@pytest.mark.parametrize("end", [0.1, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("shape", ["docker, old", "oci, gzip"])
def test_a_truncated_archive_is_refused(here: store.Store, shape: str, end: float) -> None:
    whole = packed(SHAPES[shape]()).rstrip(b"\0")
    here.open()
    with pytest.raises(errors.InvalidImage):
        archive.load(here, io.BytesIO(whole[: int(len(whole) * end)]))
    assert here.images() == [] and here.check() == []


def test_a_file_that_cannot_be_read(here: store.Store, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="No such file"):
        archive.load(here, str(tmp_path / "missing.tar"))


def test_a_full_disk_is_named_and_nothing_half_stored(tmp_path: Path) -> None:
    path = tmp_path / "archive.tar"
    path.write_bytes(packed(docker_old([*LAYERS, tar(("big", os.urandom(3 << 20)))], ["test:1"])))
    code = """
import os, sys
from minicontainer import errors
from minicontainer.image import archive, store
for source in (sys.argv[2], open(os.dup(0), "rb")):
    try:
        archive.load(store.Store(sys.argv[1]), source)
    except errors.KernelError as error:
        print(error.hint)
here = store.Store(sys.argv[1])
print(here.check(), here.images(), os.listdir(here.root + "/tmp"), os.listdir(here.root + "/layers"))
"""
    (tmp_path / "store").mkdir()
    script = 'mount -t tmpfs -o size=4m none "$1" && cat "$2" | "$3" -c "$4" "$1" "$2"'
    arguments = ["unshare", "-m", "sh", "-c", script, "sh", tmp_path / "store", path, sys.executable, code]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.count("the disk is full") == 2 and done.stdout.endswith("[] [] [] ['l']\n")


def test_a_folder_whose_blob_is_a_link_to_outside(here: store.Store, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    (tmp_path / "secret").write_text('{"manifests": []}')
    layout.mkdir()
    (layout / "oci-layout").write_bytes(oci.LAYOUT)
    (layout / "index.json").symlink_to(tmp_path / "secret")
    with pytest.raises(errors.InvalidImage):
        archive.load(here, str(layout))


# ------------------------------------------------------------ killed at work

KILLED = """
import os, signal, sys
from minicontainer.image import archive, store
count = 0
def dying(real):
    def call(*arguments, **options):
        global count
        count += 1
        if count == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return call
for name in ("rename", "symlink", "fsync", "mkdir"):
    setattr(os, name, dying(getattr(os, name)))
archive.load(store.Store(sys.argv[1]), sys.argv[2])
"""


def test_killed_at_any_moment_a_load_leaves_what_repair_takes_away_and_the_next_load_completes(tmp_path: Path) -> None:
    path = tmp_path / "archive.tar"
    path.write_bytes(packed(docker_old(LAYERS[:2], ["test:1"])))
    for moment in range(1, 200):
        here = store.Store(str(tmp_path / f"store{moment}"))
        done = subprocess.run([sys.executable, "-c", KILLED, here.root, str(path), str(moment)], check=False)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        try:
            here.get("test:1")
            entered = True
        except errors.ImageNotFound:
            entered = False
        here.repair()
        assert here.check() == []
        if not entered and os.path.exists(f"{here.root}/layers"):
            assert os.listdir(f"{here.root}/layers") in ([], ["l"])
            assert os.listdir(f"{here.root}/blobs/sha256") == os.listdir(f"{here.root}/tmp") == []
        assert archive.load(here, str(path)) == ["test:1"]
        is_whole(here)
        shutil.rmtree(here.root)
    assert moment > 20


def test_a_load_under_way_is_not_disturbed_by_repair(here: store.Store) -> None:
    class Slow(io.BytesIO):
        """Repairs the store in the middle of being read."""

        def read(self, size: int | None = -1) -> bytes:
            assert here.repair() == []
            return super().read(size)

    assert archive.load(here, Slow(packed(docker_old(LAYERS, ["test:1"])))) == ["test:1"]
    is_whole(here)


def test_two_loads_of_the_same_archive_at_once(here: store.Store, tmp_path: Path) -> None:
    path = tmp_path / "archive.tar"
    path.write_bytes(packed(docker_old(LAYERS, ["test:1"])))
    code = """
import sys
from minicontainer.image import archive, store
archive.load(store.Store(sys.argv[1]), sys.argv[2])
"""
    running = [subprocess.Popen([sys.executable, "-c", code, here.root, str(path)]) for _ in range(6)]
    assert [process.wait() for process in running] == [0] * 6
    is_whole(here)


# ------------------------------------------------------------ the real ones


@pytest.mark.slow
@pytest.mark.needs("skopeo", "umoci")
def test_skopeo_and_umoci_read_the_store_and_skopeo_s_archives_are_read(here: store.Store, tmp_path: Path) -> None:
    load(here, docker_old(LAYERS, ["test:1", "example.org/a/b:c"]))
    for name in ("test:1", "example.org/a/b:c"):
        told = subprocess.run(["skopeo", "inspect", f"oci:{here.root}:{name}"], capture_output=True, check=True)
        assert json.loads(told.stdout)["Digest"] == here.get(name).digest
    tags = subprocess.run(["umoci", "ls", "--layout", here.root], capture_output=True, check=True, text=True)
    assert sorted(tags.stdout.split()) == ["example.org/a/b:c", "test:1"]
    subprocess.run(
        ["umoci", "unpack", "--image", f"{here.root}:test:1", tmp_path / "bundle"], capture_output=True, check=True
    )
    assert (tmp_path / "bundle/rootfs/etc/release").read_text() == "two\n"
    for kind in ("docker-archive", "oci-archive"):
        copy = tmp_path / f"{kind}.tar"
        subprocess.run(["skopeo", "copy", "-q", f"oci:{here.root}:test:1", f"{kind}:{copy}:test:1"], check=True)
        second = store.Store(str(tmp_path / kind))
        assert archive.load(second, str(copy)) == ["test:1"]
        is_whole(second)


def test_bytes_of_layers_are_counted(here: store.Store) -> None:
    load(here, docker_old(LAYERS, ["test:1"]))
    assert here.get("test:1").size == 8
    assert here.layer_record(here.get("test:1").chain_ids[0])["warnings"] == []
    assert set(layers.Unpacked.__slots__) - set(layers.INHERITS) == set(
        here.layer_record(here.get("test:1").chain_ids[0])
    )
