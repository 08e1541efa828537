"""The image towers: the paper's ResNet and Vision Transformer.

law     parameter names, shapes and initial values are those of OpenAI's `visual`; activations that are worked out twice count
        once in BatchNorm's running statistics
shapes  B batch, R resolution in px, C channels, P cells or patches, D width, H heads, K width of a head, E embedding
source  CLIP section 2.4; He et al. 2019 (three-convolution stem), Zhang 2019 (blur pools), Dosovitskiy et al. 2020
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.config import RESNET_EXPANSION, ResNetConfig, VitConfig
from model.transformer import LayerNorm, Transformer, plain_attention


class BatchNorm2d(nn.BatchNorm2d):
    """PyTorch's, whose running statistics can be told to stand still while activations are worked out a second time."""

    counts = True

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, S, S] -> [B, C, S, S]"""
        if self.counts or not self.training:
            return super().forward(input)
        mean, var = self.running_mean, self.running_var
        assert mean is not None
        assert var is not None
        assert self.momentum is not None
        return F.batch_norm(input, mean.clone(), var.clone(), self.weight, self.bias, True, self.momentum, self.eps)


@contextmanager
def _standing_still(module: nn.Module) -> Iterator[None]:
    norms = [norm for norm in module.modules() if isinstance(norm, BatchNorm2d)]
    for norm in norms:
        norm.counts = False
    try:
        yield
    finally:
        for norm in norms:
            norm.counts = True


def recomputed(module: nn.Module, work: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """work(x), whose activations inside `module` are not kept for the backward pass but worked out again.

    Where no gradient is asked for, plainly work(x).
    """
    if not torch.is_grad_enabled():
        return work(x)
    return checkpoint(work, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _standing_still(module)))  # type: ignore[return-value]


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions beside a shortcut; every convolution has stride 1, an average pool makes smaller."""

    def __init__(self, inputs: int, planes: int, stride: int):
        super().__init__()
        outputs = planes * RESNET_EXPANSION
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(planes)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            shortcut = [("-1", nn.AvgPool2d(stride) if stride > 1 else nn.Identity())]
            shortcut += [("0", nn.Conv2d(inputs, outputs, 1, bias=False)), ("1", BatchNorm2d(outputs))]
            self.downsample = nn.Sequential(OrderedDict(shortcut))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, S, S] -> [B, 4 planes, S / stride, S / stride]"""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(self.avgpool(y)))
        return self.relu(y + self.downsample(x))


class AttentionPool(nn.Module):
    """One attention whose only query is the mean of all cells."""

    fused = True  # see model/compute.py

    def __init__(self, num_cells: int, width: int, heads: int, embed_dim: int):
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(num_cells + 1, width) / width**0.5)
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, S, S] -> [B, E]"""
        x_BPD = x.flatten(2).transpose(1, 2)
        x_BPD = torch.cat([x_BPD.mean(1, keepdim=True), x_BPD], 1) + self.positional_embedding

        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q_BHK = split(self.q_proj(x_BPD[:, :1]))
        mix = F.scaled_dot_product_attention if self.fused else plain_attention
        return self.c_proj(mix(q_BHK, split(self.k_proj(x_BPD)), split(self.v_proj(x_BPD))).transpose(1, 2).flatten(1))


class ModifiedResNet(nn.Module):
    """ResNet with a stem of three convolutions, blur pools and an attention pool."""

    recompute = False  # see model/compute.py
    memory_format = torch.contiguous_format

    def __init__(self, config: ResNetConfig, embed_dim: int):
        super().__init__()
        half = config.width // 2
        self.conv1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False)
        self.bn1 = BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, config.width, 3, padding=1, bias=False)
        self.bn3 = BatchNorm2d(config.width)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AvgPool2d(2)
        self.num_stages = len(config.layers)
        inputs = config.width
        for stage, blocks in enumerate(config.layers):
            planes = config.width * 2**stage
            outputs = planes * RESNET_EXPANSION
            first = Bottleneck(inputs, planes, 1 if stage == 0 else 2)
            setattr(self, f"layer{stage + 1}", nn.Sequential(first, *[Bottleneck(outputs, planes, 1) for _ in range(1, blocks)]))
            inputs = outputs
        num_cells = (config.image_resolution // config.stride) ** 2
        self.attnpool = AttentionPool(num_cells, inputs, config.heads, embed_dim)
        self._initialise()

    def _initialise(self) -> None:
        std = self.attnpool.c_proj.in_features**-0.5
        for layer in (self.attnpool.q_proj, self.attnpool.k_proj, self.attnpool.v_proj, self.attnpool.c_proj):
            nn.init.normal_(layer.weight, std=std)
        for module in self.modules():
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)

    def _stem(self, images: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.avgpool(self.relu(self.bn3(self.conv3(x))))

    def _segments(self) -> Iterator[tuple[nn.Module, Callable[[Tensor], Tensor]]]:
        yield self, self._stem
        for stage in range(self.num_stages):
            for block in getattr(self, f"layer{stage + 1}"):
                yield block, block

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, R, R] -> [B, E]"""
        x = images.contiguous(memory_format=self.memory_format)
        for module, work in self._segments():
            x = recomputed(module, work, x) if self.recompute else work(x)
        return self.attnpool(x)


class VisionTransformer(nn.Module):
    """ViT with one more layer norm in front of the transformer."""

    def __init__(self, config: VitConfig, embed_dim: int, quick_gelu: bool = True):
        super().__init__()
        scale = config.width**-0.5
        num_patches = (config.image_resolution // config.patch_size) ** 2
        self.conv1 = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(config.width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(num_patches + 1, config.width))
        self.ln_pre = LayerNorm(config.width)
        self.transformer = Transformer(config.width, config.layers, config.heads, causal=False, quick_gelu=quick_gelu)
        self.ln_post = LayerNorm(config.width)
        self.proj = nn.Parameter(scale * torch.randn(config.width, embed_dim))

    def pooled(self, images: Tensor) -> Tensor:
        """Features before the projection, which a linear probe is fitted on (CLIP appendix A.3).  [B, 3, R, R] -> [B, D]"""
        x_BPD = F.linear(patches(images, self.conv1.kernel_size[0]), self.conv1.weight.flatten(1))
        class_B1D = self.class_embedding.to(x_BPD.dtype).expand(x_BPD.shape[0], 1, -1)
        x_BLD = torch.cat([class_B1D, x_BPD], 1) + self.positional_embedding.to(x_BPD.dtype)
        x_BLD = self.transformer(self.ln_pre(x_BLD))
        return self.ln_post(x_BLD[:, 0])

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, R, R] -> [B, E]"""
        return self.pooled(images) @ self.proj


def patches(images: Tensor, side: int) -> Tensor:
    """The squares of a picture, row by row, each as the patch convolution's weights lie.  [B, 3, R, R] -> [B, P, 3 side side]

    One matrix product of them is the convolution, and on a CPU twice as fast.
    """
    x = images.unflatten(2, (-1, side)).unflatten(4, (-1, side))  # [B, 3, rows, side, columns, side]
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
