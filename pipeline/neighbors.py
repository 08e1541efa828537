"""Which pictures are near each other, and the groups that follow; no pass over all pairs.

in      points: a 64-bit hash and 48 color bytes each; two points are near iff at most `max_distance` bits differ and no
        color byte differs by more than `max_color_distance`
out     the connected components of "near", exactly, as a forest: parent[i] is a point of the same group
law     a hash cut into k blocks agrees with one within d bits on at least k - d whole blocks (pigeonhole), so comparing the
        points that agree on some k - d of them misses nothing; groups do not depend on the order of the points
cost    memory 40 bytes a point beside the points themselves. Time: a sort for each choice of k - d blocks and the comparisons
        inside; k grows with the points, so that these stay few (`cuts`). What is crowded all the same is cut again, and then
        mostly near each other: points are taken from the rest as they join, so that a crowd of n near copies costs about n
        and not n squared. tests/benchmarks/dedupe.py --scaling measures it
source  Norouzi, Punjani, Fleet, "Fast Exact Search in Hamming Space with Multi-Index Hashing" (2014)
letters n points; d bits that may differ; k blocks
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, pairwise
from math import comb

import numpy as np

from pipeline import neighbors_kernel as kernel

HASH_BITS = 64
ALL = ~np.uint64(0)
CROWD = 256  # points with one key above which they are cut again
MAX_CUTS = 2
MAX_MASKS = 2000  # of one cut
MAX_KEY_BITS = 24
SORT_NS, COMPARE_NS = 40.0, 0.4  # of a point in a sort, of two points; only ever decide what is faster


def bands(count: int, left: np.uint64 = ALL) -> list[np.uint64]:
    """The bits of `left` cut into `count` masks, nearly equal; a mask is 0 where there are more masks than bits."""
    bits = [bit for bit in range(HASH_BITS) if int(left) >> bit & 1]
    edges = [len(bits) * i // count for i in range(count + 1)]
    return [np.uint64(sum(1 << bit for bit in bits[start:end])) for start, end in pairwise(edges)]


@lru_cache(maxsize=256)
def _blocks(size_bits: int, num_left: int, max_distance: int) -> int:
    """k for about 2**size_bits points whose hashes may differ in `num_left` bits: the one with the least time."""

    def nanoseconds(count: int) -> float:
        run = 2.0 ** (size_bits - num_left * (count - max_distance) / count)
        return comb(count, max_distance) * (SORT_NS + run / 2 * COMPARE_NS)

    counts = range(max_distance + 1, num_left + 1)
    return min((count for count in counts if comb(count, max_distance) <= MAX_MASKS), key=nanoseconds)


def cuts(size: int, left: np.uint64, max_distance: int) -> list[np.uint64]:
    """Masks inside `left` such that hashes within the distance agree on one of them whole; none where no mask helps."""
    num_left = int(left).bit_count()
    if num_left <= max_distance:
        return []
    count = _blocks(max(size, 2).bit_length(), num_left, max_distance)
    chosen = combinations(bands(count, left), count - max_distance)
    return [np.bitwise_or.reduce(np.asarray(blocks, np.uint64)) for blocks in chosen]


def new_forest(num_nodes: int) -> np.ndarray:
    """Every node its own root.  -> [num_nodes] int64"""
    return np.arange(num_nodes)


def roots(parent: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """The smallest node of the group of each node; shortens the ways there.  [n] -> [n]"""
    return kernel.roots(parent, nodes)


def join(parent: np.ndarray, ones: np.ndarray, others: np.ndarray) -> None:
    """Make ones[i] and others[i] members of one group, for all i.  [k], [k]"""
    kernel.join(parent, ones, others)


@dataclass(frozen=True, slots=True)
class Points:
    """Pictures, and what near means.  hashes: [n] uint64; colors: [n, 48] uint8"""

    hashes: np.ndarray
    colors: np.ndarray
    max_distance: int
    max_color_distance: int

    def link(self, parent: np.ndarray, rows: np.ndarray, mask: np.uint64, num_cuts: int = 0) -> None:
        """Join all near points among `rows` whose hashes agree on the bits of `mask`; equal hashes must be joined before.

        rows: [n] int64. With a mask of all bits it joins the near points of equal hashes.
        """
        if len(rows) < 2:
            return
        num_bits = max(1, min(MAX_KEY_BITS, int(mask).bit_count(), len(rows).bit_length() - 2))
        rows, values = kernel.by_key(self.hashes, rows, mask, num_bits)
        limits = np.uint64(self.max_distance), self.max_color_distance
        starts, ends = kernel.link_runs(rows, values, self.colors, parent, mask, num_bits, *limits, CROWD)
        crowds = [rows[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        crowds = [crowd for crowd in crowds if mask == ALL or not self._is_done(parent, crowd)]
        largest = max(map(len, crowds), default=0)
        masks = cuts(largest, ~mask, self.max_distance) if num_cuts < MAX_CUTS and largest else []
        for part in masks:
            self.link(parent, np.concatenate(crowds), mask | part, num_cuts + 1)
        for crowd in [] if masks else crowds:
            self._link_crowd(parent, crowd, mask == ALL)

    def _is_done(self, parent: np.ndarray, crowd: np.ndarray) -> bool:
        found, hashes = roots(parent, crowd), self.hashes[crowd]
        return bool((found == found[0]).all() or (hashes == hashes[0]).all())

    def _link_crowd(self, parent: np.ndarray, crowd: np.ndarray, one_hash: bool) -> None:
        """Compare the points of a crowd. The largest set that needs no comparison inside, the block, only stands by."""
        block = np.zeros(len(crowd), bool) if one_hash else self._block(parent, crowd)
        colors = self.colors[crowd]
        widest = int(np.argmax(np.ptp(colors, axis=0)))
        crowd = crowd[np.lexsort((colors[:, widest], block))]
        limits = np.uint64(self.max_distance), self.max_color_distance
        kernel.spread(crowd, self.hashes[crowd], self.colors, widest, int(np.count_nonzero(~block)), parent, *limits)

    def _block(self, parent: np.ndarray, crowd: np.ndarray) -> np.ndarray:
        """The points of the most frequent hash or of the largest group, whichever are more.  [n] -> [n] bool"""
        sets = []
        for labels in (self.hashes[crowd], roots(parent, crowd)):
            values, counts = np.unique(labels, return_counts=True)
            sets.append((int(counts.max()), labels == values[np.argmax(counts)]))
        return max(sets, key=lambda item: item[0])[1]


class Index:
    """Points that others are compared with."""

    def __init__(self, points: Points):
        self.points, self.tables = points, []
        rows = np.arange(len(points.hashes))
        num_bits = max(1, min(MAX_KEY_BITS, len(rows).bit_length()))
        for mask in bands(points.max_distance + 1):
            ordered, values = kernel.by_key(points.hashes, rows, mask, num_bits)
            self.tables.append((mask, num_bits, kernel.starts(values, mask, num_bits), ordered, values))

    def nearest(self, hashes: np.ndarray, colors: np.ndarray) -> np.ndarray:
        """The near point with the fewest other bits, then the first; -1 where none is near.  [n], [n, 48] -> [n] int64"""
        found, distance = np.full(len(hashes), -1), np.full(len(hashes), HASH_BITS, np.uint64)
        for table in self.tables:
            limits = np.uint64(self.points.max_distance), self.points.max_color_distance
            kernel.nearest(hashes, colors, *table, self.points.colors, *limits, found, distance)
        return found


def groups(points: Points) -> np.ndarray:
    """The smallest point of the group of each point.  -> [n] int64"""
    rows = np.arange(len(points.hashes))
    parent = new_forest(len(rows))
    for mask in [ALL, *cuts(len(rows), ALL, points.max_distance)]:
        points.link(parent, rows, mask)
    return roots(parent, rows)
