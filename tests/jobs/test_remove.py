"""What was removed is gone from shards and images, nothing else is touched, and no later build brings it back."""

import io
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import remove
from pipeline import balance, dedupe, integrity, schema, shard, tombstones
from pipeline.config import DedupeConfig
from pipeline.config import RunConfig as Settings
from pipeline.errors import InputError
from pipeline.events import Events
from pipeline.manifest import NAME, Dataset
from pipeline.runner import in_process, run_steps, write_dataset
from pipeline.stage import Step
from pipeline.storage import join
from pipeline.tombstones import Tombstones
from tests.pipeline import images_dataset
from tests.pipeline.test_shard import CONFIG, TRIMMING, images

SHARDS = "*[0-9].*"
TABLE = images(160).set_column(
    schema.IMAGES.get_field_index("phash"),
    "phash",
    pa.array([number << 32 | 7 << number % 30 for number in range(160)], pa.uint64()),
)


def build(root: str, others: tuple[str, ...] = ()) -> Dataset:
    """As jobs/build_wit.py goes on from 4_images."""
    duplicates, removed = DedupeConfig(max_distance=0, num_buckets=2), {"removed": "0_removed"}
    stones = {"tombstones": tombstones.read_all(root, others)}
    write_dataset(join(root, "0_removed"), stage="removed", version=1, config=None, parts=stones)
    steps = [
        Step(dedupe.BANDS, duplicates, ["4_images"], "5_unique/_bands", removed),
        Step(dedupe.EDGES, duplicates, ["5_unique/_bands"], "5_unique/_edges"),
        Step(dedupe.STAGE, duplicates, ["4_images"], "5_unique", {"edges": "5_unique/_edges", **removed}),
        *balance.limit_steps(TRIMMING, "5_unique", "5_unique"),
        Step(shard.TRIM, TRIMMING, ["5_unique"], "5_unique/_trimmed", {"limits": "5_unique/_limits"}),
        Step(shard.STAGE, CONFIG, ["5_unique/_trimmed", "4_images"], "6_shards"),
    ]
    run_steps(steps, root, settings=Settings(verify="hash"), events=Events(root, "test"), execute=in_process)
    return Dataset(join(root, "6_shards"))


def new_root(root: str) -> str:
    """A root as the download leaves it."""
    images_dataset.write(join(root, "4_images"), images_dataset.cut(TABLE, 5))
    return root


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with its shards."""
    root = tmp_path_factory.mktemp("built")
    build(new_root(str(root)))
    return root


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    """A copy to remove from."""
    return Path(shutil.copytree(built, tmp_path / "root"))


def rows_of(root: Path, folder: str) -> dict[str, dict]:
    """pair_id -> row."""
    return {row["pair_id"]: row for row in Dataset(str(root / folder)).read().to_pylist()}


@pytest.mark.parametrize("kind", ["urls", "domains", "pair_ids", "image_hashes", "lists"])
def test_what_is_named_leaves_and_stays_away(root: Path, tmp_path: Path, kind: str):
    before = rows_of(root, "6_shards")
    chosen = list(before.values())[5]
    values = {
        "urls": chosen["url"], "domains": "host-3.test", "pair_ids": chosen["pair_id"], "image_hashes": chosen["sha256"],
        "lists": str(tmp_path / "list"),
    }  # fmt: skip
    (tmp_path / "list").write_text(f"url {chosen['url']}\n\ndomain host-3.TEST\n")
    out = {pair for pair, row in before.items() if kind in ("domains", "lists") and "//host-3.test/" in row["url"]}
    out |= {chosen["pair_id"]} if kind != "domains" else set()
    files = {path.name: path.read_bytes() for path in (root / "6_shards").glob(SHARDS)}
    touched = {name.split(".")[0] for name, data in files.items() if name.endswith("parquet") for row in ids(data) if row in out}
    remove.main(remove.RemoveConfig(root=str(root), **{kind: (values[kind],)}))
    assert rows_of(root, "6_shards").keys() == before.keys() - out
    assert not out & rows_of(root, "4_images").keys()
    assert integrity.check(str(root / "6_shards")) == integrity.check(str(root / "4_images")) == []
    changed = {path.name.split(".")[0] for path in (root / "6_shards").glob(SHARDS) if path.read_bytes() != files[path.name]}
    assert changed == touched
    diffs = [row for path in (root / "removed").glob("diff-*") for row in pq.read_table(path).to_pylist()]
    left = [row for row in diffs if row["folder"] == "6_shards"]
    assert {row["pair_id"] for row in left} == out
    assert {row["shard"] for row in left} == touched
    again = build(str(root))
    assert not out & set(again.read(("pair_id",))["pair_id"].to_pylist())
    assert all(part.rows_out % 25 == 0 for part in again.manifest.parts[:-1])
    fresh = new_root(str(tmp_path / "fresh"))
    build(fresh, (str(root / "removed" / "tombstones.parquet"),))
    unique = Dataset(join(fresh, "5_unique")).manifest
    assert unique.drops["removed"] >= len(out)
    assert not out & rows_of(Path(fresh), "6_shards").keys()


def ids(data: bytes) -> list[str]:
    """The pair_ids of a Parquet file."""
    return pq.read_table(io.BytesIO(data), columns=["pair_id"])["pair_id"].to_pylist()


@pytest.mark.parametrize("unwritten", [("00001.tar", "00001.parquet", "00000.parquet"), ("00000.tar",), ()])
def test_a_removal_that_was_cut_off_is_finished_by_the_same_command(root: Path, unwritten: tuple[str, ...]):
    config = remove.RemoveConfig(root=str(root), domains=("host-1.test",))
    old = {path: path.read_bytes() for path in (root / "6_shards").glob("*") if path.is_file()}
    remove.main(config)
    want = Dataset(str(root / "6_shards")).manifest.hash
    for name in (NAME, *unwritten):  # as if it had ended before these were written
        (root / "6_shards" / name).write_bytes(old[root / "6_shards" / name])
    remove.main(config)
    assert integrity.check(str(root / "6_shards")) == []
    assert Dataset(str(root / "6_shards")).manifest.hash == want


def test_a_second_removal_of_the_same_writes_nothing(root: Path):
    config = remove.RemoveConfig(root=str(root), domains=("host-1.test",))
    remove.main(config)
    files = [path for path in root.rglob("0*") if path.is_file()]
    for path in files:
        os.utime(path, (1, 1))
    remove.main(config)
    assert {path.stat().st_mtime for path in files} == {1}


@pytest.mark.parametrize(
    ("url", "domain", "named"),
    [
        ("http://a.example.org/x.jpg", "example.org", True),
        ("http://example.org:8080/x.jpg", "example.org", True),
        ("http://user@EXAMPLE.org./x.jpg", "example.org", True),
        ("http://notexample.org/x.jpg", "example.org", False),
        ("http://example.org.evil.test/x.jpg", "example.org", False),
        ("http://[::1]/example.org", "example.org", False),
        ("HTTP://Example.org?x=1", "example.org", True),
        ("http://xn--mnchen-3ya.de/x.jpg", "m\u00fcnchen.de", True),
    ],
)
def test_a_domain_stands_for_the_hosts_below_it(url: str, domain: str, named: bool):
    stones = Tombstones.of(tombstones.table(tombstones.rows("domain", [domain])))
    for column in ("image_url", "page_url"):
        row = {"image_url": "http://other.test/", "page_url": "/local/file.html", "pair_id": "0" * 32, "sha256": "0" * 64}
        assert stones.named(pa.Table.from_pylist([{**row, column: url}])).tolist() == ["domain" if named else ""]


def test_a_url_is_named_as_the_dataset_has_it():
    assert tombstones.rows("url", ["https://A.example/1.jpg#x"]) == [("url", "https://a.example/1.jpg")]


def test_a_list_that_is_not_there_is_named(root: Path):
    with pytest.raises(InputError, match=r"--lists: .*typo\.txt: expected a file of lines"):
        remove.main(remove.RemoveConfig(root=str(root), lists=(str(root / "typo.txt"),)))


@pytest.mark.parametrize(
    "wrong", [{"urls": ("a.jpg",)}, {"domains": ("http://a.test",)}, {"domains": ("com",)}, {"pair_ids": ("12",)}, {}]
)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(root: Path, wrong: dict):
    with pytest.raises(InputError, match="remove: "):
        remove.main(remove.RemoveConfig(root=str(root), **wrong))
    assert not (root / "removed").exists()
