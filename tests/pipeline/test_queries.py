"""The query list from files that the test writes, and from the real WordNet where it is installed."""

import gzip
import math
import os
from pathlib import Path

import pytest

from pipeline import normalize, queries, schema
from pipeline.config import QueriesConfig
from pipeline.errors import InputError

WORDNET = "/usr/share/wordnet"
SYNSETS = {
    "data.noun": "00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | that which is\n"
    "00001930 03 n 02 fire_engine 0 fire_truck 0 001 @ 00001740 n 0000 | a red car\n",
    "data.verb": "00001740 29 v 01 take_a_breath 0 000 01 + 02 00 | draw air\n",
    "data.adj": "00020103 00 s 02 outback(a) 0 remote 0 000 | far\n00020104 00 s 01 Galore(ip) 0 000 | many\n",
    "data.adv": "00001740 02 r 01 Red 0 000 | in red\n",
}


def config(folder: Path, **fields: object) -> QueriesConfig:
    defaults = {"wordnet_dir": "", "min_word_count": 2, "min_bigram_count": 2, "max_bigrams": 5}
    return QueriesConfig(**{**defaults, **fields})  # type: ignore[arg-type]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Concepts, a text and a small WordNet in the real format."""
    (tmp_path / "concepts.txt").write_text("Red Bicycle\nmap-pin\n\n  red bicycle \n...\n")
    (tmp_path / "text.txt").write_text("A red car, a dog.\nThe red car and New York\na dog in New York; red\n")
    (tmp_path / "text.txt.gz").write_bytes(gzip.compress((tmp_path / "text.txt").read_bytes()))
    (tmp_path / "wordnet").mkdir()
    for name, synsets in SYNSETS.items():
        (tmp_path / "wordnet" / name).write_text("  1 This software and database is being provided\n" + synsets)
    return tmp_path


def listed(table) -> list[tuple[str, str]]:
    return [(row["query"], row["source"]) for row in table.to_pylist()]


def test_the_list_has_every_source_in_its_order_and_nothing_twice(files: Path) -> None:
    concepts, text = (str(files / "concepts.txt"),), (str(files / "text.txt"),)
    table = queries.build_queries(
        config(files, concept_files=concepts, text_files=text, wordnet_dir=str(files / "wordnet"), max_bigrams=2)
    )
    assert table.schema.equals(schema.QUERIES)
    assert table["query_id"].to_pylist() == list(range(table.num_rows))
    words = [(word, "word") for word in ("a", "red", "car", "dog", "new", "york")]
    bigrams = [("new york", "bigram"), ("a dog", "bigram")]
    rest = [(query, "wordnet") for query in ("entity", "fire engine", "take a breath", "outback", "Galore")]
    assert listed(table) == [("Red Bicycle", "concept"), ("map-pin", "concept"), *words, *bigrams, *rest]
    told = queries.notes(table)
    assert told["num_words"] == "17"
    assert told["num_repeated_or_empty"] == "3"  # the second red bicycle, the dots, WordNet's Red
    assert told["num_wordnet"] == "5"


def test_scores_are_counts_and_pointwise_mutual_information(files: Path) -> None:
    table = queries.build_queries(config(files, text_files=(str(files / "text.txt"),)))
    scores = {row["query"]: row["score"] for row in table.to_pylist()}
    assert scores["red"] == 3
    assert scores["new york"] == pytest.approx(math.log2(2 * 17 / (2 * 2)))
    assert scores["a dog"] == pytest.approx(math.log2(2 * 17 / (3 * 2)))
    assert "in new" not in scores  # seen once


def test_a_zipped_text_is_the_same_text(files: Path) -> None:
    plain, zipped = (
        queries.build_queries(config(files, text_files=(str(files / name),))) for name in ("text.txt", "text.txt.gz")
    )
    assert plain.equals(zipped)


def test_the_cap_takes_from_the_end_of_the_order(files: Path) -> None:
    fields = {"concept_files": (str(files / "concepts.txt"),), "wordnet_dir": str(files / "wordnet")}
    whole, few = (queries.build_queries(config(files, **fields, **more)) for more in ({}, {"max_queries": 3}))
    assert few.equals(whole.slice(0, 3))
    assert queries.notes(few)["num_over_max_queries"] == str(whole.num_rows - 3)


def test_a_missing_wordnet_is_left_out_and_said(files: Path) -> None:
    table = queries.build_queries(config(files, text_files=(str(files / "text.txt"),), wordnet_dir=str(files / "nowhere")))
    assert "wordnet" not in table["source"].to_pylist()
    assert "no folder" in queries.notes(table)["wordnet"]
    assert "left out" in queries.notes(table)["wordnet"]


def test_missing_torn_and_empty_files_are_one_clear_error_each(files: Path) -> None:
    (files / "torn.gz").write_bytes((files / "text.txt.gz").read_bytes()[:-9])
    (files / "not.gz").write_text("plain")
    (files / "dots.txt").write_text("...\n\n")
    (files / "wordnet" / "data.verb").write_text("no synset at all in this line\n")
    cases = {
        "no file .*nope.txt .named in text_files.": {"text_files": (str(files / "nope.txt"),)},
        "no file .* .named in concept_files.": {"concept_files": (str(files),)},
        "torn.gz .* is not a whole gzip file": {"text_files": (str(files / "torn.gz"),)},
        "not.gz .* is not a whole gzip file": {"text_files": (str(files / "not.gz"),)},
        "no query came out": {"concept_files": (str(files / "dots.txt"),)},
        "data.verb, line 1 is no synset": {"wordnet_dir": str(files / "wordnet")},
    }
    for message, fields in cases.items():
        with pytest.raises(InputError, match=message):
            queries.build_queries(config(files, **fields))


def test_bytes_that_are_no_text_do_no_harm(files: Path) -> None:
    (files / "bytes.txt").write_bytes(b"red\xff\xfecar red\x00car \xed\xa0\x80 red car\n" + bytes(range(256)))
    table = queries.build_queries(config(files, text_files=(str(files / "bytes.txt"),)))
    assert listed(table)[:2] == [("car", "word"), ("red", "word")]
    assert ("red car", "bigram") in listed(table)


@pytest.mark.skipif(not os.path.isdir(WORDNET), reason=f"needs Debian's wordnet-base in {WORDNET}")
def test_the_real_wordnet_gives_its_published_number_of_synset_names() -> None:
    heads = queries.wordnet_synsets(WORDNET)
    assert 80_000 < len({head.lower() for head in heads}) < 90_000
    assert {"fire engine", "dog", "Eiffel Tower"} <= set(heads)
    assert not any("_" in head or "(" in head for head in heads)
    assert sum(not normalize.wit(head) for head in heads) == 0
