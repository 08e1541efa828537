"""Match: find which queries occur in the text of each pair.

in      candidates; the query list as side dataset "queries"
out     matched = candidates + query_ids: list<uint32>, ascending, no repeats; cut into buckets by the host of image_url
drops   no_query
law     one row out for each row in, in the same order; pair_id untouched; exact (see matcher and normalize)
shape   map
cost    linear in the bytes of the texts; one Matcher in memory per worker
source  CLIP section 2.2; MetaCLIP, "Sub-string Matching"
"""

# pyarrow.compute makes its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.config import MatchConfig
from pipeline.errors import InputError
from pipeline.hashing import string_hash
from pipeline.hosts import host
from pipeline.manifest import Dataset
from pipeline.matcher import Matcher
from pipeline.stage import Stage

NO_QUERY = "no_query"


def match(pairs: pa.Table, matcher: Matcher) -> pa.Table:
    """Add `query_ids`, and the drop reason of the rows that match nothing."""
    schema.check(pairs, schema.CANDIDATES, "match")
    query_ids = matcher.find(pairs["text"])
    drop = pc.if_else(pc.equal(pc.list_value_length(query_ids), 0), NO_QUERY, pa.scalar(None, pa.string()))
    return pairs.append_column(schema.MATCHED.field("query_ids"), query_ids).append_column(schema.DROP, drop)


def bucket(pairs: pa.Table, num_buckets: int) -> np.ndarray:
    """The bucket of each pair's host: all pairs of a host, and so all repeats of a pair, meet in one.  [rows] int64"""
    buckets: dict[str, int] = {}
    numbers = np.empty(pairs.num_rows, np.int64)
    for row, url in enumerate(pairs["image_url"].to_pylist()):
        name = host(url)
        if name not in buckets:
            buckets[name] = string_hash(name) % num_buckets
        numbers[row] = buckets[name]
    return numbers


class Worker:
    """What one actor holds: the matcher, built once and not once a part."""

    def __init__(self, config: MatchConfig, sides: Mapping[str, Dataset]):
        queries = sides["queries"].read(("query_id", "query"))
        if not queries.num_rows:
            raise InputError(f"match: {sides['queries'].folder} has no queries; build the list again with at least one")
        if queries["query_id"].to_pylist() != list(range(queries.num_rows)):
            raise InputError(f"match: the query_id of {sides['queries'].folder} must be 0, 1, 2, ...; build the list again")
        self.matcher = Matcher(queries["query"].to_pylist(), config.normalizer)

    def __call__(self, pairs: pa.Table) -> pa.Table:
        return match(pairs, self.matcher)


def _num_buckets(config: MatchConfig) -> int:
    return config.num_buckets


STAGE = Stage(name="match", version=1, shape="map", worker=Worker, writes=schema.MATCHED, bucket=bucket, buckets=_num_buckets)
