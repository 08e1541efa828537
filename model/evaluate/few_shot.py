"""Few-shot probes: a linear probe on 1, 2, 4, 8 and 16 pictures of each class, over several seeds.

in      train, validation and test rows as the full probe has them
out     a Shot for each (number of pictures, seed): the test's score and the strength
law     the pictures of a class are its first ones in the order of a hash of (seed, class, place): those of 2 hold those of 1,
        and another seed draws others; a class with fewer pictures gives all that it has
law     the strength is searched as the probe's, on the same validation split at every number; the validation rows are never
        trained on
compare the validation split is larger than the training rows, so the strength is better known than few pictures could tell:
        results that tune nothing, or tune on the few, are lower
silent  the paper tells neither its seeds nor how it chose the strength of figure 6's probes
cost    16 fits of small problems for each (number, seed)
source  CLIP section 3.1, figure 6
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.evaluate.probe import STRENGTHS, Metric, Rows, choose_strength, top1
from model.order import permutation

SHOTS = (1, 2, 4, 8, 16)
SEEDS = (0, 1, 2)
FEW_SHOT = 12  # what a draw is for


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """One few-shot probe."""

    shots: int  # pictures of each class
    seed: int
    score: float
    strength: float


def choose(labels: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Places of up to `shots` rows of each class, ascending.  [B] -> [at most C * shots]"""
    chosen = []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        chosen.append(places[permutation(len(places), seed, FEW_SHOT, int(label))[:shots]])
    return np.sort(np.concatenate(chosen))


def few_shot(
    train: Rows, validation: Rows, test: Rows, num_classes: int, metric: Metric = top1, *,
    shots: Sequence[int] = SHOTS, seeds: Sequence[int] = SEEDS, device: str = "cpu",
) -> list[Shot]:  # fmt: skip
    """A probe for each number of pictures and each seed. Classes must exclude each other."""
    if train.labels.ndim != 1:
        raise ValueError("few-shot: expected one label a picture, found several: 'pictures of each class' has no meaning then")
    found = []
    for count in shots:
        for seed in seeds:
            few = train.take(choose(train.labels, count, seed))
            best, _, fits = choose_strength(few, validation, num_classes, metric, device=device)
            scores = fits[best].scores(test.features).cpu().numpy()
            score = metric(test.labels, scores)
            found.append(Shot(shots=count, seed=seed, score=score, strength=STRENGTHS[best]))
    return found


def means(found: Sequence[Shot]) -> dict[int, tuple[float, float]]:
    """Number of pictures -> mean and standard deviation of the scores over the seeds (0 where there is one seed)."""
    result = {}
    for count in sorted({shot.shots for shot in found}):
        scores = np.array([shot.score for shot in found if shot.shots == count])
        result[count] = (float(scores.mean()), float(scores.std(ddof=1)) if len(scores) > 1 else 0.0)
    return result
