"""Both towers as ONNX, for any batch.

out     image.onnx: `images` [B, 3, R, R] float32, normalised by the mean and deviation in config.json -> `image_features` [B, E]
        text.onnx: `tokens` [B, L] int64 of the whole context length, padded with zeros -> `text_features` [B, E]
        config.json and tokenizer.json as in our model folder; features are not normalised, exp(logit_scale) is in the metadata
cost    needs onnxscript; a tower above MAX_BYTES has its weights in a second file beside it, NAME.onnx.data
"""

import os
import tempfile
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from model import files
from model.clip import CLIP
from model.config import ClipConfig
from model.tokenizer import Tokenizer

OPSET = 20
MAX_BYTES = 1_900_000_000  # of weights inside the file: protobuf ends at 2^31


class _ImageTower(nn.Module):
    def __init__(self, model: CLIP):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.encode_image(images)


class _TextTower(nn.Module):
    def __init__(self, model: CLIP):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens)


def _write(tower: nn.Module, example: Tensor, names: tuple[str, str], path: str, logit_scale: float) -> None:
    num_bytes = sum(parameter.nbytes for parameter in tower.parameters())
    batch = torch.export.Dim("batch", min=1, max=65_536)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program: Any = torch.onnx.export(
            tower, (example,), input_names=[names[0]], output_names=[names[1]], dynamic_shapes=({0: batch},), dynamo=True,
            opset_version=OPSET, external_data=num_bytes > MAX_BYTES, verbose=False,
        )  # fmt: skip
        program.model.metadata_props["logit_scale"] = repr(logit_scale)
        program.save(path, external_data=num_bytes > MAX_BYTES)


def export(model: CLIP, config: ClipConfig, tokenizer: Tokenizer) -> dict[str, bytes]:
    """The files of a folder with both towers. `model` is in evaluation mode, on the CPU, in contiguous memory order."""
    side, length = config.vision.image_resolution, config.text.context_length
    scale = float(model.logit_scale.detach().exp())
    tokens = torch.zeros(2, length, dtype=torch.int64)
    tokens[:, 1] = config.text.vocab_size - 1
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        image, text = os.path.join(folder, "image.onnx"), os.path.join(folder, "text.onnx")
        _write(_ImageTower(model), torch.zeros(2, 3, side, side), ("images", "image_features"), image, scale)
        _write(_TextTower(model), tokens, ("tokens", "text_features"), text, scale)
        written = {name: files.read(os.path.join(folder, name)) for name in sorted(os.listdir(folder))}
    return {**written, "config.json": config.to_json().encode(), "tokenizer.json": tokenizer.to_bytes()}
