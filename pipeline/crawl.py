"""Crawl: the image links of one archive, their texts, and why most of them are not worth keeping.

in      sources: one row that names a WAT, WARC or HTML file
out     candidates, one row for each text of each image link, in the order of the archive
drops   no_text bad_url too_short too_long no_letters repeated_chars boilerplate language; the first that applies
        bad_record: one row, with link_index -1, for a record that may hold links and cannot be read (broken JSON, a page
        whose packing cannot be undone)
law     every image link gives at least one row (shape: fanout). A row is a function of its record: it does not change when
        records move to another archive. An archive that is cut off gives no rows but an InputError
        Of an attribute the first text.MAX_RAW_CHARS are read, of a URL that is none the first urls.MAX_URL_CHARS are kept
cost    one pass, in columns of about BATCH_BYTES of records; the rows of one archive in memory, about 300 bytes each; a
        language model in each worker
source  CLIP section 2.2 has no details; cc2dataset for the use of WAT files, COYO-700M for the rules
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from pipeline import archives, links, pages, responses, rules, schema, strings, text, urls, wat
from pipeline.config import CrawlConfig
from pipeline.links import Batch, Page
from pipeline.manifest import Dataset
from pipeline.pair_ids import pair_ids
from pipeline.stage import Stage, plan_map

NO_TEXT, BAD_URL, BAD_RECORD = "no_text", "bad_url", "bad_record"
REASONS = (*rules.REASONS, None, NO_TEXT, BAD_URL, BAD_RECORD)  # rules.KEEP is the place of None
CODES = {reason: np.uint8(code) for code, reason in enumerate(REASONS)}
LABELLED = schema.CANDIDATES.append(schema.DROP)
BATCH_BYTES = 4 << 20  # of WAT records
BATCH_LINKS = 10_000  # of pages


def _html_batches(archive: str) -> Iterator[Batch]:
    yield links.of_pages([links.in_file(archive, archives.read_html(archive))])


def _warc_batches(archive: str) -> Iterator[Batch]:
    found: list[tuple[Page, list[pages.Link]]] = []
    num_links = 0
    for record in archives.read_records(archive, b"response"):
        if page := responses.page(record.block):
            found.append(links.in_response(record.target, record.offset, page))
            num_links += len(found[-1][1]) + 1
        if num_links > BATCH_LINKS:
            yield links.of_pages(found)
            found, num_links = [], 0
    yield links.of_pages(found)


def wat_batches(archive: str) -> Iterator[Batch]:
    """The image links of a WAT, some MB of records at a time."""
    found, size = [], 0
    for record in archives.read_records(archive, b"metadata"):
        if wat.MARK in record.block:
            found.append(record)
            size += len(record.block)
        if size > BATCH_BYTES:
            yield links.of_wat(found)
            found, size = [], 0
    yield links.of_wat(found)


READERS = {"html": _html_batches, "warc": _warc_batches, "wat": wat_batches}


def _chosen(batch: Batch, cleaned: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
    """The link and the text of each row; -1: a link without any text, which has one row.  -> [rows], [rows]"""
    _, offsets = strings.views(cleaned)
    place = np.flatnonzero(np.diff(offsets))
    link = batch.link_of[place]
    without = np.flatnonzero(np.bincount(link, minlength=len(batch.page_of)) == 0)
    row_link, row_text = np.concatenate([link, without]), np.concatenate([place, np.full(len(without), -1)])
    order = np.argsort(row_link, kind="stable")
    return row_link[order], row_text[order]


def rows(batch: Batch, archive: str, judge: rules.Rules) -> pa.Table:
    """The labelled rows of the links of some pages: a row for each text of each link."""
    cleaned = text.clean_all(batch.texts)
    image_urls, is_good = urls.canonical_all(batch.urls, [page.base for page in batch.pages], batch.page_of)
    link, place = _chosen(batch, cleaned)
    page_of = batch.page_of[link]
    is_readable = np.array([page.readable for page in batch.pages], np.bool_)[page_of]
    code = np.append(judge.reasons(cleaned), CODES[NO_TEXT])[place]
    code = np.where((place >= 0) & ~is_good[link], CODES[BAD_URL], code)
    code = np.where(is_readable, code, CODES[BAD_RECORD])
    link_index = np.where(is_readable, link - np.searchsorted(batch.page_of, page_of), -1)
    empty = pa.array([""], pa.string())
    row_text = pa.concat_arrays([cleaned, empty]).take(pa.array(place % (len(cleaned) + 1)))
    row_url = image_urls.take(pa.array(link))
    attributes = pa.array([*pages.ATTRIBUTES, ""])
    columns = {
        "pair_id": pair_ids(row_url, row_text),
        "image_url": row_url,
        "text": row_text,
        "page_url": pa.array([strings.valid(page.url) for page in batch.pages], pa.string()).take(pa.array(page_of)),
        "attribute": attributes.take(pa.array(np.append(batch.attribute_of, len(pages.ATTRIBUTES))[place])),
        "link_index": pa.array(link_index, pa.int32()),
        "archive": pa.repeat(archive, len(link)),
        "record_offset": pa.array(np.array([page.record_offset for page in batch.pages], np.int64)[page_of]),
        "drop": pa.array(REASONS, pa.string()).take(pa.array(code)),
    }
    return pa.table([columns[name] for name in LABELLED.names], schema=LABELLED)


def crawl(archive: str, kind: str, judge: rules.Rules) -> pa.Table:
    """The labelled rows of one archive of format `kind`."""
    return pa.concat_tables([LABELLED.empty_table(), *(rows(batch, archive, judge) for batch in READERS[kind](archive))])


class Worker:
    """What one actor holds: the rules with their language model, loaded once and not once an archive."""

    def __init__(self, config: CrawlConfig, sides: Mapping[str, Dataset]):
        self.rules = rules.Rules(config)

    def __call__(self, *tables: pa.Table) -> pa.Table:
        (sources,) = tables
        schema.check(sources, schema.SOURCES, "crawl")
        labelled = [crawl(row["archive"], row["format"], self.rules) for row in sources.select(["archive", "format"]).to_pylist()]
        return pa.concat_tables([LABELLED.empty_table(), *labelled])


STAGE = Stage(name="crawl", version=3, shape="fanout", worker=Worker, writes=schema.CANDIDATES, plan=plan_map)
