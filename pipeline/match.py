"""Match: find which queries occur in the text of each pair.

in      candidates; the query list as side dataset "queries"
out     matched = candidates + query_ids: list<uint32>, ascending, no repeats; cut into buckets by the host of image_url
drops   no_query
law     one row out for each row in, in the same order; pair_id untouched; exact (see matcher and normalize)
shape   map
cost    linear in the bytes of the texts; the table of the queries is made once a machine, by the first worker, and its
        memory is shared by all (see node_cache)
source  CLIP section 2.2; MetaCLIP, "Sub-string Matching"
"""

# pyarrow.compute makes its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

import logging
from collections.abc import Mapping
from unicodedata import unidata_version

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import node_cache, normalize, query_table, schema
from pipeline.config import MatchConfig
from pipeline.errors import InputError
from pipeline.hashing import sha256, string_hash
from pipeline.hosts import host
from pipeline.manifest import Dataset, canonical
from pipeline.matcher import Matcher
from pipeline.stage import Stage

NO_QUERY = "no_query"
VERSION = 1  # of the stage: raise it when rows change, and with it when a word of normalize does


def match(pairs: pa.Table, matcher: Matcher) -> pa.Table:
    """Add `query_ids`, and the drop reason of the rows that match nothing."""
    schema.check(pairs, schema.CANDIDATES, "match")
    query_ids = matcher.find(pairs["text"])
    drop = pc.if_else(pc.equal(pc.list_value_length(query_ids), 0), NO_QUERY, pa.scalar(None, pa.string()))
    return pairs.append_column(schema.MATCHED.field("query_ids"), query_ids).append_column(schema.DROP, drop)


def bucket(pairs: pa.Table, num_buckets: int) -> np.ndarray:
    """The bucket of each pair's host: all pairs of a host, and so all repeats of a pair, meet in one.  [rows] int64"""
    pieces = pc.split_pattern(pairs["image_url"], "/", max_splits=3)
    authorities = pc.list_element(pieces, 2).combine_chunks().dictionary_encode()
    names = [host(f"//{authority}") for authority in authorities.dictionary.to_pylist()]
    numbers = np.array([string_hash(name) % num_buckets for name in names], np.int64)
    return numbers[authorities.indices.to_numpy(zero_copy_only=False)]


class Worker:
    """What one actor holds: the matcher of a table that all actors of the machine share."""

    def __init__(self, config: MatchConfig, sides: Mapping[str, Dataset]):
        queries = sides["queries"]
        made_from = [queries.manifest.hash, config.normalizer, VERSION, query_table.FORMAT.decode(), unidata_version]
        name = f"queries-{sha256(canonical(made_from))[:32]}"
        table = node_cache.shared(name, lambda: make_table(queries, config.normalizer), query_table.read)
        self.matcher = Matcher.of_table(table, config.normalizer)

    def __call__(self, pairs: pa.Table) -> pa.Table:
        return match(pairs, self.matcher)


def make_table(queries: Dataset, normalizer: str) -> bytes:
    """The table of a query list. Tells of queries that can never be found; InputError where there is none that can."""
    rows = queries.read(("query_id", "query"))
    if not rows.num_rows:
        raise InputError(f"match: {queries.folder} has no queries; build the list again with at least one")
    if rows["query_id"].to_pylist() != list(range(rows.num_rows)):
        raise InputError(f"match: the query_id of {queries.folder} must be 0, 1, 2, ...; build the list again")
    names = rows["query"].to_pylist()
    data = query_table.build(names, normalizer)
    num_wordless = query_table.read(data).num_wordless
    if num_wordless:
        words = normalize.QUERY_WORDS[normalizer]
        first = next(name for name in names if not words(name))
        told = f"{num_wordless} of the {len(names)} queries of {queries.folder} have no word in them, the first {first!r}"
        if num_wordless == len(names):
            raise InputError(f"match: {told}; nothing would match: build the list again with at least one word")
        logging.getLogger(__name__).warning("match: %s; they match nothing", told)
    return data


def _num_buckets(config: MatchConfig) -> int:
    return config.num_buckets


STAGE = Stage(
    name="match", version=VERSION, shape="map", worker=Worker, writes=schema.MATCHED, bucket=bucket, buckets=_num_buckets
)
