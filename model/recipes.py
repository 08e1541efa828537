"""The paper's nine models by OpenAI's names, and the named settings of a training run.

source  CLIP, Radford et al. 2021, tables 18 to 20. A batch of 32,768, 32 epochs of 400 million pairs, 2,000 steps of warm-up,
        a cosine to zero, weight decay 0.2 on all that is no gain and no bias: the same for all. The learning rate, Adam's
        beta2 and epsilon, and the resolution differ. Where the paper is silent (warm-up and resizing of positions in the epoch
        at 336 px): 2,000 steps again, bicubic.
"""

from collections.abc import Callable
from dataclasses import replace

from model.config import (
    ClipConfig,
    DataConfig,
    OptimizerConfig,
    ResNetConfig,
    TextConfig,
    TrainConfig,
    VitConfig,
)

NUM_PAIRS = 400_000_000  # of the paper's dataset: one epoch
HEAD_WIDTH = 64  # of every attention in the paper's models


def _resnet(embed_dim: int, layers: tuple[int, ...], width: int, resolution: int, text_width: int) -> ClipConfig:
    # Table 19: the text tower grows in width only.
    vision = ResNetConfig(image_resolution=resolution, layers=layers, width=width, heads=32 * width // HEAD_WIDTH)
    return ClipConfig(embed_dim=embed_dim, vision=vision, text=TextConfig(width=text_width, heads=text_width // HEAD_WIDTH))


def _vit(embed_dim: int, patch_size: int, layers: int, width: int, resolution: int, text_width: int) -> ClipConfig:
    # Table 20.
    heads = width // HEAD_WIDTH
    vision = VitConfig(image_resolution=resolution, patch_size=patch_size, width=width, layers=layers, heads=heads)
    return ClipConfig(embed_dim=embed_dim, vision=vision, text=TextConfig(width=text_width, heads=text_width // HEAD_WIDTH))


MODELS = {
    "RN50": _resnet(1024, (3, 4, 6, 3), 64, 224, 512),
    "RN101": _resnet(512, (3, 4, 23, 3), 64, 224, 512),
    "RN50x4": _resnet(640, (4, 6, 10, 6), 80, 288, 640),
    "RN50x16": _resnet(768, (6, 8, 18, 8), 96, 384, 768),
    "RN50x64": _resnet(1024, (3, 15, 36, 10), 128, 448, 1024),
    "ViT-B/32": _vit(512, 32, 12, 768, 224, 512),
    "ViT-B/16": _vit(512, 16, 12, 768, 224, 512),
    "ViT-L/14": _vit(768, 14, 24, 1024, 224, 768),
    "ViT-L/14@336px": _vit(768, 14, 24, 1024, 336, 768),
}
LEARNING_RATES = {  # at the peak
    "RN50": 5e-4,
    "RN101": 5e-4,
    "RN50x4": 5e-4,
    "RN50x16": 4e-4,
    "RN50x64": 3.6e-4,
    "ViT-B/32": 5e-4,
    "ViT-B/16": 5e-4,
    "ViT-L/14": 4e-4,
    "ViT-L/14@336px": 2e-5,
}


def paper(name: str) -> TrainConfig:
    """The paper's run of one of its MODELS, on 8 GPUs or a multiple."""
    model = MODELS[name]
    is_vit = isinstance(model.vision, VitConfig)
    beta2, epsilon = (0.98, 1e-6) if is_vit else (0.999, 1e-8)
    return TrainConfig(
        model=model,
        optimizer=OptimizerConfig(learning_rate=LEARNING_RATES[name], beta2=beta2, epsilon=epsilon),
        num_samples=32 * NUM_PAIRS,
        precision="bfloat16",
        use_gpu=True,
        num_workers=8,
        cpus_per_worker=8,
    )


def mini() -> TrainConfig:
    """A small CLIP of the mini dataset: minutes on two cores."""
    return TrainConfig(
        root="out/mini",
        model=ClipConfig(
            embed_dim=128,
            vision=ResNetConfig(image_resolution=32, layers=(1, 1, 1), width=16, heads=4),
            text=TextConfig(context_length=32, vocab_size=1000, width=64, layers=2, heads=2),
        ),
        data=DataConfig(crop_min_side=0.9, num_lanes=2, num_threads=1, prefetch_batches=2, pixel_cache_bytes=200_000_000),
        optimizer=OptimizerConfig(learning_rate=1.5e-3, weight_decay=0.1, num_warmup_steps=50),
        global_batch=256,
        num_samples=256 * 1300,
        text_groups=4,
        num_workers=2,
        checkpoint_every_steps=250,
        log_every_steps=50,
    )


def mini_vit() -> TrainConfig:
    """A small Vision Transformer of the mini dataset: minutes on two cores."""
    return replace(
        mini(),
        model=replace(mini().model, vision=VitConfig(image_resolution=32, patch_size=4, width=96, layers=4, heads=3)),
    )


def vit_l_14_336() -> TrainConfig:
    """The paper's ViT-L/14@336px: one epoch more at 336 px, from the finished ViT-L/14 in --start-from."""
    run = paper("ViT-L/14@336px")
    return replace(run, root="out/wit-336", shards="out/wit/6_shards", start_from="out/wit/model", num_samples=NUM_PAIRS)


def _recipe(name: str) -> Callable[[], TrainConfig]:
    def recipe() -> TrainConfig:
        return paper(name)

    recipe.__doc__ = f"The paper's {name}, on 8 GPUs or a multiple."
    return recipe


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "mini": mini,
    "mini_vit": mini_vit,
    "rn50": _recipe("RN50"),
    "rn101": _recipe("RN101"),
    "rn50x4": _recipe("RN50x4"),
    "rn50x16": _recipe("RN50x16"),
    "rn50x64": _recipe("RN50x64"),
    "vit_b_32": _recipe("ViT-B/32"),
    "vit_b_16": _recipe("ViT-B/16"),
    "vit_l_14": _recipe("ViT-L/14"),
    "vit_l_14_336": vit_l_14_336,
}
