"""Zero-shot classification: prompts make the classifier, cosines or likelihoods score the pictures.

in      a model of any objective on any device with its tokenizer, an evaluation set
out     for each picture the best five classes with their probabilities, and accuracies
law     two towers: encode each prompt, unit length, mean over the prompts of a class, unit length again; the cosines rank
law     predictive models (caption, bag of words): likelihoods of the prompts rank, see likelihood
law     probability: softmax over the classes of logit_scale.exp() * cosine, or of the likelihoods; a sigmoid model tells
        yes or no to each class by itself. The ranking does not depend on it
law     every picture of the set is scored once; which batch it is in changes nothing but rounding
cost    one batch of pictures, and the prompts of some classes, in memory
source  CLIP section 3.1.4; the order of operations is that of the release's notebook
compare not with numbers from other prompts or class names, which alone move accuracy by points; not with linear
        probes or fine-tuned models; a model whose training set had the set's pictures in it (no duplicates removed)
        scores too high. The mini set's glyphs say nothing about photographs.
letters B pictures, C classes, T prompts of a class, E embedding
"""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from model.config import IMAGE_MEAN, IMAGE_STD
from model.evaluate import datasets, likelihood, metrics
from model.evaluate.config import Likelihood
from model.evaluate.datasets import EvalSet, Example
from model.evaluate.results import Predictions
from model.objectives import Predictor, SigmoidClip

THUMBNAIL_PX = 96
Classifier = Callable[[np.ndarray], tuple[Tensor, Tensor]]  # uint8 [B, R, R, 3] -> scores and probabilities, [B, C]


class Encoders(Protocol):
    """What is asked of a model with two towers."""

    @property
    def logit_scale(self) -> Tensor: ...

    def encode_image(self, images: Tensor) -> Tensor: ...

    def encode_text(self, tokens: Tensor) -> Tensor: ...


def prompts(eval_set: EvalSet, classnames: Sequence[str]) -> list[str]:
    """Every prompt of each of the classes, one class after another."""
    return [template.replace(datasets.PLACEHOLDER, name) for name in classnames for template in eval_set.templates]


@torch.inference_mode()
def class_features(
    model: Encoders, tokenizer: Callable[[list[str]], Tensor], eval_set: EvalSet, batch_size: int
) -> Tensor:  # fmt: skip
    """The classifier of two towers: one unit vector a class.  -> [C, E]"""
    templates = eval_set.templates
    classes_at_once = max(1, batch_size // len(templates))
    features = []
    for start in range(0, len(eval_set.classnames), classes_at_once):
        names = eval_set.classnames[start : start + classes_at_once]
        tokens = tokenizer(prompts(eval_set, names)).to(model.logit_scale.device)
        prompt_E = F.normalize(model.encode_text(tokens).float(), dim=-1)
        features.append(F.normalize(prompt_E.unflatten(0, (len(names), len(templates))).mean(dim=1), dim=-1))
    return torch.cat(features)


def normalised(images: np.ndarray, device: torch.device) -> Tensor:
    """Pixels as the towers take them.  uint8 [B, R, R, 3] -> [B, 3, R, R] float32"""
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    return (pixels - mean) / std


def by_cosines(
    model: Encoders, tokenizer: Callable[[list[str]], Tensor], eval_set: EvalSet, batch_size: int
) -> Classifier:  # fmt: skip
    """The classifier of a model with two towers."""
    classes_CE = class_features(model, tokenizer, eval_set, batch_size)

    @torch.inference_mode()
    def classify(images: np.ndarray) -> tuple[Tensor, Tensor]:
        image_BE = F.normalize(model.encode_image(normalised(images, model.logit_scale.device)).float(), dim=-1)
        logits_BC = model.logit_scale.exp().float() * image_BE @ classes_CE.T
        if isinstance(model, SigmoidClip):
            return logits_BC, (logits_BC + model.logit_bias).sigmoid()
        return logits_BC, logits_BC.softmax(dim=1)

    return classify


def by_likelihood(
    model: Predictor, tokenizer: Callable[[list[str]], Tensor], eval_set: EvalSet, resolution: int, rule: Likelihood
) -> Classifier:
    """The classifier of a model that predicts texts."""
    device = next(model.parameters()).device
    tokens = tokenizer(prompts(eval_set, eval_set.classnames)).to(device)
    grey = likelihood.grey_logs(model, tokens, resolution)

    @torch.inference_mode()
    def classify(images: np.ndarray) -> tuple[Tensor, Tensor]:
        logs, counts = model.log_likelihood(model.encode_image(normalised(images, device)), tokens)
        scores = likelihood.prompt_scores(logs, counts, grey, rule)
        scores_BC = likelihood.class_scores(scores, len(eval_set.classnames))
        return scores_BC, scores_BC.softmax(dim=1)

    return classify


def predict(
    model: Encoders | Predictor,
    tokenizer: Callable[[list[str]], Tensor],
    eval_set: EvalSet,
    *,
    resolution: int,
    batch_size: int,
    num_examples: int,
    rule: Likelihood = "sum",
) -> Predictions:
    """Score every picture of the set; keep small copies of `num_examples` right and as many wrong ones, by hash.

    `rule` is how a model that predicts texts scores a prompt.
    """
    if isinstance(model, Predictor):
        classify = by_likelihood(model, tokenizer, eval_set, resolution, rule)
    else:
        classify = by_cosines(model, tokenizer, eval_set, batch_size)
    right, wrong = Sample(num_examples), Sample(num_examples)
    keys: list[str] = []
    labels: list[int] = []
    ranked, probabilities = [], []
    for batch in _batches(datasets.examples(eval_set), batch_size):
        scores_BC, shares_BC = classify(np.stack([datasets.preprocess(example.image, resolution) for example in batch]))
        best = metrics.best(scores_BC.cpu().numpy())
        ranked.append(best)
        probabilities.append(np.take_along_axis(shares_BC.cpu().numpy(), best, axis=1))
        for example, (first, *_) in zip(batch, best, strict=True):
            (right if first == example.label else wrong).offer(len(keys), example)
            keys.append(example.key)
            labels.append(example.label)
    return Predictions(
        keys=keys,
        labels=np.asarray(labels),
        ranked=np.concatenate(ranked),
        probabilities=np.concatenate(probabilities),
        pictures=right.pictures() | wrong.pictures(),
    )


class Sample:
    """The `size` offered examples whose keys have the smallest hashes."""

    def __init__(self, size: int):
        self.size = size
        self._kept: list[tuple[bytes, int, bytes]] = []  # hash, place, PNG; ascending

    def offer(self, place: int, example: Example) -> None:
        """Keep a small copy of the picture if it is among the smallest so far."""
        draw = hashlib.blake2b(f"{example.label}/{example.key}".encode(), digest_size=8).digest()
        if len(self._kept) < self.size or (self._kept and draw < self._kept[-1][0]):
            self._kept = sorted([*self._kept, (draw, place, _thumbnail(example.image))])[: self.size]

    def pictures(self) -> dict[int, bytes]:
        """The small copies by place."""
        return {place: png for _, place, png in self._kept}


def _thumbnail(image: Image.Image) -> bytes:
    copy = image.copy()
    copy.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    sink = io.BytesIO()
    copy.save(sink, "PNG")
    return sink.getvalue()


def _batches(examples: Iterator[Example], batch_size: int) -> Iterator[list[Example]]:
    while batch := list(islice(examples, batch_size)):
        yield batch
