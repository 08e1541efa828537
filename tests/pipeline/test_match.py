"""Matching against a search for each query by itself."""

import os
import random
import re
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import match, normalize, runner, schema
from pipeline.config import MatchConfig, QueriesConfig
from pipeline.errors import InputError
from pipeline.hosts import host
from pipeline.manifest import Dataset
from pipeline.matcher import Matcher


def candidates(texts: list[str], urls: list[str] | None = None) -> pa.Table:
    rows = [
        {"pair_id": f"{row:032x}", "image_url": urls[row] if urls else "http://a.test/x", "text": text, "attribute": "alt"}
        | {"page_url": "http://a.test/", "link_index": row, "archive": "a.warc.gz", "record_offset": 0}
        for row, text in enumerate(texts)
    ]
    return pa.Table.from_pylist(rows, schema.CANDIDATES)


def oracle(queries: list[str], text: str, normalizer: str) -> list[int]:
    """Each query, padded, as a piece of the padded text."""
    if normalizer == "wit":
        padded = f" {normalize.wit(text)} "
        return [i for i, query in enumerate(queries) if normalize.wit(query) and f" {normalize.wit(query)} " in padded]
    for mark in ",.;:?!`":
        text = text.replace(mark, f" {mark} ")
    for space in "\t\n\r":
        text = text.replace(space, " ")
    return [i for i, query in enumerate(queries) if f" {query} " in f" {text} "]


def find(matcher: Matcher, *texts: str) -> list[list[int]]:
    return matcher.find(pa.array(texts, pa.string())).to_pylist()


def test_queries_are_found_as_a_person_expects() -> None:
    queries = ["dog", "red car", "St. Louis", "red", "New York", "new york city", "猫", "Dog!"]
    texts = ["A (dog) in a red-car", "saint-louis", "ST LOUIS, New York city", "reds carpet", "白い猫です", ""]
    assert find(Matcher(queries), *texts) == [[0, 1, 3, 7], [], [2, 4, 5], [], [6], []]


def test_metaclip_is_case_sensitive_and_blind_behind_other_marks() -> None:
    queries = ["dog", "The", "St. Louis", "red car", ",", ""]
    texts = ["(dog) the dog-house", "The dog, sat", "St. Louis", "red  car", "red car."]
    assert find(Matcher(queries, "metaclip"), *texts) == [[], [0, 1, 4, 5], [5], [5], [3, 5]]


@pytest.mark.parametrize("normalizer", ["wit", "metaclip"])
@pytest.mark.parametrize("seed", range(12))
def test_every_query_is_found_exactly_where_a_search_for_it_finds_it(normalizer: str, seed: int) -> None:
    chance = random.Random(seed)
    pieces = ["a", "b", "A", "é", "É", "猫", "ก", "longword", "longwordandmore", "longwordandmore" * 2, "a\0", "\0", "ß"]
    marks = [" ", " ", " ", "  ", ",", ".", "-", "\t", "\n", "!", "(", "`", "", "\u00ad", "´"]

    def sentence(size: int) -> str:
        return "".join(chance.choice(pieces) + chance.choice(marks) for _ in range(chance.randrange(size)))

    queries = [sentence(5) for _ in range(150)]
    texts = [sentence(14) for _ in range(150)]
    found = find(Matcher(queries, normalizer), *texts)
    assert found == [oracle(queries, text, normalizer) for text in texts]
    assert any(found)


def test_what_a_text_matches_does_not_depend_on_its_neighbours_or_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(3)
    words = ["red", "car", "dog", "big", "猫"]
    texts = [" ".join(chance.choices(words, k=chance.randrange(8))) for _ in range(300)]
    matcher = Matcher(["red car", "car red", "dog", "big dog car", "dog 猫", "red"])
    alone = [find(matcher, text)[0] for text in texts]
    assert find(matcher, *texts) == alone
    monkeypatch.setattr("pipeline.matcher.MAX_CHUNK_BYTES", 50)
    assert find(matcher, *texts) == alone
    chunked = pa.chunked_array([texts[:7], texts[7:7], texts[7:]], pa.string())
    assert matcher.find(chunked).to_pylist() == alone


def test_many_queries_share_the_tables_without_a_mistake() -> None:
    chance = np.random.default_rng(0)
    queries = [" ".join(f"w{number:x}" for number in row) for row in chance.integers(0, 3000, (20_000, 2))]
    matcher, numbers = Matcher(queries), chance.integers(0, 3000, (400, 12))
    ids: dict[str, list[int]] = {}
    for query_id, query in enumerate(queries):
        ids.setdefault(query, []).append(query_id)
    for row, found in zip(numbers, find(matcher, *(" ".join(f"w{n:x}" for n in row) for row in numbers)), strict=True):
        pairs = {f"w{first:x} w{second:x}" for first, second in pairwise(row)}
        assert found == sorted(query_id for pair in pairs for query_id in ids.get(pair, ()))


def test_a_text_of_a_megabyte_and_one_of_nothing_are_texts_like_others() -> None:
    long = "red " * 250_000 + "x" * 1_000_000 + " car red car"
    assert find(Matcher(["red car", "x" * 50]), long, "", "\x00", "red\x00car") == [[0], [], [], [0]]


def test_queries_without_a_word_are_never_found() -> None:
    assert find(Matcher(["...", "", "a"]), "... a", "") == [[2], []]
    assert find(Matcher(["..."]), "... a") == [[]]


def test_rows_that_match_nothing_say_so_and_all_rows_stay_in_order() -> None:
    pairs = candidates(["a dog", "nothing", "DOG cat"])
    labelled = match.match(pairs, Matcher(["cat", "dog"]))
    assert labelled["query_ids"].to_pylist() == [[1], [], [0, 1]]
    assert labelled["drop"].to_pylist() == [None, "no_query", None]
    assert labelled.select(pairs.column_names).equals(pairs)
    schema.check(labelled, schema.MATCHED, "test")
    assert match.match(pairs.slice(0, 0), Matcher(["cat"])).num_rows == 0


def test_a_host_has_one_bucket_whatever_else_the_url_says() -> None:
    urls = [
        "http://a.test/1",
        "https://a.test:8443/2?x=http://b.test/",
        "http://me:pw@a.test/3",
        "http://b.test/",
        "http://[::1]:80/",
    ]
    assert [host(url) for url in urls] == ["a.test", "a.test", "a.test", "b.test", "[::1]"]
    buckets = match.bucket(candidates([""] * 5, urls), 1000)
    assert len(set(buckets[:3])) == 1
    assert len(set(buckets)) == 3
    many = match.bucket(candidates([""] * 500, [f"http://h{i}.test/" for i in range(500)]), 4)
    assert np.bincount(many, minlength=4).min() > 80


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for what the workers of a machine share."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"wit-cache-{os.getuid()}"


def query_list(folder: Path, queries: list[str], start: int = 0) -> dict[str, Dataset]:
    rows = [{"query_id": i, "query": query, "source": "concept", "score": None} for i, query in enumerate(queries, start)]
    parts = {"queries": pa.Table.from_pylist(rows, schema.QUERIES)}
    runner.write_dataset(str(folder), stage="queries", version=1, config=QueriesConfig(), parts=parts)
    return {"queries": Dataset(str(folder))}


def test_the_worker_reads_the_list_and_refuses_one_without_words(tmp_path: Path, machine: Path) -> None:
    worker = match.Worker(MatchConfig(), query_list(tmp_path / "some", ["dog", "cat"]))
    assert worker(candidates(["a cat"]))["query_ids"].to_pylist() == [[1]]
    with pytest.raises(InputError, match="has no queries"):
        match.Worker(MatchConfig(), query_list(tmp_path / "none", []))
    with pytest.raises(InputError, match=r"2 of the 2 queries of .* have no word in them, the first '!!'; nothing would match"):
        match.Worker(MatchConfig(), query_list(tmp_path / "marks", ["!!", "..."]))
    with pytest.raises(InputError, match="must be 0, 1, 2"):
        match.Worker(MatchConfig(), query_list(tmp_path / "late", ["a"], start=1))


def test_queries_without_a_word_are_told_of_once_a_machine(
    tmp_path: Path, machine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sides = query_list(tmp_path / "list", ["...", "dog", "!"])
    workers = [match.Worker(MatchConfig(), sides) for _ in range(3)]
    (told,) = [record.getMessage() for record in caplog.records]
    assert re.search(r"match: 2 of the 3 queries of .* have no word in them, the first '...'; they match nothing", told)
    for worker in workers:
        assert worker(candidates(["... dog!"]))["query_ids"].to_pylist() == [[1]]


def test_each_list_and_each_normalizer_has_its_own_table_and_a_torn_one_is_made_again(tmp_path: Path, machine: Path) -> None:
    some, other = query_list(tmp_path / "some", ["Dog", "cat"]), query_list(tmp_path / "other", ["cat", "Dog"])
    text = candidates(["Dog (cat)"])
    for _ in range(2):
        assert match.Worker(MatchConfig(), some)(text)["query_ids"].to_pylist() == [[0, 1]]
        assert match.Worker(MatchConfig(normalizer="metaclip"), some)(text)["query_ids"].to_pylist() == [[0]]
        assert match.Worker(MatchConfig(normalizer="metaclip"), other)(text)["query_ids"].to_pylist() == [[1]]
        tables = sorted(machine.glob("queries-*"))
        assert len(tables) == 3
        for path in tables:
            path.write_bytes(path.read_bytes()[:-1])
    assert match.Worker(MatchConfig(), some)(text)["query_ids"].to_pylist() == [[0, 1]]


def test_workers_map_one_table_and_hold_none_of_it(tmp_path: Path, machine: Path) -> None:
    worker = match.Worker(MatchConfig(), query_list(tmp_path / "list", ["dog"]))
    table = worker.matcher.table
    assert not any(array.flags.writeable or array.flags.owndata for array in (table.words, table.branches, table.letters))
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(machine) in line]
    assert lines
    assert all(line.split()[1] == "r--s" for line in lines)
