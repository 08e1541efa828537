"""What one piece of an input says of queries: the labelled rows of schema.QUERY_COUNTS.

in      a piece of a dump, of a text, of page views, of concepts or of WordNet
out     kind       key               count
        word       normal form       times it occurs in the piece
        bigram     two normal forms  times they stand side by side in a line
        article    title             0: there is this article
        redirect   title             0: it leads to `target`
        views      title             of the title, in the piece
        concept    as written        its place: file number and line
        wordnet    lemma             its place: file number and synset
        total      name              a sum that the query list records
drops   of dumps: other_namespace (all but articles), other_model (no wikitext), too_large, too_deep (see wikitext), bad_title,
        main_page; disambiguation: the page's text counts, its title is no query. Of page views: bad_line, bad_title
law     the rows are a function of the piece's bytes. Redirects and what was dropped give no words
cost    see wikitext, wordcounts; the counts of one piece in memory
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipeline import dumps, pageviews, pieces, schema, wikitext, wordcounts, wordnet
from pipeline.config import QueriesConfig
from pipeline.hashing import mix, string_hash
from pipeline.pieces import Piece

OTHER_NAMESPACE, OTHER_MODEL, TOO_LARGE, DISAMBIGUATION = "other_namespace", "other_model", "too_large", "disambiguation"
MAIN_PAGE = "main_page"
REASONS = (
    OTHER_NAMESPACE, OTHER_MODEL, TOO_LARGE, wikitext.TOO_DEEP, pageviews.BAD_TITLE, MAIN_PAGE, DISAMBIGUATION,
    pageviews.BAD_LINE,
)  # fmt: skip
LABELLED = schema.QUERY_COUNTS.append(schema.DROP)
CHUNK_BYTES = 4 << 20
FILE_PLACES = 40  # bits for the place in a file


def labelled(piece: Piece, config: QueriesConfig) -> pa.Table:
    """The labelled rows of a piece."""
    return pa.concat_tables([LABELLED.empty_table(), *READERS[piece.kind](piece, config)])


def bucket_of(keys: list[str], num_buckets: int) -> np.ndarray:
    """The bucket of each key.  [n] str -> [n] uint16"""
    return (_hashes(keys) % np.uint64(num_buckets)).astype(np.uint16)


def rows(
    kind: str, keys: list[str], counts: list[int] | int, config: QueriesConfig, *, targets: list[str] | None = None,
    drop: list[str] | None = None,
) -> pa.Table:  # fmt: skip
    """Labelled rows of one kind."""
    size = len(keys)
    columns = [
        pa.array([kind] * size, pa.string()),
        pa.array(keys, pa.string()),
        pa.array(targets, pa.string()) if targets is not None else pa.nulls(size, pa.string()),
        pa.array(counts if isinstance(counts, list) else [counts] * size, pa.int64()),
        pa.array(bucket_of(keys, config.num_buckets)),
        pa.array(drop, pa.string()) if drop is not None else pa.nulls(size, pa.string()),
    ]
    return pa.table(columns, schema=LABELLED)


def _hashes(keys: list[str]) -> np.ndarray:
    return np.fromiter((string_hash(key) for key in keys), np.uint64, len(keys))


def _places(kind: str, texts: list[str], piece: Piece, config: QueriesConfig) -> pa.Table:
    return rows(kind, texts, [piece.number << FILE_PLACES | place for place in range(len(texts))], config)


def _concepts(piece: Piece, config: QueriesConfig) -> Iterator[pa.Table]:
    yield _places("concept", [line.strip() for line in pieces.lines(piece) if line.strip()], piece, config)


def _wordnet(piece: Piece, config: QueriesConfig) -> Iterator[pa.Table]:
    synsets = list(wordnet.synsets(pieces.lines(piece), piece.path))
    last = 1 if config.wordnet_lemmas == "first" else None
    yield _places("wordnet", [lemma for lemmas in synsets for lemma in lemmas[:last]], piece, config)
    yield rows("total", ["num_synsets"], len(synsets), config)


def _views(piece: Piece, config: QueriesConfig) -> Iterator[pa.Table]:
    views = pageviews.read(pieces.blocks(piece), piece.name(), config.language)
    titles = views.titles()
    yield rows("views", list(titles), list(titles.values()), config)
    yield rows("total", ["num_views", "num_lines_of_other_wikis"], [sum(titles.values()), views.num_other], config)
    bad = [line.decode("utf-8", "replace") for line, _ in views.bad]
    yield rows("views", bad, 0, config, drop=[reason for _, reason in views.bad])


def _text(piece: Piece, config: QueriesConfig) -> Iterator[pa.Table]:
    counts, rest = wordcounts.WordCounts(), b""
    for block in pieces.blocks(piece):
        rest += block
        if len(rest) >= CHUNK_BYTES and (end := wordcounts.cut(rest)):
            counts.add(rest[:end])
            rest = rest[end:]
        wordcounts.check(rest, piece.name())
    counts.add(rest)
    yield from _counted(counts, config)


def _counted(counts: wordcounts.WordCounts, config: QueriesConfig) -> Iterator[pa.Table]:
    """The rows of words and bigrams."""
    words, word_counts = counts.words()
    texts = words.to_pylist()
    hashes = _hashes(texts)
    yield rows("word", texts, word_counts.tolist(), config)
    yield rows("total", ["num_words"], int(word_counts.sum()), config)
    first, second, bigram_counts = counts.bigrams()
    buckets = (mix(mix(hashes[first]) ^ hashes[second]) % np.uint64(config.num_buckets)).astype(np.uint16)
    size = len(first)
    columns = [
        pa.array(["bigram"], pa.string()).take(pa.array(np.zeros(size, np.int64))),
        wordcounts.joined(words, first, second),
        pa.nulls(size, pa.string()),
        pa.array(bigram_counts.astype(np.int64)),
        pa.array(buckets),
        pa.nulls(size, pa.string()),
    ]
    yield pa.table(columns, schema=LABELLED)


class _Pages:
    """The titles of a piece of a dump, and the words of its articles."""

    def __init__(self, config: QueriesConfig):
        self.config = config
        self.counts = wordcounts.WordCounts()
        self.articles: list[str] = []
        self.redirects: list[tuple[str, str]] = []
        self.dropped: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.num_pages = self.num_chars = 0

    def add(self, page: dumps.Page) -> None:
        self.num_pages += 1
        title = pageviews.normal_title(page.title.encode())
        text, drop = "", None
        if page.namespace != dumps.ARTICLE:
            drop = OTHER_NAMESPACE
        elif title is None:
            drop = pageviews.BAD_TITLE
        elif title == "Main Page":
            drop = MAIN_PAGE
        elif page.redirect is not None:
            target = pageviews.normal_title(page.redirect.split("#")[0].encode())
            if target is not None:
                self.redirects.append((title, target))
                return
            drop = pageviews.BAD_TITLE
        elif page.model != "wikitext":
            drop = OTHER_MODEL
        elif page.text is None:
            drop = TOO_LARGE
        else:
            text, drop = wikitext.plain_text(page.text)
            if drop is None and wikitext.is_disambiguation(title, page.text):
                drop = DISAMBIGUATION
        self._count(text)
        if drop is not None:
            self.dropped.append((page.title[: pageviews.MAX_TITLE_BYTES], drop))
        elif title is not None:
            self.articles.append(title)

    def _count(self, text: str) -> None:
        self.texts.append(text)
        self.num_chars += len(text)
        if self.num_chars >= CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Count the texts that wait, each in lines of its own."""
        self.counts.add("\n".join([*self.texts, ""]).encode("utf-8", "replace"))
        self.texts, self.num_chars = [], 0


def _dump(piece: Piece, config: QueriesConfig) -> Iterator[pa.Table]:
    found = _Pages(config)
    is_last = piece.end == piece.file_bytes
    blocks = pieces.blocks(piece)
    for page in dumps.pages(
        blocks, piece.name(), is_first=piece.start == 0, is_last=is_last, max_page_chars=config.max_page_chars
    ):
        found.add(page)
    found.flush()
    yield from _counted(found.counts, config)
    yield rows("article", found.articles, 0, config)
    yield rows("redirect", [title for title, _ in found.redirects], 0, config, targets=[target for _, target in found.redirects])
    totals = {"num_pages": found.num_pages, "num_articles": len(found.articles), "num_redirects": len(found.redirects)}
    yield rows("total", list(totals), list(totals.values()), config)
    yield rows("article", [title for title, _ in found.dropped], 0, config, drop=[reason for _, reason in found.dropped])


READERS = {"concept": _concepts, "wordnet": _wordnet, "views": _views, "text": _text, "dump": _dump}
