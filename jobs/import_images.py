"""Take in what img2dataset downloaded (LAION, DataComp, CC12M, ...): its folders in, shards out, no crawl.

    python jobs/import_images.py pilot --root out/cc12m --folders cc12m/
    ray job submit --working-dir . -- python jobs/import_images.py wit --root s3://bucket/laion --folders s3://bucket/laion/0 s3://...

A folder holds NNNNN.tar and NNNNN.parquet (--output_format webdataset). The pictures stay as they are, are hashed and
become 4_images; then they are deduplicated and sharded as those of a crawl. Their texts are not compared with queries:
query_ids are empty, and no limit for each query applies. A dataset card stands beside the shards. Run the same command again
after any failure.
"""

from dataclasses import dataclass, field

import pyarrow as pa

from jobs._cli import entry
from pipeline import archives, balance, card, dedupe, foreign, schema, shard, tombstones
from pipeline.config import BalanceConfig, DedupeConfig, ImportConfig, RunConfig, ShardConfig
from pipeline.errors import InputError
from pipeline.events import Events
from pipeline.runner import run_steps, write_dataset
from pipeline.stage import Step
from pipeline.storage import join


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportImagesConfig:
    """A whole import."""

    root: str = "out/mini"  # local path or s3:// URL
    folders: tuple[str, ...] = ()  # that img2dataset wrote
    images: ImportConfig = field(default_factory=ImportConfig)
    dedupe: DedupeConfig = field(default_factory=DedupeConfig)
    shard: ShardConfig = field(default_factory=ShardConfig)
    run: RunConfig = field(default_factory=RunConfig)


def pilot() -> ImportImagesConfig:
    """One folder on one machine."""
    return ImportImagesConfig(root="out/pilot", run=RunConfig(verify="hash"))


def wit() -> ImportImagesConfig:
    """Many folders on a cluster."""
    return ImportImagesConfig(root="out/wit", dedupe=DedupeConfig(num_buckets=512))


RECIPES = {"pilot": pilot, "wit": wit}


def main(config: ImportImagesConfig) -> None:
    """Each folder's shards become parts; then the stages that follow a download."""
    events = Events(config.root, "import_images")
    if not config.folders:
        raise InputError("import: expected at least one folder that img2dataset made, found none; give --folders")
    if config.dedupe.evaluation_sets:
        raise InputError("import: --dedupe.evaluation-sets is for build_wit; after an import jobs/overlap.py finds near copies")
    found = [row for folder in config.folders for row in foreign.shards(folder)]
    parts = {archives.part_name(row["tar"]): pa.Table.from_pylist([row], schema.FOREIGN) for row in found}
    write_dataset(join(config.root, "0_shards"), stage="foreign", version=1, config=None, parts=parts)
    removed = {"tombstones": tombstones.read_all(config.root, ())}
    write_dataset(join(config.root, "0_removed"), stage="removed", version=1, config=None, parts=removed)
    limits = BalanceConfig(num_query_buckets=1)  # no pair has a query, so that there is nothing to limit
    apart = {"removed": "0_removed"}
    steps = [
        Step(foreign.STAGE, config.images, ["0_shards"], "4_images"),
        *dedupe.steps(config.dedupe, apart),
        *balance.limit_steps(limits, "5_unique", "5_unique"),
        Step(shard.TRIM, limits, ["5_unique"], "5_unique/_trimmed", {"limits": "5_unique/_limits"}),
        Step(shard.STAGE, config.shard, ["5_unique/_trimmed", "4_images"], "6_shards"),
    ]
    run_steps(steps, config.root, settings=config.run, events=events)
    card.write(config.root)
    events.flush()


if __name__ == "__main__":
    entry(main, RECIPES, __doc__)
