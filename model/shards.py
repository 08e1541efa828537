"""Shards: tars of JPEGs beside their Parquet index, read by offset, from a local folder or through a bounded local cache.

in      folder/_MANIFEST.json, NNNNN.tar, NNNNN.parquet (columns caption, image_offset, image_bytes)
out     texts and encoded pictures of single pairs
law     a copy in the cache is checked by its sha256 before it is used; the cache stays within its size but for the one
        shard that is being read
errors  BadDataset, a ValueError, says which file, what was expected, what was found and what to do
"""

import json
import os
import shutil
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow.parquet as pq

from model import files

NAME = "_MANIFEST.json"
FOOTER_THREADS = 16


class BadDataset(ValueError):
    """A dataset that is not what its manifest says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardFile:
    """A file of the manifest."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """A tar, its index, and how many pairs they hold."""

    tar: ShardFile
    index: ShardFile
    num_pairs: int


def read_manifest(folder: str) -> dict[str, Any]:
    """The dataset's manifest. Raises BadDataset where the folder holds no finished dataset."""
    path = files.join(folder, NAME)
    try:
        manifest = json.loads(files.read(path))
    except FileNotFoundError:
        raise BadDataset(
            f"{folder} has no {NAME}: the stage that makes it has not finished; run jobs/build_wit.py first"
        ) from None
    except ValueError as error:
        raise BadDataset(f"{path}: expected a manifest, found {error}; run jobs/build_wit.py again") from None
    if not isinstance(manifest, dict) or "hash" not in manifest or "parts" not in manifest:
        raise BadDataset(f"{path}: expected the fields hash and parts; run jobs/build_wit.py again")
    return manifest


def list_shards(folder: str) -> tuple[Shard, ...]:
    """The dataset's shards, in the order of its manifest."""
    shards = []
    for part in read_manifest(folder)["parts"]:
        listed = {file["name"]: ShardFile(**file) for file in part["files"] if not file["name"].startswith("_")}
        stems = sorted(name.removesuffix(".tar") for name in listed if name.endswith(".tar"))
        if sorted(f"{stem}.{kind}" for stem in stems for kind in ("parquet", "tar")) != sorted(listed):
            raise BadDataset(f"{folder}: part {part['name']}: expected a .tar and a .parquet each, found {sorted(listed)}")
        counts = [part["rows_out"]] if len(stems) == 1 else _count_pairs(folder, stems)
        for stem, count in zip(stems, counts, strict=True):
            shards.append(Shard(tar=listed[f"{stem}.tar"], index=listed[f"{stem}.parquet"], num_pairs=count))
    return tuple(shards)


def _count_pairs(folder: str, stems: list[str]) -> list[int]:
    def count(stem: str) -> int:
        with fsspec.open(files.join(folder, f"{stem}.parquet"), "rb") as stream:
            return pq.ParquetFile(stream).metadata.num_rows

    with ThreadPoolExecutor(FOOTER_THREADS) as pool:
        return list(pool.map(count, stems))


def iterate_texts(folder: str, shards: tuple[Shard, ...], limit: int) -> Iterator[str]:
    """The texts of the first `limit` pairs, one shard in memory at a time."""
    for shard in shards:
        with fsspec.open(files.join(folder, shard.index.name), "rb") as stream:
            texts = (
                pq.ParquetFile(stream, pre_buffer=False)
                .read(columns=["caption"], use_threads=False)["caption"]
                .slice(0, limit)
                .to_pylist()
            )
        yield from (text for text in texts if text is not None)
        limit -= len(texts)
        if limit <= 0:
            return


class OpenShard:
    """One shard, open: texts in memory, pictures by offset. Closes itself when the last user lets go."""

    def __init__(self, tar_path: str, index_path: str, shard: Shard):
        table = pq.read_table(index_path, columns=["caption", "image_offset", "image_bytes"])
        if len(table) != shard.num_pairs:
            raise BadDataset(f"{index_path}: expected {shard.num_pairs} pairs, found {len(table)}; run jobs/build_wit.py again")
        self.texts: list[str | None] = table["caption"].to_pylist()
        self._offsets = table["image_offset"].to_numpy()
        self._sizes = table["image_bytes"].to_numpy()
        self._descriptor = os.open(tar_path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._tar_bytes = os.fstat(self._descriptor).st_size

    def image(self, row: int) -> bytes | None:
        """The encoded picture of a row, or None where the index points outside of the tar."""
        offset, size = int(self._offsets[row]), int(self._sizes[row])
        if offset < 0 or size <= 0 or offset + size > self._tar_bytes:
            return None
        return os.pread(self._descriptor, size, offset)


class ShardStore:
    """Opens shards by number; those of a remote folder are first copied to a local cache of bounded size."""

    def __init__(self, folder: str, shards: tuple[Shard, ...], *, cache_dir: str, max_bytes: int, max_open: int):
        self._folder, self._shards, self._max_bytes, self._max_open = folder, shards, max_bytes, max_open
        self._cache_dir = tempfile.mkdtemp(prefix="shards-", dir=cache_dir or None) if files.is_remote(folder) else ""
        self.is_remote = files.is_remote(folder)
        self._lock = threading.Lock()  # of the two tables
        self._shard_locks = [threading.Lock() for _ in shards]  # of a shard's copy
        self._open: OrderedDict[int, OpenShard] = OrderedDict()  # least recently used first
        self._copies: OrderedDict[int, int] = OrderedDict()  # number -> bytes, least recently used first

    def __enter__(self) -> "ShardStore":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.clear()
        if self._cache_dir:
            shutil.rmtree(self._cache_dir, ignore_errors=True)

    def open(self, number: int) -> OpenShard:
        """The shard, ready to be read. Waits for its copy where it is remote."""
        with self._lock:
            opened = self._open.get(number)
            if opened is not None:
                self._open.move_to_end(number)
                return opened
        with self._shard_locks[number]:
            shard = self._shards[number]
            tar, index = self._local(number, shard.tar), self._local(number, shard.index)
            opened = OpenShard(tar, index, shard)
        with self._lock:
            self._open[number] = opened
            while len(self._open) > self._max_open:
                self._open.popitem(last=False)
        self._shrink(number)
        return opened

    def copy(self, number: int) -> None:
        """Bring a remote shard here ahead of its use."""
        if not self._cache_dir or number in self._copies:
            return
        with self._shard_locks[number]:
            for file in (self._shards[number].tar, self._shards[number].index):
                self._local(number, file)
        self._shrink(number)

    def _path(self, number: int, file: ShardFile) -> str:
        return os.path.join(self._cache_dir, f"{number:08d}{os.path.splitext(file.name)[1]}")

    def _local(self, number: int, file: ShardFile) -> str:
        source = files.join(self._folder, file.name)
        if not self._cache_dir:
            found = os.path.getsize(source) if os.path.exists(source) else None
            if found != file.num_bytes:
                raise BadDataset(f"{source}: expected {file.num_bytes} bytes, found {found}; run jobs/build_wit.py again")
            return source
        path = self._path(number, file)
        if not os.path.exists(path):
            data = files.read(source)
            if files.sha256(data) != file.sha256:
                raise BadDataset(f"{source}: expected sha256 {file.sha256[:12]}..., found another; run jobs/build_wit.py again")
            files.write(path, data)
        return path

    def _shrink(self, number: int) -> None:
        """Note that a shard was used, and remove the copies that were not used for longest until all fit."""
        if not self._cache_dir:
            return
        shard = self._shards[number]
        with self._lock:
            self._copies[number] = shard.tar.num_bytes + shard.index.num_bytes
            self._copies.move_to_end(number)
            for old in list(self._copies)[:-1]:
                if sum(self._copies.values()) <= self._max_bytes:
                    return
                if self._shard_locks[old].acquire(blocking=False):  # else another thread is opening it
                    for file in (self._shards[old].tar, self._shards[old].index):
                        files.remove(self._path(old, file))
                    del self._copies[old]
                    self._shard_locks[old].release()
