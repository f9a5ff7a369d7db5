"""Threads for calls that may never return, and when to ask no more."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from aicache._clock import Clock
from aicache._errors import AICacheError, EmbedderError, EmbedderTimeoutError
from aicache._fork import in_forked_child

__all__ = ["EMBEDDER", "DeadlineThreads", "Seat", "Watched"]

R = TypeVar("R")

IDLE_SECONDS: Final = 10.0
"""A thread without work ends after this; the next call makes a new one in some 50 us."""

QUEUE_FACTOR: Final = 64
"""Calls that may wait, per thread. A caller leaves the queue at its deadline, so more could not be served anyway."""

LATE_CALLS: Final = 2
"""So many late calls in a row, and the embedder is left alone: one may be a hiccup."""

REST_SECONDS: Final = 10.0
"""How long it is left alone. One wait in ten seconds is what a slow embedder then costs."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What the calls are calls of, for messages and exceptions."""

    name: str
    """Such as `embedder`."""
    subject: str
    """What one call is about, such as `text`."""
    result: str
    """What one call makes, such as `vector`."""
    error: type[AICacheError]
    too_slow: type[AICacheError]


EMBEDDER: Final = Watched("embedder", "text", "vector", EmbedderError, EmbedderTimeoutError)


class _Call(Generic[R]):
    """A call that waits for a thread or is carried out by one, and the futures of those who wait for it."""

    __slots__ = ("about", "act", "missed", "seats", "started")

    def __init__(self, about: Hashable | None, act: Callable[[], R]) -> None:
        self.about = about
        self.act = act
        self.seats: list[Future[R]] = []
        self.started: float | None = None
        self.missed = False


class Seat(Generic[R]):
    """One caller's place at a call: a future of its own, so that giving up takes nothing from the others."""

    __slots__ = ("call", "future")

    def __init__(self, call: _Call[R]) -> None:
        self.call = call
        self.future: Future[R] = Future()
        call.seats.append(self.future)


class _Shared(Generic[R]):
    """What the threads of one process share. A forked child makes its own: the lock may be held at that moment."""

    __slots__ = ("closed", "flights", "ready", "rest", "running", "threads", "waiting")

    def __init__(self, rest: _Rest, *, closed: bool = False) -> None:
        self.ready = threading.Condition()
        self.waiting: deque[_Call[R]] = deque()
        self.running: set[_Call[R]] = set()
        self.flights: dict[Hashable, _Call[R]] = {}
        self.rest = rest
        self.threads = 0
        self.closed = closed


class DeadlineThreads(Generic[R]):
    """At most `count` daemon threads, made when needed, that end when idle.

    Callers who ask about the same text share one call. After a row of late calls the embedder (or what else is watched)
    rests.

    Not a `ThreadPoolExecutor`: the interpreter waits for its threads at exit, so that one call that hangs would keep a
    finished program alive; and its queue has no bound.
    """

    __slots__ = ("__weakref__", "_clock", "_count", "_shared", "_timeout", "_watched")

    def __init__(self, count: int, timeout: float | None, clock: Clock, watched: Watched = EMBEDDER) -> None:
        self._watched = watched
        self._count = count
        self._timeout = timeout
        self._clock = clock
        self._shared: _Shared[R] = _Shared(_Rest(timeout, clock, watched))
        in_forked_child(self._start_anew)

    def join(self, about: Hashable, act: Callable[[], R]) -> Seat[R]:
        """Take part in the call about this text; without one, have `act` carried out in a thread.

        Raises:
            AICacheError: of the kind `too_slow`: the call about this text is late already, the embedder rests, all
                threads are held by calls beyond the deadline, or too many calls wait.
        """
        shared = self._shared
        with shared.ready:
            call = shared.flights.get(about)
            if call is None:
                self._refuse_when_stuck(shared)
                shared.rest.check()
                call = self._enqueue(shared, _Call(about, act))
                shared.flights[about] = call
            elif call.missed:
                # To wait a second time for what was too slow once would double what a slow embedder costs.
                raise self._too_slow(f"still works on this {self._watched.subject}, past the deadline")
            return Seat(call)

    def wait_for(self, about: Hashable, act: Callable[[], R]) -> R:
        """Join, and wait until the deadline; `act` must let no `TimeoutError` out.

        Raises:
            AICacheError: of the kind `too_slow`: as for `join`, or the deadline passed.
        """
        seat = self.join(about, act)
        late = False
        try:
            return seat.future.result(self._timeout)
        except TimeoutError:
            late = True
            raise self._passed() from None
        finally:
            self.leave(seat, late=late)

    async def await_for(self, about: Hashable, act: Callable[[], R]) -> R:
        """As `wait_for`, without blocking the event loop."""
        seat = self.join(about, act)
        late = False
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.wrap_future(seat.future)
        except TimeoutError:
            late = True
            raise self._passed() from None
        finally:
            self.leave(seat, late=late)

    async def await_natively(self, waiting: Callable[[], Awaitable[R]]) -> R:
        """Await a call that needs no thread, until the deadline; it must let no `TimeoutError` out.

        Raises:
            AICacheError: of the kind `too_slow`: it rests, or the deadline passed.
        """
        self.check()
        try:
            async with asyncio.timeout(self._timeout):
                result = await waiting()
        except TimeoutError:
            self.report(late=True)
            raise self._passed() from None
        except self._watched.error:
            self.report(late=False)
            raise
        self.report(late=False)
        return result

    def submit(self, act: Callable[[], R]) -> Seat[R]:
        """Have something else carried out in a thread; it says nothing about the embedder's pace.

        Raises:
            AICacheError: of the kind `too_slow`: all threads are held by calls beyond the deadline, or too many calls
                wait.
        """
        shared = self._shared
        with shared.ready:
            self._refuse_when_stuck(shared)
            return Seat(self._enqueue(shared, _Call(None, act)))

    def leave(self, seat: Seat[R], *, late: bool) -> None:
        """Wait no longer; a call that waits for a thread is dropped with its last caller. `late`: by the deadline."""
        future, call, shared = seat.future, seat.call, self._shared
        if future.done() and not future.cancelled():
            return
        with shared.ready:
            future.cancel()
            if future not in call.seats:  # It has just come back.
                return
            call.seats.remove(future)
            if late and not call.missed:
                call.missed = True
                # What never got a thread says that many ask, not that the embedder is slow.
                if call.started is not None and call.about is not None:
                    shared.rest.late()
            if call.started is None and not call.seats:
                shared.waiting.remove(call)
                _land(shared, call)

    def check(self) -> None:
        """Pass, or refuse, an awaited call. It holds no thread whose return would tell.

        Raises:
            AICacheError: of the kind `too_slow`: the embedder rests.
        """
        with self._shared.ready:
            self._shared.rest.check()

    def report(self, *, late: bool) -> None:
        """Say how an awaited call went."""
        with self._shared.ready:
            if late:
                self._shared.rest.late()
            else:
                self._shared.rest.in_time()

    @property
    def overdue(self) -> int:
        """How many calls run now that have been running for longer than the deadline."""
        shared = self._shared
        with shared.ready:
            return self._count_overdue(shared)

    def close(self) -> None:
        """Let the threads end once they have finished what they are at; calls that still wait fail."""
        shared = self._shared
        with shared.ready:
            shared.closed = True
            waiting = [*shared.waiting]
            shared.waiting.clear()
            seats = [seat for call in waiting for seat in _land(shared, call)]
            shared.ready.notify_all()
        # An error and not `cancel`: to a task, a cancelled future looks like its own cancellation.
        _settle(seats, None, self._too_slow("has been closed"))

    def _start_anew(self) -> None:
        """In a forked child, where only the forking thread goes on: no lock, thread or call of the parent's."""
        self._shared = _Shared(_Rest(self._timeout, self._clock, self._watched), closed=self._shared.closed)

    def _enqueue(self, shared: _Shared[R], call: _Call[R]) -> _Call[R]:
        shared.waiting.append(call)
        if shared.threads < self._count and len(shared.waiting) + len(shared.running) > shared.threads:
            self._start_thread(shared)
        else:
            shared.ready.notify()
        return call

    def _start_thread(self, shared: _Shared[R]) -> None:
        name = f"aicache-{self._watched.name}"
        thread = threading.Thread(target=_work, args=(shared, self._clock), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # No more threads, or the interpreter is about to exit.
            shared.waiting.pop()
            raise self._watched.error(f"the {self._watched.name} got no thread") from error
        shared.threads += 1

    def _refuse_when_stuck(self, shared: _Shared[R]) -> None:
        if shared.closed:
            raise self._too_slow("has been closed")
        if self._count_overdue(shared) >= self._count:
            raise self._too_slow("is still busy with calls that are past their deadline")
        if len(shared.waiting) >= QUEUE_FACTOR * self._count:
            raise self._watched.too_slow(f"too many calls wait for the {self._watched.name}")

    def _count_overdue(self, shared: _Shared[R]) -> int:
        if self._timeout is None:
            return 0
        limit = self._clock.monotonic() - self._timeout
        return sum(call.started is not None and call.started <= limit for call in shared.running)

    def _passed(self) -> AICacheError:
        return self._too_slow(f"gave no {self._watched.result} within {self._timeout:g} s")

    def _too_slow(self, what: str) -> AICacheError:
        return self._watched.too_slow(f"the {self._watched.name} {what}")


class _Rest:
    """Refuses calls for a while after late ones in a row, then lets one through to see. Used under a lock."""

    __slots__ = ("_clock", "_late", "_probe_seconds", "_until", "_watched")

    def __init__(self, timeout: float | None, clock: Clock, watched: Watched) -> None:
        self._watched = watched
        self._clock = clock
        self._late = 0
        self._until = -math.inf
        self._probe_seconds = (timeout or 0.0) + REST_SECONDS

    def check(self) -> None:
        """Pass, or refuse.

        Raises:
            AICacheError: of the kind `too_slow`: the rest is not over, or the first call after it has not come back.
        """
        if self._late < LATE_CALLS:
            return
        now = self._clock.monotonic()
        if now < self._until:
            name = self._watched.name
            raise self._watched.too_slow(
                f"the {name} was too slow several times in a row; it is left alone for a while"
            )
        # This call is the probe. Where it is never heard of again (its task was cancelled), it counts as late.
        self._until = now + self._probe_seconds

    def late(self) -> None:
        """A call passed its deadline."""
        self._late += 1
        self._until = self._clock.monotonic() + REST_SECONDS

    def in_time(self) -> None:
        """A call came back."""
        self._late = 0


def _work(shared: _Shared[R], clock: Clock) -> None:
    """The life of a thread."""
    while (call := _next_call(shared, clock)) is not None:
        result: R | None = None
        error: BaseException | None = None
        try:
            result = call.act()
        except BaseException as raised:  # noqa: BLE001 - it belongs to the callers, not to this thread
            error = raised
        with shared.ready:
            shared.running.discard(call)
            if call.about is not None and not call.missed:
                shared.rest.in_time()
            # Before the callers learn of it: their next call for this text is a new one.
            seats = _land(shared, call)
        _settle(seats, result, error)
        del call, seats, result, error  # The last result must not live on while this thread waits.


def _next_call(shared: _Shared[R], clock: Clock) -> _Call[R] | None:
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


def _land(shared: _Shared[R], call: _Call[R]) -> list[Future[R]]:
    """End the flight: nobody joins it any more. Returns those who waited for it."""
    if call.about is not None:
        shared.flights.pop(call.about, None)
    seats, call.seats = call.seats, []
    return seats


def _settle(seats: list[Future[R]], result: R | None, error: BaseException | None) -> None:
    for seat in seats:
        if not seat.set_running_or_notify_cancel():
            continue
        if error is not None:
            seat.set_exception(error)
        else:
            seat.set_result(result)  # type: ignore[arg-type]  # Without an error there is a result.
