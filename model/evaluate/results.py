"""What an evaluation leaves behind: root/evaluation/<name>.json and <name>.parquet, a table and a last line.

json    accuracies, counts of each class, what was evaluated (hashes of model and set)
parquet one row a picture, in the set's order; see ROWS
law     a result whose model hash, set hash and settings are those of this run is not made again
compare see zero_shot; two results are of one protocol only where `set`, `templates` and `version` are equal
"""

import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model import files
from model.evaluate.config import EvaluateConfig
from model.evaluate.datasets import EvalSet
from model.evaluate.metrics import Accuracy

VERSION = 1  # of the protocol; raise it where the same model would get another number
MANIFEST = "_MANIFEST.json"  # of a finished model, see checkpoint
NAME_CHARS, CLASSES_A_LINE = 20, 4

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


def model_hash(folder: str) -> str:
    """What the finished model in a folder is, without its training's times. Raises ValueError where there is none."""
    path = files.join(folder, MANIFEST)
    try:
        listed = json.loads(files.read(path))["files"]
        return files.sha256(json.dumps(sorted((file["name"], file["sha256"]) for file in listed)).encode())
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{folder} holds no finished model (no {MANIFEST}): run jobs/train.py first") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected the manifest of a model, found {error!r}; run jobs/train.py again") from None


def identity(config: EvaluateConfig, eval_set: EvalSet, model: str) -> dict[str, Any]:
    """What a result depends on."""
    settings = {"num_examples": config.num_examples, "likelihood": config.likelihood}
    return {"version": VERSION, "model": model, "set": eval_set.hash, **settings}


def paths(config: EvaluateConfig, eval_set: EvalSet) -> tuple[str, str]:
    """Where the result's two files are."""
    stem = files.join(config.root, "evaluation", eval_set.name)
    return f"{stem}.json", f"{stem}.parquet"


def finished(config: EvaluateConfig, eval_set: EvalSet, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The result that is there, if it is of the same model, set and settings and its rows are whole."""
    summary, rows = paths(config, eval_set)
    try:
        found = json.loads(files.read(summary))
        same = found["identity"] == wanted and found["rows_sha256"] == files.sha256(files.read(rows))
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return None
    return found if same else None


def summarise(
    eval_set: EvalSet, scores: Accuracy, wanted: dict[str, Any], logit_scale: float | None, objective: str = "contrastive"
) -> dict[str, Any]:
    """The content of the JSON file, but for the hash of the rows. Without a `logit_scale` likelihoods ranked the classes."""
    counts = zip(eval_set.classnames, scores.pictures.tolist(), scores.right.tolist(), scores.right5.tolist(), strict=True)
    return {
        "format": 1,
        "name": eval_set.name,
        "task": "zero-shot classification",
        "top1": scores.top1,
        "top5": scores.top5,
        "mean_per_class": scores.mean_per_class,
        "chance": scores.chance,
        "num_classes": len(eval_set.classnames),
        "num_pictures": int(scores.pictures.sum()),
        "templates": list(eval_set.templates),
        "objective": objective,  # that the model was trained for
        "scoring": "cosines" if logit_scale is not None else f"likelihood ({wanted['likelihood']})",
        "logit_scale": logit_scale,  # the factor of the cosines
        "per_class": [
            {"name": name, "pictures": pictures, "right": right, "right5": right5} for name, pictures, right, right5 in counts
        ],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "identity": wanted,
    }


def rows(found: Predictions) -> pa.Table:
    """The content of the Parquet file."""
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


def write(config: EvaluateConfig, eval_set: EvalSet, summary: dict[str, Any], table: pa.Table) -> dict[str, Any]:
    """Write the rows, and last the summary with their hash; returns the summary."""
    summary_path, rows_path = paths(config, eval_set)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    summary = {**summary, "rows_sha256": files.sha256(sink.getvalue())}
    files.write(rows_path, sink.getvalue())
    files.write(summary_path, json.dumps(summary, indent=1).encode())
    return summary


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
