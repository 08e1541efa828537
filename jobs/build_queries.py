"""Build the query list: what the pairs are looked for with.

    python jobs/build_queries.py mini --root out/mini --queries.concept-files concepts.txt --queries.text-files texts.txt
    ray job submit --working-dir . -- python jobs/build_queries.py wit --root s3://bucket/wit \\
        --queries.dump-files s3://bucket/dumps/enwiki-20260501-pages-articles-multistream.xml.bz2 \\
        --queries.view-files s3://bucket/dumps/pageviews-202604-user.bz2

Writes root/queries, which jobs/build_wit.py reads. The same command again is skipped, or goes on where it was stopped.
"""

from jobs._cli import entry
from pipeline import queries
from pipeline.config import RECIPES, DatasetConfig
from pipeline.events import Events
from pipeline.manifest import Dataset, Manifest
from pipeline.runner import Execute, in_process, on_ray, run, write_dataset
from pipeline.storage import join

SMALL_BYTES = 16 << 20  # of dumps, texts and page views: less than this is done before Ray would have begun
TOLD = ("order", "num_words", "wordnet", "lowest_pmi", "lowest_title_views")


def build(config: DatasetConfig, events: Events, execute: Execute | None = None) -> Manifest:
    """Bring root/queries up to date. `execute`: how parts are made; None: on Ray where there is much to do."""
    folder = join(config.root, "queries")
    files = queries.files(config.queries)
    names = {name: join(folder, f"_{name}") for name in ("files", "pieces", "counts", "sums", "titles")}
    write_dataset(names["files"], stage="queries_files", version=1, config=None, parts=files)
    rows = [table.to_pylist()[0] for table in files.values()]
    size = sum(row["file_bytes"] for row in rows if row["kind"] in ("dump", "text", "views"))
    execute = execute or (in_process if size <= SMALL_BYTES else on_ray)
    steps = [  # stage, source, target, side datasets, where
        (queries.PIECES, names["files"], names["pieces"], {}, execute),
        (queries.COUNTS, names["pieces"], names["counts"], {}, execute),
        (queries.SUMS, names["counts"], names["sums"], {}, execute),
        (queries.TITLES, names["sums"], names["titles"], {}, execute),
        (queries.STAGE, names["titles"], folder, {"pieces": names["pieces"]}, in_process),
    ]
    for stage, source, target, sides, where in steps:
        manifest = run(
            stage, config.queries, sources=[source], target=target, sides=sides, settings=config.run, events=events, execute=where
        )
    return manifest


def main(config: DatasetConfig) -> None:
    """The list, and a line that says what is in it."""
    events = Events(config.root, "build_queries")
    manifest = build(config, events)
    told = queries.notes(Dataset(join(config.root, "queries")).read())
    counts = [f"num_{kind}" for kind in config.queries.order]
    line = ", ".join(f"{key} {told[key]}" for key in (*counts, *TOLD))
    events.log("queries_done", f"queries          {manifest.rows_out:,}  ({line})", queries=manifest.rows_out, **told)
    events.flush()


if __name__ == "__main__":
    entry(main, RECIPES, __doc__)
