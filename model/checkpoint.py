"""Finished models and training checkpoints: folders of safetensors and JSON that prove themselves.

in, out a folder of files and `_MANIFEST.json`, written last, which lists their sizes and sha256
law     a folder without a manifest does not exist; every byte is checked before it is used; nothing is unpickled
model   config.json, model.safetensors, tokenizer.json
"""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from model import files, objectives
from model.clip import CLIP
from model.config import ClipConfig
from model.tokenizer import Tokenizer

NAME = "_MANIFEST.json"
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json")
STEP_PREFIX = "step-"


class TornFolder(ValueError):
    """A folder whose files are not what its manifest says."""


def save_folder(folder: str, contents: Mapping[str, bytes], facts: Mapping[str, Any]) -> None:
    """Write the files, and last the manifest with their hashes and `facts`; an older manifest goes first."""
    files.remove(files.join(folder, NAME))
    listed = []
    for name, data in contents.items():
        files.write(files.join(folder, name), data)
        listed.append({"name": name, "num_bytes": len(data), "sha256": files.sha256(data)})
    manifest = {"format": 1, **facts, "files": listed}
    files.write(files.join(folder, NAME), json.dumps(manifest, indent=1).encode())


def load_folder(folder: str, only: Collection[str] = ()) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files of a folder, or `only` some of them, and its manifest.

    Raises FileNotFoundError without a manifest, TornFolder where files and manifest differ.
    """
    path = files.join(folder, NAME)
    try:
        manifest = json.loads(files.read(path))
        listed = [(file["name"], file["sha256"]) for file in manifest["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise TornFolder(f"{path}: expected a manifest, found {error!r}; remove the folder {folder}") from None
    contents = {}
    for name, sha256 in listed:
        if only and name not in only:
            continue
        try:
            contents[name] = files.read(files.join(folder, name))
        except FileNotFoundError:
            raise TornFolder(f"{folder} has no {name}, which its manifest lists; remove the folder") from None
        if files.sha256(contents[name]) != sha256:
            found = f"{len(contents[name])} bytes with another"
            raise TornFolder(f"{files.join(folder, name)}: expected sha256 {sha256[:12]}..., found {found}; remove the folder")
    return contents, manifest


def pack(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Tensors by name, as one safetensors file. No two may share memory."""
    return safetensors.torch.save({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, metadata)


def unpack(data: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file; `name` is told where it is none."""
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise TornFolder(f"{name}: not a safetensors file: {error}") from None


def _some(names: list[str], most: int = 20) -> str:
    return "none" if not names else str(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def check_weights(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], name: str) -> None:
    """Raise ValueError, which names what is missing, surplus or of another shape, unless `tensors` fit a state dict."""
    missing, surplus = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    shapes = [
        f"{key} {list(tensors[key].shape)} instead of {list(own[key].shape)}"
        for key in sorted(own.keys() & tensors.keys())
        if own[key].shape != tensors[key].shape
    ]
    if missing or surplus or shapes:
        found = f"missing: {_some(missing)}; surplus: {_some(surplus)}; of another shape: {_some(shapes)}"
        raise ValueError(f"{name}: expected the tensors of this configuration, found {found}")


def load_weights(model: torch.nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Copy tensors into a module. Raises ValueError as `check_weights`."""
    check_weights(model.state_dict(), tensors, name)
    model.load_state_dict(dict(tensors))


def save_model(
    folder: str, model: objectives.Model, tokenizer: Tokenizer, config: ClipConfig, facts: Mapping[str, Any]
) -> None:  # fmt: skip
    """Write a finished model."""
    save_tensors(folder, model.state_dict(), tokenizer, config, facts)


def save_tensors(
    folder: str, tensors: Mapping[str, Tensor], tokenizer: Tokenizer, config: ClipConfig, facts: Mapping[str, Any]
) -> None:  # fmt: skip
    """Write a finished model, of which these are the tensors."""
    contents = {
        "config.json": config.to_json().encode(),
        "model.safetensors": pack(tensors),
        "tokenizer.json": tokenizer.to_bytes(),
    }
    save_folder(folder, contents, facts)


def load_model(folder: str) -> tuple[CLIP, Tokenizer, ClipConfig]:
    """A finished model of two towers on the CPU, ready to encode; every file is checked by its hash.

    Raises ValueError as `load_any`, and where the model predicts texts and has no features of them.
    """
    model, tokenizer, config = load_any(folder)
    if not isinstance(model, CLIP):
        raise ValueError(
            f"{folder}: expected a model with an image tower and a text tower, found one of the objective {config.objective}, "
            "which has no features of texts; it can be evaluated by zero-shot classification (jobs/evaluate.py)"
        )
    return model, tokenizer, config


def load_any(folder: str) -> tuple[objectives.Model, Tokenizer, ClipConfig]:
    """A finished model of any objective on the CPU, ready to use; every file is checked by its hash.

    Raises ValueError where there is no finished model or where it is damaged.
    """
    try:
        contents, _ = load_folder(folder, MODEL_FILES)
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no finished model (no {NAME}): run jobs/train.py first") from None
    absent = set(MODEL_FILES) - contents.keys()
    if absent:
        raise ValueError(f"{folder}: expected a model, found no {', '.join(sorted(absent))}")
    config = ClipConfig.from_json(contents["config.json"].decode())
    model = objectives.build(config)
    load_weights(model, unpack(contents["model.safetensors"], "model.safetensors"), f"{folder}/model.safetensors")
    return model.eval(), Tokenizer.from_bytes(contents["tokenizer.json"]), config


def step_folder(folder: str, step: int) -> str:
    """The folder of a step's checkpoint."""
    return files.join(folder, f"{STEP_PREFIX}{step:08d}")


def list_steps(folder: str) -> list[int]:
    """Steps of which there is a checkpoint, finished or not, ascending."""
    found = [name.removeprefix(STEP_PREFIX) for name in files.names(folder) if name.startswith(STEP_PREFIX)]
    return sorted(int(step) for step in found if step.isdigit())


def load_newest(folder: str, warn: Callable[[str], None]) -> tuple[dict[str, bytes], int] | None:
    """The newest checkpoint that proves itself, and its step; None where there never was one.

    Unfinished ones are passed over in silence, damaged ones with a warning. Raises TornFolder where every one is damaged.
    """
    damaged = 0
    for step in reversed(list_steps(folder)):
        try:
            return load_folder(step_folder(folder, step))[0], step
        except FileNotFoundError:
            continue
        except TornFolder as error:
            damaged += 1
            warn(f"checkpoint of step {step} is damaged and passed over: {error}")
    if damaged:
        raise TornFolder(f"{folder}: all {damaged} checkpoints are damaged; remove this folder to train from the start")
    return None


def prune(folder: str, keep: int) -> None:
    """Remove all but the newest `keep` finished checkpoints, and the unfinished ones that are older than those."""
    steps = list_steps(folder)
    finished = [step for step in steps if NAME in files.names(step_folder(folder, step))]
    oldest = finished[-keep:][0] if finished else 0
    for step in steps:
        if step < oldest:
            files.remove(files.join(step_folder(folder, step), NAME))
            files.remove_folder(step_folder(folder, step))
