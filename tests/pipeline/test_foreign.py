"""Folders as img2dataset leaves them, good, broken and hostile, taken in as images; and the job, up to shards."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import import_images
from pipeline import foreign, foreign_tars, schema
from pipeline.config import DedupeConfig, ImportConfig, RunConfig, ShardConfig
from pipeline.errors import InputError
from pipeline.manifest import Dataset
from pipeline.runner import in_process, run_steps
from tests.pipeline.test_download import picture

Row = dict[str, Any]


def rows_of(shard: int, count: int = 12) -> list[Row]:
    """The list of a shard: the fourth was not downloaded."""
    return [
        {
            "uid": f"{shard}-{n}", "caption": f"a caption of shard {shard}, no. {n}", "url": f"http://x.test/{shard}/{n}.jpg",
            "key": f"{shard:05d}{n:04d}", "status": "failed_to_download" if n == 3 else "success",
            "error_message": "HTTP Error 404: Not Found" if n == 3 else None, "width": 90, "height": 60,
            "original_width": 900, "original_height": 600, "exif": "{}", "sha256": f"{shard * 100 + n:064x}",
        }
        for n in range(count)
    ]  # fmt: skip


def write(folder: Path, shard: int, rows: list[Row], pictures: dict[str, bytes] | None = None) -> dict[str, bytes]:
    """NNNNN.tar, NNNNN.parquet and NNNNN_stats.json as img2dataset has them; the pictures by key."""
    folder.mkdir(exist_ok=True)
    good = {row["key"]: picture(seed=int(row["key"])) for row in rows if row["status"] == "success"}
    with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
        for key, data in (good | (pictures or {})).items():
            row = next((row for row in rows if row["key"] == key), {})
            for ending, body in (("jpg", data), ("json", json.dumps(row).encode()), ("txt", str(row.get("caption")).encode())):
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{shard:05d}.parquet", row_group_size=100)
    (folder / f"{shard:05d}_stats.json").write_text("{}")
    return good | (pictures or {})


def take(folder: Path, shard: int = 0, **options: Any) -> list[Row]:
    table = pa.Table.from_pylist([foreign.shards(str(folder))[shard]], schema.FOREIGN)
    made = foreign.Worker(ImportConfig(**options), {})(table)
    schema.check(made, schema.join(schema.IMAGES, pa.schema([schema.IMAGE, schema.DROP])), "test")
    return made.to_pylist()


def test_a_shard_becomes_images_with_the_very_bytes_and_the_lists_facts(tmp_path: Path) -> None:
    rows = rows_of(0)
    pictures = write(tmp_path, 0, rows)
    found = take(tmp_path)
    assert [row["drop"] for row in found] == ["not_downloaded" if n == 3 else None for n in range(len(rows))]
    tar = (tmp_path / "00000.tar").read_bytes()
    for row, made in zip(rows, found, strict=True):
        assert (made["image_url"], made["text"], made["query_ids"], made["page_url"]) == (row["url"], row["caption"], [], "")
        if made["drop"]:
            continue
        assert made["image"] == pictures[row["key"]]
        assert (made["width"], made["height"], made["original_width"], made["original_height"]) == (90, 60, 900, 600)
        assert made["sha256"] == row["sha256"]
        assert tar[made["record_offset"] :].startswith(made["image"])


def test_every_reason(tmp_path: Path) -> None:
    rows = rows_of(0)
    rows[0]["url"], rows[1]["caption"], rows[4]["key"], rows[5]["sha256"] = "ftp://x.test/a.jpg", None, "99", "not hex"
    rows[6]["original_width"], rows[7]["url"], rows[7]["caption"] = -5, rows[8]["url"], rows[8]["caption"]
    write(
        tmp_path,
        0,
        rows,
        {"99": b"", rows[9]["key"]: picture(8, 8), rows[10]["key"]: b"<html>", rows[11]["key"]: picture()[:300]},
    )
    found = take(tmp_path)
    expected = {0: "bad_url", 1: "no_text", 3: "not_downloaded", 4: "not_an_image", 8: "repeated_pair", 9: "too_small"}
    assert {n: row["drop"] for n, row in enumerate(found) if row["drop"]} == expected | {10: "not_an_image", 11: "decode"}
    assert found[5]["sha256"] != "not hex"
    assert len(found[5]["sha256"]) == 64
    assert found[6]["original_width"] == 90


def test_a_picture_that_is_no_plain_jpeg_is_encoded_anew(tmp_path: Path) -> None:
    rows = rows_of(0)
    odd = {rows[0]["key"]: picture(kind="PNG", seed=1), rows[1]["key"]: picture(kind="WEBP", seed=2)}
    write(tmp_path, 0, rows, odd)
    found = take(tmp_path)
    for row, kind in zip(found, ("image/png", "image/webp"), strict=False):
        assert (row["drop"], row["media_type"]) == (None, kind)
        assert row["image"].startswith(b"\xff\xd8\xff")


def hostile(kind: str, key: str) -> bytes:
    """A tar that means harm, with one good picture at its end."""
    sink, body = io.BytesIO(), picture()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.GNU_FORMAT if kind == "sparse" else tarfile.PAX_FORMAT) as tar:
        bad = tarfile.TarInfo(f"{key}.jpg")
        if kind in ("symlink", "hardlink"):
            bad.type, bad.linkname = tarfile.SYMTYPE if kind == "symlink" else tarfile.LNKTYPE, "/etc/hostname"
        elif kind == "device":
            bad.type, bad.devmajor = tarfile.CHRTYPE, 1
        elif kind == "outside":
            bad.name = f"../../{key}.jpg"
        elif kind == "absolute":
            bad.name = f"/tmp/{key}.jpg"
        elif kind == "flood":
            for number in range(5000):
                tar.addfile(tarfile.TarInfo(f"{number}.txt"))
        elif kind == "pax":
            bad.name, bad.pax_headers = "other.jpg", {"path": f"{key}.jpg", "comment": "x" * 3_000_000}
        elif kind == "large":
            bad.size = 30_000_000
        tar.addfile(bad, io.BytesIO(bytes(bad.size)) if bad.size else None)
        if kind != "flood":
            good = tarfile.TarInfo(f"{key}.jpg")
            good.size = len(body)
            tar.addfile(good, io.BytesIO(body))
    return sink.getvalue()


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "device", "outside", "absolute", "pax", "large", "sparse"])
def test_what_is_no_plain_member_is_passed_over(kind: str) -> None:
    data = hostile(kind, "k")
    found = list(foreign_tars.members(io.BytesIO(data), frozenset("k"), foreign_tars.IMAGES, 20_000_000, 100))
    assert [member.data for member in found if member.data] == [picture()]
    assert all(data[member.offset :].startswith(member.data) for member in found)


def test_a_flood_of_members_ends() -> None:
    assert not list(foreign_tars.members(io.BytesIO(hostile("flood", "k")), frozenset("k"), foreign_tars.IMAGES, 1000, 100))


@pytest.mark.parametrize("seed", range(5))
def test_mutated_tars_never_raise_and_give_only_what_is_in_them(seed: int) -> None:
    rng, data = np.random.default_rng(seed), hostile("pax", "k")[-20_000:]
    data = hostile("symlink", "k") if seed % 2 else data
    for _ in range(300):
        torn = bytearray(data)
        for place in rng.integers(0, min(len(torn), 3000), int(rng.integers(1, 20))):
            torn[place] = rng.integers(0, 256)
        cut = bytes(torn[: rng.integers(0, len(torn))]) if rng.random() < 0.5 else bytes(torn)
        for member in foreign_tars.members(io.BytesIO(cut), frozenset("k"), foreign_tars.IMAGES, 1_000_000, 50):
            assert cut[member.offset : member.offset + len(member.data)] == member.data
        assert foreign_tars.is_plain_jpeg(cut[rng.integers(0, 600) :]) in (True, False)


def test_a_torn_tar_loses_only_what_it_has_not(tmp_path: Path) -> None:
    rows = rows_of(0)
    write(tmp_path, 0, rows)
    path = tmp_path / "00000.tar"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    drops = [row["drop"] for row in take(tmp_path)]
    assert drops[0] is None
    assert drops[-1] == "no_member"


def test_other_formats_are_named(tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message):
            foreign.shards(str(tmp_path / "x"))

    refused("expected a folder that img2dataset made, found nothing there")
    (tmp_path / "x").mkdir()
    refused("found no shards")
    for name, what in (("00000.parquet", "parquet or files"), ("00000.tfrecord", "tfrecord")):
        (tmp_path / "x" / name).write_bytes(b"")
        refused(f"--output_format webdataset.*found {what}")
    (tmp_path / "x" / "00001.tar").write_bytes(b"")
    refused(r"1 of 1 tars have no Parquet file beside them \(the first: 00001\.tar\)")
    (tmp_path / "x" / "00001.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="found none that can be read"):
        take(tmp_path / "x")
    pq.write_table(pa.table({"URL": ["http://x.test/"], "TEXT": ["a"]}), tmp_path / "x" / "00001.parquet")
    with pytest.raises(InputError, match="columns url, key and status, found URL, TEXT"):
        take(tmp_path / "x")


def test_the_job_makes_shards_of_several_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = {}
    for folder in range(2):
        for shard in range(2):
            rows = rows_of(10 * folder + shard)
            pictures |= {rows[n]["url"]: write(tmp_path / str(folder), shard, rows).get(rows[n]["key"]) for n in range(len(rows))}
    config = import_images.ImportImagesConfig(
        root=str(tmp_path / "root"), folders=(str(tmp_path / "0"), str(tmp_path / "1")),
        dedupe=DedupeConfig(max_distance=0, num_buckets=2), shard=ShardConfig(pairs_per_shard=10, parts_per_group=2),
        run=RunConfig(verify="hash"),
    )  # fmt: skip
    monkeypatch.setattr(import_images, "run_steps", lambda *steps, **options: run_steps(*steps, **options, execute=in_process))
    import_images.main(config)
    images, shards = Dataset(f"{config.root}/4_images"), Dataset(f"{config.root}/6_shards")
    assert (images.manifest.rows_in, images.manifest.drops) == (48, {"not_downloaded": 4})
    assert shards.manifest.rows_out == 44
    found = {row["url"]: row["image"] for row in shards.read(("url", "image")).to_pylist()}
    assert found == {url: data for url, data in pictures.items() if data}
    before = shards.manifest.hash
    import_images.main(config)
    assert Dataset(f"{config.root}/6_shards").manifest.hash == before


def test_a_pair_in_the_lists_of_many_shards_comes_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(0)
    for shard in range(3):
        renamed = [{**row, "key": f"{shard:05d}{number:04d}"} for number, row in enumerate(rows)]
        write(
            tmp_path / "x",
            shard,
            renamed,
            {row["key"]: picture(seed=number) for number, row in enumerate(renamed) if number != 3},
        )
    config = import_images.ImportImagesConfig(
        root=str(tmp_path / "root"), folders=(str(tmp_path / "x"),), dedupe=DedupeConfig(num_buckets=2),
        shard=ShardConfig(pairs_per_shard=10, parts_per_group=3), run=RunConfig(verify="hash"),
    )  # fmt: skip
    monkeypatch.setattr(import_images, "run_steps", lambda *steps, **options: run_steps(*steps, **options, execute=in_process))
    import_images.main(config)
    urls = Dataset(f"{config.root}/6_shards").read(("url",))["url"].to_pylist()
    assert sorted(urls) == sorted(row["url"] for row in rows if row["status"] == "success")


def test_evaluation_sets_are_refused(tmp_path: Path) -> None:
    dedupe = DedupeConfig(evaluation_sets=("/sets/food",))
    config = import_images.ImportImagesConfig(root=str(tmp_path), folders=("x",), dedupe=dedupe)
    with pytest.raises(InputError, match="evaluation-sets is for build_wit"):
        import_images.main(config)


def test_no_folder_is_a_mistake() -> None:
    with pytest.raises(InputError, match="expected at least one folder that img2dataset made, found none; give --folders"):
        import_images.main(import_images.ImportImagesConfig(root="/nonexistent"))
