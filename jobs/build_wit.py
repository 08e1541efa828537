"""Build the dataset: web archives in, shards of image-text pairs out.

    python jobs/build_wit.py mini  --root out/mini --archives web/archives            # laptop, minutes
    ray job submit --working-dir . -- python jobs/build_wit.py pilot --root s3://bucket/pilot --archives s3://.../x.warc.wat.gz
    ray job submit --working-dir . -- python jobs/build_wit.py wit   --root s3://bucket/wit   --archives cc-2026.paths.gz

The query list must be there (jobs/build_queries.py). Stages that are finished are skipped; run the same command again
after any failure. With --retry-failed the pictures that could not be fetched are tried once more where that may help
(time-outs, names, connections, busy or failing servers; never what robots.txt, an owner or a 404 said); pictures that
are there stay as they are, and only what new ones change is made anew. Beside the shards stand a dataset card (README.md)
and its Croissant description (croissant.json).
"""

import pyarrow as pa

from jobs._cli import entry
from pipeline import (
    archives,
    balance,
    card,
    crawl,
    dedupe,
    download,
    draws,
    failures,
    fetch,
    match,
    overlap,
    schema,
    shard,
    tombstones,
)
from pipeline.config import RECIPES, DatasetConfig
from pipeline.events import Events
from pipeline.manifest import Dataset
from pipeline.runner import retry, run_steps, write_dataset
from pipeline.stage import Step
from pipeline.storage import join


def main(config: DatasetConfig) -> None:
    """Every stage in order; each reads finished folders and writes the next."""
    events = Events(config.root, "build_wit")
    fetch.check_contact(config.download)
    sources = {
        archives.part_name(source.archive): pa.Table.from_pylist([source._asdict()], schema.SOURCES)
        for source in archives.expand_archives(config.archives)
    }
    evaluation_files = overlap.expand(config.dedupe.evaluation_sets)
    _ = Dataset(join(config.root, "queries")).manifest  # a missing query list is told now, not after the crawl
    write_dataset(join(config.root, "0_sources"), stage="sources", version=1, config=None, parts=sources)
    removed = {"tombstones": tombstones.read_all(config.root, config.tombstones)}
    write_dataset(join(config.root, "0_removed"), stage="removed", version=1, config=None, parts=removed)
    trimming = draws.trimming(config.balance)
    limits, trim_limits = "3_balanced/_limits", "5_unique/_limits"
    steps = [
        Step(crawl.STAGE, config.crawl, ["0_sources"], "1_candidates"),
        Step(match.STAGE, config.match, ["1_candidates"], "2_matched", {"queries": "queries"}),
        *balance.limit_steps(config.balance, "2_matched", "3_balanced"),
        Step(balance.STAGE, config.balance, ["2_matched"], "3_balanced", {"limits": limits}),
        *balance.per_query_steps(config.balance, "3_balanced", limits, "3_balanced", "balance"),
        Step(download.STAGE, config.download, ["3_balanced"], "4_images"),
    ]
    images = run_steps(steps, config.root, settings=config.run, events=events)["4_images"]
    if config.retry_failed:
        images = retry(steps[-1], config.root, settings=config.run, events=events)
    for sentence in failures.diagnose(images.rows_in, images.drops):
        events.log("diagnosis", f"{download.STAGE.name:<16} {sentence}", stage=download.STAGE.name)
    apart = {"removed": "0_removed"}
    if evaluation_files:
        write_dataset(
            join(config.root, overlap.FILES_FOLDER), stage="evaluation_files", version=1, config=None, parts=evaluation_files
        )
        apart["overlap"] = overlap.OVERLAP_FOLDER
    evaluating = [
        Step(overlap.EVALUATION, config.download, [overlap.FILES_FOLDER], overlap.EVALUATION_FOLDER),
        Step(overlap.OVERLAP, config.dedupe, ["4_images"], overlap.OVERLAP_FOLDER, {"evaluation": overlap.EVALUATION_FOLDER}),
    ]
    steps = [
        *(evaluating if evaluation_files else []),
        *dedupe.steps(config.dedupe, apart),
        *balance.limit_steps(trimming, "5_unique", "5_unique", earlier=limits),
        Step(shard.TRIM, trimming, ["5_unique"], "5_unique/_trimmed", {"limits": trim_limits}),
        Step(shard.STAGE, config.shard, ["5_unique/_trimmed", "4_images"], "6_shards"),
        *balance.per_query_steps(trimming, "6_shards", trim_limits, "6_shards", "shard"),
    ]
    run_steps(steps, config.root, settings=config.run, events=events)
    card.write(config.root)
    events.flush()


if __name__ == "__main__":
    entry(main, RECIPES, __doc__)
