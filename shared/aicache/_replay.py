"""Writing what could not be written: beside the requests, once the store answers again."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
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


class Embeds(Protocol):
    """The vector of a text, blocking or awaited."""

    def embed(self, text: str, /) -> Embedded:
        """The vector of the text, and its space."""

    async def aembed(self, text: str, /) -> Embedded:
        """The same without blocking the loop."""


class Replay:
    """Writes pending updates when told that the store is back, in a worker thread or as a task of the running loop.

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
        "_native",
        "_not_before",
        "_scheduled",
        "_slow_after",
        "_store",
        "_store_breaker",
        "_tasks",
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
        self._tasks: set[asyncio.Task[None]] = set()
        """An event loop holds its tasks weakly only."""
        in_forked_child(self._begin_anew)

    def _begin_anew(self) -> None:
        """In a forked child: the thread or task that was at it is not there."""
        self._scheduled = False
        self._tasks.clear()

    def wake(self) -> None:
        """The store has just answered: replay in a worker, unless that is under way or failed a moment ago."""
        if self._is_due():
            self._scheduled = True
            self._workers.executor().submit(self._replay)

    def wake_on_loop(self) -> None:
        """As `wake`, from an event loop: a store with an async half is written to from there."""
        if self._native is None:
            self.wake()
        elif self._is_due():
            self._scheduled = True
            task = asyncio.get_running_loop().create_task(self._areplay(self._native))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def close(self) -> None:
        """Write what is kept if the store takes it, for a second at the most; then no more."""
        self._closed = True
        if self.pending.waiting:
            until = self._clock.monotonic() + LAST_SECONDS
            self._replay(lambda: self._clock.monotonic() < until)

    def _ended(self, task: asyncio.Task[None]) -> None:
        # Here and not in the coroutine: one that is cancelled before it has begun never runs its `finally`.
        self._tasks.discard(task)
        self._scheduled = False

    def _is_due(self) -> bool:
        # A race schedules two; the second finds a drain under way and ends.
        return not (self._scheduled or self._closed or self._clock.monotonic() < self._not_before)

    def _replay(self, go_on: Callable[[], bool] | None = None) -> None:
        try:
            written = self.pending.drain(self._write, self._remove, self._clock.wall(), go_on or self._open)
        except CONTROL:
            raise
        except BaseException as error:  # noqa: BLE001 - nobody waits for this; what is left is kept
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
