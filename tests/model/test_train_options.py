"""The options of the trainer that change how a step is worked out: losses, micro-batches, half precision, a vocabulary."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model import checkpoint
from model.config import ClipConfig, DataConfig, OptimizerConfig, TrainConfig, VitConfig
from model.events import Event
from model.objectives import SigmoidClip
from model.tokenizer import Tokenizer
from model.train import train
from tests.model.ranks_helper import run_ranks
from tests.model.small import make_pairs, small_clip, small_run, write_shards

CPU = torch.device("cpu")
HALF: dict[str, object] = {
    "loss": "tiled",
    "micro_batch": 6,
    "precision": "bfloat16",
    "optimizer": OptimizerConfig(learning_rate=1e-2, num_warmup_steps=3, moments="bfloat16", text_weights="bfloat16"),
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def without_batch_norm() -> ClipConfig:
    """A model whose features do not depend on their batch."""
    return replace(small_clip(), vision=VitConfig(image_resolution=16, patch_size=8, width=16, layers=1, heads=2))


def run(root: Path, **changes: object) -> list[Event]:
    """Train to the end and return what was reported."""
    reported: list[Event] = []
    train(small_run(root, **changes), reported.append, CPU)
    return reported


def weights(root: Path) -> dict[str, Tensor]:
    """The tensors as they were saved."""
    contents, _ = checkpoint.load_folder(str(root / "model"))
    return checkpoint.unpack(contents["model.safetensors"], "model.safetensors")


def curve(events: list[Event]) -> list[float]:
    return [float(event[name]) for event in events for name in ("loss", "grad_norm")]


def rank_run(rank: int, root: str) -> list[float]:
    """One rank of a run by tiles and micro-batches; only rank 0 is told."""
    changes = {"model": without_batch_norm(), "num_samples": 16 * 3, "loss": "tiled", "micro_batch": 3}
    return curve(run(Path(root), **changes))


def test_tiles_micro_batches_and_ranks_change_nothing_but_rounding(tmp_path: Path) -> None:
    model, short = without_batch_norm(), 16 * 3
    wanted = curve(run(tmp_path / "a", model=model, num_samples=short))
    assert curve(run(tmp_path / "b", model=model, num_samples=short, loss="tiled")) == pytest.approx(wanted, rel=1e-4)
    assert curve(run(tmp_path / "c", model=model, num_samples=short, micro_batch=5)) == pytest.approx(wanted, rel=1e-4)
    small_run(tmp_path / "d")
    found = run_ranks(2, tmp_path / "ranks", rank_run, str(tmp_path / "d"))[0]
    assert found == pytest.approx(wanted, rel=1e-4)


def resumed_run(rank: int, root: str) -> list[float]:
    """One rank of a run that a single process began."""
    return curve(run(Path(root), model=without_batch_norm(), num_workers=2))


@pytest.mark.slow
def test_a_run_that_goes_on_with_more_ranks_sees_the_same_batches_and_learns_the_same(tmp_path: Path) -> None:
    pairs = make_pairs(100, seed=4)
    pairs[7] = (b"broken", "a red square")
    for name in ("whole", "moved"):
        write_shards(tmp_path / name / "6_shards", [pairs[start : start + 20] for start in range(0, 100, 20)])
    wanted = curve(run(tmp_path / "whole", model=without_batch_norm()))
    run(tmp_path / "moved", model=without_batch_norm())
    (folder,) = (tmp_path / "moved" / "train" / "checkpoints").iterdir()
    (tmp_path / "moved" / "model" / checkpoint.NAME).unlink()
    (folder / "step-00000012" / checkpoint.NAME).unlink()  # as if the only process was killed while it wrote this
    found = run_ranks(2, tmp_path / "ranks", resumed_run, str(tmp_path / "moved"))[0]
    assert len(found) == 2 * 4
    assert found == pytest.approx(wanted[-8:], rel=1e-4)
    one, other = (json.loads((tmp_path / name / "model" / checkpoint.NAME).read_text()) for name in ("whole", "moved"))
    assert one["bad"] == other["bad"]
    assert one["bad"]["decode"] > 0


def test_a_run_with_every_half_precision_option_resumes_to_the_same_bits(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", **HALF)
    assert whole[-1]["loss"] < whole[0]["loss"]
    run(tmp_path / "halves", **HALF)
    (folder,) = (tmp_path / "halves" / "train" / "checkpoints").iterdir()
    (tmp_path / "halves" / "model" / checkpoint.NAME).unlink()
    (folder / "step-00000012" / checkpoint.NAME).unlink()  # as if killed while the last checkpoint was being written
    assert [event["step"] for event in run(tmp_path / "halves", **HALF)] == [9, 10, 11, 12]
    wanted, found = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert wanted["text_projection"].dtype == torch.bfloat16
    assert wanted["visual.conv1.weight"].dtype == torch.float32
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    model, _, _ = checkpoint.load_model(str(tmp_path / "whole" / "model"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_sigmoid_loss_trains_a_model_with_a_bias(tmp_path: Path) -> None:
    reported = run(tmp_path, model=replace(small_clip(), objective="sigmoid"), num_samples=16 * 40, checkpoint_every_steps=40)
    assert sum(event["loss"] for event in reported[-5:]) < 0.7 * sum(event["loss"] for event in reported[:5])
    model, _, config = checkpoint.load_model(str(tmp_path / "model"))
    assert config.objective == "sigmoid"
    assert isinstance(model, SigmoidClip)
    assert float(model.logit_bias.detach()) != -10.0


def test_a_vocabulary_that_is_named_is_used(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["a red square on green " * 3], 540, 16)
    (tmp_path / "own.json").write_bytes(tokenizer.to_bytes())
    config = small_run(tmp_path, num_samples=16)
    data = replace(config.data, vocabulary=str(tmp_path / "own.json"))
    run(tmp_path, num_samples=16, data=data)
    assert checkpoint.load_model(str(tmp_path / "model"))[1].to_bytes() == tokenizer.to_bytes()
    (tmp_path / "own.json").write_bytes(Tokenizer.train(["a"], 540, 12).to_bytes())
    with pytest.raises(ValueError, match="expected a context length of 16, found 12"):
        run(tmp_path, num_samples=16, data=data, seed=1)


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="text_weights bfloat16 needs precision bfloat16, found float32"):
        TrainConfig(optimizer=OptimizerConfig(text_weights="bfloat16"))
    with pytest.raises(ValueError, match="micro_batch must not be negative, found -1"):
        TrainConfig(micro_batch=-1)
    assert DataConfig().vocabulary == ""
