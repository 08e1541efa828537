"""JPEGs to planes at the stored size: ours beside libjpeg-turbo's reduced decode with OpenCV's resize, one thread, CPU.

    python -m tests.benchmarks.jpeg [--images 60] [--runs 7]

in      JPEGs like photographs (tests/benchmarks/download.py), to 256 px keep_ratio
ours    pipeline/jpeg.py: brightness and half-size color, as the encoder takes them; pictures that it leaves to libjpeg-turbo are
        counted with that
peer    simplejpeg (libjpeg-turbo) at the smallest eighths that serve, RGB, then to the stored size: what ours was before
lines   for each kind of file (as served by most, codes of its own, gray, restarts) the medians of the sums over all pictures
last    `jpeg ratio=X.XX`, of the first kind: the peer's seconds over ours
"""

import argparse
import io
import time
from collections.abc import Callable
from statistics import median

import cv2
import numpy as np
from PIL import Image

from pipeline import images, jpeg, scaling
from pipeline.config import DownloadConfig
from tests.benchmarks.download import photograph
from tests.pipeline.odd_files import encode

CONFIG = DownloadConfig()
KINDS: dict[str, Callable[[bytes], bytes]] = {
    "as served": lambda data: data,
    "codes of its own": lambda data: encode(opened(data), "JPEG", quality=85, optimize=True),
    "gray": lambda data: encode(opened(data).convert("L"), "JPEG", quality=85),
    "restarts of lines": lambda data: encode(opened(data), "JPEG", quality=85, restart_marker_rows=1),
}


def opened(data: bytes) -> Image.Image:
    """The picture by Pillow."""
    return Image.open(io.BytesIO(data))


def ours(data: bytes) -> object:
    """Planes, or what is made in their place."""
    header = jpeg.read_header(data)
    assert header
    size = scaling.stored_size(header.width, header.height, CONFIG)
    return jpeg.planes(data, header, size) or peer(data)


def peer(data: bytes) -> np.ndarray:
    """The picture by libjpeg-turbo at its stored size."""
    image = opened(data)
    size = scaling.stored_size(*image.size, CONFIG)
    rgb, extent = images.decode(data, image, size)
    return scaling.fit(rgb, extent, size)


def main() -> None:
    """Run both in turn over every kind of file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    served, ratios = [photograph(seed) for seed in range(options.images)], []
    for kind, make in KINDS.items():
        files = [make(data) for data in served]
        spent: dict[str, list[float]] = {"ours": [], "libjpeg-turbo": []}
        for _ in range(options.runs + 1):
            for name, read in (("ours", ours), ("libjpeg-turbo", peer)):
                start = time.process_time()
                for data in files:
                    read(data)
                spent[name].append((time.process_time() - start) / len(files))
        times = {name: median(found[1:]) for name, found in spent.items()}  # the first run compiles
        ratios.append(times["libjpeg-turbo"] / times["ours"])
        said = ", ".join(f"{name} {seconds * 1000:.2f} ms" for name, seconds in times.items())
        kilobytes = sum(map(len, files)) / len(files) / 1000
        print(f"jpeg: {kind}, {kilobytes:.0f} kB: {said} a picture; {ratios[-1]:.2f} times")
    print(f"jpeg ratio={ratios[0]:.2f}")


if __name__ == "__main__":
    main()
