"""Responses: the HTML page in a WARC response record.

in      the block of a record: status line, headers, body, as sent, hostile
out     the page's bytes and the charset of its header, or None: another status than 200, not HTML
law     never raises; an unpacked body is at most MAX_PAGE_BYTES long
source  RFC 9112 (chunked), RFC 9110 (Content-Encoding). Crawlers often store the unpacked body under the headers of the
        packed one: a body that does not look packed is taken as it is
"""

import re
import zlib
from typing import NamedTuple

import brotli

from pipeline.pages import looks_like_html

MAX_PAGE_BYTES = 32 << 20
STATUS_OK = re.compile(rb"HTTP/\d(?:\.\d)?\s+200\b")
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[^\r\n]{0,200}\r?\n")
CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\s;\"']+)", re.I)
HTML_TYPES = ("text/html", "application/xhtml+xml")


class Page(NamedTuple):
    """The bytes of a page, None where they cannot be unpacked, and what its HTTP header says of their encoding."""

    html: bytes | None
    charset: str | None


def _dechunk(body: bytes) -> bytes:
    """The body without its chunk sizes; as it is where it has none, up to where they break off."""
    pieces: list[bytes] = []
    position = 0
    while match := CHUNK_SIZE.match(body, position):
        size = int(match[1], 16)
        pieces.append(body[match.end() : match.end() + size])
        position = match.end() + size
        if size == 0:
            break
        position += 2 if body[position : position + 2] == b"\r\n" else 1
    return b"".join(pieces) if pieces else body


def _inflate(body: bytes, window: int) -> bytes | None:
    try:
        return zlib.decompressobj(window).decompress(body, MAX_PAGE_BYTES)
    except zlib.error:
        return None


def _debrotli(body: bytes) -> bytes | None:
    try:
        return brotli.Decompressor().process(body, output_buffer_limit=MAX_PAGE_BYTES)[:MAX_PAGE_BYTES]
    except brotli.error:
        return None


def _unpack(body: bytes, coding: str) -> bytes | None:
    """The body without one content coding; None where that cannot be undone."""
    if coding in ("", "identity"):
        return body
    if coding in ("gzip", "x-gzip"):
        return _inflate(body, 31) if body.startswith(b"\x1f\x8b") else body
    if looks_like_html(body):
        return body
    if coding == "deflate":
        return _inflate(body, zlib.MAX_WBITS) or _inflate(body, -zlib.MAX_WBITS)
    return _debrotli(body) if coding == "br" else None


def page(block: bytes) -> Page | None:
    """The HTML page that the record answers with, or None."""
    head, separator, body = block.partition(b"\r\n\r\n")
    if not separator or not STATUS_OK.match(head):
        return None
    headers: dict[str, str] = {}
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.decode("latin-1").partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type and media_type not in HTML_TYPES:
        return None
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _dechunk(body)
    for coding in reversed(headers.get("content-encoding", "").lower().split(",")[-3:]):
        unpacked = _unpack(body, coding.strip())
        if unpacked is None:
            return Page(None, None) if media_type else None
        body = unpacked
    if not media_type and not looks_like_html(body):
        return None
    charset = CHARSET.search(headers.get("content-type", ""))
    return Page(body[:MAX_PAGE_BYTES], charset[1] if charset else None)
