"""Groups of near pictures beside comparing every two hashes.

    python -m tests.benchmarks.dedupe [--hashes 200000] [--share 0.05]

in      random 64-bit hashes; a tenth of them within 0 to 4 bits of another one; colors all alike, so that only bits decide
ours    neighbors.groups: every group, exactly
peer    blocks of XOR and bitwise_count in NumPy against all hashes: the pairs only, no groups. Measured on `share` of the
        rows and extended to all of them
both    every pair that the peer finds is in one group of ours, asserted
last line  `dedupe ratio=X.XX`: the peer's CPU seconds over ours
"""

import argparse
import time

import numpy as np

from pipeline.neighbors import Points, groups

MAX_DISTANCE = 4
BLOCK = 64


def planted(num_hashes: int) -> np.ndarray:
    """Seeded hashes, the last tenth of them near copies of the first.  -> [n] uint64"""
    chance = np.random.default_rng(0)
    hashes = chance.integers(0, 2**64, num_hashes, dtype=np.uint64)
    num_copies = num_hashes // 10
    copies = hashes[:num_copies].copy()
    for flip in range(MAX_DISTANCE):
        some = chance.random(num_copies) < 0.2 * (flip + 1)
        copies[some] ^= np.uint64(1) << chance.integers(0, 64, int(some.sum()), dtype=np.uint64)
    hashes[-num_copies:] = copies
    return hashes


def near_pairs(hashes: np.ndarray, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (i, j), i < num_rows, within the distance, by looking at each.  [n] -> [k], [k]"""
    ones, others = [], []
    for start in range(0, num_rows, BLOCK):
        near = np.bitwise_count(hashes[start : start + BLOCK, None] ^ hashes[None, :]) <= MAX_DISTANCE
        one, other = np.nonzero(near)
        ones.append(one + start)
        others.append(other)
    return np.concatenate(ones), np.concatenate(others)


def main() -> None:
    """Run both and print the seconds."""
    parser = argparse.ArgumentParser(description="Groups of near pictures beside comparing every two hashes.")
    parser.add_argument("--hashes", type=int, default=200_000)
    parser.add_argument("--share", type=float, default=0.05)
    options = parser.parse_args()
    hashes = planted(options.hashes)
    points = Points(hashes, np.zeros((len(hashes), 48), np.uint8), MAX_DISTANCE, 0)
    started = time.process_time()
    root = groups(points)
    ours_seconds = time.process_time() - started
    num_rows = int(len(hashes) * options.share)
    started = time.process_time()
    one, other = near_pairs(hashes, num_rows)
    peer_seconds = (time.process_time() - started) / num_rows * len(hashes) / 2  # each pair is needed once only
    assert (root[one] == root[other]).all()
    assert len(one) > num_rows  # more than every hash with itself
    print(
        f"{len(hashes)} hashes, {len(np.unique(root))} groups: ours {ours_seconds:.2f} s, all pairs {peer_seconds:.1f} s of CPU"
    )
    print(f"dedupe ratio={peer_seconds / ours_seconds:.2f}")


if __name__ == "__main__":
    main()
