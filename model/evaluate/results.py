"""What an evaluation leaves behind, and whether it is there already.

files   root/evaluation/STEM.json and, where the task has rows, STEM.parquet. STEM is the set's name for zero_shot, SET.TASK for
        every other task; another model's results lie in models/NAME/ below
        root/evaluation/_SCORES.json and _SCORES.parquet: a row for each number of each result of this model
json    the numbers (`values`), what was evaluated (`identity`: hashes of model and set, settings), pictures that are unreadable
parquet of zero_shot: one row a picture, in the set's order; see ROWS
law     a result whose model hash, set hash and settings are those of this run is not made again
compare see the task's module; two results are of one protocol only where `set`, `templates` and `version` are equal
"""

import hashlib
import io
import json
import math
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model import files
from model.evaluate import metrics
from model.evaluate.config import EvaluateConfig
from model.evaluate.datasets import EvalSet
from model.evaluate.embeddings import Embedded
from model.evaluate.tasks import Result

VERSION = 2  # of the protocol; raise it where the same model would get another number
MANIFEST = "_MANIFEST.json"  # of a finished model, see checkpoint
NAME_CHARS, CLASSES_A_LINE = 20, 4
MAX_UNREADABLE = 1000  # that are named in a result; all are counted

SCORES = pa.schema(
    [
        ("model", pa.string()),  # its folder or file
        ("model_hash", pa.string()),
        ("step", pa.int64()),  # of a training's checkpoint; null for every other model
        ("set", pa.string()),
        ("task", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("headline", pa.bool_()),  # the task's own metric for this set
        ("num_pictures", pa.int64()),
        ("num_unreadable", pa.int64()),
    ]
)
ROWS = pa.schema(
    [
        ("index", pa.int64()),  # place in the set, from 0
        ("key", pa.string()),  # name of the members in the tar
        ("label", pa.int32()),  # the truth
        ("predicted", pa.int32()),
        ("top5", pa.list_(pa.int32())),  # best first
        ("top5_scores", pa.list_(pa.float32())),  # their probabilities
        ("score", pa.float32()),  # probability of `predicted`
        ("picture", pa.binary()),  # small PNG, for a few rows chosen by hash; else null
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """One entry for each picture, in the set's order."""

    keys: list[str]
    labels: np.ndarray  # [B] int64
    ranked: np.ndarray  # [B, 5] int64, best first
    probabilities: np.ndarray  # [B, 5] float32, of the ranked classes
    pictures: dict[int, bytes]  # PNG of some examples, by their place


def model_hash(config: EvaluateConfig) -> str:
    """What the model is, without its training's times. Raises ValueError where there is none."""
    folder = config.model_path
    path = files.join(folder, MANIFEST)
    if config.model and not is_ours(folder):
        return _foreign_hash(config)
    try:
        listed = json.loads(files.read(path))["files"]
        return files.sha256(json.dumps(sorted((file["name"], file["sha256"]) for file in listed)).encode())
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{folder} holds no finished model (no {MANIFEST}): run jobs/train.py first") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected the manifest of a model, found {error!r}; run jobs/train.py again") from None


def is_ours(path: str) -> bool:
    """True for a model folder of ours."""
    return not os.path.isfile(path) and MANIFEST in files.names(path)


def _foreign_hash(config: EvaluateConfig) -> str:
    """The same of another project's file or folder: every byte of it, and what it was told."""
    path = config.model
    if not os.path.exists(path):
        raise ValueError(f"--model {path}: there is no such file or folder")
    listed = files.names(path) if os.path.isdir(path) else []
    names = [name for name in listed if os.path.isfile(files.join(path, name))]
    digest = hashlib.sha256(repr((config.activation, names)).encode())
    for name in [*(files.join(path, name) for name in names), *([] if names else [path]), *filter(None, [config.tokenizer])]:
        try:
            with open(name, "rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise ValueError(f"{name}: expected a file of a model, found {error.strerror}") from None
    return digest.hexdigest()


def identity(model: str, eval_set: EvalSet, task: str, needs: dict[str, Any]) -> dict[str, Any]:
    """What a result depends on."""
    return {"version": VERSION, "model": model, "set": eval_set.hash, "task": task, **needs}


def paths(config: EvaluateConfig, set_name: str, task: str) -> tuple[str, str]:
    """Where the result's two files are."""
    name = set_name if task == "zero_shot" else f"{set_name}.{task.replace('/', '_').replace(':', '.')}"
    stem = files.join(config.folder, name)
    return f"{stem}.json", f"{stem}.parquet"


def finished(config: EvaluateConfig, set_name: str, task: str, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The result that is there, if it is of the same model, set and settings and its rows are whole."""
    summary, rows = paths(config, set_name, task)
    try:
        found = json.loads(files.read(summary))
        same = found["identity"] == wanted
        whole = found["rows_sha256"] is None or found["rows_sha256"] == files.sha256(files.read(rows))
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return None
    return found if same and whole else None


def classes(
    eval_set: EvalSet, embedded: Embedded, ranked: np.ndarray, facts: dict[str, Any], likelihood: str
) -> dict[str, Any]:  # fmt: skip
    """What a classification's JSON file says beside its numbers."""
    facts = {
        "num_classes": len(eval_set.classnames),
        "templates": list(eval_set.templates),
        "objective": facts["objective"],  # that the model was trained for
        "scoring": "cosines" if "logit_scale" in facts else f"likelihood ({likelihood})",
        "logit_scale": facts.get("logit_scale"),  # the factor of the cosines
    }
    if embedded.truths is not None:
        return facts
    scores = metrics.accuracy(embedded.labels, ranked, len(eval_set.classnames))
    counts = zip(eval_set.classnames, scores.pictures.tolist(), scores.right.tolist(), scores.right5.tolist(), strict=True)
    per_class = [
        {"name": name, "pictures": pictures, "right": right, "right5": right5} for name, pictures, right, right5 in counts
    ]
    return {**facts, "top1": scores.top1, "top5": scores.top5, "chance": scores.chance,
            "mean_per_class": scores.mean_per_class, "per_class": per_class}  # fmt: skip


def rows(found: Predictions) -> pa.Table:
    """The content of the Parquet file of a classification."""
    pictures = [found.pictures.get(place) for place in range(len(found.keys))]
    columns = {
        "index": np.arange(len(found.keys)),
        "key": found.keys,
        "label": found.labels,
        "predicted": found.ranked[:, 0],
        "top5": found.ranked.tolist(),
        "top5_scores": found.probabilities.tolist(),
        "score": found.probabilities[:, 0],
        "picture": pa.array(pictures, pa.binary()),
    }
    return pa.table(columns).select(ROWS.names).cast(ROWS)


def write(config: EvaluateConfig, task: str, result: Result, wanted: dict[str, Any]) -> dict[str, Any]:
    """Write the rows, and last the summary with their hash; returns the summary."""
    summary_path, rows_path = paths(config, result.set, task)
    sha256 = None
    if result.rows is not None:
        sink = io.BytesIO()
        pq.write_table(result.rows, sink, compression="zstd")
        files.write(rows_path, sink.getvalue())
        sha256 = files.sha256(sink.getvalue())
    values = {name: None if math.isnan(value) else value for name, value in result.values.items()}
    named = dict(sorted(result.unreadable.items())[:MAX_UNREADABLE])
    summary = {
        "format": 2, "name": result.set, "task": task, "model": config.model_path, "values": values,
        "num_pictures": result.num_pictures, "num_unreadable": len(result.unreadable), "unreadable": named, **result.facts,
        "plots": [asdict(plot) for plot in result.plots], "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "identity": wanted, "rows_sha256": sha256,
    }  # fmt: skip
    files.write(summary_path, json.dumps(summary, indent=1).encode())
    return summary


def write_scores(config: EvaluateConfig) -> pa.Table:
    """The numbers of all results of a model that are there as one table, on disk as JSON and Parquet."""
    names = [name for name in files.names(config.folder) if name.endswith(".json") and name[0] != "_"]
    summaries = [json.loads(files.read(files.join(config.folder, name))) for name in names]
    table = pa.Table.from_pylist(
        [
            {
                "model": summary["model"], "model_hash": summary["identity"]["model"], "step": config.step,
                "set": summary["name"], "task": summary["task"], "metric": metric, "value": value, "headline": place == 0,
                "num_pictures": summary["num_pictures"], "num_unreadable": summary["num_unreadable"],
            }
            for summary in summaries
            for place, (metric, value) in enumerate(summary["values"].items())
        ],
        schema=SCORES,
    )  # fmt: skip
    sink = io.BytesIO()
    pq.write_table(table, sink)
    files.write(files.join(config.folder, "_SCORES.parquet"), sink.getvalue())
    files.write(files.join(config.folder, "_SCORES.json"), json.dumps(table.to_pylist(), indent=1).encode())
    return table


def table_text(summaries: list[dict[str, Any]]) -> str:
    """A line for each result: set, task, pictures, numbers."""
    lines = []
    for summary in summaries:
        numbers = "  ".join(f"{name} {'-' if value is None else f'{value:.4f}'}" for name, value in summary["values"].items())
        lost = f" ({summary['num_unreadable']:,} unreadable)" if summary["num_unreadable"] else ""
        lines.append(f"{summary['name'][:24]:<24} {summary['task'][:24]:<16} {summary['num_pictures']:>9,}{lost}  {numbers}")
    return "\n".join(lines)


def text(summary: dict[str, Any]) -> str:
    """Per-class top-1 for a terminal, best first, and the means."""
    counted = [entry for entry in summary["per_class"] if entry["pictures"]]
    ranked = sorted(counted, key=lambda entry: (-entry["right"] / entry["pictures"], entry["name"]))
    cells = [f"{entry['name'][:NAME_CHARS]:<{NAME_CHARS}} {entry['right'] / entry['pictures']:4.0%}" for entry in ranked]
    lines = ["   ".join(cells[start : start + CLASSES_A_LINE]) for start in range(0, len(cells), CLASSES_A_LINE)]
    lines.append(
        f"{summary['name']}: {summary['num_pictures']:,} pictures, {len(summary['templates'])} prompts a class, "
        f"mean per class {summary['mean_per_class']:.1%}"
    )
    return "\n".join(lines)


def last_line(summary: dict[str, Any]) -> str:
    """The result for programs and people in a hurry."""
    return (
        f"top1={summary['top1']:.2f} top5={summary['top5']:.2f} classes={summary['num_classes']} chance={summary['chance']:.3f}"
    )
