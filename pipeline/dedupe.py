"""Dedupe: of all pairs that show the same picture, or nearly, keep the one with the most specific text.

in      images
out     unique: pair_id and row of the pairs that stay; the images parts are not written again
drops   removed: a tombstone names the pair, its hosts or its picture
        evaluation_overlap: near a picture of an evaluation set (overlap)
        placeholder: the same bytes under more than max_urls_per_image URLs, such as a "no image" picture
        duplicate, near_duplicate: another pair of the group stays; it has the very same bytes, or not
law     pictures are near iff their hashes and colors are (neighbors); groups are the connected components of "near" among
        pairs that none of these three took. Of a group the biggest text_rank stays, then the smallest pair_id
law     independent of the order and cut of the rows; what stays has no duplicates; equal sha256 means equal hash and colors
shape   BANDS: count, the slim columns of each picture once for each band of its hash, cut into buckets by the band's bits.
        EDGES: count, for each bucket the groups inside it. STAGE: map; the buckets' groups are joined when it starts
cost    BANDS and EDGES about 100 bytes a picture and band. STAGE holds the pairs that are on edges, about 200 bytes each
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline import hashing, neighbors, schema
from pipeline.config import DedupeConfig
from pipeline.manifest import Dataset
from pipeline.neighbors import Points
from pipeline.stage import Stage, Step
from pipeline.tombstones import NAMED_BY, REMOVED, Tombstones

EVALUATION_OVERLAP = "evaluation_overlap"
PLACEHOLDER, DUPLICATE, NEAR_DUPLICATE = "placeholder", "duplicate", "near_duplicate"

MAX_TEXT_RANK = 32  # a text of more words is no more specific: it is a list of keywords
NO_TOMBSTONES = Tombstones.load(None)
NUM_COLORS = schema.BANDS.field("colors").type.byte_width
WORD = re.compile(r"\w+")
SLIM = ("phash", "colors", "pair_id", "sha256", "image_url", "page_url", "text")
PICTURE = ("band", "phash", "colors")  # what rows of one picture have in common, in one band


def text_rank(text: str) -> int:
    """How specific a text is: its distinct words, at most MAX_TEXT_RANK."""
    return min(MAX_TEXT_RANK, len(set(WORD.findall(text.casefold()))))


def bands(images: pa.Table, config: DedupeConfig) -> pa.Table:
    """BANDS of a table with the columns SLIM: one row for each picture and band."""
    masks = neighbors.bands(config.max_distance + 1)
    phash = images["phash"].to_numpy()
    row = {
        **{name: images[name].combine_chunks() for name in ("phash", "colors", "pair_id", "sha256")},
        "url_hash": pa.array([hashing.string_hash(url) for url in images["image_url"].to_pylist()], pa.uint64()),
        "text_rank": pa.array([text_rank(text) for text in images["text"].to_pylist()], pa.int32()),
    }
    tables = [
        pa.table({"band": np.full(len(phash), band, np.uint8), "bits": phash & mask, **row}, schema=schema.BANDS)
        for band, mask in enumerate(masks)
    ]
    return pa.concat_tables(tables)


def band_bucket(table: pa.Table, num_buckets: int) -> np.ndarray:
    """The bucket of each row of BANDS: hashes that agree on a band meet in one.  [n] int64"""
    band = hashing.mix(table["band"].to_numpy().astype(np.uint64))
    return (hashing.mix(table["bits"].to_numpy() ^ band) % np.uint64(num_buckets)).astype(np.int64)


def edges(rows: pa.Table, config: DedupeConfig) -> pa.Table:
    """EDGES of one bucket of BANDS: its placeholders, its equal pictures (in band 0 only) and its near ones."""
    slim = pl.DataFrame(rows)
    of_picture = slim.group_by("band", "sha256").agg(urls=pl.col("url_hash").n_unique(), pair_id=pl.col("pair_id").min())
    placeholders = of_picture.filter(pl.col("urls") > config.max_urls_per_image)
    live = slim.join(placeholders, on=["band", "sha256"], how="anti")
    live = live.sort(*PICTURE, "text_rank", "pair_id", descending=[False, False, False, True, False])
    live = live.with_columns(best_id=pl.col("pair_id").first().over(PICTURE), copies=pl.len().over(PICTURE))
    best = live.filter(pl.col("pair_id") == pl.col("best_id"))
    root = _groups(best, config)
    near = best.with_columns(other_id=best["pair_id"].gather(root)).filter(_is_shared(root))
    equal = live.filter((pl.col("band") == 0) & (pl.col("copies") > 1)).with_columns(other_id=pl.col("best_id"))
    none = placeholders.filter(pl.col("band") == 0).with_columns(other_id=pl.lit(None, pl.String), text_rank=pl.lit(0, pl.Int32))
    found = pl.concat([table.select(schema.EDGES.names) for table in (near, equal, none)])
    return found.unique().sort(schema.EDGES.names).to_arrow().cast(schema.EDGES)


def _groups(best: pl.DataFrame, config: DedupeConfig) -> np.ndarray:
    """The smallest row of the group of each row, inside its band.  [n] int64"""
    colors = np.frombuffer(b"".join(best["colors"].to_list()), np.uint8).reshape(len(best), NUM_COLORS)
    points = Points(best["phash"].to_numpy(), colors, config.max_distance, config.max_color_distance)
    parent, band = neighbors.new_forest(len(best)), best["band"].to_numpy()
    for number, mask in enumerate(neighbors.bands(config.max_distance + 1)):
        rows = np.flatnonzero(band == number)
        points.link(parent, rows, neighbors.ALL)
        points.link(parent, rows, mask)
    return neighbors.roots(parent, np.arange(len(best)))


def _is_shared(root: np.ndarray) -> np.ndarray:
    return np.bincount(root, minlength=len(root))[root] > 1


@dataclass(frozen=True)
class Groups:
    """The groups of a whole dataset.

    members       a row for each pair of a group of two and more: pair_id, survivor_id, survivor_sha256, group_pairs
    placeholders  sha256 of the pictures that are none
    """

    members: pl.DataFrame
    placeholders: pl.Series

    @classmethod
    def of(cls, found: pa.Table) -> "Groups":
        """From EDGES, in any order and number."""
        every = pl.DataFrame(found)
        links = every.filter(pl.col("other_id").is_not_null())
        pairs = links.select("pair_id", "sha256", "text_rank").unique().sort("pair_id").with_row_index("node")
        node = pairs.select(other_id="pair_id", other="node")
        ends = links.select("pair_id", "other_id").join(pairs, on="pair_id").join(node, on="other_id")
        parent = neighbors.new_forest(len(pairs))
        neighbors.join(parent, ends["node"].to_numpy().astype(np.int64), ends["other"].to_numpy().astype(np.int64))
        root = neighbors.roots(parent, np.arange(len(pairs)))
        ranked = pairs.with_columns(root=root).sort("root", "text_rank", "pair_id", descending=[False, True, False])
        members = ranked.select(
            "pair_id",
            survivor_id=pl.col("pair_id").first().over("root"),
            survivor_sha256=pl.col("sha256").first().over("root"),
            group_pairs=pl.len().over("root").cast(pl.Int32),
        )
        return cls(members, every.filter(pl.col("other_id").is_null())["sha256"].unique())


@dataclass(frozen=True)
class Apart:
    """The pairs that leave before groups are made: those that are removed, and those near an evaluation set's picture."""

    tombstones: Tombstones = NO_TOMBSTONES
    overlap: frozenset[str] = frozenset()

    @classmethod
    def load(cls, sides: Mapping[str, Dataset]) -> "Apart":
        """From the sides that the build has."""
        ids = sides["overlap"].read(("pair_id",))["pair_id"].to_pylist() if "overlap" in sides else []
        return cls(Tombstones.load(sides.get("removed")), frozenset(ids))

    def reasons(self, images: pa.Table) -> list[str | None]:
        """Why each pair leaves; None where it does not."""
        removed = self.tombstones.named(images) != ""
        ids = images["pair_id"].to_pylist()
        return [
            REMOVED if gone else EVALUATION_OVERLAP if pair in self.overlap else None
            for gone, pair in zip(removed.tolist(), ids, strict=True)
        ]


NOBODY = Apart()


def dedupe(images: pa.Table, groups: Groups, apart: Apart = NOBODY) -> pa.Table:
    """UNIQUE rows of an images part, labelled; `survivor_id` names the pair that stays in the place of a dropped one."""
    rows = pl.DataFrame(images.select(["pair_id", "query_ids", "sha256"])).with_row_index("row")
    rows = rows.join(groups.members, on="pair_id", how="left", maintain_order="left")
    rows = rows.with_columns(apart=pl.Series(apart.reasons(images), dtype=pl.String))
    is_placeholder = pl.col("sha256").is_in(groups.placeholders.implode())
    label = (
        pl.when(pl.col("apart").is_not_null())
        .then(pl.col("apart"))
        .when(is_placeholder)
        .then(pl.lit(PLACEHOLDER))
        .when(pl.col("survivor_id").is_null() | (pl.col("survivor_id") == pl.col("pair_id")))
        .then(None)
        .when(pl.col("survivor_sha256") == pl.col("sha256"))
        .then(pl.lit(DUPLICATE))
        .otherwise(pl.lit(NEAR_DUPLICATE))
    )
    labelled = rows.with_columns(label.cast(pl.String).alias(schema.DROP.name), pl.col("group_pairs").fill_null(1))
    columns = [*schema.UNIQUE, pa.field("survivor_id", pa.string()), schema.DROP]
    return labelled.select([field.name for field in columns]).to_arrow().cast(pa.schema(columns))


class BandsWorker:
    """An images part -> its BANDS."""

    def __init__(self, config: DedupeConfig, sides: Mapping[str, Dataset]):
        self.config = config
        self.apart = Apart.load(sides)

    def __call__(self, images: pa.Table) -> pa.Table:
        return bands(images.filter(pa.array(self.apart.reasons(images), pa.string()).is_null()), self.config)


class EdgesWorker:
    """A bucket of BANDS -> its EDGES."""

    def __init__(self, config: DedupeConfig, sides: Mapping[str, Dataset]):
        self.config = config

    def __call__(self, rows: pa.Table) -> pa.Table:
        return edges(rows, self.config)


class Worker:
    """Holds the groups of the whole dataset; labels images parts."""

    def __init__(self, config: DedupeConfig, sides: Mapping[str, Dataset]):
        self.groups = Groups.of(sides["edges"].read())
        self.apart = Apart.load(sides)

    def __call__(self, images: pa.Table) -> pa.Table:
        return dedupe(images, self.groups, self.apart)


BANDS = Stage(
    name="dedupe_bands",
    version=2,
    shape="count",
    worker=BandsWorker,
    writes=schema.BANDS,
    columns=(SLIM,),
    bucket=band_bucket,
    buckets=lambda config: config.num_buckets,
)
EDGES = Stage(name="dedupe_edges", version=1, shape="count", worker=EdgesWorker, writes=schema.EDGES)
STAGE = Stage(name="dedupe", version=2, shape="map", worker=Worker, writes=schema.UNIQUE, columns=(("query_ids", *NAMED_BY),))


def steps(config: DedupeConfig, apart: Mapping[str, str]) -> list[Step]:
    """The passes from 4_images to 5_unique. `apart`: folders of what leaves whatever its copies are, by name."""
    return [
        Step(BANDS, config, ["4_images"], "5_unique/_bands", apart),
        Step(EDGES, config, ["5_unique/_bands"], "5_unique/_edges"),
        Step(STAGE, config, ["4_images"], "5_unique", {"edges": "5_unique/_edges", **apart}),
    ]
