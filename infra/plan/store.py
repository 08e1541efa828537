"""What a step asks of an object store, and how many bytes it moves: requests of pipeline/storage.py through s3fs, counted.

law     a whole file is a HEAD and a GET; a file that is not there a HEAD and a LIST; a small file written is a PUT, a large one a
        PUT for each piece and two more; a row group is a HEAD and up to three GETs (tail, footer, rows)
source  tests/infra/test_plan.py counts them at a store on loopback
"""

from typing import NamedTuple

from pipeline.storage import PIECE_BYTES

TAIL_BYTES = 65_536  # that pyarrow reads from a Parquet file's end, in the hope that the footer is in it


class Traffic(NamedTuple):
    """Requests by price, and bytes."""

    puts: float = 0.0  # PUT and LIST
    gets: float = 0.0  # GET and HEAD
    bytes_read: float = 0.0
    bytes_written: float = 0.0

    def plus(self, other: "Traffic", times: float = 1.0) -> "Traffic":
        """The sum of this and so many of the other."""
        return Traffic(*(mine + times * theirs for mine, theirs in zip(self, other, strict=True)))


MISSING = Traffic(puts=1, gets=1)


def whole(file_bytes: float) -> Traffic:
    """A file read whole."""
    return Traffic(gets=2, bytes_read=file_bytes)


def written(file_bytes: float) -> Traffic:
    """A file written."""
    pieces = -(-file_bytes // PIECE_BYTES) + 2 if file_bytes >= 2 * PIECE_BYTES else 1
    return Traffic(puts=pieces, bytes_written=file_bytes)


def row_group(file_bytes: float, footer_bytes: float, groups: int) -> Traffic:
    """One row group of a file, in the mean over its `groups`."""
    if file_bytes <= TAIL_BYTES:
        return Traffic(gets=2, bytes_read=file_bytes)
    footers = 1 if footer_bytes > TAIL_BYTES else 0  # the tail did not hold it: it is asked for again
    body = (file_bytes - footer_bytes) / groups
    return Traffic(gets=3 + footers, bytes_read=TAIL_BYTES + footers * footer_bytes + body)
