"""Which copies of a picture the perceptual hash finds, and which strangers it takes for copies, by radius.

    python -m tests.benchmarks.near_copies FOLDER ... [--tile 640] [--max-tiles 400]

in      pictures on disk (photographs, drawings, icons). Large ones are cut into tiles that do not meet, each a picture of its
        own; a picture is left out where the hash of another lies within 2 bits and its colors are near too, by our hash:
        wallpapers come in several sizes
copies  each picture again: JPEG at quality 50 and 20, half and a quarter of its size, crops of 2, 5 and 10% on each side, a white
        border of 5%, a line of text over it, mirrored
ours    fingerprints.phash with the limit on colors (DedupeConfig), and without it
peer    imagehash.phash, at the same radius
prints  for each radius the recall of each kind of copy, and the strangers: pairs of different pictures within the radius, and
        what share of the pictures has one. Precision: of the pairs of a picture with a copy or a stranger that are within
        the radius, those that are a copy of it, for every picture once with each of its copies
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import imagehash  # pyright: ignore[reportMissingImports]
import numpy as np
import simplejpeg
from PIL import Image, ImageDraw, UnidentifiedImageError

from pipeline import fingerprints, images
from pipeline.config import DedupeConfig

RADII = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12)
Picture = np.ndarray
MIN_PX, STORED_PX = 96, 256


def load(folders: list[str], tile: int) -> Iterator[Picture]:
    """The pictures of the folders and the tiles of the large ones.  -> uint8 [H, W, 3] each"""
    for path in sorted(path for folder in folders for path in Path(folder).rglob("*")):
        if path.suffix.lower() not in (".jpg", ".jpeg", ".png", ".webp"):
            continue
        try:
            with Image.open(path) as image:
                rgb = images.to_rgb(image)
        except (UnidentifiedImageError, OSError):
            continue
        if min(rgb.shape[:2]) < MIN_PX:
            continue
        if min(rgb.shape[:2]) < 2 * tile:
            yield rgb
            continue
        for top in range(0, rgb.shape[0] - tile + 1, tile):
            for left in range(0, rgb.shape[1] - tile + 1, tile):
                yield np.ascontiguousarray(rgb[top : top + tile, left : left + tile])


def jpeg(rgb: Picture, quality: int) -> Picture:
    """Encoded and decoded."""
    return simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality=quality, colorspace="RGB"), "RGB")


def stored(rgb: Picture) -> Picture:
    """As the download keeps it: the shorter side at most 256 px, JPEG at 95."""
    scale = min(1.0, STORED_PX / min(rgb.shape[:2]))
    size = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
    return jpeg(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), 95)


def crop(rgb: Picture, share: float) -> Picture:
    """Without so much of each side."""
    dy, dx = round(rgb.shape[0] * share), round(rgb.shape[1] * share)
    return rgb[dy : rgb.shape[0] - dy, dx : rgb.shape[1] - dx]


def written_over(rgb: Picture) -> Picture:
    """A line of white text on black across the lower end, an eighth of the height."""
    image = Image.fromarray(rgb)
    height = max(8, image.height // 12)
    ImageDraw.Draw(image).rectangle((0, image.height - height, image.width, image.height), fill=(0, 0, 0))
    ImageDraw.Draw(image).text((4, image.height - height), "www.example.org  all rights reserved", fill=(255, 255, 255))
    return np.asarray(image)


def copies(rgb: Picture) -> dict[str, Picture]:
    """The picture changed in each way."""
    height, width = rgb.shape[:2]
    edge = max(1, round(0.05 * min(height, width)))
    return {
        "q50": jpeg(rgb, 50),
        "q20": jpeg(rgb, 20),
        "1/2": cv2.resize(rgb, (width // 2, height // 2), interpolation=cv2.INTER_AREA),
        "1/4": cv2.resize(rgb, (width // 4, height // 4), interpolation=cv2.INTER_AREA),
        "crop2": crop(rgb, 0.02),
        "crop5": crop(rgb, 0.05),
        "crop10": crop(rgb, 0.10),
        "border": cv2.copyMakeBorder(rgb, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=(255, 255, 255)),
        "text": written_over(rgb),
        "flip": np.ascontiguousarray(rgb[:, ::-1]),
    }


def peer_hash(rgb: Picture) -> int:
    """imagehash's pHash."""
    return int(str(imagehash.phash(Image.fromarray(rgb))), 16)


def main() -> None:
    """Hash everything, print the three tables."""
    parser = argparse.ArgumentParser(description="Recall and precision of the near search on real pictures.")
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--tile", type=int, default=640)
    parser.add_argument("--max-tiles", type=int, default=400)
    options = parser.parse_args()
    found = [rgb for rgb in load(options.folders, options.tile) if rgb.std() > 3]  # what is all of one color is no picture
    step = max(1, len(found) // options.max_tiles)
    kinds, hashes, colors = ["plain"], [], []
    for rgb in found[::step]:
        changed = {"plain": rgb, **copies(rgb)}
        kinds = list(changed)
        kept = [stored(picture) for picture in changed.values()]
        hashes.append([[fingerprints.phash(picture), peer_hash(picture)] for picture in kept])
        colors.append([np.frombuffer(fingerprints.colors(picture), np.uint8) for picture in kept])
    hashes_NKP, colors_NKC = np.asarray(hashes, np.uint64), np.asarray(colors).astype(np.int16)
    limit = DedupeConfig().max_color_distance
    plain_N, colors_NC = hashes_NKP[:, 0, 0], colors_NKC[:, 0]
    bits_NN = np.bitwise_count(plain_N[:, None] ^ plain_N[None])
    alike_NN = np.abs(colors_NC[:, None] - colors_NC[None]).max(axis=2) <= limit
    first = ~np.tril((bits_NN <= 2) & alike_NN, -1).any(axis=1)
    hashes_NKP, colors_NKC, alike_NN = hashes_NKP[first], colors_NKC[first], alike_NN[np.ix_(first, first)]
    print(f"{len(first)} pictures, {int(first.sum())} that differ")
    close_NK = np.abs(colors_NKC - colors_NKC[:, :1]).max(axis=2) <= limit
    everything = np.ones_like(alike_NN)
    show("ours, with the limit on colors", hashes_NKP[:, :, 0], close_NK, alike_NN, kinds)
    show("ours, hash alone", hashes_NKP[:, :, 0], np.ones_like(close_NK), everything, kinds)
    show("imagehash.phash", hashes_NKP[:, :, 1], np.ones_like(close_NK), everything, kinds)


def show(title: str, hashes_NK: np.ndarray, close_NK: np.ndarray, alike_NN: np.ndarray, kinds: list[str]) -> None:
    """One table: a line a radius."""
    bits_NK = np.bitwise_count(hashes_NK ^ hashes_NK[:, :1])
    bits_NN = np.bitwise_count(hashes_NK[:, 0, None] ^ hashes_NK[None, :, 0])
    apart_NN = ~np.eye(len(bits_NN), dtype=bool)
    print(
        f"\n{title}\n{'radius':>6} "
        + " ".join(f"{kind:>6}" for kind in kinds[1:])
        + f" {'all':>6} {'pairs':>6} {'strange':>8} {'prec.':>7}"
    )
    for radius in RADII:
        copy_NK = (bits_NK <= radius) & close_NK
        strange_NN = (bits_NN <= radius) & alike_NN & apart_NN
        recall = copy_NK[:, 1:].mean(axis=0)
        strangers = int(strange_NN.sum())
        precision = copy_NK[:, 1:].sum() / (copy_NK[:, 1:].sum() + strangers)
        print(
            f"{radius:>6} " + " ".join(f"{share:6.1%}" for share in recall)
            + f" {recall.mean():6.1%} {strangers // 2:>6} {strange_NN.any(axis=1).mean():8.2%} {precision:7.2%}"
        )  # fmt: skip


if __name__ == "__main__":
    main()
