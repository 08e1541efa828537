"""The losses of a global batch whose features lie on several ranks: contrastive, the same by tiles, sigmoid.

law     each rank works out its own rows and columns against all gathered features; the mean of the ranks' losses, and the
        mean of their gradients, are those of one computation over the whole batch
shapes  B pairs on a rank, N = B * ranks pairs of the global batch, E embedding
source  CLIP section 2.5 and figure 3; SigLIP (Zhai et al. 2023), algorithm 1
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK = 1024  # texts of the sigmoid loss whose logits are in memory at once


class _Gather(torch.autograd.Function):
    """All ranks' rows, in the order of ranks; backward sums what every rank says about mine."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        gathered = features.new_empty(dist.get_world_size() * features.shape[0], features.shape[1])
        dist.all_gather_single(gathered, features.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        rows = gradient.shape[0] // dist.get_world_size()
        mine = gradient.new_empty(rows, gradient.shape[1])
        dist.reduce_scatter_single(mine, gradient.contiguous())
        return mine


def gather(features: Tensor) -> Tensor:
    """The features of all ranks, with gradient.  [B, E] -> [N, E]"""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return features
    return _Gather.apply(features)


def contrastive_loss(image_features: Tensor, text_features: Tensor, logit_scale: Tensor) -> Tensor:
    """Mean cross entropy of matching each image to its text, and each text to its image.

    image_features, text_features: [B, E], unit length; logit_scale: [], the factor of the cosines. Returns a scalar whose
    mean over the ranks is the loss of the global batch; logits are float32 or better.
    """
    precision = torch.promote_types(image_features.dtype, torch.float32)
    image_BE, text_BE = image_features.to(precision), text_features.to(precision)
    image_NE, text_NE = gather(image_BE), gather(text_BE)
    logits_per_image_BN = logit_scale * image_BE @ text_NE.T
    logits_per_text_BN = logit_scale * text_BE @ image_NE.T
    rows = len(image_BE)
    first = dist.get_rank() * rows if len(image_NE) > rows else 0
    labels_B = torch.arange(first, first + rows, device=image_BE.device)
    return (F.cross_entropy(logits_per_image_BN, labels_B) + F.cross_entropy(logits_per_text_BN, labels_B)) / 2


def _sigmoid_chunk(image_BE: Tensor, text_CE: Tensor, logit_scale: Tensor, logit_bias: Tensor, first: int) -> Tensor:
    """The sum of -log sigmoid over all logits of some texts; the pairs' own are at (first + c, c), where there is such a row."""
    logits_BC = logit_scale * image_BE @ text_CE.to(image_BE.dtype).T + logit_bias
    # A pair's own logit is -log sigmoid(x) = -log sigmoid(-x) - x; torch's softplus is linear above 20 and not exact.
    return -F.logsigmoid(-logits_BC).sum() - logits_BC.diagonal(-first).sum()


def sigmoid_loss(image_features: Tensor, text_features: Tensor, logit_scale: Tensor, logit_bias: Tensor) -> Tensor:
    """Mean over the pairs of the sum of binary cross entropies: is this text that image's, for every text of the batch?

    image_features, text_features: [B, E], unit length; logit_scale, logit_bias: []. Returns a scalar whose mean over the
    ranks is the loss of the global batch. Texts come by chunks, whose logits are made again for backward.
    """
    precision = torch.promote_types(image_features.dtype, torch.float32)
    image_BE, text_NE = image_features.to(precision), gather(text_features.to(precision))
    rows = len(image_BE)
    own = dist.get_rank() * rows if len(text_NE) > rows else 0
    total, start = image_BE.new_zeros(()), 0
    for text_CE in text_NE.split(CHUNK):
        arguments = (image_BE, text_CE, logit_scale, logit_bias, start - own)
        total = total + checkpoint(_sigmoid_chunk, *arguments, use_reentrant=False, preserve_rng_state=False)
        start += len(text_CE)
    return total / rows
