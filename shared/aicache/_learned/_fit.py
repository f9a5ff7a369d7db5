"""Labels to weights: Bayesian logistic regression, the mode by Newton's method, the covariance by Laplace.

The only part that needs numpy's linear algebra, and the only one that takes milliseconds. `fit` is a pure function of
frozen values: run it in a worker thread and adopt the result when it is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, sqrt
from typing import TYPE_CHECKING, Final, cast

from aicache._errors import MissingExtraError
from aicache._learned._label import Label

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

    Array = NDArray[float64]

__all__ = ["Lessons", "Weights", "fit", "prior"]

_STEPS: Final = 12
"""Newton's method from a warm start needs 2 to 4."""
_CLOSE: Final = 1e-3
"""A change of the weights that changes no decision."""
_STEEPEST: Final = 700.0
"""Log odds beyond which a float overflows."""


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """What the labels up to `version` have taught: a normal distribution over the weights of the features."""

    version: int
    """Position in the log of the last label used: of two, the higher one is the newer one."""
    mean: Array = field(repr=False)
    covariance: Array = field(repr=False)

    def risk(self, row: bytes, z: float) -> float:
        """Upper estimate of the probability of a wrong answer, `z` standard deviations on the safe side."""
        import numpy

        phi = numpy.frombuffer(row, "<f4")
        spread = float(phi @ self.covariance @ phi)
        return 1 / (1 + exp(min(_STEEPEST, float(self.mean @ phi) - z * sqrt(max(0.0, spread)))))


@dataclass(frozen=True, slots=True)
class Lessons:
    """The labels to fit, and where they end in the log."""

    version: int
    labels: tuple[Label, ...] = field(repr=False)


def prior(features: int) -> Weights:
    """What is believed before the first label: a higher cosine is better, and little else.

    Raises:
        MissingExtraError: numpy is not installed.
    """
    try:
        import numpy
    except ImportError as missing:
        raise MissingExtraError("learning (`max_error_rate`)", "onnx") from missing

    mean = numpy.zeros(features)
    mean[1] = 1.0
    return Weights(0, mean, numpy.diag(1 / _precision(features)))


def _precision(features: int) -> Array:
    """Prior precision of each weight; low where the right value varies much between applications."""
    import numpy

    precision = numpy.ones(features)
    precision[0], precision[1] = 0.1, 0.3
    return precision


def fit(lessons: Lessons, start: Weights) -> Weights:
    """The posterior given the labels. `start` only makes it faster; it does not change the result."""
    problem = _Problem.of(lessons, len(start.mean))
    mean = start.mean
    loss = problem.loss(mean)
    for _ in range(_STEPS):
        step = problem.step(mean)
        mean, now = _descend(problem, mean, step, loss)
        if now >= loss or float(abs(step).max()) < _CLOSE:
            break
        loss = now
    return Weights(lessons.version, mean, problem.covariance(mean))


def _descend(problem: _Problem, mean: Array, step: Array, loss: float) -> tuple[Array, float]:
    """Take the step, or half of it, or a quarter, ...: the first that does not increase the loss."""
    share = 1.0
    while share > _CLOSE:
        tried = mean - share * step
        now = problem.loss(tried)
        if now <= loss:
            return tried, now
        share /= 2
    return mean, loss


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """The labels as arrays, with the derivatives of the penalised loss."""

    rows: Array
    right: Array
    weight: Array
    centre: Array
    precision: Array

    @staticmethod
    def of(lessons: Lessons, features: int) -> _Problem:
        import numpy

        labels = lessons.labels
        rows = numpy.frombuffer(b"".join(label.row for label in labels), "<f4").reshape(-1, features)
        return _Problem(
            rows.astype(numpy.float64),
            numpy.array([label.ok for label in labels], numpy.float64),
            numpy.array([label.weight for label in labels], numpy.float64),
            prior(features).mean,
            _precision(features),
        )

    def loss(self, mean: Array) -> float:
        import numpy

        odds = self.rows @ mean
        surprise = self.weight @ (numpy.logaddexp(0, odds) - self.right * odds)
        return float(surprise + 0.5 * self.precision @ (mean - self.centre) ** 2)

    def step(self, mean: Array) -> Array:
        import numpy

        chance = self.chance(mean)
        gradient = self.rows.T @ (self.weight * (chance - self.right)) + self.precision * (mean - self.centre)
        return cast("Array", numpy.linalg.solve(self.curvature(chance), gradient))

    def covariance(self, mean: Array) -> Array:
        import numpy

        return cast("Array", numpy.linalg.inv(self.curvature(self.chance(mean))))

    def chance(self, mean: Array) -> Array:
        import numpy

        return 0.5 * (1 + numpy.tanh(0.5 * (self.rows @ mean)))

    def curvature(self, chance: Array) -> Array:
        import numpy

        scaled = self.rows * numpy.sqrt(self.weight * chance * (1 - chance))[:, None]
        curvature = scaled.T @ scaled
        curvature[numpy.diag_indices_from(curvature)] += self.precision
        return curvature
