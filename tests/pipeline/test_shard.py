"""Shards hold each pair once, are mixed, and open in the tools that people use."""

import io
import json
import math
import tarfile
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image
from webdataset.compat import WebDataset

from pipeline import balance, draws, hashing, hosts, schema, shard
from pipeline.config import BalanceConfig, DedupeConfig, ShardConfig
from pipeline.config import RunConfig as Settings
from pipeline.dedupe import STAGE as DEDUPE
from pipeline.events import Events
from pipeline.manifest import Dataset, Manifest, Part
from pipeline.runner import in_process, on_ray, run_steps, write_dataset
from pipeline.stage import Step
from pipeline.storage import join
from tests.pipeline import images_dataset
from tests.pipeline.pool import Pool, limits_of

CONFIG = ShardConfig(pairs_per_shard=25, parts_per_group=2, seed=3)
TRIMMING = draws.trimming(BalanceConfig(max_per_query=12, oversample=1.5))


def images(num_pairs: int, seed: int = 0) -> pa.Table:
    """IMAGES rows with real JPEGs, in the order of their hosts, as parts of a download are."""
    chance = np.random.default_rng(seed)
    rows = []
    for number in range(num_pairs):
        url, text = f"http://host-{number * 8 // num_pairs}.test/{number}.jpg", f"picture {number}: “größer”\nand more"
        encoded = cv2.imencode(".jpg", chance.integers(0, 256, (12, 16, 3), dtype=np.uint8))[1].tobytes()
        rows.append(
            {
                "pair_id": hashing.pair_id(url, text), "image_url": url, "text": text, "page_url": f"http://page.test/{number}",
                "attribute": "alt", "link_index": number, "archive": "a.warc.gz", "record_offset": number * 100,
                "query_ids": [0, 1 + number % 5] if number % 3 else [1 + number % 5], "key": hashing.pair_id(url, text),
                "width": 16, "height": 12, "original_width": 32, "original_height": 24, "original_bytes": 900,
                "media_type": "image/jpeg", "sha256": hashing.sha256(encoded), "phash": 2**64 - 1 - number, "colors": bytes(48),
                "image": encoded,
            }
        )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=pa.schema([*schema.IMAGES, schema.IMAGE]))


def dealt(table: pa.Table, config: ShardConfig = CONFIG) -> pa.Table:
    """The rows of one group, dealt."""
    outputs = [f"{number:05d}" for number in range(7, 7 + math.ceil(table.num_rows / config.pairs_per_shard))]
    return shard.shard(table.select(["pair_id", "query_ids"]), table, outputs, config)


def build(root: str, table: pa.Table, num_parts: int, *, ray: bool = False) -> Dataset:
    """The shards that the runner makes of the table in parts."""
    settings, events = Settings(num_workers=2), Events(root, "test")
    images_dataset.write(join(root, "4_images"), images_dataset.cut(table, num_parts))
    none = {"none": schema.EDGES.empty_table()}
    write_dataset(join(root, "edges"), stage="dedupe_edges", version=1, config=None, parts=none)
    steps = [
        Step(DEDUPE, DedupeConfig(), ["4_images"], "5_unique", {"edges": "edges"}),
        *balance.limit_steps(TRIMMING, "5_unique", "5_unique"),
        Step(shard.TRIM, TRIMMING, ["5_unique"], "5_unique/_trimmed", {"limits": "5_unique/_limits"}),
        Step(shard.STAGE, CONFIG, ["5_unique/_trimmed", "4_images"], "6_shards"),
    ]
    run_steps(steps, root, settings=settings, events=events, execute=on_ray if ray else in_process)
    return Dataset(join(root, "6_shards"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of shards of 160 pairs from 5 parts."""
    return Path(build(str(tmp_path_factory.mktemp("root")), images(160), 5).folder)


def kept_ids(table: pa.Table) -> list[str]:
    """The pairs that balancing's own function keeps."""
    limits = limits_of(Pool(table["pair_id"], table["query_ids"]), TRIMMING)
    return table.filter(pa.array(limits.keep(table["pair_id"], table["query_ids"])))["pair_id"].to_pylist()


def test_each_pair_that_stays_is_dealt_once_with_its_own_picture():
    table = images(150)
    rows = dealt(table).to_pylist()
    by_id = {row["pair_id"]: row for row in table.to_pylist()}
    assert sorted(row["pair_id"] for row in rows) == sorted(by_id)
    for row in rows:
        source = by_id[row["pair_id"]]
        assert (row["url"], row["caption"]) == (source["image_url"], source["text"])
        assert all(row[name] == source[name] for name in row.keys() & source.keys() - {"key"})


def test_every_shard_but_the_last_is_full_and_keys_count_from_zero():
    rows = dealt(images(135)).to_pylist()
    sizes = [sum(row["output"] == number for row in rows) for number in range(6)]
    assert sizes == [25, 25, 25, 25, 25, 10]
    for number, size in enumerate(sizes):
        assert [row["key"] for row in rows if row["output"] == number] == [f"{7 + number:05d}{at:02d}" for at in range(size)]


def test_every_shard_shows_every_host():
    rows = dealt(images(400), ShardConfig(pairs_per_shard=100)).to_pylist()
    for number in range(4):
        assert len({hosts.host(row["url"]) for row in rows if row["output"] == number}) == 8


def test_the_deal_does_not_depend_on_the_order_of_the_rows():
    table = images(120)
    mixed = table.take(pa.array(np.random.default_rng(0).permutation(120)))
    assert dealt(mixed).equals(dealt(table))
    assert dealt(table, ShardConfig(pairs_per_shard=25, seed=4))["pair_id"] != dealt(table)["pair_id"]


@pytest.mark.parametrize("pairs_per_shard", [1, 2, 10, 11, 1000, 10_000, 12_000])
def test_keys_are_img2datasets(pairs_per_shard: int):
    digits = math.ceil(math.log10(pairs_per_shard))
    for number in (0, 1, 99_999, 123_456):
        for index in {0, pairs_per_shard // 2, pairs_per_shard - 1}:
            want = f"{int(10**digits * number + index):0{digits + 5}d}"
            assert shard.key(number, index, pairs_per_shard) == want


def manifest(rows: dict[str, int]) -> Manifest:
    """A manifest of parts with so many rows."""
    parts = [Part(name=name, files=(), rows_in=n, rows_out=n, drops={}, made_from="") for name, n in rows.items()]
    return Manifest(stage="trim", fingerprint={}, parts=tuple(parts))


@pytest.mark.parametrize("seed", range(20))
def test_the_plan_takes_every_row_once_into_full_shards(seed: int):
    chance = np.random.default_rng(seed)
    rows = {f"bucket-{number:05d}": int(chance.integers(0, chance.choice([3, 40, 200]))) for number in range(23)}
    tasks = shard.plan(CONFIG, [manifest(rows), manifest(rows)])
    taken: dict[str, list[tuple[int, int]]] = {}
    for task in tasks:
        ranges = {str(item.part): item.rows or (0, rows[str(item.part)]) for item in task.inputs if item.source == 0}
        assert list(ranges) == [item.part for item in task.inputs if item.source == 1]
        assert all(item.rows is None for item in task.inputs if item.source == 1)
        total = sum(end - start for start, end in ranges.values())
        assert len(task.outputs) == math.ceil(total / 25)
        assert total % 25 == 0 or task is tasks[-1]
        for name, (start, end) in ranges.items():
            assert start < end
            taken.setdefault(name, []).append((start, end))
    for name, ranges in taken.items():
        assert [start for start, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
        assert ranges[-1][1] == rows[name]
    assert sorted(taken) == sorted(name for name, n in rows.items() if n)
    assert [name for task in tasks for name in task.outputs] == [f"{n:05d}" for n in range(math.ceil(sum(rows.values()) / 25))]
    assert list(taken) != sorted(taken)
    assert shard.plan(CONFIG, [manifest(dict(reversed(rows.items())))] * 2) == tasks


def test_a_pair_without_a_picture_is_refused():
    table = images(20)
    with pytest.raises(ValueError, match="expected one picture for each of 20 pairs, found 19"):
        shard.shard(table.select(["pair_id", "query_ids"]), table.slice(1), ["00000"], CONFIG)


def test_parquet_and_offsets_lead_to_the_stored_bytes(shards: Path):
    pictures = {row["pair_id"]: row["image"] for row in images(160).select(["pair_id", "image"]).to_pylist()}
    found = []
    for path in sorted(shards.glob("*.parquet")):
        tar = path.with_suffix(".tar").read_bytes()
        index = pl.read_parquet(path)
        assert index.columns[:9] == list(schema.SHARDS.names[:9])
        for row in index.select("pair_id", "image_offset", "image_bytes").to_dicts():
            found.append(row["pair_id"])
            assert tar[row["image_offset"] : row["image_offset"] + row["image_bytes"]] == pictures[row["pair_id"]]
    assert sorted(found) == sorted(kept_ids(images(160)))


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves it to the collector
def test_webdataset_and_open_clips_convention_read_the_shards(shards: Path):
    """open_clip decodes with PIL, takes the image under "jpg;png;jpeg;webp" and the text under "txt"."""
    urls = [str(path) for path in sorted(shards.glob("*.tar"))]
    stream = WebDataset(urls, shardshuffle=False).decode("pilrgb").rename(image="jpg;png;jpeg;webp", text="txt")
    source = {row["pair_id"]: row for row in images(160).to_pylist()}
    found = []
    for sample in stream:  # pyright: ignore[reportGeneralTypeIssues]
        row = source[sample["json"]["pair_id"]]
        found.append(row["pair_id"])
        assert sample["text"] == row["text"] == sample["json"]["caption"]
        assert sample["__key__"] == sample["json"]["key"]
        assert np.array_equal(np.asarray(sample["image"]), np.asarray(Image.open(io.BytesIO(row["image"]))))
    assert sorted(found) == sorted(kept_ids(images(160)))


def test_json_members_hold_every_column_of_the_index(shards: Path):
    path = sorted(shards.glob("*.tar"))[0]
    rows = {row["key"]: row for row in pl.read_parquet(path.with_suffix(".parquet")).to_dicts()}
    with tarfile.open(path) as tar:
        for key, row in rows.items():
            member = tar.extractfile(f"{key}.json")
            assert member is not None
            facts = json.load(member)
            assert facts == {name: row[name] for name in schema.SHARDS.names} | {"phash": f"{row['phash']:016x}"}
            assert facts["status"] == "success"


@pytest.mark.parametrize("num_parts", [1, 3, 8])
def test_the_runner_makes_the_same_shards_twice(num_parts: int, tmp_path: Path, ray_address: str):
    table = images(90)
    first = build(str(tmp_path / "1"), table, num_parts, ray=num_parts == 3)
    second = build(str(tmp_path / "2"), table, num_parts)
    assert first.manifest.hash == second.manifest.hash
    trimmed = Dataset(str(tmp_path / "1/5_unique/_trimmed")).manifest
    assert (trimmed.rows_in, trimmed.drops) == (90, {"over_limit": 90 - first.manifest.rows_out})
    sizes = [pl.read_parquet(path).height for path in sorted(Path(first.folder).glob("*.parquet"))]
    assert sizes == [25] * (sum(sizes) // 25) + [sum(sizes) % 25] * (sum(sizes) % 25 > 0)
    assert sorted(first.read(("pair_id",))["pair_id"].to_pylist()) == sorted(kept_ids(table))
    keys = first.read(("key",))["key"].to_pylist()
    assert len(set(keys)) == len(keys)
