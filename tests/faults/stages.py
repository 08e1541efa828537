"""A small dataset of numbers and stages of every shape over it, some of which die on purpose."""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.errors import InputError
from pipeline.events import Events
from pipeline.hashing import sha256
from pipeline.manifest import Dataset, Manifest
from pipeline.runner import Execute, run, write_dataset
from pipeline.stage import Stage
from pipeline.storage import join

NUMBERS = pa.schema([("pair_id", pa.string()), ("number", pa.int64())])
SUMS = pa.schema([("rows", pa.int64()), ("total", pa.int64())])
NUM_BUCKETS = 3
SETTINGS = RunConfig(num_workers=2, verify="hash", dropped_sample=5)


@dataclass(frozen=True, kw_only=True, slots=True)
class NumbersConfig:
    """`keep_modulo` decides rows; the rest is how the test misbehaves."""

    keep_modulo: int = 2
    marker: str = field(default="", metadata={"rows": False})  # folder: the first call that finds no file there dies
    each: bool = field(default=False, metadata={"rows": False})  # ... and so does every part's first call
    poison: int = field(default=-1, metadata={"rows": False})  # the part that holds this number kills its worker every time
    refuse: int = field(default=-1, metadata={"rows": False})  # ... is refused as a user's mistake


def numbers(num_parts: int, rows_per_part: int = 50) -> dict[str, pa.Table]:
    """Parts of seeded numbers."""
    generator = np.random.default_rng(7)
    parts = {}
    for part in range(num_parts):
        values = generator.integers(0, 1_000_000, rows_per_part)
        ids = [sha256(f"{part}/{i}".encode())[:32] for i in range(rows_per_part)]
        parts[f"part-{part}"] = pa.table({"pair_id": ids, "number": values}, schema=NUMBERS)
    return parts


def die_once(marker: str, name: str) -> None:
    """SIGKILL this process, the first time that it is asked with this name."""
    if not marker:
        return
    try:
        Path(marker, name).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class Keep:
    """map: keeps the multiples of keep_modulo."""

    def __init__(self, config: NumbersConfig, sides: Mapping[str, Dataset]):
        self.config, self.calls = config, 0

    def __call__(self, table: pa.Table) -> pa.Table:
        values = table["number"].to_pylist()
        if self.config.poison in values:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.config.refuse in values:
            raise InputError(f"keep: expected no {self.config.refuse}, found one; take it out")
        if self.config.each:
            die_once(self.config.marker, f"keep-{values[0]}")
        self.calls += 1
        if self.calls == 2:  # one part is committed, the next one is half done
            die_once(self.config.marker, "keep")
        reasons = [None if value % self.config.keep_modulo == 0 else "odd" if value % 2 else "other" for value in values]
        return table.append_column("drop", pa.array(reasons, pa.string()))


class Total:
    """count: rows and their sum."""

    def __init__(self, config: NumbersConfig, sides: Mapping[str, Dataset]):
        self.config = config

    def __call__(self, table: pa.Table) -> pa.Table:
        die_once(self.config.marker, "total")
        return pa.table({"rows": [table.num_rows], "total": [sum(table["number"].to_pylist())]}, schema=SUMS)


class Above:
    """group: keeps what is above the mean of all."""

    def __init__(self, config: NumbersConfig, sides: Mapping[str, Dataset]):
        self.config = config
        sums = sides["sums"].read()
        self.mean = sum(sums["total"].to_pylist()) / max(1, sum(sums["rows"].to_pylist()))

    def __call__(self, table: pa.Table) -> pa.Table:
        die_once(self.config.marker, "above")
        reasons = [None if value > self.mean else "below" for value in table["number"].to_pylist()]
        return table.append_column("drop", pa.array(reasons, pa.string()))


def bucket(table: pa.Table, num_buckets: int) -> np.ndarray:
    """The bucket of each row."""
    return np.asarray(table["number"]) % num_buckets


def buckets(config: NumbersConfig) -> int:
    """Row groups of a part."""
    return NUM_BUCKETS


KEEP = Stage(
    name="keep", version=1, shape="map", worker=Keep, writes=NUMBERS, bucket=bucket, buckets=buckets
)  # fmt: skip
TOTAL = Stage(name="total", version=1, shape="count", worker=Total, writes=SUMS, light=True)
ABOVE = Stage(name="above", version=1, shape="group", worker=Above, writes=NUMBERS, light=True)
STEPS = [  # stage, source, target, side datasets
    (KEEP, "0", "1", {}),
    (TOTAL, "1", "2/_sums", {}),
    (ABOVE, "1", "2", {"sums": "2/_sums"}),
]


def build(
    root: str,
    config: NumbersConfig,
    parts: dict[str, pa.Table],
    *,
    execute: Execute | None = None,
    settings: RunConfig = SETTINGS,
    steps: Any = STEPS,
) -> list[Manifest]:
    """All stages; returns the manifests."""
    events = Events(root, "test")
    manifests = [write_dataset(join(root, "0"), stage="numbers", version=1, config=None, parts=parts)]
    for stage, source, target, sides in steps:
        manifests.append(
            run(
                stage,
                config,
                sources=[join(root, source)],
                target=join(root, target),
                sides={name: join(root, folder) for name, folder in sides.items()},
                settings=settings,
                events=events,
                execute=execute,
            )
        )
    events.flush()
    return manifests
