"""Read a CLIP of any origin: ours, OpenAI's, open_clip's, Hugging Face's.

in      our model folder; OpenAI's TorchScript archive or state dict; open_clip's .pt (also a training checkpoint), safetensors or
        folder; Hugging Face's folder
out     the tensors under our names in float32, the configuration, and the tokenizer where the folder has one
law     weights only: nothing that a file holds is run (model/formats/archive.py), and what is read is no larger than the file
errors  BadModel, which names the tensors that are missing, surplus or of another shape
"""

import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from model import checkpoint, files
from model.clip import CLIP
from model.config import ClipConfig
from model.formats import hugging_face, open_clip, vocabulary
from model.formats.architecture import infer
from model.formats.archive import Archive, Shell, TensorSpec
from model.formats.errors import BadModel, listed
from model.tokenizer import Tokenizer

SCALARS = ("input_resolution", "context_length", "vocab_size")  # of OpenAI's archives; told by the shapes as well
ZIP_START = b"PK\x03\x04"
MAX_DEPTH = 40  # of modules inside modules
HF_FILES = ("config.json", "model.safetensors")
ACTIVATIONS = {"quick_gelu": True, "gelu": False}


class Found(NamedTuple):
    """A model that was read."""

    tensors: dict[str, Tensor]
    config: ClipConfig
    tokenizer: Tokenizer | None
    origin: str  # for people

    def build(self) -> CLIP:
        """The model, in evaluation mode, on the tensors themselves."""
        with torch.device("meta"):
            model = CLIP(self.config)
        model.load_state_dict(self.tensors, assign=True)
        return model.eval()


def read(path: str, activation: str = "") -> Found:
    """The model at `path`. `activation` (quick_gelu, gelu) is needed where a file does not tell it: open_clip's weights.

    Raises BadModel for what is none of the known kinds, or damaged.
    """
    if activation and activation not in ACTIVATIONS:
        raise BadModel(f"activation: expected one of {', '.join(ACTIVATIONS)}, found {activation!r}")
    if not os.path.isfile(path) and checkpoint.NAME in files.names(path):
        model, tokenizer, config = checkpoint.load_model(path)
        if config.objective != "contrastive":
            raise BadModel(f"{path}: expected a contrastive model, found {config.objective}: other formats have no place for it")
        return Found(dict(model.state_dict()), config, tokenizer, "ours")
    if files.is_remote(path):
        raise BadModel(f"{path}: expected one of our model folders, found none; another project's model must be a local file")
    if os.path.isdir(path):
        return _read_folder(path, activation)
    if not os.path.exists(path):
        raise BadModel(f"{path}: there is no such file or folder")
    tensors, tells_quick_gelu = _read_file(path)
    tensors = plain_names(tensors)
    if not tells_quick_gelu and not activation:
        raise BadModel(
            f"{path}: these weights do not tell the activation that they were trained with; give --activation quick_gelu for "
            "OpenAI's models and open_clip's -quickgelu ones, --activation gelu for its others"
        )
    quick_gelu = ACTIVATIONS[activation] if activation else True
    config = infer({name: tuple(tensor.shape) for name, tensor in tensors.items()}, path, quick_gelu)
    return Found(fitting(tensors, config, path), config, None, "OpenAI" if tells_quick_gelu else "open_clip")


def _read_folder(path: str, activation: str) -> Found:
    names = set(os.listdir(path))
    weights = next((name for name in open_clip.WEIGHTS if name in names), None)
    if open_clip.CONFIG in names and weights:
        config = open_clip.config_to_ours(_small(files.join(path, open_clip.CONFIG)), path)
        tensors = plain_names(_read_file(files.join(path, weights))[0])
        origin = "open_clip"
    elif names.issuperset(HF_FILES):
        config = hugging_face.config_to_ours(_small(files.join(path, "config.json")), path)
        theirs = _read_safetensors(files.join(path, "model.safetensors"))
        if max(config.vision.layers, config.text.layers) > len(theirs):  # type: ignore[type-var]
            raise BadModel(f"{path}: its config.json tells of more layers than there are tensors")
        tensors, origin = hugging_face.to_ours(theirs, config), "Hugging Face"
    else:
        expected = f"{checkpoint.NAME} (ours), {open_clip.CONFIG} with {open_clip.WEIGHTS[0]}, or {' with '.join(HF_FILES)}"
        raise BadModel(f"{path}: expected a model's folder, with {expected}; found {listed(names)}")
    if activation and ACTIVATIONS[activation] != config.quick_gelu:
        raise BadModel(f"{path}: its configuration tells quick_gelu={config.quick_gelu}, --activation says {activation}")
    tokenizer = vocabulary.from_folder(path, config.text.context_length) if "tokenizer.json" in names else None
    return Found(fitting(tensors, config, path), config, tokenizer, origin)


def _small(path: str, most: int = 1_000_000) -> bytes:
    if os.path.getsize(path) > most:
        raise BadModel(f"{path}: expected at most {most:,} bytes, found {os.path.getsize(path):,}")
    return files.read(path)


def _read_file(path: str) -> tuple[dict[str, Tensor], bool]:
    """The tensors of a file, and whether it is OpenAI's own."""
    with open(path, "rb") as file:
        start = file.read(16)
    if start.startswith(ZIP_START):
        return _read_archive(path)
    if start[8:9] == b"{":
        return _read_safetensors(path), False
    raise BadModel(
        f"{path}: expected safetensors or a PyTorch archive, found neither; a file of PyTorch before 1.6 is a bare pickle, which"
        " is not read here: where you trust it, load and save it with a newer PyTorch"
    )


def _read_safetensors(path: str) -> dict[str, Tensor]:
    with open(path, "rb") as file:
        try:
            return checkpoint.unpack(file.read(), path)
        except checkpoint.TornFolder as error:
            raise BadModel(str(error)) from None


def _read_archive(path: str) -> tuple[dict[str, Tensor], bool]:
    with Archive(path) as archive:
        content = archive.content
        if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
            content = content["state_dict"]  # of a training checkpoint
        named = dict(_named(content))
        if not named:
            raise BadModel(f"{path}: expected named tensors, found none in a {type(content).__name__}")
        specs = {name: value for name, value in named.items() if isinstance(value, TensorSpec)}
        num_bytes = sum(math.prod(spec.shape) * spec.dtype.itemsize for spec in specs.values())
        if num_bytes > os.path.getsize(path):
            raise BadModel(f"{path}: its tensors claim {num_bytes:,} bytes, more than the whole file has")
        is_openai = archive.is_torchscript or all(name in named for name in SCALARS)
        return {name: archive.load(spec) for name, spec in specs.items() if name not in SCALARS}, is_openai


def _named(content: Any, prefix: str = "", depth: int = 0) -> list[tuple[str, Any]]:
    """Tensors and numbers by dotted name, through modules."""
    found: list[tuple[str, Any]] = []
    values = content.attributes if isinstance(content, Shell) else content
    if depth > MAX_DEPTH or not isinstance(values, Mapping):
        return found
    for name, value in values.items():
        if isinstance(value, Shell):
            found += _named(value, f"{prefix}{name}.", depth + 1)
        elif isinstance(value, TensorSpec | int) and not isinstance(value, bool):
            found.append((f"{prefix}{name}", value))
    return found


def plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's names: without the prefixes of a training run and of a separate text tower; and without masks."""
    prefix = "module." if all(name.startswith("module.") for name in tensors) else ""
    names = {name.removeprefix(prefix).removeprefix("_orig_mod."): tensor for name, tensor in tensors.items()}
    return {name.removeprefix("text."): tensor for name, tensor in names.items() if not name.endswith("attn_mask")}


def fitting(tensors: Mapping[str, Tensor], config: ClipConfig, path: str) -> dict[str, Tensor]:
    """The tensors in the types of our model. Raises BadModel that names what is missing, surplus or of another shape."""
    with torch.device("meta"):
        own = CLIP(config).state_dict()
    counts = {name: torch.tensor(0) for name in own if name.endswith("num_batches_tracked")}  # older PyTorch had none
    tensors = {**counts, **tensors}
    try:
        checkpoint.check_weights(own, tensors, path)
    except ValueError as error:
        raise BadModel(str(error)) from None
    return {name: tensors[name].to(value.dtype) for name, value in own.items()}


def read_tokenizer(path: str, context_length: int) -> Tokenizer:
    """The tokenizer in a tokenizer.json of ours, or in OpenAI's bpe_simple_vocab_16e6.txt.gz."""
    try:
        content = files.read(path)
        is_ours = content.lstrip()[:1] == b"{"
        return Tokenizer.from_bytes(content) if is_ours else Tokenizer.from_openai(content, context_length)
    except (OSError, ValueError) as error:
        raise BadModel(f"{path}: expected a tokenizer.json or OpenAI's vocabulary, found {error}") from None
