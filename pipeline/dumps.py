"""Dumps: the pages of a Wikipedia XML export, one after another, in little memory.

in      the bytes of a `pages-articles` file, or of a piece of one that begins and ends between two pages
out     a Page for each `<page>`; of several revisions the last
law     a file that ends before `</mediawiki>`, is no XML, or is no export raises InputError; a page is given only when its
        end was seen. A document type declaration is refused, so no entity is ever expanded
cost    expat, 104 to 139 MB/s; one page in memory. A text over the cap is let go while it is read
source  MediaWiki, "Help:Export", schema export-0.10 and export-0.11; XML 1.0
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NoReturn
from xml.parsers import expat

from pipeline.errors import InputError

MAX_NESTING = 32
MAX_TOKEN_BYTES = 1 << 24  # of a tag, which expat must hold whole
MAX_FIELD_CHARS = 4096  # of a title or a number
FIELDS = {"page/title": "title", "page/ns": "namespace", "page/revision/model": "model", "page/revision/text": "text"}
ARTICLE = "0"  # the namespace


@dataclass(slots=True)
class Page:
    """A page as the dump has it. `text` is None where it is longer than the cap."""

    title: str = ""
    namespace: str = ARTICLE
    model: str = "wikitext"
    redirect: str | None = None  # the title that it leads to
    text: str | None = ""


class _Reader:
    """The handlers of one expat parser."""

    def __init__(self, name: str, max_page_chars: int):
        self.name, self.max_page_chars = name, max_page_chars
        self.path: list[str] = []
        self.pages: list[Page] = []
        self.page = Page()
        self.field: str | None = None
        self.pieces: list[str] = []
        self.num_chars = 0
        self.parser = parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.buffer_size = 1 << 16
        parser.StartElementHandler = self.start
        parser.EndElementHandler = self.end
        parser.CharacterDataHandler = self.characters
        parser.StartDoctypeDeclHandler = self.doctype

    def fail(self, what: str) -> NoReturn:
        raise InputError(f"queries: {self.name} is not a whole Wikipedia XML dump: {what}; fetch it again")

    def doctype(self, *_: object) -> None:
        self.fail("it declares a document type, which no dump does")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if not self.path and name != "mediawiki":
            self.fail(f"it begins with <{name[:40]}>, expected <mediawiki>")
        if len(self.path) >= MAX_NESTING:
            self.fail(f"its elements nest deeper than {MAX_NESTING}")
        self.path.append(name)
        where = "/".join(self.path[1:])
        if where == "page":
            self.page = Page()
        elif where == "page/redirect":
            self.page.redirect = attributes.get("title", "")[:MAX_FIELD_CHARS]
        self.field = FIELDS.get(where)
        self.pieces, self.num_chars = [], 0

    def characters(self, data: str) -> None:
        if self.field is None:
            return
        self.num_chars += len(data)
        if self.num_chars <= (self.max_page_chars if self.field == "text" else MAX_FIELD_CHARS):
            self.pieces.append(data)

    def end(self, name: str) -> None:
        if self.field == "text":
            self.page.text = "".join(self.pieces) if self.num_chars <= self.max_page_chars else None
        elif self.field is not None:
            setattr(self.page, self.field, "".join(self.pieces).strip())
        self.field = None
        self.path.pop()
        if name == "page" and len(self.path) == 1:
            self.pages.append(self.page)

    def feed(self, data: bytes, is_last: bool = False) -> list[Page]:
        try:
            self.parser.Parse(data, is_last)
        except expat.ExpatError as error:
            self.fail(f"{expat.ErrorString(error.code)}, after {self.parser.ErrorByteIndex:,} bytes of XML")
        pages, self.pages = self.pages, []
        return pages


def pages(blocks: Iterable[bytes], name: str, *, is_first: bool, is_last: bool, max_page_chars: int) -> Iterator[Page]:
    """The pages in the blocks; `name` is what errors call the file.

    is_first, is_last: the blocks begin where the file begins, end where it ends.
    """
    reader = _Reader(name, max_page_chars)
    num_bytes = 0
    for block in blocks if is_first else _after(b"<mediawiki>", blocks):
        num_bytes += len(block)
        yield from reader.feed(block)
        if num_bytes - reader.parser.CurrentByteIndex > MAX_TOKEN_BYTES:
            reader.fail(f"a tag is longer than {MAX_TOKEN_BYTES:,} bytes")
    yield from reader.feed(b"" if is_last else b"</mediawiki>", True)


def _after(head: bytes, blocks: Iterable[bytes]) -> Iterator[bytes]:
    yield head
    yield from blocks
