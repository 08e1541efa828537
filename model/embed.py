"""Pictures or texts to unit vectors, unit of work by unit of work, kept as Parquet.

in      a collection's units, an encoder
out     folder/part-NNNNN.parquet, a row for each item (see PARTS), and _MANIFEST.json, written last
law     a part is a function of the model, the unit and the settings; it is written whole or not at all, and is not made again
        where `made_from` is what this run asks for; so any number of workers, or of runs, gives the same rows once each
law     rows = those with vectors + those that are unreadable; an unreadable picture is a row that says why
how     a JPEG is decoded at 1/2, 1/4 or 1/8 where that is not smaller than the model's side: vectors differ a little from
        those of an evaluation, which decodes in full. Texts are encoded in the order of their lengths, which saves padding
cost    one batch of pictures in memory, and the vectors of a unit
"""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
from PIL import Image

from model import collection, files
from model.collection import Item, Unit, What
from model.config import free, require
from model.evaluate import datasets

if TYPE_CHECKING:
    from model.evaluate.encoders import Encoder

MANIFEST = "_MANIFEST.json"
VERSION = 1  # raise it where the same item would get another vector
SPACES = ("YCbCr", "Gray", "RGB")  # of JPEGs; Pillow reads others
PARTS = pa.schema(
    [
        ("key", pa.string()),  # see collection
        ("text", pa.string()),  # the text itself, or the one that stands beside a picture in a tar
        ("unreadable", pa.string()),  # why there is no vector; null for all others
        ("features", pa.list_(pa.float32())),  # of length one; null where unreadable
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedConfig:
    """Vectors of a collection's pictures or texts."""

    root: str = "out/mini"  # local path or s3:// URL; reads root/model, writes root/embeddings
    source: str = ""  # a folder, tar, Parquet or text file; "": the dataset's own shards, root/6_shards
    what: What = "images"
    name: str = ""  # of the folder under root/embeddings; "": the source's own name
    column: str = ""  # of Parquet files; "": see model/collection.py
    model: str = ""  # another project's checkpoint; "": root/model
    tokenizer: str = ""  # tokenizer.json or OpenAI's vocabulary, for weights that come without one
    activation: str = ""  # quick_gelu or gelu, for weights that do not tell
    batch_size: int = free(64)
    num_workers: int = free(0)  # Ray Data's actors; 0: this process

    def __post_init__(self) -> None:
        require(self.batch_size > 0, f"embed: batch_size must be at least 1, found {self.batch_size}")
        require(self.num_workers >= 0, f"embed: num_workers must not be negative, found {self.num_workers}")
        require("/" not in self.name, f"embed: name must be a file name, found {self.name!r}")

    @property
    def source_path(self) -> str:
        """What is embedded."""
        return self.source or files.join(self.root, "6_shards")

    @property
    def folder(self) -> str:
        """Where the vectors go."""
        name = self.name or self.source_path.rstrip("/").rsplit("/", 1)[-1]
        return files.join(self.root, "embeddings", f"{name}-{self.what}")


def mini() -> EmbedConfig:
    """The mini dataset's pictures by the mini model: seconds on a laptop."""
    return EmbedConfig()


def wit() -> EmbedConfig:
    """Any collection by any model."""
    return EmbedConfig(root="out/wit", batch_size=256)


RECIPES = {"mini": mini, "wit": wit}


def decode(data: bytes, resolution: int) -> Image.Image | str:
    """The picture as RGB, a JPEG at the smallest size that serves; or why there is none."""
    if data[:3] == b"\xff\xd8\xff":
        try:
            height, width, space = cast(tuple[int, int, str], simplejpeg.decode_jpeg_header(data)[:3])
            if space in SPACES and width * height <= datasets.MAX_PIXELS:
                shorter = min(width, height)
                need_height, need_width = (-(-side * resolution // shorter) for side in (height, width))
                pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=need_height, min_width=need_width)
                return Image.fromarray(pixels)
        except ValueError:
            pass  # Pillow reads some that libjpeg-turbo's strict reader does not, and says what is wrong with the others
    return datasets.decode(data)


def check_two_towers(encoder: "Encoder") -> None:
    """Raise BadCollection for a model that gives texts no vectors."""
    if "logit_scale" not in encoder.facts():
        raise collection.BadCollection(f"embed: expected a model with two towers for texts, found one of {encoder.objective}")


def embed(encoder: "Encoder", unit: Unit, what: What, column: str, batch_size: int) -> pa.Table:
    """The rows of a unit."""
    found = collection.items(unit, what, column)
    rows: list[dict[str, Any]] = []
    if what == "texts":
        every = list(found)
        rows = [{"key": item.key, "text": item.content, "unreadable": item.problem or None} for item in every]
        order = sorted((n for n, item in enumerate(every) if not item.problem), key=lambda n: len(every[n].content))
        for start in range(0, len(order), batch_size):
            some = order[start : start + batch_size]
            for place, vector in zip(some, unit_length(encoder.texts([str(every[n].content) for n in some])), strict=True):
                rows[place]["features"] = vector
    else:
        for batch in _batches(found, batch_size):
            rows += _pictures(encoder, batch)
    return pa.Table.from_pylist(rows, schema=PARTS)


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length one."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _pictures(encoder: "Encoder", batch: Sequence[Item]) -> list[dict[str, Any]]:
    images = [item.problem or decode(bytes(item.content), encoder.resolution) for item in batch]  # type: ignore[arg-type]
    readable = [datasets.preprocess(image, encoder.resolution) for image in images if not isinstance(image, str)]
    vectors = iter(unit_length(encoder.images(np.stack(readable))[0]) if readable else ())
    return [
        {"key": item.key, "text": item.text} | ({"unreadable": image} if isinstance(image, str) else {"features": next(vectors)})
        for item, image in zip(batch, images, strict=True)
    ]


def _batches(found: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while batch := list(islice(found, size)):
        yield batch


def made_from(unit: Unit, config: EmbedConfig, model: str) -> str:
    """What a part follows from; `model` is its hash."""
    return files.sha256(repr((VERSION, unit, config.what, config.column, model)).encode())


def write_part(folder: str, number: int, table: pa.Table, origin: str) -> dict[str, Any]:
    """Write a unit's rows whole or not at all; what the manifest says of them."""
    facts = {"rows": table.num_rows, "unreadable": table.num_rows - table["unreadable"].null_count, "made_from": origin}
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"facts": json.dumps(facts)}), sink, compression="zstd")
    files.write(part_path(folder, number), sink.getvalue())
    return {"number": number, **facts}


def part_path(folder: str, number: int) -> str:
    """The file of a unit."""
    return files.join(folder, f"part-{number:05d}.parquet")


def found_part(folder: str, number: int, origin: str) -> dict[str, Any] | None:
    """The same of a part that an earlier run left; None where there is none that follows from `origin`."""
    try:
        metadata = pq.read_schema(io.BytesIO(files.read(part_path(folder, number)))).metadata or {}
        facts = json.loads(metadata[b"facts"])
    except (FileNotFoundError, KeyError, ValueError, pa.ArrowInvalid):
        return None
    return {"number": number, **facts} if facts.get("made_from") == origin else None


def write_manifest(folder: str, parts: Sequence[dict[str, Any]], facts: dict[str, Any]) -> dict[str, Any]:
    """Say that the folder is whole."""
    listed = sorted(parts, key=lambda part: part["number"])
    totals = {name: sum(part[name] for part in parts) for name in ("rows", "unreadable")}
    manifest = {"version": VERSION, **facts, **totals, "parts": listed}
    files.write(files.join(folder, MANIFEST), json.dumps(manifest, indent=1).encode())
    return manifest


def load(folder: str) -> tuple[dict[str, Any], pa.Table]:
    """The manifest and the rows of a whole folder. Raises BadCollection where it is none."""
    try:
        manifest = json.loads(files.read(files.join(folder, MANIFEST)))
        parts = [files.table(files.read(part_path(folder, part["number"]))) for part in manifest["parts"]]
    except FileNotFoundError as error:
        raise collection.BadCollection(f"{folder} holds no finished embeddings ({error}): run jobs/embed.py first") from None
    except (ValueError, KeyError, TypeError, pa.ArrowInvalid) as error:
        raise collection.BadCollection(f"{folder}: expected embeddings, found {error!r}; run jobs/embed.py again") from None
    table = pa.concat_tables(parts).select(PARTS.names)
    if table.num_rows != manifest["rows"]:
        raise collection.BadCollection(
            f"{folder}: {table.num_rows} rows, {manifest['rows']} in {MANIFEST}; run jobs/embed.py again"
        )
    return manifest, table
