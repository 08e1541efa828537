"""Groups of near pictures beside comparing every two hashes, and how their cost grows.

    python -m tests.benchmarks.dedupe [--hashes 200000] [--share 0.05]
    python -m tests.benchmarks.dedupe --scaling [--millions 1 2 4 8] [--cores 64] [--dataset 400]

in      random 64-bit hashes; a tenth of them within 0 to 4 bits of another one. For the peer colors are all alike, so that
        only bits decide; for --scaling they are random, and a copy's are its original's
ours    neighbors.groups: every group, exactly
peer    blocks of XOR and bitwise_count in NumPy against all hashes: the pairs only, no groups. Measured on `share` of the
        rows and extended to all of them
both    every pair that the peer finds is in one group of ours, asserted
last line  `dedupe ratio=X.XX`: the peer's CPU seconds over ours

--scaling runs each size in a process of its own (CPU seconds, and what its memory grew by), then the stage's own work for a
dataset of so many million pictures on so many cores: `bands` on a sample, `edges` on one bucket as large as the dataset's
512 buckets would be, the last map on a sample. It is arithmetic from these three, not a run of that size.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from itertools import count

import numpy as np
import pyarrow as pa

from pipeline import dedupe, hashing, neighbors, schema
from pipeline.config import DedupeConfig, wit
from pipeline.neighbors import Points, groups

MAX_DISTANCE = DedupeConfig().max_distance
BLOCK = 64
SAMPLE = 200_000


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


def tinted(num_hashes: int) -> np.ndarray:
    """Colors for `planted`.  -> [n, 48] uint8"""
    colors = np.random.default_rng(1).integers(0, 256, (num_hashes, 48), dtype=np.uint8)
    colors[-(num_hashes // 10) :] = colors[: num_hashes // 10]
    return colors


def near_pairs(hashes: np.ndarray, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (i, j), i < num_rows, within the distance, by looking at each.  [n] -> [k], [k]"""
    ones, others = [], []
    for start in range(0, num_rows, BLOCK):
        near = np.bitwise_count(hashes[start : start + BLOCK, None] ^ hashes[None, :]) <= MAX_DISTANCE
        one, other = np.nonzero(near)
        ones.append(one + start)
        others.append(other)
    return np.concatenate(ones), np.concatenate(others)


def beside_all_pairs(num_hashes: int, share: float) -> None:
    """Ours and the peer on the same hashes."""
    hashes = planted(num_hashes)
    points = Points(hashes, np.zeros((len(hashes), 48), np.uint8), MAX_DISTANCE, 0)
    groups(Points(hashes[:1000], points.colors[:1000], MAX_DISTANCE, 0))  # compiles
    started = time.process_time()
    root = groups(points)
    ours_seconds = time.process_time() - started
    num_rows = int(len(hashes) * share)
    started = time.process_time()
    one, other = near_pairs(hashes, num_rows)
    peer_seconds = (time.process_time() - started) / num_rows * len(hashes) / 2  # each pair is needed once only
    assert (root[one] == root[other]).all()
    assert len(one) > num_rows  # more than every hash with itself
    print(
        f"{len(hashes)} hashes, {len(np.unique(root))} groups: ours {ours_seconds:.2f} s, all pairs {peer_seconds:.1f} s of CPU"
    )
    print(f"dedupe ratio={peer_seconds / ours_seconds:.2f}")


def measure(num_hashes: int) -> tuple[float, float, int]:
    """CPU seconds, MB that the memory grew by, and groups, in this process."""
    points = Points(planted(num_hashes), tinted(num_hashes), MAX_DISTANCE, DedupeConfig().max_color_distance)
    groups(Points(points.hashes[:1000], points.colors[:1000], MAX_DISTANCE, 40))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    root = groups(points)
    seconds = time.process_time() - started
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3, len(np.unique(root))


def bucket(num_pictures: int, config: DedupeConfig) -> pa.Table:
    """BANDS rows of bucket 0 of so many pictures with random hashes and no copies."""
    chance, parts, num_rows = np.random.default_rng(2), [], 0
    masks = neighbors.bands(config.max_distance + 1)
    wanted = num_pictures * len(masks) // config.num_buckets
    for number in count():
        band = number % len(masks)
        bits = chance.integers(0, 2**64, 1, dtype=np.uint64) & masks[band]
        size = num_pictures >> int(masks[band]).bit_count()
        row = {"band": np.full(size, band, np.uint8), "bits": np.full(size, bits[0])}
        if dedupe.band_bucket(pa.table({name: values[:1] for name, values in row.items()}), config.num_buckets)[0] == 0:
            row["phash"] = (chance.integers(0, 2**64, size, dtype=np.uint64) & ~masks[band]) | bits[0]
            parts.append(pa.table(row))
            num_rows += size
            if num_rows >= wanted:
                break
    return with_names(pa.concat_tables(parts)).select(schema.BANDS.names).cast(schema.BANDS)


def with_names(table: pa.Table) -> pa.Table:
    """What else an images part and BANDS know of each picture."""
    chance, size = np.random.default_rng(3), table.num_rows
    ids = [hashing.sha256(str(number).encode()) for number in range(size)]
    more = {
        "colors": pa.array([chance.bytes(48) for _ in range(size)], pa.binary(48)), "pair_id": [name[:32] for name in ids],
        "sha256": ids, "url_hash": chance.integers(0, 2**64, size, np.uint64), "text_rank": pa.array([7] * size, pa.int32()),
        "image_url": [f"https://host-{n % 999}.test/{n}.jpg" for n in range(size)], "query_ids": [[1, 2]] * size,
        "text": ["a red bicycle on a white background, seen from the side"] * size,
    }  # fmt: skip
    return pa.table({**{name: table[name] for name in table.column_names}, **more})


def scaling(millions: list[int], cores: int, dataset: int) -> None:
    """Seconds and memory of the search alone by size, then of the whole stage for a dataset."""
    print(f"{'hashes':>10} {'groups':>10} {'CPU s':>8} {'us/hash':>8} {'growth':>7} {'MB':>7}")
    last = 0.0
    for size in millions:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, megabytes, num_groups = pool.apply(measure, (size * 1_000_000,))
        growth = f"x{seconds / last:.2f}" if last else ""
        last = seconds
        print(f"{size}000000 {num_groups:>10} {seconds:>8.2f} {seconds / size:>8.3f} {growth:>7} {megabytes:>7.0f}", flush=True)
    config, num_pictures = wit().dedupe, dataset * 1_000_000
    rows = bucket(num_pictures, config)
    dedupe.edges(rows.slice(0, 1000), config)
    edges_seconds, found = timed(lambda: dedupe.edges(rows, config))
    slim = with_names(pa.table({"phash": planted(SAMPLE)}))
    bands_seconds, _ = timed(lambda: dedupe.bands(slim, config))
    some = dedupe.Groups.of(found)
    map_seconds, _ = timed(lambda: dedupe.dedupe(slim, some))
    hours = [edges_seconds * config.num_buckets / 3600, *(s * num_pictures / SAMPLE / 3600 for s in (bands_seconds, map_seconds))]
    print(
        f"{dataset} million pictures in {config.num_buckets} buckets: one of {rows.num_rows} rows ({rows.nbytes / 1e6:.0f} MB) "
        f"takes {edges_seconds:.1f} s, all {hours[0]:.1f} core hours; bands {hours[1]:.1f}, last map {hours[2]:.1f}; "
        f"together {sum(hours) / cores:.2f} hours on {cores} cores; peak memory of this process "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB"
    )


def timed(call: Callable[[], pa.Table]) -> tuple[float, pa.Table]:
    """CPU seconds of a call and what it gave."""
    started = time.process_time()
    found = call()
    return time.process_time() - started, found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description="Groups of near pictures beside comparing every two hashes.")
    parser.add_argument("--hashes", type=int, default=200_000)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--cores", type=int, default=64)
    parser.add_argument("--dataset", type=int, default=400, help="million pictures")
    options = parser.parse_args()
    if options.scaling:
        scaling(options.millions, options.cores, options.dataset)
    else:
        beside_all_pairs(options.hashes, options.share)


if __name__ == "__main__":
    main()
