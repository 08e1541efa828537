"""Retrieval both ways: the texts of a picture, the pictures of a text.

in      the embeddings of a set of captions, any number of them (at least one) for a picture
out     text_r1, text_r5, text_r10: a picture finds one of its own texts among the first 1, 5, 10 of all texts
        image_r1, image_r5, image_r10: a text finds its picture among the first 1, 5, 10 of all pictures
law     the place of a true answer is 1 + the number of answers with a larger cosine + those with an equal one that stand before
        it: the order of the set decides ties, and a model that gives everything one vector scores what chance gives, not 100 %
law     a picture that can not be read leaves the set together with its texts, and is counted
cost    some rows of cosines in memory at once
source  CLIP table 13. --tasks retrieval asks with the texts as they are, retrieval:a photo of puts "a photo of" in front as the
        paper does
compare numbers of other splits (Karpathy's test sets have 1,000 and 5,000 pictures: more candidates, lower recall), of other
        numbers of texts a picture, and of texts with another prefix (1 to 2 points) are other numbers
"""

from dataclasses import replace
from typing import Any

import numpy as np

from model.evaluate.datasets import BadSet, EvalSet
from model.evaluate.embeddings import Embedded
from model.evaluate.tasks import Context, Result
from model.evaluate.zero_shot import unit

PLACES = (1, 5, 10)
ROWS_AT_ONCE = 1024


def first_places(queries: np.ndarray, answers: np.ndarray, query_owner: np.ndarray, answer_owner: np.ndarray) -> np.ndarray:
    """The best place, from 0, of an answer with the query's owner.  [Q, E], [A, E] unit vectors, [Q], [A] -> [Q] int64"""
    places = np.empty(len(queries), np.int64)
    order = np.arange(len(answers))
    for start in range(0, len(queries), ROWS_AT_ONCE):
        cosines = queries[start : start + ROWS_AT_ONCE] @ answers.T
        own = query_owner[start : start + ROWS_AT_ONCE, None] == answer_owner
        best = np.where(own, cosines, -np.inf).argmax(axis=1)  # the first of equals
        top = np.take_along_axis(cosines, best[:, None], axis=1)
        before = (cosines > top) | ((cosines == top) & (order < best[:, None]))
        places[start : start + ROWS_AT_ONCE] = before.sum(axis=1)
    return places


def recalls(embedded: Embedded) -> dict[str, float]:
    """All six numbers."""
    owners = np.repeat(np.arange(len(embedded.captions)), [len(texts) for texts in embedded.captions])
    images, texts = unit(embedded.image_features), unit(np.concatenate(embedded.caption_features))
    rows = np.arange(len(images))
    found = {}
    for name, places in (
        ("text", first_places(images, texts, rows, owners)),
        ("image", first_places(texts, images, owners, rows)),
    ):
        found |= {f"{name}_r{k}": float((places < k).mean()) for k in PLACES}
    return found


def needs(context: Context, eval_set: EvalSet, argument: str) -> dict[str, Any]:
    """What a result depends on beside the model and the set."""
    return {"prefix": argument}


def run(context: Context, eval_set: EvalSet, argument: str) -> Result:
    """Score the test split; `argument` goes in front of each text."""
    if "logit_scale" not in context.facts():
        raise BadSet(f"{eval_set.name}: retrieval needs a model with features of texts, this one predicts them")
    embedded = context.embedded(eval_set, "test")
    alone = [key for key, texts in zip(embedded.keys, embedded.captions, strict=True) if not texts]
    if alone:
        raise BadSet(f"{eval_set.name}: expected a text for every picture, found none for {len(alone):,}, first {alone[0]}")
    if argument:
        embedded = prefixed(context, embedded, argument)
    num_texts = sum(len(texts) for texts in embedded.captions)
    chance = {f"chance_image_r{k}": min(1.0, k / len(embedded.keys)) for k in PLACES[:1]}
    return Result(
        task="retrieval", set=eval_set.name, values={**recalls(embedded), **chance}, num_pictures=len(embedded.keys),
        unreadable=embedded.unreadable, facts={"num_texts": num_texts, "prefix": argument},
    )  # fmt: skip


def prefixed(context: Context, embedded: Embedded, prefix: str) -> Embedded:
    """The same pictures with each text behind a prefix; the texts are encoded anew."""
    captions = [[f"{prefix.strip()} {text}" for text in texts] for texts in embedded.captions]
    flat, size = [text for texts in captions for text in texts], context.config.batch_size
    parts = [context.encoder().texts(flat[start : start + size]) for start in range(0, len(flat), size)]
    ends = np.cumsum([len(texts) for texts in captions])[:-1]
    return replace(embedded, captions=captions, caption_features=np.split(np.concatenate(parts), ends))
