"""Integrity: whether a dataset on disk is what its manifest says, and its tars what their index says.

in      a finished folder
out     Faults: the file and what is wrong with it, in words; none where all is well
checks  the manifest is there and its own hash fits; every file is there with its size and sha256; rows of a part as
        recorded; each tar holds exactly the index's members, in its order, at its offsets, with its texts; no pair_id twice
law     reads only; a file that cannot be read is a fault, never an exception
cost    every byte of the folder is read and hashed once; 8 bytes of memory a pair
"""

import io
import json
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline import hashing, storage
from pipeline.errors import InputError
from pipeline.manifest import NAME, File, Manifest, Part

READERS = 4
MEMBERS = ("jpg", "txt", "json")  # of each pair, in this order


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as it should be; `part` is "" where no part is to blame."""

    part: str
    file: str
    what: str


def check(folder: str) -> list[Fault]:
    """Everything that is wrong with the folder."""
    try:
        data = storage.read(storage.join(folder, NAME))
    except FileNotFoundError:
        return [Fault("", NAME, "missing")]
    try:
        manifest, recorded = Manifest.from_json(data), json.loads(data)["hash"]
    except (ValueError, KeyError, TypeError) as error:
        return [Fault("", NAME, f"not a manifest: {error}")]
    faults = []
    if recorded != manifest.hash:
        faults.append(Fault("", NAME, f"its records give the hash {manifest.hash[:12]}, it says {recorded[:12]}"))
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda part: _check_part(folder, part), manifest.parts))
    faults += [fault for part_faults, _ in found for fault in part_faults]
    ids = np.concatenate([np.zeros(0, np.uint64), *(hashes for _, hashes in found)])
    values, counts = np.unique(ids, return_counts=True)
    if len(values) < len(ids):
        faults.append(
            Fault("", "", f"{int((counts > 1).sum())} pair_ids are in more than one row, the first {values[counts > 1][0]:016x}")
        )
    return faults


def _check_part(folder: str, part: Part) -> tuple[list[Fault], np.ndarray]:
    """The part's faults, and 64 bits of each of its pair_ids."""
    faults: list[Fault] = []
    tables: dict[str, pa.Table] = {}
    for file in part.files:
        data = _intact(folder, part, file, faults)
        if data is None:
            continue
        if file.name.endswith(".parquet") and not file.name.startswith("_"):
            tables[file.name.removesuffix(".parquet")] = storage.table(data)
        elif file.name.endswith(".tar"):
            tables |= _index(folder, part, file, tables)
            table = tables.get(file.name.removesuffix(".tar"))
            if table is not None:
                faults += [Fault(part.name, file.name, what) for what in _tar_faults(data, table)]
    rows = sum(table.num_rows for table in tables.values())
    if not faults and rows != part.rows_out:
        faults.append(Fault(part.name, "", f"{rows} rows in its files, {part.rows_out} in its record"))
    if not all({"pair_id", "key"} <= set(table.column_names) for table in tables.values()):  # earlier folders may have one twice
        return faults, np.zeros(0, np.uint64)
    return faults, np.concatenate([np.zeros(0, np.uint64), *(hashing.pair_hash(table["pair_id"]) for table in tables.values())])


def _intact(folder: str, part: Part, file: File, faults: list[Fault]) -> bytes | None:
    """The file's bytes, or None and a fault."""
    try:
        data = storage.read(storage.join(folder, file.name))
    except FileNotFoundError:
        faults.append(Fault(part.name, file.name, "missing"))
        return None
    except (InputError, OSError) as error:
        faults.append(Fault(part.name, file.name, f"cannot be read: {error}"))
        return None
    if len(data) != file.num_bytes:
        faults.append(Fault(part.name, file.name, f"{len(data)} bytes, {file.num_bytes} in its record"))
    elif hashing.sha256(data) != file.sha256:
        faults.append(Fault(part.name, file.name, "other bytes than in its record (sha256)"))
    else:
        return data
    return None


def _index(folder: str, part: Part, tar: File, tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """The index of a tar whose Parquet file stands after it in the record, where that is whole."""
    stem = tar.name.removesuffix(".tar")
    named = [file for file in part.files if file.name == f"{stem}.parquet"]
    if stem in tables or not named:
        return {}
    data = _intact(folder, part, named[0], [])
    return {} if data is None else {stem: storage.table(data)}


def _tar_faults(data: bytes, index: pa.Table) -> Iterator[str]:
    """What of a tar is not as its index says; the first difference only."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            members = [(member.name, member.offset_data, member.size) for member in tar]
    except tarfile.TarError as error:
        yield f"not a tar: {error}"
        return
    keys, texts = index["key"].to_pylist(), index["caption" if "caption" in index.column_names else "text"].to_pylist()
    wanted = [f"{key}.{ending}" for key in keys for ending in MEMBERS]
    if [name for name, _, _ in members] != wanted:
        yield f"{len(members)} members, the index has {len(wanted)}, or with other names or in another order"
        return
    places = zip(index["image_offset"].to_pylist(), index["image_bytes"].to_pylist(), strict=True)
    for row, (place, key, text) in enumerate(zip(places, keys, texts, strict=True)):
        image, caption, _ = members[3 * row : 3 * row + 3]
        if image[1:] != place:
            yield f"the image of {key} is {image[2]} bytes at {image[1]}, the index says {place[1]} at {place[0]}"
            return
        if data[caption[1] : caption[1] + caption[2]] != (text or "").encode():
            yield f"the text of {key} is another than the index's"
            return
