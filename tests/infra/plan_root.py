"""Roots whose manifests and Parquet files follow a law that the test knows: what a plan measures there can be told by hand."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from infra.plan.steps import STEPS
from pipeline.manifest import File, Manifest, Part

PARTS = 8
BODY_BYTES_PER_ROW = 50
SURVIVAL = {"crawl": 0.8, "match": 0.9, "balance": 0.75, "download": 0.5, "dedupe": 0.8, "trim": 1.0, "shard": 1.0}
FANOUT = {"dedupe_bands": 5.0, "dedupe_edges": 0.1}


@dataclass(frozen=True)
class Law:
    """How long parts take."""

    row_seconds: float = 0.001
    part_seconds: float = 0.0
    start_seconds: float = 0.0  # of each worker's first part
    workers: int = 2
    pool_seconds: float = 0.5
    queries: int = 40
    survival: Mapping[str, float] = field(default_factory=lambda: SURVIVAL)


def write_root(root: Path, links: int, law: Law) -> str:
    """A finished root with so many links, in PARTS parts a step. Returns its path."""
    rows = {"archives": links}
    _write_queries(root / "queries", law.queries)
    for step in STEPS:
        rows_in = rows[step.reads[0].folder]
        share = law.survival.get(step.stage, FANOUT.get(step.stage, 1.0))
        rows_out = law.queries if step.grows in ("queries", "counts", "draws") else round(rows_in * share)
        rows[step.folder] = rows_out
        _write_step(root / step.folder, step.stage, rows_in, rows_out, law, step.writes)
    return str(root)


def _write_queries(folder: Path, queries: int) -> None:
    part = Part(name="queries", files=(), rows_in=queries, rows_out=queries, drops={}, made_from="")
    folder.mkdir(parents=True)
    (folder / "_MANIFEST.json").write_bytes(Manifest(stage="queries", fingerprint={}, parts=(part,)).to_json())


def _write_step(folder: Path, stage: str, rows_in: int, rows_out: int, law: Law, schema: pa.Schema) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(schema.empty_table(), folder / "part.parquet")
    footer = int.from_bytes((folder / "part.parquet").read_bytes()[-8:-4], "little")
    parts = []
    for number in range(PARTS):
        ours_in, ours_out = (count * (number + 1) // PARTS - count * number // PARTS for count in (rows_in, rows_out))
        seconds = law.part_seconds + law.row_seconds * ours_in + (law.start_seconds if number < law.workers else 0.0)
        num_bytes = footer + BODY_BYTES_PER_ROW * ours_out
        file = File(name="part.parquet", num_bytes=num_bytes, sha256="")
        drops = {"gone": max(0, ours_in - ours_out)}
        parts.append(
            Part(name=f"{number}", files=(file,), rows_in=ours_in, rows_out=ours_out, drops=drops, made_from="", seconds=seconds)
        )
    wall = law.pool_seconds + sum(part.seconds for part in parts) / law.workers
    manifest = Manifest(stage=stage, fingerprint={}, parts=tuple(parts), seconds=wall)
    (folder / "_MANIFEST.json").write_bytes(manifest.to_json())
