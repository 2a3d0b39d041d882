"""Layers: what tarfile packs, we unpack alike; what a stranger packs to hurt us, we refuse.

Python's tarfile is the oracle. Trees are compared by what lstat(2), readlink(2), read(2) and the attributes say.
"""

import contextlib
import gzip
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from minicontainer import errors, host, oci, syscalls
from minicontainer.image import compression, layers
from minicontainer.image.tar import Entry

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
OPAQUE = "trusted.overlay.opaque" if host.is_root() else "user.overlay.opaque"


def here() -> layers.Owners:
    """The rules of this process; an ordinary user may at least set user.overlay attributes."""
    if os.geteuid() == 0:
        return layers.owners_here()
    return layers.Owners("user")


@pytest.fixture(autouse=True)
def ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user cannot give files away, not even to uid 0: every owner then becomes its own."""
    if os.geteuid() != 0:
        uid, gid = os.geteuid(), os.getegid()
        real = layers._Tree.owner

        def owner(tree: layers._Tree, entry: Entry, path: bytes) -> tuple[int, int, int]:
            real(tree, entry, path)
            return uid, gid, entry.mode & 0o1777

        monkeypatch.setattr(layers._Tree, "owner", owner)
        monkeypatch.setattr(layers._Directory, "uid", property(lambda self: uid, lambda self, value: None))
        monkeypatch.setattr(layers._Directory, "gid", property(lambda self: gid, lambda self, value: None))


def member(
    name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: object
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(data)
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.mtime = 1_000_000_000
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def pack(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT, **options: object) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(
        fileobj=packed, mode="w", format=form, encoding="utf-8", errors="surrogateescape", **options
    ) as tar:  # type: ignore[call-overload]
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def unpack(content: bytes, target: Path, **options: object) -> layers.Unpacked:
    target.mkdir(parents=True, exist_ok=True)
    options.setdefault("owners", here())
    return layers.unpack(io.BytesIO(content).read, str(target), **options)  # type: ignore[arg-type]


def listing(top: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything below `top` that a container could notice."""
    found: dict[bytes, tuple[object, ...]] = {}
    inodes: dict[int, bytes] = {}
    root = os.fsencode(top)
    for base, directories, names in os.walk(root):
        for name in sorted(directories + names):
            path = os.path.join(base, name)
            status = os.lstat(path)
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = Path(os.fsdecode(path)).read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            relative = os.path.relpath(path, root)
            same = inodes.setdefault(status.st_ino, relative) if not stat.S_ISDIR(status.st_mode) else relative
            found[relative] = (
                oct(status.st_mode),
                status.st_uid,
                status.st_gid,
                status.st_rdev,
                content,
                same,
                status.st_mtime_ns,
            )
    return found


# ------------------------------------------------------------ the same as tarfile


def tree() -> list[tuple[tarfile.TarInfo, bytes]]:
    """One of everything that every format can hold."""
    return [
        member("./", tarfile.DIRTYPE),
        member("./etc/", tarfile.DIRTYPE, mode=0o755),
        member("./etc/passwd", data=b"root:x:0:0::/root:/bin/sh\n"),
        member("./etc/shadow", data=b"", mode=0o640),
        member("./etc/link", tarfile.SYMTYPE, linkname="passwd"),
        member("./etc/absolute", tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("./etc/dangling", tarfile.SYMTYPE, linkname="../../../../nowhere"),
        member("./etc/hard", tarfile.LNKTYPE, linkname="./etc/passwd"),
        member("./tmp/", tarfile.DIRTYPE, mode=0o1777),
        member("./pipe", tarfile.FIFOTYPE, mode=0o600),
        member("./big", data=os.urandom(3 << 20), mode=0o400),
        member("./closed/", tarfile.DIRTYPE, mode=0o500),
        member("./closed/file", data=b"x" * 513),
        member("./a/b/c/d/e/", tarfile.DIRTYPE),
        member("./a/b/c/d/e/" + "n" * 90, data=b"deep"),
        member("./umlaut-\u00e4\u20ac", data=b"utf-8"),
    ]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("wrap", ["plain", "gzip", "zstd", "members"])
def test_a_tree_comes_out_as_tarfile_unpacks_it(tmp_path: Path, form: str, wrap: str) -> None:
    packed = pack(*tree(), form=FORMATS[form])
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        setattr(tar, "extraction_filter", lambda info, path: info)  # noqa: B010 - from Python 3.14 on, the default refuses
        tar.extractall(tmp_path / "theirs")
    blob = {
        "plain": lambda: packed,
        "gzip": lambda: gzip.compress(packed, 1),
        "zstd": lambda: zstandard.compress(packed),
        "members": lambda: gzip.compress(packed[:5000]) + gzip.compress(b"") + gzip.compress(packed[5000:]) + bytes(7),
    }[wrap]()
    kept = os.open(tmp_path / "blob", os.O_RDWR | os.O_CREAT)
    seen = unpack(blob, tmp_path / "ours", blob=kept)
    os.close(kept)
    implied = {b"a", b"a/b", b"a/b/c", b"a/b/c/d"}  # tarfile makes them by the umask, and with today's date
    ours, theirs = listing(tmp_path / "ours"), listing(tmp_path / "theirs")
    for path in implied:
        assert ours.pop(path)[0] == "0o40755"
        theirs.pop(path)
    for path, found in theirs.items():
        if found[0] == "0o120777":
            theirs[path] = (*found[:-1], 1_000_000_000 * 10**9)  # tarfile does not set the time of a link; we do
    assert ours == theirs
    assert seen.diff_id == "sha256:" + hashlib.sha256(packed).hexdigest()
    assert seen.digest == "sha256:" + hashlib.sha256(blob).hexdigest()
    assert (tmp_path / "blob").read_bytes() == blob
    assert (seen.blob_size, seen.tar_size, seen.warnings) == (len(blob), len(packed), [])
    assert seen.compression == {"plain": "", "members": "gzip"}.get(wrap, wrap)


names = st.lists(
    st.binary(min_size=1, max_size=60).filter(lambda name: not set(b"/\0") & set(name) and not name.startswith(b".")),
    min_size=1,
    max_size=4,
)
contents = st.one_of(st.binary(max_size=1100), st.just(None))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(names.map(tuple), contents, max_size=8), st.sampled_from(sorted(FORMATS)), st.integers(77, 4000))
def test_any_names_any_contents_any_chunks(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[tuple[bytes, ...], bytes | None], form: str, chunk: int
) -> None:
    made = tmp_path_factory.mktemp("tree")
    for parts, content in wanted.items():
        path = os.fsencode(made / "in") + b"/" + b"/".join(parts)
        with contextlib.suppress(NotADirectoryError, IsADirectoryError, FileExistsError):
            os.makedirs(path if content is None else os.path.dirname(path), exist_ok=True)
            if content is not None:
                with open(path, "wb") as file:
                    file.write(content)
    (made / "in").mkdir(exist_ok=True)
    for base, _, files in os.walk(os.fsencode(made / "in"), topdown=False):
        for name in [*files, b"."]:
            os.utime(os.path.join(base, name), (10**9 + len(name), 10**9 + len(name)))
    packed = io.BytesIO()
    try:
        with tarfile.open(
            fileobj=packed, mode="w", format=FORMATS[form], encoding="utf-8", errors="surrogateescape"
        ) as tar:
            tar.add(made / "in", arcname=".")
    except ValueError:
        return  # ustar has no room for every name
    source = io.BytesIO(packed.getvalue())
    (made / "out").mkdir()
    layers.unpack(lambda size: source.read(min(size, chunk)), str(made / "out"), owners=here())
    assert listing(made / "out") == listing(made / "in")


@given(st.lists(st.sampled_from([b"/", b".", b"..", b"a", b".wh.a"]), max_size=8).map(b"".join))
@example(b".//etc")  # was "/etc", which openat(2) takes for the host's
def test_a_name_is_a_path_below_the_root_or_refused(name: bytes) -> None:
    with contextlib.suppress(errors.InvalidImage):
        path = layers.clean(name)
        assert not path or not {b"", b".", b".."} & set(path.split(b"/"))


def test_nanoseconds_and_times_before_1970(tmp_path: Path) -> None:
    def at(text: str) -> dict[str, object]:
        return {"pax_headers": {"mtime": text}}

    unpack(
        pack(
            member("a", **at("1234567890.123456789")),
            member("b", **at("-1.5")),
            member("c", **at("12.1234567899")),
            member("d/", tarfile.DIRTYPE, **at("7.000000001")),
            member("l", tarfile.SYMTYPE, linkname="a", **at("8.5")),
        ),
        tmp_path,
    )
    found = {name: os.lstat(tmp_path / name).st_mtime_ns for name in "abcdl"}
    assert found == {
        "a": 1234567890_123456789,
        "b": -1_500_000_000,
        "c": 12_123456789,
        "d": 7_000000001,
        "l": 8_500_000_000,
    }


@pytest.mark.root
def test_numbers_too_large_for_octal(tmp_path: Path) -> None:
    for form in FORMATS.values():
        if form == tarfile.USTAR_FORMAT:
            continue
        target = tmp_path / str(form)
        unpack(pack(member("a", uid=3_000_000_000, gid=0x7FFFFFFF, mtime=1 << 33), form=form), target)
        status = (target / "a").stat()
        assert (status.st_uid, status.st_gid, status.st_mtime) == (3_000_000_000, 0x7FFFFFFF, 1 << 33)


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    for form in FORMATS.values():
        target = tmp_path / str(form)
        unpack(pack(member("caf\udce9", data=b"x"), form=form), target)
        assert os.listdir(os.fsencode(target)) == [b"caf\xe9"]


def test_global_headers_hold_until_taken_back(tmp_path: Path) -> None:
    both = pack(member("a"), member("b", pax_headers={"mtime": "9"}), pax_headers={"mtime": "5", "comment": "x"})
    unpack(both, tmp_path)
    assert [os.stat(tmp_path / name).st_mtime for name in "ab"] == [5, 9]


# A sparse file of 3 MiB with two islands, in each of the four ways that tar has had.

ISLANDS = [(4096, b"x" * 1000), (2 << 20, b"y" * 600)]
SPARSE = b"".join([bytes(4096), b"x" * 1000, bytes((2 << 20) - 5096), b"y" * 600, bytes((1 << 20) - 600)])


def raw_header(name: bytes, kind: bytes, size: int, magic: bytes = b"ustar  \0") -> bytearray:
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136], block[136:148] = b"%011o\0" % size, b"%011o\0" % 1
    block[156:157], block[257 : 257 + len(magic)] = kind, magic
    return block


def summed(block: bytearray) -> bytes:
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def records(*pairs: tuple[bytes, bytes]) -> bytes:
    packed = b""
    for key, value in pairs:
        body = b" " + key + b"=" + value + b"\n"
        length = len(body) + 1
        while len(b"%d" % length) + len(body) != length:
            length += 1
        packed += b"%d" % length + body
    return summed(raw_header(b"pax", b"x", len(packed), b"ustar\0" + b"00")) + padded(packed)


def sparse(form: str) -> bytes:
    data = b"".join(content for _, content in ISLANDS)
    numbers = [number for offset, content in ISLANDS for number in (offset, len(content))]
    if form == "old":
        header = raw_header(b"s", b"S", len(data))
        # Four pairs in the header, the fifth in an extension; pairs of no size mark the end of the file.
        pairs = [(ISLANDS[0][0] + 250 * part, 250) for part in range(4)] + [(2 << 20, 600), (len(SPARSE), 0)]
        text = [b"%011o\0%011o\0" % pair for pair in pairs]
        header[386:482] = b"".join(text[:4])
        header[482] = 1
        header[483:495] = b"%011o\0" % len(SPARSE)
        extension = (text[4] + text[5]).ljust(512, b"\0")
        return summed(header) + extension + padded(data) + bytes(1024)
    size = (b"GNU.sparse.size", b"%d" % len(SPARSE))
    if form == "0.0":
        repeated = [
            (key, b"%d" % n)
            for pair in zip(*[iter(numbers)] * 2, strict=True)
            for key, n in zip((b"GNU.sparse.offset", b"GNU.sparse.numbytes"), pair, strict=True)
        ]
        head = records(size, (b"GNU.sparse.numblocks", b"2"), *repeated)
    elif form == "0.1":
        text01 = b",".join(b"%d" % number for number in numbers)
        head = records(size, (b"GNU.sparse.name", b"s"), (b"GNU.sparse.map", text01))
    else:
        real = (b"GNU.sparse.realsize", b"%d" % len(SPARSE))
        head = records((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"s"), real)
        data = padded(b"2\n" + b"".join(b"%d\n" % number for number in numbers)) + data
    name = b"s" if form == "0.0" else b"GNUSparseFile.0/s"
    return head + summed(raw_header(name, b"0", len(data), b"ustar\0" + b"00")) + padded(data) + bytes(1024)


@pytest.mark.parametrize("form", ["old", "0.0", "0.1", "1.0"])
def test_sparse_files_keep_their_holes(tmp_path: Path, form: str) -> None:
    packed = sparse(form)[:-1024] + pack(member("after", data=b"next"))
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:  # the oracle reads what we wrote by hand
        file = tar.extractfile("s")
        assert file is not None and file.read() == SPARSE
    unpack(packed, tmp_path)
    assert (tmp_path / "s").read_bytes() == SPARSE
    assert (tmp_path / "s").stat().st_blocks * 512 < 100_000
    assert (tmp_path / "after").read_bytes() == b"next"


@pytest.mark.parametrize("damage", ["overlap", "outside", "sum"])
def test_a_sparse_map_that_lies_is_refused(tmp_path: Path, damage: str) -> None:
    numbers = {"overlap": b"0,8,4,8", "outside": b"0,8,3000,8", "sum": b"0,8,16,9"}[damage]
    head = records((b"GNU.sparse.size", b"3000"), (b"GNU.sparse.name", b"s"), (b"GNU.sparse.map", numbers))
    packed = head + summed(raw_header(b"s", b"0", 16)) + padded(b"x" * 16) + bytes(1024)
    with pytest.raises(errors.InvalidImage):
        unpack(packed, tmp_path)


def test_attributes_are_kept_but_not_orders_to_overlayfs(tmp_path: Path) -> None:
    xattrs = {
        "SCHILY.xattr.user.plain": "value",
        "SCHILY.xattr.user.empty": "",
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.user.overlay.metacopy": "",
    }
    seen = unpack(pack(member("f", pax_headers=xattrs), member("d/", tarfile.DIRTYPE, pax_headers=xattrs)), tmp_path)
    for name in "fd":
        assert os.listxattr(tmp_path / name) == ["user.plain", "user.empty"]
        assert os.getxattr(tmp_path / name, "user.plain") == b"value"
    assert len(seen.warnings) == 2 and "left out" in seen.warnings[0]


@pytest.mark.root
def test_what_only_root_can_keep(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    text = capability.decode("latin-1")
    seen = unpack(
        pack(
            member("ping", mode=0o4755, uid=5, pax_headers={"SCHILY.xattr.security.capability": text}),
            member("mail/", tarfile.DIRTYPE, mode=0o2775, gid=8),
            member("mail/box", mode=0o660, uid=1000, gid=8),
            member("null", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3),
            member("disk", tarfile.BLKTYPE, mode=0o660, devmajor=259, devminor=300, gid=6),
            member("link", tarfile.SYMTYPE, linkname="x", uid=7, gid=9),
            member("hard", tarfile.LNKTYPE, linkname="ping"),
        ),
        tmp_path,
    )
    assert os.getxattr(tmp_path / "ping", "security.capability") == capability
    found = {
        path.name: (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_rdev)
        for path in sorted(tmp_path.rglob("*"))
        for status in [path.lstat()]
    }
    assert found == {
        "ping": (0o4755, 5, 0, 0),
        "hard": (0o4755, 5, 0, 0),
        "mail": (0o2775, 0, 8, 0),
        "box": (0o660, 1000, 8, 0),
        "null": (0o666, 0, 0, os.makedev(1, 3)),
        "disk": (0o660, 0, 6, os.makedev(259, 300)),
        "link": (0o777, 7, 9, 0),
    }
    assert seen.warnings == []


@pytest.mark.root
def test_owners_hold_below_a_set_group_directory(tmp_path: Path) -> None:
    os.chown(tmp_path, 0, 50)
    os.chmod(tmp_path, 0o2775)
    unpack(pack(member("./", D), member("f"), member("d/", D), member("d/f"), member("e/f")), tmp_path / "target")
    for path in (tmp_path / "target", *(tmp_path / "target").rglob("*")):
        assert (path.stat().st_gid, path.stat().st_mode & 0o7000) == (0, 0)


def test_modes_hold_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        unpack(pack(member("f", mode=0o666), member("d/", tarfile.DIRTYPE, mode=0o777)), tmp_path)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in "fd"] == [0o666, 0o777]


def test_a_missing_parent_is_as_in_the_layer_below(tmp_path: Path) -> None:
    unpack(
        pack(member("tmp/", tarfile.DIRTYPE, mode=0o1777), member("tmp/private/", tarfile.DIRTYPE, mode=0o700)),
        tmp_path / "low",
    )
    unpack(pack(member("tmp/private/f"), member("new/f")), tmp_path / "high", lower=[str(tmp_path / "low")])
    modes = {name: stat.S_IMODE(os.stat(tmp_path / "high" / name).st_mode) for name in ("tmp", "tmp/private", "new")}
    assert modes == {"tmp": 0o1777, "tmp/private": 0o700, "new": 0o755}


def test_a_later_entry_replaces_an_earlier_one(tmp_path: Path) -> None:
    unpack(
        pack(
            member("x", data=b"one"),
            member("x", data=b"two"),
            member("d/", tarfile.DIRTYPE),
            member("d/below/f", data=b"gone"),
            member("d", tarfile.SYMTYPE, linkname="x"),
            member("y", tarfile.SYMTYPE, linkname="x"),
            member("y", data=b"file"),
            member("z", data=b"file"),
            member("z/", tarfile.DIRTYPE, mode=0o711),
            member("z/f"),
            member("e/", tarfile.DIRTYPE, mode=0o700),
            member("e/f"),
            member("e/", tarfile.DIRTYPE, mode=0o711),
        ),
        tmp_path,
    )
    assert (tmp_path / "x").read_bytes() == b"two"
    assert os.readlink(tmp_path / "d") == "x"
    assert (tmp_path / "y").read_bytes() == b"file" and not (tmp_path / "y").is_symlink()
    assert (tmp_path / "z/f").exists() and (tmp_path / "e/f").exists()
    assert stat.S_IMODE((tmp_path / "e").stat().st_mode) == 0o711


# ------------------------------------------------------------ whiteouts


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def opaque(path: Path) -> bool:
    return OPAQUE in os.listxattr(path)


@pytest.mark.root
@pytest.mark.parametrize("order", [1, -1])
def test_whiteouts_whatever_the_order(tmp_path: Path, order: int) -> None:
    members = [
        member("gone/", tarfile.DIRTYPE),
        member("gone/.wh.file"),
        member(".wh.top"),
        member("opaque/", tarfile.DIRTYPE),
        member("opaque/new", data=b"stays"),
        member("opaque/.wh..wh..opq"),
        member("both/sub/f", data=b"stays"),
        member("both/.wh.sub"),
        member("both/.wh.f"),
        member("both/f", data=b"new"),
        member("both/.wh.made"),
        member("both/made/", tarfile.DIRTYPE),
        member(".wh..wh.plnk/1.2"),
        member(".wh..wh.aufs"),
    ]
    unpack(pack(*members[::order]), tmp_path)
    assert is_whiteout(tmp_path / "gone/file") and is_whiteout(tmp_path / "top")
    assert (tmp_path / "opaque/new").read_bytes() == b"stays" and opaque(tmp_path / "opaque")
    assert (tmp_path / "both/sub/f").read_bytes() == b"stays" and opaque(tmp_path / "both/sub")
    assert (tmp_path / "both/f").read_bytes() == b"new" and opaque(tmp_path / "both/made")
    assert not opaque(tmp_path / "gone") and not opaque(tmp_path / "both")
    assert sorted(os.listdir(tmp_path)) == ["both", "gone", "opaque", "top"]


BELOW = [
    member("a/b/c", data=b"low"), member("a/x", data=b"low"), member("f", data=b"low"), member("z", data=b"low"),
]  # fmt: skip
D, L, R, S = tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.REGTYPE, tarfile.SYMTYPE
ODD = {  # on top of that: a layer, and what is seen then
    "a file between two directories": ([("a/", D), ("a", R), ("a/", D)], "a f z"),
    "a link between two directories": ([("a/", D), ("a", S), ("a/", D), ("a/new", R)], "a a/new f z"),
    "a directory after a file": ([("a", R), ("a/", D)], "a f z"),
    "a directory after a file, deeper": ([("a/b", R), ("a/b/", D)], "a a/b a/x f z"),
    "a whiteout in a directory that becomes a file": ([("a/.wh.x", R), ("a", R)], "a f z"),
    "… and a directory again": ([("a/.wh.x", R), ("a", R), ("a/", D)], "a f z"),
    "opaque, then a file, then a directory": ([("a/.wh..wh..opq", R), ("a", R), ("a/", D)], "a f z"),
    "a whiteout of what is there again": ([(".wh.a", R), ("a/y", R)], "a a/y f z"),
    "a whiteout of what is there already": ([("a/y", R), (".wh.a", R)], "a a/y f z"),
    "whiteouts of a directory and in it": ([(".wh.a", R), ("a/.wh.x", R)], "f z"),
    "whiteouts in a directory and of it": ([("a/b/.wh.c", R), ("a/.wh.b", R)], "a a/x f z"),
    "whiteouts in a directory that nobody has": ([("d/e/.wh.x", R)], "a a/b a/b/c a/x f z"),
    "whiteouts in a new directory": ([("d/", D), ("d/.wh.x", R)], "a a/b a/b/c a/x d f z"),
    "whiteouts in an opaque directory": ([("a/.wh..wh..opq", R), ("a/.wh.x", R), ("a/n", R)], "a a/n f z"),
    "opaque, after its children": ([("a/b/n", R), ("a/.wh..wh..opq", R)], "a a/b a/b/n f z"),
    "an opaque directory that nobody has": ([("d/.wh..wh..opq", R)], "a a/b a/b/c a/x f z"),
    "an opaque root": ([("a/", D), (".wh..wh..opq", R), ("n", R), (".wh.f", R), ("a/.wh.x", R)], "a n"),
    "a hard link to what replaced a whiteout": ([("a/.wh.x", R), ("a/x", R), ("h", L, "a/x")], "a a/b a/b/c a/x f h z"),
    "a hard link to a file that goes": ([("n", R), ("f", L, "n"), ("n/", D)], "a a/b a/b/c a/x f n z"),
}  # fmt: skip


def odd(entries: list[tuple[str, ...]]) -> bytes:
    return pack(*(member(name, kind, linkname=(*to, "nowhere")[0]) for name, kind, *to in entries))  # type: ignore[misc]


@pytest.mark.root
@pytest.mark.needs("overlay")
@pytest.mark.parametrize("name", ODD)
def test_odd_layers_show_what_the_specification_says(tmp_path: Path, name: str) -> None:
    """What a layer replaces of its own, and whiteouts around it: as the entries mean it one after another."""
    entries, seen = ODD[name]
    low, high, point = tmp_path / "low", tmp_path / "high", tmp_path / "point"
    unpack(pack(*BELOW), low)
    unpack(odd(entries), high, lower=[str(low)])
    point.mkdir()
    syscalls.mount("none", str(point), "overlay", syscalls.MS_RDONLY, f"lowerdir={high}:{low}")
    try:
        there = {str(path.relative_to(point)): path.lstat().st_mtime for path in point.rglob("*")}
    finally:
        syscalls.umount(str(point))
    assert " ".join(sorted(there)) == seen
    explicit = {name.strip("/") for name, *_ in entries} & there.keys()
    assert {name: there[name] for name in explicit} == dict.fromkeys(explicit, 1_000_000_000)


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.needs("umoci")
@pytest.mark.parametrize("name", ODD)
def test_umoci_shows_the_same_of_odd_layers(tmp_path: Path, name: str) -> None:
    entries, seen = ODD[name]
    packed = [pack(*BELOW), odd(entries)]
    diff_ids = [oci.digest(layer) for layer in packed]
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    config = json.dumps(document).encode()
    types = [oci.CONFIG, oci.LAYER, oci.LAYER]
    described = [
        {"mediaType": media, "digest": oci.digest(content), "size": len(content)}
        for media, content in zip(types, [config, *packed], strict=True)
    ]
    document = {"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": described[0], "layers": described[1:]}
    manifest = json.dumps(document).encode()
    layout = tmp_path / "layout"
    (layout / "blobs/sha256").mkdir(parents=True)
    for content in (config, *packed, manifest):
        (layout / "blobs/sha256" / oci.digest(content)[7:]).write_bytes(content)
    named = {"mediaType": oci.MANIFEST, "digest": oci.digest(manifest), "size": len(manifest),
             "annotations": {"org.opencontainers.image.ref.name": "odd"}}  # fmt: skip
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    command = ["umoci", "unpack", "--image", f"{layout}:odd", tmp_path / "bundle"]
    subprocess.run(command, check=True, capture_output=True)
    root = tmp_path / "bundle/rootfs"
    assert " ".join(sorted(str(path.relative_to(root)) for path in root.rglob("*"))) == seen


# ------------------------------------------------------------ strangers


def chain(*names_and_kinds: tuple[str, bytes, str]) -> bytes:
    return pack(*(member(name, kind, linkname=link) for name, kind, link in names_and_kinds))


def broken(change: Callable[[bytearray], None]) -> bytes:
    content = bytearray(pack(member("f", data=b"x" * 2000), form=tarfile.USTAR_FORMAT))
    change(content)
    return bytes(content)


def huge_number() -> bytes:
    header = raw_header(b"f", b"0", 0)
    header[124:136] = b"\x80" + b"\x7f" * 11
    return summed(header) + bytes(1024)


def negative_size() -> bytes:
    header = raw_header(b"f", b"0", 0)
    header[124:136] = b"\xff" * 12
    return summed(header) + bytes(1024)


HOSTILE = {
    "dot-dot": chain(("../outside/made", R, "")),
    "dot-dot in the middle": chain(("a/../../outside/made", R, "")),
    "dot-dot at the end": chain(("a/..", R, "")),
    "dot-dot with a slash first": chain(("/../outside/made", R, "")),
    "dot-dot directory": chain(("..", D, "")),
    "through an absolute link": chain(("l", S, "OUTSIDE"), ("l/made", R, "")),
    "through a relative link": chain(("l", S, "../outside"), ("l/made", R, "")),
    "through a link to the root": chain(("l", S, "."), ("l/made", R, "")),
    "through a deep link": chain(("a/b", S, "../../outside"), ("a/b/c/made", R, "")),
    "through a link to a link": chain(("k", S, ".."), ("l", S, "k/outside"), ("l/made", R, "")),
    "directory through a link": chain(("l", S, "OUTSIDE"), ("l/made/", D, "")),
    "link through a link": chain(("l", S, "OUTSIDE"), ("l/made", S, "x")),
    "whiteout through a link": chain(("l", S, "OUTSIDE"), ("l/.wh.secret", R, "")),
    "opaque through a link": chain(("l", S, "OUTSIDE"), ("l/.wh..wh..opq", R, "")),
    "through a file": chain(("f", R, ""), ("f/made", R, "")),
    "through a pipe": chain(("f", tarfile.FIFOTYPE, ""), ("f/made", R, "")),
    "hard link to outside": chain(("h", L, "../outside/secret")),
    "hard link by absolute path": chain(("h", L, "OUTSIDE/secret")),
    "hard link through a link": chain(("l", S, "OUTSIDE"), ("h", L, "l/secret")),
    "hard link through a relative link": chain(("l", S, "../outside"), ("h", L, "l/secret")),
    "hard link to nothing": chain(("h", L, "missing")),
    "hard link to itself": chain(("h", L, "h")),
    "hard link to a directory": chain(("d/", D, ""), ("h", L, "d")),
    "hard link to the root": chain(("h", L, ".")),
    "the root as a file": chain((".", R, "")),
    "the root as a link": chain(("/", S, "/outside")),
    "hard link to a whiteout": chain((".wh.w", R, ""), ("h", L, "w")),
    "whiteout of dot-dot": chain((".wh...", R, "")),
    "whiteout of dot": chain((".wh..", R, "")),
    "whiteout of nothing": chain((".wh.", R, "")),
    "whiteout of the parent": chain(("a/.wh...", R, "")),
    "overlay's own mark": pack(member("w", tarfile.CHRTYPE)),
    "a name too long": pack(member("n" * 300)),
    "a path too long": pack(member("/".join(["n" * 200] * 21))),
    "a path too deep": pack(member("/".join("n" * 300))),
    "a symbolic link to nothing": chain(("l", S, "")),
    "a type that no layer has": pack(member("m", b"M")),
    "a NUL in a name": records((b"path", b"a\0b")) + pack(member("f")),
    "a NUL in a link": records((b"linkpath", b"a\0b")) + pack(member("f", S, linkname="x")),
    "a NUL in an attribute's name": records((b"SCHILY.xattr.user.a\0b", b"x")) + pack(member("f")),
    "an owner out of range": records((b"uid", b"4294967295")) + pack(member("f")),
    "a time out of range": records((b"mtime", b"9999999999999999")) + pack(member("f")),
    "a time that is none": records((b"mtime", b"1e5")) + pack(member("f")),
    "a size that is none": records((b"size", b"-5")) + pack(member("f")),
    "a size beyond the end": records((b"size", b"5000000")) + pack(member("f", data=b"x" * 600)),
    "a size of 2^70": huge_number(),
    "a negative size": negative_size(),
    "a pax record too short": summed(raw_header(b"p", b"x", 8)) + padded(b"3 a=bcd\n") + pack(member("f")),
    "a pax record too long": summed(raw_header(b"p", b"x", 8)) + padded(b"99 a=bc\n") + pack(member("f")),
    "a pax header of 2 GiB": summed(raw_header(b"p", b"x", 2 << 30)),
    "a long name of 2 GiB": summed(raw_header(b"p", b"L", 2 << 30)),
    "a header and then nothing": records((b"path", b"x")),
    "half a header": pack(member("f"))[:300],
    "half a file": pack(member("f", data=b"x" * 5000))[:2000],
    "a wrong checksum": broken(lambda content: content.__setitem__(0, 65)),
    "letters for digits": broken(lambda content: content.__setitem__(slice(124, 128), b"zzzz")),
    "no tar at all": b"<html>404 Not Found</html>" * 100,
    "gzip cut short": gzip.compress(pack(member("f", data=os.urandom(5000))))[:3000],
    "gzip damaged": gzip.compress(pack(member("f", data=b"x" * 5000)))[:-8] + bytes(8),
    "gzip with rubbish behind": gzip.compress(pack(member("f"))) + b"rubbish",
    "zstd damaged": zstandard.compress(pack(member("f", data=os.urandom(5000))))[:3000] + b"x" * 50,
    "zstd cut short": zstandard.compress(pack(member("f", data=os.urandom(5000))))[:3000],
    "bzip2": b"BZh91AY&SY" + bytes(600),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("position", ["alone", "last"])
def test_a_hostile_archive_is_refused_and_nothing_outside_is_touched(tmp_path: Path, name: str, position: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    before = listing(tmp_path)
    content = HOSTILE[name]
    if b"OUTSIDE" in content:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            members = [(info, b"") for info in tar.getmembers()]
        for info, _ in members:
            info.linkname = info.linkname.replace("OUTSIDE", str(outside))
        content = pack(*members)
    if position == "last" and content[:2] not in (b"\x1f\x8b", b"\x28\xb5", b"BZ"):
        content = pack(member("ok", data=b"fine"))[:1024] + content
    with pytest.raises(errors.InvalidImage) as caught:
        unpack(content, tmp_path / "target")
    assert 20 < len(str(caught.value)) < 400
    after = listing(tmp_path)
    assert {path: found for path, found in after.items() if not path.startswith(b"target")} == before
    assert (outside / "secret").stat().st_nlink == 1


@pytest.mark.parametrize("kind", [S, tarfile.FIFOTYPE, L])
def test_a_file_is_never_written_through_what_was_there(tmp_path: Path, kind: bytes) -> None:
    """A file after a link, a pipe or a device of its name takes its place; none of them is opened."""
    (tmp_path / "outside").write_text("secret")
    first = [member("a", data=b"first"), member("x", kind, linkname="a" if kind == L else str(tmp_path / "outside"))]
    unpack(pack(*first, member("x", data=b"new")), tmp_path / "target")
    assert (tmp_path / "outside").read_text() == "secret"
    assert (tmp_path / "target/a").read_bytes() == b"first"
    assert (tmp_path / "target/x").read_bytes() == b"new"


def test_an_absolute_name_is_below_the_image_s_root(tmp_path: Path) -> None:
    unpack(pack(member("/etc/made", data=b"x"), member("/h", L, linkname="/etc/made")), tmp_path)
    assert (tmp_path / "etc/made").read_bytes() == (tmp_path / "h").read_bytes() == b"x"


def bomb(compressor: str) -> Iterator[bytes]:
    """A gibibyte of zeros as a file, made small without ever being large."""
    head = summed(raw_header(b"zeros", b"0", 1 << 30))
    piece = bytes(1 << 20)
    if compressor == "gzip":
        gz = zlib.compressobj(1, zlib.DEFLATED, 31)
        yield gz.compress(head)
        for _ in range(1 << 10):
            yield gz.compress(piece)
        yield gz.flush()
    else:
        zst = zstandard.ZstdCompressor(level=3).compressobj()
        yield zst.compress(head)
        for _ in range(1 << 10):
            yield zst.compress(piece)
        yield zst.flush()


@pytest.mark.parametrize("compressor", ["gzip", "zstd"])
def test_a_bomb_is_refused_before_it_unfolds(tmp_path: Path, compressor: str) -> None:
    with pytest.raises(errors.InvalidImage, match="MINICONTAINER_LAYER_LIMIT"):
        unpack(b"".join(bomb(compressor)), tmp_path, limits=compression.Limits(grace=8 << 20))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 256 << 20


def test_the_limits_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = gzip.compress(pack(member("zeros", data=bytes(4 << 20))))
    tight = compression.Limits(grace=1 << 20)
    with pytest.raises(errors.InvalidImage):
        unpack(packed, tmp_path / "refused", limits=tight)
    monkeypatch.setenv("MINICONTAINER_LAYER_LIMIT", str(5 << 20))
    unpack(packed, tmp_path / "fine")
    monkeypatch.setenv("MINICONTAINER_LAYER_LIMIT", str(3 << 20))
    with pytest.raises(errors.InvalidImage, match="3145728 bytes"):
        unpack(packed, tmp_path / "small")
    monkeypatch.setenv("MINICONTAINER_LAYER_LIMIT", "lots")
    with pytest.raises(errors.InvalidArgument):
        compression.default_limits()
    with pytest.raises(errors.InvalidImage, match="entries"):
        unpack(pack(*[member(str(n)) for n in range(9)]), tmp_path / "many", limits=compression.Limits(count=8))


def test_names_cannot_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "LONGEST_NAMES", 1000)
    with pytest.raises(errors.InvalidImage, match="add up"):
        unpack(pack(member("/".join("n" * 100))), tmp_path)


def test_a_reader_that_fails_fails_the_unpacking(tmp_path: Path) -> None:
    def read(size: int) -> bytes:
        raise OSError(5, "the disk is broken")

    with pytest.raises(errors.KernelError, match="Input/output error"):
        layers.unpack(read, str(tmp_path), owners=here())


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), min_size=1, max_size=6), st.integers(0, 4096))
def test_no_damage_gets_past_the_errors(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int]], end: int
) -> None:
    """Whatever bytes are changed or missing, the outcome is a layer or InvalidImage: never another exception."""
    content = bytearray(pack(*tree()[:9], form=tarfile.GNU_FORMAT)[:4096])
    for position, value in damage:
        content[position] = value
    # A header's checksum is made right again, or nothing behind it would ever be tried.
    for start in range(0, 4096, 512):
        content[start : start + 512] = summed(content[start : start + 512])
    with contextlib.suppress(errors.InvalidImage):
        unpack(bytes(content[:end]), tmp_path_factory.mktemp("damaged"))
