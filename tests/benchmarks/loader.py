"""The loader beside open_clip's own: pairs per second of one core, from the same shards, at 224 px.

    python -m tests.benchmarks.loader [--pairs 1024] [--runs 3] [--store s3://BUCKET/FOLDER]

ours    model/data.py: libjpeg-turbo, a square crop, cubic, and normalised on the CPU here, though training does it on the GPU
peer    open_clip_train.data.get_wds_dataset: webdataset, Pillow, torchvision's transforms as open_clip trains with by default
both    256 px JPEGs of 20 to 40 KB with texts of a dozen words -> float32 [B, 3, 224, 224], normalised, and 77 tokens; batches
        of 64; 1 and 2 threads or workers; each side makes every pair of its shards once
ready   how often the next batch is there when it is asked for, with one thread and a step that takes 1.3 times as long as a
        batch takes to be made
store   the same shards from an object store too, two epochs: with a cache that holds one shard, and with one that holds all
last line  `loader ratio=X.XX`: the smaller of the two ratios of pairs per CPU second of all threads and processes, medians of
        runs in turn. Wall seconds are told beside it; they depend on who else uses the machine
"""

import argparse
import io
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from model import data, files
from model.config import IMAGE_MEAN, IMAGE_STD, DataConfig
from model.order import Order
from model.pixels import Normalise
from model.shards import ShardStore, iterate_texts, list_shards
from model.tokenizer import Tokenizer
from tests.model.peers import import_open_clip
from tests.model.small import write_shards

BATCH, SHARD, RESOLUTION = 64, 128, 224
WORDS = ("a", "photo", "of", "red", "green", "old", "bicycle", "mountain", "river", "street", "people", "market", "blue", "sea")


def picture(number: int) -> bytes:
    """Colours at several scales, as photographs have them; 256 px at the shorter side."""
    chance = np.random.default_rng(number)
    longer = 256 + int(chance.integers(0, 130))
    size = (longer, 256) if number % 2 else (256, longer)
    pixels = np.zeros((size[1], size[0], 3), np.float32)
    for cells in (4, 16, 64, 200):
        noise = chance.integers(0, 255, (cells, cells, 3), np.uint8)
        pixels += np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC), np.float32) / cells**0.5
    pixels *= 255 / pixels.max()
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def make_shards(folder: Path, num_pairs: int) -> float:
    """Write the shards. -> mean bytes of a picture"""
    chance = np.random.default_rng(0)
    pairs: list[tuple[bytes, str | None]] = [
        (picture(number), " ".join(WORDS[word] for word in chance.integers(0, len(WORDS), 12))) for number in range(num_pairs)
    ]
    write_shards(folder, [pairs[start : start + SHARD] for start in range(0, num_pairs, SHARD)])
    return float(np.mean([len(jpeg) for jpeg, _ in pairs]))


class Ours:
    """Our loader, its tokenizer learnt once."""

    def __init__(self, folder: str, cache_bytes: int = 0, epochs: int = 1):
        self.folder, self.shards, self.cache_bytes, self.epochs = folder, list_shards(folder), cache_bytes, epochs
        self.tokenizer = Tokenizer.train(iterate_texts(self.folder, self.shards, 1000), 600, 77)

    def batches(self, threads: int, ahead: int = 4) -> Iterator[data.Batch]:
        """All epochs of batches."""
        config = DataConfig(num_lanes=2, window_shards=4, num_threads=threads, prefetch_batches=ahead)
        counts = [shard.num_pairs for shard in self.shards]
        order = Order(counts, seed=0, global_batch=BATCH, num_lanes=2, window_shards=4)
        with ShardStore(self.folder, self.shards, cache_dir="", max_bytes=self.cache_bytes, max_open=8) as store:
            maker = data.Batches(order, store, self.tokenizer, config, RESOLUTION)
            with closing(data.iterate(maker, 0, self.epochs * order.steps_per_epoch, 0, 1, config)) as batches:
                yield from batches

    def tensors(self, threads: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """As the peer gives them."""
        normalise = Normalise()
        for batch in self.batches(threads):
            yield normalise(batch.images), batch.tokens


def peer(folder: Path, num_pairs: int, workers: int) -> Any:
    """open_clip's loader as its `main.py` makes it."""
    open_clip = import_open_clip()
    from open_clip_train import data as theirs  # pyright: ignore[reportMissingImports]
    from webdataset.tariterators import tar_file_expander

    theirs.tar_file_expander = partial(tar_file_expander, eof_value=None)  # a mark of webdataset 1.0 that it does not know
    args = SimpleNamespace(
        train_data=f"{folder}/{{00000..{num_pairs // SHARD - 1:05d}}}.tar",
        train_num_samples=num_pairs,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=0,
        workers=workers,
        world_size=1,
        batch_size=BATCH,
    )
    transform = open_clip.image_transform(RESOLUTION, is_train=True, mean=IMAGE_MEAN, std=IMAGE_STD)
    return theirs.get_wds_dataset(args, transform, True, tokenizer=open_clip.get_tokenizer("ViT-B-32")).dataloader


def cpu_seconds() -> float:
    """Of this process and its workers, which are alive."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def timed(batches: Any) -> tuple[float, float]:
    """Take every batch. -> pairs per CPU second, pairs per second"""
    cpu, wall, count = cpu_seconds(), time.perf_counter(), 0
    for images, tokens in batches:
        assert images.shape[1:] == (3, RESOLUTION, RESOLUTION)
        assert images.dtype == torch.float32
        assert 14 <= tokens.shape[1] <= 77  # ours are cut after the longest text of the batch
        assert -3 < float(images[0].mean()) < 3
        count += len(images)
    return count / (cpu_seconds() - cpu), count / (time.perf_counter() - wall)


def share_ready(ours: Ours) -> float:
    """How often a batch is there at once, with a step of 1.3 times a batch's making. The first ones are left out."""
    started = time.perf_counter()
    made = sum(1 for _ in ours.batches(1))
    step_seconds = 1.3 * (time.perf_counter() - started) / made
    waits = []
    batches = ours.batches(1)
    while True:
        asked = time.perf_counter()
        if next(batches, None) is None:
            return float(np.mean(np.asarray(waits[2:]) < 0.02 * step_seconds))
        waits.append(time.perf_counter() - asked)
        time.sleep(step_seconds)


def tell_store(folder: Path, url: str) -> None:
    """Copy the shards to a store, and print what comes from there."""
    for path in folder.iterdir():
        files.write(f"{url}/{path.name}", path.read_bytes())
    for name, cache_bytes in (("no cache", 0), ("a cache", 1 << 40)):
        rate, wall = timed(Ours(url, cache_bytes, epochs=2).tensors(2))
        print(f"2 workers  from a store, {name:<9} {rate:>6.0f} pairs per CPU s  {wall:>7.0f} pairs/s, two epochs", flush=True)


def main() -> None:
    """Print a line for each side and count of workers, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--store", default="", help="keys and endpoint come from the environment (AWS_*)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # what the peer's packages say is not about us
    torch.set_num_threads(1)
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mean_bytes = make_shards(folder, arguments.pairs)
        print(f"{arguments.pairs} pairs, pictures of {mean_bytes / 1000:.1f} KB, {arguments.runs} runs in turn", flush=True)
        ours = Ours(str(folder))
        for workers in (1, 2):
            sides: dict[str, list[tuple[float, float]]] = {"ours": [], "open_clip": []}
            for _ in range(arguments.runs):
                sides["ours"].append(timed(ours.tensors(workers)))
                sides["open_clip"].append(timed(peer(folder, arguments.pairs, workers)))
            medians = {side: [median(column) for column in zip(*runs, strict=True)] for side, runs in sides.items()}
            for side, (rate, wall) in medians.items():
                spread = " ".join(f"{run[0]:.0f}" for run in sides[side])
                print(f"{workers} workers  {side:<10} {rate:>7.0f} pairs per CPU s  {wall:>7.0f} pairs/s  ({spread})", flush=True)
            ratios.append(medians["ours"][0] / medians["open_clip"][0])
            print(f"{workers} workers  ratio      {ratios[-1]:>7.2f}", flush=True)
        if arguments.store:
            tell_store(folder, arguments.store)
        print(f"ready      {share_ready(ours):.1%} of the batches when they were asked for")
    print(f"loader ratio={min(ratios):.2f}")


if __name__ == "__main__":
    main()
