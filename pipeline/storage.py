"""Files on a local disk or in an object store, written whole or not at all.

law     `write` is atomic: a reader sees the old content, the new content or nothing, never a part of it. Locally a
        temporary name, fsync and rename; on S3 one PUT, or above 2 * PIECE_BYTES a multipart upload, which becomes an object
        only when it is completed and is aborted where a piece fails (that of a process which was killed stays invisible)
law     a store that does not answer is asked again for as long as PAUSES_SECONDS: every call here may be repeated
errors  InputError that names the folder and what to do: disk full or broken, no permission, refused PUT, no such bucket
names   a path with "://" is an fsspec URL; everything else is a local path
"""

import errno
import io
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import IO, Any, TypeVar, cast

import aiohttp
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import BotoCoreError

from pipeline.errors import InputError

LOCAL_HINTS = {
    errno.ENOSPC: "the disk is full: free some room or give another --root, then run the same command again",
    errno.EDQUOT: "the disk quota is used up: free some room or give another --root, then run the same command again",
    errno.EIO: "the disk failed: see the kernel's log, replace it or give another --root, then run the same command again",
    errno.EFBIG: "the file is larger than this file system or process may write: give another --root",
    errno.EACCES: "permission denied: make the folder writable or give another --root",
    errno.EPERM: "permission denied: make the folder writable or give another --root",
    errno.EROFS: "the file system is read-only: give another --root",
    errno.ENOTDIR: "a part of this path is a file, not a folder: give another --root",
}


GONE = (BotoCoreError, aiohttp.ClientError, ConnectionError, TimeoutError)  # no answer: the store restarts, or a network is down
PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # between tries, each of which s3fs makes five times within ten seconds
PIECE_BYTES = 32 << 20  # of a multipart upload
Result = TypeVar("Result")


def is_remote(path: str) -> bool:
    """True for fsspec URLs (s3://bucket/...), False for local paths."""
    return "://" in path


def join(folder: str, *names: str) -> str:
    """The path of a name in a folder."""
    return "/".join([folder.rstrip("/"), *names])


@lru_cache(maxsize=8)
def _filesystem(protocol: str, pid: int) -> Any:
    # A process that was forked after the first use must not share the event loop of its parent, hence the pid.
    return fsspec.filesystem(protocol)


def filesystem(path: str) -> Any:
    """The fsspec file system of a remote path; keys and endpoint come from the environment (AWS_*)."""
    return _filesystem(path.split("://", 1)[0], os.getpid())


def _patiently(call: Callable[[], Result]) -> Result:
    """What `call` to a store returns, made again where the store does not answer."""
    for pause_seconds in PAUSES_SECONDS:
        try:
            return call()
        except GONE:
            time.sleep(pause_seconds)
    return call()


class _Remote(io.RawIOBase):
    """A remote file to be read, which waits where the store does not answer; a read that failed has moved nothing."""

    def __init__(self, file: Any):
        self.file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def read(self, size: int = -1, /) -> bytes:
        return _patiently(lambda: self.file.read(size))

    def close(self) -> None:
        self.file.close()
        super().close()


@contextmanager
def _told(verb: str, path: str) -> Iterator[None]:
    """Turn what a store refuses into an InputError that says where and what to do."""
    try:
        yield
    except FileNotFoundError as error:
        if verb != "write":
            raise
        raise InputError(
            f"storage: cannot write {path}: there is no such bucket or folder; make it or give another --root"
        ) from error
    except PermissionError as error:
        hint = "check the keys and the bucket's policy" if is_remote(path) else LOCAL_HINTS[errno.EACCES]
        raise InputError(f"storage: cannot {verb} {path}: {_text(error)}; {hint}") from error
    except (OSError, BotoCoreError, aiohttp.ClientError) as error:
        if is_remote(path):
            hint = "the store refused or did not answer; what is committed stays: run the same command again"
        elif isinstance(error, OSError) and error.errno in LOCAL_HINTS:
            hint = LOCAL_HINTS[error.errno]
        else:
            raise
        raise InputError(f"storage: cannot {verb} {path}: {_text(error)}; {hint}") from error


def _text(error: Exception) -> str:
    """What the error says; s3fs raises some that say only "None"."""
    return str(error) if str(error) not in ("", "None") else type(error).__name__


def read(path: str) -> bytes:
    """The whole file. Raises FileNotFoundError where there is none."""
    with _told("read", path):
        if is_remote(path):
            return _patiently(lambda: filesystem(path).cat_file(path))
        with open(path, "rb") as file:
            return file.read()


def table(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a Parquet file that was read whole.

    On this thread alone: where Arrow's own threads let go of Python's bytes while the interpreter ends, they end it with SIGABRT.
    """
    file = pq.ParquetFile(io.BytesIO(data), pre_buffer=False)
    return file.read(columns=None if columns is None else list(columns), use_threads=False)


def open_read(path: str, *, ahead: bool = True) -> IO[bytes]:
    """A seekable stream of the file, for readers that need a piece of it.

    ahead: fetch from a store what may be read next, up to 50 MiB; without it each read is one request for its very bytes
    """
    cache = "readahead" if ahead else "none"
    with _told("read", path):
        if is_remote(path):
            return cast(IO[bytes], _Remote(_patiently(lambda: filesystem(path).open(path, "rb", cache_type=cache))))
        return open(path, "rb")


def size(path: str) -> int | None:
    """Bytes of the file, or None where there is none."""
    try:
        with _told("look at", path):
            if is_remote(path):
                store = filesystem(path)
                store.invalidate_cache()
                return _patiently(lambda: store.size(path))
            return os.stat(path).st_size
    except FileNotFoundError:
        return None


def write(path: str, data: bytes) -> None:
    """Write the file whole or not at all; its folder is made where there is none."""
    with _told("write", path):
        if is_remote(path):
            pieces = {"chunksize": PIECE_BYTES} if path.startswith("s3://") else {}
            _patiently(lambda: filesystem(path).pipe_file(path, data, **pieces))
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
        with _told("remove", path):
            if is_remote(path):
                _patiently(lambda: filesystem(path).rm_file(path))
            else:
                os.unlink(path)
    except FileNotFoundError:
        return


def names(folder: str) -> list[str]:
    """The names in a folder, sorted; for people's reports and input folders, never to learn what is done."""
    with _told("list", folder):
        if is_remote(folder):
            found = _patiently(lambda: filesystem(folder).ls(folder, detail=False))
            return sorted(path.rsplit("/", 1)[-1] for path in found)
        return sorted(os.listdir(folder))
