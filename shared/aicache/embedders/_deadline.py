"""Threads for calls that may never return."""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Generic, TypeVar

from aicache._clock import Clock
from aicache._errors import EmbedderError, EmbedderTimeoutError

__all__ = ["DeadlineThreads", "Rest"]

R = TypeVar("R")

IDLE_SECONDS: Final = 10.0
"""A thread without work ends after this; the next call makes a new one in some 50 us."""

QUEUE_FACTOR: Final = 64
"""Calls that may wait, per thread. A caller leaves the queue at its deadline, so more could not be served anyway."""

CLOSED: Final = "the embedder has been closed"

REST_SECONDS: Final = 10.0
"""How long calls are refused after a row of late ones, where there is no thread whose return would tell."""


class _Call(Generic[R]):
    """A call that waits for a thread or is carried out by one."""

    __slots__ = ("act", "future", "started")

    def __init__(self, act: Callable[[], R]) -> None:
        self.act = act
        self.future: Future[R] = Future()
        self.started: float | None = None


class _Shared:
    """What the threads of one process share. A forked child makes its own: the lock may be held at that moment."""

    __slots__ = ("closed", "pid", "ready", "running", "threads", "waiting")

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.ready = threading.Condition()
        self.waiting: deque[_Call[object]] = deque()
        self.running: set[_Call[object]] = set()
        self.threads = 0
        self.closed = False


class DeadlineThreads:
    """At most `count` daemon threads, made when needed, that end when idle.

    Not a `ThreadPoolExecutor`: the interpreter waits for its threads at exit, so that one call that hangs would keep a
    finished program alive; and its queue has no bound.
    """

    __slots__ = ("_clock", "_count", "_shared", "_timeout")

    def __init__(self, count: int, timeout: float | None, clock: Clock) -> None:
        self._count = count
        self._timeout = timeout
        self._clock = clock
        self._shared = _Shared()

    def submit(self, act: Callable[[], R]) -> Future[R]:
        """Have it carried out in a thread; cancelling the future takes it out of the queue.

        Raises:
            EmbedderTimeoutError: all threads are held by calls beyond the deadline, or too many calls wait.
        """
        shared = self._of_this_process()
        call: _Call[R] = _Call(act)
        with shared.ready:
            self._refuse_when_stuck(shared)
            shared.waiting.append(call)  # type: ignore[arg-type]  # The result goes to the caller's future only.
            if shared.threads < self._count and len(shared.waiting) + len(shared.running) > shared.threads:
                self._start_thread(shared)
            else:
                shared.ready.notify()
        return call.future

    @property
    def overdue(self) -> int:
        """How many calls run now that have been running for longer than the deadline."""
        shared = self._of_this_process()
        with shared.ready:
            return self._count_overdue(shared)

    def close(self) -> None:
        """Let the threads end once they have finished what they are at; calls that still wait are cancelled."""
        shared = self._of_this_process()
        with shared.ready:
            shared.closed = True
            waiting = [*shared.waiting]
            shared.waiting.clear()
            shared.ready.notify_all()
        for call in waiting:
            # An error and not `cancel`: to a task, a cancelled future looks like its own cancellation.
            if call.future.set_running_or_notify_cancel():
                call.future.set_exception(EmbedderTimeoutError(CLOSED))

    def _start_thread(self, shared: _Shared) -> None:
        thread = threading.Thread(target=_work, args=(shared, self._clock), name="aicache-embedder", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # No more threads, or the interpreter is about to exit.
            shared.waiting.pop()
            raise EmbedderError("the embedder got no thread") from error
        shared.threads += 1

    def _of_this_process(self) -> _Shared:
        if self._shared.pid != os.getpid():
            self._shared = _Shared()
        return self._shared

    def _refuse_when_stuck(self, shared: _Shared) -> None:
        if shared.closed:
            raise EmbedderTimeoutError(CLOSED)
        if self._count_overdue(shared) >= self._count:
            raise EmbedderTimeoutError("the embedder is still busy with calls that are past their deadline")
        if len(shared.waiting) >= QUEUE_FACTOR * self._count:
            # Those whose callers have gone no longer count.
            live = [call for call in shared.waiting if not call.future.cancelled()]
            shared.waiting.clear()
            shared.waiting.extend(live)
            if len(live) >= QUEUE_FACTOR * self._count:
                raise EmbedderTimeoutError("too many calls wait for the embedder")

    def _count_overdue(self, shared: _Shared) -> int:
        if self._timeout is None:
            return 0
        limit = self._clock.monotonic() - self._timeout
        return sum(call.started is not None and call.started <= limit for call in shared.running)


class Rest:
    """Refuses calls for a while after `limit` late ones in a row.

    For awaited calls: cancelled at their deadline, they hold no thread, and nothing would tell that the embedder hangs.
    """

    __slots__ = ("_clock", "_late", "_limit", "_until")

    def __init__(self, limit: int, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._late = 0
        self._until = -math.inf

    def check(self) -> None:
        """Pass, or refuse.

        Raises:
            EmbedderTimeoutError: the rest is not over.
        """
        if self._clock.monotonic() < self._until:
            raise EmbedderTimeoutError("the embedder was too slow several times in a row; it is left alone for a while")

    def late(self) -> None:
        """A call passed its deadline."""
        self._late += 1
        if self._late >= self._limit:
            self._until = self._clock.monotonic() + REST_SECONDS

    def in_time(self) -> None:
        """A call came back."""
        self._late = 0


def _work(shared: _Shared, clock: Clock) -> None:
    """The life of a thread."""
    while (call := _next_call(shared, clock)) is not None:
        try:
            if call.future.set_running_or_notify_cancel():
                try:
                    result = call.act()
                except BaseException as error:  # noqa: BLE001 - it belongs to the caller, not to this thread
                    call.future.set_exception(error)
                else:
                    call.future.set_result(result)
        finally:
            with shared.ready:
                shared.running.discard(call)
        del call  # The last result must not live on while this thread waits.


def _next_call(shared: _Shared, clock: Clock) -> _Call[object] | None:
    with shared.ready:
        if not shared.waiting and not shared.closed:
            shared.ready.wait(IDLE_SECONDS)
        if not shared.waiting:
            shared.threads -= 1
            return None
        call = shared.waiting.popleft()
        call.started = clock.monotonic()
        shared.running.add(call)
        return call
