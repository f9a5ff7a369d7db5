"""Updates that could not be written: kept in memory, within bounds, until the store is back."""

from __future__ import annotations

import threading
from asyncio import CancelledError
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from aicache._errors import UnwritableEntryError
from aicache._fork import in_forked_child
from aicache._model import CacheKey, Entry, Selection

__all__ = ["PendingCounts", "PendingUpdate", "PendingUpdates"]

PATIENCE: Final = 3
"""Failed writes in a row after which an update goes to the end, so that one the store rejects does not hold up all."""


@dataclass(frozen=True, slots=True)
class PendingUpdate:
    """An entry to write."""

    entry: Entry
    wants_vector: bool = False
    """It has no vector only because the store or the embedder was down when the answer came."""
    failures: int = 0
    """Failed writes since it last moved to the end."""


@dataclass(frozen=True, slots=True)
class PendingCounts:
    """What became of the updates. Every update kept is waiting, replayed, superseded, expired, forgotten or lost."""

    waiting: int
    """Updates kept now."""
    bytes: int
    """Their weight, as `Entry.weight` has it."""
    replayed: int
    """Updates written later."""
    lost: int
    """Updates that left unwritten: the bounds, or the store refused the entry itself."""


def _go_on() -> bool:
    return True


class PendingUpdates:
    """The newest update of each key, oldest first, at most `max_entries` and `max_bytes`. Safe to use from any thread.

    Beyond the bounds the oldest ones are lost. No lock is held while an update is written, so it may
    overlap with newer answers and with removals; what came last wins, see `supersede` and `forget`.

    Args:
        max_entries: updates kept; 0 keeps none.
        max_bytes: the sum of their `Entry.weight`.
    """

    def __init__(self, *, max_entries: int = 1_000, max_bytes: int = 16 * 2**20) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._updates: OrderedDict[bytes, PendingUpdate] = OrderedDict()
        self._removals: dict[bytes, CacheKey] = {}
        """By digest, keys whose update was forgotten while it was being written: removed before anything is written."""
        self._in_flight: Entry | None = None
        self._direct: dict[bytes, Entry] = {}
        """The newest direct write of each key that has begun and not ended; one that was cleared is not in it."""
        self._draining = False
        self._bytes = 0
        self._replayed = 0
        self._lost = 0
        in_forked_child(self._begin_anew)

    def _begin_anew(self) -> None:
        """In a forked child: what is kept is the parent's business, and the thread that held the lock is not there."""
        self._lock = threading.Lock()
        self._updates.clear()
        self._removals.clear()
        self._direct.clear()
        self._in_flight = None
        self._draining = False
        self._bytes = self._replayed = self._lost = 0

    @property
    def waiting(self) -> bool:
        """True when there is something to drain. Takes no lock."""
        return bool(self._updates) or bool(self._removals)

    @property
    def counts(self) -> PendingCounts:
        """The counters now."""
        with self._lock:
            return PendingCounts(len(self._updates), self._bytes, self._replayed, self._lost)

    def reset_counts(self) -> None:
        """Count from zero again what was replayed and lost."""
        with self._lock:
            self._replayed = self._lost = 0

    # ------------------------------------------------------------------------------------------- coming in

    def add(self, update: PendingUpdate) -> None:
        """Keep an update that could not be written, in place of an older one with its key."""
        with self._lock:
            self._take_out(update.entry.key.digest)
            self._append(update)

    def add_failed(self, update: PendingUpdate) -> None:
        """Keep a direct write that failed, unless it was cleared, or a newer one of its key begun, in the meantime."""
        with self._lock:
            digest = update.entry.key.digest
            if self._direct.get(digest) is update.entry:
                del self._direct[digest]
                self._take_out(digest)
                self._append(update)

    def ended(self, entry: Entry) -> None:
        """A direct write is over, and not to be repeated."""
        with self._lock:
            if self._direct.get(entry.key.digest) is entry:
                del self._direct[entry.key.digest]

    def supersede(self, entry: Entry) -> bool:
        """A newer answer is about to be written directly: the older one must not follow it.

        `add_failed` or `ended` says how it went. True when the older one is being written at this moment and may land
        later: `add` the newer one then, to have it written once more.
        """
        with self._lock:
            key = entry.key
            self._direct[key.digest] = entry
            self._take_out(key.digest)
            self._removals.pop(key.digest, None)
            return self._is_in_flight(key)

    def forget(self, keys: Sequence[CacheKey]) -> None:
        """These entries are unwanted; one that is being written at this moment is removed after it."""
        with self._lock:
            for key in keys:
                self._take_out(key.digest)
                self._direct.pop(key.digest, None)
                if self._is_in_flight(key):
                    self._removals[key.digest] = key

    def clear(self, selection: Selection) -> None:
        """All entries of the selection are unwanted, as in `forget`."""
        with self._lock:
            for digest, update in list(self._updates.items()):
                if selection.covers(update.entry):
                    self._take_out(digest)
            for digest, entry in list(self._direct.items()):
                if selection.covers(entry):
                    del self._direct[digest]
            if self._in_flight is not None and selection.covers(self._in_flight):
                key = self._in_flight.key
                self._removals[key.digest] = key

    def entries(self, selection: Selection) -> list[Entry]:
        """Those of the selection that are on their way: waiting, or being written at this moment."""
        with self._lock:
            entries = {digest: update.entry for digest, update in self._updates.items()} | self._direct
            if self._in_flight is not None:
                entries.setdefault(self._in_flight.key.digest, self._in_flight)
        return [entry for entry in entries.values() if selection.covers(entry)]

    # ------------------------------------------------------------------------------------------- going out

    def drain(
        self,
        write: Callable[[PendingUpdate], None],
        remove: Callable[[CacheKey], None],
        now: float,
        go_on: Callable[[], bool] = _go_on,
    ) -> int:
        """Write what is kept, oldest first; how many were written. Does nothing while another drain is at it.

        An exception of `write` or `remove` ends it and passes through; that update and the rest are kept. Only an
        `UnwritableEntryError` does not: that update is lost.

        Args:
            write: writes one update.
            remove: removes the entry of a key.
            now: wall-clock seconds; an update expired by then is dropped.
            go_on: asked before each; False ends it.
        """
        rounds = self._rounds(now, go_on)
        try:
            found = next(rounds)
            while True:
                try:
                    remove(found) if isinstance(found, CacheKey) else write(found)
                except BaseException as error:  # noqa: BLE001 - the round decides what becomes of it
                    found = rounds.throw(error)
                else:
                    found = next(rounds)
        except StopIteration as stop:
            written: int = stop.value
            return written

    async def adrain(
        self,
        write: Callable[[PendingUpdate], Awaitable[None]],
        remove: Callable[[CacheKey], Awaitable[None]],
        now: float,
        go_on: Callable[[], bool] = _go_on,
    ) -> int:
        """As `drain`, without blocking the event loop; a cancelled one keeps what it was writing."""
        rounds = self._rounds(now, go_on)
        try:
            found = next(rounds)
            while True:
                try:
                    await (remove(found) if isinstance(found, CacheKey) else write(found))
                except BaseException as error:  # noqa: BLE001 - the round decides what becomes of it
                    found = rounds.throw(error)
                else:
                    found = next(rounds)
        except StopIteration as stop:
            written: int = stop.value
            return written

    def _rounds(self, now: float, go_on: Callable[[], bool]) -> Generator[PendingUpdate | CacheKey, None, int]:
        """What is to be written or removed, one after the other; a failure is thrown in. Returns how many landed."""
        if not self._begin():
            return 0
        written = 0
        try:
            while go_on() and (found := self._next(now)) is not None:
                if isinstance(found, CacheKey):
                    yield found
                    self._removed(found)
                    continue
                try:
                    yield found
                except BaseException as error:
                    self._came_back(found, error)
                    if not isinstance(error, UnwritableEntryError):
                        raise
                else:
                    self._landed()
                    written += 1
        finally:
            self._end()
        return written

    def _begin(self) -> bool:
        with self._lock:
            if self._draining:
                return False
            self._draining = True
            return True

    def _end(self) -> None:
        with self._lock:
            self._draining = False

    def _next(self, now: float) -> PendingUpdate | CacheKey | None:
        """What to do next; an update leaves the queue and is in flight until it has landed or come back."""
        with self._lock:
            if self._removals:
                return next(iter(self._removals.values()))
            while self._updates:
                update = self._take_out(next(iter(self._updates)))
                assert update is not None
                expires = update.entry.expires
                if expires is None or expires > now:
                    self._in_flight = update.entry
                    return update
            return None

    def _landed(self) -> None:
        with self._lock:
            self._in_flight = None
            self._replayed += 1

    def _came_back(self, update: PendingUpdate, error: BaseException) -> None:
        with self._lock:
            self._in_flight = None
            key = update.entry.key
            if isinstance(error, UnwritableEntryError):
                self._lost += 1
            elif key.digest not in self._removals and key.digest not in self._updates:
                # Cancellation says nothing against the update.
                failures = update.failures + (not isinstance(error, CancelledError))
                to_end = failures >= PATIENCE
                self._append(replace(update, failures=0 if to_end else failures), first=not to_end)

    def _removed(self, key: CacheKey) -> None:
        with self._lock:
            self._removals.pop(key.digest, None)

    # ------------------------------------------------------------------------------------------- the queue

    def _is_in_flight(self, key: CacheKey) -> bool:
        return self._in_flight is not None and self._in_flight.key.digest == key.digest

    def _append(self, update: PendingUpdate, *, first: bool = False) -> None:
        digest = update.entry.key.digest
        self._updates[digest] = update
        if first:
            self._updates.move_to_end(digest, last=False)
        self._bytes += update.entry.weight
        while len(self._updates) > self._max_entries or self._bytes > self._max_bytes:
            self._take_out(next(iter(self._updates)))
            self._lost += 1

    def _take_out(self, digest: bytes) -> PendingUpdate | None:
        update = self._updates.pop(digest, None)
        if update is not None:
            self._bytes -= update.entry.weight
        return update
