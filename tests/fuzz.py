"""Fuzzing: bytes of the real formats, damaged at random, through every parser of the pipeline, against its law.

    python -m tests.fuzz --seconds 300 [--targets wat matcher] [--seed 7]

in      real Common Crawl records, pages and small dumps that are damaged (flipped, cut, doubled, spliced with the pieces that
        their formats are made of)
out     for each target how many cases ran. The first case that breaks a law is told, as bytes that a test can keep, and ends it
law     a case is a function of (seed, target, number): what is printed can be run again with --seed and --first
targets what each asserts stands in its docstring. InputError is an answer; any other error, a crash and a hang are not
"""

import argparse
import bz2
import gzip
import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import (
    archives,
    dumps,
    normalize,
    pages,
    pageviews,
    query_table,
    records,
    responses,
    robots,
    strings,
    text,
    urls,
    wat,
    wikitext,
    wordnet,
)  # fmt: skip
from pipeline.config import CrawlConfig
from pipeline.errors import InputError
from pipeline.matcher import Matcher
from pipeline.rules import REASONS, Rules
from tests.pipeline import dump_writer

REAL = Path(__file__).parent / "data" / "commoncrawl"
MAX_CASE_SECONDS = 10.0
Case = bytes
Target = Callable[[Case, np.random.Generator], None]
TOKENS = [
    b"", b"\0", b"\xff", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3", b"\xe2\x80\x8b", b"\xef\xbb\xbf", b"&amp;", b"&#0;",
    b"&#x110000;", b"&#xD800;", b"\\ud800", b"\\u0000", b"\\", b'"', b"'", b"<", b">", b"</", b"<!--", b"<![CDATA[", b"{",
    b"}", b"[", b"<img src=a alt='b'>", b"]", b":", b",", b"1e999", b"-0", b"NaN", b"IMG@/src", b"IMG@/srcset", b"\r\n",
    b"\r\n\r\n", b"\n", b"\t", b" ", b"Content-Length: 0", b"Transfer-Encoding: chunked", b"ffffffffffffffff",
    b"\x1f\x8b\x08\0", b"BZh9", b"[[", b"]]", b"{{", b"}}", b"{|", b"|}", b"==", b"'''", b"<ref>", b"<nowiki>", b"%", b"%00",
    b"%zz", b"http://", b"//", b"..", b"?", b"#", b"@", b":0", b"xn--", b"\xe7\x8c\xab", b"e\xcc\x81", b"\xc2\xad",
    b"\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7", b"St. Louis", b"dog-house", b"unavailable_after: ", b"noai", b"bot:",
    b"User-agent: *", b"Disallow: /", b"Crawl-delay: 1e9",
]  # fmt: skip


def damaged(data: bytes, chance: np.random.Generator, corpus: list[bytes]) -> bytes:
    """`data` after a few changes; now and then none."""
    out = bytearray(data)
    for _ in range(int(chance.integers(0, 6))):
        place, size = int(chance.integers(len(out) + 1)), int(chance.choice([0, 1, 2, 4, 16, 64]))
        other = corpus[int(chance.integers(len(corpus)))]
        start = int(chance.integers(len(other) + 1))
        new = [
            TOKENS[int(chance.integers(len(TOKENS)))],
            chance.bytes(size),
            bytes(out[place : place + size]) * 2,
            other[start : start + size],
            TOKENS[int(chance.integers(len(TOKENS)))] * int(chance.choice([2, 100, 3000])),
        ][int(chance.choice(5, p=[0.4, 0.2, 0.15, 0.2, 0.05]))]
        out[place : place + int(chance.integers(size + 1))] = new
        if chance.random() < 0.05:
            del out[place:]
    return bytes(out)


def as_text(data: bytes) -> str:
    """Any bytes as a string without half surrogates."""
    return data.decode("utf-8", "replace")


def fuzz_wat(case: Case, chance: np.random.Generator) -> None:
    """The compiled reader finds what a full JSON parser finds."""
    if wat.MARK not in case:
        return
    found, expected = wat.find([case]), wat.links(case)
    assert bool(found.readable[0]) == (expected is not None)
    if expected is not None:
        rows = [(link.url, dict(link.texts)) for link in expected[1]]
        wanted = [strings.valid(value) for url, of in rows for value in (url, of.get("alt", ""), of.get("title", ""))]
        assert found.pieces.to_pylist() == wanted
        assert found.bases[0] == expected[0]


def fuzz_records(case: Case, chance: np.random.Generator) -> None:
    """An archive is read to its end or refused, the same however its bytes are cut into pieces."""

    def told(size: int) -> list[tuple[int, bytes]] | None:
        pieces = (case[at : at + size] for at in range(0, len(case), size))
        try:
            return [(record.offset, record.block) for record in records.read("archive", pieces, b"response")]
        except InputError:
            return None

    assert told(1 << 20) == told(int(chance.integers(1, 5000)))


def fuzz_response(case: Case, chance: np.random.Generator) -> None:
    """A block of a response gives a page or none, and a page gives links; nothing raises."""
    page = responses.page(case)
    if page is not None:
        html = page.html or b""
        assert len(html) <= responses.MAX_PAGE_BYTES
        pages.links(pages.parse(pages.decode(html, page.charset)))


def fuzz_html(case: Case, chance: np.random.Generator) -> None:
    """Any bytes are a page; its links have URLs and texts that can be columns."""
    document = pages.parse(pages.decode(case))
    pages.base_href(document)
    pages.canonical_link(document)
    for link in pages.links(document):
        pa.array([strings.valid(link.url), *(strings.valid(value) for _, value in link.texts)], pa.string())


def fuzz_urls(case: Case, chance: np.random.Generator) -> None:
    """Canonical twice is canonical once; the column's way gives what the single one gives."""
    raw = [strings.valid(as_text(line)) for line in case.split(b"\n")[:50]]
    bases = ["https://example.org/a/b?c", raw[-1]]
    base_of = chance.integers(0, 2, len(raw))
    found, is_good = urls.canonical_all(pa.array(raw, pa.string()), bases, base_of)
    for value, good, url, base in zip(found.to_pylist(), is_good, raw, base_of, strict=True):
        alone = urls.canonical(url, bases[base])
        assert (alone is not None) == bool(good)
        if alone is not None:
            assert value == alone
            assert urls.canonical(alone) == alone
        urls.largest(url)


def fuzz_text(case: Case, chance: np.random.Generator) -> None:
    """Cleaning twice is cleaning once, the short cuts change nothing, a column is cleaned as its texts are."""
    raw = [as_text(line) for line in case.split(b"\n")[:30]]
    cleaned = text.clean_all(pa.array(raw, pa.string())).to_pylist()
    for one, value in zip(raw, cleaned, strict=True):
        assert value == text.clean(one[: text.MAX_RAW_CHARS])
        assert text.clean(value) == value == text.clean_fully(value)


def fuzz_rules(case: Case, chance: np.random.Generator) -> None:
    """The compiled rules say of a column what the plain ones say of each text."""
    cleaned = [text.clean(as_text(line)) for line in case.split(b"\n")[:30]]
    codes = RULES.reasons(pa.array(cleaned, pa.string()))
    assert [REASONS[code] if code < len(REASONS) else None for code in codes] == [RULES.reason(one) for one in cleaned]


def fuzz_matcher(case: Case, chance: np.random.Generator) -> None:
    """What is found is what a search for each query finds, in both modes."""
    lines = [strings.valid(as_text(line)) for line in case.split(b"\n")[:40]]
    words = [word for line in lines for word in line.split(" ")]
    spans = [(int(chance.integers(len(words) + 1)), int(chance.integers(1, 4))) for _ in range(40)]
    queries = [" ".join(words[start : start + size]) for start, size in spans] or [""]
    for mode in ("wit", "metaclip"):
        found = Matcher(queries, mode).find(pa.array(lines, pa.string())).to_pylist()
        if mode == "wit":
            wanted, padded = [normalize.wit(query) for query in queries], [f" {normalize.wit(line)} " for line in lines]
        else:
            wanted, padded = queries, [f" {' '.join(normalize.metaclip_words(line))} " for line in lines]
        keeps = [(i, f" {query} ") for i, query in enumerate(wanted) if query.strip(" ") or (mode == "metaclip" and query)]
        expected = [[i for i, query in keeps if query in line] for line in padded]
        if mode == "wit":
            assert found == expected
        else:  # a query of spaces alone is told by test_matcher
            blank = {i for i, query in enumerate(queries) if not query.strip(" ")}
            assert [[i for i in ids if i not in blank] for ids in found] == [
                [i for i in ids if i not in blank] for ids in expected
            ]


def fuzz_table(case: Case, chance: np.random.Generator) -> None:
    """A damaged table of queries is refused, or reads without leaving its arrays."""
    table = bytearray(query_table.build([as_text(line) for line in case.split(b"\n")[:20]] or ["a"], "wit"))
    for _ in range(int(chance.integers(0, 3))):
        table[int(chance.integers(len(table)))] = int(chance.integers(256))
    try:
        read = query_table.read(bytes(table))
    except query_table.TornTable:
        return
    Matcher.of_table(read, "wit").find(pa.array([as_text(case)[:2000]], pa.string()))


def fuzz_dump(case: Case, chance: np.random.Generator) -> None:
    """A dump is read whole or refused, and its wikitext becomes plain text."""
    try:
        for page in dumps.pages([case], "dump", is_first=True, is_last=True, max_page_chars=1 << 20):
            plain, reason = wikitext.plain_text(page.text or "")
            assert reason in (None, wikitext.TOO_DEEP)
            assert not (plain and reason)
    except InputError:
        return


def fuzz_views(case: Case, chance: np.random.Generator) -> None:
    """Page views are read the same however their bytes are cut, or refused."""

    def told(size: int) -> tuple[dict[str, int], int] | str:
        try:
            views = pageviews.read((case[at : at + size] for at in range(0, len(case), size)), "views", "en")
        except InputError as error:
            return str(error)
        return views.titles(), len(views.bad)

    assert told(1 << 20) == told(int(chance.integers(1, 300)))


def fuzz_wordnet(case: Case, chance: np.random.Generator) -> None:
    """A file of synsets is read or refused."""
    try:
        for lemmas in wordnet.synsets(as_text(case).split("\n"), "data.noun"):
            assert all(lemmas)
    except InputError:
        return


def fuzz_robots(case: Case, chance: np.random.Generator) -> None:
    """Any X-Robots-Tag and any robots.txt mean something."""
    from datetime import UTC, datetime

    from protego import Protego

    lines = [as_text(line) for line in case.split(b"\n")[:20]]
    robots.opts_out(lines, "wit-bot", ["noai", "noimageai", "none"], datetime(2026, 1, 1, tzinfo=UTC))
    Protego.parse(as_text(case[: robots.MAX_ROBOTS_BYTES])).can_fetch("https://e.org/a?b", "wit-bot")


def fuzz_listing(case: Case, chance: np.random.Generator) -> None:
    """What an archive is, is told from its first bytes, or it is refused."""
    try:
        archives.sniff("archive", case)
    except InputError:
        return


def corpora() -> dict[str, list[bytes]]:
    """What each target's cases are made from."""
    warc, wats = ((REAL / name).read_bytes() for name in ("whirlwind.warc.gz", "whirlwind.warc.wat.gz"))
    responses_ = [record.block for record in records.read("warc", iter([warc]), b"response")]
    blocks = [record.block for record in records.read("wat", iter([wats]), b"metadata")]
    links = [{"path": "IMG@/src", "url": "a.jpg?x=1&amp;y", "alt": 'a "red" é 😀 bicycle\n'}, {"path": "A@/href"}, 7]
    response = {"Response-Message": {"Status": "200"}, "HTML-Metadata": {"Head": {"Base": "/x"}, "Links": links * 3}}
    blocks.append(json.dumps({"Envelope": {"Payload-Metadata": {"HTTP-Response-Metadata": response}}}).encode())
    html = [
        b"<html><head><base href=/x><meta property=og:image content=b></head><img src=a.jpg alt='a red bicycle' srcset='b 2x'>"
    ]
    html.append(b"<figure><img data-src=c title=t><figcaption>a <b>cat</b></figcaption></figure>" * 5)
    captions = (
        "a (red) dog-house in St. Louis\nCafé &amp; CafÃ© 猫の写真 U.S.A.\nthe dog's bone, 20% off!\nمرحبا بالعالم\n".encode() * 4
    )
    addresses = (
        b"https://Example.org:443/a/../b?c#d\n//cdn.e.org/x.jpg\n/img/a b.jpg\n../c.png\ndata:image/gif;base64,R0\nhttp://[::1]/\n"
        * 3
    )
    wiki = [
        dump_writer.Article(
            "Dog", "A '''dog''' is {{nested|[[animal|pet]]}} [[File:x.jpg|thumb|a dog]]\n{| class=x\n| a || b\n|}\n<ref>r</ref>"
        )
    ]
    lines = [("en", "Dog", 12), ("en.m", "New_York", 3), ("de", "Hund", 1)]
    views = [
        gzip.decompress(dump_writer.hourly(lines)),
        bz2.decompress(dump_writer.complete([("en.wikipedia", "Dog", 5, "desktop", 7)])),
    ]
    synset = b"00001740 03 n 01 entity 0 003 ~ 00001930 n 0000 | that which is perceived  \n"
    manners = [
        b"User-agent: *\nDisallow: /x\nAllow: /x/y$\n",
        b"noai, bot: noindex, unavailable_after: 25 Jun 2010 15:00:00 PST\n",
    ]
    packed = [warc[:20000], gzip.decompress(warc)[:60000]]
    texts = [captions, *html]
    return {
        "wat": [block[:40000] for block in blocks], "records": packed, "response": [block[:60000] for block in responses_],
        "html": html + [block[:20000] for block in responses_], "urls": [addresses], "text": texts, "rules": texts,
        "matcher": texts, "table": [captions], "dump": [dump_writer.dump_xml(wiki * 3)], "views": views, "wordnet": [synset * 4],
        "robots": manners, "listing": [*packed, *html, wats[:2000]],
    }  # fmt: skip


TARGETS: dict[str, Target] = {
    name.removeprefix("fuzz_"): function for name, function in list(globals().items()) if name.startswith("fuzz_")
}
RULES = Rules(CrawlConfig())


def case_of(seed: int, target: str, number: int, corpus: list[bytes]) -> tuple[Case, np.random.Generator]:
    """Case `number` of a target, and the chance that its check draws from."""
    chance = np.random.default_rng([seed, sorted(TARGETS).index(target), number])
    return damaged(corpus[int(chance.integers(len(corpus)))], chance, corpus), chance


def run(target: str, seed: int, first: int, seconds: float, max_cases: int | None = None) -> int:
    """Run cases until the time or their number is over, and count them. What a case breaks is raised, after the case was told."""
    corpus, start = corpora()[target], time.monotonic()
    for number in itertools.count(first):
        if time.monotonic() - start > seconds or number - first == max_cases:
            return number - first
        case, chance = case_of(seed, target, number, corpus)
        began, held = time.process_time(), False
        try:
            TARGETS[target](case, chance)
            held = True
        finally:
            if not held:
                print(f"fuzz  {target}: --seed {seed} --first {number}, {len(case)} bytes: {case[:2000]!r}", file=sys.stderr)
        took = time.process_time() - began
        if took > MAX_CASE_SECONDS and number > first:  # the first case compiles
            raise AssertionError(f"--seed {seed} --first {number}, {len(case)} bytes, took {took:.1f} s: {case[:2000]!r}")
    raise AssertionError("count never ends")


def main() -> None:
    """Fuzz each target for its share of the time."""
    parser = argparse.ArgumentParser(description="Damaged bytes through every parser of the pipeline.")
    parser.add_argument("--seconds", type=float, default=300, help="for all targets together")
    parser.add_argument("--targets", nargs="*", choices=sorted(TARGETS), default=sorted(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    options = parser.parse_args()
    for target in options.targets:
        cases = run(target, options.seed, options.first, options.seconds / len(options.targets))
        print(f"fuzz  {target:10} {cases:9,} cases, no law broken", flush=True)


if __name__ == "__main__":
    main()
