"""Hugging Face's CLIPModel: its names of our tensors, and its folder.

in, out config.json, model.safetensors, preprocessor_config.json; tokenizer.json, vocab.json, merges.txt
law     every tensor of ours is there under another name, q, k and v apart and the projections transposed; there and back is
        the same bit for bit. Vision Transformers only: CLIPModel has no ResNet
source  transformers 5.23, models/clip: configuration_clip.py, modeling_clip.py, tokenization_clip.py
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from model import checkpoint
from model.config import IMAGE_MEAN, IMAGE_STD, ClipConfig, ResNetConfig, TextConfig, VitConfig
from model.formats.errors import BadModel
from model.tokenizer import EOT, SOT, Tokenizer

_TOP = {  # ours -> theirs
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",  # their spelling
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_TRANSPOSED = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
_BLOCK = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}  # fmt: skip
_QKV = ("q_proj", "k_proj", "v_proj")
_DERIVED = (".position_ids",)  # buffers that older versions wrote


def _blocks(config: ClipConfig) -> list[tuple[str, str]]:
    """Prefixes of every block, ours and theirs."""
    vision = [(f"visual.transformer.resblocks.{n}.", f"vision_model.encoder.layers.{n}.") for n in range(config.vision.layers)]  # type: ignore[arg-type]
    text = [(f"transformer.resblocks.{n}.", f"text_model.encoder.layers.{n}.") for n in range(config.text.layers)]
    return vision + text


def refuse_resnet(config: ClipConfig, path: str) -> None:
    """Raise BadModel for a ResNet."""
    if isinstance(config.vision, ResNetConfig):
        raise BadModel(f"{path}: Hugging Face's CLIPModel has no ResNet image tower; export it to open_clip or ONNX")


def to_theirs(tensors: Mapping[str, Tensor], config: ClipConfig) -> dict[str, Tensor]:
    """Our state dict under their names."""
    theirs = {name: tensors[ours] for ours, name in _TOP.items()}
    theirs |= {name: tensors[ours].T.contiguous() for ours, name in _TRANSPOSED.items()}
    for ours, prefix in _blocks(config):
        for kind in ("weight", "bias"):
            for part, value in zip(_QKV, tensors[f"{ours}attn.in_proj_{kind}"].chunk(3), strict=True):
                theirs[f"{prefix}self_attn.{part}.{kind}"] = value.clone()
            theirs |= {f"{prefix}{name}.{kind}": tensors[f"{ours}{own}.{kind}"] for own, name in _BLOCK.items()}
    return theirs


def to_ours(tensors: Mapping[str, Tensor], config: ClipConfig) -> dict[str, Tensor]:
    """Their state dict under our names; a name that is not theirs stays, so that it is told as surplus."""
    left = {name: value for name, value in tensors.items() if not name.endswith(_DERIVED)}
    ours = {own: left.pop(name) for own, name in _TOP.items() if name in left}
    ours |= {own: left.pop(name).T.contiguous() for own, name in _TRANSPOSED.items() if name in left}
    for prefix, name in _blocks(config):
        for kind in ("weight", "bias"):
            parts = [f"{name}self_attn.{part}.{kind}" for part in _QKV]
            if all(part in left for part in parts):
                ours[f"{prefix}attn.in_proj_{kind}"] = torch.cat([left.pop(part) for part in parts])
            ours |= {
                f"{prefix}{own}.{kind}": left.pop(key)
                for own, other in _BLOCK.items()
                if (key := f"{name}{other}.{kind}") in left
            }
    return ours | left


def config_to_ours(content: bytes, path: str) -> ClipConfig:
    """The configuration in a CLIPModel's config.json; what it leaves out is their default, ViT-B/32. Raises BadModel."""
    try:
        values = json.loads(content)
        if values.get("model_type") != "clip":
            raise BadModel(f"{path}: expected a config.json of model_type clip, found {values.get('model_type')!r}")
        vision, text = values.get("vision_config", {}), values.get("text_config", {})
        acts = {part.get("hidden_act", "quick_gelu") for part in (vision, text)}
        if len(acts) > 1 or not acts <= {"quick_gelu", "gelu"}:
            raise BadModel(f"{path}: expected quick_gelu or gelu in both towers, found {sorted(acts)}")
        _same_mlp(vision, 768, 3072, path)
        _same_mlp(text, 512, 2048, path)
        return ClipConfig(
            embed_dim=values.get("projection_dim", 512),
            quick_gelu=acts == {"quick_gelu"},
            vision=VitConfig(
                image_resolution=vision.get("image_size", 224),
                patch_size=vision.get("patch_size", 32),
                width=vision.get("hidden_size", 768),
                layers=vision.get("num_hidden_layers", 12),
                heads=vision.get("num_attention_heads", 12),
            ),
            text=TextConfig(
                context_length=text.get("max_position_embeddings", 77),
                vocab_size=text.get("vocab_size", 49_408),
                width=text.get("hidden_size", 512),
                layers=text.get("num_hidden_layers", 12),
                heads=text.get("num_attention_heads", 8),
            ),
        )
    except (ValueError, TypeError, AttributeError) as error:
        if isinstance(error, BadModel):
            raise
        raise BadModel(f"{path}: expected the config.json of a CLIPModel, found {error}") from None


def _same_mlp(part: dict[str, Any], width: int, wide: int, path: str) -> None:
    found = part.get("hidden_size", width), part.get("intermediate_size", wide)
    if found[1] != 4 * found[0]:
        raise BadModel(f"{path}: expected an intermediate_size of 4 times hidden_size, found {found[1]} and {found[0]}")


def config_to_theirs(config: ClipConfig, sot_id: int, eot_id: int) -> dict[str, Any]:
    """Their config.json."""
    vision, text = config.vision, config.text
    assert isinstance(vision, VitConfig)
    act = {
        "hidden_act": "quick_gelu" if config.quick_gelu else "gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": config.embed_dim,
    }

    def tower(part: VitConfig | TextConfig) -> dict[str, Any]:
        sizes = {"hidden_size": part.width, "intermediate_size": 4 * part.width}
        return {**act, **sizes, "num_hidden_layers": part.layers, "num_attention_heads": part.heads}

    ends = {"bos_token_id": sot_id, "eos_token_id": eot_id, "pad_token_id": 0}
    words = {"vocab_size": text.vocab_size, "max_position_embeddings": text.context_length}
    image = {"image_size": vision.image_resolution, "patch_size": vision.patch_size, "num_channels": 3}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "dtype": "float32",
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": 2.6592,
        "text_config": {"model_type": "clip_text_model", **tower(text), **words, **ends},
        "vision_config": {"model_type": "clip_vision_model", **tower(vision), **image},
    }


def preprocessor(config: ClipConfig) -> dict[str, Any]:
    """Their preprocessor_config.json: shorter side, centre, normalise, as in evaluation here."""
    side = config.vision.image_resolution
    return {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "CLIPProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
    }


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """Their tokenizer's files, with our vocabulary. Texts that spell a mark become the mark there, as is their way."""
    values = json.loads(tokenizer.to_bytes())
    vocab, merges = dict(values["model"]["vocab"]), values["model"]["merges"]
    vocab |= {SOT: tokenizer.sot_id, EOT: tokenizer.eot_id}
    pad = min(vocab, key=vocab.__getitem__)
    settings = {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": tokenizer.context_length, "do_lower_case": True,
        "bos_token": SOT, "eos_token": EOT, "unk_token": EOT, "pad_token": pad, "errors": "replace",
    }  # fmt: skip
    lines = ["#version: 0.2", *(merge if isinstance(merge, str) else " ".join(merge) for merge in merges)]
    return {
        "tokenizer.json": tokenizer.to_bytes(),
        "vocab.json": json.dumps(vocab, ensure_ascii=False).encode(),
        "merges.txt": ("\n".join(lines) + "\n").encode(),
        "tokenizer_config.json": json.dumps(settings, indent=1, ensure_ascii=False).encode(),
    }


def export(tensors: Mapping[str, Tensor], config: ClipConfig, tokenizer: Tokenizer) -> dict[str, bytes]:
    """The files of a folder that CLIPModel.from_pretrained and CLIPProcessor.from_pretrained open. BadModel for a ResNet."""
    refuse_resnet(config, "hugging_face")
    return {
        "config.json": json.dumps(config_to_theirs(config, tokenizer.sot_id, tokenizer.eot_id), indent=1).encode(),
        "model.safetensors": checkpoint.pack(to_theirs(tensors, config), metadata={"format": "pt"}),
        "preprocessor_config.json": json.dumps(preprocessor(config), indent=1).encode(),
        **tokenizer_files(tokenizer),
    }
