"""A dataset is its manifest: which parts there are, what is in them, and what they were made with.

folder/
  <part>.parquet, <part>.tar   the parts
  _dropped/<part>.parquet      a sample of the rows that left, with their reason
  _failed/<part>.parquet       which rows of its source left and why, all of them: where a stage tries some of them again later
  _log/<part>.parquet          what is of the run and not of the rows (when each was fetched, which headers came): in no hash
  _parts/<part>.json           commit record, written after the part's files: a part without one does not exist
  _MANIFEST.json               written last: every record, the sums, the fingerprint
law     rows_in = rows_out + sum(drops) for each part and for the whole (but for summaries, see stage)
law     `Manifest.hash` covers names, rows, drops, file hashes and fingerprint, not times and logs: two runs that made the
        same rows have the same hash. A log that is lost is not missed: nothing is fetched again for its sake
"""

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import InputError
from pipeline.hashing import sha256

NAME = "_MANIFEST.json"
Json = dict[str, Any]


class TornPart(InputError):
    """A file that is not what its commit record says."""


def canonical(value: Any) -> bytes:
    """The one JSON text of a value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """A file of a part; the name is relative to the dataset's folder."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A commit record. `made_from` is the hash of everything the part was made from; `seconds` and `logs` are no identity.

    A part that was amended (rows that had failed were tried again, and came out) has all the files that it had, and more.
    """

    name: str
    files: tuple[File, ...]
    rows_in: int
    rows_out: int
    drops: dict[str, int]
    made_from: str
    amends: str = ""  # the version of the part that this one takes the place of; "" where it is the first
    logs: tuple[File, ...] = ()  # of the part as it was made, and of each time that it was amended
    seconds: float = 0.0

    @classmethod
    def from_json(cls, data: bytes) -> "Part":
        """The record in a file of _parts/."""
        fields = {"logs": (), **json.loads(data)}
        return cls(**{**fields, **{kind: tuple(File(**file) for file in fields[kind]) for kind in ("files", "logs")}})

    def identity(self) -> Json:
        """What makes two records the same record."""
        fields = asdict(self)
        del fields["seconds"], fields["logs"]
        return fields

    def digest(self) -> str:
        """Hash of the part's rows: what others are made from. Samples and lists of what left are not in it."""
        return sha256(canonical([asdict(file) for file in self.files if not file.name.startswith("_")]))

    def version(self) -> str:
        """Hash of the record."""
        return sha256(canonical(self.identity()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a finished folder holds."""

    stage: str
    fingerprint: Json
    parts: tuple[Part, ...]
    num_buckets: int = 0  # row groups of each part; 0: not cut
    seconds: float = field(default=0.0, compare=False)  # wall-clock of the run that finished it

    @property
    def rows_in(self) -> int:
        """Rows that went in."""
        return sum(part.rows_in for part in self.parts)

    @property
    def rows_out(self) -> int:
        """Rows that are there."""
        return sum(part.rows_out for part in self.parts)

    @property
    def drops(self) -> dict[str, int]:
        """Rows that left, by reason, most frequent first."""
        sums: dict[str, int] = {}
        for part in self.parts:
            for reason, count in part.drops.items():
                sums[reason] = sums.get(reason, 0) + count
        return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))

    @property
    def hash(self) -> str:
        """Hash of the dataset: equal for equal rows made with equal settings."""
        return sha256(canonical([self.stage, self.fingerprint, self.num_buckets, [part.identity() for part in self.parts]]))

    def digest(self) -> str:
        """Hash of the rows of all parts."""
        return sha256(canonical([self.num_buckets, [[part.name, part.digest()] for part in self.parts]]))

    def to_json(self) -> bytes:
        """The content of _MANIFEST.json."""
        sums = {"rows_in": self.rows_in, "rows_out": self.rows_out, "drops": self.drops, "hash": self.hash}
        return json.dumps({"format": 1, **sums, **asdict(self)}, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Manifest":
        """The manifest in a file's bytes."""
        fields = json.loads(data)
        parts = tuple(Part.from_json(canonical(part)) for part in fields["parts"])
        names = ("stage", "fingerprint", "num_buckets", "seconds")
        return cls(parts=parts, **{name: fields[name] for name in names})


@dataclass(frozen=True)
class Dataset:
    """A finished folder, to be read. Files are checked against the manifest as they are read."""

    folder: str

    @cached_property
    def manifest(self) -> Manifest:
        """The folder's manifest; InputError where the stage that makes it has not finished."""
        try:
            return Manifest.from_json(storage.read(storage.join(self.folder, NAME)))
        except FileNotFoundError:
            raise InputError(
                f"{self.folder} has no {NAME}: the stage that makes it has not finished; run the job that builds it first"
            ) from None

    @cached_property
    def parts(self) -> dict[str, Part]:
        """The parts by name."""
        return {part.name: part for part in self.manifest.parts}

    def _bytes(self, file: File) -> bytes:
        data = storage.read(storage.join(self.folder, file.name))
        if sha256(data) != file.sha256:
            raise torn(self.folder, file, f"{len(data)} bytes with another sha256")
        return data

    def read_part(self, name: str, columns: tuple[str, ...] | None = None) -> pa.Table:
        """All rows of a part. The column `image` (encoded bytes, from the tar) is read only where it is named."""
        stored = None if columns is None else [column for column in columns if column != "image"]
        with_image = columns is not None and "image" in columns
        if with_image and stored is not None:
            stored += [column for column in ("image_offset", "image_bytes") if column not in stored]
        files = {file.name: file for file in self.parts[name].files if not file.name.startswith("_")}
        tables = []
        for file in files.values():
            if not file.name.endswith(".parquet"):
                continue
            table = storage.table(self._bytes(file), stored)
            if with_image:
                tar = memoryview(self._bytes(files[file.name.removesuffix(".parquet") + ".tar"]))
                places = zip(table["image_offset"].to_pylist(), table["image_bytes"].to_pylist(), strict=True)
                table = table.append_column("image", pa.array([tar[at : at + size] for at, size in places], pa.binary()))
            tables.append(table)
        return pa.concat_tables(tables)

    def read_row_group(self, name: str, row_group: int, columns: tuple[str, ...] | None = None) -> pa.Table:
        """One bucket of a part; the pages that are read are checked against their checksums."""
        (file,) = [file for file in self.parts[name].files if not file.name.startswith("_")]
        with storage.open_read(storage.join(self.folder, file.name), ahead=False) as stream:
            try:
                reader = pq.ParquetFile(stream, page_checksum_verification=True, pre_buffer=storage.is_remote(self.folder))
                return reader.read_row_group(row_group, columns=None if columns is None else list(columns), use_threads=False)
            except (pa.ArrowInvalid, OSError) as error:
                raise torn(self.folder, file, str(error)) from error

    def read(self, columns: tuple[str, ...] | None = None) -> pa.Table:
        """All rows of all parts, in the order of the manifest."""
        return pa.concat_tables([self.read_part(part.name, columns) for part in self.manifest.parts])

    def read_failed(self, name: str) -> pa.Table | None:
        """Every row that left a part, as schema.FAILED; None where no row left, or the stage keeps no list of them."""
        for file in self.parts[name].files:
            if file.name.startswith("_failed/"):
                return storage.table(self._bytes(file))
        return None

    def read_dropped(self) -> pa.Table | None:
        """The samples of dropped rows of all parts, with their column `drop`; None where nothing was dropped."""
        files = [file for part in self.manifest.parts for file in part.files if file.name.startswith("_dropped/")]
        tables = [storage.table(self._bytes(file)) for file in files]
        return pa.concat_tables(tables) if tables else None


def torn(folder: str, file: File, found: str) -> TornPart:
    """The error for a file that is not what its record says."""
    return TornPart(
        f"{storage.join(folder, file.name)}: expected {file.num_bytes} bytes with sha256 {file.sha256[:12]}..., found {found}; "
        "run the same command again with --run.verify hash: it rebuilds what is torn"
    )


def record_path(target: str, part: str) -> str:
    """Where the commit record of a part is."""
    return storage.join(target, "_parts", f"{part}.json")


def intact(target: str, part: Part, verify: str) -> bool:
    """True if the part's files are what its record says."""
    for file in part.files:
        path = storage.join(target, file.name)
        if storage.size(path) != file.num_bytes:
            return False
        if verify == "hash" and sha256(storage.read(path)) != file.sha256:
            return False
    return True
