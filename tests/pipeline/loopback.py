"""A real web server on loopback for the tests of the fetcher, with names of its own and a memory of what it was asked."""

import asyncio
import ssl
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from aiohttp import web

from pipeline import hashing, schema
from pipeline.config import MiniDownloadConfig

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


async def breaks(request: web.BaseRequest) -> web.StreamResponse:
    """An answer that ends too early."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(bytes(100))
    assert request.transport
    request.transport.abort()
    return response


class Web:
    """The server as a test sees it: its port, a config that reaches it, and what was asked of it."""

    def __init__(self, routes: Mapping[str, Handler], folder: Path, addresses: Mapping[str, str]):
        self.routes = routes
        self.addresses = {"site.test": "127.0.0.1", **addresses}
        self.hosts_file = folder / "hosts"
        self.port = 0
        self.asked: list[tuple[str, str]] = []  # (host, path), in order
        self.targets: list[str] = []  # what stood behind GET, in order
        self.headers: dict[str, dict[str, str]] = {}  # of the last request for each path
        self.active: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()  # most requests at once, by host
        self.sockets: set[object] = set()  # one for each connection

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        host = request.host.split(":")[0]
        self.asked.append((host, request.path))
        self.targets.append(request.raw_path)
        self.headers[request.path] = dict(request.headers)
        self.sockets.add(request.transport)
        self.active[host] += 1
        self.peak[host] = max(self.peak[host], self.active[host])
        try:
            key = next((key for key in (f"{host}{request.path}", request.path) if key in self.routes), None)
            return await self.routes[key](request) if key else web.Response(status=404)
        finally:
            self.active[host] -= 1

    def config(self, **fields: object) -> MiniDownloadConfig:
        """Short waits, and only this server in reach."""
        short = {"timeout_seconds": 2.0, "connect_timeout_seconds": 1.0, "stall_seconds": 0.5, "retry_seconds": 0.01}
        place = {"hosts_file": str(self.hosts_file), "hosts_port": self.port, "contact_url": "http://us.test/bot"}
        return MiniDownloadConfig(**{**short, **place, **fields})

    def times_asked(self, path: str, host: str = "site.test") -> int:
        return self.asked.count((host, path))


@contextmanager
def serve(
    routes: Mapping[str, Handler], folder: Path, addresses: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Web]:
    """Serve `routes` (path, or host and path) in a thread. addresses: name -> address, besides site.test."""
    site, ready, loop = Web(routes, folder, addresses or {}), threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        runner = web.ServerRunner(web.Server(site.handle), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        site.port = runner.addresses[0][1]
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    site.hosts_file.write_text("".join(f"{address} {name}\n" for name, address in site.addresses.items()))
    try:
        yield site
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def pairs(urls: list[str]) -> pa.Table:
    """A balanced table with one row for each URL, in that order."""
    rows = [
        {
            "pair_id": hashing.pair_id(url, f"text {row}"),
            "image_url": url,
            "text": f"text {row}",
            "page_url": "http://page.test/",
            "attribute": "alt",
            "link_index": row,
            "archive": "a.warc.gz",
            "record_offset": 0,
            "query_ids": [row],
        }
        for row, url in enumerate(urls)
    ]
    return pa.Table.from_pylist(rows, schema=schema.BALANCED)


def say(body: bytes = b"", status: int = 200, **headers: str) -> Handler:
    """Always the same answer; header names with _ for -."""

    async def handler(request: web.BaseRequest) -> web.Response:
        return web.Response(body=body, status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return handler


def in_turn(*handlers: Handler) -> Handler:
    """The first handler for the first request, and so on; the last one for ever."""
    left = list(handlers)

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return await (left.pop(0) if len(left) > 1 else left[0])(request)

    return handler


def stream(chunk: bytes, pause_seconds: float = 0.0, **headers: str) -> Handler:
    """A body without an end: `chunk` again and again."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={name.replace("_", "-"): value for name, value in headers.items()})
        await response.prepare(request)
        while request.transport is not None:
            await response.write(chunk)
            await asyncio.sleep(pause_seconds)
        return response

    return handler


async def hang(request: web.BaseRequest) -> web.StreamResponse:
    """No answer at all, until the client goes away."""
    while request.transport is not None:
        await asyncio.sleep(0.01)
    return web.Response()
