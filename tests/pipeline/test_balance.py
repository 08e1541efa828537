"""Balance by buckets on the runner, against the definition on the whole pool."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest

from pipeline import balance, draws, hashing, match, runner, schema
from pipeline.config import BalanceConfig, MatchConfig, QueriesConfig, RunConfig, ShardConfig, TrimConfig
from pipeline.draws import Limits
from pipeline.events import Events
from pipeline.manifest import Dataset, Manifest
from pipeline.matcher import Matcher
from pipeline.runner import in_process
from pipeline.stage import Stage

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
    counts = draws.count(rows["pair_id"], rows["query_ids"], config)
    keep = Limits.of(counts, config).keep(rows["pair_id"], rows["query_ids"])
    return {row["pair_id"]: tuple(row[name] for name in balance.PLACE) for row in rows.filter(pa.array(keep)).to_pylist()}


def run(stage: Stage, config: Any, root: Path, source: str, target: str, sides: dict[str, str] | None = None) -> Manifest:
    sides = {name: str(root / folder) for name, folder in (sides or {}).items()}
    events = Events(str(root), "test")
    return runner.run(
        stage, config, sources=[str(root / source)], target=str(root / target), sides=sides, settings=RunConfig(), events=events,
        execute=in_process,
    )  # fmt: skip


def build(root: Path, parts: list[pa.Table], config: BalanceConfig, num_buckets: int) -> Dataset:
    """Candidates in parts, matched and balanced on the runner."""
    queries = [{"query_id": i, "query": query, "source": "concept", "score": None} for i, query in enumerate(QUERIES)]
    tables = {"queries": pa.Table.from_pylist(queries, schema.QUERIES)}
    runner.write_dataset(str(root / "queries"), stage="queries", version=1, config=QueriesConfig(), parts=tables)
    tables = {f"part-{i}": part.select(schema.CANDIDATES.names) for i, part in enumerate(parts)}
    runner.write_dataset(str(root / "1"), stage="crawl", version=1, config=None, parts=tables)
    run(match.STAGE, MatchConfig(num_buckets=num_buckets), root, "1", "2", {"queries": "queries"})
    run(balance.COUNT, config, root, "2", "3/_counts")
    run(balance.STAGE, config, root, "2", "3", {"counts": "3/_counts"})
    return Dataset(str(root / "3"))


@pytest.mark.parametrize("mode", ["cap", "soft"])
@pytest.mark.parametrize("seed", range(3))
def test_buckets_and_parts_give_what_the_definition_gives(mode: Mode, seed: int, tmp_path: Path) -> None:
    config = BalanceConfig(mode=mode, max_per_query=12, seed=seed)
    pairs = matched(seed)
    wanted = definition(pairs, config)
    rows = np.random.default_rng(seed).permutation(pairs.num_rows)
    cuts = ([rows], np.split(rows, [50, 50, 220]))
    for cut, num_buckets in zip(cuts, (1, 5), strict=True):
        parts = [pairs.take(pa.array(piece)) for piece in cut]
        dataset = build(tmp_path / str(num_buckets), parts, config, num_buckets)
        found = {row["pair_id"]: tuple(row[name] for name in balance.PLACE) for row in dataset.read().to_pylist()}
        assert found == wanted
        assert dataset.manifest.rows_out == len(wanted)
        drops = dataset.manifest.drops
        assert drops["repeated_pair"] == pairs.num_rows - len(set(pairs["pair_id"].to_pylist()))
        assert drops["over_limit"] > 0


def test_of_a_repeated_pair_the_first_place_stays_in_any_order() -> None:
    pairs = matched(0).slice(0, 1)
    places = [
        ("b", 0, 0, "alt"),
        ("a", 9, 0, "alt"),
        ("a", 3, 2, "title"),
        ("a", 3, 2, "alt"),
        ("a", 3, 2, "alt"),
        ("a", 10, 0, "alt"),
    ]
    rows = [dict(zip(balance.PLACE, place, strict=True)) for place in places]
    table = pa.Table.from_pylist([{**pairs.to_pylist()[0], **row} for row in rows], schema.MATCHED)
    assert balance.repeated(table).tolist() == [True, True, True, False, True, True]
    assert balance.repeated(table.take(pa.array([3, 2, 1, 0]))).tolist() == [False, True, True, True]


def test_repeats_are_labelled_before_the_limit_and_not_counted() -> None:
    pairs = matched(1)
    twice = pa.concat_tables([pairs, pairs])
    config = BalanceConfig(max_per_query=5)
    assert balance.count_pairs(twice, config).equals(balance.count_pairs(pairs, config))
    labelled = balance.balance(twice, Limits.of(balance.count_pairs(twice, config), config))
    assert labelled["drop"].to_pylist()[pairs.num_rows :] == ["repeated_pair"] * pairs.num_rows
    assert labelled.drop_columns(["drop"]).equals(twice)


def test_survivors_are_counted_for_the_trim_without_the_surplus(tmp_path: Path) -> None:
    config = BalanceConfig(max_per_query=6, oversample=2.0)
    kept = build(tmp_path, [matched(2)], config, 3).read()
    rows = kept.select(["pair_id", "query_ids"])
    unique = {"u-0": rows.slice(0, 10), "u-1": rows.slice(10)}
    runner.write_dataset(str(tmp_path / "5"), stage="dedupe", version=1, config=None, parts=unique)
    trim = TrimConfig(shard=ShardConfig(), balance=config)
    run(balance.TRIM_COUNT, trim, tmp_path, "5", "5/_counts")
    limits = Limits.load(Dataset(str(tmp_path / "5/_counts")), draws.trimming(config))
    stays = limits.keep(kept["pair_id"], kept["query_ids"])
    assert set(kept.filter(pa.array(stays))["pair_id"].to_pylist()) == set(definition(kept, replace(config, oversample=1.0)))
    assert 0 < stays.sum() < len(stays)


def test_the_report_says_for_every_query_what_became_of_it(tmp_path: Path) -> None:
    config = BalanceConfig(max_per_query=10, oversample=1.0)
    pairs = matched(3)
    kept = build(tmp_path, [pairs], config, 2)
    listed, counts = Dataset(str(tmp_path / "queries")), Dataset(str(tmp_path / "3/_counts"))
    table = balance.query_report(listed, counts, kept, config)
    report = table.to_pylist()
    assert [row["query"] for row in report] == QUERIES
    distinct = {row["pair_id"]: row["query_ids"] for row in pairs.to_pylist()}
    staying = [row["query_ids"] for row in kept.read().to_pylist()]
    for row in report:
        assert row["count"] == sum(row["query_id"] in ids for ids in distinct.values())
        assert row["kept"] == sum(row["query_id"] in ids for ids in staying)
        assert row["kept"] >= min(row["count"], 10)
        assert (row["probability"] < 1) == (row["count"] > 10)
    assert report[-1]["count"] == report[-1]["kept"] == 0
    assert table.schema.metadata == {b"zero_match_share": repr(1 / 6).encode()}  # bird
