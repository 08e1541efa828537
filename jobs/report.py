"""The report: one HTML page about a root, with everything in it that it shows.

    python jobs/report.py mini --root out/mini
    ray job submit --working-dir . -- python jobs/report.py wit --root s3://bucket/wit

Reads what is finished under --root and writes root/report/index.html and, where balancing is done, root/report/queries.parquet
with a row for each query (columns: pipeline/query_report.py), and, where evaluation sets were named, what of each was
found among the pairs, root/report/evaluation_overlap.parquet (columns: overlap.summary). What is missing is said so in the
page. The last line is `report=PATH`. The page loads nothing: no script, no network; what strangers wrote is escaped.
"""

import io
from dataclasses import dataclass
from datetime import UTC, datetime

from jobs._cli import entry
from jobs._page import render
from model import report as model_report
from pipeline import overlap, storage
from pipeline import report as pipeline_report
from pipeline.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig:
    """What the page is made of."""

    root: str = "out/mini"  # local path or s3:// URL
    recipe: str = ""  # a name for the page's head
    num_kept: int = 48  # pairs on the sheet of kept ones
    num_dropped: int = 4  # dropped rows for each reason


def mini() -> ReportConfig:
    """The mini run."""
    return ReportConfig(recipe="mini")


def pilot() -> ReportConfig:
    """A pilot."""
    return ReportConfig(root="out/pilot", recipe="pilot")


def wit() -> ReportConfig:
    """The whole dataset."""
    return ReportConfig(root="out/wit", recipe="wit")


RECIPES = {"mini": mini, "pilot": pilot, "wit": wit}


def main(config: ReportConfig) -> None:
    """Collect, render, write."""
    facts = pipeline_report.collect(config.root, num_kept=config.num_kept, num_dropped=config.num_dropped)
    model = model_report.collect(config.root)
    if not (facts.origins or model.training or model.model or model.results):
        raise InputError(
            f"report: nothing to report: {config.root} holds no finished dataset, training or evaluation; check --root"
        )
    page = render(config.root, config.recipe, facts, model, datetime.now(UTC))
    if facts.queries is not None:
        path = storage.join(config.root, "report", "queries.parquet")
        storage.write(path, facts.queries.to_parquet())
        print(f"queries={path}", flush=True)
    sets = overlap.summary(config.root)
    if sets is not None:
        path = storage.join(config.root, "report", "evaluation_overlap.parquet")
        sink = io.BytesIO()
        sets.write_parquet(sink)
        storage.write(path, sink.getvalue())
        print(f"evaluation_overlap={path}", flush=True)
    path = storage.join(config.root, "report", "index.html")
    storage.write(path, page.encode("utf-8", "replace"))
    print(f"report={path}", flush=True)


if __name__ == "__main__":
    entry(main, RECIPES, __doc__)
