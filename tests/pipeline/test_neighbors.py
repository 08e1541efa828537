"""The groups of near pictures are the ones that comparing every two pictures gives."""

import time

import numpy as np
import pytest

from pipeline import neighbors
from pipeline.neighbors import Points


def brute_force(points: Points) -> np.ndarray:
    """The smallest point of the group of each, by spreading from point to point over all others."""
    root = np.full(len(points.hashes), -1)
    colors = points.colors.astype(int)
    for seed in range(len(root)):
        reached = [seed] if root[seed] < 0 else []
        while reached:
            point = reached.pop()
            root[point] = seed
            close = np.abs(colors - colors[point]).max(axis=1) <= points.max_color_distance
            bits = [int(value ^ points.hashes[point]).bit_count() for value in points.hashes]
            near = close & (np.asarray(bits) <= points.max_distance) & (root < 0)
            root[near] = seed
            reached += np.flatnonzero(near).tolist()
    return root


def crowd(seed: int, num_points: int) -> Points:
    """Points around a few hashes and colors, so that many are just inside and just outside of the limits."""
    chance = np.random.default_rng(seed)
    max_distance, limit = int(chance.integers(0, 9)), int(chance.choice([0, 5, 40, 255]))
    hashes = chance.integers(0, 2**64, 12, dtype=np.uint64)[chance.integers(0, 12, num_points)]
    for _ in range(int(chance.integers(0, 6))):
        hashes = hashes ^ (np.uint64(1) << chance.integers(0, 64, num_points, dtype=np.uint64))
    tint = chance.integers(0, 256, (4, 48))[chance.integers(0, 4, num_points)]
    noise = chance.integers(-limit // 2 - 1, limit // 2 + 2, (num_points, 48)) * (chance.random((num_points, 1)) < 0.7)
    return Points(hashes, (tint + noise).clip(0, 255).astype(np.uint8), max_distance, limit)


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_the_brute_force_groups(seed: int):
    points = crowd(seed, 150)
    assert neighbors.groups(points).tolist() == brute_force(points).tolist()


@pytest.mark.parametrize("seed", range(20, 40))
def test_crowded_bands_give_the_brute_force_groups_too(seed: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(neighbors, "CROWD", 8)
    points = crowd(seed, 150)
    assert neighbors.groups(points).tolist() == brute_force(points).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_groups_do_not_depend_on_the_order(seed: int):
    points = crowd(seed, 300)
    order = np.random.default_rng(seed).permutation(300)
    mixed = neighbors.groups(Points(points.hashes[order], points.colors[order], points.max_distance, points.max_color_distance))
    plain = neighbors.groups(points)
    assert {frozenset(order[mixed == root].tolist()) for root in mixed} == {
        frozenset(np.flatnonzero(plain == root).tolist()) for root in plain
    }


@pytest.mark.parametrize("seed", range(20))
def test_the_index_finds_the_nearest_of_all(seed: int):
    points = crowd(seed, 300)
    known = Points(points.hashes[:200], points.colors[:200], points.max_distance, points.max_color_distance)
    found = neighbors.Index(known).nearest(points.hashes[100:], points.colors[100:])
    colors = points.colors.astype(int)
    for place, row in zip(found.tolist(), range(100, 300), strict=True):
        distances = np.bitwise_count(points.hashes[:200] ^ points.hashes[row]).astype(int)
        far = (distances > points.max_distance) | (np.abs(colors[:200] - colors[row]).max(axis=1) > points.max_color_distance)
        distances[far] = 99
        assert place == (int(np.argmin(distances)) if distances.min() < 99 else -1)


def test_bands_cover_every_bit_once():
    for count in range(1, 17):
        masks = [int(mask) for mask in neighbors.bands(count)]
        assert sum(masks) == 2**64 - 1
        assert np.bitwise_or.reduce(np.asarray(masks, np.uint64)) == neighbors.ALL
        assert max(mask.bit_count() for mask in masks) - min(mask.bit_count() for mask in masks) <= 1


def test_a_chain_of_near_pictures_is_one_group_whatever_its_order():
    hashes = np.asarray([(1 << length) - 1 for length in range(64)], np.uint64)
    order = np.random.default_rng(0).permutation(64)
    colors = np.zeros((64, 48), np.uint8)
    assert set(neighbors.groups(Points(hashes[order], colors, 1, 0)).tolist()) == {0}
    assert len(set(neighbors.groups(Points(hashes[order], colors, 0, 0)).tolist())) == 64


def test_twenty_thousand_near_copies_take_no_quadratic_time():
    chance = np.random.default_rng(1)
    hashes = np.full(20_000, 0x0123456789ABCDEF, np.uint64)
    for _ in range(3):
        hashes = hashes ^ (np.uint64(1) << chance.integers(0, 64, 20_000, dtype=np.uint64))
    points = Points(hashes, chance.integers(100, 120, (20_000, 48)).astype(np.uint8), 4, 40)
    started = time.process_time()
    assert set(neighbors.groups(points).tolist()) == {0}
    assert time.process_time() - started < 20  # all 200 million pairs with their colors take minutes


def all_pairs(points: Points) -> list[tuple[int, int]]:
    """Every near pair (i, j), i < j, by looking at all."""
    pairs = []
    for start in range(0, len(points.hashes), 64):
        differ = np.bitwise_count(points.hashes[start : start + 64, None] ^ points.hashes[None, start:])
        one, other = (places + start for places in np.nonzero(differ <= points.max_distance))
        apart = np.abs(points.colors[one].astype(np.int16) - points.colors[other]).max(axis=1)
        near = (apart <= points.max_color_distance) & (one < other)
        pairs += zip(one[near].tolist(), other[near].tolist(), strict=True)
    return pairs


@pytest.mark.parametrize(("num_hashes", "max_distance"), [(50_000, 4), (20_000, 8)])
def test_the_groups_of_fifty_thousand_hashes_are_those_of_all_their_pairs(num_hashes: int, max_distance: int):
    """A third are copies with up to two bits more than the distance; half crowd together, as flat pictures do."""
    chance = np.random.default_rng(max_distance)
    half, third = num_hashes // 2, num_hashes // 3
    hashes = chance.integers(0, 2**64, num_hashes, dtype=np.uint64)
    hashes[:half] &= chance.integers(0, 2**64, half, dtype=np.uint64)  # few bits set
    colors = chance.integers(0, 256, (num_hashes, 48))
    copied, noise = chance.integers(0, half, third), chance.integers(-20, 21, (third, 48))
    noise[: third // 8] += chance.integers(-1, 2, (third // 8, 48))
    hashes[-third:], colors[-third:] = hashes[copied], colors[copied] + noise
    for bit in range(max_distance + 2):
        flipped = third - third * bit // (max_distance + 2)
        hashes[-flipped:] ^= np.uint64(1) << chance.integers(0, 64, flipped, dtype=np.uint64)
    points = Points(hashes, colors.clip(0, 255).astype(np.uint8), max_distance, 20)
    near = all_pairs(points)
    smallest = list(range(num_hashes))
    changed = True
    while changed:
        changed = False
        for one, other in near:
            if smallest[one] != smallest[other]:
                smallest[one] = smallest[other] = min(smallest[one], smallest[other])
                changed = True
    assert third // 4 < len(near)
    assert neighbors.groups(points).tolist() == smallest
