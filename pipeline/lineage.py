"""Lineage: what became of a pair at every step, and where each of its rows lies.

in      a root with any finished folders; pair ids, image URLs
out     Trace: a Step for each folder, in the order of the work: kept or the reason, its rows and what else is recorded
law     reads only, and only what may hold the pair. The folders are looked through from the last one to the first, one column
        of each, until every pair is found; then its URL names its bucket of hosts, the bucket its parts, and these its shards:
        one part of each folder is read, and of the archives' parts one bucket, as a task of balance does
law     a fate is what the stages did. Reasons are read from what they recorded (lists of failures, edges, overlaps, tombstones,
        diffs) or follow from it: for a pair of a folder that the next one lacks, where that has one reason only. Of the texts
        that the crawl refused only samples are kept: of the others this says `not_found`
cost    for an id that is nowhere one column of every folder: 32 bytes a row
"""

# pyarrow.compute makes its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import archives, balance, dedupe, draws, groups, hashing, hosts, lookup, match, shard, storage, tombstones
from pipeline.config import BalanceConfig, ShardConfig
from pipeline.errors import InputError
from pipeline.lookup import Row, find
from pipeline.manifest import Dataset, Manifest
from pipeline.overlap import OVERLAP_FOLDER
from pipeline.tombstones import REMOVED, Tombstones

KEPT, NOT_FOUND, NOT_FINISHED = "kept", "not_found", "not_finished"
CANDIDATES, MATCHED, BALANCED, IMAGES = "1_candidates", "2_matched", "3_balanced", "4_images"
UNIQUE, TRIMMED, SHARDS = "5_unique", "5_unique/_trimmed", "6_shards"
BACKWARDS = (SHARDS, IMAGES, BALANCED, MATCHED, CANDIDATES)  # where URLs are, the smallest first
Tell = Callable[[str], None]


class Step(NamedTuple):
    """What a folder says of a pair: its fate there, its rows, and what else is recorded."""

    folder: str
    fate: str
    rows: Sequence[Row] = ()
    facts: Sequence[Row] = ()


@dataclass
class Trace:
    """Everything that is known of a pair. known: one row that has its URL, {} where it is nowhere."""

    pair_id: str
    known: Row
    part: str = ""  # of the pictures
    steps: list[Step] = field(default_factory=list)
    named_by: str = ""  # the kind of tombstone

    @property
    def url(self) -> str:
        """Of its image."""
        return self.known.get("url") or self.known.get("image_url") or ""

    def rows(self, folder: str) -> Sequence[Row]:
        """Its rows in a folder."""
        return next((step.rows for step in self.steps if step.folder == folder), ())

    def goes_on(self) -> bool:
        """Whether the next folder may have it: a removal takes it out of pictures and shards and of nothing between them."""
        last = self.steps[-1] if self.steps else Step("", KEPT)
        return last.fate == KEPT or (last.folder, last.fate) == (IMAGES, REMOVED)


def fate(trace: Trace) -> str:
    """In one word and the folder's name, where a pair's way ended."""
    left = [step for step in trace.steps if step.fate != KEPT]
    step = left[0] if left else (trace.steps or [Step("", NOT_FOUND)])[-1]
    return f"{step.fate} {step.folder}".strip()


class Root:
    """The folders of a root, each opened once."""

    def __init__(self, root: str):
        self.root = root
        self.open = cache(self._open)
        self.diffs = cache(lambda: _by_id(tombstones.read_diffs(root)))  # pair_id -> what removals took out
        self.groups = cache(self._groups)

    def _open(self, folder: str) -> Dataset | None:
        dataset = Dataset(storage.join(self.root, folder))
        try:
            _ = dataset.manifest
        except InputError:
            return None
        return dataset

    def _groups(self) -> dict[str, set[str]]:
        """The parts of pictures that each group of shards is dealt from."""
        trimmed, images = self.open(TRIMMED), self.open(IMAGES)
        if trimmed is None or images is None or self.open(SHARDS) is None:
            return {}
        tasks = shard.plan(ShardConfig(**self.config(SHARDS)), [trimmed.manifest, images.manifest])
        return {task.part: {item.part for item in task.inputs if item.part} for task in tasks}

    def config(self, folder: str) -> Row:
        """The settings that a finished folder was made with."""
        dataset = self.open(folder)
        return {} if dataset is None else dict(dataset.manifest.fingerprint.get("config", {}))

    def removals(self, folder: str, pair_id: str) -> list[Row]:
        """How a pair was taken out of a folder."""
        return [row for row in self.diffs().get(pair_id, []) if row["folder"] == folder]

    def bucket(self, url: str) -> int | None:
        """The bucket of a URL's host; None where pairs have none (folders that were taken in)."""
        matched = self.open(MATCHED)
        return hashing.string_hash(hosts.host(url)) % matched.manifest.num_buckets if matched and url else None

    def buckets(self, traces: Iterable[Trace]) -> dict[int, list[str]]:
        """The pairs by bucket."""
        found: dict[int, list[str]] = defaultdict(list)
        for trace in traces:
            if (bucket := self.bucket(trace.url)) is not None:
                found[bucket].append(trace.pair_id)
        return found


def trace(root: str, pair_ids: Collection[str], urls: Collection[str], tell: Tell) -> list[Trace]:
    """What became of the pairs, in the order given, and of all pairs of the image URLs. `tell` hears of long searches."""
    folders = Root(root)
    known = _by_id(pairs_at(folders, urls, tell))
    missing = [pair for pair in dict.fromkeys(pair_ids) if pair not in known]
    known |= located(folders, missing, tell)
    traces = [Trace(pair, (known.get(pair) or [{}])[0]) for pair in dict.fromkeys([*pair_ids, *known])]
    for step in (_archived, _balanced, _fetched, _unique, _trimmed, _sharded):
        step(folders, [one for one in traces if one.known and one.goes_on()])
    _named(folders, traces)
    return traces


def pairs_at(root: Root, urls: Collection[str], tell: Tell) -> list[Row]:
    """Rows of the pairs of these image URLs that matched a query; of those that matched none where no pair of the URL did."""
    matched, rows = root.open(MATCHED), []
    for bucket in {root.bucket(url) for url in urls} - {None}:
        rows += find(matched, "image_url", urls, row_group=bucket)
    for folder in (IMAGES, CANDIDATES):
        missing = set(urls) - {row["image_url"] for row in rows}
        rows += _searched(root, folder, "image_url", missing, tell)
    return rows + _sampled(root, "image_url", set(urls) - {row["image_url"] for row in rows})


def located(root: Root, pair_ids: Collection[str], tell: Tell) -> dict[str, list[Row]]:
    """The rows of each pair in the last folder that has it."""
    found: dict[str, list[Row]] = {}
    for folder in BACKWARDS:
        found |= _by_id(_searched(root, folder, "pair_id", set(pair_ids) - found.keys(), tell))
    return found | _by_id(_sampled(root, "pair_id", set(pair_ids) - found.keys()))


def _searched(root: Root, folder: str, column: str, values: Collection[str], tell: Tell) -> list[Row]:
    dataset = root.open(folder)
    if dataset and values:
        tell(f"looking for {len(values)} {column} in {len(dataset.manifest.parts)} parts of {folder}")
    return find(dataset, column, values)


def _sampled(root: Root, column: str, values: Collection[str]) -> list[Row]:
    """Dropped rows of which nothing else is kept, where they happen to be in the samples."""
    first = (CANDIDATES, MATCHED) if root.open(CANDIDATES) else (IMAGES,)
    return [row for folder in first for row in find(root.open(folder), column, values, files=lookup.samples)]


def _by_id(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["pair_id"]].append(row)
    return found


def _ids(traces: Iterable[Trace]) -> list[str]:
    return [one.pair_id for one in traces]


def _archived(root: Root, traces: Sequence[Trace]) -> None:
    """1_candidates and 2_matched: the rows of every archive that had the pair."""
    candidates, matched = root.open(CANDIDATES), root.open(MATCHED)
    if candidates is None:
        return
    in_bucket: list[Row] = []
    for bucket, ids in root.buckets(traces).items():
        in_bucket += find(matched, "pair_id", ids, row_group=bucket)
    second = _by_id(in_bucket)
    places = [row["archive"] for row in [*in_bucket, *(one.known for one in traces)] if "archive" in row]
    first = _by_id(find(candidates, "pair_id", _ids(traces), parts={archives.part_name(place) for place in places}))
    left = [one.pair_id for one in traces if one.pair_id not in first]
    dropped = _by_id(find(candidates, "pair_id", left, files=lookup.samples))
    for one in traces:
        if one.pair_id in first:
            one.steps.append(Step(CANDIDATES, KEPT, first[one.pair_id]))
            rows = second.get(one.pair_id, ())
            one.steps.append(Step(MATCHED, KEPT if rows else match.NO_QUERY if matched else NOT_FINISHED, rows))
        else:
            rows = dropped.get(one.pair_id, ())
            one.steps.append(Step(CANDIDATES, rows[0]["drop"] if rows else NOT_FOUND, rows))


def _balanced(root: Root, traces: Sequence[Trace]) -> None:
    """3_balanced: the pair's draw for each of its queries, and the largest that passes."""
    dataset, buckets = root.open(BALANCED), root.buckets(traces)
    if dataset is None:
        return _unfinished(root, BALANCED, traces)
    found = _by_id(find(dataset, "pair_id", _ids(traces), parts={f"bucket-{bucket:05d}" for bucket in buckets} or None))
    for one in traces:
        rows = found.get(one.pair_id, ())
        queries = (rows or one.rows(MATCHED) or [{"query_ids": []}])[0]["query_ids"]
        facts = _draws(root, f"{BALANCED}/_limits", BALANCED, one.pair_id, queries)
        merged = len(one.rows(MATCHED)) - len(rows)
        facts = [{"rows_merged": merged, "reason": balance.REPEATED_PAIR}, *facts] if merged > 0 and rows else facts
        one.steps.append(Step(BALANCED, KEPT if rows else balance.OVER_LIMIT, rows, facts))


def _unfinished(root: Root, folder: str, traces: Sequence[Trace]) -> None:
    """Tell that a folder is not there yet; folders that were taken in have none of those before the pictures."""
    if root.open(CANDIDATES) or folder not in (CANDIDATES, MATCHED, BALANCED):
        for one in traces:
            one.steps.append(Step(folder, NOT_FINISHED))


def _draws(root: Root, limits: str, folder: str, pair_id: str, query_ids: Sequence[int]) -> list[Row]:
    """Of each query of a pair: its draw and the largest that passes, as shares of the range of draws."""
    config = BalanceConfig(**root.config(folder))
    largest = {row["query_id"]: row["largest"] for row in find(root.open(limits), "query_id", query_ids)}
    names = {row["query_id"]: row["query"] for row in find(root.open("queries"), "query_id", query_ids)}
    drawn = hashing.draw(config.seed, hashing.pair_hash([pair_id]), np.asarray(query_ids, np.uint64)).tolist()
    return [
        {
            "query_id": query, "query": names.get(query), "draw": draw / draws.RANGE,
            "limit": (largest[query] / draws.RANGE) if query in largest else None, "passes": draw <= largest.get(query, draw),
        }
        for query, draw in zip(query_ids, drawn, strict=True)
    ]  # fmt: skip


def _fetched(root: Root, traces: Sequence[Trace]) -> None:
    """4_images: the picture, or why there is none; how it was asked for."""
    images = root.open(IMAGES)
    if images is None:
        return _unfinished(root, IMAGES, traces)
    task = {one.pair_id: _task(images.manifest, row) for one in traces for row in one.rows(BALANCED)}
    parts = {part for part, _ in task.values()}
    for one in traces:
        if one.pair_id not in task:  # folders that were taken in: a group of shards names its parts
            parts |= root.groups().get(one.known["part"], {one.known["part"]})
    found, log, sampled = (
        _by_id(find(images, "pair_id", _ids(traces), parts=parts, files=files))
        for files in (lookup.rows, lookup.logs, lookup.samples)
    )
    for one in traces:
        rows, gone = found.get(one.pair_id, ()), root.removals(IMAGES, one.pair_id)
        one.part = rows[0]["part"] if rows else task.get(one.pair_id, (one.known["part"], 0))[0]
        left = [] if rows else [*_left(images, *task.get(one.pair_id, ("", 0))), *sampled.get(one.pair_id, [])]
        fate = KEPT if rows else left[0]["drop"] if left else REMOVED if gone else NOT_FOUND
        facts = [*log.get(one.pair_id, []), *left[:1], *(gone if fate == REMOVED else [])]
        one.steps.append(Step(IMAGES, fate, rows, facts))


def _task(images: Manifest, balanced: Row) -> tuple[str, int]:
    """The part of the pictures that was to have a row of 3_balanced, and the row's number in that task."""
    row = balanced["row"]
    for part in images.parts:
        if part.name == balanced["part"] or part.name.startswith(f"{balanced['part']}-"):
            if row < part.rows_in:
                return part.name, row
            row -= part.rows_in
    return "", 0


def _left(images: Dataset, part: str, row: int) -> list[Row]:
    """What the list of all rows that left a part says of one."""
    failed = images.read_failed(part) if part in images.parts else None
    return [] if failed is None else failed.filter(pc.equal(failed["row"], row)).to_pylist()


def _unique(root: Root, traces: Sequence[Trace]) -> None:
    """5_unique: who else showed the picture, and why another pair stayed."""
    dataset, edges = root.open(UNIQUE), root.open(f"{UNIQUE}/_edges")
    if dataset is None:
        return _unfinished(root, UNIQUE, traces)
    parts = {one.part for one in traces}
    found = _by_id(find(dataset, "pair_id", _ids(traces), parts=parts))
    overlaps = _by_id(find(root.open(OVERLAP_FOLDER), "pair_id", _ids(traces), parts=parts))
    stones = Tombstones.load(root.open("0_removed"))
    for one in traces:
        rows, members = found.get(one.pair_id, ()), groups.group(edges, one.pair_id)
        picture = next(iter(one.rows(IMAGES)), None)
        if rows:
            fate = KEPT
        elif picture is None or _kind(stones, picture):
            fate = REMOVED
        elif one.pair_id in overlaps:
            fate = dedupe.EVALUATION_OVERLAP
        else:
            fate = groups.reason(edges, one.pair_id, picture["sha256"], members) or NOT_FOUND
        one.steps.append(Step(UNIQUE, fate, rows, [*overlaps.get(one.pair_id, []), *members]))


def _kind(stones: Tombstones, row: Row) -> str:
    """The kind of tombstone that names a row; "" where there is none."""
    url = row.get("url") or row.get("image_url") or ""
    named = {name: [row.get(name) or ""] for name in ("page_url", "pair_id", "sha256")}
    return str(stones.named(pa.table({"image_url": [url], **named}))[0])


def _trimmed(root: Root, traces: Sequence[Trace]) -> None:
    """5_unique/_trimmed: the draws again, with the final limits."""
    dataset = root.open(TRIMMED)
    if dataset is None:
        return _unfinished(root, TRIMMED, traces)
    found = _by_id(find(dataset, "pair_id", _ids(traces), parts={one.part for one in traces}))
    for one in traces:
        rows, queries = found.get(one.pair_id, ()), one.rows(UNIQUE)[0]["query_ids"]
        facts = _draws(root, f"{UNIQUE}/_limits", TRIMMED, one.pair_id, queries)
        one.steps.append(Step(TRIMMED, KEPT if rows else shard.OVER_LIMIT, rows, facts))


def _sharded(root: Root, traces: Sequence[Trace]) -> None:
    """6_shards: the shard, the key and the place of the picture."""
    dataset = root.open(SHARDS)
    if dataset is None:
        return _unfinished(root, SHARDS, traces)
    parts = {name for name, dealt in root.groups().items() if dealt & {one.part for one in traces}}
    found = _by_id(find(dataset, "pair_id", _ids(traces), parts=parts))
    for one in traces:
        rows, gone = found.get(one.pair_id, ()), root.removals(SHARDS, one.pair_id)
        one.steps.append(Step(SHARDS, KEPT if rows else REMOVED if gone else NOT_FOUND, rows, () if rows else gone))


def _named(root: Root, traces: Sequence[Trace]) -> None:
    """Which tombstone names each pair; a pair that is nowhere any more is in the diffs at most."""
    stones = Tombstones.of(tombstones.table(tombstones.read(storage.join(root.root, *tombstones.PATH))))
    for one in traces:
        one.named_by = _kind(stones, next(iter(one.rows(IMAGES)), {**one.known, "pair_id": one.pair_id}))
        if not one.steps:
            one.steps += [Step(row["folder"], REMOVED, (), [row]) for row in root.diffs().get(one.pair_id, [])]
