"""Half-precision moments and weights: rounding that is right on average, Adam that stays near Adam, an exact resume."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from model import optimizer
from model.clip import CLIP
from model.config import OptimizerConfig
from model.rounding import stochastic_round
from tests.model.small import small_clip

HALVES = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_rounded_value_is_one_of_its_two_neighbours(dtype: torch.dtype) -> None:
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) * torch.logspace(-9, 4, 20_000)
    rounded = stochastic_round(values, dtype, 1)
    nearest = values.to(dtype)
    down, up = (torch.nextafter(nearest, torch.tensor(end, dtype=dtype)) for end in (-math.inf, math.inf))
    assert rounded.dtype == dtype
    assert ((rounded == nearest) | (rounded == down) | (rounded == up)).all()
    assert ((rounded.float() - values).abs() <= (up.float() - down.float())).all()
    between = values != nearest.float()
    assert ((rounded[between].float() > values[between]).float().mean() - 0.5).abs() < 0.02
    assert torch.equal(stochastic_round(nearest.float(), dtype, 2), nearest)  # what half precision holds stays


@pytest.mark.parametrize("dtype", HALVES)
def test_the_mean_of_many_draws_is_the_value(dtype: torch.dtype) -> None:
    draws = 40_000
    for value in (1.0003, -1.0003, 0.3, 3e-3, -7.7e-6, 3.1e-7, 2049.3):
        values = torch.full((draws,), value)
        rounded = stochastic_round(values, dtype, 7).double()
        gap = float(rounded.max() - rounded.min())
        assert gap > 0
        assert abs(float(rounded.mean()) - float(values[0])) < 4 * gap / 2 / math.sqrt(draws)  # four standard errors at most


@pytest.mark.parametrize("dtype", HALVES)
def test_rounding_is_a_function_of_the_seed_and_keeps_what_is_no_number(dtype: torch.dtype) -> None:
    values = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(stochastic_round(values, dtype, 3), stochastic_round(values, dtype, 3))
    assert not torch.equal(stochastic_round(values, dtype, 3), stochastic_round(values, dtype, 4))
    rounded = stochastic_round(torch.tensor([math.inf, -math.inf, math.nan, 0.0, -0.0]), dtype, 0)
    assert rounded[:2].tolist() == [math.inf, -math.inf]
    assert rounded[2].isnan()
    assert (rounded[3:] == 0).all()


def regression(config: OptimizerConfig, steps: int) -> tuple[Tensor, list[float]]:
    """The weights of a noisy least-squares problem after some steps, and the losses."""
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randn(24, 16, generator=generator)
    model = nn.Linear(16, 24)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    adam, losses = optimizer.make(model, config, 5), []
    for _ in range(steps):
        inputs = torch.randn(32, 16, generator=generator)
        loss = (model(inputs) - inputs @ wanted.T - 0.1 * torch.randn(32, 24, generator=generator)).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    return model.weight.detach().clone(), losses


def test_the_half_precision_optimiser_with_float32_moments_is_adamw() -> None:
    model = nn.Linear(16, 24)
    other = copy.deepcopy(model)
    config = OptimizerConfig(learning_rate=1e-2)
    adam = optimizer.make(model, config)
    groups = [{"params": [other.weight], "weight_decay": 0.2}, {"params": [other.bias], "weight_decay": 0.0}]
    own = optimizer.HalfAdamW(groups, config, 0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        for parameter, twin in zip(model.parameters(), other.parameters(), strict=True):
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            twin.grad = parameter.grad.clone()
        adam.step()
        own.step()
    for parameter, twin in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(twin, parameter, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("beta2", [0.98, 0.999])
@pytest.mark.parametrize("moments", ["bfloat16", "float16"])
def test_half_precision_moments_stay_near_adam(moments: str, beta2: float) -> None:
    settings = OptimizerConfig(learning_rate=1e-2, beta2=beta2, epsilon=1e-8, weight_decay=0.0)
    exact, exact_losses = regression(settings, 300)
    half = OptimizerConfig(learning_rate=1e-2, beta2=beta2, epsilon=1e-8, weight_decay=0.0, moments=moments)  # type: ignore[arg-type]
    weights, losses = regression(half, 300)
    assert exact_losses[-1] < 0.05 * exact_losses[0]
    assert float((weights - exact).norm() / exact.norm()) < (2e-3 if moments == "float16" else 5e-3)
    assert sum(losses[-20:]) == pytest.approx(sum(exact_losses[-20:]), rel=0.05)


def test_tiny_steps_move_bfloat16_weights_on_average() -> None:
    weight = nn.Parameter(torch.ones(20_000, dtype=torch.bfloat16))
    weight.grad_dtype = torch.float32
    config = OptimizerConfig(learning_rate=1e-4, text_weights="bfloat16", beta2=0.98)
    adam = optimizer.HalfAdamW([{"params": [weight]}], config, 0)
    for _ in range(20):  # each step is a fortieth of the gap below 1, to nearest all of them would be lost
        weight.grad = torch.ones(20_000)
        adam.step()
    assert float(weight.detach().float().mean()) == pytest.approx(1 - 20e-4, abs=1e-4)


def stepped(model: CLIP, adam: torch.optim.Optimizer, steps: range) -> None:
    """Some steps with gradients that are functions of the step."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = 1e-3 * torch.randn(parameter.shape, generator=generator)
        adam.step()


@pytest.mark.parametrize(("moments", "text_weights"), [("bfloat16", "bfloat16"), ("float16", "float32"), ("float32", "bfloat16")])
def test_a_resumed_optimiser_takes_the_same_steps_bit_for_bit(moments: str, text_weights: str) -> None:
    config = OptimizerConfig(moments=moments, text_weights=text_weights)  # type: ignore[arg-type]
    torch.manual_seed(0)
    model = CLIP(small_clip()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer.store_weights(model, config)
    adam = optimizer.make(model, config, 3)
    stepped(model, adam, range(3))
    again = CLIP(small_clip()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer.store_weights(again, config)
    again.load_state_dict(model.state_dict())
    resumed = optimizer.make(again, config, 3)
    saved = {name: value.clone().contiguous() for name, value in optimizer.state_tensors(adam, model).items()}
    optimizer.load_state_tensors(resumed, again, saved)
    stepped(model, adam, range(3, 6))
    stepped(again, resumed, range(3, 6))
    wanted = optimizer.state_tensors(adam, model)
    found = optimizer.state_tensors(resumed, again)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert all(torch.equal(own, other) for own, other in zip(model.parameters(), again.parameters(), strict=True))


def test_only_the_text_towers_matrices_are_kept_in_bfloat16() -> None:
    model = CLIP(small_clip())
    optimizer.store_weights(model, OptimizerConfig(text_weights="bfloat16"))
    halves = {name for name, parameter in model.named_parameters() if parameter.dtype == torch.bfloat16}
    block = {f"transformer.resblocks.{n}.{leaf}" for n in range(2) for leaf in (
        "attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")}  # fmt: skip
    assert halves == block | {"text_projection"}
