"""Logistic regression by L-BFGS: the optimum of scikit-learn's objective, for one strength or along a path of them.

in      features [B, D]; labels [B] of C classes, or zeros and ones [B, C] where a picture may have several labels
out     Fit: weight [D, C], bias [C], the objective and the largest derivative that they have
law     objective = mean loss + strength / (2 B) * |weight|^2, the bias is free: scikit-learn's with C = 1 / strength. The loss is
        the softmax's cross entropy, or the sum of C logistic losses for labels [B, C]. Two classes are one logistic loss, as
        scikit-learn has it: their weights are (0, w)
law     a fit has converged where no derivative is above `tolerance` and the next step promises less than `tolerance` of the
        objective; so the start hardly matters, and a path is solved from one strength to the next
how     L-BFGS on coordinates in which the Hessian at the start is nearly the identity: the features' principal axes, scaled by
        the mean of p (1 - p) of each class. Logits are linear along a direction, so a line search costs no product of
        matrices and an iteration two. These are float32; weights, sums and directions are float64. 1 - p is the sum of the
        others' p and never a difference: at weak strengths losses of 1e-6 are told apart
cost    4 B D C operations an iteration; 3 B C float32 of memory beside the features
compare objectives of other numbers of rows are other objectives: the strength weighs against the sum of the losses
letters B pictures, D width, C classes (columns of weights)
source  Nocedal and Wright, "Numerical Optimization", chapters 3 and 7; CLIP appendix A.3 (L-BFGS, at most 1000 iterations)
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ITERATIONS = 1000
TOLERANCE = 1e-5
MEMORY = 20  # steps that L-BFGS remembers
BLOCK_NUMBERS = 1 << 17  # logits that a CPU works on at once: they stay in its cache
SLOPE = 0.5  # a line search ends where the slope is at most this share of the first one
MAX_TRIALS = 25  # of a line search
AXES_ROWS = 8192  # rows whose covariance gives the principal axes
AXES_FLOOR = 1e-7  # of the largest variance; what is below it is noise of float32
CLASS_FLOOR = 1e-3  # of a class's mean p (1 - p), times 1 / C
NEWEST = 1e-12  # a step along which the derivative did not grow by this tells nothing of the curvature


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """A solution, and how good it is."""

    weight: Tensor  # [D, C] float64
    bias: Tensor  # [C] float64
    strength: float
    objective: float
    gradient: float  # the largest derivative of the objective, without its sign
    iterations: int
    converged: bool

    def scores(self, features: np.ndarray | Tensor) -> Tensor:
        """Logits of other features; the class with the largest is the guess.  [B, D] -> [B, C] float32"""
        rows = _tensor(features, np.float32, self.weight.device)
        logits = torch.addmm(self.bias.float(), rows, self.weight.float())
        return F.pad(logits, (1, 0)) if self.weight.shape[1] == 1 else logits


def _tensor(values: np.ndarray | Tensor, kind: type[np.generic], device: torch.device) -> Tensor:
    """The values on the device; copied only where they must be: PyTorch takes no array that may not be written."""
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(np.require(values, kind, ["C", "W"]))
    return values.to(device)


@dataclass(slots=True)
class _Point:
    """Weights, or a change of them. The bias is that of features less their mean."""

    weight: Tensor  # [D, C]
    bias: Tensor  # [C]

    def dot(self, other: "_Point") -> float:
        return float((self.weight * other.weight).sum())


class _Losses:
    """The loss of every row: softmax's cross entropy for labels [B, 1], logistic for signs [B, C] (-1 where the label is 1)."""

    def __init__(self, targets: Tensor, softmax: bool):
        self.targets, self.softmax = targets, softmax

    def residuals(self, logits: Tensor, rows: slice, out: Tensor) -> float:
        """Sum of the rows' losses; their derivatives by the logits go to `out`.  [b, C]"""
        targets = self.targets[rows]
        if not self.softmax:
            signed = logits * targets
            torch.sigmoid(signed, out=out)
            out.mul_(targets)
            return float(F.softplus(signed).sum(dtype=torch.float64))
        logs = F.log_softmax(logits, 1)
        torch.exp(logs, out=out)
        out.scatter_(1, targets, 0.0)
        missed = out.sum(1, keepdim=True)  # 1 - p of the right class
        out.scatter_(1, targets, -missed)
        nearly_right = -torch.log1p(-missed.clamp(max=0.5))
        return float(torch.where(missed < 0.5, nearly_right, -logs.gather(1, targets)).sum(dtype=torch.float64))


class Problem:
    """Features and labels of a regression that is fitted at several strengths."""

    def __init__(self, features: np.ndarray | Tensor, labels: np.ndarray | Tensor, num_classes: int, device: str = "cpu"):
        self.features = _tensor(features, np.float32, torch.device(device))
        truth = _tensor(labels, np.int64, torch.device(device))
        self.num_rows, self.width = self.features.shape
        self._check(truth, num_classes)
        softmax = truth.ndim == 1 and num_classes > 2
        self.columns = num_classes if softmax or truth.ndim == 2 else 1
        targets = truth[:, None] if truth.ndim == 1 else truth
        self._losses = _Losses(targets if softmax else 1 - 2 * targets.float(), softmax)
        rows = self.num_rows if self.features.is_cuda else max(1, BLOCK_NUMBERS // self.columns)
        self._blocks = [slice(start, start + rows) for start in range(0, self.num_rows, rows)]
        self._mean = self.features.mean(0, dtype=torch.float64)
        some = self.features[:: -(-self.num_rows // AXES_ROWS)] - self._mean.float()
        self._variances, self._axes = torch.linalg.eigh((some.T @ some).double() / len(some))
        self._variances = self._variances.clamp(min=max(AXES_FLOOR * float(self._variances[-1]), 1e-30))

    def _check(self, truth: Tensor, num_classes: int) -> None:
        if len(truth) != self.num_rows or self.num_rows == 0:
            raise ValueError(f"probe: expected a label for each of the features' rows, found {self.num_rows} and {len(truth)}")
        if not bool(torch.isfinite(self.features).all()):
            raise ValueError("probe: expected finite features, found NaN or infinity: the model's weights are broken")
        if truth.ndim == 2 and truth.shape[1] != num_classes:
            raise ValueError(f"probe: expected labels of {num_classes} columns, found {truth.shape[1]}")
        low, high, top = int(truth.min()), int(truth.max()), num_classes - 1 if truth.ndim == 1 else 1
        if num_classes < 1 or low < 0 or high > top:
            raise ValueError(f"probe: expected labels from 0 to {top}, found {low} to {high}")

    def fit(
        self, strength: float, start: Fit | None = None, tolerance: float = TOLERANCE, max_iterations: int = MAX_ITERATIONS
    ) -> Fit:
        """The optimum at a strength, sought from `start` or from zero weights."""
        if not strength > 0:
            raise ValueError(f"probe: expected a strength above 0, found {strength}")
        return _Descent(self, strength, start).run(tolerance, max_iterations)

    def logits(self, point: _Point) -> Tensor:
        """[B, C] float32"""
        return torch.addmm((point.bias - self._mean @ point.weight).float(), self.features, point.weight.float())

    def loss(self, logits: Tensor, change: Tensor | None, step: float, residuals: Tensor) -> tuple[float, float]:
        """Mean loss at logits + step * change, and its slope along `change`; `residuals` is written."""
        loss = slope = 0.0
        for rows in self._blocks:
            part, here = residuals[rows], logits[rows]
            if change is not None:
                here = torch.add(here, change[rows], alpha=step)
            loss += self._losses.residuals(here, rows, part)
            if change is not None:
                slope += float(torch.dot(part.view(-1), change[rows].view(-1)))
        return loss / self.num_rows, slope / self.num_rows

    def derivative(self, residuals: Tensor) -> _Point:
        """Of the mean loss."""
        sums = residuals.sum(0, dtype=torch.float64)
        weight = (self.features.T @ residuals).double() - self._mean[:, None] * sums
        return _Point(weight / self.num_rows, sums / self.num_rows)

    def largest(self, derivative: _Point) -> float:
        """The largest entry, without its sign, of the derivative by the weights and bias of features as they came."""
        weight = derivative.weight + self._mean[:, None] * derivative.bias
        return max(float(weight.abs().max()), float(derivative.bias.abs().max()))

    def scales(self, residuals: Tensor, decay: float) -> tuple[Tensor, Tensor]:
        """How long a step of 1 is along each axis of each class, and for its bias.  -> [D, C], [C]"""
        size = residuals.abs()
        spread = (size * (1 - size)).mean(0, dtype=torch.float64).clamp(min=CLASS_FLOOR / self.columns)
        return (self._variances[:, None] * spread + decay) ** -0.5, spread**-0.5

    def start(self, fit: Fit | None) -> _Point:
        """Zero, or the weights of a fit to features of the same width and classes."""
        if fit is None:
            options = {"dtype": torch.float64, "device": self.features.device}
            return _Point(torch.zeros(self.width, self.columns, **options), torch.zeros(self.columns, **options))
        if fit.weight.shape != (self.width, self.columns):
            raise ValueError(f"probe: expected a start of {self.width} x {self.columns}, found {tuple(fit.weight.shape)}")
        return _Point(fit.weight.clone(), fit.bias + self._mean @ fit.weight)

    def finished(self, point: _Point, **facts: float) -> Fit:
        """The point as a fit to the features as they came."""
        return Fit(weight=point.weight, bias=point.bias - self._mean @ point.weight, **facts)  # type: ignore[arg-type]

    def to_axes(self, point: _Point, scale: Tensor, bias_scale: Tensor) -> Tensor:
        """A derivative by the scaled coordinates.  -> [(D + 1) C]"""
        return torch.cat([(scale * (self._axes.T @ point.weight)).view(-1), bias_scale * point.bias])

    def from_axes(self, vector: Tensor, scale: Tensor, bias_scale: Tensor) -> _Point:
        """A step in the scaled coordinates as a change of weights."""
        inner = vector[: -self.columns].view(-1, self.columns)
        return _Point(self._axes @ (scale * inner), bias_scale * vector[-self.columns :])


class _Memory:
    """The last steps and the differences of derivatives that they made: an estimate of the inverse Hessian."""

    def __init__(self) -> None:
        self._pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=MEMORY)

    def add(self, step: Tensor, difference: Tensor) -> None:
        product = float(step @ difference)
        if product > NEWEST * float(difference @ difference):
            self._pairs.append((step, difference, 1 / product))

    def direction(self, derivative: Tensor) -> Tensor:
        """Minus the estimate times the derivative, by the recursion of two loops."""
        found, shares = -derivative, []
        for step, difference, inverse in reversed(self._pairs):
            shares.append(inverse * float(step @ found))
            found = found - shares[-1] * difference
        if self._pairs:
            _, difference, inverse = self._pairs[-1]
            found = found / (inverse * float(difference @ difference))
        for (step, difference, inverse), share in zip(self._pairs, reversed(shares), strict=True):
            found = found + (share - inverse * float(difference @ found)) * step
        return found


class _Descent:
    """One fit under way."""

    def __init__(self, problem: Problem, strength: float, start: Fit | None):
        self.problem, self.strength, self.decay = problem, strength, strength / problem.num_rows
        self.point = problem.start(start)
        self.logits = problem.logits(self.point)
        self.residuals = torch.empty_like(self.logits)
        loss, _ = problem.loss(self.logits, None, 0.0, self.residuals)
        self.objective = loss + self.decay / 2 * self.point.dot(self.point)
        self.scales = problem.scales(self.residuals, self.decay)

    def run(self, tolerance: float, max_iterations: int) -> Fit:
        memory, before, step = _Memory(), None, None
        for iteration in range(max_iterations + 1):
            slopes = self.problem.derivative(self.residuals)
            slopes.weight += self.decay * self.point.weight
            gradient = self.problem.largest(slopes)
            derivative = self.problem.to_axes(slopes, *self.scales)
            if before is not None and step is not None:
                memory.add(step, derivative - before)
            direction = memory.direction(derivative)
            slope = float(direction @ derivative)
            converged = gradient <= tolerance and -slope / 2 <= tolerance * self.objective
            if converged or iteration == max_iterations:
                break
            change = self.problem.from_axes(direction, *self.scales)
            length = self._search(change, slope)
            before, step = derivative, length * direction
        return self.problem.finished(
            self.point, strength=self.strength, objective=self.objective, gradient=gradient, iterations=iteration,
            converged=converged,
        )  # fmt: skip

    def _search(self, change: _Point, first_slope: float) -> float:
        """Move along `change` to where the slope is small; the objective is convex, so slopes alone tell where that is."""
        logits = self.problem.logits(change)
        here, along, square = self.point.dot(self.point), self.point.dot(change), change.dot(change)
        low, low_slope, high, high_slope, step = 0.0, first_slope, 0.0, 0.0, 1.0
        for _ in range(MAX_TRIALS):
            loss, slope = self.problem.loss(self.logits, logits, step, self.residuals)
            slope += self.decay * (along + step * square)
            if abs(slope) <= SLOPE * abs(first_slope):
                break
            if slope > 0:
                high, high_slope = step, slope
            else:
                low, low_slope = step, slope
            if high == 0:
                secant = low * first_slope / (first_slope - low_slope) if low_slope > first_slope else 4 * low
                step = min(max(secant, 1.5 * low), 4 * low)
            else:
                secant = low - low_slope * (high - low) / (high_slope - low_slope)
                step = min(max(secant, low + 0.1 * (high - low)), high - 0.1 * (high - low))
        self.objective = loss + self.decay / 2 * (here + 2 * step * along + step**2 * square)
        self.logits.add_(logits, alpha=step)
        self.point = _Point(self.point.weight + step * change.weight, self.point.bias + step * change.bias)
        return step
