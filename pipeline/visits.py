"""Visits: when a picture was asked for and what its server said, which no other run sees again.

in      the requests that a client makes for one URL, in order
out     schema.FETCHED columns for the rows that show it, for the log of their part (parts.py)
law     nothing else depends on them: no row, no hash of a manifest, no decision
law     a header's value is a stranger's: the first MAX_HEADER_CHARS are kept, as valid Unicode
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from pipeline import schema, strings

MAX_HEADER_CHARS = 1000
MAX_REQUESTS = 2**15 - 1
HEADERS = {  # column -> the header
    "content_type": "Content-Type",
    "content_encoding": "Content-Encoding",
    "content_length": "Content-Length",
    "last_modified": "Last-Modified",
    "etag": "ETag",
    "x_robots_tag": "X-Robots-Tag",
    "retry_after": "Retry-After",
}


class Headers(Protocol):
    """Headers of an answer, of which each may stand there more than once."""

    def getall(self, key: str, default: list[str], /) -> list[str]:
        """Every value of a header."""
        ...


@dataclass
class Visit:
    """What is noted of the requests for one URL; the last one is told in full."""

    at: float | None = None  # seconds of the epoch
    num_requests: int = 0
    url: str | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)  # by column

    def ask(self, url: str) -> None:
        """A request begins."""
        self.at, self.url, self.status = time.time(), url, None
        self.num_requests = min(self.num_requests + 1, MAX_REQUESTS)
        self.headers = {}

    def hear(self, status: int, headers: Headers) -> None:
        """Its answer came."""
        self.status = status
        for column, name in HEADERS.items():
            value = ", ".join(headers.getall(name, []))
            if value:
                self.headers[column] = strings.valid(value[:MAX_HEADER_CHARS])

    def end(self) -> None:
        """No more requests; where there was none (robots.txt forbids it, the host is given up) this was decided now."""
        self.at = self.at or time.time()


def add(labelled: pa.Table, visits: Mapping[str, Visit]) -> pa.Table:
    """The table with the columns of schema.FETCHED; null where there is no visit of the row's URL."""
    of_row: Sequence[Visit] = [visits.get(url, NONE) for url in labelled["image_url"].to_pylist()]
    columns = {
        "fetched_at": [None if visit.at is None else int(visit.at * 1000) for visit in of_row],
        "num_requests": [visit.num_requests for visit in of_row],
        "final_url": [visit.url for visit in of_row],
        "last_status": [visit.status for visit in of_row],
        **{column: [visit.headers.get(column) for visit in of_row] for column in HEADERS},
    }
    for column in schema.FETCHED:
        labelled = labelled.append_column(column, pa.array(columns[column.name], column.type))
    return labelled


NONE = Visit()
