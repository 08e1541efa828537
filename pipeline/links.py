"""Image links in columns: what the readers of WAT, WARC and HTML give, and what crawl makes rows of.

in      pages with their links (pages.Link), or records of a WAT
out     Batch
law     links stand in the order of their pages and of their places in them; texts that are empty as written are left out
cost    no copy of a WAT's texts
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline import pages, responses, strings, wat
from pipeline.pages import ATTRIBUTES, Link
from pipeline.records import Record
from pipeline.urls import base_url

WAT_ATTRIBUTES = np.array([ATTRIBUTES.index("alt"), ATTRIBUTES.index("title")])


class Page(NamedTuple):
    """A page: its URL, what its relative URLs start from, where its record begins; False for a record that cannot be read."""

    url: str
    base: str
    record_offset: int
    readable: bool = True


class Batch(NamedTuple):
    """The links of some pages. An unreadable page has one link, without URL and text."""

    pages: Sequence[Page]
    page_of: np.ndarray  # [links] the page's number, ascending
    urls: pa.StringArray  # [links] as written
    link_of: np.ndarray  # [texts] the link's number, ascending
    attribute_of: np.ndarray  # [texts] its attribute's number in pages.ATTRIBUTES
    texts: pa.StringArray  # [texts] as written


def in_response(url: str, offset: int, page: responses.Page) -> tuple[Page, list[Link]]:
    """A page of an archive and its links."""
    if page.html is None:
        return Page(url, url, offset, readable=False), []
    document = pages.parse(pages.decode(page.html, page.charset))
    return Page(url, base_url(url, pages.base_href(document)), offset), pages.links(document)


def in_file(archive: str, html: bytes) -> tuple[Page, list[Link]]:
    """A page that is a file, and its links."""
    document = pages.parse(pages.decode(html))
    url = pages.canonical_link(document) or (archive if "://" in archive else Path(archive).absolute().as_uri())
    return Page(url, base_url(url, pages.base_href(document)), -1), pages.links(document)


def of_pages(parsed: Sequence[tuple[Page, list[Link]]]) -> Batch:
    """The links of parsed pages."""
    found = [
        (number, link) for number, (page, links) in enumerate(parsed) for link in (links if page.readable else [Link("", [])])
    ]
    texts = [(place, ATTRIBUTES.index(name), text) for place, (_, link) in enumerate(found) for name, text in link.texts if text]
    return Batch(
        [page for page, _ in parsed],
        np.array([number for number, _ in found], np.int64),
        pa.array([strings.valid(link.url) for _, link in found], pa.string()),
        np.array([place for place, _, _ in texts], np.int64),
        np.array([attribute for _, attribute, _ in texts], np.int64),
        pa.array([strings.valid(text) for _, _, text in texts], pa.string()),
    )


def of_wat(records: Sequence[Record]) -> Batch:
    """The links of WAT records that hold wat.MARK."""
    found = wat.find([record.block for record in records])
    pages = [
        Page(record.target, base_url(record.target, base), record.offset, readable)
        for record, base, readable in zip(records, found.bases, found.readable.tolist(), strict=True)
    ]
    _, offsets = strings.views(found.pieces)
    has_text = np.diff(offsets).reshape(-1, 3)[:, 1:] > 0
    link_of, which = np.nonzero(has_text)
    urls = found.pieces.take(pa.array(np.arange(0, len(found.pieces), 3)))
    return Batch(pages, found.record, urls, link_of, WAT_ATTRIBUTES[which], found.pieces.take(pa.array(3 * link_of + 1 + which)))
