"""Queries: build the list of what pairs are looked for.

in      Wikipedia dumps, page views, plain texts, files of concepts, WordNet's own database files
out     one row for each query, of schema.QUERIES, in the order of priority: concept, word, bigram, wordnet, title
drops   no_words: nothing but punctuation; repeated: the normal form of a query before it; too_long: over MAX_QUERY_CHARS;
        over_max_queries
law     no two queries have the same normal form; the list is a function of the files' content and the config, and does not
        depend on how the files are cut, nor on workers or retries
law     every count is exact: a word or a bigram is left out only by its count over all files
passes  PIECES: files cut where workers can begin, their sha256. COUNTS: what a piece says (querycounts), in buckets by hash.
        SUMS: a bucket of all pieces, added up; what is below the floors goes. Views of a redirect count for its target: SUMS
        sends them there, TITLES adds them. STAGE: the list, in one process
cost    memory of a worker: the counts of one piece, or of one bucket; STAGE: the words, bigrams and titles above the floors
source  CLIP section 2.2: all words that occur at least 100 times in the English Wikipedia, bigrams with high pointwise mutual
        information, names of all articles above a search volume, all WordNet synsets not already there
A bigram's PMI is log2(count * N / (count of first * count of second)), N the number of words of the texts. The paper
gives no threshold: the first max_bigrams by PMI stay, of those that occur min_bigram_count times. Titles come last in the
order because they alone have no natural end: the others are "all", and titles fill what they leave of max_queries. A
synset gives its head lemma, as in MetaCLIP, whose 86,654 names of synsets make its list 500,000. N, floors, K and the
inputs with sizes and hashes are in the table's metadata (see `notes`).
"""

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline import normalize, pieces, querycounts, schema, storage, wordnet
from pipeline.config import QueriesConfig
from pipeline.errors import InputError
from pipeline.hashing import sha256
from pipeline.manifest import Dataset, Manifest
from pipeline.stage import Input, Stage, Task, plan_map

NO_WORDS, REPEATED, TOO_LONG, OVER_MAX_QUERIES = "no_words", "repeated", "too_long", "over_max_queries"
REASONS = (NO_WORDS, REPEATED, TOO_LONG, OVER_MAX_QUERIES)
MAX_QUERY_CHARS = 256
Row = tuple[str, str, float | None]  # query, source, score


def files(config: QueriesConfig) -> dict[str, pa.Table]:
    """Every input file as a part of one row of schema.QUERY_FILES. InputError where there is none of that name."""
    if config.view_files and not config.dump_files:
        raise InputError("queries: view_files say what is read, not what is an article: give dump_files too (pages-articles XML)")
    found: list[tuple[str, str]] = [("concept", path) for path in config.concept_files]
    found += [("dump", path) for path in config.dump_files] + [("text", path) for path in config.text_files]
    found += [("views", path) for path in config.view_files]
    if config.wordnet_dir and storage.size(storage.join(config.wordnet_dir, wordnet.FILES[0])) is not None:
        found += [("wordnet", storage.join(config.wordnet_dir, name)) for name in wordnet.FILES]
    parts = {}
    for number, (kind, path) in enumerate(found):
        file_bytes, mark = pieces.mark(path, kind)
        row = {"kind": kind, "number": number, "path": path, "file_bytes": file_bytes, "mark": mark}
        name = f"{kind}-{sha256(path.encode())[:12]}"
        if name in parts:
            raise InputError(f"queries: {path} is named twice in {pieces.KINDS[kind]}; name it once")
        parts[name] = pa.Table.from_pylist([row], schema.QUERY_FILES)
    if not parts:
        raise _nothing()
    return parts


def _nothing() -> InputError:
    return InputError(
        "queries: no query came out; give files with words in them (--queries.dump-files, --queries.text-files, "
        "--queries.concept-files) or WordNet's folder (--queries.wordnet-dir)"
    )


class PiecesWorker:
    """Cuts files."""

    def __init__(self, config: QueriesConfig, sides: Mapping[str, Dataset]):
        self.config = config

    def __call__(self, *tables: pa.Table) -> pa.Table:
        (found,) = tables
        rows = found.select(["kind", "number", "path"]).to_pylist()
        return pa.concat_tables([pieces.scan(**row, piece_bytes=self.config.piece_bytes) for row in rows])


class CountsWorker:
    """Counts pieces."""

    def __init__(self, config: QueriesConfig, sides: Mapping[str, Dataset]):
        self.config = config

    def __call__(self, *tables: pa.Table) -> pa.Table:
        (found,) = tables
        return pa.concat_tables([querycounts.labelled(pieces.Piece(**row), self.config) for row in found.to_pylist()])


def plan_pieces(config: QueriesConfig, manifests: Sequence[Manifest]) -> list[Task]:
    """One task for each piece of each file."""
    return [
        Task(part=f"{part.name}-{row:05d}", inputs=(Input(source=0, part=part.name, rows=(row, row + 1)),))
        for part in manifests[0].parts
        for row in range(part.rows_out)
    ]


def _bucket(table: pa.Table, num_buckets: int) -> np.ndarray:
    return table["bucket"].to_numpy()


def _num_buckets(config: QueriesConfig) -> int:
    return config.num_buckets


def _table(frames: Sequence[pl.DataFrame], config: QueriesConfig) -> pa.Table:
    """Frames with kind, key, count as rows of schema.QUERY_COUNTS, in an order that does not depend on threads."""
    tables = []
    for frame in frames:
        frame = frame.sort("kind", "key")
        keys = frame["key"].to_list()
        columns = [
            frame["kind"].to_arrow().cast(pa.string()),
            pa.array(keys, pa.string()),
            pa.nulls(len(keys), pa.string()),
            frame["count"].cast(pl.Int64).to_arrow(),
            pa.array(querycounts.bucket_of(keys, config.num_buckets)),
        ]
        tables.append(pa.table(columns, schema=schema.QUERY_COUNTS))
    return pa.concat_tables(tables)


class SumsWorker:
    """Adds up one bucket of all pieces."""

    def __init__(self, config: QueriesConfig, sides: Mapping[str, Dataset]):
        self.config = config

    def __call__(self, *tables: pa.Table) -> pa.Table:
        (found,) = tables
        frame = pl.DataFrame(pl.from_arrow(found))
        by_kind = {str(kind): rows for (kind,), rows in frame.partition_by("kind", as_dict=True).items()}
        empty = frame.clear()
        summed = {kind: _summed(by_kind.get(kind, empty)) for kind in ("word", "bigram", "views", "total")}
        # a word of a bigram occurs at least as often as the bigram: PMI needs no others
        floors = {"word": min(self.config.min_word_count, self.config.min_bigram_count), "bigram": self.config.min_bigram_count}
        kept = [summed["total"].with_columns(kind=pl.lit("total"))]
        told = {}
        for kind, floor in floors.items():
            rows = summed[kind].filter(pl.col("count") >= floor)
            told |= {f"num_distinct_{kind}s": len(summed[kind]), f"num_{kind}s_above_floor": len(rows)}
            kept.append(rows.with_columns(kind=pl.lit(kind)))
        kept.append(pl.DataFrame({"key": list(told), "count": list(told.values()), "kind": ["total"] * len(told)}))
        for kind in ("concept", "wordnet"):
            places = by_kind.get(kind, empty).group_by("key").agg(pl.col("count").min(), pl.len())
            kept.append(places.with_columns(kind=pl.lit(kind)))
            kept.append(pl.DataFrame({"key": [f"num_{kind}_rows"], "count": [int(places["len"].sum())], "kind": ["total"]}))
        kept += _articles(by_kind.get("article", empty), by_kind.get("redirect", empty), summed["views"])
        return _table([rows.select("kind", "key", pl.col("count").cast(pl.Int64)) for rows in kept], self.config)


def _summed(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.group_by("key").agg(pl.col("count").sum())


def _articles(articles: pl.DataFrame, redirects: pl.DataFrame, views: pl.DataFrame) -> list[pl.DataFrame]:
    """Articles with their own views, and what redirects send to their targets. A redirect to a redirect leads nowhere."""
    articles = articles.select("key").unique()
    own = articles.join(views, on="key", how="left").with_columns(pl.col("count").fill_null(0), kind=pl.lit("article"))
    redirects = redirects.select("key", "target").unique(subset="key").join(articles, on="key", how="anti")
    sent = redirects.join(views, on="key", how="inner").select(key="target", count="count", kind=pl.lit("sent"))
    known = pl.concat([articles, redirects.select("key")])
    unknown = int(views.join(known, on="key", how="anti")["count"].sum())
    total = pl.DataFrame({"key": ["num_views_of_no_article"], "count": [unknown], "kind": ["total"]})
    return [own, sent.group_by("key", "kind").agg(pl.col("count").sum()), total]


class TitlesWorker:
    """Adds the views of redirects to their targets; everything else goes through."""

    def __init__(self, config: QueriesConfig, sides: Mapping[str, Dataset]):
        self.config = config

    def __call__(self, *tables: pa.Table) -> pa.Table:
        (found,) = tables
        frame = pl.DataFrame(pl.from_arrow(found)).select("kind", "key", "count")
        is_title = pl.col("kind").is_in(["article", "sent"])
        titles = (
            frame.filter(is_title).group_by("key").agg(pl.col("count").sum(), (pl.col("kind") == "article").any().alias("is"))
        )
        titles = titles.filter(pl.col("is") & (pl.col("count") >= self.config.min_title_views))
        rest = frame.filter(~is_title).group_by("kind", "key").agg(pl.col("count").sum())
        return _table([rest, titles.select("key", "count", kind=pl.lit("title"))], self.config)


def plan_list(config: QueriesConfig, manifests: Sequence[Manifest]) -> list[Task]:
    """One task that reads everything."""
    return [Task(part="queries", inputs=(Input(source=0, part=None),))]


class ListWorker:
    """Makes the list."""

    def __init__(self, config: QueriesConfig, sides: Mapping[str, Dataset]):
        self.config, self.pieces = config, sides["pieces"]

    def __call__(self, *tables: pa.Table) -> pa.Table:
        (found,) = tables
        frame = pl.DataFrame(pl.from_arrow(found))
        by_kind = {
            str(kind): dict(zip(rows["key"].to_list(), rows["count"].to_list(), strict=True))
            for (kind,), rows in frame.select("kind", "key", "count").partition_by("kind", as_dict=True).items()
        }
        summed = frame.filter(pl.col("kind") == "total").group_by("key").agg(pl.col("count").sum())
        totals: dict[str, int] = dict(summed.sort("key").iter_rows())
        rows, told = _candidates(by_kind, totals, self.config)
        told["inputs"] = json.dumps(_inputs(self.pieces))
        return _listed(rows, told, self.config)


def _inputs(found: Dataset) -> list[dict[str, object]]:
    rows = found.read(("kind", "path", "start", "file_bytes", "sha256")).to_pylist()
    return [{key: row[key] for key in ("kind", "path", "file_bytes", "sha256")} for row in rows if row["start"] == 0]


def _candidates(
    by_kind: Mapping[str, Mapping[str, int]], totals: Mapping[str, int], config: QueriesConfig
) -> tuple[list[Row], dict[str, str]]:
    """Every source's rows in order, best first, and what is to be recorded."""
    words, total = by_kind.get("word", {}), totals.get("num_words", 0)
    bigrams = ranked_bigrams(words, by_kind.get("bigram", {}), total)
    best = bigrams[: config.max_bigrams]
    lists: dict[str, list[Row]] = {
        "word": frequent_words(words, config.min_word_count),
        "bigram": best,
        "title": [(title, "title", float(-views)) for views, title in _descending(by_kind.get("title", {}))],
    }
    for kind in ("concept", "wordnet"):
        places = by_kind.get(kind, {})
        lists[kind] = [(query, kind, None) for query in sorted(places, key=lambda query: places[query])]
    told = {"order": ", ".join(config.order)} | {key: str(value) for key, value in totals.items()} | {"num_words": str(total)}
    told["wordnet"] = (
        f"{totals['num_synsets']} synsets"
        if "num_synsets" in totals
        else "left out: wordnet_dir is empty"
        if not config.wordnet_dir
        else f"left out: there is no folder {config.wordnet_dir} (Debian: apt-get install wordnet-base)"
    )
    settings = ("min_word_count", "min_bigram_count", "max_bigrams", "min_title_views", "max_queries", "wordnet_lemmas")
    told |= {key: str(getattr(config, key)) for key in settings}
    told["lowest_pmi"] = f"{best[-1][2]:.6f}" if best else "none"
    told["num_bigrams_over_max_bigrams"] = str(len(bigrams) - len(best))
    return [row for kind in config.order for row in lists[kind]], told


def _descending(counts: Mapping[str, int]) -> list[tuple[int, str]]:
    return sorted((-count, key) for key, count in counts.items())


def frequent_words(words: Mapping[str, int], min_count: int) -> list[Row]:
    """Words seen at least `min_count` times, most frequent first."""
    return [(word, "word", float(-count)) for count, word in _descending(words) if -count >= min_count]


def ranked_bigrams(words: Mapping[str, int], bigrams: Mapping[str, int], total: int) -> list[Row]:
    """The bigrams by PMI in bits, highest first; of equal ones the first in the alphabet first."""
    found = []
    for bigram, count in bigrams.items():
        first, second = bigram.split(" ")
        found.append((-math.log2(count * total / (words[first] * words[second])), bigram))
    return [(bigram, "bigram", -score) for score, bigram in sorted(found)]


def _listed(rows: Sequence[Row], told: dict[str, str], config: QueriesConfig) -> pa.Table:
    """The labelled list."""
    seen: set[str] = set()
    drops: list[str | None] = []
    ids: list[int] = []
    for query, _, _ in rows:
        form = normalize.wit(query)
        if not form:
            drop = NO_WORDS
        elif len(query) > MAX_QUERY_CHARS:
            drop = TOO_LONG
        else:
            drop = REPEATED if form in seen else OVER_MAX_QUERIES if len(seen) >= config.max_queries else None
        ids.append(len(seen))
        if drop is None:
            seen.add(form)
        drops.append(drop)
    if not seen:
        raise _nothing()
    for kind in config.order:
        told[f"num_{kind}"] = str(sum(drop is None and row[1] == kind for row, drop in zip(rows, drops, strict=True)))
    titles = [row[2] for row, drop in zip(rows, drops, strict=True) if drop is None and row[1] == "title"]
    told["lowest_title_views"] = str(int(titles[-1] or 0)) if titles else "none"
    columns = [ids, [_readable(row[0]) for row in rows], [row[1] for row in rows], [row[2] for row in rows]]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema.QUERIES, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=schema.QUERIES.with_metadata(told))
    return table.append_column(schema.DROP, pa.array(drops, pa.string()))


def _readable(query: str) -> str:
    """The query without control characters, which Parquet could hold but nobody can read."""
    return query if query.isprintable() else " ".join("".join(c if c.isprintable() else " " for c in query).split())


def notes(queries: pa.Table) -> dict[str, str]:
    """What the list records of itself: sizes, floors, inputs, and what was left out."""
    return {key.decode(): value.decode() for key, value in (queries.schema.metadata or {}).items()}


PIECES = Stage(name="queries_pieces", version=1, shape="fanout", worker=PiecesWorker, writes=schema.QUERY_PIECES, plan=plan_map)
COUNTS = Stage(
    name="queries_counts", version=1, shape="fanout", worker=CountsWorker, writes=schema.QUERY_COUNTS, plan=plan_pieces,
    bucket=_bucket, buckets=_num_buckets,
)  # fmt: skip
SUMS = Stage(
    name="queries_sums", version=1, shape="count", worker=SumsWorker, writes=schema.QUERY_COUNTS, bucket=_bucket,
    buckets=_num_buckets,
)  # fmt: skip
TITLES = Stage(name="queries_titles", version=1, shape="count", worker=TitlesWorker, writes=schema.QUERY_COUNTS)
STAGE = Stage(name="queries", version=2, shape="fanout", worker=ListWorker, writes=schema.QUERIES, plan=plan_list)
