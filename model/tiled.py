"""The contrastive loss without its matrix: tiles of logits are made, used and forgotten, forward and again backward.

in      features of this rank's pairs; all ranks' texts are gathered, pictures stay where they are
law     value and gradients are those of `loss.contrastive_loss` on any number of ranks, to rounding; also where the ranks'
        logit scales differ: a row is scaled by its owner's, a column by its owner's
how     one pass over a rank's rows of the matrix gives the log-sum-exp of its rows, and its part of that of all columns,
        which the ranks then join. Backward makes each tile again from those sums
cost    memory beside the features: their gradients, a few tiles, N numbers. Products: one forward; backward three, or four
        for half-precision features on one rank, whose gradients are then summed in float32 one block at a time
shapes  B pairs on a rank, N = B * ranks pairs of the global batch, E embedding, T side of a tile
source  CLIP section 2.5; Inf-CL (Cheng et al. 2024) for tiles; the join of columns is ours
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

TILES = {"cpu": 512}  # rows and columns of a tile, by the kind of device: what caches hold is fastest
OTHER_TILE = 2048  # where each call costs more


class _Side(NamedTuple):
    """The pictures or the texts of a product, and what each knows of its softmax."""

    features: Tensor  # [n, E]
    scale: Tensor  # [n] factor of the cosines in its softmax
    log_sum: Tensor  # [n] log-sum-exp of its logits
    weight: Tensor  # [n] of its term in the sum that is differentiated
    first: int  # its place in the global batch


def _world() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _all(values: Tensor) -> Tensor:
    """The rows of all ranks, in the order of ranks.  [B, ...] -> [N, ...]"""
    _, world_size = _world()
    if world_size == 1:
        return values
    gathered = values.new_empty(world_size * values.shape[0], *values.shape[1:])
    dist.all_gather_single(gathered, values.contiguous())
    return gathered


def _mine(values: Tensor) -> Tensor:
    """The sum over the ranks of this rank's rows.  [N, ...] -> [B, ...]"""
    _, world_size = _world()
    if world_size == 1:
        return values
    mine = values.new_empty(values.shape[0] // world_size, *values.shape[1:])
    dist.reduce_scatter_single(mine, values.contiguous())
    return mine


def _join(log_sums: Tensor) -> Tensor:
    """The log-sum-exp over the ranks of parts of it, which are changed.  [N] -> [N]"""
    if _world()[1] == 1:
        return log_sums
    top = log_sums.clone()
    dist.all_reduce(top, dist.ReduceOp.MAX)
    sums = (log_sums - top).exp_()
    dist.all_reduce(sums)
    return top + sums.log_()


def _blocks(rows: Tensor) -> Iterator[slice]:
    side, count = TILES.get(rows.device.type, OTHER_TILE), len(rows)
    return (slice(start, min(start + side, count)) for start in range(0, count, side))


def _log_sums(rows: Tensor, columns: Tensor, row_scale: Tensor, column_scale: Tensor, precision: torch.dtype) -> list[Tensor]:
    """The log-sum-exp of each row, and of each column over these rows.  [B, E], [N, E], [B], [N] -> [B], [N]"""
    sums = [features.new_full((len(features),), -torch.inf, dtype=precision) for features in (rows, columns)]
    for own in _blocks(rows):
        block = rows[own].to(precision)
        for other in _blocks(columns):
            cosines = block @ columns[other].to(precision).T
            for sum_, place, scale, axis in ((sums[0], own, row_scale[own, None], 1), (sums[1], other, column_scale[other], 0)):
                sum_[place] = torch.logaddexp(sum_[place], (cosines * scale).logsumexp(axis))
    return sums


def _slopes(cosines: Tensor, row: _Side, column: _Side, own: slice, other: slice) -> tuple[Tensor, Tensor]:
    """What rows and columns want of a tile: each side's probabilities times its weight, pairs' own logits left out."""
    by_row = torch.addcmul(-row.log_sum[own, None], cosines, row.scale[own, None]).exp_().mul_(row.weight[own, None])
    by_column = torch.addcmul(-column.log_sum[other], cosines, column.scale[other]).exp_().mul_(column.weight[other])
    first, last = max(row.first + own.start, column.first + other.start), min(row.first + own.stop, column.first + other.stop)
    if first < last:
        pairs = torch.arange(first, last, device=cosines.device)
        at = (pairs - row.first - own.start, pairs - column.first - other.start)
        by_row[at] -= row.weight[own][at[0]]
        by_column[at] -= column.weight[other][at[1]]
    return by_row, by_column


def _pull(row: _Side, column: _Side, column_gradient: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the rows' features, and of the scales of rows and of columns; adds the columns' own where asked.

    -> [B, E] as the features are, [B], [N]
    """
    precision = row.scale.dtype
    gradient = torch.empty_like(row.features)
    row_scale, column_scale = torch.zeros_like(row.scale), torch.zeros_like(column.scale)
    for own in _blocks(row.features):
        block, total = row.features[own].to(precision), row.scale.new_zeros(own.stop - own.start, row.features.shape[1])
        for other in _blocks(column.features):
            across = column.features[other].to(precision)
            cosines = block @ across.T
            by_row, by_column = _slopes(cosines, row, column, own, other)
            row_scale[own] += torch.einsum("rc,rc->r", by_row, cosines)
            column_scale[other] += torch.einsum("rc,rc->c", by_column, cosines)
            slope = by_row.mul_(row.scale[own, None]).addcmul_(by_column, column.scale[other])
            total.addmm_(slope, across)
            if column_gradient is not None:
                column_gradient[other].addmm_(slope.T, block)
        gradient[own] = total
    return gradient, row_scale, column_scale


class _Tiled(torch.autograd.Function):
    """The loss of this rank's pairs."""

    @staticmethod
    def forward(ctx: Any, image_features: Tensor, text_features: Tensor, logit_scale: Tensor) -> Tensor:
        precision = torch.promote_types(image_features.dtype, torch.float32)
        mine = slice(_world()[0] * len(image_features), (_world()[0] + 1) * len(image_features))
        scale_B = logit_scale.detach().to(precision).expand(len(image_features)).contiguous()
        text_NE, scale_N = _all(text_features), _all(scale_B)
        row_B, column_N = _log_sums(image_features, text_NE, scale_B, scale_N, precision)
        column_N = _join(column_N)
        own_B = torch.cat(
            [(image_features[own].to(precision) * text_features[own].to(precision)).sum(1) for own in _blocks(image_features)]
        )
        ctx.save_for_backward(image_features, text_features, scale_N, row_B, column_N)
        ctx.mine, ctx.scale_type = mine, logit_scale.dtype
        return ((row_B + column_N[mine]) / 2 - scale_B * own_B).mean()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image_features, text_features, scale_N, row_B, column_N = ctx.saved_tensors
        text_NE, mine = _all(text_features), ctx.mine
        weight_B = (grad_outputs[0].to(scale_N.dtype) / (2 * len(image_features))).expand(len(image_features)).contiguous()
        images = _Side(image_features, scale_N[mine], row_B, weight_B, mine.start)
        texts = _Side(text_NE, scale_N, column_N, _all(weight_B), 0)
        one_pass = text_features.dtype == scale_N.dtype or _world()[1] > 1
        text_gradient = torch.zeros_like(text_NE, dtype=scale_N.dtype) if one_pass else None
        image_gradient, row_scale, column_scale = _pull(images, texts, text_gradient)
        if text_gradient is None:
            text_gradient = _pull(texts, images, None)[0]
        scale_gradient = (row_scale + _mine(column_scale)).sum()
        return image_gradient, _mine(text_gradient).to(text_features.dtype), scale_gradient.to(ctx.scale_type)


def tiled_loss(image_features: Tensor, text_features: Tensor, logit_scale: Tensor) -> Tensor:
    """`loss.contrastive_loss` by tiles.

    image_features, text_features: [B, E], unit length, of one type; logit_scale: [], the factor of the cosines. Returns a
    scalar whose mean over the ranks is the loss of the global batch; sums are float32 or better.
    """
    return _Tiled.apply(image_features, text_features, logit_scale)
