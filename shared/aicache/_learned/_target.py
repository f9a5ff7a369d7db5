"""What the user asks for: how many answers may be wrong, of what, and with what certainty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aicache._errors import ConfigurationError

__all__ = ["Floor", "Target"]


@dataclass(frozen=True, slots=True)
class Floor:
    """How often the comparator itself errs; measured by asking a model twice (A/A), 0 for a perfect one."""

    false_different: float = 0.0
    """Share of equal answers that it calls different, in [0, .5)."""
    false_same: float = 0.0
    """Share of different answers that it calls the same, in [0, .5)."""

    def __post_init__(self) -> None:
        for name in ("false_different", "false_same"):
            share = getattr(self, name)
            if not (isinstance(share, int | float) and 0 <= share < 0.5):
                raise ConfigurationError(name, f"give a share in [0, 0.5); got {share!r}")


@dataclass(frozen=True, slots=True)
class Target:
    """The error rate that is allowed. "Wrong" means: the comparator calls it different from a fresh answer."""

    max_error_rate: float
    """The share of `per` that may be answered wrongly, in (0, .5]."""
    per: Literal["requests", "hits"] = "requests"
    """`requests`: all lookups that reach the matcher count; `hits`: only answers served."""
    certified: bool = False
    """True: a bound that holds at any time under any traffic, at the price of a slower start and fewer hits."""
    floor: Floor = Floor()

    def __post_init__(self) -> None:
        rate = self.max_error_rate
        if not (isinstance(rate, int | float) and 0 < rate <= 0.5):
            raise ConfigurationError("max_error_rate", f"give a share in (0, 0.5]; got {rate!r}")
        if self.per not in {"requests", "hits"}:
            raise ConfigurationError("per", f"give 'requests' or 'hits'; got {self.per!r}")
