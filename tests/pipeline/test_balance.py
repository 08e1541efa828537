"""Balance by buckets on the runner, against the definition on the whole pool."""

import random
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from pipeline import balance, draws, hashing, hosts, match, query_report, runner, schema, stage
from pipeline.config import BalanceConfig, MatchConfig, QueriesConfig, RunConfig
from pipeline.draws import Limits
from pipeline.errors import InputError
from pipeline.events import Events
from pipeline.manifest import Dataset, Manifest
from pipeline.matcher import Matcher
from pipeline.runner import in_process
from pipeline.stage import Step
from tests.pipeline import pool
from tests.pipeline.pool import Pool

Mode = Literal["cap", "soft"]
QUERIES = ["red", "car", "dog", "red car", "cat", "bird"]


def matched(seed: int, num_rows: int = 300) -> pa.Table:
    """Rows of few hosts and texts, so that pairs repeat."""
    chance = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for number in range(num_rows):
        url = f"http://h{chance.randrange(6)}.test/{chance.randrange(40)}"
        text = " ".join(["red", *chance.choices(["red", "car", "dog", "cat", "of"], [9, 5, 3, 1, 9], k=3)])
        rows.append(
            {"pair_id": hashing.pair_id(url, text), "image_url": url, "text": text, "page_url": f"http://p.test/{number}"}
            | {
                "attribute": chance.choice(["alt", "title"]),
                "link_index": chance.randrange(3),
                "archive": f"a{chance.randrange(2)}",
            }
            | {"record_offset": chance.randrange(4)}
        )
    return match.match(pa.Table.from_pylist(rows, schema.CANDIDATES), Matcher(QUERIES)).drop_columns(["drop"])


def definition(pairs: pa.Table, config: BalanceConfig) -> dict[str, tuple]:
    """pair_id -> place of the row that stays, one row after the other."""
    best: dict[str, dict[str, Any]] = {}
    for row in pairs.to_pylist():
        place = tuple(row[name] for name in balance.PLACE)
        there = best.get(row["pair_id"])
        if there is None or place < tuple(there[name] for name in balance.PLACE):
            best[row["pair_id"]] = row
    rows = pa.Table.from_pylist(list(best.values()), schema.MATCHED)
    kept = pool.definition(Pool(rows["pair_id"], rows["query_ids"]), config)
    return {pair_id: tuple(best[pair_id][name] for name in balance.PLACE) for pair_id in kept}


def run_steps(root: Path, steps: list[Step]) -> None:
    runner.run_steps(steps, str(root), settings=RunConfig(verify="hash"), events=Events(str(root), "test"), execute=in_process)


def build(root: Path, parts: Mapping[str, pa.Table], config: BalanceConfig, num_buckets: int) -> Dataset:
    """Candidates in parts, matched, balanced and reported on by the runner; again, with more parts, brings them in."""
    queries = [{"query_id": i, "query": query, "source": "concept", "score": None} for i, query in enumerate(QUERIES)]
    tables = {"queries": pa.Table.from_pylist(queries, schema.QUERIES)}
    runner.write_dataset(str(root / "queries"), stage="queries", version=1, config=QueriesConfig(), parts=tables)
    tables = {name: part.select(schema.CANDIDATES.names) for name, part in parts.items()}
    runner.write_dataset(str(root / "1"), stage="crawl", version=1, config=None, parts=tables)
    run_steps(
        root,
        [
            Step(match.STAGE, MatchConfig(num_buckets=num_buckets), ["1"], "2", {"queries": "queries"}),
            *balance.limit_steps(config, "2", "3_balanced"),
            Step(balance.STAGE, config, ["2"], "3_balanced", {"limits": "3_balanced/_limits"}),
            *balance.per_query_steps(config, "3_balanced", "3_balanced/_limits", "3_balanced", "balance"),
        ],
    )
    return Dataset(str(root / "3_balanced"))


def places(dataset: Dataset) -> dict[str, tuple]:
    rows = dataset.read().to_pylist()
    assert len(rows) == dataset.manifest.rows_out
    found = {row["pair_id"]: tuple(row[name] for name in balance.PLACE) for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize("mode", ["cap", "soft"])
@pytest.mark.parametrize("seed", range(3))
def test_buckets_and_parts_give_what_the_definition_gives(mode: Mode, seed: int, tmp_path: Path) -> None:
    config = BalanceConfig(mode=mode, max_per_query=12, seed=seed)
    pairs = matched(seed)
    wanted = definition(pairs, config)
    rows = np.random.default_rng(seed).permutation(pairs.num_rows)
    cuts = ([rows], np.split(rows, [50, 50, 220]))
    for cut, num_buckets, num_query_buckets in zip(cuts, (1, 5), (4, 1), strict=True):
        parts = {f"part-{i}": pairs.take(pa.array(piece)) for i, piece in enumerate(cut)}
        here = replace(config, num_query_buckets=num_query_buckets)
        dataset = build(tmp_path / str(num_buckets), parts, here, num_buckets)
        assert places(dataset) == wanted
        drops = dataset.manifest.drops
        assert drops["repeated_pair"] == pairs.num_rows - len(set(pairs["pair_id"].to_pylist()))
        assert drops["over_limit"] > 0


@pytest.mark.parametrize("mode", ["cap", "soft"])
@pytest.mark.parametrize("seed", range(2))
def test_a_crawl_that_is_added_later_gives_what_one_run_over_both_gives(mode: Mode, seed: int, tmp_path: Path) -> None:
    config = BalanceConfig(mode=mode, max_per_query=12, seed=seed, num_query_buckets=2)
    first, second = matched(seed), matched(seed + 100, 200)
    again = first.slice(0, 60)  # pairs that the second crawl saw too, in an archive that comes first
    again = again.set_column(again.schema.get_field_index("archive"), "archive", pa.array(["A"] * 60))
    second = pa.concat_tables([second, again])
    both = {"crawl-0": first, "crawl-1": second}
    build(tmp_path / "later", {"crawl-0": first}, config, 3)
    later = build(tmp_path / "later", both, config, 3)
    once = build(tmp_path / "once", both, config, 3)
    assert later.manifest.hash == once.manifest.hash
    assert places(later) == definition(pa.concat_tables([first, second]), config)
    assert any(place[0] == "A" for place in places(later).values())
    assert not set(definition(first, config)) <= set(places(later))  # the limits are those of both


def test_all_repeats_of_a_pair_meet_in_one_bucket_whatever_archive_they_come_from() -> None:
    urls = [f"http://{host}/{path}" for host in ("a.test", "b.test:81", "[::1]", "user@c.test") for path in ("", "x?y", "//@z")]
    table = pa.table({"image_url": urls * 2, "archive": ["one"] * len(urls) + ["two"] * len(urls)})
    buckets = match.bucket(table, 7)
    assert buckets[: len(urls)].tolist() == buckets[len(urls) :].tolist()
    assert len({(hosts.host(url), bucket) for url, bucket in zip(urls, buckets.tolist(), strict=False)}) == 4


def test_of_a_repeated_pair_the_first_place_stays_in_any_order() -> None:
    pairs = matched(0).slice(0, 1)
    of_it = [("b", 0, 0, "alt"), ("a", 9, 0, "alt"), ("a", 3, 2, "title")]
    of_it += [("a", 3, 2, "alt"), ("a", 3, 2, "alt"), ("a", 10, 0, "alt")]
    rows = [dict(zip(balance.PLACE, place, strict=True)) for place in of_it]
    table = pa.Table.from_pylist([{**pairs.to_pylist()[0], **row} for row in rows], schema.MATCHED)
    assert balance.repeated(table).tolist() == [True, True, True, False, True, True]
    assert balance.repeated(table.take(pa.array([3, 2, 1, 0]))).tolist() == [False, True, True, True]


def test_pairs_whose_hashes_collide_are_no_repeats_of_each_other() -> None:
    one = matched(0).slice(0, 1).to_pylist()[0]
    ids = ["a" * 16 + end * 16 for end in "0123"]  # the hash is of the first half
    rows = [{**one, "pair_id": pair_id, "archive": archive} for archive in "bca" for pair_id in ids]
    table = pa.Table.from_pylist(rows, schema.MATCHED)
    assert balance.repeated(table).tolist() == [True] * 8 + [False] * 4
    assert balance.repeated(table.slice(8)).tolist() == [False] * 4


def test_repeats_are_labelled_before_the_limit_and_not_counted() -> None:
    pairs = matched(1)
    twice = pa.concat_tables([pairs, pairs])
    config = BalanceConfig(max_per_query=5)
    worker = balance.CountWorker(config, {})
    assert worker(twice).equals(worker(pairs))
    rows = balance.distinct(twice)
    labelled = balance.balance(twice, pool.limits_of(Pool(rows["pair_id"], rows["query_ids"]), config))
    assert labelled["drop"].to_pylist()[pairs.num_rows :] == ["repeated_pair"] * pairs.num_rows
    assert labelled.drop_columns(["drop"]).equals(twice)


@pytest.mark.parametrize("mode", ["cap", "soft"])
def test_survivors_in_many_small_parts_are_trimmed_as_in_one(mode: Mode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = BalanceConfig(mode=mode, max_per_query=6, oversample=2.0, num_query_buckets=3)
    kept = build(tmp_path, {"part": matched(2)}, config, 3).read()
    rows = kept.select(["pair_id", "query_ids"]).slice(5)
    unique = {f"u-{i}": rows.slice(at, 7) for i, at in enumerate(range(0, rows.num_rows, 7))}
    runner.write_dataset(str(tmp_path / "5"), stage="dedupe", version=1, config=None, parts=unique)
    monkeypatch.setattr(stage, "RUN_ROWS", 20)
    trimming, earlier = draws.trimming(config), "3_balanced/_limits"
    run_steps(tmp_path, balance.limit_steps(trimming, "5", "5", earlier=earlier))
    counted = Dataset(str(tmp_path / "5/_counts")).manifest
    assert [part.name for part in counted.parts] == [f"u-{i}" for i in range(0, len(unique), 3)]
    limits = Limits.load(Dataset(str(tmp_path / "5/_limits")), trimming)
    survivors = Pool(rows["pair_id"], rows["query_ids"])
    whole = pool.limits_of(survivors, trimming, Limits.load(Dataset(str(tmp_path / earlier)), config))
    assert limits.largest.tolist() == whole.largest.tolist()
    stays = set(np.asarray(survivors.names())[limits.keep(rows["pair_id"], rows["query_ids"])])
    assert mode == "soft" or stays == pool.definition(survivors, trimming)
    assert 0 < len(stays) < len(survivors)


def test_limits_of_another_seed_are_another_folder(tmp_path: Path) -> None:
    build(tmp_path, {"part": matched(2)}, BalanceConfig(max_per_query=6), 3)
    with pytest.raises(InputError, match=r"_counts was made with another config.*seed: made with 0, this run asks for 1"):
        run_steps(tmp_path, balance.limit_steps(BalanceConfig(max_per_query=6, seed=1), "2", "3_balanced"))


def test_what_every_worker_loads_does_not_grow_with_the_pairs(tmp_path: Path) -> None:
    sizes = []
    for seed, num_rows in enumerate((500, 4000)):
        dataset = build(tmp_path / str(num_rows), {"part": matched(seed, num_rows)}, BalanceConfig(max_per_query=10), 2)
        sizes.append(Dataset(dataset.folder + "/_limits").read().nbytes)
    assert sizes[0] == sizes[1] < 5 * 24  # 20 bytes and its share of a null mask; bird occurs in no text


def test_the_report_says_for_every_query_what_became_of_it(tmp_path: Path) -> None:
    config = BalanceConfig(max_per_query=40, oversample=1.0, num_query_buckets=4)
    pairs = matched(3)
    kept = build(tmp_path, {"part": pairs}, config, 2)
    report = query_report.collect(str(tmp_path), num_top=3)
    assert report is not None
    assert report.table["query"].to_list() == QUERIES
    distinct = {row["pair_id"]: row["query_ids"] for row in pairs.to_pylist()}
    staying = [row["query_ids"] for row in kept.read().to_pylist()]
    for row in report.table.to_dicts():
        assert row["matched"] == sum(row["query_id"] in ids for ids in distinct.values())
        assert row["kept"] == row["balanced"] == sum(row["query_id"] in ids for ids in staying)
        assert row["kept"] >= min(row["matched"], 40)
        assert row["head"] == (row["probability"] < 1) == (row["matched"] > 40)
        assert row["kept_share"] == (row["kept"] / row["matched"] if row["matched"] else None)
    assert (row["query"], row["matched"], row["kept"]) == ("bird", 0, 0)
    assert (report.num_queries, report.num_matched) == (6, 5)
    groups = {group.name: group for group in report.head_and_tail}
    assert [group.num_queries for group in report.head_and_tail] == [report.num_head, 5 - report.num_head, 1]
    assert 0 < report.num_head < 5
    assert groups["head"].before + groups["tail"].before == sum(len(ids) for ids in distinct.values())
    assert groups["head"].after + groups["tail"].after == sum(len(ids) for ids in staying)
    (source,) = report.sources
    assert (source.name, source.num_queries, source.num_unmatched) == ("concept", 6, 1)
    assert [row["query"] for row in report.top] == report.table.sort("matched", descending=True)["query"].to_list()[:3]
    ranks, shares = report.kept_share_by_rank(100)
    ordered = report.table.filter(pl.col("matched") > 0).sort("matched", descending=True)
    assert shares == ordered["kept_share"].to_list()
    assert all(one < other for one, other in pairwise(ranks))


def test_a_root_that_is_not_balanced_has_no_report(tmp_path: Path) -> None:
    assert query_report.collect(str(tmp_path), num_top=3) is None


def test_sources_that_are_cut_differently_are_not_joined() -> None:
    manifests = [Manifest(stage=name, fingerprint={}, parts=(), num_buckets=number) for name, number in (("a", 4), ("b", 3))]
    with pytest.raises(ValueError, match="b is not cut into the 4 buckets of the others"):
        stage.plan_join(None, manifests)
    with pytest.raises(ValueError, match="whole is not cut into the 4 buckets"):
        stage.plan_join(None, [manifests[0], replace(manifests[1], stage="whole", num_buckets=0)])
