"""Look-up: the rows of a dataset that have a value, without reading the rest.

in      a finished folder, a column, the values; where it is known, the parts or the row group that may hold them
out     one dict a row: the file's name, the row's number in it, its columns but for bytes
law     of a file only the column is read, of those row groups whose statistics allow one of the values; the other columns
        only where a value was found. Pages are checked against their checksums; a torn file is an InputError
cost    the pages of one column: for pair_id 32 bytes a row. READERS files at once, since they may be far away
"""

# pyarrow.compute makes its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.manifest import Dataset, File, Part, torn

READERS = 16
Row = dict[str, Any]
Files = Callable[[Part], Iterable[File]]


def rows(part: Part) -> list[File]:
    """The files of a part's rows."""
    return [file for file in part.files if file.name.endswith(".parquet") and not file.name.startswith("_")]


def samples(part: Part) -> list[File]:
    """The sample of the rows that left it."""
    return [file for file in part.files if file.name.startswith("_dropped/")]


def logs(part: Part) -> Sequence[File]:
    """What is kept of its making."""
    return part.logs


def find(
    dataset: Dataset | None,
    column: str,
    values: Collection[Any],
    *,
    parts: Collection[str] | None = None,
    row_group: int | None = None,
    files: Files = rows,
) -> list[Row]:
    """The rows with one of the values, in the order of the manifest; none where there is no dataset.

    parts: the only ones that may hold them, where that is known; row_group: the only one of each file
    """
    if dataset is None or not values:
        return []
    chosen = [part for part in dataset.manifest.parts if parts is None or part.name in parts]
    wanted = [(part.name, file) for part in chosen for file in files(part)]
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda one: _find(dataset.folder, one[0], one[1], column, values, row_group), wanted)
        return [row for some in found for row in some]


def _find(folder: str, part: str, file: File, column: str, values: Collection[Any], row_group: int | None) -> list[Row]:
    try:
        with storage.open_read(storage.join(folder, file.name), ahead=False) as stream:
            reader = pq.ParquetFile(stream, page_checksum_verification=True, pre_buffer=storage.is_remote(folder))
            groups = range(reader.num_row_groups) if row_group is None else [row_group]
            return [
                {"part": part, "file": file.name, **row}
                for group in groups
                if _may_hold(reader, group, column, values)
                for row in _rows(reader, group, column, values)
            ]
    except FileNotFoundError:
        raise torn(folder, file, "nothing there") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise torn(folder, file, str(error)) from error


def _may_hold(reader: pq.ParquetFile, group: int, column: str, values: Collection[Any]) -> bool:
    """False where the statistics of the row group say that none of the values is in it."""
    group_columns = reader.metadata.row_group(group)
    leaves = [group_columns.column(number) for number in range(group_columns.num_columns)]
    statistics = next(leaf for leaf in leaves if leaf.path_in_schema == column).statistics
    if statistics is None or not statistics.has_min_max:
        return True
    return any(statistics.min <= value <= statistics.max for value in values)


def _rows(reader: pq.ParquetFile, group: int, column: str, values: Collection[Any]) -> list[Row]:
    found = reader.read_row_group(group, columns=[column], use_threads=False)[column]
    places = pc.indices_nonzero(pc.is_in(found, value_set=pa.array(sorted(values), found.type)))
    if not len(places):
        return []
    is_bytes = (pa.types.is_binary, pa.types.is_fixed_size_binary)
    names = [field.name for field in reader.schema_arrow if not any(kind(field.type) for kind in is_bytes)]
    table = reader.read_row_group(group, columns=names, use_threads=False).take(places)
    first = sum(reader.metadata.row_group(before).num_rows for before in range(group))
    return [{"row": first + place, **row} for place, row in zip(places.to_pylist(), table.to_pylist(), strict=True)]
