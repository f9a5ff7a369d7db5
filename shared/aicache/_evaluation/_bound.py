"""What counts prove about a rate, and which threshold they allow to recommend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, exp, lgamma, log, log1p
from typing import Final

from aicache._errors import ConfigurationError

__all__ = ["ALPHA", "THRESHOLDS", "Advice", "Trial", "needed", "recommend", "upper"]

ALPHA: Final = 0.05
"""Probability with which a recommendation may be wrong."""
THRESHOLDS: Final = tuple(round(0.99 - 0.01 * step, 2) for step in range(25))
"""Thresholds that are tried for a recommendation, from strict to loose: .99 to .75."""


def upper(wrong: int, count: int, alpha: float = ALPHA) -> float:
    """The exact (Clopper-Pearson) upper bound of a rate after `wrong` of `count`; 1 where nothing was counted.

    It is the rate at which so few would be wrong with probability alpha.
    """
    if wrong >= count:
        return 1.0
    low, high = wrong / count, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(wrong, count, middle) > alpha else (low, middle)
    return high


def _at_most(wrong: int, count: int, rate: float) -> float:
    """P(X <= wrong) of a binomial."""
    if rate <= 0:
        return 1.0
    if rate >= 1:
        return 0.0
    right = log1p(-rate)
    odds = log(rate) - right
    total = lgamma(count + 1) + count * right
    return sum(exp(total - lgamma(i + 1) - lgamma(count - i + 1) + i * odds) for i in range(wrong + 1))


def needed(target: float, alpha: float = ALPHA) -> int:
    """Hits with which testing begins: twice as many as show the target where not one is wrong."""
    if not 0 < target < 1:
        raise ConfigurationError("target", f"give a share in (0, 1); got {target!r}")
    return 2 * ceil(log(alpha) / log1p(-target))


@dataclass(frozen=True, slots=True)
class Trial:
    """What a replay with one threshold gave."""

    threshold: float
    requests: int
    hits: int
    wrong: int


@dataclass(frozen=True, slots=True)
class Advice:
    """The loosest threshold that passed, and all that were tried."""

    target: float
    best: Trial | None
    tried: tuple[Trial, ...]

    @property
    def sentence(self) -> str:
        """It for people, with the option to paste."""
        if self.best is None:
            return f"No threshold can be recommended: {self._why_none()}."
        best = self.best
        return (
            f"Recommended for these questions: threshold={best.threshold:.2f} ({best.hits / best.requests:.1%} of the "
            f"requests are served; with 95 % confidence at most {upper(best.wrong, best.hits):.2%} of the hits and "
            f"{upper(best.wrong, best.requests):.2%} of the requests are wrong; seen: {best.wrong} of {best.hits})."
        )

    def _why_none(self) -> str:
        last = self.tried[-1]
        if last.hits < needed(self.target):
            return (
                f"even at {last.threshold:.2f} there are only {last.hits} hits, and {needed(self.target)} are needed "
                f"to show {self.target:.1%}; give more questions, or a larger --target"
            )
        return (
            f"at {last.threshold:.2f} {last.wrong} of {last.hits} hits are wrong, which does not show "
            f"{self.target:.1%}; try max_error_rate, or a larger --target"
        )


def recommend(target: float, replay: Callable[[Sequence[float]], Iterable[Trial]], at_once: int = 1) -> Advice:
    """The lowest threshold whose hits are shown to be wrong no more often than the target.

    Thresholds are tested from strict to loose, each at the full level, and the first one that fails ends it (testing in
    a fixed sequence): then the probability that any threshold passes wrongly is at most alpha, however many
    were tried. Those with too few hits to pass are skipped, which depends on how many hits there are and not on
    whether they are right.

    Args:
        target: the share of the hits that may be wrong.
        replay: what some thresholds give.
        at_once: how many are replayed at a time.
    """
    enough = needed(target)
    best: Trial | None = None
    tried: list[Trial] = []
    for start in range(0, len(THRESHOLDS), at_once):
        for trial in replay(THRESHOLDS[start : start + at_once]):
            tried.append(trial)
            if trial.hits < enough:
                continue
            if upper(trial.wrong, trial.hits) > target:
                return Advice(target, best, tuple(tried))
            best = trial
    return Advice(target, best, tuple(tried))
