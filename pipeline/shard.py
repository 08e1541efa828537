"""Shard: mix the pairs that stay and write them as WebDataset tars, each with a Parquet index.

in      unique and the images that it points into; the limits of unique's queries, as side dataset "limits"
out     shards: {shard}.tar and {shard}.parquet, named and with columns as img2dataset has them, then ours
drops   over_limit: the surplus that balancing kept for what the download might lose (see draws)
law     each pair is in exactly one shard; images are the stored bytes; the same inputs give the same shards, byte for byte
law     parts of images are put into groups at random (seed, part), the pairs of a group are mixed at random (seed, pair)
        and dealt evenly over its shards, at most pairs_per_shard each: a shard shows every host of its group
shape   map by its own plan, a task for each group; the worker is told the names of the task's shards
cost    the images of a group three times in memory
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline import draws, hashing, schema
from pipeline.config import TrimConfig
from pipeline.manifest import Dataset, Manifest
from pipeline.stage import Input, Stage, Task

OVER_LIMIT = "over_limit"
SHARD_DIGITS = 5
OURS = {"url": "image_url", "caption": "text"}  # our name of a column that img2dataset names otherwise
MADE_HERE = ("key", "status", "pair_id", "query_ids")  # the other columns are copied from the images
COPIED: tuple[str, ...] = tuple(name for name in schema.SHARDS.names if name not in MADE_HERE)
COPIED_FROM = tuple(OURS.get(name, name) for name in COPIED)


def key(shard: int, index: int, pairs_per_shard: int) -> str:
    """img2dataset's name of pair `index` of a shard: the shard's number, then as many digits as the index may need."""
    digits = len(str(pairs_per_shard - 1)) if pairs_per_shard > 1 else 0
    return f"{10**digits * shard + index:0{digits + SHARD_DIGITS}d}"


def plan(config: TrimConfig, manifests: Sequence[Manifest]) -> list[Task]:
    """One task for each group of parts, with the names of its shards; parts without pairs are left out."""
    rows = {part.name: part.rows_out for part in manifests[0].parts if part.rows_out}
    seed = hashing.mix(np.asarray([config.shard.seed], np.uint64))[0]
    chance = {name: int(hashing.mix(np.asarray([hashing.string_hash(name)], np.uint64) ^ seed)[0]) for name in rows}
    names = sorted(rows, key=lambda name: (chance[name], name))
    tasks, num_shards = [], 0
    for number, start in enumerate(range(0, len(names), config.shard.parts_per_group)):
        group = names[start : start + config.shard.parts_per_group]
        count = -(-sum(rows[name] for name in group) // config.shard.pairs_per_shard)
        outputs = tuple(f"{shard:0{SHARD_DIGITS}d}" for shard in range(num_shards, num_shards + count))
        inputs = tuple(Input(source=source, part=name) for source in range(2) for name in group)
        tasks.append(Task(part=f"group-{number:05d}", inputs=inputs, outputs=outputs))
        num_shards += count
    return tasks


def deal(pair_ids: list[str], stays: np.ndarray, num_shards: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The order of the rows, those that stay first; and in that order each one's shard and its place there (0 for the others).

    pair_ids, stays: [n] -> order, shard, index: [n] int64
    """
    chance = hashing.mix(hashing.pair_hash(pair_ids) ^ hashing.mix(np.asarray([seed], np.uint64)))
    order = np.lexsort((np.asarray(pair_ids, str), chance, ~stays))
    num_kept = int(np.count_nonzero(stays))
    starts = [num_kept * shard // num_shards for shard in range(num_shards + 1)]
    shards, index = np.zeros(len(order), np.int64), np.zeros(len(order), np.int64)
    for shard, (start, end) in enumerate(pairwise(starts)):
        shards[start:end], index[start:end] = shard, np.arange(end - start)
    return order, shards, index


def shard(unique: pa.Table, images: pa.Table, outputs: Sequence[str], limits: draws.Limits, config: TrimConfig) -> pa.Table:
    """The pairs of a group as SHARDS rows with `image` and `output`, mixed, and the label of those over the limit.

    unique, images: the rows of the group's parts; outputs: the names of its shards, which are their numbers.
    """
    stays = limits.keep(unique["pair_id"], unique["query_ids"])
    order, number, index = deal(unique["pair_id"].to_pylist(), stays, len(outputs), config.shard.seed)
    chosen = unique.select(["pair_id", "query_ids"]).take(pa.array(order))
    pictures = _pictures(chosen["pair_id"], images)
    first, num_pairs = int(outputs[0]), config.shard.pairs_per_shard
    keys = [key(first + out, at, num_pairs) for out, at in zip(number.tolist(), index.tolist(), strict=True)]
    columns = {name: pictures[ours] for name, ours in zip(COPIED, COPIED_FROM, strict=True)}
    columns |= {"key": pa.array(keys), "status": pa.array(["success"] * len(keys), pa.string())}
    columns |= {name: chosen[name] for name in ("pair_id", "query_ids")}
    table = pa.table([columns[name] for name in schema.SHARDS.names], schema=schema.SHARDS)
    drop = pa.array([None if keep else OVER_LIMIT for keep in stays[order].tolist()], pa.string())
    table = table.append_column("image", pictures["image"]).append_column(schema.OUTPUT, pa.array(number, pa.int32()))
    return table.append_column(schema.DROP, drop)


def _pictures(pair_ids: pa.ChunkedArray, images: pa.Table) -> pa.Table:
    """The images row of each pair, in the order of `pair_ids`."""
    rows = pl.DataFrame({"pair_id": pl.Series(images["pair_id"])}).with_row_index("row")
    found = pl.DataFrame({"pair_id": pl.Series(pair_ids)}).join(rows, on="pair_id", how="left", maintain_order="left")
    if found.height != len(pair_ids) or found["row"].null_count():
        raise ValueError(
            f"shard: expected one picture for each of {len(pair_ids)} pairs, found {found['row'].count()} with "
            f"{found['row'].null_count()} pairs without: unique and images are of different runs"
        )
    at = images.schema.get_field_index("image")
    # 64-bit offsets: the images of a group may be more than 2 GiB.
    large = images.set_column(at, pa.field("image", pa.large_binary()), images["image"].cast(pa.large_binary()))
    return large.take(found["row"].to_arrow())


class Worker:
    """Holds the limits of the queries; turns a group of images parts into shards."""

    def __init__(self, config: TrimConfig, sides: Mapping[str, Dataset]):
        self.config = config
        self.limits = draws.Limits.load(sides["limits"], draws.trimming(config.balance))

    def __call__(self, *tables: pa.Table, outputs: Sequence[str]) -> pa.Table:
        unique, images = tables
        return shard(unique, images, outputs, self.limits, self.config)


STAGE = Stage(
    name="shard",
    version=2,
    shape="map",
    worker=Worker,
    writes=schema.SHARDS,
    columns=(("pair_id", "query_ids"), ("pair_id", *COPIED_FROM, "image")),
    tar=True,
    plan=plan,
)
