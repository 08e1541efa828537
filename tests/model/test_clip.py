"""The towers: names, shapes and counts of the paper's nine, initial values, and what a feature may depend on."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.clip import CLIP
from model.config import ClipConfig, ResNetConfig, TextConfig, VitConfig
from model.recipes import MODELS
from model.transformer import Attention
from model.vision import AttentionPool
from tests.model.small import small_clip

COUNTS = {  # all, image tower; of the released checkpoints
    "RN50": (102_007_137, 38_316_896),
    "RN101": (119_688_033, 56_259_936),
    "RN50x4": (178_300_601, 87_137_080),
    "RN50x16": (290_979_217, 167_328_912),
    "RN50x64": (623_258_305, 420_380_352),
    "ViT-B/32": (151_277_313, 87_849_216),
    "ViT-B/16": (149_620_737, 86_192_640),
    "ViT-L/14": (427_616_513, 303_966_208),
    "ViT-L/14@336px": (427_944_193, 304_293_888),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_papers_models_have_the_released_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        model = CLIP(MODELS[name])
    assert (count(model), count(model.visual)) == COUNTS[name]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_are_named_and_shaped_as_in_the_release() -> None:
    with torch.device("meta"):
        vit = {name: tuple(tensor.shape) for name, tensor in CLIP(MODELS["ViT-B/32"]).state_dict().items()}
        resnet = {name: tuple(tensor.shape) for name, tensor in CLIP(MODELS["RN50"]).state_dict().items()}
    block = {
        "attn.in_proj_weight": (1536, 512), "attn.in_proj_bias": (1536,), "attn.out_proj.weight": (512, 512),
        "attn.out_proj.bias": (512,), "ln_1.weight": (512,), "ln_1.bias": (512,), "ln_2.weight": (512,), "ln_2.bias": (512,),
        "mlp.c_fc.weight": (2048, 512), "mlp.c_fc.bias": (2048,), "mlp.c_proj.weight": (512, 2048), "mlp.c_proj.bias": (512,),
    }  # fmt: skip
    text = {f"transformer.resblocks.{layer}.{name}": shape for layer in range(12) for name, shape in block.items()} | {
        "token_embedding.weight": (49408, 512), "positional_embedding": (77, 512), "text_projection": (512, 512),
        "ln_final.weight": (512,), "ln_final.bias": (512,), "logit_scale": (),
    }  # fmt: skip
    assert {name: shape for name, shape in vit.items() if not name.startswith("visual.")} == text
    assert vit["visual.conv1.weight"] == (768, 3, 32, 32)
    assert vit["visual.class_embedding"] == (768,)
    assert vit["visual.positional_embedding"] == (50, 768)
    assert vit["visual.proj"] == (768, 512)
    assert {name.split(".")[1] for name in vit if name.startswith("visual.")} == {
        "conv1", "class_embedding", "positional_embedding", "ln_pre", "transformer", "ln_post", "proj",
    }  # fmt: skip
    for name, shape in {
        "conv3.weight": (64, 32, 3, 3), "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.0.downsample.1.running_var": (256,),
        "layer3.5.conv2.weight": (256, 256, 3, 3), "layer4.0.bn3.num_batches_tracked": (),
        "attnpool.positional_embedding": (50, 2048),
        "attnpool.q_proj.weight": (2048, 2048), "attnpool.c_proj.weight": (1024, 2048), "attnpool.c_proj.bias": (1024,),
    }.items():  # fmt: skip
        assert resnet[f"visual.{name}"] == shape
    assert not [name for name in resnet if "downsample.-1" in name]


def spread(tensor: Tensor) -> float:
    return float(tensor.detach().double().std())


def test_initial_values_have_the_papers_deviations() -> None:
    torch.manual_seed(0)
    text = TextConfig(width=256, layers=4, heads=4, vocab_size=2000)
    vit = CLIP(
        ClipConfig(embed_dim=128, vision=VitConfig(image_resolution=64, patch_size=8, width=192, layers=2, heads=3), text=text)
    )
    wanted = {
        "token_embedding.weight": 0.02, "positional_embedding": 0.01, "text_projection": 256**-0.5,
        "transformer.resblocks.1.attn.in_proj_weight": 256**-0.5,
        "transformer.resblocks.2.attn.out_proj.weight": (256 * 8) ** -0.5,
        "transformer.resblocks.0.mlp.c_fc.weight": 512**-0.5, "transformer.resblocks.3.mlp.c_proj.weight": (256 * 8) ** -0.5,
        "visual.positional_embedding": 192**-0.5, "visual.class_embedding": 192**-0.5, "visual.proj": 192**-0.5,
        "visual.conv1.weight": (3 * 64 * 3) ** -0.5, "visual.transformer.resblocks.0.mlp.c_fc.weight": (192 * 3) ** -0.5,
        "visual.transformer.resblocks.0.attn.in_proj_weight": math.sqrt(2 / (4 * 192)),  # Xavier's uniform draw
    }  # fmt: skip
    state = vit.state_dict()
    for name, deviation in wanted.items():
        tolerance = 4 / math.sqrt(2 * state[name].numel())
        assert spread(state[name]) == pytest.approx(deviation, rel=tolerance), name
        assert abs(float(state[name].mean())) < 5 * deviation / math.sqrt(state[name].numel()), name
    assert state["logit_scale"].exp().item() == pytest.approx(1 / 0.07)
    assert not state["transformer.resblocks.0.attn.in_proj_bias"].any()
    assert not state["transformer.resblocks.0.attn.out_proj.bias"].any()
    assert state["transformer.resblocks.0.mlp.c_fc.bias"].any()


def test_initial_values_of_the_resnet_have_the_papers_deviations() -> None:
    torch.manual_seed(0)
    vision = ResNetConfig(image_resolution=64, layers=(2, 1, 1), width=32, heads=8)
    state = CLIP(ClipConfig(embed_dim=128, vision=vision, text=TextConfig(width=64, layers=1, heads=1))).visual.state_dict()
    for name in ("q_proj", "k_proj", "v_proj", "c_proj"):
        assert spread(state[f"attnpool.{name}.weight"]) == pytest.approx(512**-0.5, rel=0.02)
    assert spread(state["attnpool.positional_embedding"]) == pytest.approx(512**-0.5, rel=0.05)
    gains = {name: tensor for name, tensor in state.items() if ".bn" in name and name.endswith("weight")}
    for name, tensor in gains.items():
        assert torch.equal(tensor, torch.full_like(tensor, 0.0 if "bn3" in name and "layer" in name else 1.0)), name


def initial_spread(name: str, shape: tuple[int, ...], config: ClipConfig) -> float:
    """The deviation of a tensor's initial values by CLIP's table; 0.0: all the same number."""
    leaf, text, fan_in = name.rsplit(".", 1)[-1], config.text, math.prod(shape[1:])
    if leaf == "num_batches_tracked" or name == "logit_scale" or leaf in ("running_mean", "running_var"):
        return 0.0
    if any(part in name for part in ("ln_", ".bn", "downsample.1")) or leaf == "in_proj_bias" or "out_proj.bias" in name:
        return 0.0
    if leaf == "bias":  # PyTorch's uniform draw, by the width of what comes in
        bases = {"mlp.c_fc": 1, "mlp.c_proj": 4}
        width = config.vision.width if name.startswith("visual.transformer") else text.width
        inputs = next((width * factor for part, factor in bases.items() if part in name), 0)
        return (3 * (inputs or config.vision.output_width)) ** -0.5  # type: ignore[union-attr]
    if name.startswith("visual."):
        if "attnpool" in name:
            return config.vision.output_width**-0.5  # type: ignore[union-attr]
        if name in ("visual.proj", "visual.class_embedding", "visual.positional_embedding"):
            return config.vision.width**-0.5
        return math.sqrt(2 / sum(shape)) if leaf == "in_proj_weight" else (3 * fan_in) ** -0.5
    kinds = {
        "token_embedding": 0.02, "positional_embedding": 0.01, "text_projection": text.width**-0.5,
        "in_proj_weight": text.width**-0.5, "out_proj": (2 * text.layers * text.width) ** -0.5,
        "c_fc": (2 * text.width) ** -0.5, "c_proj": (2 * text.layers * text.width) ** -0.5,
    }  # fmt: skip
    return next(value for part, value in kinds.items() if part in name)


@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_every_tensor_starts_with_the_papers_deviation(tower: str) -> None:
    torch.manual_seed(1)
    text = TextConfig(width=96, layers=3, heads=2, vocab_size=1000)
    vit = VitConfig(image_resolution=32, patch_size=8, width=144, layers=2, heads=3)
    resnet = ResNetConfig(image_resolution=64, layers=(2, 1, 1), width=32, heads=8)
    config = ClipConfig(embed_dim=80, vision=vit if tower == "vit" else resnet, text=text)
    for name, tensor in CLIP(config).state_dict().items():
        wanted, count = initial_spread(name, tuple(tensor.shape), config), tensor.numel()
        if wanted == 0.0:
            assert (tensor == tensor.flatten()[0]).all(), name
            continue
        mean, found = float(tensor.double().mean()), float(tensor.double().square().mean().sqrt())
        assert abs(mean) < 5 * wanted / math.sqrt(count), name
        assert found == pytest.approx(wanted, rel=5 / math.sqrt(2 * count)), name


def test_a_text_feature_depends_on_nothing_after_its_eot() -> None:
    model = CLIP(small_clip()).eval()
    tokens = torch.tensor([[550, 5, 6, 559, 0, 0, 0], [550, 5, 6, 559, 9, 8, 7]])
    features = model.encode_text(tokens)
    torch.testing.assert_close(features[0], features[1])
    torch.testing.assert_close(model.encode_text(tokens[:1, :4])[0], features[0])
    assert not torch.allclose(model.encode_text(torch.tensor([[550, 5, 7, 559]]))[0], features[0], atol=1e-4)


def test_texts_in_groups_of_like_length_have_the_same_features() -> None:
    torch.manual_seed(0)
    model = CLIP(small_clip())
    tokens = torch.zeros(9, 12, dtype=torch.int64)
    for row, length in enumerate([12, 3, 7, 7, 2, 11, 5, 4, 12]):
        tokens[row, : length - 1] = torch.randint(1, 500, (length - 1,))
        tokens[row, length - 1] = 559
    for groups in (2, 4, 9):
        torch.testing.assert_close(model.encode_text_by_length(tokens, groups), model.encode_text(tokens))


def test_attention_equals_pytorchs_own() -> None:
    torch.manual_seed(0)
    ours, theirs = Attention(24, 3), nn.MultiheadAttention(24, 3, batch_first=True)
    nn.init.normal_(ours.in_proj_bias)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 24)
    mask = torch.full((5, 5), -math.inf).triu(1)
    torch.testing.assert_close(ours(x, causal=True), theirs(x, x, x, attn_mask=mask, need_weights=False)[0])
    torch.testing.assert_close(ours(x, causal=False), theirs(x, x, x, need_weights=False)[0])


def test_the_attention_pool_equals_pytorchs_own() -> None:
    torch.manual_seed(0)
    pool = AttentionPool(9, 16, 4, 6)
    x = torch.randn(2, 16, 3, 3)
    tokens = x.flatten(2).permute(2, 0, 1)
    tokens = torch.cat([tokens.mean(0, keepdim=True), tokens]) + pool.positional_embedding[:, None]
    wanted, _ = F.multi_head_attention_forward(
        tokens[:1], tokens, tokens, 16, 4, None, torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]), None, None,
        False, 0.0, pool.c_proj.weight, pool.c_proj.bias, use_separate_proj_weight=True, q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight, v_proj_weight=pool.v_proj.weight, need_weights=False,
    )  # fmt: skip
    torch.testing.assert_close(pool(x), wanted[0])


@pytest.mark.parametrize(
    "vision", [VitConfig(image_resolution=32, patch_size=8, width=32, layers=1, heads=2), small_clip().vision]
)
def test_both_towers_give_unit_features_and_gradients_everywhere(vision: VitConfig | ResNetConfig) -> None:
    torch.manual_seed(0)
    config = ClipConfig(embed_dim=16, vision=vision, text=small_clip().text)
    model = CLIP(config)
    images = torch.randn(4, 3, vision.image_resolution, vision.image_resolution)
    image_features, text_features, scale = model(images, torch.tensor([[550, 5 + row, 559] for row in range(4)]))
    assert image_features.shape == text_features.shape == (4, 16)
    np.testing.assert_allclose(image_features.detach().norm(dim=-1), 1, rtol=1e-5)
    (scale * image_features @ text_features.T).diagonal().sum().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("config", [*MODELS.values(), small_clip()])
def test_a_configuration_comes_back_from_its_json(config: ClipConfig) -> None:
    assert ClipConfig.from_json(config.to_json()) == config


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of patch_size, found 224 and 30"):
        VitConfig(patch_size=30)
    with pytest.raises(ValueError, match="multiple of 32, found 200"):
        ResNetConfig(image_resolution=200)
    with pytest.raises(ValueError, match=r"config\.json: expected embed_dim, vision"):
        ClipConfig.from_json("{}")
