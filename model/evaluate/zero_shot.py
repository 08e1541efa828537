"""Zero-shot classification: prompts make the classifier, cosines score the pictures.

in      a model on any device with its tokenizer, an evaluation set
out     for each picture the best five classes with their probabilities, and accuracies
law     classifier: encode each prompt, unit length, mean over the prompts of a class, unit length again
law     probability: softmax over the classes of logit_scale.exp() * cosine; the ranking does not depend on the scale
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
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from model.config import IMAGE_MEAN, IMAGE_STD
from model.evaluate import datasets, metrics
from model.evaluate.datasets import EvalSet, Example
from model.evaluate.results import Predictions

THUMBNAIL_PX = 96


class Encoders(Protocol):
    """What is asked of a model."""

    @property
    def logit_scale(self) -> Tensor: ...

    def encode_image(self, images: Tensor) -> Tensor: ...

    def encode_text(self, tokens: Tensor) -> Tensor: ...


@torch.inference_mode()
def class_features(
    model: Encoders, tokenizer: Callable[[list[str]], Tensor], eval_set: EvalSet, batch_size: int
) -> Tensor:  # fmt: skip
    """The classifier: one unit vector a class.  -> [C, E]"""
    templates = eval_set.templates
    classes_at_once = max(1, batch_size // len(templates))
    features = []
    for start in range(0, len(eval_set.classnames), classes_at_once):
        names = eval_set.classnames[start : start + classes_at_once]
        prompts = [template.replace(datasets.PLACEHOLDER, name) for name in names for template in templates]
        prompt_E = F.normalize(model.encode_text(tokenizer(prompts).to(model.logit_scale.device)).float(), dim=-1)
        features.append(F.normalize(prompt_E.unflatten(0, (len(names), len(templates))).mean(dim=1), dim=-1))
    return torch.cat(features)


@torch.inference_mode()
def image_features(model: Encoders, images: np.ndarray) -> Tensor:
    """Unit vectors of pictures.  uint8 [B, R, R, 3] -> [B, E]"""
    device = model.logit_scale.device
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    return F.normalize(model.encode_image((pixels - mean) / std).float(), dim=-1)


@torch.inference_mode()
def predict(
    model: Encoders,
    tokenizer: Callable[[list[str]], Tensor],
    eval_set: EvalSet,
    *,
    resolution: int,
    batch_size: int,
    num_examples: int,
) -> Predictions:
    """Score every picture of the set; keep small copies of `num_examples` right and as many wrong ones, by hash."""
    classes_CE = class_features(model, tokenizer, eval_set, batch_size)
    right, wrong = Sample(num_examples), Sample(num_examples)
    keys: list[str] = []
    labels: list[int] = []
    ranked, probabilities = [], []
    for batch in _batches(datasets.examples(eval_set), batch_size):
        images = np.stack([datasets.preprocess(example.image, resolution) for example in batch])
        logits_BC = model.logit_scale.exp().float() * image_features(model, images) @ classes_CE.T
        best = metrics.best(logits_BC.cpu().numpy())
        ranked.append(best)
        probabilities.append(np.take_along_axis(logits_BC.softmax(dim=1).cpu().numpy(), best, axis=1))
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
