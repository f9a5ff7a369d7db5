"""Predicted risks to a cutoff: the largest risk that is served, so that the sum of risks stays allowed."""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt
from statistics import NormalDist
from typing import Final

from aicache._learned._target import Target

__all__ = ["allowance", "caution", "correction", "cutoff", "quantile_for"]

_SERVED: Final = 0.97
"""At most this share of the accepted requests is served, the rest is audited. Near the cutoff it is less (.85);
counting on that gave 2 % more hits but, when the questions come class by class, up to 1.25 times the allowed error."""
_NORMAL: Final = NormalDist()


def caution(target: Target) -> float:
    """Standard deviations of the weights by which a risk is estimated too high."""
    return 1.0 if target.per == "requests" else 0.5


def highest(target: Target) -> float:
    """Nothing riskier is ever served, however much of the budget is left: few hits must not be mostly wrong.

    After a change of all answers a cap of .3 at a rate of 1 % let 1.2 % pass, one of .2 lets 1.0 %; at 5 % a cap of .2
    costs 5 % of the hits for nothing.
    """
    return min(0.5, 0.15 + 5 * target.max_error_rate)


def quantile_for(target: Target) -> float:
    """The quantile of the correction that is used: how far it is on the safe side."""
    return 0.8 if target.per == "requests" else 0.6


def correction(wrong: float, predicted: float, quantile: float) -> float:
    """By what factor the predicted risks are too low, from the audits: a quantile of a Gamma(3 + wrong, 3 + predicted).

    The Gamma distribution is the belief about the ratio of a Poisson count to its prediction, after three pseudo
    audits that were predicted well. Its quantile by Wilson and Hilferty's cube, right to 1 % for shapes of 3 and more.
    """
    shape = 3 + wrong
    ninth = 1 / (9 * shape)
    cube = (1 - ninth + _NORMAL.inv_cdf(quantile) * sqrt(ninth)) ** 3
    return float(min(4.0, max(0.5, shape * cube / (3 + predicted))))


def allowance(target: Target, requests: int, hits: int) -> float:
    """The error rate to aim at now: a little less than allowed as long as few have been counted."""
    count = requests if target.per == "requests" else hits
    factor = 1 - 1 / sqrt(1 + target.max_error_rate * count)
    if target.per == "hits":
        factor = max(0.3, factor)
    return target.max_error_rate * factor


def cutoff(risks: Iterable[float], factor: float, target: Target, allowed: float) -> float:
    """The largest risk that may be served, given the risks of the last requests and the error rate to aim at.

    `requests`: the risks up to it sum to the allowed rate times the number of requests. `hits`: they average to it.
    """
    import numpy

    last = numpy.sort(numpy.fromiter(risks, numpy.float64))
    seen = numpy.minimum(1.0, factor * last)
    floor = target.floor
    true = numpy.clip((seen - floor.false_different) / (1 - floor.false_different - floor.false_same), 0.0, 1.0)
    total = numpy.cumsum(true)
    if target.per == "requests":
        count = int(numpy.searchsorted(total * _SERVED, allowed * len(last), "right"))
    else:
        means = total / numpy.arange(1, len(last) + 1)  # Sorted, for the mean of ever larger numbers grows.
        count = int(numpy.searchsorted(means, allowed, "right"))
    if 0 < count < len(last) and last[count] == last[count - 1]:
        count = int(numpy.searchsorted(last, last[count], "left"))  # Equal risks are all served or none is.
    return min(highest(target), float(last[count - 1])) if count else 0.0
