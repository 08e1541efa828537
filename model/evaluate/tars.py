"""Sets in CLIP_benchmark's webdataset layout.

in      folder/classnames.txt                        one class a line; its place is its label
        folder/zeroshot_classification_templates.txt one prompt a line, {c} stands for the class
        folder/dataset_type.txt                      "multilabel" or "retrieval"; not there for plain classes
        folder/SPLIT/nshards.txt, folder/SPLIT/N.tar members KEY.jpg|jpeg|png|webp and KEY.cls (the label, in digits), KEY.npy (0
                                                     or 1 for each class of a multilabel set) or KEY.txt (captions, one a line)
out     a unit a tar
law     arrays are read without pickle
cost    one member of one tar in memory
source  LAION CLIP_benchmark, webdataset_builder
"""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from typing import IO

import fsspec
import numpy as np

from model import files
from model.evaluate.datasets import FORMATS, BadSet, EvalSet, Example, Kind, Split, Unit, check_prompts

SPLITS = ("train", "val", "test")
TYPES: dict[str, Kind] = {"classification": "classes", "multilabel": "multilabel", "retrieval": "captions"}
MAX_MEMBER_BYTES = 100_000_000
BLOCK_BYTES = 1 << 20


def is_one(folder: str) -> bool:
    """True where the folder has a split that counts its tars."""
    return any("nshards.txt" in files.names(files.join(folder, split)) for split in SPLITS)


def open_set(folder: str, name: str) -> EvalSet:
    """Read the set's texts and hash its tars. Raises BadSet where the folder does not hold a whole set."""
    kind, names, templates = _kind(folder), (), ()
    if kind != "captions":
        names = tuple((line,) for line in lines(files.join(folder, "classnames.txt")))
        templates = lines(files.join(folder, "zeroshot_classification_templates.txt"))
        check_prompts(folder, names, templates)
    splits = {split: _split(folder, split) for split in SPLITS if "nshards.txt" in files.names(files.join(folder, split))}
    if not splits:
        raise BadSet(f"{folder}/test/nshards.txt is not there: expected an evaluation set in CLIP_benchmark's webdataset layout")
    return EvalSet(
        name=name, kind=kind, names=names, classnames=tuple(first for first, *_ in names), templates=templates,
        metric="map11" if kind == "multilabel" else "accuracy", splits=splits, source=folder,
    )  # fmt: skip


def examples(unit: Unit, num_classes: int) -> Iterator[Example]:
    """The tar's pictures in their order. Raises BadSet at the first that has no label."""
    with _open(unit.path) as stream:
        for key, members in _groups(stream, unit.path):
            yield _example(f"{unit.path}: {key}", key, members, num_classes)


def lines(path: str) -> tuple[str, ...]:
    """The lines of a text that are not empty. Raises BadSet where there are none."""
    try:
        found = files.read(path).decode().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        raise BadSet(f"{path} is not there: expected an evaluation set in CLIP_benchmark's webdataset layout") from None
    except UnicodeDecodeError as error:
        raise BadSet(f"{path}: expected a text in UTF-8, found {error}") from None
    kept = tuple(line.strip() for line in found if line.strip())
    if not kept:
        raise BadSet(f"{path}: expected at least one line, found an empty file")
    return kept


def _kind(folder: str) -> Kind:
    if "dataset_type.txt" not in files.names(folder):
        return "classes"
    (word, *_) = lines(files.join(folder, "dataset_type.txt"))
    if word.lower() not in TYPES:
        raise BadSet(f"{folder}/dataset_type.txt: expected one of {', '.join(TYPES)}, found {word[:40]!r}")
    return TYPES[word.lower()]


def _split(folder: str, split: str) -> Split:
    path = files.join(folder, split, "nshards.txt")
    (count, *rest) = lines(path)
    if rest or not count.isdecimal() or not 0 < len(count) < 7 or int(count) == 0:
        raise BadSet(f"{path}: expected the number of tars, found {count[:40]!r}")
    paths = [files.join(folder, split, f"{index}.tar") for index in range(int(count))]
    digest = hashlib.sha256()
    for tar in paths:
        digest.update(_file_hash(tar))
    return Split(units=tuple(Unit("tars", tar) for tar in paths), pictures=digest.hexdigest())


def _open(path: str) -> IO[bytes]:
    try:
        if files.is_remote(path):
            return fsspec.filesystem(path.split("://", 1)[0]).open(path, "rb")
        return open(path, "rb")
    except FileNotFoundError:
        raise BadSet(f"{path} is not there, though nshards.txt counts it") from None


def _file_hash(path: str) -> bytes:
    digest = hashlib.sha256()
    with _open(path) as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.digest()


def _groups(stream: IO[bytes], shard: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Members that follow each other and have one name up to the first dot, by what comes after it."""
    key, members = "", {}
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                if member.size > MAX_MEMBER_BYTES:
                    raise BadSet(f"{shard}: {member.name} has {member.size} bytes, expected at most {MAX_MEMBER_BYTES}")
                folder, _, base = member.name.rpartition("/")
                stem, _, ending = base.partition(".")
                name = f"{folder}/{stem}" if folder else stem
                if members and name != key:
                    yield key, members
                    members = {}
                key = name
                data = tar.extractfile(member)
                assert data is not None
                members[ending.lower()] = data.read()
    except tarfile.TarError as error:
        raise BadSet(f"{shard}: expected a whole tar, found: {error}") from None
    if members:
        yield key, members


def _example(where: str, key: str, members: dict[str, bytes], num_classes: int) -> Example:
    """`num_classes` is 0 for a set of captions."""
    pictures = [ending for ending in members if ending in FORMATS]
    wanted = [ending for ending in (("cls", "npy") if num_classes else ("txt",)) if ending in members]
    if len(pictures) != 1 or not wanted:
        label = "a .cls" if num_classes else "a .txt"
        raise BadSet(f"{where}: expected one picture ({', '.join(FORMATS)}) and {label}, found {', '.join(members)}")
    picture, labels, captions = members[pictures[0]], (), ()
    if not num_classes:
        captions = tuple(line.strip() for line in members["txt"].decode("utf-8", "replace").splitlines() if line.strip())
    elif wanted[0] == "npy":
        labels = _many(f"{where}.npy", members["npy"], num_classes)
    else:
        digits = members["cls"].strip()
        if not digits.isdigit() or len(digits) > 9 or int(digits) >= num_classes:
            raise BadSet(f"{where}.cls: expected a label from 0 to {num_classes - 1}, found {digits[:20]!r}")
        labels = (int(digits),)
    return Example(key=key, picture=picture, labels=labels, captions=captions)


def _many(where: str, data: bytes, num_classes: int) -> tuple[int, ...]:
    """The classes of a picture. The header is read by itself: one that claims more than there is costs no memory."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        found = np.frombuffer(stream.read(), "V1" if dtype.hasobject else dtype)
    except (ValueError, OSError, EOFError) as error:
        raise BadSet(f"{where}: expected an array of {num_classes} zeros and ones, found {error}") from None
    if shape != (num_classes,) or found.shape != shape or found.dtype.kind not in "biuf":
        raise BadSet(f"{where}: expected an array of {num_classes} zeros and ones, found {dtype} {list(shape)}")
    return tuple(np.flatnonzero(found > 0).tolist())
