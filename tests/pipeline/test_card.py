"""The card's numbers are the manifests', and Croissant's own reader accepts the description and reads the rows by it."""

import io
import json
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from jobs import remove, verify
from pipeline import card, hashing, integrity, storage
from pipeline.errors import InputError
from pipeline.manifest import Dataset
from pipeline.runner import in_process
from tests.jobs import test_remove
from tests.pipeline.test_shard import build, images


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with shards and their card."""
    root = tmp_path_factory.mktemp("root")
    build(str(root), images(160), 5)
    card.write(str(root))
    return root


def test_the_card_tells_the_funnel(small: Path):
    text = (small / "6_shards/README.md").read_text()
    manifest = Dataset(str(small / "6_shards")).manifest
    trimmed = Dataset(str(small / "5_unique/_trimmed")).manifest
    assert text.startswith(f"# {small.name}\n\n{manifest.rows_out:,} pairs")
    assert f"| 160 | {trimmed.rows_out} | over_limit {trimmed.drops['over_limit']} (" in text
    assert manifest.hash in text


def test_the_description_names_every_file_with_its_hash(small: Path):
    found = json.loads((small / "6_shards/croissant.json").read_text())
    files = {file.name: file.sha256 for part in Dataset(str(small / "6_shards")).manifest.parts for file in part.files}
    objects = [item for item in found["distribution"] if item["@type"] == "cr:FileObject"]
    assert {item["@id"]: item["sha256"] for item in objects} == files
    assert len(found["recordSet"]) == 1


def assert_is_true(root: str):
    """Card, description and sizes tell of the shards that are there."""
    folder = storage.join(root, "6_shards")
    manifest = Dataset(folder).manifest

    def read(name: str) -> bytes:
        return storage.read(storage.join(folder, name))

    names = [file.name for part in manifest.parts for file in part.files if not file.name.startswith("_")]
    rows = {name[:-8]: pq.read_metadata(io.BytesIO(read(name))).num_rows for name in names if name.endswith(".parquet")}
    assert f"{manifest.rows_out:,} pairs of an image and a text, in {len(rows):,} WebDataset shards" in read("README.md").decode()
    assert manifest.hash in read("README.md").decode()
    found = json.loads(read("croissant.json"))
    objects = {item["@id"]: item["sha256"] for item in found["distribution"] if item["@type"] == "cr:FileObject"}
    assert objects == {name: hashing.sha256(read(name)) for name in names}
    assert json.loads(read("sizes.json")) == {f"{name}.tar": size for name, size in rows.items()}
    stats = {name: json.loads(read(f"{name}_stats.json")) for name in rows}
    assert {name: (told["count"], told["successes"]) for name, told in stats.items()} == {n: (k, k) for n, k in rows.items()}
    assert {name for name in storage.names(folder) if name.endswith("_stats.json")} == {f"{name}_stats.json" for name in rows}


def test_it_is_true_wherever_the_root_is(root: str):
    before = build(root, images(90), 3).manifest.hash
    card.write(root)
    assert_is_true(root)
    assert Dataset(storage.join(root, "6_shards")).manifest.hash == before
    assert integrity.check(storage.join(root, "6_shards")) == [], "the card is no stranger"


def test_it_stays_true_when_pairs_are_removed_and_when_shards_are_mended(tmp_path: Path):
    root = test_remove.new_root(str(tmp_path / "root"))
    test_remove.build(root)
    card.write(root)
    whole = {name: Path(root, "6_shards", name).read_bytes() for name in ("README.md", "croissant.json")}
    Path(root, "6_shards", "00001.tar").write_bytes(b"torn")
    Path(root, "6_shards", "croissant.json").unlink()
    verify.main(verify.VerifyConfig(root=root, repair=True), in_process)
    assert_is_true(root)
    assert {name: Path(root, "6_shards", name).read_bytes() for name in whole} == whole
    remove.main(remove.RemoveConfig(root=root, domains=("host-1.test", "host-6.test")))
    assert_is_true(root)
    assert "removed" in Dataset(f"{root}/6_shards").manifest.drops
    verify.main(verify.VerifyConfig(root=root), in_process)
    test_remove.build(root)
    card.write(root)
    assert_is_true(root)


def test_a_root_without_shards_has_no_card(tmp_path: Path):
    with pytest.raises(InputError, match="6_shards has no _MANIFEST"):
        card.write(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")  # mlcroissant's own and its libraries'
def test_mlcroissant_validates_it_and_reads_the_rows(small: Path):
    mlc = pytest.importorskip("mlcroissant")
    dataset = mlc.Dataset(jsonld=str(small / "6_shards/croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    rows = pl.read_parquet(sorted((small / "6_shards").glob("*.parquet")))
    found = list(dataset.records("pairs"))
    assert len(found) == rows.height > 50
    for name in ("pair_id", "caption", "url"):
        assert [row[f"pairs/{name}"].decode() for row in found] == rows[name].to_list()
    for name in ("image_offset", "image_bytes", "phash", "width"):
        assert [row[f"pairs/{name}"] for row in found] == rows[name].to_list()
    assert [list(row["pairs/query_ids"]) for row in found] == rows["query_ids"].to_list()
