"""Overlap of a test set with the training data, and what it is worth: CLIP section 5 and appendix C.

in      --tasks overlap:FILE, a text with the key of an overlapping test picture a line, as a near-duplicate search over the
        dataset and the set found them; the embeddings of the test split
out     all, clean, overlap (accuracies), contamination (share that overlaps), gain (all less clean), the 99.5 % Clopper-Pearson
        interval of `overlap`, the p value of a one-sided binomial test that `overlap` is no better than `clean`, and that p value
        times the number of sets of the run (Bonferroni)
law     every key of the file is one of the set: a key that is not there is an error, not a shorter list
law     clean and overlap are disjoint and together all; without overlap (or without clean pictures) there is no test: p is 1
source  CLIP appendix C; Clopper and Pearson 1934. Tails are summed in logarithms, exact to rounding for any size
compare the result is one of its detector and threshold: the paper's is a network trained on synthetic augmentations, with a
        threshold set by hand for each set; a 64-bit perceptual hash finds fewer. The paper reports this for RN50x64 only
"""

import math
from typing import Any

import numpy as np

from model import files
from model.evaluate.datasets import BadSet, EvalSet
from model.evaluate.tasks import Context, Result
from model.evaluate.zero_shot import unit

LEVEL = 0.995
MAX_LIST_BYTES = 100_000_000
STEPS = 100  # of halving an interval: more than the digits of a float


def _log_terms(trials: int, chance: float, counts: np.ndarray) -> np.ndarray:
    """log P(X = k) for each count, X binomial; 0 < chance < 1."""
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    ways = log_factorials[trials] - log_factorials[counts] - log_factorials[trials - counts]
    return ways + counts * math.log(chance) + (trials - counts) * math.log1p(-chance)


def at_least(successes: int, trials: int, chance: float) -> float:
    """P(X >= successes) of a binomial X."""
    if successes <= 0 or chance >= 1:
        return 1.0
    if chance <= 0:
        return 0.0
    logs = _log_terms(trials, chance, np.arange(successes, trials + 1))
    top = logs.max()
    return min(1.0, float(np.exp(top) * np.exp(logs - top).sum()))


def clopper_pearson(successes: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval of a binomial share at a level, both sides alike."""
    tail = (1 - level) / 2
    low = _root(lambda share: at_least(successes, trials, share) - tail) if successes else 0.0
    high = _root(lambda share: tail - (1 - at_least(successes + 1, trials, share))) if successes < trials else 1.0
    return low, high


def _root(rising: Any) -> float:
    """Where a rising function of a share is zero."""
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2


def analyse(right: np.ndarray, overlaps: np.ndarray, num_sets: int = 1) -> dict[str, float]:
    """The numbers of a set.  [B] bool, [B] bool"""
    count, hits = int(overlaps.sum()), int(right[overlaps].sum())
    clean = float(right[~overlaps].mean()) if count < len(right) else math.nan
    low, high = clopper_pearson(hits, count) if count else (math.nan, math.nan)
    p = at_least(hits, count, clean) if 0 < count < len(right) else 1.0
    return {
        "gain": float(right.mean()) - clean,
        "all": float(right.mean()),
        "clean": clean,
        "overlap": hits / count if count else math.nan,
        "contamination": count / len(right),
        "overlap_low": low,
        "overlap_high": high,
        "p_value": p,
        "p_bonferroni": min(1.0, p * num_sets),
    }


def read_keys(path: str) -> frozenset[str]:
    """The keys in a text, one a line. Raises BadSet where there is no such text."""
    try:
        data = files.read(path)
    except FileNotFoundError:
        raise BadSet(f"{path} is not there: expected the keys of the overlapping pictures, one a line") from None
    if len(data) > MAX_LIST_BYTES:
        raise BadSet(f"{path}: expected at most {MAX_LIST_BYTES:,} bytes of keys, found {len(data):,}")
    try:
        return frozenset(line.strip() for line in data.decode().splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise BadSet(f"{path}: expected a text in UTF-8, found {error}") from None


def needs(context: Context, eval_set: EvalSet, argument: str) -> dict[str, Any]:
    """What a result depends on beside the model and the set."""
    if not argument:
        raise BadSet("overlap: expected --tasks overlap:FILE, with the keys of the overlapping pictures, one a line")
    return {"keys": files.sha256(repr(sorted(read_keys(argument))).encode()), "num_sets": len(context.config.specs)}


def run(context: Context, eval_set: EvalSet, argument: str) -> Result:
    """Score the test split, in its parts."""
    keys, embedded = read_keys(argument), context.embedded(eval_set, "test")
    strange = sorted(keys - set(embedded.keys) - embedded.unreadable.keys())
    if strange:
        raise BadSet(f"{argument}: expected keys of {eval_set.name}, found {len(strange):,} others, first {strange[0]!r}")
    if embedded.truths is not None or not eval_set.classnames:
        raise BadSet(f"{eval_set.name}: overlap needs a set whose pictures have one class each")
    right = (unit(embedded.image_features) @ context.classifier(eval_set).T).argmax(axis=1) == embedded.labels
    overlaps = np.asarray([key in keys for key in embedded.keys])
    found = analyse(right, overlaps, len(context.config.specs))
    return Result(
        task="overlap", set=eval_set.name, values=found, num_pictures=len(embedded.keys), unreadable=embedded.unreadable,
        facts={"num_overlapping": int(overlaps.sum())},
    )  # fmt: skip
