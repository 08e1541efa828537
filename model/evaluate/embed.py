"""Pictures of a unit to rows of embeddings.

in      a set, one of its units, a model
out     a table of embeddings.PARTS: a row for each picture of the unit, in its order
law     a picture that can not be read is a row that says why
cost    one batch of pictures in memory, and the vectors of the unit
"""

import hashlib
import io
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from model.evaluate import datasets, embeddings, layouts
from model.evaluate.datasets import EvalSet, Example, Unit
from model.evaluate.encoders import Encoder

THUMBNAIL_PX = 96
THUMBNAILS = 256  # of a unit, those with the smallest hashes

Row = dict[str, Any]


def embed(encoder: Encoder, eval_set: EvalSet, unit: Unit, batch_size: int) -> pa.Table:
    """The rows of a unit."""
    rows: list[Row] = []
    sample = Sample(THUMBNAILS)
    for batch in _batches(layouts.examples(eval_set, unit), batch_size):
        rows += _rows(encoder, batch, sample, len(rows))
    for place, png in sample.pictures().items():
        rows[place]["thumbnail"] = png
    return pa.Table.from_pylist(rows, schema=embeddings.PARTS)


def _rows(encoder: Encoder, batch: list[Example], sample: "Sample", start: int) -> list[Row]:
    images = [datasets.decode(example.picture) for example in batch]
    readable = [image for image in images if not isinstance(image, str)]
    features, before = iter(()), iter(())
    if readable:
        pixels = np.stack([datasets.preprocess(image, encoder.resolution) for image in readable])
        after, pooled = encoder.images(pixels)
        features, before = iter(after), iter(pooled if pooled is not None else [None] * len(after))
    captions = [caption for example in batch for caption in example.captions]
    texts = iter(encoder.texts(captions) if captions else ())
    rows = []
    for place, (example, image) in enumerate(zip(batch, images, strict=True), start):
        row: Row = {"key": example.key, "labels": list(example.labels), "captions": list(example.captions)}
        row["caption_features"] = [next(texts) for _ in example.captions]
        if isinstance(image, str):
            row["unreadable"] = image
        else:
            row |= {"image_features": next(features), "before_projection": next(before)}
            sample.offer(place, example, image)
        rows.append(row)
    return rows


class Sample:
    """The `size` offered examples whose labels and keys have the smallest hashes."""

    def __init__(self, size: int):
        self.size = size
        self._kept: list[tuple[bytes, int, bytes]] = []  # hash, place, PNG; ascending

    def offer(self, place: int, example: Example, image: Image.Image) -> None:
        """Keep a small copy of the picture if it is among the smallest so far."""
        hashed = draw(example.labels, example.key)
        if len(self._kept) < self.size or hashed < self._kept[-1][0]:
            self._kept = sorted([*self._kept, (hashed, place, _thumbnail(image))])[: self.size]

    def pictures(self) -> dict[int, bytes]:
        """The small copies by place."""
        return {place: png for _, place, png in self._kept}


def draw(labels: tuple[int, ...], key: str) -> bytes:
    """The chance of a picture to be shown."""
    return hashlib.blake2b(f"{'-'.join(map(str, labels))}/{key}".encode(), digest_size=8).digest()


def _thumbnail(image: Image.Image) -> bytes:
    copy = image.copy()
    copy.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    sink = io.BytesIO()
    copy.save(sink, "PNG")
    return sink.getvalue()


def _batches(examples: Iterator[Example], batch_size: int) -> Iterator[list[Example]]:
    while batch := list(islice(examples, batch_size)):
        yield batch
