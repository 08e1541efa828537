"""From archives to shards: every link's fate and reason is what the small web's truth table says, row by row."""

import json
import os
import urllib.request
from collections import Counter
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

from pipeline.config import MiniConfig
from pipeline.manifest import Dataset
from tests.end_to_end import oracle

FOLDERS = ("1_candidates", "2_matched", "3_balanced", "4_images", "5_unique", "5_unique/_trimmed", "6_shards")


def truth_of(folder: Path) -> list[oracle.Row]:
    return pl.read_parquet(folder / "truth.parquet").to_dicts()


def test_every_link_has_the_fate_that_the_truth_table_says(built: tuple[MiniConfig, Path]) -> None:
    config, web = built
    truth = truth_of(web)
    queries = Dataset(f"{config.root}/queries").read().sort_by("query_id")["query"].to_pylist()
    balance = config.balance
    should = oracle.expected(truth, queries, balance.max_per_query, balance.oversample, balance.seed)
    was = oracle.found(config.root)
    kinds = {oracle.key_of(row): row["kind"] for row in truth}
    differ = [
        f"{kinds.get(key, 'not in the truth table')}: {key}: expected {should.get(key)}, was {was.get(key)}"
        for key in sorted(should.keys() | was.keys())
        if should.get(key) != was.get(key)
    ]
    assert not differ, f"{len(differ)} of {len(should)} rows:\n" + "\n".join(differ[:40])


def test_every_reason_occurs(built: tuple[MiniConfig, Path]) -> None:
    """The truth table is worth comparing with: all that can happen happens."""
    config, _ = built
    reasons = {fate for fate, count in Counter(oracle.found(config.root).values()).items() if count}
    network = {"robots", "dns", "address", "connect", "timeout", "redirect", "http_4xx", "http_5xx", "too_large", "opt_out"}
    pictures = {"not_an_image", "bomb", "too_small", "aspect", "decode"}
    texts = {"no_text", "bad_url", "too_short", "too_long", "no_letters", "repeated_chars", "boilerplate", "language"}
    assert {reason for stage, reason in reasons if stage == "crawl"} == texts
    assert {reason for stage, reason in reasons if stage == "download"} == network | pictures
    assert {reason for stage, reason in reasons if stage == "dedupe"} == {"duplicate", "near_duplicate", "placeholder"}
    assert {("match", "no_query"), ("balance", "repeated_pair"), ("balance", "over_limit"), ("kept", None)} <= reasons


def test_the_funnel_is_a_chain(built: tuple[MiniConfig, Path]) -> None:
    config, _ = built
    manifests = [Dataset(f"{config.root}/{folder}").manifest for folder in FOLDERS]
    for before, after in pairwise(manifests):
        assert after.rows_in == before.rows_out
    for manifest in manifests:
        assert manifest.rows_in == manifest.rows_out + sum(manifest.drops.values())


def test_texts_and_urls_are_the_truth_tables(built: tuple[MiniConfig, Path]) -> None:
    config, web = built
    truth = {oracle.key_of(row): row for row in truth_of(web)}
    candidates = Dataset(f"{config.root}/1_candidates").read().to_pylist()
    differ = [
        (oracle.key_of(row), row["text"], row["image_url"])
        for row in candidates
        if (row["text"], row["image_url"]) != tuple(truth[oracle.key_of(row)][name] for name in ("text", "image_url"))
    ]
    assert not differ, differ[:10]


def test_pictures_are_the_bytes_that_were_served(built: tuple[MiniConfig, Path]) -> None:
    config, web = built
    truth = {oracle.key_of(row): row["sha256"] for row in truth_of(web)}
    images = Dataset(f"{config.root}/4_images").read(("page_url", "link_index", "attribute", "sha256")).to_pylist()
    assert images
    assert all(truth[oracle.key_of(row)] == row["sha256"] for row in images)


def test_what_must_not_be_fetched_was_not_asked_for(built: tuple[MiniConfig, Path], request: pytest.FixtureRequest) -> None:
    """robots.txt forbids it, a srcset has a larger one, no query occurs in its text: nobody's server hears of it."""
    if "MINI_ROOT" in os.environ:
        pytest.skip("the server of that run is gone")
    web = request.getfixturevalue("web")
    asked = urllib.request.Request(f"http://127.0.0.1:{web.port}/__stats__", headers={"Host": "stats.mini.test"})
    with urllib.request.urlopen(asked) as answer:
        counts = json.load(answer)
    never = (web.folder / "never.txt").read_text().splitlines()
    assert len(counts) > 500
    assert len(never) > 100
    assert not set(never) & set(counts)
