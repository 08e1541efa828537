"""Crawl beside a straightforward fastwarc and simdjson reader of the same WAT file, as cc2dataset reads it, on one core.

    python -m tests.benchmarks.crawl [--pages 2000] [--runs 5] [--own-images]

in      a WAT in Common Crawl's format, made of HTML pages of the machine (wat_writer)
peer    the file in memory, fastwarc's metadata records, simdjson; links with path IMG@/src and an `alt` are kept, the URL joined
        with the base, md5 of text and URL as id. Both of pysimdjson's ways, whole documents and lazy ones; the faster counts
reader  ours with the same output: pairs of canonical URL and alt, page, id; nothing else done
stage   the whole stage: every image link labelled, texts cleaned, rules, language, canonical URLs, ids, a row for each link
pairs   image links with an `alt`: the same pairs from both, compared (the peer's URLs made canonical after the clock stopped)
inflate the CPU time of inflating the file by zlib, ISA-L and zlib-ng
last line  `crawl ratio=X.XX`: the peer's CPU time over the reader's, medians, runs taken in turn. The line above it is the
        same ratio for the whole stage
"""

# pyarrow.compute makes its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

import argparse
import hashlib
import io
import os
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from statistics import median
from typing import Any
from urllib.parse import urljoin

import pyarrow as pa
import pyarrow.compute as pc
import simdjson  # pyright: ignore[reportMissingImports]
from fastwarc.warc import ArchiveIterator, WarcRecordType
from isal import isal_zlib  # pyright: ignore[reportMissingImports]
from zlib_ng import zlib_ng

from pipeline import urls
from pipeline.config import CrawlConfig
from pipeline.crawl import NO_TEXT, crawl, wat_batches
from pipeline.pages import ATTRIBUTES
from pipeline.pair_ids import pair_ids
from pipeline.rules import Rules
from tests.benchmarks.wat_writer import write_wat

COLUMNS = ("uid", "url", "alt", "page_url")


def peer_pairs(envelope: Any, pairs: list[tuple[str, str, str, str]]) -> None:
    """Append (uid, url, alt, page_url) of a record."""
    html = envelope["Payload-Metadata"].get("HTTP-Response-Metadata", {}).get("HTML-Metadata")
    if not html or "Links" not in html:
        return
    page_url = envelope["WARC-Header-Metadata"]["WARC-Target-URI"]
    base = urljoin(page_url, html["Head"]["Base"]) if "Base" in html.get("Head", {}) else page_url
    for link in html["Links"]:
        if link.get("path") == "IMG@/src" and link.get("alt"):
            alt, url = link["alt"], urljoin(base, link["url"])
            pairs.append((hashlib.md5((alt + url).encode()).hexdigest(), url, alt, page_url))


def peer(path: str, *, lazy: bool) -> pa.Table:
    """The pairs of a WAT file in cc2dataset's way."""
    with open(path, "rb") as file:
        stream = io.BytesIO(file.read())
    pairs: list[tuple[str, str, str, str]] = []
    parser = simdjson.Parser()
    for record in ArchiveIterator(stream, record_types=WarcRecordType.metadata, parse_http=False):
        block = record.reader.read()
        document: Any = parser.parse(block) if lazy else simdjson.loads(block)
        peer_pairs(document["Envelope"], pairs)
        del document  # a lazy one must be gone before the parser is used again
    return pa.table(dict(zip(COLUMNS, map(list, zip(*pairs, strict=True)), strict=True)))


def reader(path: str) -> pa.Table:
    """The same pairs by our reader."""
    tables = []
    for batch in wat_batches(path):
        chosen = batch.attribute_of == ATTRIBUTES.index("alt")
        link, alt = pa.array(batch.link_of[chosen]), batch.texts.filter(pa.array(chosen))
        of_page = batch.page_of[batch.link_of[chosen]]
        url, is_good = urls.canonical_all(batch.urls.take(link), [page.base for page in batch.pages], of_page)
        page_url = pa.array([page.url for page in batch.pages]).take(pa.array(of_page))
        table = pa.table(dict(zip(COLUMNS, (pair_ids(url, alt), url, alt, page_url), strict=True)))
        tables.append(table.filter(pa.array(is_good)))
    return pa.concat_tables(tables)


def inflate_all(data: bytes, decompressobj: Callable[[int], Any]) -> int:
    """Inflate every member of a file; the bytes of all."""
    position = size = 0
    while position < len(data):
        member = decompressobj(31)
        while not member.eof:
            chunk = data[position : position + (1 << 14)]
            size += len(member.decompress(chunk))
            position += len(chunk) - len(member.unused_data)
    return size


def pairs_of(table: pa.Table) -> Counter[tuple[str, ...]]:
    """The pairs, with canonical URLs."""
    found = zip(*(table[name].to_pylist() for name in COLUMNS[1:]), strict=True)
    return Counter((urls.canonical(url, page) or "", alt, page) for url, alt, page in found)


def main() -> None:
    """Run all in turn and print the medians."""
    parser = argparse.ArgumentParser(description="Crawl beside a fastwarc and simdjson reader of the same WAT file.")
    parser.add_argument("--pages", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--own-images", action="store_true", help="no images but those of the pages")
    options = parser.parse_args()
    rules = Rules(CrawlConfig())
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "bench.wat.gz")
        num_pages = write_wat(path, num_pages=options.pages, own_images=options.own_images)
        with open(path, "rb") as file:
            data = file.read()
        work: dict[str, Callable[[], Any]] = {
            "peer, whole documents": lambda: peer(path, lazy=False),
            "peer, lazy documents": lambda: peer(path, lazy=True),
            "ours, reader alone": lambda: reader(path),
            "ours, whole stage": lambda: crawl(path, "wat", rules),
            "inflate, zlib": lambda: inflate_all(data, zlib.decompressobj),
            "inflate, ISA-L": lambda: inflate_all(data, isal_zlib.decompressobj),
            "inflate, zlib-ng": lambda: inflate_all(data, zlib_ng.decompressobj),
        }
        seconds: dict[str, list[float]] = {name: [] for name in work}
        results: dict[str, Any] = {name: run() for name, run in work.items()}  # warm: compiled code is loaded
        for _ in range(options.runs):
            for name, run in work.items():
                start = time.process_time()
                results[name] = run()
                seconds[name].append(time.process_time() - start)
    whole, lazy, ours, stage = (results[name] for name in list(work)[:4])
    expected = pairs_of(whole)
    assert pairs_of(lazy) == expected
    assert pairs_of(ours) == expected, f"ours {ours.num_rows} pairs, peer {whole.num_rows}: not the same"
    num_stage = pc.sum(pc.not_equal(stage["drop"].fill_null(""), NO_TEXT)).as_py()
    print(
        f"{num_pages} pages, {3 * num_pages} records, {len(data) / 1e6:.1f} MB, {results['inflate, zlib'] / 1e6:.1f} MB inflated"
    )
    print(f"{stage.num_rows} rows of the stage, {num_stage} with a text; {whole.num_rows} pairs, the same from both")
    taken = {name: median(values) for name, values in seconds.items()}
    for name, value in taken.items():
        print(f"{name:22} {value:.3f} CPU s  {3 * num_pages / value:10,.0f} records/s  {whole.num_rows / value:10,.0f} pairs/s")
    best = min(taken["peer, whole documents"], taken["peer, lazy documents"])
    share = {name: taken["inflate, zlib-ng"] / taken[name] for name in ("ours, reader alone", "ours, whole stage")}
    print(f"inflating is {share['ours, reader alone']:.0%} of the reader, {share['ours, whole stage']:.0%} of the stage")
    print(f"whole stage beside the peer ratio={best / taken['ours, whole stage']:.2f}")
    print(f"crawl ratio={best / taken['ours, reader alone']:.2f}")


if __name__ == "__main__":
    main()
