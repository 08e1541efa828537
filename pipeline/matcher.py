"""Matcher: all queries that occur in each of many texts, in one pass over the bytes of the texts.

in      queries, texts
out     for each text the ids of its queries, ascending, no repeats; none for a null
law     exact: what is found is what a search for every single query would find (see normalize); no hash is trusted
how     texts that are not ASCII are normalised first; the rest is match_kernel over the tables of query_table, both on
        Arrow's own buffers. The interpreter's lock is free while it runs
cost    linear in the bytes of the texts, with at most one step for each word of the longest query;
        500,000 queries: 26 MB, which a stage's workers share (see match); measured by tests/benchmarks/match.py
"""

# pyarrow.compute makes its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import match_kernel, normalize, query_table
from pipeline.query_table import QueryTable

MAX_CHUNK_BYTES = 1 << 30  # of text: what follows has 32-bit offsets
FOUND_PER_BYTE = 0.5  # query ids that there is room for at first; where it is not enough it doubles


class Matcher:
    """Every query, ready to be found. `queries[i]` has the id i.

    Queries with the same words are all found. A query without words (mode wit, only punctuation) never is.
    """

    def __init__(self, queries: Sequence[str], normalizer: str = "wit"):
        self.normalizer = normalizer
        self.table = query_table.read(query_table.build(queries, normalizer))

    @classmethod
    def of_table(cls, table: QueryTable, normalizer: str) -> "Matcher":
        """The matcher of a table that was built before, with this normaliser."""
        matcher = cls.__new__(cls)
        matcher.normalizer, matcher.table = normalizer, table
        return matcher

    def find(self, texts: pa.Array | pa.ChunkedArray) -> pa.ListArray:
        """The queries of each text.  [n] string -> [n] list<uint32>"""
        chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
        found = [self._find(piece) for chunk in chunks for piece in _pieces(chunk)]
        counts = np.concatenate([np.zeros(1, np.int64), *(np.diff(ends, prepend=0) for ends, _ in found)])
        query_ids = found[0][1] if len(found) == 1 else np.concatenate([np.zeros(0, np.uint32), *(ids for _, ids in found)])
        return pa.ListArray.from_arrays(pa.array(np.cumsum(counts), pa.int32()), pa.array(query_ids, pa.uint32()))

    def _find(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """The end of each text's queries, and the queries."""
        texts = normalize.prepared(texts, self.normalizer)
        _, offset_buffer, data = texts.buffers()
        offsets = np.frombuffer(offset_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]
        letters = np.frombuffer(data or b"", np.uint8)
        longest = int(np.diff(offsets).max()) * (3 if self.normalizer == "metaclip" else 1)  # marks get spaces
        spaced = np.empty(longest + 32, np.uint8)
        of_words = np.empty((7, longest + 2), np.uint64)
        scratch = np.empty(3 * match_kernel.FEW, np.uint32)
        ends, table = np.empty(len(texts), np.int64), self.table
        found = np.empty(int((offsets[-1] - offsets[0]) * FOUND_PER_BYTE) + 1024, np.uint32)
        text, used = 0, 0
        while True:
            text, used = match_kernel.scan(
                letters, offsets, text, normalize.LETTERS[self.normalizer], self.normalizer == "metaclip",
                table.words, table.places, query_table.windows(table.letters), table.branches, table.list_ends, table.lists,
                spaced, query_table.windows(spaced), of_words, scratch, found, used, ends,
            )  # fmt: skip
            if text == len(texts):
                return ends, found[:used]
            found = np.concatenate([found, np.empty(len(found), np.uint32)])


def _pieces(texts: pa.Array) -> Iterator[pa.Array]:
    """The texts as string arrays of at most MAX_CHUNK_BYTES, without nulls, or of one text."""
    if pa.types.is_dictionary(texts.type):
        texts = texts.dictionary_decode()
    if texts.null_count:
        texts = pc.fill_null(texts, "")
    if len(texts) > 1 and texts.nbytes > MAX_CHUNK_BYTES:
        half = len(texts) // 2
        yield from _pieces(texts[:half])
        yield from _pieces(texts[half:])
    elif len(texts):
        yield texts.cast(pa.string())
