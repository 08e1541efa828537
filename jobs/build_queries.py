"""Build the query list: what the pairs are looked for with.

    python jobs/build_queries.py mini --root out/mini --queries.concept-files concepts.txt --queries.text-files texts.txt
    ray job submit --working-dir . -- python jobs/build_queries.py wit --root s3://bucket/wit --queries.text-files enwiki.txt.gz

Writes root/queries, which jobs/build_wit.py reads. The same command again changes nothing.
"""

from jobs._cli import entry
from pipeline.config import RECIPES, DatasetConfig
from pipeline.events import Events
from pipeline.queries import build_queries, notes
from pipeline.runner import write_dataset
from pipeline.storage import join


def main(config: DatasetConfig) -> None:
    """The list as one dataset of one part, and a line that says what is in it."""
    events = Events(config.root, "build_queries")
    queries = build_queries(config.queries)
    manifest = write_dataset(
        join(config.root, "queries"), stage="queries", version=1, config=config.queries, parts={"queries": queries}
    )
    line = ", ".join(f"{key} {value}" for key, value in notes(queries).items())
    events.log("queries_done", f"queries          {manifest.rows_out:,}  ({line})", queries=manifest.rows_out, **notes(queries))
    events.flush()


if __name__ == "__main__":
    entry(main, RECIPES, __doc__)
