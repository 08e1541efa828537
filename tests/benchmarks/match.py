"""Matching 500,000 queries: ours beside pyahocorasick (MetaCLIP's fast variant), the same results, one core.

    python -m tests.benchmarks.match

Queries: WordNet's lemmas, then the words and the most frequent bigrams of its glosses. Texts: the glosses. Times are of
this process's CPU, the best of some rounds; normalising is in both. Ends with `match ratio=X.XX`, ours over theirs.
"""

import os
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import cast

import ahocorasick  # pyright: ignore[reportMissingImports]  # a peer: `make bench` installs it
import pyarrow as pa

from pipeline import normalize
from pipeline.matcher import Matcher

WORDNET = "/usr/share/wordnet"
NUM_QUERIES = 500_000
NUM_TEXTS_THEIRS = 20_000  # theirs is measured and compared on these: it takes longer
ROUNDS = 3


def read_wordnet() -> tuple[list[str], list[str]]:
    """All lemmas, normal and sorted, and all glosses."""
    lemmas, glosses = set(), []
    for part in ("noun", "verb", "adj", "adv"):
        with open(f"{WORDNET}/index.{part}", encoding="utf-8") as lines:
            lemmas.update(normalize.wit(line.split(" ", 1)[0].replace("_", " ")) for line in lines if line[0] != " ")
        with open(f"{WORDNET}/data.{part}", encoding="utf-8") as lines:
            glosses += [line.split("|", 1)[1].strip() for line in lines if line[0] != " "]
    return sorted(lemmas - {""}), glosses


def make_queries(lemmas: list[str], glosses: list[str]) -> list[str]:
    """Lemmas, words, and bigrams by frequency, each once, NUM_QUERIES in all."""
    words: Counter[str] = Counter()
    bigrams: Counter[tuple[str, str]] = Counter()
    for gloss in glosses:
        gloss_words = normalize.wit_words(gloss)
        words.update(gloss_words)
        bigrams.update(pairwise(gloss_words))
    queries = dict.fromkeys([*lemmas, *(word for word, _ in words.most_common())])
    queries.update(dict.fromkeys(f"{first} {second}" for (first, second), _ in bigrams.most_common(NUM_QUERIES)))
    return list(queries)[:NUM_QUERIES]


def timed(work: Callable[[], object], rounds: int = ROUNDS) -> tuple[float, object]:
    """CPU seconds of the fastest round, and what it gave."""
    best, result = float("inf"), None
    for _ in range(rounds):
        started = time.process_time()
        result = work()
        best = min(best, time.process_time() - started)
    return best, result


def main() -> None:
    """Print a line for each, then the ratio."""
    if not os.path.isdir(WORDNET):
        print(f"match: skipped: there is no {WORDNET} (Debian: apt-get install wordnet-base)")
        return
    lemmas, glosses = read_wordnet()
    queries = make_queries(lemmas, glosses)
    build_seconds, matcher = timed(lambda: Matcher(queries), 1)
    assert isinstance(matcher, Matcher)
    texts = pa.array(glosses, pa.string())
    seconds, found = timed(lambda: matcher.find(texts).to_numpy(zero_copy_only=False))
    ours = len(glosses) / seconds
    print(
        f"ours            {ours:>9,.0f} texts/s  built in {build_seconds:.1f} s  {len(queries):,} queries, {len(glosses):,} texts"
    )

    def build() -> ahocorasick.Automaton:
        automaton = ahocorasick.Automaton()
        for query_id, query in enumerate(queries):
            automaton.add_word(f" {query} ", query_id)
        automaton.make_automaton()
        return automaton

    build_seconds, automaton = timed(build, 1)

    automaton = cast("ahocorasick.Automaton", automaton)

    def search() -> list[list[int]]:
        return [sorted({i for _, i in automaton.iter(f" {normalize.wit(gloss)} ")}) for gloss in glosses[::stride]]

    stride = max(1, len(glosses) // NUM_TEXTS_THEIRS)
    seconds, expected = timed(search)
    assert isinstance(expected, list)
    theirs = len(expected) / seconds
    print(f"pyahocorasick   {theirs:>9,.0f} texts/s  built in {build_seconds:.1f} s")
    assert [row.tolist() for row in found[::stride]] == expected  # type: ignore[index]
    print(f"same results, {sum(map(len, expected)) / len(expected):.1f} queries a text")
    print(f"match ratio={ours / theirs:.2f}")


if __name__ == "__main__":
    main()
