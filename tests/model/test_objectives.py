"""Every objective against a computation written out in float64, on 1, 2 and 4 processes; and trained by the same loop."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import caption, checkpoint, objectives, ranks, report
from model.bag_of_words import BagOfWords, BagOfWordsClip
from model.caption import Captioner
from model.clip import CLIP
from model.config import ClipConfig, Objective, OptimizerConfig, TextConfig, VitConfig
from model.gradients import FlatGradients
from model.recipes import MODELS
from model.transformer import LayerNorm
from tests.model.ranks_helper import run_ranks
from tests.model.small import small_clip
from tests.model.test_train import events, run

OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
PREDICTIVE: tuple[Objective, ...] = ("bag_of_words", "caption")
PAIRS, SOT, EOT = 8, 558, 559


def config_of(objective: Objective) -> ClipConfig:
    """Towers without BatchNorm, whose statistics depend on the rank."""
    vision = VitConfig(image_resolution=8, patch_size=4, width=8, layers=1, heads=2)
    text = TextConfig(context_length=9, vocab_size=EOT + 1, width=16, layers=2, heads=2)
    return ClipConfig(objective=objective, embed_dim=6, vision=vision, text=text)


def make(objective: Objective) -> objectives.Model:
    """A model in float64, its norms too, with gains and biases that are not the neutral ones."""
    torch.manual_seed(1)
    model = objectives.build(config_of(objective)).double()
    for module in model.modules():
        if isinstance(module, LayerNorm):
            module.__class__ = nn.LayerNorm  # pyright: ignore[reportAttributeAccessIssue]
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if parameter.ndim and "logit" not in name:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


def inputs() -> tuple[Tensor, Tensor]:
    """Pictures and texts of 0 to 7 words, some twice in a text; what stands behind EOT is rubbish."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(PAIRS, 3, 8, 8, generator=generator, dtype=torch.float64)
    tokens = torch.randint(0, 12, (PAIRS, 9), generator=generator)
    tokens[:, 0] = SOT
    for row, length in enumerate((0, 3, 7, 1, 5, 7, 2, 4)):
        tokens[row, length + 1] = EOT
    return images, tokens


def words_of(row: Tensor) -> list[int]:
    ids = row.tolist()
    return ids[1 : ids.index(EOT)]


def caption_likelihood(model: Captioner, image_E: Tensor, row: Tensor) -> Tensor:
    """The log-probability of a text, a token at a time, each from a sequence that ends before it."""
    words = words_of(row)
    total = image_E.new_zeros(())
    for place, target in enumerate([*words, EOT]):
        sequence = [model.image_projection(image_E), *(model.token_embedding.weight[word] for word in words[:place])]
        x_BLD = (torch.stack(sequence) + model.positional_embedding[: place + 1]).unsqueeze(0)
        logits_V = model.ln_final(model.transformer(x_BLD))[0, -1] @ model.token_embedding.weight.T
        total = total + logits_V[target] - torch.logsumexp(logits_V, 0)
    return total


def bag_likelihood(model: BagOfWords, image_E: Tensor, row: Tensor) -> list[Tensor]:
    """The log-probability of each different word of a text."""
    logits_V = model.words.weight @ image_E + model.words.bias
    return [logits_V[word] - torch.logsumexp(logits_V, 0) for word in sorted(set(words_of(row)))]


def oracle(model: objectives.Model, images: Tensor, tokens: Tensor) -> Tensor:
    """The loss, in loops."""
    image_BE = model.encode_image(images)
    if isinstance(model, Captioner):
        total = torch.stack([caption_likelihood(model, *pair) for pair in zip(image_BE, tokens, strict=True)]).sum()
        return -total / sum(len(words_of(row)) + 1 for row in tokens)
    if isinstance(model, BagOfWords):
        found = [bag_likelihood(model, *pair) for pair in zip(image_BE, tokens, strict=True)]
        return -torch.stack([torch.stack(logs).mean() if logs else image_BE.new_zeros(()) for logs in found]).mean()
    if isinstance(model, BagOfWordsClip):
        means = []
        for row in tokens:
            words = sorted(set(words_of(row)))
            embedded = [model.token_embedding.weight[word] for word in words] or [model.token_embedding.weight[0] * 0]
            means.append(torch.stack(embedded).mean(0))
        text_BE = model.ln_final(torch.stack(means)) @ model.text_projection
    else:
        text_BE = torch.cat([model.encode_text(row[: row.tolist().index(EOT) + 1].unsqueeze(0)) for row in tokens])
    logits = model.logit_scale.exp() * F.normalize(image_BE, dim=-1) @ F.normalize(text_BE, dim=-1).T
    total = logits.new_zeros(())
    for i in range(PAIRS):
        if isinstance(model, objectives.SigmoidClip):
            signs = [1 if i == j else -1 for j in range(PAIRS)]
            total = total - sum(torch.log(torch.sigmoid(s * (logits[i, j] + model.logit_bias))) for j, s in enumerate(signs))
        else:
            total = total + (torch.logsumexp(logits[i], 0) + torch.logsumexp(logits[:, i], 0)) / 2 - logits[i, i]
    return total / PAIRS


def result(model: objectives.Model, loss: Tensor, me: ranks.Ranks, backward: Callable[[], None]) -> dict[str, Tensor]:
    """The loss of the global batch and its gradients by name, reduced as the trainer reduces them."""
    grads = FlatGradients(model, me.device)
    backward()
    grads.average(me)
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {"loss": ranks.mean(loss.detach().clone(), me), **found}


def one_rank(rank: int, world_size: int) -> list[dict[str, Tensor]]:
    """A rank's part of every objective."""
    me = ranks.here(torch.device("cpu"))
    assert (me.rank, me.world_size) == (rank, world_size)
    share = slice(rank * PAIRS // world_size, (rank + 1) * PAIRS // world_size)
    images, tokens = inputs()
    results = []
    for groups in (1, 2):
        for objective in OBJECTIVES:
            model = make(objective)
            loss = objectives.loss(model, objectives.encode(model, images[share], tokens[share], groups), tokens[share])
            results.append(result(model, loss, me, loss.backward))
    return results


def wanted() -> list[dict[str, Tensor]]:
    results = []
    for objective in OBJECTIVES:
        model = make(objective)
        loss = oracle(model, *inputs())
        results.append(result(model, loss, ranks.here(torch.device("cpu")), loss.backward))
    return results * 2


def compare(found: list[dict[str, Tensor]], expected: list[dict[str, Tensor]]) -> None:
    for own, other in zip(found, expected, strict=True):
        assert own.keys() == other.keys()
        for name, tensor in own.items():
            torch.testing.assert_close(tensor, other[name], rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")


def test_each_objective_without_a_group_equals_the_computation_written_out() -> None:
    compare(one_rank(0, 1), wanted())


@pytest.mark.parametrize("world_size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_each_objective_on_any_number_of_processes_equals_the_computation_written_out(world_size: int, tmp_path: Path) -> None:
    expected = wanted()
    for results in run_ranks(world_size, tmp_path, one_rank, world_size):
        compare(results, expected)


def test_logits_in_pieces_give_the_same_loss_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = one_rank(0, 1)[OBJECTIVES.index("caption")]
    monkeypatch.setattr(caption, "TOKENS_AT_ONCE", 3)
    compare([one_rank(0, 1)[OBJECTIVES.index("caption")]], [expected])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_towers_in_bfloat16_give_a_float32_loss_near_the_exact_one(objective: Objective) -> None:
    images, tokens = inputs()
    torch.manual_seed(1)
    model = objectives.build(config_of(objective))
    exact = objectives.loss(model, objectives.encode(model, images.float(), tokens), tokens)
    with torch.autocast("cpu", torch.bfloat16):
        encoded = objectives.encode(model, images.float(), tokens)
    found = objectives.loss(model, encoded, tokens)
    found.backward()
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(exact.item(), rel=0.02)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("at_once", [1, 40, 10_000])
@torch.no_grad()
def test_likelihoods_of_all_texts_for_all_pictures_are_those_of_each_pair(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(caption, "TOKENS_AT_ONCE", at_once)
    images, tokens = inputs()
    for objective in PREDICTIVE:
        model = make(objective)
        assert isinstance(model, objectives.Predictor)
        image_BE = model.encode_image(images[:3])
        found, counts = model.log_likelihood(image_BE, tokens)
        if isinstance(model, Captioner):
            expected = [[caption_likelihood(model, image, row) for row in tokens] for image in image_BE]
            assert counts.tolist() == [len(words_of(row)) + 1 for row in tokens]
        else:
            expected = [[sum(bag_likelihood(model, image, row), image.new_zeros(())) for row in tokens] for image in image_BE]
            assert counts.tolist() == [len(set(words_of(row))) for row in tokens]
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", [BagOfWords, BagOfWordsClip])
def test_a_bag_knows_neither_order_nor_repetition(kind: type[nn.Module]) -> None:
    model = make("bag_of_words" if kind is BagOfWords else "contrastive_bag_of_words")
    tokens = torch.tensor([[SOT, 3, 0, 7, EOT, 0, 0], [SOT, 7, 3, 0, 3, 7, EOT], [SOT, 3, 7, EOT, 0, 0, 0]])
    if isinstance(model, BagOfWordsClip):
        same, moved, other = model.encode_text(tokens)
    else:
        assert isinstance(model, BagOfWords)
        same, moved, other = model.log_likelihood(model.encode_image(inputs()[0][:1]), tokens)[0][0]
    torch.testing.assert_close(same, moved, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(same, other)


def test_the_language_model_has_the_papers_63_million_parameters() -> None:
    with torch.device("meta"):
        model = Captioner(replace(MODELS["RN50"], objective="caption"))
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    language = parts["transformer"] + parts["token_embedding"] + parts["ln_final"] + model.positional_embedding.numel()
    assert language == 63_165_952
    assert parts["visual"] == 38_316_896


def test_one_seed_gives_every_objective_the_same_image_tower() -> None:
    towers = []
    for objective in OBJECTIVES:
        torch.manual_seed(4)
        towers.append(objectives.build(replace(small_clip(), objective=objective)).visual.state_dict())
    assert all(torch.equal(tensor, towers[0][name]) for tower in towers for name, tensor in tower.items())


def test_a_sigmoids_extra_values_start_as_its_paper_says_and_its_scale_is_free() -> None:
    model, softmax = make("sigmoid"), make("contrastive")
    assert objectives.scalars(model) == pytest.approx({"logit_scale": 10.0, "logit_bias": -10.0})
    assert isinstance(model, CLIP)
    assert isinstance(softmax, CLIP)
    for each in (model, softmax):
        each.logit_scale.data.fill_(math.log(200))
        objectives.after_step(each)
    assert objectives.scalars(model)["logit_scale"] == pytest.approx(200)
    assert objectives.scalars(softmax) == pytest.approx({"logit_scale": 100})


@pytest.mark.parametrize("objective", OBJECTIVES[1:])
def test_the_same_loop_trains_each_objective_and_resumes_to_the_same_bits(objective: Objective, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    changes = {"model": replace(small_clip(), objective=objective), "text_groups": 2}
    changes |= {"num_samples": 16 * 24, "optimizer": OptimizerConfig(learning_rate=3e-3, num_warmup_steps=3)}
    reported = run(tmp_path, **changes)
    assert sum(event["loss"] for event in reported[-4:]) < 0.95 * sum(event["loss"] for event in reported[:4])
    assert ("logit_scale" in reported[0]) == (objective not in PREDICTIVE)
    model, _, config = checkpoint.load_any(str(tmp_path / "model"))
    assert type(model) is objectives.MODELS[objective]
    assert config.objective == objective
    curve = events(tmp_path)
    (tmp_path / "model" / checkpoint.NAME).unlink()
    (newest,) = tmp_path.glob("train/checkpoints/*/step-00000024")
    (newest / checkpoint.NAME).unlink()  # as if killed while it was being written
    assert [event["step"] for event in run(tmp_path, **changes)] == [21, 22, 23, 24]
    again = checkpoint.load_any(str(tmp_path / "model"))[0].state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())
    assert events(tmp_path) == curve
    training = report.collect(str(tmp_path)).training
    assert training is not None
    assert training.curves["loss"] == [event["loss"] for event in curve]


@pytest.mark.parametrize("objective", PREDICTIVE)
def test_a_model_without_text_features_is_refused_where_they_are_needed(objective: Objective, tmp_path: Path) -> None:
    run(tmp_path, model=replace(small_clip(), objective=objective), num_samples=16)
    with pytest.raises(ValueError, match=rf"expected a model with .* a text tower, found one of the objective {objective}"):
        checkpoint.load_model(str(tmp_path / "model"))


def test_a_models_config_names_its_objective() -> None:
    for objective in OBJECTIVES:
        config = replace(small_clip(), objective=objective)
        assert ClipConfig.from_json(config.to_json()) == config
    older = {name: value for name, value in json.loads(small_clip().to_json()).items() if name != "objective"}
    assert ClipConfig.from_json(json.dumps(older)) == small_clip()
    with pytest.raises(ValueError, match=r"expected an objective of contrastive, sigmoid, .*, found 'guess'"):
        ClipConfig.from_json(json.dumps({**older, "objective": "guess"}))
