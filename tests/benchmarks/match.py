"""Matching 500,000 queries: ours beside pyahocorasick (MetaCLIP's fast variant) and ahocorasick-rs, the same results, one core.

    python -m tests.benchmarks.match

Queries: WordNet's lemmas, then the words and the most frequent bigrams of its glosses. Texts: the glosses. Times are of
this process's CPU; each takes its turn in every round and the best counts; normalising is in all. Then what a worker costs:
start-up in a new process from a table that is there, and memory. Ends with two ratios, ours over theirs; the last is
pyahocorasick's.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import ahocorasick  # pyright: ignore[reportMissingImports]  # a peer: `make bench` installs it
import ahocorasick_rs  # pyright: ignore[reportMissingImports]  # a peer
import numpy as np
import pyarrow as pa

from pipeline import normalize, query_table
from pipeline.matcher import Matcher

WORDNET = "/usr/share/wordnet"
NUM_QUERIES = 500_000
NUM_TEXTS_THEIRS = 20_000  # theirs is measured and compared on these: it takes longer
ROUNDS = 5
WORKER = """
import json, mmap, sys, time
from collections import Counter
import pyarrow as pa
from pipeline import query_table
from pipeline.matcher import Matcher
file = open(sys.argv[1], "rb")
table = query_table.read(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
Matcher.of_table(table, "wit").find(pa.array(["a dog"]))
cpu = time.process_time()
print("ready", flush=True)
sys.stdin.readline()  # until the other worker has mapped the table too
memory, ours = Counter(), False
for line in open("/proc/self/smaps"):
    name, *rest = line.split()
    if not name.endswith(":"):
        ours = line.rstrip().endswith(sys.argv[1])
    elif ours and rest[-1] == "kB":
        memory[name[:-1]] += int(rest[0])
print(json.dumps({"cpu": cpu, "kB": memory}), flush=True)
sys.stdin.readline()
"""


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


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds, and what it gave."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def automaton_of(queries: list[str]) -> Any:
    """pyahocorasick's."""
    automaton = ahocorasick.Automaton()
    for query_id, query in enumerate(queries):
        automaton.add_word(f" {query} ", query_id)
    automaton.make_automaton()
    return automaton


def ask(worker: Any, line: str) -> str:
    """Send a line, if it is one, and read the answer."""
    if line:
        print(line, file=worker.stdin, flush=True)
    return worker.stdout.readline()


def start_up(path: str) -> None:
    """Print what a worker needs to start, with numba's code at hand and without, and what two workers hold of one table."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        for case, number in (("cold: numba compiles", 1), ("warm", 1), ("two at once, warm", 2)):
            started, command = time.monotonic(), [sys.executable, "-c", WORKER, path]
            pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            workers = [subprocess.Popen(command, env=environment, **pipes) for _ in range(number)]
            assert [ask(worker, "") for worker in workers] == ["ready\n"] * number
            seconds = time.monotonic() - started
            told = [json.loads(ask(worker, "memory")) for worker in workers]
            for worker in workers:
                worker.communicate("end\n")
            print(f"start-up        {told[0]['cpu']:.1f} s of CPU, {seconds:.1f} s by the clock, to the first text ({case})")
    memory = [f"{one['kB']['Rss'] / 1e3:.0f} MB mapped, its share {one['kB']['Pss'] / 1e3:.0f} MB" for one in told]
    print(f"table of each   {'; '.join(memory)}")


def bandwidth(texts: pa.Array, table: query_table.QueryTable, seconds: float) -> None:
    """Print how far from memory we are: from reading the same buffer, and from one random read a look-up."""
    data = np.frombuffer(texts.buffers()[2], np.uint8)
    copy = min(timed(data.copy)[0] for _ in range(ROUNDS))
    number = len(np.flatnonzero(normalize.LETTERS["wit"][data] == ord(" ")))
    slots = np.random.default_rng(0).integers(0, len(table.branches), number)
    reads = min(timed(lambda: table.branches[slots].sum())[0] for _ in range(ROUNDS))
    print(
        f"bytes           {len(data) / seconds / 1e6:,.0f} MB/s; copying the same buffer {len(data) / copy / 1e6:,.0f} MB/s; "
        f"{number / len(texts):.1f} words a text, reading as many places of the table at random {len(texts) / reads:,.0f} texts/s"
    )


def main() -> None:
    """Print a line for each, then the ratios."""
    if not os.path.isdir(WORDNET):
        print(f"match: skipped: there is no {WORDNET} (Debian: apt-get install wordnet-base)")
        return
    lemmas, glosses = read_wordnet()
    queries = make_queries(lemmas, glosses)
    Matcher(queries[:10]).find(pa.array(glosses[:10]))  # numba compiles
    build_seconds, data = timed(lambda: query_table.build(queries, "wit"))
    matcher = Matcher.of_table(query_table.read(data), "wit")
    texts, some = pa.array(glosses, pa.string()), glosses[:: max(1, len(glosses) // NUM_TEXTS_THEIRS)]
    python_seconds, automaton = timed(lambda: automaton_of(queries))
    rust_seconds, rust = timed(lambda: ahocorasick_rs.AhoCorasick([f" {query} " for query in queries]))

    def search() -> list[list[int]]:
        return [sorted({i for _, i in automaton.iter(f" {normalize.wit(gloss)} ")}) for gloss in some]

    def search_rust() -> list[list[int]]:
        found = (rust.find_matches_as_indexes(f" {normalize.wit(gloss)} ", overlapping=True) for gloss in some)
        return [sorted({i for i, _, _ in matches}) for matches in found]

    rounds = [(timed(lambda: matcher.find(texts)), timed(search), timed(search_rust)) for _ in range(ROUNDS)]
    seconds, python, in_rust = (min(one[i][0] for one in rounds) for i in range(3))
    found = matcher.find(pa.array(some)).to_pylist()
    assert found == rounds[0][1][1] == rounds[0][2][1]
    ours = len(glosses) / seconds
    print(f"{len(queries):,} queries, {len(glosses):,} texts, {sum(map(len, found)) / len(found):.1f} queries a text")
    print(f"ours            {ours:>9,.0f} texts/s  built in {build_seconds:.1f} s, {len(data) / 1e6:.0f} MB")
    print(f"pyahocorasick   {len(some) / python:>9,.0f} texts/s  built in {python_seconds:.1f} s")
    print(f"ahocorasick-rs  {len(some) / in_rust:>9,.0f} texts/s  built in {rust_seconds:.1f} s")
    print(f"same results on {len(some):,} texts")
    bandwidth(texts, matcher.table, seconds)
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        start_up(file.name)
    print(f"match ratio to ahocorasick-rs={ours / (len(some) / in_rust):.2f}")
    print(f"match ratio={ours / (len(some) / python):.2f}")


if __name__ == "__main__":
    main()
