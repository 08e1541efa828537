"""Sets in Parquet as Hugging Face's `datasets` writes them.

in      folder/[data/]SPLIT-*.parquet (or SPLIT.parquet): a column of pictures, `image` or `img`, a struct with `bytes`; a column
        `label`, `fine_label` or `labels`, integers (a list of them in a multilabel set), or `captions`, `caption` or `text`
names   of the classes: those in the file's own metadata (`huggingface`: ClassLabel), or the set's file, see texts.py
out     a unit a row group
law     a picture without bytes is one that can not be read: paths in the struct are never followed
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from model.evaluate.datasets import BadSet, Example, Split, Unit

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
FILE = re.compile(r"(train|val|valid|validation|test)([-.].*)?\.parquet")
PICTURES, LABELS, CAPTIONS = ("image", "img"), ("label", "fine_label", "labels"), ("captions", "caption", "text")
MAX_TEXTS = 1000  # of a picture
BLOCK_BYTES = 1 << 20


def files_of(folder: str) -> dict[str, list[str]]:
    """The Parquet files of each split in a folder or its data/."""
    found: dict[str, list[str]] = {}
    for top in (folder, os.path.join(folder, "data")):
        for name in sorted(os.listdir(top)) if os.path.isdir(top) else []:
            if match := FILE.fullmatch(name):
                found.setdefault(SPLITS[match[1]], []).append(os.path.join(top, name))
    return found


def columns(path: str) -> tuple[str, str, str]:
    """The columns of pictures, labels ("" for none) and captions ("" for none). Raises BadSet where there is neither."""
    schema = _open(path).schema_arrow
    picture = next((name for name in PICTURES if name in schema.names), None)
    label = next((name for name in LABELS if name in schema.names), "")
    caption = "" if label else next((name for name in CAPTIONS if name in schema.names), "")
    if picture is None or not (label or caption):
        wanted = f"one of {', '.join(PICTURES)} and one of {', '.join(LABELS + CAPTIONS)}"
        raise BadSet(f"{path}: expected columns {wanted}, found {', '.join(schema.names)}")
    kind = schema.field(picture).type
    if not pa.types.is_struct(kind) or "bytes" not in [field.name for field in kind]:
        raise BadSet(f"{path}: expected column {picture!r} to be a struct with bytes, found {kind}")
    return picture, label, caption


def class_names(path: str) -> list[str]:
    """The names of a ClassLabel that the file's metadata tell; empty where they do not."""
    label = columns(path)[1]
    try:
        features: Any = json.loads((_open(path).schema_arrow.metadata or {})[b"huggingface"])["info"]["features"][label]
        names = features.get("names") or features["feature"]["names"]
        return [str(name).replace("_", " ") for name in names]
    except (KeyError, ValueError, TypeError, AttributeError):
        return []


def is_multilabel(path: str) -> bool:
    """True where a label is a list."""
    label = columns(path)[1]
    return bool(label) and pa.types.is_list(_open(path).schema_arrow.field(label).type)


def open_tables(listed: dict[str, list[str]]) -> dict[str, Split]:
    """The splits."""
    splits = {}
    for split, paths in listed.items():
        digest, units = hashlib.sha256(), []
        for path in paths:
            with open(path, "rb") as stream:
                while block := stream.read(BLOCK_BYTES):
                    digest.update(block)
            units += [Unit("tables", path, group, group + 1) for group in range(_open(path).num_row_groups)]
        splits[split] = Split(units=tuple(units), pictures=digest.hexdigest())
    return splits


def examples(unit: Unit, num_classes: int) -> Iterator[Example]:
    """The pictures of a row group. Raises BadSet for a label that is none of the classes'."""
    picture, label, caption = columns(unit.path)
    try:
        table = _open(unit.path).read_row_group(unit.start, columns=[name for name in (picture, label, caption) if name])
    except (OSError, pa.ArrowInvalid) as error:
        raise BadSet(f"{unit.path}: expected a whole Parquet file, found: {error}") from None
    stem = os.path.basename(unit.path).removesuffix(".parquet")
    for place, row in enumerate(table.to_pylist()):
        key = f"{stem}/{unit.start:04d}/{place:06d}"
        data = (row[picture] or {}).get("bytes") or b""
        if caption:
            texts = row[caption] if isinstance(row[caption], list) else [row[caption]]
            captions = tuple(str(text).strip() for text in texts[:MAX_TEXTS] if text and str(text).strip())
            yield Example(key=key, picture=data, captions=captions)
            continue
        labels = row[label] if isinstance(row[label], list) else [row[label]]
        if any(not isinstance(one, int) or not 0 <= one < num_classes for one in labels):
            raise BadSet(f"{unit.path}: row {key}: expected labels from 0 to {num_classes - 1}, found {str(labels)[:60]}")
        yield Example(key=key, picture=data, labels=tuple(labels))


def _open(path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise BadSet(f"{path}: expected a Parquet file, found: {error}") from None
