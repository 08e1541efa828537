"""The arithmetic of "up to max_per_query pairs a query": counts, limits, and who stays.

Every (pair, query) has a draw, a number of 64 bits that is a hash of (seed, pair_id, query_id). A query that has more
pairs than the limit lets only the pairs with small draws pass; a pair stays if one of its queries lets it pass.
cap     a query lets its round(limit) smallest draws pass: CLIP's "up to"
soft    a query lets draws under limit / count pass: MetaCLIP's independent draws, of which min(count, limit) are expected

The limit of a query is found without bringing its draws together. Draws are uniform, so that from the count alone one
knows a window in which the k-th smallest of c draws lies: around k / c of the range, 8 standard deviations of its rank
to each side. Of each part only the number of draws under the window and the draws in it are needed, 16 sqrt(k) + 64 draws
a query in all instead of k from every part. A limit outside its window (by chance less than once in 10^12) is an error,
never a wrong limit: then the draws are not uniform, because someone chose texts or URLs with this seed in mind.

A second balance of what an earlier one kept and a download left (trimming) knows that draws are uniform up to the earlier
limit and, with another density, above it: `inner` counts the first kind. So a soft trim is the same as balancing last,
which MetaCLIP asks for: limit / inner of the earlier limit, not limit / count of the whole range.

law     a query with no more than `limit` pairs keeps all of them
law     nested: what stays at a limit stays at each larger one
law     any cut of the pairs into parts, in any order, gives the same limits
ties    two draws of one query are equal only where the first 64 bits of two pair_ids are: such pairs pass together
        or not at all, so that no order has to be kept (one such two in the plan's 1.6 billion pairs, by chance)
source  CLIP section 2.2; MetaCLIP, "Balancing"
"""

# pyarrow.compute makes its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from pipeline import hashing, schema
from pipeline.config import BalanceConfig
from pipeline.errors import InputError
from pipeline.manifest import Dataset

ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
DEVIATIONS = 8.0  # of a window, to each side of the expected rank
RANGE = 2.0**64


def limit(config: BalanceConfig) -> float:
    """How many pairs of a query may pass: in expectation in soft mode, at most round(limit) in cap mode."""
    wanted = config.max_per_query * config.oversample
    return float(round(wanted)) if config.mode == "cap" else wanted


def trimming(config: BalanceConfig) -> BalanceConfig:
    """The same balance without the surplus that the download may lose."""
    return replace(config, oversample=1.0)


@dataclass(frozen=True)
class Limits:
    """For each query, up to which draw its pairs pass."""

    seed: int
    counts: np.ndarray  # [num_queries] int64: pairs of each query; 0 of one that was not counted
    largest: np.ndarray  # [num_queries] uint64: the largest draw that passes

    @classmethod
    def of(cls, limits: pa.Table, config: BalanceConfig) -> "Limits":
        """From the LIMITS of all queries."""
        query = limits["query_id"].to_numpy()
        return cls(config.seed, _dense(query, limits["count"].to_numpy(), 0), _dense(query, limits["largest"].to_numpy(), ALL))

    @classmethod
    def load(cls, limits: Dataset, config: BalanceConfig) -> "Limits":
        """From a finished LIMITS dataset: 20 bytes a query to read, 16 to keep."""
        return cls.of(limits.read(), config)

    def keep(self, pair_ids: pa.ChunkedArray, query_ids: pa.ChunkedArray) -> np.ndarray:
        """Which pairs stay: pair_ids [n] string, query_ids [n] list<uint32> -> [n] bool

        A pair without queries, as an imported one, is over no limit.
        """
        row, query = _flat(query_ids)
        if len(query) and (query.max() >= len(self.counts) or not self.counts[query].all()):
            unknown = next(q for q in query.tolist() if q >= len(self.counts) or not self.counts[q])
            raise ValueError(f"draws: query {unknown} of these pairs has no count: the counts are of other pairs")
        keys = hashing.pair_key(self.seed, hashing.pair_hash(pair_ids))
        passes = hashing.draw_by_key(keys[row], query) <= self.largest[query]
        stays = np.zeros(len(query_ids), bool)
        stays[row[passes]] = True
        stays[np.bincount(row, minlength=len(stays)) == 0] = True
        return stays

    def up_to(self, query: np.ndarray) -> np.ndarray:
        """The largest draw that passes of any queries; all ones of those that were not counted.  [n] -> [n] uint64"""
        known = query < len(self.largest)
        return np.where(known, self.largest[np.where(known, query, 0)] if len(self.largest) else ALL, ALL)

    def probability(self) -> np.ndarray:
        """The share of all draws that each query lets pass.  [num_queries] float64"""
        return (self.largest.astype(np.float64) + 1) / RANGE


def count(
    pair_ids: pa.ChunkedArray, query_ids: pa.ChunkedArray, config: BalanceConfig, earlier: Limits | None = None
) -> pa.Table:
    """COUNTS of distinct pairs: pair_ids [n] string without repeats, query_ids [n] list<uint32>. By query, ascending."""
    row, query = _flat(query_ids)
    counts = np.bincount(query)
    inner = counts
    if earlier is not None:
        keys = hashing.pair_key(config.seed, hashing.pair_hash(pair_ids))
        inner = np.bincount(query[hashing.draw_by_key(keys[row], query) <= earlier.up_to(query)], minlength=len(counts))
    queries = np.flatnonzero(counts)
    return _table(schema.COUNTS, queries, counts[queries], inner[queries])


def merge(counts: pa.Table) -> pa.Table:
    """The COUNTS of all pairs from those of their parts, in any order."""
    query = counts["query_id"].to_numpy()
    queries = np.flatnonzero(np.bincount(query))
    return _table(schema.COUNTS, queries, *(_sums(query, counts[name].to_numpy())[queries] for name in ("count", "inner")))


def soft_limits(counts: pa.Table, config: BalanceConfig, earlier: Limits | None = None) -> pa.Table:
    """LIMITS in soft mode, which follow from the merged COUNTS."""
    _, wanted, split = _split(counts, config, earlier)
    # draw / 2^64 < p, in whole numbers; p < 1, so that the product fits 64 bits
    last = split.start + _share(split.width, wanted - split.before, split.pool) - np.uint64(1)
    return _table(schema.LIMITS, counts["query_id"], counts["count"], np.where(split.over, last, ALL))


def windows(counts: pa.Table, config: BalanceConfig, earlier: Limits | None = None) -> pa.Table:
    """WINDOWS in cap mode from the merged COUNTS: where the limit of each query is to be looked for."""
    _, wanted, split = _split(counts, config, earlier)
    rank = np.maximum(wanted - split.before, 0)
    spread = DEVIATIONS * np.sqrt(rank)
    low = split.start + _share(split.width, rank - spread, split.pool)
    high = split.start + _share(split.width, rank + spread + DEVIATIONS**2, split.pool)
    low, high = (np.where(split.over, edge, ALL) for edge in (low, high))
    return _table(schema.WINDOWS, counts["query_id"], counts["count"], low, high)


@dataclass(frozen=True)
class _Split:
    """The piece of the range in which the limit of each query over the limit is, and the draws in it."""

    over: np.ndarray  # [queries] bool: has more pairs than the limit
    start: np.ndarray  # first draw of the piece
    width: np.ndarray  # last draw of the piece minus the first
    before: np.ndarray  # draws under the piece
    pool: np.ndarray  # draws in the piece


def _split(counts: pa.Table, config: BalanceConfig, earlier: Limits | None) -> tuple[np.ndarray, float, _Split]:
    query, number, inner = (counts[name].to_numpy() for name in schema.COUNTS.names)
    wanted = limit(config)
    edge = np.full(len(query), ALL) if earlier is None else earlier.up_to(query)
    is_inner = inner >= wanted
    outside = (edge != ALL) & ~is_inner
    start = np.where(outside, edge + np.uint64(1), np.uint64(0))
    width = np.where(outside, ALL - start, edge)
    before = np.where(outside, inner, 0)
    return query, wanted, _Split(number > wanted, start, width, before, np.where(outside, number, inner) - before)


def _share(width: np.ndarray, part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole of a range of width + 1 draws, rounded up; at least 0, and exactly `width` from the whole on.  [n] uint64"""
    is_whole = part >= whole
    size = np.ceil((width.astype(np.float64) + 1) * np.where(is_whole, 0.0, np.maximum(part, 0) / np.maximum(whole, 1)))
    return np.where(is_whole, width, np.minimum(size.astype(np.uint64), width))


def inside(pair_ids: pa.ChunkedArray, query_ids: pa.ChunkedArray, config: BalanceConfig, windows: pa.Table) -> pa.Table:
    """DRAWS of distinct pairs (as `count` takes them) for the queries whose window in WINDOWS is open. By query, ascending."""
    low, high = (_dense(windows["query_id"].to_numpy(), windows[name].to_numpy(), ALL) for name in ("low", "high"))
    row, query = _flat(query_ids)
    is_open = (low < high)[query] if len(query) else np.zeros(0, bool)
    row, query = row[is_open], query[is_open]
    draw = hashing.draw_by_key(hashing.pair_key(config.seed, hashing.pair_hash(pair_ids))[row], query)
    below = np.bincount(query[draw < low[query]], minlength=len(low))
    found = (draw >= low[query]) & (draw <= high[query])
    query, draw = query[found], draw[found]
    order = np.lexsort((draw, query))
    lengths = np.bincount(query, minlength=len(low))
    queries = np.flatnonzero(below + lengths)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths[queries])])
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(draw[order], pa.uint64()))
    return _table(schema.DRAWS, queries, below[queries], lists)


def limits(windows: pa.Table, found: pa.Table, config: BalanceConfig) -> pa.Table:
    """LIMITS in cap mode: WINDOWS of some queries, and all parts' DRAWS of these, in any order."""
    query, high = windows["query_id"].to_numpy(), windows["high"].to_numpy()
    largest, wanted = high.copy(), int(limit(config))
    order = np.argsort(query)
    lists = found["draws"].combine_chunks()
    place = order[np.searchsorted(query, found["query_id"].to_numpy(), sorter=order)]
    below = _sums(place, found["below"].to_numpy(), len(query))
    owner, draw = np.repeat(place, lists.value_lengths().to_numpy()), lists.flatten().to_numpy()
    draw = draw[np.lexsort((draw, owner))]
    lengths = np.bincount(owner, minlength=len(query))
    starts = np.cumsum(lengths) - lengths
    is_open = np.flatnonzero(windows["low"].to_numpy() < high)
    rank = wanted - below[is_open]
    missed = (rank < 1) | (rank > lengths[is_open])
    if missed.any():
        worst = is_open[missed][0]
        raise InputError(
            f"balance: the draws of query {query[worst]} are not uniform: of its {windows['count'][worst]} pairs, "
            f"{below[worst]} to {below[worst] + lengths[worst]} were expected to be around number {wanted}. "
            f"Someone chose URLs or texts for seed {config.seed}; give another --balance.seed"
        )
    largest[is_open] = draw[starts[is_open] + rank - 1]
    return _table(schema.LIMITS, query, windows["count"], largest)


def _flat(query_ids: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """One entry for each (pair, query): row, query."""
    lists = query_ids.combine_chunks()
    return np.repeat(np.arange(len(lists)), lists.value_lengths().fill_null(0).to_numpy()), lists.flatten().to_numpy()


def _sums(query: np.ndarray, values: np.ndarray, length: int = 0) -> np.ndarray:
    """The sum of the values of each query, which is under 2^53.  [largest query + 1, or length] int64"""
    return np.bincount(query, values, length).astype(np.int64)


def _dense(query: np.ndarray, values: np.ndarray, other: int | np.uint64) -> np.ndarray:
    """Values by query_id; `other` where there is none."""
    result = np.full(int(query.max()) + 1 if len(query) else 0, other, values.dtype)
    result[query] = values
    return result


def _table(columns: pa.Schema, *values: np.ndarray | pa.Array | pa.ChunkedArray) -> pa.Table:
    arrays = [
        value if isinstance(value, pa.Array | pa.ChunkedArray) else pa.array(value.astype(field.type.to_pandas_dtype()))
        for value, field in zip(values, columns, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=columns)
