"""The transformer of both towers: pre-LN blocks, as in OpenAI's release.

law     parameter names and shapes are those of OpenAI's `transformer.resblocks`
shapes  B batch, L tokens, D width, H heads, K width of a head
source  CLIP section 2.4; GPT-2 (Radford et al. 2019) for the order of norm and residual
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

QUICK_GELU_SLOPE = 1.702


class LayerNorm(nn.LayerNorm):
    """Layer norm in float32, whatever the precision around it."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., D] -> [..., D], same type."""
        return super().forward(input.float()).to(input.dtype)


class Attention(nn.Module):
    """Multi-head self-attention with the parameter names of nn.MultiheadAttention."""

    fused = True  # see model/compute.py

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        """[B, L, D] -> [B, L, D]; with `causal` a token sees itself and what stands before it."""
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias).unflatten(-1, (3, self.heads, -1))
        q_BHLK, k_BHLK, v_BHLK = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mix = F.scaled_dot_product_attention if self.fused else plain_attention
        return self.out_proj(mix(q_BHLK, k_BHLK, v_BHLK, is_causal=causal).transpose(1, 2).flatten(2))


def plain_attention(q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, is_causal: bool = False) -> Tensor:
    """Attention step by step, for those who want to see or change one.  [B, H, L, K] three times -> [B, H, L, K]"""
    scores_BHLL = q_BHLK @ k_BHLK.transpose(-1, -2) / math.sqrt(q_BHLK.shape[-1])
    if is_causal:
        hidden_LL = torch.ones(scores_BHLL.shape[-2:], dtype=torch.bool, device=q_BHLK.device).triu(1)
        scores_BHLL = scores_BHLL.masked_fill(hidden_LL, -math.inf)
    return scores_BHLL.softmax(-1).to(v_BHLK.dtype) @ v_BHLK


class Mlp(nn.Module):
    """Two linear layers, four times as wide between them; QuickGELU, x * sigmoid(1.702 x), or GELU.

    QuickGELU is silu(1.702 x) / 1.702. Both factors go into the matrix products, which leaves one pass over the wide
    activations, forward and backward, where the formula as it stands takes three.
    """

    def __init__(self, width: int, quick_gelu: bool = True):
        super().__init__()
        self.quick_gelu = quick_gelu
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]"""
        if not self.quick_gelu:
            return self.c_proj(F.gelu(self.c_fc(x)))
        slope, rows = QUICK_GELU_SLOPE, x.flatten(0, -2)
        wide = torch.addmm(self.c_fc.bias, rows, self.c_fc.weight.t(), beta=slope, alpha=slope)
        return torch.addmm(self.c_proj.bias, F.silu(wide), self.c_proj.weight.t(), alpha=1 / slope).view_as(x)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, quick_gelu: bool = True):
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = LayerNorm(width)
        self.mlp = Mlp(width, quick_gelu)
        self.ln_2 = LayerNorm(width)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        """[B, L, D] -> [B, L, D]"""
        x = x + self.attn(self.ln_1(x), causal)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """A stack of blocks; `causal` hides what comes after a token."""

    recompute = False  # see model/compute.py

    def __init__(self, width: int, layers: int, heads: int, causal: bool, quick_gelu: bool = True):
        super().__init__()
        self.width, self.layers, self.causal = width, layers, causal
        self.resblocks = nn.Sequential(*[Block(width, heads, quick_gelu) for _ in range(layers)])

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]"""
        for block in self.resblocks:
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, self.causal, use_reentrant=False)
            else:
                x = block(x, self.causal)
        return x
