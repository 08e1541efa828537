"""The matcher against a search for each query by itself: random queries and texts, every kind of Arrow array, torn tables."""

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import normalize, query_table
from pipeline.matcher import Matcher

CASES = settings(max_examples=100, derandomize=True, database=None, deadline=None)
PIECES = [
    *"abAB .,:`\t\n\r\0-",
    "  ",
    "é",
    "É",
    "e\u0301",
    "ß",
    "猫",
    "ผ้า",
    "ﬁ",
    "İ",
    "\u00ad",
    "´",
    "👩\u200d👧",
    "\uac00",
    "\u11a8",
]
PIECES += ["longword", "longwordandmore!", "longwordandmorestill", "longwordandmorestall", "sixteen_letters_"]
WRITTEN = st.lists(st.sampled_from(PIECES), max_size=10).map("".join)
ANY_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
MODES = pytest.mark.parametrize("normalizer", ["wit", "metaclip"])


def oracle(queries: list[str], texts: list[str], normalizer: str) -> list[list[int]]:
    """Each query, padded, as a piece of each padded text."""

    def padded(text: str) -> str:
        if normalizer == "wit":
            return f" {normalize.wit(text)} "
        for mark in ",.;:?!`":
            text = text.replace(mark, f" {mark} ")
        return f" {text.translate(dict.fromkeys(map(ord, chr(9) + chr(10) + chr(13)), ' '))} "

    wanted = [f" {normalize.wit(query)} " if normalizer == "wit" else f" {query} " for query in queries]
    wanted = ["" if normalizer == "wit" and not query.strip() else query for query in wanted]
    return [[i for i, query in enumerate(wanted) if query and query in text] for text in map(padded, texts)]


@MODES
@given(st.data())
@CASES
def test_what_is_found_is_what_a_search_for_each_query_finds(normalizer: str, data: st.DataObject) -> None:
    texts = data.draw(st.lists(WRITTEN | ANY_TEXT, max_size=8))
    pieces = st.sampled_from([piece for text in texts for piece in (text, text[1:], text[2:6])] or [""])
    queries = data.draw(st.lists(WRITTEN | ANY_TEXT | pieces, min_size=1, max_size=12))
    found = Matcher(queries, normalizer).find(pa.array(texts, pa.string())).to_pylist()
    assert found == oracle(queries, texts, normalizer)


@MODES
def test_any_kind_of_array_gives_the_same(normalizer: str) -> None:
    chance = random.Random(5)
    texts = ["".join(chance.choices(PIECES, k=chance.randrange(12))) for _ in range(120)]
    matcher = Matcher(["".join(chance.choices(PIECES, k=3)) for _ in range(300)], normalizer)
    plain = pa.array(texts, pa.string())
    alone = [matcher.find(pa.array([text])).to_pylist()[0] for text in texts]
    assert any(alone)
    chunked = pa.chunked_array([plain[:50], plain[50:50], plain[50:].cast(pa.large_string())[:70].cast(pa.string())])
    for array in (plain, plain.cast(pa.large_string()), plain.dictionary_encode(), plain.cast(pa.string_view()), chunked):
        assert matcher.find(array).to_pylist() == alone
        assert matcher.find(array[7:]).to_pylist() == alone[7:]
        assert matcher.find(array[20:90].slice(3, 11)).to_pylist() == alone[23:34]
    assert matcher.find(pa.chunked_array([], pa.string())).to_pylist() == []


def test_a_null_is_a_text_without_queries_even_where_bytes_lie_under_it() -> None:
    offsets, data = pa.array([0, 3, 6, 9], pa.int32()).buffers()[1], pa.py_buffer(b"dogcatdog")
    texts = pa.StringArray.from_buffers(3, offsets, data, pa.py_buffer(b"\x05"))
    assert texts.to_pylist() == ["dog", None, "dog"]
    matcher = Matcher(["cat", "dog", ""], "metaclip")
    assert matcher.find(texts).to_pylist() == [[1], [2], [1]]
    assert Matcher(["cat", "dog"]).find(texts).to_pylist() == [[1], [], [1]]
    assert Matcher(["cat"]).find(pa.nulls(2, pa.string())).to_pylist() == [[], []]


def test_bytes_that_are_no_text_are_boundaries_and_no_crash() -> None:
    broken = [b"dog\xff", b"\xc3dog", b"a\xed\xa0\x80dog", b"\xf0\x9f\x90 dog"]
    texts = pa.array(broken, pa.binary()).view(pa.string())
    assert Matcher(["dog"]).find(texts).to_pylist() == [[0]] * 4
    assert len(Matcher(["dog"], "metaclip").find(texts)) == 4


def test_long_words_that_differ_only_at_their_end_are_told_apart() -> None:
    for size in (7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 32, 33, 100):
        words = [f"{'x' * (size - 1)}{letter}" for letter in "abc"] + [f"{letter}{'x' * (size - 1)}" for letter in "abc"]
        matcher = Matcher([*words[:2], *words[3:5]])
        found = matcher.find(pa.array([*words, "x" * size, "x" * (size - 1)])).to_pylist()
        assert found == [[0], [1], [], [2], [3], [], [], []]


def test_a_text_that_matches_thousands_of_queries_has_each_once_in_order() -> None:
    chance = random.Random(2)
    words = [f"w{i}" for i in range(3000)]
    queries = [chance.choice(words) for _ in range(4000)] + [f"{a} {b}" for a, b in pairwise(words)]
    chance.shuffle(queries)
    for size in (1, 20, 31, 32, 33, 63, 64, 65, 3000):
        text = " ".join(words[:size]) + " " + " ".join(chance.choices(words[:size], k=size))
        inside = {query for query in queries if f" {query} " in f" {text} "}
        found = Matcher(queries).find(pa.array(["", text, "w1", text])).to_pylist()
        assert found[1] == found[3] == [i for i, query in enumerate(queries) if query in inside]


def test_a_list_of_queries_that_are_all_the_same_is_found_whole() -> None:
    matcher = Matcher(["dog", "Dog!"] * 2000)
    assert matcher.find(pa.array(["a", "dog dog", "dog"])).to_pylist() == [[], list(range(4000)), list(range(4000))]


@MODES
def test_a_megabyte_of_anything_is_a_text_like_others(normalizer: str) -> None:
    chance = random.Random(6)
    texts = [character * 1_000_000 for character in "a,\0"] + ["a " * 500_000, "", "猫" * 100_000]
    texts.append("".join(chance.choices(PIECES, k=100_000)))
    queries = ["a", "a a a", ",", ", ", "", "\0", "猫 猫", "猫", "é", "longword A", "a" * 1_000_000]
    found = Matcher(queries, normalizer).find(pa.array(texts)).to_pylist()
    assert found == oracle(queries, texts, normalizer)


@MODES
def test_a_query_with_half_a_character_is_no_crash_and_the_others_are_found(normalizer: str) -> None:
    matcher = Matcher(["\ud800", "a\ud800b", "dog", "\udfff dog"], normalizer)
    assert matcher.find(pa.array(["a dog", "a b"])).to_pylist() == ([[2], []] if normalizer == "metaclip" else [[2, 3], [1]])


def test_threads_share_a_matcher() -> None:
    chance = random.Random(4)
    texts = pa.array([" ".join(chance.choices("abcdefgh", k=30)) for _ in range(400)])
    matcher = Matcher([f"{a} {b}" for a in "abcdefgh" for b in "abcd"])
    expected = matcher.find(texts)
    with ThreadPoolExecutor(4) as pool:
        assert all(found.equals(expected) for found in pool.map(lambda _: matcher.find(texts), range(16)))


def test_the_same_queries_give_the_same_bytes_and_others_other_bytes() -> None:
    queries = ["dog", "red car", "a longer word than sixteen_letters", "Dog!", "..."]
    assert query_table.build(queries, "wit") == query_table.build(queries, "wit")
    assert query_table.build(queries, "wit") != query_table.build(queries[::-1], "wit")
    table = query_table.read(query_table.build(queries, "wit"))
    assert (table.num_queries, table.num_wordless) == (5, 1)


def test_a_table_with_any_byte_changed_or_missing_is_refused() -> None:
    data = query_table.build(["dog", "red car", "Dog"], "wit")
    for at in [*range(200), *range(200, len(data), 37)]:
        torn = bytearray(data)
        torn[at] ^= 1
        with pytest.raises(query_table.TornTable):
            query_table.read(bytes(torn))
    for size in (0, 1, 191, 192, 193, len(data) - 1):
        with pytest.raises(query_table.TornTable):
            query_table.read(data[:size])
    with pytest.raises(query_table.TornTable):
        query_table.read(data + b"\0")


def test_a_forged_table_is_refused_or_leads_nowhere_outside_of_itself() -> None:
    """Its sha256 fits what was changed, so only the numbers themselves can tell. What is accepted must not crash."""
    chance, num_accepted = random.Random(0), 0
    queries = ["dog", "red car", "Dog", "x" * 40, "x" * 40 + " dog", *(f"q{i}" for i in range(20))]
    texts = pa.array(["dog red car", "x" * 40, "x" * 41 + " dog q1 q2 q3", "x" * 40 + " dog"])
    whole = query_table.build(queries, "wit")
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            at = chance.choice((chance.randrange(128, 192), chance.randrange(192, len(data)))) // 8 * 8
            number = chance.choice((0, 1, 25, 2**31, 2**32 - 1, 2**36, 2**63, 2**64 - 1, 20 << 32 | 1, chance.randrange(2**64)))
            data[at : at + 8] = number.to_bytes(8, "little")
        data[64:128] = bytes(64)
        data[64:128] = hashlib.sha256(data).hexdigest().encode()
        try:
            table = query_table.read(bytes(data))
        except query_table.TornTable:
            continue
        num_accepted += 1
        found = Matcher.of_table(table, "wit").find(texts)
        assert all(query_id < table.num_queries for queries in found.to_pylist() for query_id in queries)
    assert 0 < num_accepted < 400
