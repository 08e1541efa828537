"""Convert: a model of any origin in, a folder of one format out.

law     the weights that come out are the weights that went in, bit for bit (float32; half precision is widened)
law     a folder that holds anything but an older output of the same format is not written to
"""

import importlib.util
from typing import NamedTuple

from model import checkpoint, files
from model.formats import foreign, hugging_face, open_clip
from model.formats.config import ConvertConfig
from model.formats.errors import BadModel

MARKS = {  # a file that tells each format's folder
    "open_clip": open_clip.CONFIG,
    "hugging_face": "preprocessor_config.json",
    "onnx": "image.onnx",
    "wit": checkpoint.NAME,
}


class Converted(NamedTuple):
    """What was done, for people."""

    source: str
    origin: str
    target: str
    num_parameters: int


def places(config: ConvertConfig) -> tuple[str, str]:
    """What is read, what is written. Raises BadModel where they are the same or the target holds something else."""
    model = files.join(config.root, "model")
    source = config.source or model
    target = config.target or (model if config.format == "wit" else files.join(config.root, "export", config.format))
    if source.rstrip("/") == target.rstrip("/"):
        raise BadModel(f"convert: {source} is what is read and what is written; give --source, or another --root")
    there = files.names(target)
    if there and MARKS[config.format] not in there:
        raise BadModel(f"convert: {target} holds other files ({', '.join(there[:3])}); give an empty --target")
    return source, target


def convert(config: ConvertConfig) -> Converted:
    """Read the model and write it in the format. Raises BadModel where either can not be done."""
    source, target = places(config)
    if config.format == "onnx" and importlib.util.find_spec("onnxscript") is None:
        raise BadModel("convert: ONNX needs the package onnxscript; pip install 'wit[onnx]'")
    found = foreign.read(source, config.activation)
    tokenizer = found.tokenizer
    if config.tokenizer:
        tokenizer = foreign.read_tokenizer(config.tokenizer, found.config.text.context_length)
    if tokenizer is None:
        raise BadModel(f"convert: {source} holds no tokenizer; give --tokenizer FILE")
    text = found.config.text
    if (tokenizer.vocab_size, tokenizer.context_length) != (text.vocab_size, text.context_length):
        raise BadModel(
            f"convert: expected a tokenizer of {text.vocab_size} entries and {text.context_length} tokens a text, "
            f"found {tokenizer.vocab_size} and {tokenizer.context_length}"
        )
    facts = {"run": f"converted from {found.origin}", "step": 0, "samples_seen": 0, "bad": {}, "source": source}
    if config.format == "wit":
        checkpoint.save_model(target, found.build(), tokenizer, found.config, facts)
    else:
        for name, data in _files(config, found, tokenizer).items():
            files.write(files.join(target, name), data)
    num_parameters = sum(
        tensor.numel() for name, tensor in found.tensors.items() if "running_" not in name and tensor.is_floating_point()
    )
    return Converted(source, found.origin, target, num_parameters)


def _files(config: ConvertConfig, found: foreign.Found, tokenizer: foreign.Tokenizer) -> dict[str, bytes]:
    if config.format == "open_clip":
        return open_clip.export(found.tensors, found.config, tokenizer)
    if config.format == "hugging_face":
        return hugging_face.export(found.tensors, found.config, tokenizer)
    from model.formats import onnx_file

    return onnx_file.export(found.build(), found.config, tokenizer)
