"""A breaker: when the calls of a part keep failing it is left alone for a while, and nobody waits for it.

pybreaker counts the failures and decides between closed, half-open and open. It is told of each call through
`calling()` once the call is over, never around it: entering that context costs 8 us where the check here costs well
under one; a call that succeeded but was slow could not be counted as failed from outside; and reports of calls that
began before the breaker opened must not reach it, for a late success would close it. What is added here:

- time: when the next attempt may be made is kept on the injected monotonic clock. pybreaker reads the wall clock, which
  may jump; its storage is told no opening time, so that it never does.
- one attempt at a time: pybreaker lets every call through once it is half-open.
- while all goes well pybreaker is not asked at all, for there is nothing it would change.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from aicache._clock import Clock
from aicache._errors import CONTROL, ConfigurationError, UnavailableError
from aicache._fork import in_forked_child
from aicache._health import PartHealth, PartState

if TYPE_CHECKING:
    from pybreaker import CircuitBreaker

__all__ = ["Breaker", "Call"]

SLOW: Final = "slow"
"""What stands in place of an exception type when a call succeeded too late."""

ATTEMPT_LEASE: Final = 60.0
"""Seconds after which an attempt that never reported no longer keeps others out: its process was forked away, say."""


class _ToldFailureError(Exception):
    """Stands for a failure when pybreaker is told of one; never leaves this module."""


class Breaker:
    """Guards one part: `with breaker.enter(): ...`, around a call or an await. Safe to use from any thread.

    No lock is held during a call. Cancellation (any exception that is no `Exception`) counts neither way.

    Args:
        part: its name, for messages.
        clock: where time comes from.
        failures: failures in a row that open it, at least 1.
        reset: seconds after which one call is let through to try the part, above 0.
        harmless: exceptions that say nothing against the part: it answered.
        on_change: told each new state, outside the lock.

    Raises:
        ConfigurationError: `failures` or `reset` is out of range.
    """

    __slots__ = (
        "__weakref__",
        "_circuit",
        "_clock",
        "_failing",
        "_failures",
        "_generation",
        "_harmless",
        "_health",
        "_lock",
        "_on_change",
        "_part",
        "_reset",
        "_until",
    )

    def __init__(
        self,
        part: str,
        *,
        clock: Clock,
        failures: int = 5,
        reset: float = 5.0,
        harmless: tuple[type[Exception], ...] = (),
        on_change: Callable[[str, PartHealth], None] | None = None,
    ) -> None:
        if failures < 1:
            raise ConfigurationError("failures", f"give a whole number of at least 1; got {failures!r}")
        if not (reset > 0 and math.isfinite(reset)):
            raise ConfigurationError("reset", f"give seconds above 0; got {reset!r}")
        self._part = part
        self._clock = clock
        self._reset = reset
        self._harmless = harmless
        self._on_change = on_change
        self._failures = failures
        self._circuit = _make_circuit(failures)
        self._lock = threading.Lock()
        self._until: float | None = None
        """None while closed; else when the next attempt may be made."""
        self._generation = 0
        """Changes with every opening, closing and attempt: a report of an earlier generation is no news."""
        self._failing = False
        self._health = PartHealth(PartState.UP, clock.wall())
        in_forked_child(self._begin_anew)

    def _begin_anew(self) -> None:
        """In a forked child: the locks may be held by a thread that is not there, and its calls will never report."""
        self._circuit = _make_circuit(self._failures)
        self._lock = threading.Lock()
        self._until = None
        self._generation += 1
        self._failing = False
        self._health = PartHealth(PartState.UP, self._clock.wall())

    @property
    def health(self) -> PartHealth:
        """The state of the part now."""
        return self._health

    def check(self) -> None:
        """Pass when a call would be let through; takes no permission.

        Raises:
            UnavailableError: the part is left alone.
        """
        until = self._until
        if until is not None and self._clock.monotonic() < until:
            raise self._refusal()

    def enter(self, slow_after: float = math.inf) -> Call:
        """Permission for one call, which must report: use it as a context manager.

        Args:
            slow_after: a call that takes longer, in seconds, counts as failed although it succeeded.

        Raises:
            UnavailableError: the part is left alone, or another call is just trying it.
        """
        if self._until is None:
            return Call(self, self._generation, slow_after)
        now = self._clock.monotonic()
        if now < self._until:
            raise self._refusal()
        with self._lock:
            if self._until is not None:
                if now < self._until:
                    raise self._refusal()
                self._until = now + max(ATTEMPT_LEASE, self._reset)
                self._generation += 1
            return Call(self, self._generation, slow_after)

    def _refusal(self) -> UnavailableError:
        return UnavailableError(self._part, self._health.why)

    # ------------------------------------------------------------------------------------ reports of calls

    def _succeeded(self, call: Call) -> None:
        if self._until is None and not self._failing:
            return
        with self._lock:
            if self._is_news(call):
                with self._circuit.calling():
                    pass
                change = self._adopt("")
            else:
                change = None
        self._tell(change)

    def _failed(self, call: Call, why: str) -> None:
        with self._lock:
            if self._is_news(call):
                with suppress(_ToldFailureError), self._circuit.calling():
                    raise _ToldFailureError
                change = self._adopt(why)
            else:
                change = None
        self._tell(change)

    def _abandoned(self, call: Call) -> None:
        with self._lock:
            if self._is_news(call) and self._until is not None:
                self._until = self._clock.monotonic()  # The next call may try at once.

    def _is_news(self, call: Call) -> bool:
        return call.generation == self._generation

    def _adopt(self, why: str) -> PartHealth | None:
        """Take over what pybreaker decided; the new state if it changed."""
        was_open = self._until is not None
        self._failing = self._circuit.fail_counter > 0
        if self._circuit.current_state == "open":
            self._until = self._clock.monotonic() + self._reset
            state = PartState.OPEN
        else:
            self._until = None
            state = PartState.DEGRADED if self._failing else PartState.UP
        if was_open or state is PartState.OPEN:
            self._generation += 1
        before = self._health
        changed = state is not before.state
        self._health = PartHealth(state, self._clock.wall() if changed else before.since, why)
        return self._health if changed else None

    def _tell(self, change: PartHealth | None) -> None:
        if change is not None and self._on_change is not None:
            self._on_change(self._part, change)


class Call:
    """One permitted call; as a context manager it reports how the block went. It reports once.

    For a caller that stops waiting while the call goes on in another thread there are `failed` and `abandoned`.
    """

    __slots__ = ("_breaker", "_over", "_slow_after", "_started", "generation")

    def __init__(self, breaker: Breaker, generation: int, slow_after: float) -> None:
        self._breaker = breaker
        self.generation = generation
        self._slow_after = slow_after
        self._started = 0.0
        self._over = False

    def confirm(self) -> None:
        """Pass when the permission still holds: for a call that had to wait for its turn.

        Raises:
            UnavailableError: the breaker has opened since.
        """
        if not self._breaker._is_news(self) and self._breaker._until is not None:
            self._over = True
            raise self._breaker._refusal()

    def __enter__(self) -> Self:
        if self._slow_after != math.inf:
            self._started = self._breaker._clock.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, self._breaker._harmless):
            self.succeeded()
        elif isinstance(error, CONTROL):
            self.abandoned()
        else:
            self.failed(error)

    def succeeded(self) -> None:
        """The part answered."""
        if self._over:
            return
        self._over = True
        breaker = self._breaker
        if self._slow_after != math.inf and breaker._clock.monotonic() - self._started > self._slow_after:
            breaker._failed(self, SLOW)
        else:
            breaker._succeeded(self)

    def failed(self, error: BaseException) -> None:
        """The part did not answer, or answered with an error."""
        if not self._over:
            self._over = True
            self._breaker._failed(self, type(error).__name__)

    def abandoned(self) -> None:
        """Nobody knows how it would have gone."""
        if not self._over:
            self._over = True
            self._breaker._abandoned(self)


def _make_circuit(failures: int) -> CircuitBreaker:
    # Imported here: pybreaker imports redis and tornado where they are installed, which takes 0.1 s and which
    # `import aicache` must not do.
    from pybreaker import STATE_CLOSED, CircuitBreaker, CircuitMemoryStorage

    class Untimed(CircuitMemoryStorage):
        """Storage without an opening time: `Breaker` knows when the next attempt may be made."""

        @property
        def opened_at(self) -> None:
            return None

        @opened_at.setter
        def opened_at(self, when: object) -> None:
            pass

    return CircuitBreaker(fail_max=failures, state_storage=Untimed(STATE_CLOSED), throw_new_error_on_trip=False)
