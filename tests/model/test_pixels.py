"""Pixels as the towers take them."""

import numpy as np
import torch

from model.config import IMAGE_MEAN, IMAGE_STD
from model.pixels import Normalise


def test_pixels_are_normalised_by_the_releases_constants() -> None:
    images = torch.tensor([[[[0, 128, 255]]]], dtype=torch.uint8)
    wanted = [(0 - 0.48145466) / 0.26862954, (128 / 255 - 0.4578275) / 0.26130258, (1 - 0.40821073) / 0.27577711]
    torch.testing.assert_close(Normalise()(images)[0, :, 0, 0], torch.tensor(wanted))


def test_every_value_is_the_one_that_arithmetic_gives_whole_or_in_parts() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), np.uint8))
    mean, std = (torch.tensor(values)[:, None, None] * 255 for values in (IMAGE_MEAN, IMAGE_STD))
    wanted = (images.permute(0, 3, 1, 2).float() - mean) / std
    normalise = Normalise()
    assert torch.equal(normalise(images), wanted)
    parts = [normalise(images, rows) for rows in (slice(0, 3), slice(3, 6), slice(6, 9))]
    assert torch.equal(torch.cat(parts), wanted)
    assert parts[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(parts[0], wanted[:3])  # the parts do not share memory
