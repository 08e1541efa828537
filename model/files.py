"""Files on a local disk or in an object store (fsspec), written whole or not at all.

law     `write` is atomic: a reader sees the old content, the new content or nothing
names   a path with "://" is an fsspec URL; everything else is a local path
"""

import hashlib
import io
import os
import shutil
import uuid
from collections.abc import Sequence

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq


def is_remote(path: str) -> bool:
    """True for fsspec URLs (s3://bucket/...), False for local paths."""
    return "://" in path


def join(folder: str, *names: str) -> str:
    """The path of a name in a folder."""
    return "/".join([folder.rstrip("/"), *names])


def sha256(data: bytes) -> str:
    """Hex digest of `data`."""
    return hashlib.sha256(data).hexdigest()


def read(path: str) -> bytes:
    """The whole file. Raises FileNotFoundError where there is none."""
    if is_remote(path):
        return fsspec.filesystem(path.split("://", 1)[0]).cat_file(path)
    with open(path, "rb") as file:
        return file.read()


def table(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a Parquet file that was read whole.

    On this thread alone: where Arrow's own threads let go of Python's bytes while the interpreter ends, they end it with SIGABRT.
    """
    file = pq.ParquetFile(io.BytesIO(data), pre_buffer=False)
    return file.read(columns=None if columns is None else list(columns), use_threads=False)


def write(path: str, data: bytes) -> None:
    """Write the file whole or not at all; its folder is made where there is none."""
    if is_remote(path):
        fsspec.filesystem(path.split("://", 1)[0]).pipe_file(path, data)
        return
    folder, name = os.path.split(path)
    os.makedirs(folder or ".", exist_ok=True)
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def remove(path: str) -> None:
    """Remove the file if it is there."""
    try:
        if is_remote(path):
            fsspec.filesystem(path.split("://", 1)[0]).rm_file(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        return


def names(folder: str) -> list[str]:
    """The names in a folder, sorted; none where there is no folder."""
    try:
        if is_remote(folder):
            store = fsspec.filesystem(folder.split("://", 1)[0])
            store.invalidate_cache()
            return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in store.ls(folder, detail=False))
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def remove_folder(folder: str) -> None:
    """Remove a folder with all that is in it, if it is there."""
    try:
        if is_remote(folder):
            fsspec.filesystem(folder.split("://", 1)[0]).rm(folder, recursive=True)
        else:
            shutil.rmtree(folder)
    except FileNotFoundError:
        return
