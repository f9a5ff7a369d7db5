"""What a user decides about failing parts: how long they may take, when they are left alone, what is kept meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from aicache._errors import ConfigurationError
from aicache._policy import is_number

__all__ = ["LOOKUP_SECONDS", "UPDATE_SECONDS", "Resilience", "Timeout"]

Timeout: TypeAlias = float | Literal["auto"] | None
"""Seconds; None for no limit; `auto`: a limit where the store is reached over a network."""

LOOKUP_SECONDS: Final = 0.1
UPDATE_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Resilience:
    """The limits of one cache.

    Raises:
        ConfigurationError: at construction, naming the parameter.
    """

    lookup_timeout: Timeout = "auto"
    """Seconds the store may take for one lookup, embedding not counted. `auto`: 0.1 over a network, else no limit:
    memory and a file work for us at that very moment, and giving up on work that is nearly done saves nothing."""
    update_timeout: Timeout = "auto"
    """The same for an update; `auto`: 0.25 over a network, else no limit."""
    breaker_failures: int = 5
    """Failures in a row after which the store, the embedder or the verifier is left alone."""
    breaker_reset: float = 5.0
    """Seconds after which one call tries it again."""
    pending_entries: int = 1_000
    """Answers kept that could not be written, until the store is back; 0 for none."""
    pending_bytes: int = 16 * 2**20
    """Their bytes."""

    def __post_init__(self) -> None:
        for name in ("lookup_timeout", "update_timeout"):
            seconds = getattr(self, name)
            if seconds not in {None, "auto"} and not (is_number(seconds) and seconds > 0):
                raise ConfigurationError(name, f'give seconds above 0, None for no limit, or "auto"; got {seconds!r}')
        for name, least in (("breaker_failures", 1), ("pending_entries", 0), ("pending_bytes", 0)):
            count = getattr(self, name)
            if not isinstance(count, int) or isinstance(count, bool) or count < least:
                raise ConfigurationError(name, f"give a whole number of at least {least}; got {count!r}")
        if not (is_number(self.breaker_reset) and self.breaker_reset > 0):
            raise ConfigurationError("breaker_reset", f"give seconds above 0; got {self.breaker_reset!r}")

    def lookup_seconds(self, *, networked: bool) -> float | None:
        """The limit of a lookup."""
        return _resolve(self.lookup_timeout, LOOKUP_SECONDS, networked=networked)

    def update_seconds(self, *, networked: bool) -> float | None:
        """The limit of an update."""
        return _resolve(self.update_timeout, UPDATE_SECONDS, networked=networked)


def _resolve(timeout: Timeout, default: float, *, networked: bool) -> float | None:
    if isinstance(timeout, str):  # "auto"
        return default if networked else None
    return timeout
