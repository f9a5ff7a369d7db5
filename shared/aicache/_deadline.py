"""How long the store calls of one operation may take together."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, TypeVar

from aicache._clock import Clock
from aicache._errors import StoreTimeoutError

__all__ = ["Deadline", "time_left"]

R = TypeVar("R")


class Deadline:
    """The time by which an operation's store calls must be over. The clock stops while it embeds.

    Embedding has a limit of its own (`embed_timeout`): a remote embedder may well take longer than a store may.

    Args:
        clock: where time comes from.
        seconds: from now; None for no deadline.
    """

    __slots__ = ("_at", "_clock")

    def __init__(self, clock: Clock, seconds: float | None) -> None:
        self._clock = clock
        self._at = math.inf if seconds is None else clock.monotonic() + seconds

    @property
    def endless(self) -> bool:
        """True when there is no deadline."""
        return self._at == math.inf

    def remaining(self) -> float:
        """Seconds left: infinite without a deadline, at least 0.

        Raises:
            StoreTimeoutError: none is left.
        """
        if self._at == math.inf:
            return math.inf
        left = self._at - self._clock.monotonic()
        if left <= 0:
            raise self._passed()
        return left

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The block's duration does not count."""
        if self._at == math.inf:
            yield
            return
        started = self._clock.monotonic()
        try:
            yield
        finally:
            self._at += self._clock.monotonic() - started

    def call(self, act: Callable[[], R]) -> R:
        """Carry it out here; it can ask `time_left` what is left for it. Does not interrupt it."""
        token = _current.set(self)
        try:
            return act()
        finally:
            _current.reset(token)

    def call_in_thread(self, act: Callable[[], R], executor: Executor) -> R:
        """Carry it out in a thread and wait no longer than the deadline: for calls that know no limit themselves.

        Raises:
            StoreTimeoutError: the time has passed; the call goes on in its thread unless it had not begun.
        """
        future = executor.submit(self.call, act)
        try:
            # Only a deadline makes a thread worth while; without one the wait has no limit either.
            return future.result(None if self.endless else self.remaining())
        except TimeoutError:
            if future.done() and not future.cancelled():
                raise  # The store's own.
            raise self._passed() from None
        finally:
            future.cancel()

    async def wait(self, waiting: Awaitable[R]) -> R:
        """Await it, no longer than the deadline; then it is cancelled.

        Raises:
            StoreTimeoutError: the time has passed.
        """
        if self.endless:
            return await waiting
        scope = asyncio.timeout(self.remaining())
        try:
            async with scope:
                return await waiting
        except TimeoutError:
            if not scope.expired():
                raise  # The store's own.
            raise self._passed() from None

    @staticmethod
    def _passed() -> StoreTimeoutError:
        return StoreTimeoutError("the store did not answer within the time given; the call goes on without it")


_current: Final[ContextVar[Deadline | None]] = ContextVar("aicache_deadline", default=None)


def time_left(otherwise: float) -> float:
    """Seconds a store call may still take, at most `otherwise`: what a networked store sets its timeouts to.

    Raises:
        StoreTimeoutError: none is left.
    """
    deadline = _current.get()
    return otherwise if deadline is None else min(otherwise, deadline.remaining())
