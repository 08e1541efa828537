"""Take pairs out of a finished dataset, and keep them out.

    python jobs/remove.py mini --root out/mini --urls https://a.example/1.jpg --domains example.org
    python jobs/remove.py wit  --root s3://bucket/wit --pair-ids 0123...  --image-hashes 89ab... --lists requests.txt

First the tombstones are written (root/removed/tombstones.parquet): from then on jobs/build_wit.py drops what they name, reason
`removed`, whatever the sources hold; other roots take them in with --tombstones. Then each shard of 6_shards and each part
of 4_images that holds such a pair is written again without it, and nothing else; what left each is listed in
root/removed/diff-HASH.parquet (folder, shard, key, pair_id, and which kind of tombstone named it). Run it again after a
failure. A domain stands for itself and every host below it, of pictures and of pages; a picture that is to go wherever it
was found is named by --image-hashes, the sha256 of its bytes as served. Not rewritten: 1_candidates to 3_balanced, which hold
URLs and texts, no pictures; report/ and embeddings/, which are made anew by their own jobs. The dataset card is written anew.
Shards that were rewritten have fewer pairs; the next build_wit deals them anew.
"""

import io
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from jobs._cli import at_roots, entry
from pipeline import card, hashing, storage, tombstones
from pipeline.errors import InputError
from pipeline.manifest import Dataset, Manifest, Part
from pipeline.parts import record_path, rewrite
from pipeline.runner import finish
from pipeline.tombstones import REMOVED, Tombstones

FOLDERS = ("6_shards", "4_images")
DIFF = ("shard", "key", "pair_id", "named")


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoveConfig:
    """What is to leave."""

    root: str = "out/mini"  # local path or s3:// URL
    urls: tuple[str, ...] = ()  # of images, canonical as in the column image_url
    domains: tuple[str, ...] = ()
    pair_ids: tuple[str, ...] = ()
    image_hashes: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()  # files with a line `kind value` each; kind: url, domain, pair_id, image_hash


RECIPES = at_roots(RemoveConfig)


def asked(config: RemoveConfig) -> list[tuple[str, str]]:
    """Every tombstone of the command line and its lists."""
    by_kind = {"url": config.urls, "domain": config.domains, "pair_id": config.pair_ids, "image_hash": config.image_hashes}
    found = [row for kind, values in by_kind.items() for row in tombstones.rows(kind, values)]
    for path in config.lists:
        if storage.size(path) is None:
            raise InputError(f"remove: --lists: {path}: expected a file of lines `kind value`, found none")
        for line in storage.read(path).decode().splitlines():
            kind, _, value = line.strip().partition(" ")
            if kind and kind not in tombstones.KINDS:
                raise InputError(
                    f"remove: {path}: expected lines `kind value`, kind one of {', '.join(tombstones.KINDS)}, found {line!r}"
                )
            found += tombstones.rows(kind, [value]) if kind else []
    if not found:
        raise InputError("remove: nothing named; give --urls, --domains, --pair-ids, --image-hashes or --lists")
    return found


def remove(root: str, name: str, stones: Tombstones) -> int:
    """Rewrite what of a folder holds pairs that are named, and say in diffs what left; the number of pairs."""
    folder = storage.join(root, name)
    old, parts, count = Dataset(folder).manifest, [], 0

    def tell(rows: pa.Table) -> None:
        nonlocal count
        count += rows.num_rows
        data = parquet(pa.table({"folder": [name] * rows.num_rows, **{column: rows[column] for column in DIFF}}))
        storage.write(storage.join(root, "removed", f"diff-{hashing.sha256(data)[:16]}.parquet"), data)

    for part in old.parts:
        newer = Part.from_json(storage.read(record_path(folder, part.name)))  # differs where an earlier removal was cut off
        known = {file.sha256 for file in newer.files} if newer.made_from == part.made_from else set()
        parts.append(rewrite(folder, part, known, stones.named, REMOVED, tell))
    manifest = Manifest(
        stage=old.stage, fingerprint=old.fingerprint, parts=tuple(parts), num_buckets=old.num_buckets, seconds=old.seconds
    )
    if manifest.hash != old.hash:
        finish(folder, manifest, old)
    return count


def main(config: RemoveConfig) -> None:
    """Tombstones, shards, images, diffs."""
    wanted = asked(config)
    path = storage.join(config.root, *tombstones.PATH)
    for name in FOLDERS:
        _ = Dataset(storage.join(config.root, name)).manifest  # what is not finished is told before anything is written
    stones = tombstones.table([*tombstones.read(path), *wanted])
    storage.write(path, parquet(stones))
    print(f"tombstones={path} rows={stones.num_rows}", flush=True)
    for name in FOLDERS:
        print(f"removed={remove(config.root, name, Tombstones.of(stones))} folder={name}", flush=True)
    card.write(config.root)


def parquet(table: pa.Table) -> bytes:
    """The table as a file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


if __name__ == "__main__":
    entry(main, RECIPES, __doc__)
