"""One part: read its inputs, apply the worker, write its files, commit. Runs in a worker process, knows no Ray.

law     rows_in = rows_out + sum(drops), asserted for each part that is not a summary
law     the files' names and bytes are a function of the inputs and the configuration: a part made twice is the same part
law     a part that is amended keeps every file of rows that it has: what came out by now is in files of its own beside them
order   data files, then the sample of dropped rows, then the log, then the commit record; without that there is no part
"""

# pyarrow.compute makes its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

import io
import json
import re
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schema, storage, tars
from pipeline.hashing import sha256
from pipeline.manifest import Dataset, File, Part, canonical, intact, record_path, torn
from pipeline.stage import Input, Stage, Task, Worker

ONE_ROW_GROUP = 1 << 40
AMENDED = re.compile(r"\.retry-(\d+)\.")  # in the names of the files that an amendment adds
READERS = 8  # inputs read at once: a bucket is a small piece of each of thousands of files, which may be far away


@dataclass(frozen=True, kw_only=True)
class Job:
    """A stage with everything that its workers need; travels to them once."""

    stage: Stage
    config: Any
    sources: tuple[str, ...]
    target: str
    sides: Mapping[str, str]
    dropped_sample: int
    amend: bool = False  # the parts are there: what failed in them is tried again


class PartMaker:
    """Makes parts of one job; the stage's worker is built with the first."""

    def __init__(self, job: Job):
        self.job = job
        self.sources = [Dataset(folder) for folder in job.sources]
        self.target = Dataset(job.target)  # read where parts are amended only
        self.worker: Worker | None = None

    def make(self, task: Task, made_from: str) -> Part:
        """Make and commit one part."""
        started = time.monotonic()
        worker = self._worker()
        if self.job.amend:
            return self._amend(task, worker, started)
        tables = self._read(task)
        labelled = worker(*tables, outputs=task.outputs) if task.outputs else worker(*tables)
        rows_in = labelled.num_rows if self.job.stage.shape == "fanout" else tables[0].num_rows
        return write_part(self.job, task, labelled, rows_in=rows_in, made_from=made_from, started=started)

    def committed(self, task: Task, made_from: str) -> Part | None:
        """The part, if it is there already, made from the same, and whole."""
        try:
            part = Part.from_json(storage.read(record_path(self.job.target, task.part)))
        except (FileNotFoundError, json.JSONDecodeError, KeyError):
            return None
        is_wanted = part.made_from == made_from and (not self.job.amend or part.amends == self.target.parts[task.part].version())
        return part if is_wanted and intact(self.job.target, part, "hash") else None

    def _worker(self) -> Worker:
        if self.worker is None:
            sides = {name: Dataset(folder) for name, folder in self.job.sides.items()}
            self.worker = self.job.stage.worker(self.job.config, sides)
        return self.worker

    def _amend(self, task: Task, worker: Worker, started: float) -> Part:
        """The part with what comes out now of the rows that had failed; as it was where nothing changed."""
        old, failed = self.target.parts[task.part], self.target.read_failed(task.part)
        if failed is None or self.job.stage.again is None:
            return old
        again = failed.filter(self.job.stage.again(failed))
        if not again.num_rows:
            return old
        (source,) = self._read(task)
        return amend_part(self.job, old, source, failed, again, worker(source.take(again["row"])), started=started)

    def _read(self, task: Task) -> list[pa.Table]:
        columns = self.job.stage.columns
        if len(columns) != len(self.sources):
            raise ValueError(f"{self.job.stage.name}: reads {len(columns)} sources, given {len(self.sources)}")
        wanted = [
            (item, part)
            for item in task.inputs
            for part in ([item.part] if item.part is not None else self.sources[item.source].parts)
        ]

        def read(item: Input, part: str) -> pa.Table:
            source = self.sources[item.source]
            if item.row_group is not None:
                table = source.read_row_group(part, item.row_group, columns[item.source])
            else:
                table = source.read_part(part, columns[item.source])
            return table if item.rows is None else table.slice(item.rows[0], item.rows[1] - item.rows[0])

        with ThreadPoolExecutor(READERS) as pool:
            tables = list(pool.map(lambda one: read(*one), wanted))
        pieces: list[list[pa.Table]] = [[] for _ in self.sources]
        for (item, _), table in zip(wanted, tables, strict=True):
            pieces[item.source].append(table)
        return [pa.concat_tables(tables) for tables in pieces]


def write_part(job: Job, task: Task, labelled: pa.Table, *, rows_in: int, made_from: str, started: float) -> Part:
    """Split the labelled rows into kept and dropped, write both and commit."""
    stage = job.stage
    if schema.DROP.name not in labelled.column_names:
        labelled = labelled.append_column(schema.DROP, pa.nulls(labelled.num_rows, pa.string()))
    labelled, logs = _write_log(job, task.part, labelled)
    keeps = pc.is_null(labelled[schema.DROP.name])
    kept = labelled.filter(keeps).drop_columns([schema.DROP.name])
    dropped = labelled.filter(pc.invert(keeps))
    drops = dict(sorted(Counter(dropped[schema.DROP.name].to_pylist()).items()))
    if stage.shape != "count" and rows_in != kept.num_rows + sum(drops.values()):
        raise AssertionError(f"{stage.name}, part {task.part}: {rows_in} rows in, {kept.num_rows} out, dropped {drops}")
    files = [file for name, table in _outputs(task, kept) for file in _write_rows(job, name, table)]
    files += _write_left(job, task.part, dropped, _failed(labelled))
    part = Part(
        name=task.part, files=tuple(files), rows_in=rows_in, rows_out=kept.num_rows, drops=drops, made_from=made_from, logs=logs
    )  # fmt: skip
    return _commit(job, part, started)


def amend_part(
    job: Job, old: Part, source: pa.Table, failed: pa.Table, again: pa.Table, labelled: pa.Table, *, started: float
) -> Part:
    """Commit `old` with the rows that came out at another try; `old` itself where the same rows failed for the same reasons.

    failed: every row of the part that had left; again: those of them that `labelled`, in the same order, is made from
    """
    tried = _failed(labelled.append_column("row", again["row"]))
    others = failed.filter(pc.invert(pc.is_in(failed["row"], value_set=again["row"].combine_chunks())))
    left = pa.concat_tables([others, tried]).sort_by("row")
    if left.equals(failed):
        return old
    number = 1 + max((int(found[1]) for file in old.files if (found := AMENDED.search(file.name))), default=0)
    name = f"{old.name}.retry-{number}"
    labelled, logs = _write_log(job, name, labelled)
    kept = labelled.filter(pc.is_null(labelled[schema.DROP.name])).drop_columns([schema.DROP.name])
    files = [file for file in old.files if not file.name.startswith("_")]
    files += _write_rows(job, name, kept) if kept.num_rows else []
    dropped = source.take(left["row"])
    for field in labelled.schema:
        if field.name not in dropped.column_names:
            column = left[field.name] if field.name in left.column_names else pa.nulls(left.num_rows, field.type)
            dropped = dropped.append_column(field, column)
    files += _write_left(job, name, dropped.select(labelled.column_names), left)
    before = set(failed[schema.DROP.name].to_pylist())
    others_left = {reason: count for reason, count in old.drops.items() if reason not in before}  # removed since it was made
    drops = dict(sorted({**others_left, **Counter(left[schema.DROP.name].to_pylist())}.items()))
    rows_out = old.rows_out + kept.num_rows
    if old.rows_in != rows_out + sum(drops.values()):
        raise AssertionError(f"{job.stage.name}, part {old.name}: {old.rows_in} rows in, {rows_out} out, dropped {drops}")
    logs = (*old.logs, *logs)
    amended = replace(old, files=tuple(files), rows_out=rows_out, drops=drops, amends=old.version(), logs=logs)
    return _commit(job, amended, started)


def _commit(job: Job, part: Part, started: float) -> Part:
    part = replace(part, seconds=round(time.monotonic() - started, 3))
    storage.write(record_path(job.target, part.name), canonical(asdict(part)))
    return part


def _failed(labelled: pa.Table) -> pa.Table:
    """FAILED rows of a labelled table; their places in it where it has no column `row`."""
    for name in ("row", "http_status"):
        if name not in labelled.column_names:
            values = range(labelled.num_rows) if name == "row" else [None] * labelled.num_rows
            labelled = labelled.append_column(name, pa.array(values, schema.FAILED.field(name).type))
    left = labelled.filter(pc.is_valid(labelled[schema.DROP.name]))
    return left.select(schema.FAILED.names).cast(schema.FAILED)


def _write_rows(job: Job, name: str, table: pa.Table) -> list[File]:
    """The files of kept rows."""
    stage, files = job.stage, []
    if stage.tar:
        tar, table = tars.pack(table)
        files.append(_write(job.target, f"{name}.tar", tar))
    schema.check(table, stage.writes, stage.name)
    names = stage.writes.names + (schema.PLACE_FIELDS.names if stage.tar else [])
    return [*files, _write(job.target, f"{name}.parquet", _parquet(job, table.select(names)))]


def _write_log(job: Job, name: str, labelled: pa.Table) -> tuple[pa.Table, tuple[File, ...]]:
    """Write what is of the run and not of the rows; the table without it, and the file."""
    if job.stage.log is None:
        return labelled, ()
    log = labelled.select(["pair_id", *job.stage.log.names, schema.DROP.name])
    schema.check(log, job.stage.log, job.stage.name)
    file = _write(job.target, f"_log/{name}.parquet", _parquet_bytes([log]))
    return labelled.drop_columns(job.stage.log.names), (file,)


def _write_left(job: Job, name: str, dropped: pa.Table, failed: pa.Table) -> list[File]:
    """The sample of rows that left, and the list of all of them where some may come out another day."""
    files = []
    if dropped.num_rows and job.dropped_sample:
        sample = _sample(dropped, job.dropped_sample)
        files.append(_write(job.target, f"_dropped/{name}.parquet", _parquet_bytes([sample])))
    if failed.num_rows and job.stage.again:
        files.append(_write(job.target, f"_failed/{name}.parquet", _parquet_bytes([failed])))
    return files


def rewrite(
    folder: str, part: Part, known: set[str], hit: Callable[[pa.Table], np.ndarray], reason: str, tell: Callable[[pa.Table], None]
) -> Part:
    """Take the rows for which `hit` gives a text that is not empty out of a committed part's tars and their indexes.

    known: hashes that its files may have beside those of the record, where an earlier call was cut off. tell: gets the rows
    that leave, with the columns `shard` and `named`, that text, before anything is written. Then the record is written and
    then the files, so that a repetition knows the hashes of both. -> the new record
    """
    made: dict[str, bytes] = {}
    changed: dict[str, File] = {}
    files, num_rows = {file.name: file for file in part.files}, 0
    for name in [name for name in files if name.endswith(".tar")]:
        stem = name.removesuffix(".tar")
        pair = {file: _known(folder, files[file], known) for file in (name, f"{stem}.parquet")}
        table = storage.table(pair[f"{stem}.parquet"])
        named = hit(table)
        gone = pa.array(named != "")
        num_rows += table.num_rows - gone.true_count
        if gone.true_count:
            more = {"shard": pa.array([stem] * len(named)), "named": pa.array(named.tolist())}
            tell(pa.table({**{column: table[column] for column in table.column_names}, **more}).filter(gone))
        if gone.true_count or len({sha256(data) == files[file].sha256 for file, data in pair.items()}) == 2:
            pair = _without(pair[name], table, gone, name)
            made |= pair
        changed |= {file: File(name=file, num_bytes=len(data), sha256=sha256(data)) for file, data in pair.items()}
    new_files = tuple(changed.get(file.name, file) for file in part.files)
    if new_files == part.files:
        return part
    drops = dict(sorted({**part.drops, reason: part.drops.get(reason, 0) + part.rows_out - num_rows}.items()))
    new = replace(part, files=new_files, rows_out=num_rows, drops=drops)
    storage.write(record_path(folder, part.name), canonical(asdict(new)))
    for name, data in made.items():
        storage.write(storage.join(folder, name), data)
    return new


def _without(tar: bytes, table: pa.Table, gone: pa.Array, name: str) -> dict[str, bytes]:
    """The tar and its index without the rows that are gone, by file name.

    Images are found by their names: where an earlier call was cut off between the two, only one of them is new.
    """
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as members:
        places = {member.name: (member.offset_data, member.size) for member in members}
    stays = table.drop_columns(schema.PLACE_FIELDS.names).filter(pc.invert(gone))
    images = [memoryview(tar)[at : at + size] for at, size in (places[f"{key}.jpg"] for key in stays["key"].to_pylist())]
    stays = stays.append_column("image", pa.array(images, pa.large_binary()))
    data, placed = tars.pack(stays)
    return {name: data, name.removesuffix(".tar") + ".parquet": _parquet_bytes([placed])}


def _known(folder: str, file: File, known: set[str]) -> bytes:
    data = storage.read(storage.join(folder, file.name))
    if sha256(data) not in {file.sha256, *known}:
        raise torn(folder, file, f"{len(data)} bytes with another sha256")
    return data


def _outputs(task: Task, kept: pa.Table) -> list[tuple[str, pa.Table]]:
    if not task.outputs:
        return [(task.part, kept)]
    number = kept[schema.OUTPUT.name]
    tables = [kept.filter(pc.equal(number, i)).drop_columns([schema.OUTPUT.name]) for i in range(len(task.outputs))]
    if sum(table.num_rows for table in tables) != kept.num_rows:
        raise AssertionError(f"part {task.part}: rows with an output number outside 0..{len(task.outputs) - 1}")
    return list(zip(task.outputs, tables, strict=True))


def _parquet(job: Job, table: pa.Table) -> bytes:
    """The Parquet file of kept rows: one row group a bucket where the stage cuts its rows, else one in all."""
    if job.stage.bucket is None or job.stage.buckets is None:
        return _parquet_bytes([table])
    num_buckets = job.stage.buckets(job.config)
    buckets = job.stage.bucket(table, num_buckets)
    order = np.argsort(buckets, kind="stable")
    table, buckets = table.take(pa.array(order)), buckets[order]
    edges = np.searchsorted(buckets, np.arange(num_buckets + 1))
    return _parquet_bytes([table.slice(start, end - start) for start, end in pairwise(edges)])


def _parquet_bytes(row_groups: list[pa.Table]) -> bytes:
    sink, columns = io.BytesIO(), row_groups[0].schema
    repeating = [name for name in columns.names if name not in schema.DISTINCT]  # a dictionary of the others only costs time
    options: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True, "use_dictionary": repeating}
    with pq.ParquetWriter(sink, columns, **options) as writer:
        for table in row_groups:
            writer.write_table(table, row_group_size=ONE_ROW_GROUP)
    return sink.getvalue()


def _sample(dropped: pa.Table, limit: int) -> pa.Table:
    """At most `limit` rows of each reason, the ones with the smallest pair_id (which is a hash) or, without ids, the first."""
    reasons = np.asarray(dropped[schema.DROP.name].to_pylist(), object)
    rows = []
    for reason in sorted(set(reasons)):
        index = np.flatnonzero(reasons == reason)
        if len(index) > limit:
            if "pair_id" in dropped.column_names:
                index = index[np.argsort(np.asarray(dropped["pair_id"].to_pylist(), object)[index], kind="stable")]
            index = index[:limit]
        rows.append(index)
    columns = [name for name in dropped.column_names if name not in (schema.IMAGE.name, schema.OUTPUT.name)]
    return dropped.select(columns).take(pa.array(np.sort(np.concatenate(rows))))


def _write(folder: str, name: str, data: bytes) -> File:
    storage.write(storage.join(folder, name), data)
    return File(name=name, num_bytes=len(data), sha256=sha256(data))
