"""Tell where pairs come from and what became of them at every step.

    python jobs/lineage.py mini --root out/mini --pair-ids 0123456789abcdef0123456789abcdef
    python jobs/lineage.py wit  --root s3://bucket/wit --urls https://a.example/1.jpg --show-record True
    python jobs/lineage.py mini --root out/mini --pair-ids 0123... --json True

For each pair a line for each folder: kept, or the reason why it left there; with them the archive, the place of the record in
it, page and attribute; the queries that the text holds, the pair's draw for each and the limit; when the picture was asked
for, how often, the status and the headers of the last answer; original size; who else showed the picture and which of them
stayed; shard, key and place in the tar; removals and the tombstone that names it. --urls takes image URLs: all their pairs.
--show-record True reads the archive's record again, where the archive can still be read: the link as it was written. --json
True prints one JSON object a pair. An id that is in no shard is looked for in 4_images, 3_balanced, 2_matched and
1_candidates, reading the column pair_id alone; with its URL beside it (--urls) only its host's bucket is read. Of the texts
that the crawl refused only samples are kept. Exit code 2 where a pair is found nowhere.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from jobs._cli import at_roots, entry
from pipeline import archives, lineage, provenance, tombstones, urls
from pipeline.errors import InputError
from pipeline.lineage import CANDIDATES, IMAGES, Root, Step, Trace
from pipeline.lookup import Row

MAX_ROWS = 20  # of a step, that are printed; --json True has all
HIDDEN = ("part", "file", "row", "status", "foreign_key")


@dataclass(frozen=True, kw_only=True, slots=True)
class LineageConfig:
    """Which pairs."""

    root: str = "out/mini"  # local path or s3:// URL
    pair_ids: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()  # of images
    show_record: bool = False  # read the archive's record again
    json: bool = False


RECIPES = at_roots(LineageConfig)


def asked(config: LineageConfig) -> tuple[list[str], list[str]]:
    """Pair ids and canonical URLs of the command line."""
    pair_ids = [pair.strip().lower() for pair in config.pair_ids]
    wrong = [pair for pair in pair_ids if not re.fullmatch(tombstones.KINDS["pair_id"], pair)]
    found = [urls.canonical(url) for url in config.urls]
    if wrong:
        raise InputError(f"lineage: expected a pair_id of 32 hex digits, found {wrong[0]!r}")
    if None in found:
        raise InputError(f"lineage: expected an http(s) URL of an image, found {config.urls[found.index(None)]!r}")
    if not pair_ids and not found:
        raise InputError("lineage: nothing named; give --pair-ids or --urls")
    return pair_ids, [url for url in found if url]


def records(root: Root, trace: Trace) -> list[Row]:
    """The archives' records of a pair's rows."""
    sources = root.open("0_sources")
    found = []
    for row in trace.rows(CANDIDATES):
        kinds = sources.read_part(archives.part_name(row["archive"]), ("format",))["format"].to_pylist() if sources else ["warc"]
        found.append({"archive": row["archive"], "record_offset": row["record_offset"], **provenance.record(row, kinds[0])})
    return found


def plain(value: Any) -> str:
    """A value for a terminal: nothing in it is printed that a terminal might obey."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def told(row: Row, known: Row) -> str:
    """What a row says that is not known yet."""
    new = {name: value for name, value in row.items() if value is not None and name not in HIDDEN and known.get(name) != value}
    return "  ".join(f"{name}={plain(round(value, 6) if isinstance(value, float) else value)}" for name, value in new.items())


def step_lines(step: Step, known: Row) -> Iterator[str]:
    """A step in a few lines; `known` is what stands above."""
    yield f"  {step.folder:<18} {step.fate}"
    for row in step.rows[:MAX_ROWS]:
        yield f"    in {plain(row['file'])} row {row['row']}: {told(row, known)}"
    for fact in step.facts[:MAX_ROWS]:
        other = f"{plain(fact['pair_id'])}: " if fact.get("pair_id", known["pair_id"]) != known["pair_id"] else ""
        yield f"    {other}{told(fact, {} if other else known)}"
    more = max(0, len(step.rows) - MAX_ROWS) + max(0, len(step.facts) - MAX_ROWS)
    if more:
        yield f"    and {more} more (--json True)"


def lines(trace: Trace, found: list[Row]) -> Iterator[str]:
    """A pair in lines."""
    text = trace.known.get("text") or trace.known.get("caption") or ""
    known: Row = {"pair_id": trace.pair_id, "image_url": trace.url, "url": trace.url, "text": text, "caption": text}
    yield f"{trace.pair_id} {lineage.fate(trace)}"
    yield f"  image_url          {plain(trace.url)}"
    yield f"  text               {plain(text)}"
    for step in trace.steps:
        yield from step_lines(step, known)
        known |= step.rows[0] if step.rows else {}
    if trace.named_by:
        yield f"  tombstone          names it by {trace.named_by}"
    for row in found:
        yield f"  record             {told(row, {})}"


def main(config: LineageConfig) -> None:
    """Trace; print."""
    pair_ids, image_urls = asked(config)
    root = Root(config.root)
    if not any(root.open(folder) for folder in (CANDIDATES, IMAGES)):
        raise InputError(
            f"lineage: {config.root}: expected a root with a finished {CANDIDATES} or {IMAGES}, found none; check --root"
        )
    traces = lineage.trace(config.root, pair_ids, image_urls, lambda line: print(line, file=sys.stderr, flush=True))
    for trace in traces:
        found = records(root, trace) if config.show_record else []
        if config.json:
            print(json.dumps({**asdict(trace), "fate": lineage.fate(trace), "records": found}, default=str), flush=True)
        else:
            print("\n".join(lines(trace, found)), flush=True)
    lost = [trace.pair_id for trace in traces if not trace.steps]
    lost += sorted(set(image_urls) - {trace.url for trace in traces})
    if lost:
        raise InputError(f"lineage: {len(lost)} of those named are in no folder of {config.root}, the first: {lost[0]}")


if __name__ == "__main__":
    entry(main, RECIPES, __doc__)
