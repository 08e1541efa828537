"""Counting words and bigrams: ours beside collections.Counter, on the English that is on this machine.

    python -m tests.benchmarks.queries [--megabytes 60] [--runs 3] [--dump enwiki.xml.bz2]

The peer is how query lists are usually counted (NLTK, MetaCLIP): for each line the words, a Counter of words, a Counter of
pairs. Both use the same normaliser; the counts must be equal. Times are CPU seconds of one core, medians. With --dump each
step over a real dump is timed alone, per MB of its XML, and English Wikipedia (24 GB bz2, 95 GB XML) is extrapolated.
The last line is `queries ratio=N`.
"""

import argparse
import gzip
import resource
import statistics
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from pipeline import dumps, normalize, pieces, querycounts, wikitext, wordcounts
from pipeline.config import QueriesConfig

FOLDERS = ("/usr/share/doc", "/usr/share/man", "/usr/share/wordnet", "/usr/lib/python3", "/usr/local/lib")
SUFFIXES = (".gz", ".txt", ".md", ".rst", ".html", ".1", ".3", ".5", ".7", ".8", ".noun", ".verb", ".adj", ".adv", "")
TRANSLATED = "/usr/share/man/"  # man pages in a folder of a language are not English
ENGLISH_GB = {"bz2": 24, "xml": 95}
CHUNK = 4 << 20
Result = TypeVar("Result")


def texts(num_bytes: int) -> bytes:
    """Real English of this machine: documentation, man pages, glosses, Python's own documents."""
    pieces_found, size = [], 0
    for folder in FOLDERS:
        for path in sorted(Path(folder).rglob("*")):
            is_translated = str(path).startswith(TRANSLATED) and not path.parent.parent.samefile(TRANSLATED)
            if path.suffix not in SUFFIXES or path.is_symlink() or not path.is_file() or is_translated:
                continue
            data = path.read_bytes()
            data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
            if b"\0" in data or len(data) < 200:
                continue
            pieces_found.append(data if data.endswith(b"\n") else data + b"\n")
            size += len(data)
            if size >= num_bytes:
                return b"".join(pieces_found)
    return b"".join(pieces_found)


def ours(data: bytes) -> wordcounts.WordCounts:
    """As a worker counts a text."""
    counts, at = wordcounts.WordCounts(), 0
    while at < len(data):
        end = at + (wordcounts.cut(data[at : at + CHUNK]) or CHUNK) if at + CHUNK < len(data) else len(data)
        counts.add(data[at:end])
        at = end
    counts.bigrams()
    return counts


def peer(data: bytes) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """The plain loop."""
    words: Counter[str] = Counter()
    bigrams: Counter[tuple[str, str]] = Counter()
    for line in data.split(b"\n"):
        found = normalize.wit_words(line.decode("utf-8", "replace"))
        words.update(found)
        bigrams.update(pairwise(found))
    return words, bigrams


def seconds(call: Callable[[], Result]) -> tuple[float, Result]:
    """CPU seconds of one call, and what it gave."""
    started = time.process_time()
    result = call()
    return time.process_time() - started, result


def peak_mb() -> float:
    """Of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def equal(counts: wordcounts.WordCounts, words: Counter[str], bigrams: Counter[tuple[str, str]]) -> bool:
    """True if both counted the same."""
    names, word_counts = counts.words()
    texts_of = names.to_pylist()
    first, second, bigram_counts = counts.bigrams()
    if len(first) != len(bigrams) or dict(zip(texts_of, word_counts.tolist(), strict=True)) != dict(words):
        return False
    rows = zip(first.tolist(), second.tolist(), bigram_counts.tolist(), strict=True)
    return all(bigrams[texts_of[a], texts_of[b]] == count for a, b, count in rows)


def count_text(num_bytes: int, runs: int) -> float:
    """The comparison; returns the ratio."""
    data = texts(num_bytes)
    before = peak_mb()
    ours(data[:CHUNK])  # tables of the normaliser fill at first use, for both
    times, results = zip(*(seconds(lambda: ours(data)) for _ in range(runs)), strict=True)
    ours_mb = peak_mb() - before
    peer_times, peer_results = zip(*(seconds(lambda: peer(data)) for _ in range(max(1, runs // 2))), strict=True)
    words, bigrams = peer_results[-1]
    assert equal(results[-1], words, bigrams), "the counts differ"
    megabytes = len(data) / 1e6
    mine, other = statistics.median(times), statistics.median(peer_times)
    print(
        f"{megabytes:.1f} MB, {words.total():,} words, {len(words):,} distinct, {len(bigrams):,} distinct bigrams, counts equal"
    )
    print(
        f"ours {mine:.2f} s, {megabytes / mine:.1f} MB/s a core, {ours_mb:.0f} MB more at the peak (the text itself not counted)"
    )
    print(f"peer {other:.2f} s, {megabytes / other:.1f} MB/s a core, {peak_mb() - before:.0f} MB more at the peak with ours")
    return other / mine


def measure_dump(path: str) -> None:
    """Each step over a real dump alone."""
    piece = pieces.Piece(**pieces.scan("dump", 0, path, 1 << 40).to_pylist()[0])
    step: dict[str, float] = {}
    step["bz2"], blocks = seconds(lambda: list(pieces.blocks(piece)))
    step["xml"], found = seconds(lambda: list(dumps.pages(blocks, path, is_first=True, is_last=True, max_page_chars=2 << 20)))
    articles = [page for page in found if page.namespace == "0" and page.redirect is None and page.text]
    step["wikitext"], plain = seconds(lambda: [wikitext.plain_text(page.text or "")[0] for page in articles])
    text = "\n".join(plain).encode("utf-8", "replace")
    step["counting"], _ = seconds(lambda: ours(text))
    whole, table = seconds(lambda: querycounts.labelled(piece, QueriesConfig()))
    step["rows and buckets"] = max(0.0, whole - sum(step.values()))
    xml_mb = sum(map(len, blocks)) / 1e6
    print(f"{path}: {xml_mb:.1f} MB XML, {len(articles)} articles, {len(text) / 1e6:.1f} MB text, {table.num_rows:,} rows")
    total = sum(step.values())
    for name, spent in (*step.items(), ("all", total)):
        hours = spent / xml_mb * ENGLISH_GB["xml"] * 1000 / 3600
        print(f"{name:<17}{xml_mb / spent:8.1f} MB XML/s  {spent / total:6.1%}   English Wikipedia: {hours:5.1f} core hours")


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=60, help="of text, at least 50 for figures that are to be quoted")
    parser.add_argument("--runs", type=int, default=3, help="of ours; the peer runs half as often")
    parser.add_argument("--dump", help="a real pages-articles file, small")
    options = parser.parse_args()
    ratio = count_text(options.megabytes * 1_000_000, options.runs)
    if options.dump:
        measure_dump(options.dump)
    print(f"queries ratio={ratio:.2f}")


if __name__ == "__main__":
    main()
