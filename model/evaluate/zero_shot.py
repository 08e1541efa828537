"""Zero-shot classification: prompts make the classifier, cosines or likelihoods score the pictures.

in      the embeddings of a test split and the set's classes and prompts; for a model that predicts texts also the model
out     for each picture the best five classes with their probabilities, accuracies, the paper's metric for the set
law     two towers: encode each prompt, unit length, mean over the prompts of a class, unit length again; the cosines rank
law     predictive models (caption, bag of words): likelihoods of the prompts rank, see likelihood
law     probability: softmax over the classes of logit_scale.exp() * cosine, or of the likelihoods; a sigmoid model tells
        yes or no to each class by itself. The ranking does not depend on it
law     every readable picture of the set is scored once; those that can not be read are counted and named
cost    one batch of scores, and the prompts of some classes, in memory
source  CLIP section 3.1.4; the order of operations is that of the release's notebook
compare not with numbers from other prompts or class names, which alone move accuracy by points; not with linear
        probes or fine-tuned models; a model whose training set had the set's pictures in it (no duplicates removed)
        scores too high. The mini set's glyphs say nothing about photographs.
letters B pictures, C classes, T prompts of a class, E embedding
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from model.evaluate import datasets, metrics, results
from model.evaluate.config import Likelihood
from model.evaluate.datasets import EvalSet
from model.evaluate.embeddings import Embedded
from model.evaluate.results import Predictions
from model.evaluate.tasks import Context, Result

if TYPE_CHECKING:
    from model.evaluate.encoders import Encoder

Scorer = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # features [B, E] -> scores and probabilities, [B, C]


def prompts(eval_set: EvalSet, names: Sequence[str]) -> list[str]:
    """Every prompt of each of the names, one name after another."""
    return [template.replace(datasets.PLACEHOLDER, name) for name in names for template in eval_set.templates]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length one."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def class_features(encoder: "Encoder", eval_set: EvalSet, batch_size: int) -> np.ndarray:
    """The classifier of two towers: one unit vector a class, over all prompts of all its names.  -> [C, E] float32"""
    texts = prompts(eval_set, [name for names in eval_set.names for name in names])
    features = np.concatenate([unit(encoder.texts(batch)) for batch in _batches(texts, batch_size)])
    ends = np.cumsum([len(names) * len(eval_set.templates) for names in eval_set.names])
    return unit(np.stack([rows.mean(axis=0) for rows in np.split(features, ends[:-1])])).astype(np.float32)


def by_cosines(classes: np.ndarray, facts: dict[str, Any]) -> Scorer:
    """The scorer of a model with two towers, from its classifier [C, E]."""

    def score(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits = facts["logit_scale"] * (unit(features) @ classes.T).astype(np.float64)
        if "logit_bias" in facts:
            return logits, 1 / (1 + np.exp(-(logits + facts["logit_bias"])))
        return logits, metrics.softmax(logits)

    return score


def by_likelihood(encoder: "Encoder", eval_set: EvalSet, rule: Likelihood) -> Scorer:
    """The scorer of a model that predicts texts."""
    from model.evaluate import likelihood

    if any(len(names) > 1 for names in eval_set.names):
        raise datasets.BadSet(f"{eval_set.name}: expected one name for each class, for a model that predicts texts")
    return likelihood.scorer(encoder, prompts(eval_set, eval_set.classnames), len(eval_set.classnames), rule)


def predict(
    embedded: Embedded, score: Scorer, *, batch_size: int, num_examples: int, keep: bool = False
) -> tuple[Predictions, np.ndarray]:
    """The best classes of every picture, small copies of `num_examples` right and as many wrong ones.

    Also the probabilities of all classes [B, C] where they are to be kept.
    """
    ranked, best_shares, shares = [], [], [np.empty((0, 0))]
    for start in range(0, len(embedded.keys), batch_size):
        scores_BC, shares_BC = score(embedded.image_features[start : start + batch_size])
        best = metrics.best(scores_BC)
        ranked.append(best)
        best_shares.append(np.take_along_axis(shares_BC, best, axis=1))
        if keep:
            shares = [shares_BC] if len(shares[0]) == 0 else [*shares, shares_BC]
    ranking = np.concatenate(ranked)
    found = Predictions(
        keys=embedded.keys,
        labels=embedded.labels,
        ranked=ranking,
        probabilities=np.concatenate(best_shares),
        pictures=_shown(embedded, ranking[:, 0] == embedded.labels, num_examples),
    )
    return found, np.concatenate(shares)


def _shown(embedded: Embedded, right: np.ndarray, num_examples: int) -> dict[int, bytes]:
    """Of the small copies, in the order of their hashes, some right and some wrong ones."""
    places = list(embedded.thumbnails)
    chosen = [place for place in places if right[place]][:num_examples] + [place for place in places if not right[place]][
        :num_examples
    ]
    return {place: embedded.thumbnails[place] for place in chosen}


def needs(context: Context, eval_set: EvalSet, argument: str) -> dict[str, Any]:
    """What a result depends on beside the model and the set."""
    return {"num_examples": context.config.num_examples, "likelihood": context.config.likelihood}


def run(context: Context, eval_set: EvalSet, argument: str) -> Result:
    """Score the test split."""
    facts, config = context.facts(), context.config
    embedded = context.embedded(eval_set, "test")
    if "logit_scale" in facts:
        score = by_cosines(context.classifier(eval_set), facts)
    else:
        score = by_likelihood(context.encoder(), eval_set, config.likelihood)
    keep = eval_set.metric in metrics.OF_SCORES
    found, shares = predict(embedded, score, batch_size=config.batch_size, num_examples=config.num_examples, keep=keep)
    values = metrics.values(embedded, found.ranked, shares, len(eval_set.classnames), eval_set.metric)
    return Result(
        task="zero_shot", set=eval_set.name, values=values, num_pictures=len(embedded.keys), unreadable=embedded.unreadable,
        facts=results.classes(eval_set, embedded, found.ranked, facts, config.likelihood), rows=results.rows(found),
    )  # fmt: skip


def _batches(texts: list[str], batch_size: int) -> Iterator[list[str]]:
    yield from (texts[start : start + batch_size] for start in range(0, len(texts), batch_size))
