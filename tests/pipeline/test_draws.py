"""Counts, windows, limits and who stays: laws over seeded random pools, and plain loops."""

from dataclasses import replace
from itertools import pairwise
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest

from pipeline import draws, schema
from pipeline.config import BalanceConfig
from pipeline.draws import Limits
from pipeline.errors import InputError
from tests.pipeline.pool import Pool, definition, draw_of, kept_of, limits_of, pool_of, random_pool

Mode = Literal["cap", "soft"]
MODES: list[Mode] = ["cap", "soft"]


def chosen(pool: Pool, config: BalanceConfig, earlier: Limits | None = None) -> set[str]:
    return set(np.asarray(pool.names())[kept_of(pool, config, earlier)].tolist())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(12))
def test_who_stays_is_what_the_definition_says(mode: Mode, seed: int) -> None:
    config = BalanceConfig(mode=mode, max_per_query=[1, 7, 30][seed % 3], oversample=1.5, seed=seed)
    pool = random_pool(seed)
    kept = chosen(pool, config)
    assert kept == definition(pool, config)
    assert 0 < len(kept) < len(pool)


@pytest.mark.parametrize("mode", MODES)
def test_a_query_with_no_more_than_the_limit_keeps_all_its_pairs(mode: Mode) -> None:
    config = BalanceConfig(mode=mode, max_per_query=9, oversample=1.0)
    pool = random_pool(1)
    tail = {query for query, count in enumerate(pool.counts(30).tolist()) if 0 < count <= 9}
    in_tail = {pair_id for pair_id, ids in pool.matches().items() if tail.intersection(ids)}
    assert 0 < len(tail) < np.count_nonzero(pool.counts(30))
    assert in_tail <= chosen(pool, config)


@pytest.mark.parametrize("seed", range(5))
def test_cap_keeps_no_pair_that_is_not_among_the_smallest_of_some_query(seed: int) -> None:
    config = BalanceConfig(max_per_query=6, oversample=1.0, seed=seed)
    pool = random_pool(seed)
    largest = limits_of(pool, config).largest
    kept, passing = chosen(pool, config), np.zeros(30, int)
    for pair_id, ids in pool.matches().items():
        passes = [query for query in ids if draw_of(seed, pair_id, query) <= largest[query]]
        assert (bool(passes) or not ids) == (pair_id in kept)
        passing[passes] += 1
    assert passing.tolist() == np.minimum(pool.counts(30), 6).tolist()


@pytest.mark.parametrize("mode", MODES)
def test_what_stays_at_a_limit_stays_at_a_larger_one(mode: Mode) -> None:
    pool = random_pool(2)
    sets = [chosen(pool, BalanceConfig(mode=mode, max_per_query=limit)) for limit in (1, 2, 5, 20, 1000)]
    assert all(smaller <= larger for smaller, larger in pairwise(sets))
    assert len({len(kept) for kept in sets}) == 5


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(5))
def test_any_cut_in_any_order_gives_the_same_limits(mode: Mode, seed: int) -> None:
    config = BalanceConfig(mode=mode, max_per_query=6)
    pool = random_pool(seed)
    rows = np.random.default_rng(seed).permutation(len(pool))
    parts = [pool.take(cut) for cut in np.split(rows, [3, 3, 150])]
    whole, cut = limits_of(pool, config), limits_of(pool, config, parts=parts)
    assert whole.largest.tolist() == cut.largest.tolist()
    assert whole.counts.tolist() == cut.counts.tolist() == pool.counts(len(whole.counts)).tolist()
    assert chosen(pool.take(rows), config) == chosen(pool, config)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(6))
def test_trimming_keeps_what_balancing_last_would_have_kept(mode: Mode, seed: int) -> None:
    """Balance with a surplus, lose a third, trim: for a query with enough survivors the limit is that of the whole pool
    without the lost third; in soft mode but for the chance in how many of its draws were lost."""
    config = BalanceConfig(mode=mode, max_per_query=100, oversample=2.0, seed=seed)
    pool = random_pool(seed, 8000)
    stays = np.random.default_rng(seed).random(len(pool)) < 0.66
    earlier = limits_of(pool, config)
    survivors = pool.take(kept_of(pool, config) & stays)
    trim = limits_of(survivors, draws.trimming(config), earlier)
    last = limits_of(pool.take(stays), draws.trimming(config))
    inner = draws.count(survivors.pair_ids, survivors.query_ids, config, earlier)["inner"].to_numpy()
    enough = np.flatnonzero((inner >= 100) & (pool.counts(30)[: len(inner)] > 200))
    assert len(enough) >= 8
    ratio = trim.largest[enough] / last.largest[enough]
    if mode == "cap":
        assert ratio.tolist() == [1.0] * len(enough)
    else:
        assert np.abs(ratio - 1).max() < 5 / np.sqrt(130)  # of the 200 draws that passed, 132 are left, more or less
    trimmed = chosen(survivors, draws.trimming(config), earlier)
    assert len(trimmed) < len(survivors)
    matches = survivors.matches()
    for query in enough.tolist():
        edge = int(trim.largest[query])
        passing = [pair_id for pair_id, ids in matches.items() if query in ids and draw_of(seed, pair_id, query) <= edge]
        assert set(passing) <= trimmed
        assert abs(len(passing) - 100) <= (0 if mode == "cap" else 5 * np.sqrt(100))


@pytest.mark.parametrize("seed", range(6))
def test_trimming_in_cap_mode_is_one_balance_of_the_survivors(seed: int) -> None:
    config = BalanceConfig(max_per_query=5, oversample=2.0, seed=seed)
    pool = random_pool(seed, 600)
    survivors = pool.take(kept_of(pool, config) & (np.arange(len(pool)) % 3 > 0))
    trimming = draws.trimming(config)
    trimmed = chosen(survivors, trimming, limits_of(pool, config))
    assert trimmed == definition(survivors, trimming)
    assert 0 < len(trimmed) < len(survivors)


def test_soft_keeps_at_least_the_smaller_of_count_and_limit_in_expectation() -> None:
    pool = random_pool(3, num_pairs=3000)
    before, after, seeds = pool.counts(30), np.zeros(30), range(40)
    for seed in seeds:
        config = BalanceConfig(mode="soft", max_per_query=50, oversample=1.0, seed=seed)
        after += pool.take(kept_of(pool, config)).counts(30)
    floor = np.minimum(before, 50)
    assert (after / len(seeds) >= floor - 4 * np.sqrt(floor / len(seeds)) - 1e-9).all()
    alone = pool_of([[0]] * len(pool))
    kept = chosen(alone, BalanceConfig(mode="soft", max_per_query=500, oversample=1.0))
    assert abs(len(kept) - 500) < 5 * np.sqrt(500)  # one query only: the floor is also the expectation


def test_cap_keeps_exactly_the_limit_of_a_query_that_stands_alone() -> None:
    alone = pool_of([[5]] * 400)
    assert len(chosen(alone, BalanceConfig(max_per_query=10, oversample=1.25))) == 12  # round(12.5), half to even
    assert len(chosen(alone, BalanceConfig(max_per_query=400, oversample=1.0))) == 400
    assert len(chosen(alone, BalanceConfig(max_per_query=399, oversample=1.0))) == 399


@pytest.mark.parametrize("limit", [100, 1000, 10_000])
def test_a_window_holds_few_draws_and_always_the_limit(limit: int) -> None:
    config = BalanceConfig(max_per_query=limit, oversample=1.0)
    pool = pool_of([[0]] * 60_000, f"window {limit}")
    counts = draws.count(pool.pair_ids, pool.query_ids, config)
    windows = draws.windows(counts, config)
    found = draws.inside(pool.pair_ids, pool.query_ids, config, windows)
    (row,) = found.to_pylist()
    assert row["below"] < limit <= row["below"] + len(row["draws"])
    assert len(row["draws"]) < 16 * np.sqrt(limit) + 64 + 5 * np.sqrt(16 * np.sqrt(limit) + 64)
    assert row["draws"] == sorted(row["draws"])
    windows = draws.windows(counts, replace(config, max_per_query=60_000))
    found = draws.inside(pool.pair_ids, pool.query_ids, config, windows)
    assert found.num_rows == 0  # nothing to find out


def test_draws_that_someone_chose_are_refused_and_never_give_a_wrong_limit() -> None:
    config = BalanceConfig(max_per_query=20, oversample=1.0, seed=3)
    pool = pool_of([[0]] * 4000)
    large = np.array([draw_of(3, pair_id, 0) > 2**63 for pair_id in pool.names()])
    with pytest.raises(InputError, match=r"draws of query 0 are not uniform.* seed 3; give another --balance.seed"):
        limits_of(pool.take(large), config)
    assert len(chosen(pool.take(large), replace(config, seed=4))) == 20


def test_counts_of_other_pairs_are_refused() -> None:
    pool = random_pool(7)
    limits = limits_of(pool.take(np.arange(2)), BalanceConfig())
    with pytest.raises(ValueError, match="has no count: the counts are of other pairs"):
        limits.keep(pool.pair_ids, pool.query_ids)


@pytest.mark.parametrize("mode", MODES)
def test_no_pairs_at_all_are_no_trouble(mode: Mode) -> None:
    config = BalanceConfig(mode=mode)
    pool = random_pool(0).take(np.arange(0))
    limits = limits_of(pool, config)
    assert limits.keep(pool.pair_ids, pool.query_ids).tolist() == []
    assert limits_of(pool, config, limits).largest.tolist() == []
    empty = pa.concat_tables([schema.COUNTS.empty_table()])
    assert draws.merge(empty).num_rows == 0
