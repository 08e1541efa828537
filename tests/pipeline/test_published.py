"""The arithmetic that MetaCLIP publishes, on a pool of its shape: 200,000 pairs, 125,000 queries, t = 10."""

import pytest

from tests.benchmarks.zipf import Published, figures, published


@pytest.fixture(scope="module")
def pool() -> Published:
    return published(200_000, queries=1 / 4)


def test_the_pool_has_the_published_shape(pool: Published) -> None:
    found = figures(pool, "cap")
    assert pool.max_per_query == 10
    assert abs(found.num_head / pool.num_queries - 0.032) < 0.005
    assert abs(found.head_share - 0.944) < 0.01
    assert abs(found.matches / 200_000 - 3.54) < 0.1


def test_soft_keeps_what_is_expected_and_never_less_than_the_floor(pool: Published) -> None:
    pairs = selections = 0
    for seed in range(4):
        found = figures(pool, "soft", seed)
        assert found.tail_is_whole
        assert found.lowest > -6  # standard deviations under the floor, of the lowest of 4,000 queries
        assert abs(found.pairs - found.expected_pairs) < 4 * found.deviation
        assert abs(found.selections - found.expected_selections) < 4 * found.expected_selections**0.5
        pairs, selections = pairs + found.pairs - found.expected_pairs, selections + found.selections - found.expected_selections
    assert abs(pairs) < 4 * 2 * found.deviation
    assert abs(selections) < 4 * 2 * found.expected_selections**0.5


def test_cap_selects_exactly_what_the_limit_says(pool: Published) -> None:
    found = figures(pool, "cap")
    assert found.selections == found.expected_selections
    assert found.tail_is_whole
    assert found.lowest >= 0
    assert found.pairs <= found.selections
