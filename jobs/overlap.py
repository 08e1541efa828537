"""Find the pictures of evaluation sets that a finished dataset holds near copies of: the detector of CLIP's appendix C.

    python jobs/overlap.py mini --root out/mini --sets own=out/mini/web/test
    python jobs/evaluate.py mini --root out/mini --eval-set own=out/mini/web/test --tasks overlap:out/mini/overlap/own.txt
    ray job submit --working-dir . -- python jobs/overlap.py wit --root s3://bucket/wit --sets food101=s3://bucket/sets/food101

A set is NAME=FOLDER or FOLDER: its folder `test` where it has one (tars, or a folder a class), else all of it. Near is what
dedupe means by it (--dedupe.max-distance), mirrored copies included, among the pairs of 6_shards. Nothing of the dataset changes.
Writes root/overlap/NAME.txt, the keys that jobs/evaluate.py knows the pictures by, and root/overlap/NAME/, each with its nearest
pair. Run it again after any failure.
"""

import posixpath
from dataclasses import dataclass, field

import polars as pl

from jobs._cli import at_roots, entry
from pipeline import overlap, storage
from pipeline.config import DedupeConfig, DownloadConfig, RunConfig
from pipeline.errors import InputError
from pipeline.events import Events
from pipeline.manifest import Dataset
from pipeline.runner import Execute, run_steps, write_dataset
from pipeline.stage import Step

KEPT = ("5_unique/_trimmed", "4_images")


@dataclass(frozen=True, kw_only=True, slots=True)
class OverlapConfig:
    """Which sets are looked for, and how near is near."""

    root: str = "out/mini"  # local path or s3:// URL
    sets: tuple[str, ...] = ()  # NAME=FOLDER or FOLDER; its name is then the folder's
    dedupe: DedupeConfig = field(default_factory=DedupeConfig)
    download: DownloadConfig = field(default_factory=DownloadConfig)  # limits and size for decoding them
    run: RunConfig = field(default_factory=RunConfig)


RECIPES = at_roots(OverlapConfig)


def key_of(name: str, folder: str) -> str:
    """What jobs/evaluate.py calls a picture: its member's name up to the first dot in a tar, else its path in the folder."""
    _, is_member, member = name.partition(".tar/")
    if not is_member:
        return posixpath.relpath(name, folder)
    inner, base = posixpath.split(member)
    return posixpath.join(inner, base.partition(".")[0])


def pictures_of(folder: str) -> str:
    """The test split's folder, or the folder itself."""
    try:
        return storage.join(folder, "test") if "test" in storage.names(folder) else folder
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"overlap: --sets: {folder}: expected a folder of pictures or tars; check the path") from None


def find(config: OverlapConfig, name: str, folder: str, events: Events, execute: Execute | None) -> pl.DataFrame:
    """OVERLAPS of one set, a row for each evaluation picture that was found, with its nearest pair; and how many it has."""
    target = f"overlap/{name}"
    parts = overlap.expand([folder])
    write_dataset(storage.join(config.root, f"{target}/_files"), stage="evaluation_files", version=1, config=None, parts=parts)
    steps = [
        Step(overlap.EVALUATION, config.download, [f"{target}/_files"], f"{target}/_hashes"),
        Step(overlap.FOUND, config.dedupe, KEPT, target, {"evaluation": f"{target}/_hashes"}),
    ]
    run_steps(steps, config.root, settings=config.run, events=events, execute=execute)
    found = pl.DataFrame(Dataset(storage.join(config.root, target)).read())
    return found.sort("name", "distance", "mirrored", "pair_id").unique("name", keep="first", maintain_order=True)


def main(config: OverlapConfig, execute: Execute | None = None) -> None:
    """Find each set's overlapping pictures, and write their keys."""
    if not config.sets:
        raise InputError("overlap: expected --sets NAME=FOLDER, found none")
    events = Events(config.root, "overlap")
    for spec in config.sets:
        given, _, path = spec.rpartition("=")
        name = given or posixpath.basename(path.rstrip("/"))
        if "/" in name or not name:
            raise InputError(f"overlap: --sets: expected NAME=FOLDER with a plain name, found {spec!r}")
        folder = pictures_of(path.rstrip("/"))
        found = find(config, name, folder, events, execute)
        known = Dataset(storage.join(config.root, f"overlap/{name}/_hashes")).read(("name",))["name"].unique()
        keys = [key_of(picture, folder) for picture in found["name"].to_list()]
        target = storage.join(config.root, "overlap", f"{name}.txt")
        storage.write(target, "".join(f"{key}\n" for key in keys).encode())
        print(f"overlap={target} set={name} pictures={len(known)} found={len(keys)}", flush=True)
    events.flush()


if __name__ == "__main__":
    entry(main, RECIPES, __doc__)
