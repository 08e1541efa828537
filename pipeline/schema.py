"""The columns of every dataset, once, with what they mean.

law     a stage may add columns; it may not rename or retype one (shards take img2dataset's names, see SHARDS)
units   `_px` pixels, `_bytes` bytes
A labelled table, which is what a stage's worker returns, has one more column, `drop`: the reason why the row leaves,
or null. The runner takes that column away, counts it and keeps a sample of the rows that left.
"""

import pyarrow as pa

DROP = pa.field("drop", pa.string())
OUTPUT = pa.field("output", pa.int32())  # which of the task's output files a row goes to, where there are several

DISTINCT = frozenset(("pair_id", "image_url", "text", "record_offset"))  # columns whose values hardly ever come twice in a part

SOURCES = pa.schema(
    [
        ("archive", pa.string()),  # path or URL, as given
        ("format", pa.string()),  # wat, warc or html
        ("archive_bytes", pa.int64()),
    ]
)

FOREIGN = pa.schema(  # shards that img2dataset made
    [
        ("tar", pa.string()),
        ("parquet", pa.string()),
        ("tar_bytes", pa.int64()),
    ]
)

CANDIDATES = pa.schema(
    [
        ("pair_id", pa.string()),  # 32 hex digits of hashing.pair_id(image_url, text)
        ("image_url", pa.string()),  # absolute, canonical (WHATWG), http or https; as written where drop is bad_url
        ("text", pa.string()),  # cleaned
        ("page_url", pa.string()),
        ("attribute", pa.string()),  # where the text stood: alt, title, figcaption, og:image:alt
        ("link_index", pa.int32()),  # the image link's place in its page, from 0, in document order
        ("archive", pa.string()),
        ("record_offset", pa.int64()),  # of the archive's record, in bytes of the (compressed) file; -1 for HTML files
    ]
)

QUERIES = pa.schema(
    [
        ("query_id", pa.uint32()),  # 0 .. number of queries - 1, in the order of the file
        ("query", pa.string()),  # as the source writes it
        ("source", pa.string()),  # word, bigram, title, wordnet, concept
        ("score", pa.float64()),  # count of a word, PMI of a bigram, views of a title; null where the source has none
    ]
)
QUERY_FILES = pa.schema(  # what the query list is made from
    [
        ("kind", pa.string()),  # concept, dump, text, views, wordnet
        ("number", pa.int32()),  # of the file, in the order of the command line
        ("path", pa.string()),
        ("file_bytes", pa.int64()),
        ("mark", pa.string()),  # pieces.mark: other where the file changed
    ]
)
QUERY_PIECES = pa.schema(
    [
        ("kind", pa.string()),
        ("number", pa.int32()),
        ("path", pa.string()),
        ("packing", pa.string()),  # plain, gzip, bzip2
        ("start", pa.int64()),  # of the piece in the file as it is stored
        ("end", pa.int64()),
        ("file_bytes", pa.int64()),
        ("sha256", pa.string()),  # of the whole file
    ]
)
QUERY_COUNTS = pa.schema(
    [
        ("kind", pa.string()),  # see queries
        ("key", pa.string()),
        ("target", pa.string()),  # of a redirect
        ("count", pa.int64()),
        ("bucket", pa.uint16()),
    ]
)

MATCHED = CANDIDATES.append(pa.field("query_ids", pa.list_(pa.uint32())))  # ascending, no repeats, never empty
BALANCED = MATCHED

COUNTS = pa.schema(
    [
        ("query_id", pa.uint32()),
        ("count", pa.int64()),  # distinct pairs whose text matches the query
        ("inner", pa.int64()),  # those of them that the query itself let pass in an earlier balance; all where there was none
    ]
)
WINDOWS = pa.schema(  # what is known of a query's limit before its draws are looked at
    [
        ("query_id", pa.uint32()),
        ("count", pa.int64()),
        ("low", pa.uint64()),  # the largest draw that passes is at least this
        ("high", pa.uint64()),  # and at most this; equal where nothing is left to find out
    ]
)
DRAWS = pa.schema(  # the draws of one part's pairs for the queries whose window is open
    [
        ("query_id", pa.uint32()),
        ("below", pa.int64()),  # draws under the window
        ("draws", pa.list_(pa.uint64())),  # those in the window, ascending
    ]
)
LIMITS = pa.schema(
    [
        ("query_id", pa.uint32()),
        ("count", pa.int64()),
        ("largest", pa.uint64()),  # the largest draw that passes; all ones: every pair passes
    ]
)
PER_QUERY = pa.schema(  # what balancing did to each query that occurs
    [
        ("query_id", pa.uint32()),
        ("count", pa.int64()),  # distinct pairs before
        ("kept", pa.int64()),  # and after
        ("probability", pa.float64()),  # of a pair to pass by this query; under 1 in the head
    ]
)

IMAGE_FIELDS = pa.schema(
    [
        ("key", pa.string()),  # stem of the members in the tar
        ("width", pa.int32()),  # px, as stored
        ("height", pa.int32()),
        ("original_width", pa.int32()),  # px, as served, orientation applied
        ("original_height", pa.int32()),
        ("original_bytes", pa.int64()),
        ("media_type", pa.string()),  # of the served bytes, by their content: image/jpeg, image/png, ...
        ("sha256", pa.string()),  # of the served bytes
        ("phash", pa.uint64()),  # fingerprints.phash of the picture
        ("colors", pa.binary(48)),  # fingerprints.colors: mean RGB of a 4 x 4 grid, row by row
    ]
)
IMAGE = pa.field("image", pa.binary())  # encoded bytes; in memory only: on disk they are members of a tar
HTTP_STATUS = pa.field("http_status", pa.int16())  # of the answer that a row was dropped for; in the rows that left only
FAILED = pa.schema(  # every row that left a part, in order
    [
        ("row", pa.int32()),  # of the task's rows of the first source
        ("drop", pa.string()),
        ("http_status", pa.int16()),  # null where it was not the trouble, or the stage asks no server
    ]
)
FETCHED = pa.schema(  # of each row that a download was asked for: how that went, in the log of its part and in no hash
    [
        (
            "fetched_at",
            pa.timestamp("ms", "UTC"),
        ),  # of the last request; where there was none, of the decision that there is none
        ("num_requests", pa.int16()),  # for the picture; redirects and repetitions included, robots.txt not
        ("final_url", pa.string()),  # of the last request
        ("last_status", pa.int16()),  # of its answer; null: there was none
        ("content_type", pa.string()),  # its headers, as sent
        ("content_encoding", pa.string()),
        ("content_length", pa.string()),
        ("last_modified", pa.string()),
        ("etag", pa.string()),
        ("x_robots_tag", pa.string()),
        ("retry_after", pa.string()),
    ]
)
PLACE_FIELDS = pa.schema(  # added by the tar writer
    [
        ("image_offset", pa.int64()),  # of the image's bytes in the tar
        ("image_bytes", pa.int64()),
    ]
)


def join(*schemas: pa.Schema) -> pa.Schema:
    """One schema with the fields of all."""
    return pa.schema([field for schema in schemas for field in schema])


IMAGES = join(BALANCED, IMAGE_FIELDS)

BANDS = pa.schema(  # one row for each picture and band of its hash
    [
        ("band", pa.uint8()),  # its number, from 0
        ("bits", pa.uint64()),  # of the hash, the others 0
        ("phash", pa.uint64()),
        ("colors", pa.binary(48)),
        ("pair_id", pa.string()),
        ("sha256", pa.string()),
        ("url_hash", pa.uint64()),  # hashing.string_hash(image_url)
        ("text_rank", pa.int32()),  # bigger is more specific; see dedupe
    ]
)
EDGES = pa.schema(  # what one bucket of bands knows of groups
    [
        ("pair_id", pa.string()),
        ("other_id", pa.string()),  # of the same group, perhaps itself; null: the picture `sha256` is a placeholder
        ("sha256", pa.string()),  # of pair_id, as is text_rank
        ("text_rank", pa.int32()),
    ]
)

EVALUATION_FILES = pa.schema([("set", pa.string()), ("path", pa.string()), ("file_bytes", pa.int64())])  # set: as given
EVALUATION = pa.schema(  # a picture of an evaluation set, as it is or mirrored
    [
        ("set", pa.string()),
        ("name", pa.string()),  # path, of a tar's member with its name
        ("mirrored", pa.bool_()),
        ("phash", pa.uint64()),
        ("colors", pa.binary(48)),
        ("reason", pa.string()),  # why it could not be read, see images; null where it could
    ]
)
OVERLAPS = pa.schema(  # the pairs whose picture is near one of an evaluation set
    [
        ("pair_id", pa.string()),
        ("set", pa.string()),
        ("name", pa.string()),  # of the nearest one, the first of equals
        ("mirrored", pa.bool_()),
        ("distance", pa.int32()),  # bits of the hash
    ]
)

UNIQUE = pa.schema(
    [
        ("pair_id", pa.string()),
        ("query_ids", pa.list_(pa.uint32())),
        ("row", pa.int32()),  # of the pair in its images part
        ("group_pairs", pa.int32()),  # how many pairs showed this picture, this one included
    ]
)

TRIMMED = pa.schema([UNIQUE.field("pair_id"), UNIQUE.field("query_ids")])

SHARDS = join(  # img2dataset's names first, then ours
    pa.schema(
        [
            ("key", pa.string()),
            ("url", pa.string()),  # image_url
            ("caption", pa.string()),  # text
            ("status", pa.string()),  # always "success"
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("original_width", pa.int32()),
            ("original_height", pa.int32()),
            ("sha256", pa.string()),
        ]
    ),
    pa.schema(
        [
            ("pair_id", pa.string()),
            ("page_url", pa.string()),
            ("attribute", pa.string()),
            ("archive", pa.string()),
            ("record_offset", pa.int64()),
            ("phash", pa.uint64()),
            ("query_ids", pa.list_(pa.uint32())),
        ]
    ),
)


def check(table: pa.Table, schema: pa.Schema, reader: str) -> None:
    """Raise ValueError unless `table` has every column of `schema` with its type; more columns are welcome."""
    for field in schema:
        index = table.schema.get_field_index(field.name)
        if index < 0:
            raise ValueError(f"{reader}: no column {field.name!r} (found: {', '.join(table.column_names)})")
        found = table.schema.field(index).type
        if found != field.type:
            raise ValueError(f"{reader}: column {field.name!r} is {found}, expected {field.type}")
