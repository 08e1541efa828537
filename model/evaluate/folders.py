"""Sets in folders of pictures.

classes  folder/SPLIT/CLASS/*.jpg: ImageFolder's layout, and torchvision's for EuroSAT, RESISC45, Food-101 and others once they
         are in a folder a split. A class's label is its place among the sorted names of the folders of all splits
names    of the classes are the folders' (with _ as a space), unless the set's file says otherwise: sets/NAME.toml or
         folder/set.toml, see texts.py; its `folders` say which class a folder is where their order is another
binary   folder/data_batch_N.bin, test_batch.bin, batches.meta.txt: CIFAR-10, binary version (its pickles are not read)
         folder/train.bin, test.bin, fine_label_names.txt: CIFAR-100, binary version, fine labels
         folder/[t10k|train]-[images-idx3|labels-idx1]-ubyte, or the same with .gz or with a . for the first -: MNIST
law      an order of files is that of their names; hidden files are no pictures; a folder without a picture is an error
cost     one unit's names, one file of pictures in memory
"""

import gzip
import hashlib
import os
import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np

from model.evaluate.datasets import FORMATS, OTHER_FORMATS, BadSet, Example, Split, Unit

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}  # folder -> split
FILES_A_UNIT, ROWS_A_UNIT = 2_000, 10_000
MAX_FILE_BYTES = 100_000_000  # of a picture
MAX_ARRAY_BYTES = 1_000_000_000  # of a file of pictures, inflated
CIFAR_PIXELS = 3 * 32 * 32
IDX = re.compile(r"(train|t10k)-(images|labels)[-.]idx([13])-ubyte(\.gz)?")


def class_folders(folder: str) -> list[str]:
    """The sorted names of the folders of all splits."""
    names = {entry.name for split in _present(folder) for entry in os.scandir(os.path.join(folder, split)) if entry.is_dir()}
    return sorted(name for name in names if name[0] != ".")


def _present(folder: str) -> dict[str, str]:
    return {name: split for name, split in SPLITS.items() if os.path.isdir(os.path.join(folder, name))}


def open_classes(folder: str, places: dict[str, int]) -> dict[str, Split]:
    """The splits of a folder of folders; `places` is the label of each. Raises BadSet for a folder that it does not name."""
    splits = {}
    for name, split in _present(folder).items():
        listed: list[tuple[str, int]] = []
        for entry in sorted(os.scandir(os.path.join(folder, name)), key=lambda entry: entry.name):
            if not entry.is_dir() or entry.name[0] == ".":
                continue
            if entry.name not in places:
                raise BadSet(f"{entry.path}: expected one of the {len(places)} classes, found a folder that is none of them")
            found = sorted(file for file in os.listdir(entry.path) if _is_picture(file))
            if not found:
                raise BadSet(f"{entry.path}: expected pictures ({', '.join([*FORMATS, *OTHER_FORMATS])}), found none")
            listed += [(f"{entry.name}/{file}", places[entry.name]) for file in found]
        top = os.path.join(folder, name)
        cuts = [tuple(listed[start : start + FILES_A_UNIT]) for start in range(0, len(listed), FILES_A_UNIT)]
        units = tuple(Unit("folders", top, names=cut) for cut in cuts)
        splits[split] = Split(units=units, pictures=_hash(top, listed))
    return splits


def _is_picture(file: str) -> bool:
    return file[0] != "." and file.rpartition(".")[2].lower() in FORMATS | OTHER_FORMATS


def _hash(top: str, listed: list[tuple[str, int]]) -> str:
    digest = hashlib.sha256()
    for name, label in listed:
        digest.update(repr((name, label)).encode())
        digest.update(hashlib.sha256(_read(os.path.join(top, name))).digest())
    return digest.hexdigest()


def _read(path: str) -> bytes:
    if os.path.getsize(path) > MAX_FILE_BYTES:
        raise BadSet(f"{path}: expected at most {MAX_FILE_BYTES:,} bytes, found {os.path.getsize(path):,}")
    with open(path, "rb") as file:
        return file.read()


def file_examples(unit: Unit) -> Iterator[Example]:
    """The pictures of a unit of files."""
    for name, label in unit.names:
        yield Example(key=name, picture=_read(os.path.join(unit.path, name)), labels=(label,))


def binary_files(folder: str) -> dict[str, list[str]]:
    """The files of pictures of each split where a folder is CIFAR's binary version or MNIST's; else nothing."""
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    if "test_batch.bin" in names:
        return {"train": [name for name in names if re.fullmatch(r"data_batch_\d\.bin", name)], "test": ["test_batch.bin"]}
    if {"train.bin", "test.bin"} <= set(names):
        return {"train": ["train.bin"], "test": ["test.bin"]}
    images = [match for name in names if (match := IDX.fullmatch(name)) and match[2] == "images"]
    return {"train" if match[1] == "train" else "test": [match[0]] for match in images}


def binary_names(folder: str) -> list[str]:
    """The names of the classes that CIFAR's binary versions bring along; empty for MNIST."""
    for file in ("batches.meta.txt", "fine_label_names.txt"):
        path = os.path.join(folder, file)
        if os.path.isfile(path):
            lines = _read(path).decode("utf-8", "replace").splitlines()
            return [line.strip().replace("_", " ") for line in lines if line.strip()]
    return []


def open_binary(folder: str, listed: dict[str, list[str]], num_classes: int) -> dict[str, Split]:
    """The splits of such a folder."""
    splits = {}
    for split, names in listed.items():
        units, digest = [], hashlib.sha256()
        for name in names:
            pixels, labels = _arrays(os.path.join(folder, name))
            if int(labels.max(initial=0)) >= num_classes:
                raise BadSet(f"{folder}/{name}: expected labels from 0 to {num_classes - 1}, found {int(labels.max())}")
            digest.update(pixels.tobytes() + labels.tobytes())
            cuts = range(0, len(labels), ROWS_A_UNIT)
            units += [Unit("binary", os.path.join(folder, name), start, min(start + ROWS_A_UNIT, len(labels))) for start in cuts]
        splits[split] = Split(units=tuple(units), pictures=digest.hexdigest())
    return splits


def binary_examples(unit: Unit) -> Iterator[Example]:
    """The pictures of a unit of rows."""
    pixels, labels = _arrays(unit.path)
    stem = os.path.basename(unit.path).split(".")[0]
    for place in range(unit.start, unit.stop):
        yield Example(key=f"{stem}/{place:05d}", picture=pixels[place], labels=(int(labels[place]),))


def _arrays(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 [n, h, w] or [n, h, w, 3], and labels uint8 [n]."""
    if match := IDX.fullmatch(os.path.basename(path)):
        pixels = _idx(path, 3)
        labels = _idx(os.path.join(os.path.dirname(path), _labels_of(os.path.dirname(path), match[1])), 1)
        if len(pixels) != len(labels):
            raise BadSet(f"{path}: expected as many pictures as labels, found {len(pixels):,} and {len(labels):,}")
        return pixels, labels
    head = 1 if "batch" in os.path.basename(path) else 2  # CIFAR-100 has a coarse label in front of the fine one
    data = np.frombuffer(_inflated(path), np.uint8)
    if not len(data) or len(data) % (head + CIFAR_PIXELS):
        raise BadSet(f"{path}: expected rows of {head + CIFAR_PIXELS} bytes, found {len(data):,} bytes")
    rows = data.reshape(-1, head + CIFAR_PIXELS)
    return np.ascontiguousarray(rows[:, head:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), rows[:, head - 1]


def _labels_of(folder: str, split: str) -> str:
    for name in sorted(os.listdir(folder)):
        if (match := IDX.fullmatch(name)) and match[1] == split and match[2] == "labels":
            return name
    raise BadSet(f"{folder}: expected {split}-labels-idx1-ubyte beside the pictures, found none")


def _idx(path: str, num_axes: int) -> np.ndarray:
    data = _inflated(path)
    if len(data) < 4 + 4 * num_axes or data[:4] != bytes([0, 0, 8, num_axes]):
        raise BadSet(f"{path}: expected an idx file of bytes with {num_axes} axes, found another")
    shape = struct.unpack(f">{num_axes}I", data[4 : 4 + 4 * num_axes])
    pixels = np.frombuffer(data, np.uint8, offset=4 + 4 * num_axes)
    expected = int(np.prod(np.asarray(shape, object)))
    if len(pixels) != expected or not expected:
        raise BadSet(f"{path}: expected {expected:,} bytes after its header, found {len(pixels):,}")
    return pixels.reshape(shape)


def _inflated(path: str) -> bytes:
    try:
        with gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb") as file:
            data = file.read(MAX_ARRAY_BYTES + 1)
    except (EOFError, zlib.error, OSError) as error:
        raise BadSet(f"{path}: expected a file of pictures, found: {error}") from None
    if len(data) > MAX_ARRAY_BYTES:
        raise BadSet(f"{path}: expected at most {MAX_ARRAY_BYTES:,} bytes, inflated")
    return data
