"""How much of the device's arithmetic a run uses (MFU): operations of the towers by formula, over what the device can do.

law     a multiplication and an addition are two operations; a step is three forward passes (one forward, two back), whatever is
        worked out a second time to save memory; only products of matrices and convolutions count, as is usual
law     a device's peak is the one of its data sheet, dense, in the precision of the towers; a CPU's, and that of a GPU that is
        not in the table, is measured: a product of two matrices
silent  texts count at full length, though a batch is cut after its longest text: with short texts the share is told too high
source  Chowdhery et al. 2022 (PaLM), appendix B; NVIDIA's data sheets
shapes  R resolution in px, T tokens, D width, E embedding
"""

import time
from typing import NamedTuple

import torch

from model.clip import CLIP
from model.config import RESNET_EXPANSION, ClipConfig, ResNetConfig, VitConfig

PASSES = 3  # of forward's operations
PEAKS = (  # in the device's name -> 10^12 operations a second: bfloat16 (float16 where there is none), float32
    ("B200", 2250.0, 80.0),
    ("H200", 989.0, 67.0),
    ("H100 PCIe", 756.0, 51.0),
    ("H100", 989.0, 67.0),
    ("A100", 312.0, 19.5),
    ("L40S", 362.0, 91.6),
    ("A10G", 125.0, 31.2),
    ("L4", 121.0, 30.3),
    ("V100", 125.0, 15.7),
    ("T4", 65.0, 8.1),
)
MEASURED_SIDE, MEASURED_TIMES = 768, 5


class Peak(NamedTuple):
    """What a device can do."""

    flops_per_second: float
    source: str


def transformer(num_tokens: int, width: int, layers: int) -> float:
    """Forward operations of a transformer on one sequence: four projections, two products of attention, two of width 4 D."""
    return layers * (24.0 * num_tokens * width**2 + 4.0 * num_tokens**2 * width)


def _vit(config: VitConfig, embed_dim: int) -> float:
    num_patches = (config.image_resolution // config.patch_size) ** 2
    patches = 2.0 * num_patches * 3 * config.patch_size**2 * config.width
    return patches + transformer(num_patches + 1, config.width, config.layers) + 2.0 * config.width * embed_dim


def _conv(side: int, inputs: int, outputs: int, kernel: int) -> float:
    return 2.0 * side**2 * kernel**2 * inputs * outputs


def _resnet(config: ResNetConfig, embed_dim: int) -> float:
    side, half = config.image_resolution // 2, config.width // 2
    total = _conv(side, 3, half, 3) + _conv(side, half, half, 3) + _conv(side, half, config.width, 3)
    side, inputs = side // 2, config.width
    for stage, num_blocks in enumerate(config.layers):
        planes = config.width * 2**stage
        outputs = planes * RESNET_EXPANSION
        for block in range(num_blocks):
            total += _conv(side, inputs, planes, 1) + _conv(side, planes, planes, 3)
            side //= 2 if stage and not block else 1  # the pool stands after the second convolution
            total += _conv(side, planes, outputs, 1) + (0.0 if block else _conv(side, inputs, outputs, 1))
            inputs = outputs
    num_tokens, width = side**2 + 1, inputs
    pool = 2.0 * width**2 * (2 * num_tokens + 1) + 4.0 * num_tokens * width + 2.0 * width * embed_dim
    return total + pool


def flops_per_pair(config: ClipConfig) -> float | None:
    """Forward operations of both towers on one pair, its text of full length; None for a model without a text transformer."""
    if config.objective not in ("contrastive", "sigmoid"):
        return None
    image = (
        _vit(config.vision, config.embed_dim)
        if isinstance(config.vision, VitConfig)
        else _resnet(config.vision, config.embed_dim)
    )
    text = config.text
    return image + transformer(text.context_length, text.width, text.layers) + 2.0 * text.width * config.embed_dim


def num_weights(config: ClipConfig) -> int:
    """Weights of the towers and the scale, counted without making them."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in CLIP(config).parameters())


def peak_of(device: torch.device, precision: str) -> Peak:
    """What the device can do in the precision of the towers."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for part, half, single in PEAKS:
            if part in name:
                return Peak((half if precision == "bfloat16" else single) * 1e12, f"data sheet of {part}, {precision}")
    matrix = torch.ones(MEASURED_SIDE, MEASURED_SIDE, dtype=getattr(torch, precision), device=device)
    seconds = []
    for _ in range(MEASURED_TIMES):
        started = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # waits for the device
        seconds.append(time.perf_counter() - started)
    return Peak(2.0 * MEASURED_SIDE**3 / min(seconds), f"measured, a product of matrices in {precision}")
