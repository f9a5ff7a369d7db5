"""Small state beside a cache: what is due again, and what has been said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

__all__ = ["Chore", "OnceOnly"]

MOST_TEXTS: Final = 100
"""A bound, in case texts vary."""


@dataclass(slots=True)
class Chore:
    """Something to do every `interval` seconds, by whoever comes along. A race does it twice: harmless."""

    interval: float
    last: float

    def due(self, now: float) -> bool:
        """True, and done until the interval is over again."""
        if now - self.last < self.interval:
            return False
        self.last = now
        return True


@dataclass(slots=True)
class OnceOnly:
    """The texts that have been said."""

    said: set[str] = field(default_factory=set)

    def first_time(self, text: str) -> bool:
        """True the first time a text comes; never after many different ones."""
        if text in self.said or len(self.said) >= MOST_TEXTS:
            return False
        self.said.add(text)
        return True
