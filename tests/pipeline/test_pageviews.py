"""Page views in both real formats, and lines that are in neither."""

import bz2
import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import pageviews
from pipeline.errors import InputError
from tests.pipeline import dump_writer

HOURLY = [
    ("de", "Dog", 1000), ("en", "Dog", 12), ("en", "New_York", 3), ("en.b", "Dog", 500), ("en.m", "Dog", 30),
    ("en.zero", "Dog", 2), ("en.m.b", "Dog", 400), ("enx", "Dog", 300),
]  # fmt: skip
COMPLETE = [
    ("de.wikipedia", "Dog", 1, "desktop", 1000), ("en.wikipedia", "Dog", 4269567, "desktop", 20),
    ("en.wikipedia", "Dog", 4269567, "mobile-web", 22), ("en.wikipedia", "Dog", None, "mobile-app", 2),
    ("en.wikipedia", "New_York", 5, "desktop", 3), ("en.wikibooks", "Dog", 6, "desktop", 7),
]  # fmt: skip


def read(data: bytes, block_bytes: int = 1 << 20) -> pageviews.PageViews:
    return pageviews.read((data[at : at + block_bytes] for at in range(0, len(data), block_bytes)), "file", "en")


@pytest.mark.parametrize("block_bytes", [1, 7, 1000])
@pytest.mark.parametrize("data", [gzip.decompress(dump_writer.hourly(HOURLY)), bz2.decompress(dump_writer.complete(COMPLETE))])
def test_both_formats_give_the_views_of_one_wiki_over_all_devices(data: bytes, block_bytes: int) -> None:
    views = read(data, block_bytes)
    assert views.titles() == {"Dog": 44, "New York": 3}
    assert not views.bad


def test_titles_are_as_mediawiki_shows_them() -> None:
    cases = {
        b"new_york": "New york", b"AC%2FDC": "AC/DC", b"%C3%89cole": "École", b"E\xcc\x81cole": "École", b"_A__b_": "A b",
        b"\xc3\x9fa": "ßa", b"-": None, b"\xff": None, b"%FF": None, b"a%00b": None, b"x" * 256: None,
        b"x" * 255: "X" + "x" * 254,
        b"___": None, b"100%_pure": "100% pure",
    }  # fmt: skip
    assert {raw: pageviews.normal_title(raw) for raw in cases} == cases


def test_a_line_that_is_garbage_is_counted_by_reason_and_harms_no_other() -> None:
    lines = [
        b"en Dog 12 0", b"en Dog", b"en ", b"en Dog twelve 0", b"en Dog 1 2 3", b"en.wikipedia Dog 1 2", b"en Dog -5 0", b"",
        b"\x00\xff", b"en \xff\xfe 3 0", b"en - 9 0", b"en Dog 99999999999999999999 0", b"en.m Dog 8 0\r", b"en Cat 1 0",
    ]  # fmt: skip
    views = read(b"\n".join(lines))
    assert views.titles() == {"Dog": 20, "Cat": 1}
    assert sorted(reason for _, reason in views.bad) == ["bad_line"] * 7 + ["bad_title"] * 2


def test_a_file_that_is_no_page_view_file_is_one_clear_error() -> None:
    for data in (b"", b"\n\n", b"Dear reader,\nthis is a letter\n", b"<mediawiki>" * 100, bytes(range(256)) * 10):
        with pytest.raises(InputError, match="file has no line of a page-view file"):
            read(data)
    with pytest.raises(InputError, match="file has a line of more than 1,048,576 bytes"):
        read(b"en Dog 1 0\n" + b"x" * (3 << 20))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.lists(st.sampled_from([b"en", b"en.m", b"en.wikipedia", b" ", b" ", b"Dog", b"1", b"\xff", b"%", b"\x00", b"-"])))
)
def test_whatever_the_lines_are_each_is_a_view_another_wikis_or_counted_as_bad(parts: list[list[bytes]]) -> None:
    lines = [b"de Hund 1 0", *(b"".join(line) for line in parts)]
    views = read(b"\n".join(lines))
    ours = sum(line.startswith((b"en ", b"en.m ", b"en.wikipedia ")) for line in lines)
    kept = ours - sum(reason == "bad_line" for _, reason in views.bad)
    assert kept >= len(views.views)
    assert views.num_other in (len(lines) - ours, len(lines) - ours - 1)  # an empty last line is none
    assert all(title == title.strip() and title.isprintable() for title in views.titles())


def test_views_add_up_over_random_files() -> None:
    rng = np.random.default_rng(0)
    lines = [("en" if rng.random() < 0.5 else "en.m", f"T{rng.integers(5)}", int(rng.integers(100))) for _ in range(500)]
    expected: dict[str, int] = {}
    for _, title, count in lines:
        expected[title] = expected.get(title, 0) + count
    assert read(gzip.decompress(dump_writer.hourly(lines)), 100).titles() == expected
