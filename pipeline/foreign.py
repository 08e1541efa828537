"""Folders that img2dataset made (LAION, DataComp, CC12M), taken in as images: their owners skip the crawl.

in      shards: NNNNN.tar (webdataset format) with NNNNN.parquet beside it, as img2dataset 1.x writes them
out     images: what they say, with our ids and hashes; query_ids empty, page_url and attribute "", archive and record_offset
        the place of the picture in their tar
drops   not_downloaded: the list has it and img2dataset did not get it; no_member: the tar has no such picture;
        bad_url, no_text, repeated_pair; not_an_image, bomb, too_small, aspect, decode: as in download
law     one row in for each row of the list; a JPEG that every reader shows alike stays byte for byte, every other picture is
        encoded anew
law     hostile: see foreign_tars; pixels are worked on by decoding processes (decoders.py); sha256 and original sizes are taken
        from the list only where they have the form of one
cost    the pictures of one shard in memory, and their decoding (for the hashes)
source  img2dataset's writer.py and downloader.py, for names and columns
"""

import asyncio
import re
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from pipeline import foreign_tars, hashing, pictures, schema, storage, text, urls
from pipeline.config import DownloadConfig, ImportConfig
from pipeline.decoders import Decoders
from pipeline.errors import InputError
from pipeline.manifest import Dataset
from pipeline.stage import Stage

NOT_DOWNLOADED, BAD_URL, NO_TEXT, REPEATED = "not_downloaded", "bad_url", "no_text", "repeated_pair"
DROPS = (NOT_DOWNLOADED, foreign_tars.NO_MEMBER, BAD_URL, NO_TEXT, REPEATED, *pictures.DROPS)
COLUMNS = ("url", "key", "status")  # without these a Parquet file is none of img2dataset's
OPTIONAL = ("caption", "sha256", "original_width", "original_height")
LOOKUPS = 32  # sizes asked for at once
Row = dict[str, Any]


def shards(folder: str) -> list[Row]:
    """schema.FOREIGN rows of the shards in a folder, in order. InputError where img2dataset did not make it so."""
    try:
        names = set(storage.names(folder))
    except FileNotFoundError as error:
        raise InputError(
            f"import: {folder}: expected a folder that img2dataset made, found nothing there; check the path"
        ) from error
    stems = sorted(name.removesuffix(".tar") for name in names if re.fullmatch(r"\d+\.tar", name))
    if not stems:
        others = {".tfrecord": "tfrecord", ".tar.gz": "compressed tars", ".parquet": "parquet or files", ".jpg": "single files"}
        found = next((what for ending, what in others.items() if any(name.endswith(ending) for name in names)), "no shards")
        raise InputError(
            f"import: {folder}: expected NNNNN.tar and NNNNN.parquet (img2dataset's --output_format webdataset), found {found}; "
            "give the folder that holds the tars, or write it again in that format"
        )
    lonely = [stem for stem in stems if f"{stem}.parquet" not in names]
    if lonely:
        raise InputError(
            f"import: {folder}: {len(lonely)} of {len(stems)} tars have no Parquet file beside them (the first: "
            f"{lonely[0]}.tar): img2dataset did not finish them; run it again in incremental mode or remove them"
        )
    paths = [storage.join(folder, stem) for stem in stems]
    with ThreadPoolExecutor(LOOKUPS) as pool:
        sizes = pool.map(storage.size, [f"{path}.tar" for path in paths])
        return [
            {"tar": f"{path}.tar", "parquet": f"{path}.parquet", "tar_bytes": size}
            for path, size in zip(paths, sizes, strict=True)
        ]


def read_list(path: str) -> pa.Table:
    """The list of a shard with the columns that are used, as text and whole numbers."""
    try:
        table = storage.table(storage.read(path))
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"import: {path}: expected img2dataset's Parquet file, found none that can be read: {error}") from error
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise InputError(
            f"import: {path}: expected img2dataset's columns url, key and status, found {', '.join(table.column_names)[:200]}; "
            "is this the list of URLs that was given to it?"
        )
    names = [name for name in (*COLUMNS, *OPTIONAL) if name in table.column_names]
    kinds = [pa.int64() if name.startswith("original_") else pa.string() for name in names]
    try:
        return table.select(names).cast(pa.schema(list(zip(names, kinds, strict=True))))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"import: {path}: expected texts and numbers in {', '.join(names)}: {error}") from error


class Worker:
    """Turns one shard into images."""

    def __init__(self, config: ImportConfig, sides: Mapping[str, Dataset]):
        self.config = config
        settings = DownloadConfig(
            resize_mode="no", encode_quality=config.encode_quality, min_image_size=config.min_image_size,
            max_aspect_ratio=config.max_aspect_ratio, max_image_pixels=config.max_image_pixels,
            max_image_bytes=config.max_image_bytes,
        )  # fmt: skip
        self.decoders = Decoders(settings)
        weakref.finalize(self, self.decoders.close)

    def __call__(self, *tables: pa.Table) -> pa.Table:
        ((shard,),) = [table.to_pylist() for table in tables]
        rows = [labelled(row, shard["tar"]) for row in read_list(shard["parquet"]).to_pylist()]
        seen: set[tuple[str, str]] = set()
        for row in rows:
            pair = (row["image_url"], row["text"])
            if row["drop"]:
                continue
            if pair in seen:
                row["drop"] = REPEATED
            seen.add(pair)
        asyncio.run(foreign_tars.take_pictures(shard["tar"], rows, self.decoders, self.config.max_image_bytes))
        columns = [*schema.IMAGES, schema.IMAGE, schema.DROP]
        return pa.Table.from_pylist(rows, pa.schema(columns))


def labelled(given: Row, tar: str) -> Row:
    """A row of the list as a row of images without its picture, with the reason why there will be none.

    Its pair_id is of URL, text and place in the list: the same pair may stand in the lists of many shards, and no stage has
    seen them all before dedupe, which keeps one of equal pictures.
    """
    url = urls.canonical(given["url"] or "")
    words = text.clean((given.get("caption") or "")[: text.MAX_RAW_CHARS])
    image_url = url or (given["url"] or "")[: urls.MAX_URL_CHARS]
    name = hashing.pair_id(image_url, f"{words}\0{tar}\0{given['key']}")
    reason = None if given["status"] == "success" else NOT_DOWNLOADED
    reason = reason or (BAD_URL if url is None else NO_TEXT if not words else None)
    return {
        **{"pair_id": name, "key": name, "image_url": image_url, "text": words, "page_url": "", "attribute": "", "link_index": 0},
        **{"archive": "", "record_offset": -1, "query_ids": [], "foreign_key": given["key"] or "", "drop": reason},
        **{f"listed_{column}": given.get(column) for column in OPTIONAL[1:]},
    }


STAGE = Stage(name="import", version=2, shape="fanout", worker=Worker, writes=schema.IMAGES, tar=True)
