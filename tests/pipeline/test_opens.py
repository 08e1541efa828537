"""The shards open in others' readers as they are: Hugging Face datasets, open_clip's trainer, what img2dataset's users have.

webdataset itself is in test_shard.py, mlcroissant in test_card.py.
"""

import io
import json
import math
import os
import subprocess
import tarfile
from argparse import Namespace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import card, foreign, schema
from pipeline.manifest import Dataset
from tests.benchmarks.download import peer_python
from tests.model.peers import import_open_clip
from tests.pipeline.odd_files import encode, shapes
from tests.pipeline.test_shard import build, images


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of shards with their card."""
    root = tmp_path_factory.mktemp("root")
    build(str(root), images(160), 5)
    card.write(str(root))
    return root / "6_shards"


def rows_of(shards: Path) -> list[dict[str, Any]]:
    """The rows of all indexes, with the stored bytes."""
    names = (*schema.SHARDS.names, "image")
    return Dataset(str(shards)).read(names).to_pylist()


def tars(shards: Path) -> list[str]:
    return [str(path) for path in sorted(shards.glob("*.tar"))]


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")  # its own and its libraries'
@pytest.mark.parametrize("how", ["webdataset", "parquet"])
def test_hugging_face_datasets_gives_the_rows_of_the_index(
    shards: Path, how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    datasets = pytest.importorskip("datasets")
    files = tars(shards) if how == "webdataset" else sorted(map(str, shards.glob("*.parquet")))
    found = list(datasets.load_dataset(how, data_files=files, split="train", streaming=True, cache_dir=str(tmp_path)))
    rows = rows_of(shards)
    assert len(found) == len(rows) > 50
    for sample, row in zip(found, rows, strict=True):
        facts = {**sample["json"], "phash": int(sample["json"]["phash"], 16)} if how == "webdataset" else sample
        for name in schema.SHARDS.names:
            assert facts[name] == row[name], name
        if how == "webdataset":
            assert (sample["__key__"], sample["txt"]) == (row["key"], row["caption"])
            assert np.array_equal(np.asarray(sample["jpg"].convert("RGB")), pixels(row["image"]))


def open_clip_arguments(shards: Path, **fields: Any) -> Namespace:
    """What open_clip's trainer takes from its command line."""
    names = [path.removesuffix(".tar") for path in tars(shards)]
    pattern = f"{shards}/{{{Path(names[0]).name}..{Path(names[-1]).name}}}.tar"
    given = {
        "train_data": pattern, "val_data": pattern, "train_num_samples": None, "val_num_samples": None, "seed": 0, "workers": 0,
        "world_size": 1, "batch_size": 8, "train_data_upsampling_factors": None, "dataset_resampled": False,
        "dataset_type": "webdataset",
    }  # fmt: skip
    return Namespace(**{**given, **fields})


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_train", [False, True])
def test_open_clips_trainer_reads_every_pair(shards: Path, is_train: bool):
    import_open_clip()  # what torchvision lacks is defined
    data = pytest.importorskip("open_clip_train.data")
    if is_train and tuple(map(int, version("webdataset").split("."))) > (0, 2, 86):
        pytest.skip("its training half cannot read any tar with a webdataset above 0.2.86, as its metadata says")
    rows = rows_of(shards)
    texts = [row["caption"] for row in rows]
    place = {text: number for number, text in enumerate(texts)}
    assert len(place) == len(texts)

    def tokens(text: str) -> np.ndarray:
        return np.array([[place[text]]])

    def preprocess(image: Image.Image) -> np.ndarray:
        return np.asarray(image)

    info = data.get_wds_dataset(open_clip_arguments(shards), preprocess, is_train, epoch=0, tokenizer=tokens)
    seen = []
    for pictures, numbers in info.dataloader:
        for picture, number in zip(pictures, numbers, strict=True):
            seen.append(int(number[0]))
            assert np.array_equal(np.asarray(picture), pixels(rows[seen[-1]]["image"]))
    if is_train:  # it cuts an epoch into full batches; how many follows from sizes.json
        assert info.dataloader.num_samples == 8 * math.ceil(len(rows) / 8)
        assert len(set(seen)) >= len(rows) - 8
    else:
        assert sorted(seen) == list(range(len(rows)))


def test_what_takes_in_img2datasets_folders_takes_ours(shards: Path):
    rows = {row["key"]: row for row in rows_of(shards)}
    found = foreign.shards(str(shards))
    assert [row["tar"] for row in found] == tars(shards)
    for row in found:
        listed = foreign.read_list(row["parquet"])
        assert set(listed.column_names) == {*foreign.COLUMNS, *foreign.OPTIONAL}
        for given in listed.to_pylist():
            assert foreign.labelled(given, "00000.tar")["drop"] is None
            assert {name: rows[given["key"]][name] for name in given} == given


LAYOUT = {"key": "string", "status": "string", "width": "int32", "height": "int32", "original_width": "int32",
          "original_height": "int32", "sha256": "string", "url": "string", "caption": "string"}  # fmt: skip


@pytest.mark.peers
def test_a_shard_is_laid_out_as_img2dataset_lays_it_out(shards: Path, tmp_path: Path):
    """The same columns and types, members, facts and sums as of a shard that it made itself."""
    pictures = []
    for number in range(3):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(encode(shapes(seed=number), "JPEG"))
        pictures.append({"url": path.as_uri(), "caption": f"picture {number}"})
    pq.write_table(pa.Table.from_pylist(pictures), tmp_path / "list.parquet")
    program = tmp_path / "run.py"
    program.write_text(
        "import sys\nfrom img2dataset import download\nif __name__ == '__main__':\n"
        "    download(url_list=sys.argv[1], output_folder=sys.argv[2], input_format='parquet', url_col='url', "
        "caption_col='caption', output_format='webdataset', processes_count=1, thread_count=2, extract_exif=False)\n"
    )
    command = [
        peer_python(os.environ.get("IMG2DATASET_PYTHON", "")),
        str(program),
        str(tmp_path / "list.parquet"),
        str(tmp_path / "out"),
    ]
    made = subprocess.run(command, capture_output=True, text=True, check=False, env={"NO_ALBUMENTATIONS_UPDATE": "1"})
    theirs, ours = tmp_path / "out" / "00000", shards / "00000"
    assert theirs.with_suffix(".tar").exists(), made.stderr[-2000:]

    def types(stem: Path) -> dict[str, str]:
        return {field.name: str(field.type) for field in pq.read_schema(stem.with_suffix(".parquet"))}

    assert types(theirs).items() >= LAYOUT.items()
    assert types(ours).items() >= LAYOUT.items()
    assert set(types(theirs)) - set(types(ours)) == {"error_message"}, "a shard of ours has no failures"

    def members(stem: Path) -> tuple[list[tuple[int, str]], dict[str, Any]]:
        with tarfile.open(stem.with_suffix(".tar")) as tar:
            names = [member.name.split(".") for member in tar]
            member = tar.extractfile(f"{names[0][0]}.json")
            assert member is not None
            return sorted({(len(key), ending) for key, ending in names}), json.load(member)

    (their_names, their_facts), (our_names, our_facts) = members(theirs), members(ours)
    assert [ending for _, ending in their_names] == [ending for _, ending in our_names] == ["jpg", "json", "txt"]
    assert {name: type(value) for name, value in their_facts.items() if name in LAYOUT} == {
        name: type(our_facts[name]) for name in LAYOUT
    }
    stats, our_stats = (json.loads(Path(f"{stem}_stats.json").read_text()) for stem in (theirs, ours))
    assert our_stats.keys() == stats.keys()
    assert {name: type(value) for name, value in our_stats.items()} == {name: type(value) for name, value in stats.items()}
    index = pl.read_parquet(ours.with_suffix(".parquet"))
    assert (our_stats["count"], our_stats["successes"]) == (index.height, index.filter(pl.col("status") == "success").height)
