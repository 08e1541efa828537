"""What a stage is: a name, a version, a worker, and how its parts follow from the parts that it reads.

A worker is a class `Worker(config, sides)` whose instances are called with one table for each source (and `outputs=`, the
names of the output files, where a task has several) and give back a labelled table (column `drop`, see schema). It knows
neither Ray nor files. Four shapes:

fanout   one part -> one part; every row of the labelled table is a row in (crawl: the links that it saw)
map      one part of each source, of the same name -> one part; one labelled row for each row of the first source
group    one row group (bucket) of every part of the source -> one part; one labelled row for each row read. Several
         sources: the same bucket of each (plan_join)
count    as map or group, but the rows are a summary and the row law does not apply

Where the work is not cut by parts or buckets, `plan` makes the tasks itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.manifest import Dataset, Manifest

RUN_ROWS = 1_000_000  # of one task of plan_runs: small parts would make more records than rows of a summary


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """What a task reads of source number `source`: a part, some of its rows, or one row group of every part."""

    source: int
    part: str | None  # None: every part
    row_group: int | None = None
    rows: tuple[int, int] | None = None  # start and end in the part


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One part to make. The worker gets one table for each source: its inputs' rows, in the order of `inputs`."""

    part: str
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...] = ()  # names of several output files; then the labelled table has the column `output`
    chain: str = ""  # tasks of one chain are made by one worker, one after another; "": a chain of its own


def chains(pending: Sequence[tuple[Task, str]]) -> list[list[tuple[Task, str]]]:
    """The tasks, each with what goes with it, by chain; chains and tasks in the order in which they come."""
    found: dict[object, list[tuple[Task, str]]] = {}
    for number, (task, made_from) in enumerate(pending):
        found.setdefault(task.chain or number, []).append((task, made_from))
    return list(found.values())


Worker = Callable[..., pa.Table]  # one table for each source in, one labelled table out


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A stage, as the runner needs it.

    worker   `Worker(config, sides)`, built once an actor; sides: the other datasets that it reads whole, by name
    writes   the columns of the parts (without `drop`, and without the tar writer's own two)
    bucket   [rows] -> bucket number of each row; the part gets one row group for each bucket, `buckets(config)` in all
    again    [rows of schema.FAILED] -> which of them may come out another day; the parts get a list of all rows that left,
             and the runner's `retry` tries those again
    log      columns of the labelled table which are of the run (when, how often) and not of the rows: they are kept beside the
             part, with pair_id and drop, and are in no hash
    tar      images go to a tar beside the Parquet file; the labelled table has the column `image`
    columns  for each source the columns to read; None: all. The column `image` is read only where it is named
    """

    name: str
    version: int
    shape: Literal["fanout", "map", "group", "count"]
    worker: Callable[[Any, Mapping[str, Dataset]], Worker]
    writes: pa.Schema
    columns: tuple[tuple[str, ...] | None, ...] = (None,)
    bucket: Callable[[pa.Table, int], np.ndarray] | None = None
    buckets: Callable[[Any], int] | None = None
    log: pa.Schema | None = None
    tar: bool = False
    again: Callable[[pa.Table], pa.Array] | None = None
    plan: Callable[[Any, Sequence[Manifest]], list[Task]] | None = None
    light: bool = False  # made in a moment and holds little: tasks instead of actors of its own
    num_cpus: float = field(default=1.0)  # of one worker; download waits more than it computes


class Step(NamedTuple):
    """One run of a stage: its config, the folders that it reads and the one that it writes, relative to the root."""

    stage: Stage
    config: Any
    sources: Sequence[str]
    target: str
    sides: Mapping[str, str] = {}


def plan_map(config: object, manifests: Sequence[Manifest]) -> list[Task]:
    """One task for each part of the first source; the other sources have a part of the same name."""
    return [
        Task(part=part.name, inputs=tuple(Input(source=i, part=part.name) for i in range(len(manifests))))
        for part in manifests[0].parts
    ]


def plan_group(config: object, manifests: Sequence[Manifest]) -> list[Task]:
    """One task for each bucket of the source."""
    (manifest,) = manifests
    return [
        Task(part=f"bucket-{bucket:05d}", inputs=(Input(source=0, part=None, row_group=bucket),))
        for bucket in range(manifest.num_buckets)
    ]


def plan_runs(config: object, manifests: Sequence[Manifest]) -> list[Task]:
    """One task for each run of parts of the source that have RUN_ROWS rows together, named after the run's first part."""
    runs: list[list[str]] = []
    rows = RUN_ROWS
    for part in manifests[0].parts:
        if rows >= RUN_ROWS:
            runs.append([])
            rows = 0
        runs[-1].append(part.name)
        rows += part.rows_out
    return [Task(part=run[0], inputs=tuple(Input(source=0, part=name) for name in run)) for run in runs]


def plan_join(config: object, manifests: Sequence[Manifest]) -> list[Task]:
    """One task for each bucket. A source that is cut gives one row group of every part; one that is not has a part a bucket."""
    num_buckets = max(manifest.num_buckets for manifest in manifests)
    for manifest in manifests:
        if manifest.num_buckets not in (0, num_buckets) or (not manifest.num_buckets and len(manifest.parts) != num_buckets):
            raise ValueError(f"stage: {manifest.stage} is not cut into the {num_buckets} buckets of the others")
    return [
        Task(
            part=f"bucket-{bucket:05d}",
            inputs=tuple(
                Input(source=number, part=None, row_group=bucket)
                if manifest.num_buckets
                else Input(source=number, part=f"bucket-{bucket:05d}")
                for number, manifest in enumerate(manifests)
            ),
        )
        for bucket in range(num_buckets)
    ]
