"""For every pair that a build ever saw the lineage says what the stages did, and reads only what may hold it."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs import import_images, remove
from jobs import lineage as job
from pipeline import dedupe, lineage, provenance, storage
from pipeline.config import DedupeConfig, MiniConfig
from pipeline.errors import InputError
from pipeline.lineage import Trace
from pipeline.manifest import Dataset
from pipeline.runner import in_process, run_steps
from tests.jobs import lineage_root
from tests.pipeline import test_foreign
from tests.pipeline.loopback import serve

FOLDERS = ("1_candidates", "2_matched", "3_balanced", "4_images", "5_unique", "5_unique/_trimmed", "6_shards")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MiniConfig]:
    """A finished root."""
    folder = tmp_path_factory.mktemp("built")
    with serve(lineage_root.routes(), folder, lineage_root.addresses()) as site:
        config = lineage_root.config(site, folder, str(folder / "root"))
        lineage_root.write_queries(config.root)
        lineage_root.build(config)
        yield config


def silent(line: str) -> None:
    """Nobody listens."""


def fates(root: str) -> dict[str, str]:
    """What became of every pair: the folder that first dropped it and why, from all rows of all folders."""
    found: dict[str, str] = {}
    for folder in FOLDERS:
        dataset = Dataset(f"{root}/{folder}")
        kept = set(dataset.read(("pair_id",))["pair_id"].to_pylist())
        left = dataset.read_dropped()
        rows = left.to_pylist() if left else []
        assert len(rows) == sum(dataset.manifest.drops.values())
        for row in rows:
            if row["pair_id"] not in kept and row["drop"] != "repeated_pair":  # another row of the pair has its fate
                found[row["pair_id"]] = f"{row['drop']} {folder}"
    return found | {pair: "kept 6_shards" for pair in kept}


def kept_pairs(root: str) -> list[str]:
    return Dataset(f"{root}/6_shards").read(("pair_id",))["pair_id"].to_pylist()


def traces(root: str, *pair_ids: str, urls: tuple[str, ...] = ()) -> dict[str, Trace]:
    return {trace.pair_id: trace for trace in lineage.trace(root, pair_ids, urls, silent)}


def test_every_pair_has_the_fate_that_the_stages_gave_it(built: MiniConfig):
    wanted = fates(built.root)
    found = {pair: lineage.fate(trace) for pair, trace in traces(built.root, *wanted).items()}
    assert found == wanted
    reasons = Counter(found.values())
    assert reasons.keys() >= {
        "kept 6_shards", "no_text 1_candidates", "no_query 2_matched", "over_limit 3_balanced", "http_4xx 4_images",
        "http_5xx 4_images", "robots 4_images", "not_an_image 4_images", "opt_out 4_images", "duplicate 5_unique",
        "near_duplicate 5_unique", "placeholder 5_unique", "evaluation_overlap 5_unique", "over_limit 5_unique/_trimmed",
    }, reasons  # fmt: skip
    for pair in list(wanted)[::20]:
        assert lineage.fate(traces(built.root, pair)[pair]) == wanted[pair]


def test_the_rows_lead_to_the_very_bytes(built: MiniConfig):
    root = Path(built.root)
    kept = kept_pairs(built.root)
    pictures = {row["pair_id"]: row for row in Dataset(f"{root}/6_shards").read(("pair_id", "image", "key")).to_pylist()}
    for pair, trace in traces(built.root, *kept).items():
        for folder in ("4_images", "6_shards"):
            (row,) = trace.rows(folder)
            tar = (root / folder / row["file"]).with_suffix(".tar").read_bytes()
            assert tar[row["image_offset"] : row["image_offset"] + row["image_bytes"]] == pictures[pair]["image"]
        assert trace.rows("6_shards")[0]["key"] == pictures[pair]["key"]


def step(trace: Trace, folder: str) -> lineage.Step:
    return next(step for step in trace.steps if step.folder == folder)


def test_it_tells_how_a_picture_was_asked_for(built: MiniConfig):
    balanced = Dataset(f"{built.root}/3_balanced").read().to_pylist()
    by_number = {row["image_url"].rsplit("/", 1)[1]: row["pair_id"] for row in balanced}
    found = traces(built.root, *by_number.values())
    seen = set()
    for name, pair in by_number.items():
        fetched = step(found[pair], "4_images")
        facts = fetched.facts[0]
        kind = int(name[:-4]) % 23 if name[:-4].isdigit() else name
        if fetched.fate == "robots":
            assert (facts["num_requests"], facts["last_status"]) == (0, None)
        elif kind == 3:
            assert (facts["last_status"], facts["etag"], fetched.facts[1]["http_status"]) == (404, '"gone"', 404)
        elif kind == 17:
            assert (facts["num_requests"], facts["last_status"], facts["content_type"]) == (2, 200, "image/jpeg")
        elif name == "moved.jpg":
            assert (facts["num_requests"], facts["final_url"].rsplit("/", 1)[1]) == (2, "target.jpg")
        assert facts["fetched_at"].year >= 2024
        seen.add(kind)
    assert {3, 17, "moved.jpg"} <= seen


def test_draws_say_who_passes(built: MiniConfig):
    wanted = fates(built.root)
    for pair, trace in traces(built.root, *wanted).items():
        for folder in ("3_balanced", "5_unique/_trimmed"):
            for found in [one for one in trace.steps if one.folder == folder]:
                passes = [fact["passes"] for fact in found.facts if "query_id" in fact]
                assert any(passes) == (found.fate == "kept"), (pair, found)
                assert all(fact["query"] == lineage_root.QUERIES[fact["query_id"]] for fact in found.facts if "query_id" in fact)


def test_groups_are_those_that_dedupe_made(built: MiniConfig):
    members = dedupe.Groups.of(Dataset(f"{built.root}/5_unique/_edges").read()).members
    found = traces(built.root, *members["pair_id"].to_list())
    for row in members.to_dicts():
        others = [fact for fact in step(found[row["pair_id"]], "5_unique").facts if "text_rank" in fact]
        assert (len(others), others[0]["pair_id"]) == (row["group_pairs"], row["survivor_id"])


def test_a_url_names_all_its_pairs(built: MiniConfig):
    rows = Dataset(f"{built.root}/1_candidates").read(("pair_id", "image_url")).to_pylist()
    for url in sorted({row["image_url"] for row in rows})[::10]:
        found = traces(built.root, urls=(url,))
        assert {pair for pair, trace in found.items() if trace.url == url} == {
            r["pair_id"] for r in rows if r["image_url"] == url
        }


def test_only_what_may_hold_a_pair_is_read(built: MiniConfig, tmp_path: Path):
    """Everything else is gone, and the answer is the same."""
    kept = kept_pairs(built.root)[0]
    whole = traces(built.root, kept)[kept]
    root = tmp_path / "root"
    shutil.copytree(built.root, root)
    touched = {(folder, row["file"].split(".")[0]) for folder in FOLDERS for row in whole.rows(folder)}
    removed = Counter()
    for folder in ("1_candidates", "3_balanced", "4_images", "5_unique", "5_unique/_trimmed"):
        for path in (root / folder).iterdir():
            if path.is_file() and not path.name.startswith("_") and (folder, path.name.split(".")[0]) not in touched:
                path.unlink()
                removed[folder] += 1
    groups = [part for part in Dataset(f"{root}/6_shards").parts.values() if part.name != whole.rows("6_shards")[0]["part"]]
    for file in [file for part in groups for file in part.files]:
        (root / "6_shards" / file.name).unlink()
    assert min(removed.values()) >= 2
    assert groups
    again = traces(str(root), urls=(whole.url,))[kept]
    assert again.steps == whole.steps


def test_a_root_elsewhere_gives_the_same_answer(built: MiniConfig, root: str):
    for path in Path(built.root).rglob("*"):
        if path.is_file():
            storage.write(storage.join(root, *path.relative_to(built.root).parts), path.read_bytes())
    wanted = fates(built.root)
    some = list(wanted)[::15]
    assert traces(root, *some) == traces(built.root, *some)


def test_what_was_removed_is_told_with_the_tombstone(built: MiniConfig, tmp_path: Path):
    config = replace(built, root=str(tmp_path / "root"))
    shutil.copytree(built.root, config.root)
    kept = kept_pairs(config.root)
    before = traces(config.root, *kept[:2])
    remove.main(remove.RemoveConfig(root=config.root, pair_ids=(kept[0],), urls=(before[kept[1]].url,)))
    gone = traces(config.root, *kept[:2])
    for pair, kind in zip(kept, ("pair_id", "url"), strict=False):
        assert lineage.fate(gone[pair]) == "removed 4_images"
        assert (step(gone[pair], "6_shards").fate, gone[pair].named_by) == ("removed", kind)
        (diff,) = step(gone[pair], "6_shards").facts
        (row,) = before[pair].rows("6_shards")
        assert (f"{diff['shard']}.parquet", diff["key"]) == (row["file"], row["key"])
        assert step(gone[pair], "4_images").facts[0]["last_status"] == 200, "when it was fetched is still known"


def test_an_unfinished_root_tells_how_far_it_is(built: MiniConfig, tmp_path: Path):
    shutil.copytree(built.root, tmp_path / "root")
    pair = kept_pairs(built.root)[0]
    for folder in ("6_shards", "5_unique", "4_images", "3_balanced", "2_matched"):
        shutil.rmtree(tmp_path / "root" / folder)
        found = traces(str(tmp_path / "root"), pair)[pair]
        assert (found.steps[-1].folder, found.steps[-1].fate) == (folder, "not_finished")
        assert all(one.fate == "kept" for one in found.steps[:-1])


def test_what_a_later_build_left_out_was_removed(built: MiniConfig, tmp_path: Path):
    config = replace(built, root=str(tmp_path / "root"))
    shutil.copytree(built.root, config.root)
    pair = kept_pairs(config.root)[0]
    remove.main(remove.RemoveConfig(root=config.root, pair_ids=(pair,)))
    lineage_root.build(config)
    found = traces(config.root, pair)[pair]
    assert [(one.folder, one.fate) for one in found.steps[-2:]] == [("4_images", "removed"), ("5_unique", "removed")]


def test_pairs_that_were_taken_in_begin_with_their_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = test_foreign.rows_of(0)
    test_foreign.write(tmp_path / "0", 0, rows)
    config = import_images.ImportImagesConfig(
        root=str(tmp_path / "root"), folders=(str(tmp_path / "0"),), dedupe=DedupeConfig(num_buckets=2)
    )
    monkeypatch.setattr(import_images, "run_steps", lambda *steps, **options: run_steps(*steps, **options, execute=in_process))
    import_images.main(config)
    images = Dataset(f"{config.root}/4_images")
    left = images.read_dropped()
    assert left is not None
    wanted = {row["pair_id"]: "not_downloaded 4_images" for row in left.to_pylist()}
    wanted |= {pair: "kept 6_shards" for pair in kept_pairs(config.root)}
    assert {pair: lineage.fate(trace) for pair, trace in traces(config.root, *wanted).items()} == wanted
    urls = tuple(row["url"] for row in rows)
    assert traces(config.root, urls=urls).keys() == wanted.keys()


def test_the_archives_records_are_those_of_the_pairs(built: MiniConfig):
    kinds = {row["archive"]: row["format"] for row in Dataset(f"{built.root}/0_sources").read().to_pylist()}
    rows = Dataset(f"{built.root}/1_candidates").read().to_pylist()
    assert len({row["archive"] for row in rows}) == 3
    for row in rows:
        found = provenance.record(row, kinds[row["archive"]])
        assert found["is_the_same_url"], (row, found)
        assert found["page_url"] == row["page_url"]
        assert row["text"] in found["texts_as_written"][row["attribute"]]


def test_an_archive_that_is_gone_or_other_is_told_in_words(built: MiniConfig, tmp_path: Path):
    row = Dataset(f"{built.root}/1_candidates").read().to_pylist()[0]
    kind = "wat" if "wat" in row["archive"] else "warc"
    gone = provenance.record({**row, "archive": str(tmp_path / "gone.warc.gz")}, kind)
    assert "nothing there" in gone["unreadable"]
    for offset in (1, 10**9):
        assert "unreadable" in provenance.record({**row, "record_offset": offset}, kind)
    assert "none with image links" in provenance.record(row, "warc" if kind == "wat" else "wat")["unreadable"]
    assert "none of number 999" in provenance.record({**row, "link_index": 999}, kind)["unreadable"]


def test_the_job_prints_a_pair_for_people_and_for_programs(built: MiniConfig, capsys: pytest.CaptureFixture[str]):
    kept = kept_pairs(built.root)[0]
    config = job.LineageConfig(root=built.root, pair_ids=(kept.upper(),), show_record=True)
    job.main(config)
    text = capsys.readouterr().out
    for words in ("kept 6_shards", "last_status=200", "image_offset=", "record_offset=", "is_the_same_url=true", "passes=true"):
        assert words in text, words
    job.main(replace(config, json=True))
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (row["pair_id"], row["fate"], len(row["records"])) == (kept, "kept 6_shards", len(row["steps"][0][2]))


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({}, "nothing named; give --pair-ids or --urls"),
    ({"pair_ids": ("12",)}, "expected a pair_id of 32 hex digits, found '12'"),
    ({"urls": ("ftp://a.test/",)}, r"expected an http\(s\) URL of an image, found 'ftp://a\.test/'"),
    ({"pair_ids": ("0" * 32,)}, "1 of those named are in no folder of .*, the first: 0000"),
    ({"urls": ("http://nowhere.test/x.jpg",)}, r"in no folder of .*, the first: http://nowhere\.test/x\.jpg"),
    ({"pair_ids": ("0" * 32,), "root": "/nonexistent"}, "expected a root with a finished 1_candidates or 4_images, found none"),
]


@pytest.mark.parametrize(("fields", "message"), MISTAKES)
def test_a_mistake_is_told_in_one_line(built: MiniConfig, fields: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        job.main(job.LineageConfig(**{"root": built.root, **fields}))


def test_nothing_that_a_stranger_wrote_reaches_the_terminal():
    assert job.plain("a\x1b[31m\u202e\n\x9b") == r"a\x1b[31m\u202e\n\x9b"
    assert job.plain("größer 猫") == "größer 猫"
