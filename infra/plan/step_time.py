"""The time of a training step on N ranks: compute, features gathered, gradients reduced. Shared with tests/benchmarks/scaling.py.

in      what a rank computes for its pairs, bytes of features and gradients, links
out     seconds by phase, for the slowest rank; every rank waits for it
law     a ring of N ranks: an all-gather, or a reduce-scatter, of S bytes in all takes (N-1) messages of latency and (N-1)/N S of
        the slowest link's time; an all-reduce is one of each. One rank sends nothing
law     a ring that leaves a node goes once over each link between nodes, which is as fast as all its cards together
law     gathered: both features in the forward pass, their gradients reduce-scattered in the backward pass, float32. Reduced: one
        buffer of all gradients, after the backward pass (model/gradients.py: nothing overlaps; `overlap` says how much would)
silent  one job on the links; no stragglers but the `slowest_rank`; no congestion above a ring's own
source  Thakur et al. 2005, on the cost of rings
"""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

FLOAT_BYTES = 4
GATHERED = 2  # tensors of features: images and texts
SMALL_REDUCES = 1  # of a few bytes each step: the loss; its latency only


class Ring(NamedTuple):
    """What a collective costs: a message, and a byte on the slowest link."""

    seconds_per_message: float
    seconds_per_byte: float

    def gather(self, ranks: int, total_bytes: float) -> float:
        """All-gather, or reduce-scatter, of so many bytes in all."""
        return (ranks - 1) * self.seconds_per_message + (ranks - 1) / ranks * total_bytes * self.seconds_per_byte

    def reduce(self, ranks: int, total_bytes: float) -> float:
        """All-reduce of a buffer of so many bytes."""
        return 2 * self.gather(ranks, total_bytes)


class Links(NamedTuple):
    """The rings of the three collectives: alike in theory, not in every library."""

    gather: Ring
    scatter: Ring
    reduce: Ring

    @classmethod
    def alike(cls, ring: Ring) -> "Links":
        """The same ring for all."""
        return cls(ring, ring, ring)


class Work(NamedTuple):
    """What a rank does alone."""

    seconds_per_pair: float  # of the towers, forward and backward
    seconds_per_logit: float  # of the loss: rows of this rank times columns of all, both directions
    seconds_per_step: float  # whatever the batch: the optimiser


class Step(NamedTuple):
    """Seconds of one step."""

    compute: float
    loss: float
    gather: float
    gradients: float
    fixed: float

    @property
    def total(self) -> float:
        """Of the whole step."""
        return sum(self)


def step(
    work: Work, links: Links, *, ranks: int, rank_pairs: float, embed_dim: int, num_weights: float, overlap: float = 0.0,
    slowest_rank: float = 1.0,
) -> Step:  # fmt: skip
    """The step of `ranks` ranks with `rank_pairs` pairs each."""
    if ranks < 1 or rank_pairs <= 0:
        raise ValueError(f"plan: a step needs ranks and pairs, found {ranks} and {rank_pairs}")
    feature_bytes = ranks * rank_pairs * embed_dim * FLOAT_BYTES
    compute = work.seconds_per_pair * rank_pairs * slowest_rank
    reduced = links.reduce.reduce(ranks, num_weights * FLOAT_BYTES)
    small = SMALL_REDUCES * links.reduce.reduce(ranks, 0)
    return Step(
        compute=compute,
        loss=work.seconds_per_logit * rank_pairs * rank_pairs * ranks,
        gather=GATHERED * (links.gather.gather(ranks, feature_bytes) + links.scatter.gather(ranks, feature_bytes)),
        gradients=max(reduced - overlap * compute * 2 / 3, reduced * (1 - overlap)) + small,
        fixed=work.seconds_per_step,
    )


def fit_ring(samples: Sequence[tuple[int, float, float]], rounds: int) -> Ring:
    """The ring that explains (ranks, bytes in all, seconds) best; rounds: 1 of a gather, 2 of an all-reduce.

    Squares of errors count over the seconds, so that neither the smallest nor the largest decides alone. Neither number is
    negative: where one would be, the other explains everything.
    """
    points = [
        ((n - 1) * rounds / sqrt(t), (n - 1) / n * size * rounds / sqrt(t), sqrt(t)) for n, size, t in samples if n > 1 and t > 0
    ]
    if not points:
        raise ValueError("plan: a ring is fitted to samples of two ranks and more")
    aa, bb, ab = (sum(p[i] * p[j] for p in points) for i, j in ((0, 0), (1, 1), (0, 1)))
    a, b = (sum(p[i] * p[2] for p in points) for i in (0, 1))
    determinant = aa * bb - ab * ab
    if determinant > 1e-9 * aa * bb:
        message, byte = (a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant
        if message >= 0 and byte >= 0:
            return Ring(message, byte)
    alone = [Ring(a / aa, 0.0)] + ([Ring(0.0, b / bb)] if bb else [])
    return min(alone, key=lambda ring: sum((ring[0] * p[0] + ring[1] * p[1] - p[2]) ** 2 for p in points))
