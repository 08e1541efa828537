"""Models of OpenAI's, open_clip's and Hugging Face's making as ours, and what is said of those that are none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model import checkpoint
from model.clip import CLIP
from model.config import ClipConfig, ResNetConfig, TextConfig, VitConfig
from model.formats import foreign, hugging_face, open_clip, vocabulary
from model.formats.architecture import infer
from model.formats.errors import BadModel
from model.recipes import MODELS
from model.tokenizer import Tokenizer
from tests.model.peers import import_open_clip, random_clip

TEXT = TextConfig(context_length=16, vocab_size=516, width=128, layers=2, heads=2)  # heads of 64: they can be inferred
RESNET = ClipConfig(embed_dim=24, vision=ResNetConfig(image_resolution=64, layers=(1, 2, 1, 1), width=8, heads=4), text=TEXT)
VIT = ClipConfig(embed_dim=24, vision=VitConfig(image_resolution=32, patch_size=8, width=64, layers=2, heads=1), text=TEXT)
CONFIGS = {"vit": VIT, "resnet": RESNET}


def tokenizer() -> Tokenizer:
    return Tokenizer.train(["abcd abce"] * 3, 516, TEXT.context_length)


class Container(nn.Module):
    """A module that scripts; it holds what it is told to."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def torchscript(tensors: dict[str, Tensor], path: Path) -> str:
    """An archive as OpenAI's: modules that hold the tensors in half precision, norms and embeddings in float32, and scalars."""
    root = Container()
    for name, tensor in tensors.items():
        *folders, leaf = name.split(".")
        module: nn.Module = root
        for folder in folders:
            if folder not in module._modules:
                module.add_module(folder, Container())
            module = module._modules[folder]  # type: ignore[assignment]
        half = tensor.half() if tensor.ndim > 1 and "embedding" not in name else tensor
        if tensor.is_floating_point():
            module.register_parameter(leaf, nn.Parameter(half, requires_grad=False))
        else:
            module.register_buffer(leaf, half)
    for name, value in (("input_resolution", 32), ("context_length", 16), ("vocab_size", 516)):
        root.register_buffer(name, torch.tensor(value))
    torch.jit.save(torch.jit.script(root), str(path))
    return str(path)


def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: t.half().float() if t.ndim > 1 and "embedding" not in k else t for k, t in tensors.items()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("tower", CONFIGS)
def test_a_torchscript_archive_is_read_without_its_code(tower: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = random_clip(CONFIGS[tower], seed=0).state_dict()
    path = torchscript(tensors, tmp_path / "model.pt")
    for loader in ("torch.jit.load", "torch.load", "pickle.load", "pickle.loads"):
        monkeypatch.setattr(loader, None)
    found = foreign.read(path)
    assert found.config == CONFIGS[tower]
    assert found.origin == "OpenAI"
    wanted = halved(tensors)
    assert found.tensors.keys() == wanted.keys()
    assert all(torch.equal(found.tensors[name], wanted[name]) for name in wanted)
    assert all(tensor.dtype == wanted[name].dtype for name, tensor in found.tensors.items())


def renamed(change: Callable[[str], str]) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {change(name): tensor for name, tensor in tensors.items()}


WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "a state dict": dict,
    "a training checkpoint": lambda tensors: {"epoch": 1, "state_dict": {f"module.{k}": v for k, v in tensors.items()}},
    "a compiled model's": renamed(lambda name: f"_orig_mod.{name}"),
    "a separate text tower": renamed(
        lambda name: name if name.startswith("visual.") or name == "logit_scale" else f"text.{name}"
    ),
    "with a mask": lambda tensors: {**tensors, "attn_mask": torch.zeros(16, 16)},
    "without counters": lambda tensors: {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_open_clips_weights_are_read_in_every_wrapping(wrapping: str, suffix: str, tmp_path: Path) -> None:
    tensors = random_clip(RESNET, seed=0).state_dict()
    content, path = WRAPPINGS[wrapping](tensors), tmp_path / f"model.{suffix}"
    if suffix == "pt":
        torch.save(content, path)
    else:
        path.write_bytes(checkpoint.pack(content.get("state_dict", content)))
    found = foreign.read(str(path), "gelu")
    assert not found.config.quick_gelu
    assert all(torch.equal(found.tensors[k], v) for k, v in tensors.items() if "num_batches" not in k)
    with pytest.raises(BadModel, match=r"do not tell the activation.*--activation quick_gelu for OpenAI"):
        foreign.read(str(path))


def test_openais_state_dict_tells_its_activation(tmp_path: Path) -> None:
    tensors = random_clip(VIT, seed=0).state_dict()
    torch.save({**tensors, "input_resolution": torch.tensor(32), "context_length": 16, "vocab_size": 516}, tmp_path / "a.pt")
    found = foreign.read(str(tmp_path / "a.pt"))
    assert found.config == VIT
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("name", MODELS)
def test_the_papers_architectures_are_inferred_from_their_shapes(name: str) -> None:
    with torch.device("meta"):
        shapes = {key: tuple(tensor.shape) for key, tensor in CLIP(MODELS[name]).state_dict().items()}
    assert infer(shapes, "file", quick_gelu=True) == MODELS[name]


def test_a_wrong_file_is_told_what_is_missing_surplus_and_of_another_shape(tmp_path: Path) -> None:
    tensors = random_clip(VIT, seed=0).state_dict()
    tensors["logit_bias"] = torch.zeros(())
    tensors["visual.ln_post.bias"] = torch.zeros(7)
    del tensors["ln_final.weight"]
    (tmp_path / "a.safetensors").write_bytes(checkpoint.pack(tensors))
    with pytest.raises(BadModel) as caught:
        foreign.read(str(tmp_path / "a.safetensors"), "gelu")
    message = str(caught.value)
    assert "missing: ['ln_final.weight']" in message
    assert "surplus: ['logit_bias']" in message
    assert "visual.ln_post.bias [7] instead of [64]" in message
    (tmp_path / "b.safetensors").write_bytes(checkpoint.pack({"fc.weight": torch.zeros(2, 2)}))
    with pytest.raises(BadModel, match=r"expected a CLIP, found no tensor 'visual\.conv3\.weight' among fc\.weight"):
        foreign.read(str(tmp_path / "b.safetensors"), "gelu")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"notes.txt": b""}, r"expected a model's folder.*found notes\.txt"),
        ({"config.json": b"{", "model.safetensors": b""}, "expected the config.json of a CLIPModel"),
        ({"config.json": b'{"model_type": "siglip"}', "model.safetensors": b""}, "model_type clip, found 'siglip'"),
        (
            {"config.json": json.dumps({"model_type": "clip", "vision_config": {"num_hidden_layers": 10**9}}).encode(),
             "model.safetensors": checkpoint.pack({"a": torch.zeros(1)})},
            "more layers than there are tensors",
        ),
        ({"open_clip_config.json": b"[]", "open_clip_model.safetensors": b""}, "expected one of open_clip's model"),
        (
            {"open_clip_config.json": json.dumps(
                {"embed_dim": 8, "vision_cfg": {"timm_model_name": "x"}, "text_cfg": {}}).encode(),
             "open_clip_model.safetensors": b""},
            r"found the settings \['timm_model_name'\]",
        ),
    ],
)  # fmt: skip
def test_folders_that_are_no_model_of_a_known_kind_are_refused(files: dict[str, bytes], reason: str, tmp_path: Path) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(BadModel, match=reason):
        foreign.read(str(tmp_path))


def test_exports_come_back_bit_for_bit(tmp_path: Path) -> None:
    exports = {"open_clip": (open_clip.export, CONFIGS), "hugging_face": (hugging_face.export, {"vit": VIT})}
    for kind, (export, configs) in exports.items():
        for tower, config in configs.items():
            folder = tmp_path / kind / tower
            folder.mkdir(parents=True)
            tensors = random_clip(config, seed=0).state_dict()
            for name, data in export(tensors, config, tokenizer()).items():
                (folder / name).write_bytes(data)
            found = foreign.read(str(folder))
            assert found.config == config
            assert found.tensors.keys() == tensors.keys()
            assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items())
            assert found.tokenizer is not None
            texts = ["abce abcd", "the naïve café, 100% it's", "", "x" * 50]
            assert torch.equal(found.tokenizer(texts), tokenizer()(texts))


def test_our_own_model_is_read_too(tmp_path: Path) -> None:
    model = random_clip(VIT, seed=0)
    checkpoint.save_model(str(tmp_path / "model"), model, tokenizer(), VIT, {"run": "x"})
    found = foreign.read(str(tmp_path / "model"))
    assert found.config == VIT
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in model.state_dict().items())


def test_a_vocabulary_of_another_order_is_refused(tmp_path: Path) -> None:
    values = json.loads(tokenizer().to_bytes())
    vocab = values["model"]["vocab"]
    first, second = sorted(vocab, key=vocab.__getitem__)[:2]
    vocab[first], vocab[second] = 1, 0
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(BadModel, match="the 512 byte symbols first"):
        vocabulary.from_folder(str(tmp_path), 16)


def test_a_resnet_has_no_place_in_hugging_face() -> None:
    with pytest.raises(BadModel, match="CLIPModel has no ResNet"):
        hugging_face.export(random_clip(RESNET, 0).state_dict(), RESNET, tokenizer())
    three = ClipConfig(vision=ResNetConfig(image_resolution=64, layers=(1, 1, 1), width=8, heads=4), text=TEXT)
    with pytest.raises(BadModel, match="4 stages, found one with 3"):
        open_clip.config_to_theirs(three)


@pytest.mark.peers
@pytest.mark.parametrize("name", MODELS)
def test_open_clips_own_configurations_are_the_papers_models(name: str) -> None:
    architecture = name.replace("/", "-").replace("@336px", "-336") + "-quickgelu"
    config = import_open_clip().get_model_config(architecture)
    assert open_clip.config_to_ours(json.dumps(config).encode(), name) == MODELS[name]
