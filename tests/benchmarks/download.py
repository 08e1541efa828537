"""Download beside img2dataset: CPU seconds per picture of the whole loop, same URLs, same settings, two workers each.

    python -m tests.benchmarks.download [--full] [--https] [--images 1000] [--runs 3] [--peer-python PYTHON]

in      JPEGs like photographs (shapes and grain, 400 to 2000 px, quality 85), from a server process on loopback
ours    two of the stage's workers (robots.txt included), each with its decoding process, then tar and Parquet on disk
peer    img2dataset, webdataset output, its defaults but for: 256 px keep_ratio, only if bigger, 2 processes, 32 threads
cpu     user and system seconds of the processes, less what a run over 8 pictures takes (imports); the server's are not
        counted. Medians, runs taken in turn
wall    pictures a second, start-up taken off the same way
--full  3,000 pictures of 300 different ones, one run
--https the same over TLS; both trust this machine's authorities and the server's own
peer-python  an interpreter that has img2dataset; without it one is made in `peers` inside our environment's folder: it asks
        for an older OpenCV than ours
pixels  the stored pictures of both, compared: sizes, and PSNR of each different picture
last line  `download ratio=X.XX`: the peer's CPU seconds over ours
"""

import argparse
import asyncio
import glob
import multiprocessing
import os
import resource
import ssl
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from multiprocessing.connection import Connection
from statistics import median

import cv2
import numpy as np
import pyarrow.parquet as pq
import simplejpeg
import trustme
from aiohttp import web

PEER = "img2dataset==1.47.0"
PEERS = os.path.join(sys.prefix, "peers")
PICTURES_PER_BASE = 10  # each different picture is served under so many URLs
WARM_UP = 8
Images = dict[int, np.ndarray]  # the stored pictures, RGB, by their number in the URL

OURS_CODE = """
import os, sys
import multiprocessing
import pyarrow.parquet as pq
from pipeline import schema, tars
from pipeline.config import MiniDownloadConfig
from pipeline.download import Worker
from tests.pipeline.loopback import pairs
urls, hosts_file, port, folder = open(sys.argv[1]).read().split(), sys.argv[2], int(sys.argv[3]), sys.argv[4]
place = dict(hosts_file=hosts_file, hosts_port=port, contact_url="http://us.test/")
config = MiniDownloadConfig(concurrency=32, concurrency_per_host=32, **place)

def make(part):
    labelled = Worker(config, {})(pairs(urls[part::2]))
    assert labelled[schema.DROP.name].null_count == len(urls[part::2]), labelled[schema.DROP.name].value_counts()
    tar, table = tars.pack(labelled.drop_columns([schema.DROP.name]))
    with open(os.path.join(folder, f"part-{part}.tar"), "wb") as file:
        file.write(tar)
    pq.write_table(table, os.path.join(folder, f"part-{part}.parquet"))

workers = [multiprocessing.Process(target=make, args=(part,)) for part in range(2)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
assert [worker.exitcode for worker in workers] == [0, 0]
"""
PEER_CODE = """
import sys
from img2dataset import download
if __name__ == "__main__":
    download(url_list=sys.argv[1], output_folder=sys.argv[4] + "/out", output_format="webdataset", image_size=256,
             resize_mode="keep_ratio", resize_only_if_bigger=True, processes_count=2, thread_count=32,
             number_sample_per_shard=int(sys.argv[5]), enable_wandb=False)
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


def serve(ready: Connection, num_bases: int, tls: ssl.SSLContext | None = None) -> None:
    """The server process: /N.jpg is photograph N modulo num_bases."""
    bodies = [photograph(seed) for seed in range(num_bases)]

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        name = request.path[1:].removesuffix(".jpg")
        return (
            web.Response(body=bodies[int(name) % num_bases], content_type="image/jpeg")
            if name.isdigit()
            else web.Response(status=404)
        )

    async def run() -> None:
        runner = web.ServerRunner(web.Server(answer, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024, ssl_context=tls).start()
        ready.send((runner.addresses[0][1], sum(map(len, bodies)) / num_bases))
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


def certify(folder: str) -> tuple[ssl.SSLContext, str]:
    """The server's TLS, and the file of the authorities that clients trust: this machine's and the server's own."""
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    path, known = os.path.join(folder, "authorities.pem"), ssl.get_default_verify_paths().cafile
    with open(path, "wb") as file:
        if known:
            with open(known, "rb") as system:
                file.write(system.read())
        file.write(authority.cert_pem.bytes())
    return tls, path


def spend(python: str, code: str, num_images: int, base: str, authorities: str) -> tuple[float, float, Images]:
    """CPU and wall seconds of one run over so many pictures, in its own process, and what it stored."""
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "urls.txt"), "w", encoding="utf-8") as file:
            file.writelines(f"{base}/{number}.jpg\n" for number in range(num_images))
        with open(os.path.join(folder, "hosts"), "w", encoding="utf-8") as file:
            file.write("127.0.0.1 localhost\n")
        with open(os.path.join(folder, "run.py"), "w", encoding="utf-8") as file:
            file.write(code)
        arguments = [os.path.join(folder, name) for name in ("run.py", "urls.txt", "hosts")]
        arguments += [base.rpartition(":")[2], folder, str(-(-num_images // 2))]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
        environment["PYTHONPATH"] = os.getcwd() if python == sys.executable else ""
        if authorities:
            environment["SSL_CERT_FILE"] = authorities
        subprocess.run([python, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - start
        images = stored(folder, num_images // PICTURES_PER_BASE)
        assert len(images) == num_images, f"{len(images)} of {num_images} pictures were made"
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, wall, images


def stored(folder: str, num_pixels: int) -> Images:
    """Every picture in the tars of the folder, empty but for the first num_pixels. The tables tell which key is which URL."""
    images = {}
    for path in glob.glob(os.path.join(folder, "**", "*.tar"), recursive=True):
        table = pq.read_table(path.removesuffix("tar") + "parquet")
        urls = table["url" if "url" in table.column_names else "image_url"].to_pylist()
        names = (url.rpartition("/")[2].removesuffix(".jpg") for url in urls)
        numbers = {key: int(name) for key, name in zip(table["key"].to_pylist(), names, strict=True)}
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, kind = member.name.rpartition(".")
                file = tar.extractfile(member) if kind == "jpg" else None
                if file:
                    number = numbers[key]
                    images[number] = simplejpeg.decode_jpeg(file.read(), "RGB") if number < num_pixels else np.zeros(0, np.uint8)
    return images


def compare(ours: Images, theirs: Images, num_bases: int) -> None:
    """Print how far the stored pictures of both agree."""
    pairs = [(ours[number], theirs[number]) for number in range(min(num_bases, len(ours)))]
    same = [(a, b) for a, b in pairs if a.shape == b.shape]
    psnr = [10 * np.log10(255**2 / max(1e-9, float(np.mean((a.astype(np.float32) - b) ** 2)))) for a, b in same]
    low, *quantiles, high = np.quantile(psnr, (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1))
    print(f"pixels: {len(same)} of {len(pairs)} different pictures have the same size as img2dataset's")
    marks = "  ".join(f"{name} {value:.1f}" for name, value in zip(("5%", "25%", "50%", "75%", "95%"), quantiles, strict=True))
    print(f"pixels: PSNR mean {np.mean(psnr):.1f} dB  (least {low:.1f}  {marks}  most {high:.1f})")


def main() -> None:
    """Run both in turn and print the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--https", action="store_true")
    parser.add_argument("--peer-python", default="")
    options = parser.parse_args()
    num_images, runs = (3000, 1) if options.full else (options.images, options.runs)
    kinds = {"ours": (sys.executable, OURS_CODE), "img2dataset": (peer_python(options.peer_python), PEER_CODE)}
    num_bases = max(1, num_images // PICTURES_PER_BASE)
    with tempfile.TemporaryDirectory() as folder:
        tls, authorities = certify(folder) if options.https else (None, "")
        receiver, sender = multiprocessing.get_context("fork").Pipe(duplex=False)
        server = multiprocessing.get_context("fork").Process(target=serve, args=(sender, num_bases, tls), daemon=True)
        server.start()
        port, mean_bytes = receiver.recv()
        base = f"{'https' if tls else 'http'}://localhost:{port}"
        print(f"download: {num_images} JPEGs of {mean_bytes / 1000:.0f} kB on average by {base[:5].rstrip(':')}, {runs} runs")
        cpu: dict[str, list[float]] = {name: [] for name in kinds}
        wall: dict[str, list[float]] = {name: [] for name in kinds}
        images: dict[str, Images] = {}
        for python, code in kinds.values():  # what is compiled once a machine counts for nobody
            spend(python, code, WARM_UP, base, authorities)
        for _ in range(runs):
            for name, (python, code) in kinds.items():
                idle_cpu, idle_wall, _ = spend(python, code, WARM_UP, base, authorities)
                busy_cpu, busy_wall, images[name] = spend(python, code, WARM_UP + num_images, base, authorities)
                cpu[name].append((busy_cpu - idle_cpu) / num_images)
                wall[name].append((busy_wall - idle_wall) / num_images)
                print(f"  {name}: {cpu[name][-1] * 1000:.2f} ms of CPU per picture, {1 / wall[name][-1]:.0f} pictures/s")
        server.terminate()
    compare(images["ours"], images["img2dataset"], num_bases)
    ours, peer = (median(cpu[name]) for name in ("ours", "img2dataset"))
    rates = [1 / median(wall[name]) for name in ("ours", "img2dataset")]
    print(f"download: ours {rates[0]:.0f}, img2dataset {rates[1]:.0f} pictures/s; {rates[0] / rates[1]:.2f} times")
    print(f"download: ours {ours * 1000:.2f} ms, img2dataset {peer * 1000:.2f} ms of CPU per picture")
    print(f"download ratio={peer / ours:.2f}")


if __name__ == "__main__":
    main()
