"""Which model a set of tensors is: the configuration that their names and shapes tell.

law     heads can not be seen in weights: 64 channels each, as in every model of the paper, unless the caller knows better
source  OpenAI's release builds its models from their weights in the same way
"""

import math
from collections.abc import Collection, Mapping

from model.config import RESNET_EXPANSION, ClipConfig, ResNetConfig, TextConfig, VitConfig
from model.formats.errors import BadModel, listed
from model.recipes import HEAD_WIDTH

Shapes = Mapping[str, tuple[int, ...]]


def _count(names: Collection[str], prefix: str) -> int:
    """How many numbers follow `prefix` in the names: 0, 1, 2, ... without a gap."""
    found = {name[len(prefix) :].split(".")[0] for name in names if name.startswith(prefix)}
    number = 0
    while str(number) in found:
        number += 1
    return number


def _side(num_positions: int, name: str) -> int:
    side = math.isqrt(max(0, num_positions - 1))
    if side < 1 or side**2 != num_positions - 1:
        raise BadModel(f"{name}: expected one position more than a square grid has, found {num_positions}")
    return side


def _vit(shapes: Shapes, head_width: int) -> VitConfig:
    width, patch_size = shapes["visual.conv1.weight"][0], shapes["visual.conv1.weight"][-1]
    name = "visual.positional_embedding"
    return VitConfig(
        image_resolution=_side(shapes[name][0], name) * patch_size,
        patch_size=patch_size,
        width=width,
        layers=_count(shapes, "visual.transformer.resblocks."),
        heads=max(1, width // head_width),
    )


def _resnet(shapes: Shapes, head_width: int) -> ResNetConfig:
    stages = 0
    while f"visual.layer{stages + 1}.0.conv1.weight" in shapes:
        stages += 1
    width = shapes["visual.conv3.weight"][0]
    name = "visual.attnpool.positional_embedding"
    return ResNetConfig(
        image_resolution=_side(shapes[name][0], name) * 4 * 2 ** (stages - 1),
        layers=tuple(_count(shapes, f"visual.layer{stage + 1}.") for stage in range(stages)),
        width=width,
        heads=max(1, width * RESNET_EXPANSION * 2 ** (stages - 1) // head_width),
    )


def infer(shapes: Shapes, path: str, quick_gelu: bool, head_widths: tuple[int, int] = (HEAD_WIDTH, HEAD_WIDTH)) -> ClipConfig:
    """The configuration of a CLIP with tensors of these names (OpenAI's) and shapes; `head_widths` of image and text tower.

    Raises BadModel, with the names that are missing, where they are no CLIP's.
    """
    try:
        vision = (_vit if "visual.proj" in shapes else _resnet)(shapes, head_widths[0])
        context_length, width = shapes["positional_embedding"]
        text = TextConfig(
            context_length=context_length,
            vocab_size=shapes["token_embedding.weight"][0],
            width=width,
            layers=_count(shapes, "transformer.resblocks."),
            heads=max(1, width // head_widths[1]),
        )
        embed_dim = shapes["text_projection"][1]
        return ClipConfig(embed_dim=embed_dim, vision=vision, text=text, quick_gelu=quick_gelu)
    except KeyError as error:
        raise BadModel(f"{path}: expected a CLIP, found no tensor {error} among {listed(shapes)}") from None
    except (IndexError, ValueError) as error:
        raise BadModel(f"{path}: its tensors are no CLIP's that can be built: {error}") from None
