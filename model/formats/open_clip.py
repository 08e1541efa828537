"""open_clip's folder: our tensors as they are, and the configuration in its words.

in, out open_clip_config.json, open_clip_model.safetensors; MODEL_NAME.json, its model part alone, for add_model_config;
        tokenizer.json and tokenizer_config.json, which open_clip reads with transformers
law     tensors keep their names and bits; a ResNet has four stages there
source  open_clip 3.3, src/open_clip/factory.py, model.py, modified_resnet.py
"""

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from model import checkpoint
from model.config import IMAGE_MEAN, IMAGE_STD, ClipConfig, ResNetConfig, TextConfig, VitConfig
from model.formats.errors import BadModel
from model.formats.hugging_face import tokenizer_files
from model.recipes import HEAD_WIDTH
from model.tokenizer import Tokenizer

MODEL_NAME = "wit"  # what the exported model is called in open_clip's list
CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
NUM_STAGES = 4
_VISION = {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"}
_TEXT = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "hf_tokenizer_name", "tokenizer_kwargs"}


def config_to_theirs(config: ClipConfig) -> dict[str, Any]:
    """Their model configuration. Raises BadModel for a ResNet of another number of stages than four."""
    vision, text = config.vision, config.text
    tower: dict[str, Any] = {"image_size": vision.image_resolution, "width": vision.width}
    if isinstance(vision, VitConfig):
        tower |= {"layers": vision.layers, "patch_size": vision.patch_size, "head_width": vision.width // vision.heads}
    elif len(vision.layers) == NUM_STAGES:
        tower |= {"layers": list(vision.layers), "patch_size": None, "head_width": vision.output_width // vision.heads}
    else:
        raise BadModel(f"open_clip: its ResNet has {NUM_STAGES} stages, found one with {len(vision.layers)}; export it to ONNX")
    words = {"context_length": text.context_length, "vocab_size": text.vocab_size}
    return {
        "embed_dim": config.embed_dim,
        "quick_gelu": config.quick_gelu,
        "vision_cfg": tower,
        "text_cfg": {**words, "width": text.width, "heads": text.heads, "layers": text.layers},
    }


def config_to_ours(content: bytes, path: str) -> ClipConfig:
    """The configuration in an open_clip_config.json or in one of open_clip's model_configs. Raises BadModel for other models."""
    try:
        values = json.loads(content)
        values = values.get("model_cfg", values)
        vision, text = values["vision_cfg"], values["text_cfg"]
        unknown = (vision.keys() - _VISION) | (text.keys() - _TEXT)
        if unknown or vision.get("mlp_ratio", 4.0) != 4.0 or text.get("mlp_ratio", 4.0) != 4.0:
            raise BadModel(f"{path}: expected a model of OpenAI's kind, found the settings {sorted(unknown) or 'mlp_ratio'}")
        layers, width, head_width = vision.get("layers", 12), vision.get("width", 768), vision.get("head_width", HEAD_WIDTH)
        size = vision.get("image_size", 224)
        if isinstance(layers, list):
            heads = 32 * width // head_width
            tower: VitConfig | ResNetConfig = ResNetConfig(image_resolution=size, layers=tuple(layers), width=width, heads=heads)
        else:
            patch, heads = vision.get("patch_size", 16), width // head_width
            tower = VitConfig(image_resolution=size, patch_size=patch, width=width, layers=layers, heads=heads)
        words = TextConfig(
            context_length=text.get("context_length", 77),
            vocab_size=text.get("vocab_size", 49_408),
            width=text.get("width", 512),
            heads=text.get("heads", 8),
            layers=text.get("layers", 12),
        )
        quick_gelu = values.get("quick_gelu", False)
        return ClipConfig(embed_dim=values["embed_dim"], vision=tower, text=words, quick_gelu=quick_gelu)
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError) as error:
        if isinstance(error, BadModel):
            raise
        raise BadModel(f"{path}: expected one of open_clip's model configurations, found {error!r}") from None


def export(tensors: Mapping[str, Tensor], config: ClipConfig, tokenizer: Tokenizer) -> dict[str, bytes]:
    """The files of a folder that open_clip opens as local-dir:FOLDER. Raises BadModel for what it has no words for."""
    model = config_to_theirs(config)
    pixels = {"size": config.vision.image_resolution, "mean": IMAGE_MEAN, "std": IMAGE_STD, "mode": "RGB"}
    pixels |= {"interpolation": "bicubic", "resize_mode": "shortest"}
    with_tokenizer = {
        **model,
        "text_cfg": {**model["text_cfg"], "hf_tokenizer_name": MODEL_NAME},
    }  # any name: read from the folder
    words = tokenizer_files(tokenizer)
    return {
        CONFIG: json.dumps({"model_cfg": with_tokenizer, "preprocess_cfg": pixels}, indent=1).encode(),
        f"{MODEL_NAME}.json": json.dumps(model, indent=1).encode(),
        WEIGHTS[0]: checkpoint.pack(tensors, metadata={"format": "pt"}),
        **{name: words[name] for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json")},
    }
