"""The probe: derivatives against float64, optima against scikit-learn's, the paper's search against trying everything."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model.evaluate import effective, few_shot, logistic, probe
from model.evaluate.probe import STRENGTHS, Rows

POINT = 0.001  # a tenth of a point


def drawn(rows: int, width: int, classes: int, seed: int, noise: float = 0.1, spread: float = 0.6) -> tuple[Any, Any]:
    """Features of unequal variance with a common mean, some labels wrong: as a tower's are."""
    chance = np.random.default_rng(seed)
    scale = (1 + np.arange(width)) ** -0.5
    labels = chance.integers(0, classes, rows)
    features = spread * chance.standard_normal((classes, width))[labels] * scale + chance.standard_normal((rows, width)) * scale
    wrong = chance.random(rows) < noise
    labels[wrong] = chance.integers(0, classes, int(wrong.sum()))
    return (features + 2 * chance.standard_normal(width)).astype(np.float32), labels


def exact(fit: logistic.Fit, features: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple[float, float]:
    """Objective and largest derivative in float64, by autograd."""
    weight, bias = fit.weight.clone().requires_grad_(), fit.bias.clone().requires_grad_()
    logits, truth = torch.from_numpy(features).double() @ weight + bias, torch.from_numpy(labels)
    if labels.ndim == 2 or num_classes == 2:
        truth = truth.double().view(logits.shape)
        loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="sum") / len(features)
    else:
        loss = F.cross_entropy(logits, truth)
    objective = loss + fit.strength / (2 * len(features)) * weight.square().sum()
    slopes = torch.autograd.grad(objective, (weight, bias))
    return float(objective.detach()), max(float(slope.abs().max()) for slope in slopes)


@pytest.mark.parametrize("kind", ["softmax", "two classes", "several labels"])
@pytest.mark.parametrize("seed", range(4))
def test_what_a_fit_says_of_itself_is_true_in_float64(kind: str, seed: int) -> None:
    classes = 2 if kind == "two classes" else 7
    features, labels = drawn(300 + 50 * seed, 20, classes, seed)
    if kind == "several labels":
        labels = (np.random.default_rng(seed).random((len(labels), classes)) < 0.3) | (labels[:, None] == np.arange(classes))
        labels = labels.astype(np.int64)
    problem = logistic.Problem(features, labels, classes)
    for strength in (1e6, 10.0, 1e-2, 1e-6):
        fit = problem.fit(strength)
        objective, gradient = exact(fit, features, labels, classes)
        assert fit.converged
        assert fit.objective == pytest.approx(objective, rel=1e-5, abs=1e-7)
        assert gradient == pytest.approx(fit.gradient, abs=2e-6)
        assert gradient <= 1.2 * logistic.TOLERANCE


@pytest.mark.parametrize("seed", range(3))
def test_a_start_changes_nothing(seed: int) -> None:
    features, labels = drawn(400, 16, 5, seed)
    problem = logistic.Problem(features, labels, 5)
    far = problem.fit(1e4)
    for strength in (1.0, 1e-4):
        cold, warm = problem.fit(strength), problem.fit(strength, far)
        assert warm.objective == pytest.approx(cold.objective, rel=3e-5)
        assert (warm.scores(features).argmax(1) == cold.scores(features).argmax(1)).float().mean() >= 1 - POINT * 5


def test_losses_far_below_float32s_resolution_of_1_are_told_apart() -> None:
    """Separable classes: at the weakest strength every picture is right with p = 1 - 1e-6 and the optimum is still found."""
    features, labels = drawn(400, 64, 4, 5, noise=0.0, spread=2.0)
    problem = logistic.Problem(features, labels, 4)
    fit, before = problem.fit(1e-6), problem.fit(1e-4)
    assert fit.converged
    assert fit.objective < 0.05 * before.objective < 1e-5
    assert fit.objective == pytest.approx(exact(fit, features, labels, 4)[0], rel=1e-3)


def test_more_features_than_pictures() -> None:
    features, labels = drawn(30, 200, 10, 0)
    fit = logistic.Problem(features, labels, 10).fit(1e-6)
    assert fit.converged
    assert (fit.scores(features).argmax(1).numpy() == labels).all()


def test_constant_features_and_a_class_without_pictures() -> None:
    features, labels = drawn(200, 8, 4, 1)
    features[:, 3] = 7.0
    fit = logistic.Problem(features, labels, 9).fit(1.0)
    assert fit.converged
    assert torch.isfinite(fit.weight).all()
    assert set(fit.scores(features).argmax(1).tolist()) <= {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x, y: (x, y[:-1]), "a label for each"),
        (lambda x, y: (x, y + 1), "labels from 0 to 3, found 1 to 4"),
        (lambda x, y: (np.where(x > 2, np.nan, x), y), "finite features"),
        (lambda x, y: (x[:0], y[:0]), "found 0 and 0"),
    ],
)
def test_bad_rows_are_refused(change: Any, says: str) -> None:
    features, labels = change(*drawn(50, 6, 4, 0, noise=0.0))
    with pytest.raises(ValueError, match=says):
        logistic.Problem(features, labels, 4)


@pytest.mark.parametrize("seed", range(30))
def test_the_search_finds_the_peak_of_every_hill(seed: int) -> None:
    """One peak: the halving must find the best of all 97, in 15 fits or fewer."""
    chance = np.random.default_rng(seed)
    peak = int(chance.integers(0, len(STRENGTHS)))
    slopes = chance.uniform(0.1, 2, 2)
    asked: list[int] = []

    def score(place: int) -> float:
        asked.append(place)
        return -abs(place - peak) * slopes[int(place > peak)]

    best, found = probe.search(score)
    reachable = abs(best - peak) <= 1  # a steep side may hide a peak from the coarse grid by a step
    assert reachable or slopes.max() / slopes.min() > 1.5
    assert found[best] == max(found.values())
    assert len(asked) == len(set(asked)) <= 15


def test_the_grid_is_the_papers_and_of_equals_the_middle_one_counts() -> None:
    assert len(STRENGTHS) == 97
    assert STRENGTHS[0] == pytest.approx(1e-6)
    assert STRENGTHS[-1] == pytest.approx(1e6)
    assert np.diff(np.log10(STRENGTHS)) == pytest.approx(1 / 8)
    assert probe.search(lambda place: 1.0)[0] == 48
    assert probe.search(lambda place: float(place >= 48))[0] > 60
    assert probe.search(lambda place: -float(place))[0] == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_split_gives_the_same_share_of_each_class(seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 12, 500) ** 2 % 23
    stay, leave = probe.split(labels, seed)
    assert sorted([*stay, *leave]) == list(range(500))
    for label in np.unique(labels):
        count = int((labels == label).sum())
        assert (labels[leave] == label).sum() == (max(1, count // 5) if count > 1 else 0)
    again = probe.split(labels, seed)
    assert (again[1] == leave).all()
    assert (probe.split(labels, seed + 1)[1][:20] != leave[:20]).any()


@pytest.mark.parametrize("seed", range(3))
def test_few_shots_are_nested_and_no_more_than_asked(seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 9, 200)
    before: set[int] = set()
    for shots in few_shot.SHOTS:
        places = few_shot.choose(labels, shots, seed)
        assert (np.bincount(labels[places], minlength=9) == np.minimum(np.bincount(labels, minlength=9), shots)).all()
        assert before <= set(places.tolist())
        before = set(places.tolist())
    assert set(few_shot.choose(labels, 4, seed).tolist()) != set(few_shot.choose(labels, 4, seed + 10).tolist())


def test_more_pictures_are_worth_more() -> None:
    features, labels = drawn(3000, 24, 6, 3, noise=0.0)
    train, validation, test = (Rows(features[a:b], labels[a:b]) for a, b in ((0, 1000), (1000, 1500), (1500, 3000)))
    found = few_shot.few_shot(train, validation, test, 6, shots=(1, 4, 16), seeds=(0, 1))
    assert [(shot.shots, shot.seed) for shot in found] == [(1, 0), (1, 1), (4, 0), (4, 1), (16, 0), (16, 1)]
    means = few_shot.means(found)
    full = probe.probe(train, validation, test, 6)
    assert means[1][0] < means[4][0] < means[16][0] < full.score
    curve = {float(shots): mean for shots, (mean, _) in means.items()} | {1500 / 6: full.score}
    assert 4 < (effective.effective_examples(curve, (means[4][0] + means[16][0]) / 2) or 0) < 16


def test_effective_examples_by_hand() -> None:
    curve = {1: 0.2, 2: 0.4, 4: 0.5, 100: 0.9}
    assert effective.effective_examples(curve, 0.4) == pytest.approx(2)
    assert effective.effective_examples(curve, 0.3) == pytest.approx(2**0.5)
    assert effective.effective_examples(curve, 0.1) == pytest.approx(2**-0.5)
    assert effective.effective_examples(curve, 0.7) == pytest.approx(20)
    assert effective.effective_examples(curve, 0.95) is None
    assert effective.effective_examples({1: 0.3, 2: 0.2, 4: 0.6}, 0.3) is not None
    with pytest.raises(ValueError, match="two positive numbers"):
        effective.effective_examples({1: 0.3}, 0.2)


@pytest.mark.peers
@pytest.mark.parametrize("strength", [1e6, 1e2, 1.0, 1e-2, 1e-6])
@pytest.mark.parametrize("kind", ["overlapping", "separable", "two classes"])
def test_scikit_learns_optimum_is_ours_to_a_tenth_of_a_point(kind: str, strength: float) -> None:
    """Its Newton solver, to the end: at weak strengths its L-BFGS stops early at its usual tolerance."""
    from sklearn.linear_model import LogisticRegression

    classes, noise, spread = (
        (2 if kind == "two classes" else 6),
        0.15 * (kind != "separable"),
        3.0 if kind == "separable" else 0.6,
    )
    features, labels = drawn(6000, 24, classes, 7, noise, spread)
    train, test = Rows(features[:1000], labels[:1000]), Rows(features[1000:], labels[1000:])
    ours = logistic.Problem(train.features, train.labels, classes).fit(strength)
    theirs = LogisticRegression(C=1 / strength, solver="newton-cholesky", tol=1e-10, max_iter=2000)
    theirs.fit(train.features.astype(np.float64), train.labels)
    guesses = ours.scores(test.features).argmax(1).numpy()
    assert abs((guesses == test.labels).mean() - theirs.score(test.features.astype(np.float64), test.labels)) <= POINT
    optimum = logistic.Fit(
        weight=torch.from_numpy(theirs.coef_.T.copy()), bias=torch.from_numpy(theirs.intercept_), strength=strength,
        objective=0.0, gradient=0.0, iterations=0, converged=True,
    )  # fmt: skip
    assert ours.objective == pytest.approx(exact(optimum, train.features, train.labels, classes)[0], rel=5e-5)


@pytest.mark.peers
def test_the_probe_of_the_digits_is_scikit_learns() -> None:
    """The whole search on real pictures, 1,797 digits: the same strength or one as good, the same score."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    digits: Any = load_digits()
    pictures, labels = np.asarray(digits.data), np.asarray(digits.target)
    features = (pictures / 16).astype(np.float32)
    train, validation, test = (Rows(features[a:b], labels[a:b]) for a, b in ((0, 800), (800, 1200), (1200, 1797)))

    def score(place: int) -> float:
        model = LogisticRegression(C=1 / STRENGTHS[place], max_iter=5000, tol=1e-7).fit(
            features[:800].astype(np.float64), labels[:800]
        )
        return float(model.score(features[800:1200].astype(np.float64), labels[800:1200]))

    ours = probe.probe(train, validation, test, 10)
    best, found = probe.search(score)
    assert ours.all_converged
    assert max(ours.tried.values()) == pytest.approx(found[best], abs=1 / 400)
    both = LogisticRegression(C=1 / ours.strength, max_iter=5000, tol=1e-7).fit(features[:1200].astype(np.float64), labels[:1200])
    assert abs(both.score(features[1200:].astype(np.float64), labels[1200:]) - ours.score) <= POINT
