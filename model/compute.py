"""How a model's towers are worked out: the switches of ComputeConfig, put on a module that is built.

law     no switch changes a feature or a gradient beyond rounding, nor a running statistic of BatchNorm
source  CLIP section 2.5 (checkpointed activations)
"""

import torch
from torch import nn

from model.config import ComputeConfig
from model.transformer import Attention, Transformer
from model.vision import AttentionPool, ModifiedResNet, VisionTransformer


def use(model: nn.Module, config: ComputeConfig) -> None:
    """Set every switch on `model`, which may be of any objective; its weights may move to another memory order."""
    for module in model.modules():
        if isinstance(module, Transformer | ModifiedResNet):
            module.recompute = config.activation_checkpointing
        if isinstance(module, Attention | AttentionPool):
            module.fused = config.fused_attention
        if isinstance(module, ModifiedResNet):
            module.memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
            module.to(memory_format=module.memory_format)  # type: ignore[call-overload]
    if config.compile:
        for tower in model.children():
            if isinstance(tower, Transformer | ModifiedResNet | VisionTransformer):
                tower.compile()
