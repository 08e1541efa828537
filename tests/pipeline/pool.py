"""Pools of pairs with queries, the passes over them in memory, and the definition of balancing as plain loops."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline import draws, schema
from pipeline.config import BalanceConfig
from pipeline.draws import Limits


@dataclass(frozen=True)
class Pool:
    """Distinct pairs and their queries."""

    pair_ids: pa.ChunkedArray  # [n] string
    query_ids: pa.ChunkedArray  # [n] list<uint32>

    def __len__(self) -> int:
        return len(self.pair_ids)

    def take(self, rows: np.ndarray) -> "Pool":
        """The rows at these places, or those of a mask."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Pool(self.pair_ids.take(pa.array(rows)), self.query_ids.take(pa.array(rows)))

    def names(self) -> list[str]:
        """The pair_ids."""
        return self.pair_ids.to_pylist()

    def matches(self) -> dict[str, list[int]]:
        """pair_id -> its queries."""
        return dict(zip(self.names(), self.query_ids.to_pylist(), strict=True))

    def counts(self, num_queries: int) -> np.ndarray:
        """Pairs of each query.  [num_queries] int64"""
        return np.bincount(self.query_ids.combine_chunks().flatten().to_numpy(), minlength=num_queries)


def pool_of(query_ids: Sequence[Sequence[int]], name: str = "") -> Pool:
    """A pair for each list of queries."""
    pair_ids = [hashlib.blake2b(f"{name}/{number}".encode(), digest_size=16).hexdigest() for number in range(len(query_ids))]
    return Pool(pa.chunked_array([pair_ids], pa.string()), pa.chunked_array([query_ids], pa.list_(pa.uint32())))


def random_pool(seed: int, num_pairs: int = 400, num_queries: int = 30) -> Pool:
    """Pairs with a head and a tail of queries; some have none."""
    chance = np.random.default_rng(seed)
    weights = 1 / (1 + np.arange(num_queries)) ** 1.5
    drawn = chance.choice(num_queries, (num_pairs, 4), p=weights / weights.sum()).tolist()
    lengths = chance.integers(0, 5, num_pairs).tolist()
    return pool_of([sorted(set(ids[:length])) for ids, length in zip(drawn, lengths, strict=True)], f"pool {seed}")


def limits_of(pool: Pool, config: BalanceConfig, earlier: Limits | None = None, parts: Sequence[Pool] | None = None) -> Limits:
    """All passes, over these parts of the pool."""
    parts = [pool] if parts is None else parts
    counted = [draws.count(part.pair_ids, part.query_ids, config, earlier) for part in parts]
    counts = draws.merge(pa.concat_tables([schema.COUNTS.empty_table(), *counted]))
    if config.mode == "soft":
        return Limits.of(draws.soft_limits(counts, config, earlier), config)
    windows = draws.windows(counts, config, earlier)
    found = [draws.inside(part.pair_ids, part.query_ids, config, windows) for part in parts]
    return Limits.of(draws.limits(windows, pa.concat_tables([schema.DRAWS.empty_table(), *found]), config), config)


def kept_of(pool: Pool, config: BalanceConfig, earlier: Limits | None = None) -> np.ndarray:
    """Which pairs one balance keeps.  [n] bool"""
    return limits_of(pool, config, earlier).keep(pool.pair_ids, pool.query_ids)


def draw_of(seed: int, pair_id: str, query: int) -> int:
    """The draw of a pair and a query, by Python integers."""

    def mix(value: int) -> int:
        value = (value + 0x9E3779B97F4A7C15) % 2**64
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) % 2**64
        return value ^ (value >> 31)

    return mix(mix(int(pair_id[:16], 16) ^ mix(seed)) ^ query)


def definition(pool: Pool, config: BalanceConfig) -> set[str]:
    """Who stays, one query after the other; a pair without queries is over no limit."""
    drawn: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for pair_id, ids in pool.matches().items():
        for query in ids:
            drawn[query].append((draw_of(config.seed, pair_id, query), pair_id))
    kept = {pair_id for pair_id, ids in pool.matches().items() if not ids}
    wanted = config.max_per_query * config.oversample
    for pairs in drawn.values():
        if config.mode == "cap":
            kept |= {pair_id for _, pair_id in sorted(pairs)[: round(wanted)]}
        else:
            kept |= {pair_id for draw, pair_id in pairs if draw / 2**64 < min(1.0, wanted / len(pairs))}
    return kept
