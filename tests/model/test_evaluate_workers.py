"""Embeddings by any number of workers, by ones that die, and by runs that were cut off: the same rows, none lost, none twice."""

import io
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs._embed import Worker, over_actors
from model import files
from model.evaluate import embeddings, results, workspace
from model.evaluate.config import EvaluateConfig
from model.evaluate.datasets import BadSet
from model.evaluate.workspace import Make, Workspace
from tests.model.evaluation_set import COLORS, write_set, write_tar
from tests.model.test_evaluate_job import save_small_model

NUM_PICTURES, NUM_TARS = 50, 7


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and a set of seven tars, one of which has a picture that can not be read."""
    folder = tmp_path_factory.mktemp("given")
    save_small_model(folder / "model")
    write_set(folder / "colors", classes=list(COLORS), num_pictures=NUM_PICTURES, shards=NUM_TARS)
    write_tar(folder / "colors/test/3.tar", [("bad.cls", b"0"), ("bad.png", b"none")])
    return folder


def made(given: Path, root: Path, make: Make, num_workers: int = 0) -> tuple[str, dict[str, Any], list[bytes]]:
    """The folder, its manifest without hashes, and its parts."""
    config = EvaluateConfig(root=str(root), model=str(given / "model"), num_workers=num_workers, batch_size=4)
    space = Workspace(config, results.model_hash(config), make)
    eval_set = space.another(str(given / "colors"))
    space.embedded(eval_set, "test")
    kept = embeddings.folder(str(root / "evaluation"), space.model, eval_set, "test")
    manifest = json.loads((Path(kept) / embeddings.MANIFEST).read_text())
    for part in manifest["parts"]:
        assert part.pop("sha256") == files.sha256(Path(embeddings.part_path(kept, part["number"])).read_bytes())
    return kept, manifest, [Path(embeddings.part_path(kept, number)).read_bytes() for number in range(NUM_TARS)]


def check_equal(found: list[bytes], parts: list[bytes]) -> None:
    """The same rows in the same order; vectors but for the rounding of another number of threads."""
    for one, other in zip(found, parts, strict=True):
        first, second = (pq.read_table(io.BytesIO(data)) for data in (one, other))
        for name in ("image_features", "before_projection"):
            ours, theirs = (np.asarray(table[name].drop_null().to_pylist()) for table in (first, second))
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
        vectors = ["image_features", "before_projection"]
        assert first.drop_columns(vectors).equals(second.drop_columns(vectors))


class Mortal(Worker):
    """Dies in the middle of the third unit, once."""

    def __call__(self, rows: pa.Table) -> pa.Table:
        mark = Path(self.config.root) / "died"
        if rows["number"].to_pylist() == [2] and not mark.exists():
            mark.write_text("")
            os._exit(1)
        return super().__call__(rows)


@pytest.mark.slow
def test_any_number_of_workers_makes_the_same_rows(given: Path, tmp_path: Path, ray_address: str) -> None:
    _, manifest, parts = made(given, tmp_path / "here", workspace.here)
    assert manifest["rows"] == sum(part["rows"] for part in manifest["parts"]) == NUM_PICTURES - 7 + 1
    assert manifest["unreadable"] == 1
    for workers in (1, 2, 3):
        _, other, found = made(given, tmp_path / str(workers), over_actors, workers)
        assert other == manifest
        check_equal(found, parts)
    _, other, found = made(given, tmp_path / "mortal", partial(over_actors, worker=Mortal), 2)
    assert other == manifest
    check_equal(found, parts)
    assert (tmp_path / "mortal/died").exists()


def test_a_run_that_was_cut_off_goes_on(given: Path, tmp_path: Path) -> None:
    kept, manifest, parts = made(given, tmp_path, workspace.here)
    folder = Path(kept)
    (folder / embeddings.MANIFEST).unlink()
    (folder / "part-00001.parquet").unlink()
    (folder / "part-00004.parquet").write_bytes(parts[4][:-3])  # torn, which an atomic write never leaves
    numbers: list[int] = []

    def here(space: Workspace, *given: Any) -> list[dict[str, Any]]:
        numbers.extend(number for number, _ in given[-1])
        return workspace.here(space, *given)

    assert made(given, tmp_path, here)[1:] == (manifest, parts)
    assert numbers == [1, 4]
    assert made(given, tmp_path, here)[1:] == (manifest, parts)
    assert numbers == [1, 4]
    (folder / "part-00002.parquet").write_bytes(parts[3])
    made(given, tmp_path, here)
    assert numbers[2:]


def test_a_broken_set_is_told_by_its_name_through_workers(given: Path, tmp_path: Path, ray_address: str) -> None:
    write_set(tmp_path / "colors", classes=list(COLORS), shards=3)
    write_tar(tmp_path / "colors/test/1.tar", [("0.cls", b"77"), ("0.png", b"")])
    config = EvaluateConfig(root=str(tmp_path), model=str(given / "model"), num_workers=2)
    space = Workspace(config, "m" * 64, over_actors)
    with pytest.raises(BadSet, match=r"1\.tar: 0\.cls: expected a label from 0 to 5, found b'77'"):
        space.embedded(space.another(str(tmp_path / "colors")), "test")
