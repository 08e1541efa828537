"""Batches: what a rank trains on at a step, as a function of the step.

in      a dataset of shards, its order, a tokenizer
out     Batch: pictures uint8 [B, R, R, 3], tokens [B, L], the pairs they came from, bad pairs by reason
law     the batch of (step, rank, world size) never depends on the batches before it, on threads or on caches
law     the crop of a pair depends on (seed, epoch, pair) only; it is the only augmentation: a random square, resized
bad     no_text, read (the index points outside of the tar), decode: counted, and replaced by the next good pair of the
        shard, cyclically; a shard without any good pair is an error
shapes  B pairs on a rank, R resolution in px, L tokens
source  CLIP section 2.3: "a random square crop from resized images is the only data augmentation"
"""

import io
from collections import Counter, deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from model.config import DataConfig
from model.order import CROP, Order, uniforms
from model.shards import BadDataset, OpenShard, ShardStore
from model.tokenizer import Tokenizer

NO_TEXT, READ, DECODE = REASONS = ("no_text", "read", "decode")
cv2.setNumThreads(0)  # the loader's threads are enough, and a rank keeps to its cores
MOST_CUBIC = 1.25  # pixels of the crop over pixels of the picture, along a side
MAX_PIXELS = 89_478_485  # a quarter of a gigabyte as RGB


@dataclass(frozen=True, slots=True)
class Batch:
    """A rank's share of a global batch."""

    images: Tensor  # [B, R, R, 3] uint8
    tokens: Tensor  # [B, L] int64
    pairs: np.ndarray  # [B] positions of the pairs that are here
    bad: dict[str, int]  # bad pairs that were met, by reason


def decode(data: bytes, min_side_px: int) -> np.ndarray | None:
    """A JPEG's pixels, or None where it is broken. May come out smaller (1/2, 1/4, 1/8), not below `min_side_px`.

    -> [height, width, 3] uint8
    """
    try:
        height, width = (int(side) for side in simplejpeg.decode_jpeg_header(data)[:2])
        if width * height > MAX_PIXELS:
            return None
        factor = next((f for f in (8, 4, 2) if min(width, height) >= f * min_side_px), 1)  # those that are fast
        return simplejpeg.decode_jpeg(data, "RGB", min_height=-(-height // factor), min_width=-(-width // factor))
    except ValueError:  # also what libjpeg only warns of, and colours that it does not turn into RGB
        return _decode_any(data, min_side_px)


def _decode_any(data: bytes, min_side_px: int) -> np.ndarray | None:
    """As `decode`, slower: for the few JPEGs that are out of the ordinary, and to say which are broken."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            image.draft("RGB", (min_side_px, min_side_px))
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError):
        return None


def crop(pixels: np.ndarray, draws: np.ndarray, min_side: float, into: np.ndarray) -> None:
    """A square of `min_side` to 1 of the shorter side, anywhere, in whole pixels, resized.  [h, w, 3], [3] in [0, 1), [R, R, 3]

    Cubic; where it shrinks much, the mean of the area, which a cubic filter of four pixels would sample with holes.
    """
    height, width = pixels.shape[:2]
    resolution = len(into)
    side = max(1, round(min(height, width) * (min_side + (1 - min_side) * draws[0])))
    left, top = int(draws[1] * (width - side + 1)), int(draws[2] * (height - side + 1))
    left, top = min(left, width - side), min(top, height - side)  # a draw of 1 is at the edge
    kind = cv2.INTER_CUBIC if side <= MOST_CUBIC * resolution else cv2.INTER_AREA
    cv2.resize(pixels[top : top + side, left : left + side], (resolution, resolution), dst=into, interpolation=kind)


class PixelCache:
    """Decoded pictures, up to a number of bytes: the first that fit stay, so that every epoch finds the same ones."""

    def __init__(self, max_bytes: int):
        self._left = max_bytes
        self._pixels: dict[int, np.ndarray] = {}

    def get(self, pair: int) -> np.ndarray | None:
        """The pair's pixels if they are here."""
        return self._pixels.get(pair)

    def put(self, pair: int, pixels: np.ndarray) -> None:
        """Keep the pixels if there is room."""
        if pair not in self._pixels and pixels.nbytes <= self._left:
            self._left -= pixels.nbytes
            self._pixels[pair] = pixels


class Batches:
    """Makes any rank's batch of any step."""

    def __init__(self, order: Order, store: ShardStore, tokenizer: Tokenizer, config: DataConfig, resolution: int):
        self.order, self._store, self._tokenizer, self._config = order, store, tokenizer, config
        self._resolution = resolution
        self._min_side_px = int(np.ceil(resolution / config.crop_min_side))
        self._cache = PixelCache(config.pixel_cache_bytes)

    def make(self, step: int, rank: int, world_size: int) -> Batch:
        """The batch of a step, counted from 0 through all epochs."""
        epoch, epoch_step = divmod(step, self.order.steps_per_epoch)
        wanted = self.order.rank_batch(epoch, epoch_step, rank, world_size)
        bad: Counter[str] = Counter()
        pictures, texts, pairs = [], [], np.empty_like(wanted)
        opened: dict[int, OpenShard] = {}
        numbers = self.order.shard_of(wanted)
        for place in range(len(wanted)):
            number = int(numbers[place])
            if number not in opened:
                opened[number] = self._store.open(number)
            pairs[place], pixels, text = self._good_pair(int(wanted[place]), number, opened[number], bad)
            pictures.append(pixels)
            texts.append(text)
        draws = uniforms(pairs, 3, self.order.seed, CROP, epoch)
        sized = np.empty((len(pairs), self._resolution, self._resolution, 3), np.uint8)
        for place, pixels in enumerate(pictures):
            crop(pixels, draws[place], self._config.crop_min_side, sized[place])
        return Batch(torch.from_numpy(sized), self._tokenizer(texts), pairs, dict(bad))

    def copy(self, step: int, rank: int, world_size: int) -> None:
        """Bring the shards of a step here, where they are remote."""
        if self._store.is_remote:
            epoch, epoch_step = divmod(step, self.order.steps_per_epoch)
            wanted = self.order.rank_batch(epoch, epoch_step, rank, world_size)
            for number in np.unique(self.order.shard_of(wanted)):
                self._store.copy(int(number))

    def _good_pair(self, pair: int, number: int, shard: OpenShard, bad: Counter[str]) -> tuple[int, np.ndarray, str]:
        start, count = int(self.order.shard_starts[number]), int(self.order.shard_pairs[number])
        for distance in range(count):
            row = (pair - start + distance) % count
            text = shard.texts[row]
            pixels = self._pixels(start + row, row, shard) if text else NO_TEXT
            if not isinstance(pixels, str):
                return start + row, pixels, str(text)
            bad[pixels] += 1
        raise BadDataset(f"data: shard {number} has no pair that can be used ({dict(bad)}); run jobs/build_wit.py again")

    def _pixels(self, pair: int, row: int, shard: OpenShard) -> np.ndarray | str:
        """The pair's picture, or the reason why there is none."""
        pixels = self._cache.get(pair)
        if pixels is None:
            data = shard.image(row)
            if data is None:
                return READ
            pixels = decode(data, self._min_side_px)
            if pixels is None:
                return DECODE
            self._cache.put(pair, pixels)
        return pixels


def iterate(
    batches: Batches, first_step: int, num_steps: int, rank: int, world_size: int, config: DataConfig
) -> Generator[Batch, None, None]:
    """The batches of steps first_step .. num_steps - 1, made ahead of use in threads; remote shards come further ahead."""
    pools = [ThreadPoolExecutor(config.num_threads, thread_name_prefix=name) for name in ("loader", "copier")]
    loader, copier = pools
    ahead: deque[Future[Batch]] = deque()
    copies: deque[Future[None]] = deque()
    step = copied = first_step
    try:
        while ahead or step < num_steps:
            while step < num_steps and len(ahead) < config.prefetch_batches:
                ahead.append(loader.submit(batches.make, step, rank, world_size))
                step += 1
            while copied < min(num_steps, step + config.copy_ahead_batches):
                copies.append(copier.submit(batches.copy, copied, rank, world_size))
                copied += 1
            while copies and copies[0].done():
                copies.popleft().result()
            yield ahead.popleft().result()
    finally:
        for pool in pools:
            pool.shutdown(wait=True, cancel_futures=True)
