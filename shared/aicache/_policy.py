"""What a user decides: how long an answer lives, how close is close enough, what is left alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from aicache._errors import ConfigurationError
from aicache._model import Extractor, Query

__all__ = ["CachePolicy", "is_number"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """The rules of one cache.

    Raises:
        ConfigurationError: at construction, naming the parameter.
    """

    ttl: float | None = None
    """Seconds an answer is served; None for no limit."""
    ttl_jitter: float = 0.0
    """Share of the TTL, in [0, 1), by which lives are shortened, each key by its own fixed part of it,
    so that entries written together do not expire together."""
    sliding: bool = False
    """True: a hit starts the TTL anew (once a tenth of it is over). Off by default: a popular wrong answer would never
    expire."""
    threshold: float = 0.97
    """Least cosine of a semantic hit, in (0, 1]. The default is for free-form answers, measured:
    docs/correctness.md."""
    margin: float = 0.05
    """By how much the score must exceed that of the nearest entry with a different answer, in [0, 1)."""
    candidates: int = 10
    """Neighbours fetched for a decision, at least 1."""
    semantic: bool = True
    """False: exact matching only."""
    question: Extractor | None = None
    """Finds the question in a conversation; None uses the labels of the stock templates."""
    bypass: Callable[[Query], bool] | None = None
    """True for a query that must not be cached ("what time is it?")."""
    max_entry_bytes: int = 1_000_000
    """An answer larger than this is not stored."""

    def __post_init__(self) -> None:
        _require(
            self.ttl is None or (is_number(self.ttl) and self.ttl > 0),
            "ttl",
            "seconds above 0, or None",
            self.ttl,
        )
        _require(
            is_number(self.ttl_jitter) and 0 <= self.ttl_jitter < 1,
            "ttl_jitter",
            "a share in [0, 1)",
            self.ttl_jitter,
        )
        _require(
            is_number(self.threshold) and 0 < self.threshold <= 1,
            "threshold",
            "a cosine in (0, 1]",
            self.threshold,
        )
        _require(is_number(self.margin) and 0 <= self.margin < 1, "margin", "a difference in [0, 1)", self.margin)
        _require(_is_count(self.candidates), "candidates", "a whole number of at least 1", self.candidates)
        _require(
            _is_count(self.max_entry_bytes),
            "max_entry_bytes",
            "a whole number of at least 1",
            self.max_entry_bytes,
        )


def is_number(value: object) -> bool:
    """True for a finite int or float, not for a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _require(holds: bool, parameter: str, wanted: str, got: object) -> None:  # noqa: FBT001 - a condition
    if not holds:
        raise ConfigurationError(parameter, f"give {wanted}; got {got!r}")
