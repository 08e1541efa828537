"""Towers that do not fit: each block's weights, gradients and moments are cut over the ranks (FSDP2) and met only to be used.

in      a model that is built, the same on every rank
out     the same model; blocks hold DTensors, everything else is as it was and is reduced as without this
law     features, losses and gradients are those of whole weights, to rounding; a checkpoint holds whole tensors, so that a run
        may go on with or without this, on any number of ranks
law     all ranks call every function here
cost    memory of a block's weights, gradients and moments over the ranks; each block's weights are gathered forward and back, its
        gradients reduced as they come. Embeddings, norms outside of blocks and a ResNet's stem stay whole
source  torch.distributed.fsdp.fully_shard; Zhao et al. 2023
"""

from collections.abc import Mapping

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from model.ranks import Ranks
from model.transformer import Block
from model.vision import Bottleneck


def shard(model: nn.Module, ranks: Ranks) -> None:
    """Cut the blocks of both towers over the ranks; one rank keeps them whole."""
    if ranks.world_size == 1:
        return
    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    for block in [module for module in model.modules() if isinstance(module, Block | Bottleneck)]:
        fully_shard(block, mesh=mesh)


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, whole, on every rank."""
    return {name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor for name, tensor in tensors.items()}


def cut(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors, cut as those of the same name in `like` are, where the shapes are the same."""
    result = dict(tensors)
    for name, own in like.items():
        if isinstance(own, DTensor) and name in result and result[name].shape == own.shape:
            result[name] = distribute_tensor(result[name].to(own.device), own.device_mesh, own.placements)
    return result


def squared_length(tensors: list[Tensor], ranks: Ranks) -> float:
    """The sum of squares of DTensors, over all ranks."""
    if not tensors:
        return 0.0
    local = [tensor.to_local().float() for tensor in tensors if isinstance(tensor, DTensor)]
    total = sum((tensor.square().sum() for tensor in local), start=local[0].new_zeros(()))
    dist.all_reduce(total)
    return float(total)
