"""A checkpoint of any origin as something that encodes: ours, OpenAI's, open_clip's, Hugging Face's.

in      our model folder, or what model/formats reads, with a tokenizer where it has none of its own
out     features of pictures before and after the projection, features of texts; not normalised, float32
law     a row is a function of its own picture or text: which batch it is in changes nothing but rounding
letters B pictures, R resolution in px, E embedding, D width before the projection
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model import checkpoint
from model.clip import CLIP
from model.config import IMAGE_MEAN, IMAGE_STD
from model.evaluate import results
from model.evaluate.config import EvaluateConfig
from model.objectives import Model, scalars
from model.vision import VisionTransformer


@dataclass(frozen=True, slots=True)
class Encoder:
    """A model on its device with its tokenizer."""

    model: Model
    tokenizer: Callable[[list[str]], Tensor]
    resolution: int
    objective: str = "contrastive"

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def facts(self) -> dict[str, Any]:
        """objective, and the factor of the cosines and a sigmoid's bias where the model has them."""
        return {"objective": self.objective, **scalars(self.model)}

    @torch.inference_mode()
    def images(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Features after the projection, and before it where the tower has one.  uint8 [B, R, R, 3] -> [B, E], [B, D]"""
        images = normalised(pixels, self.device)
        visual = self.model.visual
        if not isinstance(visual, VisionTransformer):
            return visual(images).float().cpu().numpy(), None
        pooled = visual.pooled(images)
        return (pooled @ visual.proj).float().cpu().numpy(), pooled.float().cpu().numpy()

    @torch.inference_mode()
    def texts(self, texts: list[str]) -> np.ndarray:
        """Features of texts.  -> [len(texts), E]"""
        assert isinstance(self.model, CLIP)
        return self.model.encode_text(self.tokenizer(texts).to(self.device)).float().cpu().numpy()


def normalised(images: np.ndarray, device: torch.device) -> Tensor:
    """Pixels as the towers take them.  uint8 [B, R, R, 3] -> [B, 3, R, R] float32"""
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    return (pixels - mean) / std


def load(config: EvaluateConfig) -> Encoder:
    """The model that `config` names, on a GPU where there is one. Raises ValueError where it is none that can be used."""
    path = config.model_path
    model: Model
    if not config.model or results.is_ours(path):
        model, tokenizer, settings = checkpoint.load_any(path)
    else:
        from model.formats import foreign

        found = foreign.read(path, config.activation)
        model, tokenizer, settings = found.build(), found.tokenizer, found.config
        if config.tokenizer:
            tokenizer = foreign.read_tokenizer(config.tokenizer, settings.text.context_length)
        if tokenizer is None:
            raise ValueError(f"{path}: expected a tokenizer beside the weights, found none; give --tokenizer FILE")
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return Encoder(model.eval(), tokenizer, settings.vision.image_resolution, settings.objective)
