"""Records: those of one WARC or WAT file, whole or not at all, read as a stream.

in      the pieces of a file, compressed record by record or not at all, hostile
out     its records of one type with the place where each begins
law     `offset` and length are enough to fetch a record again. A file that stops anywhere but between two records, whose
        record is not as long as it says, or that is broken raises InputError at that record: who reads it must keep nothing
        before the end. Of a block the first MAX_BLOCK_BYTES are kept, however far it inflates
cost    one pass; one record and one piece of the file in memory
source  WARC 1.1 (ISO 28500), annex on gzip; RFC 1952. zlib-ng inflates 1.4 to 1.5 times as fast as zlib and a bit faster than
        ISA-L on members of the size of WAT records (tests/benchmarks/crawl.py prints all three)
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from zlib_ng import zlib_ng

from pipeline.errors import InputError

GZIP = b"\x1f\x8b"
FIRST_BYTES = 1 << 14  # of a member: holds most WAT records
INFLATE_BYTES = 4 << 20  # at most at once
MAX_BLOCK_BYTES = 64 << 20
MAX_HEADER_BYTES = 1 << 20
LENGTH = re.compile(rb"\d{1,18}")
END = b"\r\n\r\n"
AGAIN = "the download was cut off: download it again"


class Record(NamedTuple):
    """A record of an archive: where it begins, the URL that it is about, its block."""

    offset: int
    target: str
    block: bytes


class Head(NamedTuple):
    """What a record's header says, and where its block begins in the text that was looked at."""

    text: bytes
    block: int
    length: int

    @property
    def end(self) -> int:
        """Where the block ends."""
        return self.block + self.length

    def target(self) -> str:
        """WARC-Target-URI, without the brackets that WARC 1.0 wrote."""
        return _field(self.text, b"warc-target-uri").decode("utf-8", "replace").removeprefix("<").removesuffix(">")


def _field(head: bytes, name: bytes) -> bytes:
    """The value of a named field of a header, which has CRLF between its lines; empty where there is none."""
    start = head.lower().find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else len(head)].strip()


def cut_off(archive: str, offset: int) -> InputError:
    """The error for an archive that ends too early."""
    return InputError(
        f"crawl: {archive} ends in the middle of a record, the one at byte {offset}: expected the whole record; {AGAIN}"
    )


def broken(archive: str, offset: int, what: str) -> InputError:
    """The error for a record that is not what it says."""
    return InputError(f"crawl: {archive}: broken in the record at byte {offset}: {what}; download it again")


def _head(archive: str, offset: int, text: bytes) -> Head | None:
    """The header at the start of `text`; None where its end is not there yet."""
    end = text.find(END, 0, MAX_HEADER_BYTES)
    if not text.startswith(b"WARC/"[: len(text)]) or (end < 0 and len(text) > MAX_HEADER_BYTES):
        raise broken(archive, offset, f"expected the header of a record, found {text[:12]!r}")
    if end < 0:
        return None
    head = text[:end]
    length = _field(head, b"content-length")
    if not LENGTH.fullmatch(length):
        raise broken(archive, offset, f"expected a header with a Content-Length, found {length[:20]!r}")
    return Head(head, end + len(END), int(length))


class Reader:
    """A file's bytes, piece by piece, and how far they are read."""

    def __init__(self, archive: str, pieces: Iterator[bytes]):
        self.archive, self.pieces = archive, pieces
        self.data, self.position = b"", 0
        self.start = 0  # of data in the file
        self.record = 0  # where the record that is being read begins

    def need(self, num_bytes: int) -> bool:
        """Read on until so many bytes lie ahead; False where the file ends before."""
        ahead = len(self.data) - self.position
        if ahead >= num_bytes:
            return True
        found = [self.data[self.position :]]
        while ahead < num_bytes and (piece := next(self.pieces, b"")):
            found.append(piece)
            ahead += len(piece)
        self.start += self.position
        self.data, self.position = b"".join(found), 0
        return ahead >= num_bytes

    def more(self) -> bool:
        """Read one more piece; False at the end of the file."""
        return self.need(len(self.data) - self.position + 1)

    def inflated(self) -> Iterator[bytes]:
        """The text of the gzip member that begins here, in pieces of at most INFLATE_BYTES; then the position is its end."""
        member, step = zlib_ng.decompressobj(31), FIRST_BYTES
        try:
            while not member.eof:
                if not self.need(1):
                    raise cut_off(self.archive, self.record)
                chunk = self.data[self.position : self.position + step]
                self.position += len(chunk)
                text = member.decompress(chunk, INFLATE_BYTES)
                while len(text) == INFLATE_BYTES:
                    yield text
                    text = member.decompress(member.unconsumed_tail, INFLATE_BYTES)
                yield text
                step = min(4 * step, 1 << 20)
        except zlib_ng.error as error:  # pyright: ignore[reportGeneralTypeIssues]
            raise broken(self.archive, self.record, str(error)) from error
        self.position -= len(member.unused_data)

    def member(self, wanted: bytes) -> Record | None:
        """The record in the gzip member that begins here, if it is of the type `wanted`."""
        kept: list[bytes] = []
        size, head = 0, None
        for piece in self.inflated():
            if size < MAX_BLOCK_BYTES + MAX_HEADER_BYTES:
                kept.append(piece)
            size += len(piece)
            if size and head is None:
                head = _head(self.archive, self.record, b"".join(kept))
            if head and size > head.end + len(END):
                if b"".join(kept)[head.end :].lstrip(b"\r\n").startswith(b"WARC/"):
                    raise InputError(
                        f"crawl: {self.archive}: expected every record compressed on its own, found one piece; "
                        "rewrite it with `warcio recompress OLD NEW`"
                    )
                raise broken(self.archive, self.record, f"expected {head.length} bytes, found more")
        if not size:
            return None
        if head is None or size < head.end + len(END):
            raise cut_off(self.archive, self.record)
        return self.finished(head, b"".join(kept), wanted)

    def plain(self, wanted: bytes) -> Record | None:
        """The record that begins here in a file that is not compressed, if it is of the type `wanted`."""
        head = None
        while head is None:
            head = _head(self.archive, self.record, self.data[self.position : self.position + MAX_HEADER_BYTES + 1])
            if head is None and not self.more():
                raise cut_off(self.archive, self.record)
        kept = min(head.end, head.block + MAX_BLOCK_BYTES)
        if not self.need(kept):
            raise cut_off(self.archive, self.record)
        text = self.data[self.position : self.position + kept]
        self.position += kept
        left = head.end - kept
        while left:
            if not self.need(1):
                raise cut_off(self.archive, self.record)
            skipped = min(left, len(self.data) - self.position)
            self.position, left = self.position + skipped, left - skipped
        if not self.need(len(END)):
            raise cut_off(self.archive, self.record)
        if not self.data.startswith(END, self.position):
            raise broken(self.archive, self.record, f"expected an empty line after {head.length} bytes, found none")
        self.position += len(END)
        return self.finished(head, text, wanted)

    def next(self, wanted: bytes) -> Record | None:
        """The record that begins here, compressed or not, if it is of the type `wanted`."""
        compressed = self.need(len(GZIP)) and self.data.startswith(GZIP, self.position)
        return self.member(wanted) if compressed else self.plain(wanted)

    def finished(self, head: Head, text: bytes, wanted: bytes) -> Record | None:
        """The record of a header and the text that it stands in."""
        if _field(head.text, b"warc-type").lower() != wanted:
            return None
        return Record(self.record, head.target(), text[head.block : min(head.end, head.block + MAX_BLOCK_BYTES)])


def read(archive: str, pieces: Iterator[bytes], wanted: bytes) -> Iterator[Record]:
    """The records of the type `wanted` (b"response", b"metadata") of a file that comes in pieces."""
    reader = Reader(archive, pieces)
    while reader.need(1):
        first = reader.data[reader.position]
        reader.record = reader.start + reader.position
        if first in b"\r\n":
            reader.position += 1
            continue
        if first == 0:  # padding of a tape or a disk image
            while reader.need(1):
                if reader.data[reader.position :].strip(b"\0"):
                    raise cut_off(archive, reader.record)
                reader.position = len(reader.data)
            return
        record = reader.next(wanted)
        if record is not None:
            yield record


def read_at(archive: str, offset: int, pieces: Iterator[bytes], wanted: bytes) -> Record | None:
    """The record that begins at `offset`, of a file whose pieces come from there on; None where it is of another type."""
    reader = Reader(archive, pieces)
    reader.start = reader.record = offset
    if not reader.need(1):
        raise cut_off(archive, offset)
    return reader.next(wanted)
