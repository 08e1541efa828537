"""Settings of a conversion."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

Format = Literal["wit", "open_clip", "hugging_face", "onnx"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertConfig:
    """From what to what. A model of another project is read where --source names it."""

    root: str = "out/wit"  # a run's folder: root/model is read or, by `wit`, written; exports go to root/export/FORMAT
    source: str = ""  # the model's file or folder; "": root/model
    target: str = ""  # the folder to write; "": root/export/FORMAT, and root/model for `wit`
    tokenizer: str = ""  # a tokenizer's file, where the source has none: tokenizer.json or OpenAI's bpe_simple_vocab_16e6.txt.gz
    activation: Literal["", "quick_gelu", "gelu"] = ""  # of weights that do not tell: quick_gelu is OpenAI's
    format: Format = "wit"


def wit() -> ConvertConfig:
    """A model of OpenAI's, open_clip's or Hugging Face's as ours: root/model, which the other jobs read."""
    return ConvertConfig(format="wit")


def open_clip() -> ConvertConfig:
    """A folder for open_clip: create_model_and_transforms("local-dir:FOLDER")."""
    return replace(wit(), format="open_clip")


def hugging_face() -> ConvertConfig:
    """A folder for transformers: CLIPModel.from_pretrained and CLIPProcessor.from_pretrained. Vision Transformers only."""
    return replace(wit(), format="hugging_face")


def onnx() -> ConvertConfig:
    """Both towers as ONNX, for any batch."""
    return replace(wit(), format="onnx")


RECIPES: dict[str, Callable[[], ConvertConfig]] = {
    "wit": wit, "open_clip": open_clip, "hugging_face": hugging_face, "onnx": onnx,
}  # fmt: skip
