"""How the parts of a cache are: values for people and for health checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

__all__ = ["Health", "PartHealth", "PartState"]


class PartState(StrEnum):
    """What may be expected of a part."""

    UP = "up"
    """The last call succeeded, or there was none yet."""
    DEGRADED = "degraded"
    """The last calls failed, not yet often enough to leave the part alone."""
    OPEN = "open"
    """The part is left alone: calls that need it end at once, but for one now and then that tries it."""


@dataclass(frozen=True, slots=True)
class PartHealth:
    """The state of one part."""

    state: PartState
    since: float
    """Wall-clock seconds since the epoch at which this state began."""
    why: str = ""
    """The kind of the last failure: the name of an exception type, or `slow`; empty when up."""

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"{self.state} since {since}" + (f" ({self.why})" if self.why else "")


@dataclass(frozen=True, slots=True)
class Health:
    """The state of each part: the store by its name, `embedder` and `verifier` where there is one."""

    parts: Mapping[str, PartHealth]

    @property
    def ok(self) -> bool:
        """True when every part is up."""
        return all(part.state is PartState.UP for part in self.parts.values())

    def __str__(self) -> str:
        width = max((len(name) for name in self.parts), default=0)
        return "\n".join(f"{name:{width}}  {part}" for name, part in self.parts.items())
