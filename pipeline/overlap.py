"""Overlap: which pictures are near copies of pictures of evaluation sets.

in      folders of pictures or of tars, and tars; images
out     EVALUATION: the hash and colors of each evaluation picture, as it is and mirrored; OVERLAPS: the pairs that are near one
        (OVERLAP, for dedupe), or the evaluation pictures that have a near one among the pairs (FOUND, for jobs/overlap.py)
law     near is what dedupe means by it, so the radius is its; a mirrored copy is found too, which between two pairs it is not
law     every byte of an evaluation set may be hostile: pictures go through the downloads' own decoder and limits; what it
        refuses is listed with the reason and overlaps nothing
cost    an evaluation picture is decoded once. OVERLAPS: the evaluation set's hashes in each worker, 120 bytes each; under a
        microsecond a pair for a million of them
"""

import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa
import simplejpeg

from pipeline import fingerprints, hashing, images, neighbors, schema, storage
from pipeline.config import DedupeConfig, DownloadConfig
from pipeline.errors import InputError
from pipeline.manifest import Dataset
from pipeline.stage import Stage

ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".avif")
FILES_PER_PART = 500
COLOR_BYTES = schema.EVALUATION.field("colors").type.byte_width


def expand(paths: Sequence[str]) -> dict[str, pa.Table]:
    """EVALUATION_FILES of the sets in parts, by name. InputError for one without pictures."""
    parts = {}
    for path in dict.fromkeys(paths):
        files = list(_files(path))
        if not files:
            raise InputError(
                f"evaluation sets: {path}: expected a folder of pictures or tars, or a tar, found none; "
                f"pictures end in {' '.join(ENDINGS)}"
            )
        for number, start in enumerate(range(0, len(files), FILES_PER_PART)):
            rows = [{"set": path, "path": file, "file_bytes": size} for file, size in files[start : start + FILES_PER_PART]]
            name = f"{hashing.string_hash(path):016x}-{number:05d}"
            parts[name] = pa.Table.from_pylist(rows, schema.EVALUATION_FILES)
    return parts


def _files(path: str) -> Iterator[tuple[str, int]]:
    """The pictures and tars of a set, in order, with their sizes."""
    size = storage.size(path) if path.lower().endswith((".tar", *ENDINGS)) else None
    if size is not None:
        yield path, size
    elif storage.is_remote(path):
        found = storage.filesystem(path).find(path, detail=True)
        for name, facts in sorted(found.items()):
            if name.lower().endswith((".tar", *ENDINGS)):
                yield f"{path.split('://', 1)[0]}://{name}", facts["size"]
    else:
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if name[0] != ".")
            for name in sorted(name for name in names if name[0] != "."):
                file = os.path.join(folder, name)
                if name.lower().endswith((".tar", *ENDINGS)) and os.path.isfile(file):
                    yield file, os.stat(file).st_size


def pictures(path: str, max_image_bytes: int) -> Iterator[tuple[str, bytes | str]]:
    """The name of each picture of a file, and its bytes or why there are none."""
    if not path.lower().endswith(".tar"):
        data = storage.read(path)
        yield path, data if len(data) <= max_image_bytes else "too_large"
        return
    try:
        with storage.open_read(path) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                if member.isfile() and member.name.lower().endswith(ENDINGS):
                    body = tar.extractfile(member) if member.size <= max_image_bytes else None
                    yield f"{path}/{member.name}", "too_large" if body is None else body.read()
    except tarfile.TarError as error:
        raise InputError(f"evaluation sets: {path}: expected a tar of pictures: {error}") from error


def evaluation(files: pa.Table, config: DownloadConfig) -> pa.Table:
    """EVALUATION of some files: two rows a picture, one for what is none."""
    whole = replace(config, min_image_size=1, max_aspect_ratio=float("inf"))
    rows = []
    for name_of_set, path in zip(files["set"].to_pylist(), files["path"].to_pylist(), strict=True):
        for name, data in pictures(path, config.max_image_bytes):
            picture = images.prepare(data, whole) if isinstance(data, bytes) else data
            row = {"set": name_of_set, "name": name, "mirrored": False, "phash": 0, "colors": bytes(COLOR_BYTES), "reason": None}
            if isinstance(picture, str):
                rows.append({**row, "reason": picture})
                continue
            rgb = np.ascontiguousarray(simplejpeg.decode_jpeg(picture.image, "RGB")[:, ::-1])
            rows.append({**row, "phash": picture.phash, "colors": picture.colors})
            rows.append({**row, "mirrored": True, "phash": fingerprints.phash(rgb), "colors": fingerprints.colors(rgb)})
    return pa.Table.from_pylist(rows, schema.EVALUATION)


def overlaps(pairs: pa.Table, known: pa.Table, index: neighbors.Index) -> pa.Table:
    """OVERLAPS of an images part: the nearest evaluation picture of each pair that is near one. `index`: of `known`."""
    found = index.nearest(pairs["phash"].to_numpy(), color_rows(pairs["colors"]))
    near = np.flatnonzero(found >= 0)
    at = known.select(["set", "name", "mirrored"]).take(pa.array(found[near]))
    distance = np.bitwise_count(pairs["phash"].to_numpy()[near] ^ known["phash"].to_numpy()[found[near]])
    row = {"pair_id": pairs["pair_id"].take(pa.array(near)), **{name: at[name] for name in at.column_names}}
    return pa.table({**row, "distance": pa.array(distance, pa.int32())}, schema=schema.OVERLAPS)


def found_among(pairs: pa.Table, known: pa.Table, limits: DedupeConfig) -> pa.Table:
    """OVERLAPS of an images part the other way round: for each evaluation picture the nearest pair that is near it."""
    hashes, wanted = pairs["phash"].to_numpy(), known["phash"].to_numpy()
    points = neighbors.Points(hashes, color_rows(pairs["colors"]), limits.max_distance, limits.max_color_distance)
    found = neighbors.Index(points).nearest(wanted, color_rows(known["colors"]))
    near = np.flatnonzero(found >= 0)
    at = known.select(["set", "name", "mirrored"]).take(pa.array(near))
    distance = np.bitwise_count(hashes[found[near]] ^ wanted[near])
    row = {"pair_id": pairs["pair_id"].take(pa.array(found[near])), **{name: at[name] for name in at.column_names}}
    return pa.table({**row, "distance": pa.array(distance, pa.int32())}, schema=schema.OVERLAPS)


def color_rows(column: pa.ChunkedArray) -> np.ndarray:
    """The color bytes of each row.  -> [n, 48] uint8"""
    return np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(len(column), COLOR_BYTES)


def summary(root: str) -> pl.DataFrame | None:
    """For each set its pictures, those that could not be read, those found among the pairs, and the pairs that left for it."""
    try:
        known, left = (pl.DataFrame(Dataset(storage.join(root, name)).read()) for name in (EVALUATION_FOLDER, OVERLAP_FOLDER))
    except InputError:
        return None
    plain = known.filter(~pl.col("mirrored"))
    sets = plain.group_by("set").agg(pictures=pl.len(), unreadable=pl.col("reason").count())
    counts = left.group_by("set").agg(found=pl.col("name").n_unique(), pairs=pl.len(), mirrored=pl.col("mirrored").sum())
    return sets.join(counts, on="set", how="left").with_columns(pl.col("found", "pairs", "mirrored").fill_null(0)).sort("set")


class EvaluationWorker:
    """Files of evaluation sets -> their hashes."""

    def __init__(self, config: DownloadConfig, sides: Mapping[str, Dataset]):
        images.guard_pillow(config.max_image_pixels)
        self.config = config

    def __call__(self, files: pa.Table) -> pa.Table:
        return evaluation(files, self.config)


def readable(evaluation: Dataset) -> pa.Table:
    """The EVALUATION rows that are pictures. InputError where there is none."""
    known = evaluation.read()
    known = known.filter(known["reason"].is_null())
    if not known.num_rows:
        raise InputError("evaluation sets: expected pictures, found none that can be decoded; check the names of the sets")
    return known


class FoundWorker:
    """Holds the evaluation sets' hashes; finds those that have a near picture among the pairs that were kept."""

    def __init__(self, config: DedupeConfig, sides: Mapping[str, Dataset]):
        self.config, self.known = config, readable(sides["evaluation"])

    def __call__(self, kept: pa.Table, pairs: pa.Table) -> pa.Table:
        stays = pl.Series(pairs["pair_id"]).is_in(pl.Series(kept["pair_id"]).implode())
        return found_among(pairs.filter(pa.array(stays.to_numpy())), self.known, self.config)


class OverlapWorker:
    """Holds the evaluation sets' hashes; finds the pairs of images parts that are near one."""

    def __init__(self, config: DedupeConfig, sides: Mapping[str, Dataset]):
        self.known = readable(sides["evaluation"])
        hashes, colors = self.known["phash"].to_numpy(), color_rows(self.known["colors"])
        self.index = neighbors.Index(neighbors.Points(hashes, colors, config.max_distance, config.max_color_distance))

    def __call__(self, pairs: pa.Table) -> pa.Table:
        return overlaps(pairs, self.known, self.index)


FILES_FOLDER, EVALUATION_FOLDER, OVERLAP_FOLDER = "0_evaluation", "0_evaluation/_hashes", "5_unique/_overlap"
EVALUATION = Stage(name="evaluation", version=1, shape="count", worker=EvaluationWorker, writes=schema.EVALUATION)
OVERLAP = Stage(
    name="dedupe_overlap", version=1, shape="count", worker=OverlapWorker, writes=schema.OVERLAPS,
    columns=(("pair_id", "phash", "colors"),),
)  # fmt: skip
FOUND = Stage(
    name="overlap", version=1, shape="count", worker=FoundWorker, writes=schema.OVERLAPS,
    columns=(("pair_id",), ("pair_id", "phash", "colors")),
)  # fmt: skip
