"""Evaluation sets: class names, prompt templates and labelled pictures, in CLIP_benchmark's webdataset layout.

in      folder/classnames.txt                        one class a line; its place is its label
        folder/zeroshot_classification_templates.txt one prompt a line, {c} stands for the class
        folder/test/nshards.txt, folder/test/N.tar   members KEY.jpg|jpeg|png|webp and KEY.cls (the label, in digits)
out     an EvalSet; its pictures one after another, RGB; pictures as CLIP's release prepares them
law     no picture is skipped: what can not be read, or has no label, is an error that names it
law     EvalSet.hash covers every byte of the set, and not where it lies
errors  BadSet, a ValueError, says which file, what was expected and what was found
cost    one member of one tar in memory
source  LAION CLIP_benchmark, "webdataset" layout; preprocessing: OpenAI CLIP, `_transform`
"""

import hashlib
import io
import struct
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import fsspec
import numpy as np
from PIL import Image, UnidentifiedImageError

from model import files

SPLIT = "test"
PLACEHOLDER = "{c}"
FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}
MAX_MEMBER_BYTES = 100_000_000
MAX_PIXELS = 89_478_485  # a quarter of a gigabyte as RGB
BLOCK_BYTES = 1 << 20


class BadSet(ValueError):
    """An evaluation set that is not what its layout promises."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalSet:
    """An evaluation set whose texts were read; its pictures are still on disk."""

    name: str
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    shards: tuple[str, ...]  # paths of the tars
    hash: str  # sha256 over the texts and the tars


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled picture."""

    key: str
    label: int
    image: Image.Image  # RGB


def open_set(folder: str, name: str = "") -> EvalSet:
    """Read the set's texts and hash its tars. Raises BadSet where the folder does not hold a whole set."""
    if not folder:
        raise BadSet("evaluate: no evaluation set given; name its folder with --eval-set")
    classnames = _lines(files.join(folder, "classnames.txt"))
    templates = _lines(files.join(folder, "zeroshot_classification_templates.txt"))
    for template in templates:
        if PLACEHOLDER not in template:
            raise BadSet(f"{folder}: a prompt template needs {PLACEHOLDER} where the class goes, found {template!r}")
    if len(classnames) < 2:
        raise BadSet(f"{folder}/classnames.txt: expected at least 2 classes, found {len(classnames)}")
    path = files.join(folder, SPLIT, "nshards.txt")
    (count, *rest) = _lines(path)
    if rest or not count.isdecimal() or int(count) == 0:
        raise BadSet(f"{path}: expected the number of tars, found {count!r}")
    shards = tuple(files.join(folder, SPLIT, f"{index}.tar") for index in range(int(count)))
    digest = hashlib.sha256(repr((classnames, templates)).encode())
    for shard in shards:
        digest.update(_file_hash(shard))
    name = name or folder.rstrip("/").rsplit("/", 1)[-1]
    return EvalSet(name=name, classnames=classnames, templates=templates, shards=shards, hash=digest.hexdigest())


def examples(eval_set: EvalSet) -> Iterator[Example]:
    """The set's pictures with their labels, in the order of the tars. Raises BadSet at the first that is broken."""
    num_pictures = 0
    for shard in eval_set.shards:
        with _open(shard) as stream:
            for key, members in _groups(stream, shard):
                yield _example(f"{shard}: {key}", key, members, len(eval_set.classnames))
                num_pictures += 1
    if num_pictures == 0:
        raise BadSet(f"{eval_set.shards[0]}: expected pictures with labels, found none in {len(eval_set.shards)} tars")


def preprocess(image: Image.Image, resolution: int) -> np.ndarray:
    """The shorter side to `resolution` (bicubic), then the square in the middle.  RGB -> uint8 [resolution, resolution, 3]"""
    width, height = image.size
    shorter = min(width, height)
    width, height = int(resolution * width / shorter), int(resolution * height / shorter)
    left, top = round((width - resolution) / 2), round((height - resolution) / 2)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + resolution, top + resolution)))


def _lines(path: str) -> tuple[str, ...]:
    try:
        lines = files.read(path).decode().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        raise BadSet(f"{path} is not there: expected an evaluation set in CLIP_benchmark's webdataset layout") from None
    except UnicodeDecodeError as error:
        raise BadSet(f"{path}: expected a text in UTF-8, found {error}") from None
    kept = tuple(line.strip() for line in lines if line.strip())
    if not kept:
        raise BadSet(f"{path}: expected at least one line, found an empty file")
    return kept


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
    pictures = [ending for ending in members if ending in FORMATS]
    if len(pictures) != 1 or "cls" not in members:
        raise BadSet(f"{where}: expected one picture ({', '.join(FORMATS)}) and a .cls, found {', '.join(members)}")
    digits = members["cls"].strip()
    if not digits.isdigit() or int(digits) >= num_classes:
        raise BadSet(f"{where}.cls: expected a label from 0 to {num_classes - 1}, found {digits[:20]!r}")
    try:
        with Image.open(io.BytesIO(members[pictures[0]]), formats=sorted(set(FORMATS.values()))) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadSet(f"{where}: {image.width} x {image.height} pixels, expected at most {MAX_PIXELS}")
            return Example(key=key, label=int(digits), image=image.convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, struct.error) as error:
        raise BadSet(f"{where}.{pictures[0]}: expected a picture, found: {error}") from None
