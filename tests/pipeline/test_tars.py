"""What pack writes is what independent readers find."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from webdataset.compat import WebDataset

from pipeline import tars

TEXTS = ["a red bicycle", 'quotes " and \\ and\nlines', "Fahrräder — 自転車 \U0001f6b2", ""]


def table(num_rows: int, seed: int = 0) -> pa.Table:
    """Rows with images of every size around a block."""
    chance = np.random.default_rng(seed)
    return pa.table(
        {
            "key": pa.array([f"{row:09d}" for row in range(num_rows)], pa.string()),
            "caption": pa.array([TEXTS[row % len(TEXTS)] for row in range(num_rows)], pa.string()),
            "width": pa.array(chance.integers(1, 500, num_rows), pa.int32()),
            "error": pa.nulls(num_rows, pa.string()),
            "phash": pa.array(chance.integers(2**63, 2**64, num_rows, dtype=np.uint64)),
            "query_ids": pa.array([list(range(row % 4)) for row in range(num_rows)], pa.list_(pa.uint32())),
            "colors": pa.array([bytes(48)] * num_rows, pa.binary(48)),
            "image": pa.array([chance.bytes(row * 73 % 1100) for row in range(num_rows)], pa.binary()),
        }
    )


def test_tarfile_reads_the_members_in_order_as_they_were_given():
    rows = table(60)
    data, _ = tars.pack(rows)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
        bodies = {member.name: tar.extractfile(member).read() for member in members}  # pyright: ignore[reportOptionalMemberAccess]
    assert [member.name for member in members] == [f"{i:09d}.{ending}" for i in range(60) for ending in ("jpg", "txt", "json")]
    assert {(m.mode, m.uid, m.gid, m.mtime, m.type) for m in members} == {(0o644, 0, 0, 0, tarfile.REGTYPE)}
    for row in rows.to_pylist():
        assert bodies[f"{row['key']}.jpg"] == row.pop("image")
        assert bodies[f"{row['key']}.txt"].decode() == row["caption"]
        del row["colors"]
        found = json.loads(bodies[f"{row['key']}.json"])
        assert found == row | {"phash": f"{row['phash']:016x}"}
        assert list(found) == list(row)


def test_only_strangers_get_large_numbers_as_text():
    """4_images has the columns by our own names, and its tars are read by nobody else."""
    ours = table(20).rename_columns({"caption": "text"})
    with tarfile.open(fileobj=io.BytesIO(tars.pack(ours)[0])) as tar:
        for row in ours.to_pylist():
            member = tar.extractfile(f"{row['key']}.json")
            assert member is not None
            assert json.load(member)["phash"] == row["phash"] > 2**63


def test_headers_are_the_ones_that_tarfile_writes():
    data, _ = tars.pack(table(12))
    again = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as tar,
        tarfile.open(fileobj=again, mode="w", format=tarfile.USTAR_FORMAT) as copy,
    ):
        for member in tar.getmembers():
            info = tarfile.TarInfo(member.name)
            info.size = member.size
            copy.addfile(info, tar.extractfile(member))
    assert again.getvalue() == data


def test_images_are_where_the_index_says():
    rows = table(40)
    data, placed = tars.pack(rows)
    assert placed.column_names == [name for name in rows.column_names if name != "image"] + ["image_offset", "image_bytes"]
    places = zip(placed["image_offset"].to_pylist(), placed["image_bytes"].to_pylist(), strict=True)
    assert [data[offset : offset + size] for offset, size in places] == rows["image"].to_pylist()


def test_slices_chunks_and_wide_offsets_give_the_same_bytes():
    rows = table(50)
    wide = rows.set_column(rows.num_columns - 1, "image", rows["image"].cast(pa.large_binary()))
    cut = pa.concat_tables([rows.slice(0, 7), rows.slice(7, 0), rows.slice(7)])
    assert tars.pack(rows)[0] == tars.pack(wide)[0] == tars.pack(cut)[0]
    with_head = pa.concat_tables([table(50, seed=1).slice(3, 5), rows]).slice(5)
    assert tars.pack(with_head)[0] == tars.pack(rows)[0]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves it to the collector
def test_webdataset_groups_the_members_of_a_pair(tmp_path: Path):
    rows = table(8)
    (tmp_path / "00000.tar").write_bytes(tars.pack(rows)[0])
    found = list(WebDataset(str(tmp_path / "00000.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in found] == rows["key"].to_pylist()
    assert [sample["jpg"] for sample in found] == rows["image"].to_pylist()
    assert [sample["txt"].decode() for sample in found] == rows["caption"].to_pylist()


def test_the_text_column_of_our_own_images_is_the_caption():
    rows = table(3).rename_columns({"caption": "text"})
    with tarfile.open(fileobj=io.BytesIO(tars.pack(rows)[0])) as tar:
        member = tar.extractfile("000000000.txt")
        assert member is not None
        assert member.read() == b"a red bicycle"


def test_no_rows_make_a_tar_without_members():
    data, placed = tars.pack(table(0))
    assert placed.num_rows == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getmembers() == []


@pytest.mark.parametrize("key", ["a.b", "../a", "a/b", "", "a" * 91, "a\n"])
def test_a_key_that_readers_would_misread_is_refused(key: str):
    rows = table(1).set_column(0, "key", pa.array([key]))
    with pytest.raises(ValueError, match="a key is 1 to 90 letters"):
        tars.pack(rows)


def test_a_key_twice_and_a_missing_image_are_refused():
    with pytest.raises(ValueError, match="found 1 keys in 2 rows"):
        tars.pack(pa.concat_tables([table(1), table(1)]))
    rows = table(2)
    with pytest.raises(ValueError, match="found 1 of 2 without"):
        tars.pack(rows.set_column(rows.num_columns - 1, "image", pa.array([b"x", None])))
