"""Check a finished folder of the dataset: files against the manifest, tars against their index; and mend the shards.

    python jobs/verify.py mini --root out/mini
    python jobs/verify.py wit  --root s3://bucket/wit --folder 4_images
    python jobs/verify.py mini --root out/mini --repair True

Prints a line for each fault and ends with exit code 2 where there is one. --repair writes again what of 6_shards is torn or
missing, and nothing else, from 5_unique and 4_images, and the card beside them. Other folders are mended by jobs/build_wit.py
with --run.verify hash.
"""

import json
from dataclasses import dataclass, field, replace

from jobs._cli import at_roots, entry
from pipeline import card, integrity, shard, storage
from pipeline.config import RunConfig, ShardConfig
from pipeline.errors import InputError
from pipeline.events import Events
from pipeline.folders import FINGERPRINT
from pipeline.manifest import NAME, Dataset
from pipeline.runner import Execute, run

SHARDS, SOURCES = "6_shards", ("5_unique/_trimmed", "4_images")


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyConfig:
    """What is checked, and whether it is mended."""

    root: str = "out/mini"  # local path or s3:// URL
    folder: str = SHARDS  # one with a manifest, relative to the root
    repair: bool = False
    run: RunConfig = field(default_factory=RunConfig)


RECIPES = at_roots(VerifyConfig)


def repair(config: VerifyConfig, faults: list[integrity.Fault], execute: Execute | None = None) -> None:
    """Write the torn parts of the shards again."""
    folder = storage.join(config.root, SHARDS)
    if any(fault.file == NAME and fault.what != "missing" for fault in faults):
        storage.remove(storage.join(folder, NAME))  # it is made again from the parts' records
    elif not any(fault.file == NAME for fault in faults) and "removed" in Dataset(folder).manifest.drops:
        raise InputError("verify: pairs were removed from these shards after they were written: run jobs/build_wit.py again")
    try:
        made_with = json.loads(storage.read(storage.join(folder, FINGERPRINT)))["config"]
    except FileNotFoundError:
        raise InputError(f"verify: {folder} has no {FINGERPRINT}: run jobs/build_wit.py again") from None
    sources = [storage.join(config.root, name) for name in SOURCES]
    settings, events = replace(config.run, verify="hash"), Events(config.root, "verify")
    run(shard.STAGE, ShardConfig(**made_with), sources=sources, target=folder, settings=settings, events=events, execute=execute)
    events.flush()
    card.write(config.root)


def main(config: VerifyConfig, execute: Execute | None = None) -> None:
    """Check; mend; check again."""
    if config.repair and config.folder != SHARDS:
        raise InputError(f"verify: --repair mends {SHARDS}; for {config.folder} run jobs/build_wit.py with --run.verify hash")
    folder = storage.join(config.root, config.folder)
    faults = integrity.check(folder)
    for fault in faults:
        print(f"{fault.file or fault.part or folder}: {fault.what}", flush=True)
    if faults and config.repair:
        repair(config, faults, execute)
        faults = integrity.check(folder)
    if faults:
        raise InputError(f"verify: {folder} has {len(faults)} faults, the first in {faults[0].file or folder}: {faults[0].what}")
    manifest = Dataset(folder).manifest
    print(f"verified={folder} parts={len(manifest.parts)} rows={manifest.rows_out} hash={manifest.hash}", flush=True)


if __name__ == "__main__":
    entry(main, RECIPES, __doc__)
