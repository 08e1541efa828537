"""Counts of words and bigrams against collections.Counter and the normaliser."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import normalize, wordcounts
from pipeline.errors import InputError

ALPHABET = (
    " ", "\n", "\t", "\r\n", "\x1c", "a", "B", "é", "e\u0301", "'", "-", "=", "\u0338", "狗", "\u200d", "\u00ad", "ß", "\xa0",
    "\u2028", "\x85", "1", "\x00", "\u0301", "ﬁ", "İ", "Σ", "ก", "\udcff",
)  # fmt: skip


def oracle(data: bytes) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    words: Counter[str] = Counter()
    bigrams: Counter[tuple[str, str]] = Counter()
    for line in data.split(b"\n"):
        found = normalize.wit_words(line.decode("utf-8", "replace"))
        words.update(found)
        bigrams.update(pairwise(found))
    return words, bigrams


def counted(data: bytes, chunk_bytes: int) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    counts, rest = wordcounts.WordCounts(), b""
    for at in range(0, len(data), chunk_bytes):
        rest += data[at : at + chunk_bytes]
        end = wordcounts.cut(rest)
        counts.add(rest[:end])
        rest = rest[end:]
    counts.add(rest)
    words, word_counts = counts.words()
    texts = words.to_pylist()
    first, second, bigram_counts = counts.bigrams()
    named = wordcounts.joined(words, first, second).to_pylist()
    bigrams = {tuple(name.split(" ")): count for name, count in zip(named, bigram_counts.tolist(), strict=True)}
    assert len(bigrams) == len(first)
    return Counter(dict(zip(texts, word_counts.tolist(), strict=True))), Counter(bigrams)


@pytest.mark.parametrize("seed", range(20))
def test_counts_are_those_of_a_plain_loop_however_the_text_is_cut(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(20):
        data = "".join(rng.choice(ALPHABET, rng.integers(80))).encode("utf-8", "surrogateescape")
        for chunk_bytes in (1, 7, 1000):
            assert counted(data, chunk_bytes) == oracle(data), (data, chunk_bytes)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_bytes_are_counted_as_a_plain_loop_counts_them(data: bytes, chunk_bytes: int) -> None:
    assert counted(data, chunk_bytes) == oracle(data)


def test_pending_counts_are_added_up_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordcounts, "MAX_PENDING", 3)
    data = b"a b a c a b\nb a b d e f g\n" * 7
    assert counted(data, 5) == oracle(data)


def test_a_text_without_any_space_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordcounts, "MAX_WORD_BYTES", 10)
    wordcounts.check(b"x" * 20, "text.txt")
    with pytest.raises(InputError, match=r"text.txt has a word of more than 10 bytes"):
        wordcounts.check(b"x" * 21, "text.txt")
    assert wordcounts.cut(b"a " + b"x" * 20) == 0  # nobody looks further back than a word may be long
