"""Recipes are the paper's; a run at another resolution starts from a finished model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model import checkpoint, resize
from model.clip import CLIP
from model.config import TrainConfig, VitConfig
from model.recipes import MODELS, RECIPES
from model.runs import run_name
from model.tokenizer import Tokenizer
from model.train import train
from tests.model.peers import import_open_clip, small_vit
from tests.model.small import small_run

TABLES = {  # tables 18 to 20: learning rate, beta2, epsilon, resolution, epochs of 400 million pairs
    "rn50": (5e-4, 0.999, 1e-8, 224, 32),
    "rn101": (5e-4, 0.999, 1e-8, 224, 32),
    "rn50x4": (5e-4, 0.999, 1e-8, 288, 32),
    "rn50x16": (4e-4, 0.999, 1e-8, 384, 32),
    "rn50x64": (3.6e-4, 0.999, 1e-8, 448, 32),
    "vit_b_32": (5e-4, 0.98, 1e-6, 224, 32),
    "vit_b_16": (5e-4, 0.98, 1e-6, 224, 32),
    "vit_l_14": (4e-4, 0.98, 1e-6, 224, 32),
    "vit_l_14_336": (2e-5, 0.98, 1e-6, 336, 1),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_recipe_has_the_papers_settings(name: str) -> None:
    run = RECIPES[name]()
    settings = run.optimizer
    epochs = run.num_samples / 400_000_000
    found = (settings.learning_rate, settings.beta2, settings.epsilon, run.model.vision.image_resolution, epochs)
    assert found == TABLES[name]
    assert (settings.beta1, settings.weight_decay, settings.num_warmup_steps, run.global_batch) == (0.9, 0.2, 2000, 32_768)
    assert run.model.quick_gelu


def test_every_model_of_the_paper_has_its_recipe() -> None:
    assert [RECIPES[name]().model for name in TABLES] == list(MODELS.values())
    assert set(RECIPES) - set(TABLES) == {"mini", "mini_vit"}
    assert all(recipe.__doc__ for recipe in RECIPES.values())


def test_resized_positions_keep_the_class_token_and_a_plane() -> None:
    side = torch.arange(7.0)
    plane = torch.stack([side[:, None].expand(7, 7), side[None].expand(7, 7)], -1).reshape(49, 2)
    positions = torch.cat([torch.tensor([[5.0, -5.0]]), plane])
    resized = resize.resize_positions(positions, 14 * 14)
    assert torch.equal(resized[0], positions[0])
    grid = resized[1:].reshape(14, 14, 2)
    torch.testing.assert_close(grid[6:8, 5, 0].diff(), torch.tensor([0.5]))  # a slope over twice as many cells is half
    torch.testing.assert_close(grid[..., 0], grid[..., 1].T)
    torch.testing.assert_close(grid.mean((0, 1)), torch.tensor([3.0, 3.0]))
    assert resize.resize_positions(positions, 49) is positions
    with pytest.raises(ValueError, match="square grids, found 49 cells to be resized to 50"):
        resize.resize_positions(positions, 50)


@pytest.mark.peers
@pytest.mark.parametrize("side", [3, 8, 24])
def test_resized_positions_are_open_clips(side: int) -> None:
    open_clip = import_open_clip()
    torch.manual_seed(0)
    positions = torch.randn(1 + 16, 12)
    visual = type("Visual", (), {"grid_size": (side, side)})
    tensors = {"visual.positional_embedding": positions.clone()}
    open_clip.model.resize_pos_embed(tensors, type("Model", (), {"visual": visual}))
    torch.testing.assert_close(resize.resize_positions(positions, side**2), tensors["visual.positional_embedding"])


def at(config: TrainConfig, side: int) -> TrainConfig:
    return replace(config, model=replace(config.model, vision=replace(config.model.vision, image_resolution=side)))


@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_a_run_at_a_higher_resolution_goes_on_from_a_finished_model(tower: str, tmp_path: Path) -> None:
    config = small_run(tmp_path / "first", num_samples=16 * 2, checkpoint_every_steps=2)
    if tower == "vit":
        vision = VitConfig(image_resolution=16, patch_size=8, width=16, layers=1, heads=2)
        config = replace(config, model=replace(config.model, vision=vision))
    train(config, lambda event: None, torch.device("cpu"))
    start = str(tmp_path / "first" / "model")
    still = replace(config.optimizer, learning_rate=1e-12)
    second = at(replace(config, root=str(tmp_path / "second"), shards=str(tmp_path / "first" / "6_shards"), optimizer=still), 32)
    second = replace(second, start_from=start, num_samples=16)
    train(second, lambda event: None, torch.device("cpu"))
    before, tokenizer, _ = checkpoint.load_model(start)
    after, same_tokenizer, found = checkpoint.load_model(str(tmp_path / "second" / "model"))
    assert found.vision.image_resolution == 32
    assert same_tokenizer.to_bytes() == tokenizer.to_bytes()
    wanted = resize.fit(before.state_dict(), after)
    for name, tensor in after.state_dict().items():
        if "running_" not in name and "num_batches" not in name:
            torch.testing.assert_close(tensor, wanted[name], rtol=0, atol=1e-6)


def test_a_run_from_another_model_is_another_run(tmp_path: Path) -> None:
    names = set()
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = small_vit()
        tokenizer = Tokenizer.train([], 514, config.text.context_length)
        config = replace(config, text=replace(config.text, vocab_size=516))
        checkpoint.save_model(str(tmp_path / f"{seed}"), CLIP(config), tokenizer, config, {"run": "x"})
        names.add(run_name(small_run(tmp_path / "run", start_from=str(tmp_path / f"{seed}"))))
    names.add(run_name(small_run(tmp_path / "run")))
    assert len(names) == 3
    with pytest.raises(ValueError, match="holds no finished model"):
        run_name(small_run(tmp_path / "run", start_from=str(tmp_path / "nothing")))


def test_a_start_that_differs_in_more_than_its_resolution_is_refused(tmp_path: Path) -> None:
    config = replace(small_vit(), text=replace(small_vit().text, vocab_size=516))
    tokenizer = Tokenizer.train([], 514, config.text.context_length)
    checkpoint.save_model(str(tmp_path / "model"), CLIP(config), tokenizer, config, {"run": "x"})
    deeper = replace(config, text=replace(config.text, layers=3))
    with pytest.raises(ValueError, match="differs in its resolution only"):
        resize.start_from(CLIP(deeper), deeper, str(tmp_path / "model"))
