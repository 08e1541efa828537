"""The per-query report: what became of each query of the list.

in      the query list, and the PER_QUERY tables of balancing and, where there are shards, of sharding
out     one row for each query, in the order of the list: Parquet for programs, numbers and lines for the page
law     every count is a count of distinct pairs; a query of no pair has counts of 0
cost    the list three times in memory: 500,000 rows
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from pipeline import storage
from pipeline.errors import InputError
from pipeline.manifest import Dataset, Manifest

BALANCED, SHARDS = "3_balanced/_per_query", "6_shards/_per_query"


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Some of the queries together. Matches: (pair, query), so that a pair counts for each of its queries."""

    name: str
    num_queries: int
    num_unmatched: int
    before: int  # matches of all pairs
    after: int  # of the pairs that stay


@dataclass(frozen=True, kw_only=True, slots=True)
class Queries:
    """How many pairs each query has before and after balancing."""

    table: pl.DataFrame  # see `table`
    mode: str
    max_per_query: int
    oversample: float
    after_folder: str
    head_and_tail: list[Group]  # head: more than max_per_query pairs before; tail: the others that match at all
    sources: list[Group]  # the same numbers for each source of queries
    top: list[dict[str, Any]]  # rows of the table, the most frequent first

    @property
    def num_queries(self) -> int:
        """Queries of the list."""
        return self.table.height

    @property
    def num_matched(self) -> int:
        """Those that occur in at least one text."""
        return self.table.filter(pl.col("matched") > 0).height

    @property
    def num_head(self) -> int:
        """Those that had more than max_per_query pairs."""
        return int(self.table["head"].sum())

    @property
    def before(self) -> np.ndarray:
        """Pairs of each query, descending.  [queries] int64"""
        return self.table["matched"].sort(descending=True).to_numpy()

    @property
    def after(self) -> np.ndarray:
        """Pairs of each query that stay, descending.  [queries] int64"""
        return self.table["kept"].sort(descending=True).to_numpy()

    def to_parquet(self) -> bytes:
        """The table as a Parquet file."""
        sink = io.BytesIO()
        self.table.write_parquet(sink, compression="zstd")
        return sink.getvalue()

    def kept_share_by_rank(self, num_points: int) -> tuple[list[float], list[float]]:
        """Of at most so many runs of queries, by rank before: the middle rank, and the share of their matches that stays."""
        rows = self.table.filter(pl.col("matched") > 0).sort("matched", descending=True)
        edges = np.unique(np.geomspace(1, rows.height + 1, num_points + 1).astype(int)) - 1 if rows.height else np.zeros(1, int)
        before, after = (np.add.reduceat(rows[name].to_numpy(), edges[:-1]) for name in ("matched", "kept"))
        return np.sqrt((edges[:-1] + 1) * edges[1:]).tolist(), (after / before).tolist()


def table(queries: Dataset, balanced: Dataset, shards: Dataset | None, max_per_query: int) -> pl.DataFrame:
    """One row for each query, in the order of the list.

    query_id, query, source, score  as in the list
    matched, balanced   distinct pairs that match it, and those that balancing kept
    unique, kept        those that were downloaded and are no duplicate, and those in the shards; without shards null, and
                        what balancing kept
    kept_share          kept / matched; null where nothing matched
    probability         of a pair to pass balancing by this query alone
    head                more than max_per_query pairs match it
    """
    rows = pl.DataFrame(queries.read(("query_id", "query", "source", "score")))
    found = pl.DataFrame(balanced.read()).rename({"count": "matched", "kept": "balanced"})
    rows = rows.join(found, on="query_id", how="left", maintain_order="left")
    if shards is None:
        rows = rows.with_columns(unique=pl.lit(None, pl.Int64), kept="balanced")
    else:
        found = pl.DataFrame(shards.read()).select("query_id", "kept", unique="count")
        rows = rows.join(found, on="query_id", how="left", maintain_order="left").with_columns(pl.col("unique").fill_null(0))
    rows = rows.with_columns(pl.col("matched", "balanced", "kept").fill_null(0), pl.col("probability").fill_null(1.0))
    share = pl.when(pl.col("matched") > 0).then(pl.col("kept") / pl.col("matched"))
    return rows.with_columns(kept_share=share, head=pl.col("matched") > max_per_query).select(
        "query_id", "query", "source", "score", "matched", "balanced", "unique", "kept", "kept_share", "probability", "head"
    )


def collect(root: str, num_top: int) -> Queries | None:
    """The report of the dataset under `root`, with so many rows of the most frequent queries; None before balancing is done."""
    balanced, shards = (Dataset(storage.join(root, name)) for name in (BALANCED, SHARDS))
    made = _manifest(balanced)
    if made is None:
        return None
    config = made.fingerprint["config"]
    has_shards = _manifest(shards) is not None
    rows = table(Dataset(storage.join(root, "queries")), balanced, shards if has_shards else None, config["max_per_query"])
    kind = pl.when("head").then(pl.lit("head")).when(pl.col("matched") > 0).then(pl.lit("tail")).otherwise(pl.lit("no pair"))
    by_kind = {group.name: group for group in _groups(rows.with_columns(kind=kind), "kind")}
    top = rows.filter(pl.col("matched") > 0).sort("matched", "query_id", descending=[True, False]).head(num_top)
    return Queries(
        table=rows,
        mode=config["mode"],
        max_per_query=config["max_per_query"],
        oversample=config["oversample"],
        after_folder=(SHARDS if has_shards else BALANCED).split("/")[0],
        head_and_tail=[by_kind[name] for name in ("head", "tail", "no pair") if name in by_kind],
        sources=sorted(_groups(rows, "source"), key=lambda group: (-group.num_queries, group.name)),
        top=top.to_dicts(),
    )


def _manifest(dataset: Dataset) -> Manifest | None:
    try:
        return dataset.manifest
    except InputError:
        return None


def _groups(rows: pl.DataFrame, by: str) -> list[Group]:
    sums = rows.group_by(by).agg(
        num_queries=pl.len(), num_unmatched=(pl.col("matched") == 0).sum(), before=pl.sum("matched"), after=pl.sum("kept")
    )
    return [Group(name=row.pop(by), **row) for row in sums.to_dicts()]
