"""Tombstones: what must not be in the dataset, whatever the sources hold.

in      root/removed/tombstones.parquet, which jobs/remove.py writes; and the like of other roots, named with --tombstones
out     which rows of a table they name
law     a pair is named by its image URL, by the host of its image or its page or a domain above one, by its pair_id, or by
        the sha256 of its picture as served
law     tombstones are never taken away by a run; the union of two lists names what either names
cost    the list in memory of each worker, about 200 bytes a tombstone; a set look-up a row and kind
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline import hosts, storage, urls
from pipeline.errors import InputError
from pipeline.manifest import Dataset

REMOVED = "removed"  # the drop reason
PATH = ("removed", "tombstones.parquet")  # under the root
KINDS = {"url": r"https?://\S+", "domain": r"[^\s/:@]+\.[^\s/:@]+", "pair_id": "[0-9a-f]{32}", "image_hash": "[0-9a-f]{64}"}
TOMBSTONES = pa.schema([("kind", pa.string()), ("value", pa.string())])
NAMED_BY = ("image_url", "page_url", "pair_id", "sha256")  # the columns that are looked at


def rows(kind: str, values: Iterable[str]) -> list[tuple[str, str]]:
    """The tombstones of these values. InputError where one is not what its kind asks for."""
    found = []
    for value in values:
        value = value.strip() if kind in ("url", "pair_id") else value.strip().lower().rstrip(".")
        name = _as_stored(kind, value) if re.fullmatch(KINDS[kind], value) else None
        if name is None:
            raise InputError(f"remove: expected a {kind} like {KINDS[kind]}, found {value!r}")
        found.append((kind, name))
    return found


def _as_stored(kind: str, value: str) -> str | None:
    """A URL or a domain as the dataset's columns have it; None for one that can not be."""
    if kind == "url":
        return urls.canonical(value)
    if kind == "domain":
        url = urls.canonical(f"http://{value}/")
        return hosts.host(url) if url else None
    return value


def table(tombstones: Iterable[tuple[str, str]]) -> pa.Table:
    """Sorted, each once."""
    ordered = sorted(set(tombstones))
    return pa.table({"kind": [kind for kind, _ in ordered], "value": [value for _, value in ordered]}, schema=TOMBSTONES)


def read(path: str) -> list[tuple[str, str]]:
    """The tombstones of a file; none where there is none."""
    try:
        found = storage.table(storage.read(path))
    except FileNotFoundError:
        return []
    except pa.ArrowInvalid as error:
        raise InputError(f"tombstones: {path}: expected a Parquet file of tombstones: {error}") from error
    if not set(TOMBSTONES.names) <= set(found.column_names):
        raise InputError(f"tombstones: {path}: expected the columns kind and value, found {', '.join(found.column_names)}")
    return list(zip(found["kind"].to_pylist(), found["value"].to_pylist(), strict=True))


def read_all(root: str, paths: Iterable[str]) -> pa.Table:
    """Those of the root and of the files named, which must be there."""
    found = read(storage.join(root, *PATH))
    for path in paths:
        if storage.size(path) is None:
            raise InputError(f"tombstones: {path}: expected a file of tombstones, found nothing there; check the path")
        found += read(path)
    return table(found)


def read_diffs(root: str) -> list[dict[str, str]]:
    """What jobs/remove.py took out of the root's folders, in all its runs: folder, shard, key, pair_id, named."""
    folder, found = storage.join(root, PATH[0]), []
    try:
        names = storage.names(folder)
    except FileNotFoundError:
        return []
    for name in names:
        if name.startswith("diff-"):
            found += storage.table(storage.read(storage.join(folder, name))).to_pylist()
    return found


@dataclass(frozen=True)
class Tombstones:
    """What is to be left out, by kind."""

    values: dict[str, frozenset[str]]

    @classmethod
    def of(cls, found: pa.Table) -> "Tombstones":
        """From rows of TOMBSTONES."""
        pairs = list(zip(found["kind"].to_pylist(), found["value"].to_pylist(), strict=True))
        return cls({kind: frozenset(value for k, value in pairs if k == kind) for kind in KINDS})

    @classmethod
    def load(cls, dataset: Dataset | None) -> "Tombstones":
        """From the side dataset of a build; none where it has none."""
        return cls.of(TOMBSTONES.empty_table() if dataset is None else dataset.read())

    def named(self, rows: pa.Table) -> np.ndarray:
        """The tombstone's kind for each row of a table with the columns NAMED_BY (shards: url); "" where there is none."""
        kinds = np.full(rows.num_rows, "", "U10")
        url = rows["url" if "url" in rows.column_names else "image_url"]
        for kind, column in (("url", url), ("pair_id", rows["pair_id"]), ("image_hash", rows["sha256"])):
            if self.values[kind]:
                kinds[[value in self.values[kind] for value in column.to_pylist()]] = kind
        if self.values["domain"]:
            for column in (url, rows["page_url"]):
                kinds[[self._is_below(value or "") for value in column.to_pylist()]] = "domain"
        return kinds

    def _is_below(self, url: str) -> bool:
        """Whether the URL's host is one of the domains or below one; a page that is a local file has none."""
        canonical = urls.canonical(url)  # a page's stands as its archive has it
        labels = hosts.host(canonical).lower().rstrip(".").split(".") if canonical else []
        return any(".".join(labels[start:]) in self.values["domain"] for start in range(len(labels)))
