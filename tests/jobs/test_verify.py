"""A dataset that is damaged on disk is told apart from a whole one, and mended without touching the rest."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs import verify
from pipeline import hashing, integrity
from pipeline.errors import InputError
from pipeline.manifest import NAME, Dataset, Manifest
from pipeline.runner import in_process
from tests.pipeline.test_shard import build, images


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with 6_shards of 160 pairs."""
    root = tmp_path_factory.mktemp("built")
    build(str(root), images(160), 5)
    return root


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(built, tmp_path / "root"))


def flip(path: Path) -> None:
    """One bit of one byte in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    """The second half is gone."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: list[tuple[str, Callable[[Path], None], str]] = [
    ("00001.tar", flip, "other bytes than in its record"),
    ("00001.parquet", flip, "other bytes than in its record"),
    ("00000.tar", cut, "bytes, "),
    ("00002.parquet", cut, "bytes, "),
    ("00002.tar", Path.unlink, "missing"),
    ("00000.parquet", Path.unlink, "missing"),
    (NAME, Path.unlink, "missing"),
    (NAME, cut, "not a manifest"),
]


def test_a_whole_dataset_has_no_faults(built: Path, capsys: pytest.CaptureFixture[str]):
    assert integrity.check(str(built / "6_shards")) == []
    assert integrity.check(str(built / "4_images")) == []
    verify.main(verify.VerifyConfig(root=str(built)), in_process)
    assert f"hash={Dataset(str(built / '6_shards')).manifest.hash}" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "damage", "told"), DAMAGES)
def test_damage_is_named_and_mended_and_nothing_else_is_written(root: Path, name: str, damage: Callable[[Path], None], told: str):
    folder = root / "6_shards"
    before, path = Dataset(str(folder)).manifest, folder / name
    part = next((part for part in before.parts if any(file.name == name for file in part.files)), None)
    damage(path)
    faults = integrity.check(str(folder))
    assert [fault.file for fault in faults] == [name]
    assert told in faults[0].what
    with pytest.raises(InputError, match=f"1 faults, the first in {name}"):
        verify.main(verify.VerifyConfig(root=str(root)), in_process)
    rest = [file for file in folder.glob("0*") if part is None or file.name not in {f.name for f in part.files}]
    for file in rest:
        os.utime(file, (1, 1))
    verify.main(verify.VerifyConfig(root=str(root), repair=True), in_process)
    assert integrity.check(str(folder)) == []
    assert Dataset(str(folder)).manifest.hash == before.hash
    assert {file.stat().st_mtime for file in rest} == {1}


def test_other_folders_are_mended_by_the_build(root: Path):
    with pytest.raises(InputError, match=r"jobs/build_wit\.py with --run\.verify hash"):
        verify.main(verify.VerifyConfig(root=str(root), folder="4_images", repair=True), in_process)


def rewrite(folder: Path, name: str, data: bytes) -> None:
    """Another content that the manifest knows of."""
    (folder / name).write_bytes(data)
    old = Dataset(str(folder)).manifest
    parts = []
    for part in old.parts:
        files = [replace(f, num_bytes=len(data), sha256=hashing.sha256(data)) if f.name == name else f for f in part.files]
        parts.append(replace(part, files=tuple(files)))
    new = Manifest(stage=old.stage, fingerprint=old.fingerprint, parts=tuple(parts), num_buckets=old.num_buckets)
    (folder / NAME).write_bytes(new.to_json())


def test_a_tar_that_is_not_its_indexs_is_a_fault(root: Path):
    folder = root / "6_shards"
    rewrite(folder, "00001.tar", (folder / "00002.tar").read_bytes())
    (fault,) = integrity.check(str(folder))
    assert (fault.file, fault.what.split(",")[0]) == ("00001.tar", "57 members")
    rewrite(folder, "00001.tar", b"no tar" * 1000)
    assert "not a tar" in integrity.check(str(folder))[0].what


def test_a_text_that_is_not_the_indexs_is_a_fault(root: Path):
    folder = root / "6_shards"
    data = (folder / "00001.tar").read_bytes()
    at = data.index(b"picture ")
    rewrite(folder, "00001.tar", data[:at] + b"P" + data[at + 1 :])
    assert "is another than the index's" in integrity.check(str(folder))[0].what


def test_a_pair_twice_and_a_wrong_count_are_faults(root: Path):
    folder = root / "6_shards"
    for ending in ("tar", "parquet"):
        rewrite(folder, f"00001.{ending}", (folder / f"00000.{ending}").read_bytes())
    assert "25 pair_ids are in more than one row" in integrity.check(str(folder))[-1].what
    manifest = json.loads((folder / NAME).read_bytes())
    manifest["parts"][0]["rows_out"] += 1
    (folder / NAME).write_text(json.dumps(manifest))
    assert integrity.check(str(folder))[0].file == NAME


def test_random_damage_never_goes_unseen(root: Path):
    folder, chance = root / "6_shards", np.random.default_rng(0)
    files = sorted(folder.glob("0*"))
    for _ in range(100):
        path = files[int(chance.integers(len(files)))]
        whole = path.read_bytes()
        data = bytearray(whole)
        data[int(chance.integers(len(data)))] ^= int(chance.integers(1, 256))
        path.write_bytes(data)
        assert [fault.file for fault in integrity.check(str(folder))] == [path.name]
        path.write_bytes(whole)
