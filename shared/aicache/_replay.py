"""Writing what could not be written: beside the requests, once the store answers again."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol

from aicache._breaker import Breaker
from aicache._clock import Clock
from aicache._errors import CONTROL
from aicache._fork import in_forked_child
from aicache._model import CacheKey, Entry
from aicache._pending import PendingUpdate, PendingUpdates
from aicache._steps import Embedded
from aicache._workers import Workers
from aicache.stores.base import AsyncStore, Store

__all__ = ["Replay"]

_log: Final = logging.getLogger("aicache")

REST_SECONDS: Final = 1.0
"""How long a replay that failed waits for the next success to try again: a full store reads well and writes badly."""
LAST_SECONDS: Final = 1.0
"""How long closing a cache may take to write what is still kept."""
LOOPS_LOST: Final = 2
"""Event loops in a row that ended during a replay, after which a worker does it: there may be a loop for each call."""


class Embeds(Protocol):
    """The vector of a text, blocking or awaited."""

    def embed(self, text: str, /) -> Embedded:
        """The vector of the text, and its space."""

    async def aembed(self, text: str, /) -> Embedded:
        """The same without blocking the loop."""


class Replay:
    """Writes pending updates when told that the store is back, in a worker thread or as a task of the running loop.

    A task whose loop was closed or stopped goes on no more: its replay is over, and the next one takes up what it left.

    Args:
        pending: what is kept.
        store, native: where it goes; the second is None where the store has no async half.
        embedding: makes the vectors that were not made during an outage; None for none.
        store_breaker, embed_breaker: asked before each call, told of it after.
        workers: the threads.
        clock: where time comes from.
        slow_after: seconds after which a write counts as failed; None for never.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_closed",
        "_embed_breaker",
        "_embedding",
        "_lock",
        "_loops_lost",
        "_native",
        "_not_before",
        "_scheduled",
        "_slow_after",
        "_store",
        "_store_breaker",
        "_task",
        "_workers",
        "pending",
    )

    def __init__(
        self,
        pending: PendingUpdates,
        *,
        store: Store,
        native: AsyncStore | None,
        embedding: Embeds | None,
        store_breaker: Breaker,
        embed_breaker: Breaker,
        workers: Workers,
        clock: Clock,
        slow_after: float | None,
    ) -> None:
        self.pending = pending
        self._store = store
        self._native = native
        self._embedding = embedding
        self._store_breaker = store_breaker
        self._embed_breaker = embed_breaker
        self._workers = workers
        self._clock = clock
        self._slow_after = math.inf if slow_after is None else slow_after
        self._not_before = -math.inf
        self._scheduled = False
        self._closed = False
        self._lock = threading.Lock()
        """Held to begin or end a replay, not during one."""
        self._task: asyncio.Task[None] | None = None
        """The replay on a loop, which holds its tasks weakly only."""
        self._loops_lost = 0
        in_forked_child(self._begin_anew)

    def _begin_anew(self) -> None:
        """In a forked child: the thread or task that was at it is not there."""
        self._lock = threading.Lock()
        self._scheduled = False
        self._task = None

    @property
    def unfinished(self) -> bool:
        """Whether `wake` has something to do or to look after. Takes no lock."""
        return self._task is not None or self.pending.waiting

    def wake(self) -> None:
        """The store has just answered: replay in a worker, unless that is under way or failed a moment ago."""
        if self._begin():
            self._replay_in_worker()

    def wake_on_loop(self) -> None:
        """As `wake`, from an event loop: a store with an async half is written to from there."""
        if self._native is None:
            self.wake()
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # A coroutine that is thrown away after its loop has ended: the next call does it.
            return
        if not self._begin():
            return
        if self._loops_lost >= LOOPS_LOST:
            self._replay_in_worker()
        else:
            self._task = loop.create_task(self._areplay(self._native))
            self._task.add_done_callback(self._ended)

    def close(self) -> None:
        """Write what is kept if the store takes it, then no more. Takes a second at the most, even if the store hangs.

        What is being written from an event loop is written again: the loop may be the one that waits for this.
        """
        self._closed = True
        with self._lock:
            self._drop_task()
        if self.pending.waiting:
            until = self._clock.monotonic() + LAST_SECONDS
            try:
                last = self._workers.executor().submit(self._replay, lambda: self._clock.monotonic() < until)
            except RuntimeError as error:  # No thread; and here a store that hangs would hold up the program.
                self._failed(error)
            else:
                wait((last,), LAST_SECONDS)
                last.cancel()

    # ------------------------------------------------------------------------------------- beginning and ending

    def _begin(self) -> bool:
        """Whether to replay now; who is told so does it."""
        if self._closed or self._clock.monotonic() < self._not_before:
            return False
        with self._lock:
            if self._task is not None and not self._task.get_loop().is_running():
                self._drop_task()
                self._loops_lost += 1
                self._scheduled = False
            if self._scheduled or not self.pending.waiting:
                return False
            self._scheduled = True
            return True

    def _replay_in_worker(self) -> None:
        try:
            self._workers.executor().submit(self._replay)
        except RuntimeError as error:  # The system has no thread to give. Whoever woke us had an answer and keeps it.
            self._scheduled = False
            self._failed(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        # Here and not in the coroutine: one that is cancelled before it has begun never runs its `finally`.
        with self._lock:
            if task is self._task:
                self._task = None
                self._scheduled = False
                self._loops_lost = self._loops_lost + 1 if task.cancelled() else 0

    def _drop_task(self) -> None:
        """Have the replay on a loop write nothing more, whatever becomes of that loop."""
        task, self._task = self._task, None
        if task is not None:
            self.pending.take_back()
            with suppress(RuntimeError):  # A closed loop, which goes on with nothing.
                task.get_loop().call_soon_threadsafe(task.cancel)

    def _replay(self, go_on: Callable[[], bool] | None = None) -> None:
        try:
            written = self.pending.drain(self._write, self._remove, self._clock.wall(), go_on or self._open)
        except CONTROL:
            raise
        except BaseException as error:  # noqa: BLE001 - nobody waits for this; what is left is kept
            self._loops_lost = 0  # The other half of the store may do better.
            self._failed(error)
        else:
            self._say(written)
        finally:
            self._scheduled = False

    async def _areplay(self, native: AsyncStore) -> None:
        async def write(update: PendingUpdate) -> None:
            entry = await self._acompleted(update)
            with self._store_breaker.enter(self._slow_after):
                await native.awrite(entry)

        async def remove(key: CacheKey) -> None:
            with self._store_breaker.enter(self._slow_after):
                await native.aremove((key,))

        try:
            written = await self.pending.adrain(write, remove, self._clock.wall(), self._open)
        except CONTROL:
            raise
        except BaseException as error:  # noqa: BLE001 - nobody waits for this; what is left is kept
            self._failed(error)
        else:
            self._say(written)

    def _open(self) -> bool:
        return not self._closed

    def _write(self, update: PendingUpdate) -> None:
        entry = self._completed(update)
        with self._store_breaker.enter(self._slow_after):
            self._store.write(entry)

    def _remove(self, key: CacheKey) -> None:
        with self._store_breaker.enter(self._slow_after):
            self._store.remove((key,))

    # ----------------------------------------------------------------------------------- missing vectors

    def _completed(self, update: PendingUpdate) -> Entry:
        """The entry, with the vector that was not made while the store was down; without it if that fails now."""
        if not update.wants_vector or self._embedding is None:
            return update.entry
        try:
            with self._embed_breaker.enter():
                return _with_vector(update.entry, self._embedding.embed(update.entry.query))
        except Exception:  # noqa: BLE001 - as in an update: the entry is then matched exactly
            return update.entry

    async def _acompleted(self, update: PendingUpdate) -> Entry:
        if not update.wants_vector or self._embedding is None:
            return update.entry
        try:
            with self._embed_breaker.enter():
                return _with_vector(update.entry, await self._embedding.aembed(update.entry.query))
        except Exception:  # noqa: BLE001 - as in an update: the entry is then matched exactly
            return update.entry

    # ------------------------------------------------------------------------------------------- saying so

    def _failed(self, error: BaseException) -> None:
        self._not_before = self._clock.monotonic() + REST_SECONDS
        _log.debug("kept answers could not be written yet (%s)", type(error).__name__)

    def _say(self, written: int) -> None:
        if written:
            _log.info("%d answers that could not be written before are written now", written)


def _with_vector(entry: Entry, embedded: Embedded) -> Entry:
    return replace(entry, space=embedded.space, vector=embedded.vector)
