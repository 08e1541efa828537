"""pipeline/pages.py, responses.py and wat.py: from bytes to image links."""

import gzip
import json
import time
import zlib

import brotli
import pytest

from pipeline import pages, responses, wat
from pipeline.pages import Link, decode


def links(html: str) -> list[Link]:
    return pages.links(pages.parse(html))


def url(html: str) -> str:
    (link,) = links(html)
    return link.url


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<img src="a.jpg">', "a.jpg"),
        ('<img src="a.jpg" srcset="b.jpg 2x">', "b.jpg"),
        ('<img src="a.jpg" data-srcset="b.jpg 200w, c.jpg 100w">', "b.jpg"),
        ('<img src="a.jpg" srcset="" data-srcset="b.jpg">', "b.jpg"),
        ('<img src="a.jpg" data-src="d.jpg" srcset="b.jpg 2x">', "b.jpg"),
        ('<img src="a.jpg" data-src=" " data-lazy-src="e.jpg" data-original="f.jpg">', "e.jpg"),
        ('<img src="a.jpg" data-original="f.jpg">', "f.jpg"),
        ('<img src="a.jpg?x=1&amp;y=2">', "a.jpg?x=1&y=2"),
        ("<img src=a.jpg alt>", "a.jpg"),
        ("<img>", ""),
    ],
)
def test_which_url_of_an_img_counts(html: str, expected: str) -> None:
    assert url(html) == expected


def test_links_come_in_document_order_from_everywhere_but_templates() -> None:
    html = """<head><meta property="og:image" content="0"></head><body><img src=1><noscript><img src=2></noscript>
        <picture><source srcset="no.webp"><img src=3></picture><template><img src=no></template>
        <meta property="og:image" content="4"><svg><image href="no"></svg><table><img src=5><tr><td></table><img src=6>"""
    assert [link.url for link in links(html)] == list("0123456")


def test_texts_are_alt_title_and_the_caption_of_the_nearest_figure() -> None:
    html = """<figure><div><img src=a alt="A" title="T"></div><figure><img src=b><figcaption>inner</figcaption></figure>
        <figcaption>out<b>er</b><br>line<script>x</script><p>two</p></figcaption></figure><img src=c>"""
    inner, outer = "inner", "outer line two"
    found = [{name: " ".join(text.split()) for name, text in link.texts} for link in links(html)]
    assert found[1:] == [{"alt": "", "title": "", "figcaption": inner}, {"alt": "", "title": "", "figcaption": ""}]
    assert found[0]["alt"] == "A"
    assert found[0]["title"] == "T"
    assert found[0]["figcaption"] == outer


def test_an_og_image_has_the_alt_that_follows_it_or_the_first_of_the_page() -> None:
    def meta(name: str, content: str) -> str:
        return f'<meta property="{name}" content="{content}">'

    image, alt = "og:image", "og:image:alt"
    first = (
        meta(image, "1")
        + meta("og:image:width", "9")
        + meta(alt, "one")
        + meta(image, "2")
        + meta(image, "3")
        + meta(alt, "three")
    )
    assert [link.texts for link in links(first)] == [[(alt, "one")], [(alt, "one")], [(alt, "three")]]
    assert [link.texts for link in links(meta(alt, "before") + meta(image, "1"))] == [[(alt, "before")]]
    assert links(meta(image, "1")) == [Link("1", [(alt, "")])]


PHRASE = "Äpfel & Öl"


@pytest.mark.parametrize(
    ("page", "charset"),
    [
        (PHRASE.encode(), None),
        (PHRASE.encode("cp1252"), None),  # undeclared and no UTF-8
        (PHRASE.encode("cp1252"), "ISO-8859-1"),
        (PHRASE.encode("utf-16-le"), "utf-16"),
        (b"\xff\xfe" + PHRASE.encode("utf-16-le"), "utf-8"),  # the mark wins over the header
        (b"\xfe\xff" + PHRASE.encode("utf-16-be"), None),
        (b"\xef\xbb\xbf" + PHRASE.encode(), "cp1252"),
        (b'<meta charset="mac">' + PHRASE.encode(), "utf-8"),  # the header wins over the meta
        (b'<meta charset="macintosh">' + PHRASE.encode("mac-roman"), None),
        (b'<META http-equiv=Content-Type content="text/html; charset=iso-8859-15">' + PHRASE.encode("iso8859-15"), "nonsense"),
        (b"<meta charset=utf-16>" + PHRASE.encode(), None),  # a meta that can be read is not in UTF-16
        (b"<meta charset=rot13>" + PHRASE.encode(), "base64"),  # no encodings of pages
    ],
)
def test_the_encoding_is_found_as_browsers_find_it(page: bytes, charset: str | None) -> None:
    assert decode(page, charset).endswith(PHRASE)


def test_asian_encodings_and_broken_bytes() -> None:
    assert decode("自転車".encode("shift_jis"), "Shift_JIS") == "自転車"
    assert decode("自行车".encode("gbk"), "gb2312") == "自行车"
    assert decode(b"<p>caf\xe9 bar", "utf-8") == "<p>caf\ufffd bar"
    assert decode("früh ä".encode()[:-1]) == "früh \ufffd"  # cut off in the middle of a letter: still UTF-8
    assert decode(b"ok", "x\0y") == "ok"


@pytest.mark.parametrize(
    "page", [b"", b"\0" * 100, b"<img" * 50, b"<img alt='" + b"\xff" * 50, b"<" * 1000, b"<!--<img>", bytes(range(256)) * 20]
)
def test_no_page_breaks_the_parser(page: bytes) -> None:
    for link in pages.links(pages.parse(decode(page))):
        assert isinstance(link.url, str)


def test_a_page_of_open_tags_is_read_up_to_a_limit() -> None:
    start = time.process_time()
    found = links("<img src=first>" + "<b></b>" * pages.MAX_TAGS + "<div>" * 300_000 + "<img src=last>")
    assert [link.url for link in found] == ["first"]
    assert time.process_time() - start < 10


@pytest.mark.parametrize("piece", ["<figure><img><figcaption>", "<figure>", "<img srcset='a 1x'>", "<figcaption>"])
def test_a_page_of_nested_figures_takes_little_time(piece: str) -> None:
    start = time.process_time()
    links("<figure>" + piece * 6000 + "x<img>")
    assert time.process_time() - start < 10


HTML = b"<!doctype html><img src=a.jpg alt='a red bicycle'>" * 20


def chunked(body: bytes) -> bytes:
    return (
        b"".join(b"%x;ext=1\r\n%s\r\n" % (len(body[i : i + 100]), body[i : i + 100]) for i in range(0, len(body), 100))
        + b"0\r\n\r\n"
    )


def block(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers]).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    "record",
    [
        block(HTML, "Content-Type: text/html"),
        block(HTML, "content-type: TEXT/HTML ; charset=utf-8"),
        block(HTML, "Content-Type: application/xhtml+xml"),
        block(HTML),  # no type: sniffed
        block(chunked(HTML), "Content-Type: text/html", "Transfer-Encoding: chunked"),
        block(HTML, "Content-Type: text/html", "Transfer-Encoding: chunked"),  # the crawler has unpacked it already
        block(gzip.compress(HTML), "Content-Type: text/html", "Content-Encoding: gzip"),
        block(HTML, "Content-Type: text/html", "Content-Encoding: gzip"),
        block(zlib.compress(HTML), "Content-Type: text/html", "Content-Encoding: deflate"),
        block(zlib.compress(HTML)[2:-4], "Content-Type: text/html", "Content-Encoding: deflate"),
        block(brotli.compress(HTML), "Content-Type: text/html", "Content-Encoding: br"),
        block(HTML, "Content-Type: text/html", "Content-Encoding: br"),
        block(chunked(gzip.compress(HTML)), "Content-Type: text/html", "Transfer-Encoding: chunked", "Content-Encoding: gzip"),
    ],
)
def test_a_page_is_unpacked_however_it_was_sent(record: bytes) -> None:
    page = responses.page(record)
    assert page is not None
    assert page.html == HTML


@pytest.mark.parametrize(
    "record",
    [
        block(HTML, "Content-Type: text/html", status="404 Not Found"),
        block(HTML, "Content-Type: text/html", status="2000 OK"),
        block(HTML, "Content-Type: image/jpeg"),
        block(b"\xff\xd8\xff\xe0" + HTML),
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html",
        b"",
        b"\0\xff" * 50,
    ],
)
def test_what_is_no_page_is_none(record: bytes) -> None:
    assert responses.page(record) is None


@pytest.mark.parametrize("coding", ["deflate", "zstd", "gzip, br"])
def test_a_page_that_cannot_be_unpacked_is_told(coding: str) -> None:
    assert responses.page(block(b"\x00\x01 no zlib, no HTML", "Content-Type: text/html", f"Content-Encoding: {coding}")) == (
        None,
        None,
    )


def test_a_small_body_does_not_become_a_huge_page() -> None:
    bomb = gzip.compress(b"<html>" + b"\0" * (responses.MAX_PAGE_BYTES * 4))
    page = responses.page(block(bomb, "Content-Type: text/html", "Content-Encoding: gzip"))
    assert page is not None
    assert page.html is not None
    assert len(page.html) == responses.MAX_PAGE_BYTES


def wat_record(entries: object, head: object = None, status: str = "200") -> bytes:
    response = {"Response-Message": {"Status": status}, "HTML-Metadata": {"Head": head or {}, "Links": entries}}
    return json.dumps({"Envelope": {"Payload-Metadata": {"HTTP-Response-Metadata": response}}}).encode()


def test_the_image_links_of_a_wat_record() -> None:
    entries = [
        {"path": "A@/href", "url": "x", "text": "IMG@/src"},
        {"path": "IMG@/src", "url": "a.jpg?x=1&amp;copy=2&copy=3", "alt": "A", "title": "T"},
        {"path": "IMG@/data-src", "url": "b.jpg"},
        {"path": "IMG@/srcset", "url": "c.jpg 1x, d.jpg 2x"},
        {"path": "IMG@/src", "alt": 7},
    ]
    assert wat.links(wat_record(entries, {"Base": "/base/"})) == (
        "/base/",
        [Link("a.jpg?x=1&copy=2&copy=3", [("alt", "A"), ("title", "T")]), Link("b.jpg", []), Link("d.jpg", []), Link("", [])],
    )
    assert wat.links(wat_record(entries, status="404")) == (None, [])


@pytest.mark.parametrize(
    "record",
    [
        b"IMG@",
        b'"IMG@/src"',
        b'["IMG@/src"]',
        b'{"Envelope": "IMG@/src"}',
        b'{"Envelope": ' * 5000 + b'"IMG@"',
        b"[" * 100_000 + b'"IMG@"',
        wat_record("IMG@/src"),
        wat_record(["IMG@/src", None, {"path": ["IMG@/src"]}, {"path": "IMG@"}]),
        wat_record([{"path": "IMG@/src"}])[:-3],
        b"9" * 10_000 + b'"IMG@"',
    ],
)
def test_no_wat_record_breaks_the_reader(record: bytes) -> None:
    found = wat.links(record)
    assert found is None or found[1] == []
    assert wat.find([record]).readable.tolist() == [found is not None]


def test_half_surrogates_and_broken_utf8_in_a_wat_record_cost_no_page() -> None:
    good = wat_record([{"path": "IMG@/src", "url": "a.jpg", "alt": "ABC"}])
    assert wat.links(good.replace(b"ABC", rb"A\ud800C")) == (None, [Link("a.jpg", [("alt", "A\ud800C")])])
    assert wat.links(good.replace(b"ABC", b"A\xffC")) == (None, [Link("a.jpg", [("alt", "A\ufffdC")])])
    blocks = [good.replace(b"ABC", rb"A\ud800C"), good, good.replace(b"ABC", b"A\xffC")]
    assert wat.find(blocks).pieces.to_pylist() == ["a.jpg", "A\ufffdC", "", "a.jpg", "ABC", "", "a.jpg", "A\ufffdC", ""]
