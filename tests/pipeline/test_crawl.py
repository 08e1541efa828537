"""pipeline/crawl.py: from an archive to labelled rows."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import crawl, schema
from pipeline.config import CrawlConfig
from pipeline.errors import InputError
from pipeline.hashing import pair_id

REAL = Path(__file__).parent.parent / "data" / "commoncrawl"


@pytest.fixture(scope="module")
def worker() -> crawl.Worker:
    return crawl.Worker(CrawlConfig(), {})


def rows(worker: crawl.Worker, path: Path, kind: str) -> list[dict]:
    table = worker(
        pa.table({"archive": [str(path)], "format": [kind], "archive_bytes": [path.stat().st_size]}, schema=schema.SOURCES)
    )
    assert table.schema == schema.CANDIDATES.append(schema.DROP)
    for row in table.to_pylist():
        assert row["pair_id"] == pair_id(row["image_url"], row["text"])
        assert row["archive"] == str(path)
        assert row["drop"] in (None, *crawl.REASONS)
    return table.to_pylist()


def brief(found: list[dict]) -> list[tuple]:
    return [(row["link_index"], row["attribute"], row["text"], row["image_url"], row["drop"]) for row in found]


def member(kind: str, url: str, block: bytes) -> bytes:
    about = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nContent-Type: application/json\r\n"
    head = f"{about}Content-Length: {len(block)}\r\n\r\n"
    return gzip.compress(head.encode() + block + b"\r\n\r\n")


def response(url: str, html: str | bytes, headers: str = "Content-Type: text/html; charset=utf-8") -> bytes:
    body = html if isinstance(html, bytes) else html.encode()
    return member("response", url, f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode() + body)


def wat_response(url: str, links: list[dict], base: str | None = None) -> bytes:
    html = {"Head": {"Base": base} if base else {}, "Links": links}
    payload = {"HTTP-Response-Metadata": {"Response-Message": {"Status": "200"}, "HTML-Metadata": html}}
    return member("metadata", url, json.dumps({"Envelope": {"Payload-Metadata": payload}}).encode())


def test_every_link_of_a_real_page_has_its_fate(worker: crawl.Worker) -> None:
    upload = "https://upload.wikimedia.org/wikipedia/commons/thumb"
    church = f"{upload}/a/aa/Iglesia_de_Nuestra_Se%C3%B1ora_de_la_Asunci%C3%B3n._Escopete_%28Guadalajara%29.jpg"
    church_file = "px-Iglesia_de_Nuestra_Se%C3%B1ora_de_la_Asunci%C3%B3n._Escopete_%28Guadalajara%29.jpg"
    static = "https://an.wikipedia.org/static/images"
    found = rows(worker, REAL / "whirlwind.warc.gz", "warc")
    assert {(row["page_url"], row["record_offset"]) for row in found} == {("https://an.wikipedia.org/wiki/Escopete", 1023)}
    assert brief(found) == [
        # three og:image without og:image:alt
        (0, "", "", f"{church}/1200{church_file}", "no_text"),
        (1, "", "", f"{church}/800{church_file}", "no_text"),
        (2, "", "", f"{church}/640{church_file}", "no_text"),
        # the 13 <img, on 11 lines of the page
        (3, "", "", f"{static}/icons/wikipedia.png", "no_text"),
        (4, "alt", "Biquipedia", f"{static}/mobile/copyright/wikipedia-wordmark-an.svg", None),
        (5, "alt", "A enciclopedia libre", f"{static}/mobile/copyright/wikipedia-tagline-an.svg", None),  # three words: not sure
        (6, "", "", f"{upload}/3/37/Translate_icon.svg/70px-Translate_icon.svg.png", "no_text"),
        (
            *(7, "alt", "Escudo d'armas"),
            f"{upload}/0/0a/Escudo_de_Escopete_%28Guadalajara%29.svg/140px-Escudo_de_Escopete_%28Guadalajara%29.svg.png",
            None,
        ),
        (8, "", "", f"{church}/500{church_file}", "no_text"),
        (9, "", "", f"{upload}/9/9a/Flag_of_Spain.svg/36px-Flag_of_Spain.svg.png", "no_text"),
        (10, "", "", f"{upload}/d/d4/Bandera_Castilla-La_Mancha.svg/36px-Bandera_Castilla-La_Mancha.svg.png", "no_text"),
        (
            *(11, "alt", "Escopete ubicada en Castiella-La Mancha"),
            f"{upload}/9/9c/Castilla-La_Mancha-loc.svg/500px-Castilla-La_Mancha-loc.svg.png",
            "language",
        ),
        (12, "alt", "Escopete", f"{upload}/d/d2/Map_pointer.svg/24px-Map_pointer.svg.png", None),
        (13, "", "", "https://login.wikimedia.org/wiki/Special:CentralAutoLogin/start?type=1x1", "no_text"),  # in noscript
        (14, "alt", "Wikimedia Foundation", f"{static}/footer/wikimedia-button-2x.png", None),
        (15, "alt", "Powered by MediaWiki", f"{static}/footer/poweredby_mediawiki_176x62.png", None),
    ]
    assert gzip.decompress((REAL / "whirlwind.warc.gz").read_bytes()).count(b"<img") == 13


def test_a_real_wat_of_a_request_has_no_links(worker: crawl.Worker) -> None:
    assert rows(worker, REAL / "whirlwind.warc.wat.gz", "wat") == []


def test_rows_of_html_pages(worker: crawl.Worker, tmp_path: Path) -> None:
    html = """<base href="/pics/"><img src="a.png#x" alt="a red &amp;amp; blue bicycle" title=" ">
        <figure><img srcset="b.png 1x, b2.png 2x" alt="two old bicycles" title="image">
        <figcaption>Bicycles in a park</figcaption></figure>
        <img src="data:image/gif;base64,R0lGOD==" alt="a green tree"><img src="" alt="logo"><img src="http://[" alt="">
        <img src="c.png" alt="12345678">"""
    path = tmp_path / "a.warc.gz"
    path.write_bytes(response("<https://e.org/x/page.html>", html) + member("request", "https://e.org/x", b"GET /"))
    found = rows(worker, path, "warc")
    assert {row["page_url"] for row in found} == {"https://e.org/x/page.html"}
    assert brief(found) == [
        (0, "alt", "a red & blue bicycle", "https://e.org/pics/a.png", None),
        (1, "alt", "two old bicycles", "https://e.org/pics/b2.png", None),
        (1, "title", "image", "https://e.org/pics/b2.png", "boilerplate"),
        (1, "figcaption", "Bicycles in a park", "https://e.org/pics/b2.png", None),
        (2, "alt", "a green tree", "data:image/gif;base64,R0lGOD==", "bad_url"),
        (3, "alt", "logo", "", "bad_url"),  # before too_short and boilerplate
        (4, "", "", "http://[", "no_text"),  # before bad_url
        (5, "alt", "12345678", "https://e.org/pics/c.png", "no_letters"),
    ]


def test_rows_of_wat_records(worker: crawl.Worker, tmp_path: Path) -> None:
    links = [
        {"path": "A@/href", "url": "x"},
        {
            "path": "IMG@/src",
            "url": "a.png?x=1&amp;y=2",
            "alt": "a red bicycle",
            "title": "Ein rotes Fahrrad steht vor dem alten Haus",
        },
        {"path": "IMG@/src", "url": "b.png"},
        {"path": "IMG@/src", "url": "c\ud800.png", "alt": "a half \ud800 surrogate"},
    ]
    path = tmp_path / "a.wat.gz"
    page, plain = wat_response("https://e.org/x/1", links, "../y/"), wat_response("https://e.org/x/2", links[2:3])
    path.write_bytes(page + plain)
    found = rows(worker, path, "wat")
    assert brief(found) == [
        (0, "alt", "a red bicycle", "https://e.org/y/a.png?x=1&y=2", None),
        (0, "title", "Ein rotes Fahrrad steht vor dem alten Haus", "https://e.org/y/a.png?x=1&y=2", "language"),
        (1, "", "", "https://e.org/y/b.png", "no_text"),
        (2, "alt", "a half \ufffd surrogate", "https://e.org/y/c%EF%BF%BD.png", None),  # as browsers read it
        (0, "", "", "https://e.org/x/b.png", "no_text"),
    ]
    assert [row["record_offset"] for row in found] == [0, 0, 0, 0, len(page)]


def test_an_html_file_knows_its_page_by_its_canonical_link(worker: crawl.Worker, tmp_path: Path) -> None:
    path = tmp_path / "saved page.html"
    path.write_text('<link rel="canonical" href="https://e.org/x/"><img src="a.png" alt="a red bicycle">')
    assert brief(rows(worker, path, "html")) == [(0, "alt", "a red bicycle", "https://e.org/x/a.png", None)]
    path.write_text(
        '<img src="a.png" alt="a red bicycle"><img src="//e.org/b.png" alt="a red bicycle"><img src="http://e.org/c.png" alt="x">'
    )
    found = rows(worker, path, "html")
    assert [row["drop"] for row in found] == ["bad_url", "bad_url", "too_short"]
    assert {(row["page_url"], row["record_offset"]) for row in found} == {(path.as_uri(), -1)}


def test_encodings_of_pages(worker: crawl.Worker, tmp_path: Path) -> None:
    html = '<meta charset="windows-1252"><img src=a.png alt="Café sign in the old town">'
    utf8, latin = html.encode(), html.encode("cp1252")
    path = tmp_path / "a.warc.gz"
    header = "Content-Type: text/html"
    path.write_bytes(
        response("http://e.org/1", latin, header) + response("http://e.org/2", utf8) + response("http://e.org/3", utf8, header)
        + response("http://e.org/4", latin)
    )  # fmt: skip
    good, broken = "Café sign in the old town", "Caf\ufffd sign in the old town"
    assert [row["text"] for row in rows(worker, path, "warc")] == [good, good, good, broken]  # the third is mended by ftfy


@pytest.mark.parametrize("seed", range(3))
def test_a_fate_does_not_depend_on_how_archives_are_split(worker: crawl.Worker, tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    words = [
        "a",
        "red",
        "bicycle",
        "ein",
        "rotes",
        "Fahrrad",
        "&amp;",
        "12",
        "logo",
        "Ã©",
        "улица",
        "zzzzzzzzzzzz",
        "in",
        "the",
        "park",
    ]
    pages = []
    for number in range(12):
        images = "".join(
            f'<img src="{rng.integers(5)}.png" alt="{" ".join(rng.choice(words, size=rng.integers(0, 8)).tolist())}">'
            for _ in range(5)
        )
        pages.append(response(f"http://e.org/{number}/", images))

    def fates(groups: list[list[bytes]]) -> list[tuple]:
        found = []
        for number, group in enumerate(groups):
            path = tmp_path / f"{len(groups)}-{number}.warc.gz"
            path.write_bytes(b"".join(group))
            found += [
                (row["page_url"], row["pair_id"], row["attribute"], row["link_index"], row["drop"])
                for row in rows(worker, path, "warc")
            ]
        return sorted(found)

    whole = fates([pages])
    assert len(whole) == 60
    assert fates([pages[:1], pages[1:7], pages[7:]]) == whole
    assert fates([[page] for page in rng.permutation(np.array(pages, object)).tolist()]) == whole


def test_a_record_that_cannot_be_read_does_not_stop_the_archive(worker: crawl.Worker, tmp_path: Path) -> None:
    good = wat_response("http://e.org/1", [{"path": "IMG@/src", "url": "a.png", "alt": "a red bicycle"}])
    path = tmp_path / "a.wat.gz"
    broken = member("metadata", "http://e.org/2", b'{"Envelope": {"IMG@/src')
    path.write_bytes(good + broken + good)
    found = rows(worker, path, "wat")
    assert [row["drop"] for row in found] == [None, "bad_record", None]
    assert [found[1][name] for name in ("page_url", "record_offset", "link_index", "image_url", "text", "attribute")] == [
        *("http://e.org/2", len(good), -1),
        *("", "", ""),
    ]
    path = tmp_path / "a.warc.gz"
    html = "<img src=a.png alt='a red bicycle'>"
    broken = response("http://e.org/2", b"\x1f\x8bbroken", "Content-Type: text/html\r\nContent-Encoding: gzip")
    path.write_bytes(response("not a url", html) + broken + response("http://e.org/3", html))
    assert [row["drop"] for row in rows(worker, path, "warc")] == ["bad_url", "bad_record", None]


@pytest.mark.parametrize(("name", "kind"), [("whirlwind.warc.gz", "warc"), ("whirlwind.warc.wat.gz", "wat")])
def test_an_archive_that_is_cut_off_gives_no_rows(worker: crawl.Worker, tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    path.write_bytes((REAL / name).read_bytes()[:-1])
    with pytest.raises(InputError, match="ends in the middle of a record"):
        rows(worker, path, kind)


def test_no_sources_give_no_rows_and_wrong_columns_are_told(worker: crawl.Worker) -> None:
    assert worker(schema.SOURCES.empty_table()).num_rows == 0
    with pytest.raises(ValueError, match="crawl: no column 'archive'"):
        worker(pa.table({"path": ["a"]}))
