"""Archives: which there are, and their records, whole or not at all.

in      paths and URLs: archives, folders of archives or of HTML files, Common Crawl's *.paths files
out     (archive, format, bytes) of each; the records of one, with the place where each begins
law     an archive is what its first bytes say, not its name; its records are read as pipeline/records.py says
cost    one pass. A remote archive is a stream of one request, since Common Crawl asks for whole files and not for ranges
source  Common Crawl's lists of paths; WARC 1.1 (ISO 28500)
"""

import gzip
import re
import zlib
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from itertools import chain
from typing import BinaryIO, NamedTuple, cast

import aiohttp
import fsspec

from pipeline import records, storage
from pipeline.errors import InputError
from pipeline.hashing import string_hash
from pipeline.pages import looks_like_html
from pipeline.records import AGAIN, GZIP, Record
from pipeline.responses import MAX_PAGE_BYTES

COMMON_CRAWL = "https://data.commoncrawl.org/"
SUFFIXES = (".warc.gz", ".warc", ".wat.gz", ".wat")
HTML_SUFFIXES = (".html", ".htm")
ZSTD = b"\x28\xb5\x2f\xfd"
HEAD_BYTES = 1 << 16
PIECE_BYTES = 1 << 20
BLOCK_BYTES = 8 << 20  # of one request to an object store
WAT_RECORD = re.compile(rb"^warc-type:\s*metadata\s*$.*^content-type:\s*application/json|^content-type:\s*application/json.*"
                        rb"^warc-type:\s*metadata\s*$", re.I | re.M | re.S)  # fmt: skip


class Source(NamedTuple):
    """An archive, what is in it, and its size where that was asked for."""

    archive: str
    format: str  # wat, warc or html
    archive_bytes: int | None


def part_name(archive: str) -> str:
    """The name of the archive's part: its stem, made safe, and 8 digits of its hash; other for every archive."""
    stem = archive.rstrip("/").rsplit("/", 1)[-1]
    for suffix in (*SUFFIXES, *HTML_SUFFIXES):
        stem = stem.removesuffix(suffix)
    safe = re.sub(r"[^A-Za-z0-9-]+", "-", stem).strip("-")[:80]
    return f"{safe or 'archive'}-{string_hash(archive) >> 32:08x}"


def _http() -> fsspec.AbstractFileSystem:
    # fsspec's own limit is five minutes for a whole file
    return fsspec.filesystem("http", client_kwargs={"timeout": aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)})


def _filesystem(path: str) -> fsspec.AbstractFileSystem:
    if path.startswith(("http://", "https://")):
        return _http()
    return storage.filesystem(path if storage.is_remote(path) else "file://")


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Turn what cannot be read into an InputError that says which path and what to do."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"crawl: {path}: expected an archive, found nothing there; check the path") from error
    except (OSError, aiohttp.ClientError) as error:
        hint = "try again later" if storage.is_remote(path) else "check that this program may read it"
        raise InputError(f"crawl: {path}: cannot be read: {error or type(error).__name__}; {hint}") from error


def _read(path: str, num_bytes: int = -1) -> bytes:
    """The first bytes of a file, or all of it."""
    with _told(path), _filesystem(path).open(path, "rb") as file:
        return cast("BinaryIO", file).read(num_bytes)


def _inflated(data: bytes) -> bytes:
    """The start of what gzip members hold, as far as they are whole and here; at most 16 times HEAD_BYTES."""
    pieces: list[bytes] = []
    try:
        while data.startswith(GZIP) and sum(map(len, pieces)) < HEAD_BYTES:
            member = zlib.decompressobj(31)
            pieces.append(member.decompress(data, 16 * HEAD_BYTES))
            data = member.unused_data
    except zlib.error:
        pass
    return b"".join(pieces)


def sniff(path: str, head: bytes) -> str:
    """The format of a file by its first bytes: wat, warc or html. InputError where it is none of them."""
    if head.startswith(ZSTD):
        raise InputError(f"crawl: {path}: expected an archive compressed with gzip or not at all, found zstd; recompress it")
    text = _inflated(head) if head.startswith(GZIP) else head
    if text.startswith(b"WARC/"):
        headers = text.split(b"WARC/1.", 4)[1:4]
        return (
            "wat"
            if any(WAT_RECORD.search(record.partition(b"\r\n\r\n")[0].replace(b"\r", b"")) for record in headers)
            else "warc"
        )
    if looks_like_html(head) or (path.lower().endswith(HTML_SUFFIXES) and b"<" in head and b"\0" not in head):
        return "html"
    what = "an empty file" if not head else f"a file that begins with {(text or head)[:12]!r}"
    raise InputError(
        f"crawl: {path}: expected a WARC, WAT or HTML file, found {what}; give the archive itself, or a folder of archives"
    )


def _folder(path: str) -> list[str]:
    """The archives below a folder, sorted; its HTML files where it has no archives."""
    store = _filesystem(path)
    with _told(path):
        files = sorted(store.find(path))
    scheme = path.split("://", 1)[0] + "://" if storage.is_remote(path) and not path.startswith("http") else ""
    files = [file if "://" in file else scheme + file for file in files]
    for suffixes in (SUFFIXES, HTML_SUFFIXES):
        if found := [file for file in files if file.lower().endswith(suffixes)]:
            return found
    raise InputError(
        f"crawl: {path}: expected a folder with {', '.join('*' + suffix for suffix in (*SUFFIXES, *HTML_SUFFIXES))} below it, "
        f"found {len(files)} other files; give the folder that holds the archives"
    )


def _listed(path: str) -> list[Source]:
    """The archives that a *.paths file lists; taken by their names, because asking for 90,000 heads is not polite."""
    data = _read(path)
    try:
        lines = (gzip.decompress(data) if data.startswith(GZIP) else data).decode("utf-8").split()
    except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"crawl: {path}: expected a list of paths, found what cannot be read: {error}; {AGAIN}") from error
    found = []
    for line in lines:
        kind = "wat" if line.endswith((".wat", ".wat.gz")) else "warc" if line.endswith((".warc", ".warc.gz")) else None
        if kind is None:
            raise InputError(
                f"crawl: {path}: expected paths of WARC or WAT files, found {line[:100]!r}; give a wat.paths or warc.paths file"
            )
        found.append(Source(line if "://" in line or line.startswith("/") else COMMON_CRAWL + line, kind, None))
    if not found:
        raise InputError(f"crawl: {path}: expected a list of paths, found an empty one; give a wat.paths or warc.paths file")
    return found


def _is_folder(path: str) -> bool:
    if path.startswith(("http://", "https://")):
        return False
    with _told(path):
        return bool(_filesystem(path).isdir(path))


def expand_archives(archives: Sequence[str]) -> list[Source]:
    """Every archive that the given paths and URLs mean, in the order given, each once.

    Each is looked at (but for those that a *.paths file lists). InputError: nothing given, nothing there, no archive.
    """
    if not archives:
        raise InputError(
            "crawl: expected at least one archive, found none; give --archives with a file, a folder or a *.paths file"
        )
    found: list[Source] = []
    for given in archives:
        if given.endswith((".paths", ".paths.gz")):
            found += _listed(given)
            continue
        for path in _folder(given) if _is_folder(given) else [given]:
            kind = sniff(path, _read(path, HEAD_BYTES))
            with _told(path):
                found.append(Source(path, kind, _filesystem(path).size(path)))
    return list({source.archive: source for source in reversed(found)}.values())[::-1]


def _read_ahead(file: BinaryIO) -> Iterator[bytes]:
    """The pieces of a stream; the next one is on its way while one is worked on."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(file.read, PIECE_BYTES)
        while piece := coming.result():
            coming = pool.submit(file.read, PIECE_BYTES)
            yield piece


def read_pieces(archive: str, start: int = 0) -> Generator[bytes, None, None]:
    """The bytes of a file in pieces, as one stream: a web server gets one request, an object store one for each block.

    start: the first byte that is wanted; a web server is then asked for pieces
    """
    with ExitStack() as stack:
        with _told(archive):
            if not storage.is_remote(archive):
                stream = open(archive, "rb")  # noqa: SIM115
            elif archive.startswith(("http://", "https://")) and not start:
                stream = _http().open(archive, "rb", block_size=0, size=1)  # any size: else it asks for it first
            else:
                stream = _filesystem(archive).open(archive, "rb", block_size=BLOCK_BYTES)
            file = cast("BinaryIO", stack.enter_context(stream))
            if start:
                file.seek(start)
        pieces = _read_ahead(file) if storage.is_remote(archive) else iter(lambda: file.read(PIECE_BYTES), b"")
        while True:
            with _told(archive):
                piece = next(pieces, b"")
            if not piece:
                return
            yield piece


def read_html(archive: str) -> bytes:
    """The bytes of an HTML file; of a larger one than a page may be, its beginning."""
    found, size = [], 0
    for piece in read_pieces(archive):
        found.append(piece)
        size += len(piece)
        if size >= MAX_PAGE_BYTES:
            break
    return b"".join(found)[:MAX_PAGE_BYTES]


def read_records(archive: str, wanted: bytes) -> Iterator[Record]:
    """The records of one type. InputError: not an archive, broken, or cut off (then after the last whole record)."""
    pieces = read_pieces(archive)
    head = b""
    while len(head) < HEAD_BYTES and (piece := next(pieces, b"")):
        head += piece
    if sniff(archive, head) == "html":
        raise InputError(f"crawl: {archive}: expected a WARC or WAT file, found HTML; its source says another format than it has")
    yield from records.read(archive, chain([head], pieces), wanted)


def read_record(archive: str, offset: int, kind: str) -> Record | None:
    """The record at one place of an archive of format `kind` (wat, warc), and nothing else of it; None: of another type."""
    with closing(read_pieces(archive, offset)) as pieces:
        return records.read_at(archive, offset, pieces, b"metadata" if kind == "wat" else b"response")
