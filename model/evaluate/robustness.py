"""Robustness to natural shifts: the accuracy on another set of the same classes, and what the accuracy on this one promised.

in      --tasks shift:OTHER on a set (ImageNet): OTHER is a set of some or all of its classes under the same names (ImageNetV2,
        -A, -R, -Sketch, ObjectNet), as --sets names it; --baselines, a CSV of models with columns name, accuracy, shifted
out     accuracy and shifted, both over the shared classes only; the classifier of each set is made of its own names and prompts
        (`shifted`), and of this set's for both (`shifted_own_names`): the paper's adaptation to class shift is the difference
        effective: shifted less what logit(shifted) = a + b logit(accuracy), fitted over the baselines, predicts from accuracy
        relative: shifted less the shifted accuracy of the baseline that --reference names (the model before the change)
law     a class is shared where its first name is the same but for case; predictions are over the shared classes in both sets
source  CLIP section 3.3; Taori et al. 2020, section 2 (effective and relative robustness, fit in logits)
compare effective robustness with other baselines is another number: the paper's fit is over the 204 ImageNet models of Taori et
        al., which do not come with this repository. PM-0 and PM-10 of the video sets are not here
letters B pictures, C classes, E embedding
"""

import csv
import io
from typing import Any

import numpy as np

from model import files
from model.evaluate.datasets import BadSet, EvalSet
from model.evaluate.embeddings import Embedded
from model.evaluate.tasks import Context, Plot, Result
from model.evaluate.zero_shot import unit

EDGE = 1e-4  # accuracies are kept this far from 0 and 1, where a logit has no value


def logit(shares: np.ndarray) -> np.ndarray:
    """The logarithm of the odds."""
    kept = np.clip(shares, EDGE, 1 - EDGE)
    return np.log(kept / (1 - kept))


def logit_fit(accuracies: np.ndarray, shifted: np.ndarray) -> tuple[float, float]:
    """Least squares of logit(shifted) = a + b logit(accuracy).  [models], [models] -> a, b. Raises BadSet under two accuracies"""
    if len(np.unique(accuracies)) < 2:
        raise BadSet(f"shift: expected at least 2 baselines of different accuracy for a line, found {len(accuracies)}")
    slope, intercept = np.polyfit(logit(accuracies), logit(shifted), 1)
    return float(intercept), float(slope)


def effective(accuracy: float, shifted: float, line: tuple[float, float]) -> float:
    """How far `shifted` is above what the line predicts."""
    predicted = line[0] + line[1] * logit(np.asarray(accuracy))
    return float(shifted - 1 / (1 + np.exp(-predicted)))


def shared(one: EvalSet, other: EvalSet) -> list[tuple[int, int]]:
    """Places of the classes that both sets have. Raises BadSet under two."""
    places = {name.casefold(): place for place, name in enumerate(other.classnames)}
    found = [(place, places[name.casefold()]) for place, name in enumerate(one.classnames) if name.casefold() in places]
    if len(found) < 2:
        raise BadSet(f"shift: expected at least 2 classes with the same names in {one.name} and {other.name}, found {len(found)}")
    return found


def accuracy(embedded: Embedded, classifier: np.ndarray, classes: list[int]) -> tuple[float, int]:
    """Top-1 over the pictures of some classes, and their number; row i of the classifier is of classes[i].

    Raises BadSet where there are none.
    """
    places = np.full(max(int(embedded.labels.max()), *classes) + 1, -1)
    places[classes] = np.arange(len(classes))
    labels = places[embedded.labels]
    kept = (labels >= 0) & (embedded.labels >= 0)
    if not kept.any():
        raise BadSet("shift: expected pictures of the shared classes, found none")
    found = (unit(embedded.image_features[kept]) @ classifier.T).argmax(axis=1)
    return float((found == labels[kept]).mean()), int(kept.sum())


def read_baselines(path: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, accuracies and shifted accuracies, shares from 0 to 1. Raises BadSet for another table."""
    try:
        rows = list(csv.DictReader(io.StringIO(files.read(path).decode())))
        names = [row["name"] for row in rows]
        accuracies, shifted = (np.asarray([float(row[column]) for row in rows]) for column in ("accuracy", "shifted"))
    except (FileNotFoundError, UnicodeDecodeError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise BadSet(f"{path}: expected a CSV with columns name, accuracy, shifted; found {error!r}") from None
    if not rows or not all(((numbers >= 0) & (numbers <= 1)).all() for numbers in (accuracies, shifted)):
        raise BadSet(f"{path}: expected accuracies from 0 to 1 in a CSV with columns name, accuracy, shifted")
    return names, accuracies, shifted


def needs(context: Context, eval_set: EvalSet, argument: str) -> dict[str, Any]:
    """What a result depends on beside the model and the set."""
    if not argument:
        raise BadSet("shift: expected --tasks shift:OTHER, with a folder or name of the other set")
    baselines = context.config.baselines
    table = files.sha256(repr(read_baselines(baselines)).encode()) if baselines else ""
    return {"other": context.another(argument).hash, "baselines": table, "reference": context.config.reference}


def run(context: Context, eval_set: EvalSet, argument: str) -> Result:
    """Score the test splits of both sets."""
    other, config = context.another(argument), context.config
    pairs = shared(eval_set, other)
    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    own_names, other_names = context.classifier(eval_set)[ours], context.classifier(other)[theirs]
    here, _ = accuracy(context.embedded(eval_set, "test"), own_names, ours)
    embedded = context.embedded(other, "test")
    there, num_pictures = accuracy(embedded, other_names, theirs)
    values = {"shifted": there, "accuracy": here, "shifted_own_names": accuracy(embedded, own_names, theirs)[0]}
    plots: tuple[Plot, ...] = ()
    if config.baselines:
        names, accuracies, shifted = read_baselines(config.baselines)
        values["effective_robustness"] = effective(here, there, logit_fit(accuracies, shifted))
        if config.reference:
            if config.reference not in names:
                raise BadSet(f"{config.baselines}: expected a baseline {config.reference!r} (--reference), found none")
            values["relative_robustness"] = there - float(shifted[names.index(config.reference)])
        plots = (_plot(eval_set.name, other.name, accuracies, shifted, (here, there)),)
    return Result(
        task="shift", set=eval_set.name, values=values, num_pictures=num_pictures, unreadable=embedded.unreadable,
        facts={"other": other.name, "num_shared_classes": len(pairs)}, plots=plots,
    )  # fmt: skip


def _plot(name: str, other: str, accuracies: np.ndarray, shifted: np.ndarray, point: tuple[float, float]) -> Plot:
    intercept, slope = logit_fit(accuracies, shifted)
    x = np.linspace(min(accuracies.min(), point[0]), max(accuracies.max(), point[0]), 40)
    line = 1 / (1 + np.exp(-(intercept + slope * logit(x))))
    ours = ([point[0]] * 2, [point[1], float(np.interp(point[0], x, line))])
    return Plot(
        title=f"Accuracy on {other} by accuracy on {name}", x_label=name, y_label=other,
        lines={"fit over the baselines": (x.tolist(), line.tolist()), "this model": ours},
    )  # fmt: skip
