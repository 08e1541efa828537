"""Crawl beside cc2dataset's way of reading the same WAT file: pairs per second of one core, end to end.

    python -m tests.benchmarks.crawl [--pages 2000] [--runs 5]

in      a WAT of real-looking records (wat_writer), written to a temporary folder
ours    the whole stage: every image link labelled, texts cleaned, rules, language, canonical URLs, ids, an Arrow table
peer    what cc2dataset documents: the file in memory, every metadata record parsed as JSON, links with path IMG@/src and an
        `alt` kept, URL joined with the base, md5 of text and URL as id; no cleaning, no rules, no language. orjson for both
pairs   image links with a text, which is what cc2dataset counts; the same number for both, asserted
last line  `crawl ratio=X.XX`: our pairs per second over the peer's, medians, runs taken in turn
"""

import argparse
import hashlib
import io
import os
import tempfile
import time
from statistics import median
from urllib.parse import urljoin

import orjson
import pyarrow as pa
from fastwarc.warc import ArchiveIterator, WarcRecordType

from pipeline.config import CrawlConfig
from pipeline.crawl import NO_TEXT, crawl
from pipeline.text import Rules
from tests.benchmarks.wat_writer import write_wat


def peer(path: str) -> pa.Table:
    """The pairs of a WAT file in cc2dataset's way."""
    with open(path, "rb") as file:
        stream = io.BytesIO(file.read())
    uids, found_urls, alts, pages = [], [], [], []
    for record in ArchiveIterator(stream, record_types=WarcRecordType.metadata, parse_http=False):
        envelope = orjson.loads(record.reader.read())["Envelope"]
        html = envelope["Payload-Metadata"].get("HTTP-Response-Metadata", {}).get("HTML-Metadata")
        if not html or "Links" not in html:
            continue
        page_url = envelope["WARC-Header-Metadata"]["WARC-Target-URI"]
        base = html.get("Head", {}).get("Base", page_url)
        for link in html["Links"]:
            if link.get("path") == "IMG@/src" and link.get("alt"):
                url = link["url"] if link["url"].startswith(("http://", "https://")) else urljoin(base, link["url"])
                uids.append(hashlib.md5((link["alt"] + url).encode()).hexdigest())
                found_urls.append(url)
                alts.append(link["alt"])
                pages.append(page_url)
    return pa.table({"uid": uids, "url": found_urls, "alt": alts, "page_url": pages})


def main() -> None:
    """Run both in turn and print the medians."""
    parser = argparse.ArgumentParser(description="Crawl beside cc2dataset's way of reading the same WAT file.")
    parser.add_argument("--pages", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    rules = Rules(CrawlConfig())
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "bench.wat.gz")
        write_wat(path, num_pages=options.pages)
        seconds: dict[str, list[float]] = {"ours": [], "peer": []}
        table = peer_table = pa.table({})
        for _ in range(options.runs):
            start = time.process_time()
            table = crawl(path, "wat", rules)
            seconds["ours"].append(time.process_time() - start)
            start = time.process_time()
            peer_table = peer(path)
            seconds["peer"].append(time.process_time() - start)
        megabytes = os.path.getsize(path) / 1e6
    num_pairs = sum(drop != NO_TEXT for drop in table["drop"].to_pylist())
    assert num_pairs == peer_table.num_rows, f"ours {num_pairs} pairs, peer {peer_table.num_rows}"
    ours, theirs = median(seconds["ours"]), median(seconds["peer"])
    print(f"{options.pages} pages, {megabytes:.1f} MB, {table.num_rows} image links, {num_pairs} with a text")
    for name, taken in (("ours", ours), ("peer", theirs)):
        print(f"{name}  {taken:.3f} CPU s  {num_pairs / taken:,.0f} pairs/s  {table.num_rows / taken:,.0f} image links/s")
    print(f"crawl ratio={theirs / ours:.2f}")


if __name__ == "__main__":
    main()
