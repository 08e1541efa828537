"""Accumulation by cached features: one loss over the whole batch, though the towers see it in micro-batches.

in      a function that encodes some rows of the batch, a loss of all features
out     the gradients of every weight, added to those that are there; the loss
law     gradients are those of one graph that holds all micro-batches, to rounding: what is drawn while encoding (dropout)
        is drawn again the same, and the loss sees all features of the global batch at once
law     BatchNorm normalises by micro-batch, in both passes alike, and counts each micro-batch once in its running statistics
cost    the towers' forward twice; memory of one micro-batch and of the features. Ranks speak in the loss only, so gradients
        are reduced once a step, by the caller, after the last micro-batch
source  GradCache (Gao et al. 2021)
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Encode = Callable[[slice], tuple[Tensor, ...]]  # rows of the batch -> their features, tensors with a row for each pair
Loss = Callable[..., Tensor]  # of the whole batch's


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Let BatchNorm normalise by its batch as in training, without counting it."""
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def _draws(device: torch.device) -> list[Tensor]:
    """Where the generators stand that a tower may draw from."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _replay(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def backward(model: nn.Module, encode: Encode, loss: Loss, rows: int, micro_batch: int, device: torch.device) -> Tensor:
    """Forward and backward of a rank's batch.  -> the loss, without its graph

    `encode` calls `model`; `loss` may use its other weights. `micro_batch` 0, or not below `rows`: all rows at once, one pass.
    """
    if not 0 < micro_batch < rows:
        value = loss(*encode(slice(0, rows)))
        value.backward()
        return value.detach()
    parts = [slice(start, min(start + micro_batch, rows)) for start in range(0, rows, micro_batch)]
    states, cached = [], []
    with torch.no_grad(), statistics_kept(model):
        for part in parts:
            states.append(_draws(device))
            cached.append(encode(part))
    features = [torch.cat(parts_of).requires_grad_() for parts_of in zip(*cached, strict=True)]
    value = loss(*features)
    value.backward()
    after = _draws(device)
    for part, state in zip(parts, states, strict=True):
        _replay(state, device)
        torch.autograd.backward(encode(part), [each.grad[part] for each in features])  # type: ignore[index]
    _replay(after, device)
    return value.detach()
