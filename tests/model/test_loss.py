"""The loss on 1, 2 and 4 processes against one dense float64 computation: equal values, equal gradients."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import ranks
from model.loss import contrastive_loss
from tests.model.ranks_helper import run_ranks

PAIRS, INPUTS, EMBED = 12, 7, 5
SCALES = (1 / 0.07, 100.0)


class Towers(nn.Module):
    """Two linear towers and a scale: enough for every gradient to depend on every pair."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.image = nn.Parameter(torch.randn(INPUTS, EMBED, generator=generator, dtype=torch.float64))
        self.text = nn.Parameter(torch.randn(INPUTS, EMBED, generator=generator, dtype=torch.float64))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(scale), dtype=torch.float64))

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return F.normalize(images @ self.image, dim=-1), F.normalize(texts @ self.text, dim=-1), self.logit_scale.exp()


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(PAIRS, INPUTS, generator=generator, dtype=torch.float64)
    return images, images + torch.randn(PAIRS, INPUTS, generator=generator, dtype=torch.float64)


def dense(scale: float) -> tuple[float, list[Tensor]]:
    """Figure 3 of the paper written out: a matrix, its rows and its columns."""
    towers = Towers(scale)
    image, text, factor = towers(*inputs())
    logits = factor * image @ text.T
    rows = -torch.stack([logits[i, i] - torch.logsumexp(logits[i], 0) for i in range(PAIRS)]).mean()
    columns = -torch.stack([logits[i, i] - torch.logsumexp(logits[:, i], 0) for i in range(PAIRS)]).mean()
    loss = (rows + columns) / 2
    loss.backward()
    return loss.item(), [parameter.grad for parameter in towers.parameters() if parameter.grad is not None]


def one_rank(rank: int, world_size: int) -> list[tuple[float, list[Tensor]]]:
    """A rank's part of the same computations, reduced as the trainer reduces it."""
    me = ranks.here(torch.device("cpu"))
    assert (me.rank, me.world_size) == (rank, world_size)
    share = slice(rank * PAIRS // world_size, (rank + 1) * PAIRS // world_size)
    images, texts = inputs()
    results = []
    for scale in SCALES:
        towers = Towers(scale)
        grads = ranks.FlatGradients(towers, me.device)
        loss = contrastive_loss(*towers(images[share], texts[share]))
        loss.backward()
        grads.average(me)
        gradients = [parameter.grad.clone() for parameter in towers.parameters() if parameter.grad is not None]
        results.append((float(ranks.mean(loss.detach(), me)), gradients))
    return results


def test_one_process_without_a_group_equals_the_dense_computation() -> None:
    for scale in SCALES:
        towers = Towers(scale)
        loss = contrastive_loss(*towers(*inputs()))
        loss.backward()
        expected_loss, expected = dense(scale)
        assert loss.item() == pytest.approx(expected_loss, rel=1e-12)
        for parameter, gradient in zip(towers.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_any_number_of_processes_equals_the_dense_computation(world_size: int, tmp_path: Path) -> None:
    wanted = [dense(scale) for scale in SCALES]
    for results in run_ranks(world_size, tmp_path, one_rank, world_size):
        for (loss, gradients), (wanted_loss, wanted_gradients) in zip(results, wanted, strict=True):
            assert loss == pytest.approx(wanted_loss, rel=1e-12)
            for gradient, wanted_gradient in zip(gradients, wanted_gradients, strict=True):
                torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-10, atol=1e-12)


def test_equal_features_give_the_logarithm_of_the_batch() -> None:
    same = F.normalize(torch.ones(8, 4), dim=-1)
    assert contrastive_loss(same, same, torch.tensor(10.0)).item() == pytest.approx(math.log(8))


def test_bfloat16_features_have_float32_logits() -> None:
    torch.manual_seed(0)
    image, text = (F.normalize(torch.randn(16, 8), dim=-1).bfloat16() for _ in range(2))
    wanted = contrastive_loss(image.float(), text.float(), torch.tensor(100.0))
    assert contrastive_loss(image, text, torch.tensor(100.0)).item() == pytest.approx(wanted.item(), rel=1e-6)
