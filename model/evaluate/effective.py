"""Effective examples: how many labelled pictures of each class a probe needs to do as well as zero-shot (figure 7).

in      mean scores of few-shot probes by pictures of each class, the full probe's with its mean number, the zero-shot score
out     a number of pictures, or None where even the full probe does worse than zero-shot
law     between two neighbours the score is linear in the logarithm of the number; the first crossing counts. Below the
        smallest number the first rising segment is continued, so that values under 1 occur as they do in the paper
compare an estimate: with the noise of the few-shot scores it moves by tens of percent, and only sets with the same number of
        training pictures share a largest value
source  CLIP section 3.1, figure 7
"""

import itertools
import math
from collections.abc import Mapping


def effective_examples(scores: Mapping[float, float] | Mapping[int, float], zero_shot: float) -> float | None:
    """Pictures of each class at which the interpolated score reaches `zero_shot`.  number -> score"""
    if len(scores) < 2 or min(scores) <= 0:
        raise ValueError(f"effective examples: expected scores at two positive numbers or more, found {dict(scores)}")
    points = sorted(scores.items())
    if points[0][1] >= zero_shot:
        rising = next(((a, b) for a, b in itertools.pairwise(points) if b[1] > a[1]), None)
        if rising is None:
            return points[0][0]
        (few, low), (many, high) = rising
        slope = (high - low) / math.log(many / few)
        return points[0][0] * math.exp((zero_shot - points[0][1]) / slope)
    for (few, low), (many, high) in itertools.pairwise(points):
        if high >= zero_shot:
            return few * math.exp((zero_shot - low) / (high - low) * math.log(many / few))
    return None
