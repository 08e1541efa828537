"""The arithmetic of "up to max_per_query pairs a query": counts, limits, and who stays.

Every (pair, query) has a draw, a number of 64 bits that is a hash of (seed, pair_id, query_id). A query that has more
pairs than the limit lets only the pairs with small draws pass; a pair stays if one of its queries lets it pass.
cap     a query lets its round(limit) smallest draws pass: CLIP's "up to"
soft    a query lets draws under limit / count pass: MetaCLIP's independent draws, of which min(count, limit) are expected

law     a query with no more than `limit` pairs keeps all of them
law     nested: what stays at a limit stays at each larger one
law     counts(a + b) = merge(counts(a), counts(b)) for any cut of the pairs; nothing depends on order or batch
ties    two draws of one query are equal only where the first 64 bits of two pair_ids are: such pairs pass together
        or not at all, so that no order has to be kept (one such two in the plan's 1.6 billion pairs, by chance)
cost    counts: 8 bytes a query and pair in cap mode, never more than the limit a query and part; limits: 16 bytes a
        query. Reading them needs the draws of the queries over the limit at once, 8 bytes a draw
source  CLIP section 2.2; MetaCLIP, "Balancing"

For sharding, which trims what survived to the same max_per_query (`over_limit`): count the survivors with
balance.TRIM_COUNT, then in the worker
    limits = Limits.load(sides["counts"], trimming(config.balance))
    stays = limits.keep(rows["pair_id"], rows["query_ids"])
The survivors are a part of what balance kept, and the draws are the same.
"""

# pyarrow.compute makes its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import hashing, schema
from pipeline.config import BalanceConfig
from pipeline.manifest import Dataset

ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


def limit(config: BalanceConfig) -> float:
    """How many pairs of a query may pass: in expectation in soft mode, at most round(limit) in cap mode."""
    wanted = config.max_per_query * config.oversample
    return float(round(wanted)) if config.mode == "cap" else wanted


def trimming(config: BalanceConfig) -> BalanceConfig:
    """The same balance without the surplus that the download may lose."""
    return replace(config, oversample=1.0)


def _flat(pair_ids: pa.ChunkedArray, query_ids: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One entry for each (pair, query): row, first bits of the pair_id, query."""
    lists = query_ids.combine_chunks()
    row = np.repeat(np.arange(len(lists)), lists.value_lengths().fill_null(0).to_numpy())
    return row, hashing.pair_hash(pair_ids.to_pylist())[row], lists.flatten().to_numpy()


def count(pair_ids: pa.ChunkedArray, query_ids: pa.ChunkedArray, config: BalanceConfig) -> pa.Table:
    """COUNTS of distinct pairs: pair_ids [n] string without repeats, query_ids [n] list<uint32>. By query, ascending."""
    _, pair_hashes, query = _flat(pair_ids, query_ids)
    draw = hashing.draw(config.seed, pair_hashes, query) if config.mode == "cap" else np.zeros(0, np.uint64)
    order = np.lexsort((draw, query)) if config.mode == "cap" else np.argsort(query, kind="stable")
    queries, starts, counts = np.unique(query[order], return_index=True, return_counts=True)
    smallest = _smallest(draw[order], starts, counts, config) if config.mode == "cap" else _no_draws(len(queries))
    return pa.Table.from_arrays([pa.array(queries, pa.uint32()), pa.array(counts, pa.int64()), smallest], schema=schema.COUNTS)


def _smallest(draws: np.ndarray, starts: np.ndarray, lengths: np.ndarray, config: BalanceConfig) -> pa.ListArray:
    """The first `limit` draws of each run of `draws`, as lists."""
    kept = np.minimum(lengths, int(limit(config)))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
    at = np.repeat(starts - offsets[:-1], kept) + np.arange(offsets[-1])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(draws[at], pa.uint64()))


def _no_draws(num_queries: int) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(np.zeros(num_queries + 1), pa.int32()), pa.array([], pa.uint64()))


def merge(counts: Sequence[pa.Table], config: BalanceConfig) -> pa.Table:
    """The COUNTS of all pairs from those of its parts."""
    whole = pa.concat_tables([schema.COUNTS.empty_table(), *counts])
    query, number = whole["query_id"].to_numpy(), whole["count"].to_numpy()
    queries, place = np.unique(query, return_inverse=True)
    sums = np.zeros(len(queries), np.int64)
    np.add.at(sums, place, number)
    lists = whole["smallest"].combine_chunks()
    owner, draw = np.repeat(place, lists.value_lengths().to_numpy()), lists.flatten().to_numpy()
    draw = draw[np.lexsort((draw, owner))]
    lengths = np.bincount(owner, minlength=len(queries))
    smallest = _smallest(draw, np.cumsum(lengths) - lengths, lengths, config)
    return pa.Table.from_arrays([pa.array(queries, pa.uint32()), pa.array(sums, pa.int64()), smallest], schema=schema.COUNTS)


@dataclass(frozen=True)
class Limits:
    """For each query, up to which draw its pairs pass."""

    seed: int
    counts: np.ndarray  # [num_queries] int64: pairs of each query; 0 of one that was not counted
    largest: np.ndarray  # [num_queries] uint64: the largest draw that passes

    @classmethod
    def of(cls, counts: pa.Table, config: BalanceConfig) -> "Limits":
        """From the merged COUNTS of all pairs."""
        query, number = counts["query_id"].to_numpy(), counts["count"].to_numpy()
        num_queries = int(query.max()) + 1 if len(query) else 0
        dense, largest = np.zeros(num_queries, np.int64), np.full(num_queries, ALL)
        dense[query] = number
        over = np.flatnonzero(number > limit(config))
        if config.mode == "cap":
            lists = counts["smallest"].combine_chunks()
            starts = np.cumsum(lists.value_lengths().to_numpy()) - lists.value_lengths().to_numpy()
            largest[query[over]] = lists.flatten().to_numpy()[starts[over] + int(limit(config)) - 1]
        else:
            # draw / 2^64 < p, in whole numbers; p < 1, so that the product fits 64 bits
            largest[query[over]] = np.ceil(limit(config) / number[over] * 2.0**64).astype(np.uint64) - np.uint64(1)
        return cls(config.seed, dense, largest)

    @classmethod
    def load(cls, counts: Dataset, config: BalanceConfig) -> "Limits":
        """From a finished COUNTS dataset. Draws are kept in memory only of the queries over the limit."""
        slim = counts.read(("query_id", "count"))
        sums = merge([slim.append_column(schema.COUNTS.field("smallest"), _no_draws(slim.num_rows))], config)
        if config.mode == "soft":
            return cls.of(sums, config)
        over = pc.greater(sums["count"], limit(config))
        head = sums["query_id"].filter(over)
        parts = (counts.read_part(part, tuple(schema.COUNTS.names)) for part in counts.parts)
        draws = merge([part.filter(pc.is_in(part["query_id"], head)) for part in parts], config)
        return cls.of(pa.concat_tables([sums.filter(pc.invert(over)), draws]), config)

    def keep(self, pair_ids: pa.ChunkedArray, query_ids: pa.ChunkedArray) -> np.ndarray:
        """Which pairs stay: pair_ids [n] string, query_ids [n] list<uint32> -> [n] bool"""
        row, pair_hashes, query = _flat(pair_ids, query_ids)
        if len(query) and (query.max() >= len(self.counts) or not self.counts[query].all()):
            unknown = next(q for q in query.tolist() if q >= len(self.counts) or not self.counts[q])
            raise ValueError(f"draws: query {unknown} of these pairs has no count: the counts are of other pairs")
        passes = hashing.draw(self.seed, pair_hashes, query) <= self.largest[query]
        return np.bincount(row[passes], minlength=len(query_ids)) > 0

    def probability(self) -> np.ndarray:
        """The share of all draws that each query lets pass.  [num_queries] float64"""
        return (self.largest.astype(np.float64) + 1) / 2.0**64
