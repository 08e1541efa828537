"""The gradients of a model, zeroed, reduced over the ranks and measured in one call each.

law     the mean over the ranks; of weights that are cut over the ranks, FSDP has made it already
"""

import math

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from model import ranks, sharding
from model.ranks import Ranks


class FlatGradients:
    """The gradients of whole weights are views of one buffer, those of weights that are cut lie where FSDP puts them.

    One fixed layout also makes the order of every sum the same before and after a restart.
    """

    def __init__(self, model: nn.Module, device: torch.device):
        self._cut = [p for p in model.parameters() if isinstance(p, DTensor)]
        parameters = [p for p in model.parameters() if not isinstance(p, DTensor)]
        self._buffer = torch.zeros(sum(p.numel() for p in parameters), dtype=parameters[0].dtype, device=device)
        start = 0
        for parameter in parameters:
            parameter.grad = self._buffer.as_strided(parameter.shape, parameter.stride(), start)  # its own memory layout
            start += parameter.numel()

    def zero(self) -> None:
        """Set every gradient to zero."""
        self._buffer.zero_()
        for parameter in self._cut:
            parameter.grad = None

    def average(self, me: Ranks) -> None:
        """Make each rank's gradient the mean of all."""
        ranks.mean(self._buffer, me)

    def norm(self, me: Ranks) -> float:
        """Length of the gradient as one vector; called on every rank."""
        own = float(self._buffer.norm())
        cut = sharding.squared_length([p.grad for p in self._cut if p.grad is not None], me)
        return math.sqrt(own**2 + cut) if cut else own
