"""Writing tars beside webdataset's TarWriter: the same pairs, the same members, into memory.

    python -m tests.benchmarks.shard [--pairs 5000] [--runs 5]

ours    tars.pack: header bytes written directly, images joined without a copy each, JSON in one call; gives the offsets too
peer    webdataset.TarWriter with its own encoders, one dict a pair; gives no offsets
both    images of 5 to 35 KB of seeded noise; both tars are read with tarfile and hold the same members, asserted
last line  `shard ratio=X.XX`: our MB/s over the peer's, medians of CPU time, runs taken in turn
"""

import argparse
import io
import json
import tarfile
import time
from statistics import median

import numpy as np
import pyarrow as pa
import webdataset.writer

from pipeline import tars


def pairs(num_pairs: int) -> pa.Table:
    """Rows as sharding hands them on."""
    chance = np.random.default_rng(0)
    numbers = range(num_pairs)
    return pa.table(
        {
            "key": [f"{number:09d}" for number in numbers],
            "url": [f"https://host-{number % 50}.test/pictures/{number}.jpg" for number in numbers],
            "caption": [f"picture {number} of a red bicycle on a white background" for number in numbers],
            "status": ["success"] * num_pairs,
            "width": pa.array(chance.integers(100, 400, num_pairs), pa.int32()),
            "phash": pa.array(chance.integers(0, 2**64, num_pairs, dtype=np.uint64)),
            "query_ids": pa.array([[number % 99, 100 + number] for number in numbers], pa.list_(pa.uint32())),
            "image": pa.array([chance.bytes(int(size)) for size in chance.integers(5_000, 35_000, num_pairs)], pa.binary()),
        }
    )


def ours(table: pa.Table) -> bytes:
    """The tar that the pipeline writes."""
    return tars.pack(table)[0]


def peer(table: pa.Table) -> bytes:
    """The tar that webdataset writes of the same rows."""
    sink = io.BytesIO()
    with webdataset.writer.TarWriter(sink) as writer:
        for row in table.to_pylist():
            image = row.pop("image")
            writer.write({"__key__": row["key"], "jpg": image, "txt": row["caption"], "json": row})
    return sink.getvalue()


def members(data: bytes) -> dict[str, object]:
    """What is in a tar; JSON parsed, because its spaces are free."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        bodies = {member.name: tar.extractfile(member).read() for member in tar}  # pyright: ignore[reportOptionalMemberAccess]
    return {name: json.loads(body) if name.endswith(".json") else body for name, body in bodies.items()}


def main() -> None:
    """Run both in turn and print the medians."""
    parser = argparse.ArgumentParser(description="Writing tars beside webdataset's TarWriter.")
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    table = pairs(options.pairs)
    assert members(ours(table.slice(0, 300))) == members(peer(table.slice(0, 300)))
    rates: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(options.runs):
        for name, write in (("ours", ours), ("peer", peer)):
            started = time.process_time()
            num_bytes = len(write(table))
            rates[name].append(num_bytes / 1e6 / (time.process_time() - started))
    found = {name: median(values) for name, values in rates.items()}
    print(f"{options.pairs} pairs, {num_bytes / 1e6:.0f} MB: ours {found['ours']:.0f} MB/s, webdataset {found['peer']:.0f} MB/s")
    print(f"shard ratio={found['ours'] / found['peer']:.2f}")


if __name__ == "__main__":
    main()
