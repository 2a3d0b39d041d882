"""tar: a stream of bytes in, the members of an archive out, one after the other, in a single pass; and the way back.

Offers: `entries`, `Entry`, and `Stream`, from which an entry's data is read; `is_header`. Understood are POSIX ustar
and pax, GNU long names, large numbers and sparse files in their four spellings, and v7. And `header`, what stands
before a member's data in an archive of ours: ustar, and pax records for what has no room there (pack.py makes archives
of it).

A member is a header of one block (512 bytes), then its data, filled up to whole blocks. What the header has no room
for stands before it, as the data of a member of its own: GNU's `L` and `K` are the next one's name and link, pax's `x`
are records `LENGTH KEY=VALUE` for it, `g` records for all that follow.

An archive comes from a stranger: what is not well-formed raises InvalidImage, and of headers no more is kept in memory
than LARGEST_HEADER says. Names come out as they stand there; where they may lead is for the caller to judge.

Sources: tar(5), POSIX pax; GNU tar manual, "Sparse Formats".
"""

import zlib
from collections.abc import Iterator

from .. import errors
from ..records import namedtuple

BLOCK = 512
LARGEST_HEADER = 1 << 20  # bytes of a pax header, a GNU long name or a sparse map
MOST_GLOBAL = 10_000  # pax records for all that follows

REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"

_ZEROS = bytes(BLOCK)
_XATTR = "SCHILY.xattr."


class Stream:
    """Chunks of any size, as the tar reader needs them: by the block, and an entry's data without copying it."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks = chunks
        self.chunk = b""
        self.offset = 0  # of the chunk, in the stream
        self.at = 0  # in the chunk
        self.left = 0  # of the current entry's data …
        self.padding = 0  # … and behind it

    def next_chunk(self) -> bool:
        """Go on to the next chunk. Returns whether there is one."""
        self.offset += len(self.chunk)
        self.at = 0
        self.chunk = next(self.chunks, b"")
        return bool(self.chunk)

    def take(self, size: int) -> bytes:
        """So many bytes of the chunk, or what is left of it."""
        piece = self.chunk[self.at : self.at + size]
        self.at += len(piece)
        return piece

    def block(self) -> bytes:
        """The next block; less at the end."""
        block = self.take(BLOCK)
        while len(block) < BLOCK and self.next_chunk():
            block += self.take(BLOCK - len(block))
        return block

    def data(self, size: int) -> Iterator[memoryview]:
        """So many bytes of the current entry's data, in pieces."""
        self.left -= size
        while size:
            if self.at == len(self.chunk) and not self.next_chunk():
                raise _truncated()
            piece = memoryview(self.chunk)[self.at : self.at + size]
            self.at += len(piece)
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> bool:
        """Pass over so many bytes. Returns whether they were there."""
        while size > len(self.chunk) - self.at:
            size -= len(self.chunk) - self.at
            if not self.next_chunk():
                return False
        self.at += size
        return True


class Entry:
    """One member of an archive. Names are bytes, as the kernel has them; `mtime` is in nanoseconds since the epoch.

    `kind` is tar's type byte, with every spelling of a regular file as REGULAR. `size` is that of the data in the
    archive; `holes` is None, or for a sparse file a list of (offset, size) of its data, `real_size` its size on disk.
    The data is in `stream` until the next entry is asked for; `position` is where it begins in the archive.
    """

    def __init__(self, block: bytes, stream: Stream) -> None:
        self.name = _text(block[0:100])
        if block[345] and block[257:263] == b"ustar\0":
            self.name = _text(block[345:500]) + b"/" + self.name
        self.mode = _number(block[100:108], "mode") & 0o7777
        self.uid = _number(block[108:116], "uid")
        self.gid = _number(block[116:124], "gid")
        self.size = _number(block[124:136], "size")
        self.mtime = _number(block[136:148], "mtime", signed=True) * 1_000_000_000
        self.kind = block[156:157]
        self.link = _text(block[157:257])
        self.major = self.minor = 0
        if self.kind in (CHARACTER, BLOCK_DEVICE):
            self.major = _number(block[329:337], "device number")
            self.minor = _number(block[337:345], "device number")
        self.xattrs: dict[str, bytes] = {}
        self.holes: list[tuple[int, int]] | None = None
        self.real_size = 0
        self.stream = stream
        self.position = 0


def entries(stream: Stream) -> Iterator[Entry]:
    """The members of a tar stream, in order. What an entry's reader leaves of its data is skipped.

    The end is a block of zeros, or the end of the stream at a block's border.
    """
    everywhere: dict[str, bytes] = {}  # pax records for all that follows
    records: dict[str, bytes] = {}  # for the next entry only, as are these:
    long_name = long_link = b""
    while True:
        if not stream.skip(stream.left + stream.padding) and stream.left:
            raise _truncated()
        block = stream.block()
        if not block or block == _ZEROS:
            if records or long_name or long_link:
                raise errors.InvalidImage("the archive is truncated: it ends after an extended header")
            return
        if len(block) < BLOCK:
            raise errors.InvalidImage(
                "the archive is truncated, or is no tar archive: it ends in the middle of a header"
            )
        _check_sum(block)
        kind = block[156:157]
        if kind in b"LKxg":
            content = _extended_header(block, stream)
            if kind == b"L":
                long_name = _text(content)
            elif kind == b"K":
                long_link = _text(content)
            elif kind == b"x":
                records = _records(content)
            else:
                everywhere |= _records(content)
                if len(everywhere) > MOST_GLOBAL:
                    raise errors.InvalidImage(f"the archive has more than {MOST_GLOBAL} global headers")
            continue
        entry = Entry(block, stream)
        entry.name = long_name or entry.name
        entry.link = long_link or entry.link
        records = everywhere | records
        if records:
            _extend(entry, records)
        if entry.kind in (b"\0", b"7"):
            entry.kind = REGULAR
        if entry.kind == REGULAR and entry.name.endswith(b"/"):
            entry.kind = DIRECTORY  # how archives older than POSIX spell it
        if entry.kind in b"123456":
            entry.size = 0  # tar(5): some writers leave a size here, and no data behind it
        if entry.kind == b"S":
            _gnu_sparse(entry, block)
        stream.left, stream.padding = entry.size, -entry.size % BLOCK
        if "GNU.sparse.realsize" in records or "GNU.sparse.size" in records:
            _pax_sparse(entry, records)
        entry.position = stream.offset + stream.at
        records, long_name, long_link = {}, b"", b""
        yield entry


def _check_sum(block: bytes) -> None:
    """The sum of the header's bytes, its own field counted as spaces."""
    expected = _number(block[148:156], "checksum")
    # adler32's lower half is 1 + the sum of the bytes, modulo 65521: the sum at C speed, forty times that of sum().
    found = (zlib.adler32(block[:148] + b"        " + block[156:]) & 0xFFFF) - 1
    if (found - expected) % 65521:
        raise errors.InvalidImage("not a tar archive, or a damaged one: a header's checksum is wrong")


def is_header(block: bytes) -> bool:
    """Whether a block could be a member's header: whether its checksum is right."""
    try:
        _check_sum(block)
    except errors.InvalidImage:
        return False
    return True


def _truncated() -> errors.InvalidImage:
    return errors.InvalidImage("the archive is truncated: it ends in the middle of an entry")


# Fields -------------------------------------------------------------------------------------------------------------


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes, what: str, signed: bool = False) -> int:
    """A numeric field: octal text, or behind GNU's mark a binary number."""
    if field[0] in (0x80, 0xFF):
        value = int.from_bytes(field[1:], "big", signed=field[0] == 0xFF)
    else:
        try:
            value = int(_text(field).strip() or b"0", 8)
        except ValueError:
            raise errors.InvalidImage(f"not a tar archive, or a damaged one: {what} is {field!r}") from None
    if not signed and not 0 <= value < 1 << 63:
        raise errors.InvalidImage(f"a tar header with the {what} {value}")
    return value


def _extended_header(block: bytes, stream: Stream) -> bytes:
    size = _number(block[124:136], "size")
    if size > LARGEST_HEADER:
        raise errors.InvalidImage(f"an extended header of {size} bytes; {LARGEST_HEADER} is the most that makes sense")
    stream.left, stream.padding = size, -size % BLOCK
    return b"".join(stream.data(size))


def _records(content: bytes) -> dict[str, bytes]:
    """pax records: `LENGTH KEY=VALUE\\n`, the length counting itself."""
    found: dict[str, bytes] = {}
    sparse: list[bytes] = []
    at = 0
    while at < len(content) and content[at]:
        length = content[at : at + 12].partition(b" ")[0]
        end = at + int(length) if length.isdigit() else at
        record = content[at + len(length) + 1 : end]
        key, equals, value = record[:-1].partition(b"=")
        if end > len(content) or record[-1:] != b"\n" or not equals or not key or b"\0" in key:
            raise errors.InvalidImage("a pax header that is malformed: a record without length, key or end")
        found[key.decode("utf-8", "surrogateescape")] = value
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse.append(value)
        at = end
    if sparse:  # GNU's format 0.0 repeats a pair of records for each piece; 0.1 has all in one
        found["GNU.sparse.map"] = b",".join(sparse)
    return found


def _extend(entry: Entry, records: dict[str, bytes]) -> None:
    """Let pax records override the header. An empty value takes a global record back."""
    for key, value in records.items():
        if key.startswith(_XATTR):
            entry.xattrs[key[len(_XATTR) :]] = value
        elif not value:
            continue
        elif key == "path":
            entry.name = _whole(value)
        elif key == "linkpath":
            entry.link = _whole(value)
        elif key == "mtime":
            entry.mtime = _nanoseconds(value)
        elif key == "size":
            entry.size = _decimal(value, key)
        elif key == "uid":
            entry.uid = _decimal(value, key)
        elif key == "gid":
            entry.gid = _decimal(value, key)


def _whole(name: bytes) -> bytes:
    if b"\0" in name:
        raise errors.InvalidImage(f"a name with a NUL byte: {name[:60]!r}")
    return name


def _decimal(value: bytes, key: str) -> int:
    if not value.isdigit() or len(value) > 19:
        raise errors.InvalidImage(f"a pax header with {key}={value[:40]!r}")
    return int(value)


def _nanoseconds(value: bytes) -> int:
    """`-12.25` → -12250000000. Written out, for a float has no nanoseconds left at today's dates."""
    sign = -1 if value.startswith(b"-") else 1
    seconds, _, fraction = value.removeprefix(b"-").partition(b".")
    if not (seconds + fraction).isdigit() or len(seconds) > 15:
        raise errors.InvalidImage(f"a pax header with mtime={value[:40]!r}")
    return sign * int(seconds + fraction[:9].ljust(9, b"0"))


# Sparse files: the archive has only the pieces that are not holes, and a map of where they belong ---------------------


def _gnu_sparse(entry: Entry, block: bytes) -> None:
    """The old format: pairs of offset and size in the header, and in blocks behind it while a flag says so."""
    numbers: list[int] = []
    pairs, more = block[386:482], block[482]
    entry.real_size = _number(block[483:495], "real size")
    while True:
        for at in range(0, len(pairs), 24):
            if pairs[at]:
                numbers.append(_number(pairs[at : at + 12], "offset"))
                numbers.append(_number(pairs[at + 12 : at + 24], "size"))
        if not more:
            break
        block = entry.stream.block()
        if len(block) < BLOCK:
            raise _truncated()
        if len(numbers) * 12 > LARGEST_HEADER:
            raise errors.InvalidImage("a sparse file with too many pieces")
        pairs, more = block[:504], block[504]
    entry.kind = REGULAR
    _set_holes(entry, numbers)


def _pax_sparse(entry: Entry, records: dict[str, bytes]) -> None:
    """The later ones: 0.0 and 0.1 have the map in a record, 1.0 has it before the data."""
    entry.name = _whole(records.get("GNU.sparse.name") or entry.name)
    entry.real_size = _decimal(records.get("GNU.sparse.realsize") or records["GNU.sparse.size"], "GNU.sparse.size")
    if records.get("GNU.sparse.major") == b"1":
        numbers = _sparse_map(entry.stream)
        entry.size = entry.stream.left
    else:
        text = records.get("GNU.sparse.map")
        numbers = [_decimal(part, "GNU.sparse.map") for part in text.split(b",")] if text else []
    _set_holes(entry, numbers)


def _sparse_map(stream: Stream) -> list[int]:
    """Format 1.0: how many pieces, then the numbers, one a line, filled up to a block."""
    numbers: list[int] = []
    expected = 1
    rest = b""
    while len(numbers) < expected:
        if stream.left < BLOCK or len(rest) > BLOCK or expected > LARGEST_HEADER // 2:
            raise errors.InvalidImage("a sparse file whose map is malformed, or has too many pieces")
        *lines, rest = (rest + b"".join(stream.data(BLOCK))).split(b"\n")
        numbers += [_decimal(line, "sparse map") for line in lines]
        expected = 2 * numbers[0] + 1 if numbers else 1
    return numbers[1:expected]


def _set_holes(entry: Entry, numbers: list[int]) -> None:
    """The pieces must be in order, apart, inside the file, and add up to the data that is there."""
    if len(numbers) % 2:
        raise errors.InvalidImage("a sparse file whose map has an odd number of numbers")
    entry.holes = list(zip(numbers[::2], numbers[1::2], strict=True))
    end = 0
    for offset, size in entry.holes:
        if offset < end or offset + size > entry.real_size:
            raise errors.InvalidImage("a sparse file whose pieces overlap or lie outside of it")
        end = offset + size
    if sum(numbers[1::2]) != entry.size:
        raise errors.InvalidImage("a sparse file whose pieces do not add up to its data")


# Writing ------------------------------------------------------------------------------------------------------------

END = bytes(2 * BLOCK)  # an archive's last blocks


class Member(namedtuple("Member", "name kind mode uid gid size mtime link major minor xattrs pieces")):
    """What `header` describes. `mtime` is in nanoseconds; `size` that of the file, of which only `pieces`, a list of
    (offset, size), is in the archive if they are given: a sparse file, whose map then stands before its data."""

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
    xattrs: dict[str, bytes]
    pieces: list[tuple[int, int]] | None


def header(member: Member) -> bytes:
    """All blocks before the member's data, which the caller then fills up to whole ones (`padding`)."""
    records: dict[bytes, bytes] = {}
    name, size, data_map = member.name, member.size, b""
    if member.pieces is not None:
        data_map, size, name = _sparse_records(member, records)
    short = _fit(b"path", name, 100, records)
    link = _fit(b"linkpath", member.link, 100, records)
    seconds, rest = divmod(member.mtime, 1_000_000_000)
    if rest or not 0 <= seconds < 1 << 33:
        records[b"mtime"] = _decimal_time(member.mtime)
    numbers = {b"uid": (member.uid, 1 << 21), b"gid": (member.gid, 1 << 21), b"size": (size, 1 << 33)}
    for key, (number, bound) in numbers.items():
        if number >= bound:
            records[key] = b"%d" % number
    for attribute, value in member.xattrs.items():
        records[(_XATTR + attribute).encode("utf-8", "surrogateescape")] = value
    blocks = b""
    if records:
        text = b"".join(_record(key, records[key]) for key in sorted(records))
        extended = b"PaxHeaders/" + short.rpartition(b"/")[2]
        blocks = _block(extended[:100], b"x", 0o644, 0, 0, len(text), 0) + text + padding(len(text))
    blocks += _block(
        short, member.kind, member.mode, member.uid, member.gid, size, seconds, link, member.major, member.minor
    )
    return blocks + data_map


def padding(size: int) -> bytes:
    """Zeros, from so many bytes of data to the next block's border."""
    return bytes(-size % BLOCK)


def _fit(key: bytes, text: bytes, room: int, records: dict[bytes, bytes]) -> bytes:
    """The text, if the field has room for it; else its beginning, and a record."""
    if len(text) > room:
        records[key] = text
    return text[:room]


def _sparse_records(member: Member, records: dict[bytes, bytes]) -> tuple[bytes, int, bytes]:
    """GNU's format 1.0: the map, the size of map and data together, the name for who does not understand it."""
    pieces = member.pieces or []
    lines = [len(pieces), *(number for piece in pieces for number in piece)]
    text = b"".join(b"%d\n" % number for number in lines)
    data_map = text + padding(len(text))
    records[b"GNU.sparse.major"], records[b"GNU.sparse.minor"] = b"1", b"0"
    records[b"GNU.sparse.name"] = member.name
    records[b"GNU.sparse.realsize"] = b"%d" % member.size
    return data_map, len(data_map) + sum(size for _, size in pieces), b"GNUSparseFile.0/" + member.name


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`; the length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _decimal_time(nanoseconds: int) -> bytes:
    sign = b"-" if nanoseconds < 0 else b""
    seconds, rest = divmod(abs(nanoseconds), 1_000_000_000)
    return sign + (b"%d.%09d" % (seconds, rest)).rstrip(b"0").rstrip(b".")


def _block(
    name: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, mtime: int,
    link: bytes = b"", major: int = 0, minor: int = 0,
) -> bytes:  # fmt: skip
    """One ustar header. A number that has no room is 0 here: its pax record overrides it."""

    def octal(value: int, digits: int) -> bytes:
        return b"%0*o\0" % (digits, value if 0 <= value < 8**digits else 0)

    fields = [
        name.ljust(100, b"\0"), octal(mode, 7), octal(uid, 7), octal(gid, 7), octal(size, 11), octal(mtime, 11),
        b" " * 8, kind, link.ljust(100, b"\0"), b"ustar\x0000", bytes(64), octal(major, 7), octal(minor, 7), bytes(167),
    ]  # fmt: skip
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
