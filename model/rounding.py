"""Stochastic rounding to half precision: up or down by chance, so that the mean of many draws is the value itself.

law     a value that half precision holds stays as it is; any other becomes one of its two neighbours, the nearer one more
        likely; the same seed gives the same bits on the same kind of device
limit   a value beyond the largest finite one may become infinite, as with rounding to nearest; no number stays no number
source  Gupta et al. 2015; openai/CLIP issue 29 for its use in the paper
"""

import torch
from torch import Tensor

FLOAT16_BITS, FLOAT16_MIN_EXPONENT = 10, -14  # of a mantissa; of a normal number
BFLOAT16_DROPPED_BITS = 16  # of a float32


def _to_bfloat16(values: Tensor, noise: torch.Generator) -> Tensor:
    # The float32's low half is the distance to the neighbour nearer to zero, in parts of the gap: noise below a whole gap
    # carries into the high half exactly that often.
    bits = values.contiguous().view(torch.int32)
    draws = torch.randint(0, 1 << BFLOAT16_DROPPED_BITS, bits.shape, generator=noise, dtype=torch.int32, device=bits.device)
    rounded = (bits + draws).bitwise_and_(-1 << BFLOAT16_DROPPED_BITS).view(torch.float32)
    return torch.where(values.isfinite(), rounded, values).to(torch.bfloat16)


def _to_float16(values: Tensor, noise: torch.Generator) -> Tensor:
    exponent = torch.frexp(values).exponent - 1
    gap = torch.ldexp(torch.ones_like(values), exponent.clamp(min=FLOAT16_MIN_EXPONENT) - FLOAT16_BITS)
    draws = torch.rand(values.shape, generator=noise, dtype=torch.float64, device=values.device)  # float32 would round the sum
    rounded = ((values / gap).double() + draws).floor_().to(torch.float32) * gap
    return torch.where(values.isfinite(), rounded, values).to(torch.float16)


def stochastic_round(values: Tensor, dtype: torch.dtype, seed: int) -> Tensor:
    """Float32 values in half precision, rounded by chance.  [...] float32 -> [...] bfloat16 or float16"""
    noise = torch.Generator(values.device).manual_seed(seed)
    return {torch.bfloat16: _to_bfloat16, torch.float16: _to_float16}[dtype](values, noise)
