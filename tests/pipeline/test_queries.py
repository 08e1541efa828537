"""The query list from files that the test writes, against a plain loop, and from the real WordNet where it is installed."""

import bz2
import gzip
import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.build_queries import build
from pipeline import normalize, queries, schema, wikitext
from pipeline.config import DatasetConfig, QueriesConfig, RunConfig
from pipeline.errors import InputError
from pipeline.events import Events
from pipeline.manifest import Dataset
from pipeline.runner import Execute, in_process, on_ray
from tests.pipeline import dump_writer
from tests.pipeline.dump_writer import Article

WORDNET = "/usr/share/wordnet"
SYNSETS = {
    "data.noun": "00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | that which is\n"
    "00001930 03 n 02 fire_engine 0 fire_truck 0 001 @ 00001740 n 0000 | a red car\n",
    "data.verb": "00001740 29 v 01 take_a_breath 0 000 01 + 02 00 | draw air\n",
    "data.adj": "00020103 00 s 02 outback(a) 0 remote 0 000 | far\n00020104 00 s 01 Galore(ip) 0 000 | many\n",
    "data.adv": "00001740 02 r 01 Red 0 000 | in red\n",
}


def config(root: Path, **fields: object) -> DatasetConfig:
    defaults = {"wordnet_dir": "", "min_word_count": 2, "min_bigram_count": 2, "max_bigrams": 5, "num_buckets": 3}
    run = RunConfig(verify="hash", num_workers=2)
    return DatasetConfig(root=str(root), run=run, queries=QueriesConfig(**{**defaults, **fields}))  # type: ignore[arg-type]


def built(root: Path, *execute: Execute, **fields: Any) -> pa.Table:
    given = config(root, **fields)
    build(given, Events(given.root, "test"), *(execute or (in_process,)))
    return Dataset(f"{given.root}/queries").read()


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


def listed(table: pa.Table) -> list[tuple[str, str]]:
    return [(row["query"], row["source"]) for row in table.to_pylist()]


def test_the_list_has_every_source_in_its_order_and_nothing_twice(files: Path, tmp_path: Path) -> None:
    concepts, text = (str(files / "concepts.txt"),), (str(files / "text.txt"),)
    fields = {"concept_files": concepts, "text_files": text, "wordnet_dir": str(files / "wordnet"), "max_bigrams": 2}
    table = built(tmp_path / "root", **fields)
    assert table.schema.equals(schema.QUERIES)
    assert table["query_id"].to_pylist() == list(range(table.num_rows))
    words = [(word, "word") for word in ("a", "red", "car", "dog", "new", "york")]
    bigrams = [("new york", "bigram"), ("a dog", "bigram")]
    rest = [(query, "wordnet") for query in ("entity", "fire engine", "take a breath", "outback", "Galore")]
    assert listed(table) == [("Red Bicycle", "concept"), ("map-pin", "concept"), *words, *bigrams, *rest]
    told = queries.notes(table)
    assert told["num_words"] == "17"
    assert told["num_wordnet"] == "5"
    assert Dataset(str(tmp_path / "root" / "queries")).manifest.drops == {"repeated": 2, "no_words": 1}  # and WordNet's Red
    inputs = {row["path"]: (row["kind"], row["file_bytes"], row["sha256"]) for row in json.loads(told["inputs"])}
    assert inputs[text[0]] == ("text", 66, queries.sha256((files / "text.txt").read_bytes()))
    assert len(inputs) == 6


def test_the_order_is_the_users(files: Path, tmp_path: Path) -> None:
    fields = {"concept_files": (str(files / "concepts.txt"),), "wordnet_dir": str(files / "wordnet"), "wordnet_lemmas": "all"}
    table = built(tmp_path / "root", order=("wordnet", "title", "word", "bigram", "concept"), **fields)
    first = ["entity", "fire engine", "fire truck", "take a breath", "outback", "remote", "Galore", "Red"]
    assert listed(table) == [*[(lemma, "wordnet") for lemma in first], ("Red Bicycle", "concept"), ("map-pin", "concept")]


def test_scores_are_counts_and_pointwise_mutual_information(files: Path, tmp_path: Path) -> None:
    table = built(tmp_path / "root", text_files=(str(files / "text.txt"),))
    scores = {row["query"]: row["score"] for row in table.to_pylist()}
    assert scores["red"] == 3
    assert scores["new york"] == pytest.approx(math.log2(2 * 17 / (2 * 2)))
    assert scores["a dog"] == pytest.approx(math.log2(2 * 17 / (3 * 2)))
    assert "in new" not in scores  # seen once


def test_a_zipped_text_is_the_same_text(files: Path, tmp_path: Path) -> None:
    (files / "text.txt.bz2").write_bytes(bz2.compress((files / "text.txt").read_bytes()))
    tables = [
        built(tmp_path / str(number), text_files=(str(files / f"text.txt{suffix}"),))
        for number, suffix in enumerate(("", ".gz", ".bz2"))
    ]
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])


def test_the_cap_takes_from_the_end_of_the_order(files: Path, tmp_path: Path) -> None:
    fields = {"concept_files": (str(files / "concepts.txt"),), "wordnet_dir": str(files / "wordnet")}
    whole, few = (built(tmp_path / str(len(more)), **fields, **more) for more in ({}, {"max_queries": 3}))
    assert few.equals(whole.slice(0, 3))
    assert Dataset(str(tmp_path / "1" / "queries")).manifest.drops["over_max_queries"] == whole.num_rows - 3


def test_a_missing_wordnet_is_left_out_and_said(files: Path, tmp_path: Path) -> None:
    table = built(tmp_path / "root", text_files=(str(files / "text.txt"),), wordnet_dir=str(files / "nowhere"))
    assert "wordnet" not in table["source"].to_pylist()
    assert "left out: there is no folder" in queries.notes(table)["wordnet"]


def test_missing_torn_and_empty_files_are_one_clear_error_each(files: Path, tmp_path: Path) -> None:
    (files / "torn.gz").write_bytes((files / "text.txt.gz").read_bytes()[:-9])
    (files / "not.gz").write_text("plain")
    (files / "dots.txt").write_text("...\n\n")
    (files / "page.html").write_text("<html><p>No dump</p></html>")
    (files / "cut.xml.bz2").write_bytes(dump_writer.multistream([Article("Dog", "a dog")])[:-20])
    (files / "dump.xml").write_bytes(dump_writer.dump_xml([Article("Dog", "a dog")]))
    (files / "wordnet" / "data.verb").write_text("no synset at all in this line\n")
    cases: dict[str, dict[str, object]] = {
        "no file .*nope.txt .named in text_files.": {"text_files": (str(files / "nope.txt"),)},
        "no file .* .named in concept_files.": {"concept_files": (str(files),)},
        "torn.gz .* is not a whole gzip file": {"text_files": (str(files / "torn.gz"),)},
        "not.gz .* is not a whole gzip file": {"text_files": (str(files / "not.gz"),)},
        "no query came out": {"concept_files": (str(files / "dots.txt"),)},
        "no query came out; give": {},
        "data.verb, line 1 is no synset": {"wordnet_dir": str(files / "wordnet")},
        "page.html .named in dump_files. is not a whole Wikipedia XML dump": {"dump_files": (str(files / "page.html"),)},
        "cut.xml.bz2 .named in dump_files. is not a whole bzip2 file": {"dump_files": (str(files / "cut.xml.bz2"),)},
        "give dump_files too": {"view_files": (str(files / "text.txt"),)},
        "has no line of a page-view file": {"dump_files": (str(files / "dump.xml"),), "view_files": (str(files / "text.txt"),)},
        "is named twice in text_files": {"text_files": (str(files / "text.txt"),) * 2},
    }
    for number, (message, fields) in enumerate(cases.items()):
        with pytest.raises(InputError, match=message):
            built(tmp_path / f"root{number}", **fields)


def test_bytes_that_are_no_text_do_no_harm(files: Path, tmp_path: Path) -> None:
    (files / "bytes.txt").write_bytes(b"red\xff\xfecar red\x00car \xed\xa0\x80 red car\n" + bytes(range(256)))
    (files / "odd.txt").write_bytes(b"fire\x00 engine\xff\n" + b"x" * 300 + b"\n\x00\n\xed\xa0\x80\n")
    table = built(tmp_path / "root", text_files=(str(files / "bytes.txt"),), concept_files=(str(files / "odd.txt"),))
    assert listed(table)[:3] == [("fire engine\ufffd", "concept"), ("car", "word"), ("red", "word")]
    assert ("red car", "bigram") in listed(table)
    assert Dataset(str(tmp_path / "root" / "queries")).manifest.drops == {"no_words": 2, "too_long": 1}


def test_the_same_command_again_is_skipped_and_a_changed_file_is_not(files: Path, tmp_path: Path) -> None:
    fields = {"text_files": (str(files / "text.txt"),), "concept_files": (str(files / "concepts.txt"),)}
    first = built(tmp_path / "root", **fields)
    given = config(tmp_path / "root", **fields)
    events = Events(given.root, "test")
    build(given, events, in_process)
    assert [json.loads(line)["event"] for line in events.lines] == ["stage_skipped"] * 5
    (files / "concepts.txt").write_text("Red Bicycle\nblue bicycle\n")
    assert listed(built(tmp_path / "root", **fields))[:2] == [("Red Bicycle", "concept"), ("blue bicycle", "concept")]
    assert first["query"].to_pylist()[1] == "map-pin"


WORDS = ("dog", "cat", "New", "York", "naïve", "狗", "a", "the", "St.", "Louis", "blue-green")
TITLES = ("Dog", "New York", "École", "AC/DC", "Mercury", "Mercury (planet)", "St. Louis", "狗", "!!!", "Cat's cradle")


def wiki(seed: int) -> tuple[list[Article], list[tuple[str, str, int]]]:
    """A random wiki and its page views."""
    rng = np.random.default_rng(seed)
    pages = [Article("Main Page", "dog " * 9), Article("Template:T", "dog cat " * 9, 10), Article("C", "dog {}", model="css")]
    for title in TITLES:
        lines = [" ".join(f"[[{w}]]" if rng.random() < 0.2 else w for w in rng.choice(WORDS, rng.integers(12))) for _ in range(4)]
        pages.append(Article(title, "\n\n".join(lines) + "{{cite|dog}}<ref>cat</ref>"))
    pages += [Article(f"R{i}", redirect=str(rng.choice([*TITLES, "R1", "Nowhere"]))) for i in range(12)]
    pages += [Article("Mercury (disambiguation)", "dog cat"), Article("Ada", "{{disambig}} the cat"), Article("Big", "x" * 3000)]
    names = [page.title.replace(" ", "_") for page in pages] + ["Nowhere", "-", "new_York", "Caf%C3%A9", "AC%2FDC"]
    views = [(str(rng.choice(["en", "en.m", "de"])), str(rng.choice(names)), int(rng.integers(9))) for _ in range(200)]
    return [pages[i] for i in rng.permutation(len(pages))], views


def oracle(pages: list[Article], views: list[tuple[str, str, int]], given: QueriesConfig) -> list[tuple[str, str]]:
    """The list by the recipe, in a plain loop."""
    words: Counter[str] = Counter()
    bigrams: Counter[tuple[str, str]] = Counter()
    articles = set()
    for page in pages:
        if page.namespace or page.model != "wikitext" or page.redirect is not None or page.title in ("Main Page", "Big"):
            continue
        text, _ = wikitext.plain_text(page.text)
        for line in text.split("\n"):
            words.update(normalize.wit_words(line))
            bigrams.update(pairwise(normalize.wit_words(line)))
        if "disambig" not in page.title + page.text:
            articles.add(page.title)
    redirects = {page.title: page.redirect for page in pages if page.redirect is not None}
    seen: Counter[str] = Counter()
    for wiki_code, name, count in views:
        title = name.replace("_", " ").replace("%2F", "/")
        title = title[0].upper() + title[1:]
        target = redirects.get(title, title)
        if wiki_code != "de" and target in articles:
            seen[target] += count
    total = words.total()
    pmi = {
        f"{a} {b}": math.log2(count * total / (words[a] * words[b]))
        for (a, b), count in bigrams.items()
        if count >= given.min_bigram_count
    }
    rows = [(word, "word") for word in sorted(words, key=lambda w: (-words[w], w)) if words[word] >= given.min_word_count]
    rows += [(bigram, "bigram") for bigram in sorted(pmi, key=lambda b: (-pmi[b], b))[: given.max_bigrams]]
    rows += [(t, "title") for t in sorted(seen, key=lambda t: (-seen[t], t)) if seen[t] >= given.min_title_views]
    first: dict[str, tuple[str, str]] = {}
    for row in rows:
        first.setdefault(normalize.wit(row[0]), row)
    first.pop("", None)
    return list(first.values())[: given.max_queries]


def inputs(folder: Path, pages: list[Article], views: list[tuple[str, str, int]]) -> Mapping[str, object]:
    """The wiki as two dump files, one multistream, and its views as two files, one in each format."""
    folder.mkdir()
    (folder / "p1.xml.bz2").write_bytes(dump_writer.multistream(pages[:15], 2))
    (folder / "p2.xml").write_bytes(dump_writer.dump_xml(pages[15:]))
    (folder / "pageviews-20260401-000000.gz").write_bytes(dump_writer.hourly(views[:100]))
    access = {"en": "desktop", "en.m": "mobile-web", "de": "desktop"}
    rest = [(f"{code[:2]}.wikipedia", title, 7, access[code], count) for code, title, count in views[100:]]
    (folder / "pageviews-202604-user.bz2").write_bytes(dump_writer.complete(rest))
    names = {"dump_files": ("p1.xml.bz2", "p2.xml"), "view_files": ("pageviews-20260401-000000.gz", "pageviews-202604-user.bz2")}
    settings = {"min_title_views": 5, "max_bigrams": 8, "max_page_chars": 2000, "max_queries": 30}
    return {field: tuple(str(folder / name) for name in found) for field, found in names.items()} | settings


@pytest.mark.parametrize("seed", range(4))
def test_a_wiki_gives_what_a_plain_loop_over_it_gives_however_it_is_cut(seed: int, tmp_path: Path) -> None:
    pages, views = wiki(seed)
    fields = inputs(tmp_path / "wiki", pages, views)
    expected = oracle(pages, views, config(tmp_path, **fields).queries)
    assert {source for _, source in expected} == {"word", "bigram", "title"}
    tables = [built(tmp_path / str(size), piece_bytes=size, **fields) for size in (1, 1000, 1 << 20)]
    assert listed(tables[0]) == expected
    assert all(table.equals(tables[0]) for table in tables)
    counts = Dataset(str(tmp_path / "1" / "queries" / "_counts")).manifest
    assert len(counts.parts) > 15
    expected_drops = {"other_namespace": 1, "main_page": 1, "other_model": 1, "too_large": 1, "disambiguation": 2}
    assert {reason: count for reason, count in counts.drops.items() if not reason.startswith("bad")} == expected_drops


@pytest.mark.slow
def test_on_ray_the_list_is_the_same(ray_address: str, tmp_path: Path) -> None:
    fields = inputs(tmp_path / "wiki", *wiki(9))
    here, there = (built(tmp_path / str(i), how, num_buckets=2, **fields) for i, how in enumerate((in_process, on_ray)))
    assert here.equals(there)
    hashes = [Dataset(str(tmp_path / root / "queries" / "_titles")).manifest.hash for root in "01"]
    assert hashes[0] == hashes[1]


@pytest.mark.skipif(not os.path.isdir(WORDNET), reason=f"needs Debian's wordnet-base in {WORDNET}")
def test_the_real_wordnet_gives_all_its_synsets_by_their_head_lemmas(tmp_path: Path) -> None:
    table = built(tmp_path / "root", wordnet_dir=WORDNET)
    assert queries.notes(table)["num_synsets"] == "117659"
    heads = set(table["query"].to_pylist())
    assert 80_000 < len(heads) < 90_000
    assert {"fire engine", "dog", "Eiffel Tower"} <= heads
    assert not any("_" in head or "(" in head for head in heads)
    assert Dataset(str(tmp_path / "root" / "queries")).manifest.drops.keys() == {"repeated"}
