"""The report's facts about a model: the curves of its training, its zero-shot results, what it was made with.

in      root/train/events.jsonl, root/model, root/evaluation/*.json and *.parquet, the same of models/*/ in it; what is not
        there is left out
out     plain values and small PNGs; no HTML (jobs/report.py draws them)
law     numbers are those of the files, unrounded
compare see evaluate/zero_shot: a number is one of its set, its prompts and its protocol's version
"""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from model import files

NEEDED = ("loss", "lr", "pairs_per_second")
CURVES = (*NEEDED, "logit_scale")  # the last one only where the objective has it
Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """The events of a run."""

    run: str
    steps: list[int]
    curves: dict[str, list[float]]  # a value for each of `steps`, by those names of CURVES that the run has
    last: Json  # the last event


@dataclass(frozen=True, kw_only=True, slots=True)
class Guess:
    """A picture that was classified."""

    picture: bytes  # PNG
    truth: str
    guesses: list[tuple[str, float]]  # class and probability, best first


@dataclass(frozen=True, kw_only=True, slots=True)
class ZeroShot:
    """One evaluation."""

    summary: Json  # as in its JSON file; see evaluate/results
    classes: list[tuple[str, int, int]]  # name, pictures, right ones; best first, only classes with pictures
    right: list[Guess]
    wrong: list[Guess]
    mistakes: list[tuple[str, str, int]]  # truth, prediction, how often; most frequent first


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Everything that the report shows of a model."""

    training: Training | None
    model: Json | None  # the manifest of the finished weights, with config.json as `config`
    results: list[ZeroShot]
    scores: list[Json]  # rows of evaluate/results.SCORES, of all models
    tasks: list[Json]  # JSON files of the results, of root's own model and others


def collect(root: str, *, num_mistakes: int = 12) -> Facts:
    """The facts of the model under `root`."""
    folders = _evaluations(root)
    return Facts(
        training=_training(root),
        model=_model(root),
        results=_results(root, num_mistakes),
        scores=[row for folder in folders for row in _json(files.join(folder, "_SCORES.json"), [])],
        tasks=[found for folder in folders for found in _tasks(folder)],
    )


def _evaluations(root: str) -> list[str]:
    """root/evaluation, and the folders of other models in it."""
    top = files.join(root, "evaluation")
    return [top, *(files.join(top, "models", name) for name in files.names(files.join(top, "models")))]


def _summaries(folder: str) -> list[str]:
    return [name for name in files.names(folder) if name.endswith(".json") and name[0] != "_"]


def _tasks(folder: str) -> list[Json]:
    """The results in a folder; those that an older version wrote have no `values`."""
    found = [_json(files.join(folder, name), {}) for name in _summaries(folder)]
    return [summary for summary in found if summary.get("values")]


def _json(path: str, otherwise: Any) -> Any:
    try:
        return json.loads(files.read(path))
    except FileNotFoundError:
        return otherwise


def _training(root: str) -> Training | None:
    """The run that the file's last line is of."""
    try:
        lines = files.read(files.join(root, "train", "events.jsonl")).decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return None
    events = [event for line in lines if (event := _event(line)) is not None]
    events = [event for event in events if event["run"] == events[-1]["run"]]
    if not events:
        return None
    return Training(
        run=events[-1]["run"],
        steps=[event["step"] for event in events],
        curves={name: [event[name] for event in events] for name in CURVES if all(name in event for event in events)},
        last=events[-1],
    )


def _event(line: str) -> Json | None:
    """The event in a line; None for what a killed process left half-written."""
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) and {"run", "step", *NEEDED} <= event.keys() else None


def _model(root: str) -> Json | None:
    folder = files.join(root, "model")
    try:
        manifest = json.loads(files.read(files.join(folder, "_MANIFEST.json")))
        return {**manifest, "config": json.loads(files.read(files.join(folder, "config.json")))}
    except FileNotFoundError:
        return None


def _results(root: str, num_mistakes: int) -> list[ZeroShot]:
    folder = files.join(root, "evaluation")
    stems = [name.removesuffix(".json") for name in _summaries(folder)]
    summaries = [(stem, json.loads(files.read(files.join(folder, f"{stem}.json")))) for stem in stems]
    classified = [(stem, summary) for stem, summary in summaries if "per_class" in summary]
    return [_zero_shot(files.join(folder, stem), summary, num_mistakes) for stem, summary in classified]


def _zero_shot(stem: str, summary: Json, num_mistakes: int) -> ZeroShot:
    rows = files.table(files.read(f"{stem}.parquet"))
    names = [entry["name"] for entry in summary["per_class"]]
    counted = [(entry["name"], entry["pictures"], entry["right"]) for entry in summary["per_class"] if entry["pictures"]]
    mistakes = Counter(
        (names[label], names[predicted])
        for label, predicted in zip(rows["label"].to_pylist(), rows["predicted"].to_pylist(), strict=True)
        if label != predicted
    )
    shown = rows.filter(rows["picture"].is_valid()).to_pylist()
    return ZeroShot(
        summary=summary,
        classes=sorted(counted, key=lambda entry: (-entry[2] / entry[1], entry[0])),
        right=[_guess(row, names) for row in shown if row["label"] == row["predicted"]],
        wrong=[_guess(row, names) for row in shown if row["label"] != row["predicted"]],
        mistakes=[(*pair, count) for pair, count in sorted(mistakes.items(), key=lambda item: (-item[1], item[0]))][
            :num_mistakes
        ],
    )


def _guess(row: Json, names: list[str]) -> Guess:
    guesses = [(names[place], score) for place, score in zip(row["top5"], row["top5_scores"], strict=True)]
    return Guess(picture=row["picture"], truth=names[row["label"]], guesses=guesses)
