"""Counts of words, and of words that stand side by side, over bytes of text.

in      UTF-8 text in chunks, cut at white space
out     every word of normalize.wit_words with its count, every two that stand side by side in a line with theirs: exact, none
        is left out
law     the counts do not depend on where the text is cut into chunks. Bytes that are no UTF-8 are U+FFFD, a boundary
cost    30 to 38 MB/s of English on one core, 139 MB for 53 MB of it (tests/benchmarks/queries.py)
how     ASCII goes through one table of bytes; of the rest each distinct piece between two spaces is normalised once. Arrow
        numbers the words of a chunk, NumPy sorts the pairs of numbers
"""

# pyarrow.compute makes its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import normalize
from pipeline.errors import InputError

SPACE, LINE_END = 32, 10
GAPS = b" \t\n\r\v\f\x1c\x1d\x1e\x1f"  # what str.split() splits ASCII text at
MAX_WORD_BYTES = 1 << 24
MAX_KNOWN = 1 << 17  # pieces with other than ASCII characters whose words are remembered
MAX_PENDING = 1 << 24  # counts of bigrams that wait to be added up
_ascii = bytes(
    LINE_END if code == LINE_END else (ord(chr(code).lower()) if chr(code).isalnum() else SPACE) if code < 128 else code
    for code in range(256)
)
_is_gap = np.zeros(256, bool)
_is_gap[list(GAPS)] = True


def cut(data: bytes) -> int:
    """Where the last white space of the data ends: up to there it may be counted; 0 where there is none."""
    for start in range(len(data) - 1, -1, -1):
        if data[start] in GAPS:
            return start + 1
        if len(data) - start > MAX_WORD_BYTES:
            break
    return 0


class WordCounts:
    """Words and bigrams of one text, chunk by chunk."""

    def __init__(self) -> None:
        self.numbers: dict[bytes, int] = {}
        self.counts = np.zeros(1 << 12, np.int64)
        self.known: dict[bytes, bytes] = {}
        self.runs: list[tuple[np.ndarray, np.ndarray]] = []  # (bigram keys, counts), keys ascending in each
        self.num_pending = 0
        self.last = -1  # the word before the next chunk, in the same line; -1: none

    def add(self, chunk: bytes) -> None:
        """Count a chunk that ends at white space, or with the text."""
        words, breaks = _words(self._normal(chunk))
        if not len(words):
            self.last = -1 if breaks[0] else self.last
            return
        encoded = words.dictionary_encode()
        local = np.frombuffer(encoded.indices.buffers()[1], np.int32, len(words))
        numbers = np.fromiter(
            (self.numbers.setdefault(word, len(self.numbers)) for word in encoded.dictionary.to_pylist()), np.int64
        )
        if len(self.numbers) > len(self.counts):
            self.counts = np.concatenate([self.counts, np.zeros(len(self.numbers), np.int64)])
        self.counts[numbers] += np.bincount(local, minlength=len(numbers))
        found = numbers[local].astype(np.uint64)
        pairs = ((found[:-1] << np.uint64(32)) | found[1:])[~breaks[1:-1]]
        if self.last >= 0 and not breaks[0]:
            pairs = np.append(pairs, np.uint64(self.last << 32) | found[0])
        self.last = -1 if breaks[-1] else int(found[-1])
        self._add_run(*_counted(np.sort(pairs)))

    def words(self) -> tuple[pa.Array, np.ndarray]:
        """The distinct words and their counts."""
        return pa.array([word[:-1] for word in self.numbers], pa.binary()).cast(pa.string()), self.counts[: len(self.numbers)]

    def bigrams(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The distinct bigrams: numbers of first words, of second words (places in `words`), and their counts."""
        self._merge()
        keys, counts = self.runs[0] if self.runs else (np.zeros(0, np.uint64), np.zeros(0, np.int64))
        return (keys >> np.uint64(32)).astype(np.int64), (keys & np.uint64(0xFFFFFFFF)).astype(np.int64), counts

    def _normal(self, chunk: bytes) -> bytes:
        """The chunk with its words in normal form, spaces and line ends between them, nothing else; ends with a space."""
        if chunk.isascii():
            return chunk.translate(_ascii) + b" "
        buffer = np.frombuffer(chunk, np.uint8)
        gaps = np.flatnonzero(_is_gap[buffer])
        pieces, at = [], 0
        other = np.unique(np.searchsorted(gaps, np.flatnonzero(buffer >= 128)))  # numbers of the pieces that are not ASCII
        starts = np.where(other > 0, gaps[other - 1] + 1 if len(gaps) else 0, 0)
        ends = np.append(gaps, len(chunk))[other]
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            pieces += [chunk[at:start], self._words_of(chunk[start:end])]
            at = end
        return b"".join([*pieces, chunk[at:], b" "]).translate(_ascii)

    def _words_of(self, piece: bytes) -> bytes:
        normal = self.known.get(piece)
        if normal is None:
            normal = normalize.wit(piece.decode("utf-8", "replace")).encode()
            if len(self.known) >= MAX_KNOWN:
                self.known.clear()
            if len(piece) <= 64:
                self.known[piece] = normal
        return normal

    def _add_run(self, keys: np.ndarray, counts: np.ndarray) -> None:
        self.runs.append((keys, counts))
        self.num_pending += len(keys)
        if self.num_pending > max(MAX_PENDING, 2 * len(self.runs[0][0])):
            self._merge()

    def _merge(self) -> None:
        if len(self.runs) > 1:
            keys = np.concatenate([keys for keys, _ in self.runs])
            counts = np.concatenate([counts for _, counts in self.runs])
            order = np.argsort(keys, kind="stable")
            keys, counts = keys[order], counts[order]
            starts = _starts(keys)
            self.runs = [(keys[starts], np.add.reduceat(counts, starts))]
        self.num_pending = sum(len(keys) for keys, _ in self.runs)


def _starts(ordered: np.ndarray) -> np.ndarray:
    """Where each new value begins."""
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(ordered) else np.zeros(0, np.int64)


def _counted(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    starts = _starts(ordered)
    return ordered[starts], np.diff(np.append(starts, len(ordered)))


def _words(normal: bytes) -> tuple[pa.Array, np.ndarray]:
    """The words, each with a byte after it, and for each place between them whether a line ends there.

    normal: words with spaces and line ends between them, a space at the end. Returns [n] binary, [n + 1] bool
    """
    buffer = np.frombuffer(normal, np.uint8)
    is_line_end = buffer == LINE_END
    is_gap = is_line_end | (buffer == SPACE)
    after_gap = np.concatenate([[True], is_gap[:-1]])
    starts = np.flatnonzero(after_gap & ~is_gap)
    breaks = np.zeros(len(starts) + 1, bool)
    breaks[np.searchsorted(starts, np.flatnonzero(is_line_end))] = True
    kept = buffer[~(is_gap & after_gap)]
    kept[kept == LINE_END] = SPACE  # the byte after a word is always the same, so that equal words are equal bytes
    offsets = np.concatenate([[0], np.flatnonzero(kept == SPACE) + 1]).astype(np.int32)
    return pa.BinaryArray.from_buffers(pa.binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(kept)]), breaks


def check(rest: bytes, name: str) -> None:
    """Refuse a text that goes on and on without white space: it would have to be in memory whole."""
    if len(rest) > 2 * MAX_WORD_BYTES:
        raise InputError(f"queries: {name} has a word of more than {MAX_WORD_BYTES:,} bytes, so it is no text")


def joined(words: pa.Array, first: np.ndarray, second: np.ndarray) -> pa.Array:
    """First and second words with a space between them.  [m] string, [n], [n] places in it -> [n] string"""
    return pc.binary_join_element_wise(words.take(pa.array(first)), words.take(pa.array(second)), " ")
