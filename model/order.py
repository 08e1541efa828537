"""The order of the data: a function of (manifest, seed, epoch, step), pure NumPy, no state.

in      pairs in each shard, in the manifest's order; seed, global batch, lanes, window
out     pair positions of a batch: 0 is the first pair of the first shard, counted through all shards
law     an epoch is a permutation of the pairs, cut at the last whole batch: P - (P // N) * N pairs sit out, others each time
law     a batch takes the same count from every lane; a rank owns whole lanes; so the world size does not enter, and any
        step is found without those before it
how     the shards, permuted by (seed, epoch), lie end to end; this line is cut into lanes of equal length (give or take
        one pair); each lane is shuffled inside windows of a few shards, so that only those need be open at once
chance  splitmix64 of the keys; a permutation is the order of such draws, the same on every machine and NumPy
shapes  P pairs, N global batch, K lanes, S shards
source  splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014)
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SHARDS, WINDOW, CROP = 1, 2, 3  # what a draw is for


def mix(values: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: a bijection of 64 bits.  [n] uint64 -> [n] uint64"""
    values = values + GOLDEN
    values = (values ^ (values >> np.uint64(30))) * MIX_1
    values = (values ^ (values >> np.uint64(27))) * MIX_2
    return values ^ (values >> np.uint64(31))


def key(*parts: int) -> np.ndarray:
    """One key of several integers.  -> [1] uint64"""
    state = np.zeros(1, np.uint64)
    for part in parts:
        state = mix(state ^ np.asarray([part], np.uint64))
    return state


def permutation(count: int, *parts: int) -> np.ndarray:
    """0 .. count - 1 in the order that the keys draw.  -> [count] int64"""
    return np.argsort(mix(np.arange(count, dtype=np.uint64) ^ key(*parts)), kind="stable")


def uniforms(pairs: np.ndarray, count: int, *parts: int) -> np.ndarray:
    """`count` numbers in [0, 1) for each pair.  [B] integers -> [B, count] float64"""
    columns = [mix(mix(pairs.astype(np.uint64) ^ key(*parts)) ^ np.uint64(column)) for column in range(count)]
    return (np.stack(columns, 1) >> np.uint64(11)) * 2.0**-53


class Epoch(NamedTuple):
    """The line of an epoch: which shard comes when, and where it starts."""

    shards: np.ndarray  # [S] shard numbers, in the order of the line
    starts: np.ndarray  # [S + 1] first place of each on the line; the last is P


class Order:
    """Where each step's pairs lie. Equal arguments give equal answers, whatever was asked before."""

    def __init__(self, shard_pairs: Sequence[int], *, seed: int, global_batch: int, num_lanes: int, window_shards: int):
        self.shard_pairs = np.asarray(shard_pairs, np.int64)
        self.shard_starts = np.concatenate([[0], np.cumsum(self.shard_pairs)])
        self.num_pairs = int(self.shard_starts[-1])
        self.seed, self.global_batch, self.num_lanes, self.window_shards = seed, global_batch, num_lanes, window_shards
        if global_batch % num_lanes:
            raise ValueError(f"order: global_batch must be a multiple of num_lanes, found {global_batch} and {num_lanes}")
        if self.num_pairs < global_batch:
            raise ValueError(
                f"order: a batch needs {global_batch} pairs and the dataset has {self.num_pairs}; give a smaller global_batch"
            )
        self.steps_per_epoch = self.num_pairs // global_batch
        self._epoch = lru_cache(maxsize=4)(self._make_epoch)
        self._window = lru_cache(maxsize=4 * num_lanes)(self._make_window)

    def _make_epoch(self, epoch: int) -> Epoch:
        shards = permutation(len(self.shard_pairs), self.seed, SHARDS, epoch)
        return Epoch(shards, np.concatenate([[0], np.cumsum(self.shard_pairs[shards])]))

    def _lane(self, lane: int) -> tuple[int, int]:
        return lane * self.num_pairs // self.num_lanes, (lane + 1) * self.num_pairs // self.num_lanes

    def _windows(self, epoch: int, lane: int) -> np.ndarray:
        """Places on the line where the lane's windows start, and its end."""
        starts = self._epoch(epoch).starts
        begin, end = self._lane(lane)
        first = int(np.searchsorted(starts, begin, "right")) - 1
        inner = starts[first : int(np.searchsorted(starts, end, "left")) : self.window_shards]
        return np.concatenate([np.maximum(inner, begin), [end]])

    def _make_window(self, epoch: int, lane: int, begin: int, end: int) -> np.ndarray:
        """The window's pairs in their order.  -> [end - begin] pair positions"""
        line = self._epoch(epoch)
        places = begin + permutation(end - begin, self.seed, WINDOW, epoch, lane, begin)
        at = np.searchsorted(line.starts, places, "right") - 1
        return self.shard_starts[line.shards[at]] + places - line.starts[at]

    def _lane_batch(self, epoch: int, step: int, lane: int) -> np.ndarray:
        count = self.global_batch // self.num_lanes
        begin = self._lane(lane)[0] + step * count
        bounds = self._windows(epoch, lane)
        pieces = []
        at = int(np.searchsorted(bounds, begin, "right")) - 1
        while count > 0:
            window_begin, window_end = int(bounds[at]), int(bounds[at + 1])
            piece = self._window(epoch, lane, window_begin, window_end)[begin - window_begin :][:count]
            pieces.append(piece)
            begin, count, at = begin + len(piece), count - len(piece), at + 1
        return np.concatenate(pieces)

    def batch(self, epoch: int, step: int) -> np.ndarray:
        """The global batch, lane after lane.  -> [N] pair positions"""
        return self.rank_batch(epoch, step, 0, 1)

    def rank_batch(self, epoch: int, step: int, rank: int, world_size: int) -> np.ndarray:
        """A rank's share of the global batch: the batches of all ranks, end to end, are the global batch.  -> [N / W]"""
        if self.num_lanes % world_size:
            raise ValueError(
                f"order: num_lanes must be a multiple of the ranks, found {self.num_lanes} lanes, {world_size} ranks"
            )
        if not 0 <= step < self.steps_per_epoch:
            raise ValueError(f"order: an epoch has steps 0 to {self.steps_per_epoch - 1}, found {step}")
        share = self.num_lanes // world_size
        lanes = range(rank * share, (rank + 1) * share)
        return np.concatenate([self._lane_batch(epoch, step, lane) for lane in lanes])

    def shard_of(self, pairs: np.ndarray) -> np.ndarray:
        """The shard of each pair.  [B] pair positions -> [B] shard numbers"""
        return np.searchsorted(self.shard_starts, pairs, "right") - 1
