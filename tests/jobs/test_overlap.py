"""Evaluation pictures that a dataset holds near copies of are found by the keys that evaluation knows them by."""

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from jobs import overlap as job
from model.evaluate import layouts
from pipeline.errors import InputError
from pipeline.manifest import Dataset
from pipeline.runner import in_process, write_dataset
from pipeline.storage import join
from tests.pipeline import images_dataset
from tests.pipeline.test_overlap import encoded, pairs, picture


def write_tars(folder: Path, pictures: list[np.ndarray]) -> None:
    """A set in CLIP_benchmark's layout, two tars."""
    (folder / "test").mkdir(parents=True)
    (folder / "classnames.txt").write_text("a\nb\n")
    (folder / "zeroshot_classification_templates.txt").write_text("a photo of a {c}\n")
    (folder / "test/nshards.txt").write_text("2")
    for shard in (0, 1):
        with tarfile.open(folder / f"test/{shard}.tar", "w") as tar:
            for number in range(shard, len(pictures), 2):
                for name, data in ((f"s{number:03}.cls", b"%d" % (number % 2)), (f"s{number:03}.jpg", encoded(pictures[number]))):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def write_folders(folder: Path, pictures: list[np.ndarray]) -> None:
    """The same as a folder a class."""
    for number, rgb in enumerate(pictures):
        target = folder / "test" / "ab"[number % 2]
        target.mkdir(parents=True, exist_ok=True)
        (target / f"s{number:03}.png").write_bytes(encoded(rgb, ".png"))


def dataset(root: str, pictures: list[np.ndarray], lost: int) -> None:
    """Images of these pictures in three parts; the pair of picture `lost` did not come through."""
    table = pairs(pictures)
    images_dataset.write(join(root, "4_images"), images_dataset.cut(table, 3))
    images = Dataset(join(root, "4_images"))
    gone = table["pair_id"][lost].as_py()
    kept = {}
    for part in images.manifest.parts:
        rows = images.read_part(part.name, ("pair_id", "query_ids"))
        kept[part.name] = rows.filter([pair_id != gone for pair_id in rows["pair_id"].to_pylist()])
    write_dataset(join(root, "5_unique/_trimmed"), stage="trim", version=1, config=None, parts=kept)


@pytest.mark.parametrize("write", [write_tars, write_folders])
def test_the_keys_of_the_near_ones_are_those_that_evaluation_knows(write, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write(tmp_path / "set", [picture(seed) for seed in range(8)])
    small = [cv2.resize(picture(seed), (150, 116), interpolation=cv2.INTER_AREA) for seed in (1, 4, 6)]
    mirrored = np.ascontiguousarray(picture(3)[:, ::-1])
    root = str(tmp_path / "root")
    dataset(root, [*small, mirrored, picture(1), *(picture(seed) for seed in range(20, 30))], lost=2)
    config = job.OverlapConfig(root=root, sets=(f"own={tmp_path / 'set'}",))
    for _ in range(2):  # the second run finds the work done
        job.main(config, in_process)
        assert "set=own pictures=8 found=3" in capsys.readouterr().out
    keys = (tmp_path / "root/overlap/own.txt").read_text().splitlines()
    eval_set = layouts.open_set(str(tmp_path / "set"))
    known = [example.key for unit in eval_set.splits["test"].units for example in layouts.examples(eval_set, unit)]
    assert len(known) == 8
    assert sorted(key[-7:].rpartition(".")[0][-3:] or key[-3:] for key in keys) == ["001", "003", "004"]
    assert set(keys) <= set(known)
    found = Dataset(join(root, "overlap/own")).read().to_pylist()
    assert {(row["name"].rsplit("/", 1)[-1][1:4], row["mirrored"]) for row in found} == {
        ("001", False), ("003", True), ("004", False)
    }  # fmt: skip


def test_a_set_without_a_plain_name_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="expected --sets NAME=FOLDER, found none"):
        job.main(job.OverlapConfig(root=str(tmp_path)), in_process)
    with pytest.raises(InputError, match="expected NAME=FOLDER with a plain name"):
        job.main(job.OverlapConfig(root=str(tmp_path), sets=("a/b=/x",)), in_process)
