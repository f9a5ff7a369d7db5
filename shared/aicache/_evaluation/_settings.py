"""What an evaluation tries: a matcher with its options, as a user would write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aicache._learned import Floor
from aicache._open import CacheOptions
from aicache.calibration import Calibration

__all__ = ["KINDS", "Kind", "Learned", "Setting", "Static"]

Kind = Literal["plain", "guards", "learned", "certified"]
KINDS: dict[Kind, str] = {
    "plain": "threshold alone",
    "guards": "threshold + guards + margin",
    "learned": "learned",
    "certified": "learned, certified",
}
"""The four kinds of settings, with what people call them."""


@dataclass(frozen=True, slots=True)
class Static:
    """A threshold, with the guards and the margin that belong to it or all alone."""

    threshold: float
    margin: float = 0.05
    plain: bool = False

    @property
    def kind(self) -> Kind:
        """The curve of a drawing that it belongs to."""
        return "plain" if self.plain else "guards"

    @property
    def value(self) -> float:
        """Its place on that curve."""
        return self.threshold

    @property
    def name(self) -> str:
        """What people call it, in a few words."""
        return f"threshold {self.threshold:.3f}{' alone' if self.plain else ''}"

    def options(self) -> CacheOptions:
        """It as options of a cache."""
        if self.plain:
            return {"threshold": self.threshold, "margin": 0.0, "guards": ()}
        return {"threshold": self.threshold, "margin": self.margin}


@dataclass(frozen=True, slots=True)
class Learned:
    """A bound on the error, from which the matcher learns what to serve."""

    max_error_rate: float
    per: Literal["requests", "hits"] = "requests"
    certified: bool = False
    floor: float = 0.0
    """Share of equal answers that the comparator calls different, as the cache is told."""

    @property
    def kind(self) -> Kind:
        """The curve of a drawing that it belongs to."""
        return "certified" if self.certified else "learned"

    @property
    def value(self) -> float:
        """Its place on that curve."""
        return self.max_error_rate

    @property
    def name(self) -> str:
        """What people call it, in a few words."""
        told = f", floor {self.floor:g}" if self.floor else ""
        return f"{self.max_error_rate * 100:g} % of {self.per}{', certified' if self.certified else ''}{told}"

    def options(self) -> CacheOptions:
        """It as options of a cache."""
        options: CacheOptions = {
            "max_error_rate": self.max_error_rate,
            "per": self.per,
            "certified": self.certified,
        }
        if self.floor:
            options["calibration"] = Calibration(Floor(false_different=self.floor))
        return options


Setting = Static | Learned
