"""open_clip and Hugging Face's CLIP for the tests that compare with them, and weights that leave nothing at zero or one."""

import warnings
from typing import Any

import torch

from model.clip import CLIP
from model.compute import use
from model.config import ClipConfig, ComputeConfig, TextConfig, VitConfig

_LIBRARIES: list[torch.library.Library] = []  # an operator lives as long as the library that defines it


def import_open_clip() -> Any:
    """The package. torchvision's wheel beside a CPU torch lacks operators that it only declares things about: define them."""
    if not _LIBRARIES:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what its dependencies say on import is not about us
        import open_clip  # pyright: ignore[reportMissingImports]
    return open_clip


def import_transformers() -> Any:
    """The package."""
    import_open_clip()  # for the operators
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers  # pyright: ignore[reportMissingImports]
    return transformers


def random_clip(config: ClipConfig, seed: int, compute: ComputeConfig | None = None) -> CLIP:
    """A model of drawn weights; gains, biases and running statistics are drawn too, where a fresh model has ones and zeros."""
    torch.manual_seed(seed)
    model = CLIP(config)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.ndim == 1 and name.endswith(("weight", "running_var")):
                tensor.uniform_(0.5, 1.5)
                if "bn3" in name and "layer" in name:
                    tensor.mul_(0.3)  # else the residual branches of a deep ResNet grow without end
            elif name.endswith(("bias", "running_mean")):
                tensor.normal_(std=0.1)
    if compute is not None:
        use(model, compute)
    return model.eval()


def small_vit(quick_gelu: bool = True) -> ClipConfig:
    """A Vision Transformer of a few thousand weights."""
    return ClipConfig(
        embed_dim=24,
        vision=VitConfig(image_resolution=32, patch_size=8, width=32, layers=2, heads=2),
        text=TextConfig(context_length=16, vocab_size=520, width=48, layers=2, heads=3),
        quick_gelu=quick_gelu,
    )


def pairs_for(config: ClipConfig, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random pictures, and texts of several lengths that end in EOT.  -> [B, 3, R, R], [B, L]"""
    generator = torch.Generator().manual_seed(seed)
    side, text = config.vision.image_resolution, config.text
    images = torch.randn(count, 3, side, side, generator=generator)
    tokens = torch.zeros(count, text.context_length, dtype=torch.int64)
    for row in range(count):
        length = text.context_length - row % (text.context_length - 2)
        tokens[row, :length] = torch.randint(1, text.vocab_size - 2, (length,), generator=generator)
        tokens[row, 0], tokens[row, length - 1] = text.vocab_size - 2, text.vocab_size - 1
    return images, tokens
