"""Probes as tasks of an evaluation: from a set on disk to its results, against scikit-learn where it is installed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from model.evaluate import results
from model.evaluate.config import EvaluateConfig
from model.evaluate.datasets import BadSet
from model.evaluate.encoders import Encoder
from model.evaluate.kinds import kind
from model.evaluate.probe import STRENGTHS
from model.evaluate.workspace import Workspace
from tests.model.evaluation_set import COLORS, ColorEncoder, write_set
from tests.model.peers import import_open_clip, random_clip, small_vit


def space_of(folder: Path, **pictures: int) -> tuple[Workspace, Any]:
    """A set with these splits, and a workspace."""
    for seed, (split, count) in enumerate(pictures.items()):
        write_set(folder / "set", classes=list(COLORS), num_pictures=count, seed=seed)
        if split != "test":
            (folder / "set" / "test").rename(folder / "set" / split)
    space = Workspace(EvaluateConfig(root=str(folder / "root"), batch_size=16), "m" * 64, encoder=ColorEncoder())
    return space, space.another(str(folder / "set"))


@pytest.mark.parametrize("validation", [True, False])
def test_a_probe_of_coloured_squares_learns_the_colours(tmp_path: Path, validation: bool) -> None:
    space, eval_set = space_of(tmp_path, train=120, **({"val": 36} if validation else {}), test=48)
    made, argument = kind("linear_probe")
    result = made.run(space, eval_set, argument)
    assert next(iter(result.values)) == "accuracy"
    assert 0.75 <= result.values["accuracy"] <= 0.9  # a fifth of the labels is wrong
    assert result.num_pictures == 48
    assert result.facts["num_train"] == 120
    assert result.facts["strength"] in STRENGTHS
    assert result.rows is not None
    assert result.rows.num_rows == 48
    wanted = results.identity(space.model, eval_set, "linear_probe", made.needs(space, eval_set, argument))
    summary = results.write(space.config, "linear_probe", result, wanted)
    json.dumps(summary)
    assert results.finished(space.config, eval_set.name, "linear_probe", wanted) is not None


def test_few_shots_and_the_effective_examples(tmp_path: Path) -> None:
    space, eval_set = space_of(tmp_path, train=120, val=36, test=48)
    made, argument = kind("few_shot:1")
    result = made.run(space, eval_set, argument)
    assert list(result.values) == ["16_shot", "1_shot", "2_shot", "4_shot", "8_shot", "full", "zero_shot"]
    assert len(result.facts["shots"]) == 5
    assert result.values["1_shot"] < result.values["16_shot"]
    assert result.facts["effective_examples"] is None or result.facts["effective_examples"] > 0


def test_what_can_not_be_probed_is_told(tmp_path: Path) -> None:
    space, eval_set = space_of(tmp_path, test=24)
    for task in ("linear_probe", "few_shot"):
        made, argument = kind(task)
        with pytest.raises(BadSet, match="expected a split 'train', found test"):
            made.run(space, eval_set, argument)
    for task, says in (("linear_probe:3", "no argument"), ("few_shot:no", "NUMBER_OF_SEEDS")):
        made, argument = kind(task)
        with pytest.raises(BadSet, match=says):
            made.run(*space_of(tmp_path / task.replace(":", "-"), train=48, test=24), argument)


def open_clips_features(model: Any, pictures: np.ndarray) -> np.ndarray:
    """What open_clip's own tower and preprocessing give for the same weights, before the projection.  -> [B, D]"""
    config, open_clip = small_vit(), import_open_clip()
    vision = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
    text = {"context_length": 16, "vocab_size": 520, "width": 48, "layers": 2, "heads": 3}
    peer = open_clip.CLIP(embed_dim=config.embed_dim, vision_cfg=vision, text_cfg=text, quick_gelu=True)
    peer.load_state_dict(model.state_dict(), strict=False)
    peer.visual.proj = None
    transform = open_clip.image_transform(32, is_train=False)
    with torch.inference_mode():
        return peer.eval().visual(torch.stack([transform(Image.fromarray(picture)) for picture in pictures])).numpy()


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_probe_of_a_drawn_tower_is_open_clips_with_scikit_learn(tmp_path: Path) -> None:
    """The digits through a Vision Transformer of drawn weights: their features, their regression, none of our code."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    model = random_clip(small_vit(), 0)
    encoder = Encoder(model, lambda texts: torch.zeros(len(texts), 4, dtype=torch.long), 32)
    space = Workspace(EvaluateConfig(root=str(tmp_path), batch_size=64), "r" * 64, encoder=encoder)
    made, argument = kind("linear_probe")
    result = made.run(space, space.another("digits"), argument)
    assert result.facts["width"] == 32 != small_vit().embed_dim
    digits: Any = load_digits()
    features = open_clips_features(model, np.minimum(digits.images * 16, 255).astype(np.uint8)).astype(np.float64)
    test = np.arange(len(features)) % 4 == 0
    peer = LogisticRegression(C=1 / result.facts["strength"], solver="newton-cholesky", tol=1e-10, max_iter=1000)
    peer.fit(features[~test], digits.target[~test])
    theirs = float(peer.score(features[test], digits.target[test]))
    assert abs(theirs - result.values["accuracy"]) <= 0.001 + 1e-9
    assert result.values["accuracy"] > 0.5
