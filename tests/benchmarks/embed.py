"""Embedding by ViT-B/32 on a CPU beside open_clip's straightforward loop: JPEG files to unit vectors.

    python -m tests.benchmarks.embed

48 JPEGs of 640 x 480 px; the same drawn weights on both sides; one thread each, CPU seconds, in turns, medians of three rounds.
open_clip: Image.open, its `preprocess`, a stack of 16, encode_image, normalise: what its README shows. Ours: model/embed.py on a
folder. The vectors must agree: a cosine of 0.999 for every picture; we decode at half the size where that serves.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from model import collection, embed
from model.clip import CLIP
from model.evaluate.encoders import Encoder
from model.recipes import RECIPES
from tests.model.peers import import_open_clip

PICTURES, BATCH, ROUNDS = 48, 16, 3


def draw(folder: Path) -> list[Path]:
    """Smooth pictures with some noise."""
    chance, paths = np.random.default_rng(0), []
    for number in range(PICTURES):
        grid = Image.fromarray(chance.integers(0, 255, (12, 16, 3)).astype(np.uint8)).resize((640, 480), Image.Resampling.BICUBIC)
        rgb = np.clip(np.asarray(grid).astype(int) + chance.integers(-8, 8, (480, 640, 3)), 0, 255).astype(np.uint8)
        paths.append(folder / f"{number:03}.jpg")
        Image.fromarray(rgb).save(paths[-1], quality=90)
    return paths


@torch.inference_mode()
def theirs(model: torch.nn.Module, preprocess: object, paths: list[Path]) -> np.ndarray:
    """open_clip's loop."""
    found = []
    for start in range(0, len(paths), BATCH):
        batch = torch.stack([preprocess(Image.open(path)) for path in paths[start : start + BATCH]])  # type: ignore[operator]
        features = model.encode_image(batch)  # type: ignore[operator]
        found.append((features / features.norm(dim=-1, keepdim=True)).numpy())
    return np.concatenate(found)


def ours(encoder: Encoder, folder: str) -> np.ndarray:
    """The job's work on every unit."""
    tables = [embed.embed(encoder, unit, "images", "", BATCH) for unit in collection.units(folder, "images")]
    return np.asarray([row for table in tables for row in table["features"].to_pylist()])


def main() -> None:
    """Both sides in turns."""
    torch.set_num_threads(1)
    open_clip = import_open_clip()
    peer, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32-quickgelu", pretrained=None)
    config = RECIPES["vit_b_32"]().model
    model = CLIP(config)
    model.load_state_dict({name: value for name, value in peer.state_dict().items() if name != "attn_mask"})
    encoder = Encoder(model.eval(), lambda texts: torch.zeros(len(texts), 4), 224)
    seconds: dict[str, list[float]] = {"open_clip": [], "ours": []}
    vectors = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = draw(Path(folder))
        sides = {"open_clip": lambda: theirs(peer.eval(), preprocess, paths), "ours": lambda: ours(encoder, folder)}
        for _ in range(ROUNDS):
            for side, work in sides.items():
                start = time.process_time()
                vectors[side] = work()
                seconds[side].append(time.process_time() - start)
    cosines = (vectors["open_clip"] * vectors["ours"]).sum(axis=1)
    for side, values in seconds.items():
        middle = statistics.median(values)
        print(f"{side:<10} {middle:>7.2f} CPU s  {PICTURES / middle:>6.2f} pictures/s  ({' '.join(f'{v:.2f}' for v in values)})")
    print(f"smallest cosine between the two sides' vectors {cosines.min():.6f}")
    assert cosines.min() > 0.999
    print(f"embed ratio={statistics.median(seconds['open_clip']) / statistics.median(seconds['ours']):.2f}", flush=True)


if __name__ == "__main__":
    main()
