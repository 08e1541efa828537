"""Rows of a dataset to look at: kept pairs with their pictures, dropped rows with their reason.

in      finished folders: 6_shards; any folder's samples of dropped rows; 4_images for the pictures of what left after it
out     Pairs: texts, URLs and small JPEGs made here
law     chosen by hash: the same dataset gives the same sheet
law     everything in a Pair but its picture is a stranger's text: who shows it must escape it
cost    at most MAX_FILES files of a folder are read, whatever its size; of tars only the pictures shown
"""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from pipeline import hashing, storage
from pipeline.manifest import Dataset, File, torn

MAX_FILES = 32
MAX_PIXELS = 20_000_000
THUMBNAIL_PX = 128
SEED = 20_210_226
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A pair to show."""

    pair_id: str
    text: str
    image_url: str
    page_url: str
    picture: bytes | None = None  # JPEG
    queries: tuple[str, ...] = ()  # the longest, which say most, first
    survivor_id: str = ""  # of a duplicate: the pair that stays in its place
    survivor: "Pair | None" = None  # the same, where its picture was found


@dataclass(frozen=True, kw_only=True, slots=True)
class Drop:
    """A reason of a stage with some of its rows."""

    folder: str
    reason: str
    count: int
    rows: list[Pair]


def kept_pairs(root: str, count: int, queries: Mapping[int, str]) -> list[Pair]:
    """`count` pairs of the shards. `queries`: their names by query_id."""
    dataset = Dataset(storage.join(root, "6_shards"))
    columns = ["pair_id", "url", "caption", "page_url", "query_ids", "image_offset", "image_bytes"]
    chosen: list[tuple[int, str, Row]] = []
    for file in _files(dataset, dropped=False):
        table = _read(dataset, file, columns)
        draws = _draws(table["pair_id"].to_pylist())
        smallest = np.argsort(draws, kind="stable")[:count].tolist()
        chosen += [(int(draws[row]), file.name, table.slice(row, 1).to_pylist()[0]) for row in smallest]
        chosen = sorted(chosen, key=lambda item: item[0])[:count]
    return [
        replace(
            _pair(row),
            picture=_picture(dataset, file, row),
            queries=tuple(sorted((queries[i] for i in row["query_ids"] if i in queries), key=lambda query: (-len(query), query))),
        )
        for _, file, row in chosen
    ]


def dropped_pairs(root: str, folder: str, count: int) -> list[Drop]:
    """For each reason of the folder, most frequent first, `count` of its dropped rows (fewer where fewer were kept)."""
    dataset = Dataset(storage.join(root, folder))
    rows = [row for file in _files(dataset, dropped=True) for row in _smallest(_read(dataset, file), count)]
    order = np.argsort(_draws([row["pair_id"] for row in rows]), kind="stable")
    by_reason: dict[str, list[Row]] = {}
    for index in order.tolist():
        by_reason.setdefault(rows[index]["drop"], []).append(rows[index])
    return [
        Drop(folder=folder, reason=reason, count=total, rows=[_pair(row) for row in by_reason.get(reason, [])[:count]])
        for reason, total in dataset.manifest.drops.items()
    ]


def with_pictures(root: str, drops: Sequence[Drop]) -> list[Drop]:
    """Dropped rows of stages that come after the download, with their pictures; duplicates with the pair that stays."""
    pairs = [pair for drop in drops for pair in drop.rows]
    found = _find(root, {pair.pair_id for pair in pairs} | {pair.survivor_id for pair in pairs})

    def show(pair: Pair) -> Pair:
        return replace(found.get(pair.pair_id, pair), survivor=found.get(pair.survivor_id))

    return [replace(drop, rows=[show(pair) for pair in drop.rows]) for drop in drops]


def _draws(pair_ids: list[str]) -> np.ndarray:
    """The numbers by which samples are chosen.  [n] -> [n] uint64"""
    return hashing.draw(SEED, hashing.pair_hash(pair_ids), np.zeros(len(pair_ids), np.uint64))


def _files(dataset: Dataset, *, dropped: bool) -> list[File]:
    """At most MAX_FILES Parquet files of the dataset, chosen by hash: of its rows, or of its samples of dropped rows."""
    files = [file for part in dataset.manifest.parts for file in part.files if file.name.endswith(".parquet")]
    wanted = [file for file in files if (file.name.startswith("_dropped/") if dropped else not file.name.startswith("_"))]
    return sorted(wanted, key=lambda file: hashing.string_hash(file.name))[:MAX_FILES]


def _read(dataset: Dataset, file: File, columns: list[str] | None = None) -> pa.Table:
    data = storage.read(storage.join(dataset.folder, file.name))
    if hashing.sha256(data) != file.sha256:
        raise torn(dataset.folder, file, f"{len(data)} bytes with another sha256")
    return storage.table(data, columns)


def _smallest(table: pa.Table, count: int) -> Iterator[Row]:
    """At most `count` rows of each reason, those with the smallest draws."""
    reasons = table["drop"].to_pylist()
    seen: Counter[str] = Counter()
    for index in np.argsort(_draws(table["pair_id"].to_pylist()), kind="stable").tolist():
        seen[reasons[index]] += 1
        if seen[reasons[index]] <= count:
            yield table.slice(index, 1).to_pylist()[0]


def _pair(row: Row) -> Pair:
    """The row of any stage; shards have img2dataset's names for text and URL."""
    return Pair(
        pair_id=row["pair_id"],
        text=row.get("text") or row.get("caption") or "",
        image_url=row.get("image_url") or row.get("url") or "",
        page_url=row.get("page_url") or "",
        survivor_id=row.get("survivor_id") or "",
    )


def _find(root: str, pair_ids: set[str]) -> dict[str, Pair]:
    """Pairs of 4_images by pair_id, with pictures; those in files that are not read are left out."""
    dataset = Dataset(storage.join(root, "4_images"))
    columns = ["pair_id", "text", "image_url", "page_url", "image_offset", "image_bytes"]
    found = {}
    for file in _files(dataset, dropped=False):
        table = _read(dataset, file, columns)
        here = [index for index, pair_id in enumerate(table["pair_id"].to_pylist()) if pair_id in pair_ids]
        for row in table.take(pa.array(here, pa.int64())).to_pylist():
            found[row["pair_id"]] = replace(_pair(row), picture=_picture(dataset, file.name, row))
    return found


def _picture(dataset: Dataset, parquet: str, row: Row) -> bytes | None:
    """The small JPEG of a row's picture, which is read from its place in the tar beside the Parquet file."""
    with storage.open_read(storage.join(dataset.folder, parquet.removesuffix(".parquet") + ".tar")) as tar:
        tar.seek(row["image_offset"])
        return thumbnail(tar.read(row["image_bytes"]))


def thumbnail(data: bytes) -> bytes | None:
    """A small JPEG of a JPEG; None where it is none or a huge one."""
    sink = io.BytesIO()
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            image.draft("RGB", (2 * THUMBNAIL_PX, 2 * THUMBNAIL_PX))
            small = image.convert("RGB")
            small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            small.save(sink, "JPEG", quality=88)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError):
        return None
    return sink.getvalue()
