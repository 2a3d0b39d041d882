"""The registry's protocol, against a server that misbehaves in every way we know of."""

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from minicontainer import errors, files, oci
from minicontainer.engine import pulling
from minicontainer.image import registry, removal, store
from tests.registries import Fake, Request, always, digest, once

pytestmark = pytest.mark.root  # owners are given away when layers are unpacked


def tar(*members: tuple[str, bytes | int]) -> bytes:
    """A tar: bytes are a file, a number is a directory's mode."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as writer:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, int):
                info.type, info.mode = tarfile.DIRTYPE, content
                writer.addfile(info)
            else:
                info.size = len(content)
                writer.addfile(info, io.BytesIO(content))
    return packed.getvalue()


NOISE = os.urandom(3 << 20)
LAYERS = [tar(("etc", 0o751), ("etc/release", b"one\n")), tar(("big", NOISE)), tar(("etc/more", b"two\n"))]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Fake]:
    monkeypatch.setattr(registry, "PAUSE", 0.001)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for variable in ("REGISTRY_AUTH_FILE", "MINICONTAINER_REGISTRIES"):
        monkeypatch.delenv(variable, raising=False)
    with Fake() as server:
        yield server


@pytest.fixture
def here(tmp_path: Path) -> store.Store:
    return store.Store(str(tmp_path / "store"))


def is_whole(here: store.Store, name: str) -> None:
    """The image is here, every layer and blob of it, and nothing else."""
    image = here.get(name)
    bottom, middle, top = here.layer_directories(image)
    assert Path(f"{bottom}/etc/release").read_text() == "one\n"
    assert Path(f"{middle}/big").read_bytes() == NOISE
    assert Path(f"{top}/etc/more").read_text() == "two\n"
    assert os.stat(f"{top}/etc").st_mode & 0o7777 == 0o751  # not mentioned there: as in the layer below
    assert here.check() == []
    assert os.listdir(f"{here.root}/downloads") == os.listdir(f"{here.root}/tmp") == []


def has_nothing(here: store.Store) -> None:
    """No image, no blob, no layer, no debris."""
    assert here.images() == []
    assert here.check() == []
    for folder in ("blobs/sha256", "downloads", "tmp"):
        assert not os.path.exists(f"{here.root}/{folder}") or os.listdir(f"{here.root}/{folder}") == [], folder


# ------------------------------------------------------------------------------------------------------- what goes well


def test_an_image_is_pulled_and_a_second_pull_has_nothing_to_fetch(fake: Fake, here: store.Store) -> None:
    name = fake.image("demo", "1", LAYERS)
    said: list[tuple[str, str]] = []
    pulled = pulling.pull(here, name, progress=lambda layer, what, done, total: said.append((layer, what)))
    assert pulled.newer
    assert pulled.digest == pulled.image.digest == digest(fake.manifests["demo@1"][1])
    assert pulled.image.repo_digests == [f"{fake.host}/demo@{pulled.digest}"]
    is_whole(here, name)
    for layer in fake.layers:
        words = [what for short, what in said if short == layer[7:19] and what != "Downloading"]
        assert words == ["Pulling fs layer", "Download complete", "Pull complete"]
    before = len(fake.asked("GET", "/blobs/"))
    again = pulling.pull(here, name)
    assert not again.newer
    assert [path for method, path, _ in fake.log if "/blobs/" in path][before:] == [
        f"/v2/demo/blobs/{pulled.image.id}"
    ]  # the config alone
    is_whole(here, name)


SHAPES: dict[str, dict[str, Any]] = {
    "oci, gzip": {},
    "oci, zstd": {"compress": zstandard.compress, "media": oci.LAYER_ZSTD},
    "oci, plain": {"compress": lambda content: content, "media": oci.LAYER},
    "zstd called gzip": {"compress": zstandard.compress},
    "docker": {
        "media": oci.DOCKER_LAYER + ".gzip", "manifest_media": oci.DOCKER_MANIFEST, "config_media": oci.DOCKER_CONFIG,
    },
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_every_kind_of_layer_is_pulled(fake: Fake, here: store.Store, shape: str) -> None:
    name = fake.image("demo", "1", LAYERS, **SHAPES[shape])
    image = pulling.pull(here, name).image
    assert image.digest == digest(fake.manifests["demo@1"][1])
    is_whole(here, name)


def test_a_blob_that_comes_twice_in_an_image_is_fetched_once(fake: Fake, here: store.Store) -> None:
    name = fake.image("demo", "1", [LAYERS[0], LAYERS[1], LAYERS[1]])
    image = pulling.pull(here, name).image
    assert len(set(image.chain_ids)) == 3
    assert len(fake.asked("GET", fake.layers[1])) == 1
    assert here.check() == []


def index(fake: Fake, platforms: list[str]) -> str:
    listed = []
    for platform in platforms:
        architecture, _, variant = platform.partition("/")
        fake.image("many", platform.replace("/", "-"), LAYERS, architecture=architecture, config={"Env": [platform]})
        content = fake.manifests[f"many@{platform.replace('/', '-')}"][1]
        described = {"os": "linux", "architecture": architecture} | ({"variant": variant} if variant else {})
        listed.append(
            {"mediaType": oci.MANIFEST, "digest": digest(content), "size": len(content), "platform": described}
        )
    listed.append({**listed[0], "platform": {"os": "unknown", "architecture": "unknown"}})
    return fake.document("many", "1", {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": listed})


@pytest.mark.parametrize(
    "platform, meant",
    [("linux/arm64", "arm64/v8"), ("arm64", "arm64/v8"), ("linux/arm/v7", "arm/v6"), ("linux/s390x", "s390x")],
)
def test_of_an_index_the_platform_asked_for(fake: Fake, here: store.Store, platform: str, meant: str) -> None:
    name = index(fake, ["arm/v6", "arm64/v8", "s390x", "amd64"])
    pulled = pulling.pull(here, name, platform)
    assert pulled.image.config["config"]["Env"] == [meant]
    top = digest(fake.manifests["many@1"][1])
    assert pulled.digest == top != pulled.image.digest
    by_digest = f"{name.rpartition(':')[0]}@{top}"
    assert here.get(by_digest).id == pulled.image.id  # as the registry calls it
    assert pulling.pull(here, by_digest, platform).newer is False
    assert here.get(name).names == [name]


def test_a_platform_that_is_not_there_is_refused_and_those_that_are_are_named(fake: Fake, here: store.Store) -> None:
    name = index(fake, ["arm/v6", "s390x"])
    with pytest.raises(
        errors.RegistryError, match=r"no matching manifest for linux/riscv64.*linux/arm/v6.*linux/s390x"
    ):
        pulling.pull(here, name, "linux/riscv64")
    fake.image("one", "1", LAYERS)
    with pytest.raises(errors.InvalidImage, match="linux/riscv64 was asked for"):
        pulling.pull(here, f"{fake.host}/one:1", "linux/riscv64")
    has_nothing(here)


def test_by_digest_without_a_tag(fake: Fake, here: store.Store) -> None:
    name = fake.image("demo", "1", LAYERS)
    by_digest = f"{fake.host}/demo@{digest(fake.manifests['demo@1'][1])}"
    image = pulling.pull(here, by_digest).image
    assert image.names == [] and image.repo_digests == [by_digest]
    is_whole(here, by_digest)
    assert pulling.pull(here, name).image.names == [name]  # and later with one
    assert len(here.images()) == 1


# ------------------------------------------------------------------------------------------------ what goes badly, once


def part_of(content: bytes, size: int, **headers: str) -> Any:
    """Only so many bytes of it, though the header says all."""
    return lambda request: request.answer(200, content[:size], length=len(content), **headers)


BLOB = gzip.compress(LAYERS[1], mtime=0)
PART = 2 << 20

ONCE = {
    "429": (lambda request: request.refuse(429, "TOOMANYREQUESTS", Retry_After="0"), None),
    "429 without a word": (lambda request: request.refuse(429, "TOOMANYREQUESTS"), None),
    "500": (lambda request: request.refuse(500, "UNKNOWN"), None),
    "503": (lambda request: request.answer(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), None),
    "truncated": (part_of(BLOB, PART), f"bytes={PART}-"),
    "closed without an answer": (lambda request: setattr(request, "close_connection", True) or True, None),
    "a Content-Length that is too small": (lambda request: request.answer(200, BLOB[:PART]), f"bytes={PART}-"),
}


@pytest.mark.parametrize("trouble", ONCE)
def test_what_may_go_better_the_next_time_is_tried_again(fake: Fake, here: store.Store, trouble: str) -> None:
    trick, range = ONCE[trouble]
    name = fake.image("demo", "1", LAYERS)
    fake.tricks.append(once(trick, part=f"/blobs/{digest(BLOB)}"))
    pulling.pull(here, name)
    is_whole(here, name)
    asked = [headers.get("Range") for headers in fake.asked("GET", digest(BLOB))]
    assert asked == [None, range]


def test_a_registry_that_knows_no_ranges_sends_it_all_again(fake: Fake, here: store.Store) -> None:
    fake.ranges = False
    name = fake.image("demo", "1", LAYERS)
    fake.tricks.append(once(part_of(BLOB, PART), part=f"/blobs/{digest(BLOB)}"))
    pulling.pull(here, name)
    is_whole(here, name)


@pytest.mark.parametrize("part", ["/manifests/", "/blobs/"])
def test_a_redirect_is_followed_and_the_password_stays_behind(
    fake: Fake, here: store.Store, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "login_at", lambda host: lambda: registry.Login("alice", "secret"))
    name = fake.image("demo", "1", LAYERS)
    with Fake() as other:
        other.blobs, other.manifests = fake.blobs, fake.manifests
        fake.tricks += [
            lambda request: (
                "Authorization" not in request.headers
                and request.refuse(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="x"')
            ),
            always(lambda request: request.answer(307, Location=f"http://{other.host}{request.path}"), part=part),
        ]
        pulling.pull(here, name)
        is_whole(here, name)
        assert other.log and not any("Authorization" in headers for _, _, headers in other.log)
    assert fake.asked("GET", "/manifests/1")[-1]["Authorization"].startswith("Basic ")


# --------------------------------------------------------------------------------------------------- what goes badly


def replaced(content: bytes) -> Any:
    return lambda request: request.answer(200, content)


FOR_GOOD = {
    "429 for an hour": (lambda request: request.refuse(429, "TOOMANYREQUESTS", Retry_After="3600"), "3600 s.*login"),
    "429 again and again": (lambda request: request.refuse(429, "TOOMANYREQUESTS"), "too many requests"),
    "500": (lambda request: request.refuse(500, "UNKNOWN"), "answered GET with 500 .*: unknown"),
    "deleted": (lambda request: request.refuse(404, "BLOB_UNKNOWN"), "has no blob sha256:.*must be pushed again"),
    "forbidden": (lambda request: request.refuse(403, "DENIED"), "pull access denied for demo.*login"),
    "a loop": (lambda request: request.answer(307, Location=request.path), "redirects more than"),
    "a file": (lambda request: request.answer(307, Location="file:///etc/passwd"), "no address of the web"),
    "corrupted": (replaced(b"x" + BLOB[1:]), "(came damaged|not an image|malformed|damaged)"),
    "corrupted inside": (replaced(BLOB[:1000] + b"x" + BLOB[1001:]), "damaged"),
    "another layer": (replaced(gzip.compress(LAYERS[0]).ljust(len(BLOB), b"\0")), "came damaged"),
    "too long": (replaced(BLOB + b"x"), "sends more"),
    "never the end": (part_of(BLOB, 1000), "breaks off again and again"),
}


@pytest.mark.parametrize("trouble", FOR_GOOD)
def test_what_stays_bad_is_one_sentence_and_no_image(fake: Fake, here: store.Store, trouble: str) -> None:
    trick, words = FOR_GOOD[trouble]
    name = fake.image("demo", "1", LAYERS)
    fake.ranges = trouble != "never the end"
    fake.tricks.append(always(trick, part=f"/blobs/{digest(BLOB)}"))
    with pytest.raises((errors.RegistryError, errors.InvalidImage), match=words) as caught:
        pulling.pull(here, name)
    assert "\n" not in str(caught.value)
    assert here.images() == [] and here.check() == [] and os.listdir(f"{here.root}/tmp") == []
    assert digest(BLOB)[7:] not in os.listdir(f"{here.root}/downloads") or trouble in ("too long", "never the end")
    here.repair()
    has_nothing(here)
    fake.tricks.clear()
    pulling.pull(here, name)
    is_whole(here, name)


def test_a_manifest_that_is_damaged_or_none(fake: Fake, here: store.Store) -> None:
    name = fake.image("demo", "1", LAYERS)
    good = fake.manifests["demo@1"][1]
    by_digest = f"{fake.host}/demo@{digest(good)}"
    fake.tricks.append(once(lambda request: request.answer(200, good + b" "), part="/manifests/"))
    with pytest.raises(errors.RegistryError, match="damaged"):
        pulling.pull(here, by_digest)
    fake.tricks[:] = [once(lambda request: request.answer(200, good, Docker_Content_Digest=digest(b"")), part="/manif")]
    with pytest.raises(errors.RegistryError, match="damaged"):
        pulling.pull(here, name)
    for content in (b"<html>", b"[]", b"[" * 100_000, b"x" * (9 << 20)):
        fake.tricks[:] = [once(replaced(content), part="/manifests/")]
        with pytest.raises(errors.RegistryError):
            pulling.pull(here, name)
    with pytest.raises(errors.RegistryError, match=r"manifest for 127.*demo:2 not found"):
        pulling.pull(here, f"{fake.host}/demo:2")
    has_nothing(here)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "schema 1": ({"schemaVersion": 1, "name": "x", "fsLayers": []}, "schema 1.*push it again"),
    "an artifact": ({"schemaVersion": 2, "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json"},
                     "layers": []}, "artifact"),
    "no layers": ({"schemaVersion": 2, "config": {"mediaType": oci.CONFIG}}, "malformed"),
    "a path for a digest": ({"schemaVersion": 2, "config": {"mediaType": oci.CONFIG, "digest": "../../etc"},
                             "layers": []}, "malformed"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_image_is_refused_by_name(fake: Fake, here: store.Store, what: str) -> None:
    manifest, words = REFUSED[what]
    with pytest.raises(errors.InvalidImage, match=words):
        pulling.pull(here, fake.document("demo", "1", manifest, oci.MANIFEST))
    has_nothing(here)


@pytest.mark.parametrize(
    "media, words",
    [
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "foreign"),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "foreign"),
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "no file system's"),
    ],
)
def test_layers_that_lie_elsewhere_or_are_none_are_refused(
    fake: Fake, here: store.Store, media: str, words: str
) -> None:
    with pytest.raises(errors.InvalidImage, match=words):
        pulling.pull(here, fake.image("demo", "1", LAYERS, media=media))
    has_nothing(here)


# ------------------------------------------------------------------------------------------------- resumed, and shared


def test_what_broke_off_goes_on_in_the_next_pull(fake: Fake, here: store.Store) -> None:
    name = fake.image("demo", "1", LAYERS)
    silence = always(lambda request: setattr(request, "close_connection", True) or True, part=digest(BLOB))
    fake.tricks += [once(part_of(BLOB, PART), part=digest(BLOB)), silence]
    with pytest.raises(errors.RegistryError, match="closed connection"):
        pulling.pull(here, name)
    assert os.stat(f"{here.root}/downloads/{digest(BLOB)[7:]}").st_size == PART
    assert here.check() == []  # a download that waits is nothing wrong
    fake.tricks.clear()
    fake.log.clear()
    pulling.pull(here, name)
    assert [headers.get("Range") for headers in fake.asked("GET", digest(BLOB))] == [f"bytes={PART}-"]
    is_whole(here, name)


def test_what_an_earlier_pull_left_may_be_damaged(fake: Fake, here: store.Store) -> None:
    name = fake.image("demo", "1", LAYERS)
    here.open()
    Path(here.root, "downloads").mkdir()
    Path(here.root, "downloads", digest(BLOB)[7:]).write_bytes(BLOB[:1000] + bytes(1000))
    Path(here.root, "downloads", fake.layers[0][7:]).write_bytes(bytes(1 << 20))  # longer than it may be
    pulling.pull(here, name)
    is_whole(here, name)


def test_two_pulls_share_a_download(fake: Fake, here: store.Store) -> None:
    """The second waits where the first is at it, and fetches nothing again."""
    name = fake.image("demo", "1", LAYERS)
    other = fake.image("demo", "2", LAYERS, config={"Cmd": ["other"]})
    may, asked = threading.Event(), threading.Event()

    def hold(request: Request) -> bool:
        asked.set()
        may.wait(100)
        return False

    fake.tricks.append(always(hold, part=fake.layers[1]))
    waiting = threading.Event()
    failures: list[BaseException] = []

    def pull(name: str) -> None:
        try:
            pulling.pull(here, name, progress=lambda layer, what, done, total: what == "Waiting" and waiting.set())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=pull, args=(each,)) for each in (name, other)]
    threads[0].start()
    assert asked.wait(100), failures
    threads[1].start()
    assert waiting.wait(100)
    may.set()
    for thread in threads:
        thread.join(100)
    assert failures == []
    assert [len(fake.asked("GET", f"blobs/{layer}")) for layer in fake.layers] == [1, 1, 1]
    is_whole(here, name)
    is_whole(here, other)


def test_a_layer_that_fails_ends_the_others_at_once(fake: Fake, here: store.Store) -> None:
    name = fake.image("demo", "1", LAYERS)
    never = threading.Event()
    begun = threading.Event()

    def hang(request: Request) -> bool:
        request.answer(200, b"x", length=1000)
        request.wfile.flush()
        begun.set()
        never.wait(100)
        return True

    def fail(request: Request) -> bool:
        begun.wait(100)
        return request.refuse(404, "BLOB_UNKNOWN")

    fake.tricks += [always(hang, part=fake.layers[0]), always(fail, part=fake.layers[1])]
    before = time.monotonic()
    with pytest.raises(errors.RegistryError, match="has no blob"):
        pulling.pull(here, name)
    assert time.monotonic() - before < registry.READ  # nobody has waited for the one that hangs
    never.set()


@pytest.mark.parametrize("signalled", [signal.SIGKILL, signal.SIGINT])
def test_a_pull_that_is_killed_leaves_a_sound_store_and_goes_on(fake: Fake, here: store.Store, signalled: int) -> None:
    name = fake.image("demo", "1", LAYERS)
    may, reached = threading.Event(), threading.Event()

    def stall(request: Request) -> bool:
        request.send_response(200)
        request.send_header("Content-Length", str(len(BLOB)))
        request.end_headers()
        request.wfile.write(BLOB[:PART])
        request.wfile.flush()
        reached.set()
        may.wait(60)
        request.close_connection = True
        return True

    fake.tricks.append(once(stall, part=digest(BLOB)))
    process = subprocess.Popen(
        [sys.executable, "-m", "minicontainer", "pull", name], env={**os.environ, "MINICONTAINER_ROOT": here.root},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert reached.wait(100)
        kept = Path(here.root, "downloads", digest(BLOB)[7:])
        while not kept.exists() or kept.stat().st_size < PART:
            assert process.poll() is None
            os.sched_yield()
        process.send_signal(signalled)
        _, said = process.communicate(timeout=30)  # while its server still stalls
        assert process.returncode == (130 if signalled == signal.SIGINT else -signalled), said
        assert said == ""
    finally:
        may.set()
        process.kill()
        process.wait()
    here.repair()  # the dead process's folder; but first its download …
    fake.log.clear()
    pulling.pull(here, name)
    is_whole(here, name)


# ----------------------------------------------------------------------------------------------------------- the client


def test_challenges_are_read_as_the_rfc_has_them() -> None:
    read = registry.challenges(
        'Bearer realm="https://a/b?c=d",service=s, scope="repository:x:pull,push" , Basic realm="a \\"b\\", c"'
    )
    assert read == [
        ("Bearer", {"realm": "https://a/b?c=d", "service": "s", "scope": "repository:x:pull,push"}),
        ("Basic", {"realm": 'a "b", c'}),
    ]
    for nonsense in ("", "=", ",,", 'Bearer realm="', "Basic", '"', "a=b"):
        registry.challenges(nonsense)


@pytest.mark.parametrize(
    "host, insecure",
    [("localhost:5000", True), ("127.0.0.1:1", True), ("127.9.9.9", True), ("[::1]:5000", True), ("10.1.2.3:5", True),
     ("named:5000", True), ("named:5001", False), ("docker.io", False), ("127.0.0.1.example.org", False),
     ("bare:77", True), ("8.8.8.8", False)],
)  # fmt: skip
def test_unencrypted_is_only_what_is_named_or_loopback(host: str, insecure: bool) -> None:
    settings = registry.Settings(insecure=["named:5000", "10.0.0.0/8", "bare"])
    assert settings.is_insecure(host) is insecure


def test_a_mirror_is_asked_first_and_the_registry_where_it_fails(
    fake: Fake, here: store.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = fake.image("demo", "1", LAYERS)
    with Fake() as mirror:
        settings = tmp_path / "registries.json"
        settings.write_text(json.dumps({"registry-mirrors": {fake.host: [f"http://{mirror.host}"]}}))
        monkeypatch.setenv("MINICONTAINER_REGISTRIES", str(settings))
        pulling.pull(here, name)  # it has nothing
        assert mirror.asked("GET", "/manifests/1")
        is_whole(here, name)
        removal.remove(here, name)
        mirror.blobs, mirror.manifests = dict(fake.blobs), fake.manifests
        del mirror.blobs[fake.layers[2]]
        fake.log.clear()
        pulling.pull(here, name)
        is_whole(here, name)
        assert [path.rpartition("/")[2] for _, path, _ in fake.log if "sha256" in path] == [fake.layers[2]]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"pull": "always"}', '{"registry-mirrors": 1}', '{"insecure-registries": [1]}']
)
def test_settings_that_cannot_be_read_are_named(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "registries.json"
    path.write_text(content)
    monkeypatch.setenv("MINICONTAINER_REGISTRIES", str(path))
    with pytest.raises(errors.InvalidArgument, match=str(path)):
        registry.settings_here()


def test_a_token_server_that_is_not_encrypted_is_told_nothing() -> None:
    client = registry.Registry("example.org", login=lambda: registry.Login("alice", "secret"))
    with pytest.raises(errors.RegistryError, match="not encrypted"):
        client.grant('Bearer realm="http://example.org/token"', "")


@pytest.mark.slow
@pytest.mark.needs("strace")
def test_a_pull_killed_at_any_rename_or_removal_leaves_a_store_that_mends(fake: Fake, tmp_path: Path) -> None:
    """SIGKILL right at the entry of each such system call in turn (strace(1), inject), until none is left."""
    name = fake.image("demo", "1", LAYERS)
    calls = "rename,renameat,renameat2,unlink,unlinkat,rmdir,symlink,syncfs"
    for number in range(1, 200):
        here = store.Store(str(tmp_path / f"store{number}"))
        done = subprocess.run(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}",
             "-e", f"inject={calls}:signal=KILL:when={number}",
             sys.executable, "-m", "minicontainer", "pull", "-q", name],
            env={**os.environ, "MINICONTAINER_ROOT": here.root, "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True,
        )  # fmt: skip
        here.repair()
        assert here.check() == [], number
        pulling.pull(here, name)
        is_whole(here, name)
        files.remove_tree(here.root)
        if done.returncode == 0:
            break
    assert done.returncode == 0 and number > 10


def test_a_full_disk_is_said_and_keeps_nothing(fake: Fake, tmp_path: Path) -> None:
    name = fake.image("demo", "1", LAYERS)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], check=True)
    try:
        here = store.Store(str(small / "store"))
        with pytest.raises(errors.KernelError, match="the disk is full"):
            pulling.pull(here, name)
        here.repair()
        has_nothing(here)
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        pulling.pull(here, name)
        is_whole(here, name)
    finally:
        subprocess.run(["umount", small], check=True)
