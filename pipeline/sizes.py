"""Sizes: how many pairs each shard has, in the files that others' tools look for beside the shards.

in      a finished folder of shards
out     sizes.json, {tar: pairs}: open_clip takes the number of samples from it; NNNNN_stats.json as img2dataset writes one for
        each shard, which DataComp's resharder and img2dataset itself take for the mark of a finished shard
law     functions of the shards, and in no manifest. Of img2dataset's keys the times are 0: no download is told here
cost    the end of an index is read only in parts that pairs were removed from: every other shard but the last is full
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet as pq

from pipeline import storage
from pipeline.manifest import Dataset, Part
from pipeline.tombstones import REMOVED

STATS = re.compile(r"\d+_stats\.json")
WRITERS = 32  # files at once: they are small and may be far away


def sizes(shards: Dataset) -> dict[str, int]:
    """The pairs of each shard, by its name without an ending."""
    pairs_per_shard = shards.manifest.fingerprint["config"]["pairs_per_shard"]
    return {name: size for part in shards.manifest.parts for name, size in _of_part(shards, part, pairs_per_shard)}


def _of_part(shards: Dataset, part: Part, pairs_per_shard: int) -> Iterator[tuple[str, int]]:
    names = [file.name.removesuffix(".tar") for file in part.files if file.name.endswith(".tar")]
    left = part.rows_out
    for name in names:
        if REMOVED in part.drops:
            with storage.open_read(storage.join(shards.folder, f"{name}.parquet"), ahead=False) as stream:
                yield name, pq.ParquetFile(stream).metadata.num_rows
        else:
            yield name, min(left, pairs_per_shard)
            left -= pairs_per_shard


def write(shards: Dataset) -> None:
    """Write the files, and take away those of shards that are no more."""
    found = sizes(shards)
    files = {
        f"{name}_stats.json": {
            "count": size, "successes": size, "failed_to_download": 0, "failed_to_resize": 0, "duration": 0.0, "start_time": 0.0,
            "end_time": 0.0, "status_dict": {"success": size},
        }
        for name, size in found.items()
    }  # fmt: skip
    files["sizes.json"] = {f"{name}.tar": size for name, size in found.items()}
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(lambda file: _write(shards.folder, *file), files.items()))
        strange = [name for name in storage.names(shards.folder) if STATS.fullmatch(name) and name not in files]
        list(pool.map(lambda name: storage.remove(storage.join(shards.folder, name)), strange))


def _write(folder: str, name: str, content: dict[str, object]) -> None:
    """Write a file unless it is there already."""
    path, data = storage.join(folder, name), json.dumps(content, indent=4).encode()
    try:
        is_there = storage.read(path) == data
    except FileNotFoundError:
        is_there = False
    if not is_there:
        storage.write(path, data)
