"""The table of a query list: what the compiled matcher reads, as plain arrays in one run of bytes that can be mapped.

in      queries and a normaliser
out     bytes: a header, then arrays. Nothing of it is code; what `read` accepts cannot lead match_kernel out of an array
law     the same queries give the same bytes
cost    500,000 queries: 26 MB, made in 2 s, read and checked in 0.05 s

words     [size, 4] uint64, a hash table: the word's first and second eight bytes, length << 32 | word id from 1, value
places    uint32: word i is letters[places[i]:places[i + 1]]
letters   uint8: the words end to end, then PAD
branches  [size, 2] uint64, a hash table: node << 32 | word id, value
lists     uint32 query ids; those of list i, queries with the same words, are lists[list_ends[i]:list_ends[i + 1]]
value     node << 32 | query: where the words so far lead. node 0: no query goes on here. query 0: none ends here; else
          query id + 1; with the highest bit set, the number of a list
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline import match_kernel, normalize

FORMAT = b"wit queries 1"
HEADER = np.dtype(  # 192 bytes: the arrays start at a line of the cache
    [("format", "S64"), ("sha256", "S64"), ("num_queries", "<u8"), ("num_wordless", "<u8"), ("sizes", "<u8", (6,))]
)
ALIGN = 64  # bytes: a line of the cache
PIECE = 8  # bytes of a word that are read at once
PAD = 2 * PIECE  # bytes after the letters


class TornTable(ValueError):
    """Bytes that are no table, or not the ones that were written."""


@dataclass(frozen=True)
class QueryTable:
    """A table's arrays, read-only; see the module."""

    words: np.ndarray
    places: np.ndarray
    letters: np.ndarray
    branches: np.ndarray
    list_ends: np.ndarray
    lists: np.ndarray
    num_queries: int
    num_wordless: int  # queries without a word: they are never found


KINDS = [np.dtype(kind) for kind in ("<u8", "<u4", "u1", "<u8", "<u4", "<u4")]  # of the arrays of QueryTable, in order


def build(queries: Sequence[str], normalizer: str) -> bytes:
    """The table of a query list. `queries[i]` has the id i."""
    word_ids, prefixes, ends = _prefixes(queries, normalizer)
    keys = np.fromiter(prefixes, np.uint64, len(prefixes))
    nodes = np.zeros(len(keys) + 1, np.uint64)
    parents = (keys >> np.uint64(32)).astype(np.int64)
    nodes[parents] = parents  # a prefix that no query goes on from is no node
    refs, list_ends, lists = _ends(np.array(ends, np.int64), len(keys))
    values = (nodes << np.uint64(32) | refs)[1:]
    first = parents == 0
    word_values = np.zeros(len(word_ids) + 1, np.uint64)
    word_values[keys[first].astype(np.int64)] = values[first]
    letters = [word.encode("utf-8", "surrogatepass") for word in word_ids]
    places = np.cumsum([0, 0, *map(len, letters)], dtype=np.uint32)
    padded = np.frombuffer(b"".join(letters) + bytes(PAD), np.uint8)
    words, branches = np.zeros(4 * _size(len(letters)), np.uint64), np.zeros(2 * _size(int(np.count_nonzero(~first))), np.uint64)
    uses = np.bincount((keys & np.uint64(0xFFFFFFFF)).astype(np.int64), minlength=len(word_values))
    order = 1 + np.argsort(-uses[1:], kind="stable")  # words of many queries stand where they are looked for first
    match_kernel.fill(windows(padded), places, order, word_values, keys[~first], values[~first], words, branches)
    return _pack([words, places, padded, branches, list_ends, lists], len(queries), ends.count(0))


def windows(data: np.ndarray) -> np.ndarray:
    """Eight bytes from each byte on, as numbers.  [n] uint8 -> [n - 7] uint64"""
    result = np.ndarray((len(data) - 7,), "<u8", data.data, strides=(1,))
    result.flags.writeable = False
    return result


def _prefixes(queries: Sequence[str], normalizer: str) -> tuple[dict[str, int], dict[int, int], list[int]]:
    """Word -> id; (prefix, word) -> prefix, numbered in the order in which they turn up; the prefix that each query is."""
    split = normalize.QUERY_WORDS[normalizer]
    word_ids: dict[str, int] = {}
    prefixes: dict[int, int] = {}
    ends = []
    for query in queries:
        prefix = 0
        for word in split(query):
            key = prefix << 32 | word_ids.setdefault(word, len(word_ids) + 1)
            prefix = prefixes.setdefault(key, len(prefixes) + 1)
        ends.append(prefix)
    return word_ids, prefixes, ends


def _ends(ends: np.ndarray, num_prefixes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The lower half of each prefix's value; list_ends, lists."""
    order = np.argsort(ends, kind="stable")
    order = order[np.count_nonzero(ends == 0) :]
    counts = np.bincount(ends[order], minlength=num_prefixes + 1)
    refs = np.zeros(num_prefixes + 1, np.uint64)
    single = counts[ends[order]] == 1
    refs[ends[order[single]]] = order[single] + 1
    several = np.flatnonzero(counts > 1)
    refs[several] = np.arange(len(several), dtype=np.uint64) | np.uint64(match_kernel.SEVERAL)
    return refs, np.cumsum([0, *counts[several]], dtype=np.uint32), order[~single].astype(np.uint32)


def _size(count: int) -> int:
    """Slots of a hash table: a power of two, at most half of them used."""
    return 1 << (2 * count + 15).bit_length()


def _pack(arrays: list[np.ndarray], num_queries: int, num_wordless: int) -> bytes:
    body = b"".join(array.tobytes() + bytes(-array.nbytes % ALIGN) for array in arrays)
    header = np.zeros(1, HEADER)
    header[0] = (FORMAT, b"", num_queries, num_wordless, [len(array) for array in arrays])
    header["sha256"] = _digest(header, body)
    return header.tobytes() + body


def _digest(header: np.ndarray, body: bytes | memoryview) -> bytes:
    """Of everything but the digest itself."""
    blank = header.copy()
    blank["sha256"] = b""
    digest = hashlib.sha256(blank.tobytes())
    digest.update(body)
    return digest.hexdigest().encode()


def read(data: bytes | memoryview) -> QueryTable:
    """The table in `data`, which is not copied. TornTable where it is not what `build` made."""
    if len(data) < HEADER.itemsize:
        raise TornTable(f"a table of queries has at least {HEADER.itemsize} bytes, found {len(data)}")
    view = memoryview(data)
    header, body = np.frombuffer(view[: HEADER.itemsize], HEADER), view[HEADER.itemsize :]
    if header["format"][0] != FORMAT:
        raise TornTable(f"a table of queries starts with {FORMAT!r}, found {header['format'][0]!r}")
    sizes = header["sizes"][0].tolist()
    spans = [size * kind.itemsize for size, kind in zip(sizes, KINDS, strict=True)]
    if sum(span + -span % ALIGN for span in spans) != len(body) or _digest(header, body) != header["sha256"][0]:
        raise TornTable("a table of queries is not what was written: its length or its sha256 differs")
    arrays, start = [], 0
    for size, span, kind in zip(sizes, spans, KINDS, strict=True):
        arrays.append(np.frombuffer(body[start : start + span], kind, size))
        start += span + -span % ALIGN
    table = QueryTable(*arrays, num_queries=int(header["num_queries"][0]), num_wordless=int(header["num_wordless"][0]))
    if not _is_safe(table):
        raise TornTable("a table of queries points outside of itself: it was not written by this program")
    return table


def _is_safe(table: QueryTable) -> bool:
    """True if nothing in the arrays leads match_kernel out of them or round for ever."""
    low = np.uint64(0xFFFFFFFF)
    slots, keys = table.words[2::4], table.branches[::2]
    if not all(_is_hash_table(array, width) for array, width in ((table.words, 4), (table.branches, 2))):
        return False
    ids, sizes = slots & low, slots >> np.uint64(32)
    refs = np.concatenate([table.words[3::4] & low, table.branches[1::2] & low]).astype(np.uint32)
    in_list = (refs & match_kernel.SEVERAL) != 0
    return bool(
        not slots.all()
        and not keys.all()
        and len(table.letters) >= PAD
        and (ids < len(table.places)).all()
        and (table.places[ids] + sizes + np.uint64(PAD) <= len(table.letters))[sizes > 2 * PIECE].all()
        and (refs[~in_list] <= table.num_queries).all()
        and ((refs[in_list] ^ np.uint32(match_kernel.SEVERAL)) < len(table.list_ends) - 1).all()
        and (table.list_ends[1:] >= table.list_ends[:-1]).all()
        and len(table.list_ends)
        and table.list_ends[-1] <= len(table.lists)
        and (table.lists < table.num_queries).all()
    )


def _is_hash_table(array: np.ndarray, width: int) -> bool:
    """True for a power of two of slots."""
    slots = len(array) // width
    return slots > 0 and slots * width == len(array) and slots & (slots - 1) == 0
