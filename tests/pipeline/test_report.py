"""pipeline/report.py and samples.py: what they tell of a root equals what its files say."""

import io
import json
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from pipeline import report, samples
from pipeline.manifest import TornPart
from tests.pipeline.report_root import HOSTILE, build, draw, jpeg, links


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("report") / "root")
    build(folder)
    return folder


@pytest.fixture(scope="module")
def facts(root: str) -> report.Facts:
    return report.collect(root, num_kept=20, num_dropped=3)


def rows_of(root: str, folder: str) -> pl.DataFrame:
    """The rows of a folder without our own reader."""
    return pl.concat([pl.read_parquet(path) for path in sorted(Path(root, folder).glob("*.parquet"))])


def test_the_funnel_is_that_of_the_manifests_and_each_stage_starts_where_the_last_one_ended(
    root: str, facts: report.Facts
) -> None:
    assert [step.folder for step in facts.funnel] == list(report.FOLDERS)
    for step in facts.funnel:
        told = json.loads(Path(root, step.folder, "_MANIFEST.json").read_text())
        assert (step.rows_in, step.rows_out, step.drops) == (told["rows_in"], told["rows_out"], told["drops"])
        assert step.rows_out == rows_of(root, step.folder).height
    for before, after in pairwise(facts.funnel):
        assert after.rows_in == before.rows_out


def test_the_kept_pairs_are_pairs_of_the_shards_with_their_own_pictures(root: str, facts: report.Facts) -> None:
    shards = {row["pair_id"]: row for row in rows_of(root, "6_shards").iter_rows(named=True)}
    names = rows_of(root, "queries")["query"].to_list()
    assert len({pair.pair_id for pair in facts.kept}) == 20
    for pair in facts.kept:
        row = shards[pair.pair_id]
        assert (pair.text, pair.image_url, pair.page_url) == (row["caption"], row["url"], row["page_url"])
        assert sorted(pair.queries) == sorted(names[number] for number in row["query_ids"])
        assert [len(query) for query in pair.queries] == sorted((len(query) for query in pair.queries), reverse=True)
        assert pair.picture is not None
        found = np.asarray(Image.open(io.BytesIO(pair.picture)), int)
        nearest = min((other.text for other in facts.kept), key=lambda text: np.abs(found - draw(text)).mean())
        np.testing.assert_array_equal(draw(nearest), draw(pair.text))


def test_every_reason_is_told_with_rows_that_left_for_it(facts: report.Facts) -> None:
    assert {(drop.folder, drop.reason): drop.count for drop in facts.drops} == {
        (step.folder, reason): count for step in facts.funnel for reason, count in step.drops.items()
    }
    fates = {(link.url, link.text): link.drop for link in links()}
    for drop in facts.drops:
        assert len(drop.rows) == min(3, drop.count)
        if drop.folder == "1_candidates":
            assert all(fates[pair.image_url, pair.text] == drop.reason for pair in drop.rows)
    assert any(pair.text == HOSTILE for drop in facts.drops for pair in drop.rows)


def test_a_duplicate_stands_beside_the_pair_that_stays(root: str, facts: report.Facts) -> None:
    (drop,) = [drop for drop in facts.drops if drop.reason == "duplicate"]
    kept = set(rows_of(root, "5_unique")["pair_id"])
    for pair in drop.rows:
        assert pair.survivor is not None
        assert pair.survivor.pair_id in kept
        assert pair.pair_id not in kept
        assert pair.picture == pair.survivor.picture


def test_queries_are_counted_as_by_hand(root: str, facts: report.Facts) -> None:
    def count(folder: str) -> Counter[int]:
        rows = rows_of(root, folder).unique("pair_id")
        return Counter(number for ids in rows["query_ids"] for number in ids)

    before, after = count("2_matched"), count("6_shards")
    names = rows_of(root, "queries")["query"].to_list()
    queries = facts.queries
    assert queries is not None
    assert (queries.num_queries, queries.num_matched) == (len(names), len(before))
    assert queries.num_head == sum(number > 12 for number in before.values())
    assert queries.table["matched"].to_list() == [before[i] for i in range(len(names))]
    assert queries.table["kept"].to_list() == [after[i] for i in range(len(names))]
    for folder, column in (("3_balanced", "balanced"), ("5_unique", "unique")):
        found = count(folder)
        assert queries.table[column].to_list() == [found[i] for i in range(len(names))]
    assert queries.before.tolist() == sorted((before[i] for i in range(len(names))), reverse=True)
    assert queries.after.tolist() == sorted((after[i] for i in range(len(names))), reverse=True)
    assert [(row["query"], row["matched"], row["kept"]) for row in queries.top] == sorted(
        ((names[i], before[i], after[i]) for i in before), key=lambda row: (-row[1], names.index(row[0]))
    )


def test_the_per_query_table_is_written_as_parquet(root: str, facts: report.Facts) -> None:
    assert facts.queries is not None
    table = pl.read_parquet(io.BytesIO(facts.queries.to_parquet()))
    assert table.equals(facts.queries.table)
    assert table["query_id"].to_list() == list(range(len(table)))
    assert table.columns[:4] == ["query_id", "query", "source", "score"]


def test_the_same_root_gives_the_same_facts(root: str, facts: report.Facts) -> None:
    again = report.collect(root, num_kept=20, num_dropped=3)
    assert (again.kept, again.drops, again.origins) == (facts.kept, facts.drops, facts.origins)


@pytest.mark.parametrize("first_missing", range(8))
def test_a_root_that_is_not_finished_is_told_as_far_as_it_goes(root: str, tmp_path: Path, first_missing: int) -> None:
    copy = tmp_path / "root"
    shutil.copytree(root, copy)
    folders = ["queries", *report.FOLDERS]
    for name in folders[first_missing:]:
        shutil.rmtree(copy / name, ignore_errors=True)  # one is inside another
    found = report.collect(str(copy))
    assert found.missing == folders[first_missing:]
    assert [origin.folder for origin in found.origins] == folders[:first_missing]
    assert bool(found.kept) == ("6_shards" not in found.missing)


def test_a_torn_file_is_named(root: str, tmp_path: Path) -> None:
    copy = tmp_path / "root"
    shutil.copytree(root, copy)
    (path,) = sorted((copy / "6_shards").glob("*.parquet"))[:1]
    path.write_bytes(path.read_bytes()[:-8] + b"nonsense")
    with pytest.raises(TornPart, match=path.name):
        report.collect(str(copy))


def test_bytes_that_are_no_good_jpeg_give_no_picture() -> None:
    whole = jpeg(np.random.default_rng(0).integers(0, 256, (400, 300, 3)).astype(np.uint8))
    small = samples.thumbnail(whole)
    assert small is not None
    assert max(Image.open(io.BytesIO(small)).size) == samples.THUMBNAIL_PX
    assert samples.thumbnail(whole[: len(whole) // 2]) is None
    for other in (b"", b"<svg onload=alert(1)>", b"\x89PNG\r\n\x1a\n" + whole):
        assert samples.thumbnail(other) is None
