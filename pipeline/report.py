"""The report's facts about a dataset: funnel, samples of what was kept and dropped, queries, where it comes from.

in      a root with any of the folders of FOLDERS; what is not there is told as missing, never an error
out     plain values and pictures; no HTML (jobs/report.py draws them)
law     every count is read from a manifest
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline import failures, hashing, query_report, samples, storage
from pipeline.errors import InputError
from pipeline.manifest import Dataset, Manifest, canonical
from pipeline.samples import Drop, Pair

FOLDERS = {  # in the order of the work: what the stage does with its rows
    "1_candidates": "image links of the archives, a row for each of their texts; texts cleaned and judged",
    "2_matched": "pairs whose text holds a query",
    "3_balanced": "repeated pairs merged, and only so many pairs for each query",
    "4_images": "pictures fetched, decoded and made small",
    "5_unique": "one pair for each picture",
    "5_unique/_trimmed": "trimmed to the limit for each query",
    "6_shards": "mixed and written",
}
WHY = {  # what a reason means, for a reader who has not seen the stages
    "no_text": "the link has no text",
    "bad_url": "not an http(s) URL",
    "too_short": "the text has too few characters",
    "too_long": "the text has too many characters",
    "no_letters": "the text has no letters",
    "repeated_chars": "one character many times in a row",
    "boilerplate": "a text that says nothing of the picture, or a file name",
    "language": "another language than the dataset's",
    "no_query": "no query occurs in the text",
    "repeated_pair": "the same URL with the same text again",
    "over_limit": "all its queries have enough pairs",
    "robots": "robots.txt forbids it",
    "dns": "the host has no address",
    "address": "not a public address",
    "connect": "no connection",
    "tls": "no secure connection",
    "timeout": "no answer in time, or too slow",
    "redirect": "too many redirects, or a loop",
    "http_4xx": "the server has no such picture",
    "http_5xx": "the server failed",
    "too_large": "too many bytes",
    "opt_out": "its owner opts out of such use",
    "not_an_image": "the bytes are no picture",
    "bomb": "too many pixels by its header",
    "too_small": "too few pixels",
    "aspect": "too long and narrow",
    "decode": "a broken picture",
    "not_downloaded": "whoever made the folder did not get it",
    "no_member": "the folder's tar has no such picture",
    "removed": "its owner asked for it, see jobs/remove.py",
    "evaluation_overlap": "a near copy of a picture of an evaluation set",
    "placeholder": "the very same bytes under many URLs",
    "duplicate": "the very same bytes as a pair that stays",
    "near_duplicate": "nearly the same picture as a pair that stays",
}
WITH_PICTURES = ("5_unique", "5_unique/_trimmed")  # what they drop had been downloaded


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One stage of the funnel."""

    folder: str
    does: str
    rows_in: int
    rows_out: int
    drops: dict[str, int]  # by reason, most frequent first
    diagnoses: list[str]  # what is wrong with all of it rather than with single rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What a folder is and what it was made with."""

    folder: str
    stage: str
    version: int
    num_parts: int
    rows: int
    num_bytes: int
    seconds: float  # wall-clock of the run that finished it
    hash: str  # of the dataset
    fingerprint: str  # hash of what it was made with
    config: str  # JSON, indented


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Everything that the report shows of a dataset."""

    funnel: list[Step]
    origins: list[Origin]
    missing: list[str]  # folders without a manifest
    kept: list[Pair]
    drops: list[Drop]
    queries: query_report.Queries | None


def collect(root: str, *, num_kept: int = 48, num_dropped: int = 4, num_top: int = 18) -> Facts:
    """The facts of the dataset under `root`, with so many kept pairs, dropped rows for each reason, and top queries."""
    found = {name: manifest for name in ("queries", *FOLDERS) if (manifest := _manifest(root, name)) is not None}
    funnel = [_step(name, does, found[name]) for name, does in FOLDERS.items() if name in found]
    return Facts(
        funnel=funnel,
        origins=[_origin(name, manifest) for name, manifest in found.items()],
        missing=[name for name in ("queries", *FOLDERS) if name not in found],
        kept=samples.kept_pairs(root, num_kept, _query_names(root, found)) if "6_shards" in found else [],
        drops=_drops(root, found, num_dropped),
        queries=query_report.collect(root, num_top) if "queries" in found else None,
    )


def _manifest(root: str, name: str) -> Manifest | None:
    try:
        return Dataset(storage.join(root, name)).manifest
    except InputError:
        return None


def _step(name: str, does: str, manifest: Manifest) -> Step:
    diagnoses = failures.diagnose(manifest.rows_in, manifest.drops) if name == "4_images" else []
    return Step(
        folder=name, does=does, rows_in=manifest.rows_in, rows_out=manifest.rows_out, drops=manifest.drops, diagnoses=diagnoses
    )


def _origin(name: str, manifest: Manifest) -> Origin:
    files = [file for part in manifest.parts for file in part.files if not file.name.startswith("_")]
    return Origin(
        folder=name,
        stage=manifest.stage,
        version=manifest.fingerprint["version"],
        num_parts=len(manifest.parts),
        rows=manifest.rows_out,
        num_bytes=sum(file.num_bytes for file in files),
        seconds=manifest.seconds,
        hash=manifest.hash,
        fingerprint=hashing.sha256(canonical(manifest.fingerprint)),
        config=json.dumps(manifest.fingerprint["config"], indent=1),
    )


def _query_names(root: str, found: Mapping[str, Manifest]) -> dict[int, str]:
    if "queries" not in found:
        return {}
    table = Dataset(storage.join(root, "queries")).read(("query_id", "query"))
    return dict(zip(table["query_id"].to_pylist(), table["query"].to_pylist(), strict=True))


def _drops(root: str, found: Mapping[str, Manifest], count: int) -> list[Drop]:
    """Dropped rows of every stage, in the order of the funnel."""
    drops = [drop for name in FOLDERS if name in found for drop in samples.dropped_pairs(root, name, count)]
    if "4_images" not in found:
        return drops
    early = [drop for drop in drops if drop.folder not in WITH_PICTURES]
    return early + samples.with_pictures(root, [drop for drop in drops if drop.folder in WITH_PICTURES])
