"""Every layout of an evaluation set, with the same pictures and labels in each; and what is wrong with broken ones."""

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.evaluate import datasets, layouts, texts
from model.evaluate.datasets import BadSet, EvalSet
from tests.model.evaluation_set import encode, write_set

NAMES = ["blue jay", "cat", "red fox"]


def pictures(count: int = 13, size: tuple[int, int] = (32, 32), gray: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Noise and labels."""
    rng = np.random.default_rng(0)
    shape = (count, *size) if gray else (count, *size, 3)
    return rng.integers(0, 256, shape).astype(np.uint8), rng.integers(0, len(NAMES), count).astype(np.uint8)


def read(eval_set: EvalSet, split: str) -> tuple[list[str], list[tuple[int, ...]], list[np.ndarray]]:
    """Keys, labels and pixels."""
    found = [example for unit in eval_set.split(split).units for example in layouts.examples(eval_set, unit)]
    images = [datasets.decode(example.picture) for example in found]
    assert all(not isinstance(image, str) for image in images)
    return [example.key for example in found], [example.labels for example in found], [np.asarray(image) for image in images]


def write_folders(folder: Path) -> None:
    for split in ("train", "test"):
        for place, (pixels, label) in enumerate(zip(*pictures(), strict=True)):
            target = folder / split / NAMES[label].replace(" ", "_")
            target.mkdir(parents=True, exist_ok=True)
            (target / f"{place:03}.PNG").write_bytes(encode(pixels, "png"))
            (target / ".hidden.png").write_bytes(b"")


def write_table(path: Path, column: str = "image", **options: Any) -> None:
    pixels, labels = pictures()
    rows = [
        {column: {"bytes": encode(one, "png"), "path": "/etc/passwd"}, "label": int(k)}
        for one, k in zip(pixels, labels, strict=True)
    ]
    features = {"info": {"features": {"label": {"names": ["blue_jay", "cat", "red_fox"], "_type": "ClassLabel"}}}}
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(options.get("rows", rows)).replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, path, row_group_size=5)


def write_cifar(folder: Path, hundred: bool = False) -> None:
    pixels, labels = pictures()
    head = [[9, label] if hundred else [label] for label in labels.tolist()]
    rows = b"".join(bytes(one) + picture.transpose(2, 0, 1).tobytes() for one, picture in zip(head, pixels, strict=True))
    names = (
        ("train.bin", "test.bin", "fine_label_names.txt")
        if hundred
        else ("data_batch_1.bin", "test_batch.bin", "batches.meta.txt")
    )
    for name in names[:2]:
        (folder / name).write_bytes(rows)
    (folder / names[2]).write_text("blue_jay\ncat\nred_fox\n\n")


def write_mnist(folder: Path) -> None:
    pixels, labels = pictures(gray=True)
    for split in ("train", "t10k"):
        images = struct.pack(">IIII", 0x803, *pixels.shape) + pixels.tobytes()
        (folder / f"{split}-images-idx3-ubyte").write_bytes(images)
        with gzip.open(folder / f"{split}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(struct.pack(">II", 0x801, len(labels)) + labels.tobytes())
    (folder / "set.toml").write_text('classes = ["blue jay", "cat", ["red fox", "fox"]]\nmetric = "mean_per_class"\n')


@pytest.mark.parametrize("layout", ["folders", "table", "cifar10", "cifar100", "mnist"])
def test_each_layout_gives_the_pictures_with_their_labels(layout: str, tmp_path: Path) -> None:
    if layout == "table":
        for split in ("train", "test"):
            write_table(tmp_path / f"data/{split}-00000-of-00001.parquet")
    else:
        {"folders": write_folders, "cifar10": write_cifar, "cifar100": lambda at: write_cifar(at, True), "mnist": write_mnist}[
            layout
        ](tmp_path)
    eval_set = layouts.open_set(str(tmp_path), "some")
    assert list(eval_set.classnames) == NAMES
    assert eval_set.splits.keys() == {"train", "test"}
    pixels, labels = pictures(gray=layout == "mnist")
    expected = sorted(
        (int(label), encode(np.dstack([one] * 3) if one.ndim == 2 else one, "png"))
        for one, label in zip(pixels, labels, strict=True)
    )
    for split in ("train", "test"):
        keys, found, images = read(eval_set, split)
        assert len(set(keys)) == len(keys)
        assert sorted((label, encode(image, "png")) for (label,), image in zip(found, images, strict=True)) == expected
    assert layouts.open_set(str(tmp_path), "other").split("test").pictures == eval_set.split("test").pictures


def test_captions_and_many_labels_come_from_tables_too(tmp_path: Path) -> None:
    picture = {"bytes": encode(pictures()[0][0], "png")}
    write_table(
        tmp_path / "c/test.parquet",
        rows=[{"img": picture, "captions": ["one ", "", "two"]}, {"img": {"bytes": None}, "captions": ["x"]}],
    )
    eval_set = layouts.open_set(str(tmp_path / "c"))
    found = [example for unit in eval_set.split("test").units for example in layouts.examples(eval_set, unit)]
    assert [example.captions for example in found] == [("one", "two"), ("x",)]
    assert isinstance(datasets.decode(found[1].picture), str)
    write_table(tmp_path / "m/test.parquet", rows=[{"image": picture, "labels": [0, 2]}, {"image": picture, "labels": [1]}])
    (tmp_path / "m/set.toml").write_text('classes = ["a", "b", "c"]')
    many = layouts.open_set(str(tmp_path / "m"))
    assert (many.kind, many.metric, read(many, "test")[1]) == ("multilabel", "map11", [(0, 2), (1,)])


def test_a_file_of_names_wins_and_folders_are_placed_by_it(tmp_path: Path) -> None:
    write_folders(tmp_path)
    (tmp_path / "set.toml").write_text(
        'classes = ["fox", "jay", ["cat", "kitten"]]\nfolders = ["red_fox", "blue_jay", "cat"]\ntemplates = ["{c}!"]'
    )
    eval_set = layouts.open_set(str(tmp_path))
    assert eval_set.names == (("fox",), ("jay",), ("cat", "kitten"))
    assert eval_set.templates == ("{c}!",)
    keys, labels, _ = read(eval_set, "test")
    assert {key.split("/")[0]: label for key, (label,) in zip(keys, labels, strict=True)} == {
        "red_fox": 0,
        "blue_jay": 1,
        "cat": 2,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes = [", "expected TOML"),
        ('classes = ["a", "b"]', "expected 2 classes, as its file of class names says, found 3"),
        ('classes = ["a", 3, "c"]', "classes: expected texts"),
        ("classes = []", "expected a list that is not empty"),
        ('templates = ["a photo"]', "needs {c} where the class goes, found 'a photo'"),
        ('metric = "luck"', "metric: expected one of accuracy"),
        ('colour = "red"', "expected classes, folders, metric, templates, found colour"),
        ('folders = ["red_fox", "cat", "dog"]', "found a folder that is none of them"),
    ],
)
def test_a_wrong_file_of_names_is_told(tmp_path: Path, text: str, message: str) -> None:
    write_folders(tmp_path)
    (tmp_path / "set.toml").write_text(text)
    with pytest.raises(BadSet, match=message):
        layouts.open_set(str(tmp_path))


def test_a_class_count_that_is_not_the_registrys_is_told(tmp_path: Path) -> None:
    write_folders(tmp_path / "f")
    with pytest.raises(BadSet, match="eurosat: expected 10 classes, as the registry says, found 3"):
        layouts.open_set(f"eurosat={tmp_path / 'f'}")
    write_set(tmp_path / "t", classes=["red", "green", "blue", "black", "white", "pink"])
    with pytest.raises(BadSet, match="expected 100 classes, as the registry says of cifar100, found 6"):
        layouts.open_set(f"cifar100={tmp_path / 't'}")


def test_broken_files_of_pictures_are_told(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    whole = (tmp_path / "t10k-images-idx3-ubyte").read_bytes()
    for data, message in (
        (whole[:-1], "bytes after its header, found"),
        (struct.pack(">IIII", 0x803, 2**31, 2**31, 2**31), "bytes after its header, found 0"),
        (b"\0\0\x0d\3" + whole[4:], "expected an idx file of bytes with 3 axes"),
    ):
        (tmp_path / "t10k-images-idx3-ubyte").write_bytes(data)
        with pytest.raises(BadSet, match=message):
            layouts.open_set(str(tmp_path))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(whole)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"\x1f\x8bnothing")
    with pytest.raises(BadSet, match="expected a file of pictures"):
        layouts.open_set(str(tmp_path))
    cifar = tmp_path / "cifar"
    cifar.mkdir()
    write_cifar(cifar)
    (cifar / "test_batch.bin").write_bytes(bytes([7]) + bytes(3072))
    with pytest.raises(BadSet, match="expected labels from 0 to 2, found 7"):
        layouts.open_set(str(cifar))
    (cifar / "batches.meta.txt").unlink()
    with pytest.raises(BadSet, match=r"nothing tells the names of its classes: write them into .*set\.toml"):
        layouts.open_set(str(cifar))
    write_table(tmp_path / "p/test.parquet", rows=[{"image": {"bytes": b""}, "label": 3}])
    wrong = layouts.open_set(str(tmp_path / "p"))
    with pytest.raises(BadSet, match="expected labels from 0 to 2, found"):
        read(wrong, "test")
    write_table(tmp_path / "q/test.parquet", rows=[{"image": "x.png", "label": 0}])
    with pytest.raises(BadSet, match="expected column 'image' to be a struct with bytes"):
        layouts.open_set(str(tmp_path / "q"))
    with pytest.raises(BadSet, match="expected a split 'val', found train, test"):
        layouts.open_set("digits").split("val")


def test_the_registry_has_the_papers_27_sets() -> None:
    sets = texts.registry()
    assert len(sets) == 27
    for name, entry in sets.items():
        assert entry.keys() == {"title", "classes", "train", "test", "metric", "prompts", "benchmark", "source"}, name
        assert entry["metric"] in texts.METRICS
    assert {name: entry["metric"] for name, entry in sets.items() if entry["metric"] != "accuracy"} == {
        "fgvc_aircraft": "mean_per_class", "voc2007": "map11", "pets": "mean_per_class", "caltech101": "mean_per_class",
        "flowers": "mean_per_class", "kinetics700": "mean_1_5", "hateful_memes": "roc_auc",
    }  # fmt: skip
    for path in texts.SETS.glob("*.toml"):
        if path.stem != "registry":
            assert texts.read(path.stem, "").names


@pytest.mark.peers
def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    eval_set = layouts.open_set("digits")
    target: Any = load_digits()
    for split, rows in (("test", np.arange(1797) % 4 == 0), ("train", np.arange(1797) % 4 > 0)):
        _, labels, images = read(eval_set, split)
        assert [label for (label,) in labels] == target.target[rows].tolist()
        np.testing.assert_array_equal(images[5][..., 0], np.minimum(target.images[rows][5] * 16, 255))
