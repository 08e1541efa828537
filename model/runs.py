"""A training run's name and places; knows neither torch nor Ray, so that a finished run is seen at once.

root/6_shards/                        what it reads, or the folder in `shards`
root/train/events.jsonl               one JSON object each so many steps
root/train/checkpoints/RUN/step-N/    the newest few
root/model/                           the finished weights; its manifest names the run
law     the name is a hash of the settings that decide the weights, of the dataset's hash and of VERSION: another dataset,
        or other settings, are another run
"""

import json
import os
from collections.abc import Sequence
from typing import Any

from model import files
from model.config import TrainConfig, result_fields
from model.order import Order
from model.shards import Shard, list_shards, read_manifest

VERSION = 2  # raise it when the same settings would give other weights
MANIFEST = "_MANIFEST.json"


def shards_folder(config: TrainConfig) -> str:
    """Where the dataset is."""
    return config.shards or files.join(config.root, "6_shards")


def model_folder(config: TrainConfig) -> str:
    """Where the finished weights go."""
    return files.join(config.root, "model")


def events_path(config: TrainConfig) -> str:
    """Where the curve goes."""
    return files.join(config.root, "train", "events.jsonl")


def checkpoints_folder(config: TrainConfig, run: str) -> str:
    """Where a run's checkpoints go."""
    return files.join(config.root, "train", "checkpoints", run)


def ray_folder(config: TrainConfig) -> str:
    """Where Ray Train keeps its own notes; no checkpoint of ours is there."""
    folder = files.join(config.root, "train", "ray")
    return folder if files.is_remote(folder) else os.path.abspath(folder)


def data_order(config: TrainConfig, shards: Sequence[Shard]) -> Order:
    """The order of the run's data. Raises ValueError where the dataset is too small for it."""
    return Order(
        [shard.num_pairs for shard in shards],
        seed=config.seed,
        global_batch=config.global_batch,
        num_lanes=config.data.num_lanes,
        window_shards=config.data.window_shards,
    )


def run_name(config: TrainConfig) -> str:
    """The run's name. Raises ValueError where there is no finished dataset, or not enough of it for a batch."""
    data_order(config, list_shards(shards_folder(config)))
    dataset_hash = read_manifest(shards_folder(config))["hash"]
    facts = [VERSION, result_fields(config), dataset_hash]
    if config.start_from:
        facts.append(_start_hash(config.start_from))
    return f"clip-{files.sha256(json.dumps(facts, sort_keys=True).encode())[:12]}"


def _start_hash(folder: str) -> str:
    try:
        return files.sha256(files.read(files.join(folder, MANIFEST)))
    except FileNotFoundError:
        raise ValueError(
            f"{folder} holds no finished model (no {MANIFEST}), and --start-from names it: train it first, or make it of another "
            "project's file with jobs/convert.py"
        ) from None


def finished(config: TrainConfig, run: str) -> dict[str, Any] | None:
    """The facts of the finished model if this run made it, else None."""
    try:
        manifest = json.loads(files.read(files.join(model_folder(config), MANIFEST)))
    except (FileNotFoundError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("run") == run else None
