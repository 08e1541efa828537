"""pipeline/urls.py: the canonical form, and the largest candidate of srcset."""

import time

import numpy as np
import pyarrow as pa
import pytest

from pipeline.urls import MAX_URL_CHARS, base_url, canonical, canonical_all, largest


@pytest.mark.parametrize(
    ("url", "absolute"),
    [
        ("b.png", "https://e.org/a/b.png"),
        ("/b.png#part", "https://e.org/b.png"),
        ("../c d.jpg?x=é#f", "https://e.org/c%20d.jpg?x=%C3%A9"),
        ("//cdn.e.org/b.png", "https://cdn.e.org/b.png"),
        (" \n HTTP://E.ORG:80/A/./B ", "http://e.org/A/B"),
        ("https://exämple.org/ü", "https://xn--exmple-cua.org/%C3%BC"),
        ("?q=1", "https://e.org/a/page.html?q=1"),
        ("", None),
        ("  ", None),
        ("http://[::1", None),
        ("https://", None),
        ("data:image/gif;base64,R0lGODlhAQABAAAAACw=", None),
        ("javascript:void(0)", None),
        ("ftp://e.org/b.png", None),
        ("/" + "a" * MAX_URL_CHARS, None),
        ("/\ud800", None),
    ],
)
def test_a_url_is_absolute_and_canonical_or_none(url: str, absolute: str | None) -> None:
    assert canonical(url, "https://e.org/a/page.html") == absolute
    if absolute:
        assert canonical(absolute) == absolute


def test_base_counts_only_where_it_is_http() -> None:
    page = "https://e.org/a/page.html"
    assert base_url(page, None) == page
    assert base_url(page, "/x/") == "https://e.org/x/"
    assert base_url(page, "http://cdn.org/y/#z") == "http://cdn.org/y/"
    assert base_url(page, "data:,") == page
    assert base_url(page, "http://[") == page


@pytest.mark.parametrize(
    ("srcset", "url"),
    [
        ("a.jpg 320w, b.jpg 1280w, c.jpg 640w", "b.jpg"),
        ("a.jpg 1x, b.jpg 2x", "b.jpg"),
        ("a.jpg, b.jpg 1.5x", "b.jpg"),
        ("a.jpg", "a.jpg"),
        ("a.jpg 2x, b.jpg 100w", "b.jpg"),  # a width wins over a density
        ("a.jpg 2x,b.jpg 2x", "a.jpg"),  # the first of equals
        ("  ,, a,b.jpg 2x , c.jpg", "a,b.jpg"),  # a comma inside a URL
        ("a.jpg 100w 50h, b.jpg 90w", "a.jpg"),
        ("a.jpg huge, b.jpg 1x", "b.jpg"),  # an unknown descriptor
        ("a.jpg -1w, b.jpg 0w", None),
        ("a.jpg nanw, b.jpg infx", None),
        ("a.jpg calc(1, 2)x, b.jpg 1x", "b.jpg"),  # a comma in parentheses is no end
        ("data:image/gif;base64,R0lGOD== 2000w, b.jpg 1w", "b.jpg"),
        ("", None),
        (" , ", None),
    ],
)
def test_the_largest_candidate_of_srcset(srcset: str, url: str | None) -> None:
    assert largest(srcset) == url


@pytest.mark.parametrize("seed", range(10))
def test_the_largest_is_what_a_list_of_candidates_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    widths = rng.permutation(2000)[:20]
    assert largest(", ".join(f"p/{i}.jpg {width}w" for i, width in enumerate(widths))) == f"p/{widths.argmax()}.jpg"


@pytest.mark.parametrize("piece", ["(", "a (", ",", "a,", " ", "a 1w (", "((,"])
def test_a_hostile_srcset_takes_linear_time(piece: str) -> None:
    start = time.process_time()
    largest(piece * 100_000)
    assert time.process_time() - start < 2


PIECE_LIST = r"""a b.jpg IMG / // / ? x=1 & #f . .. /. /./ %2e %20 é : http: https:// https:// http:// e.org E.org www.e-x.org
    xn--a 1.2.3.4 0x1 @
    user@ 8080 ~ ' | ^ { \\ - _ -- a--b co.uk \x7f [ ] ! $ ( ) * + , ; = % %zz %2E c0m \x7f"""
PIECES = PIECE_LIST.split()
BASE_LIST = """https://e.org/a/page.html http://www.x.com:8080/?q=/1 https://e.org HTTP://E.ORG/A/../b/c?d nonsense https://user:p@e.org/x/
    http://1.2.3.4/y/z file:///x/y https://e.org/a;b/c'd/e http://[::1]/a/b"""
BASES = BASE_LIST.split()


@pytest.mark.parametrize("seed", range(6))
def test_a_column_of_urls_becomes_what_each_becomes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    starts = ["", "/", "//", "https://", "http://"]
    urls = [
        starts[rng.integers(5)] + "".join(rng.choice([*PIECES, " ", "\t"], size=rng.integers(0, 7)).tolist()) for _ in range(4000)
    ]
    urls += ["/" + "a" * size for size in range(MAX_URL_CHARS - 20, MAX_URL_CHARS + 2)]
    base_of = rng.integers(len(BASES), size=len(urls))
    found, is_good = canonical_all(pa.array(urls), BASES, base_of)
    expected = [canonical(url, BASES[base]) for url, base in zip(urls, base_of.tolist(), strict=True)]
    assert is_good.tolist() == [url is not None for url in expected]
    assert found.to_pylist() == [url or raw[:MAX_URL_CHARS] for url, raw in zip(expected, urls, strict=True)]
