"""The linear probe beside scikit-learn: the paper's whole search of the strength, and the last fit.

    python -m tests.benchmarks.probe                 # 4,000 + 1,000 rows, 512 features, 100 classes: minutes
    python -m tests.benchmarks.probe --rows 10000    # four fifths are trained on, the others validate
    python -m tests.benchmarks.probe --full          # 40,000 + 10,000 rows: a quarter of an hour and more

Both sides try the strengths that the search asks for by their own scores, fit train and validation together with the best one,
and score 5,000 other rows. scikit-learn is called as the paper's README calls it (L-BFGS, 1000 iterations, default tolerance,
float32 features). Both have one thread, and CPU seconds are compared: the machine may be shared.

The ratio only counts where our answer is at least as good, so every strength's objective is worked out in float64 from both
sides' weights: ours must not be above scikit-learn's by more than a hundred-thousandth at any of them. Where scikit-learn stops
early (weak strengths), its accuracies differ from those of the optimum; the last two columns say how far.
"""

import argparse
import os
import time
import warnings

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # before NumPy and torch are imported

import numpy as np
import torch

from model.evaluate import logistic, probe
from model.evaluate.probe import STRENGTHS, Rows

WIDTH, CLASSES, TEST_ROWS = 512, 100, 5_000


def drawn(num_rows: int, seed: int = 0) -> Rows:
    """Features with the spectrum of a tower's (variances fall as 1 / rank), a large common mean, one label in ten wrong."""
    chance = np.random.default_rng(seed)
    scale = (1 + np.arange(WIDTH)) ** -0.5
    labels = chance.integers(0, CLASSES, num_rows)
    features = 0.5 * chance.standard_normal((CLASSES, WIDTH))[labels] * scale
    features += chance.standard_normal((num_rows, WIDTH)) * scale * chance.gamma(4, 0.25, (num_rows, 1))
    axes, _ = np.linalg.qr(chance.standard_normal((WIDTH, WIDTH)))
    wrong = chance.random(num_rows) < 0.1
    labels[wrong] = chance.integers(0, CLASSES, int(wrong.sum()))
    return Rows((2 * features @ axes + 2 * chance.standard_normal(WIDTH)).astype(np.float32), labels)


def objective(rows: Rows, weight: np.ndarray, bias: np.ndarray, strength: float) -> float:
    """The objective in float64.  [D, C], [C]"""
    logits = torch.from_numpy(rows.features.astype(np.float64) @ weight + bias)
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(rows.labels))
    return float(loss) + strength / (2 * len(rows.labels)) * float((weight**2).sum())


def theirs(train: Rows, validation: Rows, test: Rows) -> tuple[float, float, dict[int, tuple[float, float]], float]:
    """scikit-learn's search -> CPU seconds, strength, place -> (objective, validation score), test score."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    warnings.simplefilter("ignore", ConvergenceWarning)  # where 1000 iterations do not do
    fits = {}

    def fit(rows: Rows, place: int) -> LogisticRegression:
        return LogisticRegression(C=1 / STRENGTHS[place], max_iter=logistic.MAX_ITERATIONS).fit(rows.features, rows.labels)

    def score(place: int) -> float:
        begin = time.process_time()
        fits[place] = fit(train, place)
        iterations = int(fits[place].n_iter_[0])
        print(f"  {STRENGTHS[place]:<10.3g} {iterations:>5} iterations {time.process_time() - begin:>7.1f} CPU s", flush=True)
        return float(fits[place].score(validation.features, validation.labels))

    start = time.process_time()
    best, found = probe.search(score)
    last = fit(train + validation, best).score(test.features, test.labels)
    seconds = time.process_time() - start
    tried = {}
    for place, model in fits.items():
        weight, bias = model.coef_.T.astype(np.float64), model.intercept_.astype(np.float64)
        tried[place] = (objective(train, weight, bias, STRENGTHS[place]), found[place])
    return seconds, STRENGTHS[best], tried, float(last)


def main() -> None:
    """Both sides, their table and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--full", action="store_true", help="50,000 rows")
    arguments = parser.parse_args()
    total = 50_000 if arguments.full else arguments.rows
    torch.set_num_threads(1)
    rows = drawn(total + TEST_ROWS)
    train, validation, test = (
        rows.take(np.arange(a, b)) for a, b in ((0, total * 4 // 5), (total * 4 // 5, total), (total, total + TEST_ROWS))
    )
    start = time.process_time()
    ours = probe.probe(train, validation, test, CLASSES)
    seconds = time.process_time() - start
    print(f"ours          {seconds:>8.1f} CPU s  strength {ours.strength:.3g}  test {ours.score:.4f}", flush=True)
    their_seconds, strength, tried, score = theirs(train, validation, test)
    print(f"scikit-learn  {their_seconds:>8.1f} CPU s  strength {strength:.3g}  test {score:.4f}", flush=True)
    problem, start_fit = logistic.Problem(train.features, train.labels, CLASSES), None
    print("strength       ours' objective  scikit-learn's   validation: ours, scikit-learn's")
    for place in sorted(tried, reverse=True):
        start_fit = problem.fit(STRENGTHS[place], start_fit)
        here = objective(train, start_fit.weight.numpy(), start_fit.bias.numpy(), STRENGTHS[place])
        guesses = start_fit.scores(validation.features).numpy()
        print(f"{STRENGTHS[place]:<12.3g} {here:>17.8f} {tried[place][0]:>15.8f}   "
              f"{probe.top1(validation.labels, guesses):>10.4f} {tried[place][1]:>8.4f}")  # fmt: skip
        assert here <= tried[place][0] * (1 + 1e-5), (here, tried[place])
    assert ours.all_converged
    print(f"probe ratio={their_seconds / seconds:.2f}", flush=True)


if __name__ == "__main__":
    main()
