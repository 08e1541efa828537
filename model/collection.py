"""What is to be embedded: pictures or texts in a folder, in tars or in Parquet files, cut into units.

in      a path, local or remote: a folder (looked through to its leaves), a tar, a Parquet file or a text file
out     units, and the items of a unit
pictures files and members of tars with the ending of a picture; of Parquet the column `column`, or the first of image, jpg, bytes
        that is there (bytes, or Hugging Face's struct with a field bytes). A tar's KEY.txt beside KEY.jpg is the picture's text
texts   lines of .txt files; members .txt of tars; of Parquet the column `column`, or the first of text, caption
unit    a tar, a row group, a text file, or up to FILES pictures of a folder in the order of their names
key     path below the source, with #LINE or #ROW where a file holds many
ignored names that start with _ or a dot, a Parquet file beside a tar of its name (a shard's index), other endings
law     the units and the order of their items are a function of the source: nothing is skipped, nothing comes twice
law     a picture whose bytes are missing or too many is an item that says so
errors  BadCollection, a ValueError
"""

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from model import files

What = Literal["images", "texts"]
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
COLUMNS = {"images": ("image", "jpg", "bytes"), "texts": ("text", "caption")}
FILES = 512  # pictures of a folder in a unit
ROWS = 64  # of a table that are in memory at once
MAX_PICTURE_BYTES = 100_000_000


class BadCollection(ValueError):
    """A source that holds nothing to embed, or is not what its name says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """What one worker takes at once."""

    kind: Literal["files", "tar", "rows", "lines"]
    source: str
    names: tuple[str, ...]  # below the source; several of `files` only
    row_group: int = 0
    mark: str = ""  # changes where the files change


@dataclass(frozen=True, slots=True)
class Item:
    """One picture or text."""

    key: str
    content: bytes | str  # the file's bytes or the text; where `problem` is set, nothing
    text: str = ""
    problem: str = ""


def units(source: str, what: What) -> list[Unit]:
    """The units of a source, in the order of names. Raises BadCollection where there is nothing."""
    store, path = fsspec.core.url_to_fs(source)
    try:
        found: dict[str, Any] = store.find(path, detail=True) if store.isdir(path) else {path: store.info(path)}
    except FileNotFoundError:
        raise BadCollection(f"embed: {source} is not there") from None
    base = path.rstrip("/") + "/"
    facts: list[tuple[str, Any]] = sorted(
        ((name.removeprefix(base) if name != path else "", info) for name, info in found.items()), key=lambda pair: pair[0]
    )
    facts = [(name, info) for name, info in facts if not any(word.startswith(("_", ".")) for word in name.split("/"))]
    tars = {name.removesuffix(".tar") for name, _ in facts if name.endswith(".tar")}
    made: list[Unit] = []
    pictures: list[tuple[str, str]] = []
    for name, info in facts:
        ending = "." + (name or path).rsplit(".", 1)[-1].lower()
        mark = f"{info.get('size')}/{info.get('mtime') or info.get('ETag') or info.get('LastModified')}"
        if ending == ".tar":
            made.append(Unit(kind="tar", source=source, names=(name,), mark=mark))
        elif ending == ".parquet" and name.removesuffix(".parquet") not in tars:
            made += [
                Unit(kind="rows", source=source, names=(name,), row_group=group, mark=mark)
                for group in range(_row_groups(source, name))
            ]
        elif ending == ".txt" and what == "texts":
            made.append(Unit(kind="lines", source=source, names=(name,), mark=mark))
        elif ending in PICTURES and what == "images":
            pictures.append((name, mark))
    for batch in _batched(pictures):
        made.append(
            Unit(kind="files", source=source, names=tuple(name for name, _ in batch), mark=" ".join(mark for _, mark in batch))
        )
    if not made:
        raise BadCollection(f"embed: {source}: expected tars, Parquet files or files of {what}, found none of {len(found)} files")
    return made


def items(unit: Unit, what: What, column: str = "") -> Iterator[Item]:
    """The pictures or texts of a unit, in their order."""
    if unit.kind == "files":
        for name in unit.names:
            yield _picture(name or unit.source, files.read(_path(unit.source, name)))
    elif unit.kind == "tar":
        yield from _members(unit, what)
    elif unit.kind == "lines":
        content = files.read(_path(unit.source, unit.names[0])).decode("utf-8", "replace")
        for number, line in enumerate(content.splitlines()):
            if line.strip():
                yield Item(f"{unit.names[0] or unit.source}#{number}", line.strip())
    else:
        yield from _rows(unit, what, column)


def _batched(values: Sequence[tuple[str, str]]) -> Iterator[Sequence[tuple[str, str]]]:
    yield from (values[start : start + FILES] for start in range(0, len(values), FILES))


def _path(source: str, name: str) -> str:
    return files.join(source, name) if name else source


def _picture(key: str, data: bytes, text: str = "") -> Item:
    if len(data) > MAX_PICTURE_BYTES:
        return Item(key, b"", text, f"{len(data)} bytes, expected at most {MAX_PICTURE_BYTES}")
    return Item(key, data, text)


def _row_groups(source: str, name: str) -> int:
    with fsspec.open(_path(source, name), "rb") as stream:
        try:
            return pq.ParquetFile(stream).num_row_groups  # type: ignore[arg-type]
        except (pa.ArrowInvalid, OSError) as error:
            raise BadCollection(f"embed: {_path(source, name)}: expected a Parquet file, found: {error}") from None


def _members(unit: Unit, what: What) -> Iterator[Item]:
    """Pictures of a tar with the .txt that stands next to them, or its texts."""
    where = _path(unit.source, unit.names[0])
    waiting: Item | None = None
    stem, text = "", ""
    try:
        with fsspec.open(where, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]
            for member in tar:
                base, _, ending = member.name.rpartition(".")
                kind = "." + ending.lower()
                if not member.isfile() or kind not in (*PICTURES, ".txt"):
                    continue
                handle = tar.extractfile(member) if member.size <= MAX_PICTURE_BYTES else None
                data = handle.read() if handle is not None else b""
                key = f"{unit.names[0]}/{member.name}" if unit.names[0] else member.name
                if base != stem:
                    if waiting is not None:
                        yield waiting
                    waiting, stem, text = None, base, ""
                if kind == ".txt":
                    text = data.decode("utf-8", "replace").strip()
                    if what == "texts":
                        yield Item(key, text)
                    elif waiting is not None:
                        waiting = Item(waiting.key, waiting.content, text, waiting.problem)
                elif what == "images":
                    if waiting is not None:
                        yield waiting
                    problem = "" if handle is not None else f"{member.size} bytes, expected at most {MAX_PICTURE_BYTES}"
                    waiting = Item(key, data, text, problem)
    except tarfile.TarError as error:
        raise BadCollection(f"embed: {where}: expected a whole tar, found: {error}") from None
    if waiting is not None:
        yield waiting


def _rows(unit: Unit, what: What, column: str) -> Iterator[Item]:
    where = _path(unit.source, unit.names[0])
    with fsspec.open(where, "rb") as stream:
        reader = pq.ParquetFile(stream, pre_buffer=False)  # type: ignore[arg-type]
        names = reader.schema_arrow.names
        chosen = next((name for name in ((column,) if column else COLUMNS[what]) if name in names), None)
        if chosen is None:
            raise BadCollection(
                f"embed: {where}: expected a column {column or ' or '.join(COLUMNS[what])}, found {', '.join(names[:20])}"
            )
        row = sum(reader.metadata.row_group(group).num_rows for group in range(unit.row_group))
        try:
            for batch in reader.iter_batches(ROWS, row_groups=[unit.row_group], columns=[chosen], use_threads=False):
                for value in batch.column(0):
                    yield _cell(f"{unit.names[0] or unit.source}#{row}", value.as_py(), what)
                    row += 1
        except (pa.ArrowInvalid, OSError) as error:
            raise BadCollection(f"embed: {where}: row group {unit.row_group} can not be read: {error}") from None


def _cell(key: str, found: Any, what: What) -> Item:
    """A cell of a table, or Hugging Face's struct of bytes and path."""
    found = found.get("bytes") if isinstance(found, dict) else found
    if what == "texts":
        return Item(key, found) if isinstance(found, str) else Item(key, "", "", f"expected a text, found {type(found).__name__}")
    return (
        _picture(key, found) if isinstance(found, bytes) else Item(key, b"", "", f"expected bytes, found {type(found).__name__}")
    )
