"""Weights that are cut over the ranks: nothing changes but where they lie."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model import checkpoint, objectives, sharding
from model.config import OptimizerConfig, TrainConfig, VitConfig
from model.gradients import FlatGradients
from model.ranks import here
from tests.model.ranks_helper import run_ranks
from tests.model.small import small_clip, small_run
from tests.model.test_train_options import CPU, curve, run, weights


def both_towers() -> dict[str, object]:
    vision = VitConfig(image_resolution=16, patch_size=8, width=16, layers=2, heads=2)
    return {"model": replace(small_clip(), vision=vision), "num_workers": 2}


def rank_runs(rank: int, root: str, plain: str) -> list[list[float]]:
    """Whole weights, cut ones, and a run that begins with cut weights and goes on with whole ones."""
    changes = both_towers()
    curves = [curve(run(Path(plain), **changes)), curve(run(Path(root), **changes, shard_weights=True))]
    if rank == 0:
        (folder,) = (Path(root) / "train" / "checkpoints").iterdir()
        wanted = {name: tensor.clone() for name, tensor in weights(Path(root)).items()}
        assert all(torch.allclose(wanted[name], tensor, atol=1e-5) for name, tensor in weights(Path(plain)).items())
        (Path(root) / "model" / checkpoint.NAME).unlink()
        (folder / "step-00000012" / checkpoint.NAME).unlink()
    torch.distributed.barrier()
    curves.append(curve(run(Path(root), **changes)))
    return curves


@pytest.mark.slow
def test_a_run_with_cut_weights_has_the_curve_of_one_with_whole_weights(tmp_path: Path) -> None:
    small_run(tmp_path / "a")
    small_run(tmp_path / "b")
    plain, cut, mixed = run_ranks(2, tmp_path / "ranks", rank_runs, str(tmp_path / "a"), str(tmp_path / "b"))[0]
    assert cut == pytest.approx(plain, rel=1e-5)
    assert mixed == pytest.approx(plain[-8:], rel=1e-5)


def rank_state(rank: int) -> tuple[bool, bool, int, int]:
    """Whether whole tensors are those before, whether they are again when cut and made whole, and what a rank holds."""
    torch.manual_seed(0)
    model = objectives.build(small_clip())  # a ResNet
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sharding.shard(model, here(CPU))
    own = model.state_dict()
    after = sharding.whole(own)
    again = sharding.whole(sharding.cut(after, own))
    held = sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in model.parameters())  # type: ignore[attr-defined]
    FlatGradients(model, CPU).zero()
    same = [all(torch.equal(tensor, before[name]) for name, tensor in tensors.items()) for tensors in (after, again)]
    return same[0], same[1], held, sum(p.numel() for p in model.parameters())


@pytest.mark.slow
def test_cut_tensors_are_whole_again_bit_for_bit_and_a_rank_holds_less(tmp_path: Path) -> None:
    for whole, again, held, total in run_ranks(2, tmp_path, rank_state):
        assert whole
        assert again
        assert held < 0.85 * total


def test_options_that_do_not_go_together_are_refused() -> None:
    half = OptimizerConfig(moments="bfloat16")
    with pytest.raises(ValueError, match="shard_weights needs moments and text_weights float32, found bfloat16 and float32"):
        TrainConfig(shard_weights=True, optimizer=half)
