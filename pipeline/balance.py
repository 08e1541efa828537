"""Balance: up to max_per_query pairs for each query; repeated pairs are merged first.

in      matched, by bucket of hosts; the limits of its queries, as side dataset "limits"
out     balanced: the rows of matched that stay, a part for each bucket
drops   repeated_pair: the same pair_id again (the one with the smallest archive, record_offset, link_index, attribute stays)
        over_limit: no query of the pair lets it pass (see draws)
law     independent of the order and cut of the rows; nested in max_per_query; a query with few pairs keeps them all;
        the result for two crawls is that of one run over both
shape   STAGE: group. A pair's URL fixes its host and so its bucket: all repeats of a pair, of any archive, meet in one

The limits come from passes that read slim columns only (pair_id, query_ids), one part at a time, and write less at each
step; what belongs to a query meets by query_id modulo num_query_buckets:
COUNT    a bucket of matched -> how many of its distinct pairs each query has
WINDOWS  a bucket of queries -> their counts, and the window in which the limit is (cap mode)
DRAWS    a bucket of matched -> the draws in the windows (cap mode)
LIMITS   a bucket of queries -> up to which draw their pairs pass: 20 bytes a query, what every worker of STAGE loads
The same passes find the limits that sharding trims the survivors to, there with those of balancing as side dataset "earlier".
PER_QUERY  a bucket of queries -> a row for each query that occurs: pairs before and after

cost    a million pairs with 3.5 queries each: 2.2 s of CPU for the limits, 3.0 s for STAGE, most of it Parquet; a worker holds
        one bucket: 0.8 GB at 400,000 pairs, whatever the number of buckets (tests/benchmarks/balance.py)
source  CLIP section 2.2; MetaCLIP, "Balancing"
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline import draws, hashing, schema
from pipeline.config import BalanceConfig
from pipeline.draws import Limits
from pipeline.manifest import Dataset, Manifest
from pipeline.stage import Stage, Step, Task, plan_group, plan_join, plan_runs

REPEATED_PAIR = "repeated_pair"
OVER_LIMIT = "over_limit"
PLACE = ("archive", "record_offset", "link_index", "attribute")  # which of a pair's repeats stays: the first of these
SLIM = ("pair_id", "query_ids")


def distinct(pairs: pa.Table) -> pa.Table:
    """SLIM columns of the first row of each pair_id."""
    is_first = pl.Series(pairs["pair_id"]).is_first_distinct()
    return pairs.select(SLIM) if is_first.all() else pairs.select(SLIM).filter(is_first.to_arrow())


def repeated(pairs: pa.Table) -> np.ndarray:
    """Which rows repeat a pair that stays in another row.  [n] bool"""
    result = np.zeros(pairs.num_rows, bool)
    hashes = pl.Series("hash", hashing.pair_hash(pairs["pair_id"]))  # sorts faster than the ids; the ids decide
    rows = np.flatnonzero(hashes.is_duplicated().to_numpy())
    if len(rows):
        places = pl.DataFrame(pl.from_arrow(pairs.select(["pair_id", *PLACE]).take(pa.array(rows))))
        by_rank = pl.col(pl.String).exclude("pair_id").cast(pl.Categorical)  # few values: ordered as texts, compared as numbers
        places = places.with_columns(by_rank, row=rows, hash=hashes.gather(rows)).sort("hash", *PLACE, "row")
        result[places.filter(~pl.col("pair_id").is_first_distinct())["row"].to_numpy()] = True
    return result


def balance(pairs: pa.Table, limits: Limits) -> pa.Table:
    """Label the repeats of pairs, and the pairs that no query lets pass."""
    schema.check(pairs, schema.MATCHED, "balance")
    is_repeat, stays = repeated(pairs), limits.keep(pairs["pair_id"], pairs["query_ids"])
    reason = pa.array(is_repeat.astype(np.int8), mask=stays & ~is_repeat)
    label = pa.DictionaryArray.from_arrays(reason, pa.array([OVER_LIMIT, REPEATED_PAIR]))
    return pairs.append_column(schema.DROP, label.cast(pa.string()))


def per_query(limits: pa.Table, kept: pa.Table) -> pa.Table:
    """PER_QUERY rows. limits: LIMITS of some queries; kept: COUNTS of what stayed, of every part, of the same queries."""
    after = pl.DataFrame(draws.merge(kept)).select("query_id", kept="count")
    rows = pl.DataFrame(limits).join(after, on="query_id", how="left").sort("query_id")
    probability = (pl.col("largest").cast(pl.Float64) + 1) / draws.RANGE
    table = rows.with_columns(pl.col("kept").fill_null(0), probability=probability).select(schema.PER_QUERY.names)
    return table.to_arrow().cast(schema.PER_QUERY)


def query_bucket(rows: pa.Table, num_buckets: int) -> np.ndarray:
    """The bucket of each row's query.  [rows] int64"""
    return rows["query_id"].to_numpy().astype(np.int64) % num_buckets


def _num_query_buckets(config: BalanceConfig) -> int:
    return config.num_query_buckets


def _plan_rows(config: BalanceConfig, manifests: Sequence[Manifest]) -> list[Task]:
    """Rows that may repeat a pair come in buckets, in which all repeats meet; where pairs are distinct the cut is free."""
    return (plan_group if manifests[0].num_buckets else plan_runs)(config, manifests)


class CountWorker:
    """Counts the pairs of some rows."""

    def __init__(self, config: BalanceConfig, sides: Mapping[str, Dataset]):
        self.config, self.earlier = config, _earlier(config, sides)

    def __call__(self, pairs: pa.Table) -> pa.Table:
        pairs = distinct(pairs)
        return draws.count(pairs["pair_id"], pairs["query_ids"], self.config, self.earlier)


def _earlier(config: BalanceConfig, sides: Mapping[str, Dataset]) -> Limits | None:
    return Limits.load(sides["earlier"], config) if "earlier" in sides else None


class WindowsWorker:
    """The windows of a bucket of queries."""

    def __init__(self, config: BalanceConfig, sides: Mapping[str, Dataset]):
        self.config, self.earlier = config, _earlier(config, sides)

    def __call__(self, counts: pa.Table) -> pa.Table:
        return draws.windows(draws.merge(counts), self.config, self.earlier)


class DrawsWorker:
    """Holds the windows of all queries; the draws in them of some rows."""

    def __init__(self, config: BalanceConfig, sides: Mapping[str, Dataset]):
        self.config, self.windows = config, sides["windows"].read()

    def __call__(self, pairs: pa.Table) -> pa.Table:
        pairs = distinct(pairs)
        return draws.inside(pairs["pair_id"], pairs["query_ids"], self.config, self.windows)


class LimitsWorker:
    """The limits of a bucket of queries, from their windows and the draws in them."""

    def __init__(self, config: BalanceConfig, sides: Mapping[str, Dataset]):
        self.config = config

    def __call__(self, windows: pa.Table, found: pa.Table) -> pa.Table:
        return draws.limits(windows, found, self.config)


class SoftLimitsWorker:
    """The limits of a bucket of queries, from their counts."""

    def __init__(self, config: BalanceConfig, sides: Mapping[str, Dataset]):
        self.config, self.earlier = config, _earlier(config, sides)

    def __call__(self, counts: pa.Table) -> pa.Table:
        return draws.soft_limits(draws.merge(counts), self.config, self.earlier)


class Worker:
    """What one actor holds: the limits of all queries."""

    def __init__(self, config: BalanceConfig, sides: Mapping[str, Dataset]):
        self.limits = Limits.load(sides["limits"], config)

    def __call__(self, pairs: pa.Table) -> pa.Table:
        return balance(pairs, self.limits)


class PerQueryWorker:
    """Reports on a bucket of queries."""

    def __init__(self, config: BalanceConfig, sides: Mapping[str, Dataset]):
        self.config = config

    def __call__(self, limits: pa.Table, kept: pa.Table) -> pa.Table:
        return per_query(limits, kept)


def _by_query(name: str, worker: type, writes: pa.Schema, num_sources: int = 1) -> Stage:
    """A stage with a part for each bucket of queries."""
    columns = (None,) * num_sources
    return Stage(name=name, version=1, shape="count", worker=worker, writes=writes, columns=columns, plan=plan_join, light=True)


COUNT = Stage(
    name="balance_count", version=2, shape="count", worker=CountWorker, writes=schema.COUNTS, columns=(SLIM,),
    bucket=query_bucket, buckets=_num_query_buckets, plan=_plan_rows, light=True,
)  # fmt: skip
WINDOWS = _by_query("balance_windows", WindowsWorker, schema.WINDOWS)
DRAWS = replace(COUNT, name="balance_draws", version=1, worker=DrawsWorker, writes=schema.DRAWS)
LIMITS = _by_query("balance_limits", LimitsWorker, schema.LIMITS, 2)
SOFT_LIMITS = _by_query("balance_limits", SoftLimitsWorker, schema.LIMITS)
STAGE = Stage(name="balance", version=2, shape="group", worker=Worker, writes=schema.BALANCED, plan=plan_group, light=True)
PER_QUERY = _by_query("balance_per_query", PerQueryWorker, schema.PER_QUERY, 2)


def limit_steps(config: BalanceConfig, rows: str, target: str, earlier: str | None = None) -> list[Step]:
    """The passes that find the limits for the dataset `rows`: target/_limits.

    earlier: the limits of the balance whose survivors `rows` are; then the passes are called trim_ and not balance_.
    """
    sides = {"earlier": earlier} if earlier else {}
    counts, windows, found, limits = (f"{target}/_{name}" for name in ("counts", "windows", "draws", "limits"))
    steps = [Step(COUNT, config, (rows,), counts, sides)]
    if config.mode == "soft":
        steps.append(Step(SOFT_LIMITS, config, (counts,), limits, sides))
    else:
        steps.append(Step(WINDOWS, config, (counts,), windows, sides))
        steps.append(Step(DRAWS, config, (rows,), found, {"windows": windows}))
        steps.append(Step(LIMITS, config, (windows, found), limits, {}))
    return [_named(step, "trim" if earlier else "balance") for step in steps]


def per_query_steps(config: BalanceConfig, rows: str, limits: str, target: str, verb: str) -> list[Step]:
    """The passes that count what stayed of each query: `rows` are what stayed; target/_per_query."""
    kept = f"{target}/_kept"
    count = replace(COUNT, name="balance_kept")
    steps = [Step(count, config, (rows,), kept, {}), Step(PER_QUERY, config, (limits, kept), f"{target}/_per_query", {})]
    return [_named(step, verb) for step in steps]


def _named(step: Step, verb: str) -> Step:
    return step._replace(stage=replace(step.stage, name=step.stage.name.replace("balance", verb)))
