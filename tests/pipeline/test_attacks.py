"""What a hostile web does to the fetcher, and what becomes of it: each costs one picture, and the others of the part arrive."""

import asyncio
import resource
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pipeline import addresses, download, fetch, schema
from pipeline.answers import Failed
from pipeline.config import DownloadConfig
from tests.conftest import REPOSITORY
from tests.pipeline.loopback import pairs, say, serve
from tests.pipeline.odd_files import encode, shapes

GOOD = encode(shapes(), "JPEG")
Speak = Callable[[socket.socket], None]


@contextmanager
def rude_server(speak: Speak) -> Iterator[int]:
    """A port on loopback where everyone who asks is spoken to in bytes, until they hang up."""

    def answer(client: socket.socket) -> None:
        with client:
            client.settimeout(20)
            try:
                client.recv(65536)
                speak(client)
            except OSError:  # they hung up, as they should
                return

    def run() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=run, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def endless_headers(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(10_000_000):
        client.sendall(b"X-%d: %s\r\n" % (number, b"a" * 1000))


def flood(start: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    """Says the start, and then the piece without an end."""

    def speak(client: socket.socket) -> None:
        client.sendall(start)
        while True:
            client.sendall(piece)

    return speak


def dripping_headers(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\n")
    tick = threading.Event()
    while not tick.wait(0.05):
        client.sendall(b"X: a\r\n")


def no_http(client: socket.socket) -> None:
    client.sendall(b"\x00\xff\x16\x03" * 1000)


def lying_length(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n")


def two_lengths(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef")


def negative_length(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabcdef")


def no_number(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 999999999999 Strange\r\nContent-Length: 0\r\n\r\n")


REASONS = ("connect", "timeout", "too_large", "http_5xx", "http_4xx")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
RUDE = {
    "endless headers": endless_headers,
    "one endless header": flood(b"HTTP/1.1 200 OK\r\nX: ", b"a" * 65536),
    "endless status line": flood(b"HTTP/1.1 200 ", b"a" * 65536),
    "dripping headers": dripping_headers,
    "endless informational": flood(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100),
    "endless chunk header": flood(CHUNKED + b"1;", b"a" * 65536),
    "endless trailers": flood(CHUNKED + b"0\r\n", b"X: a\r\n" * 1000),
    "no HTTP": no_http,
    "lying length": lying_length,
    "two lengths": two_lengths,
    "negative length": negative_length,
    "no number": no_number,
}


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("speak", RUDE.values(), ids=RUDE)
def test_what_is_hardly_http_is_a_failure_like_another(tmp_path: Path, speak: Speak) -> None:
    before = peak_megabytes()
    with serve({}, tmp_path) as site, rude_server(speak) as port:
        config = site.config(hosts_port=port, max_retries=0, timeout_seconds=1.0, robots=False, max_image_bytes=1_000_000)
        reason = asyncio.run(reason_of(config, "http://site.test/a.jpg"))
    assert reason in REASONS
    assert peak_megabytes() - before < 50


async def reason_of(config: DownloadConfig, url: str) -> str | None:
    async with fetch.Client(config, ssl.create_default_context()) as client:
        return await reason_by(client, url)


async def reason_by(client: fetch.Client, url: str) -> str | None:
    try:
        with fetch.Places() as held:
            await client.fetch(url, held)
            return None
    except Failed as failure:
        return failure.reason


def test_a_redirect_that_never_ends_ends(tmp_path: Path) -> None:
    async def onward(request: web.BaseRequest) -> web.Response:
        site_asked.append(request.path)
        return web.Response(status=302, headers={"Location": f"/{int(request.path[1:]) + 1}"})

    site_asked: list[str] = []
    with serve({f"/{n}": onward for n in range(100)}, tmp_path) as site:
        config = site.config(max_redirects=5, robots=False)
        assert asyncio.run(reason_of(config, "http://site.test/0")) == "redirect"
    assert site_asked == [f"/{n}" for n in range(6)]


def test_a_name_that_moves_inside_after_it_was_checked_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the system's resolver, which is not ours, says a public address first and loopback from then on."""
    inside = socket.create_server(("127.0.0.1", 0))
    inside.setblocking(False)
    port, questions = inside.getsockname()[1], []
    real = socket.getaddrinfo

    def rebinding(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host != "rebind.example":
            return real(host, port, *arguments, **options)
        questions.append(host)
        address = "203.0.114.1" if len(questions) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(addresses, "DNS_SECONDS", 0.0)  # every use of the name is a question of its own
    config = DownloadConfig(contact_url="http://us.test/", robots=False, max_retries=0)

    async def check_and_use() -> str | None:
        async with fetch.Client(config, ssl.create_default_context()) as client:
            (checked,) = await client.resolver.lookup("rebind.example", port)
            assert checked[-1] == ("203.0.114.1", port)
            return await reason_by(client, f"http://rebind.example:{port}/")

    assert asyncio.run(check_and_use()) == "address"
    assert len(questions) == 2
    with pytest.raises(BlockingIOError):
        inside.accept()
    inside.close()


def test_256_connections_are_open_at_once(tmp_path: Path) -> None:
    async def when_all_are_there(request: web.BaseRequest) -> web.Response:
        arrived.append(request.path)
        while len(arrived) < 256:
            await asyncio.sleep(0.01)
        return web.Response(body=GOOD)

    arrived: list[str] = []
    hosts = {f"host-{n}.test": "127.0.0.1" for n in range(64)}
    urls = [f"http://{host}/{n}.jpg" for host in hosts for n in range(4)]
    with serve({f"/{n}.jpg": when_all_are_there for n in range(4)}, tmp_path, hosts) as site:
        config = site.config(robots=False, timeout_seconds=60, stall_seconds=60)
        assert config.concurrency == 256
        table = download.Worker(config, {})(pairs(urls))
        assert len(site.sockets) == 256
    assert table[schema.DROP.name].null_count == 256


MEMORY = """
import sys
from pipeline import schema
from pipeline.config import MiniDownloadConfig
from pipeline.download import Worker
from tests.pipeline.loopback import pairs
hosts_file, port, urls = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
place = dict(hosts_file=hosts_file, hosts_port=port, contact_url="http://us.test/")
config = MiniDownloadConfig(**place, robots=False, timeout_seconds=120)
worker = Worker(config, {})
table = worker(pairs(urls))
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]  # ru_maxrss is also the parent's
print(int(peak) // 1024, *map(str, table[schema.DROP.name].to_pylist()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.timeout(600)
def test_memory_is_bounded_whatever_the_servers_send(tmp_path: Path) -> None:
    """256 hosts that all send as much as they may, at once: bodies of 19 MB, and ones without an end."""
    large, part = bytes(19_000_000), b"\xff" * 1_000_000

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while request.transport is not None:
            await response.write(part)
        return response

    hosts = {f"host-{n}.test": "127.0.0.1" for n in range(256)}
    urls = [f"http://{host}/{'large' if n % 2 else 'endless'}.jpg" for n, host in enumerate(hosts)]
    with serve({"/large.jpg": say(large), "/endless.jpg": endless}, tmp_path, hosts) as site:
        command = [sys.executable, "-c", MEMORY, str(site.hosts_file), str(site.port), *urls]
        found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()
    print("peak MB", found[0])
    assert set(found[1:]) <= {"not_an_image", "too_large"}
    assert int(found[0]) < 500
