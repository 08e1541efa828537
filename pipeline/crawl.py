"""Crawl: the image links of one archive, their texts, and why most of them are not worth keeping.

in      sources: one row that names a WAT, WARC or HTML file
out     candidates, one row for each text of each image link, in the order of the archive
drops   no_text bad_url too_short too_long no_letters repeated_chars boilerplate language; the first that applies
law     every image link gives at least one row (shape: fanout). A row is a function of its record: it does not change when
        records move to another archive. An archive that is cut off gives no rows but an InputError
        A record that cannot be read (broken JSON, an unknown packing) has no links and does not stop the archive.
        Of an attribute the first text.MAX_RAW_CHARS are read, of a URL that is none the first urls.MAX_URL_CHARS are kept
cost    one pass; the rows of one archive in memory; a language model in each worker
source  CLIP section 2.2 has no details; cc2dataset for the use of WAT files, COYO-700M for the rules
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
from fastwarc.warc import WarcRecordType

from pipeline import archives, pages, responses, schema, text, urls, wat
from pipeline.config import CrawlConfig
from pipeline.hashing import pair_id
from pipeline.manifest import Dataset
from pipeline.stage import Stage, plan_map

NO_TEXT, BAD_URL = "no_text", "bad_url"
REASONS = (
    NO_TEXT, BAD_URL, text.TOO_SHORT, text.TOO_LONG, text.NO_LETTERS, text.REPEATED_CHARS, text.BOILERPLATE, text.LANGUAGE,
)  # fmt: skip
LABELLED = schema.CANDIDATES.append(schema.DROP)


def _valid(value: str) -> str:
    """The string without half surrogates, which Arrow cannot hold."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


class Rows:
    """The rows of one archive, column by column."""

    def __init__(self, archive: str, rules: text.Rules):
        self.archive, self.rules = archive, rules
        self.columns: dict[str, list[str | int | None]] = {field.name: [] for field in LABELLED if field.name != "archive"}
        self.appends = [column.append for column in self.columns.values()]

    def add(self, page_url: str, base: str, record_offset: int, links: list[pages.Link]) -> None:
        """Add the links of one page."""
        page_url = _valid(page_url)
        for link_index, link in enumerate(links):
            url = urls.canonical(link.url, base)
            image_url = url or _valid(link.url[: urls.MAX_URL_CHARS])
            texts = [(name, cleaned) for name, raw in link.texts if raw and (cleaned := text.clean(raw[: text.MAX_RAW_CHARS]))]
            for attribute, cleaned in texts or [("", "")]:
                drop = NO_TEXT if not texts else BAD_URL if url is None else self.rules.reason(cleaned)
                row = (pair_id(image_url, cleaned), image_url, cleaned, page_url, attribute, link_index, record_offset, drop)
                for append, value in zip(self.appends, row, strict=True):
                    append(value)

    def table(self) -> pa.Table:
        """The labelled table."""
        columns = {"archive": [self.archive] * len(self.columns["pair_id"]), **self.columns}
        return pa.table([pa.array(columns[field.name], field.type) for field in LABELLED], schema=LABELLED)


def _file_url(archive: str) -> str:
    return archive if "://" in archive else Path(archive).absolute().as_uri()


def _html_links(archive: str) -> Iterator[tuple[str, str, int, list[pages.Link]]]:
    document = pages.parse(pages.decode(archives.read_html(archive)))
    page_url = pages.canonical_link(document) or _file_url(archive)
    yield page_url, urls.base_url(page_url, pages.base_href(document)), -1, pages.links(document)


def _warc_links(archive: str) -> Iterator[tuple[str, str, int, list[pages.Link]]]:
    for record in archives.records(archive, WarcRecordType.response):
        if page := responses.page(record.block):
            document = pages.parse(pages.decode(page.html, page.charset))
            base = urls.base_url(record.target, pages.base_href(document))
            yield record.target, base, record.offset, pages.links(document)


def _wat_links(archive: str) -> Iterator[tuple[str, str, int, list[pages.Link]]]:
    for record in archives.records(archive, WarcRecordType.metadata):
        base, links = wat.links(record.block)
        if links:
            yield record.target, urls.base_url(record.target, base), record.offset, links


READERS = {"html": _html_links, "warc": _warc_links, "wat": _wat_links}


def crawl(archive: str, kind: str, rules: text.Rules) -> pa.Table:
    """The labelled rows of one archive of format `kind`: a row for each text of each image link."""
    rows = Rows(archive, rules)
    for page_url, base, record_offset, links in READERS[kind](archive):
        rows.add(page_url, base, record_offset, links)
    return rows.table()


class Worker:
    """What one actor holds: the rules with their language model, loaded once and not once an archive."""

    def __init__(self, config: CrawlConfig, sides: Mapping[str, Dataset]):
        self.rules = text.Rules(config)

    def __call__(self, *tables: pa.Table) -> pa.Table:
        (sources,) = tables
        schema.check(sources, schema.SOURCES, "crawl")
        labelled = [crawl(row["archive"], row["format"], self.rules) for row in sources.select(["archive", "format"]).to_pylist()]
        return pa.concat_tables([LABELLED.empty_table(), *labelled])


STAGE = Stage(name="crawl", version=1, shape="fanout", worker=Worker, writes=schema.CANDIDATES, plan=plan_map)
