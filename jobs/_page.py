"""The report's page: facts in, HTML out. Its look is report.html.jinja.

law     everything is escaped unless it was made here (plots, links, data URIs of pictures); the page loads nothing
"""

import base64
import unicodedata
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from jobs._plots import Line, plot
from model import report as model_report
from pipeline import report as pipeline_report
from pipeline.query_report import Queries

LIBRARIES = ("ray", "torch", "pyarrow", "polars", "numpy", "tokenizers", "pillow", "opencv-python-headless")
LONGEST_TEXT, LONGEST_URL = 400, 2000
MOST_POINTS = 2000  # of a line
RANK_RUNS = 120  # of queries, on the line of kept shares
CURVES = {
    "loss": "loss",
    "logit_scale": "logit scale (factor of the cosines)",
    "lr": "learning rate",
    "pairs_per_second": "pairs per second",
}


def data_uri(data: bytes) -> str:
    """A JPEG or PNG as an address that holds it."""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def clean(text: str, longest: int = LONGEST_TEXT) -> str:
    """A stranger's text to be shown (and escaped by the template): no control characters, not endless."""
    text = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char) in ("Cc", "Cs") and char not in "\t\n" else char
        for char in text
    )
    return text if len(text) <= longest else text[:longest] + " …"


def link(url: str, shown: str = "") -> Markup:
    """A stranger's URL: a link that tells nobody where it was clicked if it is http(s) and not endless, else plain text.

    `shown` is what stands there instead of the URL, which is shown without its scheme.
    """
    shown = clean(shown or url.removeprefix("http://").removeprefix("https://"), 120)
    try:
        good = urlsplit(url).scheme in ("http", "https") and len(url) <= LONGEST_URL and url == clean(url, LONGEST_URL)
    except ValueError:
        good = False
    if not good:
        return Markup("<bdi>{}</bdi>").format(shown)
    return Markup('<a href="{}" rel="noreferrer noopener nofollow" target="_blank"><bdi>{}</bdi></a>').format(url, shown)


def number(value: float) -> str:
    """A count, with separators."""
    return f"{value:,.0f}"


def share(value: float) -> str:
    """A part of a whole."""
    return f"{value:.1%}"


def chance(value: float) -> str:
    """A probability, however small."""
    return f"{value:.3g}" if value < 0.1 else f"{value:.2f}"


def size(num_bytes: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"


def query_plots(queries: Queries) -> list[tuple[str, Markup]]:
    """Pairs of each query by its rank, before and after; and which share of them stays."""
    lines = []
    for name, counts in (("before", queries.before), ("after", queries.after)):
        counts = counts[counts > 0]
        ranks = np.unique(np.geomspace(1, max(1, len(counts)), MOST_POINTS).astype(int))[: len(counts)]
        lines.append(Line(name=name, x=ranks.tolist(), y=counts[ranks - 1].tolist()))
    level = {f"limit {queries.max_per_query:,}": float(queries.max_per_query)}
    ranks, shares = queries.kept_share_by_rank(RANK_RUNS)
    share_line = Line(name="kept share", x=ranks, y=shares)
    return [
        (
            "Pairs of each query by its rank (both axes logarithmic)",
            plot(lines, x_label="rank of the query", y_label="pairs", logarithmic="xy", level=level, inches=(5.4, 4)),
        ),
        (
            "Share of a query's pairs that stays, by its rank before balancing",
            plot([share_line], x_label="rank of the query", logarithmic="x", from_zero=True, inches=(5.4, 4)),
        ),
    ]


def curve_plots(training: model_report.Training) -> list[tuple[str, Markup]]:
    """One plot for each curve, with its title."""
    lines = {name: Line(name=name, x=training.steps, y=values) for name, values in training.curves.items()}
    return [
        (title, plot([lines[name]], x_label="step", from_zero=name in ("lr", "pairs_per_second")))
        for name, title in CURVES.items()
        if name in lines
    ]


def score_plots(model: model_report.Facts) -> list[tuple[str, Markup]]:
    """The headline of each task on each set by the steps of a training's checkpoints, and the plots that the tasks made."""
    curves: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    for row in model.scores:
        if row["headline"] and row["step"] is not None and row["value"] is not None:
            curves.setdefault((row["set"], row["task"], row["metric"]), []).append((row["step"], row["value"]))
    plots = []
    for (name, task, metric), points in sorted(curves.items()):
        if len(points) > 1:
            x, y = zip(*sorted(points), strict=True)
            title = f"{metric} of {clean(name, 40)} ({clean(task, 40)}) while training"
            plots.append((title, plot([Line(name=metric, x=x, y=y)], x_label="step", from_zero=True)))
    for result in model.tasks:
        for made in result.get("plots", []):
            lines = [Line(name=clean(name, 40), x=x, y=y) for name, (x, y) in made["lines"].items()]
            x_label, y_label, log = clean(made["x_label"], 60), clean(made["y_label"], 60), "x" if made["logarithmic_x"] else ""
            drawn = plot(lines, x_label=x_label, y_label=y_label, logarithmic=log)
            plots.append((f"{clean(made['title'], 120)} ({clean(result['name'], 40)})", drawn))
    return plots


def render(root: str, recipe: str, facts: pipeline_report.Facts, model: model_report.Facts, made: datetime) -> str:
    """The page about `root`."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "data_uri": data_uri,
        "clean": clean,
        "link": link,
        "number": number,
        "share": share,
        "chance": chance,
        "size": size,
    }
    environment.filters.update(filters)
    return environment.get_template("report.html.jinja").render(
        root=root,
        recipe=recipe,
        data=facts,
        model=model,
        made=made,
        why=pipeline_report.WHY,
        with_pictures=pipeline_report.WITH_PICTURES,
        query_plots=query_plots(facts.queries) if facts.queries and facts.queries.num_matched else [],
        score_plots=score_plots(model),
        curve_plots=curve_plots(model.training) if model.training else [],
        versions={"python": python_version(), **{name: version(name) for name in LIBRARIES}},
    )
