"""Compression: gzip, zstd or nothing, recognized and undone, within limits; and gzip done, the same each time.

What a build is given may also be compressed with bzip2 or xz: `decompress(…, beyond=True)`.

Offers: `decompress`, `recognize`, and `Limits`: how much a stranger's data may become. And `gzip`.

Contract: never more than some chunks of output are in memory, however far a few bytes unfold. What is damaged,
truncated, unknown or too much raises InvalidImage.

Sources: RFC 1952 (gzip), RFC 8878 (zstd).
"""

import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from .. import errors

CHUNK = 1 << 20  # bytes read at once: enough to make a system call's price vanish, small enough to stay in the cache

LEVEL = 2  # of zlib: in 40 % of the time of its default, 6, a Debian is 6 % larger

RAISE = "if you trust it, set MINICONTAINER_LAYER_LIMIT to the number of bytes that a layer may have"

Read = Callable[[int], bytes]  # at most so many bytes; empty at the end


class Limits:
    """How much one layer may become. Raise them where you trust the archive: MINICONTAINER_LAYER_LIMIT=BYTES does.

    `size` is in bytes of tar; `ratio` is output per input, and counts once the output passed `grace` bytes (a small
    file of zeros compresses a thousandfold and harms nobody); `count` is in entries.
    """

    def __init__(self, size: int = 64 << 30, ratio: int = 200, grace: int = 256 << 20, count: int = 4_000_000) -> None:
        self.size = size
        self.ratio = ratio
        self.grace = grace
        self.count = count

    def check(self, size: int, compressed: int) -> None:
        """Raise InvalidImage if `size` bytes from `compressed` bytes are too many."""
        if size > self.size:
            raise errors.InvalidImage(f"the data unpacks to more than {self.size} bytes; {RAISE}")
        if size > self.grace and size > self.ratio * compressed:
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


def recognize(first: bytes, beyond: bool = False) -> str:
    """How data is compressed (gzip, zstd, or "") by its first six bytes. The media type is not asked: builders are
    known to write the wrong one. bzip2 and xz raise InvalidImage, unless `beyond` the OCI's format is allowed.
    """
    if first.startswith(b"\x1f\x8b"):
        return "gzip"
    if first.startswith(b"\x28\xb5\x2f\xfd") or (first[1:4] == b"\x2a\x4d\x18" and first[0] >> 4 == 5):
        return "zstd"  # a frame, or a skippable frame before it
    for magic, name in ((b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz")):
        if first.startswith(magic):
            if beyond:
                return name
            raise errors.InvalidImage(
                f"compressed with {name}, which the OCI format does not have; repack it with gzip or zstd"
            )
    return ""


def decompress(read: Read, limits: Limits, beyond: bool = False) -> tuple[str, Iterator[bytes]]:
    """How the data that `read` yields is compressed, and what is in it, in pieces. All of it is read. `beyond`: bzip2
    and xz, too."""
    first = b""
    while len(first) < 6 and (more := read(CHUNK)):
        first += more
    kind = recognize(first, beyond)
    return kind, _within(limits, DECOMPRESS[kind], first, read)


def _within(
    limits: Limits, method: Callable[[Iterator[bytes]], Iterator[bytes]], first: bytes, read: Read
) -> Iterator[bytes]:
    size = compressed = 0

    def pieces() -> Iterator[bytes]:
        nonlocal compressed
        piece = first
        while piece:
            compressed += len(piece)
            yield piece
            piece = read(CHUNK)

    for piece in method(pieces()):
        size += len(piece)
        limits.check(size, compressed)
        yield piece


def _gunzip(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Any number of members, one after the other. Zeros may follow (tapes and some tools pad)."""
    from isal import isal_zlib

    damaged: Any = isal_zlib.error  # its type hints call it an instance
    piece = next(pieces, b"")
    while piece:
        member = isal_zlib.decompressobj(31)
        while not member.eof:
            try:
                output = member.decompress(piece, CHUNK)  # at most so much output: the rest waits in unconsumed_tail
            except damaged as error:
                raise errors.InvalidImage(f"the gzip data is damaged: {error}") from None
            piece = member.unconsumed_tail
            if output:
                yield output
            elif not piece and not member.eof:
                piece = next(pieces, b"")
                if not piece:
                    raise errors.InvalidImage("the gzip data ends in the middle: it is truncated")
        piece = member.unused_data or next(pieces, b"")
        while piece and not piece.strip(b"\0"):
            piece = next(pieces, b"")


def _unzstd(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Any number of frames. Fed 4 KiB at a time, for that may unfold to 128 MiB at once."""
    import zstandard

    # A window is memory: 128 MiB is what zstd's own tool accepts without being asked.
    decoder = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    frame = None
    ready: list[bytes] = []
    waiting = 0
    for piece in pieces:
        for at in range(0, len(piece), 4096):
            left = piece[at : at + 4096]
            while left:
                frame = frame or decoder.decompressobj()
                try:
                    output = frame.decompress(left)
                except zstandard.ZstdError as error:
                    raise errors.InvalidImage(f"the zstd data is damaged: {error}") from None
                ready.append(output)
                waiting += len(output)
                left = b""
                if frame.eof:
                    left, frame = frame.unused_data, None
            if waiting >= CHUNK // 2:
                yield b"".join(ready)
                ready, waiting = [], 0
    if frame is not None:
        raise errors.InvalidImage("the zstd data ends in the middle: it is truncated")
    if waiting:
        yield b"".join(ready)


def _bunzip2(pieces: Iterator[bytes]) -> Iterator[bytes]:
    import bz2

    return _streams(pieces, bz2.BZ2Decompressor, "bzip2", OSError)


def _unxz(pieces: Iterator[bytes]) -> Iterator[bytes]:
    import lzma

    return _streams(pieces, lambda: lzma.LZMADecompressor(memlimit=MEMORY), "xz", lzma.LZMAError)


MEMORY = 1 << 28  # bytes; `xz -9` makes what needs 65 MiB


def _streams(pieces: Iterator[bytes], new: Callable[[], Any], name: str, damaged: type[Exception]) -> Iterator[bytes]:
    """Any number of streams, by the interface that bz2 and lzma share; zeros may stand between and behind them."""
    piece = next(pieces, b"")
    while piece:
        stream = new()
        while not stream.eof:
            try:
                output = stream.decompress(piece, CHUNK)  # at most so much output: the rest waits inside
            except damaged as error:
                raise errors.InvalidImage(f"the {name} data is damaged: {error}") from None
            if output:
                yield output
            piece = b""
            if stream.needs_input and not stream.eof:
                piece = next(pieces, b"")
                if not piece:
                    raise errors.InvalidImage(f"the {name} data ends in the middle: it is truncated")
        piece = stream.unused_data.lstrip(b"\0")
        while not piece and (piece := next(pieces, b"")):
            piece = piece.lstrip(b"\0")


def gzip(read: Read) -> Iterator[bytes]:
    """What `read` yields, compressed: one member without name or time, the same bytes on any number of processors.

    Blocks of 1 MiB are compressed side by side, each with the 32 KiB before it as its dictionary, as pigz does it
    (zlib lets go of the interpreter's lock). The same zlib makes the same bytes; another version may make others.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    def deflate(block: bytes, before: bytes, last: bool) -> bytes:
        state = zlib.compressobj(LEVEL, zlib.DEFLATED, -15, zdict=before)
        return state.compress(block) + state.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)

    def whole() -> bytes:
        """The next block, full but for the last."""
        block = b""
        while len(block) < CHUNK and (piece := read(CHUNK - len(block))):
            block = block + piece if block else piece
        return block

    checksum = size = 0
    processors = os.cpu_count() or 1
    waiting: list[Future[bytes]] = []
    yield b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # deflate, no flags, no time, no system (RFC 1952, 2.3)
    with ThreadPoolExecutor(processors) as pool:
        before, block = b"", whole()
        while True:
            following = whole() if block else b""
            waiting.append(pool.submit(deflate, block, before, not following))
            checksum, size = zlib.crc32(block, checksum), size + len(block)
            if not following:
                break
            before, block = block[-32768:], following
            if len(waiting) > 2 * processors:
                yield waiting.pop(0).result()
        for done in waiting:
            yield done.result()
    yield checksum.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")


DECOMPRESS: dict[str, Callable[[Iterator[bytes]], Iterator[bytes]]] = {
    "": lambda pieces: pieces,
    "gzip": _gunzip,
    "zstd": _unzstd,
    "bzip2": _bunzip2,
    "xz": _unxz,
}
