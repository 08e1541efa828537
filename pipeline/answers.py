"""What an answer of a web server means: failures with their reasons, redirects, pauses, packed bodies.

law     a reason is one of DROPS; an unpacked body never grows past the limit that it was given
source  RFC 9110
"""

import ssl
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from socket import gaierror

import ada_url

from pipeline.addresses import NotPublic

ROBOTS, DNS, ADDRESS, CONNECT, TLS, TIMEOUT = "robots", "dns", "address", "connect", "tls", "timeout"
REDIRECT, HTTP_4XX, HTTP_5XX, TOO_LARGE, OPT_OUT = "redirect", "http_4xx", "http_5xx", "too_large", "opt_out"
DROPS = (ROBOTS, DNS, ADDRESS, CONNECT, TLS, TIMEOUT, REDIRECT, HTTP_4XX, HTTP_5XX, TOO_LARGE, OPT_OUT)

BUSY = (429, 503)
FOLLOWED = (301, 302, 303, 307, 308)
MAX_PAUSE_SECONDS = 60.0  # the longest Retry-After that is waited for
PACKINGS = ("gzip", "x-gzip", "deflate")


class Failed(Exception):
    """There is no picture at the URL, for one of DROPS.

    retry          whether the same request may succeed soon
    pause_seconds  what the server asked to wait
    status         of the answer; 0 where there was none or it was not the trouble
    """

    def __init__(self, reason: str, *, retry: bool = False, pause_seconds: float = 0.0, status: int = 0):
        super().__init__(reason)
        self.reason = reason
        self.retry = retry and pause_seconds <= MAX_PAUSE_SECONDS
        self.pause_seconds = pause_seconds
        self.status = status


class Moved(Exception):
    """The answer is a redirect to `location` (None: to nowhere)."""

    def __init__(self, location: str | None):
        super().__init__(location)
        self.location = location


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the Retry-After header asks for; 0 where there is none that can be read."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, IndexError, OverflowError):
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def length_of(headers: Mapping[str, str]) -> int:
    """Bytes of the body, as its head says; 0 where it does not say."""
    value = headers.get("Content-Length", "")
    return int(value[:20]) if value.isascii() and value.isdigit() else 0


def follow(url: str, location: str | None) -> str:
    """The URL that a redirect from `url` leads to, without its fragment; Failed where it leads nowhere or off the web."""
    if not location:
        raise Failed(REDIRECT)
    try:
        is_plain = location.startswith(("http://", "https://")) and "#" not in location
        if is_plain and ada_url.normalize_url(location) == location:
            return location  # as most are; what follows takes five times as long
        target = ada_url.URL(location, base=url)
    except ValueError as error:
        raise Failed(REDIRECT) from error
    if target.protocol not in ("http:", "https:"):
        raise Failed(ADDRESS)
    target.hash = ""
    return target.href


def reason_of(error: Exception) -> str:
    """Which of DROPS an exception of the network is."""
    if isinstance(error, NotPublic):
        return ADDRESS
    if isinstance(error, gaierror):
        return DNS
    if isinstance(error, ssl.SSLError):
        return TLS
    return TIMEOUT if isinstance(error, TimeoutError) else CONNECT


class Unpacker:
    """Undoes a Content-Encoding, never giving out more than the limit and a byte.

    What does not begin as gzip or zlib does is taken as it is, whatever the header says; what breaks later ends there.
    """

    def __init__(self, encoding: str, max_bytes: int):
        self.packed = encoding.strip().lower() in PACKINGS
        self.zlib = zlib.decompressobj(wbits=47)  # gzip or zlib, told by the first bytes
        self.data, self.max_bytes = bytearray(), max_bytes

    def feed(self, chunk: bytes) -> bool:
        """Take a piece of the body; False once no more is wanted."""
        if self.packed:
            try:
                chunk = self.zlib.decompress(chunk, self.max_bytes + 1 - len(self.data))
            except zlib.error:
                if self.data:
                    return False
                self.packed = False
        self.data += chunk
        return len(self.data) <= self.max_bytes
