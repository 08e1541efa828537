"""Folders of datasets as a driver sees them: what each was made with, which of its parts are there, when it is finished.

law     a folder belongs to the fingerprint that was written into it first; with another one it is refused, naming the fields
law     a part is there when its record says that it was made from the same and its files are what the record says
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline import storage
from pipeline.config import RunConfig, rows_fields
from pipeline.errors import InputError
from pipeline.hashing import sha256
from pipeline.manifest import NAME, Json, Manifest, Part, canonical, intact, record_path
from pipeline.stage import Task

FINGERPRINT = "_FINGERPRINT.json"
LOOKUPS = 32  # records looked up at once: they are small and far away


def fingerprint(name: str, version: int, config: Any, upstream: Sequence[Manifest]) -> Json:
    """What the rows of a dataset depend on, but for the rows of its sources."""
    sources = {manifest.stage: sha256(canonical(manifest.fingerprint))[:16] for manifest in upstream}
    return {"stage": name, "version": version, "config": json.loads(canonical(rows_fields(config))), "upstream": sources}


def claim(target: str, mark: Json) -> None:
    """Write the fingerprint into the folder, or compare it with the one that is there."""
    path = storage.join(target, FINGERPRINT)
    try:
        found = json.loads(storage.read(path))
    except FileNotFoundError:
        storage.write(path, canonical(mark))
        return
    if found != mark:
        there, here = dict(_flat(found)), dict(_flat(mark))
        fields = [name for name in sorted(there.keys() | here.keys()) if there.get(name) != here.get(name)]
        differ = "; ".join(f"{name}: made with {there.get(name)!r}, this run asks for {here.get(name)!r}" for name in fields)
        raise InputError(f"{target} was made with another configuration ({differ}); give the same options or a new --root")


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key in value:
            yield from _flat(value[key], f"{name}.{key}" if name else key)
    else:
        yield name, value


def manifest_in(target: str) -> Manifest | None:
    """The manifest of the folder, or None where it has none."""
    try:
        return Manifest.from_json(storage.read(storage.join(target, NAME)))
    except FileNotFoundError:
        return None


def committed(target: str, tasks: Sequence[tuple[Task, str]], settings: RunConfig) -> dict[str, Part]:
    """The tasks' parts that are committed, made from the same inputs, and whole."""
    manifest = manifest_in(target)
    listed = {part.name: part for part in manifest.parts} if manifest else {}

    def look(task: Task, made_from: str) -> Part | None:
        part = listed.get(task.part)
        if part is None or part.made_from != made_from:
            try:
                part = Part.from_json(storage.read(record_path(target, task.part)))
            except (FileNotFoundError, json.JSONDecodeError, KeyError):
                return None
        return part if part.made_from == made_from and intact(target, part, settings.verify) else None

    with ThreadPoolExecutor(LOOKUPS) as pool:
        parts = pool.map(lambda item: look(*item), tasks)
        return {part.name: part for part in parts if part is not None}


def amended(target: str, manifest: Manifest, settings: RunConfig) -> dict[str, Part]:
    """The parts of the manifest that were amended since it was written: what an interrupted `retry` has done already."""

    def look(old: Part) -> Part | None:
        try:
            part = Part.from_json(storage.read(record_path(target, old.name)))
        except (FileNotFoundError, json.JSONDecodeError, KeyError):
            return None
        return part if part.amends == old.version() and intact(target, part, settings.verify) else None

    with ThreadPoolExecutor(LOOKUPS) as pool:
        return {part.name: part for part in pool.map(look, manifest.parts) if part is not None}


def finish(target: str, manifest: Manifest, old: Manifest | None) -> None:
    """Write the manifest, then remove the files that only the old one listed."""
    storage.write(storage.join(target, NAME), manifest.to_json())
    if old is None:
        return
    listed = {file.name for part in manifest.parts for file in (*part.files, *part.logs)}
    for part in old.parts:
        for file in (*part.files, *part.logs):
            if file.name not in listed:
                storage.remove(storage.join(target, file.name))
