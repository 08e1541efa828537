"""The linear probe: how well a linear classifier does on frozen features, its regularisation searched as the paper does.

in      features before the projection (Vision Transformers) or after the attention pool (ResNets), labels; three splits
out     Probed: the test's scores, the strength, and every strength that was tried with its score on the validation split
law     strengths are 97 points from 1e-6 to 1e6, 8 to a decade. Seven, two decades apart, are tried first; then both
        neighbours of the best at half the distance, until neighbours are next to each other: 15 fits. Of equals the middle one
        counts: small validation splits have wide plateaus. The last fit takes train and validation together and is scored once
        on the test split
law     where a set has no validation split, a fifth of train is one, by a hash of (seed, class, place): each class gives the
        same share and keeps at least one picture in train
cost    15 fits of the train split and one of both, each started where the next stronger one ended; see logistic.py
compare with the paper's tables only with features from before the projection; CLIP_benchmark and open_clip's users take the
        normalised embedding, and most others a stochastic gradient descent: other numbers. scikit-learn's default tolerance
        ends early at weak strengths, which is a regularisation of its own that this has not
silent  the paper does not tell the size of a validation split that it cuts from train, nor which of equals it takes
letters B pictures, D width, C classes
source  CLIP appendix A.3
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from model.evaluate.logistic import TOLERANCE, Fit, Problem
from model.order import permutation

STEPS_PER_DECADE = 8
DECADES = 6  # on each side of 1
FIRST_DISTANCE = 2 * STEPS_PER_DECADE
STRENGTHS = tuple(10 ** (place / STEPS_PER_DECADE - DECADES) for place in range(2 * DECADES * STEPS_PER_DECADE + 1))
VALIDATION_SHARE = 5  # one in five
VALIDATION = 11  # what a draw is for

Metric = Callable[[np.ndarray, np.ndarray], float]  # labels [B] or [B, C], scores [B, C] -> larger is better


@dataclass(frozen=True, slots=True)
class Rows:
    """Pictures of a split."""

    features: np.ndarray  # [B, D]
    labels: np.ndarray  # [B], or zeros and ones [B, C]

    def take(self, places: np.ndarray) -> "Rows":
        """Some of the rows."""
        return Rows(self.features[places], self.labels[places])

    def __add__(self, other: "Rows") -> "Rows":
        """These rows, then the others."""
        return Rows(np.concatenate([self.features, other.features]), np.concatenate([self.labels, other.labels]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Probed:
    """A finished probe."""

    score: float  # of the test split
    scores: np.ndarray  # [B, C] logits of the test split
    strength: float
    tried: dict[float, float]  # strength -> score of the validation split, strongest first
    fit: Fit
    all_converged: bool


def top1(labels: np.ndarray, scores: np.ndarray) -> float:
    """The share of rows whose largest score is the label's."""
    return float((scores.argmax(1) == labels).mean())


def search(score: Callable[[int], float]) -> tuple[int, dict[int, float]]:
    """The place in STRENGTHS of the best score that the paper's halving finds, and all scores that were asked for."""
    last, distance = len(STRENGTHS) - 1, FIRST_DISTANCE
    found = {place: score(place) for place in range(last, -1, -distance)}
    while True:
        equals = sorted(place for place in found if found[place] == max(found.values()))
        best = equals[len(equals) // 2]
        distance //= 2
        if distance == 0:
            return best, found
        for place in (best + distance, best - distance):
            if 0 <= place <= last and place not in found:
                found[place] = score(place)


def split(labels: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Places that stay in train and places that become the validation split, each ascending.  [B] or [B, C] labels"""
    groups = labels if labels.ndim == 1 else np.zeros(len(labels), np.int64)
    chosen = np.zeros(len(labels), bool)
    for group in np.unique(groups):
        places = np.flatnonzero(groups == group)
        count = max(1, len(places) // VALIDATION_SHARE) if len(places) > 1 else 0
        chosen[places[permutation(len(places), seed, VALIDATION, int(group))[:count]]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def choose_strength(
    train: Rows, validation: Rows, num_classes: int, metric: Metric = top1, *, tolerance: float = TOLERANCE, device: str = "cpu"
) -> tuple[int, dict[int, float], dict[int, Fit]]:
    """The place of the best strength, the scores and the fits of all that were tried."""
    problem = Problem(train.features, train.labels, num_classes, device)
    fits: dict[int, Fit] = {}

    def score(place: int) -> float:
        stronger = [other for other in fits if other > place]
        start = fits[min(stronger)] if stronger else None
        fits[place] = problem.fit(STRENGTHS[place], start, tolerance)
        return metric(validation.labels, fits[place].scores(validation.features).cpu().numpy())

    best, found = search(score)
    return best, found, fits


def probe(
    train: Rows, validation: Rows | None, test: Rows, num_classes: int, metric: Metric = top1, *, seed: int = 0,
    tolerance: float = TOLERANCE, device: str = "cpu",
) -> Probed:  # fmt: skip
    """Search the strength, fit train and validation with it, score the test split."""
    if validation is None:
        stay, leave = split(train.labels, seed)
        train, validation = train.take(stay), train.take(leave)
    if len(validation.labels) == 0:
        raise ValueError("probe: expected a validation split, found no picture in it: no class has two pictures in train")
    best, found, fits = choose_strength(train, validation, num_classes, metric, tolerance=tolerance, device=device)
    both = train + validation
    fit = Problem(both.features, both.labels, num_classes, device).fit(STRENGTHS[best], fits[best], tolerance)
    scores = fit.scores(test.features).cpu().numpy()
    return Probed(
        score=metric(test.labels, scores),
        scores=scores,
        strength=STRENGTHS[best],
        tried={STRENGTHS[place]: found[place] for place in sorted(found, reverse=True)},
        fit=fit,
        all_converged=fit.converged and all(one.converged for one in fits.values()),
    )
