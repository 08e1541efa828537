"""Merging repeated pairs of all archives: two passes of parts on slim columns, beside Ray Data's own groupby.

    python -m tests.benchmarks.repeats [--rows 2000000]

in      Parquet files of (pair_id, archive, record_offset, link_index, attribute), a third of the rows repeats of others
ours    the runner's two passes on Ray: parts cut into buckets by pair_id; in each bucket the row in the first place stays
        (balance.repeated). In the pipeline match makes the cut, by host, which all repeats of a pair share
peer    ray.data.read_parquet(...).groupby("pair_id").aggregate(Min("place")) on the same Ray, with as many partitions as we
        have buckets and without its slow reader; `place` is the four columns in one number, which spares it three of them
also    Polars in one process: right up to the memory of one machine
both    the same pairs, in the same places, asserted; medians of three runs after one that starts the workers. Ours also writes
        both passes with commit records and sha256, and can go on after any failure; the peer keeps its exchange in memory
last line  `repeats ratio=X.XX`: the peer's CPU seconds, of this process and all of Ray's, over ours; wall-clock stands above
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pyarrow as pa

from pipeline import balance, hashing
from pipeline.config import RunConfig
from pipeline.events import Events
from pipeline.manifest import Dataset, Manifest
from pipeline.parts import Job, write_part
from pipeline.runner import finish, on_ray, run_steps
from pipeline.stage import Stage, Step, Task
from tests.benchmarks.zipf import names

os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_DATA_USE_DATASOURCE_V2="0",
    RAY_num_workers_soft_limit="8",
    RAY_idle_worker_killing_time_threshold_ms="60000",
    PYTHONPATH=str(Path(__file__).parents[2]),
)
NUM_BUCKETS = 16
NUM_PARTS = 16
RUNS = 3
ROWS = pa.schema(
    [
        ("pair_id", pa.string()),
        ("archive", pa.string()),
        ("record_offset", pa.int64()),
        ("link_index", pa.int32()),
        ("attribute", pa.string()),
        ("place", pa.int64()),
    ]
)
OURS = ("pair_id", *balance.PLACE)


class Cut:
    """Rows as they are; the runner writes a row group for each bucket."""

    def __init__(self, config: None, sides: Mapping[str, Dataset]):
        self.config = config

    def __call__(self, rows: pa.Table) -> pa.Table:
        return rows


class Merge:
    """Labels the repeats of a bucket."""

    def __init__(self, config: None, sides: Mapping[str, Dataset]):
        self.config = config

    def __call__(self, rows: pa.Table) -> pa.Table:
        reason = pa.array([balance.REPEATED_PAIR] * rows.num_rows, pa.string(), mask=~balance.repeated(rows))
        return rows.append_column("drop", reason)


def bucket(rows: pa.Table, num_buckets: int) -> np.ndarray:
    """The bucket of each row's pair."""
    return (hashing.pair_hash(rows["pair_id"]) % np.uint64(num_buckets)).astype(np.int64)


def num_buckets(config: None) -> int:
    """Row groups of a part."""
    return NUM_BUCKETS


SLIM = pa.schema([ROWS.field(name) for name in OURS])
CUT = Stage(
    name="cut", version=1, shape="map", worker=Cut, writes=SLIM, columns=(OURS,), bucket=bucket, buckets=num_buckets, light=True
)  # fmt: skip
MERGE = Stage(name="merge", version=1, shape="group", worker=Merge, writes=SLIM, light=True)


def rows_of(num_rows: int) -> pa.Table:
    """A third of the rows repeat others; the archives and records in which a pair is seen are chance."""
    chance = np.random.default_rng(0)
    num_pairs = num_rows * 2 // 3
    pair = chance.permutation(np.concatenate([np.arange(num_pairs), chance.integers(0, num_pairs, num_rows - num_pairs)]))
    archive, offset = chance.integers(0, 64, num_rows), chance.permutation(num_rows)
    place = archive * 2**40 + offset
    columns = [
        names(num_pairs, chance).take(pa.array(pair)),
        pa.array([f"crawl-data/segments/{number:02d}.warc.wat.gz" for number in range(64)]).take(pa.array(archive)),
        pa.array(offset), pa.array(np.zeros(num_rows, np.int32)), pa.array(["alt"]).take(pa.array(np.zeros(num_rows, np.int64))),
        pa.array(place),
    ]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=ROWS)


def commit(folder: str, parts: Mapping[str, pa.Table]) -> None:
    """Write the parts as a finished dataset."""
    stage = Stage(name="rows", version=1, shape="fanout", worker=Cut, writes=ROWS)
    job = Job(stage=stage, config=None, sources=(), target=folder, sides={}, dropped_sample=0)
    made = [
        write_part(job, Task(part=name, inputs=()), part, rows_in=part.num_rows, made_from="", started=0.0)
        for name, part in parts.items()
    ]
    finish(folder, Manifest(stage="rows", fingerprint={}, parts=tuple(made)), None)


def ours(root: str, number: int) -> pl.DataFrame:
    """pair_id and place of what stays."""
    steps = [Step(CUT, None, ["0"], f"{number}/cut"), Step(MERGE, None, [f"{number}/cut"], f"{number}/merged")]
    run_steps(steps, root, settings=RunConfig(dropped_sample=0), events=Events(root, "benchmark"), execute=on_ray)
    rows = pl.read_parquet(f"{root}/{number}/merged/*.parquet")
    place = pl.col("archive").str.slice(20, 2).cast(pl.Int64) * 2**40 + pl.col("record_offset")
    return rows.select("pair_id", place=place)


def ray_data(root: str, number: int) -> pl.DataFrame:
    """pair_id and place of what stays."""
    import ray
    from ray.data.aggregate import Min

    rows = ray.data.read_parquet(f"{root}/0", columns=["pair_id", "place"], file_extensions=["parquet"])
    smallest = Min("place", alias_name="place")  # pyright: ignore[reportArgumentType]
    found = rows.groupby("pair_id", num_partitions=NUM_BUCKETS).aggregate(smallest)
    found.write_parquet(f"{root}/{number}/peer")
    return pl.read_parquet(f"{root}/{number}/peer/*.parquet").select("pair_id", "place")


def polars(root: str, number: int) -> pl.DataFrame:
    """pair_id and place of what stays."""
    found = pl.read_parquet(f"{root}/0/*.parquet", columns=["pair_id", "place"]).group_by("pair_id").agg(pl.min("place"))
    Path(root, str(number)).mkdir(exist_ok=True)
    found.write_parquet(f"{root}/{number}/polars.parquet")
    return found


def cpu_seconds() -> float:
    """Of this process and all that it started and that still are."""
    me = psutil.Process()
    times = []
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times.append(process.cpu_times())
    return sum(one.user + one.system for one in times)


def main() -> None:
    """Run all and print the seconds."""
    parser = argparse.ArgumentParser(description="Merging repeated pairs beside Ray Data's groupby.")
    parser.add_argument("--rows", type=int, default=2_000_000)
    options = parser.parse_args()
    import ray

    with tempfile.TemporaryDirectory(prefix="repeats-") as folder:
        ray.init(
            num_cpus=2, include_dashboard=False, object_store_memory=1_500_000_000, _temp_dir=f"{folder}/ray", log_to_driver=False
        )
        table = rows_of(options.rows)
        step = -(-table.num_rows // NUM_PARTS)
        parts = {f"part-{i:02d}": table.slice(i * step, step) for i in range(NUM_PARTS)}
        root = f"{folder}/root"
        commit(f"{root}/0", parts)
        spent: dict[str, list[tuple[float, float]]] = {}
        answers: dict[str, pl.DataFrame] = {}
        methods: dict[str, Callable[[str, int], Any]] = {"ours": ours, "ray data": ray_data, "polars": polars}
        for number in range(1, RUNS + 2):
            for name, method in methods.items():
                started, cpu = time.monotonic(), cpu_seconds()
                answers[name] = method(root, number)
                spent.setdefault(name, []).append((time.monotonic() - started, cpu_seconds() - cpu))
        ray.shutdown()
    whole = [answer.sort("pair_id") for answer in answers.values()]
    assert all(one.equals(whole[0]) for one in whole)
    wall, cpu = ({name: statistics.median(one[kind] for one in runs[1:]) for name, runs in spent.items()} for kind in (0, 1))
    told = ", ".join(f"{name} {seconds:.2f} s ({cpu[name]:.2f} s of CPU)" for name, seconds in wall.items())
    print(f"{options.rows:,} rows, {whole[0].height:,} pairs: {told}")
    print("first runs: " + ", ".join(f"{name} {runs[0][0]:.2f} s" for name, runs in spent.items()))
    print(f"wall-clock ratio {wall['ray data'] / wall['ours']:.2f}")
    print(f"repeats ratio={cpu['ray data'] / cpu['ours']:.2f}")


if __name__ == "__main__":
    main()
