"""Operations by formula beside those that PyTorch counts, and the mirrors of the events."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model import flops, objectives
from model.compute import use
from model.config import ClipConfig, ComputeConfig, ResNetConfig, TextConfig, VitConfig
from model.recipes import MODELS
from model.train import train
from tests.model.small import small_clip, small_run

CPU = torch.device("cpu")
CONFIGS = [
    small_clip(),
    replace(small_clip(), vision=VitConfig(image_resolution=32, patch_size=8, width=48, layers=3, heads=3)),
    ClipConfig(
        embed_dim=24,
        vision=ResNetConfig(image_resolution=64, layers=(2, 1, 3, 1), width=16, heads=4),
        text=TextConfig(context_length=20, vocab_size=600, width=32, layers=2, heads=2),
    ),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["tiny", "vit", "resnet"])
def test_the_formula_is_what_is_counted(config: ClipConfig) -> None:
    torch.manual_seed(0)
    model = objectives.build(config).eval()
    use(model, ComputeConfig(fused_attention=False))
    side, text = config.vision.image_resolution, config.text
    tokens = torch.randint(1, text.vocab_size, (1, text.context_length))
    tokens[0, -1] = text.vocab_size - 1
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        objectives.encode(model, torch.randn(1, 3, side, side), tokens)
    wanted = flops.flops_per_pair(config)
    assert wanted is not None
    assert counter.get_total_flops() == pytest.approx(wanted, rel=0.01)


def test_the_papers_models_have_their_known_sizes() -> None:
    known = {"ViT-B/32": 14.8, "ViT-L/14": 175.3, "RN50": 18.3}  # 10^9 operations of a pair, as open_clip profiles them, two each
    for name, giga in known.items():
        assert flops.flops_per_pair(MODELS[name]) == pytest.approx(giga * 1e9, rel=0.05)


def test_a_cpus_peak_is_measured_and_what_has_no_formula_has_no_mfu() -> None:
    peak = flops.peak_of(CPU, "float32")
    assert 1e8 < peak.flops_per_second < 1e14
    assert "measured" in peak.source
    assert flops.flops_per_pair(replace(small_clip(), objective="caption")) is None


def test_tensorboard_shows_what_the_events_say(tmp_path: Path) -> None:
    events = []
    train(small_run(tmp_path, num_samples=16 * 3, track=("tensorboard",)), events.append, CPU)
    (file,) = (tmp_path / "train" / "tensorboard").rglob("events.out.tfevents.*")
    content = file.read_bytes()
    for name in ("loss", "lr", "grad_norm", "pairs_per_second", "mfu", "memory_bytes", "eta_seconds"):
        assert content.count(f"train/{name}".encode()) == 3
        assert name in events[0]
    assert all(0 < event["mfu"] < 1.5 for event in events)


def test_a_tracker_that_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="--track wandb needs the package wandb: pip install wandb"):
        train(small_run(tmp_path, track=("wandb",)), print, CPU)
