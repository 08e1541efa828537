"""pipeline/wat.py and wat_kernel.py: the links in the bytes are those that a full JSON parser finds, whatever the bytes."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import strings, wat

KEYS = st.sampled_from(
    [
        "Envelope",
        "Payload-Metadata",
        "HTTP-Response-Metadata",
        "Response-Message",
        "HTML-Metadata",
        "Status",
        "Head",
        "Links",
        "Base",
    ]
)
TEXTS = st.one_of(
    st.text(max_size=12), st.sampled_from(["200", "404", "IMG@/src", "IMG@/srcset", 'a"b\\c', "</a>", "&amp;", "\ud800", "é😀"])
)
LINKS = st.lists(
    st.one_of(
        st.dictionaries(
            st.sampled_from(["path", "url", "alt", "title", "text"]),
            st.one_of(TEXTS, st.sampled_from(["IMG@/src", "IMG@/srcset", "IMG@/data-src", "A@/href"]), st.none(), st.integers()),
        ),
        TEXTS,
        st.lists(st.integers(), max_size=2),
    ),
    max_size=5,
)
ANY = st.recursive(
    st.one_of(TEXTS, st.none(), st.booleans(), st.integers(), st.floats(allow_nan=True)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(KEYS, TEXTS), inner, max_size=3)),
    max_leaves=8,
)
PIECE_LIST = rb"""
    "IMG@/src" " \ \u00e9 \ud83d\ude00 \ud800 { } [ ] , : 1e5 -0.5 01 true nul "Links": "path": "url":"x"
"""
PIECES = [*PIECE_LIST.split(), b"\xc3\xa9", b"\xff", b"\xed\xa0\x80", b"\0", b"\n", b" "]


def record(links: object, *, head: object = None, status: object = "200", more: object = None) -> bytes:
    response = {"Response-Message": {"Status": status}, "HTML-Metadata": {"Head": head, "Links": links}, "Headers": more}
    value = {"Container": more, "Envelope": {"Format": more, "Payload-Metadata": {"HTTP-Response-Metadata": response}}}
    return json.dumps(value).encode()


def assert_found(blocks: list[bytes]) -> None:
    """What `find` says of these records is what the full parser says of each."""
    found = wat.find(blocks)
    pieces = np.array(found.pieces.to_pylist(), object).reshape(-1, 3)
    for number, block in enumerate(blocks):
        expected = wat.links(block)
        mine = pieces[found.record == number].tolist()
        assert found.readable[number] == (expected is not None)
        if expected is None:
            assert mine == [["", "", ""]]
            continue
        base, links = expected
        assert found.bases[number] == base
        texts = [dict(link.texts) for link in links]
        both = [[link.url, text.get("alt", ""), text.get("title", "")] for link, text in zip(links, texts, strict=True)]
        assert mine == [[strings.valid(value) for value in row] for row in both]


STATUS = st.sampled_from(["200", 200, "404", None, "", ["200"]])
BASES = st.one_of(st.none(), st.fixed_dictionaries({"Base": TEXTS}))


@settings(max_examples=120, deadline=None)
@given(st.lists(st.builds(record, LINKS, head=BASES, status=STATUS, more=ANY), min_size=1, max_size=4))
def test_links_of_well_formed_records_are_those_of_a_full_parser(blocks: list[bytes]) -> None:
    assert_found([block for block in blocks if wat.MARK in block])


@settings(max_examples=300, deadline=None)
@given(LINKS.filter(lambda links: "IMG@" in json.dumps(links)), ANY, st.data())
def test_links_of_damaged_records_are_those_of_a_full_parser(links: list, more: object, data: st.DataObject) -> None:
    block = json.dumps(json.loads(record(links, more=more)), ensure_ascii=data.draw(st.booleans())).encode(
        "utf-8", "surrogatepass"
    )
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(block)))
        block = block[:place] + data.draw(st.sampled_from(PIECES)) + block[place + data.draw(st.integers(0, 4)) :]
    if wat.MARK in block:
        assert_found([block])


def test_an_ordinary_record_needs_no_full_parser() -> None:
    links = [{"path": "IMG@/src", "url": "a.jpg?x=1&amp;y", "alt": 'a "red" \u00e9 \U0001f600 bicycle\n'}, {"path": "A@/href"}, 7]
    assert wat._scan([record(links, head={"Base": "/x", "Title": "t"}, more={"n": [1, -2.5, True, None, {}]})])[3].tolist() == []


@pytest.mark.parametrize(
    "change",
    [
        (b'"path"', b'"p\\u0061th"'),  # keys that only look different
        (b'"Links"', b'"Links":[],"Links"'),  # the last of equal keys counts
        (b'"url"', b'"url":"first","url"'),
        (b'"alt": "A"', b'"alt": "\\ud83d\\ude00 \\u00e9 \\/ \\n"'),
        (b'"alt": "A"', b'"alt": "\\ude00\\ud83d"'),
        (b'"alt": "A"', b'"alt": "\xf0\x9f\x98\x80\xf4\x90\x80\x80\xe0\x80\x80"'),
        (b'"alt": "A"', b'"alt": "tab\there"'),
        (b'"alt": "A"', b'"alt": "A",'),
        (b'"alt": "A"', b'"alt": "A", "n": NaN'),
        (b'"alt": "A"', b'"alt": "A", "n": 1E400'),
        (b'"alt": "A"', b'"alt": "A", "n": ' + b"7" * 5000),
        (b'"alt": "A"', b'"alt": "A", "n": ' + b"[" * 900 + b"]" * 900),
        (b'"alt": "A"', b'"alt": "A", "n": ' + b"[" * 200_000),
        (b"IMG@/src", b"IMG@\\/src"),
        (b'"Envelope"', b'"Envelope": 1, "Envelope"'),
        (b"{", b"\xef\xbb\xbf{"),
    ],
)
def test_unusual_json_is_read_as_a_full_parser_reads_it(change: tuple[bytes, bytes]) -> None:
    good = record([{"path": "IMG@/src", "url": "a.jpg", "alt": "A"}], head={"Base": "/x/\u00e9"})
    bad = good.replace(*change, 1)
    assert bad != good
    assert_found([bad])
    assert_found([good, bad, good])


def test_a_page_of_many_links_and_a_text_of_a_megabyte_are_read_in_order() -> None:
    links = [{"path": "IMG@/src", "url": f"{i}.jpg", "alt": "x" * (1_000_000 if i == 7 else i % 3)} for i in range(100_000)]
    found = wat.find([record(links)])
    assert found.pieces.to_pylist()[::3] == [link["url"] for link in links]
    assert found.pieces.to_pylist()[1::3] == [link["alt"] for link in links]
