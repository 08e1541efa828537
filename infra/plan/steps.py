"""The steps of jobs/build_wit.py as a plan sees them: what each reads, into how many tasks it is cut, how its rows grow.

law     every numbered folder that a build makes is here or in NOT_PLANNED; measured.py refuses a root with others
silent  the overlap with evaluation sets is not planned
source  jobs/build_wit.py, and `plan`, `bucket` and the cost lines of the stages
"""

from typing import Literal, NamedTuple

import pyarrow as pa

from pipeline import schema

How = Literal["part", "images", "buckets", "slices", "side"]
Cut = Literal["archives", "same", "hosts", "bands", "query_buckets", "runs", "slices", "groups"]
Grows = Literal["links", "pairs", "counts", "queries", "draws"]

ARCHIVES = "archives"
NOT_PLANNED = {"0_sources", "0_removed"}  # a row for each archive, for each removal
QUERY_LIST = "queries"  # built by another job, in minutes


class Read(NamedTuple):
    """One folder that a step reads.

    part     each part once, whole; images: and its tar too
    buckets  one row group of every part, for each task
    slices   the whole part, for each task that makes some rows of it
    side     all of it, by every worker
    """

    folder: str
    how: How


class PlanStep(NamedTuple):
    """One step; `stage` is its name in events and in --set."""

    stage: str
    folder: str
    reads: tuple[Read, ...]
    cut: Cut
    grows: Grows
    writes: pa.Schema
    bytes_per_task_row: float = 300.0  # of memory that a worker takes for each row of its task
    bytes_per_side_row: float = 0.0  # of memory that a worker takes for each row of its side datasets
    light: bool = False  # tasks in processes that are there; the others start actors


def _limits(name: str, rows: str, target: str, cut: Cut) -> list[PlanStep]:
    counts, windows, found, limits = (f"{target}/_{part}" for part in ("counts", "windows", "draws", "limits"))
    how: How = "buckets" if cut == "hosts" else "part"
    rows_read = Read(rows, how)
    return [
        PlanStep(f"{name}_count", counts, (rows_read,), cut, "counts", schema.COUNTS, light=True),
        PlanStep(f"{name}_windows", windows, (Read(counts, "buckets"),), "query_buckets", "queries", schema.WINDOWS, light=True),
        PlanStep(f"{name}_draws", found, (rows_read, Read(windows, "side")), cut, "draws", schema.DRAWS, 300.0, 40.0, light=True),
        PlanStep(
            f"{name}_limits", limits, (Read(windows, "part"), Read(found, "buckets")), "query_buckets", "queries", schema.LIMITS,
            light=True,
        ),
    ]  # fmt: skip


def _per_query(name: str, rows: str, limits: str) -> list[PlanStep]:
    kept, target = f"{rows}/_kept", f"{rows}/_per_query"
    return [
        PlanStep(f"{name}_kept", kept, (Read(rows, "part"),), "runs", "counts", schema.COUNTS, light=True),
        PlanStep(
            f"{name}_per_query", target, (Read(limits, "part"), Read(kept, "buckets")), "query_buckets", "queries",
            schema.PER_QUERY, light=True,
        ),
    ]  # fmt: skip


STEPS: tuple[PlanStep, ...] = (
    PlanStep("crawl", "1_candidates", (Read(ARCHIVES, "part"),), "archives", "links", schema.CANDIDATES),
    PlanStep("match", "2_matched", (Read("1_candidates", "part"), Read(QUERY_LIST, "side")), "same", "pairs", schema.MATCHED),
    *_limits("balance", "2_matched", "3_balanced", "hosts"),
    PlanStep(
        "balance", "3_balanced", (Read("2_matched", "buckets"), Read("3_balanced/_limits", "side")), "hosts", "pairs",
        schema.BALANCED, bytes_per_task_row=2000.0, bytes_per_side_row=40.0, light=True,
    ),
    *_per_query("balance", "3_balanced", "3_balanced/_limits"),
    PlanStep(
        "download", "4_images", (Read("3_balanced", "slices"),), "slices", "pairs", schema.IMAGES, bytes_per_task_row=60_000.0
    ),
    PlanStep("dedupe_bands", "5_unique/_bands", (Read("4_images", "part"),), "same", "pairs", schema.BANDS, 500.0),
    PlanStep("dedupe_edges", "5_unique/_edges", (Read("5_unique/_bands", "buckets"),), "bands", "pairs", schema.EDGES, 100.0),
    PlanStep(
        "dedupe", "5_unique", (Read("4_images", "part"), Read("5_unique/_edges", "side")), "same", "pairs", schema.UNIQUE,
        bytes_per_side_row=200.0,
    ),
    *_limits("trim", "5_unique", "5_unique", "runs"),
    PlanStep(
        "trim", "5_unique/_trimmed", (Read("5_unique", "part"), Read("5_unique/_limits", "side")), "same", "pairs",
        schema.TRIMMED, bytes_per_side_row=40.0, light=True,
    ),
    PlanStep(
        "shard", "6_shards", (Read("5_unique/_trimmed", "part"), Read("4_images", "images")), "groups", "pairs", schema.SHARDS,
        bytes_per_task_row=75_000.0,
    ),
    *_per_query("shard", "6_shards", "5_unique/_limits"),
)  # fmt: skip
BY_STAGE = {step.stage: step for step in STEPS}
BY_FOLDER = {step.folder: step for step in STEPS}
