"""The paper's nine beside open_clip's and Hugging Face's own: the same weights give the same features.

The largest models take gigabytes; two of each kind run by default, the others are marked slow too.
"""

import gc
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.clip import CLIP
from model.config import ClipConfig
from model.formats import hugging_face
from model.recipes import MODELS
from tests.model.peers import import_open_clip, import_transformers, pairs_for, random_clip, small_vit

pytestmark = pytest.mark.peers
TOLERANCE = 1e-5
QUICK = {"RN50", "ViT-B/32"}
VITS = [name for name in MODELS if name.startswith("ViT")]


def params(names: list[str]) -> list[object]:
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture(autouse=True)
def _memory_is_freed() -> Iterator[None]:
    yield
    gc.collect()


def unit_features(model: CLIP, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return model(images, tokens)[:2]


def few_pairs(name: str) -> tuple[Tensor, Tensor]:
    """Two texts and two pictures; one picture where two would take minutes."""
    images, tokens = pairs_for(MODELS[name], 2, seed=2)
    return (images if name in QUICK else images[:1]), tokens


def assert_same(name: str, ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    differences = [float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True)]
    print(f"{name}: image {differences[0]:.2e} text {differences[1]:.2e}")
    assert max(differences) < TOLERANCE
    for features in ours:
        assert float(features.std(-1).min()) > 0.1 / features.shape[-1] ** 0.5  # no feature is the same number all along
    assert float(ours[1][0] @ ours[1][1]) < 0.9999  # two texts are two features


def shared(model: CLIP, other: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """`other` on these very tensors, in evaluation mode."""
    result = other.load_state_dict(tensors, strict=True, assign=True)
    assert not result.missing_keys
    assert not result.unexpected_keys
    return other.eval()


@pytest.mark.parametrize("name", params(list(MODELS)))
def test_features_equal_those_of_open_clip(name: str) -> None:
    open_clip = import_open_clip()
    config = MODELS[name]
    model = random_clip(config, seed=1)
    images, tokens = few_pairs(name)
    ours = unit_features(model, images, tokens)
    with torch.device("meta"):
        architecture = name.replace("/", "-").replace("@336px", "-336") + "-quickgelu"
        theirs = open_clip.CLIP(**{**open_clip.get_model_config(architecture), "output_dict": False})
    mask = torch.full((config.text.context_length,) * 2, float("-inf")).triu(1)
    theirs.attn_mask = mask  # a buffer that no state dict holds
    shared(model, theirs, dict(model.state_dict()))
    with torch.no_grad():
        assert_same(name, ours, theirs(images, tokens)[:2])


def hugging_face_model(config: ClipConfig, model: CLIP) -> nn.Module:
    transformers = import_transformers()
    values = hugging_face.config_to_theirs(config, sot_id=config.text.vocab_size - 2, eot_id=config.text.vocab_size - 1)
    other = transformers.CLIPModel(transformers.CLIPConfig(**values))
    return shared(model, other, hugging_face.to_theirs(model.state_dict(), config))


@pytest.mark.parametrize("name", params(VITS))
def test_features_equal_those_of_hugging_face(name: str) -> None:
    config = MODELS[name]
    model = random_clip(config, seed=3)
    images, tokens = few_pairs(name)
    other = hugging_face_model(config, model)
    with torch.no_grad():
        found = other(input_ids=tokens, pixel_values=images)
    theirs = F.normalize(found.image_embeds, dim=-1), F.normalize(found.text_embeds, dim=-1)
    assert_same(name, unit_features(model, images, tokens), theirs)


def test_features_with_gelu_equal_those_of_hugging_face() -> None:
    config = small_vit(quick_gelu=False)
    model = random_clip(config, seed=5)
    images, tokens = pairs_for(config, 6, seed=6)
    with torch.no_grad():
        found = hugging_face_model(config, model)(input_ids=tokens, pixel_values=images)
    assert_same("small", unit_features(model, images, tokens), (found.image_embeds, found.text_embeds))
    quick = CLIP(small_vit()).eval()
    quick.load_state_dict(model.state_dict())
    assert not torch.allclose(unit_features(quick, images, tokens)[0], found.image_embeds, atol=1e-4)
