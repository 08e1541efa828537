"""AdamW by the paper's rule, and its learning rate as a function of the step.

law     decayed: weights that are no gains and no biases, that is convolutions, matrices, embeddings of tokens and of
        positions, the class embedding and the projections; not decayed: biases, gains of norms, logit_scale
law     what is kept in half precision, moments or weights, is worked out in float32 and rounded by chance: a small step is
        not lost, it is taken sometimes. The chance is a function of (seed, step, tensor), the same on every rank
memory  beside a float32 weight, bytes: moments 8 in float32, 4 in half precision; a weight 4, or 2 in bfloat16; a gradient 4
source  CLIP section 2.5; half-precision moments: Dhariwal et al. 2020 (Jukebox); rounding: openai/CLIP issue 29
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from model.config import OptimizerConfig
from model.order import key
from model.rounding import stochastic_round

ROUNDING = 5  # what a draw is for; see model.order
FLOAT16_TOP = 2.0**14  # the largest moment of a tensor is kept below it


def is_decayed(name: str, model: nn.Module) -> bool:
    """Whether weight decay applies to the parameter of this name."""
    owner_name, _, leaf = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    is_gain = leaf == "logit_scale" or (isinstance(owner, (nn.LayerNorm, nn.BatchNorm2d)) and leaf == "weight")
    return not is_gain and not leaf.endswith("bias")


def store_weights(model: nn.Module, config: OptimizerConfig) -> None:
    """Keep the text tower's matrices as the settings say: those of its blocks and its projection, as OpenAI's release does.

    Embeddings, gains and biases stay float32, and so do all gradients.
    """
    if config.text_weights == "float32":
        return
    for name, parameter in model.named_parameters():
        if (name.startswith("transformer.") and parameter.dim() == 2) or name == "text_projection":
            parameter.data = parameter.data.to(getattr(torch, config.text_weights))
            parameter.grad_dtype = torch.float32


class HalfAdamW(torch.optim.Optimizer):
    """AdamW with float32 arithmetic whose moments, and weights that are bfloat16, are kept in half precision.

    float16 has little range: a tensor's moments are kept as multiples of a power of two, and of the second the root.
    """

    def __init__(self, groups: list[dict[str, Any]], config: OptimizerConfig, seed: int):
        betas = (config.beta1, config.beta2)
        super().__init__(groups, {"lr": config.learning_rate, "betas": betas, "eps": config.epsilon, "weight_decay": 0.0})
        self._type, self._seed = getattr(torch, config.moments), seed

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Take one step with the gradients that the weights have."""
        assert closure is None
        number = 0
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, parameter.grad.float(), group, number)
                number += 1

    def _step(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any], number: int) -> None:
        state = self.state[parameter]
        (beta1, beta2), done = group["betas"], int(state.get("step", 0)) + 1
        first, second = self._load(state, "exp_avg", gradient), self._load(state, "exp_avg_sq", gradient)
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        divisor = (second.sqrt() / math.sqrt(1 - beta2**done)).add_(group["eps"])
        weights = parameter.float() if parameter.dtype != torch.float32 else parameter
        weights.mul_(1 - group["lr"] * group["weight_decay"])
        weights.addcdiv_(first, divisor, value=-group["lr"] / (1 - beta1**done))
        seeds = [int(draw >> 1) for draw in (int(key(self._seed, ROUNDING, done, number, use)[0]) for use in range(3))]
        if weights is not parameter:
            parameter.copy_(stochastic_round(weights, parameter.dtype, seeds[0]))
        self._store(state, "exp_avg", first, seeds[1])
        self._store(state, "exp_avg_sq", second, seeds[2])
        state["step"] = torch.tensor(float(done))

    def _load(self, state: dict[str, Tensor], name: str, like: Tensor) -> Tensor:
        """A moment in float32, for this step to change."""
        if name not in state:
            return torch.zeros_like(like)
        values = state[name].to(torch.float32, copy=True)
        if self._type == torch.float16:
            values.mul_(state[f"{name}_scale"])
            return values.square_() if name == "exp_avg_sq" else values
        return values

    def _store(self, state: dict[str, Tensor], name: str, values: Tensor, seed: int) -> None:
        """Keep a moment."""
        if self._type == torch.float16:
            values = values.sqrt() if name == "exp_avg_sq" else values
            exponent = torch.frexp(values.abs().amax() / FLOAT16_TOP).exponent
            state[f"{name}_scale"] = torch.ldexp(values.new_ones(()), exponent)
            values = values / state[f"{name}_scale"]
        state[name] = values if self._type == torch.float32 else stochastic_round(values, self._type, seed)


def make(model: nn.Module, config: OptimizerConfig, seed: int = 0) -> torch.optim.Optimizer:
    """The optimiser of a model; `seed` is of the rounding, where there is any."""
    named = list(model.named_parameters())
    decayed = [parameter for name, parameter in named if is_decayed(name, model)]
    others = [parameter for name, parameter in named if not is_decayed(name, model)]
    groups = [
        {"params": of_kind, "weight_decay": decay}
        for parameters, decay in ((decayed, config.weight_decay), (others, 0.0))
        for is_cut in (False, True)  # over the ranks: one update can not take both
        if (of_kind := [parameter for parameter in parameters if isinstance(parameter, DTensor) == is_cut])
    ]
    if config.moments != "float32" or config.text_weights != "float32":
        return HalfAdamW(groups, config, seed)
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.epsilon, fused=True)


def learning_rate(step: int, num_steps: int, config: OptimizerConfig) -> float:
    """Linear warm-up, then half a cosine down to zero.  `step` counts from 0."""
    if step < config.num_warmup_steps:
        return config.learning_rate * (step + 1) / config.num_warmup_steps
    done = (step - config.num_warmup_steps) / max(1, num_steps - config.num_warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def state_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimiser's moments and step counts by parameter name, for a checkpoint."""
    return {
        f"{name}/{kind}": value
        for name, parameter in model.named_parameters()
        for kind, value in optimizer.state[parameter].items()
    }


def load_state_tensors(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put back what `state_tensors` gave, in the memory layout of the parameters."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        owner, _, kind = name.rpartition("/")
        found.setdefault(owner, {})[kind] = value
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = {
            kind: torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            if value.shape == parameter.shape and kind != "step"
            else value.to(parameter.device)
            for kind, value in found.get(name, {}).items()
        }
