"""Embeddings that are made once for a model and a split, and kept.

folder  root/evaluation/embeddings/MODEL/SET-SPLIT-PICTURES/ with MODEL and PICTURES the first 16 digits of the hashes of the
        model and of the split; part-NNNNN.parquet, one for each unit, and _MANIFEST.json, written last
        root/evaluation/embeddings/MODEL/SET-classes-TEXTS.parquet, the classifier: one unit vector a class, column `features`
columns see PARTS: a row for each picture, also for one that can not be read
law     a part is a function of model and unit: which worker makes it, how often and after which failure changes nothing
law     rows of the manifest = sum of the rows of its parts; a folder without a manifest, or whose parts are not what it says, is
        made again where it is not right
law     `load` gives rows in the set's order: that of the units, and in a unit that of its pictures
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model import files
from model.evaluate.datasets import BadSet, EvalSet

MANIFEST = "_MANIFEST.json"
VERSION = 1  # raise it where the same model and picture would get another vector
DIGITS = 16

PARTS = pa.schema(
    [
        ("key", pa.string()),  # name of the picture in its set
        ("labels", pa.list_(pa.int32())),  # the classes that it shows; one but for multilabel sets, none for captions
        ("captions", pa.list_(pa.string())),
        ("unreadable", pa.string()),  # why the picture could not be read; null for all others
        ("image_features", pa.list_(pa.float32())),  # after the projection, not normalised; null where unreadable
        ("before_projection", pa.list_(pa.float32())),  # null where the tower has no projection, and where unreadable
        ("caption_features", pa.list_(pa.list_(pa.float32()))),  # of each caption, not normalised
        ("thumbnail", pa.binary()),  # small PNG of some pictures, chosen by hash
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedded:
    """The readable pictures of a split, in the set's order.  B pictures, C classes, E embedding, D width before projection"""

    keys: list[str]
    labels: np.ndarray  # [B] int64, -1 where a picture has none or several
    truths: np.ndarray | None  # [B, C] bool, all classes that a picture shows; only of a multilabel set
    image_features: np.ndarray  # [B, E] float32, not normalised
    before_projection: np.ndarray  # [B, D] float32; image_features where the tower has no projection: CLIP appendix A.3
    captions: list[list[str]]
    caption_features: list[np.ndarray]  # [captions of the picture, E] float32, not normalised
    thumbnails: dict[int, bytes]  # PNG of some pictures, by place
    unreadable: dict[str, str]  # key -> why, of the pictures that are not among the rows


def folder(evaluation: str, model: str, eval_set: EvalSet, split: str) -> str:
    """Where the embeddings of a split are kept."""
    name = f"{eval_set.name}-{split}-{eval_set.split(split).key[:DIGITS]}"
    return files.join(evaluation, "embeddings", model[:DIGITS], name)


def part_path(kept: str, number: int) -> str:
    """The file of a unit."""
    return files.join(kept, f"part-{number:05d}.parquet")


def write_part(kept: str, number: int, table: pa.Table) -> dict[str, Any]:
    """Write the rows of a unit whole or not at all; returns what the manifest says of them."""
    sink = io.BytesIO()
    facts = {"rows": table.num_rows, "unreadable": table.num_rows - table["unreadable"].null_count}
    table = table.cast(PARTS).replace_schema_metadata({"facts": json.dumps({"version": VERSION, **facts})})
    pq.write_table(table, sink, compression="zstd")
    files.write(part_path(kept, number), sink.getvalue())
    return {"number": number, **facts, "sha256": files.sha256(sink.getvalue())}


def found_part(kept: str, number: int, listed: dict[int, str]) -> dict[str, Any] | None:
    """The same of a part that an earlier run left; None where there is none, or another than the manifest lists."""
    try:
        data = files.read(part_path(kept, number))
        facts = json.loads((pq.read_schema(io.BytesIO(data)).metadata or {})[b"facts"])
    except (FileNotFoundError, KeyError, ValueError, pa.ArrowInvalid):
        return None
    part = {"number": number, **facts, "sha256": files.sha256(data)}
    same = listed.get(number, part["sha256"]) == part["sha256"]
    return part if part.pop("version", None) == VERSION and same else None


def write_manifest(kept: str, parts: Sequence[dict[str, Any]], facts: dict[str, Any]) -> None:
    """Say that the folder is whole."""
    totals = {name: sum(part[name] for part in parts) for name in ("rows", "unreadable")}
    listed = sorted(parts, key=lambda part: part["number"])
    files.write(
        files.join(kept, MANIFEST), json.dumps({"version": VERSION, **facts, **totals, "parts": listed}, indent=1).encode()
    )


def listed_parts(kept: str) -> dict[int, str]:
    """Number -> sha256 of the parts that the folder's manifest lists; empty where there is none."""
    try:
        manifest = json.loads(files.read(files.join(kept, MANIFEST)))
        return {part["number"]: part["sha256"] for part in manifest["parts"] if manifest["version"] == VERSION}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def load(kept: str, eval_set: EvalSet) -> Embedded:
    """The kept embeddings of a split. Raises BadSet where it has no readable picture."""
    manifest = json.loads(files.read(files.join(kept, MANIFEST)))
    parts = [files.table(files.read(part_path(kept, part["number"]))) for part in manifest["parts"]]
    table = pa.concat_tables(parts)
    assert table.num_rows == manifest["rows"], f"{kept}: {table.num_rows} rows, {manifest['rows']} in the manifest"
    broken = table.filter(table["unreadable"].is_valid())
    table = table.filter(table["unreadable"].is_null())
    if not table.num_rows:
        raise BadSet(f"{kept}: expected pictures with labels, found none that can be read")
    labels, truths = table["labels"].to_pylist(), None
    if eval_set.kind == "multilabel":
        truths = np.zeros((table.num_rows, len(eval_set.classnames)), bool)
        for row, classes in enumerate(labels):
            truths[row, classes] = True
    features = _matrix(table["image_features"])
    before = table["before_projection"]
    return Embedded(
        keys=table["key"].to_pylist(),
        labels=np.asarray([classes[0] if len(classes) == 1 else -1 for classes in labels]),
        truths=truths,
        image_features=features,
        before_projection=features if before.null_count else _matrix(before),
        captions=table["captions"].to_pylist(),
        caption_features=[np.asarray(rows, np.float32) for rows in table["caption_features"].to_pylist()],
        thumbnails={row: png for row, png in enumerate(table["thumbnail"].to_pylist()) if png is not None},
        unreadable=dict(zip(broken["key"].to_pylist(), broken["unreadable"].to_pylist(), strict=True)),
    )


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """Lists of one length as a matrix."""
    flat = column.combine_chunks()
    return flat.flatten().to_numpy().reshape(len(flat), -1)
