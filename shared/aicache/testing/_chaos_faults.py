"""What a `ChaosStore` is told to do, and what befalls one of its calls."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from aicache._errors import StoreError
from aicache.testing._around import chosen_methods

__all__ = ["ChaosFaults", "Fate", "Faults"]


class ChaosFaults(TypedDict, total=False):
    """What a `ChaosStore` may do. Shares are from 0 (never, the default) to 1 (always)."""

    error_rate: float
    """Share of calls that raise `error`."""
    error: BaseException
    """What they raise; default a `StoreError`."""
    delay: float | tuple[float, float]
    """Seconds every call takes longer; of a pair, something between the two."""
    hang: float
    """Share of calls that do not return until `release`, `set`, `calm` or `close`."""
    lose_writes: float
    """Share of writes that are not carried out, although they seem to be: of calls of `write` and `write_many`."""
    damage: float
    """Share of entries that cannot be read: `fetch` raises `UnreadableEntryError`, `nearest` and `entries` leave them
    out."""
    stale: bool
    """True: reads find the entries that were there when this was switched on, as from a replica that lags behind. What
    is written, touched, joined, removed and cleared takes effect when it is switched off. Lessons do not lag."""
    only: Sequence[str]
    """The methods that misbehave, as `Store`, `BulkStore` and `LessonStore` call them; default all but `close`."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What befalls one call."""

    delay: float = 0.0
    hangs: bool = False
    error: BaseException | None = None
    loses: bool = False
    damage: float = 0.0
    stale: bool = False
    releases: int = 0
    """Releases before it began."""
    chance: random.Random | None = None

    def damages(self) -> bool:
        """Drawn for each entry."""
        return self.chance is not None and self.chance.random() < self.damage


@dataclass(frozen=True, slots=True)
class Faults:
    """`ChaosFaults`, checked."""

    error_rate: float
    error: BaseException
    delay: tuple[float, float]
    hang: float
    lose_writes: float
    damage: float
    stale: bool
    methods: frozenset[str]

    @classmethod
    def of(cls, given: ChaosFaults) -> Faults:
        """The faults with their defaults.

        Raises:
            ValueError: one makes no sense.
        """
        if unknown := set(given) - set(ChaosFaults.__annotations__):
            raise ValueError(
                f"{min(unknown)}: there is no such fault; there are: {', '.join(ChaosFaults.__annotations__)}"
            )
        delay = given.get("delay", 0.0)
        least, most = delay if isinstance(delay, tuple) else (delay, delay)
        if not 0 <= least <= most < math.inf:
            raise ValueError(f"delay: give seconds of at least 0, or a pair with the less first; got {delay!r}")
        error = given.get("error", StoreError("The store was told to fail."))
        if not isinstance(error, BaseException):
            raise ValueError(f"error: give an exception, made; got {error!r}")
        return cls(
            error_rate=_share(given, "error_rate"),
            error=error,
            delay=(least, most),
            hang=_share(given, "hang"),
            lose_writes=_share(given, "lose_writes"),
            damage=_share(given, "damage"),
            stale=bool(given.get("stale", False)),
            methods=chosen_methods("only", given.get("only", ())),
        )

    def draw(self, method: str, chance: random.Random, releases: int) -> Fate:
        """What befalls a call of this method. Always as many draws, so that one fault does not shift the others."""
        length, hangs, fails, loses = (chance.random() for _ in range(4))
        if method not in self.methods:
            return Fate()
        least, most = self.delay
        return Fate(
            delay=least + (most - least) * length,
            hangs=hangs < self.hang,
            error=self.error if fails < self.error_rate else None,
            loses=loses < self.lose_writes,
            damage=self.damage,
            stale=self.stale,
            releases=releases,
            chance=chance,
        )


def _share(given: ChaosFaults, name: str) -> float:
    share = given.get(name, 0.0)
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ValueError(f"{name}: give a share from 0 to 1; got {share!r}")
    return share
