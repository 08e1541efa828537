"""Which files are which evaluation set.

in      --sets: a folder, NAME=FOLDER, or the name of a set that needs no files (`digits`). NAME is a set's of the registry, or
        any other. A folder is, by what is in it:
        SPLIT/nshards.txt               CLIP_benchmark's tars, see tars.py
        [data/]SPLIT-*.parquet          Hugging Face's tables, see tables.py
        *.bin, *-ubyte                  CIFAR's binary version, MNIST's idx files, see folders.py
        SPLIT/CLASS/*.jpg               folders of pictures, see folders.py
        SPLIT is train, val or test. Classes and prompts: texts.py
out     an EvalSet, and the examples of its units
errors  BadSet
"""

from collections.abc import Iterator
from dataclasses import replace

from model import files
from model.evaluate import arrays, folders, tables, tars, texts
from model.evaluate.datasets import BadSet, EvalSet, Example, Split, Unit, check_prompts


def parse(spec: str) -> tuple[str, str]:
    """The name, or "", and the folder of NAME=FOLDER. Raises BadSet without a folder."""
    given, _, folder = spec.rpartition("=")
    if not folder:
        raise BadSet("evaluate: no evaluation set given; name its folder with --eval-set")
    return given, folder


def open_set(spec: str, name: str = "") -> EvalSet:
    """The set that `spec` means. Raises BadSet where there is none, or not a whole one."""
    given, folder = parse(spec)
    if not given and folder in arrays.BUILT_IN:
        return arrays.open_built_in(folder, name or folder)
    name = name or given or folder.rstrip("/").rsplit("/", 1)[-1]
    if files.is_remote(folder) or tars.is_one(folder):
        return _with_metric(tars.open_set(folder, name))
    found = texts.read(name, folder)
    if listed := tables.files_of(folder):
        return _tables(folder, name, listed, found)
    if listed := folders.binary_files(folder):
        names = _names(folder, found, folders.binary_names(folder))
        return _classes(folder, name, found, names, folders.open_binary(folder, listed, len(names)))
    if classes := folders.class_folders(folder):
        order = list(found.folders) or classes
        texts.check_count(name, len(order), found)
        names = _names(folder, found, [one.replace("_", " ") for one in order])
        return _classes(folder, name, found, names, folders.open_classes(folder, {one: i for i, one in enumerate(order)}))
    return tars.open_set(folder, name)  # which tells what is missing


def _with_metric(eval_set: EvalSet) -> EvalSet:
    """The paper's metric for a set of the registry, whose classes are counted."""
    entry = texts.registry().get(eval_set.name)
    if entry is None or eval_set.kind != "classes":
        return eval_set
    if len(eval_set.classnames) != entry["classes"]:
        raise BadSet(
            f"{eval_set.source}/classnames.txt: expected {entry['classes']} classes, as the registry says of {eval_set.name}, "
            f"found {len(eval_set.classnames)}"
        )
    return replace(eval_set, metric=entry["metric"])


def _tables(folder: str, name: str, listed: dict[str, list[str]], found: texts.Texts) -> EvalSet:
    first = next(iter(listed.values()))[0]
    if tables.columns(first)[2]:
        return EvalSet(name=name, kind="captions", splits=tables.open_tables(listed), source=folder)
    names = _names(folder, found, tables.class_names(first))
    texts.check_count(name, len(names), found)
    eval_set = _classes(folder, name, found, names, tables.open_tables(listed))
    return replace(eval_set, kind="multilabel", metric="map11") if tables.is_multilabel(first) else eval_set


def _names(folder: str, found: texts.Texts, others: list[str]) -> tuple[tuple[str, ...], ...]:
    if not found.names and not others:
        raise BadSet(f"{folder}: nothing tells the names of its classes: write them into {folder}/set.toml")
    return found.names or tuple((one,) for one in others)


def _classes(folder: str, name: str, found: texts.Texts, names: tuple[tuple[str, ...], ...], splits: dict[str, Split]) -> EvalSet:
    check_prompts(folder, names, found.templates)
    return EvalSet(
        name=name, names=names, classnames=tuple(first for first, *_ in names), templates=found.templates, metric=found.metric,
        splits=splits, source=folder,
    )  # fmt: skip


def examples(eval_set: EvalSet, unit: Unit) -> Iterator[Example]:
    """The pictures of a unit, in their order. Raises BadSet for what is no picture with a label."""
    num_classes = 0 if eval_set.kind == "captions" else len(eval_set.classnames)
    if unit.layout == "tars":
        return tars.examples(unit, num_classes)
    if unit.layout == "tables":
        return tables.examples(unit, num_classes)
    if unit.layout == "digits":
        return arrays.examples(unit)
    return folders.file_examples(unit) if unit.layout == "folders" else folders.binary_examples(unit)
