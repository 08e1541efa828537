"""What is fuzzed: for each parser of the pipeline, what its damaged cases are made of and the law that they must not break.

in      a case: bytes of a real format, damaged; the chance that the check may draw from
law     a target raises nothing but what its check found: InputError, the answer to hostile input, is caught where it may come
how     damage to packed or measured bytes is refused at once, which would test one check alone: records, JSON, dumps and tables
        are also made well-formed around damaged content, and then what went in must come out
"""

import asyncio
import bz2
import gzip
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from protego import Protego

from pipeline import (
    archives,
    dumps,
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
    wire,
    wordnet,
)
from pipeline.config import CrawlConfig
from pipeline.errors import InputError
from pipeline.matcher import Matcher
from pipeline.rules import REASONS, Rules
from tests.pipeline import dump_writer, test_bad_archives, test_jpeg, test_matcher, test_wat, test_wire

REAL = Path(__file__).parent / "data" / "commoncrawl"
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


@cache
def rules() -> Rules:
    """Made once: it holds a language model."""
    return Rules(CrawlConfig())


def fuzz_wat(case: Case, chance: np.random.Generator) -> None:
    """The compiled reader finds what a full JSON parser finds: in records of damaged values, half of them damaged themselves."""
    broken = "surrogateescape" if chance.random() < 0.3 else "replace"
    values = [case[at : at + 40].decode("utf-8", broken) for at in range(0, 400, 40)]
    paths = chance.choice(["IMG@/src", "IMG@/srcset", "IMG@/data-src", "A@/href"], size=5).tolist()
    links = [
        {"path": path, "url": url, "alt": alt, "title": values[0]}
        for path, url, alt in zip(paths, values[::2], values[1::2], strict=True)
    ]
    block = test_wat.record(links, head={"Base": values[-1]}, more={values[1]: [1.5, None, {values[2]: values[3]}]})
    if chance.random() < 0.5:
        block = damaged(block, chance, [case])
    test_wat.assert_found([block] if wat.MARK in block else [])


def fuzz_records(case: Case, chance: np.random.Generator) -> None:
    """Blocks come out of an archive as they went in; a damaged archive is refused or gives the same however it is cut."""
    blocks = [case[: len(case) // 3], case, b""]
    packed = [test_bad_archives.record(block, kind="response") for block in blocks]
    archive = b"".join([gzip.compress(one, 1) for one in packed] if chance.random() < 0.5 else packed)
    is_damaged = chance.random() < 0.5
    if is_damaged:
        archive = damaged(archive, chance, [case])

    def told(size: int) -> list[bytes] | None:
        pieces = (archive[at : at + size] for at in range(0, len(archive), size))
        try:
            return [record.block for record in records.read("archive", pieces, b"response")]
        except InputError:
            return None

    whole = told(1 << 20)
    assert whole == told(int(chance.integers(1, 5000)))
    assert is_damaged or whole == blocks


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
    codes = rules().reasons(pa.array(cleaned, pa.string()))
    assert [REASONS[code] if code < len(REASONS) else None for code in codes] == [rules().reason(one) for one in cleaned]


def fuzz_matcher(case: Case, chance: np.random.Generator) -> None:
    """What is found is what a search for each query finds, in both modes."""
    lines = [as_text(line) for line in case.split(b"\n")[:40]]
    words = [word for line in lines for word in line.split(" ")]
    spans = [(int(chance.integers(len(words))), int(chance.integers(1, 4))) for _ in range(40)]
    queries = [" ".join(words[start : start + size]) for start, size in spans]
    for mode in ("wit", "metaclip"):
        found = Matcher(queries, mode).find(pa.array(lines, pa.string())).to_pylist()
        assert found == test_matcher.oracle(queries, lines, mode)


def fuzz_table(case: Case, chance: np.random.Generator) -> None:
    """A table of queries in which numbers are changed, with a digest that fits, is refused or reads inside its arrays."""
    table = bytearray(query_table.build([as_text(line) for line in case.split(b"\n")[:20]], "wit"))
    size = query_table.HEADER.itemsize
    for _ in range(int(chance.integers(1, 3))):
        table[int(chance.integers(size, len(table)))] = int(chance.choice([0, 1, 2, 127, 255, int(chance.integers(256))]))
    header = np.frombuffer(bytes(table[:size]), query_table.HEADER).copy()
    header["sha256"] = query_table._digest(header, bytes(table[size:]))
    try:
        read = query_table.read(header.tobytes() + table[size:])
    except query_table.TornTable:
        return
    Matcher.of_table(read, "wit").find(pa.array([as_text(case)[:2000]], pa.string()))


def fuzz_dump(case: Case, chance: np.random.Generator) -> None:
    """Wikitext comes out of a dump as it went in and becomes plain text; a damaged dump is read or refused."""
    wanted = "".join(character for character in as_text(case) if character.isprintable() or character == "\n")
    data = dump_writer.dump_xml([dump_writer.Article("Dog", wanted), dump_writer.Article("Cat", "a cat")])
    is_damaged = chance.random() < 0.3
    if is_damaged:
        data = damaged(data, chance, [case])
    found: list[dumps.Page] = []
    try:
        found += dumps.pages([data], "dump", is_first=True, is_last=True, max_page_chars=1 << 20)
    except InputError:
        assert is_damaged
    assert is_damaged or [page.text for page in found] == [wanted, "a cat"]
    for page in found:
        plain, reason = wikitext.plain_text(page.text or "")
        assert reason in (None, wikitext.TOO_DEEP)
        assert not (plain and reason)


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
    lines = [as_text(line) for line in case.split(b"\n")[:20]]
    robots.opts_out(lines, "wit-bot", ["noai", "noimageai", "none"], datetime(2026, 1, 1, tzinfo=UTC))
    Protego.parse(as_text(case[: robots.MAX_ROBOTS_BYTES])).can_fetch("https://e.org/a?b", "wit-bot")


def fuzz_listing(case: Case, chance: np.random.Generator) -> None:
    """What an archive is, is told from its first bytes, or it is refused."""
    try:
        archives.sniff("archive", case)
    except InputError:
        return


def fuzz_jpeg(case: Case, chance: np.random.Generator) -> None:
    """A JPEG that the reader of usual ones takes, libjpeg-turbo takes too."""
    data = test_jpeg.damaged(case, chance) if len(case) > 2000 and chance.integers(2) else case
    assert not test_jpeg.check(data, (int(chance.integers(16, 180)), int(chance.integers(16, 130))))


def fuzz_wire(case: Case, chance: np.random.Generator) -> None:
    """An answer is the same in any pieces, or it is broken in any."""

    def told(pieces: list[bytes]) -> tuple[int, bytes] | None:
        outcome = None
        try:
            connection, body = asyncio.run(test_wire.hear(pieces, ends=True))
            outcome = connection.status, body
        except* OSError:
            pass
        return outcome

    data = bytes(case[: wire.MAX_FRAME_BYTES])
    assert told([data]) == told(test_wire.pieces_of(data, chance))


def corpora() -> dict[str, list[bytes]]:
    """What each target's cases are made from."""
    warc, wats = ((REAL / name).read_bytes() for name in ("whirlwind.warc.gz", "whirlwind.warc.wat.gz"))
    real = [record.block[:60_000] for record in records.read("warc", iter([warc]), b"response")]
    real_json = [record.block for record in records.read("wat", iter([wats]), b"metadata")]
    html = [
        b"<html><head><base href=/x><meta property=og:image content=b></head><img src=a.jpg alt='a red bicycle' srcset='b 2x'>",
        b"<figure><img data-src=c title=t><figcaption>a <b>cat</b></figcaption></figure>" * 5,
    ]
    captions = "a (red) dog-house in St. Louis\nCafé &amp; CafÃ© 猫の写真 U.S.A.\nthe dog's bone, 20% off!\nمرحبا بالعالم\n"
    texts = [captions.encode() * 4, *html]
    addresses = b"https://Example.org:443/a/../b?c#d\n//cdn.e.org/x.jpg\n/img/a b.jpg\n../c.png\ndata:image/gif;base64,R0\n"
    wiki = b"A '''dog''' is {{nested|[[animal|pet]]}} [[File:x.jpg|thumb|a dog]]\n{| class=x\n| a || b\n|}\n<ref>r</ref>\n"
    lines = [("en", "Dog", 12), ("en.m", "New_York", 3), ("de", "Hund", 1)]
    complete = dump_writer.complete([("en.wikipedia", "Dog", 5, "desktop", 7)])
    synset = b"00001740 03 n 01 entity 0 003 ~ 00001930 n 0000 | that which is perceived  \n"
    manners = [
        b"User-agent: *\nDisallow: /x\nAllow: /x/y$\n",
        b"noai, bot: noindex, unavailable_after: 25 Jun 2010 15:00:00 PST\n",
    ]
    return {
        "wat": [*real_json, texts[0], addresses * 3], "records": [*real_json, *html, real[0][:5000]], "response": real,
        "html": [*html, *(block[:20_000] for block in real)], "urls": [addresses * 3 + b"http://[::1]/"], "text": texts,
        "rules": texts, "matcher": texts, "table": [texts[0]], "dump": [wiki * 3], "wordnet": [synset * 4], "robots": manners,
        "views": [gzip.decompress(dump_writer.hourly(lines)), bz2.decompress(complete)],
        "jpeg": test_jpeg.whole_files(), "wire": [*test_wire.ANSWERS.values()],
        "listing": [warc, gzip.decompress(warc)[:60_000], *html, wats[:2000]],
    }  # fmt: skip


TARGETS: dict[str, Target] = {
    name.removeprefix("fuzz_"): function for name, function in list(globals().items()) if name.startswith("fuzz_")
}
