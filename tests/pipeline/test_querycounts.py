"""What a piece says, and what damaged files do: a table or one clear error."""

import bz2
import gzip
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import pieces, querycounts
from pipeline.config import QueriesConfig
from pipeline.errors import InputError
from tests.pipeline.dump_writer import Article, complete, dump_xml, hourly, multistream

CONFIG = QueriesConfig(num_buckets=3, wordnet_dir="")
PAGES = [Article("Dog", "a [[dog]] {{x}} and a dog"), Article("Perro", redirect="Dog#Names"), Article("T:X", "y", 10)]
VIEWS = [("en", "Dog", 3), ("en.m", "Dog", 4), ("de", "Hund", 5)]
FILES = {
    ("dump", "a.xml"): dump_xml(PAGES),
    ("dump", "a.xml.bz2"): multistream(PAGES, 1),
    ("text", "a.txt.gz"): gzip.compress(b"a dog and a dog\n" * 9, mtime=0),
    ("views", "pageviews-20260401-000000.gz"): hourly(VIEWS),
    ("views", "pageviews-20260401-user"): bz2.decompress(complete([("en.wikipedia", "Dog", 1, "desktop", 7)])),
    ("wordnet", "data.noun"): b"00001740 03 n 02 entity 0 thing 0 001 ~ 00001930 n 0000 | that which is\n",
    ("concept", "c.txt"): b"red bicycle\n\xff\n",
}


def counted(kind: str, path: Path) -> list[dict[str, object]]:
    found = pieces.scan(kind, 2, str(path), 1).to_pylist()
    return [row for piece in found for row in querycounts.labelled(pieces.Piece(**piece), CONFIG).to_pylist()]


def test_a_dump_says_words_bigrams_articles_redirects_and_why_the_rest_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.xml.bz2").write_bytes(FILES["dump", "a.xml.bz2"])
    rows = counted("dump", tmp_path / "a.xml.bz2")
    assert {row["bucket"] for row in rows} <= {0, 1, 2}
    assert [(row["key"], row["drop"]) for row in rows if row["drop"]] == [("T:X", "other_namespace")]
    kept = {(row["kind"], row["key"]): row["count"] for row in rows if not row["drop"] and row["kind"] != "total"}
    words = {("word", "a"): 2, ("word", "dog"): 2, ("word", "and"): 1}
    bigrams = {("bigram", "a dog"): 2, ("bigram", "dog and"): 1, ("bigram", "and a"): 1}
    assert kept == words | bigrams | {("article", "Dog"): 0, ("redirect", "Perro"): 0}
    assert [row["target"] for row in rows if row["kind"] == "redirect"] == ["Dog"]


def test_equal_keys_meet_in_one_bucket_whatever_piece_they_are_of(tmp_path: Path) -> None:
    buckets: dict[tuple[object, object], set[object]] = {}
    for number, text in enumerate((b"x y z w\nv", b"w x y\nz v", b"v w z x y")):
        (tmp_path / f"{number}.txt").write_bytes(text)
        for row in counted("text", tmp_path / f"{number}.txt"):
            buckets.setdefault((row["kind"], row["key"]), set()).add(row["bucket"])
    assert all(len(found) == 1 for found in buckets.values())
    assert ("bigram", "x y") in buckets


@pytest.mark.parametrize("kind_and_name", FILES, ids="-".join)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_gives_rows_or_one_input_error(
    tmp_path: Path, kind_and_name: tuple[str, str], data: st.DataObject
) -> None:
    kind, name = kind_and_name
    damaged = bytearray(FILES[kind_and_name])
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(damaged) - 1), st.integers(0, 255)), max_size=5)):
        damaged[at] = value
    start, end = data.draw(st.integers(0, 20)), data.draw(st.integers(0, len(damaged)))
    (tmp_path / name).write_bytes(damaged[start:end] if data.draw(st.booleans()) else damaged)
    try:
        rows = counted(kind, tmp_path / name)
    except InputError as error:
        assert str(error).startswith("queries: ")  # noqa: PT017
    else:
        assert all(row["key"] is not None and row["drop"] in (None, *querycounts.REASONS) for row in rows)
