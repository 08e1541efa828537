"""An object store on loopback that knows as much of S3 as s3fs asks of it, and counts. A plan's requests are held against it."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import unquote

from aiohttp import web

from pipeline.hashing import sha256

NO_SUCH_KEY = b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>"
EMPTY_LIST = b"<?xml version='1.0'?><ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"


@dataclass
class CountingStore:
    """The objects by path, and what was asked."""

    objects: dict[str, bytes] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)  # by verb
    bytes_out: int = 0
    endpoint: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        """One request."""
        path = unquote(request.path)
        verb = "LIST" if "list-type" in request.query else request.method
        self.requests[verb] += 1
        if verb == "PUT":
            self.objects[path] = await request.read()
            return web.Response(headers={"ETag": f'"{sha256(self.objects[path])[:32]}"'})
        if verb == "LIST":
            return web.Response(body=EMPTY_LIST, content_type="application/xml")
        data = self.objects.get(path)
        if data is None:
            return web.Response(status=404, body=NO_SUCH_KEY, content_type="application/xml")
        headers = {"ETag": f'"{sha256(data)[:32]}"', "Last-Modified": formatdate(0, usegmt=True), "Accept-Ranges": "bytes"}
        if verb == "HEAD":
            return web.Response(headers={**headers, "Content-Length": str(len(data))})
        part = request.http_range
        body = data[part] if "Range" in request.headers else data
        self.bytes_out += len(body)
        status = 206 if "Range" in request.headers else 200
        return web.Response(status=status, body=body, headers=headers, content_type="application/octet-stream")


@contextmanager
def counting_store() -> Iterator[CountingStore]:
    """A store that listens while the block runs."""
    store, loop = CountingStore(), asyncio.new_event_loop()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", store.answer)
    runner = web.AppRunner(app)

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        store.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield store
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(runner.cleanup())
        loop.close()
