"""The switches of ComputeConfig change seconds and memory; features, gradients and running statistics stay what they are."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model.config import ClipConfig, ComputeConfig
from tests.model.peers import pairs_for, random_clip, small_vit
from tests.model.small import small_clip

PLAIN = ComputeConfig(channels_last=False, fused_attention=False)
TOWERS = {"vit": small_vit(), "resnet": replace(small_clip(), text=replace(small_clip().text, vocab_size=520))}
SWITCHES = {
    "activation_checkpointing": replace(PLAIN, activation_checkpointing=True),
    "channels_last": replace(PLAIN, channels_last=True),
    "fused_attention": replace(PLAIN, fused_attention=True),
    "all": ComputeConfig(activation_checkpointing=True),
}


def after_a_step(config: ClipConfig, compute: ComputeConfig) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Features and gradients of a training step, and the state that it leaves."""
    model = random_clip(config, seed=1, compute=compute).train()
    images, tokens = pairs_for(config, 6, seed=2)
    image_features, text_features, scale = model(images, tokens)
    (scale * image_features @ text_features.T).softmax(-1).diagonal().log().mean().backward()
    values = {"image": image_features.detach(), "text": text_features.detach()}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        values[name] = parameter.grad
    return values, model.state_dict()


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_changes_no_feature_gradient_or_statistic(tower: str, switch: str) -> None:
    values, state = after_a_step(TOWERS[tower], PLAIN)
    switched, switched_state = after_a_step(TOWERS[tower], SWITCHES[switch])
    for name, value in values.items():
        assert float((switched[name] - value).abs().max()) < 1e-4 * float(value.abs().max()) + 1e-7, name
    for name, tensor in state.items():
        torch.testing.assert_close(switched_state[name].contiguous(), tensor.contiguous())


def test_statistics_of_recomputed_activations_are_counted_once_bit_for_bit() -> None:
    once, twice = (
        after_a_step(TOWERS["resnet"], replace(PLAIN, activation_checkpointing=checkpointing))[1]
        for checkpointing in (False, True)
    )
    counted = [name for name in once if "running_" in name or name.endswith("num_batches_tracked")]
    assert len(counted) > 20
    for name in counted:
        assert torch.equal(once[name], twice[name]), name
    assert twice["visual.bn1.num_batches_tracked"] == 1
    assert not torch.equal(
        twice["visual.bn1.running_mean"], random_clip(TOWERS["resnet"], 1).state_dict()["visual.bn1.running_mean"]
    )


@pytest.mark.parametrize("tower", TOWERS)
def test_checkpointing_keeps_less_for_the_way_back(tower: str) -> None:
    def kept_bytes(compute: ComputeConfig) -> int:
        model = random_clip(TOWERS[tower], seed=1, compute=compute).train()
        own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage().data_ptr() not in own:
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        images, tokens = pairs_for(TOWERS[tower], 32, seed=2)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            features = model(images, tokens)
        assert features[0].requires_grad
        return sum(kept.values())

    assert kept_bytes(ComputeConfig(activation_checkpointing=True)) < 0.6 * kept_bytes(ComputeConfig())


def test_channels_last_reaches_the_convolutions() -> None:
    found = []
    model = random_clip(TOWERS["resnet"], seed=1, compute=ComputeConfig())
    model.visual.layer1[0].conv2.register_forward_hook(  # type: ignore[union-attr, index]
        lambda module, inputs, output: found.append((inputs[0], module.weight))
    )
    model.encode_image(torch.randn(2, 3, 16, 16))
    for tensor in found[0]:
        assert tensor.is_contiguous(memory_format=torch.channels_last)
        assert not tensor.is_contiguous()


@pytest.mark.parametrize("tower", TOWERS)
def test_autocast_gives_bfloat16_towers_close_to_float32(tower: str) -> None:
    model = random_clip(TOWERS[tower], seed=1)
    images, tokens = pairs_for(TOWERS[tower], 4, seed=2)
    with torch.no_grad():
        wanted = model(images, tokens)
        with torch.autocast("cpu", torch.bfloat16):
            found = model(images, tokens)
    for value, reference in zip(found[:2], wanted[:2], strict=True):
        assert (value.float() * reference).sum(-1).min() > 0.99
