"""Counts, limits and who stays: laws over seeded random pools, and brute force."""

import random
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest

from pipeline import draws, hashing
from pipeline.config import BalanceConfig
from pipeline.draws import Limits

Mode = Literal["cap", "soft"]
MODES: list[Mode] = ["cap", "soft"]


def pool(seed: int, num_pairs: int = 400, num_queries: int = 30) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Pairs with a head and a tail of queries; some have none."""
    chance = random.Random(seed)
    weights = [1 / (1 + query) ** 1.5 for query in range(num_queries)]
    ids = [sorted(set(chance.choices(range(num_queries), weights, k=chance.randrange(5)))) for _ in range(num_pairs)]
    pair_ids = [hashing.pair_id(f"http://a.test/{seed}/{number}", "text") for number in range(num_pairs)]
    return pa.chunked_array([pair_ids], pa.string()), pa.chunked_array([ids], pa.list_(pa.uint32()))


def chosen(pair_ids: pa.ChunkedArray, query_ids: pa.ChunkedArray, config: BalanceConfig) -> set[str]:
    limits = Limits.of(draws.count(pair_ids, query_ids, config), config)
    return set(np.asarray(pair_ids.to_pylist())[limits.keep(pair_ids, query_ids)].tolist())


def brute_force(pair_ids: pa.ChunkedArray, query_ids: pa.ChunkedArray, config: BalanceConfig) -> set[str]:
    """The definition, one query after the other."""
    pairs_of: dict[int, list[tuple[int, str]]] = {}
    for pair_id, ids in zip(pair_ids.to_pylist(), query_ids.to_pylist(), strict=True):
        for query in ids:
            draw = hashing.draw(config.seed, hashing.pair_hash([pair_id]), np.array([query]))[0]
            pairs_of.setdefault(query, []).append((int(draw), pair_id))
    kept: set[str] = set()
    for pairs in pairs_of.values():
        wanted = config.max_per_query * config.oversample
        if config.mode == "cap":
            kept |= {pair_id for _, pair_id in sorted(pairs)[: round(wanted)]}
        else:
            kept |= {pair_id for draw, pair_id in pairs if draw / 2**64 < min(1.0, wanted / len(pairs))}
    return kept


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(8))
def test_who_stays_is_what_the_definition_says(mode: Mode, seed: int) -> None:
    config = BalanceConfig(mode=mode, max_per_query=7, oversample=1.5, seed=seed)
    pair_ids, query_ids = pool(seed)
    kept = chosen(pair_ids, query_ids, config)
    assert kept == brute_force(pair_ids, query_ids, config)
    assert 0 < len(kept) < len(pair_ids)


@pytest.mark.parametrize("mode", MODES)
def test_a_query_with_no_more_than_the_limit_keeps_all_its_pairs(mode: Mode) -> None:
    config = BalanceConfig(mode=mode, max_per_query=9, oversample=1.0)
    pair_ids, query_ids = pool(1)
    counts = draws.count(pair_ids, query_ids, config)
    tail = {row["query_id"] for row in counts.to_pylist() if row["count"] <= 9}
    in_tail = {
        pair_id for pair_id, ids in zip(pair_ids.to_pylist(), query_ids.to_pylist(), strict=True) if tail.intersection(ids)
    }
    assert tail
    assert len(tail) < counts.num_rows
    assert in_tail <= chosen(pair_ids, query_ids, config)


@pytest.mark.parametrize("mode", MODES)
def test_what_stays_at_a_limit_stays_at_a_larger_one(mode: Mode) -> None:
    pair_ids, query_ids = pool(2)
    sets = [chosen(pair_ids, query_ids, BalanceConfig(mode=mode, max_per_query=limit)) for limit in (1, 2, 5, 20, 1000)]
    assert all(smaller <= larger for smaller, larger in pairwise(sets))
    assert len({len(kept) for kept in sets}) == 5


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(5))
def test_counts_of_the_whole_are_the_merged_counts_of_any_cut_in_any_order(mode: Mode, seed: int) -> None:
    config = BalanceConfig(mode=mode, max_per_query=6)
    pair_ids, query_ids = pool(seed)
    rows = np.random.default_rng(seed).permutation(len(pair_ids))
    cuts = [pa.array(piece) for piece in np.split(rows, [3, 3, 150])]
    parts = [draws.count(pair_ids.take(cut), query_ids.take(cut), config) for cut in cuts]
    whole = draws.count(pair_ids, query_ids, config)
    assert draws.merge(parts, config).equals(whole)
    assert draws.merge([draws.merge(parts[2:], config), *parts[:2]], config).equals(whole)
    shuffled = pa.array(rows)
    assert chosen(pair_ids.take(shuffled), query_ids.take(shuffled), config) == chosen(pair_ids, query_ids, config)


def test_soft_keeps_at_least_the_smaller_of_count_and_limit_in_expectation() -> None:
    pair_ids, query_ids = pool(3, num_pairs=3000)
    before = np.bincount(query_ids.combine_chunks().flatten().to_numpy(), minlength=30)
    after = np.zeros(30)
    seeds = range(40)
    for seed in seeds:
        config = BalanceConfig(mode="soft", max_per_query=50, oversample=1.0, seed=seed)
        keep = Limits.of(draws.count(pair_ids, query_ids, config), config).keep(pair_ids, query_ids)
        after += np.bincount(query_ids.filter(pa.array(keep)).combine_chunks().flatten().to_numpy(), minlength=30)
    floor = np.minimum(before, 50)
    assert (after / len(seeds) >= floor - 4 * np.sqrt(floor / len(seeds)) - 1e-9).all()
    alone = chosen(pair_ids, pa.chunked_array([[[0]] * len(pair_ids)], query_ids.type), replace(config, max_per_query=500))
    assert abs(len(alone) - 500) < 5 * np.sqrt(500)  # one query only: the floor is also the expectation


def test_cap_keeps_exactly_the_limit_of_a_query_that_stands_alone() -> None:
    pair_ids, query_ids = pool(4)
    one = pa.chunked_array([[[5]] * len(pair_ids)], query_ids.type)
    assert len(chosen(pair_ids, one, BalanceConfig(max_per_query=10, oversample=1.25))) == 12  # round(12.5), half to even
    assert len(chosen(pair_ids, one, BalanceConfig(max_per_query=400, oversample=1.0))) == 400


def test_counts_do_not_grow_with_the_pairs_of_a_query() -> None:
    pair_ids, query_ids = pool(5)
    counts = draws.count(pair_ids, query_ids, BalanceConfig(max_per_query=4, oversample=1.0))
    assert max(len(smallest) for smallest in counts["smallest"].to_pylist()) == 4
    soft = draws.count(pair_ids, query_ids, BalanceConfig(mode="soft", max_per_query=4))
    assert not soft["smallest"].combine_chunks().flatten().to_pylist()


def test_trimming_the_survivors_keeps_what_one_balance_of_them_would_keep() -> None:
    config = BalanceConfig(max_per_query=5, oversample=2.0)
    pair_ids, query_ids = pool(6)
    survivors = Limits.of(draws.count(pair_ids, query_ids, config), config).keep(pair_ids, query_ids)
    survivors &= np.arange(len(pair_ids)) % 3 > 0  # what the download lost
    mask = pa.array(survivors)
    trimmed = chosen(pair_ids.filter(mask), query_ids.filter(mask), draws.trimming(config))
    assert trimmed == brute_force(pair_ids.filter(mask), query_ids.filter(mask), replace(config, oversample=1.0))


def test_counts_of_other_pairs_are_refused() -> None:
    config = BalanceConfig()
    pair_ids, query_ids = pool(7)
    few = query_ids.take(pa.array([0, 1]))
    limits = Limits.of(draws.count(pair_ids.take(pa.array([0, 1])), few, config), config)
    with pytest.raises(ValueError, match="has no count: the counts are of other pairs"):
        limits.keep(pair_ids, query_ids)


@pytest.mark.parametrize("mode", MODES)
def test_no_pairs_at_all_are_no_trouble(mode: Mode) -> None:
    config = BalanceConfig(mode=mode)
    pair_ids, query_ids = (column.slice(0, 0) for column in pool(0))
    counts = draws.merge([draws.count(pair_ids, query_ids, config)], config)
    assert counts.num_rows == 0
    assert Limits.of(counts, config).keep(pair_ids, query_ids).tolist() == []
