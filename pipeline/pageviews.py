"""Page views: how often each title of one wiki was asked for.

in      lines of an hourly file (`en.m Dog 12 0`: domain code, title, views, bytes) or of a "pageview complete" file, daily or
        monthly (`en.wikipedia Dog 4269567 desktop 12 A5B7`: wiki, title, page id, access, views, hours; without the page id
        where the wiki knows none)
out     views by title, summed over desktop and mobile; lines that are none of this, by reason
drops   bad_line: a line of the wiki with another number of fields, a count that is none; bad_title: bytes that are no UTF-8,
        "-" (unknown), more than 255 bytes, which MediaWiki does not allow
law     a title is written as MediaWiki writes it: spaces, first letter large, percent escapes read. A file without a line of
        either format, of any wiki, raises InputError
cost    lines of other wikis are passed over by their first bytes; the titles of one file in memory
source  wikitech, "Analytics/Data Lake/Traffic/Pageviews" and "Pageview complete"; MediaWiki, "Manual:Page title"
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from urllib.parse import unquote_to_bytes

from pipeline.errors import InputError

BAD_LINE, BAD_TITLE = "bad_line", "bad_title"
MAX_TITLE_BYTES = 255
MAX_LINE_BYTES = 1 << 20
HOURLY_FIELDS, COMPLETE_FIELDS = (4,), (5, 6)
_KNOWN = re.compile(rb"\S+ \S+ \d+ \d+$|\S+ \S+ (?:\S+ )?\S+ \d+ \S+$")
_COUNT = re.compile(rb"\d{1,15}$")
CHECKED_LINES = 10_000


def normal_title(raw: bytes) -> str | None:
    """The title as MediaWiki shows it; None where no page can have it."""
    if b"%" in raw:
        raw = unquote_to_bytes(raw)
    try:
        title = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    title = " ".join(unicodedata.normalize("NFC", title).replace("_", " ").split())
    if not title or title == "-" or len(raw) > MAX_TITLE_BYTES or not title.isprintable():
        return None
    return title[0].upper() + title[1:] if len(title[0].upper()) == 1 else title


class PageViews:
    """Views of one wiki (`en`), added up line by line."""

    def __init__(self, language: str):
        code = language.encode()
        self.hourly = frozenset([code, code + b".m", code + b".zero"])
        self.complete = code + b".wikipedia"
        self.prefixes = (code + b" ", code + b".m ", code + b".zero ", code + b".wikipedia ")
        self.views: dict[bytes, int] = {}
        self.bad: list[tuple[bytes, str]] = []
        self.num_other = 0
        self.num_checked = self.num_known = 0

    def add(self, lines: list[bytes]) -> None:
        """Count whole lines, without their ends."""
        if self.num_checked < CHECKED_LINES:
            checked = [line for line in lines[: CHECKED_LINES - self.num_checked] if line]
            self.num_checked += len(checked)
            self.num_known += sum(_KNOWN.match(line) is not None for line in checked)
        ours = [line for line in lines if line.startswith(self.prefixes)]
        self.num_other += len(lines) - len(ours)
        for line in ours:
            fields = line.rstrip(b"\r").split(b" ")
            is_complete = fields[0] == self.complete
            count = fields[-2]
            if len(fields) not in (COMPLETE_FIELDS if is_complete else HOURLY_FIELDS) or not _COUNT.match(count):
                self.bad.append((line[:200], BAD_LINE))
            else:
                self.views[fields[1]] = self.views.get(fields[1], 0) + int(count)

    def titles(self) -> dict[str, int]:
        """Views by normal title; raw titles that no page can have go to `bad`."""
        sums: dict[str, int] = {}
        for raw, count in self.views.items():
            title = normal_title(raw)
            if title is None:
                self.bad.append((raw[:200], BAD_TITLE))
            else:
                sums[title] = sums.get(title, 0) + count
        return sums


def read(blocks: Iterable[bytes], name: str, language: str) -> PageViews:
    """The views in a file's bytes; `name` is what errors call it."""
    views = PageViews(language)
    for lines in _lines(blocks, name):
        views.add(lines)
    if not views.num_known:
        raise InputError(
            f"queries: {name} has no line of a page-view file (`en Dog 12 0` or `en.wikipedia Dog 4269567 desktop 12 A5B7`) "
            f"among its first {views.num_checked:,}; name a file of dumps.wikimedia.org/other/pageviews or pageview_complete"
        )
    return views


def _lines(blocks: Iterable[bytes], name: str) -> Iterator[list[bytes]]:
    """The whole lines of each block, the broken one at its end carried over."""
    rest = b""
    for block in blocks:
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        if len(rest) > MAX_LINE_BYTES:
            raise InputError(f"queries: {name} has a line of more than {MAX_LINE_BYTES:,} bytes, so it is no page-view file")
        yield lines
    if rest:
        yield [rest]
