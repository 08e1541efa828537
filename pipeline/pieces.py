"""Pieces: an input file cut where several workers can begin, and the bytes of one piece.

in      files on disk, s3:// or https://, plain, gzip or bzip2 by their first bytes, of several members or streams
out     one row of schema.QUERY_PIECES for each piece; its decompressed bytes, a block at a time
law     the pieces of a file laid end to end are the file. A dump is cut between two pages, a text between two lines: plain
        files anywhere, multistream bzip2 between two streams (no index file is needed: a stream begins with ten bytes that
        do not stand in compressed data). What is one stream is one piece
law     a file that stops in the middle, has bytes after its end, or is not what its name says raises InputError
cost    one pass over the file as it is stored for its sha256 and its cuts; memory for a few blocks. What
        cannot be cut is read by one worker; over MAX_WHOLE_BYTES of it is refused, but for page views
source  RFC 1952 (gzip); bzip2 1.0 (BZh[1-9], block magic 0x314159265359); Wikimedia, "Data dumps/Dump format", multistream
"""

import bz2
import hashlib
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

import aiohttp
import fsspec
import pyarrow as pa

from pipeline import schema, storage
from pipeline.errors import InputError
from pipeline.hashing import sha256

BLOCK_BYTES = 1 << 20
HEAD_BYTES = 1 << 20
MAX_WHOLE_BYTES = 1 << 30
MAX_LINE_BYTES = 1 << 24  # of concepts and of WordNet
MAX_TRIES = 32  # streams in a row that do not begin with a page: then this is no multistream dump
GZIP, BZIP2 = b"\x1f\x8b", re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)")
STREAM = re.compile(rb"BZh[1-9]1AY&SY")
STREAM_BYTES = 10
PAGE = b"<page>"
SUFFIXES = {".gz": "gzip", ".bz2": "bzip2"}
KINDS = {"concept": "concept_files", "dump": "dump_files", "text": "text_files", "views": "view_files", "wordnet": "wordnet_dir"}


class Piece(NamedTuple):
    """A row of schema.QUERY_PIECES."""

    kind: str
    number: int
    path: str
    packing: str
    start: int
    end: int
    file_bytes: int
    sha256: str

    def name(self) -> str:
        """What errors call it."""
        return f"{self.path} (named in {KINDS[self.kind]})"


@contextmanager
def opened(path: str, kind: str) -> Iterator[IO[bytes]]:
    """The file, for reading; InputError that names its option where it cannot be read."""
    try:
        with _open(path) as file:
            yield file
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"queries: no file {path} (named in {KINDS[kind]}); correct the path") from None
    except (OSError, aiohttp.ClientError) as error:
        raise InputError(f"queries: {path} (named in {KINDS[kind]}) cannot be read: {error or type(error).__name__}") from error


def _open(path: str) -> Any:
    if not path.startswith(("http://", "https://")):
        return storage.open_read(path)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
    return fsspec.filesystem("http", client_kwargs={"timeout": timeout}).open(path, "rb")


def mark(path: str, kind: str) -> tuple[int, str]:
    """Bytes of the file and a quick hash: of its ends, and of what the disk or the store knows of its last change."""
    with opened(path, kind) as file:
        num_bytes = file.seek(0, 2)
        file.seek(0)
        ends = file.read(HEAD_BYTES)
        if num_bytes > 2 * HEAD_BYTES:
            file.seek(num_bytes - HEAD_BYTES)
        ends += file.read(HEAD_BYTES)
    if num_bytes <= 2 * HEAD_BYTES:
        return num_bytes, sha256(ends)
    changed: Any = {}
    if not path.startswith(("http://", "https://")):
        changed = storage.filesystem(path if storage.is_remote(path) else "file://").info(path)
    told = [str(changed.get(key, "")) for key in ("ETag", "LastModified", "mtime")]
    return num_bytes, sha256(ends + "\n".join(told).encode())


def scan(kind: str, number: int, path: str, piece_bytes: int) -> pa.Table:
    """The pieces of a file, of about `piece_bytes` as stored."""
    with opened(path, kind) as file:
        head = file.read(BLOCK_BYTES)
        packing = "gzip" if head.startswith(GZIP) else "bzip2" if BZIP2.match(head) else "plain"
        expected = next((name for suffix, name in SUFFIXES.items() if path.endswith(suffix)), packing)
        if expected != packing and head:
            raise _torn(f"{path} (named in {KINDS[kind]})", expected, "it does not begin like one")
        digest, num_bytes, cuts = _walk(file, head, kind, packing, piece_bytes)
        if packing == "bzip2":
            cuts = _page_starts(file, cuts, piece_bytes)
    if len(cuts) == 1 and num_bytes > MAX_WHOLE_BYTES and packing != "plain" and kind in ("dump", "text"):
        raise InputError(
            f"queries: {path} (named in {KINDS[kind]}) is {num_bytes:,} bytes of {packing} in one piece, which one worker would "
            f"have to count in memory; give the multistream dump, the numbered files, or unpack it (limit {MAX_WHOLE_BYTES:,})"
        )
    ends = [*cuts[1:], num_bytes]
    rows = [Piece(kind, number, path, packing, *span, num_bytes, digest) for span in zip(cuts, ends, strict=True)]
    return pa.Table.from_pylist([row._asdict() for row in rows], schema.QUERY_PIECES)


def _walk(file: IO[bytes], head: bytes, kind: str, packing: str, piece_bytes: int) -> tuple[str, int, list[int]]:
    """sha256, bytes, and where pieces may begin: of bzip2 every stream, of plain files a place at least every piece_bytes."""
    digest, num_bytes, cuts, tail = hashlib.sha256(), 0, [0], b""
    marker = PAGE if kind == "dump" else b"\n"
    skip = 0 if kind == "dump" else 1  # a piece begins with the page, but after the line end
    block = head
    while block:
        digest.update(block)
        window, at = tail + block, num_bytes - len(tail)
        if packing == "bzip2" and kind == "dump":
            cuts += [at + found.start() for found in STREAM.finditer(window) if at + found.start() > cuts[-1]]
        elif packing == "plain" and kind in ("dump", "text"):
            while (found := window.find(marker, max(0, cuts[-1] + piece_bytes - at))) >= 0:
                cuts.append(at + found + skip)
        num_bytes += len(block)
        tail = window[-(STREAM_BYTES - 1) :]
        block = file.read(BLOCK_BYTES)
    return digest.hexdigest(), num_bytes, [cut for cut in cuts if cut < num_bytes or cut == 0]


def _page_starts(file: IO[bytes], streams: list[int], piece_bytes: int) -> list[int]:
    """Of the streams of a multistream dump those that begin a piece: about piece_bytes apart, and with a page."""
    cuts, tries = [0], 0
    for start in streams[1:]:
        if start - cuts[-1] < piece_bytes:
            continue
        file.seek(start)
        try:
            text = bz2.BZ2Decompressor().decompress(file.read(HEAD_BYTES), BLOCK_BYTES)
        except OSError:
            text = b""
        if text.lstrip().startswith(PAGE):
            cuts.append(start)
            tries = 0
        elif (tries := tries + 1) == MAX_TRIES:
            break
    return cuts


def _torn(name: str, packing: str, what: object) -> InputError:
    return InputError(f"queries: {name} is not a whole {packing} file: {what}; make or fetch it again")


def blocks(piece: Piece) -> Iterator[bytes]:
    """The decompressed bytes of a piece, at most BLOCK_BYTES at a time."""
    with opened(piece.path, piece.kind) as file:
        file.seek(piece.start)
        stored = _stored(file, piece)
        yield from stored if piece.packing == "plain" else _inflated(stored, piece)


def _stored(file: IO[bytes], piece: Piece) -> Iterator[bytes]:
    left = piece.end - piece.start
    while left:
        block = file.read(min(left, BLOCK_BYTES))
        if not block:
            raise InputError(f"queries: {piece.name()} became shorter while it was read; run the same command again")
        left -= len(block)
        yield block


def _inflated(stored: Iterator[bytes], piece: Piece) -> Iterator[bytes]:
    """Members or streams one after another; padding with zeros is allowed at the end, as gzip(1) and bzip2(1) do."""
    inflater: Any = None
    try:
        for block in stored:
            data = block
            while data or (inflater is not None and not inflater.needs_input):
                if inflater is None:
                    data = data.lstrip(b"\0")
                    if not data:
                        break
                    inflater = _Gunzip() if piece.packing == "gzip" else bz2.BZ2Decompressor()
                text = inflater.decompress(data, BLOCK_BYTES)
                data = b""
                if inflater.eof:
                    data, inflater = inflater.unused_data, None
                if text:
                    yield text
    except (OSError, EOFError, zlib.error) as error:
        raise _torn(piece.name(), piece.packing, error) from None
    if inflater is not None:
        raise _torn(piece.name(), piece.packing, "it ends in the middle")


class _Gunzip:
    """zlib's decompressor of one gzip member with bz2's manners."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._member.decompress(self._member.unconsumed_tail + data, max_length)

    @property
    def needs_input(self) -> bool:
        return not self._member.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def unused_data(self) -> bytes:
        return self._member.unused_data


def lines(piece: Piece) -> Iterator[str]:
    """The lines of a UTF-8 text; bytes that are no UTF-8 become U+FFFD."""
    rest = b""
    for block in blocks(piece):
        whole = (rest + block).split(b"\n")
        rest = whole.pop()
        if len(rest) > MAX_LINE_BYTES:
            raise InputError(f"queries: {piece.name()} has a line of more than {MAX_LINE_BYTES:,} bytes; give one query a line")
        yield from (line.decode("utf-8", "replace") for line in whole)
    if rest:
        yield rest.decode("utf-8", "replace")
