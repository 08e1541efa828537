"""Pixels as the towers take them: less the mean, over the deviation of OpenAI's release.

in      [B, R, R, 3] uint8, where the towers are
out     [B, 3, R, R] float32, channels last in memory
law     a GPU works it out; a CPU looks it up, by a table of what it would work out: the same bits, in one pass
cost    CPU, 224 px: 0.10 ms a picture into memory that is used again, 0.42 into new memory, 0.55 by arithmetic (one core)
"""

import cv2
import numpy as np
import torch
from torch import Tensor

from model.config import IMAGE_MEAN, IMAGE_STD


def _arithmetic(values: Tensor) -> Tensor:
    mean, std = (torch.tensor(of, device=values.device) * 255 for of in (IMAGE_MEAN, IMAGE_STD))
    return values.float().sub_(mean).div_(std)


TABLE = _arithmetic(torch.arange(256)[None, :, None].expand(1, 256, 3)).numpy()


class Normalise:
    """Normalises a batch's rows. On a CPU the memory is used again by the next batch."""

    def __init__(self) -> None:
        self._memory = np.empty((0, 0, 0, 3), np.float32)

    def __call__(self, images: Tensor, rows: slice = slice(None)) -> Tensor:
        """Some rows of the batch `images`; other rows keep their values."""
        if images.is_cuda:
            return _arithmetic(images[rows]).permute(0, 3, 1, 2)
        if self._memory.shape != images.shape:
            self._memory = np.empty(images.shape, np.float32)
        into = self._memory[rows]
        flat = (len(into) * into.shape[1], into.shape[2], 3)
        cv2.LUT(images[rows].numpy().reshape(flat), TABLE, dst=into.reshape(flat))
        return torch.from_numpy(into).permute(0, 3, 1, 2)
