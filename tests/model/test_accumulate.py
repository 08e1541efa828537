"""Micro-batches with one loss: the gradients of the same forward passes under one graph."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import accumulate, ranks
from model.gradients import FlatGradients
from model.loss import contrastive_loss, sigmoid_loss
from model.tiled import tiled_loss
from tests.model.ranks_helper import run_ranks

PAIRS, INPUTS, EMBED, MICRO = 12, 10, 6, 5  # the last micro-batch is smaller
LOSSES = {"softmax": contrastive_loss, "tiled": tiled_loss, "sigmoid": sigmoid_loss}
NAMES = tuple(LOSSES)
CPU = torch.device("cpu")


class Towers(nn.Module):
    """Two towers with dropout, and BatchNorm where asked for."""

    def __init__(self, dtype: torch.dtype, norm: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        between = (nn.BatchNorm1d(EMBED),) if norm else ()
        self.image = nn.Sequential(nn.Linear(INPUTS, EMBED), *between, nn.Dropout(0.5), nn.Linear(EMBED, EMBED))
        self.text = nn.Sequential(nn.Linear(INPUTS, EMBED), nn.Tanh(), nn.Dropout(0.5), nn.Linear(EMBED, EMBED))
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.logit_bias = nn.Parameter(torch.tensor(-3.0))
        self.to(dtype)

    def encode(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        return F.normalize(self.image(images), dim=-1), F.normalize(self.text(texts), dim=-1)

    def scalars(self, name: str) -> tuple[Tensor, ...]:
        return (self.logit_scale.exp(), self.logit_bias) if name == "sigmoid" else (self.logit_scale.exp(),)


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(PAIRS, INPUTS, generator=generator, dtype=torch.float64)
    return images.to(dtype), (images + torch.randn(PAIRS, INPUTS, generator=generator, dtype=torch.float64)).to(dtype)


def cached(name: str, towers: Towers, images: Tensor, texts: Tensor, micro_batch: int) -> float:
    """One backward by cached features."""

    def loss(image: Tensor, text: Tensor) -> Tensor:
        return LOSSES[name](image, text, *towers.scalars(name))

    def encode(rows: slice) -> tuple[Tensor, Tensor]:
        return towers.encode(images[rows], texts[rows])

    torch.manual_seed(1)
    return float(accumulate.backward(towers, encode, loss, len(images), micro_batch, CPU))


def one_graph(name: str, towers: Towers, images: Tensor, texts: Tensor, micro_batch: int) -> float:
    """The same forward passes, all kept, one backward."""
    torch.manual_seed(1)
    parts = zip(images.split(micro_batch), texts.split(micro_batch), strict=True)
    image, text = (torch.cat(features) for features in zip(*[towers.encode(*part) for part in parts], strict=True))
    value = LOSSES[name](image, text, *towers.scalars(name))
    value.backward()
    return value.item()


def gradients(towers: Towers) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in towers.parameters()]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_one_graph(name: str, norm: bool, dtype: torch.dtype, tolerance: float) -> None:
    own, other = Towers(dtype, norm), Towers(dtype, norm)
    value = cached(name, own, *inputs(dtype), MICRO)
    assert value == pytest.approx(one_graph(name, other, *inputs(dtype), MICRO), rel=tolerance)
    largest = max(float(gradient.abs().max()) for gradient in gradients(other))
    for found, wanted in zip(gradients(own), gradients(other), strict=True):
        assert float((found - wanted).abs().max()) < tolerance * largest
    for found, wanted in zip(own.buffers(), other.buffers(), strict=True):  # BatchNorm's means, variances and counts
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)
    assert torch.equal(torch.rand(3), drawn_after(name, dtype, norm))


def drawn_after(name: str, dtype: torch.dtype, norm: bool) -> Tensor:
    """What is drawn next after the same forward passes, done once."""
    one_graph(name, Towers(dtype, norm), *inputs(dtype), MICRO)
    return torch.rand(3)


def test_without_chance_or_batch_norm_it_is_the_big_batchs_gradient() -> None:
    own, other = (Towers(torch.float64, False).eval() for _ in range(2))
    cached("softmax", own, *inputs(torch.float64), 1)
    one_graph("softmax", other, *inputs(torch.float64), PAIRS)
    torch.testing.assert_close(gradients(own), gradients(other), rtol=1e-10, atol=1e-12)


def test_a_micro_batch_of_all_pairs_is_one_pass() -> None:
    for micro_batch in (0, PAIRS, PAIRS + 1):
        own, other = (Towers(torch.float32, True) for _ in range(2))
        cached("softmax", own, *inputs(torch.float32), micro_batch)
        one_graph("softmax", other, *inputs(torch.float32), PAIRS)
        assert all(torch.equal(a, b) for a, b in zip(gradients(own), gradients(other), strict=True))


def test_batch_norm_counts_again_after_an_error() -> None:
    towers = Towers(torch.float32, True)

    def encode(rows: slice) -> tuple[Tensor, Tensor]:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        accumulate.backward(towers, encode, lambda image, text: image.sum(), 4, 2, CPU)
    assert all(module.track_running_stats for module in towers.modules() if isinstance(module, nn.BatchNorm1d))


def one_rank(rank: int) -> list[list[Tensor]]:
    """A rank's micro-batches under each loss, gradients reduced once."""
    me, results = ranks.here(CPU), []
    images, texts = inputs(torch.float64)
    share = slice(rank * PAIRS // 2, (rank + 1) * PAIRS // 2)
    for name in NAMES:
        towers = Towers(torch.float64, False).eval()
        grads = FlatGradients(towers, CPU)
        cached(name, towers, images[share], texts[share], 4)
        grads.average(me)
        results.append(gradients(towers))
    return results


def test_two_ranks_with_micro_batches_give_the_global_batchs_gradient(tmp_path: Path) -> None:
    for results in run_ranks(2, tmp_path, one_rank):
        for name, found in zip(NAMES, results, strict=True):
            whole = Towers(torch.float64, False).eval()
            one_graph(name, whole, *inputs(torch.float64), PAIRS)
            torch.testing.assert_close(found, gradients(whole), rtol=1e-10, atol=1e-12)
