"""Updates that could not be written: kept in memory, within bounds, until the store is back."""

from __future__ import annotations

import threading
from asyncio import CancelledError
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
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
    again: bool = False
    """It is written once more since an older one may have landed after it. If it cannot be, the older one must go."""


@dataclass(frozen=True, slots=True)
class PendingCounts:
    """What became of the updates. Every update kept is waiting, replayed, superseded, expired, forgotten or lost."""

    waiting: int
    """Updates kept now; also the one that is being written."""
    bytes: int
    """Their weight, as `Entry.weight` has it, without the one that is being written."""
    replayed: int
    """Updates written later."""
    lost: int
    """Updates that left unwritten: the bounds, or the store refused the entry itself."""


def _go_on() -> bool:
    return True


def _unheard(what: object) -> None:
    """What is called when nobody wants to hear of it."""


@dataclass(slots=True, eq=False)
class _Direct:
    """One direct write: over when its call has ended and its caller has heard of it, or waits no longer."""

    update: PendingUpdate
    started: bool = False
    """The store was asked."""
    calling: bool = True
    """Its call may still be carried out."""
    awaited: bool = True
    """Its caller has not yet said what is to become of it."""


@dataclass(slots=True, eq=False)
class _DirectWrites:
    """The direct writes of one key that are not over, and what the store must hold once their calls have ended."""

    newest: PendingUpdate | None
    """The last answer given; None when it was cleared."""
    writes: list[_Direct] = field(default_factory=list)
    unsettled: bool = False
    """A call may have landed after what came later: that is to be done once more."""
    owes_removal: bool = False
    """What the store holds was to be removed; a write that lands replaces it, which does as well."""

    def find(self, entry: Entry) -> _Direct | None:
        return next((write for write in self.writes if write.update.entry is entry), None)


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
        self.on_written: Callable[[PendingUpdate], None] = _unheard
        """Told of each update that a drain has written."""
        self.on_removed: Callable[[CacheKey], None] = _unheard
        """Told of each key that a drain has removed."""
        self._lock = threading.Lock()
        self._updates: OrderedDict[bytes, PendingUpdate] = OrderedDict()
        self._removals: dict[bytes, CacheKey] = {}
        """By digest, keys whose update was forgotten while it was being written: removed before anything is written."""
        self._in_flight: Entry | None = None
        self._removing: CacheKey | None = None
        self._direct: dict[bytes, _DirectWrites] = {}
        self._draining = False
        self._on_loop: Generator[PendingUpdate | CacheKey, None, int] | None = None
        """The rounds of the newest drain that awaits its writes."""
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
        self._in_flight = self._removing = None
        self._draining = False
        self._on_loop = None
        self._bytes = self._replayed = self._lost = 0

    @property
    def waiting(self) -> bool:
        """True when there is something to drain. Takes no lock."""
        return bool(self._updates) or bool(self._removals)

    @property
    def counts(self) -> PendingCounts:
        """The counters now."""
        with self._lock:
            return PendingCounts(
                len(self._updates) + (self._in_flight is not None), self._bytes, self._replayed, self._lost
            )

    def reset_counts(self) -> None:
        """Count from zero again what was replayed and lost."""
        with self._lock:
            self._replayed = self._lost = 0

    # ------------------------------------------------------------------------------------------- coming in

    def add(self, update: PendingUpdate) -> None:
        """Keep an update that could not be written, in place of an older one with its key."""
        with self._lock:
            if (direct := self._direct.get(update.entry.key.digest)) is not None:
                direct.newest = update
            self._take_out(update.entry.key.digest)
            self._append(update)

    def supersede(self, entry: Entry, *, wants_vector: bool = False) -> bool:
        """A newer answer is about to be written directly: no older one must follow it.

        The write is under way from now on. `begins` and then `ended` or `stopped` say how its call goes, `add_failed`
        or `left` that its caller waits no longer for one that did not land. True when an older update is being written
        at this moment and may land later: the newer one is then written once more, after its call.
        """
        update = PendingUpdate(entry, wants_vector)
        with self._lock:
            digest = entry.key.digest
            direct = self._direct.setdefault(digest, _DirectWrites(update))
            direct.newest = update
            direct.writes.append(_Direct(update))
            self._take_out(digest)
            if self._removals.pop(digest, None) is not None:
                direct.owes_removal = True
            overtakes = self._is_in_flight(entry.key)
            if overtakes or (self._removing is not None and self._removing.digest == digest):
                direct.unsettled = True
            return overtakes

    def begins(self, entry: Entry) -> bool:
        """The store is about to be asked to write it. False: nobody waits for that any longer, it must not be."""
        with self._lock:
            found = self._find(entry)
            if found is None or not found[1].calling:
                return False
            found[1].started = True
            return True

    def ended(self, entry: Entry) -> bool:
        """A direct write has landed, and is over. True when something is to be done now because of it."""
        with self._lock:
            found = self._find(entry)
            if found is None:
                return False
            direct, write = found
            direct.owes_removal = False
            write.awaited = False
            return self._call_ended(direct, write)

    def stopped(self, entry: Entry) -> bool:
        """The call of a direct write has ended otherwise; it may have landed. True as for `ended`."""
        with self._lock:
            found = self._find(entry)
            return found is not None and self._call_ended(*found)

    def left(self, entry: Entry) -> None:
        """The caller of a direct write waits no longer; if its call goes on, `ended` or `stopped` follows later."""
        with self._lock:
            self._leave(entry)

    def add_failed(self, update: PendingUpdate) -> None:
        """As `left`, and keep the update, unless it was cleared, or a newer one of its key begun, in the meantime.

        Its call may go on: what lands twice is the same entry.
        """
        with self._lock:
            direct = self._leave(update.entry)
            if direct is not None and direct.newest is not None and direct.newest.entry is update.entry:
                digest = update.entry.key.digest
                # It may be there to be written again, which says more.
                if digest not in self._updates:
                    self._append(update)

    def forget(self, keys: Sequence[CacheKey]) -> None:
        """These entries are unwanted; one whose write is under way at this moment is removed after it."""
        with self._lock:
            for key in keys:
                self._take_out(key.digest)
                if (direct := self._direct.get(key.digest)) is not None:
                    direct.newest = None
                if self._is_in_flight(key):
                    self._removals[key.digest] = key

    def clear(self, selection: Selection) -> None:
        """All entries of the selection are unwanted, as in `forget`."""
        with self._lock:
            for digest, update in list(self._updates.items()):
                if selection.covers(update.entry):
                    self._take_out(digest)
            for direct in self._direct.values():
                if direct.newest is not None and selection.covers(direct.newest.entry):
                    direct.newest = None
            if self._in_flight is not None and selection.covers(self._in_flight):
                key = self._in_flight.key
                self._removals[key.digest] = key

    def entries(self, selection: Selection) -> list[Entry]:
        """Those of the selection that are on their way: waiting, or being written at this moment."""
        with self._lock:
            entries = {digest: update.entry for digest, update in self._updates.items()}
            for digest, direct in self._direct.items():
                if direct.newest is not None:
                    entries[digest] = direct.newest.entry
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
            self._on_loop = rounds
            while True:
                try:
                    await (remove(found) if isinstance(found, CacheKey) else write(found))
                except BaseException as error:  # noqa: BLE001 - the round decides what becomes of it
                    found = rounds.throw(error)
                else:
                    found = next(rounds)
        except StopIteration as stop:
            written: int = stop.value or 0  # None once it was taken back.
            return written

    def take_back(self) -> None:
        """End the drain of `adrain`, if there is one: what it is writing is kept again, and it takes no more.

        For a drain whose event loop will not go on with it.
        """
        rounds, self._on_loop = self._on_loop, None
        if rounds is not None:
            with suppress(CancelledError, ValueError):  # ValueError: it is just going on by itself.
                rounds.throw(CancelledError())

    def _rounds(self, now: float, go_on: Callable[[], bool]) -> Generator[PendingUpdate | CacheKey, None, int]:
        """What is to be written or removed, one after the other; a failure is thrown in. Returns how many landed."""
        if not self._begin():
            return 0
        written = 0
        try:
            while go_on() and (found := self._next(now)) is not None:
                if isinstance(found, CacheKey):
                    try:
                        yield found
                    except BaseException:
                        self._not_removed(found)
                        raise
                    self._removed(found)
                    continue
                try:
                    yield found
                except BaseException as error:
                    self._came_back(found, error)
                    if not isinstance(error, UnwritableEntryError):
                        raise
                else:
                    self._landed(found)
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
                # Not in it while it is carried out: another one may become due meanwhile.
                self._removing = self._removals.pop(next(iter(self._removals)))
                return self._removing
            while self._updates:
                update = self._take_out(next(iter(self._updates)))
                assert update is not None
                expires = update.entry.expires
                if expires is None or expires > now:
                    self._in_flight = update.entry
                    return update
                if update.again:
                    self._removing = update.entry.key
                    return self._removing
            return None

    def _landed(self, update: PendingUpdate) -> None:
        with self._lock:
            self._in_flight = None
            self._replayed += 1
        self.on_written(update)

    def _came_back(self, update: PendingUpdate, error: BaseException) -> None:
        with self._lock:
            self._in_flight = None
            digest = update.entry.key.digest
            direct = self._direct.get(digest)
            overtaken = direct is not None and (direct.newest is None or direct.newest.entry is not update.entry)
            if isinstance(error, UnwritableEntryError):
                self._lose(update)
            elif not overtaken and digest not in self._removals and digest not in self._updates:
                # Cancellation says nothing against the update.
                failures = update.failures + (not isinstance(error, CancelledError))
                to_end = failures >= PATIENCE
                self._append(replace(update, failures=0 if to_end else failures), first=not to_end)

    def _removed(self, key: CacheKey) -> None:
        with self._lock:
            self._removing = None
        self.on_removed(key)

    def _not_removed(self, key: CacheKey) -> None:
        with self._lock:
            self._removing = None
            self._removals.setdefault(key.digest, key)

    # --------------------------------------------------------------------------------------- direct writes

    def _find(self, entry: Entry) -> tuple[_DirectWrites, _Direct] | None:
        direct = self._direct.get(entry.key.digest)
        write = None if direct is None else direct.find(entry)
        return None if direct is None or write is None else (direct, write)

    def _leave(self, entry: Entry) -> _DirectWrites | None:
        """The caller waits no longer; a call that has not begun never will."""
        found = self._find(entry)
        if found is None:
            return None
        direct, write = found
        write.awaited = False
        if write.started:
            self._drop_if_over(direct, write)
        else:
            self._call_ended(direct, write)
        return direct

    def _call_ended(self, direct: _DirectWrites, write: _Direct) -> bool:
        """Nothing more comes of this call. With the last one of its key, see to it that the latest word holds."""
        write.calling = False
        if write.started and direct.newest is not write.update:
            direct.unsettled = True
        self._drop_if_over(direct, write)
        if any(other.calling for other in direct.writes):
            return False
        key = write.update.entry.key
        removes = direct.owes_removal or (direct.unsettled and direct.newest is None)
        if removes:
            self._removals[key.digest] = key
        writes = direct.newest if direct.unsettled else None
        if writes is not None:
            self._take_out(key.digest)
            self._append(replace(writes, again=True))
        direct.owes_removal = direct.unsettled = False
        return removes or writes is not None

    def _drop_if_over(self, direct: _DirectWrites, write: _Direct) -> None:
        if not write.calling and not write.awaited:
            direct.writes.remove(write)
            if not direct.writes:
                del self._direct[write.update.entry.key.digest]

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
            victim = self._take_out(next(iter(self._updates)))
            assert victim is not None
            self._lose(victim)

    def _lose(self, update: PendingUpdate) -> None:
        self._lost += 1
        if update.again:
            self._removals[update.entry.key.digest] = update.entry.key

    def _take_out(self, digest: bytes) -> PendingUpdate | None:
        update = self._updates.pop(digest, None)
        if update is not None:
            self._bytes -= update.entry.weight
        return update
