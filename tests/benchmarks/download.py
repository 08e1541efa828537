"""Download beside img2dataset: CPU seconds per picture of the whole loop, same URLs, same settings, one process each.

    python -m tests.benchmarks.download [--images 1000] [--runs 3] [--peer-python PYTHON]

in      JPEGs like photographs (shapes and grain, 400 to 2000 px, quality 85), from a server process on loopback
ours    the stage's worker (robots.txt included), then tar and Parquet on disk
peer    img2dataset, webdataset output, its defaults but for: 256 px keep_ratio, only if bigger, 1 process, 32 threads
cpu     user and system seconds of the process and its children, less what a run over 8 pictures takes (imports); the server's
        are not counted. Medians, runs taken in turn
peer-python  an interpreter that has img2dataset; without it one is made in `peers` inside our environment's folder: it asks
        for an older OpenCV than ours
last line  `download ratio=X.XX`: the peer's CPU seconds over ours
"""

import argparse
import asyncio
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
import venv
from multiprocessing.connection import Connection
from statistics import median

import cv2
import numpy as np
import pyarrow.parquet as pq
import simplejpeg
from aiohttp import web

PEER = "img2dataset==1.47.0"
PEERS = os.path.join(sys.prefix, "peers")
NUM_BASES = 40  # different pictures; each is served under many URLs
WARM_UP = 8

OURS_CODE = """
import os, sys
import pyarrow.parquet as pq
from pipeline import schema, tars
from pipeline.config import MiniDownloadConfig
from pipeline.download import Worker
from tests.pipeline.loopback import pairs
urls, hosts_file, port, folder = open(sys.argv[1]).read().split(), sys.argv[2], int(sys.argv[3]), sys.argv[4]
place = dict(hosts_file=hosts_file, hosts_port=port, contact_url="http://us.test/")
config = MiniDownloadConfig(concurrency=32, concurrency_per_host=32, **place)
labelled = Worker(config, {})(pairs(urls))
assert labelled[schema.DROP.name].null_count == len(urls), labelled[schema.DROP.name].value_counts()
tar, table = tars.pack(labelled.drop_columns([schema.DROP.name]))
with open(os.path.join(folder, "part.tar"), "wb") as file:
    file.write(tar)
pq.write_table(table, os.path.join(folder, "part.parquet"))
"""
PEER_CODE = """
import sys
from img2dataset import download
if __name__ == "__main__":
    download(url_list=sys.argv[1], output_folder=sys.argv[4] + "/out", output_format="webdataset", image_size=256,
             resize_mode="keep_ratio", resize_only_if_bigger=True, processes_count=1, thread_count=32,
             number_sample_per_shard=10_000, enable_wandb=False)
"""


def photograph(seed: int) -> bytes:
    """A JPEG with the sizes, the softness and the grain of a photograph."""
    rng = np.random.default_rng(seed)
    longer = int(rng.integers(400, 2001))
    width, height = (longer, longer * 3 // 4) if rng.random() < 0.7 else (longer * 3 // 4, longer)
    picture = np.zeros((height, width, 3), np.float32)
    for cells, weight in ((4, 90), (16, 50), (64, 30), (256, 12)):
        layer = rng.standard_normal((cells * height // longer + 1, cells * width // longer + 1, 3)).astype(np.float32)
        picture += weight * cv2.resize(layer, (width, height), interpolation=cv2.INTER_CUBIC)
    picture += rng.standard_normal((height, width, 1)).astype(np.float32) * 4
    rgb = np.clip(picture + 128, 0, 255).astype(np.uint8)
    return simplejpeg.encode_jpeg(rgb, quality=85, colorspace="RGB", colorsubsampling="420")


def serve(ready: Connection) -> None:
    """The server process: /N.jpg is photograph N modulo NUM_BASES."""
    bodies = [photograph(seed) for seed in range(NUM_BASES)]

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        name = request.path[1:].removesuffix(".jpg")
        return (
            web.Response(body=bodies[int(name) % NUM_BASES], content_type="image/jpeg")
            if name.isdigit()
            else web.Response(status=404)
        )

    async def run() -> None:
        runner = web.ServerRunner(web.Server(answer, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        ready.send((runner.addresses[0][1], sum(map(len, bodies)) / NUM_BASES))
        await asyncio.Event().wait()

    asyncio.run(run())


def peer_python(given: str) -> str:
    """An interpreter that has the peer; made where none is given."""
    if given:
        return given
    folder = os.path.join(PEERS, "img2dataset")
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(python):
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", PEER, "setuptools<81"], check=True)
    return python


def spend(python: str, code: str, num_images: int, port: int) -> tuple[float, float]:
    """CPU and wall seconds of one run over so many pictures, in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "urls.txt"), "w", encoding="utf-8") as file:
            file.writelines(f"http://localhost:{port}/{number}.jpg\n" for number in range(num_images))
        with open(os.path.join(folder, "hosts"), "w", encoding="utf-8") as file:
            file.write("127.0.0.1 localhost\n")
        with open(os.path.join(folder, "run.py"), "w", encoding="utf-8") as file:
            file.write(code)
        arguments = [os.path.join(folder, name) for name in ("run.py", "urls.txt", "hosts")]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        environment = {
            **os.environ,
            "NO_ALBUMENTATIONS_UPDATE": "1",
            "PYTHONPATH": os.getcwd() if python == sys.executable else "",
        }
        subprocess.run([python, *arguments, str(port), folder], check=True, env=environment, stdout=subprocess.DEVNULL)
        after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - start
        check(folder, num_images)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, wall


def check(folder: str, num_images: int) -> None:
    """Both must have made every picture."""
    made = [os.path.join(folder, "part.parquet"), os.path.join(folder, "out", "00000.parquet")]
    table = pq.read_table(next(path for path in made if os.path.exists(path)))
    done = table.num_rows if "status" not in table.column_names else table["status"].to_pylist().count("success")
    assert done == num_images, f"{done} of {num_images} pictures were made"


def main() -> None:
    """Run both in turn and print the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peer-python", default="")
    options = parser.parse_args()
    kinds = {"ours": (sys.executable, OURS_CODE), "img2dataset": (peer_python(options.peer_python), PEER_CODE)}
    receiver, sender = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.Process(target=serve, args=(sender,), daemon=True)
    server.start()
    port, mean_bytes = receiver.recv()
    print(f"download: {options.images} JPEGs of {mean_bytes / 1000:.0f} kB on average, {options.runs} runs")
    cpu: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(options.runs):
        for name, (python, code) in kinds.items():
            idle, _ = spend(python, code, WARM_UP, port)
            busy, wall = spend(python, code, WARM_UP + options.images, port)
            cpu[name].append((busy - idle) / options.images)
            rate = options.images / wall
            print(f"  {name}: {cpu[name][-1] * 1000:.2f} ms of CPU per picture, {rate:.0f} pictures/s with start-up")
    server.terminate()
    ours, peer = (median(cpu[name]) for name in ("ours", "img2dataset"))
    print(f"download: ours {ours * 1000:.2f} ms, img2dataset {peer * 1000:.2f} ms of CPU per picture")
    print(f"download ratio={peer / ours:.2f}")


if __name__ == "__main__":
    main()
