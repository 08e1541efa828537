"""Which pictures are near each other, and the groups that follow; no pass over all pairs.

in      points: a 64-bit hash and 48 color bytes each; two points are near iff at most `max_distance` bits differ and no
        color byte differs by more than `max_color_distance`
out     the connected components of "near", exactly, as a forest: parent[i] is a point of the same group
law     two hashes within d bits agree on at least one of d + 1 bands whole (pigeonhole), so comparing inside bands misses
        nothing; groups do not depend on the order of the points
cost    memory linear in the points. Time: one sort a band and the comparisons inside the bands; a crowded band is cut
        again by the bits that are left; points that are still together after that are mostly near each other, and are
        taken from the rest as they join, so that a crowd of n near copies costs about n and not n squared
source  Norouzi, Punjani, Fleet, "Fast Exact Search in Hamming Space with Multi-Index Hashing" (2014)
letters n points; k pairs of points
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

HASH_BITS = 64
ALL = ~np.uint64(0)
CROWD = 256  # points with one band value above which the band is cut again
MAX_CUTS = 1
BLOCK = 1 << 16  # pairs whose colors are compared at once
FEW = 64  # points below which all their colors are compared at once


def bands(count: int, left: np.uint64 = ALL) -> list[np.uint64]:
    """The bits of `left` cut into `count` masks, nearly equal; a mask is 0 where there are more masks than bits."""
    bits = [bit for bit in range(HASH_BITS) if int(left) >> bit & 1]
    cuts = [len(bits) * i // count for i in range(count + 1)]
    return [np.uint64(sum(1 << bit for bit in bits[start:end])) for start, end in pairwise(cuts)]


def new_forest(num_nodes: int) -> np.ndarray:
    """Every node its own root.  -> [num_nodes] int64"""
    return np.arange(num_nodes)


def roots(parent: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """The smallest node of the group of each node; shortens the ways there.  [n] -> [n]"""
    found = parent[nodes]
    while not np.array_equal(further := parent[found], found):
        found = further
    parent[nodes] = found
    return found


def join(parent: np.ndarray, ones: np.ndarray, others: np.ndarray) -> None:
    """Make ones[i] and others[i] members of one group, for all i.  [k], [k]"""
    while len(ones):
        one, other = roots(parent, ones), roots(parent, others)
        apart = one != other
        ones, others, one, other = ones[apart], others[apart], one[apart], other[apart]
        # A root only ever gets a smaller parent, so there are no cycles; two rounds at least halve the roots.
        np.minimum.at(parent, np.maximum(one, other), np.minimum(one, other))


@dataclass(frozen=True, slots=True)
class Points:
    """Pictures, and what near means.  hashes: [n] uint64; colors: [n, 48] uint8"""

    hashes: np.ndarray
    colors: np.ndarray
    max_distance: int
    max_color_distance: int

    def link(self, parent: np.ndarray, rows: np.ndarray, mask: np.uint64, cuts: int = 0) -> None:
        """Join all near points among `rows` whose hashes agree on the bits of `mask`; equal hashes must be joined before.

        rows: [n] int64. With a mask of all bits it joins the near points of equal hashes.
        """
        keys = self.hashes[rows] & mask
        order = np.argsort(keys, kind="stable")
        rows, keys = rows[order], keys[order]
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(rows) else np.arange(0)
        sizes = np.diff(starts, append=len(rows))
        crowded = np.repeat(sizes > CROWD, sizes)
        self._link_small(parent, rows, np.repeat(starts + sizes, sizes), np.flatnonzero(~crowded))
        crowds = [rows[start : start + size] for start, size in zip(starts, sizes, strict=True) if size > CROWD]
        open_crowds = [crowd for crowd in crowds if mask == ALL or not self._is_done(parent, crowd)]
        parts = bands(self.max_distance + 1, ~mask)
        if cuts < MAX_CUTS and all(parts) and open_crowds:
            for part in parts:
                self.link(parent, np.concatenate(open_crowds), mask | part, cuts + 1)
        else:
            for crowd in open_crowds:
                self._link_crowd(parent, crowd, mask == ALL)

    def _is_done(self, parent: np.ndarray, crowd: np.ndarray) -> bool:
        found, hashes = roots(parent, crowd), self.hashes[crowd]
        return bool((found == found[0]).all() or (hashes == hashes[0]).all())

    def _link_small(self, parent: np.ndarray, rows: np.ndarray, ends: np.ndarray, places: np.ndarray) -> None:
        """Compare each place with the ones after it up to its end: all first neighbors, all second ones, and so on."""
        hashes = self.hashes[rows]
        shift = 0
        while True:
            shift += 1
            places = places[places + shift < ends[places]]
            if not len(places):
                return
            near = np.bitwise_count(hashes[places] ^ hashes[places + shift]) <= self.max_distance
            ones, others = rows[places[near]], rows[places[near] + shift]
            for start in range(0, len(ones), BLOCK):
                self._join_alike(parent, ones[start : start + BLOCK], others[start : start + BLOCK])

    def _join_alike(self, parent: np.ndarray, ones: np.ndarray, others: np.ndarray) -> None:
        """Join the pairs whose colors are near; pairs of one group are not looked at again."""
        apart = roots(parent, ones) != roots(parent, others)
        ones, others = ones[apart], others[apart]
        alike = self.close(self.colors[ones], self.colors[others]).all(axis=1)
        join(parent, ones[alike], others[alike])

    def _link_crowd(self, parent: np.ndarray, crowd: np.ndarray, one_hash: bool) -> None:
        """Spread from point to point; whoever is reached leaves the rest, which is what the next one is compared with.

        The largest set that needs no comparison inside, the block, only stands by: every other point is compared with it.
        """
        block = np.zeros(len(crowd), bool) if one_hash else self._block(parent, crowd)
        colors = self.colors[crowd]
        widest = int(np.argmax(np.ptp(colors, axis=0)))
        order = np.lexsort((colors[:, widest], block))
        crowd, num_rest = crowd[order], int(np.count_nonzero(~block))
        view = _Crowd(self, self.hashes[crowd], np.ascontiguousarray(colors[order].T), widest)
        resting, stand = slice(0, num_rest), slice(num_rest, len(crowd))
        rest, standing = np.arange(num_rest), np.arange(num_rest, len(crowd))
        while len(rest):
            seed, rest = rest[0], rest[1:]
            reached = [seed]
            while reached and len(rest) + len(standing):
                point = reached.pop()
                found = view.near(point, rest, resting)
                reached += rest[found].tolist()
                met = np.concatenate([rest[found], standing[view.near(point, standing, stand)]])
                rest = np.delete(rest, found) if len(found) else rest
                join(parent, np.full(len(met), crowd[seed]), crowd[met])

    def _block(self, parent: np.ndarray, crowd: np.ndarray) -> np.ndarray:
        """The points of the most frequent hash or of the largest group, whichever are more.  [n] -> [n] bool"""
        sets = []
        for labels in (self.hashes[crowd], roots(parent, crowd)):
            values, counts = np.unique(labels, return_counts=True)
            sets.append((int(counts.max()), labels == values[np.argmax(counts)]))
        return max(sets, key=lambda item: item[0])[1]

    def close(self, values: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Where two colors differ by no more than the limit.  uint8 -> bool, of one shape"""
        return np.maximum(values, value) - np.minimum(values, value) <= self.max_color_distance


@dataclass(frozen=True, slots=True)
class _Crowd:
    """The points of a crowd, in ranges that are ascending in the channel `widest`.  channels: [48, n]"""

    points: Points
    hashes: np.ndarray
    channels: np.ndarray
    widest: int

    def near(self, point: int, others: np.ndarray, inside: slice) -> np.ndarray:
        """The places in `others` of what is near the point. `others` ascend and lie in the range `inside`.  [n] -> [k]"""
        values, limit = self.channels[self.widest, inside], self.points.max_color_distance
        value = int(self.channels[self.widest, point])
        first = inside.start + np.searchsorted(values, np.uint8(max(0, value - limit)), "left")
        last = inside.start + np.searchsorted(values, np.uint8(min(255, value + limit)), "right")
        low, high = np.searchsorted(others, [first, last])
        others = others[low:high]
        places = np.flatnonzero(np.bitwise_count(self.hashes[others] ^ self.hashes[point]) <= self.points.max_distance)
        for channel in self.channels:
            if len(places) < FEW:  # most are told apart by a few of the 48
                break
            places = places[self.points.close(channel[others[places]], channel[point])]
        alike = self.points.close(self.channels[:, others[places]], self.channels[:, point, None]).all(axis=0)
        return low + places[alike]


def groups(points: Points) -> np.ndarray:
    """The smallest point of the group of each point.  -> [n] int64"""
    rows = np.arange(len(points.hashes))
    parent = new_forest(len(rows))
    for mask in [ALL, *bands(points.max_distance + 1)]:
        points.link(parent, rows, mask)
    return roots(parent, rows)
