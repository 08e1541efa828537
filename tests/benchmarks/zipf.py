"""A pool of pairs shaped like the one that MetaCLIP publishes, at any size.

Published: 1.6 billion pairs with 5.67 billion matches of 500,000 queries; 16,000 of these have at least t = 20,000 pairs, the
top one 120 million, and hold 5.35 billion of the matches (94.4%); 484,000 hold the other 320 million, 114,000 of them none.
Here the number of pairs is scaled by num_pairs / 1.6 billion, the number of queries by `queries`, and t by the one over the
other, so that matches a pair, the head's share of queries and of matches, and c_j / t stay what they are. More queries have
no pair than published, since a count of 40 becomes one of 0.1. Counts follow Zipf-Mandelbrot curves through the published
numbers; which queries meet in a pair is chance (in real texts the frequent ones meet more often).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from pipeline import hashing
from pipeline.config import BalanceConfig
from tests.pipeline.pool import Pool, limits_of

PAIRS, QUERIES, HEAD, UNMATCHED = 1.6e9, 500_000, 16_000, 114_000
MATCHES, HEAD_MATCHES, TOP, LIMIT = 5.67e9, 5.35e9, 120e6, 20_000


@dataclass(frozen=True)
class Published:
    """A scaled pool."""

    pool: Pool
    num_queries: int
    max_per_query: int


def curve(first: float, last: float, length: int, total: float) -> np.ndarray:
    """first ... last, falling like (rank + b)^-a, with this sum: b is found by bisection.  [length] float64"""
    low, high = 1e-6, 1e6
    for _ in range(40):
        b = np.sqrt(low * high)
        ranks = np.arange(length) + b
        values = first * (ranks / b) ** (np.log(last / first) / np.log(ranks[-1] / b))
        low, high = (b, high) if values.sum() < total else (low, b)
    return values


def counts(share_of_queries: float) -> np.ndarray:
    """The published counts of a fair sample of the queries, descending, at full size.  [queries] float64"""
    head = curve(TOP, LIMIT, HEAD, HEAD_MATCHES)
    tail = curve(LIMIT, 1, QUERIES - HEAD - UNMATCHED, MATCHES - HEAD_MATCHES)
    whole = np.concatenate([head, tail, np.zeros(UNMATCHED)])
    size = round(1 / share_of_queries)
    return whole.reshape(-1, size).mean(1)


def published(num_pairs: int, queries: float = 1.0, seed: int = 0) -> Published:
    """A pool of so many pairs; `queries` is the share of the 500,000 queries, one over a divisor of 500,000."""
    chance = np.random.default_rng(seed)
    scale = num_pairs / PAIRS / queries
    expected = counts(queries) * scale
    number = np.floor(expected + chance.random(len(expected))).astype(np.int64)
    flat = np.repeat(np.arange(len(number), dtype=np.uint32), number)
    chance.shuffle(flat)
    owner = np.sort(np.concatenate([np.arange(num_pairs), chance.integers(0, num_pairs, len(flat) - num_pairs)]))
    key = np.unique(owner.astype(np.uint64) << np.uint64(32) | flat)  # by pair, ascending, no repeats
    lengths = np.bincount((key >> np.uint64(32)).astype(np.int64), minlength=num_pairs)
    offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths)])
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(key.astype(np.uint32)))
    return Published(Pool(names(num_pairs, chance), pa.chunked_array([lists])), len(number), round(LIMIT * scale))


def names(num: int, chance: np.random.Generator) -> pa.ChunkedArray:
    """So many pair_ids."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)[chance.integers(0, 16, (num, 32), dtype=np.uint8)]
    offsets = pa.array(np.arange(num + 1, dtype=np.int32) * 32)
    return pa.chunked_array(
        [pa.Array.from_buffers(pa.string(), num, [None, offsets.buffers()[1], pa.py_buffer(digits.tobytes())])]
    )


@dataclass(frozen=True)
class Figures:
    """What one balance of a pool gave, and what arithmetic says that it gives."""

    matches: int
    num_head: int
    head_share: float  # of the matches
    selections: int  # (pair, query) whose draw passes
    expected_selections: float
    pairs: int  # that stay
    expected_pairs: float
    deviation: float  # standard deviation of `pairs`, at most
    lowest: float  # of all head queries: (pairs that stay - min(count, t)) / sqrt(t)
    tail_is_whole: bool  # every pair of every query with no more than t pairs stays


def figures(published: Published, mode: Literal["cap", "soft"], seed: int = 0) -> Figures:
    """Balance the pool at its t by the passes of the pipeline. Expectations: independent draws, as in MetaCLIP."""
    pool, limit = published.pool, published.max_per_query
    config = BalanceConfig(mode=mode, max_per_query=limit, oversample=1.0, seed=seed)
    limits = limits_of(pool, config)
    count = pool.counts(published.num_queries)
    lists = pool.query_ids.combine_chunks()
    row, query = np.repeat(np.arange(len(pool)), lists.value_lengths().to_numpy()), lists.flatten().to_numpy()
    draw = hashing.draw(seed, hashing.pair_hash(pool.pair_ids)[row], query)
    passes = draw <= limits.largest[query]
    stays = limits.keep(pool.pair_ids, pool.query_ids)
    assert np.array_equal(stays, np.bincount(row[passes], minlength=len(pool)) > 0)
    chance = np.minimum(1.0, limit / np.maximum(count, 1))
    with np.errstate(divide="ignore"):
        stay_chance = -np.expm1(np.add.reduceat(np.log1p(-chance[query]), lists.offsets.to_numpy()[:-1]))
    after = np.bincount(query[stays[row]], minlength=len(count))
    head = count > limit
    return Figures(
        matches=len(query),
        num_head=int(head.sum()),
        head_share=float(count[head].sum() / len(query)),
        selections=int(passes.sum()),
        expected_selections=float(np.minimum(count, limit).sum()),
        pairs=int(stays.sum()),
        expected_pairs=float(stay_chance.sum()),
        deviation=float(np.sqrt((stay_chance * (1 - stay_chance)).sum())),
        lowest=float(((after - limit) / np.sqrt(limit))[head].min()),
        tail_is_whole=bool((after == count)[~head].all()),
    )
