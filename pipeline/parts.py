"""One part: read its inputs, apply the worker, write its files, commit. Runs in a worker process, knows no Ray.

law     rows_in = rows_out + sum(drops), asserted for each part that is not a summary
law     the files' names and bytes are a function of the inputs and the configuration: a part made twice is the same part
order   data files, then the sample of dropped rows, then the commit record; without the record there is no part
"""

# pyarrow.compute makes its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

import io
import json
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schema, storage, tars
from pipeline.hashing import sha256
from pipeline.manifest import Dataset, File, Part, canonical, intact, record_path
from pipeline.stage import Input, Stage, Task, Worker

ONE_ROW_GROUP = 1 << 40
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


class PartMaker:
    """Makes parts of one job; the stage's worker is built with the first."""

    def __init__(self, job: Job):
        self.job = job
        self.sources = [Dataset(folder) for folder in job.sources]
        self.worker: Worker | None = None

    def make(self, task: Task, made_from: str) -> Part:
        """Make and commit one part."""
        started = time.monotonic()
        if self.worker is None:
            sides = {name: Dataset(folder) for name, folder in self.job.sides.items()}
            self.worker = self.job.stage.worker(self.job.config, sides)
        tables = self._read(task)
        labelled = self.worker(*tables, outputs=task.outputs) if task.outputs else self.worker(*tables)
        rows_in = labelled.num_rows if self.job.stage.shape == "fanout" else tables[0].num_rows
        return write_part(self.job, task, labelled, rows_in=rows_in, made_from=made_from, started=started)

    def committed(self, task: Task, made_from: str) -> Part | None:
        """The part, if it is there already, made from the same, and whole."""
        try:
            part = Part.from_json(storage.read(record_path(self.job.target, task.part)))
        except (FileNotFoundError, json.JSONDecodeError, KeyError):
            return None
        return part if part.made_from == made_from and intact(self.job.target, part, "hash") else None

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
    keeps = pc.is_null(labelled[schema.DROP.name])
    kept = labelled.filter(keeps).drop_columns([schema.DROP.name])
    dropped = labelled.filter(pc.invert(keeps))
    drops = dict(sorted(Counter(dropped[schema.DROP.name].to_pylist()).items()))
    if stage.shape != "count" and rows_in != kept.num_rows + sum(drops.values()):
        raise AssertionError(f"{stage.name}, part {task.part}: {rows_in} rows in, {kept.num_rows} out, dropped {drops}")
    files = []
    for name, table in _outputs(task, kept):
        if stage.tar:
            tar, table = tars.pack(table)
            files.append(_write(job.target, f"{name}.tar", tar))
        schema.check(table, stage.writes, stage.name)
        names = stage.writes.names + (schema.PLACE_FIELDS.names if stage.tar else [])
        files.append(_write(job.target, f"{name}.parquet", _parquet(job, table.select(names))))
    if dropped.num_rows and job.dropped_sample:
        sample = _sample(dropped, job.dropped_sample)
        files.append(_write(job.target, f"_dropped/{task.part}.parquet", _parquet_bytes([sample])))
    seconds = round(time.monotonic() - started, 3)
    part = Part(
        name=task.part,
        files=tuple(files),
        rows_in=rows_in,
        rows_out=kept.num_rows,
        drops=drops,
        made_from=made_from,
        seconds=seconds,
    )
    storage.write(record_path(job.target, task.part), canonical(asdict(part)))
    return part


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
