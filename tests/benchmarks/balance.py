"""Balancing beside a straightforward one, and its passes at several sizes.

    python -m tests.benchmarks.balance [--pairs 300000]
    python -m tests.benchmarks.balance --sizes 500000 1000000 2000000 4000000

in      the pool of zipf.py: 500,000 queries, 3.5 matches a pair, t scaled; all repeats merged, all texts matched
ours    the passes of soft mode in memory: counts, limits, who stays (cap mode is told too)
peer    as MetaCLIP describes it: an inverted index of rows (query, pair), counts by np.unique, probabilities t / count, and
        for each text a loop over its queries with a random number for each until one is under its probability
both    keep the number of pairs that the probabilities say, within five standard deviations, asserted
--sizes         the passes of cap mode by the runner, each size in a process of its own: CPU seconds, bytes on disk, peak
                memory; slopes. t is scaled, so small here that a window is wider than t: DRAWS writes less at full size
--bucket N      one bucket of hosts of the plan: N pairs, with the windows and limits of 1.6 billion at t = 20,000
--published N   the published arithmetic on N pairs
last line  `balance ratio=X.XX`: the peer's CPU seconds over ours, medians (only without these options)
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline import balance, draws, match, schema
from pipeline.config import BalanceConfig, MatchConfig, RunConfig
from pipeline.draws import Limits
from pipeline.events import Events
from pipeline.manifest import Manifest
from pipeline.parts import Job, write_part
from pipeline.runner import finish, in_process, run_steps
from pipeline.stage import Step, Task
from pipeline.storage import join
from tests.benchmarks.zipf import LIMIT, PAIRS, Published, counts, figures, published
from tests.pipeline.pool import limits_of

RUNS = 3
PART_PAIRS = 250_000  # of a part of matched
BUCKET_PAIRS = 1_600_000  # of a bucket of hosts: 1024 of them hold the plan's 1.6 billion


def straightforward(query_ids: list[list[int]], num_queries: int, limit: int, seed: int) -> np.ndarray:
    """Which texts stay. The index and the loop are those of MetaCLIP's description."""
    index = np.asarray([(query, text) for text, ids in enumerate(query_ids) for query in ids], np.uint32)
    queries, number = np.unique(index[:, 0], return_counts=True)
    probability = np.ones(num_queries)
    probability[queries] = np.minimum(1.0, limit / number)
    chance = np.random.default_rng(seed)
    stays = np.zeros(len(query_ids), bool)
    for text, ids in enumerate(query_ids):
        for query in ids:
            if chance.random() < probability[query]:
                stays[text] = True
                break
    return stays


def seconds_of(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process, and what came of it."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def beside(num_pairs: int) -> None:
    """Both on one pool."""
    pool = published(num_pairs)
    soft = BalanceConfig(mode="soft", max_per_query=pool.max_per_query, oversample=1.0)

    def ours(config: BalanceConfig) -> np.ndarray:
        return limits_of(pool.pool, config).keep(pool.pool.pair_ids, pool.pool.query_ids)

    texts = pool.pool.query_ids.to_pylist()
    expected = figures(pool, "soft")
    spent: dict[str, list[float]] = {"ours": [], "cap": [], "peer": []}
    for seed in range(RUNS):
        for name, work in (
            ("ours", lambda seed=seed: ours(replace(soft, seed=seed))),
            ("cap", lambda seed=seed: ours(replace(soft, seed=seed, mode="cap"))),
            ("peer", lambda seed=seed: straightforward(texts, pool.num_queries, pool.max_per_query, seed)),
        ):
            seconds, stays = seconds_of(work)
            spent[name].append(seconds)
            assert name == "cap" or abs(stays.sum() - expected.expected_pairs) < 5 * expected.deviation, name
    middle = {name: statistics.median(values) for name, values in spent.items()}
    print(
        f"{num_pairs:,} pairs, {expected.matches:,} matches, t = {pool.max_per_query}: ours soft {middle['ours']:.2f} s, cap "
        f"{middle['cap']:.2f} s, straightforward soft {middle['peer']:.2f} s of CPU"
    )
    print(f"balance ratio={middle['peer'] / middle['ours']:.2f}")


def matched_rows(pool: Published, start: int, end: int) -> pa.Table:
    """Rows of matched with URLs and texts of the usual length; 1,000 hosts."""
    rows = pl.DataFrame({"pair_id": pl.Series(pool.pool.pair_ids.slice(start, end - start))}).with_row_index("row", start)
    host = pl.col("row") * 2654435761 % 1000
    rows = rows.select(
        "pair_id",
        image_url=pl.format("https://images.host-{}.example.com/wp-content/uploads/2021/05/{}.jpg", host, "pair_id"),
        text=pl.format("a text of the usual length, about a picture, {}", pl.col("pair_id").str.slice(0, 18)),
        page_url=pl.format("https://www.host-{}.example.com/some/page/{}/", host, pl.col("row") // 12),
        attribute=pl.lit("alt"),
        link_index=(pl.col("row") % 40).cast(pl.Int32),
        archive=pl.format("crawl-data/segments/1718/wat/{}.warc.wat.gz", pl.col("row") // 400_000),
        record_offset=(pl.col("row") * 1000).cast(pl.Int64),
    )
    table = rows.to_arrow().append_column("query_ids", pool.pool.query_ids.slice(start, end - start))
    return table.cast(schema.MATCHED)


def make(num_pairs: int, root: str) -> None:
    """Write matched, and what `passes` needs to know; in a process of its own, since it needs more memory than they do."""
    pool = published(num_pairs)
    num_buckets = max(1, round(num_pairs / BUCKET_PAIRS))
    job = Job(
        stage=match.STAGE, config=MatchConfig(num_buckets=num_buckets), sources=(), target=join(root, "2"), sides={},
        dropped_sample=0,
    )  # fmt: skip
    parts = []
    for number, start in enumerate(range(0, num_pairs, PART_PAIRS)):
        rows = matched_rows(pool, start, min(start + PART_PAIRS, num_pairs))
        task = Task(part=f"part-{number:04d}", inputs=())
        parts.append(write_part(job, task, rows, rows_in=rows.num_rows, made_from="", started=0.0))
    finish(join(root, "2"), Manifest(stage="match", fingerprint={}, parts=tuple(parts), num_buckets=num_buckets), None)


def peak_bytes(reset: bool = False) -> int:
    """The most memory of this process since the last reset; from Linux."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def passes(num_pairs: int, root: str) -> None:
    """CPU seconds, bytes and peak memory of each pass of cap mode, as JSON."""
    config = BalanceConfig(max_per_query=round(LIMIT * num_pairs / PAIRS))
    steps = balance.limit_steps(config, "2", "3")
    steps += [Step(balance.STAGE, config, ["2"], "3", {"limits": "3/_limits"})]
    steps += balance.per_query_steps(config, "3", "3/_limits", "3", "balance")
    settings, events = RunConfig(dropped_sample=0), Events(root, "benchmark")
    found: dict[str, Any] = {}
    for step in steps:
        before = peak_bytes(reset=True)
        seconds, made = seconds_of(
            lambda step=step: run_steps([step], root, settings=settings, events=events, execute=in_process)
        )
        num_bytes = sum(file.num_bytes for part in made[step.target].parts for file in part.files)
        found[step.stage.name] = {"seconds": seconds, "bytes": num_bytes, "peak": peak_bytes(), "before": before}
    print(json.dumps(found))


def in_a_process(*arguments: object) -> list[str]:
    """The lines that this program prints when it is given these arguments."""
    command = [sys.executable, "-m", "tests.benchmarks.balance", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()


def scale(sizes: list[int]) -> None:
    """Each size in processes of its own, then the slopes."""
    results = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as root:
            in_a_process("--make", size, "--root", root)
            results.append(json.loads(in_a_process("--measure", size, "--root", root)[-1]))
    million, sums = np.asarray(sizes) / 1e6, np.zeros(2)
    print(f"{'CPU s, MB written, peak MB':<28}" + "".join(f"{size:>24,}" for size in sizes) + "   a million: s, MB")
    for name in results[0]:
        rows = [result[name] for result in results]
        slopes = np.asarray([np.polyfit(million, [row[kind] for row in rows], 1)[0] for kind in ("seconds", "bytes")])
        sums += slopes
        cells = "".join(f"{row['seconds']:>8.2f} {row['bytes'] / 1e6:>7.1f} {row['peak'] / 1e6:>7.0f}" for row in rows)
        print(f"{name:<28}{cells}{slopes[0]:>10.3f} {slopes[1] / 1e6:>8.2f}")
    print(
        f"slopes times 1.6 billion pairs: {sums[0] * PAIRS / 1e6 / 3600:.2f} core hours, {sums[1] * PAIRS / 1e18:.3f} TB written"
    )


def written_bytes(table: pa.Table) -> int:
    """Bytes of the Parquet file of a part, by buckets of queries."""
    with tempfile.TemporaryDirectory() as folder:
        stage = replace(balance.COUNT, writes=table.schema)
        job = Job(stage=stage, config=BalanceConfig(), sources=(), target=folder, sides={}, dropped_sample=0)
        part = write_part(job, Task(part="bucket", inputs=()), table, rows_in=0, made_from="", started=0.0)
    return sum(file.num_bytes for file in part.files)


def merged_by_query(counts: pa.Table, buckets: int, config: BalanceConfig) -> None:
    """One bucket of queries of the plan: the counts of so many buckets of hosts, all like this one."""
    mine = counts.filter(pa.array(balance.query_bucket(counts, config.num_query_buckets) == 0))
    before = peak_bytes(reset=True)
    parts = pa.concat_tables([pa.concat_tables([mine]).take(pa.array(np.arange(mine.num_rows))) for _ in range(buckets)])
    seconds, _ = seconds_of(lambda: draws.windows(draws.merge(parts), config))
    memory = (peak_bytes() - before) / 1e6
    print(f"windows {seconds:>8.2f} s of CPU, {memory:>6.0f} MB more memory: {parts.num_rows:,} counts of {buckets:,} parts")


def one_bucket(num_pairs: int) -> None:
    """A bucket of hosts of the plan: so many pairs, windows and limits of 1.6 billion at the paper's t."""
    pool = published(num_pairs).pool
    full = counts(1.0).astype(np.int64)
    config = BalanceConfig(oversample=1.5)
    queries = np.flatnonzero(full)
    table = pa.Table.from_arrays(
        [pa.array(queries, pa.uint32()), pa.array(full[queries]), pa.array(full[queries])], schema=schema.COUNTS
    )
    windows = draws.windows(table, config)
    known = pa.table([windows[name] for name in ("query_id", "count", "high")], schema=schema.LIMITS)
    results = {}
    for name, work in (
        ("count", lambda: draws.count(pool.pair_ids, pool.query_ids, config)),
        ("draws", lambda: draws.inside(pool.pair_ids, pool.query_ids, config, windows)),
        ("keep", lambda: Limits.of(known, config).keep(pool.pair_ids, pool.query_ids)),
    ):
        before = peak_bytes(reset=True)
        seconds, results[name] = seconds_of(work)
        memory = (peak_bytes() - before) / 1e6
        num_bytes = written_bytes(results[name]) if name != "keep" else 0
        print(f"{name:<8}{seconds:>8.2f} s of CPU, {memory:>6.0f} MB more memory, {num_bytes / 1e6:.2f} MB written")
    buckets = round(PAIRS / num_pairs)
    merged_by_query(results["count"], buckets, config)
    found = results["draws"]
    in_windows = len(found["draws"].combine_chunks().flatten())
    over = int((full > LIMIT * 1.5).sum())
    matches, stay = len(pool.query_ids.combine_chunks().flatten()), int(results["keep"].sum())
    print(
        f"{num_pairs:,} pairs, {matches:,} matches: {results['count'].num_rows:,} counts; {found.num_rows:,} open windows with "
        f"{in_windows:,} draws in them; {stay:,} pairs stay"
    )
    print(f"1.6 billion pairs: {over:,} queries over the limit; {in_windows * buckets / 1e6:,.0f} million draws in windows; "
          f"limits {known.nbytes / 1e6:.1f} MB")  # fmt: skip


def main() -> None:
    """Run what is asked for and print it."""
    parser = argparse.ArgumentParser(description="Balancing beside a straightforward one, and its passes at several sizes.")
    parser.add_argument("--pairs", type=int, default=300_000)
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--published", type=int)
    parser.add_argument("--bucket", type=int)
    for name in ("--make", "--measure"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(options.make, options.root)
    elif options.measure:
        passes(options.measure, options.root)
    elif options.bucket:
        one_bucket(options.bucket)
    elif options.sizes:
        scale(options.sizes)
    elif options.published:
        pool = published(options.published)
        print(f"t = {pool.max_per_query}")
        for mode in ("soft", "cap"):
            print(mode, asdict(figures(pool, mode)))
    else:
        beside(options.pairs)


if __name__ == "__main__":
    main()
