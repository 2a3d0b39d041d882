"""Lab 04, graded by the bytes that were written: tar entries, JSON, digests. Needs neither namespaces nor mounts."""

import gzip
import hashlib
import io
import json
import tarfile

import pytest

pytestmark = pytest.mark.pure

WORDS = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "willow")


def make(root, entries, clock):
    """In the room: a directory with these entries, [path, kind, what, mode], made in this order at that time."""
    import os

    os.mkdir(root)
    for path, kind, what, _ in entries:
        full = f"{root}/{path}"
        if kind == "directory":
            os.makedirs(full, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(full), exist_ok=True)
        if kind == "file":
            with open(full, "w") as file:
                file.write(what)
        elif kind == "symlink":
            os.symlink(what, full)
        elif kind == "link":
            os.link(f"{root}/{what}", full)
    for path, kind, _, mode in entries:
        if kind != "symlink":
            os.chmod(f"{root}/{path}", mode)
        os.utime(f"{root}/{path}", (clock, clock), follow_symlinks=False)


def draw(rng):
    """The entries of a directory: some files in some directories, an empty one, a symbolic link."""
    words = rng.sample(WORDS, 8)
    entries = [[word, "directory", "", rng.choice((0o755, 0o711, 0o1777))] for word in words[:3]]
    entries.append([f"{words[0]}/empty", "directory", "", 0o700])
    for word in words[3:7]:
        place = rng.choice(("", f"{words[0]}/", f"{words[1]}/"))
        entries.append(
            [f"{place}{word}", "file", f"{word} {rng.random()}" * 50, rng.choice((0o644, 0o755, 0o600, 0o4755))]
        )
    entries.append([words[7], "symlink", f"{words[0]}/nowhere", 0o777])
    return entries


def members(content, what):
    """The entries of a tar file by their names, each with its content; a test fails where it is no tar file."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            return {entry.name: (entry, tar.extractfile(entry).read() if entry.isreg() else b"") for entry in tar}
    except tarfile.TarError as error:
        raise AssertionError(f"{what} is not to be read as a plain tar file: {error}") from None


def sha256(content):
    """A digest as images spell it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.points(2)
def test_a_layer(room, rng):
    """pack makes a tar with every name, its kind, content and mode, and tells its diffID."""
    entries = draw(rng)
    room.prepare(make, "/tmp/tree", entries, 10**9)
    told = room.call("pack", "/tmp/tree", "/tmp/layer.tar")
    content = room.read("/tmp/layer.tar")
    found = members(content, "layer.tar")
    names, wanted = sorted(found), sorted(path for path, _, _, _ in entries)
    assert names == wanted, f"the tar has the names {names}, and the directory {wanted}"
    for path, kind, what, mode in entries:
        entry, data = found[path]
        is_kind = {"directory": entry.isdir(), "file": entry.isreg(), "symlink": entry.issym()}[kind]
        assert is_kind, f"{path} is a {kind}, and in the tar it has the type {entry.type}"
        assert kind != "file" or data == what.encode(), f"{path} has other content in the tar"
        assert kind != "symlink" or entry.linkname == what, f"{path} leads to {entry.linkname}, and should to {what}"
        assert kind == "symlink" or entry.mode == mode, f"{path} has the mode {entry.mode:o} in the tar, not {mode:o}"
    assert told == sha256(content), f"pack says {told}; sha256sum of the file is {sha256(content)}"


@pytest.mark.points(3)
def test_the_same_bytes(room, rng):
    """Two directories with the same files make the same bytes, however they came about."""
    entries = [entry for entry in draw(rng) if entry[0] != "twin"]
    files = [path for path, kind, _, _ in entries if kind == "file"]
    twin = next(entry for entry in entries if entry[0] == files[0])
    room.prepare(make, "/tmp/one", [*entries, ["a-twin", "link", files[0], twin[3]]], 10**9)
    again = sorted(entries, key=lambda entry: (entry[1] != "directory", rng.random()))
    room.prepare(make, "/tmp/two", [*again, ["a-twin", "file", twin[2], twin[3]]], 10**9 + rng.randrange(10**6))
    for name in ("one", "two"):
        room.call("pack", f"/tmp/{name}", f"/tmp/{name}.tar")
    one, two = (members(room.read(f"/tmp/{name}.tar"), f"{name}.tar") for name in ("one", "two"))
    assert list(one) == list(two), f"the names stand in another order: {list(one)[:3]}… and {list(two)[:3]}…"
    for name, (entry, data) in one.items():
        for what in ("type", "size", "mode", "mtime", "uid", "gid", "uname", "gname", "linkname"):
            here, there = getattr(entry, what), getattr(two[name][0], what)
            assert here == there, f"{name}: {what} is {here} in one tar and {there} in the other"
        assert data == two[name][1], f"{name} has other content in the second tar"
        assert (entry.uid, entry.gid, entry.uname, entry.gname) == (0, 0, "", ""), (
            f"{name} belongs to {entry.uid}:{entry.gid} {entry.uname!r}: on another machine that would be somebody else"
        )
    assert room.read("/tmp/one.tar") == room.read("/tmp/two.tar"), "the entries are the same, but not the bytes"


def stack(several):
    """In the room: layers, each with one file; the same words make the same layer. Their digests."""
    import hashlib
    import io
    import tarfile

    digests = []
    for position, word in enumerate(several):
        with tarfile.open(f"/tmp/{position}.tar", "w") as tar:
            entry = tarfile.TarInfo(word)
            entry.size = len(word)
            tar.addfile(entry, io.BytesIO(word.encode()))
        with open(f"/tmp/{position}.tar", "rb") as file:
            digests.append("sha256:" + hashlib.sha256(file.read()).hexdigest())
    return digests


def built(room, rng):
    """An archive that build has made: its members, the digests of its layers, config and name, and what build said."""
    words = rng.sample(WORDS, 3)
    words.append(words[1])
    digests = room.prepare(stack, words)
    run = {"Env": [f"WORD={rng.choice(WORDS)}"], "Cmd": ["cat", f"/{words[0]}"]}
    config = {"os": "linux", "architecture": rng.choice(("amd64", "arm64")), "config": run}
    name = f"{rng.choice(WORDS)}/{rng.choice(WORDS)}:{rng.randrange(10)}"
    layers = [f"/tmp/{position}.tar" for position in range(len(words))]
    told = room.call("build", layers, config, name, "/tmp/image.tar")
    found = {key: data for key, (_, data) in members(room.read("/tmp/image.tar"), "image.tar").items()}
    return found, digests, config, name, told


def document(found, name):
    """A JSON document of an archive."""
    assert name in found, f"the archive has no {name}; it has {sorted(found)}"
    try:
        return json.loads(found[name])
    except ValueError as error:
        raise AssertionError(f"{name} is no JSON: {error}") from None


def follow(found, pointer, what):
    """The blob that a descriptor leads to; the test fails where digest or size are not the blob's."""
    assert {"mediaType", "digest", "size"} <= set(pointer), f"the descriptor of the {what} is {pointer}"
    name = f"blobs/sha256/{pointer['digest'].removeprefix('sha256:')}"
    assert name in found, f"the descriptor of the {what} leads to {name}, which is not in the archive"
    assert sha256(found[name]) == pointer["digest"], f"{name} has the digest {sha256(found[name])}"
    assert len(found[name]) == pointer["size"], f"the {what} has {len(found[name])} bytes, its descriptor {pointer}"
    return found[name]


@pytest.mark.points(3)
def test_as_docker_reads_it(room, rng):
    """manifest.json leads to a config, whose digest is the id, and to layers with the config's diffIDs."""
    found, digests, config, name, told = built(room, rng)
    listing = document(found, "manifest.json")
    assert len(listing) == 1 and listing[0].get("RepoTags") == [name], f"manifest.json is {listing}; the name is {name}"
    of_config = document(found, listing[0]["Config"])
    kept = {key: of_config.get(key) for key in config}
    assert kept == config, f"the config says {kept}, and was given {config}"
    rootfs = of_config.get("rootfs")
    assert rootfs == {"type": "layers", "diff_ids": digests}, (
        f"its rootfs is {rootfs}; the layers' digests are {digests}"
    )
    assert told == sha256(found[listing[0]["Config"]]), f"build says {told}, and the config has another digest"
    layers = [sha256(found[layer]) for layer in listing[0]["Layers"] if layer in found]
    assert layers == digests, f"manifest.json's Layers are {listing[0]['Layers']}, with the digests {layers}"


@pytest.mark.points(3)
def test_as_oci_reads_it(room, rng):
    """oci-layout and index.json lead to the same config and layers by descriptors; each blob is there once."""
    found, digests, _, name, told = built(room, rng)
    layout = document(found, "oci-layout")
    assert layout == {"imageLayoutVersion": "1.0.0"}, f"oci-layout says {layout}"
    index = document(found, "index.json")
    assert index.get("schemaVersion") == 2 and len(index.get("manifests", [])) == 1, f"index.json is {index}"
    (pointer,) = index["manifests"]
    named = pointer.get("annotations", {}).get("org.opencontainers.image.ref.name")
    assert named == name, f"the image's name in index.json is {named!r}, and should be {name!r}"
    manifest = json.loads(follow(found, pointer, "manifest"))
    assert manifest.get("schemaVersion") == 2, f"the manifest has the schemaVersion {manifest.get('schemaVersion')}"
    follow(found, manifest["config"], "config")
    assert manifest["config"]["digest"] == told, (
        f"the manifest's config is {manifest['config']['digest']}, the id {told}"
    )
    layers = [sha256(follow(found, layer, "layer")) for layer in manifest["layers"]]
    assert layers == digests, f"the manifest's layers are {layers}, and should be {digests}"
    kinds = [
        pointer["mediaType"],
        manifest["config"]["mediaType"],
        *{layer["mediaType"] for layer in manifest["layers"]},
    ]
    assert [kind.rpartition("application/vnd.oci.image.")[2] for kind in kinds] == [
        "manifest.v1+json", "config.v1+json", "layer.v1.tar",
    ], f"the media types are {kinds}"  # fmt: skip
    blobs = sorted(member for member in found if member not in ("oci-layout", "index.json", "manifest.json"))
    wanted = {pointer["digest"], told, *digests}
    assert len(blobs) == len(wanted), f"there are {len(wanted)} different blobs, and beside the documents {blobs}"


@pytest.mark.points(2)
def test_the_same_image(room, rng):
    """The same arguments make the same bytes, in whatever order the config's words come."""
    words = rng.sample(WORDS, 2)
    room.prepare(stack, words)
    config = {"os": "linux", "architecture": "amd64", "config": {"Cmd": words, "Env": ["A=1"], "User": "0"}}
    other = dict(reversed(config.items())) | {"config": dict(reversed(config["config"].items()))}
    ids = [
        room.call("build", ["/tmp/0.tar", "/tmp/1.tar"], given, "mine:1", f"/tmp/{number}.image")
        for number, given in enumerate((config, other))
    ]
    assert ids[0] == ids[1], f"two equal configs, and the ids {ids}"
    assert room.read("/tmp/0.image") == room.read("/tmp/1.image"), "the ids are the same, but not the archives' bytes"


def save(listing, contents):
    """In the room: an archive as docker save writes it; contents in hexadecimal."""
    import io
    import json
    import tarfile

    with tarfile.open("/tmp/saved.tar", "w") as tar:
        contents["manifest.json"] = json.dumps(listing).encode().hex()
        for name, text in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text) // 2
            tar.addfile(entry, io.BytesIO(bytes.fromhex(text)))


@pytest.mark.points(3)
def test_what_was_tampered_with(make_room, rng):
    """damaged names the layers that are not what the config says, compressed or not; none in a sound archive."""
    for wrong in (0, 3):
        room = make_room()
        words = rng.sample(WORDS, 7)
        plain = [word.encode() * 400 for word in words]
        sent = [data if number % 2 else gzip.compress(data, rng.randrange(1, 10)) for number, data in enumerate(plain)]
        broken = sorted(rng.sample(range(6), wrong))
        for number, how in zip(broken, ("swapped", "cut off", "missing"), strict=False):
            if how == "swapped":
                other = plain[6].replace(b"a", b"b")
                sent[number] = other if number % 2 else gzip.compress(other)
            else:
                sent[number] = sent[number][: len(sent[number]) // 2] if how == "cut off" else None
        names = [f"{word}/layer.tar" for word in words]
        config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [sha256(data) for data in plain]}}).encode()
        contents = {name: data.hex() for name, data in zip(names, sent, strict=True) if data is not None}
        listing = [{"Config": "c.json", "RepoTags": [], "Layers": names}]
        room.prepare(save, listing, contents | {"c.json": config.hex()})
        told = room.call("damaged", "/tmp/saved.tar")
        expected = [names[number] for number in broken]
        assert told == expected, f"damaged says {told}; their content is not what the config says: {expected}"
