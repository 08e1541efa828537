"""Top-k and accuracies, in NumPy.

law     the order of the classes does not matter; a tie goes to the class that is named first
source  CLIP section 3.1; mean per class as in Table 9
compare accuracies of sets with other classes, or other numbers of them, are other numbers: look at `chance` too
letters B pictures, C classes, k places
"""

from dataclasses import dataclass

import numpy as np

PLACES = 5


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
