"""The card's numbers are the manifests', and Croissant's own reader accepts the description and reads the rows by it."""

import json
from pathlib import Path

import polars as pl
import pytest

from pipeline import card
from pipeline.errors import InputError
from pipeline.manifest import Dataset
from tests.pipeline.test_shard import build, images


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with shards and their card."""
    root = tmp_path_factory.mktemp("root")
    build(str(root), images(160), 5)
    card.write(str(root), "small")
    return root


def test_the_card_tells_the_funnel(root: Path):
    text = (root / "6_shards/README.md").read_text()
    manifest = Dataset(str(root / "6_shards")).manifest
    trimmed = Dataset(str(root / "5_unique/_trimmed")).manifest
    assert text.startswith(f"# small\n\n{manifest.rows_out:,} pairs")
    assert f"| 160 | {trimmed.rows_out} | over_limit {trimmed.drops['over_limit']} (" in text
    assert manifest.hash in text


def test_the_description_names_every_file_with_its_hash(root: Path):
    found = json.loads((root / "6_shards/croissant.json").read_text())
    files = {file.name: file.sha256 for part in Dataset(str(root / "6_shards")).manifest.parts for file in part.files}
    assert {item["@id"]: item["sha256"] for item in found["distribution"]} == files


def test_a_root_without_shards_has_no_card(tmp_path: Path):
    with pytest.raises(InputError, match="6_shards has no _MANIFEST"):
        card.write(str(tmp_path), "none")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")  # mlcroissant's own and its libraries'
def test_mlcroissant_validates_it_and_reads_the_rows(root: Path):
    mlc = pytest.importorskip("mlcroissant")
    dataset = mlc.Dataset(jsonld=str(root / "6_shards/croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    for index in sorted((root / "6_shards").glob("*.parquet")):
        rows = pl.read_parquet(index).to_dicts()
        found = list(dataset.records(index.stem))
        assert [row[f"{index.stem}/pair_id"].decode() for row in found] == [row["pair_id"] for row in rows]
        assert [row[f"{index.stem}/caption"].decode() for row in found] == [row["caption"] for row in rows]
        assert [row[f"{index.stem}/image_offset"] for row in found] == [row["image_offset"] for row in rows]
