"""The tasks linear_probe and few_shot: kept embeddings to probes.

in      the embeddings of a set's splits train, val (cut from train where there is none) and test, before the projection
out     linear_probe: the set's metric on test, the strength, what every strength gave on the validation split
        few_shot: the metric's mean over SEEDS at 1, 2, 4, 8 and 16 pictures of each class, the full probe's, zero-shot's where
        the model has two towers, and the effective examples (figure 7)
law     every readable picture of a split counts once; those that can not be read are counted and named, also of train and val
compare see probe.py, few_shot.py and effective.py
"""

from typing import Any

import numpy as np
import pyarrow as pa

from model.evaluate import metrics
from model.evaluate.datasets import BadSet, EvalSet
from model.evaluate.embeddings import Embedded
from model.evaluate.tasks import Context, Plot, Result

VERSION = 1  # raise it where the same embeddings would get another number
SPLITS = ("train", "val", "test")


def run(context: Context, eval_set: EvalSet, argument: str) -> Result:
    """The full probe."""
    from model.evaluate import probe

    if argument:
        raise BadSet(f"linear_probe: expected no argument, found {argument!r}")
    train, validation, test, unreadable, embedded = _splits(context, eval_set)
    num_classes, score = len(eval_set.classnames), _metric(eval_set)
    found = probe.probe(train, validation, test, num_classes, score, device=_device())
    ranked, shares = metrics.best(found.scores), found.scores.astype(np.float64)
    if embedded.truths is None:
        shares = metrics.softmax(shares)
    tried = {f"{strength:.4g}": value for strength, value in found.tried.items()}
    line = (list(found.tried), list(found.tried.values()))
    return Result(
        task="linear_probe", set=eval_set.name, num_pictures=len(embedded.keys), unreadable=unreadable,
        values=metrics.values(embedded, ranked, shares, num_classes, eval_set.metric),
        facts={
            "strength": found.strength, "validation": tried, "converged": found.all_converged,
            "num_train": len(train.labels), "num_validation": 0 if validation is None else len(validation.labels),
            "width": test.features.shape[1],
        },
        rows=pa.table({"key": embedded.keys, "label": embedded.labels, "predicted": ranked[:, 0]}),
        plots=(Plot(
            title=f"{eval_set.name}: the probe's strength", x_label="strength", y_label=f"validation {eval_set.metric}",
            lines={"validation": line}, logarithmic_x=True,
        ),),
    )  # fmt: skip


def run_few_shot(context: Context, eval_set: EvalSet, argument: str) -> Result:
    """The few-shot probes and the effective examples."""
    from model.evaluate import effective, few_shot, probe

    train, validation, test, unreadable, embedded = _splits(context, eval_set)
    seeds, num_classes, score, device = _seeds(argument), len(eval_set.classnames), _metric(eval_set), _device()
    full = probe.probe(train, validation, test, num_classes, score, device=device)
    if validation is None:
        stay, leave = probe.split(train.labels)
        train, validation = train.take(stay), train.take(leave)
    shots = few_shot.few_shot(train, validation, test, num_classes, score, seeds=seeds, device=device)
    means = few_shot.means(shots)
    per_class = (len(train.labels) + len(validation.labels)) / num_classes
    curve = {float(count): mean for count, (mean, _) in means.items() if count < per_class} | {per_class: full.score}
    largest = max(means)
    values = {f"{largest}_shot": means[largest][0]} | {f"{count}_shot": mean for count, (mean, _) in means.items()}
    values["full"] = full.score
    zero_shot = _zero_shot(context, eval_set, embedded, score)
    needed = None
    if zero_shot is not None:
        values["zero_shot"] = zero_shot
        needed = effective.effective_examples(curve, zero_shot) if len(curve) > 1 else None
    lines = {"probe": (list(curve), list(curve.values()))}
    if zero_shot is not None:
        lines["zero-shot"] = ([min(curve), max(curve)], [zero_shot, zero_shot])
    return Result(
        task="few_shot", set=eval_set.name, num_pictures=len(embedded.keys), unreadable=unreadable, values=values,
        facts={
            "effective_examples": needed, "per_class": per_class, "seeds": list(seeds),
            "deviation": {str(count): deviation for count, (_, deviation) in means.items()},
            "shots": [{"shots": shot.shots, "seed": shot.seed, "score": shot.score, "strength": shot.strength} for shot in shots],
        },
        plots=(Plot(
            title=f"{eval_set.name}: few-shot probes", x_label="labelled pictures of each class", y_label=eval_set.metric,
            lines=lines, logarithmic_x=True,
        ),),
    )  # fmt: skip


def needs(context: Context, eval_set: EvalSet, argument: str) -> dict[str, Any]:
    """What a result depends on beside model and set: the other splits."""
    return {"version": VERSION, "splits": {name: split.pictures for name, split in eval_set.splits.items() if name in SPLITS}}


def needs_few_shot(context: Context, eval_set: EvalSet, argument: str) -> dict[str, Any]:
    """The same, and the seeds."""
    return {**needs(context, eval_set, argument), "seeds": list(_seeds(argument))}


def _seeds(argument: str) -> tuple[int, ...]:
    """The argument is the number of seeds."""
    from model.evaluate.few_shot import SEEDS

    if not argument:
        return SEEDS
    if not argument.isdecimal() or not 0 < int(argument) < 1000:
        raise BadSet(f"few_shot: expected few_shot or few_shot:NUMBER_OF_SEEDS, found few_shot:{argument}")
    return tuple(range(int(argument)))


def _splits(context: Context, eval_set: EvalSet) -> tuple[Any, Any, Any, dict[str, str], Embedded]:
    """Rows of train, of val or None, of test; what could not be read; the test's embeddings."""
    from model.evaluate.probe import Rows

    if eval_set.kind == "captions":
        raise BadSet(f"{eval_set.name}: expected a set with classes for a probe, found one of captions")
    rows: dict[str, Rows | None] = {"val": None}
    unreadable: dict[str, str] = {}
    for name in SPLITS:
        if name == "val" and name not in eval_set.splits:
            continue
        embedded = context.embedded(eval_set, name)
        labels = embedded.labels if embedded.truths is None else embedded.truths.astype(np.int64)
        rows[name] = Rows(embedded.before_projection, labels)
        unreadable |= {f"{name}/{key}": why for key, why in embedded.unreadable.items()}
    return rows["train"], rows["val"], rows["test"], unreadable, embedded


def _metric(eval_set: EvalSet) -> Any:
    """The set's own metric as a function of labels and logits."""
    num_classes = len(eval_set.classnames)

    def score(labels: np.ndarray, scores: np.ndarray) -> float:
        if labels.ndim == 2:
            return metrics.map_11(labels.astype(bool), scores)
        if eval_set.metric == "roc_auc":
            return metrics.roc_auc(labels, scores[:, 1] - scores[:, 0])
        found = metrics.accuracy(labels, metrics.best(scores), num_classes)
        return {
            "accuracy": found.top1, "mean_per_class": found.mean_per_class, "mean_1_5": (found.top1 + found.top5) / 2
        }[eval_set.metric]  # fmt: skip

    return score


def _zero_shot(context: Context, eval_set: EvalSet, embedded: Embedded, score: Any) -> float | None:
    """The same metric of the zero-shot classifier; None for a model that predicts texts."""
    from model.evaluate.zero_shot import unit

    if "logit_scale" not in context.facts():
        return None
    return score(embedded.labels, unit(embedded.image_features) @ context.classifier(eval_set).T)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
