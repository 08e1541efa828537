"""A model at another resolution: position embeddings fitted to another grid, and a run that goes on from a finished model.

law     the class token's (or the mean's) own position stays; the grid is resized as a picture: bicubic, antialiased, corners
        not aligned; at the same resolution nothing changes, bit for bit
source  CLIP section 2.5 (one more epoch at 336 px, after FixRes, Touvron et al. 2019); how to resize is not told there:
        what open_clip does
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, cat, nn

from model.checkpoint import load_model, load_weights
from model.config import ClipConfig

POSITIONS = ("visual.positional_embedding", "visual.attnpool.positional_embedding")  # of a ViT, of a ResNet


def resize_positions(positions: Tensor, num_cells: int) -> Tensor:
    """Fit the position embeddings of a square grid to one of `num_cells`.  [1 + P, D] -> [1 + num_cells, D]"""
    old_side, new_side = math.isqrt(len(positions) - 1), math.isqrt(num_cells)
    if old_side**2 != len(positions) - 1 or new_side**2 != num_cells:
        raise ValueError(f"positions: expected square grids, found {len(positions) - 1} cells to be resized to {num_cells}")
    if old_side == new_side:
        return positions
    grid = positions[1:].T.unflatten(1, (old_side, old_side))[None].float()
    resized = F.interpolate(grid, size=(new_side, new_side), mode="bicubic", antialias=True, align_corners=False)
    return cat([positions[:1], resized[0].flatten(1).T.to(positions.dtype)])


def fit(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a model of the same towers at any resolution, fitted to `model`'s."""
    own = model.state_dict()
    fitted = dict(tensors)
    for name in POSITIONS:
        if name in own and name in tensors:
            fitted[name] = resize_positions(tensors[name], len(own[name]) - 1)
    return fitted


def start_from(model: nn.Module, config: ClipConfig, folder: str) -> None:
    """Give `model` the weights of the finished model in `folder`. Raises ValueError where more than the resolution differs."""
    start, _, found = load_model(folder)
    vision = replace(found.vision, image_resolution=config.vision.image_resolution)
    if replace(found, vision=vision) != config:
        raise ValueError(f"{folder}: expected a model that differs in its resolution only from {config}, found {found}")
    load_weights(model, fit(start.state_dict(), model), folder)
