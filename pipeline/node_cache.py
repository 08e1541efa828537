"""One copy of a file for all processes of this machine: made once, mapped by all.

in      a name, which must say everything that the content depends on; how to make the content, how to read it
out     what `read` makes of the bytes, which are mapped read-only: processes that map a file share its memory
law     one process makes it while the others wait; one that dies while making it leaves nothing that is used
law     what cannot be read, as it is torn, is made again
law     the folder belongs to this user alone: nobody else can put a file there
drops   all files but the KEEP that were used last; a file that is mapped lives until nobody maps it
errors  InputError: the folder is not ours, or cannot be written
"""

import fcntl
import mmap
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from pipeline.errors import InputError

KEEP = 8
LOCK = "lock"
T = TypeVar("T")


def shared(name: str, make: Callable[[], bytes], read: Callable[[memoryview], T]) -> T:
    """`read` of the file's bytes, which `make` makes if the file is not there or `read` raises ValueError."""
    folder = _folder("cache")
    path = os.path.join(folder, name)
    with _locked(folder):
        with suppress(FileNotFoundError, ValueError):
            return _map(path, read)
        _write(path, make())
        for old in sorted(os.scandir(folder), key=lambda entry: -entry.stat().st_mtime_ns)[KEEP + 1 :]:
            if old.name not in (LOCK, name):
                os.unlink(old.path)
        return _map(path, read)


def _map(path: str, read: Callable[[memoryview], T]) -> T:
    with open(path, "rb") as file:
        result = read(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    os.utime(path)
    return result


def subfolder(kind: str, name: str, keep: int) -> str:
    """A folder of this name for files that their maker keeps in order; of its kind, those used last are kept."""
    parent = _folder(kind)
    path = os.path.join(parent, name)
    with _locked(parent):
        os.makedirs(path, exist_ok=True)
        os.utime(path)
        folders = [entry for entry in os.scandir(parent) if entry.is_dir(follow_symlinks=False)]
        for old in sorted(folders, key=lambda entry: -entry.stat().st_mtime_ns)[keep:]:
            shutil.rmtree(old.path)
    return path


def _folder(kind: str) -> str:
    folder = os.path.join(tempfile.gettempdir(), f"wit-{kind}-{os.getuid()}")
    with _told(folder), suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise InputError(
            f"node cache: {folder} must be a folder of user {os.getuid()} that nobody else can write, found user {found.st_uid}, "
            f"mode {stat.filemode(found.st_mode)}; remove it, or set TMPDIR to another folder on this machine"
        )
    return folder


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """One process at a time; the system frees the lock of a process that dies."""
    with _told(folder):
        file = open(os.path.join(folder, LOCK), "wb")  # noqa: SIM115
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(path: str, data: bytes) -> None:
    """Write under another name first: a file of this name is whole."""
    with _told(path), tempfile.NamedTemporaryFile(dir=os.path.dirname(path), delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.replace(file.name, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(file.name)


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Turn what the file system refuses into an InputError that says where and what to do."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"node cache: cannot write {path}: {error.strerror}; make room, or set TMPDIR to another folder on this machine"
        ) from error
