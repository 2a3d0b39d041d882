"""Layers: a tar stream in, a directory that overlayfs can stack out, and the digests of what went by.

Offers: `entries`, a tar reader (POSIX ustar and pax, GNU long names and sparse files, v7); `unpack`, which writes a
layer into an empty directory, translates whiteouts, and hashes blob and content in the same single pass; `Limits`;
`Owners`.

An archive comes from a stranger. What holds, whatever it says:
- nothing is made, changed or read outside the target: no `..`, no path through a symbolic link, no hard link out of it;
- no name is opened that was there before: every file is made with O_EXCL, so a device or FIFO is never written to;
- no more memory, output or inodes than the limits allow, however small the archive.
What breaks a rule raises InvalidImage; the caller owes us that the target is private (mode 0700 above it) and that it
throws the target away after an error.

Two threads share the work: one reads, stores the blob, hashes and decompresses (all of which let go of the
interpreter's lock), the other makes files. On two processors a layer costs as long as its files, and its digest is
free.

Sources: tar(5), POSIX pax; GNU tar manual, "Sparse Formats"; OCI image specification, layer.md (whiteouts);
Linux Documentation/filesystems/overlayfs.rst (whiteouts and opaque directories).
"""

import errno
import hashlib
import os
import queue
import stat
import threading
import zlib
from collections.abc import Callable, Iterator

from .. import errors, files, host

CHUNK = 1 << 20  # bytes read at once: enough to make a system call's price vanish, small enough to stay in the cache
IN_FLIGHT = 16  # chunks between the two threads
BLOCK = 512  # tar's unit

LONGEST_PATH = 4095  # PATH_MAX, less its NUL
DEEPEST_PATH = 256  # directories; each may be an open descriptor, or a stack frame, to whoever removes the tree
LONGEST_NAMES = 256 << 20  # bytes of all directories' and whiteouts' paths in a layer: they are kept in memory
LARGEST_HEADER = 1 << 20  # bytes of a pax header, a GNU long name or a sparse map
MOST_REPLACED = 1000  # directories that a later entry of the same layer turns into something else

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
AUFS = b".wh..wh."  # what else begins so is housekeeping of the aufs driver, no part of the image

RAISE = "if you trust it, set MINICONTAINER_LAYER_LIMIT to the number of bytes that a layer may have"

Read = Callable[[int], bytes]  # at most so many bytes; empty at the end


class Limits:
    """How much one layer may become. Raise them where you trust the archive: MINICONTAINER_LAYER_LIMIT=BYTES does.

    `size` is in bytes of tar; `ratio` is output per input, and counts once the output passed `grace` bytes (a small
    file of zeros compresses a thousandfold and harms nobody); `count` is in entries.
    """

    __slots__ = ("count", "grace", "ratio", "size")

    def __init__(self, size: int = 64 << 30, ratio: int = 200, grace: int = 256 << 20, count: int = 4_000_000) -> None:
        self.size = size
        self.ratio = ratio
        self.grace = grace
        self.count = count

    def check(self, size: int, blob_size: int) -> None:
        """Raise InvalidImage if `size` bytes from `blob_size` bytes are too many."""
        if size > self.size:
            raise errors.InvalidImage(f"the data unpacks to more than {self.size} bytes; {RAISE}")
        if size > self.grace and size > self.ratio * blob_size:
            raise errors.InvalidImage(
                f"the data unpacks to more than {self.ratio} times its size, as a decompression bomb does; {RAISE}"
            )


def default_limits() -> Limits:
    """The limits, or those that $MINICONTAINER_LAYER_LIMIT allows: so many bytes, at whatever ratio."""
    named = os.environ.get("MINICONTAINER_LAYER_LIMIT")
    if not named:
        return Limits()
    if not (named.isascii() and named.isdecimal()):
        raise errors.InvalidArgument(f"MINICONTAINER_LAYER_LIMIT={named!r} is not a number of bytes")
    return Limits(size=int(named), ratio=1 << 62, count=1 << 62)


class Owners:
    """Which owners can be kept, and how overlayfs spells an opaque directory here.

    Root of the machine keeps all. In a user namespace, ids that are not mapped become 0 (the set-id bit goes, for it
    would now mean another user), devices cannot be made, and the attribute is `user.overlay.opaque` (mount option
    userxattr). `uids` and `gids`: ranges of ids that exist here; None means all.
    """

    __slots__ = ("devices", "gids", "opaque", "uids")

    def __init__(self, flavour: str, uids: list[range] | None = None, gids: list[range] | None = None) -> None:
        self.opaque = f"{flavour}.overlay.opaque"
        self.uids = uids
        self.gids = gids
        self.devices = uids is None


def owners_here() -> Owners:
    """The rules for this process, read from its id map (user_namespaces(7))."""
    if not host.in_user_namespace():
        return Owners("trusted")
    return Owners("user", _mapped("/proc/self/uid_map"), _mapped("/proc/self/gid_map"))


def _mapped(path: str) -> list[range]:
    ranges = []
    with open(path) as file:
        for line in file:
            inside, _, count = map(int, line.split())
            ranges.append(range(inside, inside + count))
    return ranges


class Unpacked:
    """What `unpack` saw: digest and size of the blob as it came, the diffID and size of the tar inside, its compression
    ("", "gzip" or "zstd"), the bytes of the files, how many entries, and warnings: what could not be kept, in words."""

    __slots__ = ("blob_size", "compression", "count", "diff_id", "digest", "file_bytes", "tar_size", "warnings")

    def __init__(self) -> None:
        self.digest = ""
        self.blob_size = 0
        self.diff_id = ""
        self.tar_size = 0
        self.compression = ""
        self.file_bytes = 0
        self.count = 0
        self.warnings: list[str] = []


def unpack(
    read: Read, target: str, *, blob: int = -1, limits: Limits | None = None, owners: Owners | None = None,
    lower: list[str] | None = None,
) -> Unpacked:  # fmt: skip
    """Unpack the layer that `read` yields into the empty directory `target`. Durable only after a later syncfs(2).

    `blob` is a descriptor that gets the bytes as they come, and is fsynced (-1: none). `lower` are the directories of
    the layers below, top first: a parent directory that the layer does not mention takes its mode and owner from
    there. The caller compares the digests returned with those it expects before it keeps anything. Raises
    InvalidImage, or KernelError where the host fails (disk full).
    """
    supply = _Supply(read, blob, limits or default_limits())
    tree = _Tree(target, owners or owners_here(), lower or [])
    try:
        supply.start()
        for entry in entries(Stream(supply.chunks())):
            supply.result.count += 1
            if supply.result.count > supply.limits.count:
                raise errors.InvalidImage(f"the layer has more than {supply.limits.count} entries; {RAISE}")
            tree.place(entry)
        tree.finish()
        for _ in supply.chunks():  # whatever follows the end of the archive belongs to the digests
            pass
    finally:
        supply.stop()
        tree.close()
    supply.result.file_bytes = tree.file_bytes
    supply.result.warnings = tree.told()
    return supply.result


# The supply: read, keep, hash, decompress ---------------------------------------------------------------------------


class _Supply:
    """The first thread. A semaphore bounds how far it runs ahead of the second; an error travels through the queue."""

    def __init__(self, read: Read, blob: int, limits: Limits) -> None:
        self.read = read
        self.blob = blob
        self.limits = limits
        self.result = Unpacked()
        self.queue: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()
        self.room = threading.Semaphore(IN_FLIGHT)
        self.stopped = False
        self.thread = threading.Thread(target=self._run, name="layer-supply", daemon=True)
        self.ended = False

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        """Let the thread end, wherever it is."""
        self.stopped = True
        if self.thread.ident is not None:
            self.room.release()
            self.thread.join()

    def chunks(self) -> Iterator[bytes]:
        """The tar, in pieces. May be called again, and then goes on where it was."""
        while not self.ended:
            piece = self.queue.get()
            self.room.release()
            if isinstance(piece, BaseException):
                self.ended = True
                raise piece
            if not piece:
                self.ended = True
                return
            yield piece

    def _run(self) -> None:
        try:
            self._work()
            self.queue.put(b"")
        except _Stopped:
            pass
        except (zlib.error, OverflowError) as error:
            self.queue.put(errors.InvalidImage(f"the layer's compressed data is damaged: {error}"))
        except OSError as error:
            self.queue.put(kernel_error(error, "read and store", b"layer"))
        except BaseException as error:  # of whatever kind: the other thread raises it
            self.queue.put(error)

    def _work(self) -> None:
        result, limits = self.result, self.limits
        raw, plain = hashlib.sha256(), hashlib.sha256()

        def incoming() -> Iterator[bytes]:
            while piece := self.read(CHUNK):
                raw.update(piece)
                result.blob_size += len(piece)
                if self.blob >= 0:
                    files.write_all(self.blob, piece)
                yield piece

        pieces = incoming()
        first = next(pieces, b"")
        while len(first) < 6 and (more := next(pieces, b"")):
            first += more
        result.compression = compression(first)
        tar = DECOMPRESS[result.compression](first, pieces)
        for piece in tar:
            if result.compression:  # else both digests are the same one
                plain.update(piece)
            result.tar_size += len(piece)
            limits.check(result.tar_size, result.blob_size)
            self.room.acquire()
            if self.stopped:
                raise _Stopped
            self.queue.put(piece)
        for _ in pieces:  # a decompressor may stop early; the blob's digest covers every byte
            pass
        result.digest = "sha256:" + raw.hexdigest()
        result.diff_id = "sha256:" + plain.hexdigest() if result.compression else result.digest
        if self.blob >= 0:
            os.fsync(self.blob)


def plain(read: Read, limits: Limits) -> Iterator[bytes]:
    """What `read` yields, decompressed if it needs to be, within the limits. Raises InvalidImage."""
    seen = 0

    def incoming() -> Iterator[bytes]:
        nonlocal seen
        while piece := read(CHUNK):
            seen += len(piece)
            yield piece

    pieces = incoming()
    first = next(pieces, b"")
    while len(first) < 6 and (more := next(pieces, b"")):
        first += more
    size = 0
    try:
        for piece in DECOMPRESS[compression(first)](first, pieces):
            size += len(piece)
            limits.check(size, seen)
            yield piece
    except zlib.error as error:
        raise errors.InvalidImage(f"the archive's compressed data is damaged: {error}") from None


class _Stopped(Exception):
    """The other thread gave up."""


def compression(first: bytes) -> str:
    """How data is compressed (gzip, zstd, or "") by its first bytes. The media type is not asked: builders are known
    to write the wrong one.
    """
    if first[:2] == b"\x1f\x8b":
        return "gzip"
    if first[:4] == b"\x28\xb5\x2f\xfd" or (len(first) > 3 and first[1:4] == b"\x2a\x4d\x18" and first[0] >> 4 == 5):
        return "zstd"  # RFC 8878: a frame, or a skippable frame before it
    for magic, name in ((b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz")):
        if first.startswith(magic):
            raise errors.InvalidImage(
                f"compressed with {name}, which the OCI format does not have; repack it with gzip or zstd"
            )
    return ""


def _plain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _gunzip(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    """RFC 1952: any number of members, one after the other. Zeros may follow (tapes and some tools pad)."""
    piece = first
    while piece:
        member = zlib.decompressobj(31)
        while not member.eof:
            output = member.decompress(piece, CHUNK)  # at most so much output: the rest waits in unconsumed_tail
            if output:
                yield output
            piece = member.unconsumed_tail
            if not piece and not member.eof and not output:
                piece = next(rest, b"")
                if not piece:
                    raise errors.InvalidImage("the layer's gzip data ends in the middle: the archive is truncated")
        piece = member.unused_data or next(rest, b"")
        while piece and not piece.strip(b"\0"):
            piece = next(rest, b"")


def _unzstd(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    """RFC 8878: any number of frames. Fed 4 KiB at a time, for that may unfold to 128 MiB at once."""
    import zstandard

    # A window is memory: 128 MiB is what zstd's own tool accepts without being asked.
    decoder = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    frame = None
    ready: list[bytes] = []
    waiting = 0
    for piece in _plain(first, rest):
        for at in range(0, len(piece), 4096):
            left = piece[at : at + 4096]
            while left:
                if frame is None:
                    frame = decoder.decompressobj()
                try:
                    output = frame.decompress(left)
                except zstandard.ZstdError as error:
                    raise errors.InvalidImage(f"the layer's zstd data is damaged: {error}") from None
                left = b""
                if frame.eof:
                    left, frame = frame.unused_data, None
                ready.append(output)
                waiting += len(output)
                if waiting >= CHUNK // 2:
                    yield b"".join(ready)
                    ready, waiting = [], 0
    if frame is not None:
        raise errors.InvalidImage("the layer's zstd data ends in the middle: the archive is truncated")
    if waiting:
        yield b"".join(ready)


DECOMPRESS: dict[str, Callable[[bytes, Iterator[bytes]], Iterator[bytes]]] = {
    "": _plain,
    "gzip": _gunzip,
    "zstd": _unzstd,
}


# Tar ----------------------------------------------------------------------------------------------------------------


class Stream:
    """Chunks of any size, read as the tar reader needs them: exactly so many bytes, without copying where possible."""

    __slots__ = ("at", "chunk", "chunks", "left", "offset", "padding")

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks = chunks
        self.chunk = b""
        self.at = 0  # in the chunk
        self.offset = 0  # of the chunk, in the stream
        self.left = 0  # of the current entry's data
        self.padding = 0  # behind it

    def next_chunk(self) -> bool:
        self.offset += len(self.chunk)
        self.at = 0
        self.chunk = next(self.chunks, b"")
        return bool(self.chunk)

    def exactly(self, size: int) -> bytes:
        """So many bytes, or as many as are left."""
        at = self.at
        if len(self.chunk) - at >= size:
            self.at = at + size
            return self.chunk[at : at + size]
        pieces = []
        while size:
            if self.at == len(self.chunk) and not self.next_chunk():
                break
            piece = self.chunk[self.at : self.at + size]
            self.at += len(piece)
            size -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def data(self, size: int) -> bytes:
        """So many bytes of the current entry's data. Raises InvalidImage if the archive ends before."""
        piece = self.exactly(size)
        self.left -= size
        if len(piece) != size or self.left < 0:
            raise errors.InvalidImage("the archive is truncated: it ends in the middle of an entry")
        return piece

    def write_to(self, descriptor: int, size: int, position: int = -1) -> None:
        """Copy so many bytes of the current entry's data into a file, at `position` or where it is."""
        self.left -= size
        while size:
            at = self.at
            available = len(self.chunk) - at
            if not available:
                if not self.next_chunk():
                    raise errors.InvalidImage("the archive is truncated: it ends in the middle of an entry")
                continue
            piece = memoryview(self.chunk)[at : at + size] if size < available else memoryview(self.chunk)[at:]
            written = os.write(descriptor, piece) if position < 0 else os.pwrite(descriptor, piece, position)
            if position >= 0:
                position += written
            self.at = at + written
            size -= written

    def skip(self, size: int) -> bool:
        """Pass over so many bytes. Returns whether they were there."""
        while size:
            available = len(self.chunk) - self.at
            if size <= available:
                self.at += size
                return True
            self.at = len(self.chunk)
            size -= available
            if not self.next_chunk():
                return False
        return True


class Entry:
    """One member of an archive. Names are bytes, as the kernel has them; `mtime` is in nanoseconds since the epoch.

    `kind` is tar's type byte, with every spelling of a regular file as b"0". `size` is that of the data in the archive;
    `holes` is None, or for a sparse file a list of (offset, size) of its data, `real_size` its size on disk.
    The data is in `stream` until the next entry is asked for; `position` is where it begins in the archive.
    """

    __slots__ = (
        "gid",
        "holes",
        "kind",
        "link",
        "major",
        "minor",
        "mode",
        "mtime",
        "name",
        "position",
        "real_size",
        "size",
        "stream",
        "uid",
        "xattrs",
    )  # fmt: skip

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: bytes
    major: int
    minor: int
    xattrs: dict[str, bytes] | None
    holes: list[tuple[int, int]] | None
    real_size: int
    stream: Stream
    position: int


REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_REGULAR = (b"0", b"\0", b"7")
_WITHOUT_DATA = (HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO)
_ZEROS = bytes(BLOCK)


def entries(stream: Stream) -> Iterator[Entry]:
    """The members of a tar stream, in order. What an entry's reader leaves of its data is skipped.

    Raises InvalidImage for anything that is not a well-formed archive. The end is two blocks of zeros, or the end of
    the stream at a block's border.
    """
    everywhere: dict[str, bytes] = {}  # pax records for all that follows
    records: dict[str, bytes] = {}  # for the next entry only
    repeated: list[tuple[str, bytes]] = []  # pax sparse format 0.0 says the same key many times
    long_name = long_link = b""
    while True:
        remainder = stream.left + stream.padding
        if remainder and not stream.skip(remainder) and stream.left:
            raise errors.InvalidImage("the archive is truncated: it ends in the middle of an entry")
        stream.left = stream.padding = 0
        block = stream.exactly(BLOCK)
        if len(block) < BLOCK or block == _ZEROS:
            if len(block) % BLOCK:
                raise errors.InvalidImage(
                    "the archive is truncated, or is no tar archive: it ends in the middle of a header"
                )
            if records or long_name or long_link:
                raise errors.InvalidImage("the archive is truncated: it ends after an extended header")
            return
        _check_sum(block)
        kind = block[156:157]
        size = _number(block[124:136], "size")
        if kind in b"xgXLK":
            if size > LARGEST_HEADER:
                raise errors.InvalidImage(
                    f"an extended header of {size} bytes; {LARGEST_HEADER} is the most that makes sense"
                )
            stream.left, stream.padding = size, -size % BLOCK
            content = stream.data(size)
            if kind == b"L":
                long_name = content.rstrip(b"\0")
            elif kind == b"K":
                long_link = content.rstrip(b"\0")
            elif kind == b"g":
                for key, value in _records(content):
                    everywhere[key] = value
                if len(everywhere) > 10_000:
                    raise errors.InvalidImage("the archive has more than 10000 global headers")
            else:
                repeated = _records(content)
                records = dict(repeated)
            continue
        entry = Entry()
        entry.stream = stream
        entry.kind = kind if kind not in _REGULAR else REGULAR
        entry.name = long_name or _text(block[0:100])
        entry.link = long_link or _text(block[157:257])
        entry.mode = _number(block[100:108], "mode") & 0o7777
        entry.uid = _number(block[108:116], "uid")
        entry.gid = _number(block[116:124], "gid")
        entry.mtime = _number(block[136:148], "mtime", signed=True) * 1_000_000_000
        entry.major = entry.minor = 0
        entry.xattrs = entry.holes = None
        if kind in b"34":
            entry.major = _number(block[329:337], "device number")
            entry.minor = _number(block[337:345], "device number")
        if block[345] and not long_name and block[257:263] == b"ustar\0":
            # star keeps times in the last 24 bytes of the prefix, and signs its headers.
            prefix = _text(block[345:476] if block[508:512] == b"tar\0" else block[345:500])
            if prefix:
                entry.name = prefix + b"/" + entry.name
        if records or everywhere:
            if everywhere:
                records = everywhere | records
            size = _extend(entry, records, size)
        if kind in _WITHOUT_DATA:
            size = 0  # tar(5): some writers leave a size here, and no data behind it
        if entry.kind == REGULAR and entry.name.endswith(b"/"):
            entry.kind = DIRECTORY  # how archives older than POSIX spell it
            size = 0
        entry.size = entry.real_size = size
        stream.left, stream.padding = size, -size % BLOCK
        if kind == b"S":
            _gnu_sparse(entry, block)
        elif records and any(key.startswith("GNU.sparse.") for key in records):
            _pax_sparse(entry, records, repeated)
        entry.position = stream.offset + stream.at
        records, repeated, long_name, long_link = {}, [], b"", b""
        yield entry


def _check_sum(block: bytes) -> None:
    """The sum of the header's bytes, its own field counted as spaces. Some old tars summed signed bytes."""
    expected = _number(block[148:156], "checksum")
    # adler32's lower half is 1 + the sum of the bytes, modulo 65521: the sum at C speed, forty times that of sum().
    plain = (zlib.adler32(block[156:], zlib.adler32(b"        ", zlib.adler32(block[:148]))) & 0xFFFF) - 1
    if plain % 65521 == expected % 65521:
        return
    signed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + b"        " + block[156:])
    if signed != expected:
        raise errors.InvalidImage("not a tar archive, or a damaged one: a header's checksum is wrong")


def _text(field: bytes) -> bytes:
    end = field.find(b"\0")
    return field if end < 0 else field[:end]


def _number(field: bytes, what: str, signed: bool = False) -> int:
    """A numeric field: octal text, or GNU's base 256 where the first bit is set."""
    if field[0] & 0x80:
        if field[0] == 0xFF:
            value = int.from_bytes(field, "big", signed=True)
        else:
            value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
    else:
        try:
            value = int(field.partition(b"\0")[0] or b"0", 8)
        except ValueError:
            if field.strip(b" \0"):
                raise errors.InvalidImage(f"not a tar archive, or a damaged one: {what} is {field!r}") from None
            value = 0
    if not signed and not 0 <= value < 1 << 63:
        raise errors.InvalidImage(f"a tar header with the {what} {value}")
    return value


def _records(content: bytes) -> list[tuple[str, bytes]]:
    """pax records: `LENGTH KEY=VALUE\\n`, the length counting itself."""
    found = []
    at = 0
    while at < len(content) and content[at]:
        space = content.find(b" ", at, at + 12)
        digits = content[at:space] if space > 0 else b""
        if not digits.isdigit():
            raise errors.InvalidImage("a pax header that is malformed: no length")
        end = at + int(digits)
        key, equals, value = content[space + 1 : end - 1].partition(b"=")
        if end > len(content) or end <= space or content[end - 1 : end] != b"\n" or not equals or not key:
            raise errors.InvalidImage("a pax header that is malformed: a record's length is wrong")
        found.append((key.decode("utf-8", "surrogateescape"), value))
        at = end
    return found


def _decimal(value: bytes, key: str) -> int:
    if not value.isdigit() or len(value) > 19:
        raise errors.InvalidImage(f"a pax header with {key}={value[:40]!r}")
    return int(value)


def _extend(entry: Entry, records: dict[str, bytes], size: int) -> int:
    """Let pax records override the header. An empty value takes a global record back. Returns the data's size."""
    for key, value in records.items():
        if not value and not key.startswith("SCHILY.xattr."):
            continue
        if key in ("path", "linkpath"):
            if b"\0" in value:
                raise errors.InvalidImage(f"a name with a NUL byte: {value[:60]!r}")
            if key == "path":
                entry.name = value
            else:
                entry.link = value
        elif key == "mtime":
            entry.mtime = _nanoseconds(value)
        elif key == "size":
            size = _decimal(value, key)
        elif key == "uid":
            entry.uid = _decimal(value, key)
        elif key == "gid":
            entry.gid = _decimal(value, key)
        elif key in ("SCHILY.devmajor", "SCHILY.devminor"):
            setattr(entry, key[-5:], _decimal(value, key))
        elif key.startswith("SCHILY.xattr."):
            if entry.xattrs is None:
                entry.xattrs = {}
            entry.xattrs[key[13:]] = value
    return size


def _nanoseconds(value: bytes) -> int:
    """`-12.25` → -12250000000. Written out, for a float has no nanoseconds left at today's dates."""
    sign = -1 if value[:1] == b"-" else 1
    whole, _, fraction = value.removeprefix(b"-").partition(b".")
    if not whole.isdigit() or len(whole) > 15 or (fraction and not fraction.isdigit()):
        raise errors.InvalidImage(f"a pax header with mtime={value[:40]!r}")
    return sign * (int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0") or b"0"))


def _gnu_sparse(entry: Entry, block: bytes) -> None:
    """The old GNU format: pairs of offset and size in the header, and in blocks behind it while a flag says so."""
    stream = entry.stream
    pairs = []
    area, more = block[386:482], block[482]
    entry.real_size = _number(block[483:495], "real size")
    while True:
        for at in range(0, len(area) - 23, 24):
            if area[at]:
                pairs.append((_number(area[at : at + 12], "offset"), _number(area[at + 12 : at + 24], "size")))
        if not more:
            break
        if len(pairs) * 24 > LARGEST_HEADER:
            raise errors.InvalidImage("a sparse file with too many pieces")
        extension = stream.exactly(BLOCK)
        if len(extension) < BLOCK:
            raise errors.InvalidImage("the archive is truncated: it ends in the middle of a header")
        area, more = extension[:504], extension[504]
    entry.kind = REGULAR
    entry.holes = _checked(pairs, entry)


def _pax_sparse(entry: Entry, records: dict[str, bytes], repeated: list[tuple[str, bytes]]) -> None:
    """GNU's three pax formats: 0.0 repeats a pair of records, 0.1 has them in one, 1.0 in front of the data."""
    if "GNU.sparse.name" in records:
        entry.name = records["GNU.sparse.name"]
        if b"\0" in entry.name:
            raise errors.InvalidImage(f"a name with a NUL byte: {entry.name[:60]!r}")
    real = records.get("GNU.sparse.realsize") or records.get("GNU.sparse.size")
    if real is None:
        return
    entry.real_size = _decimal(real, "GNU.sparse.realsize")
    numbers: list[int] = []
    if records.get("GNU.sparse.major") == b"1":
        numbers = _sparse_map(entry)
    elif "GNU.sparse.map" in records:
        text = records["GNU.sparse.map"]
        numbers = [_decimal(part, "GNU.sparse.map") for part in text.split(b",")] if text else []
    else:
        for key, value in repeated:
            if key in ("GNU.sparse.offset", "GNU.sparse.numbytes"):
                numbers.append(_decimal(value, key))
    if len(numbers) % 2:
        raise errors.InvalidImage("a sparse file whose map has an odd number of numbers")
    entry.holes = _checked(list(zip(numbers[::2], numbers[1::2], strict=True)), entry)


def _sparse_map(entry: Entry) -> list[int]:
    """Format 1.0: how many pairs, then the pairs, a number a line, filled up to a block."""
    text = b""
    while True:
        lines = text.split(b"\n")
        if len(lines) > 1:
            expected = 2 * _decimal(lines[0], "sparse map") + 1
            if expected * 2 > LARGEST_HEADER:
                raise errors.InvalidImage("a sparse file with too many pieces")
            if len(lines) > expected:
                break
        if len(text) > LARGEST_HEADER or entry.stream.left < BLOCK:
            raise errors.InvalidImage("a sparse file whose map is malformed")
        text += entry.stream.data(BLOCK)
        entry.size -= BLOCK
    return [_decimal(line, "sparse map") for line in lines[1:expected]]


def _checked(pairs: list[tuple[int, int]], entry: Entry) -> list[tuple[int, int]]:
    """The pieces must be in order, apart, inside the file, and add up to the data that is there."""
    end = total = 0
    for offset, size in pairs:
        if offset < end or offset + size > entry.real_size:
            raise errors.InvalidImage("a sparse file whose pieces overlap or lie outside of it")
        end = offset + size
        total += size
    if total != entry.size:
        raise errors.InvalidImage("a sparse file whose pieces do not add up to its data")
    return pairs


# The tree -----------------------------------------------------------------------------------------------------------

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ENTER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Directory:
    """What a directory shall become once everything in it is made: making a file changes its mtime, and a mode without
    `w` or with the set-group bit would get in our way before. `done` says that only the time is left to set."""

    __slots__ = ("gid", "mode", "mtime", "opaque", "uid", "xattrs")

    def __init__(self, mode: int, uid: int, gid: int, mtime: int | None, xattrs: dict[str, bytes] | None) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime = mtime
        self.xattrs = xattrs
        self.opaque = False


class _Tree:
    """The second thread's half: entries in, files out.

    Every name is resolved from the target's descriptor, a component at a time, without following a link; the directory
    last used stays open, for archives go through a directory file by file.
    """

    def __init__(self, target: str, owners: Owners, lower: list[str]) -> None:
        self.root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.owners = owners
        self.lower = lower
        self.directories: dict[bytes, _Directory] = {b"": _Directory(0o755, 0, 0, None, None)}
        self.hidden: set[bytes] = set()  # paths with a whiteout
        self.here = b""  # the directory that is open …
        self.descriptor = self.root  # … and its descriptor
        self.uid, self.gid = os.geteuid(), os.getegid()  # what a new file has without being given away
        if os.fstat(self.root).st_gid != self.gid:
            self.gid = -1  # a set-group directory above, or mount option grpid: nothing can be taken for granted
        self.umask = _umask()
        self.replaced = 0
        self.remembered = 0
        self.file_bytes = 0
        self.warnings: dict[str, tuple[int, bytes]] = {}

    def close(self) -> None:
        if self.descriptor != self.root:
            os.close(self.descriptor)
        os.close(self.root)

    def warn(self, what: str, path: bytes) -> None:
        """Remember that something could not be kept: how often, and the first path."""
        count, first = self.warnings.get(what, (0, path))
        self.warnings[what] = (count + 1, first)

    def told(self) -> list[str]:
        """The warnings, one sentence for each kind."""
        return [
            f"{what}: {_shown(first)}" + (f" and {count - 1} more" if count > 1 else "")
            for what, (count, first) in self.warnings.items()
        ]

    def place(self, entry: Entry) -> None:
        """Make what the entry says. Raises InvalidImage, or KernelError where it is the host that fails."""
        path = clean(entry.name)
        parent, _, name = path.rpartition(b"/")
        try:
            if AUFS in path and any(part.startswith(AUFS) for part in path.split(b"/")):
                if name == OPAQUE:
                    self.enter(parent)
                    self.directories[parent].opaque = True
                return
            if parent != self.here:
                self.enter(parent)
            if name.startswith(WHITEOUT):
                self.whiteout(parent, name[len(WHITEOUT) :])
                return
            self.MAKERS[entry.kind](self, entry, path, name)
        except KeyError:
            raise errors.InvalidImage(f"{_shown(path)} has the type {entry.kind!r}, which no layer may have") from None
        except OverflowError:
            raise errors.InvalidImage(f"{_shown(path)} has a time, owner or device number out of range") from None
        except OSError as error:
            if isinstance(error, errors.KernelError):
                raise
            if error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.EILSEQ):
                raise errors.InvalidImage(f"{_shown(path)} cannot be unpacked: {error.strerror}") from None
            raise kernel_error(error, "unpack", path) from None

    # Directories

    def enter(self, path: bytes) -> None:
        """Make `path` the directory that is open; what is missing on the way is made."""
        if self.here and path.startswith(self.here + b"/"):
            done, missing = self.here, path[len(self.here) + 1 :]
        else:
            self.leave()
            done, missing = b"", path
        for part in missing.split(b"/") if missing else ():
            done = done + b"/" + part if done else part
            if done not in self.directories:
                self.imply(done, part)
            try:
                descriptor = os.open(part, _ENTER, dir_fd=self.descriptor)
            except NotADirectoryError:
                raise errors.InvalidImage(
                    f"{_shown(path)} leads through {_shown(done)}, which is no directory"
                ) from None
            if self.descriptor != self.root:
                os.close(self.descriptor)
            self.descriptor, self.here = descriptor, done

    def leave(self) -> None:
        """Back to the root."""
        if self.descriptor != self.root:
            os.close(self.descriptor)
        self.descriptor, self.here = self.root, b""

    def imply(self, path: bytes, name: bytes) -> None:
        """A directory that the layer does not mention: as it is in the layers below, for ours will hide that one."""
        try:
            os.mkdir(name, 0o700, dir_fd=self.descriptor)
        except FileExistsError:
            if not (path in self.hidden and stat.S_ISCHR(os.lstat(name, dir_fd=self.descriptor).st_mode)):
                return  # no directory: entering it will say so
            os.unlink(name, dir_fd=self.descriptor)  # our own whiteout; the directory will be opaque instead
            os.mkdir(name, 0o700, dir_fd=self.descriptor)
        directory = _Directory(0o755, 0, 0, None, None)
        for layer in self.lower:
            found = _look(layer, path)
            if found is not None:
                if stat.S_ISDIR(found.st_mode):
                    directory = _Directory(
                        stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_mtime_ns, None
                    )
                break
        directory.opaque = path in self.hidden
        self.remember(path)
        self.directories[path] = directory

    def directory(self, entry: Entry, path: bytes, name: bytes) -> None:
        uid, gid, mode = self.owner(entry, path)
        if path:  # else it is the root of the layer
            try:
                os.mkdir(name, 0o700, dir_fd=self.descriptor)
            except FileExistsError:
                if path not in self.directories:
                    self.displace(path, name)
                    os.mkdir(name, 0o700, dir_fd=self.descriptor)
        known = self.directories.get(path)
        self.remember(path)
        meant = self.directories[path] = _Directory(mode, uid, gid, entry.mtime, entry.xattrs)
        meant.opaque = path in self.hidden or (known is not None and known.opaque)

    def remember(self, path: bytes) -> None:
        self.remembered += len(path)
        if self.remembered > LONGEST_NAMES:
            raise errors.InvalidImage(f"the names of the layer's directories add up to more than {LONGEST_NAMES} bytes")

    def displace(self, path: bytes, name: bytes) -> None:
        """Take away what an earlier entry of this layer put under the name: the later entry wins, as with tar -x."""
        if path in self.directories:
            self.replaced += 1
            if self.replaced > MOST_REPLACED:
                raise errors.InvalidImage(f"the layer replaces more than {MOST_REPLACED} of its own directories")
            below = path + b"/"
            for known in [known for known in self.directories if known == path or known.startswith(below)]:
                del self.directories[known]
            files.remove_tree(f"/proc/self/fd/{self.descriptor}/{os.fsdecode(name)}")
        else:
            os.unlink(name, dir_fd=self.descriptor)

    # Everything else

    def file(self, entry: Entry, path: bytes, name: bytes) -> None:
        mode = entry.mode
        try:
            descriptor = os.open(name, _CREATE, mode & 0o777, dir_fd=self.descriptor)
        except FileExistsError:
            self.displace(path, name)
            descriptor = os.open(name, _CREATE, mode & 0o777, dir_fd=self.descriptor)
        try:
            if entry.holes is None:
                if entry.size:
                    entry.stream.write_to(descriptor, entry.size)
            else:
                os.ftruncate(descriptor, entry.real_size)
                for offset, size in entry.holes:
                    entry.stream.write_to(descriptor, size, offset)
            self.file_bytes += entry.size
            uid, gid, mode = self.owner(entry, path)
            special = mode & (0o7000 | self.umask)
            if uid != self.uid or gid != self.gid:
                os.fchown(descriptor, uid, gid)
                special = special or mode & 0o7000
            if special:
                os.fchmod(descriptor, mode)
            if entry.xattrs:
                self.attributes(descriptor, entry.xattrs, path)
            os.utime(descriptor, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(descriptor)

    def symlink(self, entry: Entry, path: bytes, name: bytes) -> None:
        if not entry.link:
            raise errors.InvalidImage(f"{_shown(path)} is a symbolic link to nothing")
        self.fresh(path, name, os.symlink, entry.link, name)
        self.dress(entry, path, name)

    def hard_link(self, entry: Entry, path: bytes, name: bytes) -> None:
        target = clean(entry.link)
        directory, _, source = target.rpartition(b"/")
        if target == path:
            raise errors.InvalidImage(f"{_shown(path)} is a hard link to itself")
        if source.startswith(WHITEOUT) or target in self.hidden:
            raise errors.InvalidImage(f"{_shown(path)} is a hard link to a whiteout")
        if target in self.directories:
            raise errors.InvalidImage(f"{_shown(path)} is a hard link to a directory, {_shown(target)}")
        opened = self.descriptor if directory == self.here else self.find(directory, path, target)
        try:
            try:
                os.link(source, name, src_dir_fd=opened, dst_dir_fd=self.descriptor, follow_symlinks=False)
            except FileExistsError:
                self.displace(path, name)
                os.link(source, name, src_dir_fd=opened, dst_dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            raise _no_target(path, target) from None
        finally:
            if opened != self.descriptor:
                os.close(opened)

    def find(self, directory: bytes, path: bytes, target: bytes) -> int:
        """A descriptor of a directory that an earlier entry made. The caller closes it."""
        if directory not in self.directories:
            raise _no_target(path, target)
        descriptor = os.open(".", _ENTER, dir_fd=self.root)
        for part in directory.split(b"/") if directory else ():
            try:
                deeper = os.open(part, _ENTER, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = deeper
        return descriptor

    def device(self, entry: Entry, path: bytes, name: bytes) -> None:
        if entry.kind == CHARACTER and entry.major == entry.minor == 0:
            raise errors.InvalidImage(
                f"{_shown(path)} is character device 0/0, which is how overlayfs marks a deleted file"
            )
        if not self.owners.devices and entry.kind != FIFO:
            self.warn("device nodes cannot be made in a user namespace, left out", path)
            return
        number = 0 if entry.kind == FIFO else os.makedev(entry.major, entry.minor)
        kind = {CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}[entry.kind]
        self.fresh(path, name, os.mknod, name, kind | 0o600, number)
        self.dress(entry, path, name)

    def whiteout(self, parent: bytes, name: bytes) -> None:
        """`.wh.NAME`: what the layers below have under NAME is gone; what this layer has, before or after, stays."""
        if name in (b"", b".", b".."):
            raise errors.InvalidImage(
                f"a whiteout of {name!r} in {_shown(parent)} would reach outside of its directory"
            )
        path = parent + b"/" + name if parent else name
        self.remember(path)
        self.hidden.add(path)
        if path in self.directories:
            self.directories[path].opaque = True
            return
        try:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=self.descriptor)
        except FileExistsError:
            pass  # a file hides what is below it by itself
        except PermissionError as error:
            raise kernel_error(error, "mknod", path, "whiteouts in a user namespace need Linux 5.8 or later") from None

    def fresh(self, path: bytes, name: bytes, make: Callable[..., None], *arguments: object) -> None:
        """Call `make`; if the name is taken by an earlier entry, take that away first."""
        try:
            make(*arguments, dir_fd=self.descriptor)
        except FileExistsError:
            self.displace(path, name)
            make(*arguments, dir_fd=self.descriptor)

    # Owner, mode, attributes, times

    def owner(self, entry: Entry, path: bytes) -> tuple[int, int, int]:
        """Owner, group and mode as they can be kept here."""
        uid, gid, mode = entry.uid, entry.gid, entry.mode
        if uid >= 0xFFFFFFFF or gid >= 0xFFFFFFFF:
            raise errors.InvalidImage(f"{_shown(path)} has an owner or group out of range")
        if self.owners.uids is not None and not any(uid in ids for ids in self.owners.uids):
            self.warn("owners that this user namespace does not have, now 0", path)
            uid = 0
            mode &= ~stat.S_ISUID
        if self.owners.gids is not None and not any(gid in ids for ids in self.owners.gids):
            self.warn("groups that this user namespace does not have, now 0", path)
            gid = 0
            mode &= ~stat.S_ISGID
        return uid, gid, mode

    def dress(self, entry: Entry, path: bytes, name: bytes) -> None:
        """Owner, mode, attributes and time of what has no descriptor: a link, a device, a FIFO."""
        uid, gid, mode = self.owner(entry, path)
        if uid != self.uid or gid != self.gid:
            os.chown(name, uid, gid, dir_fd=self.descriptor, follow_symlinks=False)
        if entry.kind != SYMLINK:
            os.chmod(name, mode, dir_fd=self.descriptor)
        if entry.xattrs:
            self.attributes(b"/proc/self/fd/%d/%s" % (self.descriptor, name), entry.xattrs, path)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=self.descriptor, follow_symlinks=False)

    def attributes(self, file: int | bytes, xattrs: dict[str, bytes], path: bytes) -> None:
        """Extended attributes (xattr(7)). overlayfs's own are an order to the kernel, not content: never taken over."""
        for name, value in xattrs.items():
            if name.startswith(("trusted.overlay.", "user.overlay.")):
                self.warn(f"attribute {name} is overlayfs's own, left out", path)
                continue
            try:
                if isinstance(file, int):
                    os.setxattr(file, name, value)
                else:
                    os.setxattr(file, name, value, follow_symlinks=False)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENODATA, errno.EINVAL, errno.EACCES):
                    raise
                self.warn(f"attribute {name} is refused here ({error.strerror}), left out", path)

    def finish(self) -> None:
        """Give the directories what they were meant to have, the deepest first: a parent may become unsearchable."""
        self.leave()
        for path in sorted(self.directories, reverse=True):
            meant = self.directories[path]
            descriptor = self.find(path, path, path) if meant.xattrs or meant.opaque else -1
            # The path holds no link: every directory on it is one that we made, and nobody else can come in here.
            where = path or b"."
            uid, gid = meant.uid, meant.gid
            try:
                if uid != self.uid or gid != self.gid:
                    os.chown(where, uid, gid, dir_fd=self.root, follow_symlinks=False)
                os.chmod(where, meant.mode, dir_fd=self.root)
                if descriptor >= 0:
                    # O_PATH descriptors take no attributes; their /proc name does.
                    place = b"/proc/self/fd/%d/." % descriptor
                    if meant.xattrs:
                        self.attributes(place, meant.xattrs, path)
                    if meant.opaque:
                        os.setxattr(place, self.owners.opaque, b"y")
                if meant.mtime is not None:
                    os.utime(where, ns=(meant.mtime, meant.mtime), dir_fd=self.root, follow_symlinks=False)
            except OverflowError:
                raise errors.InvalidImage(f"{_shown(path)} has a time out of range") from None
            except OSError as error:
                raise kernel_error(error, "finish", path) from None
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    MAKERS = {
        REGULAR: file,
        HARD_LINK: hard_link,
        SYMLINK: symlink,
        CHARACTER: device,
        BLOCK_DEVICE: device,
        DIRECTORY: directory,
        FIFO: device,
    }


def clean(name: bytes) -> bytes:
    """A member's name as a path below the root: `./usr//bin/` → `usr/bin`; a leading slash means the image's root.

    Raises InvalidImage for `..`, and for what is longer or deeper than a kernel or a person would make it.
    """
    path = name.strip(b"/")
    if path.startswith(b"./"):
        path = path[2:]
    if b"//" in path or b"/." in path or path[:1] == b".":
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise errors.InvalidImage(f"{_shown(name)} leads out of the archive")
        path = b"/".join(parts)
    if len(path) > LONGEST_PATH or path.count(b"/") >= DEEPEST_PATH:
        raise errors.InvalidImage(
            f"{_shown(path)} is longer than {LONGEST_PATH} bytes or deeper than {DEEPEST_PATH} directories"
        )
    return path


def _look(layer: str, path: bytes) -> os.stat_result | None:
    """What a layer below has under `path`, without following any link. None where it says nothing."""
    descriptor = os.open(layer, _ENTER)
    try:
        *parents, name = path.split(b"/")
        for part in parents:
            deeper = os.open(part, _ENTER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = deeper
        return os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    finally:
        os.close(descriptor)


def _umask() -> int:
    """The umask, without changing it: umask(2) can only be asked by setting it, which other threads would see."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o777


def _shown(path: bytes) -> str:
    text = os.fsdecode(path) if len(path) <= 120 else os.fsdecode(path[:117]) + "…"
    return repr("/" + text.lstrip("/")) if b".." not in path else repr(text)


def _no_target(path: bytes, target: bytes) -> errors.InvalidImage:
    return errors.InvalidImage(f"{_shown(path)} is a hard link to {_shown(target)}, which this layer does not have")


def kernel_error(error: OSError, call: str, path: bytes, hint: str = "") -> errors.KernelError:
    """The house's form of an OSError that is the host's fault, with what to do about a full disk."""
    if isinstance(error, errors.KernelError):
        return error
    if error.errno == errno.ENOSPC:
        hint = "the disk is full: free some space, or put the store elsewhere with MINICONTAINER_ROOT"
    elif error.errno == errno.EDQUOT:
        hint = "the disk quota is used up"
    return errors.KernelError(error.errno or errno.EIO, call, (os.fsdecode(path),), hint)
