"""AdamW by the paper's rule, and its learning rate as a function of the step.

law     decayed: weights that are no gains and no biases, that is convolutions, matrices, embeddings of tokens and of
        positions, the class embedding and the projections; not decayed: biases, gains of norms, logit_scale
source  CLIP section 2.5
"""

import math

import torch
from torch import Tensor, nn

from model.config import OptimizerConfig


def is_decayed(name: str, model: nn.Module) -> bool:
    """Whether weight decay applies to the parameter of this name."""
    owner_name, _, leaf = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    is_gain = leaf == "logit_scale" or (isinstance(owner, (nn.LayerNorm, nn.BatchNorm2d)) and leaf == "weight")
    return not is_gain and not leaf.endswith("bias")


def make(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """The optimiser of a model."""
    named = list(model.named_parameters())
    decayed = [parameter for name, parameter in named if is_decayed(name, model)]
    others = [parameter for name, parameter in named if not is_decayed(name, model)]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.epsilon, fused=True)


def learning_rate(step: int, num_steps: int, config: OptimizerConfig) -> float:
    """Linear warm-up, then half a cosine down to zero.  `step` counts from 0."""
    if step < config.num_warmup_steps:
        return config.learning_rate * (step + 1) / config.num_warmup_steps
    done = (step - config.num_warmup_steps) / max(1, num_steps - config.num_warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def state_tensors(optimizer: torch.optim.AdamW, model: nn.Module) -> dict[str, Tensor]:
    """The optimiser's moments and step counts by parameter name, for a checkpoint."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def load_state_tensors(optimizer: torch.optim.AdamW, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put back what `state_tensors` gave, in the memory layout of the parameters."""
    for name, parameter in model.named_parameters():
        keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"{name}/{key}" in tensors]
        optimizer.state[parameter] = {
            key: torch.empty_like(parameter).copy_(tensors[f"{name}/{key}"])
            if key != "step"
            else tensors[f"{name}/{key}"].to(parameter.device)
            for key in keys
        }
