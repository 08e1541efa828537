"""Archives: which there are, and their records, whole or not at all.

in      paths and URLs: archives, folders of archives or of HTML files, Common Crawl's *.paths files
out     (archive, format, bytes) of each; the records of one, with the place where each begins
law     an archive is what its first bytes say, not its name. Records are compressed one by one, so that `offset` and
        length are enough to fetch one again. An archive that stops anywhere but between two records raises InputError
        after its last whole record: who reads it must keep nothing before the end
cost    one pass; the end is checked by inflating the last record once more. A remote archive is first copied to a
        temporary file with one request: Common Crawl asks for whole files, not for ranges
source  WARC 1.1 (ISO 28500), annex on gzip; fastwarc reads, but ends in silence where a file is cut off: hence the check
"""

import gzip
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import BinaryIO, NamedTuple, cast

import aiohttp
import fsspec
from fastwarc.warc import ArchiveIterator, WarcRecordType

from pipeline import storage
from pipeline.errors import InputError
from pipeline.hashing import string_hash
from pipeline.pages import looks_like_html

COMMON_CRAWL = "https://data.commoncrawl.org/"
SUFFIXES = (".warc.gz", ".warc", ".wat.gz", ".wat")
HTML_SUFFIXES = (".html", ".htm")
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
HEAD_BYTES = 1 << 16
PIECE_BYTES = 1 << 20
CONTENT_LENGTH = re.compile(rb"^content-length:\s*(\d{1,18})\s*$", re.I | re.M)
WAT_RECORD = re.compile(rb"^warc-type:\s*metadata\s*$.*^content-type:\s*application/json|^content-type:\s*application/json.*"
                        rb"^warc-type:\s*metadata\s*$", re.I | re.M | re.S)  # fmt: skip
AGAIN = "the download was cut off: download it again"


class Source(NamedTuple):
    """An archive, what is in it, and its size where that was asked for."""

    archive: str
    format: str  # wat, warc or html
    archive_bytes: int | None


class Record(NamedTuple):
    """A record of an archive: where it begins, the URL that it is about, its block."""

    offset: int
    target: str
    block: bytes


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


@contextmanager
def open_archive(archive: str) -> Iterator[BinaryIO]:
    """A seekable stream of the archive; a remote one is copied to a temporary file first."""
    with ExitStack() as stack:
        if not storage.is_remote(archive):
            with _told(archive):
                local = stack.enter_context(open(archive, "rb"))
            yield local
            return
        copy = cast("BinaryIO", stack.enter_context(tempfile.TemporaryFile()))
        with _told(archive):
            if archive.startswith(("http://", "https://")):
                _http().get_file(archive, copy)
            else:
                shutil.copyfileobj(stack.enter_context(storage.open_read(archive)), copy, 8 * PIECE_BYTES)
        copy.seek(0)
        yield copy


def read_html(archive: str) -> bytes:
    """The bytes of an HTML file."""
    with open_archive(archive) as file:
        return file.read()


def records(archive: str, wanted: WarcRecordType) -> Iterator[Record]:
    """The records of one type. InputError: not an archive, broken, or cut off (then after the last whole record)."""
    with open_archive(archive) as file:
        kind = sniff(archive, file.read(HEAD_BYTES))
        if kind == "html":
            raise InputError(
                f"crawl: {archive}: expected a WARC or WAT file, found HTML; its source says another format than it has"
            )
        _check_first_member(archive, file)
        file.seek(0)
        offset = 0
        reader = ArchiveIterator(file, parse_http=False)
        while True:
            try:
                record = next(reader, None)
                if record is None:
                    break
                offset = record.stream_pos
                if record.record_type != wanted:
                    continue
                expected, block = record.content_length, record.reader.read()
            except OSError as error:
                raise InputError(
                    f"crawl: {archive}: broken in or after the record at byte {offset}: {error}; download it again"
                ) from error
            if len(block) != expected:
                raise cut_off(archive, offset)
            target = record.headers.get("WARC-Target-URI") or ""
            yield Record(offset, target.strip().removeprefix("<").removesuffix(">"), block)
        _check_end(archive, file, offset)


def cut_off(archive: str, offset: int) -> InputError:
    """The error for an archive that ends too early."""
    return InputError(
        f"crawl: {archive} ends in the middle of a record, the one at byte {offset}: expected the whole record; {AGAIN}"
    )


def _record_end(data: bytes, start: int) -> int | None:
    """Where the record that begins at `start` ends, its two empty lines included; None where that is not in `data`."""
    header_end = data.find(b"\r\n\r\n", start)
    if not data.startswith(b"WARC/", start) or header_end < 0:
        return None
    length = CONTENT_LENGTH.search(data[start:header_end].replace(b"\r", b""))
    if length is None:
        return None
    end = header_end + 4 + int(length[1])
    return end + 4 if data.startswith(b"\r\n\r\n", end) else None


def _check_first_member(archive: str, file: BinaryIO) -> None:
    """Raise InputError where the first gzip member holds more than one record: then no record has a place of its own."""
    file.seek(0)
    data = file.read(HEAD_BYTES)
    if not data.startswith(GZIP):
        return
    member, text = zlib.decompressobj(31), b""
    end: int | None = None
    while data and not member.eof and (end is None or len(text) < end + HEAD_BYTES):
        try:
            text += member.decompress(data)
        except zlib.error as error:
            raise InputError(f"crawl: {archive}: broken in the record at byte 0: {error}; download it again") from error
        end = end or _record_end(text, 0)
        data = file.read(len(text) + HEAD_BYTES)  # pieces grow, so that a large record is not put together quadratically
    if end is not None and text[end:].lstrip().startswith(b"WARC/"):
        raise InputError(
            f"crawl: {archive}: expected every record compressed on its own, found one piece; "
            "rewrite it with `warcio recompress OLD NEW`"
        )


def _check_end(archive: str, file: BinaryIO, offset: int) -> None:
    """Raise InputError unless the file ends with the end of a record. `offset`: where its last record begins."""
    file.seek(offset)
    data = file.read()
    if data.startswith(GZIP):
        pieces: list[bytes] = []
        while data.strip(b"\0"):
            member = zlib.decompressobj(31)
            try:
                pieces.append(member.decompress(data))
            except zlib.error as error:
                raise cut_off(archive, offset) from error
            if not member.eof:
                raise cut_off(archive, offset)
            data = member.unused_data
        data = b"".join(pieces)
    start = 0
    while start < len(data):
        end = _record_end(data, start)
        if end is None:
            raise cut_off(archive, offset)
        start = end + len(data[end:]) - len(data[end:].lstrip(b"\r\n"))
