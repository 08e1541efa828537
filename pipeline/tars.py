"""WebDataset tars: pictures with their texts and their facts, in one uncompressed file.

in      a table with `key`, `image` (encoded bytes, never null), `text` or `caption`, and more columns
out     the bytes of a POSIX ustar file with three members a row, in the order of the rows: {key}.jpg the image,
        {key}.txt the text, {key}.json every column that is not binary, by its name; and the table with the image
        replaced by its place in the tar (schema.PLACE_FIELDS)
        In shards, which strangers read, an unsigned 64-bit number is 16 hex digits in the JSON: Hugging Face's datasets and
        whoever else knows no number over 2^63 could not open half of them
law     equal tables give equal bytes: no time, no owner; tar[image_offset : image_offset + image_bytes] is the image
cost    one copy of every image, and the tar in memory; tests/benchmarks/shard.py measures it
source  POSIX.1-2001 pax(1), "ustar Interchange Format"; keys and members as WebDataset and img2dataset have them
"""

import tarfile
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline import schema

BLOCK_BYTES, RECORD_BYTES = tarfile.BLOCKSIZE, tarfile.RECORDSIZE  # a tar's length is a multiple of a record
MAX_MEMBER_BYTES = 8**11 - 1  # the size is 11 octal digits
NAME_BYTES = 100

# One header as tarfile makes it, cut where name, size and checksum stand: the rest is the same for every member.
TEMPLATE = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
BEFORE_SIZE, AFTER_SIZE, AFTER_CHECKSUM = TEMPLATE[NAME_BYTES:124], TEMPLATE[136:148], TEMPLATE[156:]
FIXED_SUM = sum(BEFORE_SIZE + AFTER_SIZE + AFTER_CHECKSUM) + 8 * ord(" ")  # the checksum counts as 8 spaces
PADDING = [bytes(-n % BLOCK_BYTES) for n in range(BLOCK_BYTES)]  # after a body of n bytes, modulo a block


def header(name: bytes, num_bytes: int, name_sum: int) -> bytes:
    """The block before a member. `name_sum` is sum(name)."""
    size = b"%011o" % num_bytes
    checksum = b"%06o" % (FIXED_SUM + name_sum + sum(size))
    return b"%b%b%b\0%b%b\0 %b" % (name.ljust(NAME_BYTES, b"\0"), BEFORE_SIZE, size, AFTER_SIZE, checksum, AFTER_CHECKSUM)


def binary_views(column: pa.ChunkedArray) -> Iterator[memoryview]:
    """The values of a column of bytes without a copy."""
    for chunk in column.chunks:
        kind = np.int64 if pa.types.is_large_binary(chunk.type) else np.int32
        _, offsets, data = chunk.buffers()
        if len(chunk):
            places = np.frombuffer(offsets, kind)[chunk.offset : chunk.offset + len(chunk) + 1].tolist()
            for start, end in pairwise(places):
                yield memoryview(data or b"")[start:end]


def is_shard(table: pa.Table) -> bool:
    """Whether the columns are named as in shards and not as in images."""
    return "caption" in table.column_names


def hex_digits(number: int | None) -> str | None:
    """A 64-bit number for readers that may not know so large ones."""
    return None if number is None else f"{number:016x}"


def facts(table: pa.Table) -> list[bytes]:
    """One JSON object a row: the columns that are not bytes, in their order."""
    bytes_types = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    named = [field.name for field in table.schema if not any(is_type(field.type) for is_type in bytes_types)]
    told = table.select(named)
    for place, field in enumerate(told.schema):
        if is_shard(table) and field.type == pa.uint64():
            told = told.set_column(place, field.name, pa.array(map(hex_digits, told[field.name].to_pylist()), pa.string()))
    lines = pl.DataFrame(told).write_ndjson()
    return lines.encode().split(b"\n")[: table.num_rows]


def check(table: pa.Table) -> None:
    """Raise ValueError where a reader could not get back what was written."""
    keys = table["key"]
    if keys.null_count or len(keys.unique()) < len(keys):
        raise ValueError(f"tars: keys must be there and differ, found {len(keys.unique())} keys in {len(keys)} rows")
    bad = pl.Series(keys).filter(~pl.Series(keys).str.contains(r"^[A-Za-z0-9_-]{1,90}$"))
    if len(bad):
        raise ValueError(f"tars: a key is 1 to 90 letters, digits, - or _ (readers cut at the first dot), found {bad[0]!r}")
    if table["image"].null_count:
        raise ValueError(f"tars: every row needs an image, found {table['image'].null_count} of {table.num_rows} without")


def pack(table: pa.Table) -> tuple[bytes, pa.Table]:
    """The tar of the table's pictures, and the table with their places in it instead of the pictures."""
    check(table)
    texts = table["caption" if is_shard(table) else "text"].to_pylist()
    rows = zip(table["key"].to_pylist(), binary_views(table["image"]), texts, facts(table), strict=True)
    pieces: list[bytes | memoryview] = []
    offsets, sizes, position = [], [], 0
    for key, image, text, fact in rows:
        stem = key.encode()
        stem_sum = sum(stem)
        for ending, body in ((b".jpg", image), (b".txt", (text or "").encode()), (b".json", fact)):
            num_bytes = len(body)
            if num_bytes > MAX_MEMBER_BYTES:
                raise ValueError(f"tars: a member holds at most {MAX_MEMBER_BYTES} bytes, found {num_bytes} in {key}")
            if ending == b".jpg":
                offsets.append(position + BLOCK_BYTES)
                sizes.append(num_bytes)
            padding = PADDING[num_bytes % BLOCK_BYTES]
            pieces += (header(stem + ending, num_bytes, stem_sum + sum(ending)), body, padding)
            position += BLOCK_BYTES + num_bytes + len(padding)
    pieces.append(bytes(2 * BLOCK_BYTES + -(position + 2 * BLOCK_BYTES) % RECORD_BYTES))
    placed = table.drop_columns(["image"])
    for field, values in zip(schema.PLACE_FIELDS, (offsets, sizes), strict=True):
        placed = placed.append_column(field, pa.array(values, field.type))
    return b"".join(pieces), placed
