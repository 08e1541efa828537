"""Zero-shot classification by models that predict texts, and by a sigmoid's, against loops over pictures and prompts."""

import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from jobs import evaluate as job
from model import objectives
from model.caption import Captioner
from model.checkpoint import save_model
from model.config import IMAGE_MEAN, IMAGE_STD, ClipConfig, Objective, TextConfig, VitConfig
from model.evaluate import datasets, layouts, likelihood, zero_shot
from model.evaluate.config import EvaluateConfig, Likelihood
from model.evaluate.datasets import EvalSet
from model.evaluate.encoders import Encoder
from model.evaluate.results import Predictions
from model.evaluate.workspace import Workspace
from model.tokenizer import Tokenizer
from tests.model.evaluation_set import COLORS, TEMPLATES, write_set

RESOLUTION = 8
RULES: tuple[Likelihood, ...] = get_args(Likelihood)
CLASSES = [*list(COLORS)[:-1], "pink pink rose"]  # a name of three words, two of them the same
PROMPTS = [template.replace("{c}", name) for name in CLASSES for template in TEMPLATES]


@pytest.fixture(scope="module")
def eval_set(tmp_path_factory: pytest.TempPathFactory) -> EvalSet:
    folder = tmp_path_factory.mktemp("set")
    write_set(folder, classes=list(COLORS), num_pictures=7)
    (folder / "classnames.txt").write_text("\n".join(CLASSES))
    return layouts.open_set(str(folder))


def predict(
    model: objectives.Model, tokenizer: Tokenizer, eval_set: EvalSet, batch_size: int, rule: Likelihood = "sum"
) -> Predictions:
    """Through kept embeddings, as the job does."""
    with tempfile.TemporaryDirectory() as folder:
        config = EvaluateConfig(root=folder, batch_size=batch_size, num_examples=0, likelihood=rule)
        space = Workspace(config, "m" * 64, encoder=Encoder(model, tokenizer, RESOLUTION))
        table = zero_shot.run(space, eval_set, "").rows
    assert table is not None
    ranked, shares = (np.asarray(table[name].to_pylist()) for name in ("top5", "top5_scores"))
    labels = table["label"].to_numpy()
    return Predictions(keys=table["key"].to_pylist(), labels=labels, ranked=ranked, probabilities=shares, pictures={})


def made(objective: Objective) -> tuple[objectives.Model, Tokenizer, ClipConfig]:
    """A model whose answers depend on the picture, and its tokenizer."""
    tokenizer = Tokenizer.train(PROMPTS, vocab_size=600, context_length=12)
    vision = VitConfig(image_resolution=RESOLUTION, patch_size=4, width=16, layers=1, heads=2)
    text = TextConfig(context_length=12, vocab_size=tokenizer.vocab_size, width=16, layers=2, heads=2)
    config = ClipConfig(objective=objective, embed_dim=16, vision=vision, text=text)
    torch.manual_seed(3)
    model = objectives.build(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape) * (parameter.ndim > 0)
    return model, tokenizer, config


def features(model: objectives.Model, eval_set: EvalSet) -> list[Tensor]:
    """The features of each picture of the set, and last those of a picture of the mean colour."""
    pictures = []
    for example in (example for unit in eval_set.split("test").units for example in layouts.examples(eval_set, unit)):
        image = datasets.decode(example.picture)
        assert not isinstance(image, str)
        pictures.append(datasets.preprocess(image, RESOLUTION) / 255.0)
    pictures.append(np.broadcast_to(IMAGE_MEAN, (RESOLUTION, RESOLUTION, 3)))
    pixels = (np.stack(pictures) - IMAGE_MEAN) / IMAGE_STD
    return [model.encode_image(torch.tensor(image).float().permute(2, 0, 1).unsqueeze(0))[0] for image in pixels]


def prompt_score(model: objectives.Predictor, tokens_L: Tensor, image_E: Tensor) -> tuple[float, int]:
    """The log-likelihood of one prompt for one picture, and how many factors it has."""
    ids = tokens_L.tolist()
    words = ids[1 : ids.index(max(ids))]
    if isinstance(model, Captioner):
        row_1L = tokens_L[: len(words) + 2].unsqueeze(0)
        return model.caption_log_likelihood(image_E.unsqueeze(0), row_1L).item(), len(words) + 1
    logs_V = (model.words(image_E)).log_softmax(-1)
    return sum(logs_V[word].item() for word in set(words)), len(set(words))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("objective", ["bag_of_words", "caption"])
@torch.no_grad()
def test_predictions_equal_loops_over_pictures_and_prompts(objective: Objective, rule: Likelihood, eval_set: EvalSet) -> None:
    model, tokenizer, _ = made(objective)
    assert isinstance(model, objectives.Predictor)
    *pictures, grey = features(model, eval_set)
    tokens = tokenizer(PROMPTS)
    expected = np.empty((len(pictures), len(CLASSES)))
    for row, image in enumerate(pictures):
        scores = []
        for prompt in tokens:
            score, count = prompt_score(model, prompt, image)
            scores.append({"sum": score, "per_token": score / count, "lift": score - prompt_score(model, prompt, grey)[0]}[rule])
        for place in range(len(CLASSES)):
            own = scores[place * len(TEMPLATES) : (place + 1) * len(TEMPLATES)]
            expected[row, place] = math.log(sum(math.exp(score) for score in own) / len(own))
    shares = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    for batch_size in (1, 3, 100):
        found = predict(model, tokenizer, eval_set, batch_size, rule)
        np.testing.assert_allclose(found.probabilities, -np.sort(-shares, axis=1)[:, :5], rtol=2e-4)
        np.testing.assert_allclose(np.take_along_axis(shares, found.ranked, axis=1), found.probabilities, rtol=2e-4)


@torch.no_grad()
def test_a_grey_picture_lifts_nothing(eval_set: EvalSet) -> None:
    for objective in ("bag_of_words", "caption"):
        model, tokenizer, _ = made(objective)
        assert isinstance(model, objectives.Predictor)
        tokens = tokenizer(PROMPTS)
        grey = likelihood.grey_logs(model, tokens, RESOLUTION)
        logs, counts = model.log_likelihood(features(model, eval_set)[-1].unsqueeze(0), tokens)
        lifted = likelihood.prompt_scores(logs, counts, grey, "lift")
        assert lifted.abs().max() < 1e-4
        assert logs.std() > 0.1


@torch.no_grad()
def test_a_sigmoid_model_says_yes_or_no_to_each_class_by_itself(eval_set: EvalSet) -> None:
    model, tokenizer, _ = made("sigmoid")
    assert isinstance(model, objectives.SigmoidClip)
    found = predict(model, tokenizer, eval_set, 4)
    classes_CE = torch.from_numpy(zero_shot.class_features(Encoder(model, tokenizer, RESOLUTION), eval_set, 4))
    image_BE = torch.nn.functional.normalize(torch.stack(features(model, eval_set)[:-1]), dim=-1)
    logits_BC = 10 * image_BE @ classes_CE.T - 10
    expected = 1 / (1 + np.exp(-logits_BC.numpy()))
    np.testing.assert_allclose(found.probabilities, -np.sort(-expected, axis=1)[:, :5], rtol=1e-4)


def test_the_job_scores_a_model_by_its_objective(eval_set: EvalSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer, config = made("caption")
    save_model(str(tmp_path / "model"), model, tokenizer, config, {"step": 1})
    settings = EvaluateConfig(root=str(tmp_path), eval_set=eval_set.source, name="set")
    job.main(settings)
    summary = json.loads((tmp_path / "evaluation/set.json").read_text())
    assert (summary["objective"], summary["scoring"], summary["logit_scale"]) == ("caption", "likelihood (sum)", None)
    job.main(settings)
    assert "already done: set, 7 pictures" in capsys.readouterr().out
    job.main(replace(settings, likelihood="lift"))
    assert "already done" not in capsys.readouterr().out
    assert json.loads((tmp_path / "evaluation/set.json").read_text())["scoring"] == "likelihood (lift)"
