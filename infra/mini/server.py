"""The server of the small web: every host of it on one port of loopback, good and bad manners included.

    python -m infra.mini.server --web out/web [--port 0] [--port-file FILE]

in      the folder that infra.mini.web wrote; requests are routed by Host header and path, the port does not matter
out     answers; `http://stats.mini.test/__stats__`: how often each URL was asked for, as JSON
behave  never: no answer; drip: a few bytes a second; endless: a fast body without end; huge: a Content-Length far over
        what comes; slow: a good answer after SLOW_SECONDS; once:STATUS: that status for the first request of the URL
law     all bodies are in memory; nothing is read outside of the web's folder
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from aiohttp import web

SLOW_SECONDS = 0.3
DRIP_SECONDS, DRIP_BYTES = 0.25, 10
CHUNK = b"\xff\xd8\xff\xe0" + bytes(65_532)
HUGE_BYTES = 1 << 40
STATS_URL = "http://stats.mini.test/__stats__"


@dataclass(frozen=True, slots=True)
class Answer:
    """A route with its body."""

    status: int
    headers: dict[str, str]
    behavior: str
    body: bytes


class Site:
    """The answers of the small web, and the count of what was asked for."""

    def __init__(self, folder: str):
        with open(os.path.join(folder, "site", "bodies.bin"), "rb") as file:
            bodies = file.read()
        with open(os.path.join(folder, "site", "routes.json"), encoding="utf-8") as file:
            routes = json.load(file)
        self.answers: dict[str, Answer] = {}
        for url, (status, media, headers, behavior, start, size) in routes.items():
            typed = {"Content-Type": media, **headers} if media else headers
            self.answers[url] = Answer(status, typed, behavior, bodies[start : start + size])
        self.asked: Counter[str] = Counter()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        host = request.headers.get("Host", "").rsplit(":", 1)[0].lower()
        url = f"http://{host}{request.raw_path}"
        if url == STATS_URL:
            return web.json_response(self.asked)
        self.asked[url] += 1
        answer = self.answers.get(url)
        if answer is None:
            return web.Response(status=404, text="not found\n")
        kind, _, status = answer.behavior.partition(":")
        if kind == "once":
            if self.asked[url] == 1:
                return web.Response(status=int(status), text="try again\n", headers=without_type(answer.headers))
            return web.Response(body=answer.body, headers={"Content-Type": answer.headers["Content-Type"]})
        if kind in ("never", "drip", "endless", "huge"):
            return await misbehave(request, kind, answer)
        if kind == "slow":
            await asyncio.sleep(SLOW_SECONDS)
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)


def without_type(headers: dict[str, str]) -> dict[str, str]:
    """The headers that an error may keep."""
    return {name: value for name, value in headers.items() if name != "Content-Type"}


async def misbehave(request: web.BaseRequest, kind: str, answer: Answer) -> web.StreamResponse:
    """Answers that do not end by themselves: they end when the other side hangs up."""
    if kind == "never":
        await asyncio.Event().wait()
    response = web.StreamResponse(headers=answer.headers)
    if kind == "huge":
        response.content_length = HUGE_BYTES
    await response.prepare(request)
    piece, pause = (CHUNK[:DRIP_BYTES], DRIP_SECONDS) if kind == "drip" else (CHUNK, 0)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(piece)
            await asyncio.sleep(pause)
    return response


async def start(folder: str, port: int = 0) -> tuple[web.ServerRunner, int]:
    """Serve the web of `folder` on 127.0.0.1; the runner (await its cleanup()) and the port."""
    server = web.Server(Site(folder).handle, access_log=None, handler_cancellation=True)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    place = web.TCPSite(runner, "127.0.0.1", port, backlog=1024)
    await place.start()
    return runner, runner.addresses[0][1]


@contextlib.contextmanager
def serving(folder: str) -> Iterator[int]:
    """Serve in a thread of this process while the block runs; gives the port."""
    loop, ports = asyncio.new_event_loop(), []
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        try:
            runner, port = await start(folder)
            ports.append(port)
        finally:
            ready.set()
        await stop.wait()
        await runner.cleanup()

    def run() -> None:
        with contextlib.closing(loop):
            loop.run_until_complete(serve())

    thread = threading.Thread(target=run, name="small web", daemon=True)
    thread.start()
    ready.wait()
    if not ports:
        raise RuntimeError(f"infra.mini: the server of {folder} did not start")
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


async def serve_for_ever(folder: str, port: int, port_file: str) -> None:
    """Serve until the process is ended; the port is printed, and written to `port_file` where that is not ""."""
    _, port = await start(folder, port)
    print(port, flush=True)
    if port_file:
        temporary = f"{port_file}.tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(f"{port}\n")
        os.replace(temporary, port_file)
    await asyncio.Event().wait()


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m infra.mini.server", description="Serve the small web on loopback.")
    parser.add_argument("--web", required=True, help="folder that infra.mini.web wrote")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--port-file", default="", help="file to write the port to")
    given = parser.parse_args(arguments)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve_for_ever(given.web, given.port, given.port_file))


if __name__ == "__main__":
    main(sys.argv[1:])
