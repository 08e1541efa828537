"""Top-k, accuracies and the paper's other metrics, in NumPy.

accuracy       right pictures over all
mean_per_class mean over the classes that have pictures of their accuracies
map11          mean over classes of the 11-point interpolated average precision: at each recall of 0, 0.1, ... 1 the best
               precision at that recall or a larger one (Pascal VOC 2007)
roc_auc        of two classes: the chance that a picture of the second gets a larger score than one of the first, ties one half
mean_1_5       mean of top-1 and top-5
law     the order of the classes does not matter; a tie of classes goes to the one that is named first. Pictures whose scores tie
        are one threshold in map11: their order does not matter
source  CLIP section 3.1 and table 9; Everingham et al. 2007, section 4.4 of the development kit
compare accuracies of sets with other classes, or other numbers of them, are other numbers: look at `chance` too. map11 is not
        scikit-learn's average precision, which takes every recall. The paper ranks pictures for map11 by softmax probabilities,
        not by cosines
letters B pictures, C classes, k places
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from model.evaluate.datasets import BadSet
from model.evaluate.embeddings import Embedded

PLACES = 5
RECALLS = 11
Metric = Literal["accuracy", "mean_per_class", "map11", "roc_auc", "mean_1_5"]
OF_SCORES = ("map11", "roc_auc")  # that need the probabilities of all classes


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """Shares from 0 to 1, and for each class how many pictures it has and how many are right."""

    top1: float
    top5: float  # the truth is among the 5 best; with fewer than 5 classes it always is
    mean_per_class: float  # mean of the top-1 of the classes that have pictures
    chance: float  # top-1 of drawing a class at random
    pictures: np.ndarray  # [C] int64
    right: np.ndarray  # [C] int64
    right5: np.ndarray  # [C] int64


def best(scores: np.ndarray, places: int = PLACES) -> np.ndarray:
    """The classes with the largest scores, best first.  [B, C] -> [B, min(places, C)] int64"""
    if not np.isfinite(scores).all():
        raise ValueError("evaluate: the model gives scores that are no numbers (NaN or infinite): its weights are broken")
    return np.argsort(-scores, axis=1, kind="stable")[:, :places]


def accuracy(labels: np.ndarray, ranked: np.ndarray, num_classes: int) -> Accuracy:
    """Accuracies of ranked predictions.  [B] and [B, k] class numbers, B > 0"""
    hits = ranked == labels[:, None]
    pictures = np.bincount(labels, minlength=num_classes)
    right = np.bincount(labels[hits[:, 0]], minlength=num_classes)
    right5 = np.bincount(labels[hits.any(axis=1)], minlength=num_classes)
    seen = pictures > 0
    return Accuracy(
        top1=float(hits[:, 0].mean()),
        top5=float(hits.any(axis=1).mean()),
        mean_per_class=float((right[seen] / pictures[seen]).mean()),
        chance=1 / num_classes,
        pictures=pictures,
        right=right,
        right5=right5,
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Shares of the classes.  [B, C] -> [B, C]"""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def average_precision_11(truths: np.ndarray, scores: np.ndarray) -> float:
    """11-point interpolated average precision of one class.  [B] bool, [B] -> from 0 to 1; NaN where no picture is true"""
    order = np.argsort(-scores, kind="stable")
    last = np.append(scores[order][1:] != scores[order][:-1], True)  # of the pictures with one score
    hits = np.cumsum(truths[order])[last]
    places = np.flatnonzero(last) + 1
    if not truths.any():
        return float("nan")
    precision, total = hits / places, int(truths.sum())
    best = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or a larger one
    reached = [np.flatnonzero(hits * (RECALLS - 1) >= step * total) for step in range(RECALLS)]  # integers: 0.3 is not 3 / 10
    return float(np.mean([best[found[0]] for found in reached]))


def map_11(truths: np.ndarray, scores: np.ndarray) -> float:
    """Mean of it over the classes that have pictures.  [B, C] bool, [B, C]"""
    return float(np.nanmean([average_precision_11(truths[:, place], scores[:, place]) for place in range(truths.shape[1])]))


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Of two classes.  [B] 0 or 1, [B] scores of class 1. Raises BadSet where one has no pictures"""
    positives, negatives = scores[labels == 1], np.sort(scores[labels == 0])
    if not len(positives) or not len(negatives) or set(np.unique(labels)) - {0, 1}:
        raise BadSet(f"roc_auc: expected pictures of classes 0 and 1, found labels {np.unique(labels)[:5].tolist()}")
    below = np.searchsorted(negatives, positives, "left") + np.searchsorted(negatives, positives, "right")
    return float(below.sum() / (2 * len(positives) * len(negatives)))


def values(embedded: Embedded, ranked: np.ndarray, shares: np.ndarray, num_classes: int, metric: str) -> dict[str, float]:
    """The numbers of a classification, the set's own metric first.

    [B, k] class numbers, [B, C] probabilities, which only metrics OF_SCORES look at.
    """
    if embedded.truths is not None:
        return {"map11": map_11(embedded.truths, shares), "chance": float(embedded.truths.mean())}
    found = accuracy(embedded.labels, ranked, num_classes)
    numbers = {
        "accuracy": found.top1, "top5": found.top5, "mean_per_class": found.mean_per_class,
        "mean_1_5": (found.top1 + found.top5) / 2, "chance": found.chance,
    }  # fmt: skip
    if metric == "roc_auc" and num_classes == 2:
        numbers["roc_auc"] = roc_auc(embedded.labels, shares[:, 1])
    if metric not in numbers:
        raise BadSet(f"{metric}: expected one of {', '.join(numbers)} for pictures of one class each")
    return {metric: numbers[metric], **numbers}
