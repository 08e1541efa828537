"""Balance: up to max_per_query pairs for each query; repeated pairs are merged first.

in      matched, by bucket of hosts; the counts that COUNT made of the same rows, as side dataset "counts"
out     balanced: the rows of matched that stay, a part for each bucket
drops   repeated_pair: the same pair_id again (the one with the smallest archive, record_offset, link_index, attribute stays)
        over_limit: no query of the pair lets it pass (see draws)
law     independent of the order and cut of the rows; nested in max_per_query; a query with few pairs keeps them all
shape   COUNT and TRIM_COUNT: count; STAGE: group. A pair's URL fixes its host, so that equal pairs meet in one bucket
cost    1 million pairs with 3.5 queries each: 3 s of CPU to count (soft: 1.5 s), 2 s to choose, 0.4 GB over the rows
source  CLIP section 2.2; MetaCLIP, "Balancing"
"""

from collections.abc import Mapping

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline import draws, schema
from pipeline.config import BalanceConfig, TrimConfig
from pipeline.draws import Limits
from pipeline.manifest import Dataset
from pipeline.stage import Stage, plan_group, plan_map

REPEATED_PAIR = "repeated_pair"
OVER_LIMIT = "over_limit"
PLACE = ("archive", "record_offset", "link_index", "attribute")  # which of a pair's repeats stays: the first of these
SLIM = ("pair_id", "query_ids")


def count_pairs(pairs: pa.Table, config: BalanceConfig) -> pa.Table:
    """COUNTS of the distinct pairs of one bucket."""
    distinct = pairs.filter(pa.array(_first_of_each(pairs["pair_id"])))
    return draws.count(distinct["pair_id"], distinct["query_ids"], config)


def _first_of_each(pair_ids: pa.ChunkedArray) -> np.ndarray:
    """Which rows are the first of their pair_id.  [n] bool"""
    return pl.Series(pair_ids).is_first_distinct().to_numpy()


def repeated(pairs: pa.Table) -> np.ndarray:
    """Which rows repeat a pair that stays in another row.  [n] bool"""
    rows = pl.DataFrame(pl.from_arrow(pairs.select(["pair_id", *PLACE]))).with_row_index("row").sort("pair_id", *PLACE, "row")
    result = np.ones(pairs.num_rows, bool)
    result[rows.filter(pl.col("pair_id").is_first_distinct())["row"].to_numpy()] = False
    return result


def balance(pairs: pa.Table, limits: Limits) -> pa.Table:
    """Label the repeats of pairs, and the pairs that no query lets pass."""
    schema.check(pairs, schema.MATCHED, "balance")
    stays = limits.keep(pairs["pair_id"], pairs["query_ids"])
    labels = np.full(pairs.num_rows, None, object)
    labels[~stays] = OVER_LIMIT
    labels[repeated(pairs)] = REPEATED_PAIR
    return pairs.append_column(schema.DROP, pa.array(labels, pa.string()))


def query_report(queries: Dataset, counts: Dataset, kept: Dataset, config: BalanceConfig) -> pa.Table:
    """What became of each query: one row for each, in the order of the list.

    counts: what COUNT made; kept: any later dataset with `query_ids`. Columns: query_id, query, source, count (pairs before),
    kept (pairs after), probability (of a pair to pass by this query; under 1 in the head). The schema's metadata has
    zero_match_share, the share of queries that no pair matches.
    """
    listed = queries.read(("query_id", "query", "source"))
    limits = Limits.load(counts, config)
    before, probability = np.zeros(listed.num_rows, np.int64), np.ones(listed.num_rows)
    before[: len(limits.counts)], probability[: len(limits.counts)] = limits.counts, limits.probability()
    after = np.zeros(listed.num_rows, np.int64)
    for part in kept.parts:
        ids = kept.read_part(part, ("query_ids",))["query_ids"].combine_chunks().flatten().to_numpy()
        after += np.bincount(ids, minlength=listed.num_rows)
    zero_match_share = float(np.mean(before == 0))
    columns = {"count": pa.array(before), "kept": pa.array(after), "probability": pa.array(probability)}
    table = pa.table({**dict(zip(listed.column_names, listed.columns, strict=True)), **columns})
    return table.replace_schema_metadata({"zero_match_share": repr(zero_match_share)})


class CountWorker:
    """Counts one bucket of matched."""

    def __init__(self, config: BalanceConfig, sides: Mapping[str, Dataset]):
        self.config = config

    def __call__(self, pairs: pa.Table) -> pa.Table:
        return count_pairs(pairs, self.config)


class TrimCountWorker:
    """Counts one part of the survivors, for the limit without the surplus that the download may lose."""

    def __init__(self, config: TrimConfig, sides: Mapping[str, Dataset]):
        self.config = draws.trimming(config.balance)

    def __call__(self, pairs: pa.Table) -> pa.Table:
        return count_pairs(pairs, self.config)


class Worker:
    """What one actor holds: the limits of all queries."""

    def __init__(self, config: BalanceConfig, sides: Mapping[str, Dataset]):
        self.limits = Limits.load(sides["counts"], config)

    def __call__(self, pairs: pa.Table) -> pa.Table:
        return balance(pairs, self.limits)


COUNT = Stage(
    name="balance_count", version=1, shape="count", worker=CountWorker, writes=schema.COUNTS, columns=(SLIM,), plan=plan_group
)
TRIM_COUNT = Stage(
    name="trim_count", version=1, shape="count", worker=TrimCountWorker, writes=schema.COUNTS, columns=(SLIM,), plan=plan_map
)
STAGE = Stage(name="balance", version=1, shape="group", worker=Worker, writes=schema.BALANCED, plan=plan_group)
