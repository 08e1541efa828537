"""Wikipedia dumps and page-view files in their real formats, small."""

import bz2
import gzip
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" \
xsi:schemaLocation="http://www.mediawiki.org/xml/export-0.11/ http://www.mediawiki.org/xml/export-0.11.xsd" version="0.11" \
xml:lang="en">
  <siteinfo>
    <sitename>Wikipedia</sitename>
    <dbname>enwiki</dbname>
    <base>https://en.wikipedia.org/wiki/Main_Page</base>
    <namespaces>
      <namespace key="0" case="first-letter" />
      <namespace key="10" case="first-letter">Template</namespace>
    </namespaces>
  </siteinfo>
"""
TAIL = "</mediawiki>\n"


class Article(NamedTuple):
    """A page of the test's wiki."""

    title: str
    text: str = ""
    namespace: int = 0
    redirect: str | None = None
    model: str = "wikitext"


def page_xml(number: int, page: Article) -> str:
    """The page as Special:Export and the dumps write it."""
    redirect = "" if page.redirect is None else f"    <redirect title={quoteattr(page.redirect)} />\n"
    return f"""  <page>
    <title>{escape(page.title)}</title>
    <ns>{page.namespace}</ns>
    <id>{number + 10}</id>
{redirect}    <revision>
      <id>{number + 1000}</id>
      <timestamp>2026-05-01T00:00:00Z</timestamp>
      <contributor>
        <username>A. User</username>
        <id>7</id>
      </contributor>
      <model>{page.model}</model>
      <format>text/x-wiki</format>
      <text bytes="{len(page.text.encode())}" sha1="q" xml:space="preserve">{escape(page.text)}</text>
      <sha1>q</sha1>
    </revision>
  </page>
"""


def dump_xml(pages: Sequence[Article]) -> bytes:
    """A whole pages-articles file, unpacked."""
    return (HEAD + "".join(page_xml(*item) for item in enumerate(pages)) + TAIL).encode()


def multistream(pages: Sequence[Article], pages_per_stream: int = 2) -> bytes:
    """pages-articles-multistream.xml.bz2: the head, some pages, some pages, ..., the tail, each a bzip2 stream."""
    numbered = [page_xml(*item) for item in enumerate(pages)]
    streams = ["".join(numbered[at : at + pages_per_stream]) for at in range(0, len(numbered), pages_per_stream)]
    return b"".join(bz2.compress(text.encode()) for text in (HEAD, *streams, TAIL))


def hourly(lines: Sequence[tuple[str, str, int]]) -> bytes:
    """pageviews-YYYYMMDD-HHMMSS.gz from (domain code, title, views)."""
    return gzip.compress("".join(f"{code} {title} {views} 0\n" for code, title, views in lines).encode(), mtime=0)


def complete(lines: Sequence[tuple[str, str, int | None, str, int]]) -> bytes:
    """pageviews-YYYYMMDD-user.bz2 from (wiki, title, page id, access, views)."""
    texts = []
    for wiki, title, page_id, access, views in lines:
        texts.append(f"{wiki} {title} {'' if page_id is None else f'{page_id} '}{access} {views} A{views}\n")
    return bz2.compress("".join(texts).encode())
