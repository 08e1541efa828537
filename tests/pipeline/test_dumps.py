"""Wikipedia's XML, and the text in its wikitext."""

import bz2
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import dumps, normalize, wikitext
from pipeline.errors import InputError
from tests.pipeline.dump_writer import HEAD, Article, dump_xml, page_xml

PAGES = [
    Article("Dog & <cat>", "A 'dog' & a <b>cat</b>\nnext line"),
    Article("Perro", redirect='Dog "x"'),
    Article("Template:Dog", "in a template", 10),
    Article("Empty"),
    Article("Style", "a {}", model="sanitized-css"),
    Article("École", "naïve 狗 " * 5000),
]


def read(data: bytes, block_bytes: int = 1 << 20, **more: object) -> list[dumps.Page]:
    options = {"is_first": True, "is_last": True, "max_page_chars": 1 << 20} | more
    return list(dumps.pages((data[at : at + block_bytes] for at in range(0, len(data), block_bytes)), "file", **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("block_bytes", [3, 1000, 1 << 20])
def test_every_page_comes_out_as_it_went_in(block_bytes: int) -> None:
    found = read(dump_xml(PAGES), block_bytes)
    assert [(page.title, page.text, int(page.namespace), page.redirect, page.model) for page in found] == [
        tuple(p) for p in PAGES
    ]


def test_a_piece_between_two_pages_is_read_without_its_head_and_tail() -> None:
    text = "".join(page_xml(*item) for item in enumerate(PAGES)).encode()
    assert read(text, is_first=False, is_last=False) == read(dump_xml(PAGES))
    with pytest.raises(InputError, match="is not a whole Wikipedia XML dump"):
        read(text + b"</mediawiki>", is_first=False, is_last=False)


def test_of_several_revisions_the_last_counts() -> None:
    first, second = (page_xml(0, Article("Dog", text)) for text in ("old", "new"))
    revision = first[first.index("    <revision>") : first.index("  </page>")]
    page = second.replace("    <revision>", revision + "    <revision>", 1)
    assert [page.text for page in read((HEAD + page + "</mediawiki>").encode())] == ["new"]


def test_a_page_over_the_cap_has_no_text_and_the_others_keep_theirs() -> None:
    pages = read(dump_xml([Article("Long", "x" * 101), Article("Just", "x" * 100)]), max_page_chars=100)
    assert [(page.title, page.text) for page in pages] == [("Long", None), ("Just", "x" * 100)]


def test_a_dump_that_is_cut_anywhere_is_always_noticed() -> None:
    data = dump_xml(PAGES[:3]).rstrip()
    for end in range(len(data)):
        with pytest.raises(InputError, match=r"file is not a whole Wikipedia XML dump: .*; fetch it again"):
            read(data[:end], 1 << 20)


def test_what_is_no_dump_is_one_clear_error() -> None:
    bomb = b'<!DOCTYPE m [<!ENTITY a "' + b"a" * 1000 + b'"><!ENTITY b "' + b"&a;" * 1000 + b'">]><mediawiki>&b;</mediawiki>'
    cases = {
        "begins with <html>": b"<html><body/></html>",
        "declares a document type": bomb,
        "nest deeper than 32": b"<mediawiki>" + b"<a>" * 100,
        "not well-formed": dump_xml(PAGES).replace(b"next", b"\x00"),
        "invalid token": dump_xml(PAGES).replace(b"next", b"\xed\xa0\x80"),
        "a tag is longer than": b'<mediawiki a="' + b"x" * (20 << 20),
    }
    for message, data in cases.items():
        with pytest.raises(InputError, match=message):
            read(data)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_a_damaged_dump_gives_its_pages_or_an_input_error(data: st.DataObject) -> None:
    whole = bytearray(dump_xml(PAGES[:3]))
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=4)):
        whole[at] = value
    try:
        assert len(read(bytes(whole), data.draw(st.integers(1, 500)))) <= 3
    except InputError as error:
        assert "queries: file is not a whole Wikipedia XML dump" in str(error)  # noqa: PT017


def plain(text: str) -> str:
    found, reason = wikitext.plain_text(text)
    assert reason is None
    return " ".join(found.split())


def test_of_wikitext_stays_what_a_reader_sees() -> None:
    cases = {
        "'''Dogs''' are [[animal]]s, see [[Canis lupus|wolves]].": "'''Dogs''' are animals, see wolves.",
        "a{{cite|b=[[c]]|{{d}}}}e": "a e",
        "a<ref name=x>b</ref>c<ref name=y />d<ref>{{e|}}</ref>": "a c d",
        "a<!-- b -->c<!-- never closed": "a c",
        "== History ==\n* one\n# two\n:: three": "History one two three",
        "[[File:Dog.jpg|thumb|A [[big]] dog]]A dog[[Category:Dogs]]": "A dog",
        "[[:Category:Dogs]] [[fr:Chien]] [[Talk: it over|x]] [[re:Zero|y]] [[CSI: NY]]": ":Category:Dogs x y CSI: NY",
        "[http://a.example/b the site] and http://c.example/d?e end": "the site] and end",
        "x\n{| class=wikitable\n|-\n! a\n| b || c\n{|\n| inner\n|}\n|}\ny": "x y",
        "fish &amp; chips&nbsp;&eacute; &#xD800; &#0; &bogus;": "fish & chips é &#0; &bogus;",
        "a<br/>b <span class=x>c</span> <math>x^2</math><gallery>\nFile:a.jpg|d\n</gallery>": "a b c",
        "open {{ and [[ and {| and <ref> stay": "open and and and stay",
        "]] }} |} </ref> lone ends": "|} lone ends",
        "__NOTOC__ text": "text",
    }
    for text, expected in cases.items():
        got = plain(text)
        assert normalize.wit(got) == normalize.wit(expected), (text, got)


def test_disambiguation_pages_are_known_by_title_template_category_or_magic_word() -> None:
    yes = [
        ("Mercury (disambiguation)", ""), ("Mercury", "{{disambiguation}}"), ("Mercury", "x {{ Disambig|geo}}"), 
        ("M", "{{hndis|x}}"),        ("M", "{{Human name disambiguation}}"), ("M", "{{dab}}"), ("M", "__DISAMBIG__"),
        ("M", "[[Category:Place name disambiguation pages]]"),
    ]  # fmt: skip
    no = [("Mercury (planet)", "The planet"), ("M", "{{about|x|y|M (disambiguation)}}"), ("Word-sense disambiguation", "a task")]
    assert all(wikitext.is_disambiguation(*page) for page in yes)
    assert not any(wikitext.is_disambiguation(*page) for page in no)


UNITS = (
    "{{", "{{a|", "{{{a|", "[[", "[[a|", "[[a|[[b|]]", "[http://a ", "[//a ", "[", "<ref>", "<b", '<b a="', "\n{|", "\n{|\n|-\n",
    "<!--", "&amp", "&#x", "\n== a", "\n;a:", "''", "{{a}}", "]]", "}}", "\n|}", "</ref>", "{{a|[[b|<ref>", "[[x{{y}}|",
    "http://", "__A", "[[a:", "\n:*#;", "[[a]]", "<nowiki>", "a [[", "\n=", "{{disambig ", "[[Category:a ",
)  # fmt: skip
MARKUP = (
    "{{", "}}", "[[", "]]", "{|", "|}", "\n", "|", "=", "<ref>", "</ref>", "<!--", "-->", "'''", "dog", " ", ":", "[", "]", "http://a",
    "&", "amp;", "#xD800;", "<", ">", "/", "\x00", "\ud800", "File:",
)  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
def test_no_page_however_written_takes_more_than_time_in_proportion(unit: str) -> None:
    """Some of these take the library alone minutes; the bound is wide, for a busy machine."""
    text = unit * (30_000 // len(unit))
    started = time.process_time()
    _, reason = wikitext.plain_text(text)
    wikitext.is_disambiguation("M", text)
    assert time.process_time() - started < 10
    assert reason in (None, wikitext.TOO_DEEP)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(MARKUP)))
def test_any_wikitext_gives_a_text_no_longer_than_it(parts: list[str]) -> None:
    text, reason = wikitext.plain_text("".join(parts))
    assert reason is None
    assert len(text) <= 2 * sum(map(len, parts)) + 1
    text.encode("utf-8", "replace")


def test_a_real_dump_in_bzip2_is_read_block_by_block() -> None:
    rng = np.random.default_rng(0)
    pages = [Article(f"T{i}", " ".join(rng.choice(["dog", "cat", "[[fish]]"], 50))) for i in range(200)]
    data = bz2.decompress(bz2.compress(dump_xml(pages)))
    assert [page.title for page in read(data, 777)] == [page.title for page in pages]
