"""Labels to weights: Bayesian logistic regression, the mode by Newton's method, the covariance by Laplace.

The only part that needs numpy's linear algebra, and the only one that takes milliseconds. `fit` is a pure function of
frozen values: run it in a worker thread and adopt the result when it is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, sqrt
from typing import TYPE_CHECKING, Final, cast

from aicache._errors import MissingExtraError
from aicache._learned._features import guard_places
from aicache._learned._label import Label
from aicache._learned._record import RECORDS

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

    Array = NDArray[float64]

__all__ = ["Lessons", "Weights", "fit", "prior"]

_EXCESS: Final = -len(RECORDS)
"""Where the excess of the record is: odds of a wrong answer are believed to be multiplied by it."""
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
        """Upper estimate of the probability of a wrong answer, `z` standard deviations on the safe side.

        1 where a feature is no finite number: nothing is known then.
        """
        import numpy

        phi = numpy.frombuffer(row, "<f4").astype(numpy.float64)  # Once, and not in each product.
        if not numpy.isfinite(phi).all():
            return 1.0
        odds, spread = float(self.mean.dot(phi)), float(phi.dot(self.covariance.dot(phi)))
        return 1 / (1 + exp(min(_STEEPEST, odds - z * sqrt(max(0.0, spread)))))

    @property
    def usable(self) -> bool:
        """Whether all numbers are finite."""
        import numpy

        return bool(numpy.isfinite(self.mean).all() and numpy.isfinite(self.covariance).all())


@dataclass(frozen=True, slots=True)
class Lessons:
    """The labels to fit, and where they end in the log."""

    version: int
    labels: tuple[Label, ...] = field(repr=False)


def prior(features: int) -> Weights:
    """What is believed before the first label: a higher cosine is better, an excess of wrong labels worse.

    And a guard that sees a difference is right, until labels show that such differences do not matter here. Without
    that, easy traffic, where no guard ever sees one, left "safe" and "unsafe" as near as their cosine of .98: of 60
    such pairs 7 to 11 were served after it, with it 3 to 5. It costs no hits (Banking77).

    Raises:
        MissingExtraError: numpy is not installed.
    """
    try:
        import numpy
    except ImportError as missing:
        raise MissingExtraError("learning (`max_error_rate`)", "onnx") from missing

    mean = numpy.zeros(features)
    mean[1] = 1.0
    mean[_EXCESS] = -1.0
    mean[guard_places(features)] = -5.0
    return Weights(0, mean, numpy.diag(1 / _precision(features)))


def _precision(features: int) -> Array:
    """Prior precision of each weight; low where the right value varies much between applications."""
    import numpy

    precision = numpy.ones(features)
    precision[0], precision[1], precision[_EXCESS] = 0.1, 0.3, 4.0
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

        odds = _times(self.rows, mean)
        surprise = (self.weight * (numpy.logaddexp(0, odds) - self.right * odds)).sum()
        return float(surprise + 0.5 * (self.precision * (mean - self.centre) ** 2).sum())

    def step(self, mean: Array) -> Array:
        import numpy

        chance = self.chance(mean)
        gradient = _times(self.rows.T, self.weight * (chance - self.right)) + self.precision * (mean - self.centre)
        return cast("Array", numpy.linalg.solve(self.curvature(chance), gradient))

    def covariance(self, mean: Array) -> Array:
        import numpy

        return cast("Array", numpy.linalg.inv(self.curvature(self.chance(mean))))

    def chance(self, mean: Array) -> Array:
        import numpy

        return 0.5 * (1 + numpy.tanh(0.5 * _times(self.rows, mean)))

    def curvature(self, chance: Array) -> Array:
        import numpy

        scaled = self.rows * numpy.sqrt(self.weight * chance * (1 - chance))[:, None]
        curvature = _gram(scaled)
        curvature[numpy.diag_indices_from(curvature)] += self.precision
        return curvature


# BLAS would spread these small products over all cores, and where those are busy its threads spin: a fit of 4,000
# lessons then took 500 ms and all cores in place of 20 ms and one (measured at a load of 15 on 4 cores).

_BLOCK: Final = 128
"""Rows whose product with themselves BLAS still computes in the calling thread."""


def _times(matrix: Array, vector: Array) -> Array:
    import numpy

    return cast("Array", numpy.einsum("ij,j->i", matrix, vector))


def _gram(rows: Array) -> Array:
    """The product of the transposed matrix with itself."""
    import numpy

    whole = len(rows) - len(rows) % _BLOCK
    blocks = rows[:whole].reshape(-1, _BLOCK, rows.shape[1])
    rest = rows[whole:]
    return cast("Array", numpy.matmul(blocks.transpose(0, 2, 1), blocks).sum(axis=0) + rest.T @ rest)
