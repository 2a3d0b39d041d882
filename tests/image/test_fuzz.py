"""Archives, manifests, configs and registries that nobody thought of: an image, or an error of our tree; and nothing is
ever written outside.

The same examples each time; with --all many more, and others each time, unless in CI. Then atheris, too, where it can
be had: it looks where the code goes (fuzzed.py).
"""

import contextlib
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minicontainer import cli, errors, oci, syscalls
from minicontainer.engine import client, describe, pulling
from minicontainer.image import archive, layers, registry, store
from tests.conftest import CHECKOUT, IN_CI
from tests.image.test_archive import LAYERS, config_of, digest, docker_old, packed, tar
from tests.registries import Fake

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

few_and_many = pytest.mark.parametrize(
    "many", [pytest.param(False, marks=pytest.mark.brief), pytest.param(True, marks=pytest.mark.slow)]
)


def fuzz(check: Callable[..., None], examples: int, many: bool, *strategies: st.SearchStrategy[Any]) -> None:
    """Call `check` with that many examples; eight times as many where there is time."""
    settled = settings(
        max_examples=examples * 8 if many else examples, derandomize=IN_CI or not many,
        suppress_health_check=list(HealthCheck), deadline=None,
    )  # fmt: skip
    settled(given(*strategies)(check))()


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """An empty folder in memory, beside things that must stay as they are: as far as a `..` may lead, and links."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as top:
        place = Path(top) / "one/two"
        place.mkdir(parents=True)
        for directory in (Path(top), place.parent):
            (directory / "file").write_text("as it was")
            (directory / "dir").mkdir()
            (directory / "link").symlink_to("file")
        before = around(Path(top), place)
        yield place
        assert around(Path(top), place) == before


def around(top: Path, place: Path) -> list[tuple[object, ...]]:
    """All that is not below `place`, by what would tell a change: the inode's ctime, too, which nobody can set."""
    found = []
    for base, directories, names in os.walk(top):
        directories[:] = [name for name in directories if Path(base, name) != place]
        for name in [*directories, *names]:
            status = os.lstat(f"{base}/{name}")
            found.append((base, name, status.st_ino, status.st_nlink, status.st_ctime_ns, status.st_size))
    return sorted(found)


# ---------------------------------------------------------------------------------------------------------- tar streams

PARTS = ["a", "b", "dir", "file", "link", ".", "..", "", ".wh.a", ".wh.file", ".wh.link", ".wh.", ".wh..wh..opq",
         ".wh..wh..plnk", ".wh...", ".wh.a\nb", "n\0n", "l" * 120, "\udcff\udcfe", "é"]  # fmt: skip
paths = st.builds(
    lambda start, parts: start + "/".join(parts),
    st.sampled_from(["", "/", "./", "../", "../../"]), st.lists(st.sampled_from(PARTS), min_size=1, max_size=4),
)  # fmt: skip
KINDS = [bytes([kind]) for kind in b"01234567SxgZ"]  # tar(5): files, links, devices, sparse, extended headers, unknown
RECORDS = {
    "path": paths, "linkpath": paths, "size": st.sampled_from(["0", "3", "-1", "1e3", "99999999999999999999"]),
    "mtime": st.sampled_from(["1.5", "-1.000000001", "nan", "1" * 400]),
    "uid": st.sampled_from(["0", "-1", "4294967296"]),
    "SCHILY.xattr.user.x": st.text(max_size=20), "SCHILY.xattr.security.capability": st.text(max_size=20),
    "SCHILY.xattr.trusted.overlay.opaque": st.just("y"), "SCHILY.xattr.trusted.overlay.redirect": st.just("/dir"),
    "GNU.sparse.major": st.just("1"), "GNU.sparse.minor": st.just("0"), "GNU.sparse.name": paths,
    "GNU.sparse.realsize": st.sampled_from(["0", "5", str(1 << 62)]),
    "GNU.sparse.map": st.sampled_from(["0,1", "x", "9,9,1,1"]),
}  # fmt: skip
members = st.builds(
    lambda **fields: fields,
    name=paths, kind=st.sampled_from(KINDS), link=paths, data=st.sampled_from([b"", b"data", b"x" * 600, b"1\n0\n5\n"]),
    mode=st.sampled_from([0o644, 0o6777, 0, 0o1777]), owner=st.sampled_from([0, 1000, 0xFFFF_FFFE, 0o7777777]),
    device=st.sampled_from([0, 1, 255, 0o7777777]), mtime=st.sampled_from([0, -1, 10**9, 1 << 40]),
    records=st.dictionaries(st.sampled_from(sorted(RECORDS)), st.none(), max_size=2).flatmap(
        lambda keys: st.fixed_dictionaries({key: RECORDS[key] for key in keys})
    ),
)  # fmt: skip
streams = st.lists(members, max_size=6)


def stream(entries: list[dict[str, Any]], form: int) -> bytes:
    """Those members as a tar; what tarfile itself refuses to write is left out."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as writer:
        for entry in entries:
            info = tarfile.TarInfo(entry["name"])
            info.type, info.linkname, info.size = entry["kind"], entry["link"], len(entry["data"])
            info.mode, info.uid, info.gid, info.mtime = entry["mode"], entry["owner"], entry["owner"], entry["mtime"]
            info.devmajor = info.devminor = entry["device"]
            if form == tarfile.PAX_FORMAT:
                info.pax_headers = entry["records"]
            with contextlib.suppress(ValueError, UnicodeError):
                writer.addfile(info, io.BytesIO(entry["data"]))
    return made.getvalue()


def summed(content: bytearray) -> bytes:
    """With a right checksum in every block, as if it were a header: or nothing behind it would ever be tried."""
    for begin in range(0, len(content) - 511, 512):
        block = content[begin : begin + 512]
        if any(block):
            block[148:156] = b" " * 8
            content[begin + 148 : begin + 156] = b"%06o\0 " % sum(block)
    return bytes(content)


forms = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])


@few_and_many
def test_layers_of_any_members_in_any_order(many: bool) -> None:
    """Three of them on one another, as the store stacks them."""

    def check(stack: list[list[dict[str, Any]]], form: int) -> None:
        with folder() as place:
            below: list[str] = []
            for number, entries in enumerate(stack):
                directory = place / str(number)
                directory.mkdir()
                with contextlib.suppress(errors.InvalidImage):
                    layers.unpack(io.BytesIO(stream(entries, form)).read, str(directory), lower=below)
                    below.insert(0, str(directory))

    fuzz(check, 150, many, st.lists(streams, min_size=1, max_size=3), forms)


@few_and_many
def test_damaged_layers(many: bool) -> None:
    """Bytes changed, the end missing, and every header's checksum made right again."""

    def check(entries: list[dict[str, Any]], form: int, damage: list[tuple[int, int]], end: int) -> None:
        content = bytearray(stream(entries, form))
        for position, value in damage:
            content[position % len(content)] = value
        with folder() as place, contextlib.suppress(errors.InvalidImage):
            layers.unpack(io.BytesIO(summed(content)[: end or None]).read, str(place))

    changes = st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), max_size=6)
    fuzz(check, 100, many, streams, forms, changes, st.sampled_from([0, 0, 0, 100, 512, 1000, 2048]))


Tree = dict[str, bytes | None]  # by path: a file's content, None for a directory
few_paths = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
one_change = st.tuples(st.sampled_from(["dir", "file", "gone", "opaque"]), few_paths) | st.just(("opaque", ""))
changes_of_a_layer = st.lists(one_change, max_size=8)


@few_and_many
@pytest.mark.needs("overlay")
def test_whiteouts_hide_what_the_specification_says(many: bool) -> None:
    """What overlayfs shows of any stack of layers, beside a model of image-spec's layer.md in a few lines."""

    def check(stack: list[list[tuple[str, str]]]) -> None:
        with folder() as place:
            for name in ("point", "none", "nothing"):  # an overlay needs two layers
                (place / name).mkdir()
            below, expected = [str(place / "none"), str(place / "nothing")], Tree()
            for number, wanted in enumerate(stack):
                directory = place / str(number)
                directory.mkdir()
                try:
                    layers.unpack(io.BytesIO(layer_of(wanted, b"%d" % number)).read, str(directory), lower=below)
                except errors.InvalidImage:  # it leads through a file of its own
                    continue
                below.insert(0, str(directory))
                expected = applied(expected, wanted, b"%d" % number)
            syscalls.mount("none", str(place / "point"), "overlay", syscalls.MS_RDONLY, f"lowerdir={':'.join(below)}")
            try:
                assert shown(place / "point") == expected
            finally:
                syscalls.umount(str(place / "point"))

    fuzz(check, 100, many, st.lists(changes_of_a_layer, min_size=1, max_size=4))


def parents(what: str, path: str) -> list[str]:
    """The directories that an entry lies in."""
    inside = path + "/" if what == "opaque" and path else path
    return [inside[:place] for place, letter in enumerate(inside) if letter == "/"]


def layer_of(wanted: list[tuple[str, str]], content: bytes) -> bytes:
    """A layer of these entries, in this order."""
    made = []
    for what, path in wanted:
        parent, _, name = path.rpartition("/")
        hidden = {"gone": f".wh.{name}", "opaque": f"{name}/.wh..wh..opq"}.get(what, name)
        data: bytes | None = {"dir": None, "file": content}.get(what, b"")
        made.append((f"{parent}/{hidden}".lstrip("/"), data))
    return tar(*made)


def applied(lower: Tree, wanted: list[tuple[str, str]], content: bytes) -> Tree:
    """What is seen with a layer on top: its own entries, the later over the earlier; whiteouts hide the lower's.

    A directory that nothing but whiteouts speaks of is there if something was.
    """
    own, hides, meant = Tree(), set(), set()
    for what, path in wanted:
        if what == "gone":
            hides.add(path)
            continue
        own.update(dict.fromkeys(parents(what, path)))
        if what == "opaque":
            hides.add(path + "/")
            continue
        if path in own and (own[path] is None) != (what == "dir"):
            own = without(own, path)
            meant = meant & own.keys()
            hides.add(path)
        own[path] = None if what == "dir" else content
        meant.update([path], parents(what, path))
    for path in sorted(hides):
        above = parents("gone", path.rstrip("/"))
        if "/" not in hides and not any({one, one + "/"} & hides or own.get(one) is not None for one in above):
            own.update(dict.fromkeys(above))
    own = {path: data for path, data in own.items() if path in meant or path in lower}
    seen = dict(lower) if "/" not in hides else {}
    for path in hides:
        seen = {name: data for name, data in seen.items() if not (name + "/").startswith(path.rstrip("/") + "/")}
    for path, data in own.items():
        if data is not None or seen.get(path, b"") is not None:
            seen = without(seen, path)
    return seen | own


def without(tree: Tree, path: str) -> Tree:
    """The tree without what is at a path and below it."""
    return {name: data for name, data in tree.items() if not (name + "/").startswith(path + "/")}


def shown(top: Path) -> Tree:
    """What the kernel shows below a directory; whatever it lists must be there."""
    return {str(path.relative_to(top)): None if path.is_dir() else path.read_bytes() for path in top.rglob("*")}


# ------------------------------------------------------------------------------------------------------------ documents

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
    | st.sampled_from([oci.MANIFEST, oci.INDEX, digest(b""), "sha256:", "linux", "../../file", "-1", "\0", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3), max_leaves=6,
)  # fmt: skip
Change = tuple[int, Any, bool]  # which place, what is there then, or whether nothing is
changes = st.lists(st.tuples(st.integers(0, 999), json_values, st.booleans()), min_size=1, max_size=2)
# Of several documents one is changed, or else the first that is wrong hides the others.
three = st.tuples(st.integers(0, 2), changes).map(lambda one: [one[1] if at == one[0] else [] for at in range(3)])


def mutated(document: Any, wanted: list[Change]) -> bytes:
    """The document with other values, or without them, in some places; as JSON."""
    document = json.loads(json.dumps(document))
    for number, value, leave_out in wanted:
        known = list(places(document))
        parent, key = known[number % len(known)]
        if parent is None:
            document = value
        elif leave_out:
            del parent[key]
        else:
            parent[key] = value
    return json.dumps(document).encode()


def places(value: Any, parent: Any = None, key: Any = None) -> Iterator[tuple[Any, Any]]:
    """All places of a document: what they are in, and under which key."""
    yield parent, key
    for inner, below in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from places(below, value, inner)


FULL = {
    "author": "x", "created": "2024-01-02T03:04:05.678Z", "variant": "",
    "config": {
        "Cmd": ["sh"], "Entrypoint": ["/bin/x"], "Env": ["A=b"], "User": "1:2", "WorkingDir": "/w",
        "Labels": {"a": "b"}, "Volumes": {"/v": {}}, "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGTERM",
        "Shell": ["sh", "-c"],
        "OnBuild": ["RUN x"], "Healthcheck": {"Test": ["CMD", "x"], "Interval": 10**9, "Retries": 3},
    },
    "history": [{"created": "2024-01-02T03:04:05Z", "created_by": "x", "comment": "y"}, {"empty_layer": True}],
}  # fmt: skip


def documents(wanted: list[list[Change]], tars: list[bytes]) -> tuple[bytes, bytes, bytes]:
    """Config, manifest and index, each changed after its digest's bearer was known."""
    config = mutated(json.loads(config_of(tars, **FULL)), wanted[0])
    of_layers = [{"mediaType": oci.LAYER, "digest": digest(layer), "size": len(layer)} for layer in tars]
    manifest = mutated(
        {
            "schemaVersion": 2, "mediaType": oci.MANIFEST, "annotations": {"a": "b"},
            "config": {"mediaType": oci.CONFIG, "digest": digest(config), "size": len(config)}, "layers": of_layers,
        },
        wanted[1],
    )  # fmt: skip
    platform = {"os": "linux", "architecture": json.loads(config_of(tars))["architecture"]}
    entry = {"mediaType": oci.MANIFEST, "digest": digest(manifest), "size": len(manifest), "platform": platform}
    index = mutated(
        {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [{**entry, "annotations": {oci.REF_NAME: "test:1"}}]},
        wanted[2],
    )
    return config, manifest, index


def look(here: store.Store) -> None:
    """Whatever is in the store, everything that reads images reads it: an answer, or an error of ours."""
    engine = client.Client(here.root)
    assert here.check() == []
    for image in engine.images.list():
        deeds: list[Callable[[str], object]] = [
            engine.images.history,
            engine.images.warnings,
            lambda name: describe.image(engine.containers, name),
            lambda name: engine.images.explore(name, "etc/release"),
            lambda name: list(engine.images.save([name])),
            lambda name: engine.containers.plan(name, network_mode="none"),
        ]
        for deed in deeds:
            with contextlib.suppress(errors.MiniContainerError):
                deed(image.id)
        for words in (["history"], ["inspect"], ["image", "explore"]):
            typed(here, *words, image.id)
    for words in (
        ["images"],
        ["images", "--tree"],
        ["images", "--format", "json"],
        ["system", "df", "-v"],
        ["search", "e"],
    ):
        typed(here, *words)


def typed(here: store.Store, *words: str) -> None:
    """A command, whose output is nobody's business: what it must not do is to end in a traceback."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setenv("MINICONTAINER_ROOT", here.root)
        with contextlib.redirect_stderr(io.StringIO()):
            cli.main(list(words))


@few_and_many
def test_documents_of_any_content_in_an_oci_archive(many: bool) -> None:
    def check(wanted: list[list[Change]]) -> None:
        config, manifest, index = documents(wanted, LAYERS[:2])
        files: dict[str, bytes | str | None] = {"oci-layout": oci.LAYOUT, "index.json": index}
        files.update({f"blobs/sha256/{digest(blob)[7:]}": blob for blob in [config, manifest, *LAYERS[:2]]})
        with folder() as place:
            here = store.Store(f"{place}/store")
            with contextlib.suppress(errors.MiniContainerError):
                archive.load(here, io.BytesIO(packed(files)))
            look(here)

    fuzz(check, 60, many, three)


@few_and_many
def test_documents_of_any_content_in_a_docker_archive(many: bool) -> None:
    def check(wanted: list[list[Change]], other: Any) -> None:
        files = docker_old(LAYERS[:2], ["test:1"], **FULL)
        for name, content in list(files.items()):
            if name.endswith(".json") and isinstance(content, bytes):
                files[name] = mutated(json.loads(content), wanted[name == "manifest.json"])
        files["repositories"] = json.dumps(other).encode()
        with folder() as place:
            here = store.Store(f"{place}/store")
            with contextlib.suppress(errors.MiniContainerError):
                archive.load(here, io.BytesIO(packed(files)))
            look(here)

    fuzz(check, 60, many, three, json_values)


@few_and_many
def test_documents_of_any_content_in_a_registry(many: bool) -> None:
    tars = LAYERS[:2]

    def check(wanted: list[list[Change]]) -> None:
        config, manifest, index = documents(wanted, tars)
        fake.blobs = {digest(blob): blob for blob in [config, *tars]}
        fake.manifests = {f"demo@{digest(manifest)}": (oci.MANIFEST, manifest), "demo@1": (oci.INDEX, index)}
        with folder() as place:
            here = store.Store(f"{place}/store")
            with contextlib.suppress(errors.MiniContainerError):
                pulling.pull(here, f"{fake.host}/demo:1")
            look(here)

    with Fake() as fake:
        fuzz(check, 40, many, three)


@few_and_many
def test_archives_that_are_damaged_anywhere(many: bool) -> None:
    """Layers plain, gzip and zstd; whatever is loaded has the digests it should."""
    whole = {}
    for name, compress in {"plain": bytes, "gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}.items():
        files = docker_old(LAYERS[:2], ["test:1"])
        for path, content in files.items():
            if path.endswith("layer.tar") and isinstance(content, bytes):
                files[path] = compress(content)
        whole[name] = packed(files)

    def check(name: str, damage: list[tuple[int, int]], missing: int) -> None:
        content = bytearray(whole[name])
        for position, value in damage:
            content[position % len(content)] = value
        with folder() as place:
            here = store.Store(f"{place}/store")
            with contextlib.suppress(errors.MiniContainerError):
                archive.load(here, io.BytesIO(bytes(content[: len(content) - missing])))
            look(here)

    damage = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4)
    fuzz(check, 60, many, st.sampled_from(sorted(whole)), damage, st.sampled_from([0, 0, 0, 1, 512, 10_240]))


@few_and_many
def test_headers_of_any_content(many: bool) -> None:
    """What a registry says beside its documents."""

    class Answer:
        def __init__(self, text: str) -> None:
            self.headers = {"Retry-After": text}

    def check(text: str, content: bytes) -> None:
        for scheme, parameters in registry.challenges(text):
            assert scheme and isinstance(parameters, dict)
        seconds = registry.retry_after(Answer(text))  # type: ignore[arg-type]
        assert seconds is None or seconds >= 0
        assert registry.complaint(content).isprintable()
        assert registry.complaint(json.dumps({"errors": [{"message": text}]}).encode()).isprintable()

    dates = st.builds(
        "{}, {} Nov {} {}:15:05 {}".format, st.text(max_size=4), st.integers(-1, 40), st.integers(0, 10**6),
        st.integers(0, 30), st.sampled_from(["GMT", "+0100", "-9999", ""]),
    )  # fmt: skip
    offers = st.text(alphabet='Bearer =",\\realm', max_size=40)
    fuzz(check, 200, many, st.text() | dates | offers, st.binary() | json_values.map(lambda v: json.dumps(v).encode()))


@pytest.mark.slow
@pytest.mark.needs("atheris")
@pytest.mark.parametrize("what", ["layers", "archives"])
def test_atheris_finds_nothing_either(tmp_path: Path, what: str) -> None:
    """A bounded run: so many inputs or so many seconds, whatever comes first."""
    found = tmp_path / "found"
    found.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.image.fuzzed", what, "8000", "60", str(found)],
        cwd=CHECKOUT, capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done" in done.stderr and len(os.listdir(found)) > 10, done.stderr[-4000:]
