"""Near copies of evaluation pictures leave, whole and mirrored, and hostile evaluation files do no harm."""

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from pipeline import dedupe, hashing, images, overlap, schema
from pipeline.config import DedupeConfig, DownloadConfig
from pipeline.config import RunConfig as Settings
from pipeline.errors import InputError
from pipeline.events import Events
from pipeline.manifest import Dataset
from pipeline.runner import in_process, run_steps, write_dataset
from pipeline.stage import Step
from pipeline.storage import join
from tests.pipeline import images_dataset

CONFIG = DedupeConfig(num_buckets=2)


def picture(seed: int) -> np.ndarray:
    """A soft picture, another for each seed.  -> uint8 [200, 260, 3]"""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return cv2.resize(coarse, (260, 200), interpolation=cv2.INTER_CUBIC)


def encoded(rgb: np.ndarray, ending: str = ".jpg") -> bytes:
    """The file."""
    return cv2.imencode(ending, rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60] if ending == ".jpg" else [])[1].tobytes()


def pairs(pictures: list[np.ndarray]) -> pa.Table:
    """IMAGES rows."""
    rows = []
    for number, rgb in enumerate(pictures):
        found = images.prepare(encoded(rgb), DownloadConfig(image_size=128))
        assert not isinstance(found, str)
        url = f"http://a.test/{number}.jpg"
        rows.append(
            {
                "pair_id": hashing.pair_id(url, "t"), "image_url": url, "text": "t", "page_url": "http://p.test/",
                "query_ids": [0], "sha256": found.sha256, "phash": found.phash, "colors": found.colors,
            }
        )  # fmt: skip
    return pa.Table.from_pylist(rows, pa.schema([schema.IMAGES.field(name) for name in rows[0]]))


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of pictures 0 to 4 (in folders, among other files) and a tar of pictures 5 to 7, both with hostile files."""
    folder, tar = tmp_path / "faces", tmp_path / "cars.tar"
    (folder / "deep").mkdir(parents=True)
    for seed in range(5):
        (folder / ("deep" if seed % 2 else ".") / f"{seed}.{'png' if seed else 'jpg'}").write_bytes(
            encoded(picture(seed), ".png" if seed else ".jpg")
        )
    (folder / "labels.txt").write_text("0 face")
    (folder / "torn.jpg").write_bytes(encoded(picture(9))[:3000])
    (folder / "text.png").write_text("<html>")
    with tarfile.open(tar, "w") as out:
        for name, data in [("../../up.jpg", encoded(picture(5))), *((f"{n}.jpg", encoded(picture(n))) for n in (6, 7))]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        out.addfile(link)
    return folder, tar


def run(root: str, table: pa.Table, paths: tuple[str, ...]) -> None:
    """As jobs/build_wit.py does it."""
    images_dataset.write(join(root, "4_images"), images_dataset.cut(table, 3))
    files = overlap.expand(paths)
    write_dataset(join(root, overlap.FILES_FOLDER), stage="evaluation_files", version=1, config=None, parts=files)
    apart = {"overlap": overlap.OVERLAP_FOLDER}
    steps = [
        Step(overlap.EVALUATION, DownloadConfig(image_size=128), [overlap.FILES_FOLDER], overlap.EVALUATION_FOLDER),
        Step(overlap.OVERLAP, CONFIG, ["4_images"], overlap.OVERLAP_FOLDER, {"evaluation": overlap.EVALUATION_FOLDER}),
        *dedupe.steps(CONFIG, apart),
    ]
    run_steps(steps, root, settings=Settings(), events=Events(root, "test"), execute=in_process)


def test_near_copies_of_both_sets_leave_and_are_counted(sets: tuple[Path, Path], tmp_path: Path):
    small = [cv2.resize(picture(seed), (150, 116), interpolation=cv2.INTER_AREA) for seed in (0, 1, 5)]
    mirrored = [np.ascontiguousarray(picture(seed)[:, ::-1]) for seed in (2, 6)]
    others = [picture(seed) for seed in range(20, 30)]
    table, root, paths = pairs([*small, *mirrored, *others]), str(tmp_path / "root"), tuple(map(str, sets))
    run(root, table, paths)
    unique = Dataset(join(root, "5_unique"))
    assert unique.manifest.drops == {"evaluation_overlap": 5}
    assert unique.read()["pair_id"].to_pylist() == table["pair_id"].to_pylist()[5:]
    left = {row["pair_id"]: row for row in Dataset(join(root, overlap.OVERLAP_FOLDER)).read().to_pylist()}
    rows = [left[pair] for pair in table["pair_id"].to_pylist()[:5]]
    assert [row["set"] for row in rows] == [paths[0], paths[0], paths[1], paths[0], paths[1]]
    assert [row["mirrored"] for row in rows] == [False, False, False, True, True]
    assert [row["name"].rsplit("/", 1)[-1] for row in rows] == ["0.jpg", "1.png", "up.jpg", "2.png", "6.jpg"]
    summary = overlap.summary(root)
    assert summary is not None
    assert summary.rows() == [(paths[1], 3, 0, 2, 2, 1), (paths[0], 7, 2, 3, 3, 1)]


def test_what_is_no_picture_has_a_reason(sets: tuple[Path, Path]):
    (files,) = overlap.expand([str(sets[0])]).values()
    found = overlap.evaluation(files, DownloadConfig())
    reasons = {row["name"].rsplit("/", 1)[-1]: row["reason"] for row in found.to_pylist() if row["reason"]}
    assert reasons == {"torn.jpg": "decode", "text.png": "not_an_image"}
    strict = overlap.evaluation(files, DownloadConfig(max_image_pixels=50_000))
    assert set(strict["reason"].to_pylist()) == {"bomb", "not_an_image"}
    tiny = overlap.evaluation(files, DownloadConfig(max_image_bytes=10))
    assert set(tiny["reason"].to_pylist()) == {"too_large", "not_an_image"}  # the text is short


def test_a_folder_without_pictures_is_a_mistake(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("none")
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="expected a folder of pictures or tars, or a tar, found none"):
            overlap.expand([str(path)])


def test_a_set_of_which_nothing_can_be_decoded_is_a_mistake(tmp_path: Path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.jpg").write_text("none")
    with pytest.raises(InputError, match="found none that can be decoded"):
        run(str(tmp_path / "root"), pairs([picture(1), picture(2), picture(3)]), (str(tmp_path / "set"),))


def test_a_tar_that_is_none_is_named(tmp_path: Path):
    (tmp_path / "a.tar").write_bytes(b"no tar" * 200)
    (files,) = overlap.expand([str(tmp_path / "a.tar")]).values()
    with pytest.raises(InputError, match=r"a\.tar: expected a tar of pictures"):
        overlap.evaluation(files, DownloadConfig())
