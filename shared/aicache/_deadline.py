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
    """The time by which an operation's store calls must be over. The clock stops while it embeds or
    verifies.

    These have limits of their own (`embed_timeout`, `verify_timeout`): a model may well take longer than a store may.

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
        try:
            with _Cancelling(self.remaining()):
                return await waiting
        except _PassedError:
            raise self._passed() from None

    @staticmethod
    def _passed() -> StoreTimeoutError:
        return StoreTimeoutError("the store did not answer within the time given; the call goes on without it")


class _PassedError(Exception):
    """The block's time is over; never leaves this module."""


class _Cancelling:
    """Cancels what this task awaits in the block once its time is over, again and again until the block is left.

    As `asyncio.timeout`, which cancels once: before Python 3.12 `asyncio.wait_for`, which redis-py sends with, swallows
    a cancellation that comes as it ends, and what follows would then wait as long as it likes.
    """

    __slots__ = ("_before", "_count", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._count = 0

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._before = task.cancelling()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._cancel)

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        self._timer.cancel()
        for _ in range(self._count):
            self._task.uncancel()
        # Unless somebody else has cancelled it as well.
        if self._count and kind is asyncio.CancelledError and self._task.cancelling() <= self._before:
            raise _PassedError

    def _cancel(self) -> None:
        self._count += 1
        self._task.cancel()
        self._timer = asyncio.get_running_loop().call_later(_AGAIN, self._cancel)


_AGAIN: Final = 0.005
"""Seconds between two cancellations."""

_current: Final[ContextVar[Deadline | None]] = ContextVar("aicache_deadline", default=None)


def time_left(otherwise: float) -> float:
    """Seconds a store call may still take, at most `otherwise`: what a networked store sets its timeouts to.

    Raises:
        StoreTimeoutError: none is left.
    """
    deadline = _current.get()
    return otherwise if deadline is None else min(otherwise, deadline.remaining())
