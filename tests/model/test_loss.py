"""The losses on 1, 2 and 4 processes against one dense float64 computation: equal values, equal gradients."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import loss as losses
from model import ranks, tiled
from model.gradients import FlatGradients
from model.loss import contrastive_loss, sigmoid_loss
from model.tiled import tiled_loss
from tests.model.ranks_helper import run_ranks

PAIRS, INPUTS, EMBED = 12, 7, 5
LOSSES = {"softmax": contrastive_loss, "tiled": tiled_loss, "sigmoid": sigmoid_loss}
NAMES = tuple(LOSSES)
SCALES = ([1 / 0.07] * 4, [100.0] * 4, [3.0, 100.0, 14.0, 50.0])  # of the ranks; the last as no trainer has them


class Towers(nn.Module):
    """Two linear towers, a scale for each rank and a bias: enough for every gradient to depend on every pair."""

    def __init__(self, scales: list[float]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.image = nn.Parameter(torch.randn(INPUTS, EMBED, generator=generator, dtype=torch.float64))
        self.text = nn.Parameter(torch.randn(INPUTS, EMBED, generator=generator, dtype=torch.float64))
        self.logit_scales = nn.Parameter(torch.tensor(scales, dtype=torch.float64).log())
        self.logit_bias = nn.Parameter(torch.tensor(-10.0, dtype=torch.float64))

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return F.normalize(images @ self.image, dim=-1), F.normalize(texts @ self.text, dim=-1), self.logit_scales.exp()


def value_of(name: str, image: Tensor, text: Tensor, factor: Tensor, bias: Tensor) -> Tensor:
    """The loss of a name; the sigmoid's has a bias beside the factor."""
    return LOSSES[name](image, text, factor, *([bias] if name == "sigmoid" else []))


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(PAIRS, INPUTS, generator=generator, dtype=torch.float64)
    return images, images + torch.randn(PAIRS, INPUTS, generator=generator, dtype=torch.float64)


def dense_value(name: str, image: Tensor, text: Tensor, scale_N: Tensor, bias: Tensor) -> Tensor:
    """The definitions written out with the whole matrix; row i and column i are scaled by their owner's factor."""
    cosines, own = image @ text.T, torch.eye(len(image), dtype=torch.bool)
    if name == "sigmoid":
        logits = scale_N[:, None] * cosines + bias
        return -F.logsigmoid(torch.where(own, logits, -logits)).sum() / len(image)
    rows = scale_N[:, None] * cosines
    columns = cosines * scale_N
    return (rows.logsumexp(1).mean() - rows[own].mean() + columns.logsumexp(0).mean() - columns[own].mean()) / 2


def gradients_of(towers: Towers) -> list[Tensor]:
    """Of every parameter; zeros where the loss has none."""
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in towers.parameters()]


def dense(name: str, scales: list[float], world_size: int) -> tuple[float, list[Tensor]]:
    """The loss of the global batch and its gradients."""
    towers = Towers(scales)
    image, text, factors = towers(*inputs())
    value = dense_value(name, image, text, factors[:world_size].repeat_interleave(PAIRS // world_size), towers.logit_bias)
    value.backward()
    return value.item(), gradients_of(towers)


def small_tiles() -> None:
    """Make a batch of a few pairs several tiles, the last ones smaller."""
    tiled.TILES, losses.CHUNK = {"cpu": 5}, 5


@pytest.fixture
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "TILES", {"cpu": 5})
    monkeypatch.setattr(losses, "CHUNK", 5)


def one_rank(rank: int, world_size: int) -> list[tuple[float, list[Tensor]]]:
    """A rank's part of the same computations, reduced as the trainer reduces it."""
    small_tiles()
    me = ranks.here(torch.device("cpu"))
    assert (me.rank, me.world_size) == (rank, world_size)
    share = slice(rank * PAIRS // world_size, (rank + 1) * PAIRS // world_size)
    images, texts = inputs()
    results = []
    for name in NAMES:
        for scales in SCALES:
            towers = Towers(scales)
            grads = FlatGradients(towers, me.device)
            image, text, factors = towers(images[share], texts[share])
            value = value_of(name, image, text, factors[rank], towers.logit_bias)
            value.backward()
            grads.average(me)
            results.append((float(ranks.mean(value.detach(), me)), gradients_of(towers)))
    return results


@pytest.mark.usefixtures("_small_tiles")
@pytest.mark.parametrize("name", NAMES)
def test_one_process_without_a_group_equals_the_dense_computation(name: str) -> None:
    for scales in SCALES:
        towers = Towers(scales)
        image, text, factors = towers(*inputs())
        value = value_of(name, image, text, factors[0], towers.logit_bias)
        value.backward()
        expected_value, expected = dense(name, scales, 1)
        assert value.item() == pytest.approx(expected_value, rel=1e-12)
        torch.testing.assert_close(gradients_of(towers), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_any_number_of_processes_equals_the_dense_computation(world_size: int, tmp_path: Path) -> None:
    wanted = [dense(name, scales, world_size) for name in NAMES for scales in SCALES]
    for results in run_ranks(world_size, tmp_path, one_rank, world_size):
        for (value, gradients), (wanted_value, wanted_gradients) in zip(results, wanted, strict=True):
            assert value == pytest.approx(wanted_value, rel=1e-12)
            torch.testing.assert_close(gradients, wanted_gradients, rtol=1e-10, atol=1e-12)


def features(pairs: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Unit rows, texts near their images, that differ from pair to pair; leaves."""
    generator = torch.Generator().manual_seed(pairs)
    image = torch.randn(pairs, 32, generator=generator)
    text = image + torch.randn(pairs, 32, generator=generator)
    image, text = (F.normalize(rows, dim=-1).to(dtype).requires_grad_() for rows in (image, text))
    return image, text


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 8e-3)])
@pytest.mark.parametrize("name", NAMES)
def test_lower_precision_is_near_the_dense_float64_computation(
    name: str, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiled, "TILES", {"cpu": 64})
    monkeypatch.setattr(losses, "CHUNK", 64)
    for scale in (14.0, 100.0):
        leaves = [*features(300, dtype), torch.tensor(scale, requires_grad=True), torch.tensor(-5.0, requires_grad=True)]
        exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
        image, text, factor, bias = leaves
        value = value_of(name, image, text, factor, bias)
        value.backward()
        wanted = dense_value(name, exact[0], exact[1], exact[2].expand(300), exact[3])
        wanted.backward()
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(wanted.item(), rel=1e-5)
        for leaf, reference in zip(leaves, exact, strict=True):
            if reference.grad is not None:
                assert leaf.grad is not None
                assert leaf.grad.dtype == leaf.dtype
                # The gradient of the scale is a difference of mean cosines: its rounding is that of the cosines.
                size = reference.grad.abs().max() if leaf.dim() else reference.grad.abs().clamp(min=0.1)
                assert (leaf.grad.double() - reference.grad).abs().max() / size < tolerance


def test_a_scale_of_a_hundred_and_opposite_features_stay_finite() -> None:
    image = F.normalize(torch.ones(8, 4), dim=-1)
    for name in NAMES:
        leaf = image.clone().requires_grad_()
        value = value_of(name, leaf, -image, torch.tensor(100.0), torch.tensor(-10.0))
        value.backward()
        assert math.isfinite(value.item())
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_equal_features_give_the_logarithm_of_the_batch() -> None:
    same = F.normalize(torch.ones(8, 4), dim=-1)
    assert contrastive_loss(same, same, torch.tensor(10.0)).item() == pytest.approx(math.log(8))
    assert tiled_loss(same, same, torch.tensor(10.0)).item() == pytest.approx(math.log(8))


def test_the_sigmoid_loss_of_equal_features_is_that_of_its_logits() -> None:
    same = F.normalize(torch.ones(8, 4), dim=-1)
    wanted = math.log1p(math.exp(2.0)) + 7 * math.log1p(math.exp(-2.0))  # one logit of -2 that should be high, seven low
    assert sigmoid_loss(same, same, torch.tensor(8.0), torch.tensor(-10.0)).item() == pytest.approx(wanted)


def test_a_loss_that_is_weighted_has_weighted_gradients() -> None:
    image, text = features(40, torch.float32)
    wanted = torch.autograd.grad(0.25 * contrastive_loss(image, text, torch.tensor(20.0)), [image, text])
    found = torch.autograd.grad(0.25 * tiled_loss(image, text, torch.tensor(20.0)), [image, text])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-7)
