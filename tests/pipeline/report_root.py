"""A small root for the tests of the report: pictures drawn here, hostile texts, every stage but crawl and download real."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from pipeline import balance, dedupe, draws, fingerprints, hashing, match, schema, shard
from pipeline.config import BalanceConfig, DedupeConfig, MatchConfig, RunConfig, ShardConfig
from pipeline.events import Events
from pipeline.manifest import Dataset, Manifest
from pipeline.parts import Job, write_part
from pipeline.runner import fingerprint, finish, in_process, run_steps, write_dataset
from pipeline.stage import Stage, Step, Task
from pipeline.storage import join

COLORS = ("red", "green", "blue", "orange", "purple", "black")
SHAPES = ("circle", "square", "line", "cross", "ring")
HOSTILE = '<script>alert("text")</script><img src=http://evil.test/x onerror=alert(1)> a red circle \x07\u202etxet'
HOSTILE_QUERY = '<red> "circle"'  # which matches as red circle does
HOSTILE_URL = 'http://evil.test/"onmouseover="alert(1)/<b>.png'
SETTINGS = RunConfig(num_workers=1, dropped_sample=50)


def commit(root: str, folder: str, stage: Stage, config: Any, parts: Mapping[str, pa.Table]) -> Manifest:
    """Write labelled tables as the runner would have."""
    target = join(root, folder)
    job = Job(stage=stage, config=config, sources=(), target=target, sides={}, dropped_sample=50)
    records = [
        write_part(job, Task(part=name, inputs=()), table, rows_in=table.num_rows, made_from="test", started=0.0)
        for name, table in parts.items()
    ]
    manifest = Manifest(stage=stage.name, fingerprint=fingerprint(stage.name, 1, config, []), parts=tuple(records))
    finish(target, manifest, None)
    return manifest


def plain(name: str, writes: pa.Schema, *, tar: bool = False) -> Stage:
    """A stage whose tables are given."""
    return Stage(
        name=name, version=1, shape="fanout", worker=lambda config, sides: lambda *tables: tables[0], writes=writes, tar=tar
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """An image link and its fate so far."""

    url: str
    text: str
    drop: str | None = None


def links() -> list[Link]:
    """Good links, bad ones, and hostile ones."""
    found = [
        Link(
            url=f"http://www{number % 7}.mini.test/{color}/{shape}-{number}.jpg",
            text=f"a {color} {shape} on a page, no. {number}",
        )
        for number in range(9)
        for color in COLORS
        for shape in SHAPES
    ]
    found += [Link(url=f"http://x.test/{number}.jpg", text="logo", drop="too_short") for number in range(9)]
    found += [Link(url="javascript:alert(1)", text=HOSTILE, drop="bad_url"), Link(url=HOSTILE_URL, text=HOSTILE)]
    found += [Link(url=f"http://y.test/{number}.jpg", text="nothing to see here") for number in range(12)]
    return found


def candidates(found: list[Link]) -> pa.Table:
    """The labelled rows of a crawl."""
    number = list(range(len(found)))
    return pa.table(
        {
            "pair_id": [hashing.pair_id(link.url, link.text) for link in found],
            "image_url": [link.url for link in found],
            "text": [link.text for link in found],
            "page_url": ["javascript:alert(2)" if "evil" in link.url else "http://www.mini.test/page.html" for link in found],
            "attribute": ["alt"] * len(found),
            "link_index": pa.array(number, pa.int32()),
            "archive": ["web.warc.gz"] * len(found),
            "record_offset": pa.array([0] * len(found), pa.int64()),
            "drop": pa.array([link.drop for link in found], pa.string()),
        }
    )


def draw(text: str) -> np.ndarray:
    """A picture of what the text names.  -> uint8 [64, 64, 3]"""
    words = text.split()
    color = next((word for word in words if word in COLORS), "gray")
    image = Image.new("RGB", (64, 64), "white" if len(text) % 2 else "#ffe8c0")
    pen = ImageDraw.Draw(image)
    if "circle" in words:
        pen.ellipse((8, 8, 56, 56), fill=color)
    elif "ring" in words:
        pen.ellipse((8, 8, 56, 56), outline=color, width=8)
    elif "square" in words:
        pen.rectangle((10, 10, 54, 54), fill=color)
    else:
        pen.line((6, 60, 58, 4), fill=color, width=7)
        if "cross" in words:
            pen.line((6, 4, 58, 60), fill=color, width=7)
    return np.asarray(image)


def jpeg(rgb: np.ndarray) -> bytes:
    """Encoded, as the download stores it."""
    sink = io.BytesIO()
    Image.fromarray(rgb).save(sink, "JPEG", quality=95)
    return sink.getvalue()


def with_images(pairs: pa.Table) -> pa.Table:
    """The labelled rows of a download: every tenth host forbids."""
    rows = []
    for number, text in enumerate(pairs["text"].to_pylist()):
        rgb = draw(text)
        sizes = {"width": 64, "height": 64, "original_width": 64, "original_height": 64, "original_bytes": 999}
        hashes = {"sha256": hashing.sha256(rgb.tobytes()), "phash": fingerprints.phash(rgb), "colors": fingerprints.colors(rgb)}
        rows.append({"key": f"{number:06}", **sizes, "media_type": "image/png", **hashes})
    table = pa.Table.from_pylist(rows, schema.IMAGE_FIELDS)
    for column in reversed(pairs.column_names):
        table = table.add_column(0, column, pairs[column])
    table = table.append_column(schema.IMAGE, pa.array([jpeg(draw(text)) for text in pairs["text"].to_pylist()], pa.binary()))
    drop = ["robots" if number % 10 == 9 else None for number in range(pairs.num_rows)]
    return table.append_column(schema.DROP, pa.array(drop, pa.string()))


def build(root: str) -> dict[str, Manifest]:
    """The whole root; the manifests by folder."""
    made = {}
    names = [*COLORS, *SHAPES, "a unicorn", HOSTILE_QUERY]
    queries = pa.table(
        {"query_id": range(len(names)), "query": names, "source": ["concept"] * len(names), "score": [None] * len(names)}
    )
    made["queries"] = write_dataset(
        join(root, "queries"), stage="queries", version=1, config=None, parts={"queries": queries.cast(schema.QUERIES)}
    )
    found = links()
    halves = {"web-0": candidates(found[::2]), "web-1": candidates(found[1::2])}
    made["1_candidates"] = commit(root, "1_candidates", plain("crawl", schema.CANDIDATES), None, halves)
    common: dict[str, Any] = {"settings": SETTINGS, "events": Events(root, "test"), "execute": in_process}
    config = BalanceConfig(max_per_query=12, oversample=1.25, num_query_buckets=3)
    sharding = ShardConfig(pairs_per_shard=20, parts_per_group=2)
    limits, trim_limits, duplicates = "3_balanced/_limits", "5_unique/_limits", DedupeConfig(num_buckets=2)
    balanced = [
        Step(match.STAGE, MatchConfig(num_buckets=3), ["1_candidates"], "2_matched", {"queries": "queries"}),
        *balance.limit_steps(config, "2_matched", "3_balanced"),
        Step(balance.STAGE, config, ["2_matched"], "3_balanced", {"limits": limits}),
        *balance.per_query_steps(config, "3_balanced", limits, "3_balanced", "balance"),
    ]
    sharded = [
        Step(dedupe.BANDS, duplicates, ["4_images"], "5_unique/_bands"),
        Step(dedupe.EDGES, duplicates, ["5_unique/_bands"], "5_unique/_edges"),
        Step(dedupe.STAGE, duplicates, ["4_images"], "5_unique", {"edges": "5_unique/_edges"}),
        *balance.limit_steps(draws.trimming(config), "5_unique", "5_unique", earlier=limits),
        Step(shard.TRIM, draws.trimming(config), ["5_unique"], "5_unique/_trimmed", {"limits": trim_limits}),
        Step(shard.STAGE, sharding, ["5_unique/_trimmed", "4_images"], "6_shards"),
        *balance.per_query_steps(draws.trimming(config), "6_shards", trim_limits, "6_shards", "shard"),
    ]
    made |= run_steps(balanced, root, **common)
    pairs = Dataset(join(root, "3_balanced"))
    fetched = {name: with_images(pairs.read_part(name)) for name in pairs.parts}
    made["4_images"] = commit(root, "4_images", plain("download", schema.IMAGES, tar=True), None, fetched)
    return made | run_steps(sharded, root, **common)
