"""push: what is sent, what is not, what goes on where it broke off; and gzip, the same bytes each time."""

import gzip
import hashlib
import io
import json
import os
import random
import zlib
from pathlib import Path

import pytest

from minicontainer import errors, oci
from minicontainer.engine import pulling, pushing
from minicontainer.image import blobs, compression, making, provenance, registry, removal, store
from tests.image.test_registry import LAYERS, NOISE, fake, here, is_whole, tar  # noqa: F401
from tests.registries import Fake, Request, always, digest, once

pytestmark = pytest.mark.root  # owners are given away when layers are unpacked


def loaded(here: store.Store, name: str, tars: list[bytes] = LAYERS) -> store.Image:  # noqa: F811
    """An image whose layers lie in the store plain, as `commit` and `bootstrap` make them."""
    with here.job() as job:
        paths = []
        for content in tars:
            paths.append(job.path("tar"))
            Path(paths[-1]).write_bytes(content)
        return making.make(job, {"architecture": "amd64", "os": "linux", "config": {}}, paths, name)


def test_an_image_that_was_pulled_is_pushed_as_it_came(fake: Fake, here: store.Store) -> None:  # noqa: F811
    name = fake.image("demo", "1", LAYERS)
    pulled = pulling.pull(here, name)
    with Fake() as other:
        there = f"{other.host}/copy:1"
        here.tag(name, there)
        said: list[str] = []
        pushed = pushing.push(here, there, lambda layer, what, done, total: said.append(what))
        assert pushed.digest == pulled.digest
        assert other.manifests["copy@1"] == fake.manifests["demo@1"]
        assert other.blobs == fake.blobs
        assert [said.count(what) for what in ("Preparing", "Pushed")] == [3, 3]
        assert sorted(here.get(there).repo_digests) == sorted(
            [f"{fake.host}/demo@{pulled.digest}", f"{other.host}/copy@{pulled.digest}"]
        )
        said.clear()
        other.log.clear()
        pushing.push(here, there, lambda layer, what, done, total: said.append(what))
        assert said.count("Layer already exists") == 3
        assert [method for method, path, _ in other.log if "/blobs/" in path] == ["HEAD"] * 4


def test_plain_layers_are_compressed_and_the_same_each_time(fake: Fake, tmp_path: Path) -> None:  # noqa: F811
    digests = []
    for number in range(2):
        store_here = store.Store(str(tmp_path / f"store{number}"))
        name = f"{fake.host}/made{number}:1"
        image = loaded(store_here, name)
        digests.append(pushing.push(store_here, name).digest)
        manifest = json.loads(fake.manifests[f"made{number}@1"][1])
        assert manifest["config"]["digest"] == image.id
        assert [layer["mediaType"] for layer in manifest["layers"]] == [oci.LAYER_GZIP] * 3
        assert [gzip.decompress(fake.blobs[layer["digest"]]) for layer in manifest["layers"]] == LAYERS
        assert store_here.get(f"{fake.host}/made{number}@{digests[-1]}").id == image.id
        assert store_here.check() == []
    assert digests[0] == digests[1]
    back = store.Store(str(tmp_path / "back"))
    assert pulling.pull(back, name).digest == digests[1]
    is_whole(back, name)


def test_what_a_plain_layer_becomes_is_remembered(
    fake: Fake, here: store.Store, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    name = f"{fake.host}/made:1"
    loaded(here, name)
    pushed = pushing.push(here, name)

    def gzip(read: compression.Read) -> list[bytes]:
        raise AssertionError("compressed again")

    monkeypatch.setattr(compression, "gzip", gzip)
    assert pushing.push(here, name) == pushed
    removal.remove(here, name)
    assert os.listdir(f"{here.root}/distribution") == []  # it goes with the blobs


def test_a_blob_is_taken_over_from_where_it_came(fake: Fake, here: store.Store) -> None:  # noqa: F811
    name = fake.image("demo", "1", LAYERS)
    pulling.pull(here, name)
    here.tag(name, f"{fake.host}/copy:1")
    held, fake.blobs = fake.blobs, {}  # a repository has none of what its registry has

    def mounts(request: Request) -> bool:
        fake.blobs.update(held)
        return False

    fake.tricks.append(always(mounts, "POST", f"mount=sha256%3A{fake.layers[1][7:]}&from=demo"))
    said: list[tuple[str, str]] = []
    pushing.push(here, f"{fake.host}/copy:1", lambda layer, what, done, total: said.append((layer, what)))
    assert [what for layer, what in said if layer == digest(LAYERS[1])[7:19]] == ["Preparing", "Mounted from demo"]
    assert f"/v2/copy/blobs/uploads/?mount=sha256%3A{fake.layers[1][7:]}&from=demo" in [path for _, path, _ in fake.log]


@pytest.mark.parametrize("status", [403, 404, 202])
def test_where_it_cannot_be_taken_over_it_is_sent(fake: Fake, here: store.Store, status: int) -> None:  # noqa: F811
    name = fake.image("demo", "1", LAYERS)
    pulling.pull(here, name)
    here.tag(name, f"{fake.host}/copy:1")
    fake.blobs = {}

    def trick(request: Request) -> bool:
        if status != 202:
            return request.refuse(status, "DENIED")
        upload = f"m{next(fake.numbers)}"
        fake.uploads[upload] = b""
        return request.answer(202, Location=f"/v2/copy/blobs/uploads/{upload}?state=x")

    fake.tricks.append(always(trick, "POST", "mount="))
    pushing.push(here, f"{fake.host}/copy:1")
    assert {digest(content) for content in fake.blobs.values()} == {*fake.layers, here.get(name).id}


# --------------------------------------------------------------------------------------------------- when it breaks off


def keeps_half(fake: Fake, part: int) -> "Request":  # noqa: F811
    """A trick: take so many bytes of a PATCH, and hang up."""

    def trick(request: Request) -> bool:
        name = request.path.partition("?")[0].rpartition("/")[2]
        fake.uploads[name] += request.rfile.read(part)
        request.close_connection = True
        return True

    return trick  # type: ignore[return-value]


def big(fake: Fake, here: store.Store) -> tuple[str, bytes]:  # noqa: F811
    """An image of one layer of three megabytes that do not compress, in our store and not in the registry."""
    name = fake.image("demo", "1", [LAYERS[1]])
    pulling.pull(here, name)
    blob = fake.blobs[fake.layers[0]]
    fake.blobs, fake.manifests = {}, {}
    fake.log.clear()
    return name, blob


def test_an_upload_goes_on_where_it_broke_off(fake: Fake, here: store.Store) -> None:  # noqa: F811
    name, blob = big(fake, here)
    fake.tricks.append(once(keeps_half(fake, 2 << 20), "PATCH", "/uploads/"))  # type: ignore[arg-type]
    pushing.push(here, name)
    assert fake.blobs[digest(blob)] == blob
    assert [headers["Content-Range"] for headers in fake.asked("PATCH", "/uploads/")] == [
        f"0-{len(blob) - 1}", f"{2 << 20}-{len(blob) - 1}",
    ]  # fmt: skip


TROUBLE = {
    "429": lambda request: request.refuse(429, "TOOMANYREQUESTS", Retry_After="0"),
    "500": lambda request: request.refuse(500, "UNKNOWN"),
    "out of order": lambda request: request.answer(416),
    "hung up": lambda request: setattr(request, "close_connection", True) or True,
}


@pytest.mark.parametrize(
    "method, trouble",
    [("PATCH", trouble) for trouble in TROUBLE]
    + [(method, trouble) for method in ("PUT", "POST", "HEAD") for trouble in TROUBLE if trouble != "out of order"],
)
def test_what_may_go_better_the_next_time_is_sent_again(
    fake: Fake, here: store.Store, method: str, trouble: str  # noqa: F811
) -> None:  # fmt: skip
    name, blob = big(fake, here)
    fake.tricks.append(once(TROUBLE[trouble], method, "/blobs/"))
    pushing.push(here, name)
    assert fake.blobs[digest(blob)] == blob
    assert "demo@1" in fake.manifests


def test_an_upload_that_was_forgotten_begins_again(fake: Fake, here: store.Store) -> None:  # noqa: F811
    name, blob = big(fake, here)

    def forget(request: Request) -> bool:
        fake.uploads.clear()
        return request.refuse(500, "UNKNOWN")

    fake.tricks.append(once(forget, "PATCH", "/uploads/"))
    pushing.push(here, name)
    assert fake.blobs[digest(blob)] == blob


def test_where_a_proxy_has_a_limit_it_goes_in_pieces(fake: Fake, here: store.Store) -> None:  # noqa: F811
    name, blob = big(fake, here)

    def limit(request: Request) -> bool:
        return int(request.headers["Content-Length"]) > 1 << 20 and request.answer(413)

    fake.tricks.append(always(limit, "PATCH", "/uploads/"))
    pushing.push(here, name)
    assert fake.blobs[digest(blob)] == blob
    ranges = [headers["Content-Range"] for headers in fake.asked("PATCH", "/uploads/")]
    assert ranges[-4:] == ["0-1048575", "1048576-2097151", "2097152-3145727", f"3145728-{len(blob) - 1}"]


@pytest.mark.parametrize("status, words", [(403, "push access denied for demo"), (500, "answered PATCH with 500")])
def test_what_stays_bad_leaves_the_tag_alone(
    fake: Fake, here: store.Store, status: int, words: str  # noqa: F811
) -> None:  # fmt: skip
    name, _ = big(fake, here)
    fake.tricks.append(always(lambda request: request.refuse(status, "DENIED"), "PATCH", "/uploads/"))
    with pytest.raises(errors.RegistryError, match=words):
        pushing.push(here, name)
    assert fake.manifests == {}
    assert here.check() == []


@pytest.mark.parametrize("at", [0, 1000])
def test_a_blob_of_ours_that_is_damaged_is_named(fake: Fake, here: store.Store, at: int) -> None:  # noqa: F811
    name, blob = big(fake, here)
    with open(blobs.path(here.root, digest(blob)), "r+b") as file:
        file.seek(at)
        file.write(b"damaged")
    with pytest.raises(errors.InvalidImage, match="is damaged; `system check --repair`"):
        pushing.push(here, name)
    assert fake.manifests == {}


def test_what_cannot_be_pushed(fake: Fake, here: store.Store) -> None:  # noqa: F811
    image = loaded(here, f"{fake.host}/made:1")
    with pytest.raises(errors.InvalidArgument, match="cannot push a digest"):
        pushing.push(here, f"{fake.host}/made@{image.digest}")
    with pytest.raises(errors.ImageNotFound, match="does not exist locally"):
        pushing.push(here, f"{fake.host}/made:2")
    assert fake.log == []


# ------------------------------------------------------------------------------------------------------------- gzip


@pytest.mark.parametrize("size", [0, 1, 100, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20])
def test_gzip_is_read_by_others_and_is_the_same_on_any_number_of_processors(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = random.Random(size).randbytes(70_000)  # repeats across blocks, so that their dictionaries count
    content = (pattern * (size // len(pattern) + 1))[:size]
    made = []
    for processors in (1, 2, 16):
        monkeypatch.setattr(os, "cpu_count", lambda processors=processors: processors)
        made.append(b"".join(compression.gzip(io.BytesIO(content).read)))
    assert made[0] == made[1] == made[2]
    assert gzip.decompress(made[0]) == content
    reading = zlib.decompressobj(31)
    assert reading.decompress(made[0]) == content and reading.eof and not reading.unused_data
    assert len(made[0]) <= len(gzip.compress(content, 6)) * 1.02 + 100


def test_gzip_takes_what_comes_in_crumbs() -> None:
    content = NOISE[: 1 << 20] + bytes(100)
    source = io.BytesIO(content)
    crumbs = b"".join(compression.gzip(lambda size: source.read(min(size, 1000))))
    assert crumbs == b"".join(compression.gzip(io.BytesIO(content).read))


def test_what_a_killed_push_has_half_written_goes(fake: Fake, here: store.Store) -> None:  # noqa: F811
    name = fake.image("demo", "1", LAYERS)
    pulling.pull(here, name)
    half = Path(here.root, "distribution", f"{fake.layers[0][7:]}.json.tmp-77")
    for mend in (here.repair, lambda: removal.prune(here, removal.nobody, bool)):
        half.write_text("{")
        with here.job():
            mend()  # whose process may be writing it
        assert half.exists()
        mend()
        assert not half.exists()
        if mend == here.repair:
            assert here.check() == []
            is_whole(here, name)


def test_provenance_survives_nonsense(here: store.Store) -> None:  # noqa: F811
    here.open()
    name = digest(b"x")
    provenance.note_repository(here.root, name, "a.org/b")
    provenance.note_compressed(here.root, name, digest(b"y"), 7)
    provenance.note_repository(here.root, name, "a.org/c")
    assert provenance.repositories(here.root, name) == ["a.org/c", "a.org/b"]
    assert provenance.compressed(here.root, name) == (digest(b"y"), 7)
    for content in ("", "{", "[]", '{"repositories": 1, "gzip": {"size": "1"}}'):
        Path(here.root, "distribution", f"{name[7:]}.json").write_text(content)
        assert provenance.repositories(here.root, name) == []
        assert provenance.compressed(here.root, name) is None
    assert hashlib.sha256(b"x").hexdigest() in name
    assert registry.SMALL <= len(NOISE)  # or nothing here is sent in parts
