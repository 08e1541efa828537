"""The HTTP client's wire: any answer in any pieces, whole or an error; connections are used again where that is safe."""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import pairwise

import numpy as np
import pytest

from pipeline.addresses import Resolver
from pipeline.wire import MAX_FRAME_BYTES, ROOM_BYTES, Broken, Connection, Connections

BODY = bytes(range(256)) * 40
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: a\r\nX-Robots-Tag: one\r\nx-robots-tag:  two \r\n\r\n%b" % (
    len(BODY),
    BODY,
)
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Robots-Tag: one\r\nX-Robots-Tag: two\r\nETag: a\r\n\r\n"
    + b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in (BODY[:1], BODY[1:300], BODY[300:]))
    + b"0\r\nETag: of a trailer\r\n\r\n"
)
TO_THE_END = b"HTTP/1.0 200 OK\nETag: a\nX-Robots-Tag: one\nX-Robots-Tag: two\n\n" + BODY
HINTED = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nETag: of a hint\r\n\r\n" + PLAIN
ANSWERS = {"plain": PLAIN, "chunked": CHUNKED, "to the end": TO_THE_END, "hinted": HINTED}


class Line(asyncio.Transport):
    """Where a protocol writes to, and what it asked of it."""

    def __init__(self, protocol: Connection):
        super().__init__()
        self.protocol, self.is_paused, self.is_closed = protocol, False, False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def is_closing(self) -> bool:
        return self.is_closed

    def abort(self) -> None:
        self.end()

    def end(self, error: Exception | None = None) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.protocol.connection_lost(error)

    def carry(self, data: bytes) -> None:
        """As the event loop does it."""
        while data and not self.is_closed and not self.is_paused:
            room = self.protocol.get_buffer(-1)
            part = data[: len(room)]
            room[: len(part)] = part
            self.protocol.buffer_updated(len(part))
            data = data[len(part) :]


async def asked() -> tuple[Connection, Line, asyncio.Task[None]]:
    """A connection that a request was written to, its line, and who waits for the head of the answer."""
    connection = Connection("http://site.test", memoryview(bytearray(ROOM_BYTES)))
    line = Line(connection)
    connection.connection_made(line)
    asking = asyncio.create_task(connection.ask(b"GET / HTTP/1.1\r\n\r\n"))
    await asyncio.sleep(0)
    return connection, line, asking


async def hear(pieces: list[bytes], ends: bool) -> tuple[Connection, bytes]:
    """Ask, and get the answer in these pieces, one whenever nothing is left to do.  -> the connection, the body. OSError"""
    connection, line, asking = await asked()

    async def speak() -> None:
        for piece in pieces:
            line.carry(piece)
            await asyncio.sleep(0)
        if ends:
            line.end()

    async with asyncio.TaskGroup() as group:
        group.create_task(speak())
        await asking
        body = b""
        while piece := await connection.piece():
            body += piece
    return connection, body


def pieces_of(data: bytes, rng: np.random.Generator) -> list[bytes]:
    cuts = sorted({0, len(data), *rng.integers(0, len(data), int(rng.integers(0, 12))).tolist()})
    return [data[start:end] for start, end in pairwise(cuts)]


def error_of(pieces: list[bytes], ends: bool = True) -> OSError:
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(asyncio.wait_for(hear(pieces, ends), 10))
    (error,) = caught.value.exceptions
    assert isinstance(error, OSError)
    return error


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_is_the_same_in_any_pieces(kind: str) -> None:
    for seed in range(60):
        pieces = pieces_of(ANSWERS[kind], np.random.default_rng(seed))
        connection, body = asyncio.run(hear(pieces, ends=kind == "to the end"))
        assert (connection.status, body) == (200, BODY)
        assert connection.headers.getall("X-Robots-Tag", []) == ["one", "two"]
        assert (connection.headers["etag"], connection.headers.get("Location")) == ("a", None)
        assert connection.is_clean == (kind != "to the end")


@pytest.mark.parametrize("kind", ["plain", "chunked", "hinted"])
def test_an_answer_that_breaks_off_is_an_error_wherever_that_is(kind: str) -> None:
    data = ANSWERS[kind]
    for place in np.random.default_rng(1).integers(0, len(data) - 1, 60).tolist():
        assert str(error_of([data[:place]])) == "the connection was closed"


def test_answers_without_a_body_end_with_their_heads() -> None:
    for head in (b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"):
        connection, body = asyncio.run(hear([head], ends=False))
        assert (body, connection.is_clean) == (b"", True)


@pytest.mark.parametrize(
    ("data", "trouble"),
    {
        b"SSH-2.0-OpenSSH\r\n": "no HTTP",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n": "no HTTP",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n": "no HTTP",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n": "no HTTP",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n": "no HTTP",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_FRAME_BYTES: "too much that is no body",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 4000: "too much that is no body",
        CHUNKED[:-2] + b"X: a\r\n" * 20_000: "too much that is no body",
        CHUNKED[: CHUNKED.index(b"1;ext")] + (b"1;%b\r\na\r\n" % (b"x" * 99)) * 2000: "too much that is no body",
    }.items(),
)  # fmt: skip
def test_what_is_no_answer_is_broken(data: bytes, trouble: str) -> None:
    error = error_of(pieces_of(data, np.random.default_rng(2)), ends=False)
    assert isinstance(error, Broken)
    assert str(error).startswith(trouble)


def test_a_connection_that_says_more_than_it_was_asked_is_not_used_again() -> None:
    bye = PLAIN.replace(b"ETag: a", b"Connection: close\r\nETag: a")
    for data in (PLAIN + PLAIN, PLAIN + b"\0garbage", CHUNKED + b"H", bye, PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0")):
        connection, body = asyncio.run(hear([data], ends=False))
        assert (body, connection.is_clean) == (BODY, False)
    connection, _ = asyncio.run(hear([PLAIN, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], ends=False))
    assert not connection.is_clean


def test_a_reader_that_waits_stops_the_server() -> None:
    async def look() -> None:
        connection, line, asking = await asked()
        line.carry(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + bytes(100_000_000))
        assert line.is_paused
        await asking
        assert ROOM_BYTES <= sum(map(len, connection._pieces)) <= 2 * ROOM_BYTES
        while line.is_paused:
            assert await connection.piece()
        assert sum(map(len, connection._pieces)) < ROOM_BYTES

    asyncio.run(look())


def test_what_may_wait_behind_an_answer_that_nobody_took_is_nobodys_answer() -> None:
    async def look(num_bytes: int) -> tuple[bool, bool]:
        connection, line, asking = await asked()
        line.carry(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % num_bytes + bytes(num_bytes))
        await asking
        before = connection.is_clean
        while await connection.piece():
            pass
        return before, connection.is_clean

    assert asyncio.run(look(1000)) == (True, True)
    assert asyncio.run(look(ROOM_BYTES)) == (False, True)


def test_tls_that_breaks_off_is_no_certificate_that_does_not_verify() -> None:
    async def look() -> None:
        connection, line, asking = await asked()
        line.end(ssl.SSLError(1, "bad record mac"))
        with pytest.raises(Broken, match="the connection was closed"):
            await asking
        with pytest.raises(Broken, match="the connection is closed"):
            await connection.ask(b"GET / HTTP/1.1\r\n\r\n")

    asyncio.run(look())


Talk = Callable[[socket.socket, int], None]


@contextmanager
def server(talk: Talk) -> Iterator[tuple[int, list[bytes]]]:
    """A port on loopback where `talk` has each connection, by its number, and what was asked there."""
    asked: list[bytes] = []

    def run() -> None:
        for number in range(1000):
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client, number), daemon=True).start()

    def serve(client: socket.socket, number: int) -> None:
        with client, suppress(OSError):  # they hang up
            while request := client.recv(65536):
                asked.append(request)
                talk(client, number)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=run, daemon=True).start()
        yield listener.getsockname()[1], asked
        listener.shutdown(socket.SHUT_RDWR)


@asynccontextmanager
async def connections(port: int, max_idle: int = 8) -> AsyncIterator[Connections]:
    resolver = Resolver(1.0, {f"{n}.test": "127.0.0.1" for n in range(9)}, port)
    made = Connections(resolver, ssl.create_default_context(), {"A": "b"}, 1.0, max_idle)
    yield made
    await made.close()
    await resolver.close()


async def body_of(client: Connections, url: str) -> bytes:
    connection = await client.ask(url)
    try:
        body = b""
        while piece := await connection.piece():
            body += piece
        return body
    finally:
        client.give_back(connection)


def say(client: socket.socket, body: bytes) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def test_a_connection_serves_one_request_after_another_and_says_what_it_is_told() -> None:
    async def run(port: int) -> None:
        async with connections(port) as client:
            for n in range(5):
                assert await body_of(client, f"http://user:secret@0.test/a%20{n}?b#"[:-1]) == b"0"

    with server(lambda to, number: say(to, b"%d" % number)) as (port, asked):
        asyncio.run(run(port))
    assert asked == [b"GET /a%%20%d?b HTTP/1.1\r\nHost: 0.test\r\nA: b\r\n\r\n" % n for n in range(5)]


def test_a_connection_that_the_server_closed_meanwhile_costs_nothing() -> None:
    closed = threading.Semaphore(0)

    def once(to: socket.socket, number: int) -> None:
        say(to, b"%d" % number)
        to.shutdown(socket.SHUT_RDWR)
        closed.release()

    async def run(port: int) -> None:
        async with connections(port) as client:
            for n in range(5):
                assert await body_of(client, "http://0.test/") == b"%d" % n
                closed.acquire()

    with server(once) as (port, _):
        asyncio.run(run(port))


def test_an_answer_to_nobody_is_nobodys_answer() -> None:
    """A server that answers one request twice puts no words into the mouth of the next page."""

    def twice(to: socket.socket, number: int) -> None:
        to.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
        to.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    async def run(port: int) -> None:
        async with connections(port) as client:
            for n in range(10):
                assert await body_of(client, "http://0.test/") == b"%d" % n
                while client.idle and client.idle["http://0.test"][-1].is_clean:
                    await asyncio.sleep(0)  # until the second answer is there

    with server(twice) as (port, _):
        asyncio.run(asyncio.wait_for(run(port), 20))


def test_an_answer_that_was_left_lying_is_not_used_again() -> None:
    async def run(port: int) -> None:
        async with connections(port) as client:
            for n in range(3):
                connection = await client.ask("http://0.test/")
                assert await connection.piece()
                client.give_back(connection)
                assert connection.transport is None or connection.transport.is_closing(), n

    large = bytes(10_000_000)
    with server(lambda to, number: say(to, large)) as (port, asked):
        asyncio.run(run(port))
    assert len(asked) == 3


def test_few_idle_connections_are_kept() -> None:
    async def run(port: int) -> None:
        async with connections(port, max_idle=3) as client:
            for n in [0, 1, 2, 3, 4, 0, 5, 0]:
                await body_of(client, f"http://{n}.test/")
                assert client.num_idle == sum(map(len, client.idle.values())) <= 3
            assert list(client.idle) == ["http://4.test", "http://5.test", "http://0.test"]

    with server(lambda to, number: say(to, b"x")) as (port, _):
        asyncio.run(run(port))


@pytest.mark.parametrize("url", ["http://0.test/a b", "http://0.test/a\r\nX: y", "http://0.test/ä", "http://0.test/\x7f"])
def test_a_url_that_is_none_is_not_sent(url: str) -> None:
    async def run(port: int) -> None:
        async with connections(port) as client:
            with pytest.raises(Broken, match="a URL that is none"):
                await client.ask(url)

    with server(lambda to, number: say(to, b"x")) as (port, asked):
        asyncio.run(run(port))
    assert asked == []
