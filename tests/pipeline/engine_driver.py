"""One part by both engines, ours and img2dataset's, on a machine whose whole internet is this process (see outage_driver).

unshare --mount --net python -m tests.pipeline.engine_driver PYTHON RESULT.json
"""

import asyncio
import io
import json
import sys
import threading

import numpy as np
import pyarrow as pa
from aiohttp import web
from PIL import Image

from pipeline import schema
from pipeline.config import DownloadConfig
from pipeline.download import Worker
from tests.pipeline.loopback import Handler, pairs, say
from tests.pipeline.outage_driver import ADDRESS, Names, setup
from tests.pipeline.test_download import picture

NUM_GOOD = 20


def routes() -> dict[str, Handler]:
    """What the hosts say."""
    good = {f"/good-{n}.jpg": say(picture(300 + 40 * n, 260 + 10 * n, seed=n)) for n in range(NUM_GOOD)}
    return good | {
        "/missing.jpg": say(status=404),
        "/broken.jpg": say(status=500),
        "/noai.jpg": say(picture(), X_Robots_Tag="noai"),
        "/small.jpg": say(picture(8, 8)),
        "/wide.jpg": say(picture(900, 100)),
        "/page.jpg": say(b"<html>no picture</html>"),
        "/loop.jpg": say(status=302, Location="/loop.jpg"),
        "/closed.jpg": say(picture()),
        "host1.test/robots.txt": say(b"User-agent: *\nDisallow: /closed.jpg"),
        "host0.test/robots.txt": say(status=404),
    }


def serve() -> None:
    """Every host on port 80."""
    ready, answers = threading.Event(), routes()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        key = next((key for key in (f"{request.host}{request.path}", request.path) if key in answers), None)
        return await answers[key](request) if key else web.Response(status=404)

    async def run() -> None:
        runner = web.ServerRunner(web.Server(answer, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, ADDRESS, 80).start()
        ready.set()
        await asyncio.Event().wait()

    threading.Thread(target=asyncio.run, args=(run(),), daemon=True).start()
    assert ready.wait(10)


def main(python: str, result: str) -> None:
    """Run both and write down what they made."""
    setup()
    Names("undisturbed")
    serve()
    urls = [f"http://host0.test{path}" for path in routes() if path.startswith("/") and path != "/closed.jpg"]
    urls += ["http://host1.test/closed.jpg", "http://nowhere.test/a.jpg", "http://127.0.0.1/a.jpg", urls[0]]
    common = {"contact_url": "http://us.test/bot", "max_retries": 0, "control_hosts": (), "connect_timeout_seconds": 2.0}
    ours = Worker(DownloadConfig(**common), {})(pairs(urls))
    peer = Worker(DownloadConfig(**common, engine="img2dataset", img2dataset_python=python), {})(pairs(urls))
    schema.check(peer, pa.schema([*schema.IMAGES, schema.IMAGE, schema.HTTP_STATUS, schema.DROP]), "test")
    found = []
    for mine, other in zip(ours.to_pylist(), peer.to_pylist(), strict=True):
        row = {"url": mine["image_url"], "reasons": [mine["drop"], other["drop"]], "status": other["http_status"]}
        if not mine["drop"] and not other["drop"]:
            pixels = [np.asarray(Image.open(io.BytesIO(one["image"])).convert("RGB"), float) for one in (mine, other)]
            row["sizes"] = [list(one.shape) for one in pixels]
            row["psnr"] = 10 * np.log10(255**2 / max(1e-9, np.mean((pixels[0] - pixels[1]) ** 2)))
            facts = ("key", "width", "height", "original_width", "original_height", "sha256")
            row["same"] = [mine[name] == other[name] for name in facts]
        found.append(row)
    with open(result, "w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
