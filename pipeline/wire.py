"""HTTP/1.1 over connections that are kept: a request out, the head of an answer in, then its body piece by piece.

in      canonical http(s) URLs; what servers send, every byte of it hostile
out     Connection: the status, the headers and the pieces of the body
raises  OSError: no connection, TLS that does not verify, Broken (no HTTP, or it ends too early), ConnectTimeout
law     a connection is made to an address that the resolver gave out for this very use, and its socket checks that again
law     what is received and not yet taken is at most 2 * ROOM_BYTES a connection, then the server waits; what is not body is
        at most MAX_FRAME_BYTES more than the body itself
law     a connection is used again only after an answer that was whole, said nothing against it, and was followed by nothing
cost    no timers and no task of its own (RESULTS.md). User and password in a URL are not sent
source  RFC 9112, as llhttp (httptools) reads it; RFC 8305, as aiohappyeyeballs does it
"""

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Iterator, Mapping

from aiohappyeyeballs import start_connection
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from pipeline import hosts
from pipeline.addresses import Resolver

ROOM_BYTES = 128 << 10
MAX_FRAME_BYTES = 64 << 10  # a head; also trailers and the lengths of chunks, beyond what is sent as body
IDLE_SECONDS = 15.0
NEXT_ADDRESS_SECONDS = 0.25  # until another address of a name is tried too (RFC 8305)
SENDABLE = re.compile(r"[!-~]+")
# What servers of the web do and nobody is harmed by; the rest of llhttp's strictness stays.
LENIENCIES = {"lenient_headers": True, "lenient_optional_cr_before_lf": True, "lenient_spaces_after_chunk_size": True}


class Broken(OSError):
    """What came is no HTTP, too much of it, or not all."""


class ConnectTimeout(OSError):
    """No address of the host took the connection in time."""


class Headers(Mapping[str, str]):
    """The headers of an answer by name, in whatever case; of several, the first."""

    def __init__(self, pairs: list[tuple[bytes, bytes]]):
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            said = value.decode("utf-8", "surrogateescape").strip(" \t")
            self._values.setdefault(name.decode("latin-1").lower(), []).append(said)

    def __getitem__(self, key: str) -> str:
        return self._values[key.lower()][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def getall(self, key: str, default: list[str], /) -> list[str]:
        """Every value of a header."""
        return self._values.get(key.lower(), default)


class Connection(asyncio.BufferedProtocol):
    """One connection: `await ask(request)`, then `status`, `headers`, and `await piece()` until there is none.

    room: where the event loop puts what arrives, which is taken from there at once: all connections share it
    """

    def __init__(self, origin: str, room: memoryview):
        self.origin, self.room = origin, room
        self.transport: asyncio.Transport | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.parser: HttpResponseParser | None = None
        self.is_reused, self.idle_since = False, 0.0
        self._clear()

    def _clear(self) -> None:
        self.status, self.headers = 0, Headers([])
        self.error: OSError | None = None
        self.is_whole = self.is_spoiled = self._has_head = False
        self._pairs: list[tuple[bytes, bytes]] = []
        self._pieces: deque[bytes] = deque()
        self._waiting_bytes = self._body_bytes = self.num_bytes = 0

    async def ask(self, request: bytes) -> None:
        """Send `request` and wait for the head of its answer. OSError."""
        if self.transport is None:
            raise Broken("the connection is closed")
        self._clear()
        self.parser = HttpResponseParser(self)
        self.parser.set_dangerous_leniencies(**LENIENCIES)
        self.transport.write(request)
        while not self._has_head:
            await self._news()

    async def piece(self) -> bytes:
        """More of the body; b"" at its end. OSError."""
        while not self._pieces:
            if self.is_whole:
                return b""
            await self._news()
        piece = self._pieces.popleft()
        self._waiting_bytes -= len(piece)
        if self._waiting_bytes < ROOM_BYTES and self.transport:
            self.transport.resume_reading()
        return piece

    async def _news(self) -> None:
        """Wait until something came; what went wrong is raised."""
        if self.error:
            raise self.error
        self.waiter = asyncio.get_running_loop().create_future()
        try:
            await self.waiter
        finally:
            self.waiter = None

    @property
    def is_clean(self) -> bool:
        """Whether another request may be sent; not where more than the answer may wait behind an answer that nobody took."""
        is_open = self.transport is not None and not self.transport.is_closing()
        return is_open and self.is_whole and not self.is_spoiled and self._waiting_bytes < ROOM_BYTES

    def close(self) -> None:
        """At once: nobody waits for the server's farewell."""
        if self.transport:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The event loop's word."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """The event loop's question."""
        return self.room

    def buffer_updated(self, nbytes: int) -> None:
        """The event loop's word: so much of the room is filled."""
        if self.parser is None or self.is_whole:  # nobody asked
            self.is_spoiled = True
            self.close()
            return
        self.num_bytes += nbytes
        try:
            self.parser.feed_data(self.room[:nbytes])
        except (HttpParserError, HttpParserUpgrade) as error:
            self._fail(Broken(f"no HTTP: {error}"))
        if self.num_bytes > 2 * self._body_bytes + MAX_FRAME_BYTES:
            self._fail(Broken("too much that is no body"))
        if self._waiting_bytes >= ROOM_BYTES and self.transport:
            self.transport.pause_reading()
        self._tell()

    def connection_lost(self, exc: Exception | None) -> None:
        """The event loop's word: the connection is closed. That ends a body whose length nobody said."""
        self.transport = None
        if self.parser and not self.is_whole:
            if exc is None and not self.error and self._has_head and self._ends_with_connection():
                self.is_whole = True
            else:
                is_tls = isinstance(exc, ssl.SSLError)  # broken off, where it was verified before
                self._fail(exc if isinstance(exc, OSError) and not is_tls else Broken("the connection was closed"))
        self.parser = None
        self._tell()

    def _ends_with_connection(self) -> bool:
        codings = self.headers.getall("Transfer-Encoding", [])
        if codings:
            return not codings[-1].lower().endswith("chunked")
        return "Content-Length" not in self.headers

    def _fail(self, error: OSError) -> None:
        self.is_spoiled = True
        if not self.is_whole:
            self.error = self.error or error
            self.close()

    def _tell(self) -> None:
        if self.waiter and not self.waiter.done():
            self.waiter.set_result(None)

    def on_message_begin(self) -> None:
        """The parser's word: an answer begins."""
        if self.is_whole:
            self.is_spoiled = True  # nobody asked for another one

    def on_header(self, name: bytes, value: bytes) -> None:
        """The parser's word: a header, or a trailer, which nobody reads."""
        if not self._has_head:
            self._pairs.append((name, value))

    def on_headers_complete(self) -> None:
        """The parser's word: the head is there; one that is only informational is forgotten."""
        assert self.parser
        if self.is_whole:
            return
        self.status = self.parser.get_status_code()
        if self.status >= 200:
            self.headers, self._has_head = Headers(self._pairs), True
        self._pairs = []

    def on_body(self, body: bytes) -> None:
        """The parser's word: a piece of the body."""
        if self.is_whole:
            return
        self._pieces.append(body)
        self._waiting_bytes += len(body)
        self._body_bytes += len(body)

    def on_message_complete(self) -> None:
        """The parser's word: an answer is at its end."""
        assert self.parser
        if self._has_head and not self.is_whole:
            self.is_whole = True
            self.is_spoiled |= not self.parser.should_keep_alive()


class Connections:
    """The connections of one client: `connection = await ask(url)` and, whatever comes of it, `give_back(connection)`."""

    def __init__(self, resolver: Resolver, tls: ssl.SSLContext, fields: Mapping[str, str], connect_seconds: float, max_idle: int):
        self.resolver, self.tls = resolver, tls
        self.fields = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.connect_seconds, self.max_idle = connect_seconds, max_idle
        self.room = memoryview(bytearray(ROOM_BYTES))
        self.idle: dict[str, deque[Connection]] = {}  # by origin; origins and connections that were used last at the end
        self.num_idle = 0

    async def ask(self, url: str) -> Connection:
        """Send GET for `url` and wait for the head of the answer. OSError."""
        if not SENDABLE.fullmatch(url):
            raise Broken("a URL that is none")
        origin = hosts.origin(url)
        name, target = origin.partition("//")[2], url.split("/", 3)[3]
        request = f"GET /{target} HTTP/1.1\r\nHost: {name}\r\n{self.fields}\r\n".encode()
        while True:
            connection, is_heard = self._kept(origin) or await self._connect(url, origin), False
            try:
                await connection.ask(request)
                is_heard = True
                return connection
            except OSError:
                if not connection.is_reused or connection.num_bytes:
                    raise  # else the server closed it meanwhile, as it may
            finally:
                if not is_heard:
                    connection.close()

    def _kept(self, origin: str) -> Connection | None:
        """One that is open and was asked before."""
        now = asyncio.get_running_loop().time()
        while origin in self.idle:
            connection = self._take_out(origin, -1)
            if connection.is_clean and now - connection.idle_since < IDLE_SECONDS:
                connection.is_reused = True
                return connection
            connection.close()
        return None

    def _take_out(self, origin: str, place: int) -> Connection:
        kept = self.idle[origin]
        connection = kept[place]
        del kept[place]
        self.num_idle -= 1
        if not kept:
            del self.idle[origin]
        return connection

    async def _connect(self, url: str, origin: str) -> Connection:
        host = hosts.host(url)
        loop, places = asyncio.get_running_loop(), await self.resolver.lookup(host, hosts.port(url))
        try:
            async with asyncio.timeout(self.connect_seconds):
                sock = await start_connection(
                    places, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, loop=loop, socket_factory=self.resolver.socket
                )
        except TimeoutError as error:
            raise ConnectTimeout(f"no answer from {host}") from error
        secure = {"ssl": self.tls, "server_hostname": host.strip("[]")} if url.startswith("https:") else {}
        _, connection = await loop.create_connection(lambda: Connection(origin, self.room), sock=sock, **secure)
        return connection

    def give_back(self, connection: Connection) -> None:
        """Keep it for another request if it may serve for one; else it is closed."""
        if not connection.is_clean:
            connection.close()
            return
        now = connection.idle_since = asyncio.get_running_loop().time()
        kept = self.idle.pop(connection.origin, None) or deque()
        kept.append(connection)
        self.idle[connection.origin] = kept
        self.num_idle += 1
        while True:
            oldest = next(iter(self.idle))
            if self.num_idle <= self.max_idle and now - self.idle[oldest][0].idle_since < IDLE_SECONDS:
                return
            self._take_out(oldest, 0).close()

    async def close(self) -> None:
        """Close those that are kept."""
        for kept in self.idle.values():
            for connection in kept:
                connection.close()
        self.idle, self.num_idle = {}, 0
        await asyncio.sleep(0)  # the event loop closes the sockets
