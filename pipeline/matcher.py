"""Matcher: all queries that occur in each of many texts, in one pass over the words of the texts.

in      queries, texts
out     for each text the ids of its queries, ascending, no repeats
law     exact: what is found is what a search for every single query would find (see normalize); no hash is trusted
how     a word is read eight bytes at a time, each step a lookup of (place, bytes) in an exact table; from each word a walk
        goes down the tree of queries, a lookup of (branch, word) for each further word. All words of a block of texts take
        a step together, in NumPy: nothing is compiled at start, and the tables are plain arrays
cost    linear in the bytes of the texts, with at most one step for each word of the longest query;
        500,000 queries: 31 MB of arrays, built in 3 s; measured by tests/benchmarks/match.py
"""

# pyarrow.compute makes its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import normalize
from pipeline.hashing import mix

BLOCK_BYTES = 1 << 20  # of text that takes its steps together: what it needs stays in the cache
PIECE_BYTES = 8  # of a word that are read at once
PIECE_MASKS = np.array([(1 << 8 * size) - 1 for size in range(PIECE_BYTES + 1)], np.uint64)
SPACE = ord(" ")
NO_QUERY = 0xFFFFFFFF
SPREAD = np.uint64(0xD6E8FEB86659FD93)  # odd: lays the first number of a key over all bits of the second

Tree = dict[tuple[int, int], int]  # (node, what follows) -> node; the root is 0


class Table:
    """An exact map from pairs of numbers to numbers over 0; 0 stands for absent. Looks up whole arrays at once."""

    def __init__(self, tree: Tree):
        """No value of `tree` comes twice."""
        keys = np.fromiter((number for key in tree for number in key), np.uint64, 2 * len(tree)).reshape(-1, 2)
        first, second, numbers = keys[:, 0].copy(), keys[:, 1].copy(), np.fromiter(tree.values(), np.uint32, len(tree))
        size = 1 << (2 * len(numbers) + 15).bit_length()
        self.mask = size - 1
        self.first, self.second = np.zeros(size, np.uint64), np.zeros(size, np.uint64)
        self.values = np.zeros(size, np.uint32)
        pending, slots = np.arange(len(numbers)), self._slots(first, second)
        while len(pending):
            free = self.values[slots] == 0
            self.values[slots[free]] = numbers[pending[free]]  # where several want one slot, one of them gets it
            won = free & (self.values[slots] == numbers[pending])
            self.first[slots[won]], self.second[slots[won]] = first[pending[won]], second[pending[won]]
            pending, slots = pending[~won], (slots[~won] + 1) & self.mask

    def _slots(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return (mix(first * SPREAD ^ second) & np.uint64(self.mask)).view(np.int64)

    def get(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """[n] uint64, [n] uint64 -> [n] uint32"""
        slots = self._slots(first, second)
        result = self.values[slots]
        wrong = (self.first[slots] != first) | (self.second[slots] != second)
        pending = np.flatnonzero(wrong & (result != 0))  # another key is there: this one may stand in the slots behind
        result[wrong] = 0
        slots = slots[pending]
        while len(pending):
            slots = slots + 1 & self.mask
            value = self.values[slots]
            right = (self.first[slots] == first[pending]) & (self.second[slots] == second[pending])
            result[pending[right]] = value[right]
            on = ~right & (value != 0)
            pending, slots = pending[on], slots[on]
        return result


class Matcher:
    """Every query, as a tree of words over a tree of the words' bytes. `queries[i]` has the id i.

    Queries with the same words are all found. A query without words (mode wit, only punctuation) never is.
    """

    def __init__(self, queries: Sequence[str], normalizer: str = "wit"):
        self.normalizer = normalizer
        pieces, branches = Tree(), Tree()
        ends = np.array(_grow(pieces, branches, queries, normalizer), np.int64)
        self.query_of = np.full(len(branches) + 1, NO_QUERY, np.uint32)  # branch -> the last query that ends there
        self.again = np.full(len(queries), NO_QUERY, np.uint32)  # query -> the one before it with the same words
        for query_id in np.flatnonzero(ends).tolist():
            self.again[query_id] = self.query_of[ends[query_id]]
            self.query_of[ends[query_id]] = query_id
        longer = {key: branch for key, branch in branches.items() if key[0]}
        self.pieces, self.branches = Table(pieces), Table(longer)
        self.first_branch = np.zeros(len(pieces) + 1, np.uint32)  # word -> branch
        for (branch, word), below in branches.items():
            if not branch:
                self.first_branch[word] = below
        self.goes_on = np.zeros(len(branches) + 1, bool)
        self.goes_on[[branch for branch, _ in longer]] = True

    def find(self, texts: pa.Array | pa.ChunkedArray) -> pa.ListArray:
        """The queries of each text.  [n] string -> [n] list<uint32>"""
        whole = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
        ends = np.cumsum(pc.binary_length(whole).to_numpy(zero_copy_only=False), dtype=np.int64)
        edges = [0, *(np.flatnonzero(np.diff(ends // BLOCK_BYTES)) + 1).tolist(), len(whole)]
        found = [self._find(whole[start:end]) for start, end in pairwise(edges) if end > start]
        offsets = np.cumsum(np.concatenate([np.zeros(1, np.int64), *(counts for counts, _ in found)]))
        query_ids = np.concatenate([np.zeros(0, np.uint32), *(query_ids for _, query_ids in found)])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(query_ids, pa.uint32()))

    def _find(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """How many queries each text of a block has, and the queries."""
        words, text_of = self._words(texts)
        at = np.flatnonzero(words[:-1])
        branch = self.first_branch[words[at]]
        found = []
        while len(at):
            query = self.query_of[branch]
            ended = query != NO_QUERY
            found.append(_keys(text_of[at[ended]], query[ended]))
            on = self.goes_on[branch]
            start, branch = at[on], branch[on]
            at = start + 1
            inside = text_of[at] == text_of[start]
            at, branch = at[inside], branch[inside]
            branch = self.branches.get(branch.astype(np.uint64), words[at].astype(np.uint64))
            at, branch = at[branch != 0], branch[branch != 0]
        return self._lists(np.concatenate([np.zeros(0, np.uint64), *found]), len(texts))

    def _lists(self, keys: np.ndarray, num_texts: int) -> tuple[np.ndarray, np.ndarray]:
        """Sort what was found, add the queries with the same words, and drop repeats."""
        more = keys
        while len(more):
            query = self.again[more & np.uint64(NO_QUERY)]
            same = query != NO_QUERY
            more = _keys(more[same] >> np.uint64(32), query[same])
            keys = np.concatenate([keys, more]) if len(more) else keys
        keys = np.sort(keys)
        keys = keys[np.concatenate([np.ones(1, bool), keys[1:] != keys[:-1]])] if len(keys) else keys
        counts = np.bincount((keys >> np.uint64(32)).astype(np.int64), minlength=num_texts)
        return counts, keys.astype(np.uint32)

    def _words(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """The words of all texts, end to end, as places in the tree of pieces (0: in no query), and the text of each.

        Both have one more entry at the end, of no text.
        """
        spaced = normalize.spaced(texts, self.normalizer)
        offsets = np.frombuffer(spaced.buffers()[1], np.int32)[spaced.offset : spaced.offset + len(spaced) + 1]
        data = np.zeros(int(offsets[-1] - offsets[0]) + PIECE_BYTES, np.uint8)
        data[:-PIECE_BYTES] = np.frombuffer(spaced.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
        ends = np.flatnonzero(data == SPACE)
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])
        text_ends = np.searchsorted(ends, offsets[1:] - offsets[0])  # each text ends with a space: the words before its end
        text_of = np.repeat(np.arange(len(texts)), np.diff(text_ends, prepend=0))
        if not normalize.EMPTY_WORDS[self.normalizer]:
            full = ends > starts
            starts, ends, text_of = starts[full], ends[full], text_of[full]
        return np.append(self._read(data, starts, ends), np.uint32(0)), np.append(text_of, -1)

    def _read(self, data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Each word's place in the tree of pieces, 0 where the tree ends before the word."""
        windows = np.ndarray((len(data) - PIECE_BYTES + 1,), "<u8", data.data, strides=(1,))  # eight bytes from each byte on
        place = np.zeros(len(starts), np.uint32)
        reading = np.arange(len(starts))
        while len(reading):
            left = ends[reading] - starts[reading]
            size = np.minimum(left, PIECE_BYTES)
            piece = windows[starts[reading]] & PIECE_MASKS[size]
            place[reading] = self.pieces.get(place[reading].astype(np.uint64) << np.uint64(4) | size.astype(np.uint64), piece)
            on = (left > PIECE_BYTES) & (place[reading] != 0)
            reading = reading[on]
            starts = starts + PIECE_BYTES
        return place


def _keys(text: np.ndarray, query: np.ndarray) -> np.ndarray:
    """(text, query) in one number that sorts by both.  [n], [n] -> [n] uint64"""
    return text.astype(np.uint64) << np.uint64(32) | query


def _grow(pieces: Tree, branches: Tree, queries: Sequence[str], normalizer: str) -> list[int]:
    """Put all queries into the trees; the branch where each ends, 0 for a query without words."""
    split = normalize.QUERY_WORDS[normalizer]
    known: dict[str, int] = {}
    ends = []
    for query in queries:
        branch = 0
        for word in split(query):
            place = known.get(word)
            if place is None:
                place = known[word] = _plant(pieces, word.encode("utf-8", "surrogatepass"))
            branch = branches.setdefault((branch, place), len(branches) + 1)
        ends.append(branch)
    return ends


def _plant(pieces: Tree, word: bytes) -> int:
    """Put a word into the tree of pieces; its place. The number of bytes is in the key: b"a" is not b"a\\0"."""
    place = 0
    for start in range(0, max(len(word), 1), PIECE_BYTES):
        piece = word[start : start + PIECE_BYTES]
        place = pieces.setdefault((place << 4 | len(piece), int.from_bytes(piece, "little")), len(pieces) + 1)
    return place
