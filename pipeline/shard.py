"""Shard: mix the pairs that stay and write them as WebDataset tars, each with a Parquet index.

in      unique; then what trimming left of it, and the images that it points into
out     trimmed: pair_id and query_ids of the pairs that are written
        shards: {shard}.tar and {shard}.parquet, named and with columns as img2dataset has them, then ours
drops   over_limit, by TRIM: the surplus that balancing kept for what the download might lose (see draws)
law     each pair is in exactly one shard; images are the stored bytes; the same inputs give the same shards, byte for byte
law     exactly pairs_per_shard pairs in each shard but the last
law     parts are laid end to end at random (seed, part) and cut, at whole shards, into groups of about parts_per_group; the
        pairs of a group are mixed at random (seed, pair) and dealt into its shards: a shard shows every host of its group
shape   TRIM: map. STAGE: map by its own plan, a task for each group, of whose parts the first and the last may be cut; the
        worker is told the names of the task's shards
cost    the images of a group three times in memory; a part that is cut is read twice, one of parts_per_group
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline import draws, hashing, schema
from pipeline.config import BalanceConfig, ShardConfig
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


def trim(unique: pa.Table, limits: draws.Limits) -> pa.Table:
    """TRIMMED rows, with the label of those over the limit."""
    stays = limits.keep(unique["pair_id"], unique["query_ids"])
    drop = pa.array([None if keep else OVER_LIMIT for keep in stays.tolist()], pa.string())
    return unique.select(schema.TRIMMED.names).append_column(schema.DROP, drop)


def plan(config: ShardConfig, manifests: Sequence[Manifest]) -> list[Task]:
    """One task for each group of parts, with the names of its shards; parts without pairs are left out."""
    rows = {part.name: part.rows_out for part in manifests[0].parts if part.rows_out}
    seed = hashing.mix(np.asarray([config.seed], np.uint64))[0]
    chance = {name: int(hashing.mix(np.asarray([hashing.string_hash(name)], np.uint64) ^ seed)[0]) for name in rows}
    names = sorted(rows, key=lambda name: (chance[name], name))
    ends = list(accumulate(rows[name] for name in names))  # of the parts, laid end to end
    size, total = config.pairs_per_shard, sum(rows.values())
    cuts = sorted({0, total, *(end // size * size for end in ends[config.parts_per_group - 1 : -1 : config.parts_per_group])})
    tasks = []
    for number, (start, end) in enumerate(pairwise(cuts)):
        cut = {  # part -> its first row in the group and the one after its last
            name: (max(start - last + rows[name], 0), min(end - last + rows[name], rows[name]))
            for name, last in zip(names, ends, strict=True)
            if last > start and last - rows[name] < end
        }
        outputs = tuple(f"{shard:0{SHARD_DIGITS}d}" for shard in range(start // size, -(-end // size)))
        trimmed = [Input(source=0, part=name, rows=None if cut[name] == (0, rows[name]) else cut[name]) for name in cut]
        pictures = [Input(source=1, part=name) for name in cut]
        tasks.append(Task(part=f"group-{number:05d}", inputs=(*trimmed, *pictures), outputs=outputs))
    return tasks


def mixed(pair_ids: list[str], seed: int) -> np.ndarray:
    """The order of the rows in the shards.  [n] -> [n] int64"""
    chance = hashing.mix(hashing.pair_hash(pair_ids) ^ hashing.mix(np.asarray([seed], np.uint64)))
    return np.lexsort((np.asarray(pair_ids, str), chance))


def shard(trimmed: pa.Table, images: pa.Table, outputs: Sequence[str], config: ShardConfig) -> pa.Table:
    """The pairs of a group as SHARDS rows with `image` and `output`, mixed.

    trimmed, images: the rows of the group's parts; outputs: the names of its shards, which are their numbers.
    """
    order = mixed(trimmed["pair_id"].to_pylist(), config.seed)
    number, index = np.divmod(np.arange(len(order)), config.pairs_per_shard)
    chosen = trimmed.take(pa.array(order))
    pictures = _pictures(chosen["pair_id"], images)
    first, num_pairs = int(outputs[0]), config.pairs_per_shard
    keys = [key(first + out, at, num_pairs) for out, at in zip(number.tolist(), index.tolist(), strict=True)]
    columns = {name: pictures[ours] for name, ours in zip(COPIED, COPIED_FROM, strict=True)}
    columns |= {"key": pa.array(keys, pa.string()), "status": pa.array(["success"] * len(keys), pa.string())}
    columns |= {name: chosen[name] for name in ("pair_id", "query_ids")}
    table = pa.table([columns[name] for name in schema.SHARDS.names], schema=schema.SHARDS)
    return table.append_column("image", pictures["image"]).append_column(schema.OUTPUT, pa.array(number, pa.int32()))


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


class TrimWorker:
    """Holds the limits of the queries; labels parts of unique."""

    def __init__(self, config: BalanceConfig, sides: Mapping[str, Dataset]):
        self.limits = draws.Limits.load(sides["limits"], config)

    def __call__(self, unique: pa.Table) -> pa.Table:
        return trim(unique, self.limits)


class Worker:
    """Turns a group of parts into shards."""

    def __init__(self, config: ShardConfig, sides: Mapping[str, Dataset]):
        self.config = config

    def __call__(self, *tables: pa.Table, outputs: Sequence[str]) -> pa.Table:
        trimmed, images = tables
        return shard(trimmed, images, outputs, self.config)


TRIM = Stage(
    name="trim",
    version=1,
    shape="map",
    worker=TrimWorker,
    writes=schema.TRIMMED,
    columns=(tuple(schema.TRIMMED.names),),
    light=True,
)
STAGE = Stage(
    name="shard",
    version=4,
    shape="map",
    worker=Worker,
    writes=schema.SHARDS,
    columns=(tuple(schema.TRIMMED.names), ("pair_id", *COPIED_FROM, "image")),
    tar=True,
    plan=plan,
)
