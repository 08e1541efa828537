"""Queries: build the list of what pairs are looked for.

in      files of concepts, files of plain text, WordNet's own database files
out     one row for each query, of schema.QUERIES; in this order of priority: concept, word, bigram, wordnet
law     no two queries have the same normal form, the first in the order stays; none is empty; at most max_queries; the
        list is a function of the files' content and the config
cost    the counts of all words and bigrams of the texts are in memory
source  CLIP section 2.2: all words that occur at least 100 times, bigrams with high pointwise mutual information, all
        WordNet synsets not already there
A bigram's PMI is log2(count * N / (count of first * count of second)), N the number of words of the texts. The paper
gives no threshold: the first max_bigrams by PMI stay, of those that occur min_bigram_count times. N, the floor, and
what was left out are in the table's metadata (see `notes`).
"""

import gzip
import math
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import pairwise

import pyarrow as pa

from pipeline import normalize, schema, storage
from pipeline.config import QueriesConfig
from pipeline.errors import InputError

WORDNET_FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
SYNTACTIC_MARKER = re.compile(r"\((?:a|p|ip)\)$")  # of adjectives: where they may stand
Row = tuple[str, str, float | None]  # query, source, score


def build_queries(config: QueriesConfig) -> pa.Table:
    """The query list. InputError for files that are missing or broken, and where no query comes out."""
    words, bigrams = count_words(line for path in config.text_files for line in read_lines(path, "text_files"))
    concepts = [line.strip() for path in config.concept_files for line in read_lines(path, "concept_files") if line.strip()]
    told = {"order": "concept, word, bigram, wordnet", "num_words": str(words.total())}
    synsets: list[str] = []
    if not config.wordnet_dir:
        told["wordnet"] = "left out: wordnet_dir is empty"
    elif not os.path.isdir(config.wordnet_dir):
        told["wordnet"] = f"left out: there is no folder {config.wordnet_dir} (Debian: apt-get install wordnet-base)"
    else:
        synsets = wordnet_synsets(config.wordnet_dir)
        told["wordnet"] = f"{len(synsets)} synsets of {config.wordnet_dir}"
    rows: list[Row] = [(query, "concept", None) for query in concepts]
    rows += frequent_words(words, config.min_word_count)
    rows += best_bigrams(words, bigrams, config.min_bigram_count, config.max_bigrams)
    rows += [(query, "wordnet", None) for query in synsets]
    listed = distinct(rows)
    if not listed:
        raise InputError(
            "queries: no query came out; give files with words in them (--queries.concept-files, --queries.text-files) "
            "or WordNet's folder (--queries.wordnet-dir)"
        )
    told["num_repeated_or_empty"] = str(len(rows) - len(listed))
    told["num_over_max_queries"] = str(max(0, len(listed) - config.max_queries))
    listed = listed[: config.max_queries]
    for source in ("concept", "word", "bigram", "wordnet"):
        told[f"num_{source}"] = str(sum(row[1] == source for row in listed))
    columns = [range(len(listed)), *([row[i] for row in listed] for i in range(3))]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema.QUERIES, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema.QUERIES.with_metadata(told))


def notes(queries: pa.Table) -> dict[str, str]:
    """What `build_queries` recorded: sizes, and what was left out."""
    return {key.decode(): value.decode() for key, value in (queries.schema.metadata or {}).items()}


def read_lines(path: str, field: str) -> Iterator[str]:
    """The lines of a UTF-8 text file, .gz or not; bytes that are no UTF-8 become U+FFFD, which is in no word."""
    try:
        with storage.open_read(path) as file, gzip.open(file) if path.endswith(".gz") else nullcontext(file) as lines:
            for line in lines:
                yield line.decode("utf-8", "replace")
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"queries: no file {path} (named in {field}); correct the path") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"queries: {path} (named in {field}) is not a whole gzip file: {error}; make or fetch it again"
        ) from None


def count_words(lines: Iterable[str]) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """How often each normalised word, and each two that stand side by side in a line, occur."""
    words: Counter[str] = Counter()
    bigrams: Counter[tuple[str, str]] = Counter()
    for line in lines:
        line_words = normalize.wit_words(line)
        words.update(line_words)
        bigrams.update(pairwise(line_words))
    return words, bigrams


def frequent_words(words: Counter[str], min_count: int) -> list[Row]:
    """Words seen at least `min_count` times, most frequent first."""
    found = sorted((-count, word) for word, count in words.items() if count >= min_count)
    return [(word, "word", float(-count)) for count, word in found]


def best_bigrams(words: Counter[str], bigrams: Counter[tuple[str, str]], min_count: int, max_bigrams: int) -> list[Row]:
    """The bigrams with the highest PMI in bits, of those seen at least `min_count` times."""
    total = words.total()
    found = sorted(
        (-math.log2(count * total / (words[first] * words[second])), f"{first} {second}")
        for (first, second), count in bigrams.items()
        if count >= min_count
    )
    return [(bigram, "bigram", -score) for score, bigram in found[:max_bigrams]]


def wordnet_synsets(folder: str) -> list[str]:
    """The head lemma of every synset, once, in the order of the files; spaces for underscores. See wndb(5WN)."""
    heads: dict[str, None] = {}
    for name in WORDNET_FILES:
        path = storage.join(folder, name)
        for number, line in enumerate(read_lines(path, "wordnet_dir"), 1):
            if line.startswith("  ") or not line.strip():  # the licence, at the top
                continue
            fields = line.split(" ", 5)
            if len(fields) < 6 or not fields[0].isdigit():
                raise InputError(f"queries: {path}, line {number} is no synset of WordNet's database: {line[:40]!r}")
            heads.setdefault(SYNTACTIC_MARKER.sub("", fields[4]).replace("_", " "))
    return list(heads)


def distinct(rows: Iterable[Row]) -> list[Row]:
    """The first row of each normal form; rows without any word are left out."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(normalize.wit(row[0]), row)
    first.pop("", None)
    return list(first.values())
