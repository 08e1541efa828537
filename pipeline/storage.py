"""Files on a local disk or in an object store, written whole or not at all.

law     `write` is atomic: a reader sees the old content, the new content or nothing, never a part of it. Locally a
        temporary name, fsync and rename; on S3 one PUT or a completed multipart upload.
errors  InputError that names the folder and what to do: disk full or broken, no permission, refused PUT, no such bucket
names   a path with "://" is an fsspec URL; everything else is a local path
"""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import IO, Any

import fsspec

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
    except OSError as error:
        if is_remote(path):
            hint = "the store refused or did not answer; what is committed stays: run the same command again"
        elif error.errno in LOCAL_HINTS:
            hint = LOCAL_HINTS[error.errno]
        else:
            raise
        raise InputError(f"storage: cannot {verb} {path}: {_text(error)}; {hint}") from error


def _text(error: OSError) -> str:
    """What the error says; s3fs raises some that say only "None"."""
    return str(error) if str(error) not in ("", "None") else type(error).__name__


def read(path: str) -> bytes:
    """The whole file. Raises FileNotFoundError where there is none."""
    with _told("read", path):
        if is_remote(path):
            return filesystem(path).cat_file(path)
        with open(path, "rb") as file:
            return file.read()


def open_read(path: str) -> IO[bytes]:
    """A seekable stream of the file, for readers that need a piece of it."""
    with _told("read", path):
        return filesystem(path).open(path, "rb") if is_remote(path) else open(path, "rb")


def size(path: str) -> int | None:
    """Bytes of the file, or None where there is none."""
    try:
        with _told("look at", path):
            if is_remote(path):
                store = filesystem(path)
                store.invalidate_cache()
                return store.size(path)
            return os.stat(path).st_size
    except FileNotFoundError:
        return None


def write(path: str, data: bytes) -> None:
    """Write the file whole or not at all; its folder is made where there is none."""
    with _told("write", path):
        if is_remote(path):
            filesystem(path).pipe_file(path, data)
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
                filesystem(path).rm_file(path)
            else:
                os.unlink(path)
    except FileNotFoundError:
        return


def names(folder: str) -> list[str]:
    """The names in a folder, sorted; for people's reports and input folders, never to learn what is done."""
    with _told("list", folder):
        if is_remote(folder):
            return sorted(path.rsplit("/", 1)[-1] for path in filesystem(folder).ls(folder, detail=False))
        return sorted(os.listdir(folder))
