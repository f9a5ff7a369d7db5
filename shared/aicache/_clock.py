"""Time as a port: the only place of the core that reads a clock."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Where time comes from. `aicache.testing.FakeClock` is the one for tests."""

    def wall(self) -> float:
        """Seconds since the epoch; shared between hosts, may jump. For the age of entries."""

    def monotonic(self) -> float:
        """Seconds from some start; never goes back. For durations and deadlines."""


class SystemClock:
    """The clocks of the operating system."""

    __slots__ = ()

    # The functions themselves: a lookup asks three times, and a Python frame around each costs more than they do.
    wall = staticmethod(time.time)
    monotonic = staticmethod(time.perf_counter)
