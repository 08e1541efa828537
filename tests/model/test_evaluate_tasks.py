"""Metrics, retrieval, robustness and overlap against brute force, and through kept embeddings as the job runs them."""

import io
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.evaluate import metrics, overlap, retrieval, robustness
from model.evaluate.config import EvaluateConfig
from model.evaluate.datasets import BadSet, EvalSet
from model.evaluate.kinds import KINDS, kind
from model.evaluate.tasks import Result
from model.evaluate.workspace import Workspace
from tests.model.evaluation_set import COLORS, ColorEncoder, encode, write_set, write_tar

CLASSES = list(COLORS)


def run(folder: Path, task: str, root: Path, **settings: Any) -> Result:
    """A task on the set in a folder."""
    config = EvaluateConfig(root=str(root), sets=(str(folder),), batch_size=5, **settings)
    space = Workspace(config, "m" * 64, encoder=ColorEncoder())
    eval_set = space.another(str(folder))
    made, argument = kind(task)
    made.needs(space, eval_set, argument)
    return made.run(space, eval_set, argument)


def drawn(seed: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """Scores that tie now and then, and 0 or 1 for each picture."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 60))
    return rng, rng.integers(0, 9, count) / 8, rng.random(count) < rng.random()


@pytest.mark.parametrize("seed", range(20))
def test_11_point_average_precision_equals_its_definition(seed: int) -> None:
    _, scores, truths = drawn(seed)
    found = metrics.average_precision_11(truths, scores)
    if not truths.any():
        assert math.isnan(found)
        return
    curve = []  # recall and precision at each threshold
    for threshold in sorted(set(scores)):
        chosen = scores >= threshold
        hits = int((chosen & truths).sum())
        curve.append((Fraction(hits, int(truths.sum())), hits / int(chosen.sum())))
    best = [max(precision for recall, precision in curve if recall >= Fraction(step, 10)) for step in range(11)]
    assert found == pytest.approx(sum(best) / 11)


@pytest.mark.parametrize("seed", range(20))
def test_roc_auc_is_the_chance_that_a_pair_is_in_order(seed: int) -> None:
    _, scores, truths = drawn(seed)
    if truths.all() or not truths.any():
        with pytest.raises(BadSet, match="expected pictures of classes 0 and 1"):
            metrics.roc_auc(truths.astype(int), scores)
        return
    pairs = [(yes > no) + (yes == no) / 2 for yes in scores[truths] for no in scores[~truths]]
    assert metrics.roc_auc(truths.astype(int), scores) == pytest.approx(sum(pairs) / len(pairs))


@pytest.mark.peers
@pytest.mark.parametrize("seed", range(20))
def test_metrics_equal_scikit_learns(seed: int) -> None:
    from sklearn import metrics as peer

    rng, scores, truths = drawn(seed)
    if truths.any() and not truths.all():
        assert metrics.roc_auc(truths.astype(int), scores) == pytest.approx(float(peer.roc_auc_score(truths, scores)))
    num_classes = int(rng.integers(6, 12))
    labels = np.concatenate([np.arange(num_classes), rng.integers(0, num_classes, 50)])
    logits = rng.normal(size=(len(labels), num_classes))
    found = metrics.accuracy(labels, metrics.best(logits), num_classes)
    assert found.top1 == pytest.approx(float(peer.accuracy_score(labels, logits.argmax(1))))
    assert found.mean_per_class == pytest.approx(float(peer.balanced_accuracy_score(labels, logits.argmax(1))))
    assert found.top5 == pytest.approx(float(peer.top_k_accuracy_score(labels, logits, k=5)))


@pytest.mark.parametrize("seed", range(20))
def test_recalls_equal_sorting_every_answer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_images = int(rng.integers(1, 30))
    images = rng.integers(-2, 3, (num_images, 3)).astype(np.float32)  # many ties
    owners = np.sort(np.concatenate([np.arange(num_images), rng.integers(0, num_images, 20)]))
    texts = rng.integers(-2, 3, (len(owners), 3)).astype(np.float32)
    rows = np.arange(num_images)
    for queries, answers, mine, theirs in ((images, texts, rows, owners), (texts, images, owners, rows)):
        found = retrieval.first_places(queries, answers, mine, theirs)
        for query, owner, place in zip(queries, mine, found, strict=True):
            ranked = sorted(range(len(answers)), key=lambda answer, q=query: (-float(q @ answers[answer]), answer))
            assert place == [theirs[answer] == owner for answer in ranked].index(True)


def captions(folder: Path, num: int = 12) -> None:
    """One-colour pictures, each with one to three texts."""
    members = []
    for number in range(num):
        name = CLASSES[number % len(CLASSES)]
        rgb = np.broadcast_to(np.asarray(COLORS[name], np.uint8), (12, 12, 3))
        texts = [f"a {name} thing number {number}", f"{name} again", f"some {name} e"][: 1 + number % 3]
        members += [(f"{number}.png", encode(rgb, "png")), (f"{number}.txt", "\n".join(texts).encode())]
    write_tar(folder / "test/0.tar", members)
    (folder / "test/nshards.txt").write_text("1")
    (folder / "dataset_type.txt").write_text("retrieval\n")


def test_retrieval_runs_on_captions_with_and_without_a_prefix(tmp_path: Path) -> None:
    captions(tmp_path / "set")
    plain = run(tmp_path / "set", "retrieval", tmp_path)
    assert plain.num_pictures == 12
    assert plain.facts["num_texts"] == 24
    assert plain.values["text_r10"] >= plain.values["text_r5"] >= plain.values["text_r1"] >= 0.5
    other = run(tmp_path / "set", "retrieval:a photo of", tmp_path)
    assert other.values.keys() == plain.values.keys()
    config = EvaluateConfig(root=str(tmp_path))
    space = Workspace(config, "m" * 64, encoder=ColorEncoder())
    embedded = space.embedded(space.another(str(tmp_path / "set")), "test")
    behind = retrieval.prefixed(space, embedded, "a photo of")
    assert behind.captions[1][1] == f"a photo of {embedded.captions[1][1]}"
    np.testing.assert_array_equal(behind.caption_features[1], ColorEncoder().texts(behind.captions[1]))
    with pytest.raises(BadSet, match="expected classes with names, found a set of captions"):
        run(tmp_path / "set", "zero_shot", tmp_path)
    write_set(tmp_path / "classes", classes=CLASSES)
    with pytest.raises(BadSet, match="expected a text for every picture, found none for 24"):
        run(tmp_path / "classes", "retrieval", tmp_path)


def test_a_line_in_logits_is_found_and_what_is_above_it_told() -> None:
    accuracies = np.linspace(0.3, 0.9, 20)
    shifted = 1 / (1 + np.exp(-(-0.7 + 1.2 * robustness.logit(accuracies))))
    line = robustness.logit_fit(accuracies, shifted)
    assert line == pytest.approx((-0.7, 1.2))
    assert robustness.effective(0.6, 0.5, line) == pytest.approx(0.5 - 1 / (1 + math.exp(0.7 - 1.2 * math.log(1.5))))
    with pytest.raises(BadSet, match="at least 2 baselines"):
        robustness.logit_fit(np.asarray([0.5, 0.5]), np.asarray([0.1, 0.2]))


def test_a_shift_is_scored_over_the_shared_classes(tmp_path: Path) -> None:
    write_set(tmp_path / "one", classes=CLASSES, num_pictures=36)
    write_set(tmp_path / "two", classes=CLASSES[::-1], num_pictures=30, seed=3)
    (tmp_path / "two/classnames.txt").write_text("\n".join([*CLASSES[:1:-1], "GREEN", "teal or red"]))
    (tmp_path / "models.csv").write_text("name,accuracy,shifted\na,0.4,0.3\nb,0.8,0.6\nc,0.6,0.5\n")
    settings = {"baselines": str(tmp_path / "models.csv"), "reference": "b"}
    found = run(tmp_path / "one", f"shift:{tmp_path / 'two'}", tmp_path, **settings)
    assert found.facts["num_shared_classes"] == 5
    assert found.values["relative_robustness"] == pytest.approx(found.values["shifted"] - 0.6)
    assert found.num_pictures < 30
    assert found.plots[0].lines.keys() == {"fit over the baselines", "this model"}
    with pytest.raises(BadSet, match="expected a baseline 'z'"):
        run(tmp_path / "one", f"shift:{tmp_path / 'two'}", tmp_path, **{**settings, "reference": "z"})
    (tmp_path / "models.csv").write_text("name,accuracy\na,0.4\n")
    with pytest.raises(BadSet, match="columns name, accuracy, shifted"):
        run(tmp_path / "one", f"shift:{tmp_path / 'two'}", tmp_path, **settings)


@pytest.mark.parametrize("seed", range(20))
def test_binomial_tails_and_intervals_are_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    trials = int(rng.integers(1, 40))
    successes = int(rng.integers(0, trials + 1))
    chance = Fraction(int(rng.integers(1, 100)), 100)
    terms = [math.comb(trials, k) * chance**k * (1 - chance) ** (trials - k) for k in range(successes, trials + 1)]
    assert overlap.at_least(successes, trials, float(chance)) == pytest.approx(float(sum(terms)), rel=1e-9)
    low, high = overlap.clopper_pearson(successes, trials, 0.9)
    assert low <= successes / trials <= high
    if successes:
        assert overlap.at_least(successes, trials, low) == pytest.approx(0.05)
    if successes < trials:
        assert 1 - overlap.at_least(successes + 1, trials, high) == pytest.approx(0.05)


@pytest.mark.peers
def test_intervals_and_p_values_equal_scipys() -> None:
    from scipy import stats

    for successes, trials, chance in ((3, 10, 0.2), (0, 5, 0.1), (5, 5, 0.9), (7000, 21_100, 0.32), (1, 40_000, 1e-5)):
        result = stats.binomtest(successes, trials, chance, alternative="greater")
        assert overlap.at_least(successes, trials, chance) == pytest.approx(result.pvalue, rel=1e-6)
        interval = stats.binomtest(successes, trials).proportion_ci(0.995, "exact")
        assert overlap.clopper_pearson(successes, trials) == pytest.approx((interval.low, interval.high), rel=1e-6)


def test_overlap_parts_the_set_and_refuses_strange_keys(tmp_path: Path) -> None:
    write_set(tmp_path / "set", classes=CLASSES, num_pictures=40)
    keys = tmp_path / "keys.txt"
    keys.write_text("000\n003\n\n017\n")
    found = run(tmp_path / "set", f"overlap:{keys}", tmp_path)
    numbers = found.values
    assert numbers["contamination"] == pytest.approx(3 / 40)
    assert numbers["all"] == pytest.approx((numbers["clean"] * 37 + numbers["overlap"] * 3) / 40)
    assert numbers["gain"] == pytest.approx(numbers["all"] - numbers["clean"])
    keys.write_text("")
    nothing = run(tmp_path / "set", f"overlap:{keys}", tmp_path).values
    assert (nothing["gain"], nothing["p_value"], math.isnan(nothing["overlap"])) == (0.0, 1.0, True)
    keys.write_text("000\n999\n")
    with pytest.raises(BadSet, match="found 1 others, first '999'"):
        run(tmp_path / "set", f"overlap:{keys}", tmp_path)
    with pytest.raises(BadSet, match="is not there: expected the keys"):
        run(tmp_path / "set", "overlap:nowhere.txt", tmp_path)
    five = overlap.analyse(np.arange(40) < 20, np.arange(40) < 9, num_sets=5)
    assert five["p_bonferroni"] == pytest.approx(5 * five["p_value"])


def test_a_multilabel_set_is_scored_by_the_11_point_map(tmp_path: Path) -> None:
    write_set(tmp_path, classes=CLASSES)
    members = []
    for number in range(18):
        truths = np.zeros(len(CLASSES), np.int64)
        truths[[number % 6, (number * 5) % 6]] = 1
        rgb = np.broadcast_to(np.asarray(COLORS[CLASSES[number % 6]], np.uint8), (12, 12, 3))
        members += [(f"{number}.png", encode(rgb, "png")), (f"{number}.npy", npy(truths))]
    for shard in (0, 1):
        write_tar(tmp_path / f"test/{shard}.tar", members[shard * 18 : shard * 18 + 18])
    (tmp_path / "dataset_type.txt").write_text("multilabel\n")
    found = run(tmp_path, "zero_shot", tmp_path / "root")
    assert 0.4 < found.values["map11"] <= 1
    assert found.num_pictures == 18
    for bad, message in (
        (npy(np.zeros(5)), "expected an array of 6"),
        (b"x", "expected an array of 6"),
        (claims(), "expected an array"),
    ):
        write_tar(tmp_path / "test/1.tar", [("0.png", members[0][1]), ("0.npy", bad)])
        with pytest.raises(BadSet, match=message):
            run(tmp_path, "zero_shot", tmp_path / "root")


def npy(array: np.ndarray) -> bytes:
    """The array as numpy saves it."""
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


def claims() -> bytes:
    """An array of objects, which only pickle reads."""
    sink = io.BytesIO()
    np.save(sink, np.asarray([None] * 6, object), allow_pickle=True)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("metric", "headline"), [("mean_per_class", "mean_per_class"), ("mean_1_5", "mean_1_5"), ("accuracy", "accuracy")]
)
def test_the_sets_own_metric_comes_first(tmp_path: Path, metric: str, headline: str) -> None:
    write_set(tmp_path / "set", classes=CLASSES)
    space = Workspace(EvaluateConfig(root=str(tmp_path)), "m" * 64, encoder=ColorEncoder())
    eval_set: EvalSet = replace(space.another(str(tmp_path / "set")), metric=metric)
    values = KINDS["zero_shot"].run(space, eval_set, "").values
    assert next(iter(values)) == headline
    assert values["mean_1_5"] == pytest.approx((values["accuracy"] + values["top5"]) / 2)
    with pytest.raises(BadSet, match="roc_auc: expected one of"):
        KINDS["zero_shot"].run(space, replace(eval_set, metric="roc_auc"), "")
