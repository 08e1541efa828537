"""Datasets and settings for tests: a few coloured squares with texts, in the shards' format, and a CLIP that fits them."""

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from model.config import ClipConfig, DataConfig, GuardConfig, OptimizerConfig, ResNetConfig, TextConfig, TrainConfig

COLORS = {"red": (220, 30, 30), "green": (30, 180, 40), "blue": (30, 40, 220), "white": (245, 245, 245)}

QUIET = GuardConfig(starvation_share=1.0, slow_rank_factor=1e9)  # none by the clock, so that equal runs have equal lines


def jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    """Encode.  [h, w, 3] uint8"""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def make_pairs(count: int, seed: int) -> list[tuple[bytes, str | None]]:
    """Squares of one colour on another, each with a text that says so."""
    generator = np.random.default_rng(seed)
    names = list(COLORS)
    pairs: list[tuple[bytes, str | None]] = []
    for index in range(count):
        front, back = generator.choice(len(names), 2, replace=False)
        height, width = (40, 40 + int(generator.integers(0, 12)))[:: 1 if index % 2 else -1]
        pixels = np.full((height, width, 3), COLORS[names[back]], np.uint8)
        x, y = generator.integers(4, 16, 2)
        pixels[y : y + 20, x : x + 20] = COLORS[names[front]]
        pairs.append((jpeg(pixels), f"a {names[front]} square on {names[back]}, number {index}"))
    return pairs


def write_shards(folder: Path, shards: list[list[tuple[bytes, str | None]]]) -> None:
    """Write tars, Parquet indexes and a manifest as the dataset build does: one part a shard."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, pairs in enumerate(shards):
        parts.append({"name": f"{number:05d}", "files": _write_shard(folder, number, pairs), "rows_out": len(pairs)})
    text = json.dumps(parts, sort_keys=True).encode()
    manifest = {"format": 1, "hash": hashlib.sha256(text).hexdigest(), "parts": parts}
    (folder / "_MANIFEST.json").write_text(json.dumps(manifest))


def _write_shard(folder: Path, number: int, pairs: list[tuple[bytes, str | None]]) -> list[dict[str, object]]:
    stream, offsets = io.BytesIO(), []
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for row, (data, text) in enumerate(pairs):
            for suffix, content in ((".jpg", data), (".txt", (text or "").encode()), (".json", b"{}")):
                info = tarfile.TarInfo(f"{number:05d}{row:04d}{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
                if suffix == ".jpg":
                    offsets.append(stream.tell() - len(content) - (-len(content)) % 512)
    texts, sizes = [text for _, text in pairs], [len(data) for data, _ in pairs]
    table = pa.table(
        {
            "caption": pa.array(texts, pa.string()),
            "image_offset": pa.array(offsets, pa.int64()),
            "image_bytes": pa.array(sizes, pa.int64()),
        }
    )
    (folder / f"{number:05d}.tar").write_bytes(stream.getvalue())
    pq.write_table(table, folder / f"{number:05d}.parquet")
    listed: list[dict[str, object]] = []
    for name in (f"{number:05d}.parquet", f"{number:05d}.tar"):
        content = (folder / name).read_bytes()
        listed.append({"name": name, "num_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    return listed


def small_clip() -> ClipConfig:
    """Two towers of a few thousand weights."""
    return ClipConfig(
        embed_dim=16,
        vision=ResNetConfig(image_resolution=16, layers=(1, 1), width=8, heads=4),
        text=TextConfig(context_length=16, vocab_size=560, width=16, layers=2, heads=2),
    )


def small_run(root: Path, **changes: object) -> TrainConfig:
    """A run of 12 steps with a checkpoint every 4, on a dataset of 100 pairs in 5 shards (made if it is not there)."""
    if not (root / "6_shards").exists():
        pairs = make_pairs(100, seed=0)
        write_shards(root / "6_shards", [pairs[start : start + 20] for start in range(0, 100, 20)])
    config = TrainConfig(
        root=str(root),
        model=small_clip(),
        data=DataConfig(num_lanes=4, window_shards=2, num_threads=2, prefetch_batches=2, pixel_cache_bytes=100_000),
        optimizer=OptimizerConfig(learning_rate=1e-2, num_warmup_steps=3),
        guards=QUIET,
        global_batch=16,
        num_samples=16 * 12,
        checkpoint_every_steps=4,
        save_budget=1.0,  # of a run this short, none would be waited for
        log_every_steps=1,
        track=(),
    )
    return replace(config, **changes)  # type: ignore[arg-type]
